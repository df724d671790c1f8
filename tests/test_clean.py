"Cleaning never loses a photo: whatever is marked, applied, cut off and undone, the tree is as it was."

import hashlib
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_classifier.data.clean import Cleaner, apply_fastai, label_issues, photo_name
from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.files import move_file

CLASSES = ('Cirrus', 'Stratus', 'Cumulus')
# The names collide on purpose: every class has a 1.jpg, two have a 2.jpg.
PHOTOS = ('Cirrus/1.jpg', 'Cirrus/2.jpg', 'Stratus/1.jpg', 'Stratus/2.jpg', 'Cumulus/1.jpg')


def make(root: Path) -> Cleaner:
    "A cleaner over files that differ in their bytes alone; the predictions contradict the last two labels."
    for n, photo in enumerate(PHOTOS):
        (root / photo).parent.mkdir(parents=True, exist_ok=True)
        (root / photo).write_bytes(b'photo %d' % n)
    labels = [photo.split('/')[0] for photo in PHOTOS]
    probs = np.array([[0.9, 0.05, 0.05], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.25, 0.05, 0.7], [0.9, 0.08, 0.02]])
    return Cleaner(Dataset(root), (PHOTOS, labels, probs, CLASSES))


def tree(root: Path) -> dict[str, str]:
    "The hash of each file of the dataset, the manifest apart."
    files = (p for p in root.rglob('*') if p.is_file() and not p.name.startswith('manifest.db'))
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def cleaner(tmp_path) -> Cleaner:
    return make(tmp_path / 'skies')


@pytest.fixture
def root(cleaner) -> Path:
    return cleaner.dataset.path


def test_the_least_believable_labels_come_first(cleaner):
    assert list(cleaner.top_losses(2).photo) == ['Cumulus/1.jpg', 'Stratus/2.jpg']
    assert list(cleaner.top_losses(label='ci').photo) == ['Cirrus/2.jpg', 'Cirrus/1.jpg']
    assert cleaner.top_losses(1).loss.item() == pytest.approx(-np.log(0.02))
    assert cleaner.most_confused() == [('Cumulus', 'Cirrus', 1), ('Stratus', 'Cumulus', 1)]
    assert cleaner.most_confused(min_val=2) == []


def test_whoever_only_looks_writes_nothing(cleaner, root):
    cleaner.top_losses()
    cleaner.most_confused()
    cleaner.mark_delete('Cirrus/1.jpg', 'a test')
    cleaner.unmark('Cirrus/1.jpg')
    assert len(cleaner.apply()) == 0
    assert cleaner.undo_all() == []
    assert len(apply_fastai(FastaiCleaner(root, {}), cleaner.dataset)) == 0
    assert sorted(p.relative_to(root).as_posix() for p in root.rglob('*') if p.is_file()) == sorted(PHOTOS)


def test_deleting_then_undoing_restores_bytes_and_place(cleaner, root):
    before = tree(root)
    cleaner.mark_delete('Cumulus/1.jpg', 'a bird')
    rows = cleaner.apply()
    assert list(rows.source) == ['Cumulus/1.jpg']
    assert rows.reason.item() == 'a bird'
    assert not (root / 'Cumulus/1.jpg').exists()
    assert (root / rows.target.item()).read_bytes() == b'photo 4'
    assert 'Cumulus/1.jpg' not in set(cleaner.label_issues.photo)
    assert cleaner.undo() == ['Cumulus/1.jpg']
    assert tree(root) == before
    assert cleaner.top_losses(1).photo.item() == 'Cumulus/1.jpg'


def test_relabelling_into_a_taken_name_keeps_both_photos(cleaner, root):
    before = tree(root)
    cleaner.mark_relabel('Cumulus/1.jpg', 'cirrus')
    target = cleaner.apply().target.item()
    assert target != 'Cirrus/1.jpg'
    assert (root / target).read_bytes() == b'photo 4'
    assert (root / 'Cirrus/1.jpg').read_bytes() == b'photo 0'
    cleaner.undo_all()
    assert tree(root) == before


def test_photos_that_change_places_are_not_mistaken_for_each_other(cleaner, root):
    "Stratus/1.jpg goes to Cumulus, and Cumulus/1.jpg then takes the name that it left."
    cleaner.mark_relabel('Stratus/1.jpg', 'Cumulus')
    cleaner.mark_relabel('Cumulus/1.jpg', 'Stratus')
    cleaner.apply()
    assert (root / 'Stratus/1.jpg').read_bytes() == b'photo 4'
    assert len(cleaner.pending) == 0
    assert not {'Stratus/1.jpg', 'Cumulus/1.jpg'} & set(cleaner.label_issues.photo)
    with pytest.raises(BadDataset, match='moved since'):
        cleaner.mark_delete('Stratus/1.jpg', 'not the photo that was doubted')


@pytest.mark.parametrize('fails', ['before the move', 'after the move'])
def test_apply_cut_off_half_way_is_consistent_and_can_be_undone(cleaner, root, monkeypatch, fails):
    before, rename, calls = tree(root), move_file, []

    def cut_off(source, target):
        calls.append(source)
        if len(calls) != 2 or fails == 'after the move':
            rename(source, target)
        if len(calls) == 2:
            raise KeyboardInterrupt

    for photo in PHOTOS[:3]:
        cleaner.mark_delete(photo, 'a test')
    with monkeypatch.context() as patch:
        patch.setattr('cloud_classifier.data.dataset.move_file', cut_off)
        with pytest.raises(KeyboardInterrupt):
            cleaner.apply()

    moved = 2 if fails == 'after the move' else 1
    assert list(cleaner.pending.photo) == list(PHOTOS[moved:3])
    assert list(cleaner.dataset.journal().source) == list(PHOTOS[:2])
    assert sorted(tree(root).values()) == sorted(before.values())

    cleaner.apply()  # goes on with what is left
    assert len(cleaner.pending) == 0
    assert not any((root / photo).exists() for photo in PHOTOS[:3])
    cleaner.undo_all()
    assert tree(root) == before
    assert cleaner.dataset.journal().undone.notna().all()


def test_undo_does_not_reach_past_what_others_moved(cleaner, root):
    before = tree(root)
    cleaner.mark_delete('Cirrus/1.jpg', 'a test')
    cleaner.apply()
    cleaner.dataset.relabel('Cirrus/2.jpg', 'Stratus', 'by hand')
    with pytest.raises(BadDataset, match='something else moved photos'):
        cleaner.undo()
    cleaner.dataset.undo()
    assert cleaner.undo(5) == ['Cirrus/1.jpg']
    assert cleaner.undo() == []
    assert tree(root) == before


def test_a_new_photo_under_an_old_name_is_doubted_like_any_other(cleaner, root):
    cleaner.dataset.relabel('Cirrus/1.jpg', 'Stratus', 'last week')
    (root / 'Cirrus/1.jpg').write_bytes(b'found today')
    later = Cleaner(cleaner.dataset, (['Cirrus/1.jpg'], ['Cirrus'], np.array([[0.1, 0.1, 0.8]]), CLASSES))
    assert list(later.label_issues.photo) == ['Cirrus/1.jpg']


def test_a_second_cleaner_leaves_the_first_ones_moves_alone(cleaner):
    cleaner.mark_delete('Cirrus/1.jpg', 'a test')
    cleaner.apply()
    labels = ['Cirrus', 'Stratus', 'Stratus', 'Cumulus']
    later = Cleaner(cleaner.dataset, (PHOTOS[1:], labels, np.eye(3)[[0, 1, 1, 2]], CLASSES))
    assert later.undo_all() == []
    assert cleaner.undo_all() == ['Cirrus/1.jpg']


def test_what_cannot_be_marked_says_why(cleaner):
    refused = {'Cirrus/9.jpg': 'has no prediction', '../1.jpg': 'is not in', '/srv/1.jpg': 'is not in'}
    for photo, says in refused.items():
        with pytest.raises(BadDataset, match=says):
            cleaner.mark_delete(photo, 'a test')
    with pytest.raises(BadDataset, match='new=True'):
        cleaner.mark_relabel('Cirrus/1.jpg', 'Cirrusish')
    with pytest.raises(BadDataset, match='under Cirrus already'):
        cleaner.mark_relabel('Cirrus/1.jpg', 'Ci')
    assert len(cleaner.pending) == 0


def test_marks_can_be_seen_changed_and_taken_back(cleaner, root):
    before = tree(root)
    cleaner.mark_delete('Cirrus/1.jpg', 'a bird')
    cleaner.mark_relabel('Cirrus/1.jpg', 'Contrail', 'straight', new=True)
    cleaner.mark_delete('Cirrus/2.jpg', 'a plane')
    assert cleaner.pending.to_numpy().tolist() == [
        ['Cirrus/1.jpg', 'relabel to Contrail', 'straight'],
        ['Cirrus/2.jpg', 'delete', 'a plane'],
    ]
    assert set(cleaner.top_losses(label='Cirrus').mark) == {'relabel to Contrail', 'delete'}
    cleaner.unmark('Cirrus/1.jpg')
    cleaner.unmark('Cirrus/2.jpg')
    assert len(cleaner.apply()) == 0
    assert tree(root) == before


def test_paths_are_read_from_anywhere(cleaner, root, monkeypatch):
    roundabout = root / 'Stratus' / '..' / 'Cirrus' / '1.jpg'
    for path in ('Cirrus/1.jpg', Path('Cirrus/1.jpg'), root / 'Cirrus/1.jpg', str(roundabout)):
        assert photo_name(cleaner.dataset, path) == 'Cirrus/1.jpg'
    monkeypatch.chdir(root.parent)
    for dataset in (cleaner.dataset, Dataset('skies')):
        assert photo_name(dataset, 'skies/Cirrus/1.jpg') == photo_name(dataset, root / 'Cirrus/1.jpg') == 'Cirrus/1.jpg'


def test_a_run_is_asked_for_the_part(cleaner):
    asked = []
    said = ([str(cleaner.dataset.path / 'Cirrus/1.jpg')], ['Cirrus'], np.array([[0.2, 0.7, 0.1]]), CLASSES, ['group'])
    run = SimpleNamespace(predictions=lambda part: asked.append(part) or said)
    assert Cleaner(cleaner.dataset, run, part='test').most_confused() == [('Cirrus', 'Stratus', 1)]
    assert asked == ['test']


def test_predictions_that_do_not_fit_are_refused(cleaner):
    with pytest.raises(ValueError, match='does not know Contrail'):
        label_issues(cleaner.dataset, ['Cirrus/1.jpg'], ['Contrail'], np.array([[1.0, 0, 0]]), CLASSES)
    with pytest.raises(ValueError, match='of shape'):
        label_issues(cleaner.dataset, ['Cirrus/1.jpg'], ['Cirrus'], np.array([[1.0, 0]]), CLASSES)


class FastaiCleaner:
    "What `apply_fastai` sees of fastai's ImageClassifierCleaner."

    def __init__(self, root: Path, choices: dict[str, str]):
        self.fns, self.choices = [root / photo for photo in PHOTOS], choices

    def chosen(self) -> list[tuple[int, str]]:
        return [(n, self.choices[photo]) for n, photo in enumerate(PHOTOS) if photo in self.choices]

    def delete(self) -> list[int]:
        return [n for n, choice in self.chosen() if choice == '<Delete>']

    def change(self) -> list[tuple[int, str]]:
        return [(n, choice) for n, choice in self.chosen() if choice != '<Delete>']


def test_choices_in_fastais_cleaner_go_through_the_journal(cleaner, root):
    before = tree(root)
    chosen = FastaiCleaner(root, {'Cirrus/1.jpg': '<Delete>', 'Stratus/1.jpg': 'Cumulus', 'Stratus/2.jpg': 'Stratus'})
    rows = apply_fastai(chosen, cleaner.dataset)
    assert list(rows.source) == ['Cirrus/1.jpg', 'Stratus/1.jpg']
    assert list(rows.action) == ['quarantine', 'relabel']
    assert sorted(tree(root).values()) == sorted(before.values())
    cleaner.dataset.undo(2)
    assert tree(root) == before


def test_a_cell_with_fastais_cleaner_that_is_run_twice_moves_nothing_twice(cleaner, root):
    before = tree(root)
    chosen = FastaiCleaner(root, {'Stratus/1.jpg': 'Cumulus', 'Cumulus/1.jpg': 'Stratus'})  # they change places
    assert len(apply_fastai(chosen, cleaner.dataset)) == 2
    assert len(apply_fastai(chosen, cleaner.dataset)) == 0
    cleaner.dataset.undo()
    chosen.choices['Cirrus/2.jpg'] = '<Delete>'
    assert list(apply_fastai(chosen, cleaner.dataset).source) == ['Cirrus/2.jpg', 'Cumulus/1.jpg']
    cleaner.dataset.undo(3)
    assert tree(root) == before


def test_a_photo_that_vanished_is_an_error_in_fastais_cleaner(cleaner, root):
    chosen = FastaiCleaner(root, {'Cirrus/1.jpg': '<Delete>'})
    (root / 'Cirrus/1.jpg').unlink()
    with pytest.raises(BadDataset, match='no such photo'):
        apply_fastai(chosen, cleaner.dataset)


photos = st.sampled_from(PHOTOS)
steps = st.one_of(
    st.tuples(st.just('delete'), photos),
    st.tuples(st.just('relabel'), photos, st.sampled_from([*CLASSES, 'Contrail'])),
    st.tuples(st.just('unmark'), photos),
    st.tuples(st.just('apply')),
    st.tuples(st.just('undo'), st.integers(0, 3)),
)


def take(cleaner: Cleaner, step: tuple):
    "One step. Marks may be refused; nothing else may."
    match step:
        case 'delete', photo:
            with suppress(BadDataset):
                cleaner.mark_delete(photo, 'a test')
        case 'relabel', photo, label:
            with suppress(BadDataset):
                cleaner.mark_relabel(photo, label, new=True)
        case what, *about:
            getattr(cleaner, what)(*about)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=12))
def test_nothing_is_ever_lost(path):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'skies'
        cleaner = make(root)
        before = tree(root)
        for step in path:
            take(cleaner, step)
            assert sorted(tree(root).values()) == sorted(before.values())
        cleaner.apply()
        cleaner.undo_all()
        assert tree(root) == before
        assert set(cleaner.label_issues.photo) == set(PHOTOS)
