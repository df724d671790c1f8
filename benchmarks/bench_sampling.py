"""Times sampling: beside the first notebook's way, and on a million files.

    python benchmarks/bench_sampling.py [--files 20000] [--repeats 5] [--million 1000000]

The files are empty, in ten folders, made for the occasion and removed afterwards. Two tables are recorded:
benchmarks/results/sampling.csv, `get_equal_images` and the first notebook's own function by turns in one process, from
`--files` files in each of the ten folders, once as it is called and once with every path of the list looked at; and
benchmarks/results/sampling_steps.csv, one process that takes `--million` files through every step, with the most memory
that it ever held. In the second, authors and pages come from a manifest of as many rows, three photos to an author and
two to a page; checksums of the photos are those of their names.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import resource
import shlex
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

from cloud_classifier.taxonomy import GENERA

HERE = Path(__file__).parent


def make(root, files):
    "So many empty files in a folder for each genus."
    for name in GENERA:
        os.makedirs(root / name)
        for i in range(files):
            open(f'{root}/{name}/{i:06}.jpg', 'x').close()


def by_turns(root, repeats):
    "Seconds that each way took, each time."
    from fastai.vision.all import get_image_files

    from cloud_classifier.data.sampling import get_equal_images

    def first_notebook():
        "The first notebook's function, word for word but for its printing."
        fns = []
        min_type = 1e20
        for o in GENERA:
            fns_tmp = get_image_files(root, folders=o)
            if len(fns_tmp) < min_type:
                min_type = len(fns_tmp)
        for o in GENERA:
            fns_tmp = get_image_files(root, folders=o)
            random.shuffle(fns_tmp)
            fns.extend(fns_tmp[:min_type])
        return fns

    ways = {
        'first notebook': first_notebook,
        'ours': lambda: get_equal_images(root, GENERA, seed=42),
        'first notebook, every path looked at': lambda: [p for p in first_notebook()],
        'ours, every path looked at': lambda: [p for p in get_equal_images(root, GENERA, seed=42)],
    }
    taken = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = perf_counter()
            found = way()
            taken[name].append(perf_counter() - start)
            assert len(found) == len(list(GENERA)) * len(os.listdir(root / 'Cirrus'))
            del found
    return taken


def write_manifest(root):
    "A row for each photo, whose authors took three photos each, of which two have a page in common."
    from cloud_classifier.data.dataset import Dataset

    dataset = Dataset(root)
    values = [
        (path, label, hashlib.sha256(path.encode()).hexdigest(), f'author {i // 3}', f'page {i // 2}')
        for i, (path, label) in enumerate(dataset.photos())
    ]
    with dataset.manifest.transaction() as db:
        db.executemany(
            'INSERT INTO photos (path, asked, label, sha256, author, page, status, size) '
            "VALUES (?1, ?2, ?2, ?3, ?4, ?5, 'ok', 0)",
            values,
        )


def scan_of(dataset):
    "What `Dataset.scan` would return, from the manifest alone."
    import pandas as pd

    rows = dataset.manifest.read("SELECT path, label, sha256, status, '' FROM photos ORDER BY path")
    return pd.DataFrame([tuple(row) for row in rows], columns=['path', 'label', 'sha256', 'status', 'reason'])


def steps(root, grouped):
    "Each step's seconds, and the most memory held until its end; one line of JSON a step."
    start = perf_counter()
    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.sampling import (
        balance,
        folds,
        get_equal_images,
        load_split,
        save_split,
        split,
    )

    def done(name):
        nonlocal start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([name, round(perf_counter() - start, 2), round(peak)]), flush=True)
        start = perf_counter()

    done('import')
    file, dataset = root.with_suffix('.csv'), Dataset(root)
    if grouped:
        scan = scan_of(dataset)
        done('read the manifest')
        parts = split(dataset, scan=scan, group_by=('author', 'page'))
        done('split by author and page')
        assert not parts.leaking_groups()
        done('recount the groups')
        return
    listing = dataset.listing()
    done('list')
    get_equal_images(root, seed=42)
    done('get_equal_images')
    for how in ('equal', 'capped', 'weighted'):
        balance(listing, how)
        done(f'balance, {how}')
    parts = split(dataset, group_by=())
    done('split')
    assert not parts.certificate.leaks
    done('certificate')
    save_split(parts, file)
    done('save')
    parts = load_split(file, root)
    done('load')
    assert parts.check() == {}
    done('check')
    folds(parts, 5)
    done('5 folds')
    split(dataset, group_by=(), previous=parts)
    done('split again, as an extension')


def apart(what, root, repeats=0):
    "What a process of its own prints: memory is counted from what a process began with."
    words = [sys.executable, __file__, '--do', what, '--root', root, '--repeats', str(repeats)]
    found = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in found.splitlines()]


def record(name, header, rows):
    file = HERE / 'results' / name
    with open(file, 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        f.write(f'# python benchmarks/{Path(__file__).name} {shlex.join(sys.argv[1:])}\n')
        csv.writer(f, lineterminator='\n').writerows([header, *rows])
    print(file.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--files', type=int, default=20_000, help='files in each of the ten folders; 0 leaves it out')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--million', type=int, default=1_000_000, help='files in all; 0 leaves it out')
    parser.add_argument('--do', choices=['turns', 'steps', 'manifest', 'grouped steps'], help=argparse.SUPPRESS)
    parser.add_argument('--root', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.do == 'turns':
        print(json.dumps(by_turns(args.root, args.repeats)))
    elif args.do == 'manifest':
        write_manifest(args.root)
    elif args.do:
        steps(args.root, grouped=args.do == 'grouped steps')
    else:
        measure(args.files, args.repeats, args.million)


def measure(files, repeats, million):
    with tempfile.TemporaryDirectory() as tmp:
        if files:
            make(Path(tmp) / 'turns', files)
            (taken,) = apart('turns', Path(tmp) / 'turns', repeats)
            rows = []
            for kind in ('', ', every path looked at'):
                theirs, ours = taken[f'first notebook{kind}'], taken[f'ours{kind}']
                for name, each in (('first notebook', theirs), ('ours', ours)):
                    rows.append([name + kind, f'{median(each):.3f}', f'{min(each):.3f}', f'{max(each):.3f}', ''])
                rows[-1][-1] = f'{median(theirs) / median(ours):.2f}'
            record('sampling.csv', ['way', 'median seconds', 'fastest', 'slowest', 'times as fast'], rows)
        if million:
            root = Path(tmp) / 'million'
            make(root, million // 10)
            rows = [['by name', million, *row] for row in apart('steps', root)]
            apart('manifest', root)
            rows += [['by author and page', million, *row] for row in apart('grouped steps', root)]
            record('sampling_steps.csv', ['groups', 'files', 'step', 'seconds', 'most memory so far, MB'], rows)


if __name__ == '__main__':
    main()
