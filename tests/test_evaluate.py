"Runs, model files and folders are judged alike, and what can't be judged is said."

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pretend import HISTORY, check_page, make

from cloud_classifier.dataset import BadDataset
from cloud_classifier.evaluate import evaluate
from cloud_classifier.sampling import Split


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


def test_run_and_file_get_the_same_report(run, model_of_run):
    one = evaluate(run, n_boot=50, look=False).data
    two = evaluate(model_of_run, data=run.split.root, parts=run.split, n_boot=50, look=False).data
    for name in ('n', 'classes', 'confusion', 'by_class', 'n_groups', 'trust'):
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


def test_a_folder_with_strange_classes_and_broken_photos(model_of_run, run, tmp_path):
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
        settings=run.settings | {'split_hash': 'another'}, path=Path('other'), predictions=run.predictions
    )
    with pytest.raises(BadDataset, match='another split'):
        evaluate(run, also=[other], n_boot=20, look=False)
