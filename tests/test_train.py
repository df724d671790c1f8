"Training that is repeated, cut off, and started from weights of every kind."

import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest
import torch
import torchvision

from cloud_classifier.dataset import BadDataset
from cloud_classifier.images import Preprocess
from cloud_classifier.sampling import split
from cloud_classifier.train import (
    HISTORY,
    RECIPES,
    BadRun,
    BadSetting,
    NoWeights,
    Run,
    cloud_dls,
    cloud_learner,
    imagenet_weights,
    suggest_lr,
    train,
)

SMALL = {'arch': 'resnet18', 'size': 32, 'weights': 'none', 'bs': 8, 'progress': False}


def test_the_same_seed_gives_the_same_history(skies, tmp_path):
    one, two, other = (
        train(skies, epochs=1, seed=seed, out=tmp_path / name, **SMALL)
        for name, seed in (('one', 1), ('two', 1), ('other', 2))
    )
    timeless = list(HISTORY[:4])
    pd.testing.assert_frame_equal(one.history[timeless], two.history[timeless], check_exact=True)
    assert one.settings['split_hash'] == two.settings['split_hash'] != other.settings['split_hash']
    weights = [run.learner().model.state_dict() for run in (one, two)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_run_says_what_was_done(run, skies):
    assert list(run.history.columns) == list(HISTORY)
    assert list(run.history.epoch) == [0, 1]
    assert (run.history[['seconds', 'photos_per_second']] > 0).all(axis=None)
    s = run.settings
    assert (s['status'], s['recipe'], s['arch'], s['weights'], s['seed']) == (
        'finished',
        'scratch',
        'resnet18',
        'none',
        42,
    )
    assert s['trained_on'] == 3 * run.split.counts().train.min()
    assert s['split_hash'] == run.split.hash
    assert {'fastai', 'torch', 'python'} <= set(s['versions'])
    assert not list(run.path.glob('*.tmp'))


def test_recipes_take_their_epochs(skies, tmp_path):
    "The first notebook's stages: epochs in all, and whether the body was trained."
    expected = {'fine_tune': (2 + 1, True), 'one_cycle': (2, False), 'two_stage': (2, True), 'scratch': (2, True)}
    assert set(expected) == set(RECIPES)
    parts = split(skies)
    for recipe, (epochs, body) in expected.items():
        run = train(skies, recipe, epochs=2, parts=parts, out=tmp_path / recipe, **SMALL)
        assert len(run.history) == epochs, recipe
        assert any(p.requires_grad for p in run.learner().model[0][0].parameters()) == body, recipe


@pytest.mark.parametrize('wrong', [{'recipe': 'fast'}, {'arch': 'resnet_34'}, {'epochs': 0}, {'balance': 'unequal'}])
def test_settings_that_can_not_be(skies, tmp_path, wrong):
    with pytest.raises(BadSetting):
        train(skies, out=tmp_path / 'run', **{**SMALL, **wrong})
    assert not (tmp_path / 'run').exists()


def test_a_finished_run_is_not_written_over(run, skies):
    with pytest.raises(BadRun, match='holds a run already'):
        train(skies, epochs=1, out=run.path, **SMALL)


def test_a_photo_that_is_none_is_named_or_left_out(skies, tmp_path):
    root = shutil.copytree(skies, tmp_path / 'skies')
    (root / 'Stratus' / 'text.jpg').write_text('this is text')
    with pytest.raises(BadDataset, match=r'Stratus/text.jpg: is not a photo .*--skip-bad'):
        train(root, out=tmp_path / 'run', **SMALL)
    run = train(root, epochs=1, skip_bad=True, out=tmp_path / 'run', **SMALL)
    assert run.split.part('out').path.tolist() == ['Stratus/text.jpg']


def test_the_finder_leaves_the_learner_as_it_was(skies):
    learn = cloud_learner(cloud_dls(split(skies), Preprocess(32), bs=8), 'resnet18', weights='none')
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    found = suggest_lr(learn, num_it=30)
    assert 1e-8 < found.minimum < 1
    assert 1e-8 < found.steep <= 10
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())


def interrupted(skies, out, stop):
    "Train in a process of its own, stop it by the signal `stop` in its second epoch; exit status and errors."
    command = [
        sys.executable,
        '-m',
        'cloud_classifier.cli',
        'train',
        skies,
        '--arch',
        'resnet18',
        '--size',
        '32',
        '--bs',
        '8',
    ]
    command += ['--weights', 'none', '--epochs', '500', '--out', out]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not (out / 'history.csv').exists() or len((out / 'history.csv').read_text().splitlines()) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize(
    ('stop', 'status', 'says'), [(signal.SIGINT, 130, 'interrupted'), (signal.SIGKILL, -9, 'running')]
)
def test_a_run_that_was_cut_off_is_never_trusted(skies, tmp_path, command, stop, status, says):
    out = tmp_path / 'run'
    code, errors = interrupted(skies, out, stop)
    assert code == status
    assert 'Traceback' not in errors
    assert json.loads((out / 'run.json').read_text())['status'] == says
    with pytest.raises(BadRun, match=f'did not finish .it is {says}'):
        Run(out)
    for verb in ('evaluate', 'export'):
        code, _, errors = command(verb, out)
        assert code == 2
        assert errors.count('\n') == 1
    assert not list(out.glob('*.pkl')) + list(out.glob('*.onnx'))


@pytest.fixture
def state():
    "A state dict as torchvision publishes them."
    return torchvision.models.resnet18(weights=None).state_dict()


@pytest.fixture
def published(tmp_path, monkeypatch, state):
    "A server that has the weights of resnet18, and an empty cache; `published(content)` changes what it has."
    file = tmp_path / 'weights.pth'
    torch.save(state, file)
    served = {'body': file.read_bytes()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if served['body'] else 404)
            self.end_headers()
            self.wfile.write(served['body'])

        def log_message(self, *args):
            pass

    digest = hashlib.sha256(served['body']).hexdigest()[:8]
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        url = f'http://127.0.0.1:{server.server_port}/resnet18-{digest}.pth'
        weights = torchvision.models.ResNet18_Weights.DEFAULT.value
        changed = type(weights)(url=url, transforms=weights.transforms, meta=weights.meta)
        monkeypatch.setattr(torchvision.models.ResNet18_Weights.DEFAULT, '_value_', changed)
        monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def test_weights_are_downloaded_once_and_really_used(published, skies, state):
    learn = cloud_learner(cloud_dls(split(skies), bs=8), 'resnet18', weights='imagenet')
    assert torch.equal(learn.model[0][0].weight, state['conv1.weight'])
    assert not learn.model[0][0].weight.requires_grad  # frozen, as fastai does with pretrained weights
    published['body'] = b''
    assert torch.equal(imagenet_weights('resnet18')['conv1.weight'], state['conv1.weight'])  # from the cache


@pytest.mark.parametrize('body', [b'', b'<html>'])
def test_weights_that_can_not_be_had_say_where_to_put_them(published, body):
    published['body'] = body
    with pytest.raises(NoWeights, match=r'put the file at .*resnet18-.*--weights none'):
        imagenet_weights('resnet18')


def test_weights_from_a_file(skies, tmp_path, state):
    dls = cloud_dls(split(skies), bs=8)
    torch.save(state, tmp_path / 'mine.pth')
    assert torch.equal(cloud_learner(dls, 'resnet18', tmp_path / 'mine.pth').model[0][0].weight, state['conv1.weight'])
    with pytest.raises(NoWeights, match='holds no weights of resnet34'):
        cloud_learner(dls, 'resnet34', tmp_path / 'mine.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'mine.pth').read_bytes()[:5000])
    with pytest.raises(NoWeights, match='is not a state dict'):
        cloud_learner(dls, 'resnet18', tmp_path / 'cut.pth')


class Evil:
    def __reduce__(self):
        return os.system, ('touch evil-ran',)


def test_weights_never_run_code(skies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Evil(), 'evil.pth')
    with pytest.raises(NoWeights):
        cloud_learner(cloud_dls(split(skies), bs=8), 'resnet18', 'evil.pth')
    assert not (tmp_path / 'evil-ran').exists()
