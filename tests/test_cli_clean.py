"Cleaning by the command line alone: `issues`, `clean --apply`, `clean --retrain`, `undo` and `journal`."

import csv
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from io import StringIO

import numpy as np
import pytest
from PIL import Image
from reading import read_line
from wholeness import contents, files, make_dataset, whole

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.files import file_hash
from cloud_classifier.samples import make_samples

POSIX = pytest.mark.skipif(os.name == 'nt', reason='signals and pipes as POSIX has them')
CLASSES = 'Cirrus', 'Cumulus', 'Stratus'
KEYS = {'path', 'sha256', 'label', 'suggested', 'kind', 'score', 'probability', 'cue', 'reason'}


@pytest.fixture
def data(tmp_path):
    "Eighteen photos that all differ, the same six names in each of three classes."
    return make_dataset(tmp_path / 'skies').path


def tree(folder):
    "The photos of a dataset by label and hash, and what is in quarantine."
    return Counter((path.split('/')[0], file_hash(file)) for path, file in files(folder).items())


def write_csv(file, *rows):
    with open(file, 'w', newline='', encoding='utf-8') as f:
        csv.writer(f).writerows(rows)
    return file


def write_oof(file, data, doubted=(), classes=CLASSES):
    "Out-of-fold probabilities of somebody's own making: sure of each label, but for the photos that are doubted."
    rows = []
    for n, (path, label) in enumerate(Dataset(data).photos()):
        sure = classes[(classes.index(label) + (path in doubted)) % len(classes)]
        probs = [0.9 - 0.001 * n if c == sure else (0.1 + 0.001 * n) / (len(classes) - 1) for c in classes]
        rows.append([path, file_hash(data / path), label, n, n % 5, *probs])
    return write_csv(file, ['path', 'sha256', 'label', 'group', 'fold', *classes], *rows)


@pytest.fixture
def doubted(data, tmp_path):
    "Photos that a table of probabilities does not believe, and the table."
    paths = ['Cirrus/1.png', 'Stratus/4.png', 'Cumulus/2.png']
    return paths, write_oof(tmp_path / 'oof.csv', data, paths)


def suggested(paths):
    "The label that the table of `doubted` has for each of its photos."
    return dict(zip(paths, ('Cumulus', 'Cirrus', 'Stratus'), strict=True))


# issues


def test_issues_are_lines_of_json_the_worst_first(command, data, doubted):
    paths, oof = doubted
    before = tree(data), sorted(os.listdir(data))
    status, out, err = command('issues', data, '--oof', oof, '--kind', 'label', '--json')
    assert status == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert KEYS <= set(rows[0])
    assert {row['path'] for row in rows[:3]} == set(paths)
    assert [row['score'] for row in rows] == sorted((row['score'] for row in rows), reverse=True)
    assert all(0 <= row['score'] <= 1 and row['reason'] for row in rows)
    assert {row['path']: row['suggested'] for row in rows[:3]} == suggested(paths)
    assert rows[0]['sha256'] == file_hash(data / rows[0]['path'])
    assert (tree(data), sorted(os.listdir(data))) == before  # looking writes nothing


def test_issues_of_one_kind_and_as_many_as_wanted(command, data, doubted):
    oof = doubted[1]
    every = command('issues', data, '--oof', oof, '--json')[1].splitlines()
    assert command('issues', data, '--oof', oof, '--json', '--limit', 2)[1].splitlines() == every[:2]
    for kind in ('label', 'outlier', 'ambiguous', 'conflict'):
        out = command('issues', data, '--oof', oof, '--json', '--kind', kind)[1]
        assert out.splitlines() == [line for line in every if json.loads(line)['kind'] == kind]


def test_a_person_reads_a_table_and_how_to_go_on(command, data, doubted):
    status, out, err = command('issues', data, '--oof', doubted[1], '--limit', 2)
    assert status == 0
    assert [len(line.split('\t')) for line in out.splitlines()] == [6] * 3
    assert '--limit' in err
    assert f'cloud-classifier clean {data}' in err
    assert command('issues', data, '--oof', doubted[1], '--limit', 2, '-q')[2] == ''


def test_issues_of_the_held_out_photos_of_a_run(command, skies, run):
    before = tree(skies), sorted(os.listdir(skies))
    status, out, err = command('issues', skies, '--run', run.path, '--json')
    assert status == 0, err
    held_out = {path for part in ('valid', 'test') for path in map(str, run.split.files(part))}
    assert {str(skies / json.loads(line)['path']) for line in out.splitlines()} <= held_out
    assert (tree(skies), sorted(os.listdir(skies))) == before


def test_probabilities_are_made_where_there_are_none_and_kept(command, tmp_path, monkeypatch):
    monkeypatch.setenv('CLOUD_CACHE', str(tmp_path / 'cache'))
    skies = tmp_path / 'skies'
    make_samples(skies, per_genus=12, size=96, genera=['Cirrus', 'Stratus', 'Cumulus'])
    flipped = sorted((skies / 'Cirrus').iterdir())[:2]
    for photo in flipped:
        photo.rename(skies / 'Stratus' / f'flipped {photo.name}')
    status, out, err = command('issues', skies, '--kind', 'label', '--json', '--limit', 4)
    assert status == 0, err
    assert sum('flipped' in json.loads(line)['path'] for line in out.splitlines()) == 2
    assert f'{skies}: 36 photos, each judged by models that were not trained on it' in err  # no bar is drawn here
    start = time.perf_counter()
    assert command('issues', skies, '--kind', 'label', '--json', '--limit', 4, '-q')[1:] == (out, '')
    assert time.perf_counter() - start < 20  # no network answers a second time


BAD_TABLES = {
    'no table': b'this is no table',
    'not text': bytes(range(256)),
    'empty': b'',
    'no column of paths': b'label,Cirrus,Stratus\nCirrus,.5,.5\n',
    'a header alone': b'path,sha256,label,group,fold,Cirrus,Stratus\n',
    'not numbers': b'path,sha256,label,group,fold,Cirrus,Stratus\nCirrus/1.png,00,Cirrus,0,0,high,low\n',
    'not probabilities': b'path,sha256,label,group,fold,Cirrus,Stratus\nCirrus/1.png,00,Cirrus,0,0,7,-3\n',
    'no such photo': b'path,sha256,label,group,fold,Cirrus,Stratus\nCirrus/x.png,00,Cirrus,0,0,.5,.5\n',
}


@pytest.mark.parametrize('kind', BAD_TABLES)
@pytest.mark.parametrize('suffix', ['.csv', '.parquet'])
def test_a_bad_table_is_one_line(command, data, tmp_path, kind, suffix):
    file = tmp_path / f'oof{suffix}'
    file.write_bytes(BAD_TABLES[kind])
    status, out, err = command('issues', data, '--oof', file)
    assert (status, out, err.count('\n')) == (2, '', 1), err
    assert str(file) in err
    assert 'internal' not in err


def test_a_table_of_another_dataset_is_one_line(command, data, tmp_path):
    other = make_dataset(tmp_path / 'other', seed=1).path
    for photo in list(other.rglob('*.png')):
        photo.rename(photo.with_name(f'other {photo.name}'))
    oof = write_oof(tmp_path / 'other.csv', other)
    status, out, err = command('issues', data, '--oof', oof)
    assert (status, out, err.count('\n')) == (2, '', 1), err
    assert str(oof) in err


def test_a_run_on_another_dataset_is_one_line(command, data, run):
    status, out, err = command('issues', data, '--run', run.path)
    assert (status, out, err.count('\n')) == (2, '', 1), err
    assert str(run.path) in err


# clean --apply


def decide(data, tmp_path, *rows, name='decisions.csv', header=('path', 'decision', 'label')):
    return write_csv(tmp_path / name, header, *rows)


EVERY_KIND = [
    ('Cirrus/1.png', 'relabel', 'Stratus'),
    ('Cirrus/2.png', 'keep', ''),
    ('Cumulus/3.png', 'delete', ''),
    ('Stratus/4.png', 'ambiguous', ''),
]


def test_decisions_of_a_file_are_carried_out(command, data, tmp_path):
    before = contents(data)
    status, out, err = command('clean', data, '--apply', decide(data, tmp_path, *EVERY_KIND), '--json')
    assert status == 0, err
    assert [json.loads(line)['decision'] for line in out.splitlines()] == ['relabel', 'keep', 'delete', 'ambiguous']
    assert Counter(path.split('/')[0] for path in files(data)) == {
        'Cirrus': 5, 'Cumulus': 5, 'Stratus': 6, '.quarantine': 2,
    }  # fmt: skip
    assert not (data / 'Cirrus' / '1.png').exists()
    rows = Dataset(data).journal()
    assert list(rows.action) == ['relabel', 'keep', 'delete', 'ambiguous']
    assert list(rows.given) == ['Cirrus', 'Cirrus', 'Cumulus', 'Stratus']
    assert rows.label.iloc[0] == 'Stratus'
    whole(data, before)


def test_photos_are_known_by_their_hashes_too(command, data, tmp_path):
    sha = file_hash(data / 'Cirrus' / '1.png')
    (data / 'Cirrus' / '1.png').rename(data / 'Cirrus' / 'moved.png')
    file = decide(data, tmp_path, (sha, 'relabel', 'St'), header=('sha256', 'decision', 'label'))
    assert command('clean', data, '--apply', file)[0] == 0
    assert (data / 'Stratus' / 'moved.png').exists()


def test_what_was_done_before_is_done(command, data, tmp_path):
    file = decide(data, tmp_path, *EVERY_KIND)
    assert command('clean', data, '--apply', file)[0] == 0
    there, rows = tree(data), len(Dataset(data).journal())
    status, _, err = command('clean', data, '--apply', file)
    assert (status, tree(data), len(Dataset(data).journal())) == (0, there, rows), err


def test_a_row_that_can_not_be_done_is_named_and_the_others_are_done(command, data, tmp_path):
    before = contents(data)
    rows = [EVERY_KIND[0], ('Cirrus/gone.png', 'delete', ''), EVERY_KIND[2]]
    file = decide(data, tmp_path, *rows)
    status, _, err = command('clean', data, '--apply', file)
    assert status == 1
    assert f'{file}, line 3' in err
    assert 'Cirrus/gone.png' in err
    assert not (data / 'Cirrus' / '1.png').exists()
    assert not (data / 'Cumulus' / '3.png').exists()
    assert list(Dataset(data).journal().action) == ['relabel', 'delete']
    whole(data, before)


BAD_FILES = {
    'not text': bytes(range(256)),
    'empty': b'',
    'no decision': b'path,label\nCirrus/1.png,Stratus\n',
    'no photo': b'decision,label\nrelabel,Stratus\n',
    'a photo without a name': b'path,decision,label\nCirrus/2.png,keep,\n,relabel,Stratus\n',
    'no such decision': b'path,decision,label\nCirrus/2.png,keep,\nCirrus/1.png,remove,\n',
    'no label': b'path,decision,label\nCirrus/2.png,keep,\nCirrus/1.png,relabel,\n',
    'nearly a genus': b'path,decision,label\nCirrus/2.png,keep,\nCirrus/1.png,relabel,Startus\n',
    'no folder': b'path,decision,label\nCirrus/2.png,keep,\nCirrus/1.png,relabel,../x\n',
    'no hash': b'sha256,decision,label\nabc,keep,\n',
    'a cell too many': b'path,decision,label\nCirrus/2.png,keep,,\nCirrus/1.png,relabel,Stratus,why,so\n',
    'an open quotation': b'path,decision,label\n"Cirrus/1.png,delete,\n',
    'a zero': b'path,decision,label\nCirrus/1.png\0,delete,\n',
}


@pytest.mark.parametrize('kind', BAD_FILES)
def test_of_a_bad_file_nothing_is_done(command, data, tmp_path, kind):
    file, before = tmp_path / 'decisions.csv', sorted(data.rglob('*'))
    file.write_bytes(BAD_FILES[kind])
    status, out, err = command('clean', data, '--apply', file)
    assert (status, out, err.count('\n')) == (2, '', 1), err
    assert file.name in err
    assert 'internal' not in err
    assert sorted(data.rglob('*')) == before


def test_a_bad_row_is_named_by_its_line(command, data, tmp_path):
    for kind in ('no such decision', 'no label', 'nearly a genus'):
        (tmp_path / 'decisions.csv').write_bytes(BAD_FILES[kind])
        assert 'line 3' in command('clean', data, '--apply', tmp_path / 'decisions.csv')[2]
    assert 'did you mean Stratus' in command('clean', data, '--apply', tmp_path / 'decisions.csv')[2]


@pytest.mark.parametrize(
    'text',
    [
        '\ufeffpath,decision,label\r\nCirrus/1.png,relabel,Stratus\r\n',
        'path;decision;label\nCirrus/1.png;relabel;Stratus\n',
        'Path,Decision,Label\nCirrus/1.png,Relabel,Stratus\n',
        'decision,note,label,path\nrelabel,"I think,\nperhaps",St,Cirrus/1.png\n\n,,,\n',
    ],
    ids=['byte order mark', 'semicolons', 'capitals', 'other columns and empty lines'],
)
def test_a_file_may_come_from_a_spreadsheet(command, data, tmp_path, text):
    (tmp_path / 'decisions.csv').write_bytes(text.encode())
    status, _, err = command('clean', data, '--apply', tmp_path / 'decisions.csv')
    assert (status, (data / 'Stratus' / '1.png').exists()) == (0, True), err
    assert [p.name for p in (data / 'Cirrus').iterdir() if p.name == '1.png'] == []


def test_issues_make_a_file_to_fill_in(command, data, doubted, tmp_path):
    paths, oof = doubted
    file = tmp_path / 'queue.csv'
    assert command('issues', data, '--oof', oof, '--kind', 'label', '--out', file, '-q')[:2] == (0, f'{file}\n')
    rows = list(csv.DictReader(StringIO(file.read_text())))
    assert {row['path']: row['label'] for row in rows[:3]} == suggested(paths)
    there = tree(data)
    assert command('clean', data, '--apply', file)[0] == 0  # nothing has been decided yet
    assert tree(data) == there
    rows[0]['decision'] = 'relabel'
    write_csv(file, [*rows[0]], *(row.values() for row in rows))
    status, _, err = command('clean', data, '--apply', file)
    assert status == 0, err
    moved = Dataset(data).journal().iloc[-1]
    assert (moved.source, moved.label) == (rows[0]['path'], rows[0]['label'])


# undo and journal


def test_undo_takes_back_one_some_a_session_or_all(command, data, tmp_path):
    start = tree(data)
    assert command('clean', data, '--apply', decide(data, tmp_path, *EVERY_KIND))[0] == 0
    first = tree(data)
    second = [('Cumulus/0.png', 'relabel', 'Cirrus'), ('Cumulus/1.png', 'delete', '')]
    assert command('clean', data, '--apply', decide(data, tmp_path, *second))[0] == 0
    assert json.loads(command('undo', data, '--json')[1]) == ['Cumulus/1.png']
    sessions = list(dict.fromkeys(Dataset(data).journal().session))
    assert len(sessions) == 2
    assert command('undo', data, '--session', sessions[1])[:2] == (0, 'Cumulus/0.png\n')
    assert tree(data) == first
    assert command('undo', data, '--last', 2)[0] == 0
    status, _, err = command('undo', data, '--all')
    assert (status, tree(data)) == (0, start), err
    assert command('undo', data, '--all')[:2] == (0, '')


def test_undo_is_asked_for_in_one_way(command, data, tmp_path):
    assert command('clean', data, '--apply', decide(data, tmp_path, *EVERY_KIND))[0] == 0
    there = tree(data)
    for args in (['--last', 2, '--all'], ['--session', 'x', '--all'], ['--last', 1, '--session', 'x']):
        status, out, err = command('undo', data, *args)
        assert (status, out, err.count('\n')) == (2, '', 1)
    status, out, err = command('undo', data, '--session', 'no-such-session')
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert 'no-such-session' in err
    assert tree(data) == there


def test_a_journal_repeats_itself_on_a_dataset_that_is_fetched_again(command, data, tmp_path):
    fresh = shutil.copytree(data, tmp_path / 'fresh')
    before = contents(fresh)
    (data / 'Stratus' / 'page.jpg').write_text('<html>')
    shutil.copy(data / 'Stratus' / 'page.jpg', fresh / 'Stratus' / 'page.jpg')
    for rows in (
        EVERY_KIND,
        [('Stratus/1.png', 'relabel', 'Cumulus')],  # whatever has that name by now
        [('Cumulus/5.png', 'relabel', 'Contrail'), ('Cumulus/0.png', 'delete', '')],
    ):
        status, _, err = command('clean', data, '--apply', decide(data, tmp_path, *rows), '--new-label')
        assert status == 0, err
    assert command('undo', data)[0] == 0
    assert command('verify', data, '--quarantine', '-q')[0] == 0
    assert command('journal', data, '--out', tmp_path / 'journal.csv', '-q')[:2] == (0, f'{tmp_path / "journal.csv"}\n')
    status, _, err = command('clean', fresh, '--apply', tmp_path / 'journal.csv', '--new-label')
    assert status == 0, err
    assert tree(fresh) == tree(data)
    assert sum(tree(fresh).values()) == sum(before.values()) + 1
    there = tree(fresh)
    assert command('clean', fresh, '--apply', tmp_path / 'journal.csv', '--new-label')[0] == 0
    assert tree(fresh) == there
    assert command('undo', fresh, '--all')[0] == 0
    whole(fresh, contents(fresh))


def test_what_a_spreadsheet_would_run_is_text_and_comes_back(command, data, tmp_path):
    (data / 'Cirrus').rename(data / '=HYPERLINK("x")')
    (data / 'Stratus' / '1.png').rename(data / 'Stratus' / '@sum(1).png')
    fresh = shutil.copytree(data, tmp_path / 'fresh')
    rows = [('Stratus/@sum(1).png', 'relabel', '=HYPERLINK("x")'), ('=HYPERLINK("x")/2.png', 'delete', '')]
    status, _, err = command('clean', data, '--apply', decide(data, tmp_path, *rows))
    assert status == 0, err
    assert command('journal', data, '--out', tmp_path / 'journal.csv')[0] == 0
    with open(tmp_path / 'journal.csv', newline='') as f:
        assert not [cell for row in csv.reader(f) for cell in row if cell.lstrip()[:1] in tuple('=+-@|%')]
    assert command('clean', fresh, '--apply', tmp_path / 'journal.csv')[0] == 0
    assert tree(fresh) == tree(data)


def test_a_journal_is_a_table_and_json(command, data, tmp_path):
    assert command('journal', data, '--json')[:2] == (0, '[]\n')
    status, out, err = command('journal', data, '--out', tmp_path / 'empty.csv')
    assert status == 0, err
    assert (tmp_path / 'empty.csv').read_text().startswith('path,sha256,decision,label')
    assert command('clean', data, '--apply', tmp_path / 'empty.csv')[0] == 0
    command('clean', data, '--apply', decide(data, tmp_path, *EVERY_KIND))
    rows = json.loads(command('journal', data, '--json')[1])
    assert [(row['action'], row['given']) for row in rows][:2] == [('relabel', 'Cirrus'), ('keep', 'Cirrus')]
    assert all(row['session'] for row in rows)
    out = command('journal', data)[1]
    assert len(out.splitlines()) == 5
    command('undo', data)
    status, out, err = command('journal', data)
    assert 'nan' not in out
    assert '4 decisions and moves, 3 of them stand' in err


# what is not right, and what comes between


def test_options_that_do_not_go_together_are_refused(command, data, run, tmp_path):
    file = decide(data, tmp_path, *EVERY_KIND)
    before = tree(data)
    for args in (
        ['--apply', file, '--retrain'], ['--apply', file, '--accept', 3], ['--apply', file, '--port', 9000],
        ['--apply', file, '--out', tmp_path / 'new'], ['--retrain', '--host', '0.0.0.0'],
        ['--run', run.path, '--split', run.path / 'split.csv'], ['--retrain', '--split', run.path / 'split.csv'],
        ['--retrain', '--new-label'], ['--accept', 3], ['--out', tmp_path / 'new'], ['--json'],
    ):  # fmt: skip
        status, out, err = command('clean', data, *args)
        assert (status, out, err.count('\n')) == (2, '', 1), args
    for args in (['--oof', file, '--run', run.path], ['--limit', 0], ['--kind', 'labels']):
        status, out, err = command('issues', data, *args)
        assert (status, out, err.count('\n')) == (2, '', 1), args
    assert tree(data) == before


def test_what_waits_is_mentioned(command, data, tmp_path):
    from cloud_classifier.data.clean import Cleaner

    assert 'decision' not in command('status', data)[2]
    Cleaner(Dataset(data)).relabel('Cirrus/1.png', 'Stratus')
    assert '1 decision' in command('status', data)[2]
    assert json.loads(command('info', data, '--json')[1])['decisions'] == 1
    command('clean', data, '--apply', decide(data, tmp_path, *EVERY_KIND))
    assert 'journal' in command('status', data)[2]


def test_a_dataset_that_may_not_be_written_is_one_line(command, data, doubted, tmp_path, read_only):
    file, place = decide(data, tmp_path, *EVERY_KIND), read_only(data)
    status, out, err = command('clean', place, '--apply', file)
    assert (status, out, err.count('\n')) == (2, '', 1), err
    assert str(place) in err
    assert command('issues', place, '--oof', doubted[1], '--json')[0] == 0
    assert command('journal', place)[0] == 0


def environment(**more):
    "As nearly everywhere: nothing is said about Python."
    return {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'COLUMNS'))} | more


def run_command(*args, **kwargs):
    argv = [sys.executable, '-m', 'cloud_classifier.cli', *map(str, args)]
    return subprocess.Popen(
        argv, **{'env': environment(), 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | kwargs
    )


def finish(*args):
    "The exit status of the command."
    with run_command(*args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        return process.wait(100)


def many_photos(folder, n=300):
    "As many small photos in one class, and a class to put them in."
    for label in ('Cirrus', 'Stratus'):
        (folder / label).mkdir(parents=True)
    for i in range(n):
        Image.fromarray(np.full((8, 8, 3), (i % 256, i // 256, 7), np.uint8)).save(folder / 'Cirrus' / f'{i}.png')
    return folder


@pytest.mark.usefixtures('forked')
@POSIX
def test_ctrl_c_loses_nothing_and_the_same_command_goes_on(tmp_path):
    data = many_photos(tmp_path / 'skies')
    before, paths = contents(data), sorted(path for path, _ in Dataset(data).photos())
    file = decide(data, tmp_path, *((path, 'relabel', 'Stratus') for path in paths))
    process = run_command('clean', data, '--apply', file)
    while not list((data / 'Stratus').iterdir()):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, b'Traceback' in err) == (130, False), err
    assert 0 < len(list((data / 'Stratus').iterdir())) < len(paths)
    whole(data, before)
    assert finish('clean', data, '--apply', file) == 0
    assert len(list((data / 'Stratus').iterdir())) == len(paths)
    whole(data, before)
    assert finish('undo', data, '--all') == 0
    assert sorted(path for path, _ in Dataset(data).photos()) == paths


@pytest.mark.usefixtures('forked')
@POSIX
def test_whoever_reads_may_go_away_and_the_decisions_are_carried_out(data, doubted, tmp_path):
    for args in (
        ['issues', data, '--oof', doubted[1], '--json'],
        ['clean', data, '--apply', decide(data, tmp_path, *EVERY_KIND), '--json'],
        ['journal', data],
    ):
        read, write = os.pipe()
        os.close(read)
        process = run_command(*args, stdout=write)
        os.close(write)
        err = process.communicate(timeout=60)[1]
        assert process.returncode == 141
        assert b'Traceback' not in err
        assert b'Broken pipe' not in err
    assert len(Dataset(data).journal()) == 4


def test_a_terminal_that_knows_ascii_alone(data, doubted, tmp_path):
    (data / 'Stratus').rename(data / 'Föhn – ☁')
    file = decide(data, tmp_path, ('Cirrus/1.png', 'relabel', 'Föhn – ☁'), ('Föhn – ☁/2.png', 'delete', ''))
    for args in (['clean', data, '--apply', file], ['journal', data], ['undo', data, '--all']):
        process = run_command(*args, env=environment(PYTHONIOENCODING='ascii'))
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert (out + err).isascii()


def test_the_cleaner_is_served_with_the_parts_of_a_split_or_a_run(command, data, skies, run, tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr('cloud_classifier.data.widget.serve_notebook', lambda code, *args: served.append((code, args)))
    assert command('split', data, '--out', tmp_path / 'split.csv')[0] == 0
    copy = shutil.copytree(skies, tmp_path / 'copy')
    for folder, split, args in (
        (data, tmp_path / 'split.csv', ['--split', tmp_path / 'split.csv', '--all']),
        (copy, run.path / 'split.csv', ['--run', run.path, '--all']),
    ):
        status, _, err = command('clean', folder, *args)
        assert status == 0, err
        code, (*_, files, _) = served.pop()
        assert code.endswith(", parts=pd.read_pickle('parts.pkl')), whole_page=True)")
        with open(split, newline='') as f:
            expected = {row['path']: row['part'] for row in csv.DictReader(f)}
        parts = pickle.loads(files['parts.pkl'])
        assert dict(zip(parts.path, parts.part, strict=True)) == expected
    status, out, err = command('clean', data, '--split', tmp_path / 'nowhere.csv', '--all')
    assert (status, out, err.count('\n')) == (2, '', 1)
    status, out, err = command('clean', data, '--run', run.path, '--all')  # a run on other photos
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert served == []


@POSIX
@pytest.mark.usefixtures('forked')
def test_the_cleaner_is_served_on_loopback_until_ctrl_c(data, tmp_path):
    pytest.importorskip('voila')
    before = tree(data)
    process = run_command('clean', data, '--all', '--port', 0, cwd=tmp_path)
    try:
        line = read_line(process).decode()
        address = re.search(r'http://127\.0\.0\.1:\d+\S*', line)
        assert address, line
        with urllib.request.urlopen(address[0], timeout=60) as answer:
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b'Traceback' not in err
    assert tree(data) == before
