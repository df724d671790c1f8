"""Whether the queue of label issues begins with the labels that are wrong, and how long it takes to make.

    python benchmarks/bench_clean.py --photos FOLDER [--cache FOLDER] [--cold]

8 % of the photos are put under another label, drawn at random, three times. Counted is how many of them are among the
first 8 % of the photos in the queue; by chance it would be 8 in 100. Beside it stand top losses: of the same models
out of fold, and of a head that was fitted to the very photos that it judges, as the recipe `fast` fits it. Labels that
are wrong in the photos as they are count as right here, so the true share is higher; how many there are is not known.
With --cold the queue of the photos as they are is made once more in a new process, with nothing in any cache, and
timed. Writes benchmarks/results/clean.csv.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / 'results' / 'clean.csv'
SHARE, SEEDS = 0.08, (0, 1, 2)


def _link(source, target):
    "A hard link, or a copy where that can't be made."
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _free_name(taken, path):
    "The path, or one beside it that no photo has."
    path, n = Path(path), 1
    name = path
    while name.as_posix() in taken:
        name, n = path.with_stem(f'{path.stem}-{n}'), n + 1
    taken.add(name.as_posix())
    return name.as_posix()


def flipped_copy(data, out, share=SHARE, seed=0, parts=None):
    """A copy of a dataset, made of hard links, in which some photos stand under another label.

    `share` of the photos, 0 to 1, are moved to the folder of another class, each as likely; with `parts`, a `Split`,
    only photos of its parts train and valid are. Returns a table of what was moved: path (in the copy), label (there),
    was (its label in `data`), source (its path in `data`).
    """
    from cloud_classifier.data.dataset import Dataset

    dataset, out, rng = Dataset(data), Path(out), np.random.default_rng(seed)
    listing, folder_of = dataset.listing(), {}
    for name, label in dataset.folders.items():
        folder_of.setdefault(label, name)
    may = listing.path if parts is None else parts.frame.path[parts.frame.part.isin(['train', 'valid'])]
    may = listing[listing.path.isin(may)].sort_values('path')
    moved = may.sample(round(share * len(may)), random_state=rng).sort_values('path')
    labels = sorted(listing.label.unique())
    new = [str(rng.choice([o for o in labels if o != label])) for label in moved.label]
    taken = set(listing.path)
    places = [_free_name(taken, f'{folder_of[o]}/{Path(p).name}') for p, o in zip(moved.path, new, strict=True)]
    place_of = dict(zip(moved.path, places, strict=True))
    for path in listing.path:
        _link(dataset.path / path, out / place_of.get(path, path))
    facts = dict(path=places, label=new, was=moved.label.to_list(), source=moved.path.to_list())
    return pd.DataFrame(facts).sort_values('path', ignore_index=True)


def in_sample_losses(dataset, oof, cache):
    "The photos of a table, those first that a head fitted to all of them finds hardest to believe."
    import torch

    from cloud_classifier.training.config import default_arch
    from cloud_classifier.training.learner import fit_head, moments_head
    from cloud_classifier.training.oof import photo_features

    x = photo_features(dataset, oof.path.tolist(), default_arch(), cache=cache, progress=False)
    y = pd.Categorical(oof.label).codes.astype(int)
    head = moments_head(x.shape[1], y.max() + 1)
    fit_head(head, x, y)
    with torch.no_grad():
        probs = torch.softmax(head.eval()(torch.from_numpy(x)), 1).numpy()
    order = np.argsort(probs[np.arange(len(y)), y], kind='stable')
    return oof.path.iloc[order].tolist()


def worth(order, flipped, photos):
    "How well a queue ranks the flipped photos; those that it does not list come last, in no order."
    from sklearn.metrics import average_precision_score, roc_auc_score

    order = list(dict.fromkeys(order))
    first = order[: round(SHARE * len(photos))]
    rank = {path: -i for i, path in enumerate(order)}
    scores, true = [rank.get(o, -len(photos)) for o in photos], [o in flipped for o in photos]
    share, chance = len(flipped.intersection(first)) / len(first), len(flipped) / len(photos)
    return dict(
        photos=len(photos),
        flipped=len(flipped),
        share_in_first=round(share, 4),
        chance=round(chance, 4),
        times_chance=round(share / chance, 2),
        average_precision=round(average_precision_score(true, scores), 4),
        auroc=round(roc_auc_score(true, scores), 4),
    )


def rank(data, seed, cache):
    "The worth of each queue over a flipped copy."
    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.issues import label_issues, top_losses
    from cloud_classifier.training.oof import out_of_fold

    with TemporaryDirectory() as folder:
        flipped, dataset = set(flipped_copy(data, folder, seed=seed).path), Dataset(folder)
        oof = out_of_fold(dataset, cache=cache, progress=False)
        issues, losses = label_issues(dataset, oof), top_losses(oof).path.tolist()
        queues = {
            'label_issues': [*issues.path, *losses],
            'top losses out of fold': losses,
            'top losses in sample': in_sample_losses(dataset, oof, cache),
        }
        for name, order in queues.items():
            yield dict(seed=seed, queue=name, **worth(order, flipped, oof.path.tolist()), listed=issues.path.nunique())


COLD = """
from sys import argv
from cloud_classifier.training.oof import out_of_fold
from cloud_classifier.data.issues import label_issues
label_issues(argv[1], out_of_fold(argv[1], progress=False)).to_json(argv[2] + '/queue.json', orient='records')
"""


def cold(data):
    "Seconds from nothing to the queue, of the clock and of the processors."
    with TemporaryDirectory() as folder:
        env, start, before = os.environ | {'CLOUD_CACHE': folder}, time.perf_counter(), os.times()
        subprocess.run([sys.executable, '-c', COLD, str(data), folder], env=env, check=True)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        seconds = time.perf_counter() - start
    return dict(queue='label_issues, cold', seconds=round(seconds), cpu_seconds=round(cpu), load=os.getloadavg()[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, required=True)
    parser.add_argument('--cache', type=Path, default=None)
    parser.add_argument('--cold', action='store_true')
    parser.add_argument('--seeds', nargs='+', type=int, default=SEEDS)
    args = parser.parse_args()
    from cloud_classifier.training.dataloaders import PhotoCache

    rows = [cold(args.photos)] if args.cold else []
    for seed in args.seeds:
        rows += rank(args.photos, seed, PhotoCache(args.cache))
        print(pd.DataFrame(rows).to_string(), flush=True)
    pd.DataFrame(rows).to_csv(RESULTS, index=False)


if __name__ == '__main__':
    main()
