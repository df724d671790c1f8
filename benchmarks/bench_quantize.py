"""What a smaller file costs and brings: a run's own photos, its file in fp32 and made smaller in each way.

    python benchmarks/bench_quantize.py RUN [--photos 256]

Writes benchmarks/results/quantize.csv: accuracy and calibration error on validation and test photos together (each
file with the temperature that its own validation answers give, or, where a run was settled by answers out of fold,
with the run's), size, and milliseconds for a photo on one thread and
on all, the medians of turns A B C A B C. Ratios of times hold on other machines, times do not.
"""

import argparse
import csv
import platform
import shlex
import sys
import tempfile
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

import numpy as np

from cloud_classifier.evaluation.calibrate import ece, fit_temperature, load_or_fit
from cloud_classifier.prediction.decide import softmax
from cloud_classifier.prediction.export import RANGE_PHOTOS, _run_many, _spread, export_run, quantized
from cloud_classifier.prediction.infer import CloudClassifier
from cloud_classifier.training.run import Run

WAYS = 'fp16', 'int8-weights', 'int8-weights, small convolutions too', 'int8'


def by_turns(files, pixels, threads, turns=5, runs=5):
    "Median milliseconds of each file for one photo; one is open at a time, or their threads would wait for each other."
    times = {k: [] for k in files}
    for _ in range(turns):
        for k, file in files.items():
            model = CloudClassifier(file, threads)
            for i in range(runs + 1):
                start = perf_counter()
                model.run(pixels)
                if i:
                    times[k].append(perf_counter() - start)
            del model
    return {k: 1e3 * median(taken) for k, taken in times.items()}


def judge(file, run):
    "Accuracy, calibration error, logits and temperature of a file."
    clouds, said, labels = CloudClassifier(file), {}, {}
    for part in ('valid', 'test'):
        said[part] = _run_many(clouds, run.split.files(part))[0]
        labels[part] = np.array([clouds.classes.index(o) for o in run.split.part(part).label])
    calibration, _ = load_or_fit(run)
    own = calibration.basis != 'out of fold'
    temperature = fit_temperature(softmax(said['valid']), labels['valid']) if own else calibration.temperature
    probs, y = softmax(np.concatenate([*said.values()]), temperature), np.concatenate([*labels.values()])
    return (probs.argmax(1) == y).mean(), ece(probs, y, n_boot=1)['value'], probs, temperature


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path)
    parser.add_argument('--photos', type=int, default=RANGE_PHOTOS, help='training photos that show the ranges')
    args = parser.parse_args()
    run = Run(args.run)
    with tempfile.TemporaryDirectory() as folder:
        files = {k: Path(folder) / f'{i}.onnx' for i, k in enumerate(('fp32', *WAYS))}
        export_run(run, files['fp32'])
        for way in WAYS:
            to, *all_of_them = way.split(', ')
            with patch('cloud_classifier.prediction.export.MIN_CONVOLUTION', 0) if all_of_them else nullcontext():
                made = quantized(files['fp32'], _spread(run.split.files('train'), args.photos), to)
            files[way].write_bytes(made)
        pixels = CloudClassifier(files['fp32']).preprocess(run.split.files('test')[0])[None]
        one, many = by_turns(files, pixels, 1), by_turns(files, pixels, None)
        exact, rows = None, []
        for k, file in files.items():
            accuracy, error, probs, temperature = judge(file, run)
            exact = probs if exact is None else exact
            agreement = (probs.argmax(1) == exact.argmax(1)).mean()
            size = f'{file.stat().st_size / 2**20:.2f}'
            numbers = [f'{o:.4f}' for o in (accuracy, error, agreement, temperature)]
            rows.append([k, len(probs), *numbers, size, f'{one[k]:.1f}', f'{many[k]:.1f}'])
            print(*rows[-1], flush=True)
    with open(Path(__file__).parent / 'results' / 'quantize.csv', 'w', newline='') as f:
        f.write(f'# {date.today()}, {platform.machine()}, Python {platform.python_version()}\n')
        f.write(f'# python {shlex.join(sys.argv)}; {run.config.arch} at {run.preprocess.size} pixels\n')
        writer = csv.writer(f)
        head = 'file,photos,accuracy,ece,agreement,temperature,MiB,ms on one thread,ms on all'
        writer.writerows([head.split(','), *rows])


if __name__ == '__main__':
    main()
