"""How to bring a network that learned on small squares to the full size: ways to go on from the same place.

    python benchmarks/bench_full_size.py --photos FOLDER [--size 224] [--side 128] [--epochs 7] [--arch resnet18]
                                         [--seeds 0 1 2] [--split FILE.csv]

A network trains from random weights on squares of `--side` pixels, as `fast` does. What it has learned then is
validated on squares of `--size` as it is, after an epoch there for the head and the norms alone, and after an epoch
for all layers at a third of the rate. Adds lines to benchmarks/results/full_size.csv.
"""

import argparse
import csv
import warnings
from copy import deepcopy
from pathlib import Path
from time import perf_counter

HERE = Path(__file__).parent
COLUMNS = 'arch', 'split', 'seed', 'way', 'side', 'epochs', 'error', 'valid_loss', 'seconds'


def ways(args, seed, parts):
    "Name, side of the squares, epochs, validation error, validation loss and seconds of each way."
    import torch
    from fastai.torch_core import set_seed

    from cloud_classifier.cache import PhotoCache
    from cloud_classifier.images import Preprocess
    from cloud_classifier.learner import at_size, cloud_dls, cloud_learner
    from cloud_classifier.recipes import AverageWeights, speed_callbacks

    device = torch.device('cpu')
    set_seed(seed, reproducible=True)
    full = cloud_dls(parts, Preprocess(args.size), 'weighted', 32, seed, 0, PhotoCache(), device=device, progress=False)
    small = at_size(full, args.side)
    learn = cloud_learner(full, args.arch, weights='none', cbs=speed_callbacks('fp32', device))
    for layer in learn.model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0
    average = AverageWeights(0.98)  # validates itself, and leaves the network as it was
    learn.add_cb(average)

    def fit(dls, epochs, lr, frozen=False):
        learn.dls = dls
        learn.freeze() if frozen else learn.unfreeze()
        start = perf_counter()
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(epochs, lr)
        loss, error = learn.recorder.values[-1][1:3]
        return error, loss, perf_counter() - start

    yield 'small squares', args.side, args.epochs, *fit(small, args.epochs, 1e-3)
    then = deepcopy((learn.model.state_dict(), average.state(), learn.opt.state_dict()))
    learn.dls = full
    with learn.no_bar(), learn.no_logging():
        loss, error = learn.validate()
    yield 'as it is', args.size, 0, error, loss, 0
    for name, lr, frozen in (('head and norms', 1e-3, True), ('all layers', 3e-4, False)):
        weights, averaged, optimiser = deepcopy(then)
        learn.model.load_state_dict(weights)
        average.restore(averaged)
        learn.opt.load_state_dict(optimiser)
        yield name, args.size, 1, *fit(full, 1, lr, frozen)


def main():
    warnings.filterwarnings('ignore')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photos', required=True)
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--side', type=int, default=128)
    parser.add_argument('--epochs', type=int, default=7)
    parser.add_argument('--arch', default='resnet18')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--split')
    args = parser.parse_args()

    from cloud_classifier.dataset import Dataset
    from cloud_classifier.sampling import load_split, split

    dataset = Dataset(args.photos)
    parts = (
        load_split(args.split, dataset.path)
        if args.split
        else split(dataset, scan=dataset.scan(progress=False), progress=False)
    )
    file = HERE / 'results' / 'full_size.csv'
    new = not file.exists()
    with open(file, 'a', newline='') as f:
        writer = csv.writer(f, lineterminator='\n')
        if new:
            writer.writerow(COLUMNS)
        for seed in args.seeds:
            for name, side, epochs, error, loss, seconds in ways(args, seed, parts):
                row = (
                    args.arch,
                    parts.hash[:12],
                    seed,
                    name,
                    side,
                    epochs,
                    f'{error:.4f}',
                    f'{loss:.3f}',
                    round(seconds),
                )
                print(*row, flush=True)
                writer.writerow(row)
                f.flush()


if __name__ == '__main__':
    main()
