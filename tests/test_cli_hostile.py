"Names and paths that careless programs stumble over: every verb answers with rows, or with one line."

import json
import os
import shutil
import subprocess
import sys

import hostile_names
import pytest

from cloud_classifier.samples import make_samples

LOOKS = 'status', 'sample', 'verify', 'duplicates', 'info', 'journal', 'undo'
OBEYED = {c for c in map(chr, range(0x110000)) if not c.isprintable()} - {'\n', '\t', ' '}


def shows_only(text):
    "Whether a terminal would show all of it and obey none of it."
    return not OBEYED & set(text)


@pytest.fixture
def hostile(tmp_path):
    "A dataset in which photos and class folders have such names; the photos."
    make_samples(tmp_path / 'made', per_genus=2, size=64, genera=['Cirrus', 'Stratus'])
    data = tmp_path / 'skies'
    photos = hostile_names.make(data / 'Cirrus', next((tmp_path / 'made' / 'Cirrus').iterdir()).read_bytes())
    for name in ('a\x1b[2Jb', '[red]x', '-rf', 'x\u202ey', 'tab\there', 'é' * 60):
        (data / name).mkdir()
        (data / name / 'page.jpg').write_text('<html>')
    return data, photos


@pytest.mark.parametrize('verb', LOOKS)
def test_no_name_reaches_a_terminal_as_it_is(command, hostile, verb):
    data, _ = hostile
    status, out, err = command(verb, data)
    assert status in (0, 2), err
    assert shows_only(out + err), verb
    if status:
        assert (out, err.count('\n')) == ('', 1)


def test_rows_are_rows_whatever_is_in_the_names(command, hostile):
    data, photos = hostile
    for photo in photos:
        photo.write_text('<html>')
    rows = [line.split('\t') for line in command('verify', data)[1].splitlines()]
    assert rows[0] == ['photo', 'status', 'reason']
    assert {len(row) for row in rows} == {3}
    assert len(rows) > len(photos)
    named = {row[0] for row in rows}
    assert {
        'Cirrus/a\\nb.jpg',
        'Cirrus/a\\tb.jpg',
        'Cirrus/a\\\\tb\\\\.jpg',
        'Cirrus/[red]a[/red] [link=x].jpg',
    } & named


def test_json_gives_names_that_open_the_file(command, hostile):
    data, photos = hostile
    out = command('sample', data, '--genus', 'Cirrus', '--json')[1]
    assert (out.count('\n'), shows_only(out)) == (1, True)
    assert set(json.loads(out)) == set(map(str, photos))
    for photo in photos:
        photo.write_text('<html>')
    out = command('verify', data, '--json')[1]
    assert (out.count('\n'), shows_only(out)) == (1, True)
    found = {row['path'] for row in json.loads(out)['rows']}
    assert {f'Cirrus/{photo.name}' for photo in photos if photo.name.isprintable()} <= found


def test_each_hostile_name_is_answered(command, hostile, model):
    data, photos = hostile
    photos[0].write_text('<html>')
    status, out, err = command('predict', data / 'Cirrus', '-m', model)
    assert (status, err.count('\n')) == (3, 1)
    assert len(out.splitlines()) == len(photos)
    assert {line.count('\t') for line in out.splitlines()} == {6}
    assert shows_only(out + err)
    status, out, _ = command('predict', data / 'Cirrus', '-m', model, '--json')
    assert shows_only(out)
    assert {json.loads(line)['path'] for line in out.splitlines()} == set(map(str, photos))


def wrong_paths(folder):
    "Paths that can't be what they are given for."
    (folder / 'file').write_text('a file')
    (folder / 'dangling').symlink_to(folder / 'gone')
    (folder / 'loop').symlink_to(folder / 'loop')
    names = ['missing', 'file/x', 'dangling', 'loop', 'x' * 300, '/'.join(['x' * 200] * 30), 'caf\udce9', 'a\x1b[2J\nb']
    return dict(zip(KINDS, ['', '  ', *(str(folder / name) for name in names)], strict=True))


KINDS = 'empty', 'blank', 'missing', 'below a file', 'dangling', 'loop', 'long', 'very long', 'no text', 'hostile'
CALLS = {  # what each verb is called with, and where the path goes
    'status': ['status', '@'],
    'credits': ['credits', '@'],
    'journal': ['journal', '@'],
    'undo': ['undo', '@'],
    'verify': ['verify', '@'],
    'duplicates': ['duplicates', '@'],
    'split': ['split', '@', '-o', 'x.csv'],
    'sample': ['sample', '@'],
    'train': ['train', '@', '-o', 'run'],
    'train --split': ['train', 'skies', '--split', '@'],
    'train --weights': ['train', 'skies', '--weights', '@'],
    'train --resume': ['train', '--resume', '@'],
    'lr-find': ['lr-find', '@'],
    'runs': ['runs', '@'],
    'evaluate': ['evaluate', '@'],
    'evaluate --also': ['evaluate', 'run', '--also', '@'],
    'evaluate MODEL': ['evaluate', '@.onnx', 'skies'],
    'evaluate DATA': ['evaluate', 'model.onnx', '@'],
    'export': ['export', '@'],
    'predict -m': ['predict', 'skies', '-m', '@'],
    'info': ['info', '@'],
    'issues': ['issues', '@'],
    'issues --oof': ['issues', 'skies', '--oof', '@'],
    'issues --run': ['issues', 'skies', '--run', '@'],
    'clean': ['clean', '@'],
    'clean --apply': ['clean', 'skies', '--apply', '@'],
    'clean --run': ['clean', 'skies', '--retrain', '--run', '@'],
    'add': ['add', 'new', '@'],
    'fetch --from': ['fetch', 'ccsn', 'new', '--from', '@'],
    'scrape --from': ['scrape', 'new', '--source', 'urls', '--from', '@'],
    'scrape folder': ['scrape', 'new', '--source', 'folder', '--from', '@'],
    'scrape --key-file': ['scrape', 'new', '--key-file', '@'],
}
MISTAKES = """
train skies --weights imagnet
train skies --recipe fasst
train skies --arch resnet_34
train skies --lr fast
train skies --lr -1
train skies --epochs 0
train skies --precision fp8
train skies -o run
train skies -o file/run
train few
train one
train empty
lr-find skies --weights non
lr-find skies --arch resnext51
lr-find skies --plot file/x.png
split skies -o x.csv --valid 1.5
split skies -o skies --seed 1
split skies -o file/x.csv
split skies -o x.csv --group-by colour
duplicates skies --html file/x.html
credits skies -o file/x.csv
sample skies --genus Cumulus
verify skies --hint dark
verify skies --quarantine --hint drak
add new skies --label Cumlus
add new skies/Cirrus/file.csv
add file/new skies
add new sky.jpg
scrape new --genus stratos
scrape new --source comons
scrape new --source urls
evaluate run skies
evaluate run
evaluate run --target-error 2
evaluate model.onnx
evaluate model.onnx skies
export run
export skies
export run -o file/x.onnx
predict skies -m model.onnx --prior Stratus
predict skies -m model.onnx
predict skies -m skies
undo skies --last 0
undo skies --last 1 --all
undo skies --session monday
journal skies -o file/x.csv
issues skies --oof sky.jpg
issues skies --oof file
issues skies --oof file --run run
issues skies --run run
issues skies --kind lable
issues skies --limit 0
issues skies -o file/x.csv
issues empty
clean skies --apply sky.jpg
clean skies --apply file
clean skies --apply file --retrain
clean skies --accept 3
clean skies --retrain --port 80
clean skies --retrain --run run
clean skies --run run
clean skies --port 70000
clean empty
status slip --strict
info file
demo -o run
""".strip().splitlines()
CASES = [f'{verb}: {kind}' for verb in CALLS for kind in KINDS] + MISTAKES


def make_place(folder):
    "What is there already."
    make_samples(folder / 'skies', per_genus=3, size=32, genera=['Cirrus', 'Stratus'])
    make_samples(folder / 'few', per_genus=2, size=32, genera=['Cirrus', 'Stratus'])
    make_samples(folder / 'one', per_genus=3, size=32, genera=['Cirrus'])
    make_samples(folder / 'slip', per_genus=1, size=32, genera=['Cirrus'])
    (folder / 'slip' / 'Cirrus').rename(folder / 'slip' / 'Cirrsu')
    shutil.copy(next((folder / 'one' / 'Cirrus').iterdir()), folder / 'sky.jpg')
    for name in ('empty', 'run'):
        (folder / name).mkdir()
    (folder / 'run' / 'run.json').write_text('{"status": "running"}')
    (folder / 'model.onnx').write_text('no model')


ONE_AFTER_THE_OTHER = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from time import perf_counter
from cloud_classifier.cli import main
for name, args in json.load(sys.stdin):
    sys.argv, status = ['cloud-classifier', *args], None
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        start = perf_counter()
        try: main()
        except SystemExit as e: status = e.code
        took = perf_counter() - start
    print(json.dumps([name, status, out.getvalue(), err.getvalue(), took, 'torch' in sys.modules]))
"""


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    "What the command says to all of it, one after the other in a process of its own that watches for torch."
    folder = tmp_path_factory.mktemp('place')
    make_place(folder)
    wrong = wrong_paths(folder)
    calls = [
        (f'{verb}: {kind}', [a.replace('@', wrong[kind]) for a in CALLS[verb]]) for verb in CALLS for kind in KINDS
    ]
    calls += [(line, line.split()) for line in MISTAKES]
    before = sorted(map(str, folder.rglob('*')))
    env = {k: v for k, v in os.environ.items() if not k.startswith(('CLOUD', 'COLUMNS', 'AZURE'))}
    done = subprocess.run(
        [sys.executable, '-c', ONE_AFTER_THE_OTHER],
        input=json.dumps(calls),
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert len(found) == len(calls)
    return found, before, sorted(map(str, folder.rglob('*')))


@pytest.mark.parametrize('case', CASES)
def test_what_can_not_be_is_one_line(answers, case):
    status, out, err, _, _ = answers[0][case]
    assert (status, out, err.count('\n')) == (2, '', 1), err
    assert err.startswith('cloud-classifier: ')
    assert 'internal error' not in err
    assert shows_only(err)


def test_none_of_it_waits_for_torch(answers):
    assert not [case for case, (*_, torch) in answers[0].items() if torch]


def test_it_is_said_at_once(answers):
    "The few that are the first to need numpy, pandas or ONNX Runtime wait for these; the machine may be busy."
    slow = [case for case, (*_, took, _) in answers[0].items() if took > 1]
    assert len(slow) <= 5, slow


def test_a_refused_command_leaves_nothing_behind(answers):
    _, before, after = answers
    assert after == before


@pytest.mark.parametrize(
    ('case', 'says'),
    [
        ('train skies --weights imagnet', 'did you mean imagenet'),
        ('train skies --recipe fasst', 'did you mean fast'),
        ('scrape new --source comons', 'did you mean commons'),
        ('add new skies --label Cumlus', 'did you mean Cumulus? --new-label'),
        ('scrape new --genus stratos', 'did you mean Stratus? --new-label'),
        ('status slip --strict', 'did you mean Cirrus'),
        ('add new sky.jpg', 'says what sky.jpg shows'),
        ('issues skies --kind lable', 'did you mean label'),
        ('clean skies --accept 3', 'goes with --retrain'),
        ('verify: empty', 'is empty'),
        ('verify: dangling', 'which is not there'),
        ('verify: long', 'File name too long'),
    ],
)
def test_the_line_helps(answers, case, says):
    assert says in answers[0][case][2]
