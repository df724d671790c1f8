"""Times training beside the plain fastai recipe and beside the bare step, in one run and by turns (A B A B).

    python benchmarks/bench_train.py [--photos FOLDER] [--train 256] [--valid 64] [--size 224] [--arch resnet34]
                                     [--bs 64] [--epochs 2] [--repeats 3] [--megapixels 12]

Both ways train the same number of photos in the same architecture at the same size, from random weights, with the
same optimiser and augmentation; each turn is a process of its own. The bare step is forward, loss, backward and AdamW
on random numbers that are there already: no photos, no callbacks. With --megapixels the photos are enlarged first, as a
phone takes them. Without --photos, rendered skies. Adds rows to benchmarks/results/train.csv. Ratios hold on other
machines, photos a second do not.
"""

import argparse
import csv
import json
import os
import platform
import random
import shlex
import subprocess
import sys
import tempfile
import warnings
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

HERE = Path(__file__).parent
COLUMNS = (
    'date',
    'machine',
    'command',
    'precision',
    'epoch',
    'plain fastai, photos/s',
    'ours, photos/s',
    'ours over fastai',
    'ours in training alone, photos/s',
    'bare step, photos/s',
    'ours over bare step',
    'slowest and fastest ours over fastai',
)


def lay_out(photos, root, train, valid, megapixels):
    "Folders of classes with `train` + `valid` photos in all, enlarged if asked; their paths."
    from PIL import Image

    from cloud_classifier.samples import make_samples

    if photos:
        classes = sorted(d for d in Path(photos).iterdir() if d.is_dir() and not d.name.startswith('.'))[:10]
        each = -(-(train + valid) // len(classes))
        found = [f for d in classes for f in random.Random(0).sample(sorted(d.iterdir()), each)]
    else:
        make_samples(root / 'rendered', per_genus=-(-(train + valid) // 10), size=400)
        found = [f for f in sorted((root / 'rendered').rglob('*.jpg'))]
    random.Random(1).shuffle(found)
    for i, file in enumerate(found[: train + valid]):
        copy = root / 'photos' / file.parent.name / f'{i:05}.jpg'
        copy.parent.mkdir(parents=True, exist_ok=True)
        if megapixels:
            side = round((megapixels * 1e6 / 12) ** 0.5)
            Image.open(file).convert('RGB').resize((4 * side, 3 * side)).save(copy, quality=92)
        else:
            copy.write_bytes(file.read_bytes())
    return root / 'photos'


def plain(root, args):
    "What the first notebook does, with random weights: seconds of each epoch, validation included."
    from plain import fit

    files = sorted(Path(root).rglob('*.*'))
    random.Random(42).shuffle(files)
    _, photos, clock = fit({f: f.parent.name for f in files}, args.valid, args.arch, args.size, args.bs, args.epochs)
    return {'seconds': [b - a for a, b in zip(clock.begun, clock.done, strict=True)], 'photos': photos}


def ours(root, args):
    "The same through `train`: seconds of each epoch, and what its diary says of training alone."
    import pandas as pd

    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.sampling import Split
    from cloud_classifier.training.run import train

    scan = Dataset(root).scan(progress=False)
    order = random.Random(42).sample(range(len(scan)), len(scan))
    part = pd.Series('train', scan.index).where(~scan.index.isin(order[: args.valid]), 'valid')
    parts = Split(scan.assign(part=part, group=scan.sha256)[['path', 'label', 'group', 'part']], Path(root))
    run = train(
        root,
        'scratch',
        arch=args.arch,
        size=args.size,
        epochs=args.epochs,
        weights='none',
        parts=parts,
        scan=scan,
        balance=None,
        bs=args.bs,
        cache=True,
        out=Path(root).parent / f'run-{os.getpid()}',
        progress=False,
    )
    history = run.history
    return {
        'seconds': history.seconds.tolist(),
        'photos': args.train // args.bs * args.bs,
        'alone': history.photos_per_second.tolist(),
        'precision': run.metadata['precision'],
        'copies': run.metadata['stages']['set up'],
    }


def bare(root, args):
    "The training step and nothing else, at the precision that ours chose: photos a second."
    import torch
    import torchvision

    from cloud_classifier.training.callbacks import pick_precision

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    torch.backends.cudnn.benchmark = True
    model = getattr(torchvision.models, args.arch)(num_classes=10).to(device, memory_format=torch.channels_last)
    low = pick_precision(model, device) == 'bf16'
    x = torch.randn(args.bs, 3, args.size, args.size, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 10, (args.bs,), device=device)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)

    def step():
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    def steps(n):
        start = perf_counter()
        for _ in range(n):
            step()
        if device.type == 'cuda':
            torch.cuda.synchronize()
        return perf_counter() - start

    n = 50 if device.type == 'cuda' else 3
    steps(3 if device.type == 'cuda' else 1)
    return {'photos_per_second': args.bs * n / steps(n)}


WAYS = {'plain': plain, 'ours': ours, 'bare': bare}


def turn(way, root, arguments):
    "One turn in a process of its own."
    command = [sys.executable, __file__, *arguments, '--turn', way, '--root', str(root)]
    out = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {'CLOUD_CACHE': str(root.parent / 'cache')}
    )
    if out.returncode:
        sys.exit(out.stderr)
    return json.loads(out.stdout.splitlines()[-1])


def machine():
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return f'{os.cpu_count()} cores, {name}, torch {torch.__version__}'


def report(args, arguments):
    with tempfile.TemporaryDirectory() as folder:
        root = lay_out(args.photos, Path(folder), args.train, args.valid, args.megapixels)
        turns = [{way: turn(way, root, arguments) for way in WAYS} for _ in range(args.repeats)]
    rows = []
    for epoch in range(args.epochs):

        def speed(t, way, epoch=epoch):
            return t[way]['photos'] / t[way]['seconds'][epoch]

        fastai, mine = (median(speed(t, way) for t in turns) for way in ('plain', 'ours'))
        ratios = sorted(speed(t, 'ours') / speed(t, 'plain') for t in turns)
        alone = median(t['ours']['alone'][epoch] for t in turns)
        step = median(t['bare']['photos_per_second'] for t in turns)
        over_step = median(t['ours']['alone'][epoch] / t['bare']['photos_per_second'] for t in turns)
        values = (fastai, mine, median(ratios), alone, step, over_step)
        rows.append(
            (
                date.today(),
                machine(),
                shlex.join(['python', 'benchmarks/bench_train.py', *arguments]),
                turns[0]['ours']['precision'],
                epoch,
                *(f'{v:.3g}' for v in values),
                f'{ratios[0]:.3g} to {ratios[-1]:.3g}',
            )
        )
    return rows


def main():
    warnings.filterwarnings('ignore')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photos')
    parser.add_argument('--train', type=int, default=256)
    parser.add_argument('--valid', type=int, default=64)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--arch', default='resnet34')
    parser.add_argument('--bs', type=int, default=64)
    parser.add_argument('--epochs', type=int, default=2)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--megapixels', type=float, default=0)
    parser.add_argument('--turn', choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument('--root', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        print(json.dumps(WAYS[args.turn](args.root, args)))
        return
    rows = report(args, sys.argv[1:])
    file = HERE / 'results' / 'train.csv'
    new = not file.exists()
    with open(file, 'a', newline='') as f:
        writer = csv.writer(f, lineterminator='\n')
        if new:
            writer.writerow(COLUMNS)
        writer.writerows(rows)
    for row in rows:
        print(*(f'{k}: {v}' for k, v in zip(COLUMNS[3:], row[3:], strict=True)), sep='\n', end='\n\n')


if __name__ == '__main__':
    main()
