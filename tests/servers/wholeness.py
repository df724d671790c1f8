"Whether a dataset is whole: no byte lost, no row untrue; and what is done to it meanwhile."

import random
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from cloud_classifier.data.clean import Cleaner
from cloud_classifier.data.dataset import DECISIONS, BadDataset, Dataset
from cloud_classifier.files import file_hash
from cloud_classifier.taxonomy import read_label

LABELS = ('Cirrus', 'Stratus', 'Cumulus')


def make_dataset(folder, per_class=6, seed=0):
    "A dataset of small photos that all differ, under names that each class has."
    noise = np.random.default_rng(seed)
    for label in LABELS:
        (Path(folder) / label).mkdir(parents=True)
        for n in range(per_class):
            pixels = noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / label / f'{n}.png')
    return Dataset(folder)


def files(folder):
    "The photos of a dataset: in class folders, in quarantine and on their way."
    found = (p for p in Path(folder).rglob('*') if p.is_file() and len(p.relative_to(folder).parts) > 1)
    return {p.relative_to(folder).as_posix(): p for p in found}


def contents(folder):
    "How often the bytes of each photo are there."
    return Counter(file_hash(p) for p in files(folder).values())


def check_journal(dataset, here):
    "Each move that stands has its photo where it says, unless a later one took it further."
    rows = dataset.journal()
    stand = rows[rows.undone.isna() & (rows.failed == '')]
    moved = stand[stand.action != 'keep']
    for number, row in moved.iterrows():
        if row.target not in set(moved.source[moved.index > number]):
            assert here.get(row.target) == row.sha256, f'row {number} says {row.target}'
    quarantined = [path for path in here if path.startswith('.quarantine/')]
    told = Counter(moved.target[moved.target.str.startswith('.quarantine/')])
    assert told == Counter(quarantined), 'each photo in quarantine has one row of the journal'


def check_photos(dataset, here):
    "Each row of a photo that is there has its file, its bytes and its label."
    rows = dataset.manifest.read("SELECT * FROM photos WHERE path <> ''")
    for row in rows:
        if row['status'] in ('ok', 'quarantined'):
            assert here.get(row['path']) == row['sha256'], tuple(row)
            assert row['path'].startswith('.quarantine/') == (row['status'] == 'quarantined'), tuple(row)
        if row['status'] == 'ok':
            assert read_label(row['path'].split('/')[0]) == row['label'], tuple(row)
        if row['status'] == 'missing':
            assert row['path'] not in here, tuple(row)
    places = Counter(row['path'] for row in rows if row['status'] in ('ok', 'quarantined', 'failed'))
    assert max(places.values(), default=1) == 1, 'no two photos have one place'


def whole(dataset, before):
    "Nothing is lost, doubled or untrue; `before` is what `contents` returned. Called when no command runs."
    dataset = Dataset(dataset) if not isinstance(dataset, Dataset) else dataset
    dataset.manifest.carry_out()
    here = {path: file_hash(file) for path, file in files(dataset.path).items()}
    assert Counter(here.values()) == before
    assert not dataset.manifest.read('SELECT * FROM moves')
    check_journal(dataset, here)
    check_photos(dataset, here)
    if dataset.manifest.exists():
        with closing(sqlite3.connect(dataset.manifest.file)) as db:
            assert db.execute('PRAGMA integrity_check').fetchone() == ('ok',)
    assert not [p.name for p in dataset.path.glob('manifest.db-*') if p.name != 'manifest.db-journal']


# What people do to a dataset


def some_photo(dataset, chance):
    "Any photo; those that were taken out come back where there is none left."
    while not (photos := list(dataset.photos())):
        dataset.undo(10)
    return chance.choice(photos)[0]


def quarantine(dataset, chance):
    dataset.quarantine(some_photo(dataset, chance), 'by chance')


def relabel(dataset, chance):
    dataset.relabel(some_photo(dataset, chance), chance.choice([*LABELS, 'Contrail']), 'by chance')


def undo(dataset, chance):
    dataset.undo(chance.randint(1, 3))


def sync(dataset, chance):
    dataset.sync(progress=False)


def apply(dataset, chance):
    "Look through the photos with a cleaner that is told what to do by chance."
    cleaner = Cleaner(dataset)
    photos = list(cleaner.queue().path)
    for path in chance.sample(photos, min(3, len(photos))):
        decision = chance.choice(DECISIONS)
        with suppress(BadDataset):
            cleaner.decide(path, decision, chance.choice(LABELS) if decision == 'relabel' else None, 'by chance')
    cleaner.apply()
    if chance.random() < 0.5:
        cleaner.undo_session()


VERBS = {f.__name__: f for f in (quarantine, relabel, undo, apply, sync)}


def work(folder, verb, seed, rounds):
    "One command after another; what another process got hold of first is refused, and that is all that may go wrong."
    dataset, chance = Dataset(folder), random.Random(seed)
    for _ in range(rounds):
        with suppress(BadDataset):
            VERBS[verb](dataset, chance)
