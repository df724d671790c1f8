"Folders as people leave them, and moves that are cut off."

import os
import shutil

import pytest

from cloud_classifier.dataset import BadDataset, Dataset


@pytest.fixture
def dataset(skies, tmp_path):
    "A dataset of one's own to move photos in."
    return Dataset(shutil.copytree(skies, tmp_path / 'skies'))


def test_a_folder_is_read_whatever_lies_around(tmp_path):
    for name in (
        'Ac/1.jpg',
        'altocumulus/2.JPEG',
        'Ct/deeper/3.png',
        '.quarantine/4.jpg',
        'Ac/.hidden.jpg',
        'Ac/Thumbs.db',
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'Stratus').mkdir()
    found = {(path, label) for path, label in Dataset(tmp_path).photos()}
    assert found == {('Ac/1.jpg', 'Altocumulus'), ('altocumulus/2.JPEG', 'Altocumulus'), ('Ct/deeper/3.png', 'Ct')}
    assert list(Dataset(tmp_path).check(at_least=1).index) == ['Altocumulus', 'Ct']


def test_what_is_no_dataset_says_what_to_do(tmp_path):
    with pytest.raises(BadDataset, match='no such folder'):
        Dataset(tmp_path / 'nowhere')
    (tmp_path / 'photo.jpg').touch()
    with pytest.raises(BadDataset, match='is a file'):
        Dataset(tmp_path / 'photo.jpg')
    with pytest.raises(BadDataset, match='one folder per class'):
        Dataset(tmp_path).check()
    (tmp_path / 'empty').mkdir()
    with pytest.raises(BadDataset, match='has no photos'):
        Dataset(tmp_path / 'empty').check()


def test_a_photo_that_is_a_link_counts_and_moves(dataset, tmp_path):
    photo = dataset.path / 'Cirrus' / 'link.jpg'
    photo.symlink_to(next((dataset.path / 'Stratus').iterdir()))
    assert dataset.quarantine('Cirrus/link.jpg', 'a link')
    assert dataset.undo() == ['Cirrus/link.jpg']
    assert photo.is_symlink()


def test_a_move_that_never_happened_is_taken_back_without_harm(dataset, monkeypatch):
    photo = dataset.listing().path[0]
    content = (dataset.path / photo).read_bytes()

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, 'rename', cut_off)
        with pytest.raises(KeyboardInterrupt):
            dataset.quarantine(photo, 'cut off between the row and the move')
    assert len(dataset.journal()) == 1
    assert dataset.undo() == [photo]
    assert (dataset.path / photo).read_bytes() == content


def test_moves_never_overwrite(dataset):
    first, second = dataset.path / 'Cirrus' / 'same.jpg', dataset.path / 'Stratus' / 'same.jpg'
    first.write_bytes(b'one')
    second.write_bytes(b'two')
    dataset.relabel('Cirrus/same.jpg', 'St')
    first.write_bytes(b'three')
    assert dataset.undo() == ['Cirrus/same-1.jpg']
    kept = {p.read_bytes() for p in dataset.path.rglob('same*.jpg')}
    assert kept == {b'one', b'two', b'three'}


@pytest.mark.parametrize('label', ['', '.quarantine', '../Cirrus', 'a/b'])
def test_labels_that_are_no_folder_names(dataset, label):
    with pytest.raises(BadDataset):
        dataset.relabel(dataset.listing().path[0], label)
    assert dataset.journal().empty


def test_a_photo_that_can_not_be_read_is_a_row(dataset):
    photo = dataset.listing().path[0]
    (dataset.path / photo).write_bytes((dataset.path / photo).read_bytes()[:300])
    seen = dataset.scan(progress=False).set_index('path')
    assert seen.status[photo] == 'truncated'
    assert (seen.status.drop(photo) == 'ok').all()


def test_looking_never_changes_a_folder(dataset):
    before = sorted(dataset.path.rglob('*'))
    assert dataset.journal().empty
    assert dataset.undo() == []
    dataset.check()
    dataset.scan(progress=False)
    assert sorted(dataset.path.rglob('*')) == before


def test_a_photo_that_stands_there_already_is_not_moved(dataset):
    photo = dataset.listing().path[0]
    with pytest.raises(BadDataset, match='stands under Cirrus already'):
        dataset.relabel(photo, 'ci')
    assert (dataset.path / photo).is_file()
