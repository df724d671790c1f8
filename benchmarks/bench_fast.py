"""How long `fast` takes to the lowest validation error that the plain fastai recipe comes to, by turns (A B A B).

    python benchmarks/bench_fast.py --photos FOLDER [--size 128] [--arch resnet18] [--epochs 14] [--seeds 0 1 2]

Both start from random weights, on the same group-aware split. The plain way is a DataBlock as in fastai's first
lessons: all classes cut to the rarest, batches of 64, random crops and `aug_transforms`, one cycle for all layers at
1e-3. `fast` is `train(photos)` as its user calls it, with nothing said but architecture, size, weights, split and seed.
Seconds count from photos and split to the end of an epoch: making loaders, small copies and the network, training, and
validation. Each turn is a process of its own with an empty cache. Adds a line a seed to benchmarks/results/fast.csv.
Ratios hold on other machines, seconds do not.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
COLUMNS = (
    'arch',
    'size',
    'plain epochs',
    'what fast is',
    'split',
    'validation photos',
    'seed',
    "plain's lowest error",
    'plain reached it after, s',
    'fast reached it after, s',
    'fast over plain',
    'errors of plain',
    'elapsed of plain, s',
    'errors of fast',
    'elapsed of fast, s',
)


def plain(args, split_file):
    "What the first notebook does, from random weights: error and seconds since the start after each epoch."
    from fastai.vision.all import set_seed
    from plain import fit

    from cloud_classifier.data.sampling import balance, load_split

    parts = load_split(split_file, args.photos)
    rows, valid = balance(parts.part('train'), 'equal', seed=args.seed), parts.part('valid')
    labels = {parts.root / p: y for part in (rows, valid) for p, y in zip(part.path, part.label, strict=True)}
    set_seed(args.seed)
    start = perf_counter()
    learn, _, clock = fit(labels, len(valid), args.arch, args.size, 64, args.epochs)
    return {'errors': [float(v[-1]) for v in learn.recorder.values], 'elapsed': [t - start for t in clock.done]}


def fast(args, split_file):
    "The same through `train`."
    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.sampling import load_split
    from cloud_classifier.training.run import check_photos, train

    parts = load_split(split_file, args.photos)
    seen = check_photos(Dataset(args.photos), parts.frame[parts.frame.part != 'excluded'], progress=False)
    with tempfile.TemporaryDirectory() as folder:
        run = train(
            args.photos,
            arch=args.arch,
            size=args.size,
            weights='none',
            parts=parts,
            scan=seen,
            seed=args.seed,
            out=Path(folder) / 'run',
            progress=False,
        )
        history, metadata = run.history, run.metadata
    stages = metadata['stages']
    between = stages['training'] - history.seconds.sum()  # loaders and copies for squares of another size, checkpoints
    elapsed = stages['set up'] + between + history.seconds.cumsum()
    cycles = ', '.join(
        f'{c["epochs"]} on {round(c["side"] * args.size)} px{" for the head" * c["frozen"]}' for c in metadata['cycles']
    )
    return {'errors': history.error_rate.tolist(), 'elapsed': elapsed.tolist(), 'cycles': cycles}


WAYS = {'plain': plain, 'fast': fast}


def turn(way, args, seed, split_file):
    "One turn in a process of its own, with an empty cache."
    settings = [f'--{k}={getattr(args, k)}' for k in ('photos', 'size', 'arch', 'epochs')]
    command = [sys.executable, __file__, *settings, f'--seed={seed}', f'--turn={way}', f'--split={split_file}']
    with tempfile.TemporaryDirectory() as cache:
        out = subprocess.run(command, capture_output=True, text=True, env=os.environ | {'CLOUD_CACHE': cache})
    if out.returncode:
        sys.exit(out.stderr)
    return json.loads(out.stdout.splitlines()[-1])


def row(args, seed, parts, split_file):
    a, b = (turn(way, args, seed, split_file) for way in WAYS)
    lowest = min(a['errors'])
    theirs = a['elapsed'][a['errors'].index(lowest)]
    ours = next((t for e, t in zip(b['errors'], b['elapsed'], strict=True) if e <= lowest), None)
    values = (
        args.arch,
        args.size,
        args.epochs,
        b['cycles'],
        parts.hash[:12],
        len(parts.part('valid')),
        seed,
        f'{lowest:.4f}',
        f'{theirs:.0f}',
        'never' if ours is None else f'{ours:.0f}',
        '' if ours is None else f'{ours / theirs:.3f}',
        *(json.dumps([round(v, n) for v in w[k]]) for w in (a, b) for k, n in (('errors', 4), ('elapsed', 1))),
    )
    return dict(zip(COLUMNS, values, strict=True))


def main():
    warnings.filterwarnings('ignore')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photos', required=True)
    parser.add_argument('--size', type=int, default=128)
    parser.add_argument('--arch', default='resnet18')
    parser.add_argument('--epochs', type=int, default=14)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--split')
    parser.add_argument('--seed', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--turn', choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        print(json.dumps(WAYS[args.turn](args, args.split)))
        return

    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.sampling import load_split, save_split, split

    with tempfile.TemporaryDirectory() as folder:
        split_file = args.split or str(Path(folder) / 'split.csv')
        if not args.split:
            dataset = Dataset(args.photos)
            save_split(split(dataset, scan=dataset.scan(progress=False), progress=False), split_file)
        parts = load_split(split_file, args.photos)
        for seed in args.seeds:
            found = row(args, seed, parts, split_file)
            print(*(f'{k}: {v}' for k, v in found.items()), sep='\n', end='\n\n', flush=True)
            file = HERE / 'results' / 'fast.csv'
            new = not file.exists()
            with open(file, 'a', newline='') as f:
                writer = csv.DictWriter(f, COLUMNS, lineterminator='\n')
                if new:
                    writer.writeheader()
                writer.writerow(found)


if __name__ == '__main__':
    main()
