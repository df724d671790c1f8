"""Trains recipes over several seeds on one group-aware split, and records what each came to.

    python benchmarks/bench_recipes.py --photos FOLDER [--only fast best …] [--seeds 3] [--size 128] [--arch resnet18]
                                       [--epochs 14] [--split FILE.csv]

Each line of benchmarks/results/recipes.csv is a run from random weights: what was tried, its seed, its last errors on
the validation and the test part, the epoch and the training seconds after which its validation error was first at
or below each of its own values. Lines that are there already are not run again, so the script may be cut off.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).parent
COLUMNS = (
    'tried',
    'what it is',
    'arch',
    'size',
    'epochs',
    'balance',
    'batch',
    'seed',
    'split',
    'photos',
    'valid_error',
    'lowest_valid_error',
    'test_error',
    'test_photos',
    'test_error_flipped',
    'seconds',
    'errors',
    'elapsed',
)


def tries():
    "Name: recipe, balance, photos in a batch, what is tried."
    from cloud_classifier.training.recipes import RECIPES

    fast = RECIPES['fast']

    def with_(**changes):
        return replace(fast, cycles=lambda *about: [replace(c, **changes) for c in fast.cycles(*about)])

    return {
        'scratch': (RECIPES['scratch'], 'equal', 64, 'the plain fastai recipe: one cycle at 1e-3, dropout in the head'),
        'two_stage': (RECIPES['two_stage'], 'equal', 64, "the first notebook's"),
        'fast': (fast, 'weighted', 32, 'as it stands'),
        'best': (RECIPES['best'], 'weighted', 32, 'as it stands'),
        'small_first': (RECIPES['small_first'], 'weighted', 32, 'as it stands'),
        'fast, equal': (fast, 'equal', 32, 'all classes cut to the rarest'),
        'fast, batches of 64': (fast, 'weighted', 64, 'half as many steps'),
        'fast, batches of 16': (fast, 'weighted', 16, 'twice as many steps'),
        'fast, dropout': (with_(dropout=None), 'weighted', 32, "dropout of fastai's head"),
        'fast, last weights': (replace(fast, average=0), 'weighted', 32, 'no average of the weights'),
        'fast, 3e-3': (with_(lr=3e-3), 'weighted', 32, 'a higher rate'),
        'fast, 5e-4': (with_(lr=5e-4), 'weighted', 32, 'a lower rate'),
        'fast, smoothed': (replace(fast, smoothing=0.1), 'weighted', 32, 'label smoothing 0.1'),
        'fast, mixup': (replace(fast, mixup=0.2), 'weighted', 32, 'mixup 0.2'),
        'fast, cutmix': (replace(fast, cutmix=1.0), 'weighted', 32, 'CutMix 1'),
        'fast, randaugment': (fast, 'weighted', 32, "RandAugment m9 n2 in place of fastai's augmentation"),
    }


def randaugment():
    "A class in place of `learner.ItemAugment`."
    from fastai.vision.core import PILImage
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform

    from cloud_classifier.training.dataloaders import ItemAugment

    class Drawn(ItemAugment):
        def __init__(self):
            super().__init__()
            self.drawn = rand_augment_transform('rand-m9-n2', {})

        def encodes(self, x: Image.Image):
            return PILImage(self.drawn(x))

    return Drawn


def flipped(run, part):
    "Probabilities for the photos of a part, each seen in a mirror."
    import torch
    from fastai.callback.core import Callback

    class Mirror(Callback):
        def before_batch(self):
            self.learn.xb = tuple(x.flip(-1) for x in self.xb)

    learn = run.learner()
    dl = learn.dls.test_dl(run.split.files(part))
    with learn.no_bar(), torch.no_grad(), learn.added_cbs(Mirror()):
        return learn.get_preds(dl=dl)[0].numpy()


def once(args, name, seed, parts, seen):
    from sklearn.metrics import accuracy_score

    from cloud_classifier.training.recipes import RECIPES
    from cloud_classifier.training.run import train

    recipe, balance, bs, why = tries()[name]
    RECIPES['scratch'] = replace(recipe, name='scratch')  # a name that `train` knows
    augment = (
        patch('cloud_classifier.training.dataloaders.ItemAugment', randaugment())
        if 'randaugment' in name
        else nullcontext()
    )
    with tempfile.TemporaryDirectory() as folder, augment:
        run = train(
            args.photos,
            'scratch',
            arch=args.arch,
            size=args.size,
            epochs=args.epochs,
            weights='none',
            parts=parts,
            scan=seen,
            balance=balance,
            bs=bs,
            seed=seed,
            out=Path(folder) / 'run',
            progress=False,
        )
        _, labels, probs, classes, _ = run.predictions('test')
        both = (probs + flipped(run, 'test')) / 2
        history, metadata = run.history, run.metadata

    def error(probs):
        return 1 - accuracy_score(labels, [classes[i] for i in probs.argmax(1)])

    values = (
        name,
        why,
        args.arch,
        args.size,
        args.epochs,
        balance,
        bs,
        seed,
        metadata['split_hash'][:12],
        metadata['trained_on'],
        f'{history.error_rate.iloc[-1]:.4f}',
        f'{history.error_rate.min():.4f}',
        f'{error(probs):.4f}',
        len(labels),
        f'{error(both):.4f}',
        f'{metadata["stages"]["training"]:.0f}',
        json.dumps(history.error_rate.round(4).tolist()),
        json.dumps(history.seconds.cumsum().round(1).tolist()),
    )
    return dict(zip(COLUMNS, values, strict=True))


def main():
    warnings.filterwarnings('ignore')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photos', required=True)
    parser.add_argument('--only', nargs='+')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--size', type=int, default=128)
    parser.add_argument('--arch', default='resnet18')
    parser.add_argument('--epochs', type=int, default=14)
    parser.add_argument('--split')
    args = parser.parse_args()

    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.sampling import load_split, split

    dataset = Dataset(args.photos)
    seen = dataset.scan(progress=False)
    parts = load_split(args.split, dataset.path) if args.split else split(dataset, scan=seen, progress=False)
    file = HERE / 'results' / 'recipes.csv'
    old = list(csv.DictReader(open(file, newline=''))) if file.exists() else []
    done = {tuple(row[k] for k in ('tried', 'arch', 'size', 'epochs', 'seed', 'split')) for row in old}
    if not file.exists():
        with open(file, 'w', newline='') as f:
            csv.writer(f, lineterminator='\n').writerow(COLUMNS)
    for seed in range(args.seeds):
        for name in args.only or tries():
            key = (name, args.arch, str(args.size), str(args.epochs), str(seed), parts.hash[:12])
            if key in done:
                continue
            row = once(args, name, seed, parts, seen)
            with open(file, 'a', newline='') as f:
                csv.DictWriter(f, COLUMNS, lineterminator='\n').writerow(row)
            print(*(row[k] for k in ('tried', 'seed', 'valid_error', 'lowest_valid_error', 'test_error', 'seconds')))
            sys.stdout.flush()
            os.sync()


if __name__ == '__main__':
    main()
