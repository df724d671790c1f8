"Imports run one way, and heavy libraries stay in their rooms."

import ast

import pytest
from bounds import run_bounded
from readme import ROOT

PACKAGE = ROOT / 'cloud_classifier'
MAY_IMPORT = {  # what each module may import of this package, wherever in it
    'taxonomy': set(),
    'decide': {'taxonomy'},
    'files': set(),
    'console': {'files'},
    'bombs': set(),
    'images': {'bombs'},
    'samples': {'taxonomy'},
    'onnxfile': set(),
    'infer': {'taxonomy', 'images', 'decide', 'files', 'onnxfile'},
    'app': {'taxonomy', 'images', 'infer'},
    'manifest': {'files'},
    'dataset': {'taxonomy', 'files', 'images', 'manifest'},
    'archive': {'taxonomy'},
    'sources': {'taxonomy', 'files', 'images', 'archive'},
    'download': {'files', 'images', 'archive', 'manifest', 'dataset', 'sources'},
    'scrape': {'taxonomy', 'files', 'archive', 'manifest', 'dataset', 'sources', 'download'},
    'credits': {'files', 'dataset'},
    'verify': {'taxonomy', 'files', 'images', 'manifest', 'dataset'},
    'duplicates': {'images', 'dataset'},
    'series': {'duplicates'},
    'curate': {'files', 'images', 'manifest', 'dataset', 'duplicates', 'series', 'verify'},
    'sampling': {'taxonomy', 'files', 'images', 'dataset', 'curate'},
    'settings': set(),
    'weights': set(),
    'cache': {'files', 'images', 'dataset'},
    'learner': {'taxonomy', 'files', 'images', 'dataset', 'sampling', 'settings', 'weights', 'cache', 'moments'},
    'step': set(),
    'moments': set(),
    'embeddings': {'files', 'images', 'dataset', 'cache', 'step'},
    'recipes': {'settings', 'learner', 'moments', 'embeddings', 'step'},
    'processes': set(),
    'run_folder': {'files', 'settings'},
    'checkpoint': {'files', 'settings', 'processes', 'recipes'},
    'track': {'dataset', 'learner', 'checkpoint'},
    'train': {
        'files',
        'images',
        'dataset',
        'sampling',
        'settings',
        'cache',
        'learner',
        'recipes',
        'step',
        'processes',
        'run_folder',
        'checkpoint',
        'track',
    },
    'soup': {'files', 'moments', 'sampling', 'settings', 'run_folder', 'train'},
    'runs': {'files', 'dataset', 'sampling', 'run_folder', 'checkpoint', 'train'},
    'calibrate': {'decide'},
    'audit': {'taxonomy', 'images', 'calibrate', 'dataset'},
    'strange': {'images', 'learner', 'moments', 'step'},
    'trust': {'files', 'learner', 'sampling', 'run_folder', 'train', 'calibrate', 'strange'},
    'scores': {'taxonomy', 'decide', 'calibrate'},
    'report': {'files', 'images', 'scores'},
    'evaluate': {
        'taxonomy',
        'decide',
        'images',
        'infer',
        'dataset',
        'sampling',
        'train',
        'calibrate',
        'strange',
        'step',
        'trust',
        'audit',
        'scores',
        'report',
    },
    'clean': {'taxonomy', 'dataset'},
    'quantize': {'files', 'settings', 'images', 'onnxfile', 'infer'},
    'export': {
        'files',
        'images',
        'onnxfile',
        'decide',
        'infer',
        'quantize',
        'learner',
        'train',
        'calibrate',
        'strange',
        'trust',
    },
    'demo': {
        'infer',
        'samples',
        'dataset',
        'scrape',
        'sampling',
        'settings',
        'learner',
        'embeddings',
        'recipes',
        'train',
        'calibrate',
        'evaluate',
        'export',
    },
    'cli': {
        'taxonomy',
        'files',
        'console',
        'settings',
        'weights',
        'run_folder',
        'images',
        'infer',
        'dataset',
        'sources',
        'download',
        'scrape',
        'credits',
        'verify',
        'curate',
        'sampling',
        'train',
        'runs',
        'evaluate',
        'export',
        'demo',
    },
}
BASE = {'numpy', 'PIL', 'onnxruntime', 'typer', 'rich'}
ROOMS = {
    'fastai': {'learner', 'step', 'recipes', 'processes', 'checkpoint', 'track', 'train'},
    'torch': {
        'weights',
        'learner',
        'step',
        'moments',
        'embeddings',
        'recipes',
        'processes',
        'checkpoint',
        'train',
        'soup',
        'strange',
        'trust',
        'audit',
        'evaluate',
        'export',
    },
    'torchvision': {'learner'},
    'pytorch_grad_cam': {'audit'},
    'fasttransform': {'learner'},
    'timm': {'learner'},
    'safetensors': {'learner'},
    'huggingface_hub': {'learner'},
    'accelerate': {'processes'},
    'mlflow': {'track'},
    'trackio': {'track'},
    'aiohttp': {'download'},
    'azure': {'sources'},
    'ddgs': {'sources'},
    'mlcroissant': {'credits'},
    'cleanvision': {'verify'},
    'faiss': {'duplicates', 'series'},
    'sqlite3': {'manifest', 'download'},
}


def imports(module, top_level_only=False):
    "The modules that a module imports: dotted names, those of this package beginning with a dot."
    tree = ast.parse((PACKAGE / f'{module}.py').read_text(encoding='utf-8'))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.replace('cloud_classifier.', '.') for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').startswith('cloud_classifier')):
            inner = (node.module or '').removeprefix('cloud_classifier').lstrip('.')
            yield from [f'.{inner}'] if inner else (f'.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_each_module_is_in_the_plan():
    assert {p.stem for p in PACKAGE.glob('*.py') if not p.stem.startswith('_')} == set(MAY_IMPORT)


@pytest.mark.parametrize('module', MAY_IMPORT)
def test_imports_run_one_way(module):
    ours = {name[1:].split('.')[0] for name in imports(module) if name.startswith('.')} - {'__version__'}
    assert ours <= MAY_IMPORT[module]


@pytest.mark.parametrize(('library', 'rooms'), ROOMS.items())
def test_heavy_libraries_stay_in_their_rooms(library, rooms):
    users = {m for m in MAY_IMPORT if any(name.split('.')[0] == library for name in imports(m))}
    assert users == rooms


@pytest.mark.parametrize(
    'module', ['taxonomy', 'images', 'files', 'settings', 'weights', 'decide', 'onnxfile', 'infer', 'console', 'cli']
)
def test_the_base_asks_for_the_base_install_alone(module):
    import sys

    others = {name.split('.')[0] for name in imports(module, top_level_only=True) if not name.startswith('.')}
    assert others - set(sys.stdlib_module_names) <= BASE


@pytest.mark.parametrize('module', ['run_folder', 'runs', 'weights'])
def test_runs_are_listed_and_refused_without_waiting_for_what_trains(module):
    done = run_bounded(f'import cloud_classifier.{module}, sys; print(*sys.modules)')
    assert done.status == 0, done.err
    assert not {'torch', 'fastai', 'pandas', 'numpy'} & set(done.out.split())


@pytest.mark.parametrize('module', ['cli', 'demo'])
def test_what_stands_on_top_imports_the_torch_stages_when_they_are_needed(module):
    torch_stages = (ROOMS['torch'] | ROOMS['fastai'] | {'runs'}) - {'weights'}  # needs torch only to read a file
    assert not {f'.{stage}' for stage in torch_stages} & set(imports(module, top_level_only=True))
