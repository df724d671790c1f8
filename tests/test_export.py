"The exported file, the learner and the one preprocessing, on real JPEGs."

import os
import random
import re
import shutil
import signal
import sys
import time

import numpy as np
import onnx
import pytest
import torch

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.sampling import split
from cloud_classifier.evaluation.calibrate import Calibration
from cloud_classifier.images import Preprocess, preprocess_of
from cloud_classifier.prediction import export
from cloud_classifier.prediction.export import ParityError, check_parity, export_model, export_run
from cloud_classifier.prediction.infer import METADATA, BadModel, CloudClassifier, find_model
from cloud_classifier.training.callbacks import CPUBFloat16
from cloud_classifier.training.config import BadConfig
from cloud_classifier.training.dataloaders import cloud_dls
from cloud_classifier.training.learner import cloud_learner

pytestmark = pytest.mark.usefixtures('traced_once')


@pytest.fixture(scope='module', params=[('resnet18', 3), pytest.param(('resnet34', 10), marks=pytest.mark.soak)])
def size(request):
    "A network, and how many photos of each class there are for it."
    return request.param


@pytest.fixture(scope='module')
def photos(size, ccsn, tmp_path_factory):
    "Real JPEGs of all classes, in a folder of their own; in `make soak` a hundred."
    root, listing = tmp_path_factory.mktemp('ccsn'), Dataset(ccsn).listing()
    paths = listing.groupby('label').sample(size[1], random_state=0).path[:100]
    for photo in paths:
        (root / photo).parent.mkdir(exist_ok=True)
        shutil.copy(ccsn / photo, root / photo)
    return [root / photo for photo in paths]


@pytest.fixture(scope='module')
def learner(size, photos):
    "A network at 224 pixels over the real photos; untrained, because what is compared is not whether it is right."
    torch.manual_seed(0)
    return cloud_learner(cloud_dls(split(photos[0].parents[1], group_by=()), bs=16), size[0], weights='none')


@pytest.fixture(scope='module')
def exported(learner, tmp_path_factory):
    "That learner's file. It has seen some photos, so that its normalisation is not the identity."
    learner.model.train()
    with torch.no_grad():
        for _, (x, _) in zip(range(3), learner.dls.train, strict=False):
            learner.model(x)
    return export_model(learner, tmp_path_factory.mktemp('export') / 'clouds.onnx')


def test_learner_and_file_agree_on_real_photos(learner, exported, photos):
    assert check_parity(learner, exported, photos) <= 1e-4


def test_answers_differ_between_photos(exported, photos):
    "Agreement would be cheap if each photo got the same answer."
    clouds = CloudClassifier(exported)
    probs = clouds.probabilities(np.stack([clouds.preprocess(p) for p in photos[::10]]))
    assert probs.std(axis=0).max() > 1e-3


def test_validation_sees_the_pixels_of_the_predictor(learner, photos):
    dl = learner.dls.test_dl(photos, num_workers=0)
    pixels = torch.cat([batch[0] for batch in dl]).cpu().numpy()
    pre = preprocess_of(learner)
    assert pre == Preprocess(224)
    assert abs(pixels - np.stack([pre(p) for p in photos])).max() < 1e-6


def test_large_photos_take_the_same_road(learner, exported, tmp_path):
    "A 12-megapixel photo is decoded as a draft, by the learner and by the predictor alike."
    from cloud_classifier.samples import render_sky

    for seed, genus in enumerate(('Cirrus', 'Stratocumulus')):
        render_sky(genus, 512, seed=seed).resize((4000, 3000)).save(tmp_path / f'{genus}.jpg', quality=92)
    assert check_parity(learner, exported, sorted(tmp_path.iterdir())) <= 1e-4


def test_the_file_is_all_there_is(exported):
    "One file, valid by ONNX's own checker, with a free number of photos and all metadata."
    assert [p.name for p in exported.parent.iterdir()] == ['clouds.onnx']
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    assert {p.key for p in model.metadata_props} >= set(METADATA)
    clouds = CloudClassifier(exported)
    x = np.random.default_rng(0).normal(size=(5, 3, 224, 224)).astype(np.float32)
    assert np.allclose(
        clouds.probabilities(x), np.concatenate([clouds.probabilities(x[i : i + 1]) for i in range(5)]), atol=1e-6
    )


def test_exporting_leaves_the_learner_as_it_was(run, tmp_path, traced_once, monkeypatch):
    monkeypatch.setattr(export, '_to_onnx', traced_once)
    learn = run.learner()
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    for training in (True, False):
        learn.model.train(training)
        export_model(learn, tmp_path / 'again.onnx')
        assert learn.model.training == training
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert preprocess_of(learn) == run.preprocess


def test_a_temperature_is_obeyed(run, tmp_path, skies):
    "Divided logits: softer answers, the same genus, and parity still holds."
    learn, photos = run.learner(), [skies / p for p in Dataset(skies).listing().path[::5]]
    plain = CloudClassifier(export_model(learn, tmp_path / 'plain.onnx'))
    soft = CloudClassifier(export_model(learn, tmp_path / 'soft.onnx', calibration=Calibration(3)))
    a, b = ([clouds.predict(photo) for photo in photos] for clouds in (plain, soft))
    assert [x.label for x in a] == [x.label for x in b]
    assert sum(x.probability for x in a) > sum(x.probability for x in b)
    assert check_parity(learn, tmp_path / 'soft.onnx', photos) <= 1e-4


def test_a_failed_export_leaves_what_was_there(run, model, monkeypatch):
    before = model.read_bytes()
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        export_model(run.learner(), model)
    assert model.read_bytes() == before


@pytest.fixture
def learn(run):
    return run.learner()


def files(folder):
    return sorted(p.name for p in folder.iterdir() if p.is_file())


def test_parity_is_that_of_float32_whatever_a_learner_trains_in(learn, skies, tmp_path):
    "Under autocast the same network differs by 1e-3 and more, on processors without the instructions too."
    photos = [skies / p for p in Dataset(skies).listing().path[::5]]
    learn.add_cb(CPUBFloat16())
    with learn.no_bar(), torch.autocast('cpu', torch.bfloat16):
        low, _ = learn.get_preds(dl=learn.dls.test_dl(photos, num_workers=0))
    file = export_model(learn, tmp_path / 'clouds.onnx', photos=photos)
    assert check_parity(learn, file, photos) < 1e-5
    clouds = CloudClassifier(file)
    found = np.concatenate([clouds.probabilities(clouds.preprocess(p)[None]) for p in photos])
    assert abs(found - low.float().numpy()).max() > 1e-5
    with torch.autocast('cpu', torch.bfloat16):
        assert check_parity(learn, file, photos) < 1e-5
        assert check_parity(learn, export_model(learn, file, photos=photos), photos) < 1e-5


def other_network(monkeypatch):
    "Have the next export write a network that is not the learner's."
    graph = export._to_onnx

    def wrong(*args):
        model = graph(*args)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
                values = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values[:, ::-1].copy() + 1, tensor.name))
        return model

    monkeypatch.setattr(export, '_to_onnx', wrong)


@pytest.mark.parametrize('write', [export_model, lambda learn, path: export_run(learn, path)])
def test_a_file_that_failed_is_never_there(write, run, learn, tmp_path, monkeypatch):
    "Neither in an empty place nor in that of a good one."
    source = learn if write is export_model else run
    good = export_model(learn, tmp_path / 'good' / 'clouds.onnx')
    before = good.read_bytes()
    other_network(monkeypatch)
    for path in (tmp_path / 'new' / 'clouds.onnx', good):
        with pytest.raises(ParityError, match=re.escape(f'{path}: differs from the learner by')):
            write(source, path)
    assert files(tmp_path / 'new') == []
    assert files(good.parent) == ['clouds.onnx']
    assert good.read_bytes() == before


def test_a_network_that_answers_with_nan_is_not_written(learn, tmp_path):
    torch.nn.init.constant_(next(learn.model.parameters()), torch.nan)
    with pytest.raises(BadConfig, match=r'clouds.onnx: is not written, .*answers with NaN'):
        export_model(learn, tmp_path / 'clouds.onnx')
    assert files(tmp_path) == []


@pytest.mark.parametrize('card', [{'loss': float('nan')}, {'loss': [float('inf')]}])
def test_a_card_that_is_no_json_is_not_written(learn, tmp_path, card):
    with pytest.raises(ValueError, match='JSON compliant'):
        export_model(learn, tmp_path / 'clouds.onnx', card=card)
    assert files(tmp_path) == []


def test_a_class_that_can_not_be_shown_is_not_written(learn, tmp_path, monkeypatch):
    "A folder may have any name; who reads the file would refuse it."
    monkeypatch.setattr(learn.dls, 'vocab', ['Cirrus', 'Stratus', os.fsdecode(b'caf\xe9')], raising=False)
    with pytest.raises(BadConfig, match=r"no predictor would take it: a class is named 'caf\\udce9'"):
        export_model(learn, tmp_path / 'clouds.onnx')
    assert files(tmp_path) == []


def test_a_full_disk(learn, small_disk):
    "The model is larger than the disk."
    good = small_disk / 'clouds.onnx'
    good.write_text('a good model')
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{good}'")):
        export_model(learn, good)
    assert good.read_text() == 'a good model'
    assert files(small_disk) == ['clouds.onnx']


def test_places_that_can_not_be(learn, run, tmp_path, command):
    with pytest.raises(BadConfig, match='is a folder; name the file to write, such as'):
        export_model(learn, tmp_path)
    status, out, err = command('export', run.path, '--out', tmp_path)
    assert (status, out, err.count('\n')) == (2, '', 1)
    (tmp_path / 'file').touch()
    with pytest.raises(OSError):
        export_model(learn, tmp_path / 'file' / 'clouds.onnx')
    assert export_model(learn, tmp_path / 'a' / 'b' / 'clouds.onnx').is_file()


def test_no_path_of_this_machine_is_in_the_file(model):
    "The exporter notes the lines of the code that each operator comes from."
    data = model.read_bytes()
    for word in (sys.prefix, os.path.dirname(torch.__file__), 'site-packages', 'stack_trace'):
        assert word.encode() not in data


SLOW_EXPORT = """
import time
from cloud_classifier.prediction import export
from cloud_classifier.training.run import Run
def prove(*args):
    print('proving', flush=True)
    time.sleep(600)
export._max_difference = prove
export.export_model(Run(RUN).learner(), OUT)
"""


@pytest.mark.parametrize('signum', [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.soak)])
def test_an_export_that_is_ended_leaves_no_model(signum, server, run, learn, tmp_path, monkeypatch):
    "While it proves the file: what was being written is no model, and the next export takes it away."
    monkeypatch.delenv('CLOUD_MODEL', raising=False)
    folder = tmp_path / 'models' / 'runs' / 'a'
    folder.mkdir(parents=True)
    path = folder / 'clouds.onnx'
    child = server.start(SLOW_EXPORT.replace('RUN', repr(str(run.path))).replace('OUT', repr(str(path))))
    child.wait_for(lambda: files(folder) and 'proving' in child.said())
    [part] = files(folder)
    child.kill(signum)
    assert child.wait() != 0
    assert files(folder) == ([part] if signum == signal.SIGKILL else [])
    monkeypatch.setattr('cloud_classifier.prediction.infer.shipped_model', lambda: None)
    with pytest.raises(BadModel, match='there is no model: '):
        find_model(root=tmp_path)
    assert export_model(learn, path) == find_model(root=tmp_path)
    assert files(folder) == ['clouds.onnx']


@pytest.mark.soak
def test_an_export_that_is_killed_thirty_times_leaves_the_file_before_or_the_new_one(server, run, tmp_path):
    "Each kill -9 is really sent; what there is answers, and the next export goes on."
    folder, chance = tmp_path / 'models' / 'runs' / 'a', random.Random(30)
    folder.mkdir(parents=True)
    path = folder / 'clouds.onnx'
    code = (
        'from cloud_classifier.prediction.export import export_run\nfrom cloud_classifier.training.run import Run\n'
        f'export_run(Run({str(run.path)!r}), {str(path)!r})'
    )
    server.run(code)  # which also finds out what the run's answers may claim, once
    start = time.monotonic()
    server.run(code)
    whole, killed = time.monotonic() - start, 0
    pixels = np.zeros((1, 3, run.preprocess.size, run.preprocess.size), np.float32)
    logits = CloudClassifier(path).run(pixels)[0]
    while killed < 30:
        child = server.start(code)
        time.sleep(chance.uniform(0, whole))
        if child.poll() is None:
            child.kill()
            killed += child.wait() == -signal.SIGKILL
        assert np.allclose(CloudClassifier(find_model(path)).run(pixels)[0], logits, atol=1e-4)
    server.run(code)
    assert files(folder) == ['clouds.onnx']


def test_what_another_export_is_writing_stays(learn, tmp_path):
    part = tmp_path / f'.clouds.onnx.{os.getppid()}-1.tmp'
    part.touch()
    export_model(learn, tmp_path / 'clouds.onnx')
    assert part.exists()


def test_loading_does_not_change_answers(model, skies):
    "Looked through, bounded and in a thread of its own: the numbers are ONNX Runtime's."
    import onnxruntime as ort

    clouds = CloudClassifier(model)
    pixels = np.stack([clouds.preprocess(p) for p in sorted(skies.rglob('*.jpg'))[::6]])
    [bare] = ort.InferenceSession(str(model), providers=['CPUExecutionProvider']).run(None, {'pixels': pixels})
    assert np.array_equal(clouds.run(pixels)[0], bare.astype(float))
