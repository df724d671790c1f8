"Archives made to do harm: each ends with its one line, in little time and memory."

import bz2
import gzip
import io
import json
import os
import random
import re
import sys
import tarfile
import zipfile
import zlib

import pytest
from bounds import run_bounded
from hostile import photo

from cloud_classifier.data.scrape import unpack
from cloud_classifier.data.sources import FetchError, SkippedFile, extract, open_file

SKY = photo(1)
TAKE = """
import json, sys, time
from pathlib import Path
from cloud_classifier.data.sources import FetchError, extract
for archive in map(Path, sys.argv[1:]):
    start, said = time.monotonic(), ''
    try: extract(archive, archive.parent / 'in' / 'out')
    except FetchError as e: said = str(e)
    print(json.dumps([said, time.monotonic() - start]), flush=True)
"""


def zipped(*names, **how):
    "A zip of photos by these names."
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', **how) as z:
        for name in names:
            z.writestr(name, SKY)
    return file.getvalue()


def zip_of(*members):
    "A zip of pairs: what describes a member, and its content."
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as z:
        for info, content in members:
            z.writestr(info, content)
    return file.getvalue()


def zip_info(name, mode, **values):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr, info.compress_type = 3, mode << 16, zipfile.ZIP_DEFLATED
    for key, value in values.items():
        setattr(info, key, value)
    return info


def tarred(*members):
    "A tar of pairs: what describes a member, and its content."
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def tar_info(name, type=tarfile.REGTYPE, **values):
    info = tarfile.TarInfo(name)
    info.type = type
    for key, value in values.items():
        setattr(info, key, value)
    return info


def zeros(count, begin=b'', member=None):
    "So many bytes that say nothing, after some that do; packed with gzip."
    packer = zlib.compressobj(9, wbits=31)
    pieces = [packer.compress(begin)]
    pieces += [packer.compress(member or bytes(1_000_000)) for _ in range(count // len(member or bytes(1_000_000)))]
    return b''.join([*pieces, packer.flush()])


def overlapping(members=2000, size=1_000_000):
    "A zip whose members are all the same bytes: 2 GB that take 100 kB."
    packer = zlib.compressobj(9, wbits=-15)
    content, check = packer.compress(bytes(size)) + packer.flush(), zlib.crc32(bytes(size))
    sizes = b''.join(n.to_bytes(4, 'little') for n in (check, len(content), size))
    name = b'Ci/1.jpg'
    begin = b'PK\3\4\x14\0\0\0\x08\0\0\0!\0' + sizes + len(name).to_bytes(2, 'little') + b'\0\0' + name + content
    table = b''
    for n in range(members):
        name = b'Ci/%d.jpg' % n
        table += b'PK\1\2\x14\3\x14\0\0\0\x08\0\0\0!\0' + sizes + len(name).to_bytes(2, 'little') + bytes(16) + name
    numbers = members.to_bytes(2, 'little') * 2 + len(table).to_bytes(4, 'little') + len(begin).to_bytes(4, 'little')
    return begin + table + b'PK\5\6' + bytes(4) + numbers + bytes(2)


def long_table(entries=1_500_000):
    "A zip with nothing but names, which a library would keep in memory, all of them."
    entry = b'PK\1\2\x14\3\x14\0' + bytes(38) + b''
    entry = entry[:28] + b'\1\0' + entry[30:46] + b'x'
    table = entry * entries
    end = b'PK\5\6' + bytes(4) + b'\xff\xff' * 2 + len(table).to_bytes(4, 'little') + bytes(6)
    return table + end


def fifo(name):
    return tar_info(name, tarfile.FIFOTYPE), b''


LINK, FILE = 0o120777, 0o100644
SPARSE_HEADER = bytes(504) + b'\1' + bytes(7)  # says that another one follows
PAX = tar_info('pax', tarfile.XHDTYPE)
PAX.size = 2_000_000_000
ENDLESS_SPARSE = bytearray(tar_info('Ci/1.jpg', tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
ENDLESS_SPARSE[482] = 1
ENDLESS_SPARSE[148:156] = b'%06o\0 ' % (sum(ENDLESS_SPARSE[:148]) + 256 + sum(ENDLESS_SPARSE[156:]))

REFUSED = {  # what is in it, and what is said
    'climbs.zip': (lambda: zipped('../../up.jpg', 'Ci/1.jpg'), 'outside'),
    'climbs-later.zip': (lambda: zipped('Ci/../../../up.jpg'), 'outside'),
    'climbs-with-backslashes.zip': (lambda: zipped('Ci\\..\\..\\up.jpg'), 'outside'),
    'absolute.zip': (lambda: zipped('/tmp/up.jpg'), 'outside'),
    'drive.zip': (lambda: zipped('C:/up.jpg'), 'outside'),
    'climbs.tar': (lambda: tarred((tar_info('../up.jpg'), SKY)), 'outside'),
    'absolute.tar': (lambda: tarred((tar_info('/tmp/up.jpg'), SKY)), 'outside'),
    'deep.zip': (lambda: zipped('a/' * 1000 + '1.jpg'), '20 folders deep'),
    'twice.zip': (lambda: zip_of((zip_info('Ci/1.jpg', FILE), SKY), (zip_info('./Ci/1.jpg', FILE), SKY)), 'twice'),
    'file-and-folder.zip': (lambda: zipped('Ci', 'Ci/1.jpg'), 'twice'),
    'zeros.zip': (lambda: zip_of(*((zip_info(f'Ci/{n}.jpg', FILE), bytes(30_000_000)) for n in range(4))), '0.[12] GB'),
    'overlapping.zip': (overlapping, '0.1 GB|[Oo]verlap'),
    'long-table.zip': (long_table, 'great length'),
    'zeros.tar.gz': (lambda: zeros(200_000_000, tar_info('Ci/1.jpg', size=2_000_000_000).tobuf()), '0.[12] GB'),
    'skipped-zeros.tar.gz': (lambda: zeros(200_000_000, tar_info('.x', size=2_000_000_000).tobuf()), '0.[12] GB'),
    'long-description.tar.gz': (lambda: zeros(20_000_000, PAX.tobuf()), 'great length'),
    'endless-sparse.tar.gz': (lambda: zeros(20_000_000, bytes(ENDLESS_SPARSE), SPARSE_HEADER), 'great length'),
    'endless-files.tar.gz': (
        lambda: zeros(60_000_000, member=tar_info('Ci/1.jpg', tarfile.SYMTYPE).tobuf()),
        '100,000',
    ),
    'garbage.zip': (lambda: b'PK\3\4' + random.Random(0).randbytes(9999), "can't be unpacked"),
    'garbage.tar': (lambda: random.Random(0).randbytes(9999), "can't be unpacked"),
    'page.zip': (lambda: b'<html>404</html>', "can't be unpacked"),
    'nothing.zip': (lambda: b'', "can't be unpacked"),
    'lzma.zip': (lambda: zipped('Ci/1.jpg', compression=zipfile.ZIP_LZMA), 'not read here'),
    'xz.tar.xz': (lambda: b'\xfd7zXZ\0' + bytes(99), 'not read here'),
    'cut-off.tar.gz': (lambda: gzip.compress(tarred((tar_info('Ci/1.jpg'), SKY)))[:-2000], "can't be unpacked"),
    'long-name.zip': (lambda: zipped('Ci/' + 'x' * 300 + '.jpg'), 'too long'),
}
LEFT_OUT = {  # what is in it beside Ci/1.jpg, and what is said of it
    'link.zip': (
        lambda: zip_of((zip_info('Ci/2.jpg', LINK), b'/etc/passwd'), (zip_info('Ci/1.jpg', FILE), SKY)),
        'link',
    ),
    'device.zip': (lambda: zip_of((zip_info('Ci/2.jpg', 0o020666), b''), (zip_info('Ci/1.jpg', FILE), SKY)), 'no file'),
    'link.tar': (
        lambda: tarred(
            (tar_info('Ci/2.jpg', tarfile.SYMTYPE, linkname='/etc/passwd'), b''), (tar_info('Ci/1.jpg'), SKY)
        ),
        'link',
    ),
    'hard-link.tar': (
        lambda: tarred((tar_info('Ci/2.jpg', tarfile.LNKTYPE, linkname='../x'), b''), (tar_info('Ci/1.jpg'), SKY)),
        'link',
    ),
    'pipe.tar': (lambda: tarred(fifo('Ci/2.jpg'), (tar_info('Ci/1.jpg'), SKY)), 'no file'),
    'device.tar': (
        lambda: tarred((tar_info('Ci/2.jpg', tarfile.CHRTYPE), b''), (tar_info('Ci/1.jpg'), SKY)),
        'no file',
    ),
    'linked-folder.tar': (  # a link, and a file that would be written through it
        lambda: tarred(
            (tar_info('Cu', tarfile.SYMTYPE, linkname='/tmp'), b''),
            (tar_info('Ci/1.jpg'), SKY),
            (tar_info('Cu/2.jpg'), SKY),
        ),
        'link',
    ),
}


@pytest.fixture
def made(tmp_path):
    "An archive in a file."

    def make(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return make


def below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if not p.is_dir() or p.is_symlink())


@pytest.fixture(scope='module')
def taken(tmp_path_factory):
    "Archives, each in a folder of its own, and what is said of them in a process of little memory, with its seconds."
    top = tmp_path_factory.mktemp('archives')
    archives = [top / name.replace('.', ' ') / name for name in REFUSED]
    for archive in archives:
        (archive.parent / 'in').mkdir(parents=True, exist_ok=True)
        archive.write_bytes(REFUSED[archive.name][0]())
    cost = run_bounded([sys.executable, '-c', TAKE, *archives], seconds=300, megabytes=300)
    assert (cost.status, cost.err) == (0, '')
    return {o.name: (o, *json.loads(line)) for o, line in zip(archives, cost.out.splitlines(), strict=True)}


@pytest.mark.parametrize('name', REFUSED)
def test_an_archive_that_would_do_harm_is_refused(taken, name):
    archive, said, seconds = taken[name]
    assert said.startswith(f'{archive}: ')
    assert '\n' not in said
    assert re.search(REFUSED[name][1], said)
    assert seconds < 60
    assert sum(p.stat().st_size for p in (archive.parent / 'in').rglob('*')) < 110_000_000
    assert {p.name for p in archive.parent.iterdir()} == {'in', name}


@pytest.mark.parametrize('name', LEFT_OUT)
def test_what_is_no_plain_file_is_left_out_and_told(made, tmp_path, name):
    content, reason = LEFT_OUT[name]
    told = extract(made(name, content()), tmp_path / 'out')
    assert set(told.values()) == {reason}
    assert not [p for p in (tmp_path / 'out').rglob('*') if p.is_symlink()]
    assert (tmp_path / 'out' / 'Ci' / '1.jpg').read_bytes() == SKY


@pytest.mark.parametrize('kind', ['zip', 'tar', 'tar.gz', 'tar.bz2'])
def test_damage_of_any_kind_is_one_line(made, tmp_path, kind):
    "Bytes are changed at random: what comes is a folder, or the one kind of error."
    plain = tarred(*((tar_info(f'Ci/{n}.jpg'), photo(n)) for n in range(3)))
    pack = {'tar': bytes, 'tar.gz': gzip.compress, 'tar.bz2': bz2.compress}
    whole = zipped('Ci/1.jpg', 'Cu/2.jpg', compression=zipfile.ZIP_DEFLATED) if kind == 'zip' else pack[kind](plain)
    chance, refused = random.Random(0), 0
    for n in range(150):
        content = bytearray(whole)
        for _ in range(chance.choice([1, 3, 30])):
            content[chance.choice([chance.randrange(len(content)), chance.randrange(min(600, len(content)))])] = (
                chance.randrange(256)
            )
        try:
            extract(
                made(f'{n}.{kind}', bytes(content[: chance.choice([None, chance.randrange(len(content))])])),
                tmp_path / str(n),
            )
        except FetchError as e:
            refused += '\n' not in str(e)
    assert refused > 30


HIDDEN = ['manifest.db', 'Manifest.DB', 'manifest.db-wal', '.manifest.lock', '.incoming/1.part', '.quarantine/1.jpg']
HIDDEN += ['Ci/.hidden.jpg', '__MACOSX/Ci/1.jpg', '.git/hooks/pre-commit']


@pytest.mark.parametrize('kind', ['zip', 'tar', 'folder'])
def test_a_database_brings_no_manifest_and_nothing_hidden(made, tmp_path, kind):
    names = ['Ci/1.jpg', 'Cu/2.jpg', *(n for n in HIDDEN if kind != 'folder' or n != 'Manifest.DB')]
    if kind == 'folder':
        origin = tmp_path / 'packed'
        for name in names:
            (origin / name).parent.mkdir(parents=True, exist_ok=True)
            (origin / name).write_bytes(SKY)
    else:
        origin = made(f'x.{kind}', zipped(*names) if kind == 'zip' else tarred(*((tar_info(n), SKY) for n in names)))
    dataset = unpack(origin, tmp_path / 'skies', progress=False)
    assert below(tmp_path / 'skies') == ['.manifest.lock', 'Ci/1.jpg', 'Cu/2.jpg', 'manifest.db']
    assert [row['status'] for row in dataset.manifest.read('SELECT status FROM photos')] == ['ok', 'ok']
    assert dataset.manifest.read('SELECT * FROM moves') == []


def test_what_leads_out_of_a_folder_is_a_row(tmp_path):
    "A link to a file, one to a folder, one to nothing, and a pipe, which nobody waits for."
    origin = tmp_path / 'packed'
    for name in ('Ci', 'Cu'):
        (origin / name).mkdir(parents=True)
        (origin / name / '1.jpg').write_bytes(photo(len(name)) if name == 'Ci' else photo(9))
    (tmp_path / 'secret.jpg').write_bytes(photo(3))
    (origin / 'Ci' / 'link.jpg').symlink_to(tmp_path / 'secret.jpg')
    (origin / 'Ci' / 'dangling.jpg').symlink_to('nowhere.jpg')
    (origin / 'Cu' / 'all').symlink_to(tmp_path)
    os.mkfifo(origin / 'Cu' / 'pipe.jpg')
    (origin / 'Cs').symlink_to(tmp_path)
    dataset = unpack(origin, tmp_path / 'skies', progress=False)
    told = dataset.manifest.read("SELECT label, title, reason FROM photos WHERE status = 'failed' ORDER BY title")
    assert [tuple(row) for row in told] == [
        ('Cirrus', 'Ci/dangling.jpg', 'link'),
        ('Cirrus', 'Ci/link.jpg', 'link'),
        ('Cirrostratus', 'Cs', 'link'),
        ('Cumulus', 'Cu/all', 'link'),
        ('Cumulus', 'Cu/pipe.jpg', 'no file'),
    ]
    assert [p.name for p in (tmp_path / 'skies').rglob('*.jpg')] == ['1.jpg', '1.jpg']
    assert dataset.status()['reasons'] == {'link': 4, 'no file': 1}


@pytest.mark.parametrize('leftover', ['link', 'file', 'lock'])
def test_what_lies_in_the_way_is_not_followed(made, tmp_path, leftover):
    "Something that has the name of a place where archives are unpacked."
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / 'mine.jpg').write_bytes(SKY)
    trap = tmp_path / '.skies.unpacking'
    if leftover == 'link':
        trap.symlink_to(tmp_path / 'elsewhere')
    elif leftover == 'file':
        trap.write_bytes(b'mine')
    else:
        (trap / 'lock').mkdir(parents=True)
    dataset = unpack(made('x.zip', zipped('Ci/1.jpg', 'Cu/2.jpg')), tmp_path / 'skies', progress=False)
    assert dataset.manifest.counts()['status'] == {'ok': 2}
    assert below(tmp_path / 'elsewhere') == ['mine.jpg']


def test_a_full_disk_says_so_and_keeps_nothing(made, small_disk):
    names = [f'{genus}/{n}.jpg' for genus in ('Ci', 'Cu') for n in range(200)]
    archive = made('large.zip', zipped(*names))
    with pytest.raises(FetchError, match=r'skies: can.t be written \(No space left on device\)'):
        unpack(archive, small_disk / 'skies', progress=False)
    assert list(small_disk.iterdir()) == []
    dataset = unpack(made('small.zip', zipped('Ci/1.jpg', 'Cu/2.jpg')), small_disk / 'skies', progress=False)
    assert dataset.manifest.counts()['status'] == {'ok': 2}


def test_a_read_only_place_says_so(made, read_only, tmp_path):
    (tmp_path / 'data').mkdir()
    with pytest.raises(FetchError, match='Read-only file system'):
        unpack(made('x.zip', zipped('Ci/1.jpg', 'Cu/2.jpg')), read_only(tmp_path / 'data') / 'skies', progress=False)


def test_a_file_is_opened_only_if_it_is_one(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to('/etc/hostname')
    told = {}
    for name in ('pipe', 'link', 'gone', '.', 'x' * 300):
        with pytest.raises(SkippedFile) as e:
            open_file(tmp_path / name)
        told[name[:4]] = e.value.reason
    assert told == {'pipe': 'no file', 'link': 'link', 'gone': 'not found', '.': 'no file', 'xxxx': 'unreadable'}
