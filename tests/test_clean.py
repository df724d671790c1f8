"Cleaning never loses a photo: whatever is decided, applied, cut off and undone, the tree is as it was."

import hashlib
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_classifier.data.clean import Cleaner, DecidedMeanwhile, NotApplied, photo_name, replay
from cloud_classifier.data.dataset import DECISIONS, BadDataset, Dataset
from cloud_classifier.files import move_file

CLASSES = ('Cirrus', 'Stratus', 'Cumulus')
# The names collide on purpose: every class has a 1.jpg, two have a 2.jpg.
PHOTOS = ('Cirrus/1.jpg', 'Cirrus/2.jpg', 'Stratus/1.jpg', 'Stratus/2.jpg', 'Cumulus/1.jpg')


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(root: Path) -> Dataset:
    "A dataset of files that differ in their bytes alone."
    for n, photo in enumerate(PHOTOS):
        (root / photo).parent.mkdir(parents=True, exist_ok=True)
        (root / photo).write_bytes(b'photo %d' % n)
    return Dataset(root)


def make(root: Path, **more) -> Cleaner:
    "A cleaner over photos of which the last ones are doubted the most."
    dataset = write(root)
    suggested = ['Cirrus', 'Stratus', 'Stratus', 'Cumulus', 'Cirrus']
    rows = [(photo, sha(b'photo %d' % n), photo.split('/')[0], suggested[n], n / 5) for n, photo in enumerate(PHOTOS)]
    issues = pd.DataFrame(rows[::-1], columns=['path', 'sha256', 'label', 'suggested', 'score'])
    return Cleaner(dataset, issues, **more)


def tree(root: Path) -> dict[str, str]:
    "The hash of each file of the dataset, its own files apart."
    own = ('manifest.db', '.manifest.lock', '.cleaner.lock')
    files = (p for p in root.rglob('*') if p.is_file() and not p.name.startswith(own))
    return {p.relative_to(root).as_posix(): sha(p.read_bytes()) for p in files}


@pytest.fixture
def cleaner(tmp_path) -> Cleaner:
    return make(tmp_path / 'skies')


@pytest.fixture
def root(cleaner) -> Path:
    return cleaner.dataset.path


def test_whoever_only_looks_writes_no_manifest(cleaner, root):
    before = tree(root)
    cleaner.queue(), cleaner.progress, cleaner.pending, cleaner.notice
    assert len(cleaner.apply()) == 0
    assert cleaner.undo() == cleaner.undo_all() == cleaner.undo_session() == []
    assert not cleaner.withdraw('Cirrus/1.jpg')
    assert tree(root) == before
    assert not (root / 'manifest.db').exists()
