"Cross-validation that is killed, and photos that are cleaned while it goes on."

import json
import random
import shutil
import signal
import time

import pandas as pd
import pytest

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.sampling import read_split

CODE = """
from cloud_classifier.training.run import cross_validate
cross_validate({data!r}, folds=2, out={out!r}, arch='timm/test_resnet', size=32, epochs=1, weights='none', bs=8,
               precision='fp32', cache=False, num_workers=0, progress=False)
"""


@pytest.fixture(scope='module')
def alone(server, skies, tmp_path_factory):
    "The folds of a call that nobody disturbed, and how long it took, seconds."
    out, start = tmp_path_factory.mktemp('alone') / 'folds', time.monotonic()
    server.run(CODE.format(data=str(skies), out=str(out)))
    return out, time.monotonic() - start


def true_so_far(out):
    "What is in the folder of a call that was killed is whole, and true."
    for file in out.rglob('*.json'):
        json.loads(file.read_text())
    split = out / 'split.csv'
    if split.exists():
        assert read_split(split, '.').rule
    for file in out.glob('fold-*/run.json'):
        if json.loads(file.read_text())['status'] == 'finished':
            assert (file.parent / 'learner.pkl').exists()
            assert read_split(file.parent / 'split.csv', '.').hash == json.loads(file.read_text())['split_hash']


def killed(server, skies, alone, place, kills, chance):
    "Kill calls at random moments until there were so many kills; each is gone on with, and ends as one left alone."
    out, seconds = alone
    wanted, here, ended = pd.read_parquet(out / 'oof.parquet'), place / 'folds-0', 0
    while kills:
        child = server.start(CODE.format(data=str(skies), out=str(here)))
        end = time.monotonic() + chance.uniform(0, 0.7 * seconds)
        while child.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        if child.poll() is None:
            child.kill()
        status = child.wait()
        assert status in (0, -signal.SIGKILL), child.said()
        kills -= status != 0
        true_so_far(here)
        if status == 0 or not kills:
            server.run(CODE.format(data=str(skies), out=str(here)))
            pd.testing.assert_frame_equal(pd.read_parquet(here / 'oof.parquet'), wanted)
            assert not list(here.rglob('.*.tmp'))
            ended += 1
            here = place / f'folds-{ended}'
    return ended


def test_folds_that_are_killed_end_as_those_left_alone(server, skies, alone, tmp_path):
    assert killed(server, skies, alone, tmp_path, 2, random.Random(1))


@pytest.mark.soak
def test_folds_that_are_killed_thirty_times(server, skies, alone, tmp_path):
    assert killed(server, skies, alone, tmp_path, 30, random.Random(2))


def test_photos_may_be_cleaned_between_folds(server, skies, tmp_path):
    "Who was validated on in a fold that is done is trained on in those to come, whatever became of others."
    mine, out = Dataset(shutil.copytree(skies, tmp_path / 'skies')), tmp_path / 'folds'
    code = CODE.format(data=str(mine.path), out=str(out))
    child = server.start(code)
    child.wait_for(lambda: '"finished"' in text_of(out / 'fold-0' / 'run.json'))
    child.kill()
    child.wait()
    first = read_split(out / 'fold-0' / 'split.csv', mine.path)
    a, b, c, d, *_ = first.part('valid').path
    taken, renamed = [a, first.part('train').path.iloc[0]], [b, first.part('train').path.iloc[1]]
    for photo in taken:
        mine.quarantine(photo, 'blurry')
    for photo in renamed:
        (mine.path / photo).rename((mine.path / photo).with_suffix('.renamed.jpg'))
    mine.relabel(c, 'Cumulus' if 'Stratus' in c else 'Stratus')
    server.run(code)
    oof, made = pd.read_parquet(out / 'oof.parquet'), read_split(out / 'split.csv', mine.path)
    assert oof.path.is_unique
    asked = made.frame[made.frame.part.isin(['train', 'valid'])]
    assert len(oof) == len(asked) - len(taken)
    assert all((mine.path / photo).is_file() for photo in oof.path)
    assert set(oof.label[oof.path.str.contains(c.split('/')[1])]) == {'Cumulus' if 'Stratus' in c else 'Stratus'}
    for fold, rows in oof.groupby('fold'):  # by their bytes: what a fold says is of photos that it was not trained on
        trained = read_split(out / f'fold-{fold}' / 'split.csv', mine.path).part('train').sha256
        assert not set(mine.digests(rows.path).values()) & set(trained)
    assert (oof.fold[oof.path == d] == 0).all()


def text_of(file):
    return file.read_text() if file.exists() else ''
