"The worst that can lie in a folder of photos, and what is remembered of it."

import json
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import time
import zlib

import pytest
from PIL import Image, ImageFilter

from cloud_classifier.data import verify as module
from cloud_classifier.data.dataset import BadDataset, BadManifest, Dataset, Manifest
from cloud_classifier.data.verify import HINTS, verify
from cloud_classifier.samples import render_sky

SKY = render_sky('Cumulus', 128, seed=3)


@pytest.fixture
def data(skies, tmp_path):
    "A dataset of one's own to spoil."
    return shutil.copytree(skies, tmp_path / 'data')


@pytest.fixture
def opened(monkeypatch):
    "The files that are opened, as they are."
    seen = []

    def inspect_photo(file, *args, real=module.inspect_photo):
        seen.append(file)
        return real(file, *args)

    monkeypatch.setattr(module, 'inspect_photo', inspect_photo)
    return seen


def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def png(width, height):
    "A PNG that says it is so large, and holds next to nothing."
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(bytes(10))) + chunk(b'IEND', b'')


def stored(image, format, tmp_path, **how):
    image.save(tmp_path / 'stored', format, **how)
    return (tmp_path / 'stored').read_bytes()


def write_hostile(folder, tmp_path):
    "One file of each kind that can't be used; the status that each should have, by name."
    folder.mkdir()
    jpeg = stored(SKY, 'JPEG', tmp_path, quality=90)
    crc = bytearray(stored(SKY, 'PNG', tmp_path))
    crc[crc.index(b'IDAT') + 200] ^= 255
    contents = {
        'empty.jpg': (b'', 'empty'),
        'page.jpg': (b'<!doctype html><title>404</title>', 'not an image'),
        'drawing.png': (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'not an image'),
        'text.jpg': (b'no photo', 'not an image'),
        'half.jpg': (jpeg[: len(jpeg) // 2], 'truncated'),
        'crc.png': (bytes(crc), 'truncated'),
        'huge.png': (png(65535, 65535), 'too large'),
        'bomb.png': (png(12000, 12000), 'too large'),
        'hollow.png': (png(5000, 5000), 'truncated'),
        'small.jpg': (stored(SKY.resize((200, 40)), 'JPEG', tmp_path), 'too small'),
        'moving.gif': (stored(SKY, 'GIF', tmp_path, save_all=True, append_images=[SKY.rotate(90)]), 'animated'),
        'odd \n[b]\u202e name.jpg': (b'x', 'not an image'),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    with open(folder / 'film.jpg', 'wb') as file:
        file.truncate(101_000_000)
    return {name: status for name, (_, status) in contents.items()} | {'film.jpg': 'too large'}


def test_each_kind_of_broken_file_gets_its_row(data, tmp_path):
    expected = write_hostile(data / 'Altocumulus', tmp_path)
    found = verify(data)
    rows = found.problems().set_index('path')
    assert {path.split('/', 1)[1]: status for path, status in rows.status.items()} == expected
    assert (rows.label == 'Altocumulus').all()
    assert (rows.reason != '').all()
    assert found.counts()['photos'] == len(found.table) == 42 + len(expected)
    told = json.loads(found.to_json())
    assert told['status'] == {'ok': 42} | told['status']
    assert {row['path'] for row in told['rows'] if row['status'] != 'ok'} == set(rows.index)


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs pipes')
def test_what_is_no_file_is_neither_waited_for_nor_moved(data):
    folder = data / 'Cirrus'
    os.mkfifo(folder / 'pipe.jpg')
    (folder / 'nowhere.jpg').symlink_to('none.jpg')
    (folder / 'round.jpg').symlink_to('round.jpg')
    (folder / 'folder.jpg').mkdir()
    (folder / 'above.jpg').symlink_to(data)
    rows = verify(data, quarantine=True).problems().set_index('path')
    assert rows.status.to_dict() == {
        'Cirrus/above.jpg': 'not an image',
        'Cirrus/nowhere.jpg': 'missing',
        'Cirrus/pipe.jpg': 'not an image',
        'Cirrus/round.jpg': 'missing',
    }
    assert set(rows.moved) == {''}


def test_a_name_that_is_no_text_stops_nothing(data, command):
    name = os.fsdecode(b'Cirrus/\xff.jpg')
    try:
        (data / name).write_bytes(b'x')
    except OSError:
        pytest.skip('this file system knows only text')
    shown = 'Cirrus/\\xff.jpg'
    (data / 'Cirrus' / 'page.jpg').write_bytes(b'x')
    rows = verify(data, quarantine=True).problems().set_index('path')
    assert rows.moved['Cirrus/page.jpg'].startswith('.quarantine/')
    assert 'not UTF-8; rename it' in rows.reason[shown]
    status, _, err = command('verify', data)
    assert (status, '1 missing' in err) == (0, True)
    status, out, _ = command('verify', data, '--json')
    assert shown in [row['path'] for row in json.loads(out)['rows']]


def test_a_photo_that_vanishes_meanwhile_is_missing(data, monkeypatch):
    def digests(self, paths, real=Dataset.digests):
        found = real(self, paths)
        (data / 'Cirrus' / 'late.jpg').unlink(missing_ok=True)
        return found

    (data / 'Cirrus' / 'late.jpg').write_bytes(b'x')
    monkeypatch.setattr(Dataset, 'digests', digests)
    assert verify(data).problems()[['path', 'status']].values.tolist() == [['Cirrus/late.jpg', 'missing']]


def test_a_second_run_opens_what_is_new_alone(data, opened):
    first = verify(data)
    assert (first.opened, len(opened)) == (42, 42)
    opened.clear()
    assert (verify(data).opened, opened) == (0, [])
    SKY.save(data / 'Cirrus' / 'new.png')
    (data / 'Cirrus' / 'same.jpg').write_bytes((data / first.table.path[0]).read_bytes())
    assert (verify(data).opened, [f.name for f in opened]) == (1, ['new.png'])
    again = verify(data).table.set_index('path').loc[list(first.table.path)].reset_index()
    assert again.to_dict('records') == first.table.to_dict('records')


def test_a_changed_photo_is_opened_again(data, opened):
    photo = data / verify(data).table.path[0]
    Dataset(data).sync(progress=False)
    verify(data)
    opened.clear()
    SKY.save(photo)
    verify(data)
    assert opened == [photo]


def test_other_limits_open_nothing(data, opened):
    verify(data)
    opened.clear()
    assert set(verify(data, min_side=100).table.status) == {'too small'}
    assert opened == []


def test_nothing_is_left_where_nothing_may_be_kept(data):
    before = sorted(data.rglob('*'))
    assert verify(data, remember=False).opened == 42
    assert sorted(data.rglob('*')) == before


def test_a_folder_that_can_not_be_written_is_verified_all_the_same(data, command, monkeypatch):
    def cache_put(*_):
        raise BadManifest('manifest.db: attempt to write a readonly database')

    monkeypatch.setattr(Manifest, 'cache_put', cache_put)
    assert len(verify(data).table) == 42
    status, _, err = command('verify', data, '--remember')
    assert (status, 'nothing is remembered (manifest.db: attempt' in err) == (0, True)


def test_quarantine_is_journalled_and_undone(data, tmp_path):
    bad = write_hostile(data / 'Altocumulus', tmp_path)
    before = {p: p.lstat().st_size for p in data.rglob('*') if p.is_file()}
    found = verify(data, quarantine=True)
    dataset = Dataset(data)
    assert found.counts()['moved'] == len(dataset.journal()) == len(bad)
    assert all((data / target).is_file() for target in found.problems().moved)
    assert verify(data).problems().empty
    dataset.undo(len(bad))
    assert {p: p.lstat().st_size for p in data.rglob('*') if p.is_file() and 'manifest' not in p.name} == before


def test_a_hint_moves_nothing_unless_it_is_asked_to(data):
    SKY.point(lambda v: v // 9).save(data / 'Cirrus' / 'night.jpg')
    SKY.convert('CMYK').save(data / 'Cirrus' / 'print.jpg')
    SKY.save(data / 'Cirrus' / 'sky.jpg', 'PNG')
    hints = verify(data, quarantine=True).hinted().set_index('path').hints
    assert 'dark' in hints['Cirrus/night.jpg']
    assert 'odd mode' in hints['Cirrus/print.jpg']
    assert 'odd suffix' in hints['Cirrus/sky.jpg']
    moved = verify(data, quarantine=True, also=['dark']).table
    assert list(moved.path[moved.moved != '']) == ['Cirrus/night.jpg']
    with pytest.raises(BadDataset, match='no such hint'):
        verify(data, also=['ugly'])


DAMAGE = {
    'dark': lambda img: img.point(lambda v: v // 8),
    'light': lambda img: img.point(lambda v: 250 + v // 60),
    'low information': lambda img: Image.new('RGB', img.size, (90, 120, 180)),
    'blurry': lambda img: img.filter(ImageFilter.GaussianBlur(6)),
    'odd aspect': lambda img: img.resize((700, 150)),
}


@pytest.mark.parametrize('hint', HINTS)
def test_each_hint_finds_its_damage(tmp_path, hint):
    "A hint without a picture that deserves it can't be added."
    (tmp_path / 'Cumulus').mkdir()
    sky = render_sky('Cumulus', 224, seed=5)
    sky.save(tmp_path / 'Cumulus' / '0.png')
    DAMAGE[hint](sky).save(tmp_path / 'Cumulus' / '1.png')
    well, ill = verify(tmp_path, remember=False).table.hints
    assert well == ()
    assert hint in ill


def test_the_frame_of_a_photo_is_no_edge():
    "CleanVision's own blurriness counts the outermost pixels, which Pillow leaves as they are."
    grey = Image.new('RGB', (128, 128), (200, 200, 200))
    assert module.sharpness(grey)['sharpness'] == 0


@pytest.mark.parametrize('size', [(1, 1), (2, 500), (1, 3000), (3, 3)])
def test_photos_of_any_shape_are_measured(tmp_path, size):
    (tmp_path / 'Ci').mkdir()
    Image.new('RGB', size).save(tmp_path / 'Ci' / 'a.png')
    found = verify(tmp_path, min_side=1, remember=False)
    assert list(found.table.status) == ['ok']


def test_files_that_nobody_reads_are_named(data):
    for name in ('loose.jpg', 'LICENSE', 'Cirrus/notes.txt', 'Cirrus/.DS_Store', '.quarantine/x.txt'):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).touch()
    assert verify(data).ignored == ['Cirrus/notes.txt', 'loose.jpg']


def test_photos_in_other_formats_are_rows_and_stay_where_they_are(data, no_heic):
    photos = {'phone.heic': b'', 'camera.NEF': b'II*\0', 'renamed.jpg': b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'}
    for name, content in photos.items():
        (data / 'Cirrus' / name).write_bytes(content)
    found = verify(data, quarantine=True)
    rows = found.problems().set_index('path')
    assert rows.status.to_dict() == dict.fromkeys([f'Cirrus/{name}' for name in photos], 'unsupported')
    assert rows.reason['Cirrus/renamed.jpg'] == rows.reason['Cirrus/phone.heic']
    assert 'HEIC' in rows.reason['Cirrus/phone.heic']
    assert 'RAW' in rows.reason['Cirrus/camera.NEF']
    assert set(rows.label) == {'Cirrus'}
    assert found.counts()['status']['unsupported'] == 3
    assert '3 unsupported' in found.summary()
    assert found.ignored == []
    left = {'phone.heic', 'camera.NEF', 'renamed.jpg'} & {file.name for file in (data / 'Cirrus').iterdir()}
    assert left == {'phone.heic', 'camera.NEF'}  # who is named like a photo would be trained on


def test_a_dataset_of_other_formats_alone_is_told_of(tmp_path, no_heic):
    (tmp_path / 'Cirrus').mkdir()
    (tmp_path / 'Cirrus' / 'phone.heic').touch()
    assert list(verify(tmp_path, remember=False).table.status) == ['unsupported']


def test_a_folder_that_can_not_be_read_is_a_row(data, monkeypatch):
    (data / 'Cirrus' / 'locked').mkdir()

    def scandir(folder, real=os.scandir):
        if str(folder).endswith('locked'):
            raise PermissionError(13, 'Permission denied', str(folder))
        return real(folder)

    monkeypatch.setattr('cloud_classifier.images.os.scandir', scandir)
    rows = verify(data).problems()
    assert rows[['path', 'status']].values.tolist() == [['Cirrus/locked', 'missing']]
    assert 'Permission denied' in rows.reason.iloc[0]


def test_a_folder_on_a_read_only_disk_is_verified(data, read_only):
    found = verify(read_only(data))
    assert list(found.table.status) == ['ok'] * 42
    assert found.forgets


def test_what_is_no_dataset_is_the_users_mistake(command, tmp_path):
    for path, says in [(tmp_path / 'none', 'no such folder'), (tmp_path, 'has no photos')]:
        status, out, err = command('verify', path)
        assert (status, out, err.count('\n'), says in err) == (2, '', 1, True)
    SKY.save(tmp_path / 'loose.jpg')
    assert 'one folder per class' in command('verify', tmp_path)[2]
    assert command('verify', tmp_path, '--hint', 'dark')[0] == 2


def test_the_command_prints_a_table_or_json(command, data):
    (data / 'Cirrus' / 'page.jpg').write_bytes(b'<html>')
    status, out, err = command('verify', data, '--quarantine')
    assert status == 0
    assert out.splitlines()[0] == 'photo\tstatus\treason'
    assert out.splitlines()[1].startswith('Cirrus/page.jpg\tnot an image\t')
    assert '1 were moved' in err
    status, out, _ = command('verify', data, '--json')
    assert (status, json.loads(out)['photos'], json.loads(out)['opened']) == (0, 42, 0)


def slowly(data):
    "Verify in a process of its own, ten photos at a time."

    def inspect_photo(file, *args, real=module.inspect_photo):
        time.sleep(0.05)
        return real(file, *args)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # and not what a test before has set
    module._BATCH, module.inspect_photo = 10, inspect_photo
    verify(data, workers=2)


@pytest.mark.skipif(sys.platform == 'win32', reason='signals')
@pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning')
@pytest.mark.parametrize('cut', [signal.SIGKILL, signal.SIGINT])
def test_what_is_cut_off_goes_on_from_there(data, cut):
    module.measures()  # imported before there are two of us
    run = multiprocessing.get_context('fork').Process(target=slowly, args=[data])
    run.start()
    while not Dataset(data).manifest.cache_get(module.FINDINGS_KIND):
        time.sleep(0.02)
    os.kill(run.pid, cut)
    run.join(2)
    assert run.exitcode in (-cut, 1)
    assert 0 < verify(data).opened <= 32
