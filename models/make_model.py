"""Makes the model that ships, from the CCSN database: `make model`.

Two backbones are fine-tuned in five folds each, the weights of a backbone's folds averaged, and the two networks put
side by side. What the folds say of photos that they have not seen settles temperature, thresholds and conformal limit,
so no photo judges a network that was trained on it; the test part of the split judges the finished file, once. Cut off,
it goes on where it was when it is called again.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cloud_classifier.data.dataset import Dataset, data_hash
from cloud_classifier.data.sampling import Split, split
from cloud_classifier.evaluation.calibrate import cross_fitted_temperature, load_or_fit, mean_interval
from cloud_classifier.evaluation.report import Predictions, evaluate, verdict_words
from cloud_classifier.files import atomic_write, file_hash
from cloud_classifier.prediction.decide import softmax
from cloud_classifier.prediction.export import export_run
from cloud_classifier.prediction.infer import CloudClassifier
from cloud_classifier.taxonomy import GENERA
from cloud_classifier.training.run import Run, cross_validate, ensemble, soup

HERE = Path(__file__).parent
FOLDS, RECIPE, SEED = 5, 'best', 42
BACKBONES = 'tf_efficientnet_lite0', 'tf_efficientnet_lite2'
FACTS = 'path', 'label', 'group', 'fold'  # what a row of out-of-fold answers says besides the probabilities


def whole(parts: Split) -> Split:
    """The split of the averaged network: each photo that some fold was trained on counts as trained on.

    Photos under two labels were in no fold. They can't judge an answer, but they are skies that no network saw: they
    stand in the validation part, where the threshold for pictures that are no sky is set.
    """
    frame = parts.frame.copy()
    known = set(frame.group[frame.part != 'excluded'])
    frame.loc[frame.part == 'valid', 'part'] = 'train'
    frame.loc[(frame.part == 'excluded') & ~frame.group.isin(known), 'part'] = 'valid'
    return replace(parts, frame=frame)


def once(combine: Callable[[Sequence[Run], Split, Path], Run], runs: Sequence[Run], parts: Split, out: Path) -> Run:
    "The run that `combine` makes of `runs`; the one that an earlier call made where it is there."
    return Run(out) if (out / 'run.json').exists() else combine(runs, parts, out)


def of_backbone(arch: str, photos: Path, parts: Split, work: Path) -> tuple[pd.DataFrame, Run, float]:
    "What the folds of a backbone answer, their averaged run, and the seconds that they took."
    oof = cross_validate(photos, FOLDS, work / 'folds', parts, seed=SEED, recipe=RECIPE, arch=arch)
    runs = [Run(work / 'folds' / f'fold-{i}') for i in range(FOLDS)]
    mixed = once(soup, runs, whole(parts), work / 'soup')
    return oof, mixed, sum(run.metadata['seconds'] for run in runs)


def together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    "Out-of-fold answers of all backbones: the mean of their logits."
    first, *others = tables
    if any(not first[[*FACTS]].equals(o[[*FACTS]]) for o in others):
        raise SystemExit('the backbones were not trained on the same folds; name another --work')
    classes = [o for o in first if o not in FACTS]
    logits = np.mean([np.log(np.clip(o[classes], 1e-12, 1)) for o in tables], axis=0)
    return first.assign(**dict(zip(classes, softmax(logits).T, strict=True)))


def trained(photos: Path, work: Path) -> tuple[Split, pd.DataFrame, Run, float]:
    "The split, the folds' answers, the network of all, and the seconds that the folds took."
    dataset = Dataset(photos)
    parts = split(dataset, seed=SEED, scan=dataset.scan())
    tables, runs, seconds = zip(*(of_backbone(arch, photos, parts, work / arch) for arch in BACKBONES), strict=True)
    run = once(ensemble, runs, whole(parts), work / 'ensemble')
    return parts, together(tables), run, sum(seconds)


def of_folds(oof: pd.DataFrame, classes: tuple[str, ...]) -> Predictions:
    "The folds' answers, each with the temperature that the other folds ask for."
    probs, columns = oof[list(classes)].to_numpy(), [classes.index(o) for o in oof.label]
    probs, _ = cross_fitted_temperature(probs, columns, oof.fold)
    return Predictions(oof.path.tolist(), oof.label.tolist(), probs, classes, oof.group.tolist())


def of_genera(p: Predictions) -> dict:
    "How often a photo of one of the ten genera is answered rightly, with its interval."
    rows = [i for i, label in enumerate(p.labels) if label in GENERA]
    return mean_interval([float(p.answer[i] == p.y[i]) for i in rows], [p.groups[i] for i in rows])


def card(model: Path, run: Run, folds: Predictions, test: Predictions, report: dict, **facts) -> str:
    "The card, in Markdown."
    about = evaluate(folds, part='folds', top=len(folds.classes) ** 2).data  # all pairs that were confused
    confused, own = {}, {o['class']: o for o in report['by_class']}
    for o in about['confused']:
        confused.setdefault(o['true'], []).append(f'{o["predicted"]} ({o["count"]})')
    names = [
        dict(name=o['class'], fold=o, test=own[o['class']], wrong=confused.get(o['class'], [])[:2])
        for o in about['by_class']
    ]
    clouds = CloudClassifier(model)
    page = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    return page.get_template('card.md.j2').render(
        facts,
        mib=model.stat().st_size / 2**20,
        sha256=file_hash(model),
        classes=clouds.classes,
        parity=clouds.card['parity'],
        folds=about,
        test=report,
        genera=dict(folds=of_genera(folds), test=of_genera(test)),
        by_class=names,
        verdicts=verdict_words(report),
        run=run.as_dict(),
        n_folds=FOLDS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, default=Path(os.environ.get('CLOUD_DATA') or 'data/ccsn'))
    parser.add_argument('--work', type=Path, default=HERE / 'runs' / 'shipped', help='where the folds are kept')
    parser.add_argument('--out', type=Path, default=HERE / 'clouds.onnx')
    args = parser.parse_args()
    parts, oof, run, seconds = trained(args.photos, args.work)
    load_or_fit(run, oof=oof)
    hashes = dict(data_hash=data_hash(parts.frame), split_hash=parts.hash)
    shipped = hashes | dict(photos='CCSN (Zhang et al. 2018), CC0', folds=FOLDS, ensemble=run.metadata['ensemble'])
    model, _ = export_run(run, args.out, card=shipped, to='int8-weights')
    report = evaluate(CloudClassifier(model), data=args.photos, parts=parts)
    report.save(args.work)
    folds = of_folds(oof, tuple(run.metadata['classes']))
    page = card(model, run, folds, report.predictions, report.data, **hashes, minutes=seconds / 60)
    atomic_write(model.with_suffix('.md'), page)
    atomic_write(model.with_name(f'{model.name}.sha256'), f'{file_hash(model)}  {model.name}\n')
    print(page)


if __name__ == '__main__':
    main()
