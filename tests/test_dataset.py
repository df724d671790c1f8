"Folders as people leave them, and moves that are cut off."

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
        patched.setattr('cloud_classifier.manifest.move_file', cut_off)
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


def test_sync_follows_what_a_person_did(dataset):
    assert dataset.sync(progress=False) == {'new': 42, 'changed': 0, 'moved': 0, 'missing': 0}
    first, second, third, fourth = dataset.listing().path[:4]
    with dataset.manifest.open() as db:
        db.execute("UPDATE photos SET author = 'Ann Example'")
    (dataset.path / first).rename(dataset.path / 'Stratus' / 'dragged.jpg')
    (dataset.path / second).unlink()
    shutil.copy(dataset.path / third, dataset.path / fourth)
    (dataset.path / 'Cumulus' / 'page.jpg').write_text('<html>')
    assert dataset.sync(progress=False) == {'new': 1, 'changed': 1, 'moved': 1, 'missing': 1}
    frame = dataset.frame().set_index('path')
    assert frame.label['Stratus/dragged.jpg'] == 'Stratus'
    assert frame.author['Stratus/dragged.jpg'] == 'Ann Example'
    assert frame.status[second] == 'missing'
    assert frame.sha256[third] == frame.sha256[fourth]
    assert frame.status['Cumulus/page.jpg'] == 'failed'
    assert not dataset.manifest.counts()['classes'].get('new')
    assert sum(dataset.sync(progress=False).values()) == 0


def test_sync_knows_a_photo_that_comes_back(dataset):
    dataset.sync(progress=False)
    photo = dataset.listing().path[0]
    (dataset.path / photo).rename(dataset.path / 'elsewhere')
    assert dataset.sync(progress=False)['missing'] == 1
    (dataset.path / 'elsewhere').rename(dataset.path / 'Cumulus' / 'back.jpg')
    assert dataset.sync(progress=False) == {'new': 0, 'changed': 0, 'moved': 1, 'missing': 0}
    assert (dataset.frame().status == 'ok').all()
    assert len(dataset.frame()) == 42


def test_the_manifest_follows_each_move(dataset):
    dataset.sync(progress=False)
    photo, other = dataset.listing().path[:2]
    dataset.relabel(photo, 'St')
    dataset.quarantine(other, 'blurred')
    frame = dataset.frame()
    assert frame.status.value_counts().to_dict() == {'ok': 41, 'quarantined': 1}
    assert sum(dataset.sync(progress=False).values()) == 0
    dataset.undo(2)
    assert (dataset.frame().status == 'ok').all()
    assert set(dataset.frame().path) == set(dataset.listing().path)
    assert sum(dataset.sync(progress=False).values()) == 0


def test_copies_under_two_labels_are_two_photos(dataset):
    photo = dataset.listing().path[0]
    shutil.copy(dataset.path / photo, dataset.path / 'Stratus' / 'copy.jpg')
    assert dataset.sync(progress=False)['new'] == 43
    frame = dataset.frame()
    twice = frame[frame.sha256.duplicated(keep=False)]
    assert set(twice.label) == {'Cirrus', 'Stratus'}
    assert (twice.status == 'ok').all()
    (dataset.path / 'Stratus' / 'copy.jpg').rename(dataset.path / 'Stratus' / 'renamed.jpg')
    assert dataset.sync(progress=False)['moved'] == 1
    assert photo in set(dataset.frame('ok').path)


def test_a_frame_has_its_columns_with_and_without_a_manifest(dataset):
    columns = 'path label genus source url page author licence query sha256 width height status'.split()
    plain = dataset.frame()
    assert list(plain.columns) == columns
    assert set(plain.status) == {'new'}
    dataset.sync(progress=False)
    known = dataset.frame()
    assert list(known.columns) == columns
    assert set(known.path + known.label) == set(plain.path + plain.label)
    assert (known.width == 96).all()
    assert known.sha256.str.fullmatch('[0-9a-f]{64}').all()


def test_status_counts_files_that_nobody_told_of(dataset):
    assert dataset.status() == {
        'classes': {'Cirrus': 14, 'Stratus': 14, 'Cumulus': 14},
        'status': {'new': 42},
        'reasons': {},
    }
    dataset.sync(progress=False)
    assert dataset.status()['status'] == {'ok': 42}
