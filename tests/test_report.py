"No folder's name can break the page, and the JSON is the whole report."

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from examples import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pretend import HISTORY, Elements, check_page, make

from cloud_classifier.evaluation import report as module
from cloud_classifier.evaluation.report import (
    COMPARE_NOTE,
    METRICS,
    Predictions,
    Report,
    evaluate,
    plot_confusion,
    plot_losses,
)

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
    assert COMPARE_NOTE in page
    assert '200 photos' in page
    better = evaluate(make(200, 4), n_boot=100)
    assert 'times as often' in better.to_html(thumbnails=False)
    assert f'{better.data["top1"]["low"]:.1%} and {better.data["top1"]["high"]:.1%}' in better.to_html(thumbnails=False)
    assert f'{better.data["top1"]["value"]:.2f}' in better.summary()
    assert better.data['commonest'] in better.summary()


@examples(100)
@given(st.integers(1, 5000), st.data())
def test_a_share_is_never_said_to_be_all_or_none_unless_it_is(n, data):
    right = data.draw(st.integers(0, n))
    said, of = map(int, re.findall(r'\d+', module._round_share(right / n, n)))
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
from cloud_classifier.evaluation.report import Predictions, evaluate, plot_confusion
plot_confusion(evaluate(Predictions(['a'], ['x'], [[0.9, 0.1]], ['x', 'y']), n_boot=5))
print([o for o in ('torch', 'fastai', 'matplotlib.pyplot') if o in sys.modules])
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_a_data_frame_is_a_history():
    pandas = pytest.importorskip('pandas')
    report = evaluate(make(20, 4), n_boot=20, history=pandas.DataFrame(HISTORY))
    assert report.data['history'] == evaluate(make(20, 4), n_boot=20, history=HISTORY).data['history']
    assert len(plot_losses(report).axes[0].lines) == 2


def test_losses_without_history_are_refused():
    with pytest.raises(ValueError, match='history'):
        plot_losses(evaluate(make(20, 4), n_boot=20))
