"Archives: what is found in folders, tar files, lists and stores, whatever is wrong with it; one folder for one task."

import errno
import io
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import photo

from cloud_classifier import archive as room
from cloud_classifier.archive import (
    Archive,
    BadArchive,
    Disk,
    Photo,
    Shard,
    StoreError,
    Stores,
    Tar,
    begin_shard,
    end_shard,
    find_in,
    make_plan,
    part_name,
    read_parts,
    read_photo,
    read_shard,
    read_tar,
    retried,
    set_aside,
    shown_place,
    split_bucket,
    write_part,
)
from cloud_classifier.errors import UserError
from cloud_classifier.images import BadImage, inspect_photo, open_image
from cloud_classifier.prediction.batch import find_photos

SKY = photo(1)


def tarred(*members, mode='w', content=SKY):
    "The bytes of a tar file."
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:
        for name in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def read(data):
    return list(read_tar(io.BytesIO(data), 's.tar'))


def names(found):
    return [o.name for o in found]


@pytest.fixture
def folder(tmp_path):
    "Photos in folders whose names sort in odd ways, one of which is not UTF-8."
    for name in ('b/2.jpg', 'b/10.JPG', 'b.jpg', 'b-c/1.jpg', 'ä ö/ü.jpg', '.hidden/3.jpg', 'b/.4.jpg', 'b/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(SKY)
    with open(os.fsencode(tmp_path) + b'/\xff\xfe.jpg', 'wb') as file:
        file.write(SKY)
    return tmp_path


# Finding


def test_a_folder_gives_the_photos_of_predict_in_its_order(folder):
    for place in (folder, folder / 'b', str(folder) + '/', folder / '*' / '*.jpg', folder / '**' / '*.jpg'):
        assert list(find_in([place], Stores())) == list(find_photos([place])), place


def test_tar_files_of_a_folder_are_shards_of_their_own(folder):
    (folder / 'b' / 'x.tar').write_bytes(tarred('1.jpg'))
    assert list(find_in([folder / 'b'], Stores()))[-1] == Tar(f'{folder}/b/x.tar', 10_240)


@pytest.mark.parametrize(
    ('place', 'line'),
    [
        ('nowhere', 'there is no such file or folder'),
        ('*.png', 'matches no photo and no tar file'),
        ('empty', 'has no photos and no tar files'),
        ('other.csv', 'has no column path or url'),
        ('none.csv', 'names no photo'),
        ('other.parquet', 'Parquet'),
    ],
)
def test_a_place_without_photos_is_said_in_a_line(place, line, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'other.csv').write_text('file,label\na.jpg,Ci\n')
    (tmp_path / 'none.csv').write_text('path\n\n')
    (tmp_path / 'other.parquet').write_text('path\na.jpg\n')
    with pytest.raises(BadArchive, match=line) as said:
        list(find_in([place], Stores(str(tmp_path))))
    assert '\n' not in str(said.value)


def test_lists_are_read_row_by_row(tmp_path):
    (tmp_path / 'x.tar').write_bytes(b'')
    rows = ['a, b.jpg', 'x.tar', None, 'http://127.0.0.1/a.jpg', 'gone.tar']
    pq.write_table(pa.table({'label': [''] * 5, 'URL': rows}), tmp_path / 'list.parquet')
    stores = Stores(str(tmp_path))
    first, tar, address, gone = find_in(['list.parquet'], stores)
    assert (first, tar) == ('a, b.jpg', Tar('x.tar', 0))
    assert (address.reason, gone.reason) == (
        'is an address; --urls lets addresses be fetched',
        'there is no such file',
    )
    assert list(find_in(['list.parquet'], stores, urls=True))[2] == 'http://127.0.0.1/a.jpg'


# Tar files


@pytest.mark.parametrize('mode', ['w', 'w:gz', 'w:bz2', 'w:xz'])
def test_packed_tar_files_are_read_like_others(mode):
    found = read(tarred('a.jpg', 'a.json', 'dir/b.JPG', '._a.jpg', 'dir/.c.jpg', mode=mode))
    assert names(found) == ['s.tar/a.jpg', 's.tar/dir/b.JPG']
    assert {*found} == {SKY}


def test_what_is_no_file_is_a_row():
    link, folder = tarfile.TarInfo('link.jpg'), tarfile.TarInfo('folder.jpg')
    link.type, link.linkname, folder.type = tarfile.LNKTYPE, 'a.jpg', tarfile.DIRTYPE
    found = read(tarred('a.jpg', link, folder))
    assert names(found) == ['s.tar/a.jpg', 's.tar/link.jpg']
    assert found[1].reason == 'is a link or a device, not a file'


def test_wherever_a_tar_file_is_cut_off_its_first_photos_are_read_and_the_rest_is_a_row():
    whole = tarred(*(f'{n}.jpg' for n in range(4)))
    step, end = 512 + -(-len(SKY) // 512) * 512, 4 * (512 + -(-len(SKY) // 512) * 512)
    cuts = {*range(0, end, 512), *random.Random(0).sample(range(end), 30), step, 2 * step, end}
    for cut in cuts:
        *photos, last = read(whole[:cut])
        assert names(photos) == [f's.tar/{n}.jpg' for n in range(len(photos))], cut
        assert isinstance(last, BadImage), cut
        assert f'after {len(photos)} photos' in last.reason
        assert len(photos) >= cut // step - 1
    assert len(read(whole)) == 4


@pytest.mark.parametrize('mode', ['w:gz', 'w:bz2', 'w:xz'])
def test_a_packed_tar_file_that_is_cut_off_ends_in_a_row(mode):
    whole = tarred(*(f'{n}.jpg' for n in range(20)), mode=mode, content=random.Random(0).randbytes(3000))
    for share in (0.3, 0.9, 0.99):
        *photos, last = read(whole[: int(len(whole) * share)])
        assert len(photos) == 19 or last.kind == 'truncated'


def test_a_damaged_header_is_not_taken_for_the_end():
    whole, step = bytearray(tarred('0.jpg', '1.jpg', '2.jpg')), 512 + -(-len(SKY) // 512) * 512
    whole[step : step + 400] = b'x' * 400
    photos = read(bytes(whole))
    assert len(photos) == 2
    assert 'the rest is missing' in photos[1].reason


def test_a_header_that_says_it_is_huge_takes_no_memory():
    header = tarfile.TarInfo('pax')
    header.type, header.size = tarfile.XHDTYPE, 10**12
    [said] = read(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert 'a header is too long' in said.reason
    large = tarfile.TarInfo('large.jpg')
    large.size = 10**12
    first, last = read(large.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert (first.kind, last.kind) == ('too large', 'truncated')


def test_what_is_no_tar_file_is_said():
    for data in (b'', b'\x89PNG\r\n\x1a\n' * 100, SKY):
        [said] = read(data)
        assert said.kind == 'truncated'


# Photos and shards


def test_a_photo_in_memory_is_told_by_its_name_as_a_file_is(tmp_path):
    (tmp_path / 'sky.nef').write_bytes(b'II*\0' + bytes(100))
    by_name = inspect_photo(tmp_path / 'sky.nef').reason
    assert inspect_photo(Photo('sky.nef', (tmp_path / 'sky.nef').read_bytes())).reason == by_name
    with pytest.raises(BadImage, match=r'sky\.nef: is a RAW photo'):
        open_image(Photo('sky.nef', b'II*\0' + bytes(100)))


def test_each_photo_of_a_plan_is_in_one_shard(folder):
    archive, stores = Archive(str(folder / 'out')), Stores()
    found = list(find_in([folder], stores)) * 40
    assert make_plan(archive, found, photos=50) > 8
    shards = list(archive.shards())
    assert [o.number for o in shards] == [*range(len(shards))]
    assert shards[0].count == 20
    assert max(o.count for o in shards) <= 50
    listed = [o.name for shard in shards for o in read_shard(shard, archive, stores)]
    assert listed == found


def test_a_shard_whose_tar_file_is_gone_is_a_row(tmp_path):
    archive = Archive(str(tmp_path / 'out'))
    [said] = read_shard(Shard(0, 'tar', str(tmp_path / 'gone.tar'), 0, 0, 9), archive, Stores())
    assert said.reason == 'there is no such file'


def test_reading_that_fails_now_and_then_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(room, 'FIRST_WAIT', 0.0001)
    (tmp_path / 'x.tar').write_bytes(tarred(*(f'{n}.jpg' for n in range(30))))
    chance, opened = random.Random(1), io.open

    class Flaky(io.FileIO):
        def read(self, *args):
            if chance.random() < 0.3:
                raise OSError(errno.EIO, 'Input/output error')
            return super().read(*args)

    monkeypatch.setattr(room.io, 'open', lambda path, *args, **kwargs: Flaky(path))
    with Disk().open(str(tmp_path / 'x.tar'), buffer=4096) as file:
        found = list(read_tar(file, 'x.tar'))
    monkeypatch.setattr(room.io, 'open', opened)
    assert names(found) == [f'x.tar/{n}.jpg' for n in range(30)]
    assert {*found} == {SKY}


def test_what_will_not_pass_is_not_waited_for():
    def refuse(error, calls):
        calls.append(1)
        raise error

    for error in (FileNotFoundError(2, 'x'), PermissionError(13, 'x'), OSError('AWS Error ACCESS_DENIED during Get')):
        calls = []
        with pytest.raises(OSError, match=r'x|ACCESS'):
            retried(lambda calls=calls, error=error: refuse(error, calls))
        assert len(calls) == 1


# One folder, one task

ABOUT = {
    'archive': 1,
    'task': 'predict',
    'model': 'a@1',
    'sha256': '1',
    'places': ['/a'],
    'settings': {},
    'photos': 500,
}


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        ({'task': 'verify'}, 'has the answers of predict, not of verify'),
        ({'sha256': '2'}, r'has answers of another model \(a@1\)'),
        ({'places': ['/b']}, r'is about other photos \(/a\)'),
        ({'settings': {'prior': {'Stratus': 0.3}}}, 'has answers with other options'),
    ],
)
def test_other_answers_are_refused_in_a_line(change, line, tmp_path):
    archive = Archive(str(tmp_path))
    assert not archive.check(ABOUT)
    archive.write('archive.json', room.to_json(ABOUT))
    assert archive.check(ABOUT)
    with pytest.raises(BadArchive, match=line):
        archive.check(ABOUT | change)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    with pytest.raises(BadArchive, match=r'is not empty, and has no archive\.json'):
        Archive(str(tmp_path)).check(ABOUT)
    assert [o.name for o in tmp_path.iterdir()] == ['thesis.tex']


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    with pytest.raises(UserError, match=r"archives need pyarrow, which `pip install 'cloud_classifier\[scale\]'`"):
        Archive(str(tmp_path))


# Object stores


@pytest.mark.parametrize(
    ('place', 'shown'),
    [
        ('s3://key:secret@b/x/a?.jpg?region=eu&scheme=http', ('s3://b', 'x/a?.jpg')),
        ('gs://anonymous@b/a.tar', ('gs://b', 'a.tar')),
        ('abfs://box:secret@acc.dfs.core.windows.net/a', ('abfs://box@acc.dfs.core.windows.net', 'a')),
        ('S3://b', ('s3://b', '')),
    ],
)
def test_secrets_are_no_part_of_names(place, shown):
    assert split_bucket(place)[1:] == shown


def python(code):
    return [sys.executable, '-W', 'ignore', '-c', f'{code}import time\ntime.sleep(600)']


S3 = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
"""
GOOGLE = """
import socket
from gcp_storage_emulator.server import create_server
with socket.create_server(('127.0.0.1', 0)) as free: port = free.getsockname()[1]
create_server('127.0.0.1', port, in_memory=True, default_bucket='skies').start()
print(port, flush=True)
"""
AZURE = ['azurite-blob', '--blobPort', '0', '--inMemoryPersistence', '--skipApiVersionCheck', '--disableTelemetry']
# Everybody's: https://learn.microsoft.com/azure/storage/common/storage-connect-azurite
ACCOUNT = 'devstoreaccount1:' + quote(
    'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==', safe=''
)
STORES = {  # the command that serves it and says its port, and how it is reached there
    's3': (
        python(S3),
        's3://skies',
        '?endpoint_override=127.0.0.1:{}&scheme=http&region=us-east-1&allow_bucket_creation=true',
    ),
    'gs': (python(GOOGLE), 'gs://anonymous@skies', '?endpoint_override=127.0.0.1:{}&scheme=http'),
    'abfs': (AZURE, f'abfs://{ACCOUNT}@127.0.0.1:{{}}/skies', '?enable_tls=false'),
}
IN_DEV = {'s3': 'moto', 'gs': 'gcp_storage_emulator'}


@pytest.fixture(scope='module', params=STORES)
def store(request):
    "A store that speaks as one of the large ones does: how it is reached, and the settings of that."
    command, *address = STORES[request.param]
    if request.param in IN_DEV:
        pytest.importorskip(IN_DEV[request.param], reason='servers of stores are in the extra dev')
    elif not shutil.which(command[0]):
        pytest.skip(f'{command[0]} is not on the PATH: npm install -g azurite')
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = (re.search(r'(?:^|listens on .*:)(\d+)$', line.strip()) for line in server.stdout)
        port = next(filter(None, said))[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('AWS_ACCESS_KEY_ID', 'key')
            patch.setenv('AWS_SECRET_ACCESS_KEY', 'hush')
            patch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
            place, settings = (o.format(port) for o in address)
            room.Bucket(split_bucket(place + settings)[0]).fs.create_dir('skies')
            yield place, settings
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def put(bucket, name, content):
    with bucket.fs.open_output_stream(bucket.key(name)) as file:
        file.write(content)


def test_a_bucket_is_read_and_written_like_a_disk(store):
    place, settings = store
    shown = shown_place(place).rstrip('/')
    stores, out = Stores(buckets=[place + settings]), Archive(f'{place}/out{settings}')
    bucket = stores.of(shown)
    put(bucket, f'{shown}/2026/north/ä b.jpg', SKY)
    put(bucket, f'{shown}/2026/notes.txt', b'')
    put(bucket, f'{shown}/tars/x-0.tar', tarred('0.jpg', '1.jpg'))
    put(bucket, f'{shown}/lists/all.csv', f'path\n../gone.jpg\n{shown}/2026/north/ä b.jpg\n'.encode())
    places = [f'{place}/{o}{settings}' for o in ('2026', 'tars/x-{0..0}.tar', 't*/*.tar', 'lists/all.csv')]
    make_plan(out, find_in(places, stores), photos=2)
    found = [o for shard in out.shards() for o in read_shard(shard, out, stores)]
    assert sorted(map(str, names(found))) == [
        f'{shown}/2026/north/ä b.jpg',
        f'{shown}/2026/north/ä b.jpg',
        f'{shown}/lists/../gone.jpg',
        *(f'{shown}/tars/x-0.tar/{n}.jpg' for n in (0, 0, 1, 1)),
    ]
    assert [o.reason for o in found if isinstance(o, BadImage)] == ['there is no such file']
    with pytest.raises(BadArchive, match=f'{re.escape(shown)}/none: there is no such file or folder'):
        list(find_in([f'{shown}/none'], stores))


@pytest.mark.parametrize('store', ['abfs'], indirect=True)  # the others let everybody in
def test_a_wrong_key_is_not_tried_again(store, monkeypatch):
    place, settings = store
    monkeypatch.setattr(room.time, 'sleep', pytest.fail)
    wrong = place.replace(ACCOUNT, f'devstoreaccount1:{quote("c2VjcmV0", safe="")}')
    with pytest.raises(PermissionError, match='AuthorizationFailure'):
        Stores(buckets=[wrong + settings]).of(shown_place(place)).exists(f'{shown_place(place)}/a.jpg')


def test_what_is_done_is_found_again_in_a_bucket(store):
    place, settings = store
    out = Archive(f'{place}/done{settings}')
    assert (out.done(), out.has('nothing'), out.store.names(f'{out.out}/parts')) == (set(), False, [])
    schema = pa.schema({'path': pa.string(), 'error': pa.string()})
    for number in (0, 1, 2000):
        assert write_part(out, part_name(number), [{'path': 'a.jpg'}], schema) == (1, 0)
    set_aside(Shard(3, 'tar', f'{out.out}/none.tar', 0, 0, 0), out, Stores(buckets=[place + settings]), schema, 'no')
    assert (out.done(), out.aside()) == ({0, 1, 2000, 3}, [3])
    assert sum(o.num_rows for o in read_parts(out)) == 4
    assert begin_shard(out, 'one', 5) == 1
    assert begin_shard(out, 'one', 5) == 2
    end_shard(out, 'one', 5, 2)
    assert begin_shard(out, 'one', 5) == 1
    out.store.remove(out.path('nothing'))


@pytest.mark.parametrize('kind', STORES)
def test_a_store_that_is_away_is_not_taken_for_a_missing_photo(kind, monkeypatch):
    monkeypatch.setattr(room, 'TRIES', 1)
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        monkeypatch.setenv(name, 'hush')
    place, settings = (o.format(9) for o in STORES[kind][1:])
    shown, before = shown_place(place).rstrip('/'), time.monotonic()
    with pytest.raises(StoreError, match=rf'{re.escape(shown)}/a\.jpg: the store does not answer'):
        read_photo(f'{shown}/a.jpg', Stores(buckets=[place + settings]))
    assert time.monotonic() - before < 60
