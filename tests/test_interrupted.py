"Adding and fetching, killed at random moments and two at a time: no byte is lost, and the next command goes on."

import hashlib
import http.server
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from bounds import run_and_kill
from filelock import FileLock
from hostile import photo
from wholeness import check_journal, check_photos, contents, files, make_dataset, whole

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.scrape import add_photos, unpack
from cloud_classifier.files import file_hash

pytestmark = pytest.mark.usefixtures('forked')
SERVERS = Path(__file__).parent / 'servers'
MANY = [pytest.param(3, id='few'), pytest.param(30, id='many', marks=pytest.mark.soak)]
OFTEN = [pytest.param(2, id='few'), pytest.param(20, id='many', marks=pytest.mark.soak)]
ADD = """
import sys
from cloud_classifier.data.dataset import BadDataset
from cloud_classifier.data.scrape import add_photos
try: add_photos(*sys.argv[1:], progress=False)
except BadDataset as e:
    if 'another process' not in str(e): raise
"""
FETCH = """
import sys
from cloud_classifier.data.sources import FetchError
from cloud_classifier.data.scrape import fetch_ccsn
dest, origin, url, known_hash = sys.argv[1:]
try: fetch_ccsn(dest, *([url, known_hash] if url else []), origin=origin or None, progress=False)
except FetchError as e:
    if 'is there already' not in str(e) and 'not empty' not in str(e): raise
"""
WORK = 'import sys; from wholeness import work; work(sys.argv[1], sys.argv[2], int(sys.argv[3]), 6)'


def python(script, *args):
    return [sys.executable, '-c', script, *map(str, args)]


@pytest.fixture(scope='module')
def mine(tmp_path_factory):
    "Forty photos in two class folders, one of them twice. Look, but don't touch."
    folder = tmp_path_factory.mktemp('own') / 'mine'
    for n in range(40):
        place = folder / ('Ci', 'St')[n % 2] / f'{n}.jpg'
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(photo(n))
    shutil.copy(folder / 'Ci' / '0.jpg', folder / 'Ci' / 'again.jpg')
    return folder


@pytest.fixture(scope='module')
def archive(mine, tmp_path_factory):
    return Path(shutil.make_archive(tmp_path_factory.mktemp('packed') / 'skies', 'zip', mine.parent, 'mine'))


@pytest.fixture
def url(archive):
    "Where a server has the archive, some bytes at a time."

    class Slow(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def copyfile(self, source, outputfile):
            try:
                while piece := source.read(20_000):
                    outputfile.write(piece)
                    time.sleep(0.02)
            except ConnectionError:  # who asked was killed
                pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Slow, directory=str(archive.parent))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}/{archive.name}'
        server.shutdown()
        thread.join()


def hashes(folder):
    return {file_hash(p) for p in folder.rglob('*.jpg')}


def seconds(argv):
    "How long a command takes that nobody kills."
    start = time.monotonic()
    subprocess.run(argv, check=True)
    return time.monotonic() - start


@pytest.mark.parametrize('kills', MANY)
def test_adding_is_killed_at_random_moments(mine, tmp_path, kills):
    takes, chance, killed = seconds(python(ADD, tmp_path / 'first', mine)), random.Random(kills), 0
    own = {p: file_hash(p) for p in mine.rglob('*.jpg')}
    for n in range(kills):
        dataset = make_dataset(tmp_path / str(n), per_class=2)
        before = contents(dataset.path)
        killed += run_and_kill(python(ADD, dataset.path, mine), takes, chance)
        dataset.manifest.carry_out()
        here = {path: file_hash(file) for path, file in files(dataset.path).items()}
        check_photos(dataset, here)
        check_journal(dataset, here)
        assert {p: file_hash(p) for p in mine.rglob('*.jpg')} == own
        assert not before - contents(dataset.path)
        add_photos(dataset, mine, progress=False)
        assert dataset.manifest.counts()['status'] == dict(ok=40, duplicate=1)
        whole(dataset, before + Counter(hashes(mine)))
    assert killed > kills / 3


@pytest.mark.parametrize('kills', MANY)
@pytest.mark.parametrize('served', [False, True], ids=['archive', 'server'])
def test_fetching_is_killed_at_random_moments(mine, archive, url, tmp_path, kills, served):
    known = 'sha256:' + hashlib.sha256(archive.read_bytes()).hexdigest()
    where = ('', url, known) if served else (archive, '', '')
    takes, chance, killed = seconds(python(FETCH, tmp_path / 'first' / 'skies', *where)), random.Random(kills), 0
    for n in range(kills):
        dest = tmp_path / str(n) / 'skies'
        killed += run_and_kill(python(FETCH, dest, *where), takes, chance)
        if dest.exists():  # it is whole, or not there
            assert Dataset(dest).manifest.counts()['status'] == dict(ok=41)
        subprocess.run(python(FETCH, dest, *where), check=True)
        assert Dataset(dest).manifest.counts()['status'] == dict(ok=41)
        assert hashes(dest) == hashes(mine)
        assert {p.name for p in dest.parent.iterdir()} <= {'skies', '.downloads'}
    assert killed > kills / 3


def both(*commands):
    "Run commands at the same time; each may be refused, but none may fail."
    running = [
        subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=SERVERS)
        for argv in commands
    ]
    told = [process.communicate(timeout=120)[1] for process in running]
    assert [(process.returncode, said) for process, said in zip(running, told, strict=True)] == [(0, '')] * len(running)


@pytest.mark.parametrize('times', OFTEN)
@pytest.mark.parametrize('verb', ['add', 'quarantine', 'relabel', 'undo', 'sync'])
def test_adding_beside_another_command(mine, tmp_path, times, verb):
    for n in range(times):
        dataset = make_dataset(tmp_path / f'{n}', per_class=4)
        before = contents(dataset.path)
        add_photos(dataset, mine / 'Ci', 'Cirrus', progress=False)
        other = python(ADD, dataset.path, mine) if verb == 'add' else python(WORK, dataset.path, verb, n)
        both(python(ADD, dataset.path, mine / 'St', 'Stratus'), other)
        add_photos(dataset, mine / 'St', 'Stratus', progress=False)
        whole(dataset, before + Counter(hashes(mine)))


@pytest.mark.parametrize('times', OFTEN)
@pytest.mark.parametrize('pair', [('add', 'add'), ('add', 'fetch'), ('fetch', 'fetch')], ids='-'.join)
def test_adding_and_fetching_into_the_same_place(mine, archive, tmp_path, times, pair):
    "Whoever comes first makes the dataset; a database is not put into what is there already."
    for n in range(times):
        dest = tmp_path / f'{n}' / 'skies'
        dest.parent.mkdir()
        commands = {'add': python(ADD, dest, mine), 'fetch': python(FETCH, dest, archive, '', '')}
        both(*(commands[verb] for verb in pair))
        add_photos(dest, mine, progress=False)
        assert hashes(dest) == hashes(mine)
        here = {path: file_hash(file) for path, file in files(dest).items()}
        check_photos(Dataset(dest), here)
        assert {p.name for p in dest.parent.iterdir()} == {'skies'}


def test_a_workplace_that_another_process_sweeps_is_made_again(archive, mine, tmp_path, monkeypatch):
    "Between making a folder and locking it, it looks like one that a killed run left."
    made, sweeper = [], []

    def mkdtemp(real=tempfile.mkdtemp, **kwargs):
        made.append(real(**kwargs))
        if len(made) == 1:
            sweeper.append(FileLock(Path(made[0], 'lock')))
            sweeper[0].acquire()
        return made[-1]

    monkeypatch.setattr(tempfile, 'mkdtemp', mkdtemp)
    unpack(archive, tmp_path / 'skies', progress=False)
    sweeper[0].release()
    assert len(made) == 2
    assert hashes(tmp_path / 'skies') == hashes(mine)
    assert [p.name for p in tmp_path.iterdir()] == ['skies']
