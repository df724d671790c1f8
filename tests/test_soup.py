"Runs that are averaged."

import json

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from cloud_classifier.data.sampling import split
from cloud_classifier.prediction.export import export_run
from cloud_classifier.prediction.infer import CloudClassifier
from cloud_classifier.training.config import BadConfig, BadRun, default_arch, write_json
from cloud_classifier.training.learner import network
from cloud_classifier.training.run import Run, average_states, ensemble, soup, train


@pytest.fixture(scope='module')
def runs(skies, tmp_path_factory):
    place, parts = tmp_path_factory.mktemp('soup'), split(skies)
    how = dict(recipe='scratch', arch='timm/test_resnet', weights='none', epochs=1, size=32, bs=8, cache=False)
    made = [train(skies, parts=parts, out=place / f'{i}', seed=i, progress=False, **how) for i in (1, 2, 3)]
    return parts, made


@examples(30)
@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=5))
def test_the_average_lies_between_what_is_averaged(values):
    states = [{'w': torch.tensor([v]), 'n': torch.tensor(7)} for v in values]
    found = average_states(states)
    assert min(values) - 1e-4 <= found['w'].item() <= max(values) + 1e-4
    assert found['n'].item() == 7


def test_a_soup_is_a_run_with_the_mean_of_the_weights(runs, tmp_path):
    parts, made = runs
    mixed = soup(made, parts, tmp_path / 'soup')
    states = [run.learner().model.state_dict() for run in made]
    for name, value in mixed.learner().model.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, torch.stack([s[name] for s in states]).mean(0), atol=1e-6)
    assert mixed.metadata['soup'] == [str(run.path) for run in made]
    assert mixed.split.counts().equals(parts.counts())
    paths, _, probs, _, _ = mixed.predictions('test')
    assert probs.shape == (len(paths), len(parts.classes))


def test_what_did_not_begin_alike_is_not_averaged(runs, tmp_path):
    parts, made = runs
    metadata = json.loads((made[0].path / 'run.json').read_text())
    other = tmp_path / 'other'
    other.mkdir()
    for name in ('learner.pkl', 'split.csv'):
        (other / name).write_bytes((made[0].path / name).read_bytes())
    write_json(other / 'run.json', metadata | dict(config=metadata['config'] | dict(arch='resnet18')))
    with pytest.raises(BadConfig, match='differ in their arch'):
        soup([made[0], Run(other)], parts, tmp_path / 'soup')
    assert not (tmp_path / 'soup').exists()


def test_one_run_is_no_soup_and_a_run_is_not_overwritten(runs, tmp_path):
    parts, made = runs
    with pytest.raises(BadConfig, match='2 runs or more'):
        soup(made[:1], parts, tmp_path / 'soup')
    with pytest.raises(BadRun, match='holds a run already'):
        soup(made, parts, made[0].path)


@pytest.mark.parametrize('recipe', ['fine_tune', 'one_cycle', 'two_stage', 'scratch', 'small_first'])
def test_the_first_notebooks_recipes_keep_their_backbone(recipe):
    assert default_arch(recipe) == 'resnet34'


def test_ours_take_the_backbone_whose_weights_come_with_pip():
    assert default_arch('fast') == default_arch('best') == 'tf_efficientnet_lite2'
    assert default_arch('fast', 'none') == default_arch('fast', 'mine.pth') == 'resnet34'


@pytest.fixture(scope='module')
def nets(skies, runs, tmp_path_factory):
    place, (parts, _) = tmp_path_factory.mktemp('nets'), runs
    names = 'timm/test_convnext', 'timm/test_resnet'
    made = []
    for name in names:
        torch.manual_seed(0)
        weights = place / f'{name[5:]}.pth'  # a head over moments stands on weights, of whatever origin
        torch.save(network(name).state_dict(), weights)
        how = dict(recipe='fast', arch=name, weights=str(weights), size=32, bs=8, cache=False, progress=False)
        made.append(train(skies, parts=parts, out=place / name[5:], **how))
    return made


def logits(run):
    "Up to a constant of each photo."
    found = np.log(run.predictions('test')[2])
    return found - found.mean(1, keepdims=True)


def test_an_ensemble_says_the_mean_of_what_its_members_say(nets, runs, tmp_path):
    parts, _ = runs
    both = ensemble(nets, parts, tmp_path / 'ensemble')
    assert np.allclose(logits(both), (logits(nets[0]) + logits(nets[1])) / 2, atol=1e-3)
    assert not np.allclose(logits(both), logits(nets[0]), atol=1e-2)
    assert [o['arch'] for o in both.metadata['ensemble']] == [run.config.arch for run in nets]
    assert both.split.hash == parts.hash


def test_an_ensemble_is_exported_like_any_run(nets, runs, tmp_path):
    parts, _ = runs
    file, worst = export_run(ensemble(nets, parts, tmp_path / 'ensemble'), to='int8-weights')
    assert CloudClassifier(file).card['precision'] == 'int8-weights'
    assert worst < 0.05


def test_heads_of_another_kind_are_not_put_side_by_side(nets, runs, tmp_path):
    parts, made = runs
    with pytest.raises(BadConfig, match='differ in their head'):
        ensemble([nets[0], made[0]], parts, tmp_path / 'other')
    with pytest.raises(BadConfig, match='heads over moments'):
        ensemble(made, parts, tmp_path / 'other')
    assert not (tmp_path / 'other').exists()
