"""Training of all layers through a learner beside the bare step of the same network, by turns (A B A B) in one run.

    python benchmarks/bench_step.py PHOTOS [--arch resnet34 tf_efficientnet_lite0 tf_efficientnet_lite2] [--size 224]
                                    [--bs 32] [--batches 3] [--repeats 3]

The bare step is forward, loss, backward and AdamW on random numbers that are there already, in the same precision, with
the same gradients of depthwise convolutions, channels last. The learner opens photos from their small copies, augments
them and trains with all callbacks. Adds rows to benchmarks/results/step.csv: medians of the turns.
"""

import argparse
import csv
import os
import tempfile
from copy import deepcopy
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

import pandas as pd
import torch
from fastai.callback.core import Callback

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.sampling import Split
from cloud_classifier.training.callbacks import FP32DepthwiseGrad, pick_precision, training_precision
from cloud_classifier.training.dataloaders import PhotoCache, cloud_dls
from cloud_classifier.training.learner import cloud_learner, preprocess_for

COLUMNS = 'date', 'arch', 'size', 'bs', 'precision', 'cores', 'bare step, photos/s', 'ours, photos/s', 'ours over bare'


class Clock(Callback):
    "Seconds of training, validation aside."

    order = 99

    def before_train(self):
        self.start = perf_counter()

    def after_train(self):
        self.seconds = perf_counter() - self.start


def bare(model, size, bs, low):
    "Returns a function that takes a step."
    x = torch.randn(bs, 3, size, size).contiguous(memory_format=torch.channels_last)
    y = torch.randint(0, 2, (bs,))
    model = model.train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-4)

    def step():
        with torch.autocast('cpu', torch.bfloat16, enabled=low), FP32DepthwiseGrad():
            out = model(x)
        torch.nn.functional.cross_entropy(out.float(), y).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def measure(parts, arch, args, cache):
    "One row."
    preprocess = preprocess_for(arch, args.size)
    dls = cloud_dls(parts, preprocess, None, args.bs, cache=PhotoCache(cache), device='cpu', progress=False)
    learn, clock = cloud_learner(dls, arch, 'none'), Clock()
    learn.remove_cb(learn.progress)
    learn.logger = lambda _: None
    precision = pick_precision(learn.model, torch.device('cpu'), args.size)
    step, turns = bare(deepcopy(learn.model), args.size, args.bs, precision == 'bf16'), []
    photos = args.batches * args.bs
    for _ in range(args.repeats + 1):
        start = perf_counter()
        for _ in range(args.batches):
            step()
        seconds = perf_counter() - start
        with training_precision(precision, learn), learn.added_cbs(clock):
            learn.fit(1, 1e-4)
        turns.append((photos / seconds, photos / clock.seconds))
    plain, ours = (median(t) for t in zip(*turns[1:], strict=True))
    ratio = median(b / a for a, b in turns[1:])
    speeds = (f'{v:.3g}' for v in (plain, ours, ratio))
    return date.today(), arch, args.size, args.bs, precision, os.cpu_count(), *speeds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('photos', type=Path)
    parser.add_argument('--arch', nargs='+', default=['resnet34', 'tf_efficientnet_lite0', 'tf_efficientnet_lite2'])
    for name, default in {'size': 224, 'bs': 32, 'batches': 3, 'repeats': 3}.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args()
    scan = Dataset(args.photos).scan(progress=False)
    scan = scan[scan.status == 'ok'].sample(args.batches * args.bs + 8, random_state=0)
    valid = scan[scan.label.duplicated()].index[:8]
    part = pd.Series('train', scan.index).where(~scan.index.isin(valid), 'valid')
    frame = scan.assign(part=part, group=scan.sha256)[['path', 'label', 'sha256', 'group', 'part']]
    file = Path(__file__).parent / 'results' / 'step.csv'
    new = not file.exists()
    with tempfile.TemporaryDirectory() as cache, open(file, 'a', newline='') as f:
        table = csv.writer(f, lineterminator='\n')
        if new:
            table.writerow(COLUMNS)
        for arch in args.arch:
            row = measure(Split(frame, args.photos), arch, args, cache)
            table.writerow(row)
            f.flush()
            print(*row)


if __name__ == '__main__':
    main()
