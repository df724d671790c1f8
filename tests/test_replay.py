"Decisions that are done again: from journals, and from tables that people and programs wrote."

import hashlib
import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from wholeness import whole

from cloud_classifier.data import clean
from cloud_classifier.data.clean import Cleaner, replay
from cloud_classifier.data.dataset import BadDataset, Dataset

PHOTOS = ('Cirrus/1.jpg', 'Cirrus/2.jpg', 'Stratus/1.jpg', 'Stratus/2.jpg', 'Cumulus/1.jpg')


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(root: Path, photos=PHOTOS) -> Dataset:
    "A dataset of files that differ in their bytes alone."
    for n, photo in enumerate(photos):
        (root / photo).parent.mkdir(parents=True, exist_ok=True)
        (root / photo).write_bytes(b'photo %d' % n)
    return Dataset(root)


def tree(dataset: Dataset) -> dict[str, bytes]:
    own = ('manifest.db', '.manifest.lock', '.cleaner.lock')
    files = (p for p in dataset.path.rglob('*') if p.is_file() and not p.name.startswith(own))
    return {p.relative_to(dataset.path).as_posix(): p.read_bytes() for p in files}


def labels(dataset: Dataset) -> Counter:
    "How often which bytes stand under which label."
    return Counter((path.split('/')[0], content) for path, content in tree(dataset).items())


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return write(tmp_path / 'skies')


def statuses(dataset, journal) -> list[str]:
    return replay(dataset, journal).status.tolist()


def table(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns)


@pytest.fixture
def cleaned(tmp_path) -> Dataset:
    "A copy in which photos were kept, moved twice, taken out, put back, and moved by other commands."
    dataset = write(tmp_path / 'cleaned')
    cleaner = Cleaner(dataset)
    cleaner.keep('Cirrus/1.jpg', 'threads')
    cleaner.relabel('Cirrus/2.jpg', 'Stratus')
    cleaner.ambiguous('Stratus/2.jpg', 'a, "comma"')
    cleaner.delete('Cumulus/1.jpg')
    cleaner.apply()
    cleaner.undo()
    later = Cleaner(dataset)
    later.relabel('Stratus/2-1.jpg', 'Contrail', new=True)
    later.apply()
    dataset.quarantine('Cumulus/1.jpg', 'blurry')
    dataset.relabel('Stratus/1.jpg', 'Cumulus')
    return dataset


def as_csv(journal, folder):
    journal.to_csv(folder / 'journal.csv')
    return folder / 'journal.csv'


def as_json_lines(journal, folder):
    text = journal.reset_index().to_json(orient='records', lines=True)
    (folder / 'journal.jsonl').write_text(text)
    return folder / 'journal.jsonl'


def as_json(journal, folder):
    (folder / 'journal.json').write_text(
        json.dumps(json.loads(journal.reset_index().to_json(orient='records')), indent=1)
    )
    return folder / 'journal.json'


@pytest.mark.parametrize('batch', [1, 100])
@pytest.mark.parametrize('form', [lambda journal, _: journal, as_csv, as_json_lines, as_json])
@pytest.mark.parametrize('renamed', [False, True])
def test_the_journal_of_another_copy(dataset, cleaned, tmp_path, form, renamed, batch, monkeypatch):
    monkeypatch.setattr(clean, '_BATCH', batch)
    if renamed:  # the photos have other names than in the journal, and one folder has another name
        for n, path in enumerate(PHOTOS):
            (dataset.path / path).rename(dataset.path / path.replace('/', f'/photo {n} '))
        (dataset.path / 'Stratus').rename(dataset.path / 'St')
    before, journal = Counter(tree(dataset).values()), form(cleaned.journal(), tmp_path)
    done = statuses(dataset, journal)
    assert Counter(done) == {'applied': 6, 'skipped: was undone': 1}
    read = {('Stratus' if label == 'St' else label, content): n for (label, content), n in labels(dataset).items()}
    assert read == labels(cleaned)
    assert Counter(tree(dataset).values()) == before
    after, rows = tree(dataset), len(dataset.journal())
    assert Counter(statuses(dataset, journal)) == {'done before': 6, 'skipped: was undone': 1}
    assert (tree(dataset), len(dataset.journal())) == (after, rows)
    dataset.undo(rows)
    assert Counter(statuses(dataset, journal)) == {'applied': 6, 'skipped: was undone': 1}


def test_a_journal_on_its_own_dataset_is_done_before(cleaned):
    before = tree(cleaned)
    assert Counter(statuses(cleaned, cleaned.journal())) == {'done before': 6, 'skipped: was undone': 1}
    assert tree(cleaned) == before


def test_what_the_journal_says_is_kept(dataset, cleaned):
    replay(dataset, cleaned.journal())
    told = dataset.journal().set_index('sha256')
    assert told.reason[sha(b'photo 3')] == 'a, "comma"'
    assert told.by[sha(b'photo 0')] == 'person'
    assert set(told.session[told.action == 'keep']) == set(told.session[told.action == 'ambiguous'])


def test_a_table_that_a_person_wrote(dataset, tmp_path):
    file = tmp_path / 'mine.csv'
    file.write_bytes('\ufeffPath;Decision;Label\r\nCirrus/2.jpg;Relabel;st\r\n\r\nCumulus/1.jpg; delete ;\r\n'.encode())
    result = replay(dataset, file)
    assert result.values.tolist() == [
        [2, 'Cirrus/2.jpg', sha(b'photo 1'), 'relabel', 'Stratus', 'applied'],
        [4, 'Cumulus/1.jpg', sha(b'photo 4'), 'delete', '', 'applied'],
    ]
    assert dataset.journal().by.tolist() == ['file', 'file']
    assert statuses(dataset, file) == ['done before'] * 2


def test_lines_with_a_checksum_alone(dataset):
    lines = table(
        sha256=[sha(b'photo 1'), sha(b'nowhere'), sha(b'photo 4').upper()], decision='relabel', label='Stratus'
    )
    assert statuses(dataset, lines) == ['applied', 'not there', 'applied']
    assert statuses(dataset, lines) == ['done before', 'not there', 'done before']


def test_photos_that_change_places_by_path_alone(dataset):
    lines = table(path=['Stratus/1.jpg', 'Cumulus/1.jpg'], decision='relabel', label=['Cumulus', 'Stratus'])
    assert statuses(dataset, lines) == ['applied', 'applied']
    after = tree(dataset)
    assert after['Stratus/1.jpg'] == b'photo 4'
    assert statuses(dataset, lines) == ['done before', 'done before']
    assert tree(dataset) == after


def test_a_photo_that_was_put_there_by_hand_is_done_before(dataset):
    (dataset.path / 'Cirrus/2.jpg').rename(dataset.path / 'Stratus/dragged.jpg')
    line = table(path=['Cirrus/2.jpg'], sha256=[sha(b'photo 1')], decision='relabel', label='Stratus')
    assert statuses(dataset, line) == ['done before']


def test_a_photo_that_stands_elsewhere_is_left_alone(dataset):
    (dataset.path / 'Cirrus/2.jpg').rename(dataset.path / 'Cumulus/2.jpg')
    line = table(path=['Cirrus/2.jpg'], sha256=[sha(b'photo 1')], decision='relabel', label='Stratus')
    assert statuses(dataset, line) == ['bad: stands under Cumulus by now; it was decided about under Cirrus']


def test_copies_under_two_labels_are_two_photos(dataset):
    (dataset.path / 'Stratus/copy.jpg').write_bytes(b'photo 4')
    cleaner = Cleaner(dataset)
    cleaner.delete('Cumulus/1.jpg')
    cleaner.keep('Stratus/copy.jpg')
    journal = cleaner.apply()
    other = write(dataset.path.with_name('other'))
    (other.path / 'Stratus/copied.jpg').write_bytes(b'photo 4')
    assert statuses(other, journal) == ['applied', 'applied']
    assert labels(other) == labels(dataset)
    assert statuses(other, journal) == ['done before', 'done before']


def test_of_equal_photos_the_one_that_stays_is_found_anew(dataset):
    (dataset.path / 'Stratus/copy.jpg').write_bytes(b'photo 4')
    other = write(dataset.path.with_name('other'))
    (other.path / 'Stratus/copy.jpg').write_bytes(b'photo 4')
    first = dataset.relabel('Stratus/copy.jpg', 'Cirrus')
    dataset.relabel('Cumulus/1.jpg', 'Cirrus')  # which has this photo
    assert labels(dataset)['.quarantine', b'photo 4'] == 1
    assert dataset.undo(rows=[first]) == ['Stratus/copy.jpg']
    assert labels(dataset)['.quarantine', b'photo 4'] == 1
    assert statuses(other, dataset.journal()) == ['skipped: was undone', 'applied']
    assert {label for label, content in labels(other) if content == b'photo 4'} == {'Stratus', 'Cirrus'}


def test_a_journal_from_before_labels_were_in_it(dataset):
    old = table(source=['Cirrus/2.jpg'], target=['Stratus/2-1.jpg'], action='relabel', sha256=[''], undone=[None])
    assert statuses(dataset, old) == ['applied']
    assert 'Stratus/2-1.jpg' in tree(dataset)


BAD = {
    'unknown decision': ('Cirrus/1.jpg,remove,', "'remove' is not a decision; the decisions are keep, relabel"),
    'no label': ('Cirrus/1.jpg,relabel,', 'relabel needs a label'),
    'near miss': ('Cirrus/1.jpg,relabel,Cumulsu', 'did you mean Cumulus?'),
    'no folder': ('Cirrus/1.jpg,relabel,.git', "can't be the name of a class"),
    'outside': ('../other/1.jpg,delete,', 'is not in'),
    'absolute': ('/etc/passwd,delete,', 'is not in'),
    'no photo': (',delete,', 'names no photo'),
    'escape': ('\x1b[31mred,remove,', 'is not a decision'),
}


@pytest.mark.parametrize(('line', 'says'), BAD.values(), ids=BAD)
def test_a_bad_line_says_where_and_stops_no_other(dataset, tmp_path, line, says):
    file = tmp_path / 'mine.csv'
    file.write_text(f'path,decision,label\n{line}\nCirrus/2.jpg,delete,\n')
    bad, good = statuses(dataset, file)
    assert bad.startswith('bad: mine.csv, line 2: ')
    assert says in bad
    assert bad.isprintable()
    assert good == 'applied'
    before = Counter(tree(dataset).values())
    whole(dataset, Counter({sha(content): n for content, n in before.items()}))


NO_TABLES = {
    'empty': (b'', 'is empty'),
    'a photo': (b'\xff\xd8\xff\xe0' * 9, 'not a table in UTF-8'),
    'text': (b'some words\n', 'has no column sha256 or path'),
    'no decision': (b'path\nCirrus/1.jpg\n', 'has no column decision or action'),
    'more values': (b'path,decision\nCirrus/1.jpg,keep,,,4\n', 'line 2: is not a row'),
    'an open quote': (b'path,decision\n"Cirrus/1.jpg,keep\n', 'line 2: is not a row'),
    'half of JSON': (b'{"path": "Cirrus/1.jpg", "decision": "keep"}\n{"path"', 'line 2: is not JSON'),
    'a list of lists': (b'[[1, 2]]', 'is not an object'),
    'deep JSON': (b'[' * 100_000, 'is not JSON'),
    'NUL': (b'path,decision\nCirrus/1.jpg\0,keep\n', 'no table'),
}


@pytest.mark.parametrize(('content', 'says'), NO_TABLES.values(), ids=NO_TABLES)
def test_what_is_no_table_is_refused_and_nothing_is_done(dataset, tmp_path, content, says):
    file, before = tmp_path / 'mine.csv', tree(dataset)
    file.write_bytes(content)
    with pytest.raises(BadDataset, match=says) as e:
        replay(dataset, file)
    assert 'mine.csv' in str(e.value)
    assert '\n' not in str(e.value)
    assert tree(dataset) == before


def test_files_that_are_not_there(dataset, tmp_path):
    for file in (tmp_path / 'none.csv', tmp_path):
        with pytest.raises(BadDataset, match="can't be read"):
            replay(dataset, file)
    with pytest.raises(BadDataset, match='the table: has no column'):
        replay(dataset, table(photo=['Cirrus/1.jpg']))


def test_a_pending_decision_of_a_person_is_not_lost(dataset):
    cleaner = Cleaner(dataset)
    cleaner.delete('Cirrus/2.jpg')
    replay(dataset, table(path=['Cirrus/2.jpg'], decision=['relabel'], label=['Stratus']))
    assert cleaner.pending.decision.tolist() == ['delete']
    with pytest.raises(BadDataset, match='stands under Stratus by now'):
        cleaner.apply()


def test_a_photo_that_can_not_be_moved_has_its_line(dataset, monkeypatch):
    def refuse(source, target):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('cloud_classifier.data.dataset.move_file', refuse)
    line = table(path=['Cirrus/2.jpg'], decision='delete')
    assert statuses(dataset, line) == ['bad: Permission denied']
    monkeypatch.undo()
    assert statuses(dataset, line) == ['applied']


def test_a_photo_that_went_there_and_back_and_there_again(dataset):
    cleaner = Cleaner(dataset)
    for path, label in (('Cirrus/2.jpg', 'Contrail'), ('Contrail/2.jpg', 'Cirrus'), ('Cirrus/2.jpg', 'Contrail')):
        cleaner.relabel(path, label, new=True)
        cleaner.apply()
    other = write(dataset.path.with_name('other'))
    assert statuses(other, dataset.journal()) == ['applied'] * 3
    assert labels(other) == labels(dataset)
    assert statuses(other, dataset.journal()) == ['done before'] * 3
