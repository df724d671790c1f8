"Training that is killed, interrupted, starved of disk, done by several processes, or by two at once."

import json
import random
import signal
import socket
import time

import pandas as pd
import pytest

from cloud_classifier.samples import make_samples

EPOCHS = 5  # one for the head, two on squares of 32 pixels, two on squares of 64


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return tmp_path_factory.mktemp('processes')


@pytest.fixture(scope='module')
def photos(place):
    make_samples(place / 'skies', per_genus=10, size=96, genera=['Cirrus', 'Stratus', 'Cumulus'])
    return place / 'skies'


@pytest.fixture(autouse=True, scope='module')
def cache(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CLOUD_CACHE', str(place / 'cache'))
        yield


@pytest.fixture(scope='module')
def weights(server, place):
    "Weights of a whole network, as for ImageNet, so that there is a head to train first."
    file = place / 'weights.pth'
    server.run(f"""
import timm, torch
torch.manual_seed(0)
torch.save(timm.create_model('test_resnet').state_dict(), {str(file)!r})
""")
    return file


@pytest.fixture(scope='module')
def settings(photos, weights):
    "What `train` is told, as a call and as a command."
    told = {'arch': 'timm/test_resnet', 'size': 64, 'bs': 8, 'weights': str(weights), 'epochs': EPOCHS}
    return [photos, '--recipe', 'small_first', *(o for k, v in told.items() for o in (f'--{k}', v))]


@pytest.fixture(scope='module')
def alone(server, settings, place):
    "A run that nobody disturbed, and the seconds that it took."
    start = time.monotonic()
    child = server.command('train', *settings, '--out', place / 'alone')
    assert child.wait() == 0, child.said()
    return place / 'alone', time.monotonic() - start


def said_of(run):
    return json.loads((run / 'run.json').read_text())


def finished(run):
    return (run / 'run.json').exists() and said_of(run)['status'] == 'finished'


def lines(run):
    "How many epochs a run's history has."
    try:
        return len((run / 'history.csv').read_text().splitlines()) - 1
    except FileNotFoundError:
        return 0


SAME = '''
import sys, torch
from pathlib import Path
from cloud_classifier.training.callbacks import load_checkpoint
from cloud_classifier.training.run import Run

def same(a, b, where):
    if isinstance(a, torch.Tensor): assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a: same(a[k], b[k], f'{where}/{k}') if k not in ('seconds', 'photos_per_second') else None
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)): same(x, y, f'{where}/{i}')
    else: assert a == b, (where, a, b)

runs = [Run(path) for path in PATHS]
for name in ('last.pth', 'best.pth'): same(*(load_checkpoint(run.path/name) for run in runs), name)
same(*(run.learner().model.state_dict() for run in runs), 'learner.pkl')
same(*(run.history.to_dict('list') for run in runs), 'history.csv')
'''


def same(server, *runs):
    "Weights, average, optimiser, generators, history and learner are equal to the last bit."
    server.run(f'PATHS = {list(map(str, runs))}\n{SAME}')
    assert not [f.name for run in runs for f in run.iterdir() if f.name.endswith('.tmp')]


@pytest.mark.parametrize('times', [1, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_at_random_moments(times, server, settings, alone, place):
    run, seconds = alone
    chance, moments, tries = random.Random(0), [], 1
    out = place / f'killed-{times}-1'

    def go_on():
        return server.command(
            'train', *(['--resume', out] if (out / 'run.json').exists() else [*settings, '--out', out])
        )

    while len(moments) < times:
        child = go_on()
        end = time.monotonic() + chance.uniform(0, 0.7 * seconds)
        while child.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        if child.poll() is None:
            child.kill()
        status = child.wait()
        assert status in (0, -signal.SIGKILL), child.said()
        if status:
            moments.append(f'{tries}:{lines(out)}')
        if finished(out):  # also where it was killed on its way out
            same(server, run, out)
            tries += 1
            out = place / f'killed-{times}-{tries}'
    last = go_on()
    assert last.wait() == 0, last.said()
    same(server, run, out)
    print('run and epochs done at each kill:', *moments)


KILL = """
import os, signal, sys
import cloud_classifier.training.run as stage
before, calls = stage.WHERE, []
def suddenly(*args, **kwargs):
    calls.append(1)
    if len(calls) == TIMES: os.kill(os.getpid(), signal.SIGKILL)
    return before(*args, **kwargs)
stage.WHERE = suddenly
sys.argv = ARGV
from cloud_classifier.cli import main
main()
"""


@pytest.mark.parametrize(
    'where',
    [
        pytest.param('follow_recipe', id='before the first epoch', marks=pytest.mark.soak),
        pytest.param('Checkpoint.keep_best', id='between two checkpoints'),
        pytest.param('write_learner', id='after the last epoch', marks=pytest.mark.soak),
    ],
)
def test_killed_at_moments_that_chance_misses(server, settings, alone, place, where):
    history = pd.read_csv(alone[0] / 'history.csv')
    best = history.sort_values(['error_rate', 'valid_loss'], kind='stable').index[0]
    epochs = {'follow_recipe': 0, 'Checkpoint.keep_best': best + 1, 'write_learner': EPOCHS}[where]
    out = place / where
    argv = ['cloud-classifier', 'train', *map(str, settings), '--out', str(out)]
    times = best + 1 if where == 'Checkpoint.keep_best' else 1
    code = KILL.replace('WHERE', where).replace('TIMES', str(times)).replace('ARGV', repr(argv))
    assert server.start(code).wait() == -signal.SIGKILL
    assert (lines(out), said_of(out)['status']) == (epochs, 'running')
    child = server.command('train', '--resume', out)
    assert child.wait() == 0, child.said()
    same(server, alone[0], out)


HELD = """
import sys, time
from pathlib import Path
import cloud_classifier.training.run as stage
before = stage.follow_recipe
def held(*args, **kwargs): # so that the other finds it at work, however slow the machine is
    while not Path(FILE).exists(): time.sleep(.01)
    return before(*args, **kwargs)
stage.follow_recipe = held
sys.argv = ARGV
from cloud_classifier.cli import main
main()
"""


def test_ctrl_c_then_two_go_on_at_once_where_the_photos_are_now(server, settings, alone, place, photos):
    out, moved = place / 'interrupted', place / 'moved'
    child = server.command('train', *settings, '--out', out)
    child.wait_for((out / 'last.pth').exists)
    child.kill(signal.SIGINT)
    assert child.wait() == 130
    assert child.said().splitlines()[-1].startswith('cloud-classifier: interrupted')
    assert 'Traceback' not in child.said()
    assert said_of(out)['status'] == 'interrupted'
    assert not (out / 'learner.pkl').exists()

    child = server.command('train', *settings, '--out', out)
    assert child.wait() == 2
    assert 'holds a run already' in child.said()

    moved.symlink_to(photos)
    argv = ['cloud-classifier', 'train', str(moved), '--resume', str(out)]
    first = server.start(HELD.replace('ARGV', repr(argv)).replace('FILE', repr(str(place / 'go'))))
    first.wait_for(lambda: said_of(out)['status'] == 'running')
    second = server.command('train', '--resume', out)
    assert second.wait() == 2
    assert second.said() == f'cloud-classifier: {out}: another process is training this run\n'
    (place / 'go').touch()
    assert first.wait() == 0, first.said()
    same(server, alone[0], out)
    assert 'reason' not in said_of(out)

    third = server.command('train', '--resume', out)
    assert third.wait() == 2
    assert 'is finished; there is nothing to go on with' in third.said()
    assert third.said().count('\n') == 1


FULL = """
import resource, sys
import cloud_classifier.training.run as stage
before = stage.WHERE
def full(*args, **kwargs):
    if CONDITION: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
    return before(*args, **kwargs)
stage.WHERE = full
sys.argv = ARGV
from cloud_classifier.cli import main
main()
"""


@pytest.mark.parametrize(
    ('where', 'condition', 'says'),
    [
        (
            'Checkpoint.save',
            'len(args[0].history.rows) == 3',
            'epoch 2 could not be written (File too large); make room',
        ),
        ('write_learner', 'True', 'learner.pkl could not be written'),
    ],
)
def test_a_full_disk_ends_the_run_in_a_line_and_it_goes_on(server, settings, alone, place, where, condition, says):
    "The limit on a file's size stands for a full disk: the system refuses in the same way."
    out = place / f'full-{where}'
    argv = ['cloud-classifier', 'train', *map(str, settings), '--out', str(out)]
    child = server.start(FULL.replace('WHERE', where).replace('CONDITION', condition).replace('ARGV', repr(argv)))
    assert child.wait() == 1, child.said()
    assert 'Traceback' not in child.said()
    line = child.said().splitlines()[-1]
    assert says in line
    assert f'--resume {out}' in line
    assert said_of(out)['status'] == 'interrupted'
    assert (out / 'best.pth').exists()
    child = server.command('train', '--resume', out)
    assert child.wait() == 0, child.said()
    same(server, alone[0], out)


def test_memory_stays_flat_over_twenty_epochs(server, photos, place):
    "What the process takes grows by less than 30 MB after its fifth epoch; its checkpoints alone come to 100 MB."
    out = server.run(f"""
import os
from pathlib import Path
from cloud_classifier.training.callbacks import Checkpoint
from cloud_classifier.training.run import train
taken, before = [], Checkpoint.after_epoch
def measured(self):
    before(self)
    taken.append(int(Path('/proc/self/statm').read_text().split()[1])*os.sysconf('SC_PAGE_SIZE'))
Checkpoint.after_epoch = measured
train({str(photos)!r}, 'small_first', arch='timm/test_resnet', size=32, epochs=20, weights='none', bs=8,
      out={str(place / 'long')!r}, progress=False)
print(*taken)
""")
    taken = [int(n) / 1e6 for n in out.split()]
    assert len(taken) == 20
    assert max(taken[5:]) - max(taken[:5]) < 30, taken


FOLDS = """
from cloud_classifier.training.run import cross_validate
cross_validate(PHOTOS, 3, OUT, arch='timm/test_resnet', size=32, epochs=2, weights='none', bs=8, progress=False)
"""


def test_folds_go_on_where_they_were_killed(server, photos, place):
    def start(out):
        return server.start(FOLDS.replace('PHOTOS', repr(str(photos))).replace('OUT', repr(str(out))))

    whole, cut = place / 'folds', place / 'folds-cut'
    child = start(whole)
    assert child.wait() == 0, child.said()
    child = start(cut)
    child.wait_for(lambda: lines(cut / 'fold-1') >= 1)
    child.kill()
    child.wait()
    assert not (cut / 'oof.parquet').exists()
    begun = said_of(cut / 'fold-0')
    child = start(cut)
    assert child.wait() == 0, child.said()
    table = pd.read_parquet(cut / 'oof.parquet')
    pd.testing.assert_frame_equal(table, pd.read_parquet(whole / 'oof.parquet'), check_exact=True)
    assert said_of(cut / 'fold-0') == begun  # what was finished was not trained again
    parts = pd.read_csv(cut / 'split.csv').set_index('path').part
    assert sorted(table.path) == sorted(parts.index[parts.isin(['train', 'valid'])])
    assert (table.groupby('group').fold.nunique() == 1).all()


def test_two_processes_fill_one_cache(server, photos, place):
    "Both end well, each copy is whole, and the pixels are those of a cache filled by one."
    code = """
import os, time
import numpy as np
from pathlib import Path
from PIL import Image
from cloud_classifier.training.dataloaders import PhotoCache
from cloud_classifier.data.dataset import Dataset
from cloud_classifier.images import Preprocess
root, cache = Path(PHOTOS), PhotoCache(FOLDER)
photos = {root/path: sha for path, sha in Dataset(root).digests(path for path, _ in Dataset(root).photos()).items()}
photos |= {Path(f'{photo}.again'): sha for photo, sha in photos.items()} # these share a copy
for photo in photos:
    if photo.suffix == '.again' and not photo.exists(): os.link(photo.with_suffix(''), photo)
print(*(cache.fill(name, photos, Preprocess(64))['bad'] for name in ('shrunk', 'square')))
"""
    one, two = place / 'cache-1', place / 'cache-2'
    make_samples(place / 'more', per_genus=60, size=96, genera=['Cirrus', 'Stratus'])
    code = code.replace('PHOTOS', repr(str(place / 'more')))
    assert server.run(code.replace('FOLDER', repr(str(one)))) == '0 0\n'
    children = [server.start(code.replace('FOLDER', repr(str(two)))) for _ in range(2)]
    for child in children:
        assert child.wait() == 0, child.said()
        assert child.said() == '0 0\n'
    assert {f.relative_to(one): f.read_bytes() for f in one.rglob('*.*g')} == {
        f.relative_to(two): f.read_bytes() for f in two.rglob('*.*g')
    }
    assert len(list(two.rglob('*.*g'))) == 240
    assert not list(two.rglob('*.tmp'))


def together(server, *args, code=None, **kwargs):
    "Start `cloud-classifier` in two processes, as torchrun and `accelerate launch` do."
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    envs = [
        {'RANK': str(i), 'LOCAL_RANK': str(i), 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
        for i in range(2)
    ]
    if code:
        return [server.start(code, env=env, **kwargs) for env in envs]
    return [server.command(*args, env=env, **kwargs) for env in envs]


@pytest.fixture(scope='module')
def pair(server, settings, place):
    "A run by two processes, and what they said; they find the folder themselves."
    (place / 'cwd').mkdir()
    children = together(server, 'train', *settings, cwd=place / 'cwd')
    assert [child.wait() for child in children] == [0, 0], [child.said() for child in children]
    runs = list((place / 'cwd' / 'models' / 'runs').iterdir())
    assert len(runs) == 1
    return runs[0], [child.said() for child in children]


def test_two_processes_make_the_run_that_one_makes(server, pair, alone):
    run, said = pair
    assert sorted(f.name for f in run.iterdir()) == sorted(f.name for f in alone[0].iterdir())
    assert (run / 'history.csv').read_text().split('\n')[0] == (alone[0] / 'history.csv').read_text().split('\n')[0]
    assert lines(run) == EPOCHS
    told, one = said_of(run), said_of(alone[0])
    for key in ('status', 'trained_on', 'bs', 'split_hash', 'data_hash', 'cycles', 'classes', 'photos'):
        assert told[key] == one[key], key
    assert (told['processes'], one['processes']) == (2, 1)
    assert f'trained on {told["trained_on"]} photos' in said[0]
    assert said[1] == ''  # the first process alone speaks
    child = server.command('evaluate', run, '--no-look')
    assert child.wait() == 0, child.said()


def test_one_of_two_is_killed_and_both_go_on(server, settings, place, pair):
    out = place / 'pair'
    children = together(server, 'train', *settings, '--out', out)
    children[0].wait_for(lambda: lines(out) >= 1)
    children[0].kill()
    children[0].wait()
    assert children[1].wait(timeout=30) != 0  # it does not wait for the other for ever
    assert said_of(out)['status'] == 'running'
    children = together(server, 'train', '--resume', out)
    assert [child.wait() for child in children] == [0, 0], [child.said() for child in children]
    same(server, pair[0], out)


def test_a_loss_that_is_no_number_in_one_process_ends_both(server, settings, place):
    out = place / 'nan'
    argv = ['cloud-classifier', 'train', *map(str, settings), '--out', str(out)]
    children = together(
        server,
        code=f"""
import os, sys
from cloud_classifier.training.callbacks import Checkpoint
before = Checkpoint.after_batch
def spoilt(self):
    if os.environ['RANK'] == '1' and len(self.history.rows) == 1: self.learn.loss = self.loss*float('nan')
    before(self)
Checkpoint.after_batch = spoilt
sys.argv = {argv!r}
from cloud_classifier.cli import main
main()
""",
    )
    assert [child.wait(timeout=30) for child in children] == [1, 0], [child.said() for child in children]
    assert 'the loss was NaN or infinite in epoch 1; the best epoch so far, 0' in children[0].said().splitlines()[-1]
    assert children[1].said() == ''
    assert (said_of(out)['status'], said_of(out)['best_epoch']) == ('stopped', 0)


def test_what_goes_wrong_in_the_first_process_ends_both_in_one_line(server, settings, pair, photos):
    cases = [
        (['train', *settings, '--out', pair[0]], 'holds a run already'),
        (['train', '--resume', pair[0]], 'is finished'),
        (['train', photos, '--arch', 'resnet_34'], 'did you mean'),
    ]
    for args, says in cases:
        children = together(server, *args)
        assert [child.wait(timeout=30) for child in children] == [2, 2]
        assert children[0].said().count('\n') == 1
        assert says in children[0].said()
        assert children[1].said() == ''
