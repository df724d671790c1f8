"Folders as people leave them, and moves that are cut off."

import errno
import os
import shutil
from pathlib import Path

import pytest
from conftest import ordinary_user
from wholeness import make_dataset

import cloud_classifier.data.dataset as module
from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.data.scrape import add_photos, scrape_clouds
from cloud_classifier.files import file_hash, move_file
from cloud_classifier.taxonomy import SpellingWarning, UnknownGenus


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
        patched.setattr('cloud_classifier.data.dataset.move_file', cut_off)
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


# Labels that are no folders, edits that keep the size, folders that can't be read


NO_LABELS = {
    'manifest.db': 'beside the class folders',
    'Manifest.db-journal': 'beside the class folders',
    'attribution.csv': 'beside the class folders',
    'notes.txt': 'a file has that name',
    'linked': 'leads out of the dataset',
    'Ж' * 128: 'too long',
    'x' * 101: 'too long',
    'NUL': 'Windows',
    'com1.jpg': 'Windows',
    'ends.': 'ends with a dot',
    ' begins': 'begins or ends with a space',
    'two\nlines': 'no name has',
    'bad\udcff': 'no name has',
    '..': 'begins with a dot',
}


@pytest.mark.parametrize(('label', 'why'), NO_LABELS.items(), ids=range(len(NO_LABELS)))
def test_labels_that_can_be_no_folder_here(dataset, tmp_path, label, why):
    (dataset.path / 'notes.txt').write_text('seen from the roof')
    (dataset.path / 'linked').symlink_to(tmp_path)
    photo = dataset.listing().path[0]
    for step in (lambda: dataset.folder_of(label), lambda: dataset.relabel(photo, label)):
        with pytest.raises(BadDataset, match=why):
            step()
    assert not dataset.manifest.exists()


def test_a_move_that_fails_is_a_row_and_stops_nothing(dataset, monkeypatch):
    first, second = dataset.listing().path[:2]

    def no_rights(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr('cloud_classifier.data.dataset.move_file', no_rights)
        with pytest.raises(BadDataset, match=f"{first}: can't be moved: Permission denied"):
            dataset.quarantine(first, 'no rights')
    dataset.quarantine(second, 'fine')
    assert dataset.journal().failed.tolist() == ['Permission denied', '']
    assert dataset.undo(2) == [second]


def test_an_undo_that_fails_can_be_tried_again_and_stops_none_of_the_others(dataset, monkeypatch):
    first, second, third = dataset.listing().path[:3]
    rows = [dataset.quarantine(photo, 'a test') for photo in (first, second, third)]
    (dataset.path / dataset.journal().target[rows[1]]).unlink()
    target = dataset.journal().target[rows[2]]

    def no_rights(source, to):
        if source.name == Path(target).name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return move_file(source, to)

    with monkeypatch.context() as patched:
        patched.setattr('cloud_classifier.data.dataset.move_file', no_rights)
        with pytest.raises(BadDataset, match='2 moves') as refused:
            dataset.undo(3)
    assert f'{second} (is not there any more)' in str(refused.value)
    assert (dataset.path / first).is_file()
    assert dataset.undo(3) == [third]
    assert dataset.journal().failed.tolist() == ['', 'is not there any more', '']


def test_an_edit_in_place_of_the_same_size_is_noticed(dataset):
    dataset.sync(progress=False)
    edited, downloaded = dataset.listing().path[:2]
    with dataset.manifest.open() as db:  # as a photo was written down that has just been downloaded
        db.execute('UPDATE photos SET mtime = NULL, ctime = NULL WHERE path = ?', (downloaded,))
    for photo in (edited, downloaded):
        file = dataset.path / photo
        before = file.stat()
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert dataset.digests([photo])[photo] == file_hash(file)
    assert dataset.sync(progress=False)['changed'] == 2
    known = dataset.frame().set_index('path').sha256
    assert known[edited] == file_hash(dataset.path / edited)


def test_a_photo_that_vanishes_while_it_is_looked_at_is_left_to_the_next_time(dataset, monkeypatch):
    first, second = dataset.listing().path[:2]

    def vanish(*args, inspect=module.Dataset._inspect, **settings):
        infos = list(inspect(*args, **settings))
        (dataset.path / first).unlink(missing_ok=True)
        with (dataset.path / second).open('ab') as f:
            f.write(b'more')
        return iter(infos)

    with monkeypatch.context() as patched:
        patched.setattr(module.Dataset, '_inspect', vanish)
        assert dataset.sync(progress=False) == {'new': 40, 'changed': 0, 'moved': 0, 'missing': 0}
    assert dataset.sync(progress=False) == {'new': 1, 'changed': 0, 'moved': 0, 'missing': 0}


def test_names_and_folders_that_can_not_be_read_stop_nothing(dataset):
    folder = os.fsencode(dataset.path)
    (dataset.path / 'Cirrus' / 'nowhere.jpg').symlink_to('none.jpg')
    (dataset.path / 'round').symlink_to('round')
    try:
        for name in (b'Cirrus/\xff.jpg', b'\xfe/1.jpg'):
            os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
            with open(os.path.join(folder, name), 'wb') as f:
                f.write(b'x')
    except OSError:
        pytest.skip('this file system knows only text')
    assert dataset.unreadable() == dict.fromkeys(
        ['Cirrus/\\xff.jpg', '\\xfe'], 'has a name that is not UTF-8; rename it'
    )
    seen = dataset.scan(progress=False).set_index('path')
    assert seen.status[['Cirrus/\\xff.jpg', '\\xfe', 'Cirrus/nowhere.jpg']].tolist() == ['missing'] * 3
    assert dataset.sync(progress=False)['new'] == 43
    assert dataset.frame().set_index('path').status['Cirrus/nowhere.jpg'] == 'failed'
    assert sum(dataset.sync(progress=False).values()) == 0
    assert dataset.status()['status']['unreadable'] == 2
    for name in (os.fsdecode(b'Cirrus/\xff.jpg'), 'Cirrus/' + 'x' * 300 + '.jpg', 'x/' * 3000, 'Cirrus/\0.jpg'):
        with pytest.raises(BadDataset):
            dataset.quarantine(name, 'a test')
        with pytest.raises(BadDataset):
            dataset.relabel(name, 'Stratus')
    dataset.quarantine('Cirrus/nowhere.jpg', 'leads nowhere')
    assert dataset.undo() == ['Cirrus/nowhere.jpg']


def test_a_folder_that_may_not_be_read_is_a_row(open_folder):
    dataset = make_dataset(open_folder / 'skies', per_class=2)
    dataset.sync(progress=False), dataset.frame()
    (dataset.path / 'Cirrus').chmod(0o000)
    with ordinary_user():
        table = dataset.scan(progress=False)
        assert len(dataset.listing()) == 4
        reasons = dataset.status()['reasons']
    (dataset.path / 'Cirrus').chmod(0o755)
    (row,) = table[table.status != 'ok'].to_dict('records')
    assert row | dict(sha256='') == dict(
        path='Cirrus', label='Cirrus', sha256='', status='missing', reason="can't be read (Permission denied)"
    )
    assert reasons == {"Cirrus: can't be read (Permission denied)": 1}


def test_a_name_as_long_as_can_be_gets_a_number(dataset):
    name = 'n' * 251 + '.jpg'
    for label in ('Cirrus', 'Stratus'):
        (dataset.path / label / name).write_text(label)
    dataset.relabel(f'Cirrus/{name}', 'Stratus')
    target = dataset.journal().target.item()
    assert len(Path(target).name) == 255
    assert (dataset.path / target).read_text() == 'Cirrus'


def test_a_label_that_is_nearly_a_genus_is_asked_about(dataset, tmp_path):
    "Nobody's slip becomes a class unasked."
    photo, other = dataset.listing().path[:2]
    for step in (
        lambda: dataset.relabel(photo, 'Cumlus'),
        lambda: add_photos(tmp_path / 'new', dataset.path / 'Stratus', 'Cumlus', progress=False),
        lambda: scrape_clouds(tmp_path / 'new', ['Cumlus'], progress=False),
    ):
        with pytest.raises(UnknownGenus, match=r'did you mean Cumulus\? new_label=True'):
            step()
    assert not (tmp_path / 'new').exists()
    dataset.relabel(photo, 'Cumlus', new_label=True)
    dataset.relabel(other, 'Cumlus')  # a class of this dataset by now
    assert list(dataset.folders.values()) == ['Cirrus', 'Cumlus', 'Cumulus', 'Stratus']
    with pytest.warns(SpellingWarning, match='Cumlus: read as a class of its own; did you mean Cumulus'):
        dataset.check(at_least=1)


def test_a_photo_that_was_in_one_place_twice_finds_its_way_back(dataset):
    "Somebody else has the place when the last move is taken back; the moves before it are not confused by that."
    photo = dataset.listing().path[0]
    content = (dataset.path / photo).read_bytes()
    for label in ('Fog', 'Haze', 'Fog', 'Contrail'):  # where no other photo has its name
        here = next(p for p, _ in dataset.photos() if (dataset.path / p).read_bytes() == content)
        dataset.relabel(here, label)
    taken = dataset.path / dataset.journal().source.iloc[-1]
    taken.write_bytes(b'another photo')
    assert dataset.undo() == [taken.with_stem(f'{taken.stem}-1').relative_to(dataset.path).as_posix()]
    taken.unlink()
    assert dataset.undo(3)[-1] == photo
    assert (dataset.path / photo).read_bytes() == content


def test_a_move_is_taken_back_after_those_that_came_later(dataset):
    "A cleaner takes back its own moves, and another person may have moved the photo on meanwhile."
    photo = dataset.listing().path[0]
    dataset.relabel(photo, 'Fog')
    first = dataset.journal().index[-1]
    dataset.quarantine(dataset.journal().target[first], 'by another person')
    with pytest.raises(BadDataset, match='was moved again since; take that back first'):
        dataset.undo(rows=[first])
    assert dataset.undo(2)[-1] == photo


def test_a_scan_opens_each_photo_once_whatever_is_taken_from_it(dataset, monkeypatch, no_heic):
    (dataset.path / 'Cirrus' / 'page.jpg').write_text('<html>404</html>')
    (dataset.path / 'Cirrus' / 'phone.heic').write_bytes(b'x')
    opened = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, 'read_bytes', lambda path: opened.append(path.name) or read(path))
    table = dataset.scan(extract={'width': lambda image: image.width, 'mode': lambda image: image.mode}, progress=False)
    assert len(opened) == len(set(opened)) == len(dataset.listing())
    assert table[['path', 'label', 'sha256', 'status', 'reason']].equals(dataset.scan(progress=False))
    table = table.set_index('path')
    bad = ['Cirrus/page.jpg', 'Cirrus/phone.heic']
    assert table.status[bad].tolist() == ['not an image', 'unsupported']
    assert table.width.drop(bad).map(type).eq(int).all()
    assert table.width[bad[0]] is None


def test_the_folders_are_read_once_a_listing(dataset, monkeypatch):
    read, scandir = [], os.scandir
    monkeypatch.setattr(os, 'scandir', lambda path: read.append(os.fspath(path)) or scandir(path))
    listing = dataset.listing(unreadable=True)
    dataset.check(listing=listing)
    dataset.scan(listing, progress=False)
    assert sorted(read) == [str(dataset.path), *(str(dataset.path / name) for name in sorted(dataset.folders))]


@pytest.mark.parametrize('links', [False, True])
def test_the_same_photo_is_kept_once_under_a_label(dataset, tmp_path, links):
    "Other bytes are kept beside each other; of the same bytes one file stays, and undo brings back both."
    photo = dataset.listing().path[0]
    for name in ('twin', 'nowhere'):
        file = dataset.path / 'Stratus' / f'{name}.jpg'
        if name == 'nowhere':
            file.symlink_to('gone.jpg')
        elif links:
            file.symlink_to(shutil.copy(dataset.path / photo, tmp_path / 'elsewhere.jpg'))
        else:
            shutil.copy(dataset.path / photo, file)
    content = (dataset.path / photo).read_bytes()
    row = dataset.relabel(photo, 'Stratus', 'flat')
    assert not (dataset.path / photo).exists()
    told = dataset.journal().loc[row]
    assert (dataset.path / told.target).read_bytes() == content
    assert told.target.startswith('.quarantine/')
    assert (told.label, told.reason) == ('Stratus', 'flat; the same photo is there already')
    dataset.relabel('Stratus/nowhere.jpg', 'Cirrus')
    assert os.path.islink(dataset.path / 'Cirrus' / 'nowhere.jpg')
    assert dataset.undo(2) == ['Stratus/nowhere.jpg', photo]
    assert dataset.journal().undone.notna().all()
    assert (dataset.path / photo).read_bytes() == content
