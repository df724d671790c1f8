"""How far probabilities are off, out of fold, before and after one temperature that the other folds fitted.

    python benchmarks/bench_calibration.py --photos FOLDER --out FOLDS [--arch resnet18] [--size 64] [--epochs 6]

Trains five folds, which may be cut off and gone on with, and judges each by photos that it never saw. Conflicting
copies and the test part are left out, as in training.
"""

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np

COLUMNS = ('arch', 'size', 'epochs', 'photos', 'groups', 'top1', 'when', 'what', 'value', 'low', 'high', 'floor')


def main():
    warnings.filterwarnings('ignore')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photos', required=True)
    parser.add_argument('--out', required=True)
    parser.add_argument('--arch', default='resnet18')
    parser.add_argument('--size', type=int, default=64)
    parser.add_argument('--epochs', type=int, default=6)
    args = parser.parse_args()

    from cloud_classifier.evaluation.calibrate import brier, cross_fitted_temperature, ece
    from cloud_classifier.training.run import cross_validate

    how = {'arch': args.arch, 'size': args.size, 'epochs': args.epochs, 'weights': 'none'}
    table = cross_validate(args.photos, 5, args.out, skip_bad=True, progress=False, **how)
    classes = [o for o in table.columns if o not in ('path', 'label', 'group', 'fold')]
    raw, y = table[classes].to_numpy(), np.array([classes.index(o) for o in table.label])
    cooled, temperatures = cross_fitted_temperature(raw, y, table.fold)
    assert np.array_equal(raw.argmax(1), cooled.argmax(1)), 'a temperature changed an answer'
    about = (args.arch, args.size, args.epochs, len(y), table.group.nunique(), f'{np.mean(raw.argmax(1) == y):.4f}')
    rows = []
    for when, probs in (('before', raw), ('after', cooled)):
        for what, score in (('ece', ece), ('brier', brier)):
            found = score(probs, y, table.group)
            numbers = (f'{found[k]:.4f}' if k in found else '' for k in ('value', 'low', 'high', 'floor'))
            rows.append((*about, when, what, *numbers))
    with open(Path(__file__).parent / 'results' / 'calibration.csv', 'w', newline='') as f:
        writer = csv.writer(f, lineterminator='\n')
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(*rows, 'temperatures', {k: round(v, 3) for k, v in temperatures.items()}, sep='\n')


if __name__ == '__main__':
    main()
