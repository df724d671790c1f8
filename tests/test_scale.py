"Archives on all cores and on Ray: the answers of one process, whatever is killed, and one row a photo."

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bounds import run_bounded
from processes import descendants
from reading import wait_for
from small_net import small_net

from cloud_classifier.archive import Archive, read_parts
from cloud_classifier.data.duplicates import FINGERPRINT, fingerprints
from cloud_classifier.data.verify import verify
from cloud_classifier.errors import UserError
from cloud_classifier.prediction import scale
from cloud_classifier.prediction.batch import find_photos, write_answers
from cloud_classifier.prediction.infer import BadModel, CloudClassifier, find_model
from cloud_classifier.prediction.scale import (
    Process,
    embed_archive,
    fingerprint_archive,
    predict_archive,
    verify_archive,
)
from cloud_classifier.samples import render_sky

# Opening a photo with this in its name ends the process, as a bug in a library would.
POISON = """
import os, sys
def end(name, file, real=None):
    if 'poison' in str(name): os.kill(os.getpid(), 9)
    return real(name, file)
if 'spawn' not in sys.argv:
    import functools
    import cloud_classifier.images as images
    images._identify = functools.partial(end, real=images._identify)
"""


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    "A model that answers at once."
    return small_net(tmp_path_factory.mktemp('model') / 'small.onnx')


@pytest.fixture(scope='module')
def album(tmp_path_factory):
    "Forty photos in two folders, two files that are none, and thirty photos in three tar files, one of them cut off."
    folder = tmp_path_factory.mktemp('album') / 'bilder ü'
    for n in range(70):
        file = folder / ('Cirrus' if n % 2 else 'St') / f'{n:02}.jpg' if n < 40 else folder / 'alone' / f'{n}.jpg'
        file.parent.mkdir(parents=True, exist_ok=True)
        render_sky('Cirrus' if n % 2 else 'Stratus', size=64, seed=n).save(file)
    for n in range(2):
        (folder / 'St' / f'bad {n}.jpg').write_text('<html>404</html>')
    for n in range(3):
        with tarfile.open(folder / f's-{n}.tar', 'w') as tar:
            for photo in sorted((folder / 'alone').iterdir())[10 * n : 10 * n + 10]:
                tar.add(photo, photo.name)
    whole = (folder / 's-2.tar').read_bytes()
    (folder / 's-2.tar').write_bytes(whole[: len(whole) // 2])
    shutil.rmtree(folder / 'alone')
    return folder


@pytest.fixture
def poison(tmp_path, monkeypatch):
    "A folder in which a photo ends each process that opens it."
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'sitecustomize.py').write_text(POISON)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'site'))
    folder = tmp_path / 'with a bad one'
    for n in range(30):
        file = folder / ('poison.jpg' if n == 25 else f'{n:02}.jpg')
        file.parent.mkdir(exist_ok=True)
        render_sky('Cumulus', size=64, seed=n).save(file)
    return folder


def rows(out, without=('time',)):
    "The rows of an archive."
    table = pa.Table.from_batches(read_parts(Archive(str(out))))
    return table.drop_columns(list(without)).to_pylist()


def names(out):
    return [row['path'] for row in rows(out)]


def expected(album):
    "The names that rows have, of photos and of what is cut off."
    found = [str(o) for o in find_photos([album])]
    tars = [f'{album}/s-{n}.tar/{photo}.jpg' for n in range(2) for photo in range(40 + 10 * n, 50 + 10 * n)]
    return sorted([*found, *tars, *(f'{album}/s-2.tar/{n}.jpg' for n in range(60, 65)), f'{album}/s-2.tar'])


QUIETLY = {'progress': False, 'workers': 2}


# The same answers


def test_rows_are_those_of_one_process(net, album, tmp_path):
    result = predict_archive([album], tmp_path / 'out', net, photos=8, **QUIETLY)
    write_answers(tmp_path / 'one.parquet', CloudClassifier(net, threads=1), find_photos([album]))
    one = {row['path']: row for row in pq.read_table(tmp_path / 'one.parquet').to_pylist()}
    found = {row['path']: row for row in rows(tmp_path / 'out', ['time', 'sha256', 'model_sha256'])}
    for path, row in one.items():  # two photos at a time may change the last of six digits
        assert found[path] == {k: pytest.approx(v, abs=2e-6) if type(v) is float else v for k, v in row.items()}
    predict_archive([album], tmp_path / 'alone', net, photos=8, progress=False, workers=1)
    assert rows(tmp_path / 'out') == rows(tmp_path / 'alone')
    assert sorted(names(tmp_path / 'out')) == expected(album)
    assert (result.rows, result.errors, result.failed, result.aside) == (68, 3, {}, {})
    assert 'cut off or damaged after 5 photos' in found[f'{album}/s-2.tar']['error']
    again = predict_archive([album], tmp_path / 'out', net, photos=8, **QUIETLY)
    assert (again.kept, again.done, again.rows) == (result.shards, 0, 0)


def test_findings_are_those_of_verify(album, tmp_path):
    verify_archive([album / 'St', album / 'Cirrus'], tmp_path / 'out', **QUIETLY)
    one = verify(album, remember=False, progress=False).table.set_index('path')
    for row in rows(tmp_path / 'out'):
        alone = one.loc[os.path.relpath(row['path'], album)]
        hints = '; '.join(o for o in alone.hints if o != 'odd size')
        assert (row['status'], row['error'] or '', row['hints'] or '') == (alone.status, alone.reason, hints)
        assert row['status'] != 'ok' or (row['entropy'], row['sharpness']) == (alone.entropy, alone.sharpness)


def test_fingerprints_are_those_of_one_process(album, tmp_path):
    fingerprint_archive([album / 'St'], tmp_path / 'out', **QUIETLY)
    paths = [str(o) for o in find_photos([album / 'St'])]
    one = fingerprints(paths, progress=False)
    found = {row['path']: row for row in rows(tmp_path / 'out')}
    assert [found[o]['content'] for o in one.names] == list(one.content)
    raw = b''.join(found[o][field] for o in one.names for field in FINGERPRINT.names)
    table = np.frombuffer(raw, FINGERPRINT)
    assert np.array_equal(table['hashes'], one.hashes)
    assert np.array_equal(table['thumb'], one.thumbs)
    assert list(table['pixels']) == list(one.pixels)
    assert {o: found[o]['error'] for o in one.bad} == one.bad


def test_embeddings_are_numbers(album, tmp_path):
    embed_archive([album / 'Cirrus'], tmp_path / 'out', find_model(), **QUIETLY)
    assert {len(row['embedding']) for row in rows(tmp_path / 'out')} == {352}


def test_photos_are_batched_on_a_graphics_processor(net, album):
    task = scale.PredictTask(scale.model_file(net))
    task.setup()
    photos = [scale.Photo(str(o), o.read_bytes()) for o in sorted((album / 'St').iterdir())]
    task.batch = 1
    alone = scale.rows_of(task, photos)
    task.batch = 4
    together = scale.rows_of(task, photos)
    for one, other in zip(alone, together, strict=True):
        said = [(row['path'], row.get('label'), row.get('error')) for row in (one, other)]
        assert said[0] == said[1]
        assert one.get('probability', 0) == pytest.approx(other.get('probability', 0), abs=1e-5)


# Cores

KEEPER = """
import json, os, sys
from cloud_classifier.prediction import scale
scale._has_quota, scale._CORE = lambda: sys.argv[1] == 'quota', f'core of {os.getppid()}'
print(json.dumps([scale.keep_cores(1), sorted(os.sched_getaffinity(0))]), flush=True)
sys.stdin.read()
"""


def kept(stack, *quota):
    "The core that a new process keeps to, and those that it may use."
    command = [sys.executable, '-c', KEEPER, *(quota or ['none'])]
    process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    return tuple(json.loads(process.stdout.readline()))


@pytest.mark.skipif(sys.platform != 'linux', reason='Linux alone keeps a process to cores')
def test_no_two_workers_keep_to_one_core():
    all_cores = sorted(os.sched_getaffinity(0))
    for _ in range(2):  # what ended workers had is free again
        with contextlib.ExitStack() as stack:
            found = [kept(stack) for _ in all_cores]
            assert sorted(core for one, _ in found for core in one) == all_cores
            assert all(one == may for one, may in found)
            assert kept(stack) == ([], all_cores)
            assert kept(stack, 'quota') == ([], all_cores)


# The command


def test_the_command_takes_archives(net, album, tmp_path, command):
    out = tmp_path / 'answers'
    status, said, err = command('predict', album, '--out', out, '-m', net)
    assert (status, err) == (3, '')
    assert '68 photos now; 3 can’t be used, see the column error' in said
    status, said, _ = command('predict', album, '--out', out, '-m', net, '--json')
    assert (status, json.loads(said)['rows']) == (0, 0)
    for verb in ('verify', 'duplicates'):
        status, said, err = command(verb, album / 'Cirrus', album / 's-0.tar', '--out', tmp_path / verb, '-q')
        assert (status, said, err) == (0, f'{tmp_path / verb}\n', '')
        assert len(rows(tmp_path / verb)) == 30


@pytest.mark.parametrize(
    ('args', 'line'),
    [
        (['predict', '@', '--engine', 'local'], 'needs a folder: --out FOLDER'),
        (['predict', '@', '--engine', 'ray', '--out', 'a.csv'], 'needs a folder: --out FOLDER'),
        (['predict', '@', '--address', 'auto', '--out', 'new'], 'is for --engine ray'),
        (['predict', '@', '--exif', '--out', 'new'], 'does not go with an archive'),
        (['verify', '@', '--quarantine', '--out', 'new'], 'does not go with an archive'),
        (['verify', '@', '@'], 'takes one folder; with --out, as many places as you like'),
        (['verify', 'nowhere', '--out', 'new'], 'nowhere: there is no such file or folder'),
        (['duplicates', '@', '--out', 'file/new'], 'file is a file'),
    ],
)
def test_what_can_not_be_is_said_in_a_line(args, line, album, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path('file').touch()
    status, out, err = command(*(str(album) if o == '@' else o for o in args))
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert line in err
    assert not Path('new').joinpath('archive.json').exists()


def test_other_answers_are_refused(net, album, tmp_path, command):
    out = tmp_path / 'answers'
    assert command('verify', album / 'Cirrus', '--out', out)[0] == 0
    for args, line in (
        (['predict', album / 'Cirrus', '-m', net], 'has the answers of verify, not of predict'),
        (['verify', album / 'St'], 'is about other photos'),
        (['verify', album / 'Cirrus', '--min-side', '99'], 'has answers with other options'),
    ):
        status, _, err = command(*args, '--out', out)
        assert (status, err.count('\n')) == (2, 1)
        assert line in err


LOCAL = """
import sys
from cloud_classifier.prediction.scale import predict_archive
print(predict_archive([sys.argv[1]], sys.argv[2], sys.argv[3], progress=False, workers=1).rows)
print([o for o in sys.modules if o.split('.')[0] in ('ray', 'torch', 'fastai')])
"""


def test_without_an_engine_nothing_of_ray_is_imported(net, album, tmp_path):
    done = run_bounded([sys.executable, '-c', LOCAL, album / 's-0.tar', tmp_path / 'out', net])
    assert (done.status, done.out, done.err) == (0, '10\n[]\n', '')


def test_an_absent_ray_is_said_in_a_line(net, album, tmp_path, command, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    status, _, err = command('predict', album, '--engine', 'ray', '--out', tmp_path / 'out', '-m', net)
    assert status == 2
    assert err == (
        "cloud-classifier: the engine ray needs Ray, which `pip install 'cloud_classifier[scale]'` installs\n"
    )


def test_an_address_without_a_cluster_is_said_in_a_line(net, album, tmp_path, command):
    pytest.importorskip('ray', reason='Ray is in the extra scale')
    where = ['--engine', 'ray', '--address', '127.0.0.1:9', '--out', tmp_path / 'out', '-m', net]
    status, _, err = command('predict', album, *where)
    assert (status, err.count('\n')) == (2, 1)
    assert '127.0.0.1:9: no Ray cluster answers there' in err


def test_what_an_actor_does_is_what_a_process_does(net, album, tmp_path):
    result = predict_archive([album], tmp_path / 'one', net, **QUIETLY)
    archive = Archive(result.out)
    job = scale.Job('predict', {}, scale.asdict(scale.model_file(net)), archive.place, os.getcwd(), [], 'now')
    before = rows(result.out)
    shutil.rmtree(tmp_path / 'one' / 'parts')
    [blocks] = [scale.blocks_of(archive.plan())]
    worker = scale.ShardWorker(job)
    outcomes = [o for block in blocks for table in worker(block) for o in table.to_pylist()]
    assert [o['status'] for o in outcomes] == ['done'] * result.shards
    assert rows(result.out) == before
    assert {o['status'] for block in blocks for table in worker(block) for o in table.to_pylist()} == {'kept'}


# What is killed


def start(*args):
    return subprocess.Popen(
        [Path(sys.executable).with_name('cloud-classifier'), *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def parts(out):
    return len(list(out.glob('parts/*/shard-*.parquet')))


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    "Photos that take a while."
    return album_of(400, tmp_path_factory.mktemp('many'))


@pytest.fixture(scope='module')
def enough(tmp_path_factory):
    "Photos that take the model that ships a while."
    return album_of(150, tmp_path_factory.mktemp('enough'))


def album_of(count, folder):
    "A folder with one photo under many names."
    render_sky('Cumulus', size=256, seed=1).save(folder / '0.jpg')
    for n in range(1, count):
        os.link(folder / '0.jpg', folder / f'{n}.jpg')
    return folder


@pytest.mark.parametrize('end', [signal.SIGKILL, signal.SIGINT])
def test_a_command_that_is_ended_is_gone_on_with(end, net, enough, tmp_path, command):
    out = tmp_path / 'out'
    child = start('predict', enough, '--out', out, '-m', find_model())
    wait_for(lambda: parts(out) > 1, 60)
    workers = descendants(child.pid, 'serve_shards')
    assert workers
    child.send_signal(end)
    assert child.wait(30) == (-9 if end == signal.SIGKILL else 130)
    child.stderr.close()
    wait_for(lambda: not any(map(is_there, workers)), 60)
    before = parts(out)
    status, said, _ = command('predict', enough, '--out', out, '-m', find_model(), '--json')
    assert (status, json.loads(said)['kept']) == (0, before)
    assert before < parts(out)
    assert sorted(names(out)) == sorted(str(o) for o in enough.iterdir())
    assert [str(o) for o in out.rglob('*.tmp')] == []
    assert list((out / 'attempts').iterdir()) == []


def test_a_worker_that_is_killed_takes_nothing_with_it(net, enough, tmp_path, monkeypatch):
    killed, began = [], Process.start

    def start_and_kill(process):
        began(process)
        if len(killed) < 2:
            killed.append(process)
            threading.Timer(0.3, process.process.kill).start()

    monkeypatch.setattr(Process, 'start', start_and_kill)
    result = predict_archive([enough], tmp_path / 'out', find_model(), **QUIETLY)
    assert (len(killed), result.rows, result.failed, result.aside) == (2, 150, {}, {})
    assert sorted(names(tmp_path / 'out')) == sorted(str(o) for o in enough.iterdir())


def test_a_shard_that_ends_its_worker_is_set_aside(net, poison, tmp_path, command):
    out = tmp_path / 'out'
    result = predict_archive([poison], out, net, photos=10, **QUIETLY)
    assert (result.done, list(result.aside)) == (2, [2])
    assert sorted(names(out)) == sorted(str(o) for o in poison.iterdir())
    assert {row['error'] for row in rows(out) if row['label'] is None} == {
        'the process that worked at it ended 3 times'
    }
    assert json.loads((out / 'aside' / 'shard-00000002.json').read_text())['reason'] in result.summary()
    status, said, _ = command('predict', poison, '--out', tmp_path / 'again', '-m', net)
    assert status == 1
    assert 'shards that are set aside: 1' in said


def test_an_error_that_nothing_foresaw_sets_a_shard_aside_with_its_text(net, poison, tmp_path, monkeypatch):
    site = Path(os.environ['PYTHONPATH']) / 'sitecustomize.py'
    site.write_text(POISON.replace('os.kill(os.getpid(), 9)', '1/0'))
    monkeypatch.setattr(scale, 'AGAIN_SECONDS', 0)
    result = verify_archive([poison], tmp_path / 'out', **QUIETLY)
    assert list(result.aside) == [1]
    assert 'ZeroDivisionError: division by zero' in result.summary()


def test_a_worker_that_can_not_begin_ends_the_command_in_a_line(net, album, tmp_path, monkeypatch, command):
    (tmp_path / 'sitecustomize.py').write_text('import os, sys\nif sys.argv[0] == "-c": os._exit(7)\n')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    status, _, err = command('predict', album, '--out', tmp_path / 'out', '-m', net)
    assert (status, err) == (1, 'cloud-classifier: a worker ended before it began (exit status 7), 3 times\n')


def test_a_full_disk_stops_the_command_and_the_same_goes_on(net, many, small_disk, command):
    blocker = small_disk / 'blocker'
    out = small_disk / 'out'
    blocker.write_bytes(bytes(900_000))
    status, _, err = command('predict', many, '--out', out, '-m', net)
    assert (status, err.count('\n')) == (1, 1)
    assert 'No space left on device' in err
    blocker.unlink()
    status, _, err = command('predict', many, '--out', out, '-m', net)
    assert (status, len(rows(out))) == (0, 400), err


def test_two_commands_at_once_are_told_so(net, album, tmp_path, command):
    with Archive(str(tmp_path / 'out')).alone():
        status, _, err = command('predict', album, '--out', tmp_path / 'out', '-m', net)
    assert (status, err) == (2, f'cloud-classifier: {tmp_path}/out: another command works at it\n')


# Ray


@pytest.fixture(scope='module')
def cluster():
    "A Ray cluster of two nodes with a CPU each; workers of it end where they open poison."
    pytest.importorskip('ray', reason='Ray is in the extra scale')
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
        patch.setenv('RAY_raylet_start_wait_time_s', '120')
        cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


def ray_workers():
    return descendants(what='ray::MapWorker')


RAY = """
import sys
from cloud_classifier.prediction.scale import predict_archive
out, model, address, *places = sys.argv[1:]
result = predict_archive(places, out, model, engine='ray', address=address, progress=False, photos=20)
print(result.rows, result.kept, result.done, list(result.aside), list(result.failed))
"""


def on_ray(cluster, out, model, *places):
    command = [sys.executable, '-W', 'ignore', '-c', RAY, out, model, cluster.address, *places]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.soak
def test_ray_gives_the_same_rows(cluster, net, album, tmp_path):
    predict_archive([album], tmp_path / 'one', net, photos=20, **QUIETLY)
    said, _ = on_ray(cluster, tmp_path / 'out', net, album).communicate(timeout=300)
    assert said.split()[0] == '68'
    assert rows(tmp_path / 'out') == rows(tmp_path / 'one')


@pytest.mark.soak
@pytest.mark.parametrize('fault', ['actor', 'driver', 'node'])
def test_on_ray_every_photo_has_one_row_whatever_is_killed(fault, cluster, many, tmp_path):
    out = tmp_path / 'out'
    child = on_ray(cluster, out, find_model(), many)
    wait_for(lambda: parts(out) > 1 and ray_workers(), 300)
    if fault == 'actor':
        os.kill(ray_workers()[0], signal.SIGKILL)
    elif fault == 'driver':
        child.kill()
        child.communicate()
        assert parts(out) < 20
        child = on_ray(cluster, out, find_model(), many)
    else:
        cluster.remove_node(max(cluster.worker_nodes, key=id), allow_graceful=False)
    said, _ = child.communicate(timeout=400)
    assert said.endswith('[] []\n')
    assert sorted(names(out)) == sorted(str(o) for o in many.iterdir())


def test_a_missing_model_and_an_unknown_engine_are_errors_of_the_caller(album, tmp_path):
    with pytest.raises(BadModel):
        predict_archive([album], tmp_path / 'out', tmp_path / 'none.onnx')
    with pytest.raises((UserError, KeyError)):
        verify_archive([album], tmp_path / 'out', engine='spark', progress=False)
