"The HTTP service: the answers of `predict --json`, limits that hold, clients that misbehave, and a graceful end."

import asyncio
import http.client
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from readme import ROOT
from service import COMMAND, served
from small_net import small_net
from static_site import stand_in_ort

from cloud_classifier import fetch as fetch_room
from cloud_classifier.errors import UserError
from cloud_classifier.fetch import AddressError, fetch_photo, public_address
from cloud_classifier.hosting import PortTaken, bind_port
from cloud_classifier.images import BadImage
from cloud_classifier.prediction import serve as serve_module
from cloud_classifier.prediction.infer import CloudClassifier, Prediction
from cloud_classifier.prediction.serve import Limits, api
from cloud_classifier.prediction.site import ORT_FILES
from cloud_classifier.samples import make_samples, render_sky

pytestmark = [
    pytest.mark.filterwarnings('ignore::DeprecationWarning'),  # what FastAPI's libraries say of each other
    pytest.mark.usefixtures('forked'),  # the service of the module is not, and what Procfile and Dockerfile say
]


def photo(colour='steelblue', size=(64, 48), format='JPEG', mode='RGB', **options) -> bytes:
    out = io.BytesIO()
    Image.new('RGB', size, colour).convert(mode).save(out, format, **options)
    return out.getvalue()


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return small_net(tmp_path_factory.mktemp('model') / 'clouds.onnx')


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    "Photos of many kinds, and files that are none."
    folder = tmp_path_factory.mktemp('mixed')
    make_samples(folder, per_genus=2, size=200, genera=['Cirrus', 'Stratus', 'Cumulonimbus'])
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        (folder / f'turned {orientation}.jpg').write_bytes(photo(size=(80, 40), exif=exif.tobytes()))
    for name, content in {
        'alpha.png': photo(format='PNG', mode='RGBA'),
        'grey.jpg': photo(mode='L'),
        'cmyk.jpg': photo(mode='CMYK'),
        'deep.png': photo(format='PNG', mode='I;16'),
        'raw.dng': b'II*\0' + bytes(100),
        'cut.jpg': photo(size=(900, 900))[:2000],
        'text.jpg': b'seen from the roof',
        'empty.jpg': b'',
        'bidi\u202egpj.jpg': photo(),
    }.items():
        (folder / name).write_bytes(content)
    return sorted(p for p in folder.rglob('*') if p.suffix in ('.jpg', '.png', '.dng'))


@pytest.fixture(scope='module')
def service(model, tmp_path_factory):
    with served(
        tmp_path_factory.mktemp('service'), '--model', model, '--no-site', '--port', 0, '--max-bytes', 10**7
    ) as running:
        yield running


def post(address: str, photos, **more) -> httpx.Response:
    files = [('files', (getattr(p, 'name', 'sky.jpg'), p if isinstance(p, bytes) else p.read_bytes())) for p in photos]
    return httpx.post(f'{address}predict', files=files, timeout=60, **more)


def without(entry: dict, key: str) -> dict:
    return {k: v for k, v in entry.items() if k != key}


def test_answers_are_those_of_predict_digit_by_digit(service, model, mixed):
    done = subprocess.run(
        [*COMMAND, 'predict', '--json', '--model', model, *mixed],
        capture_output=True, text=True, encoding='utf-8', check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    expected = [json.loads(line) for line in done.stdout.splitlines()]
    answers = post(service.address, mixed).json()
    assert [without(o, 'name') for o in answers] == [without(o, 'path') for o in expected]
    assert sum('error' in o for o in answers) == 4
    assert [o['name'] for o in answers][:3] == [p.name.replace('\u202e', '\\u202e') for p in mixed[:3]]


def test_what_others_ask_at_once_changes_no_digit(service, mixed):
    good = [p for p in mixed if p.suffix == '.png' or 'turned' in p.name or 'Cirrus' in str(p)]
    alone = [post(service.address, [p]).json() for p in good]
    together = {}
    threads = [
        threading.Thread(target=lambda i=i, p=p: together.setdefault(i, post(service.address, [p]).json()))
        for i, p in enumerate(good)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(len(good))] == alone


@pytest.mark.parametrize(
    ('name', 'content', 'status', 'reason'),
    [
        ('text.jpg', b'seen from the roof', 415, 'not a photo'),
        ('sky.jxl', b'\0\0\0\x0cJXL \r\n\x87\n', 415, 'JPEG XL'),
        ('empty.jpg', b'', 422, 'is empty'),
        ('cut.jpg', photo(size=(900, 900))[:2000], 422, 'cut off'),
        ('wide.png', photo(format='PNG', size=(20_000, 6_000)), 413, 'over the limit'),
        ('large.jpg', bytes(10**7 + 1), 413, 'more than 10 MB'),
    ],
)
def test_a_single_photo_that_cant_be_used_is_an_error_of_the_request(service, name, content, status, reason):
    answer = httpx.post(f'{service.address}predict', files={'files': (name, content)}, timeout=60)
    assert answer.status_code == status
    assert reason in answer.json()['detail']
    assert post(service.address, [photo()]).status_code == 200


def test_one_that_cant_be_used_among_others_is_an_entry(service):
    files = [('files', ('a.jpg', b'<html>')), ('files', ('b.jpg', photo())), ('files', ('c.jpg', b''))]
    answer = httpx.post(f'{service.address}predict', files=files, timeout=60)
    assert answer.status_code == 200
    assert [(o['name'], 'error' in o) for o in answer.json()] == [('a.jpg', True), ('b.jpg', False), ('c.jpg', True)]


@pytest.mark.parametrize(
    ('request_', 'status'),
    [
        (dict(content=b'{}', headers={'Content-Type': 'application/json'}), 415),
        (dict(content=photo(), headers={'Content-Type': 'image/jpeg'}), 415),
        (dict(files={'photos': ('a.jpg', photo())}), 422),
        (dict(data={'files': 'sky.jpg'}, files={'x': b''}), 422),
        (dict(files={'files': ('a.jpg', photo())}, data={'urls': 'https://example.org/a.jpg'}), 403),
        (dict(content=b'--x\r\n', headers={'Content-Type': 'multipart/form-data; boundary=x'}), 422),
        (dict(content=b'\0' * 99, headers={'Content-Type': 'multipart/form-data; boundary=x'}), 400),
    ],
)
def test_what_is_no_request_is_refused(service, request_, status):
    answer = httpx.post(f'{service.address}predict', timeout=60, **request_)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()['detail'], str)


def test_bytes_are_counted_where_no_length_is_declared(service):
    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
        for _ in range(200):
            yield bytes(100_000)

    headers = {'Content-Type': 'multipart/form-data; boundary=x'}
    answer = httpx.post(f'{service.address}predict', content=endless(), headers=headers, timeout=60)
    assert answer.status_code == 413


def test_files_and_pixels_have_limits(model):
    client = TestClient(api(model, limits=Limits(files=2, queue=2, pixels=10_000)))
    assert client.post('/predict', files=[('files', ('a.jpg', photo()))] * 3).status_code == 413
    answer = client.post(
        '/predict', files=[('files', ('a.jpg', photo())), ('files', ('b.jpg', photo(size=(200, 200))))]
    )
    assert ['error' in o for o in answer.json()] == [False, True]
    assert client.post('/predict', files={'files': photo(size=(200, 200))}).status_code == 413


@pytest.mark.parametrize('limits', [dict(bytes=0), dict(answer_seconds=-1), dict(files=10, queue=5)])
def test_limits_that_cant_be_are_refused(limits):
    with pytest.raises(UserError):
        Limits(**limits)


class Slow:
    "A model that answers when it is let."

    def __init__(self, model):
        self.real, self.go, self.asked = CloudClassifier(model), threading.Event(), 0
        self.path, self.sha256 = self.real.path, self.real.sha256
        self.card, self.classes = {}, self.real.classes
        self.preprocess, self.temperature = self.real.preprocess, 1.0
        self.rules, self.trained = self.real.rules, self.real.trained

    def predict_many(self, photos, batch_size):
        for o in photos:
            self.asked += 1
            self.go.wait(30)
            if o.getvalue() == b'fail':
                raise RuntimeError('out of memory')
            yield Prediction((('Cirrus', 1.0),))


def ask_at_once(app, n: int, before_answers=lambda: None) -> list[httpx.Response]:
    "The responses to `n` requests that are under way at once."

    async def run():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url='http://test') as client:
            tasks = [asyncio.create_task(client.post('/predict', files={'files': b'sky'})) for _ in range(n)]
            await asyncio.sleep(0.5)
            before_answers()
            return await asyncio.gather(*tasks)

    return asyncio.run(run())


def test_a_full_queue_is_503_and_a_greedy_client_429(model):
    slow = Slow(model)
    app = api(slow, limits=Limits(files=2, queue=2, per_client=50))
    app.state.service.batcher.threads = app.state.service.batcher.threads[:1]
    answers = ask_at_once(app, 20, slow.go.set)
    refused = [o for o in answers if o.status_code == 503]
    assert {o.status_code for o in answers} == {200, 503}
    assert all(o.headers['Retry-After'] == '1' for o in refused)
    assert slow.asked == 20 - len(refused)

    slow.go.clear()
    answers = ask_at_once(api(slow, limits=Limits(per_client=3)), 5, slow.go.set)
    assert sorted(o.status_code for o in answers) == [200, 200, 200, 429, 429]


def test_an_answer_that_takes_too_long_is_503_and_leaves_the_queue(model):
    slow = Slow(model)
    app = api(slow, limits=Limits(answer_seconds=0.2))
    assert {o.status_code for o in ask_at_once(app, 12)} == {503}
    slow.go.set()
    app.state.service.batcher.close()
    assert slow.asked < 12


def test_all_bytes_that_arrive_are_counted_together(model):
    slow = Slow(model)
    app = api(slow, limits=Limits(total_bytes=600))
    assert {o.status_code for o in ask_at_once(app, 9, slow.go.set)} == {200, 503}
    assert app.state.service.bytes == 0
    assert not app.state.service.requests


def test_a_model_that_fails_is_500_and_unhealthy(model):
    slow = Slow(model)
    slow.go.set()
    client = TestClient(api(slow), raise_server_exceptions=False)
    assert client.get('/health').status_code == 200
    assert client.post('/predict', files={'files': b'fail'}).status_code == 500
    assert client.get('/health').json()['status'] == 'failed'
    assert client.get('/health').status_code == 503
    assert client.post('/predict', files={'files': b'sky'}).status_code == 200
    assert client.get('/health').json()['status'] == 'ok'
    assert client.post('/predict', files=[('files', b'sky'), ('files', b'fail')]).status_code == 500


def test_clients_that_send_slowly_are_let_go(model, tmp_path):
    with served(tmp_path, '--model', model, '--no-site', '--port', 0, '--upload-seconds', 1) as running:
        head = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n'
        with (
            closing(socket.create_connection(('127.0.0.1', running.port))) as body,
            closing(socket.create_connection(('127.0.0.1', running.port))) as headers,
        ):
            body.sendall(head + b'Content-Type: multipart/form-data; boundary=x\r\n\r\n--x')
            headers.sendall(head)
            body.settimeout(15)
            answer = body.makefile('rb').read()
            assert answer.startswith(b'HTTP/1.1 408'), answer
            headers.settimeout(20)
            assert headers.recv(100) == b''
        assert post(running.address, [photo()]).status_code == 200


def test_the_end_waits_for_what_was_begun(model, tmp_path):
    "Ten clients ask without a pause while the service is ended: every request gets its answer, on old connections too."
    begun, answered, closed = [0] * 10, [0] * 10, []
    body = photo(size=(1200, 900))

    def ask(i: int, port: int):
        connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
        multipart = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n' + body + b'\r\n--x--'
        )
        connection.connect()
        while True:
            begun[i] += 1
            connection.request('POST', '/predict', multipart, {'Content-Type': 'multipart/form-data; boundary=x'})
            answer = connection.getresponse()
            answered[i] += answer.status == 200 and json.loads(answer.read())[0]['label'] != ''
            if answer.getheader('connection') == 'close':
                return closed.append(i)

    with served(tmp_path, '--model', model, '--no-site', '--port', 0) as running:
        threads = [threading.Thread(target=ask, args=(i, running.port)) for i in range(10)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        running.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert running.process.wait(30) == 0
        assert 'all requests that were taken are answered' in running.log
    assert len(closed) == 10
    assert begun == answered
    assert sum(begun) > 20


def test_a_client_that_reads_nothing_does_not_hold_up_the_end(model, tmp_path):
    (tmp_path / 'index.html').write_text('<h1>Skies</h1>')
    (tmp_path / 'large.bin').write_bytes(bytes(50_000_000))
    options = ['--model', model, '--port', 0, '--site', tmp_path, '--upload-seconds', 1, '--answer-seconds', 1]
    with served(tmp_path, *options) as running, closing(socket.create_connection(('127.0.0.1', running.port))) as lazy:
        lazy.sendall(b'GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n')
        assert lazy.recv(10).startswith(b'HTTP/1.1')
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0


def test_a_second_signal_ends_it_at_once(model, tmp_path):
    with served(tmp_path, '--model', model, '--no-site', '--port', 0) as running:
        with closing(socket.create_connection(('127.0.0.1', running.port))) as begun:
            begun.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n')
            time.sleep(0.3)
            for _ in range(2):
                running.process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
            assert running.process.wait(10) == 0


def test_the_log_names_nobody(model, tmp_path):
    with served(tmp_path, '--model', model, '--no-site', '--port', 0) as running:
        httpx.post(f'{running.address}predict', files={'files': ('anna at the beach.jpg', photo())})
        httpx.get(f'{running.address}anna.jpg?name=anna', headers={'User-Agent': 'anna', 'Referer': 'http://anna/'})
        httpx.request('DELETE', f'{running.address}health')
    lines = [line.split(' ', 1)[1] for line in running.log.splitlines()]
    assert [re.sub(r'seconds=.*', '', line).strip() for line in lines[:3]] == [
        'POST /predict 200 photos=1',
        'GET (no route) 404 photos=0',
        'other /health 405 photos=0',
    ]
    assert 'anna' not in running.log.lower()


def test_documentation_asks_no_other_host(service):
    pages = [httpx.get(service.address + page).text for page in ('docs', '')]
    found = [link for page in pages for link in re.findall(r'(?:src|href)="([^"]+)"', page)]
    assert found
    assert not [link for link in found if link.startswith(('http', '//'))]
    for link in found:
        assert httpx.get(service.address + link.lstrip('/')).status_code == 200, link
    schema = httpx.get(f'{service.address}openapi.json').json()
    assert set(schema['paths']) == {'/predict', '/model', '/health'}
    assert {'413', '415', '422', '429', '503'} <= set(schema['paths']['/predict']['post']['responses'])


def test_the_page_is_shown_where_there_is_one(model, tmp_path):
    site = tmp_path / 'site'
    site.mkdir()
    (site / 'index.html').write_text('<h1>Skies</h1>')
    (site / 'app.js').write_text('1')
    client = TestClient(api(model, site=site))
    assert client.get('/').text == '<h1>Skies</h1>'
    assert client.get('/app.js').status_code == 200
    assert client.get('/../clouds.onnx').status_code == 404
    assert client.get('/health').json()['status'] == 'ok'


def test_a_plain_page_stands_where_there_is_no_other(model):
    client = TestClient(api(model))
    page = client.get('/')
    assert page.headers['content-type'].startswith('text/html')
    assert 'the service was started without it' in page.text
    assert 'cloud-classifier site OUT' in page.text
    assert [client.request(*o).status_code for o in [('HEAD', '/'), ('POST', '/'), ('GET', '/a.js')]] == [200, 405, 404]
    assert 'href="docs"' in TestClient(api(model), root_path='/skies').get('/').text


@pytest.fixture
def stand_in(tmp_path):
    "A folder that stands in for onnxruntime-web."
    return stand_in_ort(tmp_path / 'ort')


def test_the_page_is_made_for_the_model_that_answers(model, stand_in, tmp_path):
    (tmp_path / 'temporary').mkdir()
    options, env = ['--model', model, '--port', 0, '--ort', stand_in], dict(TMPDIR=str(tmp_path / 'temporary'))
    with served(tmp_path, *options, env=env) as running:
        assert 'Which cloud is this?' in httpx.get(running.address).text
        network = httpx.get(f'{running.address}model.json').json()['model']['file']
        assert httpx.get(running.address + network).content == model.read_bytes()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    assert not [*(tmp_path / 'temporary').iterdir()], 'the page goes with the service'


def text_with(address: str, words: str) -> str:
    "The page at an address once it has some words."
    for _ in range(150):
        text = httpx.get(address, timeout=60).text
        if words in text:
            return text
        time.sleep(0.2)
    raise AssertionError(f'{words!r} is not in {text}')


def test_a_service_without_npm_says_so_in_a_line_and_answers(model, tmp_path):
    env = dict(PATH=str(tmp_path), CLOUD_CACHE=str(tmp_path / 'cache'))
    with served(tmp_path, '--model', model, '--port', 0, env=env) as running:
        assert '--ort' in text_with(running.address, 'npm is not installed')
        assert post(running.address, [photo()]).status_code == 200
    assert running.log.count('npm') == running.log.count('/ shows a plain page: the page needs') * 2 == 2


def test_a_service_answers_while_npm_fetches(model, tmp_path):
    npm = tmp_path / 'bin' / 'npm'
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\nwhile ! [ -e {tmp_path}/go ]; do sleep .1; done; echo "no network" >&2; exit 1\n')
    npm.chmod(0o755)
    env = dict(PATH=f'{npm.parent}:{os.environ["PATH"]}', CLOUD_CACHE=str(tmp_path / 'cache'))
    with served(tmp_path, '--model', model, '--port', 0, env=env) as running:
        assert 'it is being made' in httpx.get(running.address).text
        assert post(running.address, [photo()]).status_code == 200
        (tmp_path / 'go').touch()
        text_with(running.address, 'no network')


def test_a_page_that_cant_be_is_refused_at_the_start(command, model, tmp_path):
    for options, words in [
        (['--ort', tmp_path], ORT_FILES[0]),
        (['--site', tmp_path], 'index.html'),
        (['--site', tmp_path, '--no-site'], 'take one of them'),
    ]:
        status, out, err = command('serve', '--model', model, '--port', 0, *options)
        assert (status, out) == (2, '')
        assert words in err
        assert err.count('\n') == 1


def test_a_port_that_is_taken_is_said_in_a_line(command, model):
    with closing(bind_port()) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        status, out, err = command('serve', '--model', model, '--port', port)
    assert (status, out) == (2, '')
    assert err == f'cloud-classifier: port {port} of 127.0.0.1 can’t be had (Address already in use); ' \
                  'choose another one with --port\n'  # fmt: skip


@pytest.mark.parametrize('host', ['no such host', '192.0.2.1', 'a' * 300, ''])
def test_an_address_of_another_machine_cant_be_had(host):
    with pytest.raises(PortTaken):
        bind_port(host or '\0')


@pytest.mark.parametrize(
    'url',
    [
        'http://127.0.0.1/a.jpg', 'http://localhost/a.jpg', 'http://[::1]/', 'http://10.0.0.1/', 'http://192.168.1.1/',
        'http://169.254.169.254/latest/', 'http://[::ffff:127.0.0.1]/', 'http://0.0.0.0/', 'http://2130706433/',
        'http://100.64.0.1/', 'http://224.0.0.1/', 'http://user@127.0.0.1/', 'ftp://127.0.0.1/', 'file:///etc/passwd',
        'http:///a.jpg', 'http://127.0.0.1:99999/', '//127.0.0.1/', '', 'http://[::1',
    ],
)  # fmt: skip
def test_private_addresses_are_not_fetched(url):
    with pytest.raises(BadImage):
        fetch_photo(url, 10**6, 5)


def test_what_an_address_answers_has_limits(monkeypatch):
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if self.path == '/moved' else 200)
            self.send_header('Location', '/sky.jpg')
            self.end_headers()
            content = {'/sky.jpg': photo(), '/large': bytes(10**6), '/moved': b''}.get(self.path)
            for byte in [content] if content is not None else [b'1'] * 50:
                self.wfile.write(byte)
                self.wfile.flush()
                time.sleep(0.1 if content is None else 0)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.handle_error = lambda *args: None  # clients that leave are what is tested
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f'http://127.0.0.1:{server.server_port}'
        monkeypatch.setattr(fetch_room, 'public_address', lambda host, port: '127.0.0.1')
        assert fetch_photo(f'{at}/sky.jpg', 10**5, 5) == photo()
        for path, reason in [('large', 'more than'), ('moved', 'status 302'), ('slow', 'took more than 1 seconds')]:
            with pytest.raises(BadImage, match=reason):
                fetch_photo(f'{at}/{path}', 10**5, 1)
        server.shutdown()


def test_addresses_are_fetched_where_that_is_allowed(model, monkeypatch):
    monkeypatch.setattr(serve_module, 'fetch_photo', lambda url, max_bytes, seconds: photo())
    client = TestClient(api(model, allow_urls=True))
    answer = client.post('/predict', data={'urls': ['https://a/1.jpg', 'https://a/2.jpg']}, files={'files': photo()})
    assert [o['name'] for o in answer.json()] == ['upload', 'https://a/1.jpg', 'https://a/2.jpg']
    monkeypatch.undo()
    assert client.post('/predict', data={'urls': 'http://127.0.0.1/'}, files={'x': b''}).status_code == 422


def test_an_address_that_never_answers_is_given_up(model, monkeypatch):
    monkeypatch.setattr(serve_module, 'fetch_photo', lambda *args: time.sleep(1))
    client = TestClient(api(model, limits=Limits(upload_seconds=0.2), allow_urls=True))
    answer = client.post('/predict', data={'urls': 'https://a/1.jpg'}, files={'x': b''})
    assert (answer.status_code, answer.json()['detail']) == (422, 'took too long to arrive')


def test_every_public_address_of_a_name_is_checked(monkeypatch):
    answers = [(0, 0, 0, '', ('93.184.215.14', 80)), (0, 0, 0, '', ('127.0.0.1', 80))]
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *args, **kwargs: answers)
    with pytest.raises(AddressError, match='not public'):
        public_address('two.example', 80)
    answers.pop()
    assert public_address('one.example', 80) == '93.184.215.14'


def test_the_service_needs_neither_torch_nor_fastai_nor_pandas(model):
    heavy = "{'torch', 'fastai', 'fastcore', 'pandas', 'matplotlib'} & set(sys.modules)"
    code = f'import sys; from cloud_classifier.prediction.serve import api; api({str(model)!r}); ' \
           f'sys.exit(str({heavy}) if {heavy} else 0)'  # fmt: skip
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def with_this_python(line: str) -> str:
    "A shell line that finds `cloud-classifier` in this environment."
    return line.replace('cloud-classifier', shlex.join(COMMAND), 1)


def test_the_procfile_starts_a_service(model, tmp_path):
    kind, _, line = (ROOT / 'Procfile').read_text().strip().partition(': ')
    assert kind == 'web'
    with closing(bind_port()) as free:
        port = free.getsockname()[1]
    env = dict(PORT=str(port), CLOUD_MODEL=str(model))
    with served(tmp_path, command=['sh', '-c', f'exec {with_this_python(line)}'], env=env) as running:
        assert post(f'http://127.0.0.1:{port}/', [photo()]).status_code == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    "The instructions of a Dockerfile, in order."
    lines = re.sub(r'\\\n', ' ', dockerfile).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line and not line.startswith('#')]


def test_the_dockerfile_copies_what_is_there_and_runs_without_rights(model, tmp_path):
    steps = instructions((ROOT / 'Dockerfile').read_text())
    ignored = (ROOT / '.dockerignore').read_text().split()
    for kind, text in steps:
        if kind == 'COPY' and '--from' not in text:
            for source in text.split()[:-1]:
                assert (ROOT / source).exists()
                assert any(o.startswith(f'!{source}') for o in ignored), source
    kinds = [kind for kind, _ in steps]
    assert kinds.index('USER') < kinds.index('CMD')
    assert all('slim' in text for kind, text in steps if kind == 'FROM')
    (cache,) = {path for _, text in steps for path in re.findall(r'CLOUD_CACHE=(\S+)', text)}
    assert ('COPY', f'--from=build {cache} {cache}') in steps
    command = json.loads(dict(steps)['CMD'])
    check = json.loads(dict(steps)['HEALTHCHECK'].partition('CMD ')[2])
    with closing(bind_port()) as free:
        env = dict(PORT=str(free.getsockname()[1]), CLOUD_MODEL=str(model))
    command[-1] = with_this_python(command[-1])
    check[0] = sys.executable
    with served(tmp_path, command=command, env=env) as running:
        assert subprocess.run(check, env=env, check=False).returncode == 0
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
    assert subprocess.run(check, env=env, check=False, stderr=subprocess.DEVNULL).returncode != 0


def build(steps, top, python) -> tuple[dict, list[str]]:
    "Do what a Dockerfile says below `top`, without Docker; the environment and the command of what was built."
    ignored = re.findall(r'!(\S+)', (ROOT / '.dockerignore').read_text())
    inside, env = lambda text: text.replace('/opt/', f'{top}/opt/'), {}
    for kind, text in steps:
        if kind == 'COPY' and '--from' not in text:
            *sources, _ = text.split()
            for name in [o for o in ignored if o.split('/')[0] in sources]:
                place = top / 'src' / name
                place.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, place)
        elif kind == 'RUN' and not text.startswith(('useradd', 'apt-get')):
            line = inside(text).replace('python -m venv', f'{python} -m venv', 1)
            subprocess.run(['sh', '-c', line], cwd=top / 'src', check=True)
        elif kind == 'ENV':
            env |= dict(o.split('=', 1) for o in inside(text).split())
    return env, json.loads(dict(steps)['CMD'])


@pytest.fixture
def python():
    "A Python that every user of this machine may run, and that can make environments."
    check = 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))'
    for place in (sys.executable, '/usr/bin/python3', '/usr/local/bin/python3'):
        open_to_all = all(os.stat(p).st_mode & 1 for p in Path(os.path.realpath(place)).parents)
        if open_to_all and subprocess.run([place, '-c', check], check=False, capture_output=True).returncode == 0:
            return place
    pytest.skip('no Python here is open to all users and has ensurepip')


@pytest.mark.soak
@pytest.mark.skipif(shutil.which('npm') is None, reason='needs npm on the PATH')
@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='becomes another user')
def test_what_the_dockerfile_builds_answers_to_a_user_without_rights(python, open_folder, tmp_path):
    env, command = build(instructions((ROOT / 'Dockerfile').read_text()), open_folder, python)
    path = env['PATH'].replace('$PATH', os.environ['PATH'])
    with closing(bind_port()) as free:
        port = free.getsockname()[1]
    switch = [python, '-c', 'import os, sys; os.setgid(65534); os.setuid(65534); os.chdir("/"); '
              'os.execvp(sys.argv[1], sys.argv[1:])']  # fmt: skip
    more = env | dict(PATH=path, PORT=str(port), HOME='/nonexistent')
    with served(tmp_path, command=[*switch, *command], env=more) as running:
        (answer,) = post(f'http://127.0.0.1:{port}/', [photo(size=(400, 300))]).json()
        assert answer['label']
        assert httpx.get(f'http://127.0.0.1:{port}/health').json()['status'] == 'ok'
        assert 'Which cloud is this?' in httpx.get(f'http://127.0.0.1:{port}/').text
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0


@pytest.mark.soak
@pytest.mark.skipif(shutil.which('wrk') is None, reason='needs wrk on the PATH')
def test_ten_minutes_at_saturation_lose_no_request_and_no_memory(ccsn, tmp_path):
    bench = [sys.executable, ROOT / 'benchmarks' / 'bench_serve.py', ccsn, '--seconds', '600']
    assert subprocess.run([*bench, '--out', tmp_path / 'serve.csv'], check=False).returncode == 0


def test_a_rendered_sky_is_answered_by_the_model_that_ships(tmp_path):
    file = io.BytesIO()
    render_sky('Cumulonimbus', size=400, seed=1).save(file, 'JPEG')
    with served(tmp_path, '--port', 0, '--quiet') as running:
        (answer,) = post(running.address, [file.getvalue()]).json()
        facts = httpx.get(f'{running.address}model').json()
    assert answer['label'] in facts['classes']
    assert len(facts['sha256']) == 64
    assert running.log == ''
