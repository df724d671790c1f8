"The page as people meet it, in headless Chromium: the answers of Python, without a connection, and to no other host."

import base64
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from chromium import needs_chromium
from PIL import Image
from playwright.sync_api import expect
from service import served, write_model
from static_site import Host

from cloud_classifier.errors import OperationFailed
from cloud_classifier.images import BadImage
from cloud_classifier.prediction.infer import CloudClassifier, seal, shipped_model
from cloud_classifier.prediction.site import ORT_FILES, NoRuntime, build_site, cached_ort
from cloud_classifier.samples import ood_samples, render_sky

pytestmark = needs_chromium
SIZES = {'phone': {'width': 390, 'height': 844}, 'desk': {'width': 1280, 'height': 800}}


@pytest.fixture(scope='session')
def ort(tmp_path_factory):
    "ONNX Runtime for browsers, as npm brings it."
    folder = tmp_path_factory.mktemp('ort')
    try:
        files = cached_ort()
    except (NoRuntime, OperationFailed) as error:
        pytest.skip(f'needs onnxruntime-web: {error}')
    for name in ORT_FILES:
        (folder / name).write_bytes(files[name])
    return folder


@pytest.fixture(scope='module')
def clouds():
    return CloudClassifier(shipped_model())


@pytest.fixture(scope='module')
def host(ort, tmp_path_factory):
    host = Host(build_site(tmp_path_factory.mktemp('site') / 'page', shipped_model(), ort))
    yield host
    host.stop()


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    "A model that is there at once, for tests of all but its answers."
    return write_model(tmp_path_factory.mktemp('small') / 'clouds.onnx')


@pytest.fixture(scope='module')
def small_host(ort, small, tmp_path_factory):
    host = Host(build_site(tmp_path_factory.mktemp('site') / 'page', small, ort))
    yield host
    host.stop()


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport=SIZES['desk'])
    context.set_default_timeout(90_000)
    yield context
    context.close()


@pytest.fixture(scope='module')
def opened(browser, host):
    "A page of which the model is there."
    context = browser.new_context(viewport=SIZES['desk'])
    context.set_default_timeout(90_000)
    page = context.new_page()
    page.goto(host.address)
    page.wait_for_selector('body[data-ready]')
    yield page
    context.close()


@pytest.fixture
def page(opened):
    "The page without answers, as somebody finds it who has put away the last ones."
    if opened.locator('.answer').count():
        opened.click('#clear')
    return opened


def jpeg(image, **how):
    out = io.BytesIO()
    image.save(out, 'JPEG', **({'quality': 92} | how))
    return out.getvalue()


def sky(genus='Cumulus', size=300, seed=0):
    return {'name': f'{genus}-{seed}.jpg', 'mimeType': 'image/jpeg', 'buffer': jpeg(render_sky(genus, size, seed))}


def answers(page, count):
    "What the page says, by the names of the photos."
    page.wait_for_function('n => document.querySelectorAll(".answer").length >= n', arg=count, timeout=1_500_000)
    cards = page.evaluate('[...document.querySelectorAll(".answer")].map(o => ({...o.dataset, text: o.textContent}))')
    assert len(cards) == count
    return {card['name']: card for card in cards}


def odd_photos(folder, many=True):
    "Photos of all the kinds that phones, cameras and accidents make; where there are to be many, in each combination."
    folder.mkdir()
    side = 3000 if many else 1500
    turns = range(1, 9) if many else (3, 5, 6)
    large = render_sky('Altocumulus', side, 1, side * 4 // 3)
    noisy = np.asarray(large) + np.random.default_rng(0).integers(-9, 10, (side, side * 4 // 3, 3))
    large = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    large.save(folder / 'large.jpg', quality=90)
    large.transpose(Image.Transpose.ROTATE_90).save(folder / 'large progressive.jpg', quality=75, progressive=True)
    large.resize((1793, 1999)).save(folder / 'odd size.jpg', quality=85)
    for orientation in turns:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = render_sky('Cirrus', 500, orientation, 900)
        for suffix, how in {'jpg': {'quality': 90}, 'png': {}, 'webp': {'lossless': True}, 'tif': {}}.items():
            if not many and suffix != 'jpg' and orientation != 6:
                continue
            image.save(folder / f'turned {orientation}.{suffix}', exif=exif, **how)
    clear = render_sky('Stratus', 400, 3).convert('RGBA')
    clear.putalpha(Image.linear_gradient('L').resize(clear.size))
    clear.save(folder / 'clear.png')
    clear.save(folder / 'clear.webp', lossless=True)
    for seed, genus in enumerate(('Cirrostratus', 'Cumulonimbus', 'Stratocumulus')[: None if many else 1]):
        image = render_sky(genus, 420, seed, 460)
        image.convert('CMYK').save(folder / f'ink {seed}.jpg')
        image.convert('CMYK').save(folder / f'ink {seed}.tif')
        image.convert('L').save(folder / f'grey {seed}.jpg')
        image.convert('LA').save(folder / f'grey {seed}.png')
        Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 257).save(
            folder / f'grey 16 bits {seed}.png'
        )
        Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 257).save(
            folder / f'grey 16 bits {seed}.tif'
        )
        image.quantize(60).save(folder / f'palette {seed}.png')
        image.quantize(60).save(folder / f'palette {seed}.gif')
        image.save(folder / f'sky {seed}.bmp')
        image.save(folder / f'sky {seed}.ppm')
        image.save(folder / f'sky {seed}.webp', quality=80)
        image.resize((460, 700)).save(folder / f'tall {seed}.jpg')
        image.resize((80, 60)).save(folder / f'tiny {seed}.jpg')
    for i, (image, *_) in enumerate(ood_samples(1, 256).values()):
        image.save(folder / f'no sky {i}.jpg')
    cut = (folder / 'odd size.jpg').read_bytes()
    (folder / 'cut.jpg').write_bytes(cut[: len(cut) // 2])
    (folder / 'cut at its end.jpg').write_bytes(cut[:-2])
    (folder / 'cut.png').write_bytes((folder / 'clear.png').read_bytes()[:20_000])
    (folder / 'cut.webp').write_bytes((folder / 'sky 0.webp').read_bytes()[:900])
    (folder / 'text.jpg').write_text('not a photo')
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'phone.heic').write_bytes(b'\0\0\0\x18ftypheic' + bytes(99))
    Image.new('L', (12_000, 9_000)).save(folder / 'huge.jpg', quality=10)


@pytest.fixture(scope='module', params=['few', pytest.param('many', marks=pytest.mark.soak)])
def photos(tmp_path_factory, request):
    "Odd photos and, where they are at hand, real ones."
    folder, many = tmp_path_factory.mktemp('photos'), request.param == 'many'
    odd_photos(folder / 'odd', many)
    files = sorted((folder / 'odd').iterdir())
    try:
        real = sorted(request.getfixturevalue('ccsn').rglob('*.jpg'))
    except pytest.skip.Exception:
        real = []
    wanted = 110 if many else 4
    return [*files, *real[:: max(1, len(real) // wanted)][:wanted]]


def test_python_and_the_page_give_the_same_answers(page, clouds, photos):
    page.set_input_files('#photos', [str(o) for o in photos])
    cards, worst = answers(page, len(photos)), 0
    for photo, expected in zip(photos, clouds.predict_many([str(o) for o in photos]), strict=True):
        card = cards[photo.name]
        if isinstance(expected, BadImage):
            kind = 'unsupported' if photo.suffix == '.heic' else expected.kind  # the page opens none, Python may
            assert (card['verdict'], card['kind']) == ('error', kind), photo.name
            assert card['text']
            assert 'probability' not in card
            continue
        answer = json.loads(card['answer'])
        assert (card['label'], card['verdict']) == (expected.label, expected.decision.verdict), photo.name
        assert json.loads(card['set']) == list(expected.decision.labels), photo.name
        backoff = expected.decision.backoff
        assert (answer['backoff']['depth'], answer['backoff']['name']) == (backoff.depth, backoff.name), photo.name
        assert [o['label'] for o in answer['top']] == [label for label, _ in expected.top], photo.name
        for (_, p), got in zip(expected.top, answer['top'], strict=True):
            worst = max(worst, abs(p - got['probability']))
            assert abs(p - got['probability']) < 2e-3, photo.name
        assert abs(float(card['probability']) - expected.probability) < 2e-3
    assert worst < 5e-4, 'pixels are equal, and only sums of floats differ'


def test_cards_stand_in_the_order_of_the_photos_and_say_what_is_sure_first(page, clouds):
    photos = [sky('Cumulus'), {'name': 'text.jpg', 'mimeType': 'image/jpeg', 'buffer': b'text'}, sky('Cirrus', seed=2)]
    page.set_input_files('#photos', photos)
    assert list(answers(page, 3)) == ['Cumulus-0.jpg', 'text.jpg', 'Cirrus-2.jpg']
    refused = page.locator('.answer[data-verdict=error]')
    expect(refused).to_contain_text('text.jpg: is not a photo in a known format')
    page.set_input_files('#photos', [sky('Stratus')])
    assert next(iter(answers(page, 4))) == 'Stratus-0.jpg', 'the latest come first'
    card = page.locator('.answer').first
    assert card.locator('.bars li').count() == 3
    expect(card.locator('h2')).not_to_be_empty()
    expect(page.locator('#state')).to_have_text('Answered.')
    page.click('#clear')
    assert page.locator('.answer').count() == 0


def test_photos_are_dropped_and_pasted(page):
    give = """async ([type, name, data]) => {
        const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, {type: 'image/jpeg'}));
        const event = type === 'drop' ? new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true})
          : new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true});
        document.body.dispatchEvent(event);
    }"""
    for type in ('drop', 'paste'):
        page.evaluate(give, [type, f'{type}.jpg', base64.b64encode(sky()['buffer']).decode()])
    assert set(answers(page, 2)) == {'drop.jpg', 'paste.jpg'}


def test_names_are_text(page):
    name = '<img src=x onerror=alert(1)>.jpg'
    page.set_input_files('#photos', [sky() | {'name': name}, {'name': name, 'mimeType': 'image/jpeg', 'buffer': b'x'}])
    page.wait_for_function('() => document.querySelectorAll(".answer").length == 2')
    assert page.locator('main img').count() == 0
    assert page.locator('.answer').last.get_attribute('data-name') == name


def test_the_page_answers_without_a_connection_after_the_first_visit(context, host, clouds):
    page = context.new_page()
    page.goto(host.address)
    page.wait_for_selector('body[data-offline]')
    host.stop()
    try:
        page.reload()
        page.wait_for_selector('body[data-ready]')
        photo = sky('Cirrocumulus', seed=5)
        page.set_input_files('#photos', [photo])
        (card,) = answers(page, 1).values()
        expected = clouds.predict(photo['buffer'])
        assert card['label'] == expected.label
        assert abs(float(card['probability']) - expected.probability) < 2e-3
        page.click('#about-open')
        expect(page.locator('#about-text')).to_contain_text('How good it is')
    finally:
        host.start()


def test_the_service_shows_the_page_of_its_model(context, ort, tmp_path):
    with served(tmp_path, '--port', 0, '--ort', ort) as running:
        page = context.new_page()
        page.goto(running.address)
        photo = sky('Cirrus', seed=3)
        page.set_input_files('#photos', [photo])
        (card,) = answers(page, 1).values()
        (expected,) = httpx.post(f'{running.address}predict', files={'files': photo['buffer']}, timeout=60).json()
    assert (card['label'], card['verdict']) == (expected['label'], expected['verdict'])
    assert abs(float(card['probability']) - expected['probability']) < 2e-3


def renamed_model(model, folder) -> Path:
    "The same network, in another file."
    (folder / 'other').mkdir()
    other = folder / 'other' / 'clouds.onnx'
    other.write_bytes(seal(model.read_bytes()[:-76] + b'\x12\x01x'))
    return other


def test_a_new_model_is_taken_up_whole(context, ort, small, tmp_path):
    host = Host(build_site(tmp_path / 'page', small, ort))
    try:
        page = context.new_page()
        page.goto(host.address)
        page.wait_for_selector('body[data-offline]')
        names = 'fetch("model.json").then(o => o.json()).then(o => o.model.file)'
        before = page.evaluate(names)
        build_site(tmp_path / 'page', renamed_model(small, tmp_path), ort)
        page.reload()
        page.wait_for_selector('#notice:not([hidden])')
        assert page.evaluate(names) == before, 'until it is asked for, the page stays with the model that it began with'
        with page.expect_navigation():
            page.click('#update')
        page.wait_for_selector('body[data-ready]')
        assert page.evaluate(names) != before
        page.wait_for_function('() => caches.keys().then(names => names.length == 1)')
        page.set_input_files('#photos', [sky()])
        answers(page, 1)
    finally:
        host.stop()


def test_no_other_host_is_asked_for_anything(context, small_host):
    asked = []
    context.on('request', lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto(small_host.address)
    page.wait_for_selector('body[data-offline]')
    page.set_input_files('#photos', [sky()])
    answers(page, 1)
    page.click('#about-open')
    assert len(asked) > 20
    own = f'http://127.0.0.1:{small_host.port}/'
    assert not [url for url in asked if not url.startswith((own, 'blob:' + own))]
    other = f'http://localhost:{small_host.port}/some/where/model.json'
    assert page.evaluate('url => fetch(url, {mode: "no-cors"}).then(() => "sent", () => "refused")', other) == 'refused'
    (worker,) = page.workers
    assert (
        worker.evaluate('url => fetch(url, {mode: "no-cors"}).then(() => "sent", () => "refused")', other) == 'refused'
    )


TRY_EVAL = """() => new Promise(done => setTimeout(() => {
    try { done(new Function('return "ran"')()); } catch (error) { done(error.name); }
}))"""
TRY_FETCH = 'url => fetch(url, {mode: "no-cors"}).then(() => "sent", () => "refused")'


def test_the_policy_binds_the_page_and_its_worker(browser, small_host):
    "Without a service worker, which would refuse other hosts too."
    context = browser.new_context(service_workers='block')
    page = context.new_page()
    page.goto(small_host.address)
    page.wait_for_selector('body[data-ready]', timeout=90_000)
    page.set_input_files('#photos', [sky()])
    page.wait_for_selector('.answer', timeout=90_000)
    (worker,) = page.workers
    for place in (page, worker):
        assert place.evaluate(TRY_FETCH, f'http://localhost:{small_host.port}/some/where/model.json') == 'refused'
        assert place.evaluate(TRY_FETCH, f'{small_host.address}model.json') == 'sent'
        assert place.evaluate(TRY_EVAL) == 'EvalError'
    context.close()


def test_a_browser_that_cant_start_the_bound_worker_gets_the_plain_one(browser, small_host):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("""window.Worker = class extends Worker {
        constructor(url, how) { super(`${url}`.startsWith('blob:') ? 'nothing.js' : url, how); }
    };""")
    page.goto(small_host.address)
    page.set_input_files('#photos', [sky()])
    page.wait_for_selector('.answer[data-label]', timeout=90_000)
    context.close()


def test_a_model_that_does_not_come_is_said(context, small_host):
    page = context.new_page()
    page.route('**/*.onnx', lambda route: route.fulfill(status=404))
    page.goto(small_host.address)
    expect(page.locator('#state')).to_contain_text('could not be loaded', timeout=60_000)


def test_the_camera_is_answered_twice_a_second(page):
    page.click('#live')
    page.wait_for_function('() => +document.getElementById("now").dataset.count >= 2')
    before, start = int(page.get_attribute('#now', 'data-count')), time.monotonic()
    page.wait_for_function(f'() => +document.getElementById("now").dataset.count >= {before + 6}')
    per_second = 6 / (time.monotonic() - start)
    page.click('#keep')
    (name,) = answers(page, 1)
    assert name.startswith('Camera')
    page.click('#stop')
    assert page.evaluate('document.getElementById("video").srcObject') is None
    expect(page.locator('#camera')).to_be_hidden()
    assert per_second > 1.6 or os.getloadavg()[0] > os.cpu_count(), f'{per_second:.1f} answers a second'


def test_a_camera_that_may_not_be_used_is_said(browser, small_host):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))"
    )
    page.goto(small_host.address)
    page.click('#live')
    expect(page.locator('#state')).to_contain_text('The camera may not be used')
    context.close()


def test_the_page_stays_alive_while_it_works(page):
    photo = {'name': 'large.jpg', 'mimeType': 'image/jpeg', 'buffer': jpeg(render_sky('Cumulus', 3000, 0, 4000))}
    page.evaluate("""() => {
        let last = performance.now();
        window.gap = 0;
        setInterval(() => {
            const now = performance.now();
            window.gap = Math.max(window.gap, now - last);
            last = now;
        }, 10);
    }""")
    page.set_input_files('#photos', [photo])
    answers(page, 1)
    gap = page.evaluate('window.gap')
    assert gap < 250 or os.getloadavg()[0] > os.cpu_count(), f'{gap:.0f} ms without a sign of life'


def test_paint_and_answer_are_prompt(browser, host):
    "First paint under a second and an answer under one and a half, on two cores that have nothing else to do."
    paint = "new Promise(done => new PerformanceObserver(o => done(o.getEntries()[0].startTime))"
    paint += ".observe({type: 'paint', buffered: true}))"
    paints, times = [], []
    for _ in range(3):
        context = browser.new_context()
        page = context.new_page()
        page.goto(host.address)
        paints.append(page.evaluate(paint))
        page.wait_for_selector('body[data-ready]', timeout=90_000)
        start = time.monotonic()
        page.set_input_files('#photos', [sky()])
        page.wait_for_selector('.answer')
        times.append(time.monotonic() - start)
        context.close()
        if paints[-1] < 1000 and times[-1] < 1.5:
            break
    busy = os.getloadavg()[0] > os.cpu_count()
    assert min(paints) < 1000 or busy, f'{paints} ms'
    assert min(times) < 1.5 or busy, f'{times} s'


@pytest.fixture(scope='session')
def axe(tmp_path_factory):
    "axe-core, the checker of accessibility."
    folder = tmp_path_factory.mktemp('axe')
    npm = shutil.which('npm') or pytest.skip('needs npm')
    done = subprocess.run(
        [npm, 'pack', 'axe-core@4.10', '--prefer-offline'], cwd=folder, capture_output=True, check=False
    )
    packed = [*folder.glob('*.tgz')]
    if done.returncode or not packed:
        pytest.skip('npm could not fetch axe-core')
    with tarfile.open(packed[0]) as tar:
        return tar.extractfile('package/axe.min.js').read().decode()


@pytest.mark.parametrize(
    ('size', 'scheme'),
    [
        ('phone', 'dark'),
        ('desk', 'light'),
        pytest.param('phone', 'light', marks=pytest.mark.soak),
        pytest.param('desk', 'dark', marks=pytest.mark.soak),
    ],
)
def test_everyone_can_use_it(browser, host, small_host, axe, size, scheme):
    phone = size == 'phone'
    context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, has_touch=phone, is_mobile=phone)
    page = context.new_page()
    page.goto((small_host if phone else host).address)
    page.wait_for_selector('body[data-ready]', timeout=90_000)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    photos = [sky(genus, seed=i) for i, genus in enumerate(('Cirrus', 'Cumulus', 'Stratus', 'Altostratus'))]
    photos += [
        {'name': name, 'mimeType': 'image/jpeg', 'buffer': data} for name, data in (('a', jpeg(noise)), ('b', b'b'))
    ]
    page.set_input_files('#photos', photos)
    answers(page, 6)
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'nothing is to be scrolled sideways'
    page.evaluate(axe)
    for open_sheet in (False, True):
        if open_sheet:
            page.click('#about-open')
        faults = page.evaluate('axe.run().then(o => o.violations.map(v => [v.impact, v.id, v.nodes[0].html, v.help]))')
        assert not [o for o in faults if o[0] in ('serious', 'critical')], faults
    page.keyboard.press('Escape')
    expect(page.locator('#about')).to_be_hidden()
    context.close()
