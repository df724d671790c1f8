"The cleaner as people meet it: its page in a browser, under ipywidgets 8 and 7."

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from chromium import needs_chromium
from playwright.sync_api import Page, expect
from reading import read_line

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.samples import make_samples

pytestmark = [needs_chromium, pytest.mark.usefixtures('forked')]
SEVEN = ['ipywidgets==7.8.5', 'jupyterlab-widgets==1.1.11', 'widgetsnbextension==3.6.10', 'ipython-genutils==0.2.0']
MARKUP = '<img src=x onerror=window.markup=1>'


@pytest.fixture(scope='module')
def skies(tmp_path_factory):
    "Three genera, a class whose name is markup, two photos of cumulus under Stratus, and one that is torn."
    root = tmp_path_factory.mktemp('cleaner') / 'skies'
    cumulus = make_samples(root, per_genus=10, size=128, seed=1, genera=['Cirrus', 'Stratus', 'Cumulus'])[-10:]
    (root / MARKUP).mkdir()
    for place in ('Stratus/found.jpg', 'Stratus/seen.jpg', f'{MARKUP}/a.jpg', f'{MARKUP}/b.jpg'):
        cumulus.pop().rename(root / place)
    whole = (root / 'Stratus' / 'seen.jpg').read_bytes()
    (root / 'Cirrus' / 'torn.jpg').write_bytes(whole[: len(whole) // 3])
    return root


@pytest.fixture
def dataset(skies, tmp_path):
    "A copy of them to work on."
    return Dataset(shutil.copytree(skies, tmp_path / 'skies'))


def issues_of(dataset: Dataset) -> pd.DataFrame:
    "What `label_issues` might say of them."
    wrong = [
        ('Stratus/found.jpg', 'Cumulus', 'label', 0.97),
        ('Stratus/seen.jpg', 'Cumulus', 'label', 0.9),
        ('Cirrus/torn.jpg', '', 'outlier', 0.8),
        (f'{MARKUP}/a.jpg', 'Cirrus', 'label', 0.7),
    ]
    rest = [(path, '', 'ambiguous', 0.1) for path, _ in dataset.photos() if path not in {o[0] for o in wrong}]
    table = pd.DataFrame([*wrong, *rest], columns=['path', 'suggested', 'kind', 'score'])
    labels, digests = dict(dataset.photos()), dataset.digests(table.path)
    return table.assign(
        sha256=table.path.map(digests),
        label=table.path.map(labels),
        probability=table.score.where(table.suggested != ''),
        given=0.02,
        loss=3.9,
        cue='',
        reason=f'<b>{MARKUP}</b> is what its reason says.',
    )


@pytest.fixture(scope='module')
def seven(tmp_path_factory):
    "The environment in which Python finds ipywidgets 7.8 before the newer one."
    folder, uv = tmp_path_factory.mktemp('ipywidgets') / '7.8', Path(sys.executable).with_name('uv')
    if not uv.exists():
        pytest.skip('ipywidgets 7.8 is installed with uv, which is not here')
    install = [uv, 'pip', 'install', '-q', '--no-deps', '--python', sys.executable, '--target', folder, *SEVEN]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f'ipywidgets 7.8 could not be fetched: {done.stderr.strip().splitlines()[-1]}')
    return {'PYTHONPATH': str(folder), 'JUPYTER_PATH': str(folder / 'share' / 'jupyter')}


@pytest.fixture
def serve(tmp_path):
    "Serve the cleaner of a dataset; the page's address. What was started is interrupted at the end."
    started = []

    def start(dataset: Dataset, issues: pd.DataFrame, env: dict[str, str] | None = None, parts=None) -> str:
        tables = ''
        for name, table in {'issues': issues, 'parts': parts}.items():
            if table is not None:
                table.to_pickle(tmp_path / f'{name}.pkl')
                tables += f', {name}=pd.read_pickle({str(tmp_path / f"{name}.pkl")!r})'
        code = (
            'import pandas as pd; from cloud_classifier.data.widget import serve_cleaner; '
            f'serve_cleaner({str(dataset.path)!r}, port=0{tables})'
        )
        server = subprocess.Popen(
            [sys.executable, '-c', code], env=os.environ | (env or {}), stdout=subprocess.PIPE, text=True
        )
        started.append(server)
        return re.search(r'http://\S+', read_line(server))[0]

    yield start
    for server in started:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        server.stdout.close()


@pytest.fixture
def visit(browser):
    "Open a page as large as a desk's or a phone's; at the end no other host must have been asked for anything."
    contexts, others = [], []

    def see(address: str, size=(1280, 800), scheme='light') -> Page:
        context = browser.new_context(viewport={'width': size[0], 'height': size[1]}, color_scheme=scheme)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        local = ('http://127.0.0.1:', 'ws://127.0.0.1:', 'data:', 'blob:')
        page.on('request', lambda request: request.url.startswith(local) or others.append(request.url))
        page.goto(address, wait_until='commit')
        expect(page.locator('.cloud-cleaner figcaption')).to_contain_text('1 of', timeout=60_000)
        return page

    yield see
    for context in contexts:
        context.close()
    assert others == []


def at(page: Page, name: str):
    "Wait until a photo is in view, and can be seen."
    expect(page.locator('.cloud-cleaner figcaption')).to_contain_text(name)
    page.wait_for_function("document.querySelector('.cloud-cleaner .stage img').naturalWidth > 0")


def count_is(page: Page, text: str):
    expect(page.locator('.cloud-cleaner .count')).to_have_text(text)


def photos_of(dataset: Dataset) -> Counter:
    "How often each content is there, under which label."
    return Counter((label, (dataset.path / path).read_bytes()) for path, label in dataset.photos())


@pytest.mark.parametrize('version', ['7.8', pytest.param('8', marks=pytest.mark.soak)])  # as the other tests have
def test_decisions_outlive_the_kernel_and_are_applied_and_undone(version, dataset, serve, visit, request, tmp_path):
    env = request.getfixturevalue('seven') if version == '7.8' else {}
    told = subprocess.run(
        [sys.executable, '-c', 'import ipywidgets; print(ipywidgets.__version__)'],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.startswith(version)
    before = photos_of(dataset)
    page = visit(serve(dataset, issues_of(dataset), env))
    at(page, 'Stratus/found.jpg')
    count_is(page, '0 of 31 photos decided, 0 pending')
    page.keyboard.press('r')
    at(page, 'Stratus/seen.jpg')
    page.keyboard.press('d')
    count_is(page, '2 of 31 photos decided, 2 pending')

    page.get_by_label('Class').select_option('Cumulus')
    at(page, 'Cumulus/')
    page.get_by_label('Class').select_option('Stratus')
    expect(page.locator('.cloud-cleaner figcaption')).to_contain_text('1 of 10')
    count_is(page, '2 of 31 photos decided, 2 pending')

    page.reload(wait_until='commit')  # and with it comes a new kernel
    expect(page.locator('.cloud-cleaner figcaption')).to_contain_text('1 of 29', timeout=60_000)
    count_is(page, '2 of 31 photos decided, 2 pending')
    page.get_by_label('List').select_option('pending')
    expect(page.locator('.cloud-cleaner .decision')).to_contain_text('not applied yet')
    at(page, 'Stratus/found.jpg')
    assert photos_of(dataset) == before

    page.get_by_role('button', name='Apply 2').click()
    page.get_by_role('button', name='Move 2 photos').click()
    expect(page.locator('.cloud-cleaner .said')).to_have_text('Applied: 1 relabelled, 1 deleted.')
    assert (dataset.path / 'Cumulus' / 'found.jpg').exists()
    assert not (dataset.path / 'Stratus' / 'found.jpg').exists()
    assert not (dataset.path / 'Stratus' / 'seen.jpg').exists()
    assert photos_of(dataset).total() == 30

    page.get_by_role('button', name='Undo').click()
    page.get_by_role('button', name='Take back all 2 of this session').click()
    expect(page.locator('.cloud-cleaner .said')).to_have_text('Taken back: 2 decisions.')
    assert photos_of(dataset) == before
    assert 'Traceback' not in page.content()


def test_what_strangers_wrote_is_text_and_a_torn_photo_can_be_decided_about(dataset, serve, visit):
    page = visit(serve(dataset, issues_of(dataset)))
    page.get_by_label('Class').select_option(MARKUP)
    at(page, f'{MARKUP}/a.jpg')
    expect(page.locator('.cloud-cleaner .given b')).to_have_text(MARKUP)
    expect(page.locator('.cloud-cleaner .reasons')).to_have_text(f'<b>{MARKUP}</b> is what its reason says.')
    expect(page.get_by_role('button', name=MARKUP, exact=True)).to_be_visible()
    page.get_by_label('Class').select_option('Cirrus')
    expect(page.locator('.cloud-cleaner .stage .cant')).to_contain_text('This photo can’t be shown')
    page.get_by_role('button', name='Delete').click()
    count_is(page, '1 of 31 photos decided, 1 pending')
    page.get_by_label('Class').select_option('')
    expect(page.locator('.cloud-cleaner figcaption')).to_contain_text('of 30')
    page.locator('.cloud-cleaner .count').click()  # a menu has keys of its own
    page.keyboard.press('Home')
    at(page, 'Stratus/found.jpg')
    page.keyboard.press('n')
    page.get_by_role('textbox', name='New label').fill(MARKUP.replace('=1', '=2'))
    page.keyboard.press('Enter')
    at(page, 'Stratus/seen.jpg')
    page.keyboard.press('ArrowLeft')
    expect(page.locator('.cloud-cleaner .decision')).to_contain_text('Relabel to <img src=x onerror=window.markup=2>')
    assert page.evaluate('window.markup') is None


def test_parts_are_a_menu_and_an_error_stays_until_it_is_put_away(dataset, serve, visit):
    issues = issues_of(dataset)
    parts = issues[['path', 'sha256']].assign(part=['valid', 'test', 'test'] + ['train'] * (len(issues) - 3))
    page = visit(serve(dataset, issues, parts=parts))
    at(page, 'Stratus/found.jpg')
    menu = page.get_by_label('Part')
    assert menu.locator('option').all_inner_texts() == ['all parts', 'train (28)', 'valid (1)', 'test (2)']
    menu.select_option('test')
    expect(page.locator('.cloud-cleaner figcaption')).to_contain_text('1 of 2')
    at(page, 'Stratus/seen.jpg')
    menu.select_option('')
    at(page, 'Stratus/seen.jpg')
    page.get_by_role('button', name='Previous photo').click()
    at(page, 'Stratus/found.jpg')
    (dataset.path / 'Stratus' / 'found.jpg').unlink()
    page.keyboard.press('r')
    alert = page.get_by_role('alert')
    expect(alert).to_contain_text('Stratus/found.jpg')
    page.keyboard.press('k')
    expect(alert).to_contain_text('Stratus/found.jpg')
    page.get_by_role('button', name='Put this message away').click()
    expect(alert).to_have_text('')
    assert 'Traceback' not in page.content()


def test_keys_move_decide_and_take_back(dataset, serve, visit):
    page = visit(serve(dataset, issues_of(dataset)))
    caption, decision = page.locator('.cloud-cleaner figcaption'), page.locator('.cloud-cleaner .decision')
    at(page, 'Stratus/found.jpg')
    for key, place in [('ArrowRight', 2), ('ArrowRight', 3), ('ArrowLeft', 2), ('End', 31), ('Home', 1)]:
        page.keyboard.press(key)
        expect(caption).to_contain_text(f'{place} of 31')
    page.keyboard.press('PageDown')
    expect(caption).to_contain_text('13 of 31')
    page.keyboard.press('PageUp')
    at(page, 'Stratus/found.jpg')
    for key, meaning in [('k', 'Keep'), ('a', 'Ambiguous'), ('d', 'Delete'), ('9', 'Cumulus'), ('Enter', 'Cumulus')]:
        page.keyboard.press(key)
        at(page, 'Stratus/seen.jpg')
        page.keyboard.press('ArrowLeft')
        expect(decision).to_contain_text(meaning)
    page.keyboard.press('ArrowRight')
    page.keyboard.press('u')  # the last one, as this photo has no decision
    at(page, 'Stratus/found.jpg')
    expect(decision).to_have_text('Not decided yet')
    count_is(page, '0 of 31 photos decided, 0 pending')
    page.keyboard.press('8')  # the label that it has
    expect(page.locator('.cloud-cleaner .said')).to_contain_text('under Stratus already')
    page.keyboard.press('z')
    expect(page.get_by_role('dialog', name='Photo')).to_be_visible()
    page.keyboard.press('k')  # keys work in the enlarged view, too
    count_is(page, '1 of 31 photos decided, 1 pending')
    page.keyboard.press('Escape')
    page.keyboard.press('g')
    expect(page.get_by_role('dialog', name='The ten genera')).to_contain_text('a cauliflower')
    page.keyboard.press('d')  # not while something else is in front
    page.keyboard.press('Escape')
    page.keyboard.press('?')
    expect(page.get_by_role('dialog', name='Keys')).to_contain_text('keep: the label is right')
    page.keyboard.press('Escape')
    count_is(page, '1 of 31 photos decided, 1 pending')


# The least contrast between a text and what is behind it, over all texts that can be seen, and the text that has it.
CONTRAST = """() => {
  const luminance = (colour) => {
    const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)|transparent/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  let least = [99, ''];
  for (const e of document.querySelectorAll('.cloud-cleaner *')) {
    const text = [...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!text || !e.checkVisibility() || e.closest('option')) continue;
    const [a, b] = [luminance(getComputedStyle(e).color), luminance(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least[0]) least = [ratio, `${e.className} ${e.textContent}`];
  }
  return least;
}"""


TOO_WIDE = """[...document.querySelectorAll('.cloud-cleaner *')].filter((e) =>
  e.checkVisibility() && !e.closest('.strip') && e.getBoundingClientRect().right > innerWidth + 1
).map((e) => e.className)
"""


LOOKS = [
    ('desk', (1280, 800), 'light'),
    ('phone dark', (390, 844), 'dark'),
    ('desk dark', (1280, 800), 'dark'),
    ('phone', (390, 844), 'light'),
]


@pytest.mark.parametrize('looks', [LOOKS[:2], pytest.param(LOOKS[2:], marks=pytest.mark.soak)], ids=['two', 'others'])
def test_it_can_be_read_and_reached_on_a_desk_and_on_a_phone_in_light_and_dark(looks, dataset, serve, visit, tmp_path):
    address = serve(dataset, issues_of(dataset))
    for name, size, scheme in looks:
        page = visit(address, size, scheme)
        expect(page.locator('.cloud-cleaner')).to_have_attribute('data-theme', scheme)
        page.get_by_label('Class').select_option('Stratus')
        expect(page.locator('.cloud-cleaner figcaption')).to_contain_text(re.compile(r'^1 of (9|1[0-2]) '))
        at(page, 'Stratus/')
        page.get_by_role('button', name='Keep').click()
        expect(page.locator('.cloud-cleaner figcaption')).to_contain_text('2 of')
        page.get_by_role('button', name='Previous photo').click()
        expect(page.locator('.cloud-cleaner .decision')).to_contain_text('Keep')
        page.screenshot(path=tmp_path / f'{name}.png')
        least, text = page.evaluate(CONTRAST)
        assert least >= 4.5, text
        page.keyboard.press('g')
        least, text = page.evaluate(CONTRAST)
        assert least >= 4.5, text
        page.keyboard.press('Escape')
        assert page.evaluate('document.documentElement.scrollWidth') <= size[0]
        assert page.evaluate(TOO_WIDE) == []
        for button in page.locator('.cloud-cleaner button').all():
            assert not button.is_visible() or (button.get_attribute('aria-label') or button.inner_text()).strip()
        page.keyboard.press('Tab')
        assert page.evaluate('getComputedStyle(document.activeElement).outlineStyle') != 'none'
        assert page.locator('.cloud-cleaner .zoom').bounding_box()['height'] >= 300
        page.context.close()
