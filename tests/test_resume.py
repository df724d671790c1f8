"A run that is killed at any moment and gone on with ends as one that was left alone."

import csv
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest
from PIL import Image

from cloud_classifier.data.dataset import BadDataset, Dataset

URLS, GENERA = 250, ('Ci', 'Cumulus', 'stratus', 'Contrail')


def answer_of(number):
    "The status and body behind an address: photos, some of them twice and under two labels, pages and gaps."
    lot = random.Random(number).random()
    if lot < 0.05:
        return 404, b''
    if lot < 0.10:
        return 200, b'<html>Sign in to see this photo</html>'
    photo = BytesIO()
    shade = number % 150  # so that addresses 150 apart lead to the same bytes
    Image.new('RGB', (140, 130), (shade % 256, shade // 2, 200)).save(photo, 'jpeg')
    return 200, photo.getvalue()


@pytest.fixture(scope='module')
def addresses(tmp_path_factory):
    "A list of addresses, and a server that answers them."
    answers = {f'/{i}.jpg': answer_of(i) for i in range(URLS)}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def log_message(self, *args):
            pass

        def do_GET(self):
            status, body = answers[self.path]
            time.sleep(random.uniform(0, 0.06))
            self.send_response(status)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        file = tmp_path_factory.mktemp('list') / 'list.csv'
        with open(file, 'w', newline='') as f:
            table = csv.writer(f)
            table.writerow(['url', 'label'])
            for i in range(URLS):
                table.writerow([f'http://127.0.0.1:{server.server_port}/{i}.jpg', GENERA[i % len(GENERA)]])
        yield file
        server.shutdown()
        thread.join()


def scrape(data, addresses, **kwargs):
    command = [sys.executable, '-m', 'cloud_classifier.cli', 'scrape', data]
    command += ['--source', 'urls', '--from', addresses, '--allow-private']
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def finished(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def state(data):
    "Files with their bytes, and rows with all that is remembered except times and numbers."
    dataset = Dataset(data)
    files = {p.relative_to(data).as_posix(): p.read_bytes() for p in data.rglob('*.jpg')}
    rows = dataset.manifest.read(
        'SELECT url, asked, label, source, status, reason, path, sha256, width, size FROM photos'
    )
    assert not dataset.manifest.read('SELECT * FROM moves')
    return files, sorted(map(tuple, rows))


@pytest.fixture(scope='module')
def left_alone(addresses, tmp_path_factory):
    data = tmp_path_factory.mktemp('alone') / 'skies'
    assert 'photos' in finished(scrape(data, addresses))
    return state(data)


def settled(data):
    "How many addresses have ended, as another process sees it."
    if not (data / 'manifest.db').exists():
        return 0
    try:
        with closing(sqlite3.connect(data / 'manifest.db', timeout=5)) as db:
            return db.execute("SELECT count(*) FROM photos WHERE status <> 'pending'").fetchone()[0]
    except sqlite3.OperationalError:  # it is being made
        return 0


def test_each_address_ends_in_a_row(left_alone):
    files, rows = left_alone
    assert len(rows) == URLS
    ended = [row[4] for row in rows]
    assert ended.count('ok') == len(files)
    assert ended.count('failed') == sum(answer_of(i)[0] == 404 or b'<html' in answer_of(i)[1] for i in range(URLS))
    assert set(ended) == {'ok', 'duplicate', 'failed'}


@pytest.mark.usefixtures('forked')
@pytest.mark.parametrize('times', [4, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_at_some_moments(times, addresses, left_alone, tmp_path):
    data, chance, kills = tmp_path / 'skies', random.Random(), []
    for _ in range(times):
        before, more = settled(data), chance.randint(0, 200 // times)
        process = scrape(data, addresses)
        while process.poll() is None and settled(data) < before + more:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.communicate()
        kills.append(settled(data))
    finished(scrape(data, addresses))
    print('addresses that had ended at each kill:', kills)
    assert kills == sorted(kills)
    assert kills[0] < URLS
    assert state(data) == left_alone
    assert not list(data.rglob('*.part'))


@pytest.mark.usefixtures('forked')
def test_interrupted_with_ctrl_c(addresses, left_alone, tmp_path):
    data = tmp_path / 'skies'
    process = scrape(data, addresses)
    while settled(data) < 50:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert 'Traceback' not in err
    assert 50 <= settled(data) < URLS
    for _ in range(2):  # the second time there is nothing to do
        finished(scrape(data, addresses))
        assert state(data) == left_alone


@pytest.mark.usefixtures('forked')
def test_one_at_a_time(addresses, tmp_path):
    data = tmp_path / 'skies'
    process = scrape(data, addresses)
    while settled(data) < 1:
        assert process.poll() is None
        time.sleep(0.005)
    with pytest.raises(BadDataset, match='another process is fetching'):
        Dataset(data).sync()
    finished(process)
