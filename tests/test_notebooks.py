"Notebooks are the source: the package is what they compile to, and they are committed clean."

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from readme import ROOT, readme

NOTEBOOKS = sorted(p.relative_to(ROOT) for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


def nbdev(command, folder):
    "Run an nbdev command of this environment in `folder`."
    script = Path(sys.executable).with_name(command)
    subprocess.run([script], cwd=folder, check=True, capture_output=True, text=True)


@pytest.fixture(scope='module')
def again(tmp_path_factory):
    "A copy of the project, exported and cleaned anew."
    copy = tmp_path_factory.mktemp('again')
    for name in ('nbs', 'cloud_classifier'):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    shutil.copy(ROOT / 'pyproject.toml', copy)
    nbdev('nbdev-export', copy)
    nbdev('nbdev-clean', copy)
    return copy


def test_package_is_what_the_notebooks_compile_to(again):
    old, new = (
        {str(p.relative_to(top)): p.read_text() for p in (top / 'cloud_classifier').rglob('*.py')}
        for top in (ROOT, again)
    )
    assert set(old) == set(new)
    differ = sorted(name for name in old if old[name] != new[name])
    assert not differ, f'{differ} differ from their notebooks; edit the notebook and run nbdev-export'


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=str)
def test_notebook_is_clean(again, notebook):
    assert (ROOT / notebook).read_text() == (again / notebook).read_text(), f'run nbdev-clean --fname {notebook}'


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=str)
def test_saved_outputs_can_be_shown_to_anyone(notebook):
    "No traceback, no path of the author's machine, and no more than a reader wants to download."
    text = (ROOT / notebook).read_text()
    cells = json.loads(text)['cells']
    outputs = [o for cell in cells for o in cell.get('outputs', [])]
    assert not [o['ename'] for o in outputs if o['output_type'] == 'error']
    assert not re.findall(r'/(?:home|Users|root|work|tmp|private)/\w[\w./-]*', json.dumps(outputs))
    assert len(text) < 1_500_000


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=str)
def test_cells_can_be_read_where_notebooks_are_read(notebook):
    "Colab and a diff show 120 columns; what is exported comes an idea at a time. Rows of tables and links are lines."
    cells = [''.join(c['source']) for c in json.loads((ROOT / notebook).read_text())['cells']]
    assert [
        line
        for cell in cells
        for line in cell.split('\n')
        if len(line) > 120 and not line.startswith(('|', '[colab]: '))
    ] == []
    assert [cell for cell in cells if cell.startswith('#| export') and cell.count('\n') > 45] == []


def test_every_module_has_a_notebook():
    package = ROOT / 'cloud_classifier'
    modules = {p.relative_to(package).with_suffix('') for p in package.rglob('*.py') if not p.stem.startswith('_')}
    named = {p.relative_to('nbs').with_name(p.stem.split('_', 1)[1]) for p in NOTEBOOKS if re.match(r'\d\d_', p.stem)}
    assert modules - {Path('all')} == named


def test_notebooks_of_a_folder_are_numbered_without_gaps():
    for folder in {p.parent for p in NOTEBOOKS}:
        numbers = [int(p.stem[:2]) for p in NOTEBOOKS if p.parent == folder and re.match(r'\d\d_', p.stem)]
        tens = [[n for n in numbers if n // 10 == ten] for ten in sorted({n // 10 for n in numbers})]
        assert all(ten == [*range(ten[0], ten[0] + len(ten))] and ten[0] % 10 == 0 for ten in tens), folder


def test_readme_says_what_the_front_page_says():
    assert (ROOT / 'README.md').read_text() == readme(), 'edit nbs/index.ipynb and run `make readme`'
