"Imports run one way, and heavy libraries stay in their rooms."

import ast
import re
import sys
from functools import cache

import pytest
from bounds import run_bounded
from readme import ROOT

PACKAGE = ROOT / 'cloud_classifier'
# The five doors, each with what its rooms may import of this package beside rooms of their own. Root rooms stand below
# all doors, but for `demo`, `tutorial` and `cli`, which stand above them.
DOORS = {
    'root': set(),
    'data': {'root'},
    'prediction': {'root'},
    'training': {'root', 'data'},
    'evaluation': {'root', 'data', 'training', 'prediction'},
    'top': {'root', 'data', 'training', 'evaluation', 'prediction'},
}
ROOMS = {  # what each room may import of this package, wherever in it
    'taxonomy': {'errors'},
    'errors': set(),
    'files': set(),
    'images': {'errors'},
    'samples': {'taxonomy', 'files'},
    'hosting': {'errors'},
    'fetch': {'errors', 'files', 'images'},
    'archive': {'errors', 'fetch', 'files', 'images'},
    'data.dataset': {'errors', 'taxonomy', 'files', 'images'},
    'data.sources': {'errors', 'taxonomy', 'files', 'images'},
    'data.download': {'errors', 'files', 'fetch', 'images', 'data.dataset', 'data.sources'},
    'data.scrape': {'taxonomy', 'files', 'images', 'data.dataset', 'data.sources', 'data.download'},
    'data.verify': {'files', 'images', 'data.dataset'},
    'data.duplicates': {'errors', 'files', 'images', 'data.dataset'},
    'data.sampling': {'taxonomy', 'files', 'images', 'data.dataset', 'data.duplicates'},
    'data.issues': {'errors', 'taxonomy', 'images', 'data.dataset', 'data.duplicates', 'data.sampling'},
    'data.clean': {'taxonomy', 'files', 'data.dataset', 'data.widget'},
    'data.widget': {'errors', 'taxonomy', 'files', 'hosting', 'images', 'data.dataset'},
    'training.config': {'errors', 'files'},
    'training.dataloaders': {'taxonomy', 'files', 'images', 'data.dataset', 'data.sampling', 'training.config'},
    'training.learner': {'files', 'images', 'training.config'},
    'training.callbacks': {'errors', 'files', 'data.dataset', 'training.config'},
    'training.recipes': {
        'files',
        'images',
        'data.dataset',
        'training.config',
        'training.dataloaders',
        'training.learner',
        'training.callbacks',
    },
    'training.run': {
        'files',
        'images',
        'data.dataset',
        'data.duplicates',
        'data.sampling',
        'training.config',
        'training.dataloaders',
        'training.learner',
        'training.callbacks',
        'training.recipes',
    },
    'training.oof': {
        'files',
        'data.dataset',
        'data.duplicates',
        'data.issues',
        'data.sampling',
        'training.config',
        'training.dataloaders',
        'training.learner',
        'training.callbacks',
        'training.recipes',
        'training.run',
    },
    'evaluation.ood': {'images', 'samples', 'training.config', 'training.learner', 'training.callbacks'},
    'evaluation.calibrate': {
        'files',
        'data.sampling',
        'training.config',
        'training.run',
        'evaluation.ood',
        'prediction.decide',
    },
    'evaluation.audit': {'errors', 'taxonomy', 'images', 'data.dataset', 'evaluation.calibrate'},
    'evaluation.report': {
        'taxonomy',
        'files',
        'images',
        'samples',
        'data.dataset',
        'data.sampling',
        'training.callbacks',
        'training.run',
        'evaluation.ood',
        'evaluation.calibrate',
        'evaluation.audit',
        'prediction.decide',
        'prediction.infer',
    },
    'evaluation.round': {
        'files',
        'data.dataset',
        'data.sampling',
        'data.issues',
        'data.clean',
        'training.config',
        'training.oof',
        'training.run',
        'evaluation.calibrate',
        'evaluation.report',
    },
    'prediction.decide': {'errors', 'taxonomy'},
    'prediction.infer': {'errors', 'taxonomy', 'files', 'images', 'prediction.decide'},
    'prediction.export': {
        'errors',
        'files',
        'images',
        'data.sampling',
        'training.config',
        'training.run',
        'evaluation.ood',
        'evaluation.calibrate',
        'prediction.decide',
        'prediction.infer',
    },
    'prediction.app': {'errors', 'taxonomy', 'files', 'images', 'hosting', 'data.scrape', 'prediction.infer'},
    'prediction.site': {'errors', 'taxonomy', 'files', 'images', 'prediction.decide', 'prediction.infer'},
    'prediction.serve': {'errors', 'files', 'fetch', 'hosting', 'images', 'prediction.infer', 'prediction.site'},
    'prediction.batch': {'errors', 'files', 'fetch', 'images', 'prediction.infer'},
    'prediction.watch': {'errors', 'files', 'fetch', 'images', 'prediction.decide', 'prediction.infer'},
    'prediction.climate': {'errors', 'taxonomy', 'images'},
    'prediction.scale': {
        'errors',
        'taxonomy',
        'files',
        'fetch',
        'images',
        'archive',
        'data.verify',
        'data.duplicates',
        'prediction.batch',
        'prediction.infer',
    },
    'demo': {
        'images',
        'samples',
        'data.dataset',
        'data.sources',
        'data.scrape',
        'data.sampling',
        'training.config',
        'training.dataloaders',
        'training.learner',
        'training.callbacks',
        'training.recipes',
        'training.run',
        'evaluation.calibrate',
        'evaluation.report',
        'prediction.infer',
        'prediction.export',
    },
    'tutorial': {'samples', 'data.dataset', 'data.sources', 'data.scrape'},
    'cli': {
        'errors',
        'taxonomy',
        'files',
        'images',
        'data.dataset',
        'data.download',
        'data.scrape',
        'data.verify',
        'data.duplicates',
        'data.sampling',
        'data.issues',
        'data.clean',
        'data.widget',
        'training.config',
        'training.recipes',
        'training.run',
        'training.oof',
        'evaluation.report',
        'evaluation.round',
        'prediction.infer',
        'prediction.export',
        'prediction.app',
        'prediction.batch',
        'prediction.climate',
        'prediction.scale',
        'prediction.serve',
        'prediction.site',
        'prediction.watch',
        'demo',
    },
}
BASE = {'numpy', 'PIL', 'onnxruntime', 'typer', 'rich'}
TRAINING = {f'training.{room}' for room in ('dataloaders', 'learner', 'callbacks', 'recipes', 'run', 'oof')}
USERS = {  # of each heavy library
    'fastai': TRAINING | {'prediction.export'},
    'torch': {
        *TRAINING,
        'training.config',
        'evaluation.ood',
        'evaluation.calibrate',
        'evaluation.audit',
        'evaluation.report',
        'prediction.export',
    },
    'torchvision': {'training.learner'},
    'pytorch_grad_cam': {'evaluation.audit'},
    'fasttransform': {'training.dataloaders'},
    'timm': {'training.learner'},
    'safetensors': {'training.learner'},
    'huggingface_hub': {'training.learner'},
    'accelerate': {'training.callbacks'},
    'mlflow': {'training.callbacks'},
    'trackio': {'training.callbacks'},
    'aiohttp': {'data.download'},
    'azure': {'data.sources'},
    'ddgs': {'data.sources'},
    'mlcroissant': {'data.dataset'},
    'cleanvision': {'data.verify'},
    'faiss': {'data.duplicates'},
    'cleanlab': {'data.issues', 'training.oof'},
    'voila': {'hosting'},
    'ray': {'prediction.scale'},
    'fastapi': {'prediction.serve'},
    'uvicorn': {'prediction.serve'},
    'sqlite3': {'data.dataset', 'data.download'},
}


def door(room: str) -> str:
    "The door that a room lies behind."
    return room.split('.')[0] if '.' in room else 'top' if room in ('demo', 'tutorial', 'cli') else 'root'


def file_of(room):
    return PACKAGE / f'{room.replace(".", "/")}.py'


@cache
def tree_of(room):
    return ast.parse(file_of(room).read_text(encoding='utf-8'))


def imports(room, top_level_only=False):
    "The modules that a room imports: dotted names, those of this package beginning with a dot."
    tree = tree_of(room)
    package = room.split('.')[:-1]
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.replace('cloud_classifier.', '.') for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').startswith('cloud_classifier')):
            above = package[: len(package) - node.level + 1] if node.level else []
            inner = (node.module or '').removeprefix('cloud_classifier').strip('.')
            names = '.'.join([*above, inner]).strip('.')
            rooms = [names] if names in ROOMS else [f'{names}.{alias.name}'.strip('.') for alias in node.names]
            yield from (f'.{name}' for name in rooms)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def ours(room, top_level_only=False):
    "The rooms that a room imports."
    return {name[1:] for name in imports(room, top_level_only) if name.startswith('.')} - {'__version__', room}


def test_each_room_is_in_the_plan():
    files = [p.relative_to(PACKAGE) for p in PACKAGE.rglob('*.py') if not p.stem.startswith('_')]
    assert {'.'.join(p.with_suffix('').parts) for p in files} == {*ROOMS, 'all'}


@pytest.mark.parametrize('room', ROOMS)
def test_rooms_import_what_the_plan_says(room):
    assert ours(room) == ROOMS[room]


@pytest.mark.parametrize('room', ROOMS)
def test_imports_run_one_way_from_door_to_door(room):
    above_evaluation = {'prediction.export'}  # it writes what evaluation found out
    # Where they are asked to, they keep photos, or verify them and take their fingerprints, and import that then.
    reaches_data = {'prediction.app': {'data.scrape'}, 'prediction.scale': {'data.verify', 'data.duplicates'}}
    may = DOORS['top' if room in above_evaluation else door(room)] | {door(room)}
    if room in reaches_data:
        assert not ours(room, top_level_only=True) & reaches_data[room]
        may |= {'data'}
    assert {door(other) for other in ours(room)} <= may


def test_no_room_is_imported_by_what_it_imports():
    from graphlib import TopologicalSorter

    assert len([*TopologicalSorter(ROOMS).static_order()]) == len(ROOMS)


@pytest.mark.parametrize(('library', 'rooms'), USERS.items())
def test_heavy_libraries_stay_in_their_rooms(library, rooms):
    assert {room for room in ROOMS if any(name.split('.')[0] == library for name in imports(room))} == rooms


@pytest.mark.parametrize(
    'room',
    [
        'taxonomy',
        'errors',
        'files',
        'images',
        'training.config',
        'prediction.decide',
        'prediction.infer',
        'prediction.watch',
        'cli',
    ],
)
def test_the_base_asks_for_the_base_install_alone(room):
    others = {name.split('.')[0] for name in imports(room, top_level_only=True) if not name.startswith('.')}
    assert others - set(sys.stdlib_module_names) <= BASE


@pytest.mark.parametrize(
    ('code', 'never'),
    [
        ('import cloud_classifier', 'numpy PIL onnxruntime torch fastai pandas'),
        ('import cloud_classifier.data', 'numpy torch fastai pandas'),
        ('import cloud_classifier.training', 'numpy torch fastai pandas'),
        ('import cloud_classifier.evaluation', 'numpy torch fastai pandas'),
        ('import cloud_classifier.prediction', 'numpy torch fastai pandas'),
        ('import cloud_classifier.training.config', 'numpy torch fastai pandas'),
        ('from cloud_classifier import genus', 'numpy torch fastai pandas'),
        ('from cloud_classifier import CloudClassifier, Preprocess', 'torch fastai pandas matplotlib'),
        ('from cloud_classifier import Dataset', 'torch fastai pandas'),
        ('import cloud_classifier.cli', 'torch fastai pandas'),
        ('import cloud_classifier.prediction.serve, fastapi, uvicorn', 'torch fastai pandas'),
    ],
)
def test_what_is_light_does_not_wait_for_what_is_heavy(code, never):
    done = run_bounded(f'{code}; import sys; print(*sys.modules)')
    assert done.status == 0, done.err
    assert not {*never.split()} & set(done.out.split())


SLOW_DOORS = [
    pytest.param(door, marks=pytest.mark.soak) for door in ('training.run', 'evaluation.report', 'prediction.export')
]


@pytest.mark.parametrize('door', ['all', *SLOW_DOORS])
def test_nothing_is_said_while_a_door_is_opened(door):
    done = run_bounded(f'import cloud_classifier.{door}')
    assert (done.status, done.err) == (0, '')


def test_sql_stands_in_the_manifest_alone():
    words = re.compile(r'\b(SELECT\b.*\bFROM|INSERT INTO|DELETE FROM|UPDATE \w+ SET|CREATE TABLE)\b', re.DOTALL)
    found = {room for room in ROOMS if words.search(file_of(room).read_text(encoding='utf-8'))}
    assert found == {'data.dataset'}


@pytest.mark.parametrize('room', ['cli', 'demo', 'tutorial'])
def test_what_stands_on_top_imports_the_torch_stages_when_they_are_needed(room):
    heavy = (USERS['torch'] | USERS['fastai']) - {'training.config'}  # needs torch only to read a file of weights
    assert not heavy & ours(room, top_level_only=True)


def test_every_public_name_is_where_the_package_says():
    import cloud_classifier

    homes = {
        name: getattr(cloud_classifier, name).__module__ for name in cloud_classifier.__all__ if not name.isupper()
    }
    assert homes == {name: f'cloud_classifier.{cloud_classifier._ROOMS[name]}' for name in homes}
    assert set(cloud_classifier.__all__) <= set(dir(cloud_classifier))
    with pytest.raises(AttributeError, match="'cloud_classifier' has no attribute 'clowds'"):
        getattr(cloud_classifier, 'clowds')  # noqa: B009


def test_notebook_users_get_every_room():
    exported = {}
    exec('from cloud_classifier.all import *', exported)
    assert {'genus', 'Dataset', 'split', 'cloud_learner', 'train', 'evaluate', 'export_run', 'CloudClassifier'} <= {
        *exported
    }
