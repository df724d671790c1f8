"What the tests share: rendered skies, a small trained run, and the real photos where they are at hand."

import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from chromium import CHROMIUM, chromium
from examples import MOST
from fork_server import Forked, ForkServer, Zygote
from hypothesis import settings

from cloud_classifier import samples
from cloud_classifier.samples import make_samples

# What a shell tells Python about its streams and paths is not what others have; a Makefile takes it out as well.
for name in [o for o in os.environ if o.startswith('PYTHON')]:
    del os.environ[name]

ROOT = Path(__file__).parents[1]
PLACES = [os.environ.get('CLOUD_DATA', ''), ROOT / 'data' / 'ccsn', ROOT.parent / 'shared' / 'data' / 'ccsn']


# Every change is judged by the same examples; `--hypothesis-profile default` (as in `make soak`) draws others.
settings.register_profile('same', derandomize=True, max_examples=MOST)
settings.load_profile('same')

# Each OOD score asks for the same pictures that are no skies, which take seconds to draw: they are drawn once.
for drawn in ('draw_ood_samples', 'plain_skies', '_installed_pictures'):
    setattr(samples, drawn, cache(getattr(samples, drawn)))

# Two workers end at the same time when what takes long doesn't come last.
LONG = """
    site_browser cleaner_browser train train_processes app_browser package export evaluate hostile_images folds
    tutorials demo scale batch watch cli_streams cli_verbs duplicates moves ood serve cli clean interrupted
    quantize download resume round
""".split()


def pytest_collection_modifyitems(items):
    places = {f'test_{name}': i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


# A shell has what it puts into the background ignore Ctrl-C, and children inherit that: some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def ccsn():
    "The folder of the CCSN database."
    for place in PLACES:
        if place and Path(place).is_dir():
            return Path(place)
    pytest.skip('the CCSN photos are not here: set CLOUD_DATA to their folder, or fetch them into data/ccsn')


@pytest.fixture(scope='session')
def zygote():
    "The process from which others are forked, when it has imported all that is slow to import."
    Forked.zygote = Zygote()
    assert Forked([sys.executable, '-c', '']).wait(120) == 0
    yield
    Forked.zygote.close()


@pytest.fixture(scope='module')
def server(zygote, tmp_path_factory):
    "Where processes begin with all that is slow to import."
    server = ForkServer(tmp_path_factory.mktemp('children'))
    yield server
    server.close()


@pytest.fixture
def forked(zygote, monkeypatch):
    "`subprocess` forks commands in Python: for tests of what a command does, but not of how it begins."
    monkeypatch.setattr(subprocess, 'Popen', Forked)


@pytest.fixture
def no_heic(monkeypatch):
    "An installation without pillow-heif."
    monkeypatch.setattr('cloud_classifier.images.can_open_heic', lambda: False)


@pytest.fixture(scope='session')
def skies(tmp_path_factory):
    "Rendered skies of three genera. Shared by all tests: look, but don't touch."
    root = tmp_path_factory.mktemp('data') / 'skies'
    make_samples(root, per_genus=14, size=96, genera=['Cirrus', 'Stratus', 'Cumulus'])
    return root


@pytest.fixture(scope='session')
def run(skies, tmp_path_factory):
    "A finished run of a small network, from random weights, on squares of 64 pixels."
    from cloud_classifier.training.run import train

    out = tmp_path_factory.mktemp('runs') / 'run'
    small = {'arch': 'timm/test_resnet', 'size': 64, 'epochs': 2, 'lr': 0.02, 'weights': 'none', 'bs': 8}
    return train(skies, **small, precision='fp32', out=out, progress=False)


@pytest.fixture(scope='session')
def large_run(skies, tmp_path_factory):
    "The same of resnet18, for `make soak`."
    from cloud_classifier.training.run import train

    out = tmp_path_factory.mktemp('runs') / 'large'
    return train(skies, arch='resnet18', size=64, epochs=2, weights='none', bs=8, out=out, progress=False)


@pytest.fixture(scope='session')
def model(run):
    "The file that is exported from `run`."
    from cloud_classifier.prediction.export import export_model

    return export_model(run.learner(), run.path / 'clouds.onnx', card={'trained_on': 'rendered skies'})


@pytest.fixture(scope='session')
def model_of_run(run, tmp_path_factory):
    "The file that is exported from `run` with its rules."
    from cloud_classifier.prediction.export import export_run

    return export_run(run, tmp_path_factory.mktemp('file') / 'clouds.onnx')[0]


@pytest.fixture(scope='module')
def browser():
    "Headless Chromium. Other event loops can run when it is closed, so no other file of tests gets it."
    if CHROMIUM is None:
        pytest.skip('needs chromium on the PATH')
    with chromium() as browser:
        yield browser


@pytest.fixture(scope='module')
def traced_once():
    "Have torch trace each network once, however often it is exported; the function that traces for real."
    import onnx
    import torch

    from cloud_classifier.prediction import export

    real, graphs = export._to_onnx, {}

    def to_onnx(model, *args):
        weights = hashlib.sha256(b''.join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest()
        key = f'{type(model)} {[*model.state_dict()]} {weights} {args} {torch.is_autocast_enabled("cpu")}'
        if key not in graphs:
            graphs[key] = real(model, *args).SerializeToString()
        return onnx.load_from_string(graphs[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, '_to_onnx', to_onnx)
        yield real


@pytest.fixture(scope='session')
def tiny_state():
    "Random weights of timm's test_resnet, in the place of those that timm publishes."
    import timm
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model('test_resnet').state_dict()


@pytest.fixture
def hub(tiny_state, tmp_path, monkeypatch):
    "A server that speaks as the Hugging Face hub does, and an empty cache; `hub['status']` changes its answer."
    from safetensors.torch import save

    body, hub = save(tiny_state), {'status': 200, 'asked': []}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_HEAD(self, send=False):
            hub['asked'].append(self.path)
            status = hub['status'] if self.path.endswith('/model.safetensors') else 404
            answer = body if status == 200 else b''
            self.send_response(status)
            self.send_header('Content-Length', str(len(answer)))
            self.send_header('ETag', f'"{hashlib.sha256(answer).hexdigest()}"')
            self.send_header('X-Repo-Commit', '0' * 40)
            if status == 404:
                self.send_header('X-Error-Code', 'EntryNotFound')
            self.end_headers()
            if send:
                self.wfile.write(answer)

        def do_GET(self):
            self.do_HEAD(send=True)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        server.daemon_threads = True
        hub['url'] = f'http://127.0.0.1:{server.server_port}'
        address = hub['url'] + '/{repo_id}/resolve/{revision}/{filename}'
        monkeypatch.setattr('huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE', address)
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DISABLE_XET', True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


@contextmanager
def mounted(folder, *options):
    "Mount something on a folder, if this machine lets us."
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(['mount', *options, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f'nothing can be mounted here: {done.stderr.strip()}')
    try:
        yield folder
    finally:
        subprocess.run(['umount', '--lazy', folder], check=True)


@pytest.fixture
def small_disk(tmp_path):
    "A file system of one megabyte, empty. Root may mount one; elsewhere the test is skipped."
    with mounted(tmp_path / 'small disk', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs') as folder:
        yield folder


@pytest.fixture
def read_only(tmp_path):
    "A function that mounts a folder a second time, read-only, and returns where; skipped where that can't be."
    mounts = []

    def mount(folder):
        place = mounted(tmp_path / f'read-only {len(mounts)}', '--bind', '-o', 'ro', folder)
        mounts.append(place)
        return place.__enter__()

    yield mount
    for place in mounts:
        place.__exit__(None, None, None)


@contextmanager
def ordinary_user():
    "Be a user who owns nothing, where the tests are run by root; modules must have been imported before."
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_folder():
    "A folder that any user may look into."
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def command(monkeypatch, capsys):
    "Call `cloud-classifier` as a shell would: arguments in; exit status, output and errors out."
    from cloud_classifier.cli import main

    def call(*args):
        monkeypatch.setattr('sys.argv', ['cloud-classifier', *map(str, args)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return call
