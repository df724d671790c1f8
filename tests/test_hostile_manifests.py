"Manifests that strangers made: nothing outside of the dataset is touched or opened, and each has its answer in a line."

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from bounds import run_bounded
from wholeness import contents, make_dataset, whole

from cloud_classifier.data.dataset import BadDataset, BadManifest, ManifestFailed

SECRET = b'not a photo of yours'


@pytest.fixture
def outside(tmp_path):
    "A file of the user's beside the dataset."
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'secret.jpg').write_bytes(SECRET)
    return tmp_path / 'outside'


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / 'skies', per_class=3)


def write(dataset, *statements):
    "Change a manifest as a stranger would."
    with dataset.manifest.open():
        pass
    with closing(sqlite3.connect(dataset.manifest.file)) as db:
        for statement in statements:
            db.execute(*statement) if isinstance(statement, tuple) else db.executescript(statement)
        db.commit()


def everything(folder):
    return {p: (p.is_file() and p.read_bytes()) for p in Path(folder).rglob('*')}


def use(dataset):
    "All that can be done with a dataset; what is refused is refused in a line."
    said = []
    first = next(iter(dataset.photos()))[0]
    for step in (
        dataset.status,
        dataset.frame,
        dataset.journal,
        lambda: dataset.where(['0' * 64]),
        lambda: dataset.digests([first, '/etc/passwd', '../outside/secret.jpg']),
        lambda: dataset.sync(progress=False),
        lambda: dataset.undo(3),
        lambda: dataset.quarantine(first, 'after all that'),
        dataset.undo,
    ):
        try:
            step()
        except (BadDataset, BadManifest, ManifestFailed) as e:
            said.append(str(e))
    assert '\n' not in ''.join(said)
    return said


PLACES = [
    ('{outside}/secret.jpg', 'Cirrus/got.jpg'),
    ('../outside/secret.jpg', 'Cirrus/got.jpg'),
    ('Cirrus/../../outside/secret.jpg', 'Cirrus/got.jpg'),
    ('Cirrus/0.png', '{outside}/0.png'),
    ('Cirrus/0.png', '../outside/0.png'),
    ('Cirrus/0.png', 'linked/0.png'),
    ('linked/secret.jpg', 'Cirrus/got.jpg'),
    ('Cirrus/0.png', 'linked/deeper/0.png'),
    ('manifest.db', 'Cirrus/manifest.jpg'),
    ('attribution.csv', 'Cirrus/got.jpg'),
    ('Cirrus/0.png', 'attribution.csv/0.png'),
    ('Cirrus/0.png', '.git/hooks/0.png'),
    ('Cirrus/0.png', 'manifest.db'),
    ('Cirrus/0.png', '.quarantine/../../outside/0.png'),
    ('Cirrus/0.png', '.incoming/0.png'),
    ('Cirrus', 'Contrail/all'),
    ('Cirrus/0.png', ''),
    ('', 'Cirrus/got.jpg'),
    ('Cirrus/0.png', 'Cirrus/\0.png'),
    ('Cirrus/0.png', 'a/' * 3000 + '0.png'),
    ('Cirrus/0.png', 'b' * 300 + '/0.png'),
    ('Cirrus/0.png', 'Cirrus/' + 'b' * 300 + '.png'),
    ('Cirrus/pipe', 'Stratus/pipe'),
    ('.incoming/linked.part', 'Cirrus/got.jpg'),
]


@pytest.mark.parametrize(('source', 'target'), PLACES, ids=range(len(PLACES)))
@pytest.mark.parametrize('table', ['moves', 'journal', 'taken back'])
def test_moves_stay_inside(dataset, outside, source, target, table):
    (dataset.path / 'linked').symlink_to(outside)
    (dataset.path / '.incoming').mkdir()
    (dataset.path / '.incoming' / 'linked.part').symlink_to(outside / 'secret.jpg')
    (dataset.path / 'attribution.csv').write_text('path\n')
    os.mkfifo(dataset.path / 'Cirrus' / 'pipe')
    source, target = (o.format(outside=outside) for o in (source, target))
    before = {file: content for file, content in everything(dataset.path).items() if file.name != 'linked.part'}
    if table == 'moves':
        write(dataset, ('INSERT INTO moves (source, target) VALUES (?, ?)', (source, target)))
    else:
        row = (source, target) if table == 'journal' else (target, source)
        insert = (
            "INSERT INTO journal (id, time, action, source, target, reason) VALUES (1, 'then', 'relabel', ?, ?, 'why')"
        )
        write(dataset, (insert, row))
    use(dataset)
    assert everything(outside) == {outside / 'secret.jpg': SECRET}
    after = everything(dataset.path)
    assert {file: after.get(file) for file in before} == before
    assert not dataset.manifest.read('SELECT * FROM moves')
    assert table == 'moves' or dataset.journal().failed[1]


def test_a_move_that_can_not_be_made_stops_none_of_the_others(dataset):
    before = contents(dataset.path)
    write(
        dataset,
        "INSERT INTO moves (source, target) VALUES ('/etc/passwd', 'Cirrus/1.jpg'),"
        " ('Cirrus/0.png', 'Stratus/moved.png'), ('Cirrus/gone.png', 'Stratus/gone.png')",
    )
    dataset.quarantine('Cumulus/0.png', 'a test')
    assert (dataset.path / 'Stratus' / 'moved.png').is_file()
    whole(dataset, before)


def test_a_photo_that_arrived_and_can_not_be_put_in_place_has_failed(dataset):
    dataset.manifest.ask([dict(url='http://x/1', label='manifest.db')])
    (dataset.path / '.incoming').mkdir()
    (dataset.path / '.incoming' / '1.part').write_bytes(b'a photo')
    with dataset.manifest.consistent() as db:
        db.execute("UPDATE photos SET status = 'ok', path = 'manifest.db/1.jpg'")
        dataset.manifest.plan_move(db, '.incoming/1.part', 'manifest.db/1.jpg')
    dataset.sync(progress=False)
    (row,) = dataset.manifest.read("SELECT status, reason, path FROM photos WHERE url <> ''")
    assert (row['status'], row['path']) == ('failed', '')
    assert row['reason'].startswith("can't be put in place: ")
    assert (dataset.frame().status == 'ok').sum() == 9


SCHEMAS = {
    'a trigger': "CREATE TRIGGER t AFTER INSERT ON journal BEGIN DELETE FROM photos; END",
    'a view': "DROP TABLE photos; CREATE VIEW photos AS SELECT 1 AS id, 'x' AS path",
    'a view without end': "DROP TABLE moves; CREATE VIEW moves AS WITH RECURSIVE"
    " n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, 'a' AS source, 'b' AS target FROM n",
    'a virtual table': "CREATE VIRTUAL TABLE words USING fts5(word)",
    'a table of its own': "CREATE TABLE passwords (word)",
    'a column too few': "DROP TABLE journal; CREATE TABLE journal (id INTEGER PRIMARY KEY, time TEXT)",
    'a column that is worked out': "DROP TABLE searches; CREATE TABLE searches (source TEXT, query TEXT,"
    " time TEXT NOT NULL, more TEXT AS (zeroblob(100000000)), PRIMARY KEY (source, query))",
    'numbers for names': "DROP TABLE moves; CREATE TABLE moves (id INTEGER PRIMARY KEY, source INTEGER, "
    "target INTEGER, sha256, journal, back, label, status)",
    'no number': "DROP TABLE moves; CREATE TABLE moves (id TEXT, source TEXT, target TEXT, sha256 TEXT, "
    "journal INTEGER, back INTEGER, label TEXT, status TEXT)",
    'a newer version': 'PRAGMA user_version = 2000000000',
}


@pytest.mark.parametrize('made', SCHEMAS.values(), ids=SCHEMAS)
def test_a_schema_that_is_no_manifest_is_refused(dataset, made):
    write(dataset, made)
    before = everything(dataset.path)
    with pytest.raises(BadManifest) as reading:
        dataset.frame()
    with pytest.raises(BadManifest) as writing:
        dataset.quarantine('Cirrus/0.png', 'a test')
    for refused in (reading, writing):
        assert str(refused.value).startswith(str(dataset.manifest.file))
        assert '\n' not in str(refused.value)
    assert everything(dataset.path) == before


def test_types_that_no_column_should_have(dataset):
    dataset.sync(progress=False)
    write(
        dataset,
        "INSERT INTO photos (asked, label, path, sha256, status, width, size, mtime) VALUES"
        " (x'ff00ff', x'000a', x'436972727573ff', 3.5, 'taken', 'wide', x'00', 1e300)",
        "INSERT INTO photos (asked, label, status) VALUES ('Cirrus', char(27) || '[31mred', 'ok')",
        "INSERT INTO photos (asked, label, status) VALUES ('Cirrus', '../../etc', 'ok')",
        "INSERT INTO moves (source, target, sha256, journal, back, label, status) VALUES"
        " (x'ff', x'fe', 7, 'one', 'no', char(0), 'taken')",
        "INSERT INTO journal (id, time, action, source, target, reason, undone, sha256, score, session, by) VALUES"
        " (7, 1, 2, 3, 4, 5, x'ff', x'00', 'high', x'fe', 9)",
        "INSERT INTO decisions (sha256, path, decision, given, label, score, session, time, by, journal) VALUES"
        " (x'ff', x'fe', 3, 4, char(27), 'low', 7, 8, x'00', 'one')",
    )
    assert use(dataset) == []
    frame = dataset.frame()
    assert set(frame.label) == {'Cirrus', 'Stratus', 'Cumulus', ''}
    assert set(frame.status) <= {'ok', 'missing', 'failed', 'quarantined'}
    assert set(dataset.status()['classes']) == {'Cirrus', 'Stratus', 'Cumulus'}


def test_a_value_of_half_a_gigabyte_is_not_read(dataset):
    write(dataset, "INSERT INTO photos (asked, label, reason) VALUES ('Cirrus', 'Cirrus', zeroblob(500000000))")
    code = (
        'import sys; from cloud_classifier.data.dataset import BadManifest, Manifest\n'
        'try: Manifest(sys.argv[1]).read("SELECT * FROM photos")\n'
        'except BadManifest as e: print(e)'
    )
    cost = run_bounded([sys.executable, '-c', code, dataset.path], seconds=60)
    assert 'too big' in cost.out, cost.err
    assert cost.megabytes < 300


@pytest.mark.parametrize('name', ['.incoming', '.quarantine', '.manifest.lock', 'manifest.db'])
def test_folders_and_files_of_its_own_that_are_links_are_refused(dataset, outside, name):
    (outside / 'half.part').write_bytes(b'half of a photo')
    (dataset.path / name).symlink_to(outside / 'secret.jpg' if '.manifest.lock' == name else outside)
    before = everything(outside)
    with pytest.raises((BadDataset, BadManifest), match='link'):
        dataset.sync(progress=False)
    if name in ('.quarantine', 'manifest.db'):
        with pytest.raises((BadDataset, BadManifest), match='link'):
            dataset.quarantine('Cirrus/0.png', 'a test')
    assert everything(outside) == before


def test_what_a_manifest_says_of_bytes_is_not_believed(dataset):
    "A stranger can set the times that archives keep, but not the one that the system sets."
    true = dataset.digests(['Cirrus/0.png'])
    stat = os.stat(dataset.path / 'Cirrus' / '0.png')
    write(
        dataset,
        (
            "INSERT INTO photos (asked, label, status, path, sha256, size, mtime) VALUES ('Cirrus', 'Cirrus', 'ok',"
            " 'Cirrus/0.png', ?, ?, ?)",
            ('0' * 64, stat.st_size, stat.st_mtime_ns),
        ),
    )
    assert dataset.digests(['Cirrus/0.png']) == true
    assert dataset.sync(progress=False)['changed'] == 1
    assert set(dataset.frame().sha256) == set(dataset.digests(dict(dataset.photos())).values())


PHOTO = (
    b'{"status": "ok", "reason": "", "format": "PNG", "mode": "RGB", "width": %s, "height": 4, '
    b'"animated": false, "values": {}}'
)
FINDINGS = [
    b'',
    b'no JSON',
    'text',
    7,
    b'[' * 100_000,
    b'"ok"',
    b'{"status": "ok"}',
    b'{"status": "ok", "reason": ""}',
    b'{"status": 1, "reason": ""}',
    PHOTO % b'1e999',
    PHOTO % b'4',
    b'\xff\xfe',
]


def test_findings_that_are_none_of_ours_are_found_out_anew(dataset):
    "What verify and the search for duplicates keep in a manifest may have been written by anybody."
    from cloud_classifier.data.duplicates import find_duplicates
    from cloud_classifier.data.verify import verify

    true = verify(dataset, remember=True, progress=False)
    copies = find_duplicates(dataset, progress=False)
    for finding in FINDINGS:
        with closing(sqlite3.connect(dataset.manifest.file)) as db:
            assert db.execute('UPDATE memory SET value = ?', (finding,)).rowcount > len(true.table)
            db.commit()
        again = verify(dataset, remember=True, progress=False)
        assert again.opened == len(true.table), finding
        assert again.table.equals(true.table), finding
        assert find_duplicates(dataset, progress=False) == copies, finding
