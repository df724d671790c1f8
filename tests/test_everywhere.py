"One folder of photos of all kinds, asked from Python, the command line, over HTTP and in the app: the same answers."

import json
import subprocess

import httpx
import pytest
from chromium import chromium, needs_chromium
from service import COMMAND, served
from test_site_browser import odd_photos

from cloud_classifier.images import BadImage
from cloud_classifier.prediction.infer import CloudClassifier, shipped_model

REAL = 110  # photos beside the odd ones
AT_ONCE = 20
pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')]


@pytest.fixture(scope='module')
def photos(tmp_path_factory, ccsn):
    "Odd photos and real ones; the page in a browser is shown the same in test_site_browser."
    folder = tmp_path_factory.mktemp('photos') / 'odd'
    odd_photos(folder, many=True)
    real = sorted(ccsn.rglob('*.jpg'))
    return [*sorted(folder.iterdir()), *real[:: len(real) // REAL][:REAL]]


@pytest.fixture(scope='module')
def expected(photos):
    "What Python answers: a dictionary of JSON's types for each photo."
    answers = CloudClassifier(shipped_model()).predict_many(list(map(str, photos)), batch_size=1)
    return [dict(error=o.reason) if isinstance(o, BadImage) else o.as_dict() for o in answers]


def parts(photos):
    return [photos[i : i + AT_ONCE] for i in range(0, len(photos), AT_ONCE)]


def test_the_command_line(photos, expected):
    command = [*COMMAND, 'predict', '--json', '--model', shipped_model(), *photos]
    done = subprocess.run(command, capture_output=True, text=True, encoding='utf-8', check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [o.pop('path') for o in answers] == list(map(str, photos))
    assert answers == expected


def test_http(photos, expected, tmp_path):
    with served(tmp_path, '--port', 0, '--model', shipped_model(), '--answer-seconds', 600) as running:
        answers = []
        for part in parts(photos):
            files = [('files', (o.name, o.read_bytes())) for o in part]
            answers += httpx.post(f'{running.address}predict', files=files, timeout=600).json()
    assert [o.pop('name') for o in answers] == [o.name for o in photos]
    assert answers == expected


@needs_chromium
def test_the_app(photos, expected, tmp_path):
    seen = []
    options = ['--port', 0, '--model', shipped_model()]
    with served(tmp_path, *options, command=(*COMMAND, 'app')) as running, chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(600_000)
        page.goto(running.address, wait_until='commit')
        for part in parts(photos):
            with page.expect_file_chooser() as chooser:
                page.get_by_role('button', name='Select photos').click()
            chooser.value.set_files([str(o) for o in part])
            page.wait_for_function(
                '''([n, last]) => { const cards = [...document.querySelectorAll('.cloud-card')];
                return cards.length == n && cards.at(-1).textContent.includes(last)
                    || cards.at(-1)?.querySelector('.answer')?.dataset.name == last }''',
                arg=[len(part), part[-1].name],
            )
            for card in page.locator('.cloud-card').all():
                answer = card.locator('.answer')
                seen.append(answer.evaluate('o => ({...o.dataset})') if answer.count() else card.inner_text().strip())
    for photo, answer, now in zip(photos, expected, seen, strict=True):
        if 'error' in answer:
            assert now == f'{photo.name}: {answer["error"]}'
        else:
            assert (now['name'], now['label'], now['verdict']) == (photo.name, answer['label'], answer['verdict'])
            assert float(now['probability']) == pytest.approx(answer['probability'], abs=1e-4)
