"What always holds while labels are cleaned, whatever happens: each photo is there once, and the journal says where."

import hashlib
import itertools
import random
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from faults import Crash, crash, cut_off, fail
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from PIL import Image
from wholeness import files, whole

from cloud_classifier.data import clean
from cloud_classifier.data.clean import Cleaner, replay
from cloud_classifier.data.dataset import DECISIONS, BadDataset, Dataset
from cloud_classifier.files import file_hash
from cloud_classifier.taxonomy import read_label

SERVERS = Path(__file__).parent / 'servers'
LABELS = ('Altocumulus', 'Cirrus', 'Stratus', 'Contrail')
SPELLINGS = (*LABELS, 'Ac', 'stratus')
FOLDERS = ('Ac', 'altocumulus', 'Cirrus', 'Stratus')


def png(n):
    "The bytes of a small photo; those of another number are others."
    file = BytesIO()
    Image.fromarray(np.random.default_rng(n).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(file, 'png')
    return file.getvalue()


PHOTOS = [png(n) for n in range(12)]
# Two folders of one genus; a name in several folders with other bytes; the same bytes under two labels and in one.
START = {
    'Ac/0.png': 0,
    'Ac/1.png': 1,
    'Ac/twin.png': 1,
    'altocumulus/0.png': 2,
    'Cirrus/0.png': 3,
    'Cirrus/1.png': 4,
    'Stratus/0.png': 5,
    'Stratus/other.png': 3,
}


def make(root):
    "The photos of `START`."
    for path, n in START.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(PHOTOS[n])
    return root


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tree(root):
    "How often which bytes are at which path: once."
    return Counter((path, file_hash(file)) for path, file in files(root).items())


def labelled(photos):
    "The same without names: how often which bytes stand under which label, or in quarantine."
    found = Counter()
    for (path, sha), n in photos.items():
        folder = path.split('/')[0]
        found[folder if folder.startswith('.') else read_label(folder), sha] += n
    return found


def stored(photos):
    "How often which bytes are there at all."
    found = Counter()
    for (_, sha, *_), n in photos.items():
        found[sha] += n
    return found


def carried_out(photos, rows):
    """What rows of the journal that stand make of photos; a row whose photo was taken away by hand makes nothing.

    A photo has the number of the row after which it came, for a row moves no photo that was put there later."""
    here, later = Counter(), sorted(((since, path, sha) for path, sha, since in photos.elements()), reverse=True)
    for row in sorted(rows, key=lambda row: row['id']):
        while later and later[-1][0] < row['id']:
            here[later.pop()[1:]] += 1
        if row['action'] != 'keep' and here[row['source'], row['sha256']]:
            here[row['source'], row['sha256']] -= 1
            here[row['target'], row['sha256']] += 1
    return +here + Counter(o[1:] for o in later)


def decided_again(photos, rows):
    """How often which bytes stand under which label, once the decisions of rows that stand are made about photos again.

    Of equal photos in a class one stays there, and the others go to quarantine."""
    here = labelled(photos)
    for row in sorted(rows, key=lambda row: row['id']):
        given, sha = read_label(row['source'].split('/')[0]), row['sha256']
        if row['action'] in ('keep', 'rename') or not here[given, sha]:
            continue
        stays = row['action'] == 'relabel' and not here[row['label'], sha]
        here[given, sha] -= 1
        here[row['label'] if stays else '.quarantine', sha] += 1
    return +here


def begun(photos, since=0):
    "Photos with the number of the row of the journal after which they came."
    return Counter({(path, sha, since): n for (path, sha), n in photos.items()})


def taken_away(photos, rows, path, sha):
    "What the journal starts from, when somebody takes away the photo that it brought to a path."
    expected = carried_out(photos, rows) - Counter([(path, sha)])
    fewer = [photos - Counter([origin]) for origin in photos if origin[1] == sha]
    same_names = [o for o in fewer if carried_out(o, rows) == expected]
    same_labels = [o for o in fewer if labelled(carried_out(o, rows)) == labelled(expected)]
    return next(
        iter(same_names or same_labels), None
    )  # None: of equal photos the journal does not tell which one it was


def decisions(dataset):
    "What is decided and not applied."
    return {(row['sha256'], row['path']): (row['decision'], row['label']) for row in dataset.manifest.decisions()}


faults = st.one_of(  # none; what cuts off anything; what a disk may answer, on systems with and without such a rename
    st.just((0, 'before', crash, False)),
    st.tuples(st.integers(1, 40), st.sampled_from(['before', 'after']), st.just(crash), st.booleans()),
    st.tuples(st.integers(1, 25), st.just('before'), st.just(fail), st.booleans()),
)
chosen = st.integers(0, 30)


class Cleaning(RuleBasedStateMachine):
    "Two people clean one dataset; things break, and are changed by hand."

    def __init__(self):
        super().__init__()
        self.folder = TemporaryDirectory()
        self.root = make(Path(self.folder.name) / 'skies')
        self.dataset = Dataset(self.root)
        self.start = begun(tree(self.root))  # what the journal starts from
        self.by_hand = False  # whether anything was changed by hand
        self.traced = True  # whether the journal tells where each photo came from, after changes by hand
        self.cleaners = [Cleaner(self.root), Cleaner(self.root)]
        self.decided = {}

    def photo(self, n):
        photos = list(self.dataset.photos())
        return photos[n % len(photos)][0] if photos else None

    def standing(self):
        return self.dataset.manifest.standing_rows()

    def attempt(self, do, fault):
        "Do something that may be cut off, and restart where it was; only what was decided before may have changed."
        before, journal = decisions(self.dataset), len(self.dataset.journal())
        at, when, strike, links = fault
        with cut_off(at, when, strike, strike is crash, links):
            try:
                do()
            except Crash:
                self.cleaners = []
            except (BadDataset, OSError):
                pass
        if not self.cleaners:
            self.cleaners = [Cleaner(self.root), Cleaner(self.root)]
        self.dataset.manifest.carry_out()
        done = {(row.sha256, row.action) for row in self.dataset.journal()[journal:].itertuples() if not row.failed}
        self.decided = decisions(self.dataset)
        for (sha, path), (decision, label) in before.items():
            kept = self.decided.get((sha, path)) == (decision, label)
            assert kept or (sha, decision) in done, f'{decision} of {path} was forgotten'

    @rule(n=chosen, who=st.integers(0, 1), decision=st.sampled_from(DECISIONS), label=st.sampled_from(SPELLINGS))
    def decide(self, n, who, decision, label):
        path, name = self.photo(n), read_label(label)
        if path is None:
            return
        key = (file_hash(self.root / path), path)
        try:
            self.cleaners[who].decide(path, decision, label if decision == 'relabel' else None, new=True)
        except BadDataset:
            assert decisions(self.dataset) == self.decided
        else:
            now = decisions(self.dataset)
            assert now[key] == (decision, name if decision == 'relabel' else '')
            assert now.items() - {key: now[key]}.items() <= self.decided.items()
            lost = {(path, sha) for sha, path in self.decided.keys() - now.keys()}
            assert not lost & tree(self.root).keys(), 'one decision does not push out another'
            self.decided = now

    @rule(n=chosen, who=st.integers(0, 1))
    def withdraw(self, n, who):
        if not self.decided:
            return
        key = sorted(self.decided)[n % len(self.decided)]
        here, sha = tree(self.root), file_hash(self.root / key[1])
        with suppress(BadDataset):  # the other one decided meanwhile
            self.cleaners[who].withdraw(key[1])
            # what was decided about the same photo under a name that is gone is withdrawn as well
            self.decided = {
                k: v for k, v in self.decided.items() if k[1] != key[1] and (k[0] != sha or k[::-1] in here)
            }
        assert decisions(self.dataset) == self.decided

    @rule(who=st.integers(0, 1), fault=faults)
    def apply(self, who, fault):
        self.attempt(self.cleaners[who].apply, fault)

    @rule(who=st.integers(0, 1), n=st.integers(0, 4), fault=faults)
    def undo(self, who, n, fault):
        self.attempt(lambda: self.cleaners[who].undo(n), fault)

    @rule(who=st.integers(0, 1), fault=faults)
    def undo_session(self, who, fault):
        self.attempt(self.cleaners[who].undo_session, fault)

    @rule(n=st.integers(0, 4), fault=faults)
    def undo_the_last(self, n, fault):
        self.attempt(lambda: self.dataset.undo(n), fault)

    @rule(n=chosen, fault=faults)
    def undo_one(self, n, fault):
        rows = self.standing()
        if rows:
            self.attempt(lambda: self.dataset.undo(rows=[rows[n % len(rows)]['id']]), fault)

    @rule(n=chosen, fault=faults)
    def quarantine(self, n, fault):
        if path := self.photo(n):
            self.attempt(lambda: self.dataset.quarantine(path, 'a test'), fault)

    @rule(n=chosen, label=st.sampled_from(SPELLINGS), fault=faults)
    def relabel(self, n, label, fault):
        if path := self.photo(n):
            self.attempt(lambda: self.dataset.relabel(path, label, new_label=True), fault)

    @rule(fault=faults)
    def sync(self, fault):
        self.attempt(lambda: self.dataset.sync(progress=False), fault)

    @rule(fault=faults)
    def restart(self, fault):
        def start():
            self.cleaners = [Cleaner(self.root), Cleaner(self.root)]

        self.attempt(start, fault)

    def change(self, path, content):
        "Put other bytes in the place of a photo, or of nothing, or take it away, and take that in."
        file, rows, self.by_hand = self.root / path, self.standing(), True
        before = file_hash(file) if file.exists() else None
        after = None if content is None else sha256(content)
        if before == after:
            return  # the same bytes at the same path are the same photo
        if before is not None:
            fewer = taken_away(self.start, rows, path, before) if self.traced else None
            self.traced = fewer is not None
            self.start = begun(tree(self.root) - Counter([(path, before)])) if fewer is None else fewer
            file.unlink()
        if after is not None:
            # Undo can't tell a photo from an equal one that the journal once brought to this path.
            self.traced &= all((row['target'], row['sha256']) != (path, after) for row in rows)
            file.write_bytes(content)
            self.start[path, after, len(self.dataset.journal())] += 1

    @precondition(lambda self: self.may_change)
    @rule(n=chosen, other=st.integers(0, 11))
    def replace_by_hand(self, n, other):
        if path := self.photo(n):
            self.change(path, PHOTOS[other])

    @precondition(lambda self: self.may_change)
    @rule(n=chosen)
    def remove_by_hand(self, n):
        if path := self.photo(n):
            self.change(path, None)

    @precondition(lambda self: self.may_change)
    @rule(folder=st.sampled_from(FOLDERS), name=st.sampled_from(['0.png', '1.png', 'new.png']), n=st.integers(0, 11))
    def add_by_hand(self, folder, name, n):
        if not (self.root / folder / name).exists():
            (self.root / folder).mkdir(exist_ok=True)
            self.change(f'{folder}/{name}', PHOTOS[n])

    may_change = True

    @invariant()
    def nothing_is_lost_and_the_journal_explains_the_rest(self):
        here = tree(self.root)
        assert stored(here) == stored(self.start)
        if not self.traced:
            return
        told = carried_out(self.start, self.standing())
        if self.by_hand:
            assert labelled(here) == labelled(told)
        else:
            assert here == told
            whole(self.dataset, Counter(stored(here)))

    @invariant()
    def decisions_are_there_after_a_restart(self):
        assert decisions(Dataset(self.root)) == self.decided

    def check_replay(self, journal):
        copy, expected = Path(self.folder.name) / 'copy', decided_again(carried_out(self.start, ()), self.standing())
        undone = {row['sha256'] for row in self.dataset.manifest.journal_rows() if row['undone']}
        several = {sha for sha, n in stored(self.start).items() if n > 1}
        changed = (expected - (here := labelled(tree(self.root)))) + (here - expected)
        assert {sha for _, sha in changed} <= undone & several  # of equal photos another one may stay now
        for path, sha, _ in self.start:
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes(next(o for o in PHOTOS if sha256(o) == sha))
        for _ in range(2):
            replay(copy, journal)
            assert stored(tree(copy)) == stored(self.start)
            assert labelled(tree(copy)) == expected
        shutil.rmtree(copy)

    @precondition(lambda self: not self.by_hand)
    @rule(as_file=st.booleans())
    def replay(self, as_file):
        journal = self.dataset.journal()
        if as_file:
            journal.to_csv(Path(self.folder.name) / 'journal.csv')
        if len(journal):
            self.check_replay(Path(self.folder.name) / 'journal.csv' if as_file else journal)

    def teardown(self):
        with self.folder:
            with suppress(BadDataset):  # a photo that was changed or taken away by hand can't be put back
                self.dataset.undo(10**6)
            here = tree(self.root)
            assert stored(here) == stored(self.start)
            start = carried_out(self.start, ())
            assert not self.traced or labelled(here) == labelled(start)
            if not self.by_hand:
                assert here == start
                assert not self.standing()


class CleaningAlone(Cleaning):
    "The same, without changes by hand: names are restored, too."

    may_change = False


QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize('machine', [Cleaning, CleaningAlone])
def test_any_sequence_of_steps(machine):
    run_state_machine_as_test(machine, settings=settings(QUIET, max_examples=10, stateful_step_count=15))


@pytest.mark.soak
@pytest.mark.parametrize('machine', [Cleaning, CleaningAlone])
def test_many_long_sequences_of_steps(machine):
    run_state_machine_as_test(machine, settings=settings(QUIET, max_examples=300, stateful_step_count=40))


CHOSEN = {
    'Ac/0.png': ('relabel', 'Cirrus'),  # where another photo has its name
    'Cirrus/0.png': ('relabel', 'Stratus'),  # where the same photo is, under another name
    'Ac/twin.png': ('relabel', 'Contrail'),  # which no photo has yet
    'altocumulus/0.png': ('delete', ''),
    'Stratus/0.png': ('ambiguous', ''),
    'Cirrus/1.png': ('keep', ''),
}


def prepare(root):
    "Photos with decisions about them, that are not applied yet."
    cleaner = Cleaner(make(root))
    for path, (decision, label) in CHOSEN.items():
        cleaner.decide(path, decision, label or None, new=True)
    return root


def applied(root):
    "The same photos with their decisions applied."
    Cleaner(prepare(root)).apply()
    return root


def replayed(root):
    "Photos as they were at first, and a journal of what is to be done with them."
    applied(root.with_name('original'))
    Dataset(root.with_name('original')).journal().to_csv(root.with_name('journal.csv'))
    shutil.rmtree(root.with_name('original'))
    return make(root)


WORK = {
    'apply': (prepare, 'clean.Cleaner({root!r}).apply()'),
    'undo': (applied, 'clean.Cleaner({root!r}).undo_all()'),
    'replay': (replayed, 'clean.replay({root!r}, {root!r} + "/../journal.csv")'),
}
KILLED = """
import sys; sys.path.insert(0, {servers!r})
from cloud_classifier.data import clean
from faults import cut_off, kill
with cut_off({at}, {when!r}, kill, links={links}) as operations: {work}
print(len(operations))
"""


def do(server, root, work, at=0, when='before', links=False):
    "Do the work in a process of its own, which is killed at an operation; how many operations it had, None if killed."
    code = KILLED.format(servers=str(SERVERS), at=at, when=when, links=links, work=work.format(root=str(root)))
    child = server.start(code)
    status = child.wait()
    assert status in (0, -signal.SIGKILL), child.said()
    return int(child.said().split()[-1]) if status == 0 else None


def kill_at_each(server, folder, what, links, step, first=1):
    "Kill the work at each operation, and do it again; how often it was killed."
    make_it, work = WORK[what]
    template = make_it(folder / 'skies')
    before = tree(template)
    shutil.copytree(template, folder / 'undisturbed')
    operations = do(server, folder / 'undisturbed', work, links=links)
    after, kills = tree(folder / 'undisturbed'), 0
    assert after != before
    for at, when in itertools.islice(
        itertools.product(range(1, operations + 1), ('before', 'after')), first, None, step
    ):
        root = shutil.copytree(template, folder / 'killed')
        kills += do(server, root, work, at, when, links) is None
        assert stored(tree(root)) >= stored(before), (at, when)  # a file may have two names until it is repaired
        cleaner = Cleaner(root)  # repairs
        whole(cleaner.dataset, stored(before))
        if what == 'apply':
            done = {row.source for row in cleaner.dataset.journal().itertuples()}
            assert done | {path for _, path in decisions(cleaner.dataset)} == CHOSEN.keys(), (at, when)
        do(server, root, work)
        assert tree(root) == after, (at, when)
        Dataset(root).undo(100)
        assert tree(root) == Counter({(path, sha256(PHOTOS[n])): 1 for path, n in START.items()}), (at, when)
        shutil.rmtree(root)
    return kills


@pytest.mark.parametrize('links', [False, True], ids=['rename', 'link'])
@pytest.mark.parametrize('what', WORK)
def test_killed_here_and_there(server, tmp_path, what, links):
    assert kill_at_each(server, tmp_path, what, links, step=9, first=int(links)) >= 4


@pytest.mark.soak
@pytest.mark.parametrize('links', [False, True], ids=['rename', 'link'])
@pytest.mark.parametrize('what', WORK)
def test_killed_at_each_operation(server, tmp_path, what, links):
    assert kill_at_each(server, tmp_path, what, links, step=1, first=0) >= 30


HOLD = 'import time; from cloud_classifier.data import clean; c = clean.Cleaner({root!r}); print("open", flush=True)'


def test_who_comes_second_is_told_until_the_first_is_gone(server, tmp_path):
    root = make(tmp_path / 'skies')
    first = server.start(f'{HOLD.format(root=str(root))}; time.sleep(600)')
    first.wait_for(lambda: first.log.exists() and 'open' in first.said())
    with pytest.warns(UserWarning, match='another process has .* open for cleaning'):
        second = Cleaner(root)
    second.delete('Cirrus/0.png')
    second.apply()
    assert 'another process has' in second.notice
    first.kill()
    first.wait()
    assert second.notice == ''
    second.undo()
    assert stored(tree(root)) == Counter(sha256(PHOTOS[n]) for n in START.values())


def test_a_decision_of_another_process_is_not_overruled_unseen(server, tmp_path):
    root = make(tmp_path / 'skies')
    cleaner = Cleaner(root)
    cleaner.relabel('Cirrus/0.png', 'Altocumulus')
    server.run(f'{HOLD.format(root=str(root))}; c.decide("Cirrus/1.png", "delete"); c.delete("Ac/0.png"); c.apply()')
    assert 'decisions by others since this cleaner was opened' in cleaner.notice
    assert not (root / 'Cirrus/1.png').exists()
    with pytest.raises(BadDataset):
        cleaner.keep('Cirrus/1.png')  # it is gone
    whole(cleaner.dataset, Counter(sha256(PHOTOS[n]) for n in START.values()))


TOGETHER = """
import random, sys, time; sys.path.insert(0, {servers!r})
from contextlib import suppress
from cloud_classifier.data import clean, dataset
chance = random.Random({seed})
cleaner = clean.Cleaner({root!r})
for _ in range({rounds}):
    for path in list(cleaner.queue(decided=None).path):
        decision = chance.choice(['keep', 'relabel', 'delete', 'ambiguous', None])
        with suppress(dataset.BadDataset):
            if decision: cleaner.decide(path, decision, chance.choice({labels!r}) if decision == 'relabel' else None)
    for what in chance.choices([cleaner.apply, cleaner.undo_session, lambda: cleaner.undo(3)], k=3):
        with suppress(dataset.BadDataset): what()
"""


def clean_together(server, root, rounds, seed, kill=None):
    "Two processes clean one dataset; one of them is killed after `kill` seconds."
    before = tree(root)
    how = dict(servers=str(SERVERS), root=str(root), rounds=rounds, labels=LABELS)
    children = [server.start(TOGETHER.format(seed=seed * 2 + n, **how)) for n in (0, 1)]
    if kill is not None:
        time.sleep(kill)
        children[0].kill()
    status = [child.wait() for child in children]
    assert status[1] == 0, children[1].said()
    assert status[0] in (0, -signal.SIGKILL), children[0].said()
    dataset = Dataset(root)
    whole(dataset, stored(before))
    assert labelled(carried_out(begun(before), dataset.manifest.standing_rows())) == labelled(tree(root))
    dataset.undo(10**6)
    assert labelled(tree(root)) == labelled(before)
    return status[0] != 0


def time_together(server, root, rounds):
    "The seconds that two processes take which nobody kills."
    begun = time.monotonic()
    clean_together(server, root, rounds, seed=0)
    return time.monotonic() - begun


def test_two_cleaners_at_once(server, tmp_path):
    takes, chance = time_together(server, make(tmp_path / 'skies'), 3), random.Random(1)
    for n in range(3):
        clean_together(server, make(tmp_path / f'skies {n}'), 3, seed=n + 1, kill=chance.uniform(0, takes))


@pytest.mark.soak
def test_two_cleaners_of_which_one_is_killed_many_times(server, tmp_path):
    takes, chance, killed = time_together(server, make(tmp_path / 'skies'), 4), random.Random(2), 0
    for n in range(100):
        root = make(tmp_path / f'skies {n}')
        killed += clean_together(server, root, 4, seed=n + 10, kill=chance.uniform(0, takes))
    assert killed > 20


def decide_by_chance(root, file, photos, seed):
    "A file of decisions about photos."
    chance, lines = random.Random(seed), ['path,decision,label']
    labels = sorted({label for _, label in photos})
    for path, given in photos:
        decision = chance.choice(DECISIONS)
        label = chance.choice([label for label in labels if label != given]) if decision == 'relabel' else ''
        lines.append(f'"{path}",{decision},{label}')
    file.write_text('\n'.join(lines) + '\n')
    return file


def many(root, photos):
    "Photos that all differ, in three classes."
    for n in range(photos):
        file = root / LABELS[n % 3] / f'{n // 6}{"x" * (n // 3 % 2)}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(100 + n))
    return root


def command(server, *args):
    "Its exit status and what it printed."
    child = server.command(*args)
    return child.wait(), child.said()


def undisturbed(server, root, file, copy):
    "What `clean --apply` makes of a copy, and how many seconds it takes."
    shutil.copytree(root, copy)
    start = time.monotonic()
    status, said = command(server, 'clean', copy, '--apply', file)
    assert status == 0, said
    return tree(copy), time.monotonic() - start


def kill_commands(server, root, file, folder, times, seed):
    "Kill `clean --apply` at random, run it again, and undo; how often it was killed."
    before, chance, killed = tree(root), random.Random(seed), 0
    undisturbed(server, root, file, folder / 'first')  # which reads modules that are in memory from then on
    after, seconds = undisturbed(server, root, file, folder / 'undisturbed')
    assert after != before
    for _ in range(times):
        child = server.command('clean', root, '--apply', file)
        time.sleep(chance.uniform(0, seconds))
        child.kill()
        killed += child.wait() == -signal.SIGKILL
        whole(root, stored(before))
        status, said = command(server, 'clean', root, '--apply', file)
        assert status == 0, said
        assert tree(root) == after
        assert command(server, 'undo', root, '--all')[0] == 0
        assert tree(root) == before
    return killed


def test_the_command_is_killed_and_goes_on(server, tmp_path):
    root = many(tmp_path / 'skies', 60)
    file = decide_by_chance(root, tmp_path / 'decisions.csv', list(Dataset(root).photos()), seed=0)
    assert kill_commands(server, root, file, tmp_path, 4, seed=0) > 0


@pytest.mark.soak
def test_the_command_is_killed_over_real_photos_many_times(server, ccsn, tmp_path):
    root = tmp_path / 'skies'
    for path, _ in list(Dataset(ccsn).photos())[::8]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ccsn / path, root / path)
    file = decide_by_chance(root, tmp_path / 'decisions.csv', list(Dataset(root).photos()), seed=0)
    assert kill_commands(server, root, file, tmp_path, 200, seed=1) > 100


def test_commands_at_once_do_each_decision_once(server, tmp_path):
    root = many(tmp_path / 'skies', 60)
    photos, before = list(Dataset(root).photos()), tree(root)
    halves = [decide_by_chance(root, tmp_path / f'{n}.csv', photos[n::2], seed=n) for n in (0, 1)]
    children = [server.command('clean', root, '--apply', file) for file in (*halves, *halves)]
    for child in children:
        assert child.wait() == 0, child.said()
    whole(root, stored(before))
    rows = Dataset(root).journal()
    assert sorted(rows.source[rows.failed == '']) == sorted(path for path, _ in photos), 'no decision was done twice'
    assert command(server, 'undo', root, '--all')[0] == 0
    assert tree(root) == before


def test_a_command_says_that_another_process_cleans(server, tmp_path):
    root = many(tmp_path / 'skies', 12)
    first = server.start(f'{HOLD.format(root=str(root))}; time.sleep(600)')
    first.wait_for(lambda: first.log.exists() and 'open' in first.said())
    file = decide_by_chance(root, tmp_path / 'decisions.csv', list(Dataset(root).photos())[:3], seed=0)
    status, said = command(server, 'clean', root, '--apply', file)
    assert status == 0, said
    assert f'another process has {root} open for cleaning' in said
    first.kill()
    assert first.wait() == -signal.SIGKILL
    status, said = command(server, 'clean', root, '--apply', file)
    assert status == 0
    assert 'another process' not in said


@pytest.mark.parametrize('moment', ['_Places', '_Done', '_plan_batch'])
def test_another_process_may_be_faster_at_any_moment(tmp_path, monkeypatch, moment):
    root = many(tmp_path / 'skies', 30)
    file = decide_by_chance(root, tmp_path / 'decisions.csv', list(Dataset(root).photos()), seed=0)
    slow = getattr(clean, moment)

    def overtaken(*args):
        monkeypatch.setattr(clean, moment, slow)
        assert set(replay(root, file).status) == {'applied'}
        return slow(*args)

    monkeypatch.setattr(clean, moment, overtaken)
    assert set(replay(root, file).status) == {'done before'}
    rows = Dataset(root).journal()
    assert rows.source.is_unique
    assert (rows.failed == '').all()
