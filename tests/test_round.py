"Two models on the same photos: what a round compares, what it refuses, and that it can be cut off."

import json
import shutil
import signal
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from pretend import check_page, make, predictions

from cloud_classifier.data.clean import Cleaner
from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.evaluation.report import METRICS, Predictions, evaluate
from cloud_classifier.evaluation.round import (
    clean_round,
    decisions_since,
    difference_words,
    newest_run,
    paired_difference,
    retrain_round,
)
from cloud_classifier.training.config import BadRun
from cloud_classifier.training.run import ActiveRun, Run, train

TINY = {'arch': 'timm/test_resnet', 'size': 32, 'weights': 'none', 'bs': 8, 'epochs': 1, 'precision': 'fp32'}
QUIET = {'cache': False, 'num_workers': 0, 'progress': False}


# paired differences


def other_answers(p, seed):
    "Answers of another model for the same photos."
    probs = np.random.default_rng(seed).dirichlet(np.ones(len(p.classes)), len(p))
    return Predictions(p.paths, p.labels, probs, p.classes, p.groups)


@examples(20)
@given(predictions(), st.integers(0, 1000))
def test_a_difference_always_fits_together(before, seed):
    after = other_answers(before, seed)
    one, two = paired_difference(before, after, 50), paired_difference(after, before, 50)
    for key in METRICS:
        assert one[key]['low'] <= one[key]['value'] <= one[key]['high']
        assert one[key]['value'] == pytest.approx(-two[key]['value'])
        assert one[key]['low'] == pytest.approx(-two[key]['high'])
    photos = one['photos']
    assert photos['n'] == len(before) == sum(photos[k] for k in ('both', 'only_before', 'only_after', 'neither'))
    assert one['top1']['value'] == pytest.approx((photos['only_after'] - photos['only_before']) / photos['n'])
    json.dumps(one, allow_nan=False)


@examples(20)
@given(predictions(), st.randoms(use_true_random=False))
def test_a_model_never_differs_from_itself_in_another_order(before, chance):
    rows, columns = [*range(len(before))], [*range(len(before.classes))]
    chance.shuffle(rows)
    chance.shuffle(columns)
    mixed = before.take(rows)
    classes = [before.classes[i] for i in columns]
    after = Predictions(mixed.paths, mixed.labels, mixed.probs[:, columns], classes, mixed.groups)
    difference = paired_difference(before, after, 20)
    assert all(difference[key] == {'value': 0, 'low': 0, 'high': 0} for key in METRICS)


def test_intervals_of_models_that_are_equally_good_hold_zero():
    rng, held = np.random.default_rng(0), 0
    for seed in range(200):
        y, groups = rng.integers(0, 3, 90), np.arange(90) // 3
        p = [np.eye(3)[np.where(rng.random(90) < 0.7, y, (y + 1) % 3)] for _ in range(2)]
        names = [str(o) for o in y]
        one, two = (Predictions([f'{i}' for i in range(90)], names, o, ('0', '1', '2'), groups) for o in p)
        interval = paired_difference(one, two, 200, seed)['top1']
        held += interval['low'] <= 0 <= interval['high']
    assert 182 <= held <= 199


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda p: p.take([*range(29)]), 'only one of them answered 0029.jpg'),
        (lambda p: p.take([*range(30), 0]), 'there twice'),
        (lambda p: Predictions(p.paths, ['class 0'] * 30, p.probs, p.classes), 'by the same labels'),
        (lambda p: make(30, 4), 'only one of them knows class 3'),
    ],
)
def test_what_can_not_be_compared_is_said(change, message):
    p = make(30, 3)
    with pytest.raises(ValueError, match=message):
        paired_difference(p, change(p))


def test_words_keep_three_cases_apart():
    assert difference_words({'value': 0.021, 'low': 0.004, 'high': 0.039}) == 'better by 2.1 points (0.4 to 3.9)'
    assert difference_words({'value': -0.021, 'low': -0.039, 'high': -0.004}) == 'worse by 2.1 points (0.4 to 3.9)'
    words = difference_words({'value': -0.0001, 'low': -0.015, 'high': 0.02})
    assert words == 'no difference that these photos can show: +0.0 points (-1.5 to +2.0)'


# rounds


@pytest.fixture(scope='module')
def trained(skies, tmp_path_factory):
    "A run of a tiny network over a copy of the skies. Look, but don't touch."
    folder = tmp_path_factory.mktemp('trained')
    data = shutil.copytree(skies, folder / 'skies')
    train(data, **TINY, **QUIET, out=folder / 'run')
    return folder


@pytest.fixture
def mine(trained, tmp_path):
    "The same, to be changed: its run and a cleaner of its photos."
    folder = shutil.copytree(trained, tmp_path / 'mine')
    file = folder / 'run' / 'run.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | {'data': str(folder / 'skies')}))
    run = Run(folder / 'run')
    return run, Cleaner(Dataset(folder / 'skies'), parts=run.split)


def photos(run, part, label, n=1):
    "The first photos of a class in a part."
    rows = run.split.part(part)
    return rows.path[rows.label == label].tolist()[:n]


def clean_a_little(run, cleaner):
    "One photo of the training part each is relabelled, set aside, deleted and confirmed."
    a, b, c, d = photos(run, 'train', 'Cirrus', 4)
    cleaner.relabel(a, 'Stratus')
    cleaner.ambiguous(b)
    cleaner.delete(c)
    cleaner.keep(d)
    cleaner.apply()


def again(run, **settings):
    return retrain_round(run, n_boot=50, progress=False, **settings)


def test_a_round_keeps_each_photo_in_its_part(mine):
    run, cleaner = mine
    before = run.split.frame.set_index('sha256').part
    clean_a_little(run, cleaner)
    result = again(run)
    after = result.run.split.frame.set_index('sha256').part
    changed = before[before != after.reindex(before.index)]
    assert len(changed) == 2
    assert set(after[changed.index]) == {'excluded'}
    assert result.run.config == run.config
    assert result.run.path.parent == run.path.parent
    changes = result.data['changes']
    assert [changes[k] for k in ('n', 'keep', 'relabel', 'ambiguous', 'delete')] == [4, 1, 1, 1, 1]
    by_class = {o['class']: o for o in changes['by_class']}
    assert by_class['Stratus']['came_in'] == by_class['Cirrus']['relabel'] == 1
    assert result.data['test'] is None
    assert result.before.data['n'] == len(run.split.part('test'))


def test_what_is_decided_within_a_second_of_the_start_is_counted(mine, monkeypatch):
    run, cleaner = mine
    assert datetime.fromisoformat(run.metadata['started']).microsecond % 1000 == 0
    assert len(run.metadata['started']) == len('2026-01-01T10:00:00.499+00:00')
    file = run.path / 'run.json'
    file.write_text(json.dumps(run.metadata | {'started': '2026-01-01T10:00:00.499+00:00'}))
    monkeypatch.setattr('cloud_classifier.data.dataset.utc_now', lambda: '2026-01-01T10:00:00.500+00:00')
    clean_a_little(run, cleaner)
    assert len(decisions_since(Run(run.path))) == 4


def test_the_same_call_does_not_train_twice(mine, monkeypatch):
    run, cleaner = mine
    clean_a_little(run, cleaner)
    first = again(run.path)
    monkeypatch.setattr(ActiveRun, 'train', lambda self: pytest.fail('it is trained again'))
    second = again(run.path)
    assert second.run.path == first.run.path
    assert 'it was not trained again' in ' '.join(second.data['notes'])
    assert second.data['difference'] == first.data['difference']
    with pytest.raises(BadRun, match='no label was changed'):
        again(first.run)


def test_a_round_that_was_interrupted_goes_on(mine, monkeypatch):
    run, cleaner = mine
    clean_a_little(run, cleaner)

    def interrupt(self, *args, **facts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ActiveRun, 'finish', interrupt)
        with pytest.raises(KeyboardInterrupt):
            again(run)
    (begun,) = run.path.parent.glob('run-cleaned-*')
    assert json.loads((begun / 'run.json').read_text())['status'] == 'interrupted'
    result = again(run)
    assert result.run.path == begun
    assert len(result.run.history) == 1


def test_a_round_that_was_killed_goes_on(mine, server):
    run, cleaner = mine
    clean_a_little(run, cleaner)
    code = f'from cloud_classifier.evaluation.round import *\nretrain_round({str(run.path)!r}, progress=False)'
    child = server.start(code)
    child.wait_for(lambda: any(run.path.parent.glob('run-cleaned-*/last.pth')) or child.poll() is not None)
    child.kill()
    assert child.wait() in (0, -signal.SIGKILL)
    result = again(run)
    assert [result.run.path] == [*run.path.parent.glob('run-cleaned-*')]
    assert json.loads((result.run.path / 'run.json').read_text())['status'] == 'finished'


def test_nothing_to_do_is_said_and_can_be_forced(mine):
    run, cleaner = mine
    with pytest.raises(BadRun, match='no label was changed and no photo taken out since it was trained;'):
        again(run)
    cleaner.keep(photos(run, 'train', 'Cirrus')[0])
    cleaner.apply()
    with pytest.raises(BadRun, match='1 photos were confirmed'):
        again(run)
    result = again(run, force=True)
    assert result.data['difference']['top1'] == {'value': 0, 'low': 0, 'high': 0}
    assert 'No label was changed' in result.data['notes'][0]
    assert 'rule of three' in result.to_html()


def test_what_a_person_decided_about_test_photos_is_reported_apart(mine):
    run, cleaner = mine
    n = len(run.split.part('test'))
    clean_a_little(run, cleaner)
    (relabelled,), (kept,), (deleted,) = (photos(run, 'test', o) for o in ('Cirrus', 'Stratus', 'Cumulus'))
    cleaner.relabel(relabelled, 'Stratus')
    cleaner.keep(kept)
    cleaner.delete(deleted)
    cleaner.apply()
    result = again(run)
    test = result.data['test']
    assert (test['n'], test['keep'], test['relabel'], test['delete'], test['by_model']) == (3, 1, 1, 1, 0)
    assert test['left'] == n - 1
    assert test['difference']['photos']['n'] == n - 1
    for report in (result.before, result.after):
        assert report.data['n'] == n - 3
        names = {path.rsplit('/', 1)[-1] for path in report.predictions.paths}
        assert not names & {path.rsplit('/', 1)[-1] for path in (relabelled, kept, deleted)}
    assert result.data['changes']['n'] == 4
    assert '3 (1 kept, 1 relabelled, 1 deleted)' in result._repr_markdown_()
    assert '3 (1 kept, 1 relabelled, 1 deleted)' in result.to_html()


def test_a_photo_moved_by_hand_was_decided_about(mine):
    run, _ = mine
    (photo,) = photos(run, 'test', 'Cirrus')
    (run.split.root / photo).rename(run.split.root / 'Stratus' / 'moved by hand.jpg')
    rows = decisions_since(run)
    assert rows[['part', 'given', 'label', 'decision', 'by']].values.tolist() == [
        ['test', 'Cirrus', 'Stratus', 'relabel', 'person']
    ]


def test_only_what_stands_counts(mine):
    run, cleaner = mine
    (photo,) = photos(run, 'train', 'Cirrus')
    cleaner.relabel(photo, 'Stratus')
    cleaner.apply()
    assert decisions_since(run).decision.tolist() == ['relabel']
    cleaner.undo()
    assert not len(decisions_since(run))
    with pytest.raises(BadRun, match='no label was changed'):
        again(run)


def test_a_test_part_that_a_model_cleaned_is_refused(mine, monkeypatch):
    run, cleaner = mine
    clean_a_little(run, cleaner)
    (photo,) = photos(run, 'test', 'Cirrus')
    cleaner.delete(photo)
    cleaner.apply()
    journal = Dataset.journal

    def by_model(self):
        rows = journal(self)
        return rows.assign(by=rows.by.mask(rows.source == photo, 'model'))

    monkeypatch.setattr(Dataset, 'journal', by_model)
    with pytest.raises(BadRun, match='1 photos of its test part were cleaned by a model'):
        again(run)
    result = again(run, force=True)
    assert 'A model decided about 1 test photos' in result.data['notes'][0]
    assert result.data['test']['by_model'] == 1


def test_what_a_round_can_not_be_made_of_is_said(mine, tmp_path):
    run, cleaner = mine
    clean_a_little(run, cleaner)
    out = shutil.copytree(run.path, tmp_path / 'other')
    (out / 'run.json').write_text(json.dumps(run.metadata | {'config': run.metadata['config'] | {'seed': 7}}))
    with pytest.raises(BadRun, match='holds a run with other settings'):
        again(run, out=out)
    with pytest.raises(BadRun, match='before the photos changed again'):
        again(run, out=run.path)
    with pytest.raises(BadRun, match='is not a run'):
        again(tmp_path)
    (run.path / 'run.json').write_text(json.dumps(run.metadata | {'status': 'interrupted'}))
    with pytest.raises(BadRun, match='did not finish'):
        again(run.path)


def test_a_class_that_cleaning_emptied_is_named(mine):
    run, cleaner = mine
    for photo in photos(run, 'train', 'Cirrus', 100):
        cleaner.delete(photo)
    cleaner.apply()
    with pytest.raises(BadRun, match='no photo of Cirrus to train on is left'):
        again(run)


def test_a_dataset_that_was_moved_can_be_named(mine, tmp_path):
    run, cleaner = mine
    clean_a_little(run, cleaner)
    moved = tmp_path / 'elsewhere'
    run.split.root.rename(moved)
    with pytest.raises(BadRun, match='name the folder where they are now'):
        again(run)
    (tmp_path / 'empty' / 'Cirrus').mkdir(parents=True)
    with pytest.raises(BadDataset, match='none of its'):
        again(run, data=tmp_path / 'empty')
    assert again(run, data=moved).data['changes']['n'] == 4


def test_a_new_class_is_in_neither_model_and_markup_is_text(mine):
    run, cleaner = mine
    clean_a_little(run, cleaner)
    (photo,) = photos(run, 'valid', 'Cirrus')
    cleaner.relabel(photo, '<b>Contrails', new=True)
    cleaner.apply()
    shutil.copy(run.split.files('train')[0], run.split.root / 'Stratus' / 'new.png')
    result = again(run)
    assert result.run.metadata['classes'] == run.metadata['classes']
    assert '1 relabelled to a class that was not trained' in result.data['changes']['line']
    assert '1 photos that came since are in neither model.' in result.data['notes']
    page = result.save(run.path / 'pages').read_text()
    check_page(page)
    assert '<b>Contrails' not in page
    read = json.loads((run.path / 'pages' / 'round.json').read_text())
    assert read['verdict'] == result.verdict
    assert read['before']['n'] == result.before.data['n']


def test_an_earlier_run_says_in_a_line_what_cleaning_changed(mine):
    run, cleaner = mine

    def line():
        return next(o for o in evaluate(run, n_boot=5, look=False).data['notes'] if 'divided like this' in o)

    assert 'since' not in line()
    clean_a_little(run, cleaner)
    assert '2 photos were quarantined and 1 relabelled since the split was made' in line()
    cleaner.undo_session()
    assert 'since' not in line()


# from decisions to a round


def test_the_newest_run_of_a_dataset_is_found(mine, tmp_path):
    run, _ = mine
    runs, data = tmp_path / 'runs', run.split.root
    started = json.loads((run.path / 'run.json').read_text())
    for name, facts in {
        'old': {'started': '2020-01-01T00:00:00+00:00'},
        'newest': {'started': '2021-01-01T00:00:00+00:00'},
        'unfinished': {'started': '2022-01-01T00:00:00+00:00', 'status': 'interrupted'},
        'of other photos': {'started': '2022-01-01T00:00:00+00:00', 'data': '/elsewhere'},
        'put together': {'started': '2022-01-01T00:00:00+00:00', 'soup': ['a', 'b']},
        'folds/fold-0': {'started': '2022-01-01T00:00:00+00:00'},
    }.items():
        (shutil.copytree(run.path, runs / name) / 'run.json').write_text(json.dumps(started | facts))
    (runs / 'folds' / 'folds.json').write_text('{}')
    (runs / 'damaged').mkdir()
    (runs / 'damaged' / 'run.json').write_text('{')
    assert newest_run(data, runs).path == runs / 'newest'
    assert newest_run(tmp_path, runs) is None
    assert newest_run(data, tmp_path / 'nowhere') is None


def test_decisions_of_a_file_and_those_that_wait_are_carried_out(mine, tmp_path):
    run, cleaner = mine
    a, b, c = photos(run, 'train', 'Cirrus', 3)
    pd.DataFrame([(a, 'relabel', 'Stratus'), (b, 'delete', '')], columns=['path', 'decision', 'label']).to_csv(
        tmp_path / 'decisions.csv', index=False
    )
    cleaner.ambiguous(c)
    result = clean_round(run.split.root, run, tmp_path / 'decisions.csv', progress=False)
    changes = result.data['changes']
    assert (changes['n'], changes['relabel'], changes['delete'], changes['ambiguous']) == (3, 1, 1, 1)
    same = clean_round(run.split.root, run, tmp_path / 'decisions.csv', progress=False)
    assert same.run.path == result.run.path


@pytest.fixture
def doubts(monkeypatch):
    "Out-of-fold probabilities by which every photo had better be under the class after the one that it was drawn as."

    def out_of_fold(data, parts, progress):
        classes = parts.classes
        rows = parts.frame[parts.frame.part.isin(['train', 'valid'])]
        probs = np.full((len(rows), len(classes)), 0.1)
        drawn = [path.split('/')[1].split('-')[0].capitalize() for path in rows.path]
        columns = [(classes.index(o) + 1) % len(classes) for o in drawn]
        probs[np.arange(len(rows)), columns] = 0.9 - np.linspace(0, 0.1, len(rows))
        probs /= probs.sum(axis=1, keepdims=True)
        facts = rows[['path', 'sha256', 'label', 'group']].reset_index(drop=True).assign(fold=0)
        return facts.join(pd.DataFrame(probs, columns=classes))

    monkeypatch.setattr('cloud_classifier.training.oof.out_of_fold', out_of_fold)


def test_suggestions_are_taken_once_and_never_for_test_photos(mine, doubts):
    run, _ = mine
    data = run.split.root
    result = clean_round(data, run, accept=4, progress=False)
    changes = result.data['changes']
    assert (changes['n'], changes['relabel'], changes['by_model']) == (4, 4, 4)
    assert result.data['test'] is None
    assert '4 (4 relabelled; 4 of these by a model)' in result.to_html()
    again = clean_round(data, run, accept=4, progress=False)
    assert again.run.path == result.run.path
    assert len(decisions_since(run)) == 4
    assert clean_round(data, run, accept=6, progress=False).data['changes']['n'] == 6


def test_suggestions_that_were_cut_off_before_they_were_carried_out_count(mine, doubts, monkeypatch):
    run, _ = mine
    data = run.split.root

    def interrupt(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Cleaner, 'apply', interrupt)
        with pytest.raises(KeyboardInterrupt):
            clean_round(data, run, accept=4, progress=False)
    assert clean_round(data, run, accept=4, progress=False).data['changes']['n'] == 4


def test_without_a_run_one_is_trained_first(mine, doubts, tmp_path, monkeypatch):
    run, cleaner = mine
    monkeypatch.chdir(tmp_path)
    calls = []

    def small(data, progress):
        calls.append(data)
        return train(data, **TINY, **QUIET)

    monkeypatch.setattr('cloud_classifier.training.run.train', small)
    clean_a_little(run, cleaner)
    data = run.split.root
    with pytest.raises(BadRun, match='no label was changed'):
        clean_round(data, progress=False)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert len(calls) == 1
    cleaner.delete(photos(run, 'train', 'Cumulus')[0])
    result = clean_round(data, progress=False)
    assert result.data['runs']['before'] == newest_run(data).path.name.split('-cleaned-')[0]
    again = clean_round(data, progress=False)
    assert again.run.path == result.run.path
    assert 'it was not trained again' in ' '.join(again.data['notes'])
