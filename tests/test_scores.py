"The numbers are scikit-learn's, and the intervals keep their promise."

import warnings

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from pretend import HISTORY, make, perfect, predictions, without_time
from sklearn import metrics as sk

from cloud_classifier.evaluation import report as module
from cloud_classifier.evaluation.calibrate import Calibration, fit_calibration, percentile_interval
from cloud_classifier.evaluation.report import (
    METRICS,
    Predictions,
    evaluate,
    intervals,
    metrics,
    plot_recall,
    scores,
)
from cloud_classifier.prediction.decide import calibrated
from cloud_classifier.samples import simulate_predictions

# The numbers


@examples(40)
@given(predictions(min_classes=4))
def test_numbers_are_scikit_learns(p):
    found, y, answer = metrics(p), p.labels, [p.classes[i] for i in p.answer]
    assert found['top1'] == pytest.approx(sk.accuracy_score(y, answer))
    assert found['top3'] == pytest.approx(sk.top_k_accuracy_score(p.y, p.probs, k=3, labels=range(len(p.classes))))
    assert found['macro_f1'] == pytest.approx(sk.f1_score(y, answer, average='macro'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it warns of answers whose class has no photo
        assert found['balanced_accuracy'] == pytest.approx(sk.balanced_accuracy_score(y, answer))


@examples(25)
@given(predictions(min_classes=4), st.integers(0, 1000))
def test_each_resample_scores_as_scikit_learn_scores_the_photos_drawn(p, seed):
    n_boot = 3
    found = module._statistics(module._resample(p, n_boot, seed), len(p.classes))
    ids, member = np.unique(p.groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    weights = [np.bincount(rng.integers(0, len(ids), len(ids)), minlength=len(ids)) for _ in range(n_boot)]
    for draw, weight in enumerate(weights):
        photos = np.repeat(np.arange(len(p)), weight[member])
        copies = p.take(photos)
        for name, value in metrics(copies).items():
            assert found[name][draw] == pytest.approx(value)


def test_resampling_in_blocks_is_resampling_at_once():
    p = make(50, 4)
    rng = np.random.default_rng(7)
    weights = np.array([np.bincount(rng.integers(0, 50, 50), minlength=50) for _ in range(250)])
    assert np.array_equal(module._resample(p, 250, 7)[:, -1], weights @ module._among_first(p))


@examples(15)
@given(predictions(), st.randoms(use_true_random=False))
def test_order_of_photos_never_changes_the_report(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    assert without_time(evaluate(p, n_boot=50)) == without_time(evaluate(p.take(order), n_boot=50))


def test_the_seed_fixes_the_intervals():
    p = make(80, 5)
    assert intervals(p, 100, seed=3) == intervals(p, 100, seed=3) != intervals(p, 100, seed=4)


@examples(40)
@given(predictions(), st.integers(1, 30))
def test_interval_contains_its_estimate(p, n_boot):
    found = intervals(p, n_boot)
    for o in [found[name] for name in METRICS] + [o for o in found['recall'] if not np.isnan(o['value'])]:
        assert 0 <= o['low'] <= o['value'] <= o['high'] <= 1


def test_equal_probabilities_never_put_the_first_answer_outside_the_first_three():
    p = Predictions(list('abcdef'), list('uvwxyz'), np.full((6, 6), 1 / 6), list('uvwxyz'))
    assert (metrics(p)['top1'], metrics(p)['top3']) == (pytest.approx(1 / 6), pytest.approx(3 / 6))
    assert module._among_first(p).tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize('c', [2, 3, 4, 11])
def test_perfect_answers_score_one(c):
    report = evaluate(perfect(44, c), n_boot=20)
    for name in METRICS:
        assert report.data[name] == {'value': 1, 'low': 1, 'high': 1}
    assert not report.data['confused']
    assert any('rule of three' in o for o in report.data['notes'])
    assert 'In 44 of 44 photos' in report.to_html(thumbnails=False)


# The promise of an interval


def covers(tests, truth):
    "The share of `tests` whose interval holds the truth; from the parts of `intervals`, which takes longer as a whole."
    draws = [module._statistics(module._resample(p, 200, seed), len(p.classes))['top1'] for seed, p in enumerate(tests)]
    found = [percentile_interval(np.mean(p.y == p.answer), o) for p, o in zip(tests, draws, strict=True)]
    return np.mean([o['low'] <= truth <= o['high'] for o in found])


def right_or_wrong(right, groups=None):
    "Two classes, a photo each of `right`; True is answered rightly."
    paths, probs = [f'{i:04}' for i in range(len(right))], np.where(right[:, None], [0.9, 0.1], [0.2, 0.8])
    return Predictions(paths, ['yes'] * len(right), probs, ['yes', 'no'], groups)


def test_interval_covers_the_true_accuracy_95_times_of_100():
    # With 300 tests the share observed has a standard error of 0.0126 around 0.95.
    rng = np.random.default_rng(0)
    tests = [right_or_wrong(rng.random(200) < 0.7) for _ in range(300)]
    assert 0.91 <= covers(tests, 0.7) <= 0.985


def test_interval_covers_the_true_accuracy_where_photos_come_in_groups():
    # Beta(0.8, 0.4) has the mean 2/3: scenes differ in how hard they are, and the shots of one scene are alike.
    rng = np.random.default_rng(1)
    scene = np.repeat(np.arange(60), 5)
    rights = [rng.random(300) < rng.beta(0.8, 0.4, 60)[scene] for _ in range(250)]
    assert 0.90 <= covers([right_or_wrong(o, scene) for o in rights], 2 / 3) <= 0.985
    assert covers([right_or_wrong(o) for o in rights], 2 / 3) < 0.85  # photo by photo it promises too much


# Corners


def test_one_photo():
    report = evaluate(make(1, 11), n_boot=20, history=HISTORY)
    assert report.data['n'] == report.data['n_groups'] == 1
    assert any('only 1 independent' in o for o in report.data['notes'])
    assert '<svg' in report.to_html(thumbnails=False)


@pytest.mark.parametrize('c', [2, 3])
def test_top3_of_three_classes_or_fewer_is_said_to_mean_nothing(c):
    report = evaluate(make(9, c), n_boot=20)
    assert report.data['top3']['value'] == 1
    assert any('top-3 says nothing' in o for o in report.data['notes'])
    assert 'among the first three.' not in report.to_html(thumbnails=False)


def test_class_without_photos_has_no_recall_and_is_named():
    p = make(60, 5, labels=np.arange(60) % 4)
    assert (p.answer == 4).any(), 'the absent class is to be answered at least once'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        report = evaluate(p, n_boot=20)
    absent = report.data['by_class'][4]
    assert (absent['recall'], absent['recall_low'], absent['support'], absent['precision']) == (None, None, 0, 0)
    assert any('No photo of class 4' in o for o in report.data['notes'])
    assert len(plot_recall(report).axes[0].get_yticklabels()) == 4


def test_a_photo_without_group_stands_alone():
    p = make(6, 4, groups=['a', 'a', None, None, float('nan'), 'b'])
    assert p.groups == ['a', 'a', '0002.jpg', '0003.jpg', '0004.jpg', 'b']


def test_tables_of_levels_and_families():
    p = make(200, 4, names=['Ci', 'Cirrostratus', 'Stratus', 'Ct'])
    found = scores(p, n_boot=20)
    high, middle, low = found['by_level']
    of = p.y < 2
    assert high['n'] == of.sum()
    assert low['n'] == (p.y == 2).sum()
    assert high['accuracy']['value'] == pytest.approx((p.answer == p.y)[of].mean())
    assert high['right_kind']['value'] == pytest.approx((p.answer < 2)[of].mean())
    assert high['right_kind']['value'] > high['accuracy']['value']
    assert middle == {'level': 'middle', 'n': 0, 'accuracy': None, 'right_kind': None}
    sheets = next(o for o in found['by_family'] if o['family'] == 'stratiform')
    assert sheets['n'] == ((p.y == 1) | (p.y == 2)).sum()
    assert found['no_genus'] == ['Ct']


def test_top_losses_are_sorted_and_finite():
    p = Predictions(['b', 'a', 'c'], ['x', 'x', 'y'], [[0, 1], [0, 1], [0.5, 0.5]], ['x', 'y'])
    losses = evaluate(p, n_boot=5).data['top_losses']
    assert [o['path'] for o in losses] == ['a', 'b', 'c']
    assert losses[0]['loss'] == pytest.approx(36.04, abs=0.01)
    assert losses[2]['loss'] == pytest.approx(np.log(2))
    assert sk.log_loss(p.labels, p.probs) == pytest.approx(np.mean([o['loss'] for o in losses]))


GOOD = {'paths': ['a', 'b'], 'labels': ['x', 'y'], 'probs': [[0.5, 0.5], [1, 0]], 'classes': ['x', 'y']}


@pytest.mark.parametrize(
    ('wrong', 'says'),
    [
        ({'paths': [], 'labels': [], 'probs': []}, 'no photo'),
        ({'labels': ['x']}, '2 photos but 1 labels'),
        ({'groups': ['g']}, '2 photos but 1 groups'),
        ({'labels': ['x', 'z']}, "'z'"),
        ({'classes': ['x', 'x'], 'labels': ['x', 'x']}, 'same name'),
        ({'classes': ['x'], 'labels': ['x', 'x'], 'probs': [[1], [1]]}, 'two classes or more'),
        ({'probs': [0.5, 0.5]}, 'shape'),
        ({'probs': [[0.5, 0.5, 0], [1, 0, 0]]}, 'shape'),
        ({'probs': [[0.5, 0.5], [0.9, 0.2]]}, 'probabilities of b'),
        ({'probs': [[float('nan'), 1], [1, 0]]}, 'probabilities of a'),
        ({'probs': [[float('inf'), 1], [1, 0]]}, 'probabilities of a'),
        ({'probs': [[1.5, -0.5], [1, 0]]}, 'probabilities of a'),
    ],
)
def test_what_does_not_fit_together_is_refused(wrong, says):
    assert len(Predictions(**GOOD)) == 2
    with pytest.raises(ValueError, match=says):
        Predictions(**GOOD | wrong)


def test_single_precision_is_precise_enough():
    logits = np.random.default_rng(0).normal(size=(50, 11)).astype(np.float32)
    odds = np.exp(logits)
    Predictions(range(50), [0] * 50, odds / odds.sum(1, keepdims=True), range(11))


def test_neither_resamples_nor_source_are_guessed():
    with pytest.raises(ValueError, match='n_boot'):
        intervals(make(5, 4), n_boot=0)
    with pytest.raises(TypeError, match='not a list'):
        evaluate([1, 2, 3])


# What probabilities are worth


def simulated(seed=5, scenes=300, shots=2, sharpness=4, target_error=0.25):
    "Answers that are too sure of themselves, calibrated by others; what chose the rules; the bare probabilities."
    valid = simulate_predictions(600, 1, sharpness, seed=seed)
    test = simulate_predictions(scenes, shots, sharpness, seed=seed + 1000)
    calibration = fit_calibration(valid.probs, valid.y, valid.classes, target_error, groups=valid.groups)
    probs = calibrated(test.probs, calibration.temperature)
    return Predictions(test.paths, test.labels, probs, test.classes, test.groups), calibration, test.probs


def test_calibration_is_reported_before_and_after_and_never_changes_an_answer():
    p, calibration, raw = simulated()
    found = scores(p, raw=raw, calibration=calibration, n_boot=100)
    before, after = found['calibration_error']['before'], found['calibration_error']['after']
    assert np.array_equal(p.answer, raw.argmax(1))
    assert after['ece']['high'] < before['ece']['low']
    assert after['brier']['value'] < before['brier']['value']
    assert found['ece'] == after['ece']
    assert found['brier']['value'] == pytest.approx(((p.probs - np.eye(11)[p.y]) ** 2).sum(1).mean())


def test_verdicts_cover_every_photo_and_confident_ones_keep_the_target():
    errors = []
    for seed in range(12):
        p, calibration, _ = simulated(seed)
        found = scores(p, calibration=calibration, n_boot=20)
        assert sum(o['n'] for o in found['verdicts']) == len(p)
        assert sum(o['n'] for o in found['depths']) == len(p)
        sure = found['verdicts'][0]
        by_hand = p.probs.max(1) >= calibration.rules.thresholds['genus']
        assert sure['n'] == by_hand.sum()
        assert sure['accuracy']['value'] == pytest.approx((p.answer == p.y)[by_hand].mean())
        errors.append(1 - sure['accuracy']['value'])
    assert np.mean(errors) < 0.25  # the threshold is chosen to keep it nine times of ten


def test_sets_hold_the_true_class_as_often_as_they_promise():
    coverage = [
        scores(p, calibration=t, n_boot=20)['sets']['coverage']['value'] for p, t, _ in map(simulated, range(12))
    ]
    assert 0.885 < np.mean(coverage) < 0.925  # 12 x 300 scenes: a standard error of about 0.006


def test_a_refused_photo_is_neither_confident_nor_unsure():
    p, calibration, _ = simulated()
    rules = type(calibration.rules)(calibration.rules.thresholds, calibration.rules.conformal, ood_threshold=1.0)
    ood_score = np.where(p.y == 0, 2.0, 0.0)  # all Cirrus is refused
    found = scores(
        p, calibration=Calibration(calibration.temperature, rules, calibration.choices), ood_score=ood_score, n_boot=20
    )
    assert found['verdicts'][2]['n'] == (p.y == 0).sum()
    assert {o['class']: o['refused'] for o in found['refused'] if o['refused']} == {'Cirrus': (p.y == 0).sum()}


@pytest.mark.parametrize('n', [1, 2, 5])
def test_few_photos_have_scores_too(n):
    p, calibration, raw = simulated()
    few = Predictions(p.paths[:n], p.labels[:n], p.probs[:n], p.classes)
    found = scores(few, raw=raw[:n], calibration=calibration, n_boot=20)
    assert any('independent groups' in o for o in found['notes'])
    for name in ('top1', 'ece', 'brier'):
        assert found[name]['low'] <= found[name]['value'] <= found[name]['high']


def test_a_model_that_says_the_same_for_everything():
    labels = [i % 4 for i in range(40)]
    p = make(40, 4, labels=labels)
    same = Predictions(p.paths, p.labels, np.tile([0.4, 0.3, 0.2, 0.1], (40, 1)), p.classes)
    calibration = fit_calibration(same.probs, same.y, same.classes)
    found = scores(same, calibration=calibration, n_boot=50)
    assert found['top1']['value'] == pytest.approx(0.25)
    assert calibration.rules.thresholds['genus'] is None  # nothing halves its errors
    assert found['verdicts'][1]['n'] == 40
    assert len(found['risk_coverage']['risk']) == 1
