"Many photos to a table: killed, torn, gone on with, hostile names, and no more memory for more photos."

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from conftest import ordinary_user

from cloud_classifier.images import BadImage
from cloud_classifier.prediction import batch
from cloud_classifier.prediction.batch import (
    BadTable,
    find_photos,
    photo_entry,
    predict_all,
    read_names,
    write_answers,
)
from cloud_classifier.prediction.infer import CloudClassifier, shipped_model
from cloud_classifier.samples import render_sky

KINDS = ['.csv', '.jsonl', '.parquet']


@pytest.fixture(scope='module')
def clouds():
    return CloudClassifier(shipped_model(), threads=1)


@pytest.fixture(scope='module')
def album(tmp_path_factory):
    "Sixty photos, each another, and three files that are none."
    folder = tmp_path_factory.mktemp('album') / 'skies'
    folder.mkdir()
    for n in range(60):
        render_sky('Cumulus', size=64, seed=n).save(folder / f'{n:02}.jpg')
    for n in range(3):
        (folder / f'bad {n}.jpg').write_text('<html>404</html>')
    return folder


def rows(table):
    "The rows of a table of any kind, by name."
    if table.suffix == '.parquet':
        return pq.read_table(table).to_pylist()
    text = table.read_text(encoding='utf-8')
    if table.suffix == '.jsonl':
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text)))


def paths(table):
    return [row['path'] for row in rows(table)]


def journal_of(table):
    return table.with_name(table.name + '.journal')


def write(table, clouds, *places, **options):
    return write_answers(table, clouds, find_photos(places), **options)


# What is found


def test_photos_are_found_in_the_order_of_their_paths(tmp_path):
    for name in ('b/1.jpg', 'b/a/2.JPG', 'b-c.jpg', 'a/b/3.png', 'note.txt', '.hidden/4.jpg', '.5.jpg', 'IMG.HEIC'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [os.path.relpath(o, tmp_path) for o in find_photos([tmp_path])]
    assert found == sorted(['b/1.jpg', 'b/a/2.JPG', 'b-c.jpg', 'a/b/3.png', 'IMG.HEIC'])


def test_photos_are_found_before_all_folders_are_read(tmp_path, monkeypatch):
    for name in 'abc':
        (tmp_path / name).mkdir()
        (tmp_path / name / 'sky.jpg').touch()
    read, listing = [], batch._listing
    monkeypatch.setattr(batch, '_listing', lambda folder: read.append(folder) or listing(folder))
    photos = find_photos([tmp_path])
    next(photos)
    assert len(read) == 2
    assert len(list(photos)) == 2


def test_folders_lie_deeper_than_functions_may_call_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir('d')
        os.chdir('d')
    Path('sky.jpg').touch()
    os.chdir(tmp_path)
    try:
        assert [os.path.basename(o) for o in find_photos(['.'])] == ['sky.jpg']
    finally:
        subprocess.run(['rm', '-rf', 'd'], check=True)


@pytest.mark.parametrize(
    ('place', 'says'),
    [
        ('nothing here', 'has no photos'),
        ('*.jpg', 'matches no photo'),
        ('https://example.org/sky.jpg', '--urls'),
    ],
)
def test_a_place_that_gives_no_photo_is_said(place, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'nothing here').mkdir()
    (found,) = find_photos([place])
    assert isinstance(found, BadImage)
    assert (found.name, says in found.reason) == (place, True)


def test_a_folder_that_may_not_be_read_is_said(open_folder):
    (open_folder / 'locked').mkdir(mode=0o700)
    (open_folder / 'sky.jpg').touch()
    with ordinary_user():
        locked, sky = find_photos([open_folder])
    assert 'Permission denied' in locked.reason
    assert sky == str(open_folder / 'sky.jpg')


def test_a_pattern_is_a_file_where_one_has_that_name(tmp_path):
    for name in ('sky[1].jpg', 'sky1.jpg', 'note.txt'):
        (tmp_path / name).touch()
    assert [os.path.basename(o) for o in find_photos([tmp_path / 'sky[1].jpg'])] == ['sky[1].jpg']
    assert [os.path.basename(o) for o in find_photos([f'{tmp_path}/*'])] == ['sky1.jpg', 'sky[1].jpg']


def test_names_come_one_by_one_whatever_ends_them():
    class Slow(io.BytesIO):
        def read1(self, size=-1):
            return super().read1(3)

    assert list(read_names(Slow(b'a.jpg\r\n\nb c.jpg\n\xff.jpg'))) == ['a.jpg', 'b c.jpg', '\udcff.jpg']
    assert list(read_names(io.BytesIO(b'a\nb.jpg\0c.jpg\0'))) == ['a\nb.jpg', 'c.jpg']


# What is answered


def test_answers_are_those_of_one_photo_after_the_other(clouds, album):
    photos = [*map(str, sorted(album.iterdir())), 'none.jpg']
    one_by_one = CloudClassifier(shipped_model()).predict_many(photos, batch_size=1)
    answers = list(predict_all(clouds, photos))
    assert [photo for photo, _ in answers] == photos
    expected = [photo_entry(photo, answer) for photo, answer in zip(photos, one_by_one, strict=True)]
    assert [photo_entry(*pair) for pair in answers] == expected


def test_answers_come_before_the_next_photo_is_known(clouds, album):
    known = []

    def slowly():
        for n in range(2):
            yield str(album / f'{n:02}.jpg')
            while len(known) <= n:
                time.sleep(0.001)

    for pair in predict_all(clouds, slowly()):
        known.append(pair)
    assert len(known) == 2


def test_what_finds_photos_may_fail(clouds, album):
    def photos():
        yield str(album / '00.jpg')
        raise OSError('the disk is gone')

    answers = predict_all(clouds, photos())
    next(answers)
    with pytest.raises(OSError, match='the disk is gone'):
        next(answers)


def test_no_more_photos_are_found_than_are_answered_soon(clouds, album):
    found = []

    def photos():
        for _ in range(10_000):
            found.append(None)
            yield str(album / '00.jpg')

    answers = predict_all(clouds, photos(), workers=1)
    next(answers)
    time.sleep(0.5)
    answers.close()
    assert len(found) <= 2 * batch.AHEAD


# What is written


@pytest.mark.parametrize('kind', KINDS)
def test_a_table_has_a_row_for_each_photo_in_order(kind, clouds, album, tmp_path):
    table = tmp_path / f'answers{kind}'
    written = write(table, clouds, album, album, album / '00.jpg', 'none.jpg')
    assert paths(table) == [*map(str, sorted(album.iterdir())), 'none.jpg']
    assert (written.rows, written.answered, written.errors) == (64, 64, 4)
    bad = [row for row in rows(table) if row.get('error')]
    assert [row['error'] for row in bad] == ['is not a photo in a known format'] * 3 + ['there is no such file']
    assert not any(row.get('label') for row in bad)
    assert [o.name for o in tmp_path.iterdir() if o.name.startswith('.')] == []


def test_json_lines_are_those_of_predict(command, clouds, album, tmp_path):
    write(tmp_path / 'answers.jsonl', clouds, album)
    status, out, _ = command('predict', album, '--json')
    assert (status, out) == (3, (tmp_path / 'answers.jsonl').read_text())


def test_csv_and_parquet_say_the_same(clouds, album, tmp_path):
    for kind in ('.csv', '.parquet'):
        write(tmp_path / f'answers{kind}', clouds, album)
    text = [{k: '' if v is None else str(v) for k, v in row.items()} for row in rows(tmp_path / 'answers.parquet')]
    assert rows(tmp_path / 'answers.csv') == text
    assert list(text[0]) == list(batch.columns(clouds.classes))
    shares = [float(v) for k, v in text[0].items() if k.startswith('p_')]
    assert len(shares) == len(clouds.classes)
    assert sum(shares) == pytest.approx(1, abs=1e-4)


HOSTILE = [
    '=HYPERLINK("x").jpg',
    'two\nlines.jpg',
    os.fsdecode(b'caf\xe9.jpg'),
    '[red]x[_red].jpg',
    'a"b,c.jpg',
    '\x1b[2J.jpg',
]


@pytest.mark.parametrize('kind', KINDS)
def test_hostile_names_are_rows(kind, clouds, album, tmp_path):
    (tmp_path / 'skies').mkdir()
    for name in HOSTILE:
        shutil.copy(album / '00.jpg', tmp_path / 'skies' / name)
    table = tmp_path / f'answers{kind}'
    for answered in (len(HOSTILE), 0):
        assert write(table, clouds, tmp_path / 'skies').answered == answered
    found = rows(table)
    assert len(found) == len(HOSTILE)
    assert all(row['label'] for row in found)
    if kind == '.jsonl':
        assert {os.path.basename(row['path']) for row in found} == {*HOSTILE}
    if kind == '.csv':
        assert '\x1b' not in table.read_text()


def test_spreadsheets_run_no_name(clouds, album, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(album / '00.jpg', '=1+1.jpg')
    write(tmp_path / 'answers.csv', clouds, '=1+1.jpg')
    assert paths(tmp_path / 'answers.csv') == ["'=1+1.jpg"]


# What is gone on with


@pytest.mark.parametrize(('kind', 'kills'), [('.csv', 1), ('.jsonl', 1), ('.parquet', 3)])
def test_a_killed_process_is_gone_on_with(kind, kills, server, clouds, album, tmp_path):
    "At some moments, and while the table is written; the table is that of a process that was left alone."
    table, random = tmp_path / f'answers{kind}', Random(kind)
    write(tmp_path / f'whole{kind}', clouds, album)
    journal, marks = journal_of(table), sorted(random.sample(range(1, 63), kills))
    for mark in marks:
        child = server.command('predict', album, '--out', table, '--quiet')
        child.wait_for(lambda mark=mark: journal.exists() and journal.read_bytes().count(b'\n') > mark)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert not table.exists()
    kill = 'import os; from cloud_classifier import files; files.os.replace = lambda *a: os.kill(os.getpid(), 9); '
    args = ['cloud-classifier', 'predict', str(album), '--out', str(table)]
    code = f'{kill} import sys; sys.argv = {args!r}; from cloud_classifier.cli import main; main()'
    assert server.start(code).wait() == -signal.SIGKILL
    assert not table.exists()
    child = server.command('predict', album, '--out', table, '--json')
    assert child.wait() == 3
    assert '"answered": 3,' in child.said()
    assert table.read_bytes() == (tmp_path / f'whole{kind}').read_bytes()
    assert [o.name for o in tmp_path.iterdir() if o.name.startswith('.')] == []


@pytest.mark.parametrize('cut', [1, 30, 200])
def test_a_torn_line_is_mended(cut, clouds, album, tmp_path):
    table = tmp_path / 'answers.jsonl'
    write(table, clouds, album / '00.jpg', album / '01.jpg')
    whole, journal = table.read_bytes(), journal_of(table)
    journal.write_bytes(journal.read_bytes()[:-cut])
    written = write(table, clouds, album / '00.jpg', album / '01.jpg')
    assert (written.answered, written.kept, table.read_bytes()) == (1, 1, whole)


def test_what_follows_damage_is_asked_about_again(clouds, album, tmp_path):
    table, photos = tmp_path / 'answers.jsonl', [album / f'{n:02}.jpg' for n in range(4)]
    write(table, clouds, *photos)
    whole, journal = table.read_bytes(), journal_of(table)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b''.join([*lines[:2], b'\0' * 100 + b'\n', *lines[3:]]))
    assert write(table, clouds, *photos).answered == 3
    assert table.read_bytes() == whole


def test_photos_that_changed_or_could_not_be_used_are_asked_about_again(clouds, album, tmp_path):
    folder, table = tmp_path / 'skies', tmp_path / 'answers.csv'
    shutil.copytree(album, folder)
    write(table, clouds, folder)
    assert write(table, clouds, folder).answered == 3
    shutil.copy(album / '05.jpg', folder / 'bad 0.jpg')
    shutil.copy(album / '06.jpg', folder / '07.jpg')
    (folder / 'new.jpg').write_bytes((folder / '00.jpg').read_bytes())
    assert write(table, clouds, folder).answered == 5
    found = {os.path.basename(row['path']): row for row in rows(table)}
    assert len(found) == len(rows(table)) == 64
    assert found['bad 0.jpg']['error'] == ''
    assert found['07.jpg']['p_Cirrus'] == found['06.jpg']['p_Cirrus']
    assert journal_of(table).read_bytes().count(b'\n') == 65


def test_photos_from_another_time_stay(clouds, album, tmp_path):
    table = tmp_path / 'answers.csv'
    write(table, clouds, album / '01.jpg')
    write(table, clouds, album / '00.jpg')
    assert [os.path.basename(o) for o in paths(table)] == ['00.jpg', '01.jpg']


def test_a_path_that_is_spelled_otherwise_is_the_same(clouds, album, tmp_path, monkeypatch):
    monkeypatch.chdir(album)
    written = write(tmp_path / 'answers.csv', clouds, '00.jpg', './00.jpg', album / '00.jpg')
    assert (written.answered, paths(tmp_path / 'answers.csv')) == (1, ['00.jpg'])


def test_other_answers_are_refused(command, album, tmp_path):
    table, other = tmp_path / 'answers.csv', tmp_path / 'other.onnx'
    photo = album / '00.jpg'
    assert command('predict', photo, '--out', table)[0] == 0
    before = table.read_bytes()
    shutil.copy(shipped_model(), other)
    assert command('predict', photo, '--out', table, '-m', other)[0] == 0, 'it is the same model'
    status, _, err = command('predict', photo, '--out', table, '--prior', 'Stratus=0.3')
    assert (status, 'with another prior' in err, err.count('\n')) == (2, True, err.count('\n'))
    journal = journal_of(table)
    journal.write_text(re.sub('"sha256": "..', '"sha256": "zz', journal.read_text()))
    status, _, err = command('predict', photo, '--out', table, '-m', other)
    assert (status, err.count('\n'), table.read_bytes()) == (2, 1, before)
    assert 'has answers of another model' in err
    status, _, err = command('predict', photo, '--out', table, '-m', other, '--overwrite')
    assert (status, err) == (0, '')
    assert len(rows(table)) == 1


@pytest.mark.parametrize('kind', KINDS)
def test_a_file_of_another_origin_is_kept(kind, command, album, tmp_path):
    table = tmp_path / f'answers{kind}'
    table.write_text('mine')
    status, _, err = command('predict', album / '00.jpg', '--out', table)
    assert (status, table.read_text()) == (2, 'mine')
    assert 'without a journal' in err
    table.unlink()
    journal_of(table).write_text('mine')
    assert command('predict', album / '00.jpg', '--out', table)[0] == 2
    assert journal_of(table).read_text() == 'mine'


def test_two_at_once_do_not_mix(clouds, album, tmp_path):
    table = tmp_path / 'answers.csv'
    with batch.Answers(table, batch.answers_settings(clouds)), pytest.raises(BadTable, match='another predict'):
        write(table, clouds, album)


def test_a_lost_table_is_made_again_without_asking(clouds, album, tmp_path):
    table = tmp_path / 'answers.parquet'
    write(table, clouds, album / '00.jpg')
    whole = table.read_bytes()
    table.unlink()
    assert write(table, clouds, album / '00.jpg').answered == 0
    assert table.read_bytes() == whole


def test_a_full_disk_costs_nothing_that_was_answered(clouds, album, small_disk):
    table, filler = small_disk / 'answers.csv', small_disk / 'filler'
    filler.write_bytes(bytes(1_000_000))
    with pytest.raises(OSError, match='No space left'):
        write(table, clouds, album)
    filler.unlink()
    assert write(table, clouds, album).kept > 0
    assert len(rows(table)) == 63


# On the command line


def test_ctrl_c_says_how_to_go_on(server, album, tmp_path):
    table = tmp_path / 'answers.csv'
    child = server.command('predict', album, '--out', table)
    child.wait_for(lambda: journal_of(table).exists() and journal_of(table).read_bytes().count(b'\n') > 3)
    child.kill(signal.SIGINT)
    assert child.wait() == 130
    assert 'the same command goes on' in child.said()
    assert 'Traceback' not in child.said()


@pytest.mark.parametrize('end', [b'\n', b'\0'])
def test_names_come_from_another_program(end, album):
    names = end.join(os.fsencode(album / f'{n:02}.jpg') for n in range(2)) + end
    line = [Path(sys.executable).with_name('cloud-classifier'), 'predict', '-', '--json']
    done = subprocess.run(line, input=names, capture_output=True, check=False)
    assert [json.loads(o)['path'][-6:] for o in done.stdout.splitlines()] == ['00.jpg', '01.jpg']


def test_parquet_says_what_it_needs(command, album, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyarrow.parquet', None)
    status, _, err = command('predict', album, '--out', tmp_path / 'answers.parquet')
    assert (status, err.count('\n')) == (2, 1)
    assert "pip install 'cloud_classifier[parquet]'" in err


def test_addresses_are_fetched_where_that_is_asked(clouds, album, monkeypatch):
    def fetch(url):
        if url.endswith('away.jpg'):
            raise BadImage(url, 'missing', 'was answered with status 404')
        return (album / url.rpartition('/')[2]).read_bytes()

    monkeypatch.setattr(batch, 'fetch_photo', fetch)
    places = [f'https://example.org/{name}' for name in ('00.jpg', 'away.jpg', 'bad 0.jpg', '01.jpg')]
    answers = [photo_entry(*o) for o in predict_all(clouds, find_photos(places, urls=True), urls=True)]
    assert [o['path'] for o in answers] == places
    assert [o.get('error') for o in answers] == [
        None,
        'was answered with status 404',
        'is not a photo in a known format',
        None,
    ]
    assert answers[3]['top'] == photo_entry('', clouds.predict(album / '01.jpg'))['top']


SOAK = """
import os, sys
from cloud_classifier.prediction.batch import write_answers
from cloud_classifier.prediction.infer import ModelInfo, PhotoClassifier, CloudClassifier, shipped_model
import numpy as np

class Fast(PhotoClassifier):
    def run(self, pixels): return np.zeros((len(pixels), len(self.classes))), None

def memory(): return int(open('/proc/self/statm').read().split()[1])*os.sysconf('SC_PAGE_SIZE')/1e6

seen = []
def notify(photo, answer, kept):
    if len(seen) % 2500 == 0: print(len(seen), memory(), flush=True)
    seen.append(None)

def photos():
    for n in range(20_000): yield os.path.join(sys.argv[1], f'{n}.jpg')

write_answers(sys.argv[2], Fast(CloudClassifier(shipped_model()).info), photos(), notify=notify)
print(20_000, memory())
"""


@pytest.mark.soak
@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='reads /proc')
def test_more_photos_take_no_more_memory(album, tmp_path):
    folder = tmp_path / 'many'
    folder.mkdir()
    for n in range(20_000):
        os.link(album / '00.jpg', folder / f'{n}.jpg')
    line = [sys.executable, '-c', SOAK, folder, tmp_path / 'answers.parquet']
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    memory = {int(n): float(size) for n, size in (o.split() for o in done.stdout.splitlines())}
    assert memory[17_500] < memory[2_500] + 10
    assert len(rows(tmp_path / 'answers.parquet')) == 20_000
