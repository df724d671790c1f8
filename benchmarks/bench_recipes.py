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
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = (
    'tried',
    'what it is',
    'arch',
    'size',
    'epochs',
    'balance',
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
    "Name: recipe, balance, what is tried."
    from cloud_classifier.recipes import RECIPES, Cycle, Recipe

    plain = replace(RECIPES['scratch'], name='plain')

    def sized(lr_small, lr_full, small, **more):
        def cycles(epochs, pretrained):
            first = round(epochs * small)
            return [Cycle(first, lr_small, side=4 / 7), Cycle(epochs - first, lr_full, pct_start=0.1)]

        return Recipe('sized', '', 12, cycles, **more)

    def low(**more):
        return sized(3e-3, 2e-3, 0.7, **more)

    return {
        'plain': (plain, 'equal', 'one cycle at 1e-3, cross-entropy: the plain fastai recipe'),
        'two_stage': (RECIPES['two_stage'], 'equal', "the first notebook's"),
        'plain, weighted': (plain, 'weighted', 'all photos, rare classes more often'),
        'plain, rate 3e-3': (
            replace(plain, cycles=lambda e, p: [Cycle(e, 3e-3)]),
            'weighted',
            'weighted, a higher rate',
        ),
        'small first': (low(), 'weighted', 'weighted, 0.7 of the epochs on squares of 4/7 at 3e-3, then 2e-3'),
        'small first, smoothed': (low(smoothing=0.1), 'weighted', 'small first, label smoothing 0.1'),
        'small first, mixup': (low(mixup=0.2), 'weighted', 'small first, mixup 0.2'),
        'small first, average': (low(average=0.99), 'weighted', 'small first, average of weights 0.99'),
        'fast': (RECIPES['fast'], 'weighted', 'as it stands'),
        'best': (RECIPES['best'], 'weighted', 'as it stands'),
    }


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

    from cloud_classifier.recipes import RECIPES
    from cloud_classifier.train import train

    recipe, balance, why = tries()[name]
    RECIPES['tried'] = replace(recipe, name='tried')
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            args.photos,
            'tried',
            args.arch,
            args.size,
            args.epochs,
            'none',
            parts,
            seen,
            balance=balance,
            bs=args.bs,
            seed=seed,
            out=Path(folder) / 'run',
            progress=False,
        )
        _, labels, probs, classes, _ = run.predictions('test')
        both = (probs + flipped(run, 'test')) / 2
        history, said = run.history, run.settings

    def error(probs):
        return 1 - accuracy_score(labels, [classes[i] for i in probs.argmax(1)])

    values = (
        name,
        why,
        args.arch,
        args.size,
        args.epochs,
        balance or 'none',
        seed,
        said['split_hash'][:12],
        said['trained_on'],
        f'{history.error_rate.iloc[-1]:.4f}',
        f'{history.error_rate.min():.4f}',
        f'{error(probs):.4f}',
        len(labels),
        f'{error(both):.4f}',
        f'{said["stages"]["training"]:.0f}',
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
    parser.add_argument('--bs', type=int, default=32)
    parser.add_argument('--split')
    args = parser.parse_args()

    from cloud_classifier.dataset import Dataset
    from cloud_classifier.sampling import load_split, split

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
