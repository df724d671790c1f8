"""Whether cleaning helps a classifier, on CCSN with 8% of the labels of train and valid flipped at random.

    python benchmarks/bench_round.py --photos FOLDER --work FOLDER [--seeds 0 1 2] [--share .08]
    python benchmarks/bench_round.py --photos FOLDER --work FOLDER --rounds --seeds 0

Each seed divides the photos anew and flips labels; the test part stays as it is. Four models are compared with the one
that nobody cleaned for: the top suggestions of `label_issues`, as many as labels were flipped, taken as they are
(`Cleaner.accept`); the photos of these suggestions deleted instead; and all flips undone. Differences are paired photo
by photo, with 95% intervals over groups. A last row pools the seeds; a photo that stands in the test part of several
seeds counts as several there, so its interval is a little too narrow. That suggestions are taken, not deleted, was
settled by a trial on other seeds (10 to 14) before.

A model is what the recipe `fast` trains: a head solved over kept embeddings. The first way solves it without a run
around it, which takes a minute a seed; `--rounds` goes the whole way, by `train` and `retrain_round`, in about ten
minutes a seed, without the deletions. They write benchmarks/results/round.csv and round_runs.csv; the rows of a seed
that is there already are replaced.
"""

import argparse
import copy
import shutil
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from bench_clean import SHARE, flipped_copy

RESULTS = Path(__file__).parent / 'results'
START = 'no cleaning'


def flipped_split(photos, scan, folder, share, seed):
    "The split of a copy with flipped labels, and the right label by SHA-256 of the photos whose label is flipped."
    from cloud_classifier.data.sampling import follow_photos, split

    shutil.rmtree(folder, ignore_errors=True)
    parts = split(photos, seed=seed, scan=scan, progress=False)
    moved = flipped_copy(photos, folder, share, seed, parts)
    shutil.copy(photos / 'manifest.db', folder)  # with the fingerprints, which take long
    sha256 = parts.frame.set_index('path').sha256[moved.source]
    return follow_photos(parts, folder), dict(zip(sha256, moved.was, strict=True))


def doubts(data, parts):
    "Label issues of the photos to train and validate on."
    from cloud_classifier.data.issues import label_issues
    from cloud_classifier.training.oof import out_of_fold

    return label_issues(data, out_of_fold(data, parts=parts, progress=False))


def row_of(what, before, after, **facts):
    "A model's accuracy, and how much better it is than the one without cleaning."
    from cloud_classifier.evaluation.report import intervals
    from cloud_classifier.evaluation.round import paired_difference

    row, top1 = {'what': what, 'test_photos': len(after)}, intervals(after)['top1']
    row |= {'accuracy': top1['value'], 'low': top1['low'], 'high': top1['high']}
    if what != START:
        d = paired_difference(before, after)['top1']
        row |= {'difference': d['value'], 'difference_low': d['low'], 'difference_high': d['high']}
    return row | facts


def about(suggested, right):
    "Of the photos that were decided about: how many, which share was flipped, which share was given its right label."
    flipped = np.mean([sha in right for sha in suggested])
    return {
        'decided': len(suggested),
        'flipped': flipped,
        'right': np.mean([right.get(k) == v for k, v in suggested.items()]),
    }


class Heads:
    "Heads of the recipe `fast` over embeddings that are computed once."

    def __init__(self, photos, scan):
        from cloud_classifier.data.sampling import split
        from cloud_classifier.training.recipes import autocast_for, embeddings
        from cloud_classifier.training.run import make_config, make_learner, plan_training

        parts, config = split(photos, seed=0, scan=scan, progress=False), make_config('fast')
        learn = make_learner(config, plan_training(config), parts, progress=False)
        used, made = parts.frame[parts.frame.part != 'excluded'], learn.dls.made_with
        embed = partial(embeddings, learn.model[0], parts.root, used.path.tolist(), made['preprocess'], made['cache'])
        self.rows = dict(zip(used.sha256, embed(*autocast_for('bf16', learn.dls.device)), strict=True))
        self.head = learn.model[1]

    def answers(self, train, test):
        "What a head that is solved on the photos of `train` answers for those of `test`."
        import torch

        from cloud_classifier.evaluation.report import Predictions
        from cloud_classifier.training.learner import fit_head

        classes, head = sorted(set(test.label)), copy.deepcopy(self.head)
        x, y = np.stack([self.rows[o] for o in train.sha256]), train.label.map(classes.index).to_numpy()
        fit_head(head, np.concatenate([x[:, 0], x[:, 1]]), np.tile(y, 2), True)  # as it is, and mirrored
        with torch.no_grad():
            logits = head.eval()(torch.as_tensor(np.stack([self.rows[o][0] for o in test.sha256])))
        return Predictions(test.path, test.label, logits.double().softmax(1).numpy(), classes, test.group)


def by_heads(heads, data, parts, right):
    "Answers and facts of each way to clean."
    from cloud_classifier.data.clean import Cleaner

    accepted = Cleaner(data, doubts(data, parts), parts).accept(len(right))
    suggested = dict(zip(accepted.sha256, accepted.label, strict=True))
    train, test = parts.part('train'), parts.part('test')
    relabelled = {
        what: train.assign(label=[labels.get(o, label) for o, label in zip(train.sha256, train.label, strict=True)])
        for what, labels in {'suggestions taken': suggested, 'perfect cleaning': right}.items()
    }
    deleted = {'suggestions deleted': train[~train.sha256.isin(suggested)]}
    facts = dict.fromkeys(('suggestions taken', 'suggestions deleted'), about(suggested, right))
    facts['perfect cleaning'] = about(right, right)
    ways = {START: train} | relabelled | deleted
    return {what: (heads.answers(table, test), facts.get(what, {})) for what, table in ways.items()}


def perfectly(cleaner, parts, right):
    "Decide for the right label of each photo whose label is flipped."
    for row in parts.frame[parts.frame.sha256.isin(right)].itertuples():
        cleaner.relabel(row.path, right[row.sha256])


def by_rounds(work, data, parts, right, seed):
    "The same by whole runs, without the deletions."
    from cloud_classifier.data.clean import Cleaner
    from cloud_classifier.evaluation.round import decisions_since, retrain_round
    from cloud_classifier.training.run import train

    shutil.rmtree(work / f'run-{seed}', ignore_errors=True)
    run, found = train(data, 'fast', parts=parts, out=work / f'run-{seed}', seed=seed, progress=False), {}
    for what in ('suggestions taken', 'perfect cleaning'):
        cleaner = Cleaner(data, doubts(data, parts) if what == 'suggestions taken' else None, parts)
        cleaner.accept(len(right)) if what == 'suggestions taken' else perfectly(cleaner, parts, right)
        cleaner.apply()
        decided = decisions_since(run)
        result = retrain_round(run, progress=False)
        print(seed, what, result.verdict, flush=True)
        found.setdefault(START, (result.before.predictions, {}))
        found[what] = result.after.predictions, about(dict(zip(decided.sha256, decided.label, strict=True)), right)
        cleaner.undo_session()
    return found


def together(tables):
    "All seeds as one table of answers: a photo of another seed is another photo."
    from cloud_classifier.evaluation.report import Predictions

    paths, labels, groups = (
        [f'{seed} {o}' if name != 'labels' else o for seed, p in tables.items() for o in getattr(p, name)]
        for name in ('paths', 'labels', 'groups')
    )
    first = next(iter(tables.values()))
    return Predictions(paths, labels, np.concatenate([p.probs for p in tables.values()]), first.classes, groups)


def rows_of(found):
    "A row for each way to clean."
    return [row_of(what, found[START][0], answers, **facts) for what, (answers, facts) in found.items()]


def write(file, seed, rows, **facts):
    "Replace the rows of a seed."
    table = pd.DataFrame([{'seed': seed} | row | facts for row in rows])
    if file.exists():
        before = pd.read_csv(file, dtype={'seed': str})
        table = pd.concat([before[before.seed != str(seed)], table.astype({'seed': str})])
    table.round(4).to_csv(file, index=False)
    print(table[table.seed.astype(str) == str(seed)].round(4).to_string(index=False), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, required=True)
    parser.add_argument('--work', type=Path, required=True, help='a folder on the same disk as the photos')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--share', type=float, default=SHARE, help='of the labels in train and valid')
    parser.add_argument('--rounds', action='store_true', help='train whole runs')
    args = parser.parse_args()
    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.duplicates import scan_fingerprints

    photos = args.work / 'photos'  # with fingerprints, once they are taken
    if not photos.exists():
        flipped_copy(args.photos, photos, 0)
        with Dataset(photos).manifest.open():
            pass  # a manifest keeps them
    scan = scan_fingerprints(Dataset(photos), progress=False)
    heads, tables = None if args.rounds else Heads(photos, scan), {}
    file = RESULTS / ('round_runs.csv' if args.rounds else 'round.csv')
    for seed in args.seeds:
        start, data = perf_counter(), args.work / f'skies-{seed}'
        copied = flipped_split(photos, scan, data, args.share, seed)
        found = by_rounds(args.work, data, *copied, seed) if args.rounds else by_heads(heads, data, *copied)
        write(file, seed, rows_of(found), seconds=round(perf_counter() - start))
        for what, (answers, _) in found.items():
            tables.setdefault(what, {})[seed] = answers
    if len(args.seeds) > 1:
        pooled = {what: (together(answers), {}) for what, answers in tables.items()}
        write(file, f'all of {args.seeds[0]} to {args.seeds[-1]}', rows_of(pooled))


if __name__ == '__main__':
    main()
