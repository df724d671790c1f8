"fastai's own tools on the learner of a run: its cleaner, its interpretation, its pictures."

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.interpret import ClassificationInterpretation
from fastai.learner import load_learner
from fastai.vision.widgets import ImageClassifierCleaner
from IPython.display import display

from cloud_classifier.data.clean import Cleaner
from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.evaluation.report import Predictor
from cloud_classifier.prediction.export import export_model
from cloud_classifier.samples import make_samples
from cloud_classifier.training.config import BadRun
from cloud_classifier.training.run import Run, RunLoaders, train

# of what fastai's own code is warned by other libraries, and what it says of pickles
IGNORED = ('__array__ implementation', 'load_learner', 'Precision is ill-defined')
pytestmark = [pytest.mark.filterwarnings(f'ignore:{what}') for what in IGNORED]
GENERA = ['Cirrus', 'Stratus', 'Cumulus']
HOW = {
    'fine_tune': dict(recipe='fine_tune', arch='resnet18', weights='none', epochs=1, size=64),
    'scratch': dict(recipe='scratch', arch='timm/test_resnet', weights='none', epochs=1, size=32, balance=None),
    'weighted': dict(recipe='scratch', arch='timm/test_resnet', weights='none', epochs=1, size=32, balance='weighted'),
    'fast': dict(recipe='fast', arch='timm/test_resnet', size=32),
}


@pytest.fixture(scope='module')
def made(tiny_state, tmp_path_factory):
    "A function that trains once by each of `HOW`."
    place, runs = tmp_path_factory.mktemp('fastai'), {}
    make_samples(place / 'skies', per_genus=9, size=64, genera=GENERA)
    make_samples(place / 'more', per_genus=5, size=64, genera=['Cirrus'], seed=1)
    for photo in (place / 'more/Cirrus').iterdir():
        photo.rename(place / 'skies/Cirrus' / f'more-{photo.name}')
    torch.save(tiny_state, place / 'tiny.pth')

    def make(name):
        if name not in runs:
            how = HOW[name] | (dict(weights=str(place / 'tiny.pth')) if name == 'fast' else {})
            runs[name] = train(place / 'skies', out=place / name, bs=8, cache=False, progress=False, **how)
        return runs[name]

    return make


@pytest.fixture
def mine(made, tmp_path):
    "A function that copies a run and its photos, which may then be changed."

    def copy(name='scratch'):
        run = made(name)
        shutil.copytree(run.metadata['data'], tmp_path / 'skies')
        shutil.copytree(run.path, tmp_path / 'run')
        text = (tmp_path / 'run/run.json').read_text()
        (tmp_path / 'run/run.json').write_text(text.replace(run.metadata['data'], str(tmp_path / 'skies')))
        return Run(tmp_path / 'run')

    return copy


@pytest.fixture(autouse=True)
def notebook(monkeypatch):
    "What fastai's widgets find in a notebook."
    from matplotlib import pyplot

    pyplot.switch_backend('Agg')
    monkeypatch.setattr(builtins, 'display', display, raising=False)
    yield
    pyplot.close('all')


def losses(run, part):
    "Cross-entropy of each photo of a part by its path."
    paths, labels, probs, classes, _ = run.predictions(part)
    return {path: -np.log(p[classes.index(label)]) for path, label, p in zip(paths, labels, probs, strict=True)}


def choose(cleaner, choices):
    "Choose in the drop-down below each photo; `choices` by path."
    for fn, box in zip(cleaner.fns, cleaner.iw.widget.children, strict=True):
        box.children[1].value = choices.get(fn, '<Keep>')


@pytest.mark.parametrize('name', HOW)
def test_the_cleaner_shows_each_photo_of_both_parts(made, name):
    run = made(name)
    learn = run.learner()
    with learn.no_bar():
        cleaner = ImageClassifierCleaner(learn)
    assert list(cleaner.dd_cats.options) == run.metadata['classes']
    for option, part in (('Train', 'train'), ('Valid', 'valid')):
        cleaner.dd_ds.value, truth, shown = option, losses(run, part), []
        for label in cleaner.dd_cats.options:
            cleaner.dd_cats.value = label
            found = [truth[str(fn)] for fn in cleaner.fns]
            assert found == sorted(found, reverse=True), 'the highest loss stands first'
            assert {fn.parent.name for fn in cleaner.fns} <= {label}
            shown += [str(fn) for fn in cleaner.fns]
        assert sorted(shown) == sorted(truth)


@pytest.mark.parametrize('name', HOW)
def test_losses_are_those_of_the_photos_as_they_are_and_not_of_random_crops(made, name):
    run = made(name)
    learn = run.learner()
    for i, part in enumerate(('train', 'valid')):
        truth = losses(run, part)
        with learn.no_bar():
            found = ClassificationInterpretation.from_learner(learn, ds_idx=i)
        paths = [str(o) for o in found.dl.items]
        assert np.allclose(found.losses.numpy(), [truth[path] for path in paths], atol=1e-3)
        assert sorted(paths) == sorted(truth)


@pytest.mark.parametrize('name', HOW)
def test_interpretation_and_pictures_work(made, name):
    learn = made(name).learner()
    with learn.no_bar():
        found = ClassificationInterpretation.from_learner(learn)
        matrix = found.confusion_matrix()
        assert matrix.sum() == len(made(name).split.part('valid'))
        assert sum(n for *_, n in found.most_confused()) == matrix.sum() - np.trace(matrix)
        found.plot_top_losses(3)
        found.plot_confusion_matrix()
        found.print_classification_report()
        learn.show_results()
        learn.show_results(ds_idx=0)
    learn.dls.show_batch()
    learn.dls.valid.show_batch()
    assert learn.dls.one_batch()[0].shape[1:] == (3, HOW[name]['size'], HOW[name]['size'])


@pytest.mark.parametrize('part', ['Train', 'Valid'])
def test_choices_go_through_the_journal(mine, part):
    run = mine()
    dataset = Dataset(run.metadata['data'])
    before = {path: (dataset.path / path).read_bytes() for path, _ in dataset.photos()}
    learn = run.learner()
    with learn.no_bar():
        cleaner = ImageClassifierCleaner(learn)
    cleaner.dd_ds.value, cleaner.dd_cats.value = part, 'Cirrus'
    gone, moved = cleaner.fns[:2]
    choose(cleaner, {gone: '<Delete>', moved: 'Cumulus'})
    rows = Cleaner.from_fastai(cleaner).apply()
    assert sorted(zip(rows.action, rows.source, strict=True)) == [
        ('delete', f'Cirrus/{gone.name}'),
        ('relabel', f'Cirrus/{moved.name}'),
    ]
    assert not gone.exists()
    assert (dataset.path / 'Cumulus' / moved.name).read_bytes() == before[f'Cirrus/{moved.name}']
    assert Cleaner.from_fastai(cleaner).apply().empty, 'the cell is run a second time'
    assert run.split.changes.keys() == {'quarantined', 'relabelled'}
    again = run.learner()
    with again.no_bar():
        cleaner = ImageClassifierCleaner(again)
    shown = {Path(fn) for part in cleaner.iwis for fn in part.itemgot(0)}
    assert gone not in shown
    assert moved not in shown
    assert dataset.path / 'Cumulus' / moved.name in shown
    dataset.undo(2)
    assert {path: (dataset.path / path).read_bytes() for path, _ in dataset.photos()} == before


def test_training_goes_on_with_random_crops(made):
    learn = made('scratch').learner()
    one, two = (next(iter(learn.dls.train.new(dataset=learn.dls.train_ds, shuffle=False)))[0] for _ in range(2))
    assert not torch.equal(one, two)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert len(learn.dls.train_ds) == len(made('scratch').split.part('train'))


def test_photos_and_labels_are_those_of_now(mine):
    run = mine()
    moved, gone = run.split.part('train').path[run.split.part('train').label == 'Cirrus'].tolist()[:2]
    new, last = run.split.part('valid').path.tolist()[0], run.split.part('train').path.tolist()[-1]
    dataset = Dataset(run.metadata['data'])
    dataset.relabel(moved, 'Stratus')
    dataset.quarantine(gone, 'a test')
    dataset.relabel(new, 'Contrail')  # the network does not know this one
    (dataset.path / last).unlink()
    learn = run.learner()
    with learn.no_bar():
        cleaner = ImageClassifierCleaner(learn)
    cleaner.dd_cats.value = 'Stratus'
    assert dataset.path / 'Stratus' / moved.split('/')[1] in cleaner.fns
    names = {o.name for items in cleaner.iwis for o in items.itemgot(0)}
    assert not names & {o.split('/')[1] for o in (gone, new, last)}


def test_a_class_without_photos_keeps_its_place_among_the_classes(mine):
    run = mine()
    dataset = Dataset(run.metadata['data'])
    for path, label in list(dataset.photos()):
        if label == 'Stratus':
            dataset.quarantine(path, 'a test')
    learn = run.learner()
    with learn.no_bar():
        cleaner = ImageClassifierCleaner(learn)
    assert list(learn.dls.train.vocab) == list(learn.dls.vocab) == run.metadata['classes'] == GENERA
    truth = losses(run, 'train')
    assert all(np.isclose(loss, truth[str(fn)], atol=1e-3) for fn, _, loss in cleaner.iwis[0])
    cleaner.dd_cats.value = 'Stratus'
    assert list(cleaner.fns) == []


def test_a_part_without_photos_is_told(mine):
    run = mine()
    for photo in run.split.files('valid'):
        photo.unlink()
    with pytest.raises(BadRun, match=r'no photo of the part valid is left .*removed since the split was made'):
        ImageClassifierCleaner(run.learner())


def test_the_learner_predicts_where_its_dataset_is_gone(mine, tmp_path):
    run = mine()
    photo = shutil.copy(run.split.files('test')[0], tmp_path)
    shutil.rmtree(run.metadata['data'])
    learn = run.learner()
    with learn.no_bar():
        assert learn.predict(photo)[0] in GENERA
        probs, _ = learn.get_preds(dl=learn.dls.test_dl([photo]))
    assert probs.shape == (1, 3)
    assert 'vocab' in dir(learn.dls)
    with pytest.raises(BadDataset, match='there is no such folder'):
        ImageClassifierCleaner(learn)


def test_a_run_on_a_relative_path_is_looked_at_from_anywhere(made, tmp_path, monkeypatch):
    shutil.copytree(made('scratch').metadata['data'], tmp_path / 'skies')
    monkeypatch.chdir(tmp_path)
    run = train('skies', out='run', bs=8, cache=False, progress=False, **HOW['scratch'])
    monkeypatch.chdir('/')
    learn = Run(tmp_path / 'run').learner()
    with learn.no_bar():
        cleaner = ImageClassifierCleaner(learn)
        ClassificationInterpretation.from_learner(learn).plot_top_losses(2)
    assert cleaner.fns[0].is_file()
    assert run.metadata['classes'] == GENERA


def test_an_exported_learner_is_fastais_own(made, tmp_path):
    learn = made('scratch').learner()
    assert len(learn.dls.train_ds)
    learn.export(tmp_path / 'again.pkl')
    assert type(load_learner(tmp_path / 'again.pkl').dls) is DataLoaders
    assert isinstance(learn.dls, RunLoaders)


def test_loaders_change_their_device_together(made):
    learn = made('scratch').learner()
    learn.dls.to(torch.device('cpu', 1))
    assert learn.dls.device == learn.dls.train.device == learn.dls.valid.device == torch.device('cpu', 1)
    assert (
        learn.dls.cpu().device == learn.dls.train.device == learn.dls.test_dl(['sky.jpg']).device == torch.device('cpu')
    )


def test_reports_and_exports_do_not_wait_for_loaders(mine, monkeypatch, tmp_path):
    run = mine()

    def refuse(*args):
        raise AssertionError('loaders were made')

    monkeypatch.setattr(Run, 'make_loaders', refuse)
    run.predictions('valid')
    assert Predictor.from_run(run).classes == tuple(GENERA)
    export_model(run.learner(), tmp_path / 'clouds.onnx')
