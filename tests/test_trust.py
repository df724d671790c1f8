"What a run's answers may claim is settled once, by photos that neither trained it nor test it."

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cloud_classifier.data.sampling import save_split
from cloud_classifier.evaluation import calibrate as module
from cloud_classifier.evaluation.calibrate import settle, trained_shares
from cloud_classifier.evaluation.report import evaluate
from cloud_classifier.prediction.decide import calibrated
from cloud_classifier.training.config import BadRun, BadSetting
from cloud_classifier.training.run import Run

RUN = ('run.json', 'split.csv', 'split.json', 'learner.pkl', 'history.csv')


def copied(one, other, names):
    for name in names:
        shutil.copy(one / name, other / name)
    return other


@pytest.fixture
def mine(run, tmp_path):
    "A copy of the finished run, to write into."
    return Run(copied(run.path, tmp_path, RUN))


@pytest.fixture(scope='module')
def settled(run, tmp_path_factory):
    "What was settled for that run: to look at, and for `mine_settled` to start from."
    copy = Run(copied(run.path, tmp_path_factory.mktemp('settled'), RUN))
    return copy, settle(copy)


@pytest.fixture
def mine_settled(settled, tmp_path):
    "A copy of the run with what was settled for it, to write into."
    return Run(copied(settled[0].path, tmp_path, (*RUN, 'trust.json', 'strangeness.pth')))


def never(*_, **__):
    raise AssertionError('this was settled before')


def test_settled_once_and_read_back(settled, monkeypatch):
    run, (trust, strangeness) = settled
    assert trust.photos == len(run.split.files('valid'))
    assert trust.rules.strange == strangeness.threshold
    monkeypatch.setattr(module, 'fit_strangeness', never)
    monkeypatch.setattr(module, 'fit_trust', never)
    again, same = settle(Run(run.path))
    assert again == trust
    assert same.threshold == strangeness.threshold


def test_the_test_part_is_never_asked(mine, monkeypatch):
    asked, predictions = [], mine.predictions
    monkeypatch.setattr(mine, 'predictions', lambda part: asked.append(part) or predictions(part))
    settle(mine)
    assert asked == ['valid']


def test_another_learner_is_settled_anew(mine_settled):
    said = json.loads((mine_settled.path / 'trust.json').read_text())
    (mine_settled.path / 'trust.json').write_text(
        json.dumps(said | {'learner': 'another', 'trust': said['trust'] | {'photos': 0}})
    )
    assert settle(mine_settled)[0].photos > 0


def test_a_learner_that_can_not_be_read_has_nothing_settled(mine_settled):
    "Whatever trust.json says of a learner that is not there, it was not settled for this one."
    said = json.loads((mine_settled.path / 'trust.json').read_text())
    (mine_settled.path / 'trust.json').write_text(json.dumps(said | {'learner': ''}))
    (mine_settled.path / 'learner.pkl').unlink()
    with pytest.raises(BadRun, match='is no learner that can be opened'):
        settle(mine_settled)


def test_another_target_is_settled_anew_and_stays(mine_settled):
    assert settle(mine_settled, target_error=0.1)[0].target_error == 0.1
    assert settle(mine_settled)[0].target_error == 0.1
    for wrong in (0, 1, -0.2, 25):
        with pytest.raises(BadSetting, match='above 0 and below 1'):
            settle(mine_settled, target_error=wrong)


def out_of_fold(run):
    "Pretended out-of-fold predictions of all photos, those of the test part among them."
    rows, classes = run.split.frame.reset_index(drop=True), run.settings['classes']
    probs = np.random.default_rng(0).dirichlet(np.ones(len(classes)), len(rows))
    return rows[['path', 'label', 'group']].join(pd.DataFrame(probs, columns=classes))


def test_out_of_fold_predictions_decide_where_there_are_some(mine_settled):
    mine, oof = mine_settled, out_of_fold(mine_settled)
    trust, _ = settle(mine, oof=oof)
    assert trust.basis == 'out of fold'
    assert trust.photos == len(oof) - len(mine.split.part('test'))
    with pytest.raises(BadSetting, match="no column 'Cirrus'"):
        settle(mine, oof=oof.drop(columns='Cirrus'))
    with pytest.raises(BadSetting, match='test photos'):
        settle(mine, oof=oof[oof.path.isin(mine.split.part('test').path)])


def test_the_temperature_leaves_every_answer_where_it_was(settled):
    run, (trust, _) = settled
    _, _, probs, _, _ = run.predictions('test')
    assert np.array_equal(calibrated(probs, trust.temperature).argmax(1), probs.argmax(1))


@pytest.mark.parametrize(('balance', 'even'), [('equal', True), ('weighted', True), (None, False)])
def test_shares_in_training_follow_the_balance(mine, balance, even):
    mine.settings['balance'] = balance
    rows = mine.split.part('train')
    lopsided = rows[(rows.label != 'Cirrus') | (np.arange(len(rows)) % 2 == 0)]
    frame = mine.split.frame
    save_split(replace(mine.split, frame=frame.loc[frame.index.isin(lopsided.index)]), mine.path / 'split.csv')
    shares = trained_shares(mine)
    assert sum(shares.values()) == pytest.approx(1)
    assert (shares['Cirrus'] == pytest.approx(1 / 3)) == even


def cut(content):
    return content[: len(content) // 2]


DAMAGE = {
    'cut off': lambda said: cut(json.dumps(said)),
    'nothing': lambda said: '',
    'no object': lambda said: '[]',
    'deep': lambda said: '[' * 99999,
    'another shape': lambda said: json.dumps(said | {'trust': 1}),
    'no temperature': lambda said: json.dumps(said | {'trust': said['trust'] | {'temperature': float('nan')}}),
    'no probability': lambda said: json.dumps(
        said | {'trust': said['trust'] | {'rules': {'thresholds': {'genus': 'x'}}}}
    ),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_what_was_settled_and_is_damaged_is_settled_anew(mine_settled, damage, caplog):
    before = (mine_settled.path / 'trust.json').read_text()
    (mine_settled.path / 'trust.json').write_text(DAMAGE[damage](json.loads(before)))
    trust, _ = settle(mine_settled)
    assert 'trust.json and strangeness.pth can\'t be read' in caplog.text
    assert (mine_settled.path / 'trust.json').read_text() == before
    assert trust == settle(mine_settled)[0]


@pytest.mark.parametrize('size', [0, 10, 5000])
def test_statistics_that_are_cut_off_are_made_anew(mine_settled, size, caplog):
    file = mine_settled.path / 'strangeness.pth'
    file.write_bytes(file.read_bytes()[:size])
    threshold = settle(mine_settled)[1].threshold
    assert 'are made again' in caplog.text
    assert threshold == settle(mine_settled)[1].threshold


def test_a_folder_that_can_not_be_written_is_said_and_the_answers_are_the_same(settled, read_only, tmp_path, caplog):
    run, (trust, _) = settled
    place = read_only(copied(run.path, tmp_path, RUN))
    assert settle(Run(place))[0] == trust
    assert f'{place}: trust.json can\'t be written' in caplog.text
    report = evaluate(Run(place), n_boot=5, look=False)
    assert report.save(tmp_path / 'elsewhere').is_file()
    assert not [f.name for f in place.iterdir() if f.suffix in ('.tmp', '.pth') or f.name == 'trust.json']


def test_test_photos_that_were_renamed_since_choose_nothing(settled, tmp_path, skies):
    data = shutil.copytree(skies, tmp_path / 'skies')
    mine = copied(settled[0].path, tmp_path, (*RUN, 'trust.json', 'strangeness.pth'))
    (mine / 'run.json').write_text(json.dumps(settled[0].settings | {'data': str(data)}))
    oof = out_of_fold(Run(mine))
    photo = Run(mine).split.part('test').path.iloc[0]
    (data / photo).rename(data / f'{photo}.jpg')
    new = oof.assign(path=oof.path.replace(photo, f'{photo}.jpg'))
    for table in (oof, new):  # made before, and after
        assert settle(Run(mine), oof=table)[0].photos == len(oof) - len(settled[0].split.part('test'))
