"""Times the report of many predictions: numbers with intervals, and the page without pictures.

    python benchmarks/bench_evaluate.py [--photos 50000] [--repeats 3]

The answers are a simulated classifier's, two photos of each scene, judged with temperature, thresholds and OOD score
settled on others. Writes benchmarks/results/evaluate.csv; 30 seconds for 50,000 are the limit that is aimed at.
"""

import argparse
import csv
import os
import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

COLUMNS = ('machine', 'photos', 'repeats', 'scores, s', 'page, s', 'slowest of both, s')


def once(photos):
    "Seconds for the numbers, and for report.json and report.html."
    import numpy as np

    from cloud_classifier.evaluation.calibrate import fit_calibration
    from cloud_classifier.evaluation.report import Predictions, Report, scores, to_plain
    from cloud_classifier.prediction.decide import calibrated
    from cloud_classifier.samples import simulate_predictions

    settled, test = simulate_predictions(500, 2, seed=1), simulate_predictions(photos // 2, 2)
    calibration = fit_calibration(settled.probs, settled.y, settled.classes, groups=settled.groups)
    p = Predictions(*test)
    ood_score = np.random.default_rng(0).normal(size=len(p))
    start = perf_counter()
    found = scores(
        replace(p, probs=calibrated(p.probs, calibration.temperature)),
        raw=p.probs,
        calibration=calibration,
        ood_score=ood_score,
    )
    middle = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        Report(to_plain(found)).save(folder, thumbnails=False)
        return middle - start, perf_counter() - middle


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photos', type=int, default=50_000)
    parser.add_argument('--repeats', type=int, default=3)
    args = parser.parse_args()
    times = [once(args.photos) for _ in range(args.repeats)]
    numbers = (*(median(t[i] for t in times) for i in (0, 1)), max(map(sum, times)))
    row = (f'{os.cpu_count()} cores, {platform.machine()}', args.photos, args.repeats, *(f'{v:.1f}' for v in numbers))
    with open(Path(__file__).parent / 'results' / 'evaluate.csv', 'w', newline='') as f:
        writer = csv.writer(f, lineterminator='\n')
        writer.writerows((COLUMNS, row))
    print(*(f'{k}: {v}' for k, v in zip(COLUMNS, row, strict=True)), sep='\n')


if __name__ == '__main__':
    main()
