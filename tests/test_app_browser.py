"The app as people meet it: Voilà serves nbs/app/clouds.ipynb, and a browser chooses photos in it."

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageColor
from playwright.sync_api import Page, expect, sync_playwright

from cloud_classifier.images import Preprocess
from cloud_classifier.prediction.infer import FORMAT, seal

LARGE_MESSAGES = (
    "--Voila.tornado_settings={'websocket_max_message_size': 100_000_000}"  # else a photo over 10 MB is lost
)
NOTEBOOK = Path(__file__).parents[1] / 'nbs' / 'app' / 'clouds.ipynb'
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='needs chromium on the PATH')


def write_model(file: Path) -> Path:
    "A model that tells skies by their mean colour: blue is Cirrus, red Contrail."
    size = 32
    weights = np.array([[-3, 1, 3], [0, 0, -3], [3, -1, -3]], np.float32)  # red, green, blue
    graph = helper.make_graph(
        [
            helper.make_node('ReduceMean', ['pixels', 'axes'], ['colour'], keepdims=0),
            helper.make_node('MatMul', ['colour', 'weights'], ['logits']),
        ],
        'by_colour',
        [helper.make_tensor_value_info('pixels', TensorProto.FLOAT, ['n', 3, size, size])],
        [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['n', 3])],
        [numpy_helper.from_array(weights, 'weights'), numpy_helper.from_array(np.array([2, 3]), 'axes')],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    facts = {
        'format': FORMAT,
        'classes': '["Cirrus", "Stratus", "Contrail"]',
        'preprocess': Preprocess(size).to_json(),
        'temperature': '1.0',
        'card': '{}',
    }
    helper.set_model_props(model, facts)
    file.write_bytes(seal(model.SerializeToString()))
    return file


def draw(colour: str, size: tuple[int, int] = (400, 300)) -> bytes:
    "A JPEG in one colour, with the noise of a sensor, so that it is as large as a photo."
    noise = np.random.default_rng(0).integers(-60, 60, (size[1], size[0], 3))
    out = io.BytesIO()
    Image.fromarray((noise + ImageColor.getrgb(colour)).clip(0, 255).astype(np.uint8)).save(out, 'JPEG', quality=95)
    return out.getvalue()


@pytest.fixture(scope='module')
def serve(tmp_path_factory):
    "Start Voilà over a model; the page's address. What was started is stopped at the end."
    started = []

    def start(model: str) -> str:
        home = tmp_path_factory.mktemp('voila')
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            port = s.getsockname()[1]
        own = {name: str(home / name) for name in ('JUPYTER_CONFIG_DIR', 'JUPYTER_RUNTIME_DIR', 'IPYTHONDIR')}
        command = [sys.executable, '-m', 'voila', str(NOTEBOOK), '--no-browser', f'--port={port}', LARGE_MESSAGES]
        with open(home / 'log', 'w') as log:
            server = subprocess.Popen(
                command, env=os.environ | own | {'CLOUD_MODEL': model}, cwd=home, stdout=log, stderr=log
            )
        started.append(server)
        for _ in range(300):
            assert server.poll() is None, (home / 'log').read_text()
            with socket.socket() as s:
                if s.connect_ex(('127.0.0.1', port)) == 0:
                    return f'http://127.0.0.1:{port}/'
            time.sleep(0.1)
        raise AssertionError('Voilà did not listen within 30 s: ' + (home / 'log').read_text())

    yield start
    for server in started:
        server.terminate()
        server.wait(15)


@pytest.fixture(scope='module')
def browser():
    quiet = [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
    ]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    "A page from which nothing but this machine can be reached."
    context = browser.new_context(viewport={'width': 1100, 'height': 1000})
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.route('**', lambda route: route.continue_() if '//127.0.0.1' in route.request.url else route.abort())
    yield page
    context.close()


def choose(page: Page, name: str, content: bytes):
    "Press the button and choose a file."
    with page.expect_file_chooser() as chooser:
        page.get_by_role('button', name='Select a photo').click()
    chooser.value.set_files({'name': name, 'mimeType': 'image/jpeg', 'buffer': content})


def test_a_photo_is_named_and_a_bad_file_is_one_line(serve, page, tmp_path):
    page.goto(serve(str(write_model(tmp_path / 'clouds.onnx'))), wait_until='commit')
    expect(page.get_by_text('Which cloud is this?')).to_be_visible(timeout=30_000)

    large = draw('steelblue', (4000, 3000))
    assert len(large) > 10 * 2**20
    choose(page, 'blue.jpg', large)
    answer = page.get_by_role('status')
    expect(answer).to_contain_text('PredictionCirrus')
    expect(answer).to_contain_text('Cloud base6000–12000 m')
    expect(answer).to_contain_text('Precipitationnone')
    expect(answer).to_contain_text('Fair now')
    assert [o.split('\n')[0] for o in answer.get_by_role('listitem').all_inner_texts()] == [
        'Cirrus',
        'Stratus',
        'Contrail',
    ]
    picture = page.locator('.cloud-app img')
    expect(picture).to_be_visible()
    assert picture.evaluate('o => [o.naturalWidth, o.naturalHeight]') == [640, 480]
    page.screenshot(path=tmp_path / 'desk.png', full_page=True)

    choose(page, 'red.jpg', draw('firebrick'))
    expect(answer).to_contain_text('PredictionContrail')
    expect(answer).not_to_contain_text('Cloud base')
    expect(page.get_by_text('Fair now')).to_have_count(0)

    choose(page, '<b>notes</b>.jpg', b'seen from the roof')
    expect(page.get_by_role('alert')).to_have_text('<b>notes</b>.jpg: is not a photo in a known format')
    expect(answer).to_have_count(0)
    expect(picture).to_be_hidden()
    assert 'Traceback' not in page.content()

    page.set_viewport_size({'width': 390, 'height': 844})
    choose(page, 'blue.jpg', draw('steelblue'))
    expect(answer).to_contain_text('PredictionCirrus')
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    page.screenshot(path=tmp_path / 'phone.png', full_page=True)
