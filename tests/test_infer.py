"The predictor alone: what it imports, and what it makes of files that are no models."

import hashlib
import html
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cloud_classifier.prediction import infer
from cloud_classifier.prediction.decide import Backoff, BadPrior, Decision
from cloud_classifier.prediction.infer import (
    BadModel,
    CloudClassifier,
    Prediction,
    find_model,
    is_shipped,
    predict_batches,
    seal,
    shipped_model,
)
from cloud_classifier.taxonomy import GENERA, UnknownGenus

HEAVY = {
    'torch',
    'torchvision',
    'fastai',
    'fastcore',
    'pandas',
    'sklearn',
    'scipy',
    'matplotlib',
    'onnx',
    'ipywidgets',
    'rich',
    'typer',
}


def test_prediction_imports_neither_torch_nor_fastai(model, skies):
    "In a process of its own, from file to answer."
    photo = next((skies / 'Cirrus').iterdir())
    code = f'''
import sys
from cloud_classifier.prediction.infer import CloudClassifier
answer = CloudClassifier({str(model)!r}).predict({str(photo)!r})
print(answer.label, *sorted({{m.partition(".")[0] for m in sys.modules}} & {HEAVY!r}))
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    genus, *heavy = done.stdout.split()
    assert genus in GENERA
    assert not heavy


def test_one_photo_and_many_get_the_same_answers(model, skies):
    clouds = CloudClassifier(model)
    photos = sorted(skies.rglob('*.jpg'))[::4]
    for one, many in zip(photos, clouds.predict_many(photos, batch_size=4), strict=True):
        alone = clouds.predict(one)
        assert alone.label == many.label
        assert alone.probability == pytest.approx(many.probability, abs=1e-5)


def test_an_answer_holds_together(model, skies):
    clouds = CloudClassifier(model)
    answer = clouds.predict(next((skies / 'Stratus').iterdir()), k=99)
    assert len(answer.top) == len(clouds.classes) == 3
    assert sum(p for _, p in answer.top) == pytest.approx(1)
    assert [p for _, p in answer.top] == sorted((p for _, p in answer.top), reverse=True)
    genus = GENERA[answer.label]
    assert (answer.level, answer.cloud_base, answer.precipitation) == (genus.level, genus.base, genus.precipitation)
    assert json.loads(json.dumps(answer.as_dict())) == answer.as_dict()


@pytest.mark.parametrize('name', GENERA)
def test_weather_of_each_genus_is_in_its_answer(name):
    d = Prediction(((name, 1.0),)).as_dict()
    assert d['cloud_base'] == list(GENERA[name].base)
    assert d['precipitation'] == GENERA[name].precipitation


class Evil:
    def __reduce__(self):
        return exec, ("open('evil-ran', 'w')",)


def test_a_pickle_is_refused_and_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / 'clouds.onnx').write_bytes(pickle.dumps(Evil(), protocol))
        with pytest.raises(BadModel):
            CloudClassifier('clouds.onnx')
    with pytest.raises(BadModel, match='pickle'):
        CloudClassifier('clouds.onnx')
    assert not (tmp_path / 'evil-ran').exists()


def test_the_learner_from_the_same_folder_is_named_for_what_it_is(run):
    with pytest.raises(BadModel, match='pickle or a PyTorch file'):
        CloudClassifier(run.path / 'learner.pkl')


@pytest.mark.parametrize('share', [0, 0.001, 0.5, 0.999])
def test_a_model_that_is_cut_off(model, tmp_path, share):
    whole = model.read_bytes()
    (tmp_path / 'cut.onnx').write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadModel, match=r'is empty|is cut off|not one that cloud_classifier exported'):
        CloudClassifier(tmp_path / 'cut.onnx')


def test_another_model(tmp_path):
    node = helper.make_node('Relu', ['x'], ['y'])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in 'xy']
    other = helper.make_model(
        helper.make_graph([node], 'other', value[:1], value[1:]),
        opset_imports=[helper.make_opsetid('', 18)],
        ir_version=10,
    )
    onnx.save(other, tmp_path / 'other.onnx')
    with pytest.raises(BadModel, match='not one that cloud_classifier exported'):
        CloudClassifier(tmp_path / 'other.onnx')


WRONG = {
    'format': ['cloud_classifier/99', ''],
    'classes': [
        '[]',
        '["a"]',
        '["Cirrus", "Cirrus", "Stratus"]',
        '"Cirrus"',
        '[1, 2, 3]',
        'Cirrus',
        '["Cirrus", "Stratus"]',
    ],
    'preprocess': ['{}', '{"size": 0}', '{"sizes": 64}', 'null', '{"size": 32}', '{"size": 64, "std": [0, 1, 1]}'],
    'temperature': ['0', '-1', '"hot"', 'NaN', 'Infinity'],
    'card': ['[]', '{'],
    'rules': [
        '[]',
        '{',
        '{"thresholds": {"genus": 2}}',
        '{"thresholds": {"species": 0.5}}',
        '{"thresholds": {}, "x": 1}',
    ],
    'trained': ['[]', '{', '[0.5, 0.5]', '[1, 0, 0]', '[0.5, 0.5, 0.5]', '[NaN, 0.5, 0.5]', '["a", "b", "c"]'],
}


@pytest.mark.parametrize(('key', 'value'), [(k, v) for k, values in WRONG.items() for v in values])
def test_metadata_that_can_not_be(model, tmp_path, key, value):
    with pytest.raises(BadModel):
        CloudClassifier(with_metadata(model, tmp_path / 'wrong.onnx', **{key: value}))


def with_metadata(model, file, **changes):
    "A copy of a model with other metadata; None takes a key out."
    changed = onnx.load(model)
    known = {prop.key: prop.value for prop in changed.metadata_props if prop.key != 'digest'} | changes
    del changed.metadata_props[:]
    helper.set_model_props(changed, {k: v for k, v in known.items() if v is not None})
    file.write_bytes(seal(changed.SerializeToString()))
    return file


def test_a_file_without_rules_is_never_confident_and_rules_nothing_out(model, tmp_path, skies):
    bare = CloudClassifier(with_metadata(model, tmp_path / 'bare.onnx', rules=None, trained=None))
    answer = bare.predict(next((skies / 'Stratus').iterdir()))
    assert answer.decision.verdict == 'unsure'
    assert set(answer.decision.labels) == set(bare.classes)
    assert answer.as_dict()['backoff']['depth'] == 'none'


def test_rules_in_the_file_are_followed(model, tmp_path, skies):
    photos = sorted(skies.rglob('*.jpg'))
    rules = {'thresholds': {'genus': 0.45}, 'conformal': 0.5, 'coverage': 0.9}
    clouds = CloudClassifier(with_metadata(model, tmp_path / 'rules.onnx', rules=json.dumps(rules)))
    said = list(clouds.predict_many(photos))
    for answer in said:
        assert (answer.decision.verdict == 'confident') == (answer.probability >= 0.45)
        assert answer.label in answer.decision.labels
        printed = answer.as_dict()
        assert printed['verdict'] in ('confident', 'unsure', 'not_a_sky')
        assert printed['set'] == list(answer.decision.labels)
        assert set(printed['backoff']) == {'depth', 'name', 'probability', 'members', 'text'}
        json.dumps(printed, allow_nan=False)


def test_a_prior_is_obeyed_and_forgotten(model, skies):
    clouds, photo = CloudClassifier(model), next((skies / 'Stratus').iterdir())
    before = clouds.predict(photo, k=3)
    likely = clouds.predict(photo, k=3, prior={'Cirrus': 0.98})
    assert dict(likely.top)['Cirrus'] > dict(before.top)['Cirrus']
    assert clouds.predict(photo, k=3) == before
    same = clouds.predict(photo, k=3, prior=dict(zip(clouds.classes, clouds.trained.tolist(), strict=True)))
    assert dict(same.top) == pytest.approx(dict(before.top))
    with pytest.raises(BadPrior, match='between'):
        clouds.predict(photo, prior={'Cirrus': 2})
    with pytest.raises(UnknownGenus, match='Zirrus'):
        clouds.predict(photo, prior={'Zirrus': 0.2})


@pytest.fixture
def none_ships(monkeypatch):
    "An installation without the model that ships."
    monkeypatch.setattr(infer, 'shipped_model', lambda: None)


def test_which_model_is_found(tmp_path, monkeypatch, none_ships):
    monkeypatch.delenv('CLOUD_MODEL', raising=False)
    with pytest.raises(BadModel, match=r'there is no model: .* install cloud_classifier again'):
        find_model(root=tmp_path)
    for name in ('runs/a/clouds.onnx', 'runs/b/clouds.onnx', 'clouds.onnx'):
        (tmp_path / 'models' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'models' / name).touch()
        assert find_model(root=tmp_path) == tmp_path / 'models' / name
    monkeypatch.setenv('CLOUD_MODEL', 'mine.onnx')
    with pytest.raises(BadModel, match=r'\$CLOUD_MODEL names mine.onnx: there is no such model file'):
        find_model(root=tmp_path)
    (tmp_path / 'mine.onnx').write_text('a model')
    assert [str(find_model(root=tmp_path)), str(find_model('given.onnx', tmp_path))] == ['mine.onnx', 'given.onnx']


def test_the_model_that_ships_comes_last(tmp_path, monkeypatch):
    "In a checkout it is models/clouds.onnx; whoever has trained there means the newest run."
    monkeypatch.delenv('CLOUD_MODEL', raising=False)
    shipped = tmp_path / 'checkout' / 'models' / 'clouds.onnx'
    shipped.parent.mkdir(parents=True)
    shipped.touch()
    monkeypatch.setattr(infer, 'shipped_model', lambda: shipped)
    assert [find_model(root=o) for o in (tmp_path, shipped.parents[1])] == [shipped, shipped]
    assert is_shipped(shipped)
    run = shipped.parent / 'runs' / 'a' / 'clouds.onnx'
    run.parent.mkdir(parents=True)
    run.touch()
    assert find_model(root=shipped.parents[1]) == run
    own = tmp_path / 'models' / 'clouds.onnx'
    own.parent.mkdir()
    own.touch()
    assert find_model(root=tmp_path) == own
    assert not is_shipped(own)
    assert not is_shipped('a\0b')
    assert not is_shipped(tmp_path / 'none.onnx')


def test_where_the_model_that_ships_lies(tmp_path, monkeypatch):
    "Inside the package, or in the checkout around it; a folder of libraries is no checkout."
    import cloud_classifier

    package = tmp_path / 'cloud_classifier'
    monkeypatch.setattr(cloud_classifier, '__file__', str(package / '__init__.py'))
    outer, inner = tmp_path / 'models' / 'clouds.onnx', package / 'models' / 'clouds.onnx'
    for file in (outer, inner):
        file.parent.mkdir(parents=True)
    outer.touch()
    assert shipped_model() is None
    (tmp_path / 'settings.ini').touch()
    assert shipped_model() == outer
    inner.touch()
    assert shipped_model() == inner


class Opened:
    "Stands for the preprocessing: keeps which photos were opened."

    def __init__(self):
        self.photos = []

    def __call__(self, photo):
        self.photos.append(photo)
        return np.full(1, photo)


def test_photos_are_opened_one_batch_ahead_and_no_further():
    "Thousands of them must not fill the memory."
    opened, most = Opened(), []

    def ask(pixels):
        most.append(len(opened.photos))
        return pixels[:, 0]

    assert list(predict_batches(opened, list(range(100)), ask, 8)) == list(range(100))
    assert all(n <= 8 * (i + 2) for i, n in enumerate(most))


def test_an_iterator_is_asked_for_no_more_than_a_batch():
    "The next photo may not be there before the last one has its answer."
    taken = []

    def photos():
        for i in range(6):
            taken.append(i)
            yield i

    for i, answer in enumerate(predict_batches(Opened(), photos(), lambda pixels: pixels[:, 0], 1)):
        assert answer == i
        assert taken == list(range(i + 1))


def test_answers_that_nobody_waits_for_leave_no_threads():
    before = threading.active_count()
    answers = predict_batches(Opened(), list(range(100)), lambda pixels: pixels[:, 0], 8)
    assert next(answers) == 0
    answers.close()
    assert threading.active_count() == before


def test_only_files_are_found(tmp_path, monkeypatch, none_ships):
    "Folders of that name, links to nothing, and what a killed export left."
    monkeypatch.delenv('CLOUD_MODEL', raising=False)
    runs = tmp_path / 'models' / 'runs'
    for name in ('a', 'b', 'c'):
        (runs / name).mkdir(parents=True)
    (tmp_path / 'models' / 'clouds.onnx').mkdir()
    (runs / 'a' / 'clouds.onnx').mkdir()
    (runs / 'b' / 'clouds.onnx').symlink_to('nowhere')
    (runs / 'c' / '.clouds.onnx.123-456.tmp').write_text('half')
    with pytest.raises(BadModel, match='there is no model: '):
        find_model(root=tmp_path)
    (runs / 'c' / 'clouds.onnx').touch()
    assert find_model(root=tmp_path) == runs / 'c' / 'clouds.onnx'


def test_paths_that_are_no_files(tmp_path):
    "Each gets a line at once; a pipe that nobody writes to is not waited for."
    (tmp_path / 'run').mkdir()
    os.mkfifo(tmp_path / 'pipe.onnx')
    (tmp_path / 'loop.onnx').symlink_to('loop.onnx')
    (tmp_path / 'empty.onnx').touch()
    with open(tmp_path / 'vast.onnx', 'wb') as f:
        f.truncate(5_000_000_000)
    says = {
        'run': 'is a folder',
        'pipe.onnx': 'is a device or a pipe',
        '/dev/zero': 'is a device or a pipe',
        'loop.onnx': 'can’t be read',
        'x' * 300: 'can’t be read',
        'a\0b': 'can’t be read',
        'run/clouds.onnx': 'there is no such model file',
        'empty.onnx/clouds.onnx': 'can’t be read',
        'empty.onnx': 'is empty',
        'vast.onnx': '5.0 GB large',
    }
    for name, words in says.items():
        start = time.monotonic()
        with pytest.raises(BadModel, match=words):
            CloudClassifier(tmp_path / name)
        assert time.monotonic() - start < 1, name


def test_a_folder_for_a_model_is_told_where_the_model_is(run, model, tmp_path, monkeypatch):
    with pytest.raises(BadModel, match=r'is a folder; .*this one’s is .*clouds\.onnx'):
        CloudClassifier(run.path)
    (tmp_path / 'run.json').touch()
    with pytest.raises(BadModel, match=r'`cloud-classifier export .*` writes one'):
        CloudClassifier(tmp_path)
    monkeypatch.setenv('CLOUD_MODEL', str(tmp_path))
    with pytest.raises(BadModel, match=r'\$CLOUD_MODEL names .*`cloud-classifier export .*` writes one'):
        find_model()


def test_the_folder_of_a_run_is_a_model_where_one_is_looked_for(run, monkeypatch):
    file = run.path / 'clouds.onnx'
    assert find_model(run.path) == find_model(str(run.path)) == find_model(file) == file
    monkeypatch.setenv('CLOUD_MODEL', str(run.path))
    assert find_model() == file
    monkeypatch.chdir(run.path.parent)
    assert find_model(run.path.name) == Path(run.path.name, 'clouds.onnx')
    monkeypatch.setenv('CLOUD_MODEL', run.path.name)
    assert find_model() == find_model(root=run.path.parent) == Path(run.path.name, 'clouds.onnx')


def test_an_answer_names_its_model(run, model, skies, tmp_path):
    "By its run or its file's name, and by what `sha256sum` begins with."
    photo = next((skies / 'Stratus').iterdir())
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    copy = shutil.copy(model, tmp_path / 'my \n clouds.onnx')
    for path, name in ((model, run.path.name), (copy, r'my \n clouds')):
        clouds = CloudClassifier(path)
        assert {o.model for o in (clouds.predict(photo), *clouds.predict_many([photo]))} == {f'{name}@{sha256[:8]}'}
        assert clouds.predict(photo).as_dict()['model'] == clouds.info.name


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may read everything')
def test_a_file_that_may_not_be_read(model, tmp_path):
    shutil.copy(model, tmp_path / 'mine.onnx')
    (tmp_path / 'mine.onnx').chmod(0)
    with pytest.raises(BadModel, match='can’t be read'):
        CloudClassifier(tmp_path / 'mine.onnx')


def test_a_path_in_any_encoding(model, tmp_path, skies):
    "Latin-1 names from an old disk: what ONNX Runtime can't open by name, it is given."
    odd = tmp_path / os.fsdecode(b'cirrus d\xe9t\xe9.onnx')
    try:
        shutil.copy(model, odd)
    except OSError:
        pytest.skip('this file system takes UTF-8 names alone')
    photo = next((skies / 'Cirrus').iterdir())
    expected = CloudClassifier(model).predict(photo)
    assert replace(CloudClassifier(odd).predict(photo), model=expected.model) == expected


def test_a_file_that_becomes_another_while_it_is_opened(model, tmp_path, monkeypatch):
    "The classes of one model must not stand beside the network of another."

    shutil.copy(model, tmp_path / 'clouds.onnx')
    session = infer._load_network

    def slowly(*args):
        shutil.copy(model, tmp_path / 'new.onnx')
        os.replace(tmp_path / 'new.onnx', tmp_path / 'clouds.onnx')
        return session(*args)

    monkeypatch.setattr(infer, '_load_network', slowly)
    with pytest.raises(BadModel, match='was changed while it was read'):
        CloudClassifier(tmp_path / 'clouds.onnx')


def test_nothing_is_told_to_anybody(model, skies, tmp_path):
    "A prediction leaves no trace in the user's folders: ONNX Runtime would keep a record there to send home."
    photo = next(skies.rglob('*.jpg'))
    predict = f'CloudClassifier({str(model)!r}).predict({str(photo)!r})'
    code = f'from cloud_classifier.prediction.infer import CloudClassifier; {predict}'
    env = {k: v for k, v in os.environ.items() if not k.startswith(('ORT_', 'XDG_'))} | {'HOME': str(tmp_path)}
    subprocess.run([sys.executable, '-c', code], env=env, check=True)
    assert list(tmp_path.rglob('*')) == []


def test_a_notebook_and_a_terminal_show_an_answer(model, skies):
    answer = CloudClassifier(model).predict(next((skies / 'Stratus').iterdir()))
    page, line = answer._repr_html_(), repr(answer)
    assert '\n' not in line
    for text in (*(label for label, _ in answer.top), answer.model, answer.decision.verdict_text):
        assert text in line
    for text in (answer.label, answer.model, *(cue for _, cue in infer.lookalikes(answer))):
        assert html.escape(text) in page
    assert page.count('</b></i>') == 3


@pytest.mark.parametrize('name', ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "a'b&c"])
def test_what_a_model_calls_its_classes_is_shown_and_never_obeyed(name):
    verdicts = [Decision(o, (name, 'x'), Backoff('none', '')) for o in ('confident', 'unsure', 'not_a_sky')]
    for decision in verdicts:
        page = Prediction(((name, 0.5), ('x', 0.5)), decision, model=name)._repr_html_()
        assert name not in page.partition('</style>')[2]
        assert html.escape(name) in page
        assert page.count('<img') == page.count('<script') == 0
