"The exported file, the learner and the one preprocessing, on real JPEGs."

import numpy as np
import onnx
import pytest
import torch

from cloud_classifier.calibrate import Trust
from cloud_classifier.dataset import Dataset
from cloud_classifier.export import check_parity, export_model
from cloud_classifier.images import Preprocess, preprocess_of
from cloud_classifier.infer import METADATA, CloudClassifier
from cloud_classifier.sampling import split
from cloud_classifier.train import cloud_dls, cloud_learner


@pytest.fixture(scope='module')
def hundred(ccsn):
    "A hundred real JPEGs, of all classes."
    frame = Dataset(ccsn).listing().groupby('label').sample(10, random_state=0)
    return [ccsn / p for p in frame.path][:100]


@pytest.fixture(scope='module')
def learner(ccsn):
    "resnet34 at 224 pixels over the real photos; untrained, because what is compared is not whether it is right."
    torch.manual_seed(0)
    return cloud_learner(cloud_dls(split(ccsn, group_by=()), bs=16), 'resnet34', weights='none')


@pytest.fixture(scope='module')
def exported(learner, tmp_path_factory):
    "That learner's file. It has seen some photos, so that its normalisation is not the identity."
    learner.model.train()
    with torch.no_grad():
        for _, (x, _) in zip(range(3), learner.dls.train, strict=False):
            learner.model(x)
    return export_model(learner, tmp_path_factory.mktemp('export') / 'clouds.onnx')


def test_learner_and_file_agree_on_a_hundred_real_photos(learner, exported, hundred):
    assert check_parity(learner, exported, hundred) <= 1e-4


def test_answers_differ_between_photos(exported, hundred):
    "Agreement would be cheap if each photo got the same answer."
    clouds = CloudClassifier(exported)
    probs = clouds.probabilities(np.stack([clouds.preprocess(p) for p in hundred[::10]]))
    assert probs.std(axis=0).max() > 1e-3


def test_validation_sees_the_pixels_of_the_predictor(learner, hundred):
    dl = learner.dls.test_dl(hundred, num_workers=0)
    pixels = torch.cat([batch[0] for batch in dl]).cpu().numpy()
    pre = preprocess_of(learner)
    assert pre == Preprocess(224)
    assert abs(pixels - np.stack([pre(p) for p in hundred])).max() < 1e-6


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


def test_exporting_leaves_the_learner_as_it_was(run, tmp_path):
    learn = run.learner()
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    for training in (True, False):
        learn.model.train(training)
        export_model(learn, tmp_path / 'again.onnx')
        assert learn.model.training == training
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert preprocess_of(learn) == Preprocess(64)


def test_a_temperature_is_obeyed(run, tmp_path, skies):
    "Divided logits: softer answers, the same genus, and parity still holds."
    learn, photos = run.learner(), [skies / p for p in Dataset(skies).listing().path[::5]]
    plain = CloudClassifier(export_model(learn, tmp_path / 'plain.onnx'))
    soft = CloudClassifier(export_model(learn, tmp_path / 'soft.onnx', trust=Trust(3)))
    a, b = ([clouds.predict(photo) for photo in photos] for clouds in (plain, soft))
    assert [x.genus for x in a] == [x.genus for x in b]
    assert sum(x.probability for x in a) > sum(x.probability for x in b)
    assert check_parity(learn, tmp_path / 'soft.onnx', photos) <= 1e-4


def test_a_failed_export_leaves_what_was_there(run, model, monkeypatch):
    before = model.read_bytes()
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        export_model(run.learner(), model)
    assert model.read_bytes() == before
