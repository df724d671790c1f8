"Pictures that are not skies are refused, skies are not, and the exported file gives the scores that torch gives."

import numpy as np
import onnxruntime
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cloud_classifier.data.sampling import split
from cloud_classifier.evaluation.ood import OODScore, WithOODScore, auroc, fit_ood
from cloud_classifier.prediction.export import export_model
from cloud_classifier.samples import OOD_KINDS, ood_samples, plain_skies
from cloud_classifier.training.config import BadConfig
from cloud_classifier.training.dataloaders import cloud_dls
from cloud_classifier.training.learner import cloud_learner, maps, preprocess_for


@pytest.fixture(scope='module')
def parts(skies):
    return split(skies, valid=0.3, test=0.3, progress=False)


def learner(parts, arch, size=64):
    dls = cloud_dls(parts, preprocess_for(arch, size), bs=8, cache=None, progress=False)
    return cloud_learner(dls, arch, weights='none')


ARCHS = [
    'resnet18',
    *(pytest.param(f'timm/{o}', marks=pytest.mark.soak) for o in ('convnext_atto', 'mobilenetv3_small_050')),
]


@pytest.fixture(scope='module', params=ARCHS)
def fitted(request, parts):
    torch.manual_seed(0)
    learn = learner(parts, request.param)
    return learn, fit_ood(learn, parts.files('train'), parts.files('valid'), drawn=12)


def scores_of(learn, ood_score, photos):
    "The OOD score of each photo."
    preprocess = preprocess_for('resnet18', 64)
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack([preprocess(o) for o in photos]))
        return WithOODScore(learn.model.eval(), ood_score)(pixels)[2].numpy()


def test_drawn_pictures_are_refused_and_skies_are_not(fitted, parts):
    learn, ood_score = fitted
    skies = scores_of(learn, ood_score, parts.files('test'))
    others = scores_of(learn, ood_score, [o for kind in OOD_KINDS for o in ood_samples(8, 64)[kind]])
    assert auroc(skies, others)['value'] > 0.9
    assert np.mean(others >= ood_score.threshold) > 0.5
    valid = scores_of(learn, ood_score, parts.files('valid'))
    assert np.mean(valid >= ood_score.threshold) <= 0.05 + 1 / len(valid)


def test_the_exported_file_gives_what_torch_gives(fitted, parts, tmp_path):
    learn, ood_score = fitted
    file = export_model(learn, tmp_path / 'clouds.onnx', ood_score=ood_score)
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected = WithOODScore(learn.model.eval(), ood_score)(pixels)
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    assert [o.name for o in session.get_outputs()] == ['logits', 'embedding', 'ood_score']
    for found, wanted in zip(session.run(None, {'pixels': pixels.numpy()}), expected, strict=True):
        assert np.allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)


def test_scoring_changes_no_logits(fitted):
    learn, ood_score = fitted
    learn.model.train()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        learn.model.eval()
        logits = learn.model(x)
        found = maps(learn.model[0], x)
        assert torch.allclose(found[-1], learn.model[0](x), atol=1e-5)
        assert torch.allclose(WithOODScore(learn.model, ood_score)(x)[0], logits, atol=1e-5)
    assert len(found) > 2


def test_a_score_is_restored_from_its_state(fitted, parts, tmp_path):
    learn, ood_score = fitted
    torch.save(ood_score.state_dict(), tmp_path / 'ood.pth')
    again = OODScore.from_state(torch.load(tmp_path / 'ood.pth', weights_only=True))
    assert again.threshold == ood_score.threshold
    photos = parts.files('test')[:4]
    assert np.array_equal(scores_of(learn, again, photos), scores_of(learn, ood_score, photos))


def test_few_photos_and_the_same_answer_twice(parts):
    learn = learner(parts, 'timm/test_resnet')
    one, two = (fit_ood(learn, parts.files('train')[:10], parts.files('valid')[:3], drawn=3) for _ in range(2))
    assert one.threshold == two.threshold
    assert all(torch.isfinite(o).all() for o in one.buffers())
    with pytest.raises(BadConfig, match='two photos of skies'):
        fit_ood(learn, parts.files('train')[:1], parts.files('valid'))


@examples(50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_auroc_is_scikit_learns_within_its_interval(skies, others):
    found = auroc(skies, others)
    assert found['value'] == pytest.approx(roc_auc_score([0] * len(skies) + [1] * len(others), skies + others))
    assert 0 <= found['low'] <= found['value'] <= found['high'] <= 1


def test_its_interval_holds_the_truth_95_times_of_100():
    rng, truth = np.random.default_rng(0), 0.7602  # two normals a standard deviation apart
    tests = [auroc(rng.normal(size=60), rng.normal(1, 1, 50)) for _ in range(300)]
    assert 0.90 <= np.mean([o['low'] <= truth <= o['high'] for o in tests]) <= 0.985


def test_pictures_differ_by_seed_and_plain_skies_are_plain():
    assert ood_samples(1, 48, seed=1)['text'][0].tobytes() != ood_samples(1, 48, seed=2)['text'][0].tobytes()
    for sky in plain_skies(6, 64):
        assert np.asarray(sky).std(axis=(0, 1)).max() < 45
        assert len(np.unique(np.asarray(sky).reshape(-1, 3), axis=0)) > 10  # no flat colour
