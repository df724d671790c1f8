"A manifest that is large, shared, broken or cut off."

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from conftest import ordinary_user
from reading import read_line
from wholeness import contents, make_dataset, whole

from cloud_classifier.data.dataset import BadDataset, BadManifest, Dataset, Manifest, ManifestFailed

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


def test_a_new_file_in_the_place_of_a_manifest_is_read_as_new(tmp_path):
    "A process that was stopped before it made the tables leaves an empty file, perhaps with the same number."
    manifest = Manifest(tmp_path)
    manifest.ask([dict(url='http://127.0.0.1:9/a.jpg', label='Cirrus')])
    assert len(manifest.pending()) == 1
    os.truncate(manifest.file, 0)
    assert manifest.pending() == []
    assert manifest.ask([dict(url='http://127.0.0.1:9/a.jpg', label='Cirrus')]) == 1
    assert len(manifest.pending()) == 1


def test_what_is_not_a_manifest_is_left_alone(tmp_path, command):
    (tmp_path / 'manifest.db').write_bytes(b'not SQLite, and long enough to be looked at' * 30)
    with pytest.raises(BadManifest, match='not a database'):
        Dataset(tmp_path).frame()
    status, _, err = command('status', tmp_path)
    assert status == 2
    assert err.count('\n') == 1
    assert (tmp_path / 'manifest.db').read_bytes().startswith(b'not SQLite')


@pytest.mark.usefixtures('forked')
def test_two_processes_write_in_turns(tmp_path):
    code = (
        'import sys; from cloud_classifier.data.dataset import Manifest; m = Manifest(sys.argv[1])\n'
        'for i in range(100): m.ask([dict(url=f"http://x/{sys.argv[2]}/{i}", label="Cirrus")])'
    )
    both = [subprocess.Popen([sys.executable, '-c', code, tmp_path, name]) for name in 'ab']
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert Manifest(tmp_path).counts()['status'] == {'pending': 200}


@pytest.mark.usefixtures('forked')
def test_killed_while_writing(tmp_path):
    "Whole batches are there, or nothing of them."
    code = (
        'import sys, itertools; from cloud_classifier.data.dataset import Manifest; m = Manifest(sys.argv[1])\n'
        'for n in itertools.count():\n'
        '    m.ask([dict(url=f"http://x/{n}/{i}", label="Cirrus") for i in range(50)])\n'
        '    print(n, flush=True)'
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, '-c', code, tmp_path], stdout=subprocess.PIPE)
        read_line(process)
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
    with Dataset(tmp_path).exclusive_lock():
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


# Looking changes nothing, wherever it is done

OLD = """
CREATE TABLE photos (
    id INTEGER PRIMARY KEY, asked TEXT NOT NULL, label TEXT NOT NULL,
    source TEXT NOT NULL DEFAULT '', url TEXT NOT NULL DEFAULT '', page TEXT NOT NULL DEFAULT '',
    title TEXT NOT NULL DEFAULT '', author TEXT NOT NULL DEFAULT '', licence TEXT NOT NULL DEFAULT '',
    licence_url TEXT NOT NULL DEFAULT '', query TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT 'pending',
    reason TEXT NOT NULL DEFAULT '', path TEXT NOT NULL DEFAULT '', sha256 TEXT NOT NULL DEFAULT '', width INTEGER,
    height INTEGER, size INTEGER, mtime INTEGER);
CREATE TABLE searches (source TEXT, query TEXT, time TEXT NOT NULL, PRIMARY KEY (source, query));
CREATE TABLE journal (id INTEGER PRIMARY KEY, time TEXT NOT NULL, action TEXT NOT NULL, source TEXT NOT NULL,
    target TEXT NOT NULL, reason TEXT NOT NULL, undone TEXT);
CREATE TABLE moves (id INTEGER PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL);
CREATE TABLE memory (kind TEXT NOT NULL, sha256 TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, sha256))
    WITHOUT ROWID;
PRAGMA user_version = 2;
INSERT INTO photos (asked, label, status, path, author) VALUES ('Cirrus', 'Cirrus', 'ok', 'Cirrus/0.png', 'Ann');
INSERT INTO journal VALUES (1, 'then', 'quarantine', 'Stratus/0.png', '.quarantine/0.png', 'blurred', NULL);
"""


def old_manifest(folder, left_open=False):
    "A manifest of the second version, which had a write-ahead log; where it is left open, all is in the log alone."
    code = (
        'import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute("PRAGMA journal_mode=WAL")\n'
        'db.executescript(sys.argv[2]); db.commit()\n'
        'os._exit(0) if len(sys.argv) > 3 else db.close()'
    )
    args = [sys.executable, '-c', code, folder / 'manifest.db', OLD]
    subprocess.run(args + ['open'] * left_open, check=True)


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def look_at(dataset):
    "All that looks; what it finds."
    dataset.listing(), dataset.scan(progress=False), dataset.status(), dataset.where(['0' * 64])
    dataset.digests(['Cirrus/0.png']), dataset.manifest.cache_get('x'), dataset.manifest.pending()
    return dataset.frame().author.tolist(), dataset.journal().reason.tolist()


@pytest.mark.usefixtures('forked')
@pytest.mark.parametrize('left_open', [False, True])
@pytest.mark.parametrize('mounted', [False, True])
def test_a_manifest_of_the_second_version_is_read_as_it_is(tmp_path, request, left_open, mounted):
    dataset = make_dataset(tmp_path / 'skies', per_class=1)
    old_manifest(dataset.path, left_open)
    before = bytes_of(dataset.path)
    assert ('manifest.db-wal' in before) == left_open
    place = request.getfixturevalue('read_only')(dataset.path) if mounted else dataset.path
    assert look_at(Dataset(place)) == (['Ann', '', ''], ['blurred'])
    assert bytes_of(dataset.path) == before


@pytest.mark.usefixtures('forked')
def test_a_manifest_of_the_second_version_is_taken_over(tmp_path):
    dataset = make_dataset(tmp_path / 'skies', per_class=2)
    old_manifest(dataset.path)
    (dataset.path / '.quarantine').mkdir()
    (dataset.path / 'Stratus' / '0.png').rename(dataset.path / '.quarantine' / '0.png')
    dataset.sync(progress=False)
    assert dataset.undo() == ['Stratus/0.png']
    dataset.quarantine('Stratus/0.png', 'again')
    assert dataset.journal().sha256.map(len).tolist() == [0, 64]
    assert dataset.frame().author.tolist() == ['Ann', '', '', '', '']
    assert sorted(bytes_of(dataset.path)) == ['.manifest.lock', 'manifest.db']


@pytest.mark.usefixtures('forked')
@pytest.mark.parametrize('killed', [False, True])
def test_what_can_not_be_written_is_read(tmp_path, read_only, killed):
    dataset = make_dataset(tmp_path / 'skies', per_class=2)
    dataset.sync(source='a friend', progress=False)
    if killed:  # in the middle of a transaction that has begun to write into the file
        code = (
            'import os, sys; from cloud_classifier.data.dataset import Manifest\n'
            'with Manifest(sys.argv[1]).transaction() as db:\n'
            '    db.execute("PRAGMA cache_size=1"); db.execute("PRAGMA cache_spill=1")\n'
            '    db.execute("UPDATE photos SET source = \'nobody\'")\n'
            '    for i in range(9999): db.execute("INSERT INTO searches VALUES (?, ?, ?)", (i, i, "x" * 99))\n'
            '    os.kill(os.getpid(), 9)'
        )
        assert subprocess.run([sys.executable, '-c', code, dataset.path], check=False).returncode == -9
        assert (dataset.path / 'manifest.db-journal').stat().st_size > 0
    seen = Dataset(read_only(dataset.path))
    assert set(seen.frame().source) == {'a friend'}
    look_at(seen)
    for step in (lambda: seen.quarantine('Cirrus/0.png', 'a test'), lambda: seen.manifest.cache_put('x', {'a': b'b'})):
        with pytest.raises(ManifestFailed, match=r'can.t be read or written there \(Read-only file system\)'):
            step()
    assert set(dataset.frame().source) == {'a friend'}
    dataset.quarantine('Cirrus/0.png', 'a test')
    assert not list(dataset.path.glob('manifest.db-*'))


def test_a_folder_that_an_ordinary_user_may_not_write_in_is_read(open_folder):
    dataset = make_dataset(open_folder / 'skies', per_class=2)
    dataset.sync(source='a friend', progress=False)
    look_at(dataset)
    for folder in (dataset.path, dataset.path / 'Cirrus'):
        folder.chmod(0o555)
    with ordinary_user():
        assert set(dataset.frame().source) == {'a friend'}
        look_at(dataset)
        with pytest.raises(ManifestFailed, match=r'manifest.db: can.t be read or written there'):
            dataset.quarantine('Cirrus/0.png', 'a test')
    for folder in (dataset.path, dataset.path / 'Cirrus'):
        folder.chmod(0o755)
    assert dataset.journal().empty


def test_a_full_disk_is_told_in_a_line_and_nothing_is_lost(small_disk):
    dataset = make_dataset(small_disk / 'skies', per_class=3)
    dataset.sync(progress=False)
    before = contents(dataset.path)
    filler = small_disk / 'filler'
    with suppress(OSError), filler.open('wb', buffering=0) as f:
        while True:
            f.write(bytes(1000))

    def fill():
        for photo in dataset.listing().path:
            dataset.manifest.ask([dict(url=f'http://x/{photo}/{n}', label='Cirrus') for n in range(300)])
            dataset.quarantine(photo, 'a test')

    with pytest.raises(ManifestFailed, match='No space left on device'):
        fill()
    filler.unlink()
    dataset.relabel('Cumulus/0.png', 'Cirrus')
    whole(dataset, before)


def test_looking_leaves_nothing_behind(tmp_path):
    dataset = make_dataset(tmp_path / 'skies', per_class=2)
    look_at(dataset)
    for refused in (
        lambda: dataset.quarantine('Cirrus/none.png', 'a test'),
        lambda: dataset.relabel('Cirrus/0.png', 'manifest.db'),
        lambda: dataset.relabel('Cirrus/0.png', 'Ci'),
    ):
        with pytest.raises(BadDataset):
            refused()
    assert dataset.undo() == []
    assert dataset.manifest.ask([]) == dataset.manifest.retry(['html']) == 0
    assert bytes_of(dataset.path) == {}
    dataset.sync(progress=False)
    before = {p.name: p.stat().st_mtime_ns for p in [dataset.path, *dataset.path.iterdir()]}
    look_at(dataset)
    assert {p.name: p.stat().st_mtime_ns for p in [dataset.path, *dataset.path.iterdir()]} == before


def test_a_database_of_somebody_elses_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / 'manifest.db') as db:
        db.execute('CREATE TABLE bookmarks (url TEXT)')
    db.close()
    before = bytes_of(tmp_path)
    for step in (Dataset(tmp_path).frame, lambda: Manifest(tmp_path).ask([dict(url='http://x', label='Cirrus')])):
        with pytest.raises(BadManifest, match="is not a manifest: it has a table 'bookmarks'"):
            step()
    assert bytes_of(tmp_path) == before
