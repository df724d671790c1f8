"A manifest that is large, shared, broken or cut off."

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from cloud_classifier.dataset import Dataset
from cloud_classifier.manifest import BadManifest, Manifest

ROWS = 100_000


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    "A dataset whose manifest has a hundred thousand rows, 100 of them pending."
    dataset = Dataset(tmp_path_factory.mktemp('large'))
    manifest, labels = dataset.manifest, ('Cirrus', 'Stratus', 'Cumulus', 'Contrail')
    asked = (dict(url=f'http://127.0.0.1:9/{i}.jpg', label=labels[i % 4], source='urls') for i in range(ROWS))
    assert manifest.ask(asked) == ROWS
    with manifest.transaction() as db:
        db.execute(
            "UPDATE photos SET status = 'ok', path = label || '/' || id || '.jpg', sha256 = printf('%064x', id) "
            'WHERE id % 4 <> 1'
        )
        db.execute("UPDATE photos SET status = 'failed', reason = 'not found' WHERE id % 4 = 1 AND id > 400")
    return dataset


def seconds(*command):
    "Wall time of a command that succeeds, seconds, and what it prints."
    start = time.perf_counter()
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def test_a_hundred_thousand_rows_are_counted(large):
    import json

    took, printed = seconds(sys.executable, '-m', 'cloud_classifier.cli', 'status', large.path, '--json')
    print(f'status of {ROWS} rows took {took:.1f} s')
    counts = json.loads(printed)
    assert counts['status'] == {'ok': 75_000, 'failed': 24_900, 'pending': 100}
    assert counts['reasons'] == {'not found': 24_900}
    assert counts['classes'] == {'Stratus': 25_000, 'Cumulus': 25_000, 'Contrail': 25_000}


def test_a_hundred_thousand_rows_are_a_table(large):
    frame = large.frame()
    assert len(frame) == ROWS
    assert (frame.status == 'missing').sum() == 75_000  # there are no files behind these rows
    assert len(large.frame('pending')) == 100


def test_asking_again_adds_nothing(large):
    again = [dict(url=f'http://127.0.0.1:9/{i}.jpg', label='Cirrus') for i in range(0, ROWS, 4)]
    assert large.manifest.ask(again) == 0
    assert large.manifest.ask([dict(url='http://127.0.0.1:9/0.jpg', label='Stratus')]) == 1  # under another label


def test_a_manifest_of_the_first_version(tmp_path):
    "One that has a journal and nothing else, as this package once made it."
    with sqlite3.connect(tmp_path / 'manifest.db') as db:
        db.execute(
            'CREATE TABLE journal (id INTEGER PRIMARY KEY, time TEXT NOT NULL, action TEXT NOT NULL, '
            'source TEXT NOT NULL, target TEXT NOT NULL, reason TEXT NOT NULL, undone TEXT)'
        )
        db.execute("INSERT INTO journal VALUES (1, 'then', 'relabel', 'a/1.jpg', 'b/1.jpg', 'why', NULL)")
    db.close()
    dataset = Dataset(tmp_path)
    assert dataset.journal().source.tolist() == ['a/1.jpg']
    assert dataset.frame().empty


def test_what_is_not_a_manifest_is_left_alone(tmp_path, command):
    (tmp_path / 'manifest.db').write_bytes(b'not SQLite, and long enough to be looked at' * 30)
    with pytest.raises(BadManifest, match='not a database'):
        Dataset(tmp_path).frame()
    status, _, err = command('status', tmp_path)
    assert status == 2
    assert err.count('\n') == 1
    assert (tmp_path / 'manifest.db').read_bytes().startswith(b'not SQLite')


def test_two_processes_write_in_turns(tmp_path):
    code = (
        'import sys; from cloud_classifier.manifest import Manifest; m = Manifest(sys.argv[1])\n'
        'for i in range(100): m.ask([dict(url=f"http://x/{sys.argv[2]}/{i}", label="Cirrus")])'
    )
    both = [subprocess.Popen([sys.executable, '-c', code, tmp_path, name]) for name in 'ab']
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert Manifest(tmp_path).counts()['status'] == {'pending': 200}


def test_killed_while_writing(tmp_path):
    "Whole batches are there, or nothing of them."
    code = (
        'import sys, itertools; from cloud_classifier.manifest import Manifest; m = Manifest(sys.argv[1])\n'
        'for n in itertools.count():\n'
        '    m.ask([dict(url=f"http://x/{n}/{i}", label="Cirrus") for i in range(50)])\n'
        '    print(n, flush=True)'
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, '-c', code, tmp_path], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert Manifest(tmp_path).counts()['status']['pending'] % 50 == 0


def test_a_planned_move_is_made_by_whoever_comes_next(tmp_path):
    "As after a kill between the commit and the rename."
    manifest = Manifest(tmp_path)
    (tmp_path / 'a').mkdir()
    for name in ('1', '2', '3'):
        (tmp_path / 'a' / name).write_text(name)
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b' / '3').write_text('another')
    with manifest.transaction() as db:
        for source, target in (('a/1', 'b/1'), ('a/gone', 'b/gone'), ('a/3', 'b/3')):
            manifest.plan_move(db, source, target)
    with Dataset(tmp_path).alone():
        pass
    assert {p.relative_to(tmp_path).as_posix(): p.read_text() for p in tmp_path.glob('[ab]/*')} == {
        'a/2': '2',
        'b/1': '1',
        'b/3': 'another',
        'b/3-1': '3',
    }
    assert not manifest.read('SELECT * FROM moves')


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    manifest = Manifest(tmp_path)

    def cut_off():
        with manifest.transaction() as db:
            db.execute("INSERT INTO photos (asked, label) VALUES ('Cirrus', 'Cirrus')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert manifest.counts()['status'] == {}
