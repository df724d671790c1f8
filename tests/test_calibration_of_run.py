"A run's calibration is fitted once, by photos that it was neither trained on nor is tested on."

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cloud_classifier.data.sampling import save_split
from cloud_classifier.evaluation import calibrate as module
from cloud_classifier.evaluation import ood
from cloud_classifier.evaluation.calibrate import class_shares, load_or_fit
from cloud_classifier.evaluation.ood import learner_outputs
from cloud_classifier.evaluation.report import evaluate
from cloud_classifier.prediction.decide import calibrated
from cloud_classifier.training.config import BadConfig, BadRun
from cloud_classifier.training.run import Run, train

RUN = ('run.json', 'split.csv', 'split.json', 'learner.pkl', 'history.csv')


def copied(one, other, names):
    for name in names:
        shutil.copy(one / name, other / name)
    return other


@pytest.fixture(scope='module')
def run(skies, tmp_path_factory):
    "A finished run of a tiny network, as what is fitted for it is fitted again and again."
    small = {'arch': 'timm/test_resnet', 'size': 64, 'weights': 'none', 'epochs': 2, 'bs': 8}
    return train(skies, out=tmp_path_factory.mktemp('runs') / 'run', progress=False, **small)


@pytest.fixture
def mine(run, tmp_path):
    "A copy of the finished run, to write into."
    return Run(copied(run.path, tmp_path, RUN))


@pytest.fixture(scope='module')
def fitted(run, tmp_path_factory):
    "What was fitted for that run: to look at, and for `mine_fitted` to start from."
    copy = Run(copied(run.path, tmp_path_factory.mktemp('fitted'), RUN))
    return copy, load_or_fit(copy)


@pytest.fixture
def mine_fitted(fitted, tmp_path):
    "A copy of the run with what was fitted for it, to write into."
    return Run(copied(fitted[0].path, tmp_path, (*RUN, 'calibration.json', 'ood.pth')))


@pytest.fixture(scope='module', autouse=True)
def few_pictures():
    "What is no sky is learnt from few drawn pictures: it is asked how often that is done, not how well."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ood, 'fit_ood', partial(ood.fit_ood, drawn=6))
        yield


def never(*_, **__):
    raise AssertionError('this was fitted before')


def test_fitted_once_and_read_back(fitted, monkeypatch):
    run, (calibration, ood_score) = fitted
    assert calibration.photos == len(run.split.files('valid'))
    assert calibration.rules.ood_threshold == ood_score.threshold
    monkeypatch.setattr(ood, 'fit_ood', never)
    monkeypatch.setattr(module, 'fit_calibration', never)
    again, same = load_or_fit(Run(run.path))
    assert again == calibration
    assert same.threshold == ood_score.threshold


def test_test_photos_never_pass_through_the_network_and_others_once_at_most(mine, monkeypatch):
    photos = []

    def recorded(learn, some, *args):
        photos.extend(o for o in some if isinstance(o, Path))  # the others are drawn
        return learner_outputs(learn, some, *args)

    monkeypatch.setattr(ood, 'learner_outputs', recorded)
    load_or_fit(mine)
    assert sorted(photos) == sorted([*mine.split.files('train'), *mine.split.files('valid')])


def test_another_learner_is_fitted_again(mine_fitted):
    said = json.loads((mine_fitted.path / 'calibration.json').read_text())
    (mine_fitted.path / 'calibration.json').write_text(
        json.dumps(said | {'learner': 'another', 'calibration': said['calibration'] | {'photos': 0}})
    )
    assert load_or_fit(mine_fitted)[0].photos > 0


def test_a_learner_that_can_not_be_read_has_nothing_fitted(mine_fitted):
    "Whatever calibration.json says of a learner that is not there, it was not fitted for this one."
    said = json.loads((mine_fitted.path / 'calibration.json').read_text())
    (mine_fitted.path / 'calibration.json').write_text(json.dumps(said | {'learner': ''}))
    (mine_fitted.path / 'learner.pkl').unlink()
    with pytest.raises(BadRun, match='is not a learner that can be opened'):
        load_or_fit(mine_fitted)


def test_another_target_is_fitted_again_and_stays(mine_fitted):
    assert load_or_fit(mine_fitted, target_error=0.1)[0].target_error == 0.1
    assert load_or_fit(mine_fitted)[0].target_error == 0.1
    for wrong in (0, 1, -0.2, 25):
        with pytest.raises(BadConfig, match='above 0 and below 1'):
            load_or_fit(mine_fitted, target_error=wrong)


def out_of_fold(run):
    "Pretended out-of-fold predictions of all photos, those of the test part among them."
    rows, classes = run.split.frame.reset_index(drop=True), run.metadata['classes']
    probs = np.random.default_rng(0).dirichlet(np.ones(len(classes)), len(rows))
    return rows[['path', 'label', 'group']].join(pd.DataFrame(probs, columns=classes))


def test_out_of_fold_predictions_decide_where_there_are_some(mine_fitted):
    mine, oof = mine_fitted, out_of_fold(mine_fitted)
    calibration, _ = load_or_fit(mine, oof=oof)
    assert calibration.basis == 'out of fold'
    assert calibration.photos == len(oof) - len(mine.split.part('test'))
    with pytest.raises(BadConfig, match="no column 'Cirrus'"):
        load_or_fit(mine, oof=oof.drop(columns='Cirrus'))
    with pytest.raises(BadConfig, match='test photos'):
        load_or_fit(mine, oof=oof[oof.path.isin(mine.split.part('test').path)])


def test_the_temperature_leaves_every_answer_where_it_was(fitted):
    run, (calibration, _) = fitted
    _, _, probs, _, _ = run.predictions('test')
    assert np.array_equal(calibrated(probs, calibration.temperature).argmax(1), probs.argmax(1))


@pytest.mark.parametrize(('balance', 'even'), [('equal', True), ('weighted', True), (None, False)])
def test_shares_in_training_follow_the_balance(mine, balance, even):
    mine.config = replace(mine.config, balance=balance)
    rows = mine.split.part('train')
    lopsided = rows[(rows.label != 'Cirrus') | (np.arange(len(rows)) % 2 == 0)]
    frame = mine.split.frame
    save_split(replace(mine.split, frame=frame.loc[frame.index.isin(lopsided.index)]), mine.path / 'split.csv')
    shares = class_shares(mine)
    assert sum(shares.values()) == pytest.approx(1)
    assert (shares['Cirrus'] == pytest.approx(1 / 3)) == even


def cut(content):
    return content[: len(content) // 2]


DAMAGE = {
    'cut off': lambda said: cut(json.dumps(said)),
    'nothing': lambda said: '',
    'no object': lambda said: '[]',
    'deep': lambda said: '[' * 99999,
    'another shape': lambda said: json.dumps(said | {'calibration': 1}),
    'no temperature': lambda said: json.dumps(
        said | {'calibration': said['calibration'] | {'temperature': float('nan')}}
    ),
    'no probability': lambda said: json.dumps(
        said | {'calibration': said['calibration'] | {'rules': {'thresholds': {'genus': 'x'}}}}
    ),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_what_was_fitted_and_is_damaged_is_fitted_again(mine_fitted, damage, caplog):
    before = (mine_fitted.path / 'calibration.json').read_text()
    (mine_fitted.path / 'calibration.json').write_text(DAMAGE[damage](json.loads(before)))
    calibration, _ = load_or_fit(mine_fitted)
    assert 'calibration.json and ood.pth can\'t be read' in caplog.text
    assert (mine_fitted.path / 'calibration.json').read_text() == before
    assert calibration == load_or_fit(mine_fitted)[0]


@pytest.mark.parametrize('size', [0, 10, 5000])
def test_statistics_that_are_cut_off_are_made_again(mine_fitted, size, caplog):
    file = mine_fitted.path / 'ood.pth'
    file.write_bytes(file.read_bytes()[:size])
    threshold = load_or_fit(mine_fitted)[1].threshold
    assert 'are made again' in caplog.text
    assert threshold == load_or_fit(mine_fitted)[1].threshold


def test_a_folder_that_can_not_be_written_is_said_and_the_answers_are_the_same(fitted, read_only, tmp_path, caplog):
    run, (calibration, _) = fitted
    place = read_only(copied(run.path, tmp_path, RUN))
    assert load_or_fit(Run(place))[0] == calibration
    assert f'{place}: calibration.json can\'t be written' in caplog.text
    report = evaluate(Run(place), n_boot=5, look=False)
    assert report.save(tmp_path / 'elsewhere').is_file()
    assert not [f.name for f in place.iterdir() if f.suffix in ('.tmp', '.pth') or f.name == 'calibration.json']


def test_test_photos_that_were_renamed_since_choose_nothing(fitted, tmp_path, skies):
    data = shutil.copytree(skies, tmp_path / 'skies')
    mine = copied(fitted[0].path, tmp_path, (*RUN, 'calibration.json', 'ood.pth'))
    (mine / 'run.json').write_text(json.dumps(fitted[0].metadata | {'data': str(data)}))
    oof = out_of_fold(Run(mine))
    photo = Run(mine).split.part('test').path.iloc[0]
    (data / photo).rename(data / f'{photo}.jpg')
    new = oof.assign(path=oof.path.replace(photo, f'{photo}.jpg'))
    for table in (oof, new):  # made before, and after
        assert load_or_fit(Run(mine), oof=table)[0].photos == len(oof) - len(fitted[0].split.part('test'))
