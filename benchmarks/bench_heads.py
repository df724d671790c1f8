"""What a head makes of a body with ImageNet's weights that stays as it is, by where in the body it looks.

    python benchmarks/bench_heads.py --photos FOLDER

Each photo goes through each body as it is and mirrored; a multinomial logistic regression is solved over the
standardised features of four of five group-aware folds of the train and valid parts and judged by the fifth. The test
part is not looked at. Writes benchmarks/results/heads.csv.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / 'results' / 'heads.csv'
PENALTIES = 1e-3, 3e-3


def features(arch, size, root, paths):
    "By name of the features: (n, 2, d) of the photos as they are, and mirrored."
    import torch

    from cloud_classifier.training.callbacks import pick_precision
    from cloud_classifier.training.learner import imagenet_weights, moments, network, preprocess_for
    from cloud_classifier.training.recipes import autocast_for, embed

    net = network(arch)
    net.load_state_dict(imagenet_weights(arch))
    net = net.eval().to(memory_format=torch.channels_last)
    widths = []

    class Body(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            stages = net.forward_intermediates(x, intermediates_only=True, extra_blocks=True)
            end = net.bn2(net.conv_head(stages[-1]))
            parts = [moments([end])[:, : end.shape[1]], moments(stages)]
            widths[:] = [o.shape[1] for o in parts]
            return torch.cat(parts, 1)

    device = torch.device('cpu')
    _, compute = autocast_for(pick_precision(net, device), device)
    rows = embed(Body(), [root / o for o in paths], preprocess_for(arch, size), compute)
    last, every = np.split(rows, [widths[0]], axis=2)
    means = every[:, :, : every.shape[2] // 2]
    return {'means of the last layer': last, 'means of all stages': means, 'means and deviations of all stages': every}


def out_of_fold(rows, labels, folds, penalty):
    "(n, c) probabilities of each photo, both views averaged, by a head that has not seen its fold."
    from sklearn.linear_model import LogisticRegression

    probs = np.zeros((len(labels), labels.max() + 1))
    for fold in np.unique(folds):
        train, held = folds != fold, folds == fold
        x = np.concatenate([rows[train, 0], rows[train, 1]])
        mean, scale = x.mean(0), x.std(0) + 1e-6
        head = LogisticRegression(C=penalty, max_iter=1000).fit((x - mean) / scale, np.tile(labels[train], 2))
        probs[held] = np.mean([head.predict_proba((rows[held, v] - mean) / scale) for v in (0, 1)], 0)
    return probs


def worth(probs, labels, groups):
    from cloud_classifier.evaluation.calibrate import ece, mean_interval

    top = mean_interval(probs.argmax(1) == labels, groups)
    third = np.argsort(-probs, 1)[:, :3] == labels[:, None]
    return dict(
        top1=round(top['value'], 4),
        low=round(top['low'], 4),
        high=round(top['high'], 4),
        top3=round(float(third.any(1).mean()), 4),
        log_loss=round(float(-np.log(probs[np.arange(len(labels)), labels]).mean()), 4),
        ece=round(ece(probs, labels, groups)['value'], 4),
    )


def main():
    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.sampling import folds as cut
    from cloud_classifier.data.sampling import split

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, required=True)
    parser.add_argument('--archs', nargs='+', default=['tf_efficientnet_lite0', 'tf_efficientnet_lite2'])
    parser.add_argument('--sizes', nargs='+', type=int, default=[224])
    args = parser.parse_args()
    dataset = Dataset(args.photos)
    parts = split(dataset, seed=42, scan=dataset.scan())
    rows = parts.frame[parts.frame.part.isin(['train', 'valid'])].sort_values('path')
    fold_of = {p: i for i, fold in enumerate(cut(parts, 5, 42)) for p in fold.part('valid').path}
    folds, labels = rows.path.map(fold_of).to_numpy(), pd.Categorical(rows.label).codes.astype(int)
    out, found = [], {}
    for size in args.sizes:
        for arch in args.archs:
            start = time.perf_counter()
            found[arch] = features(arch, size, dataset.path, rows.path.tolist())
            seconds = round(time.perf_counter() - start, 1)
            for name, table in found[arch].items():
                for penalty in PENALTIES:
                    probs = out_of_fold(table, labels, folds, penalty)
                    about = dict(arch=arch, size=size, features=name, width=table.shape[2], penalty=penalty)
                    out.append(about | worth(probs, labels, rows.group) | dict(photos=len(rows), seconds=seconds))
                    print(out[-1], flush=True)
        if len(args.archs) > 1:
            last = [*found[args.archs[0]]][-1]
            table = np.concatenate([found[o][last] for o in args.archs], 2)
            probs = out_of_fold(table, labels, folds, PENALTIES[0])
            about = dict(arch=' + '.join(args.archs), size=size, features=last, width=table.shape[2])
            out.append(about | dict(penalty=PENALTIES[0]) | worth(probs, labels, rows.group) | dict(photos=len(rows)))
            print(out[-1], flush=True)
    pd.DataFrame(out).to_csv(RESULTS, index=False)


if __name__ == '__main__':
    main()
