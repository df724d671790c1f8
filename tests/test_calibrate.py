"Calibration keeps what it promises on photos that it never saw, and bears input that has nothing to say."

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from cloud_classifier.evaluation import calibrate as module
from cloud_classifier.evaluation.calibrate import (
    MAX_TEMPERATURE,
    MIN_PHOTOS,
    MIN_TEMPERATURE,
    brier,
    choose_cut,
    choose_threshold,
    cross_fitted_temperature,
    depth_accuracy,
    ece,
    fit_conformal,
    fit_rules,
    fit_temperature,
    fit_thresholds,
    mean_interval,
    reliability,
    resampled_sums,
    risk_coverage,
    wilson,
)
from cloud_classifier.prediction.decide import DEPTHS, backoff, calibrated, conformal_set, decide, softmax
from cloud_classifier.taxonomy import GENERA

CLASSES = (*GENERA, 'Ct')


def honest(n, c=11, seed=0, loud=3.0):
    "Probabilities, and labels drawn from them: calibrated by construction."
    rng = np.random.default_rng(seed)
    probs = softmax(loud * rng.normal(size=(n, c)))
    return probs, (probs.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=c - 1)


@st.composite
def predictions(draw, least=1):
    n, c = draw(st.integers(least, 40)), draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probs = softmax(rng.normal(size=(n, c)) * draw(st.sampled_from([0, 0.1, 1, 10, 1000])))  # flat, mild, hard 0 and 1
    kind = draw(st.sampled_from(['any', 'right', 'wrong', 'one class']))
    labels = {
        'any': rng.integers(0, c, n),
        'right': probs.argmax(1),
        'wrong': probs.argmin(1),
        'one class': np.zeros(n, int),
    }[kind]
    groups = draw(st.none() | st.lists(st.integers(0, 8), min_size=n, max_size=n))
    return probs, labels, groups


# Whatever comes in


@examples(80)
@given(predictions())
def test_degenerate_input_gives_plain_numbers(drawn):
    probs, labels, groups = drawn
    temperature = fit_temperature(probs, labels)
    assert MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
    after = calibrated(probs, temperature)
    assert np.array_equal(after[np.arange(len(labels)), probs.argmax(1)], after.max(1))
    for found, top in ((ece(probs, labels, groups, 20), 1), (brier(probs, labels, groups, 20), 2)):
        assert 0 <= found['low'] <= found['value'] <= found['high'] <= top + 1e-12
    assert 0 <= risk_coverage(probs, labels).aurc <= 1
    assert sum(o['n'] for o in reliability(probs, labels, groups)) == len(labels)
    for row in reliability(probs, labels, groups):
        assert 0 <= row['low'] <= row['accuracy'] <= row['high'] <= 1
    choice = choose_threshold(probs, labels, groups=groups)
    assert (choice.threshold is None) == (choice.rule == 'never')
    assert choice.n >= MIN_PHOTOS or choice.rule == 'never'
    assert 0 <= fit_conformal(probs, labels, groups=groups) <= 1


@pytest.mark.parametrize(
    ('probs', 'labels', 'says'),
    [
        (np.zeros((0, 2)), [], 'no photo'),
        ([[0.5, 0.5]], [0, 1], 'do not fit'),
        ([0.5, 0.5], [0, 1], 'do not fit'),
        ([[0.5, 0.5]], [2], 'from 0 to 1'),
        ([[0.5, 0.5]], [-1], 'from 0 to 1'),
        ([[0.5, 0.5]], ['Cirrus'], 'from 0 to 1'),
        ([[0.9, 0.5]], [0], 'sum to 1'),
        ([[np.nan, 0.5]], [0], 'sum to 1'),
        ([[1.5, -0.5]], [0], 'sum to 1'),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(probs, labels, says):
    for function in (fit_temperature, ece, brier, reliability, risk_coverage, choose_threshold, fit_conformal):
        with pytest.raises(ValueError, match=says) as caught:
            function(probs, labels)
        assert '\n' not in str(caught.value)


def test_groups_alpha_and_resamples_are_not_guessed():
    probs, labels = honest(30)
    with pytest.raises(ValueError, match='30 photos but 2 groups'):
        ece(probs, labels, [1, 2])
    for alpha in (0, 1, -0.1):
        with pytest.raises(ValueError, match='alpha'):
            fit_conformal(probs, labels, alpha)
    with pytest.raises(ValueError, match='n_boot'):
        mean_interval([1, 0], n_boot=0)


# Temperature


@examples(20)
@given(st.floats(0.3, 5), st.integers(0, 99))
def test_the_temperature_that_spoiled_the_probabilities_is_found(spoiled, seed):
    probs, labels = honest(3000, seed=seed)
    assert fit_temperature(calibrated(probs, 1 / spoiled), labels) == pytest.approx(spoiled, rel=0.12)


def test_no_other_temperature_has_a_smaller_loss():
    probs, labels = honest(500)
    probs = calibrated(probs, 0.4)
    loss = [log_loss(labels, calibrated(probs, t), labels=range(11)) for t in np.linspace(1, 5, 81)]
    found = log_loss(labels, calibrated(probs, fit_temperature(probs, labels)), labels=range(11))
    assert found <= min(loss) + 1e-4
    best = minimize_scalar(lambda t: log_loss(labels, calibrated(probs, t), labels=range(11)), bounds=(1, 5)).x
    assert fit_temperature(probs, labels) == pytest.approx(best, rel=0.02)  # the doubt doesn't show among 500


def test_each_fold_gets_the_temperature_of_the_others():
    probs, labels = honest(400)
    folds = np.repeat(['a', 'b'], 200)
    out, temperatures = cross_fitted_temperature(probs, labels, folds)
    assert temperatures == {
        'a': fit_temperature(probs[200:], labels[200:]),
        'b': fit_temperature(probs[:200], labels[:200]),
    }
    assert np.array_equal(out[:200], calibrated(probs[:200], temperatures['a']))
    with pytest.raises(ValueError, match='no photo'):
        cross_fitted_temperature(probs, labels, np.zeros(400))


# Intervals


@examples(25)
@given(predictions(), st.integers(0, 99))
def test_a_resample_is_whole_groups_drawn_with_replacement(drawn, seed):
    probs, _, groups = drawn
    member = np.arange(len(probs)) if groups is None else np.unique(groups, return_inverse=True)[1]
    g, rng = member.max() + 1, np.random.default_rng(seed)
    expected = [sum(probs[member == i].sum(axis=0) for i in rng.integers(0, g, g)) for _ in range(3)]
    assert resampled_sums(probs, groups, 3, seed) == pytest.approx(np.array(expected))


def test_nineteen_of_twenty_intervals_hold_the_truth():
    "Of 300 tests with groups of one to six copies; by chance alone 95% become 91 to 99%, and 120 groups cost one more."
    held = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        group = np.repeat(np.arange(120), rng.integers(1, 7, 120))
        right = rng.random(120)[group] < 0.6
        found = [mean_interval(right, groups, n_boot=200, seed=seed) for groups in (group, None)]
        held.append([o['low'] <= 0.6 <= o['high'] for o in found])
    by_group, by_photo = np.mean(held, axis=0)
    assert 0.90 <= by_group <= 0.99
    assert by_photo < 0.8


def test_brier_is_scikit_learns():
    probs, labels = honest(200)
    assert brier(probs, labels)['value'] == pytest.approx(
        brier_score_loss(labels, probs, labels=range(11), scale_by_half=False)
    )


@examples(25)
@given(predictions())
def test_calibration_error_is_its_definition(drawn):
    probs, labels, _ = drawn
    confidence, right, expected = probs.max(1), probs.argmax(1) == labels, 0.0
    for i in range(15):
        of = (confidence >= i / 15) & ((confidence < (i + 1) / 15) | (i == 14))
        if of.any():
            expected += of.mean() * abs(confidence[of].mean() - right[of].mean())
    assert ece(probs, labels, n_boot=2)['value'] == pytest.approx(expected, abs=1e-9)


def test_an_honest_model_stands_at_the_floor_and_a_loud_one_far_above():
    probs, labels = honest(500)
    fair, loud = ece(probs, labels, n_boot=200), ece(calibrated(probs, 0.3), labels, n_boot=200)
    assert fair['value'] < 2 * fair['floor']
    assert fair['low'] < 0.02
    assert loud['low'] > 2 * loud['floor']
    both = np.repeat(np.arange(250), 2)
    assert ece(probs, labels, both, 50)['floor'] > fair['floor']  # pairs are half as many


def test_fifty_thousand_photos_take_seconds():
    "Not a timed test: without whole-array arithmetic this would not end."
    probs, labels = honest(50_000)
    groups = np.arange(50_000) // 2
    assert ece(probs, labels, groups, 300)['value'] < 0.02
    assert brier(probs, labels, groups, 300)['value'] > 0


@examples(50)
@given(st.floats(0, 1), st.integers(1, 10_000))
def test_a_wilson_interval_holds_its_share_and_is_never_empty(share, n):
    low, high = wilson(share, n)
    assert 0 <= low <= share <= high <= 1
    assert high > low


# Answering less often


@examples(40)
@given(predictions())
def test_risk_and_coverage_are_what_a_threshold_does(drawn):
    probs, labels, _ = drawn
    curve = risk_coverage(probs, labels)
    for threshold, coverage, risk in zip(curve.threshold, curve.coverage, curve.risk, strict=True):
        said = probs.max(1) >= threshold
        assert coverage == pytest.approx(said.mean())
        assert risk == pytest.approx((probs.argmax(1) != labels)[said].mean())
    assert curve.coverage[-1] == 1


@examples(40)
@given(predictions(), st.floats(0.05, 0.6))
def test_a_choice_reports_what_it_does(drawn, target):
    probs, labels, groups = drawn
    choice = choose_threshold(probs, labels, target, groups)
    if choice.threshold is None:
        return
    said, wrong = probs.max(1) >= choice.threshold, probs.argmax(1) != labels
    assert (choice.n, choice.coverage) == (said.sum(), pytest.approx(said.mean()))
    assert choice.error == pytest.approx(wrong[said].mean())
    assert choice.error <= choice.bound <= (target if choice.rule == 'target' else wrong.mean() / 2)


def test_a_confident_answer_keeps_its_target_nine_times_of_ten():
    "On new photos; a threshold without its bound breaks it every second time."
    probs, labels = honest(60_000)
    confidence, wrong = probs.max(1), probs.argmax(1) != labels
    broken = []
    for seed in range(200):
        some = np.random.default_rng(seed).choice(len(labels), 300)
        threshold = choose_threshold(probs[some], labels[some]).threshold
        broken.append(wrong[confidence >= threshold].mean() > 0.25)
    assert np.mean(broken) < 0.17  # 10%, and three times its scatter


def test_copies_earn_no_trust():
    rng = np.random.default_rng(0)
    confidence, right = rng.random(40), np.ones(40, bool)
    right[:8] = False
    confidence[:8] *= 0.01
    alone = choose_cut(confidence, right)
    copied = [np.repeat(o, 10) for o in (confidence, right, np.arange(40))]
    assert choose_cut(*copied[:2], groups=copied[2]).coverage == pytest.approx(alone.coverage)
    assert choose_cut(confidence, right, groups=np.zeros(40)).rule == 'never'


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_independent_photos_are_kishs(member):
    member = np.array(member)
    expected = [(i + 1) ** 2 / (np.bincount(member[: i + 1]) ** 2).sum() for i in range(len(member))]
    assert module._independent_photos(member) == pytest.approx(expected)


def test_a_weak_model_halves_its_errors_or_never_answers():
    n = 2000
    confidence, noise = np.linspace(0, 1, n), np.random.default_rng(0).random(n)
    weak = choose_cut(confidence, noise < 0.05 + 0.65 * confidence**3, target_error=0.05)
    assert weak.rule == 'halved' or weak.threshold is None
    halved = choose_cut(confidence, noise < 0.75 * confidence**2, target_error=0.05)
    assert halved.rule == 'halved'
    assert halved.error < 0.5 * (1 - (noise < 0.75 * confidence**2).mean())
    assert choose_cut(confidence, noise < 0.3).rule == 'never'  # it doesn't know when it is right
    assert choose_cut([], []).rule == 'never'


# Sets


@examples(12)
@given(st.integers(9, 60), st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([0.2, 1.0, 4.0]))
def test_sets_keep_their_promise_on_new_photos(n, alpha, spoiled):
    "Between 1 - alpha and 1 - alpha + 1/(n+1), however spoiled the probabilities; 4000 draws scatter by 0.7%."
    probs, labels = honest(4000 * (n + 1), c=5)
    scores = 1 - calibrated(probs, spoiled)[np.arange(len(labels)), labels]
    scores = scores.reshape(4000, n + 1)
    k = int(np.ceil((n + 1) * (1 - alpha) - 1e-9))
    held = np.sort(scores[:, :n], axis=1)[:, min(k, n) - 1] >= scores[:, n] if k <= n else np.ones(4000, bool)
    assert 1 - alpha - 0.025 <= held.mean() <= 1 - alpha + 1 / (n + 1) + 0.025
    for i in range(0, 4000, 1000):  # and that is the threshold which is fitted
        of = slice(i * (n + 1), i * (n + 1) + n)
        found = fit_conformal(calibrated(probs[of], spoiled), labels[of], alpha)
        assert found == (np.sort(scores[i, :n])[k - 1] if k <= n else 1.0)


@pytest.mark.parametrize('shots', [1, 5])
def test_sets_as_they_are_used(shots):
    held = []
    for seed in range(150):
        probs, labels = honest(100, seed=seed)
        some, groups = np.repeat(np.arange(50), shots), np.repeat(np.arange(50), shots)
        threshold = fit_conformal(probs[some], labels[some], groups=groups)
        sets = conformal_set(probs[50:], threshold)
        held.append(sets[np.arange(50), labels[50:]].mean())
    assert 0.88 <= np.mean(held) <= 0.95  # 0.9 to 0.92, and 7500 photos' scatter


@examples(30)
@given(predictions(), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_thresholds_are_nested_in_alpha(drawn, a, b):
    probs, labels, groups = drawn
    strict, loose = (fit_conformal(probs, labels, alpha, groups) for alpha in sorted((a, b)))
    assert strict >= loose


@examples(30)
@given(predictions(), st.integers(1, 5))
def test_copies_do_not_move_a_conformal_threshold(drawn, copies):
    probs, labels, _ = drawn
    photo = np.repeat(np.arange(len(labels)), copies)
    assert fit_conformal(probs[photo], labels[photo], groups=photo) == fit_conformal(probs, labels)


# Depths


@examples(25)
@given(st.integers(0, 99), st.dictionaries(st.sampled_from(DEPTHS), st.none() | st.floats(0, 1)))
def test_accuracy_by_depth_is_that_of_the_answers_given(seed, thresholds):
    probs, labels = honest(60, seed=seed, loud=1.5)
    said = [backoff(p, CLASSES, thresholds) for p in probs]
    rows = depth_accuracy(probs, labels, CLASSES, thresholds)
    assert [o['depth'] for o in rows] == [*DEPTHS, 'none']
    assert sum(o['share'] for o in rows) == pytest.approx(1)
    for row in rows:
        right = [CLASSES[y] in dict(o.members) for o, y in zip(said, labels, strict=True) if o.depth == row['depth']]
        assert row['n'] == len(right)
        if right and row['depth'] != 'none':
            assert row['accuracy'] == pytest.approx(np.mean(right))


def test_each_depth_keeps_the_target_on_new_photos():
    rng = np.random.default_rng(0)
    level = [GENERA[o].level if o in GENERA else o for o in CLASSES]
    kin = np.array([[a == b for b in level] for a in level])
    y = rng.integers(0, 11, 30_000)
    clear = rng.gamma(2, [[0.6], [0.5]], (2, len(y)))[:, :, None]
    probs = softmax(2 * (clear[0] * np.eye(11)[y] + clear[1] * kin[y] + rng.normal(size=(len(y), 11))))
    choices = fit_thresholds(probs[:1000], y[:1000], CLASSES)
    assert choices['genus'].rule == choices['level'].rule == 'target'
    rows = depth_accuracy(probs[1000:], y[1000:], CLASSES, {d: o.threshold for d, o in choices.items()})
    for row in rows[:2]:
        assert row['share'] > 0.1
        assert row['accuracy'] > 0.73


def test_rules_for_classes_that_are_no_genera():
    probs, labels = honest(300, c=3)
    rules = fit_rules(probs, labels, ['Clear', 'Ct', 'Fog'])
    assert rules.thresholds['level'] is None
    assert rules.thresholds['genus'] is not None
    assert decide([0.98, 0.01, 0.01], ['Clear', 'Ct', 'Fog'], rules).verdict == 'confident'
