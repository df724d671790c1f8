"Fetching from a real server on loopback."

import hashlib
import http.server
import shutil
import threading
import zipfile

import pytest

from cloud_classifier.samples import make_samples
from cloud_classifier.scrape import FetchError, fetch_ccsn, unpack
from cloud_classifier.taxonomy import GENERA


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

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        thread.join()


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


def test_an_archive_can_not_write_outside(tmp_path):
    with zipfile.ZipFile(tmp_path / 'evil.zip', 'w') as z:
        z.writestr('../../escaped.jpg', 'x')
        for genus in list(GENERA)[:5]:
            z.writestr(f'{genus}/1.jpg', 'x')
    unpack(tmp_path / 'evil.zip', tmp_path / 'in' / 'skies')
    assert not list(tmp_path.glob('escaped.jpg'))
    assert not (tmp_path.parent / 'escaped.jpg').exists()


def test_an_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / 'cats.zip', 'w') as z:
        z.writestr('cats/1.jpg', 'x')
    with pytest.raises(FetchError, match='no folders named after genera'):
        unpack(tmp_path / 'cats.zip', tmp_path / 'cats')
    assert [p.name for p in tmp_path.iterdir()] == ['cats.zip']


def test_without_a_connection_the_reason_is_short(tmp_path):
    with pytest.raises(FetchError, match=r'no connection$'):
        fetch_ccsn(tmp_path / 'ccsn', 'http://127.0.0.1:9/CCSN.zip', progress=False)
