"What each verb prints and how it leaves: JSON, quiet, exit statuses, missing packages, full and read-only disks."

import errno
import json
import os
import re
import subprocess
import sys
from configparser import ConfigParser

import pytest
from readme import ROOT

from cloud_classifier import cli
from cloud_classifier.data.dataset import Dataset
from cloud_classifier.samples import make_samples


@pytest.fixture
def data(tmp_path):
    "A dataset of one's own to spoil, with a photo that is none."
    make_samples(tmp_path / 'skies', per_genus=5, size=160, genera=['Cirrus', 'Stratus'])
    (tmp_path / 'skies' / 'Cirrus' / 'page.jpg').write_text('<html>')
    return tmp_path / 'skies'


def test_json_is_all_that_is_printed(command, data, tmp_path):
    "Each verb that reports, but for those that train or need a run: they are in test_cli."
    for args, check in [
        (['add', tmp_path / 'new', data], lambda o: (o['ok'], o['failed']) == (10, 1)),
        (
            ['fetch', 'ccsn', tmp_path / 'fetched', '--from', data],
            lambda o: o['classes'] == {'Cirrus': 5, 'Stratus': 5},
        ),
        (['status', data], lambda o: o['classes'] == {'Cirrus': 6, 'Stratus': 5}),
        (['credits', tmp_path / 'new'], lambda o: o['attribution'].endswith('attribution.csv')),
        (['verify', data, '--quarantine'], lambda o: o['moved'] == 1),
        (['journal', data], lambda o: [row['source'] for row in o] == ['Cirrus/page.jpg']),
        (['undo', data], lambda o: o == ['Cirrus/page.jpg']),
        (['duplicates', data], lambda o: o['groups'] == []),
        (['split', data, '-o', tmp_path / 'split.csv', '--group-by', 'author'], lambda o: o['leaks'] is False),
        (['sample', data], lambda o: len(o) == 10),
        (['info', data], lambda o: o['photos'] == {'Cirrus': 6, 'Stratus': 5}),
        (['info'], lambda o: 'version' in o),
    ]:
        status, out, err = command(*args, '--json')
        assert status == 0, err
        assert out.count('\n') == 1, args
        assert check(json.loads(out)), (args, out)


def test_quiet_says_what_a_script_needs(command, data, tmp_path):
    assert command('verify', data, '-q') == (0, command('verify', data)[1], '')
    assert command('-q', 'status', data) == (0, 'class\tphotos\nCirrus\t6\nStratus\t5\n', '')
    assert command('add', tmp_path / 'new', data, '--quiet') == (0, f'{tmp_path / "new"}\n', '')
    assert command('status', data)[2] == 'rows: 11 new\n'  # and it is not remembered


def test_verbose_says_how_long_it_took(command, data):
    assert 'status took' in command('status', data, '-v')[2]
    assert 'status took' in command('--verbose', 'status', data)[2]
    assert 'took' not in command('status', data)[2]


@pytest.mark.parametrize('before', [True, False])
def test_debug_stands_before_the_verb_or_behind_it(monkeypatch, tmp_path, before):
    from cloud_classifier.cli import BadPath, main

    args = ['status', str(tmp_path / 'nowhere')]
    monkeypatch.setattr('sys.argv', ['cloud-classifier', *(['--debug', *args] if before else [*args, '--debug'])])
    with pytest.raises(BadPath):
        main()


@pytest.mark.parametrize(
    ('error', 'left', 'says'),
    [
        (RuntimeError('a slip\nof ours'), 1, 'internal error in test_cli_verbs.py'),
        (MemoryError(), 1, 'not enough memory'),
        (OSError(errno.ENOSPC, 'No space left on device', 'a.csv'), 1, 'a.csv: No space left on device'),
        (OSError(errno.EIO, 'Input/output error', 'a.csv'), 1, 'a.csv: Input/output error'),
        (
            OSError(errno.EACCES, 'Permission denied', b'caf\xe9/.a.csv.12-34.tmp'),
            2,
            'caf\\udce9/a.csv: Permission denied',
        ),
        (OSError(errno.EROFS, 'Read-only file system', 'a.csv'), 2, 'a.csv: Read-only file system'),
        (ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer'), 1, 'Connection reset by peer'),
        ('a\udcff'.encode, 2, "can't encode"),
        (b'\xff'.decode, 2, "can't decode"),
    ],
)
def test_what_goes_wrong_is_one_line(command, data, monkeypatch, error, left, says):
    def status(self):
        if callable(error):
            error('utf-8')
        raise error

    monkeypatch.setattr(Dataset, 'status', status)
    status, out, err = command('status', data)
    assert (status, out, err.count('\n')) == (left, '', 1)
    assert says.replace('test_cli_verbs.py', 'cli.py') in err
    assert ('--debug' in err) == ('internal' in err)


def test_ctrl_c_is_130(command, data, monkeypatch):
    monkeypatch.setattr(Dataset, 'status', lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    status, out, err = command('status', data)
    assert (status, out) == (130, '')
    assert err == '\ncloud-classifier: interrupted; what was finished before is kept, what was being made is not\n'


def test_where_nothing_came_it_is_a_failure(command, tmp_path):
    (tmp_path / 'list.txt').write_text('http://127.0.0.1:9/a.jpg\nhttp://127.0.0.1:9/b.jpg\n')
    args = ['scrape', tmp_path / 'skies', '--source', 'urls', '--from', tmp_path / 'list.txt', '--label', 'Cirrus']
    for again in ([], ['--retry']):
        status, _, err = command(*args, *again)
        assert status == 1
        assert re.search(r'none of 2 (addresses had a|gave a usable) photo', err)
    (tmp_path / 'mine' / 'Cirrus').mkdir(parents=True)
    (tmp_path / 'mine' / 'Cirrus' / 'page.jpg').write_text('<html>')
    assert command('add', tmp_path / 'new', tmp_path / 'mine')[0] == 1


def test_a_slip_is_asked_about(command, data, tmp_path):
    (data / 'Stratus').rename(data / 'Startus')
    for args in (
        ['status', data], ['verify', data], ['sample', data], ['duplicates', data], ['add', tmp_path / 'new', data],
        ['split', data, '-o', tmp_path / 'split.csv', '--group-by', 'author'],
    ):  # fmt: skip
        status, _, err = command(*args)
        assert (status, err.splitlines()[0]) == (
            0,
            'cloud-classifier: Startus: read as a class of its own; did you mean Stratus?',
        )
        status, out, err = command(*args, '--strict')
        assert (status, out, err.count('\n')) == (2, '', 1)
        assert 'did you mean Stratus' in err
    status, _, err = command('add', tmp_path / 'other', data / 'Startus', '--label', 'Startus')
    assert (status, (tmp_path / 'other').exists()) == (2, False)
    assert command('add', tmp_path / 'other', data / 'Startus', '--label', 'Startus', '--new-label')[0] == 0
    assert list(Dataset(tmp_path / 'other').folders) == ['Startus']


def test_folders_of_what_is_written_are_made(command, data, tmp_path):
    deep = tmp_path / 'a' / 'b'
    assert command('split', data, '-o', deep / 'split.csv', '--group-by', 'author')[0] == 0
    assert command('duplicates', data, '--html', tmp_path / 'c' / 'twice.html')[0] == 0
    assert command('add', tmp_path / 'd' / 'new', data)[0] == 0
    assert command('credits', tmp_path / 'd' / 'new', '-o', tmp_path / 'e' / 'authors.csv')[0] == 0
    for file in (deep / 'split.json', tmp_path / 'c' / 'twice.html', tmp_path / 'e' / 'authors.csv'):
        assert file.is_file()
    status, _, err = command('credits', data, '-o', tmp_path / 'f' / 'g' / 'authors.csv')
    assert (status, err.count('\n')) == (2, 1)
    assert not (tmp_path / 'f').exists()  # nothing was written into it


def test_a_full_disk_is_a_failure_that_names_the_file(command, data, small_disk):
    with open(small_disk / 'full', 'wb') as f, pytest.raises(OSError, match='No space'):
        f.write(bytes(10**7))
    before = sorted(small_disk.rglob('*'))
    command('add', data.with_name('new'), data)
    for args in (['split', data, '--group-by', 'author', '-o'], ['credits', data.with_name('new'), '-o']):
        file = small_disk / 'new' / 'file.csv'
        status, _, err = command(*args, file)
        assert (status, err.splitlines()[-1]) == (1, f'cloud-classifier: {file}: No space left on device')
        assert sorted(small_disk.rglob('*')) == before


def test_a_place_that_can_not_be_written_to_is_a_mistake(command, data, tmp_path, read_only):
    (tmp_path / 'kept').mkdir()
    place = read_only(tmp_path / 'kept')
    for args in (['split', data, '-o', place / 'x.csv'], ['duplicates', data, '--html', place / 'new' / 'x.html']):
        status, out, err = command(*args)
        assert (status, out, err.count('\n')) == (2, '', 1)
        assert str(place) in err


def test_photos_in_other_formats_are_rows(command, data, model, no_heic):
    (data / 'Cirrus' / 'phone.heic').write_bytes(b'\0\0\0\x18ftypheic' + bytes(100))
    status, out, _ = command('predict', data / 'Cirrus', data / 'Cirrus' / 'phone.heic', '-m', model, '--json')
    rows = [json.loads(line) for line in out.splitlines()]
    assert (status, len(rows)) == (3, 8)
    assert ['HEIC' in row['error'] for row in rows if row['path'].endswith('.heic')] == [True, True]
    status, out, err = command('predict', data / 'Cirrus', '-m', model)
    assert (status, len(out.splitlines())) == (3, 6)
    assert 'phone.heic: is a HEIC photo' in err
    assert 'Cirrus/phone.heic' in command('verify', data)[1]


# What the verbs need is found by taking it away and giving it back, a package at a time. A process for each verb
# imports what was given back, and forks a child for each trial.
TAKING_AWAY = """
import importlib, io, json, os, sys
from contextlib import suppress
import cloud_classifier.cli as cli
class Missing:
    def __init__(self, there): self.there = there
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        if top in libraries - self.there: raise ModuleNotFoundError(f'No module named {name!r}', name=name)
calls, libraries = json.load(sys.stdin)
libraries = set(libraries)
for verb, args in calls.items():
    if os.fork():
        os.wait()
        continue
    there, needs = set(), {}
    sys.meta_path.insert(0, Missing(there))
    while len(there) < 40:
        read, write = os.pipe()
        if not os.fork():
            sys.argv, sys.stdout, sys.stderr = ['cloud-classifier', *args], io.StringIO(), os.fdopen(write, 'w')
            try: cli.main()
            except SystemExit: pass
            sys.stderr.flush()
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as f: said = f.read()
        os.wait()
        if 'this verb needs the package' not in said: break
        name = said.split('needs the package ')[1].split(',')[0]
        needs[name] = said.split('cloud_classifier[')[1].split(']')[0]
        there.add(name.partition('.')[0])
        if name in ('torch', 'fastai'): break
        for one in needs:
            with suppress(ImportError): importlib.import_module(one)
    print(json.dumps([verb, needs, said]), flush=True)
    os._exit(0)
"""
MODULES = {'faiss-cpu': 'faiss', 'scikit-learn': 'sklearn', 'azure-cognitiveservices-search-imagesearch': 'azure'}


def extras():
    "What each extra brings, as settings.ini has it."
    config = ConfigParser(delimiters=['='])
    config.read(ROOT / 'settings.ini', encoding='utf-8')
    lists = {k.removesuffix('_requirements'): v for k, v in config['DEFAULT'].items() if k.endswith('_requirements')}
    return {k: re.findall(r'^ *([\w-]+)', text.lower(), re.M) for k, text in lists.items() if k != 'dev'}


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
@pytest.mark.parametrize(
    'verbs',
    [
        pytest.param(['scrape', 'verify', 'split', 'train'], id='some'),
        pytest.param(None, id='all', marks=pytest.mark.soak),
    ],
)
def test_what_is_missing_is_brought_by_what_is_advised(data, tmp_path, verbs):
    (tmp_path / 'list.txt').write_text('http://127.0.0.1:9/a.jpg\n')
    (tmp_path / 'decisions.csv').write_text('path,decision\nCirrus/page.jpg,keep\n')
    photos = [path for path, _ in Dataset(data).photos() if not path.endswith('page.jpg')]
    rows = [f'{path},{path.split("/")[0]},0.6,0.4' for path in photos]
    (tmp_path / 'oof.csv').write_text('\n'.join(['path,label,Cirrus,Stratus', *rows]))
    calls = {
        'add': ['add', 'new', str(data)],
        'scrape': ['scrape', 'other', '--source', 'urls', '--from', 'list.txt', '--label', 'Cirrus'],
        'status': ['status', str(data)],
        'credits': ['credits', str(data)],
        'journal': ['journal', str(data)],
        'undo': ['undo', str(data)],
        'issues': ['issues', str(data), '--oof', 'oof.csv'],
        'clean': ['clean', str(data), '--apply', 'decisions.csv'],
        'verify': ['verify', str(data)],
        'duplicates': ['duplicates', str(data)],
        'split': ['split', str(data), '-o', 'split.csv'],
        'sample': ['sample', str(data)],
        'runs': ['runs', '.'],
        'train': ['train', str(data), '--weights', 'none', '--skip-bad'],
        'info': ['info', str(data)],
    }
    calls = {verb: calls[verb] for verb in verbs or calls}
    brings = extras()
    libraries = sorted(
        {MODULES.get(name, name.replace('-', '_')) for names in brings.values() for name in names}
        - {'PIL', 'cloud_classifier'}
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', TAKING_AWAY],
        input=json.dumps([calls, libraries]), cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {verb: needs for verb, needs, _ in map(json.loads, done.stdout.splitlines())}
    assert set(found) == set(calls)
    for verb, needs in found.items():
        for name, extra in needs.items():
            package = next((k for k, v in MODULES.items() if v == name.partition('.')[0]), name.partition('.')[0])
            assert package in brings[extra] or package in cli._installed_by(extra), (
                verb,
                name,
                extra,
            )  # or by what it brings
            assert extra == {'add': 'scrape', 'scrape': 'scrape', 'credits': 'scrape', 'train': 'train'}.get(
                verb, 'curate'
            ), (verb, name)
    assert 'pandas' in found['split']
    assert {'torch', 'fastai'} & set(found['train'])
