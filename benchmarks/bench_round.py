"""Whether cleaning helps a classifier, on CCSN with labels that were flipped at random.

    python benchmarks/bench_round.py --photos FOLDER --work FOLDER [--seeds 0 1 2] [--share .08]
    python benchmarks/bench_round.py --photos FOLDER --work FOLDER --choose --seeds 10 11 12 13 14

Each seed divides the photos anew and flips a share of the labels in train and valid; the test part stays as it is. The
recipe `fast` is trained without cleaning, and again after `retrain_round` for each of two ways to clean: the top
suggestions of `label_issues` are taken as they are, as many as labels were flipped (`Cleaner.accept`), or all flips are
undone. Differences are paired, photo by photo, with 95% intervals over groups. A row beside the seeds pools them.

`--choose` is how the automatic decision was chosen, on seeds that are not reported: are the top suggestions better
relabelled or deleted? It solves the head of `fast` over kept embeddings, without the runs, and takes a minute a seed.

Writes benchmarks/results/round.csv, or round_choice.csv; a seed that is there already is replaced.
"""

import argparse
import copy
import shutil
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

HERE = Path(__file__).parent


def flipped_copy(photos, folder, share, seed):
    "A copy of the photos by hard links, a split, and the right label by SHA-256 of those whose label is flipped."
    from cloud_classifier.data.sampling import follow_photos, split

    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns('manifest.db*', '.*')
    shutil.copytree(photos, folder, ignore=ignored, copy_function=lambda a, b: Path(b).hardlink_to(a))
    parts = split(folder, seed=seed, progress=False)
    rows, rng = parts.frame[parts.frame.part.isin(['train', 'valid'])], np.random.default_rng(seed)
    flipped = rows.iloc[np.sort(rng.choice(len(rows), round(share * len(rows)), replace=False))]
    folders = {label: Path(path).parent.name for label, path in zip(rows.label, rows.path, strict=True)}
    for row in flipped.itertuples():
        other = rng.choice(sorted(set(folders) - {row.label}))
        (folder / row.path).rename(folder / folders[other] / f'flipped-{Path(row.path).name}')
    return follow_photos(parts), dict(zip(flipped.sha256, flipped.label, strict=True))


def decided_rows(decided, right):
    "Of the photos that were decided about: how many, which share was flipped, which share has the right label now."
    flipped = decided.sha256.isin(right)
    correct = [right.get(sha, given) == label for sha, given, label in decided[['sha256', 'given', 'label']].values]
    return dict(decided=len(decided), flipped=flipped.mean(), right=np.mean(correct))


def row_of(result, what, facts, seconds):
    "A round as a row."
    top1, d = result.after.data['top1'], result.data['difference']['top1']
    interval = dict(difference=d['value'], difference_low=d['low'], difference_high=d['high'])
    numbers = dict(accuracy=top1['value'], low=top1['low'], high=top1['high'])
    return dict(what=what, test_photos=result.after.data['n'], **numbers, **interval, **facts, seconds=round(seconds))


def clean_by_suggestions(cleaner, n, right):
    cleaner.accept(n)


def clean_perfectly(cleaner, n, right):
    for row in cleaner.queue().itertuples():
        if row.sha256 in right:
            cleaner.relabel(row.path, right[row.sha256])


WAYS = {'top suggestions taken': clean_by_suggestions, 'perfect cleaning': clean_perfectly}


def one_seed(args, seed):
    "The rows of a seed, and the answers of its models."
    from cloud_classifier.data.clean import Cleaner
    from cloud_classifier.data.issues import label_issues
    from cloud_classifier.evaluation.round import decisions_since, retrain_round
    from cloud_classifier.training.oof import out_of_fold
    from cloud_classifier.training.run import train

    data, out = args.work / f'skies-{seed}', args.work / f'run-{seed}'
    shutil.rmtree(out, ignore_errors=True)
    parts, right = flipped_copy(args.photos, data, args.share, seed)
    start = perf_counter()
    run = train(data, 'fast', parts=parts, out=out, seed=seed, progress=False)
    trained = perf_counter() - start
    issues = label_issues(data, out_of_fold(data, parts=run.split, progress=False))
    rows, answers = [], {}
    for what, clean in WAYS.items():
        start = perf_counter()
        cleaner = Cleaner(data, issues, run.split) if what.startswith('top') else Cleaner(data, parts=run.split)
        clean(cleaner, len(right), right)
        cleaner.apply()
        facts = decided_rows(decisions_since(run), right)
        result = retrain_round(run, progress=False)
        if not rows:
            top1 = result.before.data['top1']
            numbers = dict(accuracy=top1['value'], low=top1['low'], high=top1['high'])
            rows.append(
                dict(what='no cleaning', test_photos=result.before.data['n'], **numbers, seconds=round(trained))
            )
            answers['no cleaning'] = result.before.predictions
        rows.append(row_of(result, what, facts, perf_counter() - start))
        answers[what] = result.after.predictions
        print(seed, what, result.verdict, facts, flush=True)
        cleaner.undo_session()
    return rows, answers


def correct(answers):
    "Whether each photo is answered rightly, by path."
    return pd.Series(answers.y == answers.answer, index=answers.paths).astype(int)


def pooled(tables):
    "All seeds in one: the mean over their test photos, with intervals over groups within seeds."
    from cloud_classifier.evaluation.calibrate import mean_interval

    rows, start = [], None
    for what in ('no cleaning', *WAYS):
        rights = pd.concat([correct(answers[what]).sort_index() for answers in tables.values()])
        groups = [
            f'{seed} {g}' for seed, a in tables.items() for g in pd.Series(a[what].groups, a[what].paths).sort_index()
        ]
        top1 = mean_interval(rights, groups, 2000)
        row = dict(what=what, test_photos=len(rights), accuracy=top1['value'], low=top1['low'], high=top1['high'])
        if start is None:
            start = rights
        else:
            d = mean_interval(rights - start, groups, 2000)
            row |= dict(difference=d['value'], difference_low=d['low'], difference_high=d['high'])
        rows.append(row)
    return rows


def embedded(args):
    "Kept embeddings of all photos of the dataset by SHA-256, and a head to solve."
    from cloud_classifier.training.recipes import autocast_for, embeddings
    from cloud_classifier.training.run import make_learner, make_config, plan_training

    parts, _ = flipped_copy(args.photos, args.work / 'skies', 0, 0)
    config = make_config('fast')
    learn = make_learner(config, plan_training(config), parts, progress=False)
    used, made = parts.frame[parts.frame.part != 'excluded'], learn.dls.made_with
    precision, compute = autocast_for('bf16', learn.dls.device)
    rows = embeddings(
        learn.model[0], parts.root, used.path.tolist(), made['preprocess'], made['cache'], precision, compute
    )
    return dict(zip(used.sha256, rows, strict=True)), learn.model[1]


def solved_accuracy(rows, head, train, test):
    "Accuracy on the photos of `test` of a head that is solved on those of `train` (sha256 and label)."
    import torch

    from cloud_classifier.training.learner import fit_head

    classes, head = sorted(set(test.label)), copy.deepcopy(head)
    x, y = np.stack([rows[o] for o in train.sha256]), train.label.map(classes.index).to_numpy()
    fit_head(head, np.concatenate([x[:, 0], x[:, 1]]), np.tile(y, 2), True)
    with torch.no_grad():
        logits = head.eval()(torch.as_tensor(np.stack([rows[o][0] for o in test.sha256])))
    return float((logits.argmax(1).numpy() == test.label.map(classes.index).to_numpy()).mean())


def choose(args, seed, rows, head):
    "Accuracy of a seed without cleaning, with the top suggestions relabelled or deleted, and perfectly cleaned."
    from cloud_classifier.data.clean import Cleaner
    from cloud_classifier.data.issues import label_issues
    from cloud_classifier.training.oof import out_of_fold

    data = args.work / f'skies-{seed}'
    parts, right = flipped_copy(args.photos, data, args.share, seed)
    issues = label_issues(data, out_of_fold(data, parts=parts, progress=False))
    accepted = Cleaner(data, issues, parts).accept(len(right))
    suggested = dict(zip(accepted.sha256, accepted.label, strict=True))
    train, test = parts.part('train'), parts.part('test')
    ways = {
        'no cleaning': train,
        'relabelled': train.assign(label=train.sha256.map(suggested).fillna(train.label)),
        'deleted': train[~train.sha256.isin(suggested)],
        'perfect cleaning': train.assign(label=train.sha256.map(right).fillna(train.label)),
    }
    accuracies = {what: solved_accuracy(rows, head, table, test) for what, table in ways.items()}
    hits = np.isin([*suggested], [*right])
    correct = [right.get(sha) == label for sha, label in suggested.items()]
    return [dict(accuracies, taken=len(suggested), flipped=hits.mean(), right=np.mean(correct))]


def write(rows, file):
    "Replace the rows of a seed."
    table = pd.DataFrame(rows)
    if file.exists():
        before = pd.read_csv(file)
        table = pd.concat([before[~before.seed.astype(str).isin(table.seed.astype(str))], table])
    table.round(4).to_csv(file, index=False)
    print(table.round(4).to_string(index=False), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, required=True)
    parser.add_argument('--work', type=Path, required=True, help='a folder on the same disk as the photos')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--share', type=float, default=0.08, help='of the labels in train and valid')
    parser.add_argument('--choose', action='store_true')
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.choose:
        rows, head = embedded(args)
        for seed in args.seeds:
            write([dict(seed=seed) | o for o in choose(args, seed, rows, head)], HERE / 'results' / 'round_choice.csv')
        return
    tables = {}
    for seed in args.seeds:
        rows, tables[seed] = one_seed(args, seed)
        write([dict(seed=seed) | o for o in rows], HERE / 'results' / 'round.csv')
    write([dict(seed='all') | o for o in pooled(tables)], HERE / 'results' / 'round.csv')


if __name__ == '__main__':
    main()
