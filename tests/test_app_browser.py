"The app as people meet it: `cloud-classifier app` serves it, and a browser chooses photos in it."

import io
import signal
from pathlib import Path

import numpy as np
import pytest
from chromium import needs_chromium
from PIL import Image, ImageColor
from playwright.sync_api import Page, expect
from reading import wait_for
from service import COMMAND, served, write_model

from cloud_classifier.hosting import bind_port

pytestmark = needs_chromium


def draw(colour: str, size: tuple[int, int] = (400, 300)) -> bytes:
    "A JPEG in one colour, with the noise of a sensor, so that it is as large as a photo."
    noise = np.random.default_rng(0).integers(-60, 60, (size[1], size[0], 3))
    out = io.BytesIO()
    Image.fromarray((noise + ImageColor.getrgb(colour)).clip(0, 255).astype(np.uint8)).save(out, 'JPEG', quality=95)
    return out.getvalue()


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('model') / 'clouds.onnx')


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    "The folder into which corrected photos go."
    return tmp_path_factory.mktemp('kept') / 'skies'


@pytest.fixture(scope='module')
def app(model, kept, tmp_path_factory):
    "The app, as `cloud-classifier app` serves it."
    options = ['--model', model, '--keep', kept, '--port', 0]
    with served(tmp_path_factory.mktemp('app'), *options, command=(*COMMAND, 'app')) as running:
        yield running


@pytest.fixture
def page(browser):
    "A page from which nothing but this machine can be reached, or is even asked for anything."
    context = browser.new_context(viewport={'width': 1100, 'height': 1000})
    context.set_default_timeout(30_000)
    page = context.new_page()
    others, local = [], ('http://127.0.0.1:', 'ws://127.0.0.1:', 'data:', 'blob:')
    page.on('request', lambda request: request.url.startswith(local) or others.append(request.url))
    page.route('**', lambda route: route.continue_() if '//127.0.0.1' in route.request.url else route.abort())
    yield page
    context.close()
    assert others == []


def choose(page: Page, files: dict[str, bytes]):
    "Press the button and choose files."
    with page.expect_file_chooser() as chooser:
        page.get_by_role('button', name='Select photos').click()
    chooser.value.set_files([{'name': k, 'mimeType': 'image/jpeg', 'buffer': v} for k, v in files.items()])


def opened(page: Page, address: str) -> Page:
    page.goto(address, wait_until='commit')
    expect(page.get_by_text('Which cloud is this?')).to_be_visible(timeout=60_000)
    return page


def test_photos_become_cards_and_a_bad_file_one_line(app, page, tmp_path):
    opened(page, app.address)
    large = draw('steelblue', (4000, 3000))
    assert len(large) > 10 * 2**20
    choose(page, {'blue.jpg': large, '<b>notes</b>.jpg': b'seen from the roof', 'red.jpg': draw('firebrick')})
    answers = page.locator('.answer')
    expect(answers).to_have_count(2, timeout=60_000)
    labels = ['data-label', 'data-name', 'data-verdict']
    assert [[o.get_attribute(k) for k in labels] for o in answers.all()] == [
        ['Cirrus', 'blue.jpg', 'unsure'],
        ['Contrail', 'red.jpg', 'unsure'],
    ]
    blue, red = answers.all()
    expect(blue).to_contain_text('Unsure: perhaps Cirrus')
    expect(blue).to_contain_text('Cloud base6000–12000 m')
    expect(blue).to_contain_text('If it is Cirrus: Fair now')
    expect(red).not_to_contain_text('Cloud base')
    assert [o.split('\n')[0] for o in blue.get_by_role('listitem').all_inner_texts()] == [
        'Cirrus',
        'Stratus',
        'Contrail',
    ]
    blue.get_by_text('Look-alikes').click()
    expect(blue.get_by_text('cirrus leaves gaps of blue')).to_be_visible()
    expect(page.get_by_role('alert')).to_have_text('<b>notes</b>.jpg: is not a photo in a known format')
    picture = page.locator('.cloud-app img').first
    expect(picture).to_be_visible()
    assert picture.evaluate('o => [o.naturalWidth, o.naturalHeight]') == [640, 480]
    assert 'Traceback' not in page.content()
    page.screenshot(path=tmp_path / 'desk.png', full_page=True)

    page.set_viewport_size({'width': 390, 'height': 844})
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    page.screenshot(path=tmp_path / 'phone.png', full_page=True)
    choose(page, {'blue.jpg': draw('steelblue')})
    expect(answers).to_have_count(1)
    expect(answers).to_have_attribute('data-label', 'Cirrus')


def test_a_visitor_who_knows_better_keeps_the_photo(app, page, kept):
    opened(page, app.address)
    photo = draw('steelblue')
    choose(page, {'sky.jpg': photo})
    button = page.get_by_role('button', name='Keep the photo')
    expect(button).to_be_disabled(timeout=60_000)
    page.locator('.cloud-wrong select').select_option('Altocumulus')
    button.click()
    expect(page.get_by_text('Kept as Altocumulus')).to_be_visible(timeout=60_000)
    assert [p.read_bytes() for p in kept.glob('Altocumulus/*.jpg')] == [photo]


def alive(marker: str) -> list[str]:
    "Processes whose environment or command names `marker`."
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            about = (process / 'cmdline').read_bytes() + (process / 'environ').read_bytes()
            state = (process / 'stat').read_text().rpartition(') ')[2][0]
        except OSError:
            continue
        if marker.encode() in about and state != 'Z':
            found.append(process.name)
    return found


@pytest.mark.skipif(not Path('/proc/self/environ').exists(), reason='looks at processes in /proc')
@pytest.mark.parametrize(
    'how',
    [
        pytest.param(signal.SIGINT, id='Ctrl-C'),
        pytest.param(signal.SIGTERM, id='TERM', marks=pytest.mark.soak),
        pytest.param(signal.SIGKILL, id='kill -9', marks=pytest.mark.soak),
    ],
)
def test_the_end_leaves_nothing_behind(how, model, page, tmp_path):
    env = {'CLOUD_TEST_MARKER': str(tmp_path), 'TMPDIR': str(tmp_path)}
    with served(tmp_path, '--model', model, '--port', 0, command=(*COMMAND, 'app'), env=env) as running:
        opened(page, running.address)
        assert page.title() == 'Which cloud is this'
        assert len(alive(str(tmp_path))) >= 3  # the command, Voilà and a visitor's Python
        running.process.send_signal(how)
        status = running.process.wait(30)
        wait_for(lambda: not alive(str(tmp_path)))
        assert status == (-9 if how == signal.SIGKILL else 0)
        about_this_folder = 'over TCP'  # its name is too long for sockets that are files
        assert [line for line in running.log.splitlines() if about_this_folder not in line] == []
    assert [o.name for o in tmp_path.iterdir()] == ['serve.log']


def test_a_port_that_is_taken_is_said_in_a_line(command, model):
    with bind_port() as taken:
        taken.listen()
        status, out, err = command('app', '--model', model, '--port', taken.getsockname()[1])
    assert (status, out) == (2, '')
    assert err.count('\n') == 1
    assert 'choose another one with --port' in err


def memory_of(marker: str) -> dict[str, float]:
    "Megabytes that each process has for itself, shared pages divided among those that share them."
    found = {}
    for process in alive(marker):
        text = Path('/proc', process, 'smaps_rollup').read_text()
        found[process] = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith('Pss:')) / 1e3
    return found


@pytest.mark.soak
def test_ten_people_at_once_see_their_own_photos_alone(browser, tmp_path, record_property):
    "With the model that ships: ten visitors, each with two photos of their own; and what a session takes."
    env = {'CLOUD_TEST_MARKER': str(tmp_path)}
    with served(tmp_path, '--port', 0, command=(*COMMAND, 'app'), env=env) as running:
        before = sum(memory_of(str(tmp_path)).values())
        contexts = [browser.new_context() for _ in range(10)]
        pages = [o.new_page() for o in contexts]
        for visitor in pages:
            visitor.goto(running.address, wait_until='commit')
        for visitor in pages:
            expect(visitor.get_by_text('Which cloud is this?')).to_be_visible(timeout=300_000)
        colours = [f'hsl({36 * i}, 70%, 50%)' for i in range(10)]
        for i, visitor in enumerate(pages):
            choose(visitor, {f'person {i} photo {j}.jpg': draw(colours[i], (1200 + i, 900)) for j in range(2)})
        for i, visitor in enumerate(pages):
            expect(visitor.locator('.answer')).to_have_count(2, timeout=300_000)
            names = [o.get_attribute('data-name') for o in visitor.locator('.answer').all()]
            assert names == [f'person {i} photo {j}.jpg' for j in range(2)]
            content = visitor.content()
            assert not [k for k in range(10) if k != i and f'person {k}' in content]
        session = (sum(memory_of(str(tmp_path)).values()) - before) / 10
        print(f'memory of a session: {session:.0f} MB')
        record_property('megabytes of a session', round(session))
        assert session < 400
        for context in contexts:
            context.close()
