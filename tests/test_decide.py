"Rules between probabilities and an answer: what they never change, and what they always keep."

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from cloud_classifier.prediction.decide import (
    DEPTHS,
    Rules,
    adjust_prior,
    at_depth,
    backoff,
    calibrated,
    conformal_set,
    decide,
    read_prior,
    softmax,
    verdict,
)
from cloud_classifier.taxonomy import FAMILIES, GENERA, LEVELS, UnknownGenus

CLASSES = (*GENERA, 'Ct')
share = st.floats(0, 1)
ODDS = st.sampled_from([0, 0.01, 0.1, 0.2, 0.5, 1, 1e-30, 1e-9, 1e3])


@st.composite
def rows(draw, c=11):
    "Probabilities of one photo, some of them 0, some almost 1."
    odds = np.array(draw(st.lists(ODDS, min_size=c, max_size=c)), float)
    odds[draw(st.integers(0, c - 1))] += draw(st.floats(0.1, 1))
    return odds / odds.sum()


@st.composite
def priors(draw, c=11):
    odds = np.array(draw(st.lists(st.floats(1e-4, 1), min_size=c, max_size=c)))
    return odds / odds.sum()


# Temperature


@given(rows(), st.floats(0.05, 20))
def test_a_temperature_never_changes_the_first_answer(p, temperature):
    q = calibrated(p, temperature)
    assert q[p.argmax()] == q.max()
    assert q.sum() == pytest.approx(1)
    assert (np.diff(q[np.argsort(p)]) >= 0).all()


@given(st.lists(st.floats(-80, 80), min_size=2, max_size=12), st.floats(0.05, 20))
def test_probabilities_are_calibrated_as_their_logits_are(z, temperature):
    expected = softmax(z, temperature)
    assert calibrated(softmax(z), temperature) == pytest.approx(expected, abs=1e-9)


@given(rows(), st.floats(0.1, 10))
def test_a_temperature_can_be_taken_back(p, temperature):
    kept = p > 1e-25  # what underflows at a tenth of the temperature is lost
    assert calibrated(calibrated(p, temperature), 1 / temperature)[kept] == pytest.approx(p[kept], abs=1e-9)


@pytest.mark.parametrize('temperature', [0, -1, float('nan'), float('inf')])
def test_what_is_no_temperature(temperature):
    with pytest.raises(ValueError, match='above 0'):
        calibrated([0.5, 0.5], temperature)


# Priors


@given(rows(), priors(), priors())
def test_to_another_prior_and_back_is_where_one_was(p, old, new):
    there = adjust_prior(p, old, new)
    assert there.sum() == pytest.approx(1)
    assert np.abs(adjust_prior(there, new, old) - p).max() <= 1e-12


@given(rows(), priors())
def test_the_same_prior_changes_nothing(p, prior):
    assert np.abs(adjust_prior(p, prior, prior) - p).max() <= 1e-12


def test_a_switched_prior_is_bayes_rule():
    "In another climate each class is given its share only after the switch."
    rng, old, new = np.random.default_rng(0), np.full(3, 1 / 3), np.array([0.1, 0.3, 0.6])
    seen = rng.normal(size=40_000) + rng.choice(3, 40_000, p=new)
    learned = np.exp(-((seen[:, None] - np.arange(3)) ** 2) / 2)
    learned /= learned.sum(1, keepdims=True)
    assert abs(learned.mean(axis=0) - new).max() > 0.05
    assert abs(adjust_prior(learned, old, new).mean(axis=0) - new).max() < 0.01


@given(priors(), st.integers(0, 10), st.floats(0.01, 0.9))
def test_what_is_not_named_keeps_its_proportions(trained, i, part):
    new = read_prior({CLASSES[i]: part}, CLASSES, trained)
    assert new.sum() == pytest.approx(1)
    assert new[i] == pytest.approx(part)
    others = np.arange(11) != i
    assert new[others] / new[others].sum() == pytest.approx(trained[others] / trained[others].sum())


@pytest.mark.parametrize('name', ['Stratus', 'st', 'STRATUS clouds', 'stratous'])
def test_any_spelling_names_a_class(name):
    assert read_prior({name: 0.3, 'ct': 0.1}, CLASSES)[[7, 10]] == pytest.approx([0.3, 0.1])
    assert CLASSES[7] == 'Stratus'


@pytest.mark.parametrize(
    ('prior', 'error', 'says'),
    [
        ({'Stratsu': 0.3}, UnknownGenus, 'did you mean'),
        ({'St': 0.3, 'Stratus': 0.3}, ValueError, 'names Stratus twice'),
        ({'St': 0}, ValueError, 'share of Stratus'),
        ({'St': -0.1}, ValueError, 'share of Stratus'),
        ({'St': float('nan')}, ValueError, 'share of Stratus'),
        ({'St': 1.2}, ValueError, 'share of Stratus'),
        ({'St': 1.0}, ValueError, 'nothing for'),
        ({'St': 0.7, 'Sc': 0.7}, ValueError, 'nothing for'),
        (dict.fromkeys(CLASSES, 0.05), ValueError, 'sum to 0.55'),
        ({3: 0.3}, TypeError, 'by its name'),
    ],
)
def test_a_prior_that_can_not_be_so_is_refused_in_a_line(prior, error, says):
    with pytest.raises(error, match=says) as caught:
        read_prior(prior, CLASSES)
    assert '\n' not in str(caught.value)


def test_a_genus_that_the_model_does_not_know():
    with pytest.raises(ValueError, match='Cirrus, which this model does not know'):
        read_prior({'Ci': 0.3}, ['Cumulus', 'Stratus'])


# Sets


@given(rows(), share, share)
def test_sets_are_nested_and_never_empty(p, a, b):
    small, large = (conformal_set(p, t) for t in sorted((a, b)))
    assert (small <= large).all()
    assert small[p.argmax()]
    assert conformal_set(p, 1.0).all()


@given(rows(), share)
def test_no_label_is_left_out_that_is_more_probable_than_one_kept(p, threshold):
    kept = conformal_set(p, threshold)
    assert not (~kept).any() or p[kept].min() > p[~kept].max()


# Back-off

thresholds = st.dictionaries(st.sampled_from(DEPTHS), st.none() | share)


@given(rows(), thresholds)
def test_the_probability_of_an_answer_is_the_sum_of_its_members(p, bars):
    found = backoff(p, CLASSES, bars)
    of = {'none': (), 'genus': (found.name,), 'family': FAMILIES.get(found.name)}.get(
        found.depth, [g.name for g in GENERA.values() if g.level == found.name]
    )
    assert {o for o, _ in found.members} == set(of)
    assert found.probability == pytest.approx(sum(p[CLASSES.index(o)] for o in of), abs=1e-12)
    assert [q for _, q in found.members] == sorted((q for _, q in found.members), reverse=True)
    assert found.likely == tuple(o for o, _ in found.members[: len(found.likely)])
    held = sum(q for _, q in found.members[: len(found.likely)])
    assert held >= 0.9 * found.probability - 1e-12
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()


@given(rows(), thresholds)
def test_the_most_specific_sure_answer_is_given(p, bars):
    found = backoff(p, CLASSES, bars)
    sure = [d for d in DEPTHS if bars.get(d) is not None and at_depth(p[None], CLASSES, d)[0][0] >= bars[d]]
    assert found.depth == (sure[0] if sure else 'none')


@given(rows(c=10))
def test_a_level_is_never_less_probable_than_the_best_genus(p):
    genus, level = (at_depth(p[None], CLASSES[:10], d)[0][0] for d in ('genus', 'level'))
    assert level >= genus - 1e-12


def test_groups_that_say_nothing_are_left_out():
    def names(classes, depth):
        return {str(at_depth(np.eye(len(classes))[[i]], classes, depth)[2][0]) for i in range(len(classes))}

    assert names(CLASSES, 'level') == set(LEVELS)
    assert 'cirriform' not in names(CLASSES, 'family')  # it is Cirrus alone
    assert names(['Ci', 'cirrostratus', 'Cu'], 'level') == {'high'}  # in any spelling
    assert names(['Cirrus', 'Cirrostratus'], 'level') == {''}
    assert names(['Clear', 'Ct'], 'family') == {''}
    assert backoff([0.6, 0.4], ['Clear', 'Ct'], dict(genus=0.7, level=0.0, family=0.0)).depth == 'none'


# All of it


@examples(50)
@given(rows(), thresholds, share, st.none() | st.floats(-10, 10), st.none() | st.floats(-10, 10))
def test_a_decision_holds_together(p, bars, conformal, ood_score, strange):
    rules = Rules(bars, conformal, ood_threshold=strange)
    found = decide(p, CLASSES, rules, ood_score)
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    if found.verdict == 'not_a_sky':
        assert ood_score >= strange
        assert (found.labels, found.backoff.depth) == ((), 'none')
        return
    assert (found.verdict == 'confident') == (found.backoff.depth == 'genus')
    assert p[CLASSES.index(found.labels[0])] == p.max()
    assert len(set(found.labels)) == conformal_set(p, conformal).sum()


def test_a_verdict_without_a_judge_or_a_threshold():
    assert verdict(0.9, None) == 'unsure'
    assert verdict(0.9, 0.9) == 'confident'
    assert verdict(0.9, 0.9, ood_score=5.0) == 'confident'
    assert verdict(0.9, 0.9, ood_threshold=5.0) == 'confident'
    assert verdict(0.9, 0.9, ood_score=5.0, ood_threshold=5.0) == 'not_a_sky'


def test_rules_survive_metadata():
    rules = Rules(dict(genus=0.61, level=None), 0.93, 0.9, 4.5)
    assert Rules(**json.loads(json.dumps(rules.as_dict()))) == rules
    assert pickle.loads(pickle.dumps(rules)) == rules


@pytest.mark.parametrize(
    'wrong',
    [
        {'thresholds': {'order': 0.5}},
        {'thresholds': [0.5]},
        {'thresholds': {'genus': '0.5'}},
        {'thresholds': {'genus': True}},
        {'thresholds': {'genus': float('nan')}},
        {'conformal': 1.5},
        {'conformal': None},
        {'coverage': -1},
        {'ood_threshold': float('inf')},
        {'ood_threshold': 'cat'},
    ],
)
def test_rules_that_can_not_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r'threshold|conformal|coverage|OOD'):
        Rules(**{'thresholds': {}} | wrong)


def test_the_rules_ask_for_numpy_alone():
    heavy = {'scipy', 'sklearn', 'pandas', 'torch', 'fastcore', 'onnxruntime'}
    code = 'import sys, cloud_classifier.prediction.decide; print(*{m.partition(".")[0] for m in sys.modules})'
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert 'numpy' in loaded
    assert not heavy & set(loaded)
