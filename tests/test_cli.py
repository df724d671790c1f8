"The command line, called as people call it, wrong calls above all."

import json
import shutil
import subprocess
import sys

import pytest

from cloud_classifier import cli
from cloud_classifier.errors import OperationFailed, UserError
from cloud_classifier.samples import make_samples
from cloud_classifier.taxonomy import GENERA

TRAIN = ['--arch', 'resnet18', '--size', '32', '--weights', 'none', '--epochs', '1']


@pytest.fixture
def data(tmp_path):
    "A dataset of one's own to spoil."
    make_samples(tmp_path / 'data', per_genus=6, size=32, genera=['Cirrus', 'Stratus'])
    return tmp_path / 'data'


PREDICTED = 'path label genus probability level cloud_base precipitation top verdict set backoff model'.split()


def missing(data):
    shutil.rmtree(data)
    return 'there is no such folder'


def empty(data):
    shutil.rmtree(data)
    data.mkdir()
    return 'has no photos'


def one_class(data):
    shutil.rmtree(data / 'Stratus')
    return 'has one class, Cirrus'


def two_photos(data):
    for photo in sorted((data / 'Stratus').iterdir())[2:]:
        photo.unlink()
    return 'Stratus has 2'


def the_same_photo_thrice(data):
    photos = sorted((data / 'Stratus').iterdir())
    for photo in photos[1:]:
        shutil.copy(photos[0], photo)
    return 'Stratus has 1 different photos'


def text_named_jpg(data):
    (data / 'Cirrus' / 'text.jpg').write_text('this is text')
    return 'text.jpg: is not a photo'


def loose_photos(data):
    for photo in data.rglob('*.jpg'):
        photo.rename(data / photo.name)
    return 'one folder per class'


def a_file(data):
    shutil.rmtree(data)
    data.write_text('')
    return 'is a file'


SPOILT = [missing, empty, one_class, two_photos, the_same_photo_thrice, text_named_jpg, loose_photos, a_file]


@pytest.mark.parametrize('spoil', SPOILT, ids=lambda f: f.__name__)
def test_data_that_can_not_be_trained_on_gets_one_line(command, data, tmp_path, spoil):
    says = spoil(data)
    status, out, err = command('train', data, *TRAIN, '--out', tmp_path / 'run')
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert err.startswith('cloud-classifier: ')
    assert says in err
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'args',
    [
        [],
        ['train'],
        ['train', 'x', '--epochs', '0'],
        ['train', 'x', '--size', '9999'],
        ['predict'],
        ['evaluate', 'run', '--part', 'tset'],
        ['fly'],
        ['train', 'x', '--lr', 'fast'],
        ['train', 'x', '--precision', 'fp8'],
        ['train', 'x', '--track', 'wandb'],
        ['lr-find', 'x', '--batches', '5'],
        ['runs', '--folder', 'x'],
        ['demo', '--seconds', 'x'],
    ],
)
def test_a_wrong_call_is_two(command, args):
    status, out, err = command(*args)
    assert status == 2 or (args == [] and 'Usage' in out + err)


@pytest.mark.parametrize(
    ('args', 'says'),
    [
        (['--recipe', 'quick'], 'unknown recipe'),
        (['--precision', 'fp16'], 'fp16 is for GPUs'),
        (['--arch', 'resnet_34'], 'did you mean resnet34'),
        (['--split', 'none.csv'], 'there is no such file'),
    ],
)
def test_settings_that_can_not_be(command, data, tmp_path, args, says):
    status, _, err = command('train', data, *TRAIN, *args, '--out', tmp_path / 'run')
    assert (status, err.count('\n')) == (2, 1)
    assert says in err


def test_help_stays_light():
    "Help must not wait for what the verbs need."
    code = """
import sys
import cloud_classifier.cli as cli
sys.argv[1:] = ['--help']
try: cli.main()
except SystemExit: pass
print('MODULES', *sys.modules)
"""
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    loaded = set(out.split('MODULES')[1].split())
    assert not loaded & {'torch', 'fastai', 'numpy', 'PIL', 'onnxruntime', 'pandas', 'rich.markdown'}
    for verb in ('verify', 'demo', 'train', 'lr-find', 'runs', 'evaluate', 'export', 'predict', 'info'):
        assert verb in out


def test_from_photos_to_an_answer(command, data, tmp_path, monkeypatch):
    "Train, evaluate, export, predict and info, one after the other, each on what the one before left."
    run = tmp_path / 'run'
    status, out, _ = command('train', data, *TRAIN, '--out', run)
    assert status == 0
    assert f'cloud-classifier evaluate {run}' in out

    status, out, _ = command('evaluate', run, '--json')
    report = json.loads(out)
    assert status == 0
    assert report['top1']['low'] <= report['top1']['value'] <= report['top1']['high']
    assert json.loads((run / 'report.json').read_text())['n'] == report['n'] == 2
    assert '<html' in (run / 'report.html').read_text()
    *summary, page = command('evaluate', run, '--no-look')[1].splitlines()
    assert summary[0].startswith('top-1 accuracy')
    assert len(summary) > 4
    assert any('of them in two parts' in line for line in summary)
    assert page == str(run / 'report.html')

    status, out, _ = command('export', run)
    assert status == 0
    assert (run / 'clouds.onnx').is_file()

    monkeypatch.setenv('CLOUD_MODEL', str(run / 'clouds.onnx'))
    status, out, _ = command('predict', data, '--json')
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert len(rows) == 12
    for row in rows:
        assert list(row) == PREDICTED
        assert row['label'] in row['set'] or row['verdict'] == 'not_a_sky'
        assert row['top'][0] == {'label': row['label'], 'probability': row['probability']}
        assert row['cloud_base'] == list(GENERA[row['genus']].base)

    for path, key in ((run / 'clouds.onnx', 'classes'), (run, 'split_hash'), (data, 'photos'), (None, 'model')):
        status, out, _ = command('info', *([path] if path else []), '--json')
        assert status == 0
        assert key in json.loads(out)


def test_each_photo_is_answered_though_some_are_broken(command, model, data):
    (data / 'Cirrus' / 'page.jpg').write_text('<html>404</html>')
    (data / 'Cirrus' / 'empty.png').touch()
    status, out, _ = command('predict', data / 'Cirrus', data / 'nowhere.jpg', '--model', model, '--json')
    rows = {json.loads(line)['path'].rsplit('/', 1)[1]: json.loads(line) for line in out.splitlines()}
    assert status == 3
    assert len(rows) == 9
    assert {name: list(row) for name, row in rows.items() if 'error' in row} == {
        n: ['path', 'error'] for n in ('page.jpg', 'empty.png', 'nowhere.jpg')
    }
    status, out, err = command('predict', data / 'Cirrus', '--model', model)
    assert status == 3
    assert err.count('\n') == 2
    assert 'page.jpg: is not a photo' in err


def test_a_folder_without_photos_is_an_error_row(command, model, tmp_path):
    (tmp_path / 'empty').mkdir()
    status, out, _ = command('predict', tmp_path / 'empty', '--model', model, '--json')
    assert status == 3
    assert json.loads(out)['error']


@pytest.mark.parametrize('verb', ['evaluate', 'export'])
def test_what_is_no_run(command, data, tmp_path, verb):
    for path in (data, tmp_path / 'nowhere'):
        status, _, err = command(verb, path)
        assert (status, err.count('\n')) == (2, 1)
        assert 'is not a run' in err
    (data / 'run.json').write_text('{"status"')
    status, _, err = command(verb, data)
    assert (status, err.count('\n')) == (2, 1)


def test_a_model_that_is_none(command, data, run, tmp_path):
    photo = next((data / 'Cirrus').iterdir())
    for path in (run.path / 'learner.pkl', photo, tmp_path / 'nowhere.onnx', tmp_path):
        status, out, err = command('predict', photo, '--model', path)
        assert (status, out, err.count('\n')) == (2, '', 1)


def test_a_run_is_a_model(command, data, run, tmp_path):
    photo = next((data / 'Cirrus').iterdir())
    by_file = command('predict', photo, '--model', run.path / 'clouds.onnx', '--json')
    assert by_file[0] == 0
    assert command('predict', photo, '--model', run.path, '--json') == by_file
    assert json.loads(by_file[1])['model'].startswith(f'{run.path.name}@')
    (tmp_path / 'a run').mkdir()
    (tmp_path / 'a run' / 'run.json').write_text('{}')
    for verb in (['predict', photo], ['card']):
        status, out, err = command(*verb, '--model', tmp_path / 'a run')
        assert (status, out, err.count('\n')) == (2, '', 1)
        assert f"`cloud-classifier export '{tmp_path / 'a run'}'`" in err


def test_weights_that_can_not_be_had_are_a_failure_not_a_mistake(command, data, tmp_path, monkeypatch):
    "Without a net and without a cache: one line that says how to go on, exit status 1."
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(
        'torch.hub.load_state_dict_from_url', lambda *a, **k: (_ for _ in ()).throw(OSError('no route'))
    )
    status, _, err = command('train', data, '--arch', 'resnet18', '--size', '32', '--out', tmp_path / 'run')
    assert (status, err.count('\n')) == (1, 1)
    assert '--weights none' in err


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    from cloud_classifier.cli import BadPath, main

    monkeypatch.setattr('sys.argv', ['cloud-classifier', '--debug', 'info', str(tmp_path / 'empty')])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(BadPath):
        main()


def test_every_error_of_ours_says_whose_turn_it_is():
    "What is raised on purpose and may reach a user is one of the two kinds that decide the exit status."
    from importlib import import_module

    from test_architecture import ROOMS

    inside = {'TooCostly', 'Unsupported', 'Unmovable', 'NotONNX', 'SkippedFile', 'DownloadError', 'StopTraining'}
    modules = [import_module(f'cloud_classifier.{name}') for name in ROOMS]
    ours = {o for m in modules for o in vars(m).values() if isinstance(o, type) and issubclass(o, Exception)}
    ours = {o for o in ours if o.__module__.startswith('cloud_classifier') and not issubclass(o, Warning)}
    public = {o for o in ours if not o.__name__.startswith('_')} - {UserError, OperationFailed}
    assert {o.__name__ for o in public if not issubclass(o, (UserError, OperationFailed))} == inside
    assert {cli.exit_status(o.__new__(o)) for o in public if issubclass(o, UserError)} == {2}
    assert {cli.exit_status(o.__new__(o)) for o in public if issubclass(o, OperationFailed)} == {1}


NAMES = [
    'sky.jpg',
    'archive/2024/07/the camera on the roof/積乱雲の写真 2024-07-01 12.30.jpg',
    'ピクチャー/' + '雲' * 60 + '.jpg',
    '/' + '/'.join(['deep'] * 30) + '/IMG_0001.jpg',
    'a/' + 'long-' * 40 + 'end.jpg',
    'no folder, and a name ' + 'of many words ' * 9 + '.jpg',
    '[red]not markup[/red].jpg',
]


@pytest.mark.parametrize('width', [60, 80, 120])
@pytest.mark.parametrize('names', [[o] for o in NAMES] + [NAMES], ids=[*map(str, range(len(NAMES))), 'all'])
def test_a_table_of_answers_is_as_wide_as_the_terminal_and_cuts_no_name(monkeypatch, capsys, width, names):
    from rich.cells import cell_len

    monkeypatch.setenv('COLUMNS', str(width))
    verdict = 'unsure; low cloud: Stratocumulus, Cumulonimbus or Cumulus'
    rows = [(o, 'Cumulonimbus', '83%', verdict, '330–2000 m', 'heavy rain and thunderstorms', 'm@1') for o in names]
    cli.draw_answers(rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= width
    photos, at = [], cell_len(lines[1][: lines[1].index('label')])
    for line in lines[3:-1]:
        cut = next(i for i in range(len(line) + 1) if cell_len(line[:i]) >= at)
        photos.append(line[:cut])
    drawn = ''.join(''.join(photos).split())
    for name in names:
        assert ''.join(name.rpartition('/')[2].split()) in drawn
    assert len([o for o in photos if '…' in o]) <= len(names)


def test_folders_go_from_the_middle_of_a_path_and_never_the_name():
    from rich.cells import cell_len

    for name in NAMES:
        for width in range(0, 260, 7):
            short = cli.shorten_folders(name, width)
            assert short.rpartition('/')[2] == name.rpartition('/')[2]
            assert cell_len(short) <= width or short in (name, f'…/{name.rpartition("/")[2]}')
            assert (short == name) == ('…' not in short)
    assert cli.shorten_folders('a/b/c/d/e.jpg', 12) == 'a/…/d/e.jpg'


def test_answers_in_a_pipe_are_tab_separated_with_a_header_once(command, data, run):
    (data / 'Cirrus' / 'page.jpg').write_text('<html>')
    status, out, err = command('predict', data / 'Cirrus', '-m', run.path)
    header, *rows = [line.split('\t') for line in out.splitlines()]
    assert (status, header) == (3, list(cli.ANSWER_COLUMNS))
    photos = [str(o) for o in sorted((data / 'Cirrus').iterdir()) if o.name != 'page.jpg']
    assert [row[0] for row in rows] == photos
    assert {row[-1] for row in rows} == {
        json.loads(command('predict', photos[0], '-m', run.path, '--json')[1])['model']
    }
    assert err.count('\n') == 1
