"Cleaning never loses a photo: whatever is decided, applied, cut off and undone, the tree is as it was."

import hashlib
import subprocess
import sys
import tempfile
import threading
import warnings
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from reading import read_line
from wholeness import files, whole

from cloud_classifier.data import clean
from cloud_classifier.data.clean import Cleaner, DecidedMeanwhile, NotApplied, photo_name
from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.files import move_file
from cloud_classifier.samples import render_sky

pytestmark = pytest.mark.usefixtures('forked')
CLASSES = ('Cirrus', 'Stratus', 'Cumulus')
# The names collide on purpose: every class has a 1.jpg, two have a 2.jpg.
PHOTOS = ('Cirrus/1.jpg', 'Cirrus/2.jpg', 'Stratus/1.jpg', 'Stratus/2.jpg', 'Cumulus/1.jpg')


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(root: Path) -> Dataset:
    "A dataset of files that differ in their bytes alone."
    for n, photo in enumerate(PHOTOS):
        (root / photo).parent.mkdir(parents=True, exist_ok=True)
        (root / photo).write_bytes(b'photo %d' % n)
    return Dataset(root)


SUGGESTED = ('Cirrus', 'Stratus', 'Stratus', 'Cumulus', 'Cirrus')
ISSUES = pd.DataFrame(
    [(p, sha(b'photo %d' % n), p.split('/')[0], SUGGESTED[n], n / 5) for n, p in enumerate(PHOTOS)][::-1],
    columns=['path', 'sha256', 'label', 'suggested', 'score'],
)


def tree(root: Path) -> dict[str, str]:
    "The hash of each file of the dataset, its own files apart."
    own = ('manifest.db', '.manifest.lock', '.cleaner.lock')
    files = (p for p in root.rglob('*') if p.is_file() and not p.name.startswith(own))
    return {p.relative_to(root).as_posix(): sha(p.read_bytes()) for p in files}


@pytest.fixture(params=['issues', 'all photos', 'synced'])
def cleaner(tmp_path, request) -> Cleaner:
    "A cleaner over photos of which the last ones are doubted the most."
    dataset = write(tmp_path / 'skies')
    if request.param == 'synced':
        dataset.sync(progress=False)
    return Cleaner(dataset, None if request.param == 'all photos' else ISSUES)


@pytest.fixture
def root(cleaner) -> Path:
    return cleaner.dataset.path


def paths(table) -> set[str]:
    return set(table.path)


def test_who_only_looks_writes_nothing(cleaner, root):
    before, there = tree(root), (root / 'manifest.db').exists()
    cleaner.queue(), cleaner.progress, cleaner.pending, cleaner.notice, cleaner.labels
    assert len(cleaner.apply()) == 0
    assert cleaner.undo() == cleaner.undo_all() == cleaner.undo_session() == []
    assert not cleaner.withdraw('Cirrus/1.jpg')
    assert tree(root) == before
    assert (root / 'manifest.db').exists() == there


def test_the_worst_come_first(tmp_path):
    cleaner = Cleaner(write(tmp_path / 'skies'), ISSUES)
    assert list(cleaner.queue().path) == list(PHOTOS[::-1])
    assert list(cleaner.queue(label='ci').path) == ['Cirrus/2.jpg', 'Cirrus/1.jpg']
    assert cleaner.queue().score.is_monotonic_decreasing


def test_a_photo_is_shown_once_for_its_first_issue(tmp_path):
    kinds = pd.concat([ISSUES.assign(kind='outlier', suggested=''), ISSUES.assign(kind='label')])
    cleaner = Cleaner(write(tmp_path / 'skies'), kinds)
    assert cleaner.queue().kind.tolist() == ['outlier'] * 5
    assert cleaner.queue(kind='label').kind.tolist() == ['label'] * 5
    cleaner.keep('Cirrus/1.jpg')
    assert len(cleaner.queue(kind='label')) == len(cleaner.queue(kind='outlier')) == 4
    assert cleaner.progress == (1, 5)
    assert len(cleaner.accept(9)) == 3  # those that have a suggestion, whatever they are shown for


def test_deleting_then_undoing_restores_bytes_and_place(cleaner, root):
    before = tree(root)
    cleaner.delete('Cumulus/1.jpg', 'a bird')
    rows = cleaner.apply()
    assert list(rows.source) == ['Cumulus/1.jpg']
    assert (rows.reason.item(), rows.given.item(), rows.label.item()) == ('a bird', 'Cumulus', '')
    assert (root / rows.target.item()).read_bytes() == b'photo 4'
    assert 'Cumulus/1.jpg' not in paths(cleaner.queue(decided=None))
    assert cleaner.progress == (1, 5)
    assert cleaner.undo() == ['Cumulus/1.jpg']
    assert tree(root) == before
    assert 'Cumulus/1.jpg' in paths(cleaner.queue())
    assert cleaner.progress == (0, 5)


def test_relabelling_into_a_taken_name_keeps_both_photos(cleaner, root):
    before = tree(root)
    cleaner.relabel('Cumulus/1.jpg', 'cirrus')
    row = cleaner.apply()
    target = row.target.item()
    assert (row.given.item(), row.label.item(), row.session.item()) == ('Cumulus', 'Cirrus', cleaner.session)
    assert target == 'Cirrus/1-1.jpg'
    assert (root / target).read_bytes() == b'photo 4'
    assert (root / 'Cirrus/1.jpg').read_bytes() == b'photo 0'
    cleaner.undo_all()
    assert tree(root) == before


@pytest.mark.parametrize('name', ['1.jpg', 'another name.jpg'])
def test_relabelling_to_where_the_same_photo_is_leaves_one_file_there(cleaner, root, name):
    twin = root / 'Cirrus' / name
    twin.write_bytes(b'photo 4')
    before = tree(root)
    cleaner.relabel('Cumulus/1.jpg', 'Cirrus', reason='threads')
    row = cleaner.apply()
    assert row.action.item() == 'relabel'
    assert row.label.item() == 'Cirrus'
    assert row.reason.item() == 'threads; the same photo is there already'
    assert row.target.item().startswith('.quarantine/')
    assert sorted(p.name for p in (root / 'Cirrus').iterdir()) == sorted({'1.jpg', '2.jpg', name})
    whole(cleaner.dataset, before_of(before))
    cleaner.undo()
    assert tree(root) == before


def before_of(tree):
    from collections import Counter

    return Counter(tree.values())


def test_copies_that_change_places_leave_one_file_in_each_class(cleaner, root):
    (root / 'Stratus/copy.jpg').write_bytes(b'photo 4')
    before = tree(root)
    later = Cleaner(cleaner.dataset)
    later.relabel('Cumulus/1.jpg', 'Stratus')
    later.relabel('Stratus/copy.jpg', 'Cumulus')
    later.apply()
    assert [sha(b'photo 4') in {sha(p.read_bytes()) for p in (root / c).iterdir()} for c in CLASSES] == [0, 0, 1]
    assert sorted(tree(root).values()) == sorted(before.values())
    later.undo_all()
    assert tree(root) == before


def test_photos_that_change_places_are_not_mistaken_for_each_other(cleaner, root):
    "Stratus/1.jpg goes to Cumulus, and Cumulus/1.jpg then takes the name that it left."
    before = tree(root)
    cleaner.relabel('Stratus/1.jpg', 'Cumulus')
    cleaner.relabel('Cumulus/1.jpg', 'Stratus')
    cleaner.apply()
    assert (root / 'Stratus/1.jpg').read_bytes() == b'photo 4'
    assert len(cleaner.pending) == 0
    assert not {'Stratus/1.jpg', 'Cumulus/1-1.jpg'} & paths(cleaner.queue())
    assert cleaner.progress == (2, 5)
    if not cleaner._is_listing:
        shown = cleaner.queue(decided=True).set_index('path').sha256
        assert dict(shown) == {'Stratus/1.jpg': sha(b'photo 4'), 'Cumulus/1-1.jpg': sha(b'photo 2')}
    cleaner.undo_session()
    assert tree(root) == before


def test_a_photo_that_took_anothers_name_is_not_decided_about_by_mistake(tmp_path):
    cleaner = Cleaner(write(tmp_path / 'skies'), ISSUES)
    cleaner.queue()
    (tmp_path / 'skies/Stratus/1.jpg').write_bytes(b'put there by hand')
    with pytest.raises(BadDataset, match='other bytes by now'):
        cleaner.delete('Stratus/1.jpg')


def test_decisions_are_found_after_a_restart_a_rename_and_a_move_between_folders_of_a_class(cleaner, root):
    cleaner.queue()
    cleaner.delete('Cumulus/1.jpg', 'a bird')
    cleaner.relabel('Stratus/1.jpg', 'Cirrus')
    (root / 'Cumulus').rename(root / 'Cu')
    (root / 'Stratus/1.jpg').rename(root / 'Stratus/renamed.jpg')
    later = Cleaner(cleaner.dataset)
    assert later.pending.decision.tolist() == ['delete', 'relabel']
    assert later.apply().source.tolist() == ['Cu/1.jpg', 'Stratus/renamed.jpg']
    assert len(later.pending) == len(cleaner.pending) == 0


def test_a_decision_about_a_label_that_changed_is_not_applied(cleaner, root):
    cleaner.delete('Cumulus/1.jpg')
    cleaner.keep('Stratus/2.jpg')
    cleaner.delete('Cirrus/2.jpg')
    (root / 'Cumulus/1.jpg').rename(root / 'Stratus/dragged.jpg')
    (root / 'Stratus/2.jpg').unlink()
    with pytest.raises(
        NotApplied, match='stands under Stratus by now; it was decided about under Cumulus; and 1 more'
    ) as e:
        cleaner.apply()
    assert list(e.value.rows.source) == ['Cirrus/2.jpg']
    assert e.value.reasons['Stratus/2.jpg'] == 'is not in the dataset any more'
    assert list(cleaner.pending.path) == ['Cumulus/1.jpg', 'Stratus/2.jpg']
    assert cleaner.withdraw('Cumulus/1.jpg')
    assert cleaner.withdraw('Stratus/2.jpg')
    assert len(cleaner.apply()) == 0


def test_an_edited_photo_is_not_the_one_that_was_decided_about(cleaner, root):
    cleaner.delete('Cumulus/1.jpg')
    (root / 'Cumulus/1.jpg').write_bytes(b'cropped')
    with pytest.raises(NotApplied, match='is not in the dataset any more'):
        cleaner.apply()
    assert (root / 'Cumulus/1.jpg').read_bytes() == b'cropped'


def test_a_photo_that_can_not_be_moved_stops_no_other_and_stays_decided_about(cleaner, root, monkeypatch):
    for photo in PHOTOS[:3]:
        cleaner.delete(photo)

    def refuse(source, target):
        if source.name == '2.jpg':
            raise PermissionError(13, 'Permission denied')
        move_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr('cloud_classifier.data.dataset.move_file', refuse)
        with pytest.raises(NotApplied, match=r'Cirrus/2.jpg: Permission denied') as e:
            cleaner.apply()
    assert e.value.reasons == {'Cirrus/2.jpg': 'Permission denied'}
    assert list(cleaner.pending.path) == ['Cirrus/2.jpg']
    assert list(cleaner.apply().source) == ['Cirrus/2.jpg']
    assert len(cleaner.undo(9)) == 3
    assert set(tree(root)) == set(PHOTOS)


@pytest.mark.parametrize('fails', ['before the move', 'after the move'])
def test_apply_cut_off_half_way_is_finished_by_the_next_cleaner(cleaner, root, monkeypatch, fails):
    before, calls = tree(root), []

    def cut_off(source, target):
        calls.append(source)
        if len(calls) != 2 or fails == 'after the move':
            move_file(source, target)
        if len(calls) == 2:
            raise KeyboardInterrupt

    for photo in PHOTOS[:3]:
        cleaner.delete(photo, 'a test')
    with monkeypatch.context() as patch:
        patch.setattr('cloud_classifier.data.dataset.move_file', cut_off)
        with pytest.raises(KeyboardInterrupt):
            cleaner.apply()
    assert sorted(tree(root).values()) == sorted(before.values())
    later = Cleaner(cleaner.dataset)
    assert len(later.pending) == 0
    assert list(later.dataset.journal().source) == list(PHOTOS[:3])
    assert not any((root / photo).exists() for photo in PHOTOS[:3])
    later.undo_all()
    assert tree(root) == before
    assert later.dataset.journal().undone.notna().all()


def test_undo_takes_back_the_last_decisions_of_earlier_sessions_too(cleaner, root):
    before = tree(root)
    for photo in PHOTOS[:3]:
        cleaner.keep(photo)
    cleaner.apply()
    later = Cleaner(cleaner.dataset, ISSUES)
    later.delete('Stratus/2.jpg')
    later.apply()
    assert later.undo(2) == ['Stratus/2.jpg', 'Stratus/1.jpg']
    assert later.undo_session(cleaner.session) == ['Cirrus/2.jpg', 'Cirrus/1.jpg']
    assert later.undo() == []
    assert tree(root) == before


def test_undo_of_one_row_and_through_the_dataset(cleaner, root):
    before = tree(root)
    cleaner.keep('Cirrus/1.jpg')
    cleaner.delete('Cirrus/2.jpg')
    cleaner.ambiguous('Stratus/1.jpg')
    rows = cleaner.apply()
    assert cleaner.dataset.undo(rows=[rows.index[1]]) == ['Cirrus/2.jpg']
    assert cleaner.dataset.undo(rows=[rows.index[1]]) == []
    assert cleaner.dataset.undo(last=1) == ['Stratus/1.jpg']
    assert cleaner.dataset.undo(session=cleaner.session) == ['Cirrus/1.jpg']
    assert tree(root) == before


def test_undo_leaves_alone_what_others_did_meanwhile(cleaner, root):
    before = tree(root)
    other = Cleaner(cleaner.dataset)
    cleaner.delete('Cirrus/1.jpg')
    cleaner.apply()
    cleaner.dataset.relabel('Cirrus/2.jpg', 'Stratus', 'by hand')
    other.delete('Stratus/1.jpg')
    other.apply()
    assert cleaner.undo(5) == ['Cirrus/1.jpg']
    assert cleaner.undo() == []
    cleaner.dataset.undo(2)
    assert tree(root) == before


def test_a_move_that_was_followed_by_another_is_taken_back_after_it(cleaner, root):
    cleaner.relabel('Cirrus/1.jpg', 'Stratus')
    (first,) = cleaner.apply().index
    later = Cleaner(cleaner.dataset)
    later.relabel('Stratus/1-1.jpg', 'Cumulus')
    later.apply()
    with pytest.raises(BadDataset, match='was moved again since'):
        later.dataset.undo(rows=[first])
    assert later.undo(2) == ['Stratus/1-1.jpg', 'Cirrus/1.jpg']


def test_a_kept_photo_does_not_hold_up_the_undo_of_what_came_before(cleaner, root):
    cleaner.relabel('Cirrus/1.jpg', 'Stratus')
    (first,) = cleaner.apply().index
    later = Cleaner(cleaner.dataset)
    later.keep('Stratus/1-1.jpg')
    later.apply()
    assert later.dataset.undo(rows=[first]) == ['Cirrus/1.jpg']
    assert later.undo() == ['Stratus/1-1.jpg']


def test_a_new_photo_under_an_old_name_is_doubted_like_any_other(cleaner, root):
    cleaner.dataset.relabel('Cirrus/1.jpg', 'Stratus', 'last week')
    (root / 'Cirrus/1.jpg').write_bytes(b'found today')
    row = dict(path=['Cirrus/1.jpg'], sha256=[sha(b'found today')], label=['Ci'])
    for issues in (pd.DataFrame(row), pd.DataFrame(row).drop(columns='sha256')):
        assert list(Cleaner(cleaner.dataset, issues).queue().path) == ['Cirrus/1.jpg']


def test_what_can_not_be_decided_says_why(cleaner, root):
    (root / 'loose.jpg').write_bytes(b'beside the folders')
    (root / 'Cirrus' / 'notes.txt').write_text('no photo')
    refused = {
        'Cirrus/9.jpg': 'there is no such photo',
        '../1.jpg': 'is not in',
        '/srv/1.jpg': 'is not in',
        'loose.jpg': 'is not a photo in a class folder',
        'Cirrus/notes.txt': 'is not a photo in a class folder',
        'Cirrus': 'there is no such photo',
    }
    for photo, says in refused.items():
        with pytest.raises(BadDataset, match=says) as e:
            cleaner.delete(photo)
        assert '\n' not in str(e.value)
    for label, says in {'Cirrusish': 'new=True', 'Ci': 'under Cirrus already', '.git': "can't be the name"}.items():
        with pytest.raises(BadDataset, match=says):
            cleaner.relabel('Cirrus/1.jpg', label)
    with pytest.raises(BadDataset, match='relabel needs the label'):
        cleaner.decide('Cirrus/1.jpg', 'relabel')
    with pytest.raises(BadDataset, match="'remove' is not a decision"):
        cleaner.decide('Cirrus/1.jpg', 'remove')
    with pytest.raises(BadDataset, match='only relabel takes a label'):
        cleaner.decide('Cirrus/1.jpg', 'keep', 'Stratus')
    assert len(cleaner.pending) == 0


def test_tables_that_are_no_issues_are_refused(cleaner):
    with pytest.raises(BadDataset, match='has no label'):
        Cleaner(cleaner.dataset, ISSUES.drop(columns='label'))
    with pytest.raises(BadDataset, match='is not in'):
        Cleaner(cleaner.dataset, ISSUES.assign(path='/etc/passwd'))
    with pytest.raises(BadDataset, match='parts are a split'):
        Cleaner(cleaner.dataset, ISSUES, parts=ISSUES)
    assert Cleaner(cleaner.dataset, ISSUES.head(0)).progress == (0, 0)
    assert len(Cleaner(cleaner.dataset, ISSUES.head(0)).queue()) == 0


def test_decisions_can_be_seen_changed_and_withdrawn(cleaner, root):
    before = tree(root)
    cleaner.delete('Cirrus/1.jpg', 'a bird')
    cleaner.relabel('Cirrus/1.jpg', 'Contrail', new=True, reason='straight\nand long')
    cleaner.delete('Cirrus/2.jpg', 'a plane')
    assert cleaner.pending[['path', 'decision', 'label', 'reason']].to_numpy().tolist() == [
        ['Cirrus/1.jpg', 'relabel', 'Contrail', 'straight and long'],
        ['Cirrus/2.jpg', 'delete', '', 'a plane'],
    ]
    assert set(cleaner.queue(label='Cirrus', decided=True).new_label) == {'Contrail', ''}
    assert cleaner.progress == (2, 5)
    assert cleaner.withdraw('Cirrus/1.jpg')
    assert cleaner.withdraw(root / 'Cirrus/2.jpg')
    assert len(cleaner.apply()) == 0
    assert tree(root) == before


def test_paths_are_read_from_anywhere(cleaner, root, monkeypatch):
    roundabout = root / 'Stratus' / '..' / 'Cirrus' / '1.jpg'
    for path in ('Cirrus/1.jpg', Path('Cirrus/1.jpg'), root / 'Cirrus/1.jpg', str(roundabout)):
        assert photo_name(cleaner.dataset, path) == 'Cirrus/1.jpg'
    monkeypatch.chdir(root.parent)
    for dataset in (cleaner.dataset, Dataset('skies')):
        assert photo_name(dataset, 'skies/Cirrus/1.jpg') == photo_name(dataset, root / 'Cirrus/1.jpg') == 'Cirrus/1.jpg'


# The test part


@pytest.mark.parametrize('known_by', ['path', 'sha256'])
def test_a_model_never_decides_about_test_photos_and_a_person_is_told_apart(tmp_path, known_by):
    parts = ISSUES.assign(part=['test', 'train', 'valid', 'test', 'train'])[[known_by, 'part']]
    if known_by == 'sha256':
        parts = parts.assign(path=[f'as it was/{n}.jpg' for n in range(5)])  # the split is older than the names
    cleaner = Cleaner(write(tmp_path / 'skies'), ISSUES, parts)
    assert list(cleaner.queue(part='test').path) == ['Cumulus/1.jpg', 'Cirrus/2.jpg']
    assert list(cleaner.accept(9).path) == ['Stratus/2.jpg']
    cleaner.delete('Cumulus/1.jpg')
    rows = cleaner.apply().set_index('source')
    assert dict(rows.part) == {'Cumulus/1.jpg': 'test', 'Stratus/2.jpg': 'train'}
    assert dict(rows.by) == {'Cumulus/1.jpg': 'person', 'Stratus/2.jpg': 'model'}
    assert rows.suggested['Stratus/2.jpg'] == 'Cumulus'
    assert rows.score['Stratus/2.jpg'] == pytest.approx(0.6)


def test_a_copy_of_a_test_photo_is_known_by_its_bytes(tmp_path):
    dataset = write(tmp_path / 'skies')
    (dataset.path / 'Stratus/copy.jpg').write_bytes(b'photo 4')
    parts = pd.DataFrame(dict(path=['Cumulus/1.jpg'], sha256=[sha(b'photo 4')], part=['test']))
    issues = pd.DataFrame(
        dict(path=['Stratus/copy.jpg', 'Cirrus/2.jpg'], label=['Stratus', 'Cirrus'], suggested='Cumulus')
    )
    assert list(Cleaner(dataset, issues, parts).accept(2).path) == ['Cirrus/2.jpg']


# Two at a time

HOLD = (
    'import sys; from cloud_classifier.data.clean import Cleaner; c = Cleaner(sys.argv[1]); print("open", flush=True); '
)


def start(root, code):
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD + code, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert read_line(process) == 'open\n'
    return process


def test_the_second_process_is_told_and_a_killed_one_does_not_count(tmp_path):
    dataset = write(tmp_path / 'skies')
    first = start(dataset.path, 'sys.stdin.read()')
    with pytest.warns(UserWarning, match='another process has .* open for cleaning'):
        cleaner = Cleaner(dataset)
    assert 'another process' in cleaner.notice
    first.kill()
    first.communicate(timeout=120)
    assert cleaner.notice == ''
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert Cleaner(dataset).notice == ''  # two of one process are fine


def test_a_decision_that_changed_meanwhile_is_not_overwritten_silently(cleaner):
    cleaner.delete('Cirrus/1.jpg')
    other = start(cleaner.dataset.path, 'c.keep("Cirrus/1.jpg"); c.keep("Cirrus/2.jpg")')
    other.communicate(timeout=120)
    assert '2 decisions by others' in cleaner.notice
    with pytest.raises(DecidedMeanwhile, match='another session decided keep meanwhile'):
        cleaner.ambiguous('Cirrus/1.jpg')
    with pytest.raises(DecidedMeanwhile):
        cleaner.withdraw('Cirrus/2.jpg')
    cleaner.ambiguous('Cirrus/1.jpg')  # knowing it
    assert cleaner.pending.decision.tolist() == ['keep', 'ambiguous']


def test_a_decision_that_was_applied_meanwhile_is_told(cleaner):
    cleaner.queue()
    start(cleaner.dataset.path, 'c.keep("Cirrus/1.jpg"); c.apply()').communicate(timeout=120)
    with pytest.raises(DecidedMeanwhile, match='decided keep meanwhile'):
        cleaner.delete('Cirrus/1.jpg')
    assert 'Cirrus/1.jpg' not in paths(cleaner.queue())
    cleaner.delete('Cirrus/1.jpg')


def test_apply_does_not_do_what_was_decided_otherwise_meanwhile(cleaner):
    cleaner.delete('Cirrus/1.jpg')
    start(cleaner.dataset.path, 'c.keep("Cirrus/1.jpg")').communicate(timeout=120)
    with pytest.raises(NotApplied, match='another session decided keep meanwhile'):
        cleaner.apply()
    assert cleaner.apply().action.tolist() == ['keep']


def test_two_that_apply_at_once_give_each_photo_one_row(tmp_path):
    dataset = write(tmp_path / 'skies')
    for n in range(60):
        (dataset.path / 'Cirrus' / f'many {n}.jpg').write_bytes(b'many %d' % n)
    before = before_of(tree(dataset.path))
    cleaner = Cleaner(dataset)
    for n, path in enumerate(cleaner.queue(label='Cirrus').path):
        cleaner.decide(path, ('keep', 'delete', 'relabel')[n % 3], 'Stratus' if n % 3 == 2 else None)
    both = [start(dataset.path, 'sys.stdin.readline(); c.apply()') for _ in range(2)]
    for process in both:
        process.stdin.write('go\n')
        process.stdin.flush()
    for process in both:
        process.communicate(timeout=120)
        assert process.returncode == 0
    journal = dataset.journal()
    assert journal.sha256.value_counts().tolist() == [1] * 62
    assert len(cleaner.pending) == 0
    whole(dataset, before)


def test_threads_of_one_process_share_the_lock(cleaner):
    notices = []
    thread = threading.Thread(target=lambda: notices.append(Cleaner(cleaner.dataset).notice))
    thread.start()
    thread.join()
    assert notices == ['']


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    dataset = write(tmp_path / 'skies')
    (tmp_path / 'secret').write_text('mine')
    (dataset.path / '.cleaner.lock').symlink_to(tmp_path / 'secret')
    with pytest.raises(BadDataset, match='is a link'):
        Cleaner(dataset)
    assert (tmp_path / 'secret').read_text() == 'mine'


def test_a_folder_that_can_not_be_written_to_is_shown(read_only, tmp_path):
    dataset = write(tmp_path / 'skies')
    cleaner = Cleaner(read_only(dataset.path), ISSUES)
    assert len(cleaner.queue()) == 5
    with pytest.raises(OSError, match="can't be read or written"):
        cleaner.keep('Cirrus/1.jpg')


# Decisions that strangers made


@pytest.mark.parametrize(
    'row',
    [
        ('delete', '../outside/secret.jpg', ''),
        ('relabel', 'Cirrus/1.jpg', '../outside'),
        ('relabel', 'Cirrus/1.jpg', '.git'),
        ('relabel', 'Cirrus/1.jpg', 'manifest.db'),
        ('unlink', 'Cirrus/1.jpg', ''),
        ('delete', 'Cirrus/\0.jpg', ''),
        ('delete', 'manifest.db', ''),
        ('keep', '/etc/passwd', 'x'),
    ],
)
def test_decisions_in_a_strangers_manifest_do_nothing_outside(tmp_path, row):
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside/secret.jpg').write_bytes(b'mine')
    dataset = write(tmp_path / 'skies')
    before = tree(tmp_path / 'skies')
    decision, path, label = row
    content = (
        Path('/etc/passwd').read_bytes() if path.startswith('/') else b'photo 0' if 'Cirrus/1' in path else b'mine'
    )
    with dataset.manifest.transaction() as db:
        values = dict(sha256=sha(content), path=path, decision=decision, given='Cirrus', label=label)
        dataset.manifest.put_decision(db, **values, session='theirs', by='person')
    cleaner = Cleaner(dataset)
    cleaner.queue(decided=None), cleaner.progress
    with pytest.raises(NotApplied) as e:
        cleaner.apply()
    assert '\n' not in str(e.value)
    assert (tmp_path / 'outside/secret.jpg').read_bytes() == b'mine'
    assert {path: tree(dataset.path)[path] for path in before} == before


# With fastai's cleaner


class FastaiCleaner:
    "What `from_fastai` sees of fastai's ImageClassifierCleaner."

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
    rows = Cleaner.from_fastai(chosen).apply()
    assert list(rows.source) == ['Cirrus/1.jpg', 'Stratus/1.jpg']
    assert list(rows.action) == ['delete', 'relabel']
    assert sorted(tree(root).values()) == sorted(before.values())
    cleaner.dataset.undo(2)
    assert tree(root) == before


def test_a_cell_with_fastais_cleaner_that_is_run_twice_moves_nothing_twice(cleaner, root):
    before = tree(root)
    chosen = FastaiCleaner(root, {'Stratus/1.jpg': 'Cumulus', 'Cumulus/1.jpg': 'Stratus'})  # they change places
    assert len(Cleaner.from_fastai(chosen).apply()) == 2
    assert len(Cleaner.from_fastai(chosen).apply()) == 0
    cleaner.dataset.undo()
    chosen.choices['Cirrus/2.jpg'] = '<Delete>'
    assert list(Cleaner.from_fastai(chosen, root).apply().source) == ['Cirrus/2.jpg', 'Cumulus/1.jpg']
    cleaner.dataset.undo(3)
    assert tree(root) == before


def test_a_photo_that_vanished_is_an_error_in_fastais_cleaner(cleaner, root):
    chosen = FastaiCleaner(root, {'Cirrus/1.jpg': '<Delete>'})
    (root / 'Cirrus/1.jpg').unlink()
    with pytest.raises(BadDataset, match='no such photo'):
        Cleaner.from_fastai(chosen)


photos = st.sampled_from(PHOTOS)
steps = st.one_of(
    st.tuples(st.sampled_from(['keep', 'delete', 'ambiguous']), photos),
    st.tuples(st.just('relabel'), photos, st.sampled_from([*CLASSES, 'Contrail'])),
    st.tuples(st.just('withdraw'), photos),
    st.tuples(st.just('apply')),
    st.tuples(st.just('undo'), st.integers(0, 3)),
)


@examples(40)
@given(st.lists(steps, max_size=12), st.booleans())
def test_nothing_is_ever_lost(path, batches):
    "Decisions may be refused; nothing else may."
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if batches:
            patch.setattr(clean, '_BATCH', 1)
        root = Path(folder) / 'skies'
        cleaner = Cleaner(write(root), ISSUES)
        before = tree(root)
        for what, *about in path:
            if what in ('apply', 'undo', 'withdraw'):
                getattr(cleaner, what)(*about)
            else:
                with suppress(BadDataset):
                    cleaner.decide(about[0], what, *about[1:], new=True)
            assert sorted(tree(root).values()) == sorted(before.values())
        cleaner.apply()
        cleaner.undo_all()
        assert tree(root) == before
        assert paths(cleaner.queue()) == set(PHOTOS)
        assert cleaner.progress == (0, 5)


def test_a_photo_whose_name_is_taken_gets_it_back_when_all_is_undone(tmp_path):
    root = tmp_path / 'skies'
    for label in ('Cirrus', 'Stratus', 'Cumulus'):
        (root / label).mkdir(parents=True)
        render_sky(label, 40).save(root / label / '0.png')
    before = {path: file.read_bytes() for path, file in files(root).items()}
    cleaner = Cleaner(root)
    for path, label in (('Stratus/0.png', 'Cumulus'), ('Cirrus/0.png', 'Stratus')):
        cleaner.relabel(path, label)
        cleaner.apply()
    first = cleaner.dataset.manifest.standing_rows()[-1]['id']
    assert cleaner.dataset.undo(rows=[first]) == ['Stratus/0-1.png']
    rows = cleaner.dataset.journal()
    assert tuple(rows.loc[first, ['action', 'source', 'target']]) == ('rename', 'Stratus/0.png', 'Stratus/0-1.png')
    undone = rows.iloc[-1]
    assert (undone.action, undone.target, undone.undone is None) == ('relabel', 'Cumulus/0-1.png', False)
    assert cleaner.dataset.undo(rows=[first]) == [], 'another photo still has its name'
    cleaner.undo_all()
    assert {path: file.read_bytes() for path, file in files(root).items()} == before
    assert not cleaner.dataset.manifest.standing_rows()
