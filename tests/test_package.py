"What an installed package holds and asks for."

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib.metadata import distributions

import pytest
from packaging.specifiers import SpecifierSet
from readme import ROOT
from small_net import small_net

from cloud_classifier.samples import render_sky
from cloud_classifier.training.config import PACKAGED

SHIPPED = ('clouds.onnx', 'clouds.onnx.sha256', 'clouds.md')
PYTHONS = ('3.11.2', '3.12.0', '3.13.0')  # Debian 12's, and the first of what else is promised


def build(sources, kind, out):
    "A 'wheel' or an 'sdist' of the sources in a folder, built with what is installed here."
    code = f'import setuptools.build_meta as b; b.build_{kind}({str(out)!r})'
    done = subprocess.run([sys.executable, '-c', code], cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob('*.whl' if kind == 'wheel' else '*.tar.gz'))


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    "A copy of what is in the repository and goes into the package."
    copy = tmp_path_factory.mktemp('sources')
    for name in (
        'settings.ini',
        'setup.py',
        'pyproject.toml',
        'MANIFEST.in',
        'constraints.txt',
        'README.md',
        'LICENSE',
        'NOTICE',
    ):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / 'cloud_classifier', copy / 'cloud_classifier', ignore=shutil.ignore_patterns('__pycache__'))
    (copy / 'models' / 'runs').mkdir(parents=True)
    small_net(copy / 'models' / 'clouds.onnx', card='{"trained_on": "nothing"}')  # in the place of the real one
    (copy / 'models' / 'clouds.md').write_text('# A card\n\nIt knows nothing.\n')
    (copy / 'models' / 'clouds.onnx.sha256').write_text('its digest')
    (copy / 'models' / 'runs' / 'clouds.onnx').write_text('somebody’s own')
    return copy


@pytest.fixture(scope='module')
def wheel_file(sources, tmp_path_factory):
    return build(sources, 'wheel', tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def wheel(wheel_file):
    with zipfile.ZipFile(wheel_file) as z:
        yield z


@pytest.fixture(scope='module')
def sdist_file(sources, tmp_path_factory):
    return build(sources, 'sdist', tmp_path_factory.mktemp('sdist'))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {n for n in wheel.namelist() if '.dist-info/' not in n}
    package = ROOT / 'cloud_classifier'
    files = [p for p in package.rglob('*') if p.suffix in ('.py', '.html') or ('static' in p.parts and p.is_file())]
    expected = {p.relative_to(ROOT).as_posix() for p in files}
    assert names == expected | {f'cloud_classifier/models/{name}' for name in SHIPPED}


def test_the_model_that_ships_is_the_same_in_wheel_and_source_distribution(wheel, sdist_file, sources):
    with tarfile.open(sdist_file) as tar:
        within = {o.name.partition('/')[2]: o for o in tar.getmembers() if o.isfile() and '/models/' in o.name}
        assert set(within) == {f'models/{name}' for name in SHIPPED}
        for name in SHIPPED:
            whole = (sources / 'models' / name).read_bytes()
            assert wheel.read(f'cloud_classifier/models/{name}') == whole
            assert tar.extractfile(within[f'models/{name}']).read() == whole


def test_metadata_comes_from_settings_ini(wheel):
    settings = configparser.ConfigParser(delimiters=['='])
    settings.read(ROOT / 'settings.ini')
    settings = settings['DEFAULT']
    name = next(n for n in wheel.namelist() if n.endswith('METADATA'))
    found = message_from_bytes(wheel.read(name))
    assert found['Summary'] == settings['description']
    assert found['Requires-Python'] == f'>={settings["min_python"]}'
    assert found['License'] == settings['license'] == 'Apache-2.0'
    base = [r for r in found.get_all('Requires-Dist') if 'extra ==' not in r]
    assert base == settings['requirements'].split()
    assert set(found.get_all('Provides-Extra')) == {
        'train',
        'track',
        'scrape',
        'curate',
        'app',
        'serve',
        'heic',
        'parquet',
        'explain',
        'notebooks',
        'dev',
    }
    assert {'timm>=1.0; extra == "train"', 'accelerate>=1.0; extra == "train"'} <= set(found.get_all('Requires-Dist'))
    track = [r for r in found.get_all('Requires-Dist') if 'extra == "track"' in r]
    assert [r.partition('>')[0] for r in track] == ['mlflow-skinny', 'trackio']
    assert b'cloud-classifier = cloud_classifier.cli:main' in wheel.read(name.replace('METADATA', 'entry_points.txt'))


def test_whose_weights_models_start_from_is_said_in_every_archive(wheel, sdist_file):
    "NOTICE names each package that weights are read from, in the version that is required, and the hash of its file."
    (name,) = (n for n in wheel.namelist() if n.endswith('/NOTICE'))
    with tarfile.open(sdist_file) as tar:
        (copy,) = (n for n in tar.getnames() if n.count('/') == 1 and n.endswith('/NOTICE'))
        notice = tar.extractfile(copy).read()
    assert wheel.read(name) == notice == (ROOT / 'NOTICE').read_bytes()
    needed = message_from_bytes(wheel.read(next(n for n in wheel.namelist() if n.endswith('METADATA'))))
    for entry in PACKAGED:
        assert f'{entry.package} {entry.version}' in notice.decode()
        assert entry.sha256 in notice.decode()
        assert f'{entry.package}=={entry.version}; extra == "train"' in needed.get_all('Requires-Dist')
        assert f'{entry.package}=={entry.version}' in (ROOT / 'constraints.txt').read_text().splitlines()


def test_the_predictor_needs_the_base_alone(skies):
    "Each module of the base install is imported in a process in which no other library can be."
    code = '''
import sys
BASE = {"numpy", "PIL", "onnxruntime", "typer", "rich", "cloud_classifier"}
OURS = {"torch", "torchvision", "fastai", "fastcore", "pandas", "sklearn", "matplotlib", "jinja2", "tqdm"}
OURS |= {"onnx", "pooch", "ipywidgets", "IPython"}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OURS: raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import cloud_classifier.taxonomy, cloud_classifier.images, cloud_classifier.prediction.infer
import cloud_classifier.cli as cli
sys.argv[1:] = ["train", FOLDER]
cli.main()
'''
    code = f'FOLDER = {str(skies)!r}\n{code}'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('cloud-classifier: this verb needs the package')
    assert "pip install 'cloud_classifier[train]'" in done.stderr


def test_constraints_name_versions_and_no_addresses():
    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    assert len(lines) > 50
    assert all(line.count('==') == 1 and '/' not in line and '@' not in line for line in lines)


def test_the_wheel_of_a_source_distribution_is_the_wheel(sdist_file, wheel, tmp_path):
    "What setup.py reads has to be in the archive, or nobody can build it."
    with tarfile.open(sdist_file) as tar:
        tar.extractall(tmp_path, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))  # not in 3.11.2
    (unpacked,) = tmp_path.iterdir()
    out = tmp_path / 'out'
    out.mkdir()
    with zipfile.ZipFile(build(unpacked, 'wheel', out)) as again:
        assert sorted(again.namelist()) == sorted(wheel.namelist())


@pytest.mark.parametrize('kind', ['wheel', pytest.param('sdist', marks=pytest.mark.soak)])
def test_it_runs_where_it_is_the_first_thing_installed(kind, wheel_file, sdist_file, tmp_path):
    "In an empty environment, away from the repository, with the requirements of the base alone."
    file = {'wheel': wheel_file, 'sdist': sdist_file}[kind]
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'env'], check=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'VIRTUAL_ENV', 'CLOUD'))}
    install = [
        sys.executable,
        '-m',
        'uv',
        'pip',
        'install',
        '-q',
        '--python',
        tmp_path / 'env',
        '-c',
        ROOT / 'constraints.txt',
    ]
    done = subprocess.run([*install, file], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    if done.returncode and 'dns error' in done.stderr.lower() + done.stdout.lower():
        pytest.skip('requirements can be fetched from nowhere: there is no network')
    assert done.returncode == 0, done.stderr
    for args in (['--version'], ['info']):
        said = subprocess.run(
            [tmp_path / 'env' / 'bin' / 'cloud-classifier', *args],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (said.returncode, said.stderr) == (0, '')
        assert said.stdout
    (tmp_path / 'empty').mkdir()
    render_sky('Cumulus', 96).save(tmp_path / 'sky.jpg')

    def call(*args):
        return subprocess.run(
            [tmp_path / 'env' / 'bin' / 'cloud-classifier', *args],
            cwd=tmp_path / 'empty', env=env | {'HOME': '.'}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    answer = call('predict', '../sky.jpg')
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[1].startswith('../sky.jpg\t')
    assert answer.stderr.count('\n') == answer.stderr.count('the model that ships') == 1
    for quiet in ('--json', '--quiet'):
        answer = call('predict', '../sky.jpg', quiet)
        assert (answer.returncode, answer.stderr) == (0, '')
    assert call('card').stdout == '# A card\n\nIt knows nothing.\n'
    assert call('card', '--json').stdout == '{"trained_on": "nothing"}\n'
    assert list((tmp_path / 'empty').iterdir()) == []
    [model] = (tmp_path / 'env').rglob('clouds.onnx')
    model.write_bytes(model.read_bytes()[:-1] + b'x')
    damaged = call('predict', '../sky.jpg')
    assert (damaged.returncode, damaged.stderr.count('\n')) == (2, 1)
    assert 'clouds.onnx: is damaged' in damaged.stderr
    model.unlink()
    lacking = call('predict', '../sky.jpg')
    assert (lacking.returncode, lacking.stderr.count('\n')) == (2, 1)
    assert 'this installation lacks the one that ships; install cloud_classifier again' in lacking.stderr


def test_each_version_that_was_tested_is_for_every_python_that_is_promised():
    "The versions of constraints.txt, which are installed here, say themselves where they may be."
    wants = {d.metadata['Name']: d.metadata.get('Requires-Python') for d in distributions()}
    assert len(wants) > 100
    refuses = {
        f'{name} is not for Python {python}'
        for name, spec in wants.items()
        for python in PYTHONS
        if spec and python not in SpecifierSet(spec)
    }
    assert not refuses


def test_make_keeps_the_environment_of_this_shell_from_python():
    "Four tests once passed only where PYTHONUNBUFFERED was set."
    makefile = 'include Makefile\nshow: ; @env\n'
    env = os.environ | {'PYTHONUNBUFFERED': '1', 'PYTHONPATH': '/nowhere', 'PYTHON': sys.executable}
    done = subprocess.run(
        ['make', '-s', '-f', '-', 'show'], input=makefile, cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert 'MPLBACKEND=Agg' in done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith('PYTHON')]
