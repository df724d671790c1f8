"The head that looks at texture, and the embeddings that it is solved from."

import logging

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.sampling import split
from cloud_classifier.images import Preprocess
from cloud_classifier.training.callbacks import training_precision
from cloud_classifier.training.config import BadConfig
from cloud_classifier.training.dataloaders import PhotoCache, cloud_dls
from cloud_classifier.training.learner import (
    cloud_learner,
    fit_head,
    maps,
    moments,
    moments_head,
    preprocess_for,
    split_moments,
)
from cloud_classifier.training.recipes import RECIPES, best, embed, embeddings, fast

LITE = 'tf_efficientnet_lite0'


@pytest.fixture(scope='module')
def learn(skies):
    torch.manual_seed(0)
    dls = cloud_dls(split(skies), preprocess_for(LITE, 64), bs=8, balance='weighted', progress=False)
    return cloud_learner(dls, LITE, head='moments')


@examples(20)
@given(
    st.integers(1, 3), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=3), st.booleans()
)
def test_moments_are_those_of_numpy(n, shapes, flat):
    rng = np.random.default_rng(n)
    found = [rng.normal(3, 0 if flat else 2, (n, c, side, side)).astype('float32') for c, side in shapes]
    means = np.concatenate([o.mean((2, 3)) for o in found], 1)
    spreads = np.concatenate([o.std((2, 3)) for o in found], 1)
    said = moments([torch.tensor(o) for o in found]).numpy()
    assert np.allclose(said, np.concatenate([means, spreads], 1), atol=2e-3)


def test_a_map_without_spread_has_a_gradient():
    x = torch.ones(1, 2, 3, 3, requires_grad=True)
    moments([x]).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_making_a_learner_leaves_the_statistics_of_its_weights_alone(learn):
    "A picture that is shown to a new network to learn its shape must not count as a photo."
    norms = [m for m in learn.model[0].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert {int(norm.num_batches_tracked) for norm in norms} == {0}


def test_the_body_is_walked_through_once(learn):
    "What OOD score and the head look at are the same maps."
    calls = []
    hook = learn.model[0].body.model.conv_stem.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        found = maps(learn.model.eval()[0], torch.zeros(1, 3, 64, 64))
    hook.remove()
    assert calls == [1]
    assert len(found) == 8
    assert moments(found).shape[1] == learn.model[1][-1].in_features


def test_groups_hold_each_parameter_once(learn):
    groups = split_moments(learn.model)
    ids = [id(p) for group in groups for p in group]
    assert sorted(ids) == sorted(map(id, learn.model.parameters()))
    assert min(map(len, groups)) > 0


def test_no_layer_that_is_kept_has_a_gradient(learn):
    learn.freeze_to(1)
    first, rest, head = split_moments(learn.model)
    assert not any(p.requires_grad for p in first)
    assert all(p.requires_grad for p in [*rest, *head])


@pytest.mark.parametrize('classes', [2, 3, 7])
def test_a_solved_head_says_what_scikit_learn_says(classes):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(classes)
    rows = rng.normal(2, 3, (300, 6)).astype('float32')
    targets = np.r_[np.arange(classes), rng.integers(0, classes, 300 - classes)]
    head = moments_head(6, classes).eval()
    fit_head(head, rows, targets)
    x = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    told = LogisticRegression(C=3e-3, max_iter=1000).fit(x, targets).predict_proba(x)
    with torch.no_grad():
        said = head(torch.tensor(rows)).softmax(1).numpy()
    assert np.allclose(said, told, atol=1e-4)


def test_solving_leaves_the_body_as_it_was_and_a_head_that_knows(skies, learn):
    before = {k: v.clone() for k, v in learn.model[0].state_dict().items()}
    with learn.no_bar(), learn.no_logging():
        fast(learn)
    assert all(torch.equal(v, before[k]) for k, v in learn.model[0].state_dict().items())
    train_loss, valid_loss, error = learn.recorder.values[-1]
    assert np.isfinite([train_loss, valid_loss]).all()
    assert error < 0.5  # of the kinds of rendered skies


def test_fast_on_a_head_that_cant_be_solved_says_which_can(skies):
    dls = cloud_dls(split(skies), preprocess_for(LITE, 64), bs=8, progress=False)
    learn = cloud_learner(dls, LITE)
    with pytest.raises(BadConfig, match="head='moments'"):
        fast(learn)


def test_best_leaves_the_first_layers_and_all_statistics(skies):
    dls = cloud_dls(split(skies), preprocess_for(LITE, 64), bs=8, progress=False)
    learn = cloud_learner(dls, LITE, head='moments')
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with learn.no_bar(), learn.no_logging(), training_precision('fp32', learn):
        best(learn, 2)
    after = learn.model.state_dict()
    changed = {k for k, v in after.items() if not torch.equal(v, before[k])}
    assert not [k for k in changed if 'running' in k or 'conv_stem' in k or 'blocks.0' in k or 'blocks.1' in k]
    assert [k for k in changed if 'blocks.3' in k]


def test_what_best_leaves_lies_between_its_beginning_and_its_average(skies):
    from cloud_classifier.training.callbacks import EMA

    average = EMA(0.5, blend=0.25)
    average.average, average.start = {'w': torch.tensor([4.0])}, {'w': torch.tensor([0.0])}
    assert average.result()['w'].item() == 3.0
    again = EMA(0.5, blend=0.25)
    again.restore(average.state())
    assert again.result()['w'].item() == 3.0


class Body(nn.Module):
    "Counts the photos that it is asked for; a black square only shows where norms are."

    def __init__(self):
        super().__init__()
        self.layer, self.asked = nn.Conv2d(3, 2, 1), 0

    def forward(self, x):
        self.asked += int(x.flatten(1).any(1).sum())
        return moments([self.layer(x)])


def test_embeddings_are_asked_for_once_a_view_and_kept(skies, tmp_path):
    body, cache, paths = Body(), PhotoCache(tmp_path), Dataset(skies).listing().path.tolist()[:12]
    first = embeddings(body, skies, paths, Preprocess(32), cache, progress=False)
    assert body.asked == 24
    again = embeddings(body, skies, paths[::-1], Preprocess(32), cache, progress=False)
    assert body.asked == 24
    assert np.array_equal(first, again[::-1])
    more = embeddings(body, skies, [*paths, Dataset(skies).listing().path[12]], Preprocess(32), cache, progress=False)
    assert body.asked == 26
    assert np.array_equal(more[:-1], first)


@pytest.mark.parametrize('what', ['weights', 'size', 'precision'])
def test_another_network_size_or_precision_has_embeddings_of_its_own(skies, tmp_path, what):
    body, cache, paths = Body(), PhotoCache(tmp_path), Dataset(skies).listing().path.tolist()[:2]
    embeddings(body, skies, paths, Preprocess(32), cache, progress=False)
    if what == 'weights':
        with torch.no_grad():
            body.layer.weight += 1
    size, precision = 48 if what == 'size' else 32, 'bf16' if what == 'precision' else 'fp32'
    embeddings(body, skies, paths, Preprocess(size), cache, precision, progress=False)
    assert body.asked == 8


def test_a_spoilt_file_of_embeddings_is_made_again(skies, tmp_path):
    body, cache, paths = Body(), PhotoCache(tmp_path), Dataset(skies).listing().path.tolist()[:2]
    rows = embeddings(body, skies, paths, Preprocess(32), cache, progress=False)
    (file,) = cache.files()
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(embeddings(body, skies, paths, Preprocess(32), cache, progress=False), rows)
    assert body.asked == 8
    assert np.array_equal(embeddings(body, skies, paths, Preprocess(32), cache, progress=False), rows)
    assert body.asked == 8


def test_a_cache_that_cant_be_written_is_said_and_done_without(skies, tmp_path, caplog):
    (tmp_path / 'cache').write_text('a file')
    paths = Dataset(skies).listing().path.tolist()[:2]
    with caplog.at_level(logging.WARNING):
        rows = embeddings(Body(), skies, paths, Preprocess(32), PhotoCache(tmp_path / 'cache'), progress=False)
    assert rows.shape[:2] == (2, 2)
    assert "embeddings can't be kept there" in caplog.text


def test_batches_of_any_size_give_the_same(skies):
    body, photos = Body(), [skies / o for o in Dataset(skies).listing().path[:7]]
    whole = embed(body, photos, Preprocess(32), bs=7, progress=False)
    for bs in (1, 3, 32):
        assert np.allclose(embed(body, photos, Preprocess(32), bs=bs, progress=False), whole, atol=1e-5)


def test_every_recipe_says_which_head_it_takes():
    assert {name for name, recipe in RECIPES.items() if recipe.head == 'moments'} == {'fast', 'best'}
