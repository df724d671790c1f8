"Out-of-fold probabilities: what they depend on, what is kept, and datasets that offer little."

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.data.issues import FACTS, BadOOF, label_issues, oof_classes
from cloud_classifier.errors import UserError
from cloud_classifier.training import oof as room
from cloud_classifier.training.oof import oof_of_run, out_of_fold

SETTINGS = dict(arch='tf_efficientnet_lite0', size=64, progress=False)


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp('cache')


@pytest.fixture
def data(skies, tmp_path):
    "A copy of the rendered skies, which may be changed."
    return Dataset(shutil.copytree(skies, tmp_path / 'skies'))


@pytest.fixture
def no_body(monkeypatch):
    "No photo may go through a network any more."

    def fail(*args, **kwargs):
        raise AssertionError('a photo went through the network')

    monkeypatch.setattr('cloud_classifier.training.recipes.embed', fail)


@pytest.fixture(scope='module')
def oof(skies, cache):
    return out_of_fold(skies, cache=cache, **SETTINGS)


def test_a_row_a_photo(skies, oof):
    assert oof.path.tolist() == sorted(path for path, _ in Dataset(skies).photos())
    assert [o for o in oof if o in FACTS] == [*FACTS]
    assert oof_classes(oof) == ['Cirrus', 'Stratus', 'Cumulus']
    assert oof[oof_classes(oof)].sum(axis=1).to_numpy() == pytest.approx(1)
    assert oof.outlier.between(0, 1).all()


def test_a_group_is_held_out_together(oof):
    assert (oof.groupby('group').fold.nunique() == 1).all()
    assert set(oof.fold) == {0, 1, 2, 3, 4}


def test_it_is_kept(skies, oof, cache, monkeypatch):
    monkeypatch.setattr(room, 'scan_fingerprints', None)
    pd.testing.assert_frame_equal(out_of_fold(skies, cache=cache, **SETTINGS), oof)
    pd.testing.assert_frame_equal(out_of_fold(str(skies), cache=str(cache), **SETTINGS), oof)


def test_the_same_seed_gives_the_same_table(data, oof, cache, no_body):
    pd.testing.assert_frame_equal(out_of_fold(data, cache=cache, **SETTINGS), oof)
    other = out_of_fold(data, cache=cache, seed=1, **SETTINGS)
    assert not other.fold.equals(oof.fold)


def test_after_a_relabel_only_heads_are_solved(data, cache, oof, no_body):
    photo = oof.path[oof.label == 'Cumulus'].iloc[0]
    data.relabel(photo, 'Stratus', 'to see what happens')
    after = out_of_fold(data, cache=cache, **SETTINGS)
    assert len(after) == len(oof)
    (sha256,) = oof.sha256[oof.path == photo]
    assert after.label[after.sha256 == sha256].tolist() == ['Stratus']
    assert label_issues(data, after).iloc[0].sha256 == sha256


def test_a_damaged_cache_is_made_again(data, cache, oof, no_body):
    for file in cache.glob('oof-*/*/table.parquet'):
        file.write_bytes(b'PAR1')
    pd.testing.assert_frame_equal(out_of_fold(data, cache=cache, **SETTINGS), oof)


def test_photos_that_cannot_be_read_are_left_out(data, cache, oof, no_body, caplog):
    (data.path / 'Cirrus/bad.jpg').write_bytes(b'no photo')
    (data.path / 'Cirrus/cut.jpg').write_bytes((data.path / oof.path[0]).read_bytes()[:500])
    assert len(out_of_fold(data, cache=cache, **SETTINGS)) == len(oof)
    assert '2 photos (Cirrus/bad.jpg, Cirrus/cut.jpg) left out' in caplog.text


def test_few_photos_make_fewer_folds(data, cache, oof, no_body, caplog):
    for _, rows in oof.groupby('label'):
        for path in rows.path[3:]:
            (data.path / path).unlink()
    few = out_of_fold(data, cache=cache, **SETTINGS)
    assert (len(few), set(few.fold)) == (9, {0, 1, 2})
    assert '3 folds rather than 5' in caplog.text
    label_issues(data, few)


def test_a_class_of_one_photo_is_left_out(data, cache, oof, no_body, caplog):
    for path in oof.path[oof.label == 'Cirrus'][1:]:
        (data.path / path).unlink()
    assert oof_classes(out_of_fold(data, cache=cache, **SETTINGS)) == ['Stratus', 'Cumulus']
    assert 'Cirrus left out' in caplog.text


def test_a_rare_class_costs_the_others_no_folds(data, cache, oof, no_body):
    for path in oof.path[oof.label == 'Cirrus'][2:]:
        (data.path / path).unlink()
    rare = out_of_fold(data, cache=cache, **SETTINGS)
    assert set(rare.fold) == {0, 1, 2, 3, 4}
    assert rare.fold[rare.label == 'Cirrus'].nunique() == 2


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(folds=1), '2 folds or more, not 1'),
        (dict(folds=2.5), '2 folds or more, not 2.5'),
        (dict(weights='none'), "weights='none' is none"),
        (dict(weights='gone.pth'), 'gone.pth'),
        (dict(arch='resnet1234'), 'unknown backbone'),
    ],
)
def test_settings_that_cannot_work(skies, settings, message):
    with pytest.raises(UserError, match=message) as error:
        out_of_fold(skies, cache=False, **SETTINGS | settings)
    assert '\n' not in str(error.value)


def test_datasets_that_cannot_work(data, tmp_path):
    with pytest.raises(BadDataset, match='no such folder'):
        out_of_fold(tmp_path / 'gone', **SETTINGS)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(BadDataset, match='no photos'):
        out_of_fold(tmp_path / 'empty', **SETTINGS)
    (data.path / 'Cirrus').rename(data.path / 'outlier')
    with pytest.raises(BadDataset, match="can't be called 'outlier'"):
        out_of_fold(data, **SETTINGS)


def test_with_a_split_the_test_part_is_not_looked_at(data, cache, oof, no_body):
    from cloud_classifier.data.sampling import split

    parts = split(data, seed=1)
    table = out_of_fold(data, parts=parts, cache=cache, **SETTINGS)
    used = parts.frame[parts.frame.part.isin(['train', 'valid'])]
    assert table.path.tolist() == sorted(used.path)
    assert 'test' in set(parts.frame.part)
    label_issues(data, table)


def test_an_interrupted_call_goes_on(skies, tmp_path, monkeypatch):
    from cloud_classifier.training import recipes

    embed, calls = recipes.embed, []

    def interrupted(body, photos, *args, **kwargs):
        calls.append(len(photos))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(body, photos, *args, **kwargs)

    monkeypatch.setattr(recipes, 'embed', interrupted)
    monkeypatch.setattr(room, 'CHUNK', 30)
    with pytest.raises(KeyboardInterrupt):
        out_of_fold(skies, cache=tmp_path, **SETTINGS)
    out_of_fold(skies, cache=tmp_path, **SETTINGS)
    assert calls == [30, 12, 12]


def test_what_a_run_says_of_its_validation_photos(run):
    table = oof_of_run(run)
    assert set(table.path) == set(run.split.part('valid').path)
    assert np.isclose(table[oof_classes(table)].sum(axis=1), 1).all()
    assert set(label_issues(run.metadata['data'], oof_of_run(str(run.path), ['valid', 'test'])).path) <= set(
        run.split.frame.path
    )
    with pytest.raises(BadOOF, match='and not train'):
        oof_of_run(run, ['train'])


def test_flipped_copies_are_what_they_say(data, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / 'benchmarks')
    from bench_clean import flipped_copy

    before = {file.relative_to(data.path): file.read_bytes() for file in data.path.glob('*/*')}
    flipped = flipped_copy(data.path, tmp_path / 'flipped', share=0.2, seed=3)
    copy = Dataset(tmp_path / 'flipped')
    labels = dict(copy.photos())
    assert len(labels) == len(before)
    assert len(flipped) == round(0.2 * len(before))
    for row in flipped.itertuples():
        assert labels[row.path] == row.label != row.was == dict(data.photos())[row.source]
        assert (copy.path / row.path).read_bytes() == (data.path / row.source).read_bytes()
    assert before == {file.relative_to(data.path): file.read_bytes() for file in data.path.glob('*/*')}
    again = flipped_copy(data.path, tmp_path / 'again', share=0.2, seed=3)
    pd.testing.assert_frame_equal(flipped, again)
