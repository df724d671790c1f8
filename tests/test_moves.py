"Moves that are cut off, and moves of several processes at once: no byte is lost, no row is untrue."

import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest
from wholeness import VERBS, contents, make_dataset, undo, whole, work

from cloud_classifier.data.dataset import Dataset

SERVERS = Path(__file__).parent / 'servers'
PAIRS = list(itertools.combinations_with_replacement(VERBS, 2))


@pytest.fixture
def dataset(tmp_path):
    "Photos that the manifest knows, two of them moved."
    dataset = make_dataset(tmp_path / 'skies')
    dataset.sync(progress=False)
    dataset.relabel('Cirrus/0.png', 'Stratus')
    dataset.quarantine('Cumulus/0.png', 'before')
    return dataset


def start(server, dataset, verb, seed, rounds, first=''):
    code = f'import sys; sys.path.insert(0, {str(SERVERS)!r})\nimport wholeness\n{first}\n'
    return server.start(code + f'wholeness.work({str(dataset.path)!r}, {verb!r}, {seed}, {rounds})')


def listing(folder):
    return sorted((p.name, p.lstat().st_mtime_ns) for p in [folder, *folder.iterdir()])


def check_goes_on(dataset, before, chance):
    "Looking works and changes nothing, and so does the next command, whichever it is."
    there = listing(dataset.path)
    dataset.frame(), dataset.journal(), dataset.status()
    assert listing(dataset.path) == there
    work(dataset.path, chance.choice(list(VERBS)), chance.random(), 1)
    whole(dataset, before)


def kill_at_random(server, dataset, verb, times, seed):
    chance, before = random.Random(seed), contents(dataset.path)
    killed = 0
    for n in range(times):
        child = start(server, dataset, verb, n, 1000)
        time.sleep(chance.uniform(0, 0.3))
        child.kill()
        killed += child.wait() == -signal.SIGKILL
        check_goes_on(dataset, before, chance)
        undo(dataset, random.Random(n))  # so that there are photos left
        dataset.undo(5)
        whole(dataset, before)
    return killed


@pytest.mark.parametrize('verb', VERBS)
def test_killed_at_random(server, dataset, verb):
    assert kill_at_random(server, dataset, verb, 2, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize('verb', VERBS)
def test_killed_thirty_times_at_random(server, dataset, verb):
    assert kill_at_random(server, dataset, verb, 30, seed=2) >= 25


DIE = """
import os, signal
from cloud_classifier.data import dataset as manifest
left = [{event}]
def dies(call, when, counts=lambda *args: True):
    def replaced(*args, **kwargs):
        if not counts(*args): return call(*args, **kwargs)
        left[0] -= 1
        if left[0] == 0 and when == 'before': os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **kwargs)
        if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
        return result
    return replaced
manifest.move_file = dies(manifest.move_file, {when!r})
manifest._Connection.execute = dies(manifest._Connection.execute, {when!r}, lambda db, sql, *_: sql.split()[0] in
                                    ('BEGIN', 'COMMIT', 'INSERT', 'UPDATE', 'DELETE'))
"""


# Before a step is after the one that came before it, but for what stands between them.
@pytest.mark.parametrize('when', [pytest.param('before', marks=pytest.mark.soak), 'after'])
@pytest.mark.parametrize('verb', VERBS)
def test_killed_at_each_step(server, dataset, verb, when):
    "Before and after each statement that writes and each rename, until a command comes to its end."
    before, chance = contents(dataset.path), random.Random(3)
    for event in itertools.count(1):
        dataset.quarantine(next(dataset.photos())[0], 'to be undone')
        os.utime(dataset.path / next(dataset.photos())[0])  # something for sync to write down
        child = start(
            server, dataset, verb, event, 1 if verb in ('apply', 'sync') else 3, DIE.format(event=event, when=when)
        )
        ended = child.wait()
        assert ended in (0, -signal.SIGKILL), child.said()
        check_goes_on(dataset, before, chance)
        if ended == 0:
            break
        dataset.undo(5)
    assert event > 4


def both_at_once(server, dataset, pair, times, rounds):
    before = contents(dataset.path)
    for n in range(times):
        children = [start(server, dataset, verb, (n, i).__hash__(), rounds) for i, verb in enumerate(pair)]
        for child in children:
            assert child.wait(60) == 0, child.said()
        whole(dataset, before)
        dataset.undo(8)
        whole(dataset, before)


@pytest.mark.parametrize('pair', PAIRS, ids='-'.join)
def test_two_processes_at_once(server, dataset, pair):
    both_at_once(server, dataset, pair, 1, rounds=4)


@pytest.mark.soak
@pytest.mark.parametrize('pair', PAIRS, ids='-'.join)
def test_two_processes_at_once_twenty_times(server, dataset, pair):
    both_at_once(server, dataset, pair, 20, rounds=8)


def test_a_photo_is_found_by_its_bytes_wherever_it_went(dataset):
    sha = dataset.digests(['Cirrus/1.png'])['Cirrus/1.png']
    assert [p.path for p in dataset.where([sha], at=['Cirrus/1.png'])[sha]] == ['Cirrus/1.png']
    dataset.relabel('Cirrus/1.png', 'St')
    (place,) = dataset.where([sha], at=['Cirrus/1.png'])[sha]
    assert (place.path, place.label, place.status) == ('Stratus/1-1.png', 'Stratus', 'ok')
    dataset.quarantine(place.path, 'blurred')
    (place,) = dataset.where([sha])[sha]
    assert (place.label, place.status) == ('Stratus', 'quarantined')
    Dataset(dataset.path).manifest.file.unlink()
    (place,) = dataset.where([sha])[sha]
    assert (place.label, place.status) == ('', 'quarantined')
