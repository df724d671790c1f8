"""What backbones say out of fold, alone and together: the folds of `make model`, no test photo among them.

    python benchmarks/bench_ensemble.py WORK

WORK is the folder of `models/make_model.py --work`. Writes benchmarks/results/ensemble.csv: top-1 with its interval
over groups, top-3 and log loss of all classes, and top-1 of the ten genera alone.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from cloud_classifier.evaluation.calibrate import mean_interval
from cloud_classifier.taxonomy import GENERA

sys.path.insert(0, str(Path(__file__).parent.parent / 'models'))
from make_model import BACKBONES, FACTS, together

RESULTS = Path(__file__).parent / 'results' / 'ensemble.csv'


def judged(oof):
    "Numbers of a table of out-of-fold answers."
    classes = [o for o in oof if o not in FACTS]
    probs, y = oof[classes].to_numpy(), np.array([classes.index(o) for o in oof.label])
    order = np.argsort(-probs, axis=1)
    right, genera = order[:, 0] == y, oof.label.isin(GENERA).to_numpy()
    top1 = mean_interval(right.astype(float), oof.group)
    return dict(
        photos=len(oof),
        top1=top1['value'],
        low=top1['low'],
        high=top1['high'],
        top3=(order[:, :3] == y[:, None]).any(1).mean(),
        log_loss=-np.log(np.clip(probs[np.arange(len(y)), y], 1e-9, 1)).mean(),
        genera_top1=right[genera].mean(),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', type=Path)
    args = parser.parse_args()
    tables = {arch: pd.read_parquet(args.work / arch / 'folds' / 'oof.parquet') for arch in BACKBONES}
    tables |= {' + '.join(BACKBONES): together(list(tables.values()))}
    rows = pd.DataFrame([dict(backbone=k, **judged(o)) for k, o in tables.items()]).round(4)
    rows.to_csv(RESULTS, index=False)
    print(rows.to_string(index=False))


if __name__ == '__main__':
    main()
