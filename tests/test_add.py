"Photos of one's own: whatever lies in the folder, each has a row, and nothing is written elsewhere."

import hashlib
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hostile import photo

from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.data.download import DownloadAborted
from cloud_classifier.data.scrape import add_photos, scrape_clouds
from cloud_classifier.data.sources import BadSearch
from cloud_classifier.images import is_photo_name

NOBODY = 65534
ADD = """
import os, sys
from pathlib import Path
from tempfile import TemporaryDirectory
from PIL import Image
from cloud_classifier.data.scrape import add_photos
if os.geteuid() == 0:
    with TemporaryDirectory() as place: # once before: what is imported on the way may lie where others can't read
        photos = Path(place, 'mine', 'Ci')
        photos.mkdir(parents=True)
        Image.new('RGB', (200, 200)).save(photos / '1.jpg')
        add_photos(Path(place, 'skies'), photos.parent, progress=False)
    os.seteuid(65534)
print(add_photos(*sys.argv[1:], progress=False))
"""


@pytest.fixture
def mine(tmp_path):
    "A folder of two photos."
    for n, name in enumerate(['Ci/1.jpg', 'Cu/2.jpg']):
        (tmp_path / 'mine' / name).parent.mkdir(parents=True)
        (tmp_path / 'mine' / name).write_bytes(photo(n))
    return tmp_path / 'mine'


def add(data, origin, *args):
    return add_photos(data, origin, *args, progress=False)


def reasons(data):
    return Dataset(data).status().get('reasons')


def test_what_can_not_be_read_is_a_row(mine, tmp_path, no_heic):
    "Formats that nothing here reads are told by their suffix, since some hold a small picture that would be taken."
    for name in ('a.heic', 'b.HEIF', 'c.jxl', 'd.psd'):
        (mine / 'Ci' / name).write_bytes(b'\0\0\0\x18ftypheic' + bytes(99))
    (mine / 'Ci' / 'raw.NEF').write_bytes(photo(5, 'TIFF'))
    (mine / 'Ci' / 'called.jpg').write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(99))
    (mine / 'Ci' / 'notes.txt').write_text('seen from the roof')
    assert add(tmp_path / 'skies', mine) == dict(ok=2, duplicate=0, failed=6)
    assert reasons(tmp_path / 'skies') == {'unsupported': 6}


def test_links_and_pipes_are_rows(mine, tmp_path):
    (tmp_path / 'secret.jpg').write_bytes(photo(7))
    (mine / 'Ci' / 'link.jpg').symlink_to(tmp_path / 'secret.jpg')
    (mine / 'Ci' / 'dangling.jpg').symlink_to('nowhere')
    (mine / 'Ci' / 'folder').symlink_to(tmp_path)
    (mine / 'Ci' / 'circle').symlink_to(mine)
    os.mkfifo(mine / 'Ci' / 'pipe.jpg')
    assert add(tmp_path / 'skies', mine) == dict(ok=2, duplicate=0, failed=5)
    assert reasons(tmp_path / 'skies') == {'link': 4, 'no file': 1}


NAMES = [
    b'\xff\xfe.jpg',
    b'caf\xe9 50%.jpg',
    'Ännchen #1?.jpg'.encode(),
    b'\x1b[2J.jpg',
    b'a\nb.jpg',
    b'x' * 251 + b'.jpg',
]


def test_a_photo_may_be_called_anything(mine, tmp_path):
    for n, name in enumerate(NAMES):
        with open(os.fsencode(mine / 'Ci') + b'/' + name, 'wb') as f:
            f.write(photo(10 + n))
    deep = mine.joinpath('Ci', *10 * ['x' * 200])
    os.makedirs(deep)
    (deep / '1.jpg').write_bytes(photo(30))
    assert add(tmp_path / 'skies', mine) == dict(ok=3 + len(NAMES), duplicate=0, failed=0)


def test_folders_deeper_than_a_path_can_be_are_rows(mine, tmp_path):
    here = os.getcwd()
    os.chdir(mine / 'Ci')
    try:
        for _ in range(25):
            os.mkdir('x' * 200)
            os.chdir('x' * 200)
    finally:
        os.chdir(here)
    assert add(tmp_path / 'skies', mine) == dict(ok=2, duplicate=0, failed=1)
    assert reasons(tmp_path / 'skies') == {'unreadable': 1}


def as_an_ordinary_user(folder, *args):
    "Add photos as somebody who may not read everything; root becomes nobody for it."
    if os.geteuid() == 0:
        subprocess.run(['chown', '-R', str(NOBODY), folder], check=True)
    else:
        assert folder.owner()
    return subprocess.run([sys.executable, '-c', ADD, *args], capture_output=True, text=True, check=False)


@pytest.fixture
def open_to_all(tmp_path_factory):
    "A folder that any user may go into."
    place = Path(subprocess.run(['mktemp', '-d'], capture_output=True, text=True, check=True).stdout.strip())
    place.chmod(0o755)
    yield place
    subprocess.run(['chmod', '-R', 'u+rwX', place], check=True)  # what was closed can't be taken away by its owner
    subprocess.run(['rm', '-rf', place], check=True)


def test_what_may_not_be_read_is_a_row(open_to_all):
    mine = open_to_all / 'mine'
    for n, name in enumerate(['Ci/1.jpg', 'Ci/closed/2.jpg', 'Cu/3.jpg', 'Cu/4.jpg']):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_bytes(photo(n))
    (mine / 'Ci' / 'closed').chmod(0)
    (mine / 'Cu' / '4.jpg').chmod(0)
    done = as_an_ordinary_user(open_to_all, open_to_all / 'skies', mine)
    assert (done.stdout.strip(), done.stderr) == ("{'ok': 2, 'duplicate': 0, 'failed': 2}", '')
    assert reasons(open_to_all / 'skies') == {'unreadable': 2}


def test_a_folder_that_may_not_be_read_is_one_line(open_to_all):
    mine = open_to_all / 'mine'
    mine.mkdir()
    mine.chmod(0)
    done = as_an_ordinary_user(open_to_all, open_to_all / 'skies', mine)
    assert done.stderr.rstrip().endswith(f"BadSearch: {mine}: can't be read; do you have permission?")
    assert not (open_to_all / 'skies').exists()


# A second time


def test_a_second_time_says_what_was_there(mine, tmp_path):
    (mine / 'Cu' / '3.jpg').write_bytes(b'no photo')
    assert add(tmp_path / 'skies', mine) == dict(ok=2, duplicate=0, failed=1)
    assert add(tmp_path / 'skies', mine) == dict(ok=0, duplicate=2, failed=1)
    (mine / 'Cu' / '3.jpg').write_bytes(photo(3))
    assert add(tmp_path / 'skies', mine) == dict(ok=1, duplicate=2, failed=0)


def test_another_photo_by_the_same_name_is_another_photo(mine, tmp_path):
    "A camera begins with IMG_0001 on each card."
    for n in (0, 5, 0, 5, 6):
        (mine / 'Ci' / '1.jpg').write_bytes(photo(n))
        add(tmp_path / 'skies', mine)
    kept = {p.read_bytes() for p in (tmp_path / 'skies').rglob('*.jpg')}
    assert kept == {photo(n) for n in (0, 1, 5, 6)}
    assert Dataset(tmp_path / 'skies').manifest.counts()['status'] == dict(ok=4, duplicate=2)


@pytest.mark.parametrize('synced', [True, False])
def test_what_was_taken_away_is_added_again(mine, tmp_path, synced):
    add(tmp_path / 'skies', mine)
    next((tmp_path / 'skies' / 'Cirrus').iterdir()).unlink()
    if synced:
        Dataset(tmp_path / 'skies').sync(progress=False)
    assert add(tmp_path / 'skies', mine) == dict(ok=1, duplicate=1, failed=0)
    assert len(list((tmp_path / 'skies').rglob('*.jpg'))) == 2


def test_what_is_added_beside_an_edited_copy_is_kept(mine, tmp_path):
    "The copy in the dataset was edited: the photo itself is not there any more."
    add(tmp_path / 'skies', mine)
    (copy,) = (tmp_path / 'skies' / 'Cirrus').iterdir()
    copy.write_bytes(photo(8))
    add(tmp_path / 'skies', mine / 'Ci' / '1.jpg', 'Ci')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'again.jpg').write_bytes(photo(0))
    add(tmp_path / 'skies', tmp_path / 'other', 'Ci')
    kept = [p.read_bytes() for p in (tmp_path / 'skies' / 'Cirrus').iterdir()]
    assert sorted(kept) == sorted([photo(0), photo(8)])


def test_a_database_that_calls_photos_otherwise_than_their_bytes(mine, tmp_path):
    "A file that has the name of another photo's hash is no copy of it."
    from cloud_classifier.data.scrape import unpack

    name = hashlib.sha256(photo(0)).hexdigest()[:16] + '.jpg'
    (tmp_path / 'packed' / 'Cirrus').mkdir(parents=True)
    (tmp_path / 'packed' / 'Stratus').mkdir()
    (tmp_path / 'packed' / 'Cirrus' / name).write_bytes(photo(9))
    (tmp_path / 'packed' / 'Stratus' / '1.jpg').write_bytes(photo(4))
    unpack(tmp_path / 'packed', tmp_path / 'skies', progress=False)
    assert add(tmp_path / 'skies', mine) == dict(ok=2, duplicate=0, failed=0)
    kept = {p.read_bytes() for p in (tmp_path / 'skies').rglob('*.jpg')}
    assert kept == {photo(n) for n in (0, 1, 4, 9)}


# What is refused


def test_one_photo_needs_a_label(mine, tmp_path):
    with pytest.raises(BadSearch, match='is one photo; --label says what it shows'):
        add(tmp_path / 'skies', mine / 'Ci' / '1.jpg')
    assert not (tmp_path / 'skies').exists()
    assert add(tmp_path / 'skies', mine / 'Ci' / '1.jpg', 'Ci') == dict(ok=1, duplicate=0, failed=0)
    assert is_photo_name('IMG_1.HEIC')
    assert not is_photo_name('list.csv')


LABELS = ['manifest.db', 'manifest.db-wal', 'attribution.csv', 'croissant.json', 'x' * 256, 'ä' * 130, '..', '.git']
LABELS += ['a/b', 'a\\b', '/etc', 'con', 'a\nb', ' ', '\x1b[2J']


@pytest.mark.parametrize('label', LABELS)
def test_a_label_that_is_no_folder_name_is_refused_first(mine, tmp_path, label):
    for place in (tmp_path / 'new', mine.parent):
        with pytest.raises(BadDataset, match='class'):
            add(place, mine / 'Ci', label)
    assert {p.name for p in tmp_path.iterdir()} == {'mine'}


@pytest.mark.parametrize('kind', ['file', 'link'])
def test_a_label_whose_place_is_taken_is_refused_first(mine, tmp_path, kind):
    skies = tmp_path / 'skies'
    skies.mkdir()
    (tmp_path / 'elsewhere').mkdir()
    if kind == 'file':
        (skies / 'Rainbow').write_bytes(b'mine')
    else:
        (skies / 'Rainbow').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(BadDataset, match='Rainbow'):
        add(skies, mine / 'Ci', 'Rainbow')
    assert [p.name for p in skies.iterdir()] == ['Rainbow']
    assert list((tmp_path / 'elsewhere').iterdir()) == []


@pytest.mark.parametrize('genera', [['Ci'], ['manifest.db']])
def test_a_refused_search_leaves_nothing_behind(tmp_path, monkeypatch, genera):
    monkeypatch.delenv('CLOUD_CONTACT', raising=False)
    with pytest.raises((BadSearch, BadDataset)):
        scrape_clouds(tmp_path / 'skies', genera)
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_which_every_address_fails_is_a_failure(tmp_path):
    (tmp_path / 'list.csv').write_text('url,label\nhttp://127.0.0.1:9/1.jpg,Ci\nno address,Ci\n')
    with pytest.raises(DownloadAborted, match='none of 2 addresses had a photo'):
        add(tmp_path / 'skies', tmp_path / 'list.csv')
    assert reasons(tmp_path / 'skies') == {'forbidden address': 1, 'bad address': 1}


# Full and read-only disks


def test_a_full_disk_says_so_and_the_next_run_goes_on(small_disk, tmp_path):
    (tmp_path / 'mine' / 'Ci').mkdir(parents=True)
    photos = [photo(n, size=320) for n in range(40)]
    for n, content in enumerate(photos):
        (tmp_path / 'mine' / 'Ci' / f'{n}.jpg').write_bytes(content)
    (small_disk / 'filler').write_bytes(bytes(1_000_000 - sum(map(len, photos)) // 2 - 150_000))
    with pytest.raises(DownloadAborted, match=r'No space left|disk is full') as e:
        add(small_disk / 'skies', tmp_path / 'mine')
    assert '\n' not in str(e.value)
    assert not list((small_disk / 'skies').rglob('*.part'))
    (small_disk / 'filler').unlink()
    assert add(small_disk / 'skies', tmp_path / 'mine')['failed'] == 0
    kept = {p.read_bytes() for p in (small_disk / 'skies').rglob('*.jpg')}
    assert kept == set(photos)
    assert Dataset(small_disk / 'skies').manifest.counts()['status'] == dict(ok=len(photos))


def fill(file):
    "Write until nothing is left of a disk."
    with suppress(OSError), open(file, 'wb', buffering=0) as f:
        while f.write(bytes(4096)):
            pass


def test_a_disk_without_room_for_a_manifest(small_disk, mine, command):
    fill(small_disk / 'filler')
    status, out, err = command('add', small_disk / 'skies', mine)
    assert (status, out, err.count('\n')) == (1, '', 1)


def test_a_read_only_dataset_says_so(read_only, mine, tmp_path, command):
    add(tmp_path / 'skies', mine)
    status, out, err = command('add', read_only(tmp_path / 'skies'), mine)
    assert (status in (1, 2), out, err.count('\n')) == (True, '', 1)
    assert 'Read-only' in err or 'read-only' in err
