"The app without a browser: what it shows for good photos, bad photos and hostile names, in ipywidgets 7 and 8."

import datetime
import io
import json
import re
import subprocess
import sys

import ipywidgets
import pytest
from hostile_images import jpeg_scans
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from readme import ROOT
from traitlets import Dict

import cloud_classifier.prediction.app as app_module
from cloud_classifier.images import BadImage, open_image
from cloud_classifier.prediction.app import CloudApp, error_html, open_app, preview, uploaded
from cloud_classifier.prediction.decide import Backoff, Decision
from cloud_classifier.prediction.infer import Prediction, answer_html, headline, lookalikes, percent, rows
from cloud_classifier.taxonomy import GENERA


def jpeg(colour: str, size: tuple[int, int] = (64, 48), **options) -> bytes:
    out = io.BytesIO()
    Image.new('RGB', size, colour).save(out, 'JPEG', **options)
    return out.getvalue()


class ByColour:
    "A predictor that opens photos as the real one does and judges them by their first pixel."

    def __init__(self):
        self.asked = 0

    def predict(self, photo) -> Prediction:
        self.asked += 1
        red, _, blue = open_image(photo).getpixel((0, 0))
        first, second = ('Cumulus', 'Contrail') if blue > red else ('Contrail', 'Cumulus')
        return Prediction(((first, 0.7), (second, 0.2), ('Stratus', 0.1)))


class SevenUpload(ipywidgets.FileUpload):
    "FileUpload as ipywidgets 7 has it: `value` is a read-only dictionary by file name."

    value = Dict(read_only=True)


@pytest.fixture(params=[7, 8])
def version(request, monkeypatch) -> int:
    if request.param == 7:
        monkeypatch.setattr(app_module, 'FileUpload', SevenUpload)
    return request.param


@pytest.fixture
def app(version) -> CloudApp:
    return CloudApp(ByColour())


def choose(app: CloudApp, version: int, name: str, content: bytes):
    "What ipywidgets does once a file was chosen."
    if version == 7:
        metadata = {'name': name, 'type': 'image/jpeg', 'size': len(content), 'lastModified': 1_700_000_000_000}
        app.upload.set_trait('value', {name: {'metadata': metadata, 'content': content}})
    else:
        when = datetime.datetime.fromtimestamp(1_700_000_000).astimezone()
        about = {'name': name, 'type': 'image/jpeg', 'size': len(content), 'last_modified': when}
        app.upload.value = ({**about, 'content': memoryview(content)},)


def choose_many(app: CloudApp, version: int, files: dict[str, bytes]):
    "Several files at once."
    if version == 7:
        app.upload.set_trait('value', {name: {'metadata': {}, 'content': content} for name, content in files.items()})
    else:
        when = datetime.datetime.fromtimestamp(1_700_000_000).astimezone()
        about = {'type': 'image/jpeg', 'size': 1, 'last_modified': when}
        app.upload.value = tuple({'name': k, 'content': memoryview(v), **about} for k, v in files.items())


def visible(card) -> list:
    "Of a card's picture and answer, those that are on the screen."
    return [o for o in (card.picture, card.answer) if o.layout.display != 'none']


def test_nothing_is_shown_before_the_first_photo(app):
    assert app.cards == []
    assert app.grid.children == ()


def test_a_photo_is_shown_and_named(app, version):
    choose(app, version, 'sky.jpg', jpeg('steelblue'))
    (card,) = app.cards
    assert app.grid.children == (card.widget,)
    assert visible(card) == [card.picture, card.answer]
    assert card.prediction.label == 'Cumulus'
    assert card.answer.value == answer_html(card.prediction, 'sky.jpg')
    assert open_image(card.picture.value).size == (64, 48)


def test_several_photos_are_cards_in_their_order(app, version):
    names = {'a.jpg': jpeg('steelblue'), 'b.jpg': b'<html>', 'c.jpg': jpeg('firebrick')}
    choose_many(app, version, names)
    assert [o.prediction and o.prediction.label for o in app.cards] == ['Cumulus', None, 'Contrail']
    assert app.grid.children == tuple(o.widget for o in app.cards)
    assert 'b.jpg: ' in app.cards[1].answer.value


def test_new_photos_take_the_place_of_the_last_ones(app, version):
    choose_many(app, version, {'a.jpg': jpeg('steelblue'), 'b.jpg': jpeg('steelblue')})
    before = [o.widget for o in app.cards]
    choose(app, version, 'sky.jpg', jpeg('firebrick'))
    (card,) = app.cards
    assert card.prediction.label == 'Contrail'
    assert app.grid.children == (card.widget,)
    assert all(o.comm is None for o in before)


def test_the_same_photo_is_answered_again(app, version):
    for _ in range(2):
        choose(app, version, 'sky.jpg', jpeg('steelblue'))
    assert app.model.asked == 2
    assert len(app.upload.value) == 0
    assert len(app.cards) == 1


@pytest.mark.parametrize(
    'content', [b'', b'seen from the roof', jpeg('steelblue', (900, 900))[:2000]], ids=['empty', 'text', 'cut']
)
def test_a_bad_photo_ends_in_one_escaped_line(app, version, content):
    choose(app, version, '<script>alert(1)</script>.jpg', content)
    (card,) = app.cards
    assert visible(card) == [card.answer]
    assert card.prediction is None
    assert card.picture.value == b''
    with pytest.raises(BadImage) as bad:
        open_image(content)
    assert card.answer.value == error_html(f'<script>alert(1)</script>.jpg: {bad.value.reason}')
    assert '<script' not in card.answer.value
    assert '\n' not in card.answer.value


def test_a_bomb_ends_in_a_line(app, version):
    choose(app, version, 'scans\x1b[31m\n\u202egpj', jpeg_scans(4000, 3000, 9000))
    (card,) = app.cards
    assert visible(card) == [card.answer]
    assert 'over the limit' in card.answer.value
    assert not {'\x1b', '\n', '\u202e'} & set(card.answer.value)
    assert app.model.asked == 0


def test_a_fault_of_the_model_is_said_raised_and_leaves_no_old_answer(app, version, monkeypatch):
    choose(app, version, 'sky.jpg', jpeg('steelblue'))

    def fail(photo):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(app.model, 'predict', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        choose(app, version, 'other.jpg', jpeg('firebrick'))
    (card,) = app.cards
    assert app.grid.children == (card.widget,)
    assert visible(card) == [card.answer]
    assert card.prediction is None
    assert 'role="alert"' in card.answer.value
    assert len(app.upload.value) == 0


def test_without_keep_nothing_is_kept_and_nobody_is_asked(app, version):
    choose(app, version, 'sky.jpg', jpeg('steelblue'))
    assert app.cards[0].correction is None
    assert len(app.cards[0].widget.children) == 2


def test_a_corrected_photo_goes_into_the_dataset_once(version, tmp_path):
    app = CloudApp(ByColour(), keep=tmp_path / 'kept')
    photo = jpeg('steelblue', (300, 200))
    for _ in range(2):
        choose_many(app, version, {'../../sky.JPG': photo, 'text.jpg': b'<html>'})
        assert app.cards[1].correction is None
        correction = app.cards[0].correction
        assert correction.button.disabled
        correction.label.value = 'Altocumulus'
        assert not correction.button.disabled
        correction.button.click()
        assert correction.button.disabled
    assert 'kept before' in correction.result.value
    files = [p for p in (tmp_path / 'kept').rglob('*.jpg')]
    assert [(p.parent.name, p.read_bytes()) for p in files] == [('Altocumulus', photo)]


def test_a_photo_that_cant_be_kept_is_said(version, tmp_path):
    (tmp_path / 'file').write_text('not a folder')
    app = CloudApp(ByColour(), keep=tmp_path / 'file')
    choose(app, version, 'sky.jpg', jpeg('steelblue', (300, 200)))
    correction = app.cards[0].correction
    correction.label.value = 'Stratus'
    correction.button.click()
    assert 'role="alert"' in correction.result.value


def test_values_of_both_versions_read_alike():
    two = [('a.jpg', b'1'), ('b.jpg', b'2')]
    assert uploaded({name: {'metadata': {}, 'content': content} for name, content in two}) == two
    assert uploaded(tuple({'name': name, 'content': memoryview(content)} for name, content in two)) == two
    assert uploaded({}) == uploaded(()) == []


def test_class_names_of_a_model_are_escaped():
    said = answer_html(Prediction((('<img src=x onerror=alert(1)>', 0.9), ('"&', 0.1))))
    assert '<img' not in said
    assert '&lt;img src=x' in said
    assert '&quot;&amp;' in said


@pytest.mark.parametrize('name', GENERA)
def test_every_genus_has_all_four_facts_and_cues(name):
    prediction = Prediction(((name, 0.5),))
    assert [label for label, _ in rows(prediction)] == ['Probability', 'Level', 'Cloud base', 'Precipitation']
    assert lookalikes(prediction)


def test_what_is_said_follows_the_verdict():
    top = (('Cirrus', 0.5), ('Cirrostratus', 0.4), ('Stratus', 0.05))
    level = Backoff('level', 'high', top[:2])
    said = {
        'confident': Decision('confident', ('Cirrus',), Backoff('genus', 'Cirrus', top[:1])),
        'level': Decision('unsure', ('Cirrus', 'Cirrostratus'), level),
        'none': Decision('unsure', ('Cirrus', 'Cirrostratus'), Backoff('none', '')),
        'not_a_sky': Decision('not_a_sky', (), Backoff('none', '')),
    }
    assert {k: headline(Prediction(top, o)) for k, o in said.items()} == {
        'confident': 'Cirrus',
        'level': 'Unsure: a high cloud',
        'none': 'Unsure: perhaps Cirrus',
        'not_a_sky': 'This doesn’t look like a sky',
    }
    pages = {k: answer_html(Prediction(top, o), 'a"b.jpg') for k, o in said.items()}
    assert all('data-name="a&quot;b.jpg"' in page for page in pages.values())
    assert 'Cirrus' not in re.sub('data-label="Cirrus"', '', pages['not_a_sky'])
    assert [('Fair now' in page, 'If it is Cirrus' in page) for page in pages.values()] == [
        (True, False),
        (True, True),
        (True, True),
        (False, False),
    ]
    assert lookalikes(Prediction(top))[0][0] == 'Cirrostratus'


@given(st.floats(0, 1))
def test_a_percentage_is_near_and_never_certain(p):
    said = percent(p)
    assert said not in ('0%', '100%')
    assert abs(float(said.strip('<> %')) - 100 * p) <= 1


def test_a_phone_photo_is_shown_small_upright_and_without_its_metadata():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x010F] = 'a telephone'
    shown = preview(jpeg('steelblue', (4000, 3000), exif=exif.tobytes()))
    with Image.open(io.BytesIO(shown)) as image:
        assert image.format == 'JPEG'
        assert image.size == (480, 640)
        assert not image.getexif()
    assert len(shown) < 100_000


def test_without_a_model_the_page_asks_the_one_that_ships(tmp_path, monkeypatch):
    monkeypatch.delenv('CLOUD_MODEL', raising=False)
    assert isinstance(open_app(root=tmp_path), CloudApp)


def test_the_notebook_for_voila_shows_the_app(monkeypatch):
    monkeypatch.delenv('CLOUD_MODEL', raising=False)
    notebook = ROOT / 'nbs' / 'app' / 'clouds.ipynb'
    monkeypatch.chdir(notebook.parent)
    *first, last = (''.join(cell['source']) for cell in json.loads(notebook.read_text())['cells'])
    names = {}
    exec('\n'.join(first), names)
    assert isinstance(eval(last, names), CloudApp)


def test_where_none_ships_the_page_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.delenv('CLOUD_MODEL', raising=False)
    monkeypatch.setattr('cloud_classifier.prediction.infer.shipped_model', lambda: None)
    page = open_app(root=tmp_path)
    assert isinstance(page, ipywidgets.HTML)
    assert 'role="alert"' in page.value
    assert 'demo' in page.value


def test_a_relative_model_is_looked_for_in_the_project_not_in_the_notebook_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('CLOUD_MODEL', 'models/mine.onnx')
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'mine.onnx').write_text('a model')
    opened = []
    monkeypatch.setattr(app_module, 'CloudClassifier', lambda path: opened.append(path) or ByColour())
    assert isinstance(open_app(root=tmp_path), CloudApp)
    assert opened == [tmp_path / 'models' / 'mine.onnx']


def test_the_app_needs_neither_torch_nor_fastai_nor_pandas():
    heavy = "{'torch', 'fastai', 'fastcore', 'pandas', 'matplotlib'} & set(sys.modules)"
    code = f'import sys, cloud_classifier.prediction.app; sys.exit(str({heavy}) if {heavy} else 0)'
    done = subprocess.run([sys.executable, '-c', code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
