"Runs, model files and folders are judged alike, and what can't be judged is said."

import json
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pretend import HISTORY, check_page, make

from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.evaluation.calibrate import class_shares
from cloud_classifier.evaluation.report import evaluate
from cloud_classifier.prediction.decide import calibrated
from cloud_classifier.prediction.export import export_run
from cloud_classifier.prediction.infer import CloudClassifier
from cloud_classifier.training.run import Run, train

pytestmark = pytest.mark.usefixtures('traced_once')
TINY = {'arch': 'timm/test_resnet', 'size': 32, 'weights': 'none', 'bs': 8, 'cache': False, 'progress': False}


def test_a_run_hands_over_its_predictions_history_and_settings(run):
    report = evaluate(run, n_boot=20, look=False)
    assert report.predictions.paths == sorted(str(o) for o in run.split.files('test'))
    assert any('0 of them in two parts' in o for o in report.data['notes'])
    assert not any('not from' in o for o in report.data['notes'])
    assert report.data['settings']['arch'] == run.config.arch
    assert [o['train_loss'] for o in report.data['history']] == pytest.approx(run.history.train_loss.tolist())
    assert run.config.arch in report.to_html(thumbnails=False)
    again = evaluate(run, 'valid', n_boot=20, look=False, history=[], settings={})
    assert again.predictions.paths == sorted(str(o) for o in run.split.files('valid'))
    assert 'not from “test”' in again.data['notes'][0]
    assert again.data['settings'] == {}
    assert again.data['history'] == []
    page = again.to_html(thumbnails=False)
    assert page.index('not from “test”') < page.index('photos the first answer is right')


def test_history_and_settings_become_what_json_knows():
    report = evaluate(make(40, 5), n_boot=20, history=HISTORY, settings={'arch': 'resnet34', 'lr': np.float32(0.5)})
    assert report.data['settings'] == {'arch': 'resnet34', 'lr': 0.5}
    assert [o['train_loss'] for o in report.data['history']] == [2.0, None]


def test_learner_and_split_are_loaded_once(run, tmp_path, monkeypatch):
    mine, loads, reads = Run(shutil.copytree(run.path, tmp_path / 'run')), [], []
    for name in ('calibration.json', 'ood.pth'):
        (mine.path / name).unlink(missing_ok=True)
    learner, split = Run.learner, Run.split.fget
    monkeypatch.setattr(Run, 'learner', lambda self: loads.append(1) or learner(self))
    monkeypatch.setattr(Run, 'split', property(lambda self: reads.append(1) or split(self)))
    evaluate(mine, n_boot=5)
    assert (len(loads), len(reads)) == (1, 1)


def test_a_card_says_which_weights_the_training_began_with(run, model_of_run):
    card = CloudClassifier(model_of_run).card
    assert card['weights_source'] == run.metadata['weights_source'] == {'origin': 'random'}


def test_run_and_file_get_the_same_report(run, model_of_run):
    one = evaluate(run, n_boot=50, look=False).data
    two = evaluate(model_of_run, data=run.split.root, parts=run.split, n_boot=50, look=False).data
    for name in ('n', 'classes', 'confusion', 'by_class', 'n_groups', 'calibration'):
        assert one[name] == two[name], name
    assert one['brier']['value'] == pytest.approx(two['brier']['value'], abs=1e-4)
    assert [o['n'] for o in one['verdicts']] == [o['n'] for o in two['verdicts']]


def test_the_network_is_shown_more_than_the_photos(run, tmp_path):
    report = evaluate(run, n_boot=20, top=2)
    assert {o['view'] for o in report.data['audit']['views']} >= {'ground', 'border'}
    assert report.data['audit']['words']
    assert sum(o['n'] for o in report.data['not_a_sky']['kinds']) > 100
    assert 0 <= report.data['not_a_sky']['auroc']['value'] <= 1
    assert all(o['heat'].startswith('data:image/jpeg') for o in report.data['top_losses'])
    page = report.to_html()
    check_page(page)
    for title in ('Pictures that are no sky', 'Does it look at the clouds?', 'What its probabilities are worth'):
        assert title in page


def test_a_folder_with_unknown_classes_and_broken_photos(model_of_run, run, tmp_path):
    shutil.copytree(run.split.root / 'Cirrus', tmp_path / 'Ci')
    shutil.copytree(run.split.root / 'Stratus', tmp_path / 'Fog')
    (tmp_path / 'Ci' / 'torn.jpg').write_bytes(b'\xff\xd8\xff\xe0 torn')
    report = evaluate(model_of_run, data=tmp_path, n_boot=20, look=False)
    assert report.data['n'] == len(list((tmp_path / 'Ci').glob('*.jpg'))) - 1
    notes = ' '.join(report.data['notes'])
    assert 'photos of Fog are left out' in notes
    assert '1 photos can’t be opened' in notes
    assert 'without a split' in notes
    with pytest.raises(BadDataset, match='none of its classes'):
        evaluate(model_of_run, data=only(tmp_path, 'Fog'), look=False)


def only(folder, name):
    "A dataset with one of the classes of another."
    root = folder.parent / 'only'
    shutil.copytree(folder / name, root / name)
    return root


def test_a_model_file_needs_photos(model_of_run):
    with pytest.raises(BadDataset, match='name a folder'):
        evaluate(model_of_run)


def test_seeds_are_compared_on_the_same_photos_alone(run):
    report = evaluate(run, also=[run, run], n_boot=20, look=False)
    assert len(report.data['seeds']['runs']) == 3
    assert report.data['seeds']['mean']['top1'] == pytest.approx(report.data['top1']['value'])
    assert report.data['seeds']['spread']['top1'] == pytest.approx(0)
    assert 'mean ± spread' in report.to_html(thumbnails=False)
    other = SimpleNamespace(
        metadata=run.metadata | {'split_hash': 'another'},
        config=run.config,
        path=Path('other'),
        predictions=run.predictions,
    )
    with pytest.raises(BadDataset, match='another split'):
        evaluate(run, also=[other], n_boot=20, look=False)


@pytest.fixture(scope='module')
def trained(skies, tmp_path_factory):
    "A copy of the skies, and a run on it. Look, but don't touch."
    folder = tmp_path_factory.mktemp('trained')
    data = shutil.copytree(skies, folder / 'skies')
    train(data, out=folder / 'run', precision='fp32', epochs=1, **TINY)
    return folder


@pytest.fixture
def cleaned(trained, tmp_path):
    "A run whose test photos were cleaned: one taken out, one relabelled, one renamed, one of another class."
    folder = shutil.copytree(trained, tmp_path / 'trained')
    data, file = folder / 'skies', folder / 'run' / 'run.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | {'data': str(data)}))
    run = Run(folder / 'run')
    test = run.split.part('test').path.tolist()
    assert len(test) >= 5
    mine = Dataset(data)
    mine.quarantine(test[0], 'blurry')
    other = next(o for o in run.metadata['classes'] if not test[1].startswith(o))
    mine.relabel(test[1], other)
    (data / test[2]).rename(data / f'{test[2]}.renamed.jpg')
    mine.relabel(test[3], 'Fog')
    return run, mine, len(test)


LINE = '1 photo was quarantined, 1 relabelled, 1 moved and 1 relabelled to a class that was not trained since'


def test_a_run_is_judged_by_the_photos_that_are_there_and_their_labels_of_now(cleaned, command):
    run, mine, n = cleaned
    status, out, err = command('evaluate', run.path, '--no-look', '--json')
    assert status == 0, err
    report = json.loads(out)
    assert report['n'] == n - 2
    notes = ' '.join(report['notes'])
    assert LINE in notes
    assert 'judged by the labels that they have now' in notes
    assert run.metadata['split_hash'][:12] in notes
    status, _, err = command('export', run.path)
    assert status == 0, err
    assert (run.path / 'clouds.onnx').is_file()
    assert class_shares(run) == class_shares(Run(run.path))
    mine.undo(3)
    assert evaluate(run, n_boot=5, look=False).data['n'] == n  # the one that was renamed is found


def test_a_file_is_judged_by_the_split_as_it_is_now(cleaned, command):
    run, mine, n = cleaned
    assert command('export', run.path)[0] == 0
    model, split = run.path / 'clouds.onnx', run.path / 'split.csv'
    status, out, err = command('evaluate', model, mine.path, '--split', split, '--no-look', '--json')
    assert status == 0, err
    report = json.loads(out)
    assert report['n'] == n - 2
    assert '1 photos of Fog are left out' in ' '.join(report['notes'])


def test_a_part_that_is_gone_is_said_in_a_line(cleaned, command):
    run, mine, _ = cleaned
    for photo in run.split.part('test').path:
        mine.quarantine(photo, 'all of them')
    status, _, err = command('evaluate', run.path)
    assert (status, err.count('\n')) == (2, 1)
    assert 'no photo of the part test is left' in err


def test_a_read_only_dataset_is_divided_and_judged(run, skies, read_only, tmp_path, command):
    data = shutil.copytree(skies, tmp_path / 'skies')
    Dataset(data).sync(progress=False)
    place, mine = read_only(data), tmp_path / 'run'
    status, _, err = command('split', place, '--out', tmp_path / 'split.csv')
    assert status == 0, err
    shutil.copytree(run.path, mine, ignore=shutil.ignore_patterns('*.onnx', '*.pth'))
    (mine / 'run.json').write_text(json.dumps(run.metadata | {'data': str(place)}))
    before = evaluate(run, n_boot=5, look=False).data
    assert evaluate(mine, n_boot=5, look=False).data['top1'] == before['top1']


def test_a_full_disk_leaves_the_report_that_was_there(small_disk):
    evaluate(make(30, 5), n_boot=5).save(small_disk, thumbnails=False)
    before = {o.name: o.read_bytes() for o in small_disk.iterdir()}
    with open(small_disk / 'full', 'wb', buffering=0) as f, suppress(OSError):
        while True:
            f.write(bytes(4096))
    with pytest.raises(OSError, match='No space left'):
        evaluate(make(300, 5, seed=1), n_boot=5).save(small_disk, thumbnails=False)
    (small_disk / 'full').unlink()
    assert {o.name: o.read_bytes() for o in small_disk.iterdir()} == before


@pytest.mark.parametrize('arch', ['timm/test_resnet', pytest.param('resnet18', marks=pytest.mark.soak)])
def test_a_run_trained_in_bf16_is_judged_in_fp32(skies, tmp_path, arch):
    "Its report, its learner and its file give the same probabilities, and so do two times of asking."
    run = train(skies, out=tmp_path / 'run', precision='bf16', epochs=2, **TINY | {'arch': arch, 'size': 64})
    assert run.metadata['precision'] == 'bf16'
    file, worst = export_run(run)
    assert worst < 1e-4
    paths, _, probs, _, _ = run.predictions('test')
    clouds = CloudClassifier(file)
    asked = np.concatenate([clouds.probabilities(clouds.preprocess(path)[None]) for path in paths])
    assert abs(calibrated(probs, clouds.temperature) - asked).max() < 1e-4
    one, two = (
        evaluate(o, n_boot=5, look=False, **words).data
        for o, words in ((run, {}), (file, dict(data=skies, parts=run.split)))
    )
    assert one['brier']['value'] == pytest.approx(two['brier']['value'], abs=1e-4)
    assert one['confusion'] == two['confusion']
