"The walks of CONTRIBUTING.md are true: the functions that they list are called, in that order."

import re
import shutil
import sys
import threading
from importlib import import_module
from inspect import unwrap

import pytest
from readme import ROOT


def walk(title):
    "The names of the functions that a walk lists."
    text = (ROOT / 'CONTRIBUTING.md').read_text().partition(f'### {title}\n')[2].partition('\n#')[0]
    return re.findall(r'^\d+\. `([\w.]+)`', text, re.MULTILINE)


def code_of(name):
    "The code of a function or a method, by its dotted name below the package."
    parts = name.split('.')
    for n in range(len(parts) - 1, 0, -1):
        try:
            thing = import_module('.'.join(['cloud_classifier', *parts[:n]]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            thing = getattr(thing, part)
        return unwrap(thing.fget if isinstance(thing, property) else thing).__code__
    raise ModuleNotFoundError(name)


def called(do):
    "The code that runs while `do` runs, in the order of first calls, in whichever thread."
    order = {}

    def note(frame, event, arg):
        if event == 'call':
            order.setdefault(frame.f_code, len(order))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        do()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return order


def check(title, do):
    names = walk(title)
    assert len(names) > 5
    codes = {name: code_of(name) for name in names}  # a name that leads nowhere fails here
    order = called(do)
    assert [name for name in names if codes[name] not in order] == []
    assert sorted(names, key=lambda name: order[codes[name]]) == names


def test_one_photo_from_path_to_answer(command, skies):
    model = ROOT / 'models' / 'clouds.onnx'
    check('One photo, from path to answer', lambda: command('predict', next(skies.rglob('*.jpg')), '--model', model))


def test_one_dataset_from_folder_to_report(skies, tmp_path):
    from cloud_classifier.evaluation.report import evaluate
    from cloud_classifier.training.run import train

    def go():
        small = {'arch': 'timm/test_resnet', 'size': 32, 'epochs': 1, 'weights': 'none', 'bs': 8}
        run = train(skies, **small, out=tmp_path / 'run', progress=False)
        evaluate(run).save(run.path)

    check('One dataset, from folder to report', go)


def test_one_label_from_doubt_to_decision(command, skies, tmp_path):
    data = shutil.copytree(skies, tmp_path / 'skies')
    photos = [(path, path.relative_to(data).parts[0]) for path in sorted(data.rglob('*.jpg'))]
    rows = [f'{path.relative_to(data).as_posix()},{label},.5,.3,.2' for path, label in photos]
    (tmp_path / 'oof.csv').write_text('\n'.join(['path,label,Cirrus,Stratus,Cumulus', *rows]))
    (tmp_path / 'decisions.csv').write_text(f'path,decision\n{rows[0].split(",")[0]},delete\n')

    def go():
        command('issues', data, '--oof', tmp_path / 'oof.csv')
        command('clean', data, '--apply', tmp_path / 'decisions.csv')

    check('One label, from doubt to decision', go)


TITLES = 'One photo, from path to answer', 'One dataset, from folder to report', 'One label, from doubt to decision'


@pytest.mark.parametrize('title', TITLES)
def test_a_walk_that_is_turned_round_is_noticed(title):
    names = walk(title)
    order = {code_of(name): i for i, name in enumerate(reversed(names))}
    assert sorted(names, key=lambda name: order[code_of(name)]) != names
