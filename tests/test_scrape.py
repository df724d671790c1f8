"Fetching from a real server on loopback."

import hashlib
import http.server
import json
import random
import shutil
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.scrape import ResumingDownloader, fetch_ccsn, unpack
from cloud_classifier.data.sources import FetchError
from cloud_classifier.samples import make_samples
from cloud_classifier.taxonomy import GENERA


@contextmanager
def serving(handler):
    "The address of a server that answers in this way."
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f'http://127.0.0.1:{server.server_port}'
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def served(tmp_path):
    "A folder, and the address under which a server offers it."
    folder = tmp_path / 'served'
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with serving(Handler) as home:
        yield folder, home


@pytest.fixture
def archive(served, tmp_path):
    "An archive like CCSN's, of rendered skies, on the server."
    make_samples(tmp_path / 'packed' / 'CCSN_v2', per_genus=1, size=32)
    return shutil.make_archive(served[0] / 'CCSN', 'zip', tmp_path / 'packed')


def md5(file):
    with open(file, 'rb') as f:
        return 'md5:' + hashlib.file_digest(f, 'md5').hexdigest()


def test_fetched_verified_and_unpacked(served, archive, tmp_path):
    dest = tmp_path / 'data' / 'ccsn'
    dataset = fetch_ccsn(dest, f'{served[1]}/CCSN.zip', md5(archive), progress=False)
    assert set(dataset.check(at_least=1).index) == set(GENERA)
    assert (
        fetch_ccsn(dest, 'http://127.0.0.1:9/gone', progress=False).path == dest
    )  # what is there is not fetched again


@pytest.mark.parametrize('path', ['CCSN.zip', 'other.zip'])
def test_nothing_is_left_of_a_failure(served, archive, tmp_path, path):
    "A wrong checksum, and an address that holds nothing."
    with pytest.raises(FetchError, match='could not be fetched'):
        fetch_ccsn(tmp_path / 'data' / 'ccsn', f'{served[1]}/{path}', 'md5:' + '0' * 32, progress=False)
    assert not (tmp_path / 'data' / 'ccsn').exists()


def test_a_download_that_was_cut_off_goes_on(tmp_path):
    "The second time the server is asked for the rest alone."
    content, asked = random.Random(0).randbytes(300_000), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append(self.headers.get('Range'))
            start = int(asked[-1].removeprefix('bytes=').rstrip('-')) if asked[-1] else 0
            self.send_response(206 if start else 200)
            self.send_header('Content-Length', str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : None if start else 200_000])

    with serving(Handler) as home:
        part, out = tmp_path / 'part', tmp_path / 'out'
        fetch = ResumingDownloader(part, timeout=5, progress=False)
        with pytest.raises(requests.RequestException):
            fetch(f'{home}/CCSN.zip', out, None)
        assert not out.exists()
        assert 0 < part.stat().st_size <= 200_000
        had = part.stat().st_size
        fetch(f'{home}/CCSN.zip', out, None)
    assert asked == [None, f'bytes={had}-']
    assert out.read_bytes() == content
    assert not part.exists()


def test_a_doi_leads_to_the_file(archive, tmp_path, monkeypatch):
    "Pooch's own client asks a server that answers as Dataverse does."
    content, asked = Path(archive).read_bytes(), []
    known = {
        'label': 'CCSN.zip',
        'dataFile': {'id': 7, 'filename': 'CCSN.zip', 'persistentId': 'doi:10.7910/DVN/CADDPD/X'},
    }

    class Dataverse(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append(self.path)
            files = {'status': 'OK', 'data': {'latestVersion': {'files': [known]}, 'files': [known]}}
            body = content if '/access/datafile/' in self.path else json.dumps(files).encode()
            self.send_response(200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Dataverse) as home:
        monkeypatch.setattr('pooch.downloaders.doi_to_url', lambda doi, **kwargs: f'{home}/dataset.xhtml?id={doi}')
        dataset = fetch_ccsn(tmp_path / 'ccsn', known_hash=md5(archive), progress=False)
    assert dataset.status()['classes'] == dict.fromkeys(GENERA, 1)
    assert '/access/datafile/' in asked[-1]


def test_a_local_archive_or_folder_takes_the_same_road(archive, tmp_path, command):
    for name, origin in (('zipped', archive), ('copied', tmp_path / 'packed')):
        status, out, _ = command('fetch', 'ccsn', tmp_path / name, '--from', origin)
        assert status == 0
        assert '10 photos of 10 classes' in out
        frame = Dataset(tmp_path / name).frame()
        assert set(frame.source) == {'ccsn'}
        assert set(frame.licence) == {'CC0 1.0'}
        assert set(frame.status) == {'ok'}
    assert command('fetch', 'ccsn', tmp_path / 'zipped', '--from', archive)[0] == 1
    assert command('fetch', 'ccsn', tmp_path / 'other', '--from', tmp_path / 'nowhere.zip')[0] == 2
    assert not (tmp_path / 'other').exists()


def test_abbreviations_are_read_as_genera(tmp_path):
    for name in ('Ci', 'Cb', 'Ct'):
        make_samples(tmp_path / 'made', per_genus=1, size=32, genera=['Cirrus'])
        (tmp_path / 'made' / 'Cirrus').rename(tmp_path / name)
    dataset = unpack(tmp_path, tmp_path.parent / 'unpacked', progress=False)
    assert set(dataset.frame().genus) == {'Cirrus', 'Cumulonimbus', ''}


def test_what_a_killed_run_left_is_swept_up(archive, tmp_path):
    (tmp_path / '.ccsn.unpacking' / 'half').mkdir(parents=True)
    unpack(archive, tmp_path / 'ccsn', progress=False)
    assert not (tmp_path / '.ccsn.unpacking').exists()
    (tmp_path / '.ccsn.unpacking').mkdir()
    fetch_ccsn(tmp_path / 'ccsn', progress=False)  # which is there
    assert not (tmp_path / '.ccsn.unpacking').exists()
    (tmp_path / '.ccsn.unpacking').mkdir()
    with pytest.raises(FetchError, match='is there already'):
        fetch_ccsn(tmp_path / 'ccsn', origin=archive, progress=False)
    assert not (tmp_path / '.ccsn.unpacking').exists()


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / 'cats.zip', 'w') as z:
        z.writestr('cats/1.jpg', 'x')
    with pytest.raises(FetchError, match='no folders named after genera'):
        unpack(tmp_path / 'cats.zip', tmp_path / 'cats')
    assert [p.name for p in tmp_path.iterdir()] == ['cats.zip']


def test_without_a_connection_the_reason_is_short(tmp_path):
    with pytest.raises(FetchError, match=r'no connection; the same command goes on where it stopped$'):
        fetch_ccsn(tmp_path / 'ccsn', 'http://127.0.0.1:9/CCSN.zip', progress=False)
