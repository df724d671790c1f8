"""Makes the model that ships, from the CCSN database: `make model`.

Five folds are fine-tuned and their weights averaged. What each says of its own fold settles temperature, thresholds
and conformal limit, so no photo judges a network that was trained on it; the test part of the split judges the finished
file, once. Cut off, it goes on where it was when it is called again.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cloud_classifier.calibrate import cross_fitted_temperature, mean_interval
from cloud_classifier.dataset import Dataset
from cloud_classifier.decide import softmax
from cloud_classifier.evaluate import answers, evaluate, of_file
from cloud_classifier.export import export_run
from cloud_classifier.files import file_hash, write_whole
from cloud_classifier.infer import CloudClassifier
from cloud_classifier.report import verdict_words
from cloud_classifier.runs import cross_validate
from cloud_classifier.sampling import Split, split
from cloud_classifier.scores import Predictions
from cloud_classifier.soup import soup
from cloud_classifier.taxonomy import GENERA
from cloud_classifier.train import Run
from cloud_classifier.trust import settle

HERE = Path(__file__).parent
FOLDS, RECIPE, SEED = 5, 'best', 42


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


def trained(photos: Path, work: Path) -> tuple[Split, pd.DataFrame, Run]:
    "The split, the folds' answers and the averaged run; seconds.json says how long it took."
    start, dataset = time.perf_counter(), Dataset(photos)
    parts = split(dataset, seed=SEED, scan=dataset.scan())
    oof = cross_validate(photos, FOLDS, work / 'folds', parts, seed=SEED, recipe=RECIPE)
    if not (work / 'soup' / 'run.json').exists():
        soup([Run(work / 'folds' / f'fold-{i}') for i in range(FOLDS)], whole(parts), work / 'soup')
        spent = sum(Run(work / 'folds' / f'fold-{i}').settings['seconds'] for i in range(FOLDS))
        write_whole(work / 'seconds.json', json.dumps(max(spent, time.perf_counter() - start)))
    return parts, oof, Run(work / 'soup')


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
        run=run.settings,
        n_folds=FOLDS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, default=Path(os.environ.get('CLOUD_DATA') or 'data/ccsn'))
    parser.add_argument('--work', type=Path, default=HERE / 'runs' / 'shipped', help='where the folds are kept')
    parser.add_argument('--out', type=Path, default=HERE / 'clouds.onnx')
    args = parser.parse_args()
    parts, oof, run = trained(args.photos, args.work)
    settle(run, oof=oof)
    shipped = dict(split_hash=parts.hash, photos='CCSN (Zhang et al. 2018), CC0', folds=FOLDS)
    model, _ = export_run(run, args.out, card=shipped, to='fp16')
    report = evaluate(CloudClassifier(model), data=args.photos, parts=parts)
    report.save(args.work)
    minutes = json.loads((args.work / 'seconds.json').read_text()) / 60
    folds = of_folds(oof, tuple(run.settings['classes']))
    page = card(model, run, folds, asked(model, parts), report.data, split_hash=parts.hash, minutes=minutes)
    write_whole(model.with_suffix('.md'), page)
    write_whole(model.with_name(f'{model.name}.sha256'), f'{file_hash(model)}  {model.name}\n')
    print(page)


def asked(model: Path, parts: Split) -> Predictions:
    "What the file says of the test photos."
    clouds, rows = CloudClassifier(model), parts.part('test').sort_values('path')
    photos = [str(parts.root / o) for o in rows.path]
    logits = np.stack([o for o, _ in answers(of_file(clouds), photos)])
    probs = softmax(logits, clouds.temperature)
    return Predictions(photos, rows.label.tolist(), probs, clouds.classes, rows.group.tolist())


if __name__ == '__main__':
    main()
