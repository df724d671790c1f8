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
    'seconds',
    'errors',
    'elapsed',
)


def tries():
    "Name: recipe, balance, what is tried."
    from cloud_classifier.recipes import RECIPES, Cycle, Recipe

    fast, best, scratch = RECIPES['fast'], RECIPES['best'], RECIPES['scratch']

    def sized(lr_small, lr_full, small):
        def cycles(epochs, pretrained):
            first = round(epochs * small)
            return [Cycle(first, lr_small, side=4 / 7), Cycle(epochs - first, lr_full, pct_start=0.1)]

        return Recipe('sized', '', 14, cycles)

    plain = replace(scratch, name='plain')
    return {
        'plain': (plain, 'equal', 'one cycle at 1e-3, cross-entropy: the plain fastai recipe'),
        'two_stage': (RECIPES['two_stage'], 'equal', "the first notebook's"),
        'plain, lr 3e-3': (replace(plain, cycles=lambda e, p: [Cycle(e, 3e-3)]), 'equal', 'a higher rate'),
        'plain, weighted': (plain, 'weighted', 'all photos, rare classes more often'),
        'plain, all': (plain, None, 'all photos as they are'),
        'plain, smoothed': (replace(plain, smoothing=0.1), 'weighted', 'weighted, label smoothing 0.1'),
        'plain, mixup': (replace(plain, mixup=0.2), 'weighted', 'weighted, mixup 0.2'),
        'plain, cutmix': (replace(plain, cutmix=1.0), 'weighted', 'weighted, CutMix 1'),
        'plain, average': (replace(plain, average=0.99), 'weighted', 'weighted, average of weights 0.99'),
        'sized 0.7': (sized(2e-3, 1e-3, 0.7), 'weighted', 'weighted, 0.7 of the epochs on squares of 4/7'),
        'sized 0.7, smoothed': (replace(sized(2e-3, 1e-3, 0.7), smoothing=0.1), 'weighted', 'with label smoothing 0.1'),
        'fast': (fast, 'weighted', 'as it stands'),
        'best': (best, 'weighted', 'as it stands'),
    }


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
        history, said = run.history, run.settings
    error = 1 - accuracy_score(labels, [classes[i] for i in probs.argmax(1)])
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
        f'{error:.4f}',
        len(labels),
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
