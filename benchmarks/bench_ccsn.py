"""What the CCSN database is like: how even its classes are, what is there twice, which labels are doubtful.

    python benchmarks/bench_ccsn.py --photos FOLDER

Copies were judged by eye (tests/ccsn_pairs.csv), in the photos that were at hand; what the search of this package finds
stands beside that. The split is the one of `cloud-classifier split` with seed 42, the queue of issues that of
`cloud-classifier issues`. Writes benchmarks/results/ccsn.csv; takes some minutes.
"""

import argparse
import csv
import platform
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.duplicates import connected_components, find_duplicates
from cloud_classifier.data.issues import label_issues
from cloud_classifier.data.sampling import split
from cloud_classifier.data.verify import verify
from cloud_classifier.training.oof import out_of_fold

HERE = Path(__file__).parent
PAIRS = HERE.parent / 'tests' / 'ccsn_pairs.csv'


def judged(pairs: pd.DataFrame) -> list[tuple[str, int, str]]:
    "What pairs that were judged by eye say: photographs that are there more than once, and under how many labels."
    copies = pairs[pairs.kind != 'burst']
    names = sorted({*copies.a, *copies.b})
    number = {name: i for i, name in enumerate(names)}
    groups = connected_components(len(names), np.array([copies.a.map(number), copies.b.map(number)]).T)
    sizes = Counter(groups)
    labels = {group: {names[i].split('/')[0] for i, o in enumerate(groups) if o == group} for group in sizes}
    torn = [group for group in sizes if len(labels[group]) > 1]
    return [
        ('photographs that are there more than once', len(sizes), 'by eye'),
        ('photos of these', len(names), 'by eye'),
        ('of these photographs under two labels', len(torn), 'by eye'),
        ('photos of those', sum(sizes[o] for o in torn), 'by eye'),
        ('pairs that show one scene a moment apart', int((pairs.kind == 'burst').sum()), 'by eye'),
    ]


def measured(photos: Path) -> list[tuple[str, int, str]]:
    "What the stages of this package find."
    dataset = Dataset(photos)
    classes = Counter(label for _, label in dataset.photos())
    scan = dataset.scan()
    found = find_duplicates(dataset, scan=scan, progress=False)
    parts = split(dataset, seed=42, scan=scan, progress=False).frame.part.value_counts()
    looked = verify(photos, remember=False, progress=False)
    issues = label_issues(dataset, out_of_fold(dataset, progress=False)).kind.value_counts()
    rows = [
        ('photos', sum(classes.values()), 'at hand'),
        ('classes', len(classes), ''),
        ('photos of the smallest class', min(classes.values()), min(classes, key=classes.get)),
        ('photos of the largest class', max(classes.values()), max(classes, key=classes.get)),
        ('photos that can’t be used', len(looked.problems()), 'verify'),
        ('photos with a hint', len(looked.hinted()), 'verify'),
        ('groups of copies found', len(found.groups), 'duplicates'),
        ('of these under two labels', len(found.label_conflicts()), 'duplicates'),
    ]
    rows += [(f'photos to {part}', int(parts[part]), 'split') for part in ('train', 'valid', 'test', 'excluded')]
    return rows + [(f'issues: {kind}', int(n), 'issues') for kind, n in issues.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photos', type=Path, required=True)
    args = parser.parse_args()
    rows = measured(args.photos) + judged(pd.read_csv(PAIRS, comment='#'))
    file = HERE / 'results' / 'ccsn.csv'
    with open(file, 'w', newline='', encoding='utf-8') as f:
        print(f'# {date.today()}, {platform.machine()}, Python {platform.python_version()}', file=f)
        print('# python benchmarks/bench_ccsn.py --photos <CCSN>', file=f)
        csv.writer(f, lineterminator='\n').writerows([('what', 'value', 'from'), *rows])
    print(file.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
