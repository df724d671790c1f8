"What an installed package holds and asks for."

import configparser
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes

import pytest
from readme import ROOT


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "The wheel, built from a copy of the sources with what is installed here."
    copy, out = tmp_path_factory.mktemp('sources'), tmp_path_factory.mktemp('wheel')
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / 'cloud_classifier', copy / 'cloud_classifier', ignore=shutil.ignore_patterns('__pycache__'))
    code = f'import setuptools.build_meta as b; b.build_wheel({str(out)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=copy, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob('*.whl'))) as z:
        yield z


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {n for n in wheel.namelist() if '.dist-info/' not in n}
    expected = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / 'cloud_classifier').rglob('*') if p.suffix in ('.py', '.html')
    }
    assert names == expected


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
        'explain',
        'notebooks',
        'dev',
    }
    assert {'timm>=1.0; extra == "train"', 'accelerate>=1.0; extra == "train"'} <= set(found.get_all('Requires-Dist'))
    track = [r for r in found.get_all('Requires-Dist') if 'extra == "track"' in r]
    assert [r.partition('>')[0] for r in track] == ['mlflow-skinny', 'trackio']
    assert b'cloud-classifier = cloud_classifier.cli:main' in wheel.read(name.replace('METADATA', 'entry_points.txt'))


def test_the_predictor_needs_the_base_alone():
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
import cloud_classifier.taxonomy, cloud_classifier.images, cloud_classifier.infer, cloud_classifier.cli as cli
sys.argv[1:] = ["train", "somewhere"]
cli.main()
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('cloud-classifier: this verb needs the package')
    assert "pip install 'cloud_classifier[train]'" in done.stderr


def test_constraints_name_versions_and_no_addresses():
    lines = (ROOT / 'constraints.txt').read_text().splitlines()
    assert len(lines) > 50
    assert all(line.count('==') == 1 and '/' not in line and '@' not in line for line in lines)
