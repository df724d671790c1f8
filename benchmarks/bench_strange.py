"""How well pictures that are no sky are told from test skies, by several scores of the same network.

    python benchmarks/bench_strange.py RUN [RUN …] [--drawn 60]

Each RUN is a finished run of `cloud-classifier train`. The score is fitted on its training part, its threshold on the
validation part; judged are its test part, and pictures drawn from another seed than those that were learned from.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import numpy as np

COLUMNS = ('arch', 'size', 'epochs', 'score', 'against', 'n', 'skies', 'auroc', 'low', 'high', 'refused', 'seconds')


def asked(learn, fitted, preprocess, photos):
    "Of each photo: distance, side, their louder one, energy, and how little is believed of the first answer."
    import torch

    from cloud_classifier.evaluation.ood import network_outputs

    out = []
    with torch.no_grad():
        for i in range(0, len(photos), 32):
            x = torch.from_numpy(np.stack([preprocess(o) for o in photos[i : i + 32]]))
            logits, _, features = network_outputs(learn.model, x)
            distance, side = fitted.components(features).T
            belief = logits.softmax(1).amax(1)
            out.append(torch.stack([distance, side, fitted(features), -logits.logsumexp(1), -belief], 1))
    return dict(zip(('distance', 'side', 'louder', 'energy', 'belief'), torch.cat(out).numpy().T, strict=True))


def rows_of(path, drawn):
    from cloud_classifier.evaluation.ood import auroc, fit_ood
    from cloud_classifier.samples import ood_samples, plain_skies
    from cloud_classifier.training.run import Run

    run = Run(path)
    learn, parts, preprocess = run.learner(), run.split, run.preprocess
    learn.model.eval()
    start = time.perf_counter()
    fitted = fit_ood(learn, parts.files('train'), parts.files('valid'))
    seconds = time.perf_counter() - start
    labels, photos = parts.part('test').label.to_numpy(), parts.files('test')
    skies, kinds = asked(learn, fitted, preprocess, photos), ood_samples(drawn, max(64, preprocess.size))
    others = {kind: asked(learn, fitted, preprocess, pictures) for kind, pictures in kinds.items()}
    others['all'] = {name: np.concatenate([o[name] for o in others.values()]) for name in skies}
    config = run.config
    about = (config.arch, preprocess.size, len(run.history))
    for score in skies:
        for kind, found in others.items():
            o = auroc(skies[score], found[score])
            refused = f'{np.mean(found[score] >= fitted.threshold):.3f}' if score == 'louder' else ''
            values = (f'{o[k]:.4f}' for k in ('value', 'low', 'high'))
            yield (*about, score, kind, len(found[score]), len(photos), *values, refused, f'{seconds:.1f}')
    plain = asked(learn, fitted, preprocess, plain_skies(2 * drawn, max(64, preprocess.size), seed=5))['louder']
    for name, strange in {'test skies': skies['louder'], 'plain skies': plain}.items():
        share = f'{np.mean(strange >= fitted.threshold):.3f}'
        yield (*about, 'louder', name, len(strange), len(photos), '', '', '', share, f'{seconds:.1f}')
    for label in sorted(set(labels)):
        strange = skies['louder'][labels == label]
        share = f'{np.mean(strange >= fitted.threshold):.3f}'
        yield (*about, 'louder', f'test {label}', len(strange), len(photos), '', '', '', share, f'{seconds:.1f}')


def main():
    warnings.filterwarnings('ignore')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('runs', nargs='+', type=Path)
    parser.add_argument('--drawn', type=int, default=60)
    args = parser.parse_args()
    rows = [row for path in args.runs for row in rows_of(path, args.drawn)]
    with open(Path(__file__).parent / 'results' / 'strange.csv', 'w', newline='') as f:
        writer = csv.writer(f, lineterminator='\n')
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    for row in rows:
        if row[4] in ('all', 'pictures', 'test skies', 'plain skies', 'test Stratus'):
            print(*row)


if __name__ == '__main__':
    main()
