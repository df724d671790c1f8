"Training that is repeated, cut off, and started from weights of every kind."

import hashlib
import http.server
import json
import logging
import math
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from bounds import run_bounded
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from PIL import Image
from readme import ROOT

from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.data.sampling import Split, load_split, save_split, split
from cloud_classifier.images import Preprocess
from cloud_classifier.training.callbacks import (
    HISTORY,
    TRACKERS,
    Checkpoint,
    TrainFailed,
    pick_precision,
    training_precision,
)
from cloud_classifier.training.config import (
    BadConfig,
    BadRun,
    NoWeights,
    TrainConfig,
    check_arch,
    compare_runs,
    run_rows,
)
from cloud_classifier.training.dataloaders import PhotoCache, cloud_dls
from cloud_classifier.training.learner import cloud_learner, imagenet_weights
from cloud_classifier.training.recipes import LR_RANGE, RECIPES, choose_lr, plan_cycles, suggest_lr
from cloud_classifier.training.run import Run, cross_validate, resume, train

SMALL = {'arch': 'timm/test_resnet', 'size': 32, 'weights': 'none', 'bs': 8, 'progress': False}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    "Copies of photos go to a place of the tests' own."
    monkeypatch.setenv('CLOUD_CACHE', str(tmp_path_factory.getbasetemp() / 'cache'))


def test_the_same_seed_gives_the_same_history(skies, tmp_path):
    one, two, other = (
        train(skies, epochs=1, seed=seed, out=tmp_path / name, **SMALL)
        for name, seed in (('one', 1), ('two', 1), ('other', 2))
    )
    timeless = list(HISTORY[:4])
    pd.testing.assert_frame_equal(one.history[timeless], two.history[timeless], check_exact=True)
    assert one.metadata['split_hash'] == two.metadata['split_hash'] != other.metadata['split_hash']
    weights = [run.learner().model.state_dict() for run in (one, two)]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_training_opens_each_photo_once(monkeypatch, skies, tmp_path):
    "The scan takes fingerprints and makes small copies; only those that the parts need are kept."
    read, opened = Path.read_bytes, []
    monkeypatch.setattr(Path, 'read_bytes', lambda self: opened.append(self) or read(self))
    run = train(skies, epochs=1, cache=tmp_path / 'cache', out=tmp_path / 'run', **SMALL)
    photos = sorted(skies.rglob('*.jpg'))
    assert sorted(o for o in opened if skies in o.parents) == photos
    counts = run.split.counts()
    assert len(list(PhotoCache(tmp_path / 'cache').files())) == counts.train.sum() + counts.valid.sum() < len(photos)


def test_a_run_says_what_was_done(run, skies):
    assert list(run.history.columns) == list(HISTORY)
    assert list(run.history.epoch) == [0, 1]
    assert (run.history[['seconds', 'photos_per_second']] > 0).all(axis=None)
    s = run.as_dict()
    assert (s['status'], s['recipe'], s['arch'], s['weights'], s['seed']) == (
        'finished',
        'fast',
        'timm/test_resnet',
        'none',
        42,
    )
    assert s['trained_on'] == run.split.counts().train.sum()
    assert s['split_hash'] == run.split.hash
    assert {'fastai', 'torch', 'python'} <= set(s['versions'])
    assert not list(run.path.glob('*.tmp'))


def test_recipes_take_their_epochs(skies, body):
    "Epochs in all where 4 are asked for, from random weights and from weights."
    expected = {
        'fast': (4, 4),
        'best': (4, 4),
        'small_first': (4, 4),
        'fine_tune': (5, 5),
        'one_cycle': (4, 4),
        'two_stage': (4, 4),
        'scratch': (4, 4),
    }
    found = {
        name: tuple(sum(c.epochs for c in plan_cycles(recipe, 4, pretrained)) for pretrained in (False, True))
        for name, recipe in RECIPES.items()
    }
    assert found == expected
    for recipe in RECIPES.values():
        cycles = plan_cycles(recipe, 2, True)
        learn = small_learner(skies, body, recipe.head)
        recipe(learn, 2)
        trains_body = getattr(learn.model[0], 'body', learn.model[0]).model.conv1[0].weight.requires_grad
        assert trains_body == (not cycles[-1].frozen), recipe


@pytest.mark.parametrize('pretrained', [False, True])
@pytest.mark.parametrize('recipe', RECIPES.values(), ids=lambda o: o.name)
def test_a_rate_of_ones_own_becomes_plain_numbers(recipe, pretrained):
    "As fastai takes them: it asks a number of NumPy's for its length."
    for cycle in plan_cycles(recipe, 4, pretrained, lr=0.02):
        rates = cycle.lr if isinstance(cycle.lr, tuple) else [cycle.lr]
        assert {type(rate) for rate in rates} <= {float, type(None)}


@pytest.fixture(scope='module')
def body(tmp_path_factory):
    "Weights of a whole network, as for ImageNet."
    import timm

    file = tmp_path_factory.mktemp('body') / 'weights.pth'
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(timm.create_model('test_resnet').state_dict(), file)
    return file


def small_learner(skies, weights, head='pool'):
    set_seed(1, reproducible=True)
    learn = cloud_learner(cloud_dls(split(skies), Preprocess(32), bs=8), 'timm/test_resnet', weights, head)
    learn.remove_cb(learn.progress)
    learn.logger = lambda _: None
    return learn


def by_fastai_fine_tune(learn):
    learn.fine_tune(3, base_lr=9e-3)


def by_fastai_two_stage(learn):
    "Half of the first notebook's four and ten epochs."
    learn.freeze()
    learn.fit_one_cycle(2, 9e-3)
    learn.unfreeze()
    learn.fit_one_cycle(5, slice(1e-4, 5e-3))


def by_fastai_one_cycle(learn):
    learn.freeze()
    learn.fit_one_cycle(3, 9e-3)


def by_fastai_scratch(learn):
    learn.unfreeze()
    learn.fit_one_cycle(2, 1e-3)


@pytest.mark.parametrize(
    ('recipe', 'epochs', 'by_fastai'),
    [
        ('fine_tune', 3, by_fastai_fine_tune),
        ('two_stage', 7, by_fastai_two_stage),
        ('one_cycle', 3, by_fastai_one_cycle),
        ('scratch', 2, by_fastai_scratch),
    ],
)
def test_the_first_notebooks_recipes_are_what_fastai_does(skies, body, recipe, epochs, by_fastai):
    "To the last bit, from the same seed."
    ours, theirs = small_learner(skies, body), small_learner(skies, body)
    set_seed(2, reproducible=True)
    RECIPES[recipe](ours, epochs)
    set_seed(2, reproducible=True)
    by_fastai(theirs)
    same(ours.model.state_dict(), theirs.model.state_dict())


def same(one, two):
    assert one.keys() == two.keys()
    for k in one:
        assert torch.equal(one[k], two[k]), k


@pytest.mark.parametrize(
    'wrong',
    [
        {'recipe': 'quick'},
        {'arch': 'resnet_34'},
        {'epochs': 0},
        {'balance': 'unequal'},
        {'bs': 1},
        {'lr': 'fast'},
        {'lr': 20.0},
        {'lr': math.nan},
        {'patience': 0},
        {'precision': 'fp8'},
        {'precision': 'fp16'},
        {'track': 'wandb'},
        {'cap': 5},
        {'arch': 'vit_tiny_patch16_224'},
    ],
    ids=str,
)
def test_settings_that_can_not_be(skies, tmp_path, wrong):
    with pytest.raises(BadConfig) as raised:
        train(skies, out=tmp_path / 'run', **{**SMALL, **wrong})
    assert '\n' not in str(raised.value)
    assert not (tmp_path / 'run').exists()


def test_a_class_that_is_nowhere_to_train_on_gets_a_line(command, skies, tmp_path):
    parts = split(skies)
    frame = parts.frame.assign(part=parts.frame.part.mask((parts.frame.label == 'Cirrus'), 'valid'))
    save_split(Split(frame, parts.root), tmp_path / 'split.csv')
    status, _, err = command('train', skies, '--split', tmp_path / 'split.csv', '--weights', 'none')
    assert (status, err.count('\n')) == (2, 1)
    assert 'no photo of Cirrus to train on' in err


def test_a_finished_run_is_not_written_over(run, skies):
    with pytest.raises(BadRun, match='holds a run already'):
        train(skies, epochs=1, out=run.path, **SMALL)


def test_a_photo_that_is_none_is_named_or_left_out(skies, tmp_path):
    root = shutil.copytree(skies, tmp_path / 'skies')
    (root / 'Stratus' / 'text.jpg').write_text('this is text')
    with pytest.raises(BadDataset, match=r'Stratus/text.jpg: is not a photo .*--skip-bad'):
        train(root, out=tmp_path / 'run', **SMALL)
    run = train(root, epochs=1, skip_bad=True, out=tmp_path / 'run', **SMALL)
    assert run.split.part('excluded').path.tolist() == ['Stratus/text.jpg']


def test_the_finder_leaves_the_learner_as_it_was(skies, body):
    for weights in ('none', body):
        learn = small_learner(skies, weights)
        before = {k: v.clone() for k, v in learn.model.state_dict().items()}
        found = suggest_lr(learn, num_it=30)
        assert 1e-8 < found.minimum < 1
        assert 1e-8 < found.steep <= 10
        same(before, learn.model.state_dict())
    with pytest.raises(BadConfig, match='20 batches or more'):
        suggest_lr(learn, num_it=5)


def test_the_rate_that_is_chosen_is_a_sane_one():
    class Found:
        def __init__(self, valley):
            self.valley = valley

    assert [choose_lr(Found(v)) for v in (1e-9, 2e-3, 5.0)] == [LR_RANGE[0], 2e-3, LR_RANGE[1]]


@pytest.mark.parametrize('pretrained', [True, pytest.param(False, marks=pytest.mark.soak)])
def test_a_run_is_the_same_with_the_finder_and_with_the_rate_that_it_found(skies, body, tmp_path, pretrained):
    settings = SMALL | {'epochs': 1, 'weights': str(body) if pretrained else 'none'}
    one = train(skies, 'fine_tune', lr='find', out=tmp_path / 'one', **settings)
    s = one.metadata
    assert s['lr'] == min(max(s['lr_suggested']['valley'], LR_RANGE[0]), LR_RANGE[1])
    assert max(c['lr'][1] for c in s['cycles']) == pytest.approx(s['lr'])
    two = train(skies, 'fine_tune', lr=s['lr'], out=tmp_path / 'two', **settings)
    assert two.metadata['lr_suggested'] is None
    same(one.learner().model.state_dict(), two.learner().model.state_dict())


class Break(Callback):
    "Does something at the end of training in an epoch."

    order = 75

    def __init__(self, do, epoch):
        self.do, self.at = do, epoch

    def after_train(self):
        if self.epoch == self.at:
            self.do(self)


def stop(_):
    raise KeyboardInterrupt


def test_ctrl_c_in_a_notebook_leaves_the_learner_fit_to_go_on(skies, body):
    learn = small_learner(skies, body, 'moments')
    learn.dls = cloud_dls(split(skies), Preprocess(64), bs=8)
    full, callbacks = learn.dls, [type(cb) for cb in learn.cbs]
    learn.add_cb(broken := Break(stop, 1))
    with pytest.raises(KeyboardInterrupt):
        RECIPES['best'](learn, 4)
    learn.remove_cb(broken)
    assert learn.dls is full
    assert [type(cb) for cb in learn.cbs] == callbacks
    RECIPES['fine_tune'](learn, 1)
    assert math.isfinite(learn.recorder.values[-1][1])


@pytest.fixture
def at(monkeypatch):
    "`at(epoch, do)` calls `do(checkpoint)` when the training of an epoch, counted over all cycles, is done."

    def arrange(epoch, do):
        def after_train(self):
            if len(self.history.rows) == epoch:
                do(self)

        monkeypatch.setattr(Checkpoint, 'after_train', after_train, raising=False)

    return arrange


def callbacks_of(learn):
    return {type(cb).__name__ for cb in learn.cbs}


PLAIN = {'TrainEvalCallback', 'Recorder', 'CastToTensor', 'ProgressCallback'}  # what each learner of fastai has


def loss_of(learn, probs, labels):
    columns = [learn.dls.vocab.o2i[label] for label in labels]
    return -np.log(probs[range(len(labels)), columns]).mean()


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_precision_is_of_training_alone(skies, tmp_path, precision):
    "What validated, what predicts and what is exported agree to the sixth digit; in bfloat16 they would to the second."
    run = train(skies, 'scratch', epochs=2, precision=precision, out=tmp_path / 'run', **SMALL)
    learn = run.learner()
    assert run.metadata['precision'] == precision
    assert callbacks_of(learn) == PLAIN
    assert {p.dtype for p in learn.model.parameters()} == {torch.float32}
    _, labels, probs, _, _ = run.predictions('valid')
    assert run.history.valid_loss.iloc[-1] == pytest.approx(loss_of(learn, probs, labels), rel=1e-5)
    batch = learn.dls.test_dl(run.split.files('valid'), bs=64, num_workers=0).one_batch()[0]
    with torch.no_grad():
        plain = learn.model.eval()(batch.as_subclass(torch.Tensor)).softmax(1)
    np.testing.assert_allclose(probs, plain, atol=1e-6)


def test_training_in_bfloat16_is_in_bfloat16(skies, tmp_path):
    runs = [
        train(skies, 'scratch', epochs=1, precision=name, out=tmp_path / name, **SMALL) for name in ('fp32', 'bf16')
    ]
    weights = [torch.cat([p.flatten() for p in run.learner().model.parameters()]) for run in runs]
    assert not torch.equal(*weights)
    assert torch.allclose(*weights, atol=0.05)


def test_ctrl_c_leaves_no_precision_behind(skies):
    "Not even in the middle of a batch."
    learn = small_learner(skies, 'none')
    before = callbacks_of(learn)
    hook = learn.model[1].register_forward_hook(stop_in_training)
    with pytest.raises(KeyboardInterrupt), training_precision('bf16', learn):
        learn.fit(1)
    hook.remove()
    assert callbacks_of(learn) == before
    assert 'forward' not in vars(learn.model)
    assert not torch.is_autocast_enabled('cpu')


def stop_in_training(module, inputs, output):
    if module.training:
        raise KeyboardInterrupt


def test_folds_that_were_trained_in_bfloat16_answer_in_fp32(skies, tmp_path):
    settings = SMALL | {'recipe': 'scratch', 'epochs': 1, 'precision': 'bf16'}
    table = cross_validate(skies, 2, tmp_path, **settings)
    for fold, rows in table.groupby('fold'):
        run = Run(tmp_path / f'fold-{fold}')
        assert run.metadata['precision'] == 'bf16'
        learn = run.learner()
        loss = loss_of(learn, rows[list(learn.dls.vocab)].to_numpy(), rows.label)
        assert run.history.valid_loss.iloc[-1] == pytest.approx(loss, rel=1e-5)


@pytest.fixture
def hardware(monkeypatch):
    "`hardware(True)` is a processor that has bfloat16, `hardware(False)` one that has not."
    return lambda has: monkeypatch.setattr('cloud_classifier.training.callbacks.has_bfloat16', lambda device: has)


def test_the_precision_is_chosen_by_what_the_hardware_and_the_network_are(hardware):
    cpu = torch.device('cpu')
    plain, depthwise = torchvision.models.resnet18(), torchvision.models.mobilenet_v3_small()
    without_batch_norms = timm.create_model('test_convnext')
    hardware(True)
    assert {pick_precision(plain, cpu) for _ in range(5)} == {'bf16'}
    assert pick_precision(depthwise, cpu) == 'bf16'
    assert pick_precision(without_batch_norms, cpu) == 'fp32'
    assert pick_precision(without_batch_norms, torch.device('cuda')) == 'bf16'
    hardware(False)
    for net in (plain, depthwise, without_batch_norms):
        assert pick_precision(net, cpu) == pick_precision(net, torch.device('cuda')) == 'fp32'


def test_a_processor_without_bfloat16_trains_in_fp32(server):
    "oneDNN looks at its variable when it is first used, which is after the fork."
    code = (
        'import torch, torchvision; from cloud_classifier.training.callbacks import pick_precision\n'
        'print(pick_precision(torchvision.models.mobilenet_v3_small(), torch.device("cpu")))'
    )
    assert server.run(code, env={'ONEDNN_MAX_CPU_ISA': 'AVX2'}).split() == ['fp32']


@pytest.mark.parametrize(
    'begun',
    [pytest.param(True, id='begun with bfloat16'), pytest.param(False, id='begun without', marks=pytest.mark.soak)],
)
def test_a_run_goes_on_in_the_precision_that_it_began_with(hardware, skies, tmp_path, begun):
    "On a machine that would choose otherwise, and to the same weights."
    hardware(begun)
    whole = train(skies, epochs=3, out=tmp_path / 'whole', **SMALL)
    assert whole.metadata['precision'] == ('bf16' if begun else 'fp32')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, 'before_validate', stop_in_second_epoch, raising=False)
        with pytest.raises(KeyboardInterrupt):
            train(skies, epochs=3, out=tmp_path / 'cut', **SMALL)
    hardware(not begun)
    run = resume(tmp_path / 'cut', progress=False)
    assert run.metadata['precision'] == whole.metadata['precision']
    same(whole.learner().model.state_dict(), run.learner().model.state_dict())
    pd.testing.assert_frame_equal(*(o.history[list(HISTORY[:4])] for o in (whole, run)), check_exact=True)


def stop_in_second_epoch(checkpoint):
    if len(checkpoint.history.rows) == 1:
        raise KeyboardInterrupt


def test_a_run_that_was_begun_on_a_gpu_says_so(command, at, skies, tmp_path):
    at(1, stop)
    with pytest.raises(KeyboardInterrupt):
        train(skies, epochs=2, out=tmp_path / 'run', **SMALL)
    file = tmp_path / 'run' / 'run.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | {'precision': 'fp16'}))
    code, _, err = command('train', '--resume', tmp_path / 'run')
    assert (code, err.count('\n')) == (2, 1)
    assert 'was begun in fp16 (fp16 is for GPUs' in err


@pytest.mark.soak
@pytest.mark.filterwarnings('ignore')  # which a notebook shows and goes on
def test_the_tutorial_in_bfloat16(hardware, monkeypatch):
    "Its code cells, as they stand, on a processor that has it."
    monkeypatch.delenv('CLOUD_DATA', raising=False)
    monkeypatch.setenv('IN_TEST', '1')  # no download
    hardware(True)
    cells = nbformat.read(ROOT / 'nbs' / 'tutorials' / 'cloud_learner.ipynb', as_version=4).cells
    there = {}
    for cell in cells:
        if cell.cell_type == 'code' and not any(word in cell.source for word in ('%pip', '#| network')):
            exec(cell.source, there)
    assert pick_precision(there['learn'].model, torch.device('cpu')) == 'bf16'
    assert there['run'].metadata['status'] == 'finished'
    assert there['worst'] < 1e-5
    assert there['report'].data['n'] == len(there['parts'].part('test'))


def status_of(run):
    return json.loads((run / 'run.json').read_text())['status']


def test_a_run_that_was_interrupted_is_never_trusted(command, at, skies, tmp_path):
    at(1, stop)
    out = tmp_path / 'run'
    with pytest.raises(KeyboardInterrupt):
        train(skies, epochs=3, out=out, **SMALL)
    assert status_of(out) == 'interrupted'
    with pytest.raises(BadRun, match=r'did not finish .it is interrupted'):
        Run(out)
    for verb in ('evaluate', 'export'):
        code, _, errors = command(verb, out)
        assert (code, errors.count('\n')) == (2, 1)
    assert not list(out.glob('*.pkl')) + list(out.glob('*.onnx'))


@pytest.fixture
def cut_off(skies, tmp_path):
    "A dataset of one's own, and a run on it that was cut off in its second epoch."
    root, out = shutil.copytree(skies, tmp_path / 'skies'), tmp_path / 'run'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, 'after_train', lambda self: len(self.history.rows) and stop(self), raising=False)
        with pytest.raises(KeyboardInterrupt):
            train(root, epochs=2, out=out, **SMALL)
    return Dataset(root), out


def test_a_run_goes_on_with_the_photos_that_are_there(cut_off, caplog):
    "Some were taken out, relabelled, renamed, edited and added since it began."
    mine, out = cut_off
    before = load_split(out / 'split.csv', mine.path)
    hashes = {k: json.loads((out / 'run.json').read_text())[k] for k in ('split_hash', 'data_hash')}
    a, b, c, d, *_ = before.part('train').path
    mine.quarantine(a, 'blurry')
    relabelled = mine.folder_of(next(o for o in before.classes if not b.startswith(o)))
    mine.relabel(b, relabelled)
    (mine.path / c).rename(mine.path / (c + '.renamed.jpg'))
    Image.open(mine.path / d).rotate(180).save(mine.path / d)
    Image.open(mine.path / d).rotate(90).save(mine.path / 'Cirrus' / 'new.jpg')
    run = resume(out, progress=False)
    line = '1 photo was quarantined, 1 relabelled, 1 moved and 1 edited since the split was made'
    assert f'{out}: {line}' in caplog.text
    assert run.metadata['changes'] == [dict(after_epochs=1, what=line, **hashes)]
    assert len(run.history) == 2
    assert run.metadata['split_hash'] == run.split.hash
    assert run.split.changes == {}  # what it went on with is what the run is of
    part = run.split.frame.set_index('path').part
    assert part[f'{relabelled}/{b.split("/")[1]}'] == part[c + '.renamed.jpg'] == part[d] == 'train'
    assert 'Cirrus/new.jpg' not in part
    assert run.metadata['trained_on'] == len(run.split.part('train')) == len(before.part('train')) - 1


def test_a_run_whose_class_is_gone_does_not_go_on(command, cut_off):
    mine, out = cut_off
    for photo in load_split(out / 'split.csv', mine.path).part('train').path:
        if photo.startswith('Cirrus'):
            mine.quarantine(photo, 'blurry')
    status, _, err = command('train', '--resume', out)
    assert (status, err.count('\n')) == (2, 1)
    assert 'no photo of Cirrus is left; put them back' in err
    assert status_of(out) == 'interrupted'
    mine.undo(99)
    assert resume(out, progress=False).metadata.get('changes') is None


DAMAGED = {
    'run.json': '{"status": "fin',
    'split.csv': 'path,label\n',
    'split.json': '{',
    'learner.pkl': '',
    'history.csv': 'epoch\n0,1\n',
}


@pytest.mark.parametrize('name', DAMAGED)
def test_a_file_of_a_run_that_is_damaged_is_named_in_a_line(command, run, tmp_path, name):
    mine = shutil.copytree(run.path, tmp_path / 'run', ignore=shutil.ignore_patterns('*.onnx', '*.pth'))
    (mine / name).write_text(DAMAGED[name])
    status, out, err = command('evaluate', mine, '--no-look')
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert f'{mine / name}: ' in err
    row = compare_runs(mine).iloc[0]
    assert row.status == (f'damaged: {name}' if name in ('run.json', 'history.csv') else 'finished')


def test_learners_that_were_cut_off_are_named(run, tmp_path):
    mine = shutil.copytree(run.path, tmp_path / 'run', ignore=shutil.ignore_patterns('*.onnx', '*.pth'))
    content = (mine / 'learner.pkl').read_bytes()
    for at in (10, len(content) // 2, len(content) - 1):
        (mine / 'learner.pkl').write_bytes(content[:at])
        with pytest.raises(BadRun, match=r'learner\.pkl: is not a learner that can be opened'):
            Run(mine).learner()
    (mine / 'learner.pkl').unlink()
    with pytest.raises(BadRun, match=r'has no learner\.pkl any more'):
        Run(mine)


REPORTS = ['', '{', '[]', '{"top1": null}', '{"top1": {"value": "x"}}', '[' * 99999]


@pytest.mark.parametrize('report', REPORTS, ids=lambda o: o[:10])
def test_a_damaged_report_is_a_status(run, tmp_path, report):
    for name in ('run.json', 'history.csv'):
        shutil.copy(run.path / name, tmp_path)
    (tmp_path / 'report.json').write_text(report)
    row = run_rows(tmp_path)[0]
    assert row['status'] == 'damaged: report.json'
    assert row['error'] == run.history.error_rate.iloc[-1]
    assert row['arch'] == 'timm/test_resnet'
    json.dumps(row, allow_nan=False)


def test_a_loss_that_is_no_number_ends_the_run_with_its_best_epoch(command, at, skies, tmp_path):
    def spoil(self):
        for p in self.learn.model.parameters():
            p.data.fill_(math.nan)

    at(2, spoil)
    out = tmp_path / 'run'
    args = [
        '--recipe',
        'scratch',
        '--arch',
        'timm/test_resnet',
        '--size',
        32,
        '--weights',
        'none',
        '--bs',
        8,
        '--epochs',
        4,
    ]
    code, _, err = command('train', skies, *args, '--out', out)
    assert code == 1
    assert 'the validation loss was NaN or infinite in epoch 2; the best epoch so far' in err.splitlines()[-1]
    run = Run(out)
    assert run.metadata['status'] == 'stopped'
    assert run.metadata['best_epoch'] < 2
    assert all(v.isfinite().all() for v in run.learner().model.state_dict().values())

    at(0, spoil)
    with pytest.raises(TrainFailed, match='no epoch was finished before; train again with a lower --lr'):
        train(skies, 'scratch', epochs=4, out=tmp_path / 'early', **SMALL)
    assert status_of(tmp_path / 'early') == 'failed'


def test_patience_ends_a_run_with_its_best_epoch(monkeypatch, skies, tmp_path):
    "The validation loss is made to rise from the second epoch on."
    before = Checkpoint._end_epoch

    def rising(self, random):
        self.history.rows[-1] |= {'valid_loss': float(len(self.history.rows)), 'error_rate': 0.5}
        return before(self, random)

    monkeypatch.setattr(Checkpoint, '_end_epoch', rising)
    run = train(skies, 'best', epochs=12, patience=2, out=tmp_path / 'run', **SMALL)
    s = run.metadata
    assert (s['status'], s['best_epoch'], len(run.history)) == ('stopped', 0, 3)
    assert s['reason'] == 'the validation loss has not fallen for 2 epochs'
    best = torch.load(run.path / 'best.pth', weights_only=True)
    same(run.learner().model.state_dict(), best['average']['average'])


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    "A store of MLflow's of one's own."
    mlflow = pytest.importorskip('mlflow', reason='mlflow-skinny is in the extra track')
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')
    mlflow.set_tracking_uri((tmp_path / 'mlflow').as_uri())
    yield mlflow
    mlflow.set_tracking_uri(None)


@pytest.mark.filterwarnings('ignore::FutureWarning', 'ignore::DeprecationWarning')
def test_mlflow_is_told_the_settings_and_a_row_an_epoch(mlflow, at, skies, tmp_path):
    run = train(skies, epochs=2, track='mlflow', out=tmp_path / 'run', **SMALL)
    at(1, stop)
    with pytest.raises(KeyboardInterrupt):
        train(skies, epochs=2, track='mlflow', out=tmp_path / 'cut', **SMALL)
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name('cloud_classifier')
    told = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert {name: r.info.status for name, r in told.items()} == {'run': 'FINISHED', 'cut': 'KILLED'}
    assert told['run'].data.params['arch'] == 'timm/test_resnet'
    errors = client.get_metric_history(told['run'].info.run_id, 'error_rate')
    assert [(m.step, m.value) for m in errors] == list(enumerate(run.history.error_rate))
    assert len(client.get_metric_history(told['cut'].info.run_id, 'error_rate')) == 1


def test_trackio_is_told_the_settings_and_a_row_an_epoch(skies, tmp_path):
    pytest.importorskip('trackio', reason='trackio is in the extra track')
    run = train(skies, epochs=2, track='trackio', out=tmp_path / 'run', **SMALL)
    assert run.config.track == 'trackio'


def test_a_tracker_that_is_missing_or_can_not_begin_gets_a_line(monkeypatch, skies, tmp_path):
    monkeypatch.setattr('cloud_classifier.training.callbacks.find_spec', lambda name: None)
    with pytest.raises(BadConfig, match=r"mlflow is not installed; pip install 'cloud_classifier\[track\]'"):
        train(skies, track='mlflow', out=tmp_path / 'run', **SMALL)
    monkeypatch.undo()

    def refuses(name, settings):
        raise ConnectionError('no answer')

    monkeypatch.setitem(TRACKERS, 'json', refuses)  # a name that can be imported
    with pytest.raises(TrainFailed, match=r'json could not start tracking the run .no answer'):
        train(skies, epochs=1, track='json', out=tmp_path / 'run', **SMALL)
    assert not (tmp_path / 'run' / 'run.json').exists()


def test_a_tracker_that_fails_later_does_not_end_the_training(monkeypatch, caplog, skies, tmp_path):
    def log(row):
        raise ConnectionError('no answer')

    monkeypatch.setitem(TRACKERS, 'json', lambda name, settings: (log, log))
    run = train(skies, epochs=2, track='json', out=tmp_path / 'run', **SMALL)
    assert len(run.history) == 2
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert 'json failed (no answer) and gets no more rows' in caplog.text


FEW = ['--arch', 'timm/test_resnet', '--size', 32, '--weights', 'none', '--epochs', 1, '--bs', 8]


def test_a_folder_that_can_not_be_made_gets_a_line(command, skies, tmp_path, monkeypatch):
    "Before a photo is opened."
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr('cloud_classifier.training.run.check_photos', None)
    for out in (tmp_path / 'file' / 'run', tmp_path / 'file'):
        code, _, err = command('train', skies, *FEW, '--out', out)
        assert (code, err.count('\n')) == (2, 1)
        assert f'{out}: no folder can be made there ({tmp_path / "file"} is a file)' in err


def test_missing_folders_of_a_run_are_made(skies, tmp_path):
    assert train(skies, epochs=1, out=tmp_path / 'not' / 'yet' / 'there', **SMALL).metadata['status'] == 'finished'


def test_a_disk_that_fills_up_while_training_gets_a_line_and_the_run_goes_on(command, skies, small_disk):
    out = small_disk / 'run'
    code, _, err = command('train', skies, *FEW, '--out', out)
    assert code == 1
    line = err.splitlines()[-1]
    assert 'epoch 0 could not be written (No space left on device)' in line
    assert f'cloud-classifier train --resume {out}' in line
    assert not list(out.glob('.*.tmp'))
    subprocess.run(['mount', '-o', 'remount,size=50m', small_disk], check=True)
    assert len(resume(out, progress=False).history) == 1


def fill(disk):
    "Leave no room on a disk; the file that takes it."
    file = disk / 'filler'
    with open(file, 'wb', buffering=0) as f, suppress(OSError):
        while True:
            f.write(bytes(4096))
    assert shutil.disk_usage(disk).free < 4096
    return file


def test_a_disk_that_is_full_from_the_beginning_is_not_told_to_go_on(command, skies, small_disk):
    "There is no run yet that could be."
    out = small_disk / 'run'
    out.mkdir()
    filler = fill(small_disk)
    code, _, err = command('train', skies, *FEW, '--out', out)
    line = err.splitlines()[-1]
    assert code == 1
    assert '--resume' not in line
    assert f'{out}: No space left on device; put that right, and train again' in line
    assert {f.name for f in out.iterdir()} <= {'.lock'}
    filler.unlink()
    subprocess.run(['mount', '-o', 'remount,size=50m', small_disk], check=True)
    assert command('train', skies, *FEW, '--out', out)[0] == 0


def test_the_curve_of_the_finder_goes_where_it_can(command, skies, tmp_path, small_disk):
    args = ['lr-find', skies, '--arch', 'timm/test_resnet', '--size', 32, '--weights', 'none', '--batches', 20]
    assert command(*args, '--plot', tmp_path / 'not' / 'there' / 'rates.png')[0] == 0
    assert (tmp_path / 'not' / 'there' / 'rates.png').read_bytes().startswith(b'\x89PNG')
    fill(small_disk)
    for plot, status, says in (
        (small_disk / 'rates.png', 1, 'could not be written (No space left on device)'),
        (tmp_path, 2, 'is a folder; name a file in it'),
        (tmp_path / 'not' / 'there' / 'rates.png' / 'rates.png', 2, 'is a file'),
    ):
        code, _, err = command(*args, '--plot', plot)
        assert code == status
        assert says in err.splitlines()[-1]
    assert not list(small_disk.glob('.*.tmp'))


def test_a_dataset_that_is_read_only_can_be_trained_on(read_only, skies, tmp_path):
    root = shutil.copytree(skies, tmp_path / 'skies')
    run = train(read_only(root), epochs=1, out=tmp_path / 'run', **SMALL)
    assert len(run.predictions('test')[1]) > 0


@pytest.mark.parametrize(
    ('name', 'content', 'says'),
    [
        ('last.pth', 'not a checkpoint', 'last.pth: is not a readable checkpoint'),
        ('run.json', '{"status": "interr', "run.json: can't be read"),
        ('run.json', '[1, 2]', 'it holds no JSON object'),
        ('run.json', '{"status": "interrupted", "cycles": []}', 'run.json: is damaged (data is None)'),
    ],
    ids=['last.pth', 'run.json cut off', 'run.json of something else', 'run.json without settings'],
)
def test_a_damaged_file_of_a_run_gets_a_line_that_names_it(command, at, skies, tmp_path, name, content, says):
    at(1, stop)
    out = tmp_path / 'run'
    with pytest.raises(KeyboardInterrupt):
        train(skies, epochs=2, out=out, **SMALL)
    (out / name).write_text(content)
    code, _, err = command('train', '--resume', out)
    assert (code, err.count('\n')) == (2, 1)
    assert says in err


def test_a_checkpoint_of_another_run_gets_a_line(command, at, skies, tmp_path):
    at(1, stop)
    for name, arch in (('one', 'timm/test_resnet'), ('two', 'timm/test_convnext')):
        with pytest.raises(KeyboardInterrupt):
            train(skies, epochs=2, out=tmp_path / name, **SMALL | {'arch': arch})
    shutil.copy(tmp_path / 'two' / 'last.pth', tmp_path / 'one' / 'last.pth')
    code, _, err = command('train', '--resume', tmp_path / 'one')
    assert code == 2
    assert 'last.pth: is the checkpoint of another run' in err.splitlines()[-1]


def test_a_damaged_history_is_written_anew(at, skies, tmp_path):
    at(1, stop)
    with pytest.raises(KeyboardInterrupt):
        train(skies, epochs=2, out=tmp_path / 'run', **SMALL)
    (tmp_path / 'run' / 'history.csv').write_bytes(b'\xff\xfe nothing')
    at(None, stop)
    assert list(resume(tmp_path / 'run', progress=False).history.epoch) == [0, 1]


WRONG = [
    ({'weights': 'imagnet'}, 'did you mean imagenet?'),
    ({'weights': 'nowhere.pth'}, 'there is no such file of weights'),
    ({'weights': '.'}, 'is a folder'),
    ({'arch': 'restnet34'}, 'did you mean resnet34'),
    ({'recipe': 'finetune'}, 'did you mean fine_tune?'),
    ({'precision': 'bfloat16'}, "precision is 'auto', 'fp32', 'bf16' or 'fp16'"),
]


@pytest.fixture(scope='module')
def answers():
    "What is said of each, in a process of its own that never imports torch."
    code = f"""
import json, sys
from cloud_classifier.training.config import BadConfig, TrainConfig, check_available
for wrong in {[wrong for wrong, _ in WRONG]}:
    try: check_available(TrainConfig(**wrong))
    except BadConfig as e: print(json.dumps([str(wrong), str(e)]))
assert not {{'torch', 'timm', 'pandas'}} & set(sys.modules)
"""
    cost = run_bounded(code, 20)
    assert (cost.status, cost.err) == (0, '')
    return dict(map(json.loads, cost.out.splitlines()))


@pytest.mark.parametrize(('wrong', 'says'), WRONG, ids=str)
def test_names_are_checked_without_torch(answers, wrong, says):
    assert says in answers[str(wrong)]


@pytest.mark.parametrize('weights', ['imagnet', 'nowhere.pth'])
def test_weights_that_are_no_word_and_no_file_are_a_mistake(command, skies, tmp_path, weights):
    args = ['train', skies, '--weights', weights, '--out', tmp_path / 'run']
    code, _, err = command(*args)
    assert (code, err.count('\n')) == (2, 1)
    assert 'there is no such file of weights' in err
    assert not (tmp_path / 'run').exists()


def test_each_backbone_of_timm_and_torchvision_passes():
    import timm

    for arch in (
        'timm/resnet50.a1_in1k',
        *timm.list_models()[::80],
        *torchvision.models.list_models(module=torchvision.models)[::10],
    ):
        check_arch(arch)


def test_a_checkpoint_that_can_not_be_read_gets_a_line(at, skies, tmp_path):
    at(1, stop)
    out = tmp_path / 'run'
    with pytest.raises(KeyboardInterrupt):
        train(skies, epochs=2, out=out, **SMALL)
    (out / 'last.pth').write_bytes(b'not a checkpoint')
    with pytest.raises(BadRun, match=r'last\.pth: is not a readable checkpoint'):
        resume(out, progress=False)


def test_a_cache_that_can_not_be_written_does_not_change_what_is_validated(skies, tmp_path, caplog):
    (tmp_path / 'file').write_text('')
    runs = [
        train(skies, epochs=1, cache=cache, out=tmp_path / name, **SMALL)
        for name, cache in (('none', False), ('broken', tmp_path / 'file'))
    ]
    assert 'the photos themselves are read' in caplog.text
    pd.testing.assert_frame_equal(*(run.history[list(HISTORY[:4])] for run in runs), check_exact=True)


def test_folds_that_were_made_otherwise_are_refused(skies, tmp_path):
    (tmp_path / 'folds').mkdir()
    call = {'data': str(skies.resolve()), 'folds': 3, 'parts': None} | TrainConfig(size=32).as_dict()
    (tmp_path / 'folds' / 'folds.json').write_text(json.dumps(call))
    for other in ({'folds': 4}, {'seed': 1}, {'size': 64}, {'bs': 8}, {'parts': split(skies)}):
        with pytest.raises(BadRun, match=f'holds folds with another {next(iter(other))}'):
            cross_validate(skies, **{'folds': 3, 'out': tmp_path / 'folds', 'size': 32, 'progress': False} | other)
    with pytest.raises(BadConfig, match='2 folds or more'):
        cross_validate(skies, 1, tmp_path / 'other')


def test_runs_are_compared_whatever_became_of_them(command, run, tmp_path):
    shutil.copytree(run.path, tmp_path / 'runs' / 'good')
    (tmp_path / 'runs' / 'begun').mkdir()
    (tmp_path / 'runs' / 'begun' / 'run.json').write_text('{"status": "running", "started": "2020-01-01"}')
    table = compare_runs(tmp_path / 'runs')
    assert table.run.tolist() == ['begun', 'good']
    assert table.status.tolist() == ['running', 'finished']
    assert table.error.iloc[1] == run.history.error_rate.iloc[-1]
    status, out, _ = command('runs', tmp_path / 'runs', '--json')
    assert (status, len(json.loads(out))) == (0, 2)
    assert command('runs', tmp_path / 'runs')[0] == 0
    (tmp_path / 'empty').mkdir()
    for folder in (tmp_path / 'nowhere', tmp_path / 'empty'):
        status, _, err = command('runs', folder)
        assert (status, err.count('\n')) == (2, 1)


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
