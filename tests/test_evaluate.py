"The report's numbers are scikit-learn's, its intervals keep their promise, and no folder's name can break its page."

import json
import os
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as sk

from cloud_classifier import evaluate as module
from cloud_classifier.evaluate import (
    METRICS,
    NOT_COMPARABLE,
    Predictions,
    Report,
    evaluate,
    intervals,
    metrics,
    plot_confusion,
    plot_losses,
    plot_recall,
)
from cloud_classifier.sampling import Split

HISTORY = [
    {'epoch': 0, 'train_loss': 2.0, 'valid_loss': 2.2},
    {'epoch': 1, 'train_loss': float('nan'), 'valid_loss': 1.9},
]


def make(n, c, seed=0, groups=None, names=None, labels=None):
    "Random answers for `n` photos of `c` classes, right more often than by chance; no two probabilities are equal."
    rng = np.random.default_rng(seed)
    names = names or [f'class {i}' for i in range(c)]
    y = rng.integers(0, c, n) if labels is None else np.array(labels)
    odds = rng.exponential(size=(n, c)) + 1.5 * np.eye(c)[y]
    probs = odds / odds.sum(1, keepdims=True)
    return Predictions([f'{i:04}.jpg' for i in range(n)], [names[i] for i in y], probs, names, groups)


def perfect(n, c):
    p = make(n, c, labels=np.arange(n) % c)
    return Predictions(p.paths, p.labels, np.eye(c)[p.y], p.classes)


@st.composite
def predictions(draw, min_classes=2):
    n, c = draw(st.integers(1, 40)), draw(st.integers(min_classes, 7))
    groups = draw(st.none() | st.lists(st.integers(0, 8), min_size=n, max_size=n))
    return make(n, c, draw(st.integers(0, 2**32 - 1)), groups)


def reordered(p, order):
    paths, labels, groups = ([column[i] for i in order] for column in (p.paths, p.labels, p.groups))
    return Predictions(paths, labels, p.probs[order], p.classes, groups)


def without_time(report):
    return {k: v for k, v in report.data.items() if k != 'created'}


# The numbers


@settings(max_examples=40, deadline=None)
@given(predictions(min_classes=4))
def test_numbers_are_scikit_learns(p):
    found, y, answer = metrics(p), p.labels, [p.classes[i] for i in p.answer]
    assert found['top1'] == pytest.approx(sk.accuracy_score(y, answer))
    assert found['top3'] == pytest.approx(sk.top_k_accuracy_score(p.y, p.probs, k=3, labels=range(len(p.classes))))
    assert found['macro_f1'] == pytest.approx(sk.f1_score(y, answer, average='macro'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it warns of answers whose class has no photo
        assert found['balanced_accuracy'] == pytest.approx(sk.balanced_accuracy_score(y, answer))


@settings(max_examples=25, deadline=None)
@given(predictions(min_classes=4), st.integers(0, 1000))
def test_each_resample_scores_as_scikit_learn_scores_the_photos_drawn(p, seed):
    n_boot = 3
    found = module._statistics(module._resample(p, n_boot, seed), len(p.classes))
    ids, member = np.unique(p.groups, return_inverse=True)
    weights = np.random.default_rng(seed).multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=n_boot)
    for draw, weight in enumerate(weights):
        photos = np.repeat(np.arange(len(p)), weight[member])
        copies = reordered(p, photos)
        for name, value in metrics(copies).items():
            assert found[name][draw] == pytest.approx(value)


def test_resampling_in_blocks_is_resampling_at_once():
    p = make(50, 4)
    weights = np.random.default_rng(7).multinomial(50, np.full(50, 1 / 50), size=250)
    assert np.array_equal(module._resample(p, 250, 7)[:, -1], weights @ module._among_first(p))


@settings(max_examples=15, deadline=None)
@given(predictions(), st.randoms(use_true_random=False))
def test_order_of_photos_never_changes_the_report(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    assert without_time(evaluate(p, n_boot=50)) == without_time(evaluate(reordered(p, order), n_boot=50))


def test_the_seed_fixes_the_intervals():
    p = make(80, 5)
    assert intervals(p, 100, seed=3) == intervals(p, 100, seed=3) != intervals(p, 100, seed=4)


@settings(max_examples=40, deadline=None)
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
    found = [module._interval(np.mean(p.y == p.answer), o) for p, o in zip(tests, draws, strict=True)]
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
    assert 'among the first three.' not in module._in_words(report.data)[0]


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


def test_table_of_levels():
    p = make(200, 4, names=['Ci', 'Cirrostratus', 'Stratus', 'Ct'])
    high, middle, low = evaluate(p, n_boot=20).data['by_level']
    of = p.y < 2
    assert high['n'] == of.sum()
    assert low['n'] == (p.y == 2).sum()
    assert high['accuracy'] == pytest.approx((p.answer == p.y)[of].mean())
    assert high['right_level'] == pytest.approx((p.answer < 2)[of].mean())
    assert high['right_level'] > high['accuracy']
    assert middle == {'level': 'middle', 'n': 0, 'accuracy': None, 'right_level': None}
    assert evaluate(p, n_boot=20).data['no_genus'] == ['Ct']


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


# A run


def test_a_run_hands_over_its_predictions_history_and_settings():
    p, asked = make(40, 5), []

    def answer(part):
        asked.append(part)
        return p.paths, p.labels, p.probs, p.classes, p.groups

    table = pd.DataFrame(dict(path=['Ci/1.jpg', 'Ci/2.jpg'], label='Cirrus', group=['a', 'b'], part=['train', 'test']))
    run = SimpleNamespace(
        predictions=answer,
        settings={'arch': 'resnet34', 'lr': np.float32(0.5)},
        history=HISTORY,
        split=Split(table, Path('skies')),
    )
    report = evaluate(run, n_boot=20)
    assert asked == ['test']
    assert any('1 train, 0 valid, 1 test' in o and '0 of them in two parts' in o for o in report.data['notes'])
    assert not any('not from' in o for o in report.data['notes'])
    assert report.data['settings'] == {'arch': 'resnet34', 'lr': 0.5}
    assert [o['train_loss'] for o in report.data['history']] == [2.0, None]
    assert 'resnet34' in report.to_html(thumbnails=False)
    again = evaluate(run, 'valid', n_boot=20, history=[], settings={})
    assert asked == ['test', 'valid']
    assert 'not from “test”' in again.data['notes'][0]
    assert again.data['settings'] == {}
    assert again.data['history'] == []
    page = again.to_html(thumbnails=False)
    assert page.index('not from “test”') < page.index('photos the first answer is right')


def test_a_data_frame_is_a_history():
    pandas = pytest.importorskip('pandas')
    report = evaluate(make(20, 4), n_boot=20, history=pandas.DataFrame(HISTORY))
    assert report.data['history'] == evaluate(make(20, 4), n_boot=20, history=HISTORY).data['history']
    assert len(plot_losses(report).axes[0].lines) == 2


def test_losses_without_history_are_refused():
    with pytest.raises(ValueError, match='history'):
        plot_losses(evaluate(make(20, 4), n_boot=20))


# The page


HOSTILE = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "x' onload='y",
    '$\\frac{a$ & b',
    '{{ 7 * 7 }}',
    '| a | `b` |',
    'javascript:alert(1)',
    'line\nbreak',
    '\x1b[31m',
    '雲 ☁',
    '_',
    ']]>',
    'x' * 300,
]


class Elements(HTMLParser):
    "Every element of a page with its attributes."

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def check_page(page):
    "Nothing in `page` runs, and nothing is fetched."
    for tag, attrs in Elements(page).found:
        assert tag not in ('script', 'iframe', 'object', 'embed', 'link', 'base', 'form'), tag
        assert not [o for o in attrs if o.startswith('on')], attrs
        assert 'src' not in attrs or attrs['src'].startswith('data:image/jpeg;base64,'), attrs
        for name in ('href', 'xlink:href'):
            assert name not in attrs or attrs[name].startswith(('file:///', '#')), attrs
    assert not re.findall(r'url\((?!#)|@import', page)
    ids = [attrs['id'] for _, attrs in Elements(page).found if 'id' in attrs]
    assert len(ids) == len(set(ids))


def test_names_from_folders_are_text_everywhere():
    n = len(HOSTILE)
    p = make(3 * n, n, names=HOSTILE, labels=np.arange(3 * n) % n)
    p = Predictions([f'{HOSTILE[i % n]}/{i}.jpg' for i in range(3 * n)], p.labels, p.probs, HOSTILE)
    report = evaluate(p, HOSTILE[0], n_boot=20, history=HISTORY, settings={HOSTILE[0]: HOSTILE[1]}, top=30)
    page = report.to_html()
    check_page(page)
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in page
    assert '{{ 7 * 7 }}' in page
    text = report._repr_markdown_()
    assert '<script>' not in text
    assert r'\| a \| \`b\` \|' in text
    rows = [o for o in text.splitlines() if o.startswith('| ')]
    assert {len(re.findall(r'(?<!\\)\|', o)) for o in rows} == {4, 6}
    assert Report(json.loads(report.to_json())).data == report.data


def test_a_path_that_is_no_unicode_or_no_file_name(tmp_path):
    p = Predictions(['sky\udcff.jpg', 'nul\0.jpg'], ['x', 'y'], [[0.1, 0.9], [0.9, 0.1]], ['x', 'y'])
    saved = evaluate(p, n_boot=5).save(tmp_path)
    assert r'sky\udcff.jpg' in saved.read_text(encoding='utf8')
    assert json.loads((tmp_path / 'report.json').read_text())['top_losses']


def test_photos_are_embedded_small_or_their_absence_is_told(tmp_path):
    Image.new('RGB', (1600, 900), 'skyblue').save(tmp_path / 'sky & <sea>.jpg')
    (tmp_path / 'torn.jpg').write_bytes((tmp_path / 'sky & <sea>.jpg').read_bytes()[:700])
    paths = [tmp_path / 'sky & <sea>.jpg', tmp_path / 'torn.jpg', tmp_path / 'gone.jpg']
    report = evaluate(Predictions(paths, ['x'] * 3, [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], ['x', 'y']), n_boot=5)
    page = report.to_html()
    check_page(page)
    pictures = [attrs for tag, attrs in Elements(page).found if tag == 'img']
    assert len(pictures) == 1
    assert len(pictures[0]['src']) < 20_000
    assert page.count('The photo can’t be shown') == 2
    assert 'there is no such file' in page
    assert {attrs['href'] for tag, attrs in Elements(page).found if tag == 'a'} == {o.as_uri() for o in paths}
    bare = report.to_html(thumbnails=False)
    assert 'data:image' not in bare
    assert 'can’t be shown' not in bare
    assert paths[2].as_uri() in bare


def test_the_words_at_the_top():
    chance = make(200, 4, labels=np.arange(200) % 4)
    chance = Predictions(chance.paths, chance.labels, np.full((200, 4), 0.25), chance.classes)
    page = evaluate(chance, n_boot=100).to_html(thumbnails=False)
    assert 'not shown to be better' in page
    assert NOT_COMPARABLE in page
    assert '200 photos' in page
    better = evaluate(make(200, 4), n_boot=100)
    assert 'times as often' in better.to_html(thumbnails=False)
    assert f'{better.data["top1"]["low"]:.1%} and {better.data["top1"]["high"]:.1%}' in better.to_html(thumbnails=False)
    assert f'{better.data["top1"]["value"]:.2f}' in better.summary()
    assert better.data['commonest'] in better.summary()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.data())
def test_a_share_is_never_said_to_be_all_or_none_unless_it_is(n, data):
    right = data.draw(st.integers(0, n))
    said, of = map(int, re.findall(r'\d+', module._of_ten(right / n, n)))
    assume(0 < right < n)
    assert 0 < said < of
    assert abs(said / of - right / n) <= 0.051


# The files


def test_report_json_is_strict_and_is_the_whole_report(tmp_path):
    def no_constant(name):
        raise AssertionError(f'{name} is no JSON')

    report = evaluate(make(30, 5, labels=[0] * 30), n_boot=20, history=HISTORY)
    report.save(tmp_path / 'runs' / 'one', thumbnails=False)
    folder = tmp_path / 'runs' / 'one'
    data = json.loads((folder / 'report.json').read_text(encoding='utf8'), parse_constant=no_constant)
    assert data == report.data
    assert Report(data).to_html(thumbnails=False) == (folder / 'report.html').read_text(encoding='utf8')
    assert sorted(o.name for o in folder.iterdir()) == ['report.html', 'report.json']
    wanted = (
        'n n_classes part chance by_class by_level confusion confused top_losses history settings created version notes'
    )
    assert {*wanted.split(), *METRICS} <= set(data)
    assert np.sum(data['confusion']) == data['n'] == 30


def test_a_write_cut_off_leaves_the_old_report_whole(tmp_path, monkeypatch):
    evaluate(make(30, 5), n_boot=5).save(tmp_path, thumbnails=False)
    before = {o.name: o.read_bytes() for o in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space'):
        evaluate(make(30, 5, seed=1), n_boot=5).save(tmp_path, thumbnails=False)
    assert {o.name: o.read_bytes() for o in tmp_path.iterdir()} == before


def test_figures_show_the_numbers():
    report = evaluate(make(300, 6), n_boot=20)
    shown = [t.get_text() for t in plot_confusion(report).axes[0].texts]
    assert sum(map(int, shown)) == 300


def test_neither_torch_nor_fastai_nor_pyplot_is_loaded():
    code = """
import sys
from cloud_classifier.evaluate import Predictions, evaluate, plot_confusion
plot_confusion(evaluate(Predictions(['a'], ['x'], [[0.9, 0.1]], ['x', 'y']), n_boot=5))
print([o for o in ('torch', 'fastai', 'matplotlib.pyplot') if o in sys.modules])
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
