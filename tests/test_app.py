"The app without a browser: what it shows for good photos, bad photos and hostile names, in ipywidgets 7 and 8."

import datetime
import io
import subprocess
import sys

import ipywidgets
import pytest
from hostile_images import jpeg_scans
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from traitlets import Dict

import cloud_classifier.prediction.app as app_module
from cloud_classifier.images import BadImage, open_image
from cloud_classifier.prediction.app import (
    CloudApp,
    answer_html,
    error_html,
    open_app,
    percent,
    preview,
    rows,
    uploaded,
)
from cloud_classifier.prediction.infer import Prediction
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


def visible(app: CloudApp) -> list:
    "Of the picture and the answer, those that are on the screen."
    return [o for o in (app.picture, app.answer) if o.layout.display != 'none']


def test_nothing_is_shown_before_the_first_photo(app):
    assert visible(app) == []
    assert app.prediction is None


def test_a_photo_is_shown_and_named(app, version):
    choose(app, version, 'sky.jpg', jpeg('steelblue'))
    assert visible(app) == [app.picture, app.answer]
    assert app.prediction.label == 'Cumulus'
    assert app.answer.value == answer_html(app.prediction)
    assert open_image(app.picture.value).size == (64, 48)


def test_the_second_photo_takes_the_place_of_the_first(app, version):
    choose(app, version, 'sky.jpg', jpeg('steelblue'))
    first = app.picture.value
    choose(app, version, 'sky.jpg', jpeg('firebrick'))
    assert app.prediction.label == 'Contrail'
    assert app.picture.value != first
    assert GENERA['Cumulus'].weather not in app.answer.value


def test_the_same_photo_is_answered_again(app, version):
    for _ in range(2):
        choose(app, version, 'sky.jpg', jpeg('steelblue'))
    assert app.model.asked == 2
    assert len(app.upload.value) == 0
    assert visible(app) == [app.picture, app.answer]


@pytest.mark.parametrize(
    'content', [b'', b'seen from the roof', jpeg('steelblue', (900, 900))[:2000]], ids=['empty', 'text', 'cut']
)
def test_a_bad_photo_ends_in_one_escaped_line(app, version, content):
    choose(app, version, 'sky.jpg', jpeg('steelblue'))
    choose(app, version, '<script>alert(1)</script>.jpg', content)
    assert visible(app) == [app.answer]
    assert app.prediction is None
    assert app.picture.value == b''
    with pytest.raises(BadImage) as bad:
        open_image(content)
    assert app.answer.value == error_html(f'<script>alert(1)</script>.jpg: {bad.value.reason}')
    assert '<script' not in app.answer.value
    assert '\n' not in app.answer.value

    choose(app, version, 'sky.jpg', jpeg('steelblue'))
    assert visible(app) == [app.picture, app.answer]


def test_a_bomb_ends_in_a_line(app, version):
    choose(app, version, 'scans\x1b[31m\n\u202egpj', jpeg_scans(4000, 3000, 9000))
    assert visible(app) == [app.answer]
    assert 'over the limit' in app.answer.value
    assert not {'\x1b', '\n', '\u202e'} & set(app.answer.value)
    assert app.model.asked == 0


def test_a_fault_of_the_model_is_said_raised_and_leaves_no_old_answer(app, version, monkeypatch):
    choose(app, version, 'sky.jpg', jpeg('steelblue'))

    def fail(photo):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(app.model, 'predict', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        choose(app, version, 'other.jpg', jpeg('firebrick'))
    assert visible(app) == [app.answer]
    assert app.prediction is None
    assert 'role="alert"' in app.answer.value


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
def test_every_genus_has_all_four_labels(name):
    assert [label for label, _ in rows(Prediction(((name, 0.5),)))] == [
        'Prediction',
        'Probability',
        'Cloud base',
        'Precipitation',
    ]


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
