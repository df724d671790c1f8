"What the package holds and asks for, how it is built, and what it does where it is installed."

import builtins
import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path

import httpx
import pytest
import yaml
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet
from readme import ROOT
from readme_renderer import markdown
from service import served

import cloud_classifier
from cloud_classifier.samples import make_samples, render_sky
from cloud_classifier.training.config import PACKAGED

SHIPPED = ('clouds.onnx', 'clouds.onnx.sha256', 'clouds.md')
PYTHONS = ('3.11.2', '3.12.0', '3.13.0')  # Debian 12's, and the first of what else is promised


def build(sources, kind, out):
    "A 'wheel' or an 'sdist' of the sources in a folder, built with what is installed here."
    code = f'import setuptools.build_meta as b; b.build_{kind}({str(out)!r})'
    done = subprocess.run([sys.executable, '-c', code], cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob('*.whl' if kind == 'wheel' else '*.tar.gz'))


def uv(*words, cwd=ROOT, **kwargs):
    return subprocess.run(
        [sys.executable, '-m', 'uv', *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False, **kwargs
    )


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    "What a clone would hold if all that git does not ignore were committed."
    copy = tmp_path_factory.mktemp('a clone')
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, map(os.fsdecode, listed.stdout.split(b'\0'))):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    (copy / 'models' / 'runs').mkdir()
    (copy / 'models' / 'runs' / 'clouds.onnx').write_text('somebody’s own')
    return copy


@pytest.fixture(scope='module')
def built(sources, tmp_path_factory):
    "A source distribution, and the wheel that is built from it: what `uv build` leaves, with what is installed here."
    out = tmp_path_factory.mktemp('built')
    done = uv('build', '--no-build-isolation', '--python', sys.executable, '--out-dir', out, cwd=sources)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope='module')
def wheel_file(built):
    return next(built.glob('*.whl'))


@pytest.fixture(scope='module')
def sdist_file(built):
    return next(built.glob('*.tar.gz'))


@pytest.fixture(scope='module')
def wheel(wheel_file):
    with zipfile.ZipFile(wheel_file) as z:
        yield z


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {n for n in wheel.namelist() if '.dist-info/' not in n}
    package = ROOT / 'cloud_classifier'
    files = [p for p in package.rglob('*') if p.suffix in ('.py', '.html') or ('static' in p.parts and p.is_file())]
    expected = {p.relative_to(ROOT).as_posix() for p in files if p.stem != '_modidx'}  # an index for documentation
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
    assert found['License-Expression'] == settings['license'] == 'Apache-2.0'
    assert found['License'] is None
    assert found.get_all('License-File') == ['LICENSE', 'NOTICE']
    assert found['Keywords'].replace(',', ' ').split() == settings['keywords'].split()
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
        'scale',
        'explain',
        'notebooks',
        'docs',
        'dev',
    }
    assert {'timm>=1.0; extra == "train"', 'accelerate>=1.0; extra == "train"'} <= set(found.get_all('Requires-Dist'))
    track = [r for r in found.get_all('Requires-Dist') if 'extra == "track"' in r]
    assert [r.partition('>')[0] for r in track] == ['mlflow-skinny', 'trackio']
    assert b'cloud-classifier = cloud_classifier.cli:main' in wheel.read(name.replace('METADATA', 'entry_points.txt'))


def metadata(wheel) -> Metadata:
    "The metadata of the wheel, read as a registry reads it: what is not valid raises."
    name = next(n for n in wheel.namelist() if n.endswith('METADATA'))
    return Metadata.from_email(wheel.read(name), validate=True)


def test_metadata_is_whole(wheel):
    found, repository = metadata(wheel), 'https://github.com/cloud-classifier/cloud_classifier'
    assert found.project_urls == {
        'Source': repository,
        'Issues': f'{repository}/issues',
        'Changelog': f'{repository}/blob/main/CHANGELOG.md',
        'Documentation': 'https://cloud-classifier.github.io/cloud_classifier/',
    }
    assert [o for o in found.classifiers if o.startswith('License ::')] == []  # the expression says it
    pythons = [o.rpartition(' ')[2] for o in found.classifiers if re.search(r':: 3\.\d+$', o)]
    assert pythons == [o.rpartition('.')[0] for o in PYTHONS] == matrix()
    assert any(o.startswith('Operating System ::') for o in found.classifiers)
    assert str(found.version) == cloud_classifier.__version__


def test_the_readme_can_be_shown_away_from_its_repository(wheel):
    "It renders as registries render it, with the picture, and no link leads to a path."
    found = metadata(wheel)
    assert found.description_content_type == 'text/markdown'
    page = markdown.render(found.description)
    assert page is not None
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert len(links) > 8
    assert [o for o in links if not o.startswith(('https://', '#'))] == []
    [picture] = re.findall(r'<img[^>]*src="([^"]*)"', page)
    top, _, path = picture.partition('/raw/main/')
    assert top == 'https://github.com/cloud-classifier/cloud_classifier'
    inside = [o.partition('/main/')[2] for o in links if o.startswith(top)]
    assert path in inside
    assert [o for o in inside if not (ROOT / o.partition('#')[0]).exists()] == []


def test_the_citation_is_that_of_this_version():
    "CITATION.cff has what its schema demands, and names the photos that the model was trained on."
    cited = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
    assert cited['cff-version'] == '1.2.0'
    assert {'message', 'title', 'authors'} <= set(cited)
    assert (cited['version'], cited['license']) == (cloud_classifier.__version__, 'Apache-2.0')
    assert cited['repository-code'] == 'https://github.com/cloud-classifier/cloud_classifier'
    for entry in cited['references']:
        assert {'type', 'title', 'authors'} <= set(entry)
        assert all({'family-names', 'given-names'} == set(o) for o in entry['authors'])
    assert '10.7910/DVN/CADDPD' in {o.get('doi') for o in cited['references']}


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


def test_the_wheel_of_a_source_distribution_is_the_wheel(sources, wheel, tmp_path):
    "What setup.py reads has to be in the archive, or it could not be built from that."
    with zipfile.ZipFile(build(sources, 'wheel', tmp_path)) as straight:
        assert sorted(straight.namelist()) == sorted(wheel.namelist())


@pytest.mark.soak
@pytest.mark.parametrize('tool', [['-m', 'uv', 'build'], ['-m', 'build']], ids=' '.join)
def test_it_builds_with_nothing_but_what_it_asks_for(tool, sources, tmp_path):
    "From a clone, in environments that the tool makes for the occasion: an archive, and a wheel from that."
    done = subprocess.run(
        [sys.executable, *tool, *(['--out-dir', tmp_path] if 'uv' in tool else ['--outdir', tmp_path])],
        cwd=sources, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode and re.search('dns error|name resolution', done.stderr + done.stdout, re.IGNORECASE):
        pytest.skip('setuptools can be fetched from nowhere: there is no network')
    assert done.returncode == 0, done.stderr
    assert sorted(o.suffix for o in tmp_path.glob('[!.]*')) == ['.gz', '.whl']  # uv writes a .gitignore


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
    for args in (['--version'], ['--help'], ['info']):
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
    assert call('card').stdout == (ROOT / 'models' / 'clouds.md').read_text(encoding='utf-8')
    assert call('site', 'page', '--ort', 'nowhere').returncode == 2
    code = "import cloud_classifier as c; print(*[getattr(c, o).__name__ for o in ('CloudClassifier', 'genus')])"
    python = [tmp_path / 'env' / 'bin' / 'python', '-c', code]
    assert subprocess.check_output(python, cwd=tmp_path / 'empty', env=env, text=True) == 'CloudClassifier genus\n'
    assert list((tmp_path / 'empty').iterdir()) == []
    [model] = (tmp_path / 'env').rglob('clouds.onnx')
    whole = model.read_bytes()
    model.unlink()  # it may be a link into the cache of uv, which is not ours to change
    model.write_bytes(whole[:-1] + b'x')
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


# Where the wheel is the one that is imported, beside what is installed here -----------------------------------------


@pytest.fixture(scope='module')
def installed(wheel_file, tmp_path_factory):
    "An environment with the wheel, and this one's other packages behind it; an empty folder is beside it."
    env = tmp_path_factory.mktemp('installed') / 'env'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', env], check=True)
    done = uv('pip', 'install', '--offline', '--no-deps', '--python', env, wheel_file)
    assert done.returncode == 0, done.stderr
    [packages] = env.glob('lib/python*/site-packages')
    (packages / 'here.pth').write_text('\n'.join(p for p in sys.path if p.endswith('site-packages')), encoding='utf-8')
    (env / 'share').symlink_to(Path(sys.prefix) / 'share')  # what Jupyter shows pages with
    (env.parent / 'empty').mkdir()
    return env


@pytest.fixture
def away(installed, monkeypatch):
    "Be in an empty folder, with nothing in the environment that leads back here."
    monkeypatch.chdir(installed.parent / 'empty')
    for name in [o for o in os.environ if o.startswith(('PYTHON', 'VIRTUAL_ENV', 'CLOUD', 'PYTEST'))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('CLOUD_CACHE', str(installed.parent / 'cache'))
    return installed


def test_a_notebook_of_a_stranger_runs_over_the_wheel(away):
    code = (
        'import nbclient, nbformat; book = nbformat.read(SOURCE, 4); '
        'nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute(); '
        'print(*[o.data["text/plain"] for c in book.cells for o in c.get("outputs", []) if "data" in o], sep="\\n")'
    ).replace('SOURCE', repr(str(ROOT / 'tests' / 'stranger.ipynb')))
    done = subprocess.run([away / 'bin' / 'python', '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    home, answer = done.stdout.splitlines()[:2]
    assert Path(home.strip("'")).resolve().is_relative_to(away.resolve())
    assert answer == "('Cirrus', 0.74, 'confident')"


@pytest.mark.parametrize(
    ('words', 'shows'),
    [
        pytest.param(['app'], 'Which cloud is this', marks=pytest.mark.soak),
        pytest.param(['clean', 'skies', '--all'], 'Clean labels', marks=pytest.mark.soak),
        (['serve', '--no-site'], '/predict'),
    ],
    ids=lambda o: o[0] if isinstance(o, list) else None,
)
def test_pages_are_served_from_the_wheel(words, shows, away):
    "Each announces an address, and answers at it."
    if 'skies' in words:
        make_samples('skies', per_genus=3, size=64, genera=['Cirrus', 'Cumulus'])
    with served(Path(), '--port', '0', command=(away / 'bin' / 'cloud-classifier', *words)) as running:
        page = httpx.get(running.address, timeout=120, follow_redirects=True)
        assert (page.status_code, shows in page.text) == (200, True), running.log


# Star imports -------------------------------------------------------------------------------------------------------


def star(module: str) -> dict:
    "What a star import brings."
    names = {}
    exec(f'from {module} import *', names)
    names.pop('__builtins__')
    return names


# What a notebook needs of the rooms `archive` and `scale`, whose other names are too general for one.
ARCHIVES = {f'{verb}_archive' for verb in ('predict', 'verify', 'fingerprint', 'embed', 'duplicates')}


def rooms() -> dict[str, list]:
    "The rooms that have each public name; what stands on top of them is imported by its own name."
    found = {}
    for file in (ROOT / 'cloud_classifier').rglob('*.py'):
        if file.stem.startswith('_') or file.stem in ('all', 'cli', 'demo', 'tutorial'):  # those stand above
            continue
        room = import_module('.'.join(file.relative_to(ROOT).with_suffix('').parts))
        for name in ARCHIVES.intersection(room.__all__) if file.stem in ('archive', 'scale') else room.__all__:
            found.setdefault(name, []).append(room)
    return found


def test_a_star_import_brings_what_is_public_and_nothing_else():
    brought, public = star('cloud_classifier.all'), rooms()
    assert [o for o in brought if o.startswith('_')] == []
    assert [o for o, value in brought.items() if type(value).__name__ == 'module'] == []
    assert set(brought) <= set(public)
    assert set(cloud_classifier.__all__) <= set(brought)
    assert all(brought[name] is getattr(cloud_classifier, name) for name in cloud_classifier.__all__)
    left_out = set(public) - set(brought)
    assert left_out == cloud_classifier.all._ELSEWHERE
    torn = {
        name for name, homes in public.items() if any(getattr(o, name) is not getattr(homes[0], name) for o in homes)
    }
    assert torn <= left_out


def test_a_star_import_shadows_nothing_of_fastai_or_python():
    "What has the same name is the same thing."
    ours, theirs = star('cloud_classifier.all'), star('fastai.vision.all') | vars(builtins)
    assert {o for o in set(ours) & set(theirs) if ours[o] is not theirs[o]} == set()


# The workflow -------------------------------------------------------------------------------------------------------


def workflow(name: str = 'test') -> dict:
    return yaml.safe_load((ROOT / '.github' / 'workflows' / f'{name}.yml').read_text(encoding='utf-8'))


def matrix() -> list[str]:
    return workflow()['jobs']['test']['strategy']['matrix']['python']


@pytest.mark.parametrize('file', sorted((ROOT / '.github' / 'workflows').glob('*.yml')), ids=lambda o: o.name)
def test_each_step_of_a_workflow_can_be_run(file):
    "Each is an action of a fixed version, or a command that is there."
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    steps = [step for job in workflow(file.stem)['jobs'].values() for step in job['steps']]
    assert steps
    for step in steps:
        assert ('uses' in step) != ('run' in step)
        if 'uses' in step:
            assert re.fullmatch(r'[\w-]+/[\w-]+@v\d+', step['uses'])
        for line in step.get('run', '').splitlines():
            program, *rest = line.split()
            if program == 'make':
                assert all(re.search(rf'^{target}:', makefile, re.MULTILINE) for target in rest if '=' not in target)
            elif program not in ('sudo', 'npm'):  # GitHub's machines have them
                name = program.rpartition('/')[2]
                assert shutil.which(name, path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}'), line
