"The tutorials: what is saved with them, and whether they and the notebooks of the rooms open in Colab and run there."

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from colab import BADGE, SETUP, notebooks, opened, repository, setup, write
from colab_session import write_colab
from readme import ROOT
from tutorials import INSTEAD, ON_PHOTOS, is_stamped, kept, shows_photos

from cloud_classifier import tutorial

NOTEBOOKS = notebooks(ROOT)
TUTORIALS = [p for p in NOTEBOOKS if p.parts[1] == 'tutorials']


def read(notebook):
    return json.loads((ROOT / notebook).read_text(encoding='utf-8'))


def cells_of(notebook, kind='code'):
    return [c | dict(source=''.join(c['source'])) for c in read(notebook)['cells'] if c['cell_type'] == kind]


# What is saved


@pytest.mark.parametrize('notebook', TUTORIALS, ids=str)
def test_saved_outputs_are_those_of_this_code(notebook):
    assert is_stamped(read(notebook)), f'run: python tools/tutorials.py FOLDER_OF_CCSN {notebook.stem}'


FIGURES = r'render_sky|suggest_lr|plot_loss|plot_confusion|plot_recall|plot_reliability'  # drawn, not photographed


@pytest.mark.parametrize('name', ON_PHOTOS)
def test_no_photo_is_kept(name):
    "Cells that show photos keep a line instead; every picture is a figure."
    cells = cells_of(Path('nbs') / 'tutorials' / f'{name}.ipynb')
    photos = [c for c in cells if shows_photos(c)]
    assert photos
    assert all(c['outputs'] == [dict(name='stdout', output_type='stream', text=[INSTEAD])] for c in photos)
    for cell in cells:
        kinds = {kind for o in cell['outputs'] for kind in o.get('data', {}) if kind.startswith('image/')}
        assert kinds <= ({'image/png'} if re.search(FIGURES, cell['source']) else set()), cell['source']
        assert 'data:image' not in json.dumps(cell['outputs'])
    shown = r'show_batch|plot_top_losses|plot_issues|Cleaner\(|PILImage.create\(photo\)'
    assert not [c['source'] for c in cells if re.search(shown, c['source']) and not shows_photos(c)]


def test_what_is_kept():
    bar = dict(name='stderr', output_type='stream', text=['photos: 3%'])
    picture = dict(output_type='display_data', data={'image/svg+xml': 'x', 'text/plain': ['<Figure>']})
    assert kept(dict(source=['plot()'], outputs=[bar, picture])) == [picture]
    assert kept(dict(source=['#| photos\n', 'plot()'], outputs=[picture]))[0]['text'] == [INSTEAD]


# Badge and first cell


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=str)
def test_notebooks_open_in_colab(notebook):
    "The badge leads to this notebook, and the first cell is the same everywhere: python tools/colab.py writes both."
    cells = read(notebook)['cells']
    assert cells == opened(cells, notebook, repository())
    assert [cell['id'] for cell in cells[1:3]] == [BADGE, SETUP]
    path = re.search(r'/blob/main/(nbs/\S+\.ipynb)$', ''.join(cells[1]['source']))[1]
    assert (ROOT / path).is_file()
    picture = re.search(r'\]\((\S+?colab.svg)\)', ''.join(cells[1]['source']))[1]
    assert (ROOT / notebook.parent / picture).is_file()


def test_writing_twice_is_writing_once(tmp_path):
    shutil.copy(ROOT / 'settings.ini', tmp_path)
    place = tmp_path / 'nbs' / '00_x.ipynb'
    place.parent.mkdir()
    title = dict(cell_type='markdown', id='a', metadata={}, source=['# X'])
    place.write_text(json.dumps(dict(cells=[title], metadata={}, nbformat=4, nbformat_minor=5)))
    assert [write(Path('nbs/00_x.ipynb'), tmp_path) for _ in range(2)] == [True, False]


class Shell:
    "IPython in this process, whose %pip notes what it is asked to install."

    def __init__(self):
        from IPython.core.interactiveshell import InteractiveShell

        self.shell, self.installed = InteractiveShell(), []
        self.shell.register_magic_function(self.installed.append, 'line', 'pip')

    def run(self, source):
        result = self.shell.run_cell(source)
        result.raise_error()


@pytest.fixture
def shell():
    return Shell()


@pytest.fixture
def in_colab(monkeypatch, tmp_path):
    "A stand-in for Colab, with a Drive that has a key; returns the Drive."
    drive = tmp_path / 'gdrive' / 'MyDrive'
    exists = os.path.exists
    book = types.ModuleType('fastbook')
    book.setup_book = lambda: (drive / 'Data_for_apps').mkdir(parents=True)
    monkeypatch.setitem(sys.modules, 'fastbook', book)
    monkeypatch.setattr(os.path, 'exists', lambda path: path == '/content' or exists(path))
    monkeypatch.setattr(tutorial, 'DRIVE', drive)
    monkeypatch.setenv('AZURE_SEARCH_KEY', '')
    monkeypatch.delenv('AZURE_SEARCH_KEY')
    return drive


def test_elsewhere_the_first_cell_does_nothing(shell, capsys):
    if os.path.exists('/content'):
        pytest.skip('this machine has a folder /content, as Colab has')
    shell.run(setup(repository()))
    assert (shell.installed, capsys.readouterr().out) == ([], '')


def test_the_first_cell_sets_colab_up(shell, in_colab, capsys):
    shell.run(setup(repository()))
    assert shell.installed == [f'install -q "cloud_classifier[notebooks] @ git+{repository()}"']
    assert capsys.readouterr().out == f'The Drive is mounted at {in_colab}.\n'
    assert tutorial.drive_folder('Cloud_Learner') == in_colab / 'Cloud_Learner'


@pytest.mark.parametrize(('content', 'said', 'key'), [
    ('0123456789abcdef\n', 'The search key comes from Data_for_apps/key.txt.', '0123456789abcdef'),
    ('\n', 'needs a key', None),
    ('{\\rtf1 a text}', 'is its file the right one?', None),
])  # fmt: skip
def test_the_key_comes_from_the_drive(content, said, key, in_colab, capsys):
    (in_colab / 'Data_for_apps').mkdir(parents=True)
    (in_colab / 'Data_for_apps' / 'key.txt').write_text(content)
    sys.modules['fastbook'].setup_book = lambda: None
    tutorial.setup_colab()
    printed = capsys.readouterr().out
    assert said in printed
    assert os.environ.get('AZURE_SEARCH_KEY') == key
    assert content.strip() not in printed or not content.strip()


def test_a_key_that_is_set_already_stays(in_colab, monkeypatch, capsys):
    monkeypatch.setenv('AZURE_SEARCH_KEY', 'own')
    tutorial.setup_colab()
    assert os.environ['AZURE_SEARCH_KEY'] == 'own'
    assert capsys.readouterr().out == f'The Drive is mounted at {in_colab}.\n'


def test_without_the_drive_the_notebook_goes_on(in_colab, capsys):
    def refuse():
        raise ValueError('mount failed')

    sys.modules['fastbook'].setup_book = refuse
    tutorial.setup_colab()
    assert capsys.readouterr().out == (
        'The Drive is not mounted (mount failed); what is made here ends with the session.\n'
    )
    assert tutorial.drive_folder('Cloud_Learner') is None


def test_a_package_that_was_replaced_asks_for_a_restart(in_colab, monkeypatch, capsys):
    monkeypatch.setattr('numpy.__version__', '1.0')
    assert tutorial.replaced_packages() == ['numpy']
    tutorial.setup_colab()
    assert 'Restart the session (Runtime > Restart session) and run this cell again: numpy' in capsys.readouterr().out


# The real thing

COLAB = {  # what Colab has since August 2026, as far as it is known and can be had for Python 3.13
    'pandas': '==2.2.3',
    'ipython': '==7.34.0',
    'ipywidgets': '==7.7.1',
    'fastai': '==2.8.8',
    'torch': os.environ.get('COLAB_TORCH', '==2.11.*'),
    'numpy': '<2.4',
    'pillow': '<12',
    'matplotlib': '==3.10.*',
    'requests': '==2.32.*',
    'ipykernel': '<7',
}


def uv(*args, **kwargs):
    done = subprocess.run(
        [sys.executable, '-m', 'uv', 'pip', *args], capture_output=True, text=True, check=False, **kwargs
    )
    if done.returncode and 'dns error' in done.stderr.lower():
        pytest.skip('packages can be fetched from nowhere: there is no network')
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope='module')
def session(tmp_path_factory):
    "A function that runs a notebook in an environment like Colab's, and returns what its first cell said."
    python = os.environ.get('COLAB_PYTHON') or shutil.which('python3.13')
    if not python or subprocess.run([python, '-V'], cwd=tmp_path_factory.getbasetemp(), check=False).returncode:
        pytest.skip('needs Python 3.13, which Colab has: python3.13 on the PATH, or its path in COLAB_PYTHON')
    alone = next((a for a in (['unshare', '-n'], ['unshare', '-rn']) if not subprocess.run([*a, 'true']).returncode), 0)
    if not alone:
        pytest.skip('no process can be cut off from the network here: unshare -n may not be used')
    here = Path('/content').exists()
    try:
        Path('/content').mkdir(exist_ok=True)
    except OSError as e:
        pytest.skip(f'Colab has a folder /content, and none can be made here ({e.strerror})')
    folder = tmp_path_factory.mktemp('colab')

    def run(notebook):
        command = [*alone, folder / 'env/bin/python', ROOT / 'tests/servers/colab_session.py', ROOT / notebook]
        done = subprocess.run(command, cwd='/content', env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    try:  # a folder that is left makes every notebook believe that it is in Colab
        env = make_environment(python, folder)
        yield run
    finally:
        shutil.rmtree('/content/gdrive', ignore_errors=True)
        if not here:
            shutil.rmtree('/content')


def make_environment(python, folder):
    "Colab's packages, then what the first cell installs; the variables of a session in it."
    env = folder / 'env'
    subprocess.run([sys.executable, '-m', 'uv', 'venv', '-q', '--python', python, env], check=True)
    install = ['install', '-q', '--python', env]
    uv(*install, 'pip', 'setuptools>=77', 'wheel', *(name + which for name, which in COLAB.items()))
    before = uv('freeze', '--python', env)
    repo = snapshot(folder / 'repo')
    uv(*install, '--no-build-isolation', f'cloud_classifier[notebooks] @ {repo.as_uri()}')
    after = uv('freeze', '--python', env)
    changed = {line.partition('==')[0] for line in {*before.splitlines()} - {*after.splitlines()}}
    assert not changed & {*tutorial.PRELOADED.values(), 'ipykernel'}, 'what a session has loaded was replaced'
    assert changed <= {'fastai', 'fastcore', 'fasttransform', 'plum-dispatch'}  # loaded after the first cell
    write_colab(folder / 'stand-in')
    return {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'VIRTUAL_ENV', 'CLOUD', 'IN_TEST'))} | {
        'PATH': f'{env}/bin:{os.environ["PATH"]}',
        'PYTHONPATH': str(folder / 'stand-in'),
        'IPYTHONDIR': str(folder / 'stand-in/ipython'),
        'XDG_CACHE_HOME': str(folder / 'cache'),
        'MPLBACKEND': 'module://matplotlib_inline.backend_inline',
        'PIP_NO_INDEX': '1',
        'PIP_NO_BUILD_ISOLATION': '0',  # pip's word for: without isolation
        'PIP_ROOT_USER_ACTION': 'ignore',
        'GIT_CONFIG_COUNT': '2',
        'GIT_CONFIG_KEY_0': f'url.{repo.as_uri()}.insteadOf',
        'GIT_CONFIG_VALUE_0': repository(),
        'GIT_CONFIG_KEY_1': 'safe.directory',
        'GIT_CONFIG_VALUE_1': '*',
    }


def snapshot(folder):
    "The project as it is now, as a repository of one commit."
    names = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split('\n')
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    who = ['-c', 'user.name=x', '-c', 'user.email=x@example.org']
    for command in (['init', '-q', '-b', 'main'], ['add', '-A'], [*who, 'commit', '-q', '-m', 'as it is']):
        subprocess.run(['git', *command], cwd=folder, check=True)
    return folder


@pytest.mark.soak
@pytest.mark.parametrize('notebook', TUTORIALS, ids=lambda p: p.stem)
def test_tutorials_run_in_colab(notebook, session):
    "Top to bottom, over Colab's versions, without a network and without a restart."
    said = session(notebook)
    assert 'The Drive is mounted at /content/gdrive/MyDrive.' in said
    assert 'The search key comes from Data_for_apps/key.txt.' in said
    assert 'Restart' not in said
