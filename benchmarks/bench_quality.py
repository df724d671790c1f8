"""How good a model is after how many seconds: `cloud-classifier train` as its user calls it, with cold caches.

    python benchmarks/bench_quality.py --photos FOLDER [--seeds 3] [--probe SCRIPT] [--plain 3]

Each seed is a process of its own (imports, scan and split included) with a split of its own; its learner is judged by
its own test part. With --probe a script that takes FOLDER, a split, the number of a lite network and a size is run on
the same split of the first seed; with --plain the first notebook's network (resnet34 from random weights, 224 pixels)
is trained for so many epochs on it. Writes benchmarks/results/quality.csv.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / 'results' / 'quality.csv'


def call(*arguments, cache):
    "Seconds that a process took, start to end, and what it printed."
    start = time.perf_counter()
    environment = dict(os.environ, CLOUD_CACHE=str(cache))
    done = subprocess.run(list(map(str, arguments)), env=environment, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def judged(run):
    "Top-1 and top-3 of a run on its test part, with the interval of the first."
    from cloud_classifier.evaluation.report import Predictions, intervals
    from cloud_classifier.training.run import Run

    found = intervals(Predictions(*Run(run).predictions('test')), 2000, 0)
    top1 = found['top1']
    return dict(top1=top1['value'], low=top1['low'], high=top1['high'], top3=found['top3']['value'])


def trained(photos, place, seed, *arguments):
    run = Path(place) / f'run-{seed}-{len(arguments)}'
    command = [Path(sys.executable).with_name('cloud-classifier'), '-q', 'train', photos, '--seed', seed, '--out', run]
    from cloud_classifier.training.config import flat_metadata, run_metadata

    seconds, _ = call(*command, *arguments, cache=Path(place) / f'cache-{seed}-{len(arguments)}')
    settings = flat_metadata(run_metadata(run))
    about = dict(arch=settings['arch'], recipe=settings['recipe'], size=settings['preprocess']['size'], seed=seed)
    rest = dict(seconds=round(seconds, 1), precision=settings['precision'], trained_on=settings['trained_on'])
    return run, about | {k: round(v, 4) for k, v in judged(run).items()} | rest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, required=True)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--probe', type=Path)
    parser.add_argument('--plain', type=int, default=0)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for seed in range(1, args.seeds + 1):
            run, row = trained(args.photos, place, seed)
            rows.append(dict(what='cloud-classifier train', **row))
            print(rows[-1], flush=True)
            if seed == 1 and args.probe:
                seconds, out = call(sys.executable, args.probe, args.photos, run / 'split.csv', 2, 260, cache=place)
                said = json.loads(out.splitlines()[-1])
                about = dict(what='a regression on frozen features', arch=said['arch'], size=said['size'], seed=seed)
                rows.append(about | dict(top1=said['top1'], top3=said['top3'], seconds=round(seconds, 1)))
                print(rows[-1], flush=True)
        if args.plain:
            old = ('--recipe', 'scratch', '--arch', 'resnet34', '--weights', 'none', '--epochs', args.plain)
            _, row = trained(args.photos, place, 1, *old)
            rows.append(dict(what="the first notebook's network from random weights", **row))
            print(rows[-1], flush=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(RESULTS, 'w', newline='', encoding='utf-8') as f:
        writer = csv.DictWriter(f, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == '__main__':
    main()
