"Fingerprints that lie in parts are searched in pieces, by any number of processes; the copies are those of one search."

import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reading import wait_for

from cloud_classifier.data import duplicates
from cloud_classifier.data.duplicates import (
    FEW_PHOTOS_LIMITS,
    FINGERPRINT,
    MAX_EXACT_SEARCH,
    THUMB_SIDE,
    TURNS,
    HashLimits,
    PartThumbs,
    candidates,
    find_archive_duplicates,
    find_pairs,
    fingerprint,
    limits_for,
    list_parts,
    part_fingerprints,
    part_rows,
    piece_size,
    run_here,
    search_parts,
    verify_blocks,
    verify_pairs,
)
from cloud_classifier.errors import OperationFailed, UserError
from cloud_classifier.prediction.scale import duplicates_archive, job_engine
from cloud_classifier.samples import render_sky

GENERA = ('Cirrus', 'Altocumulus', 'Cumulus', 'Stratocumulus', 'Stratus')


def perturbed(hashes, rng, share):
    "Hashes with each bit changed with a probability."
    return hashes ^ np.packbits(rng.random((*hashes.shape, 8)) < share, axis=-1)[..., 0]


def random_hashes(rng, n):
    "Hashes of few bits, so that many are alike; as of photos, those of one photo differ."
    few = np.packbits(rng.random((n, 13, 64)) < 0.1, axis=-1)
    return few if n < 2 else np.concatenate((few[: n // 2], perturbed(few[: n - n // 2], rng, 0.03)))


@pytest.fixture(scope='module')
def sky_hashes():
    "Of rendered skies, as fingerprints have them."
    skies = [render_sky(genus, seed=seed, size=96) for genus, seed in itertools.product(GENERA, range(8))]
    return np.stack([fingerprint(sky)['hashes'] for sky in skies])


@pytest.fixture
def few_lists(monkeypatch):
    "Inverted lists for hashes as few as a test has."
    monkeypatch.setattr(duplicates, 'MAX_EXACT_SEARCH', 20)
    monkeypatch.setattr(duplicates, 'MAX_LISTS', 12)
    monkeypatch.setattr(duplicates, 'PROBES', 3)


def by_definition(hashes, limits):
    "The candidates, by comparing each hash with each."
    bits = np.unpackbits(hashes, axis=-1)
    found = set()
    for a, b in itertools.permutations(range(len(hashes)), 2):
        differing = (bits[a] != bits[b, 0]).sum(-1)
        for which, most in enumerate([limits.as_is, *[limits.turned] * 7, *[limits.trimmed] * 5]):
            turn = which if which < len(TURNS) else 0
            if differing[which] <= most and turn != 5:
                found.add((a, b, turn) if turn == 3 else (min(a, b), max(a, b), turn))
    return sorted(found)


@settings(deadline=None)  # the first example imports faiss
@given(st.integers(0, 40), st.integers(1, 41), st.integers(0, 2**32 - 1), st.tuples(*[st.integers(0, 14)] * 3))
def test_pieces_always_have_the_pairs_of_all_hashes_together(n, piece, seed, limits):
    hashes, limits = random_hashes(np.random.default_rng(seed), n), HashLimits(*limits)
    pairs = candidates(hashes, limits, piece)
    assert pairs.tolist() == candidates(hashes, limits).tolist() == [list(o) for o in by_definition(hashes, limits)]


@pytest.mark.parametrize(('n', 'piece'), [(21, 1), (60, 7), (120, 119)])
@pytest.mark.parametrize('kind', ['random', 'skies'])
def test_pieces_have_the_pairs_that_inverted_lists_find_together(few_lists, sky_hashes, n, piece, kind):
    "Which are fewer than all, and the same however the hashes are cut."
    rng = np.random.default_rng(n)
    hashes = random_hashes(rng, n) if kind == 'random' else perturbed(sky_hashes[rng.integers(0, 40, n)], rng, 0.02)
    together = candidates(hashes, FEW_PHOTOS_LIMITS)
    assert len(together) > n / 20
    assert candidates(hashes, FEW_PHOTOS_LIMITS, piece).tolist() == together.tolist()
    assert {*map(tuple, together.tolist())} <= {*by_definition(hashes, FEW_PHOTOS_LIMITS)}


def test_more_hashes_than_are_compared_each_with_each_are_cut_as_well(sky_hashes):
    "With the real number of lists; many hashes are equally far from two centres."
    rng = np.random.default_rng(0)
    hashes = perturbed(sky_hashes[rng.integers(0, len(sky_hashes), MAX_EXACT_SEARCH + 1)], rng, 0.15)
    together = candidates(hashes, HashLimits(8, 4, 4))
    assert len(together) > 1000
    assert candidates(hashes, HashLimits(8, 4, 4), 7_000).tolist() == together.tolist()


def some_skies():
    "Fingerprints of skies, copies of them in several ways, and plain pictures."
    skies = [render_sky(genus, seed=seed, size=128) for genus, seed in itertools.product(GENERA, range(3))]
    copies = [sky.resize((96, 96)) for sky in skies[:4]] + [sky.transpose(TURNS[3]) for sky in skies[4:8]]
    copies += [sky.crop((3, 0, 128, 125)) for sky in skies[8:11]] + [skies[0], skies[12], skies[12]]
    plain = [Image.new('RGB', (64 + i, 64), (90,) * 3) for i in range(3)]
    return np.stack([fingerprint(sky) for sky in (*skies, *copies, *plain)])


@pytest.fixture(scope='module')
def rows():
    return some_skies()


def write_parts(folder, rows, sizes, group=4):
    "Parts of fingerprints, each with a photo more that can't be read."
    folder.mkdir(parents=True)
    for i, part in enumerate(np.split(rows, np.cumsum(sizes)[:-1])):
        columns = {'path': [f'{i}/{j} ü.jpg' for j in range(len(part))]}
        columns['content'] = [hashlib.sha256(o.tobytes()).hexdigest() for o in part]
        columns |= {name: [o[name].tobytes() for o in part] for name in ('pixels', 'hashes', 'thumb')}
        columns['pixels'] = [o.ljust(32, b'\0') for o in columns['pixels']]
        columns = {name: [*values, None] for name, values in columns.items()}
        columns['path'][-1] = f'{i}/broken.jpg'
        columns['error'] = [None] * len(part) + ['is no photo']
        pq.write_table(pa.table(columns), folder / f'{i:03}.parquet', row_group_size=group)
    return list_parts(sorted(folder.iterdir()))


@pytest.fixture
def parts(tmp_path, rows):
    return write_parts(tmp_path / 'parts', rows, [11, 0, 9, len(rows) - 20])


def in_numbers(prints, exact, near):
    "Positions of fingerprints as numbers of photos."
    numbers = prints.thumbs.numbers
    return numbers[exact].tolist(), np.column_stack((numbers[near[:, :2]], near[:, 2])).tolist()


def test_fingerprints_on_disk_are_those_in_memory(rows, parts, tmp_path):
    prints = part_fingerprints(parts)
    assert len(prints.names) == len(prints.thumbs) == len(rows)
    assert (prints.hashes == rows['hashes']).all()
    assert (prints.thumbs[:] == rows['thumb']).all()
    assert (prints.thumbs[np.array([3, 12, 30])] == rows['thumb'][[3, 12, 30]]).all()
    assert prints.bad == {f'{i}/broken.jpg': 'is no photo' for i in range(4)}
    np.save(tmp_path / 'rows.npy', rows)
    mapped = np.load(tmp_path / 'rows.npy', mmap_mode='r')
    memory, disk, file = (
        find_pairs(duplicates.Fingerprints(prints.names, prints.content, o['pixels'], o['hashes'], o['thumb'], {}))
        if o is not prints
        else find_pairs(prints)
        for o in (rows, mapped, prints)
    )
    assert len(memory[1]) >= 10
    for other in (disk, file):
        assert [o.tolist() for o in other] == [o.tolist() for o in memory]


def test_only_rows_that_are_wanted_are_read(parts):
    found = [(numbers.tolist(), len(table)) for numbers, table in part_rows(parts, ['path'], np.array([0, 1, 11, 25]))]
    assert found == [([0, 1], 2), ([11], 1), ([25], 1)]


def test_the_similarity_of_a_pair_does_not_depend_on_the_others(rows):
    "To the last bit, or two searches could differ in a pair."
    rng = np.random.default_rng(0)
    thumbs, pairs = rows['thumb'], np.stack((*rng.integers(0, len(rows), (2, 100)), rng.integers(0, 8, 100)), 1)
    pairs[:20] = [(i, 15 + i % 14, 0) for i in range(20)]
    together, order = verify_pairs(thumbs, pairs), rng.permutation(100)
    for block in (1, 30):
        assert verify_blocks(thumbs, pairs[order], block).tolist() == together[order].tolist()
    assert verify_pairs(thumbs, pairs, batch=3).tolist() == together.tolist()


@pytest.mark.parametrize(('size', 'shares'), [(None, 10**7), (1, 5), (10, 7)])
def test_a_search_in_pieces_finds_what_one_search_finds(parts, tmp_path, monkeypatch, size, shares):
    monkeypatch.setattr(duplicates, '_SHARE', shares)
    monkeypatch.setattr(duplicates, 'PAIRS_AT_ONCE', 9)
    prints = part_fingerprints(parts)
    exact, near, score = find_pairs(prints)
    found = search_parts(parts, tmp_path / 'work', size=size, progress=False)
    assert (found.exact.tolist(), found.near.tolist()) == in_numbers(prints, exact, near)
    assert found.score.tolist() == score.tolist()
    assert found.looked_at == len(prints.names)


def test_a_search_in_pieces_finds_what_inverted_lists_find(few_lists, parts, tmp_path):
    prints = part_fingerprints(parts)
    exact, near, _ = find_pairs(prints)
    found = search_parts(parts, tmp_path / 'work', size=10, progress=False)
    assert (found.exact.tolist(), found.near.tolist()) == in_numbers(prints, exact, near)
    assert len(near) > 0


class CutOff(Exception):
    pass


def cut_off_after(n, done):
    "A way to run jobs that ends in the middle of one."

    def run(jobs):
        for job in jobs:
            if len(done) == n:
                raise CutOff
            done.append(job.file)
            yield job()

    return run


def test_a_search_that_is_cut_off_at_any_job_goes_on(parts, tmp_path):
    out, whole, done, cuts = tmp_path / 'out', [], [], 0
    find_archive_duplicates([o.file for o in parts], tmp_path / 'whole', cut_off_after(-1, whole), progress=False)
    while not (out / 'duplicates.json').exists():
        try:
            find_archive_duplicates([o.file for o in parts], out, cut_off_after(cuts * 3 + 3, done), progress=False)
        except CutOff:
            cuts += 1
    assert cuts >= 1
    assert len(done) == len({*done}) == len(whole)
    for name in ('pairs.parquet', 'groups.parquet'):
        assert (out / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()
    assert sorted(o.name for o in out.iterdir()) == ['duplicates.json', 'groups.parquet', 'pairs.parquet']


def test_the_same_search_again_does_nothing_and_more_photos_are_searched(rows, parts, tmp_path):
    files, jobs = [o.file for o in parts], []
    first = find_archive_duplicates(files[:2], tmp_path / 'out', cut_off_after(-1, jobs), progress=False)
    many = len(jobs)
    assert find_archive_duplicates(files[:2], tmp_path / 'out', cut_off_after(-1, jobs), progress=False) == first
    assert len(jobs) == many
    more = find_archive_duplicates(files, tmp_path / 'out', progress=False)
    assert (first.looked_at, more.looked_at) == (11, len(rows))
    (tmp_path / 'out' / 'pairs.parquet').unlink()
    (tmp_path / 'out').rename(tmp_path / 'moved')
    again = find_archive_duplicates(files, tmp_path / 'moved', progress=False)
    assert again == replace(more, folder=str(tmp_path / 'moved'))
    assert (tmp_path / 'moved' / 'pairs.parquet').exists()


def test_pairs_and_groups_are_written_as_tables(parts, tmp_path):
    result = find_archive_duplicates([o.file for o in parts], tmp_path / 'out', progress=False)
    pairs = pq.read_table(tmp_path / 'out' / 'pairs.parquet').to_pylist()
    groups = pq.read_table(tmp_path / 'out' / 'groups.parquet').to_pylist()
    members = [{o['path'] for o in groups if o['group'] == i} for i in range(result.exact + result.near)]
    assert all(any({pair['photo'], pair['copy']} <= group for group in members) for pair in pairs)
    assert {o['kind'] for o in pairs} == {'exact', 'near'}
    assert 'rotate_90' in {o['turn'] for o in pairs}
    assert sum(map(len, members)) == result.copies == len(groups)
    assert result.summary().startswith(f'{result.copies} of 32 photos are copies of each other: 1 groups of equal')
    assert result.summary().endswith('; 4 could not be read')


@pytest.mark.parametrize('sizes', [[], [0], [1], [0, 1, 0]])
def test_archives_with_next_to_nothing(tmp_path, rows, sizes):
    parts = write_parts(tmp_path / 'parts', rows[: sum(sizes)], sizes) if sizes else []
    result = find_archive_duplicates([o.file for o in parts], tmp_path / 'out', progress=False)
    assert (result.looked_at, result.unreadable, result.copies) == (sum(sizes), len(sizes), 0)
    assert pq.read_table(tmp_path / 'out' / 'groups.parquet').num_rows == 0


def test_pieces_are_neither_many_nor_large():
    for n in (1, 20_000, 20_001, 300_000, 2 * 10**6, 10**8, 10**9):
        assert piece_size(n) <= max(250_000, n // 1000)
        assert n / piece_size(n) <= 1000


def test_nothing_is_shown_where_no_progress_is_wanted(parts, tmp_path):
    with redirect_stderr(io.StringIO()) as err:
        search_parts(parts, tmp_path / 'work', run_here, progress=False)
    assert err.getvalue() == ''


def test_thumbnails_fit_a_fingerprint():
    assert FINGERPRINT['thumb'].shape == (THUMB_SIDE, THUMB_SIDE)
    assert len(PartThumbs([], np.zeros(0, int))[:]) == 0


def archive_of_skies(folder):
    "A folder of photos, of which some are copies."
    for genus in GENERA:
        (folder / genus).mkdir(parents=True)
        for seed in range(2):
            render_sky(genus, seed=seed, size=160).save(folder / genus / f'ü {seed}.jpg')
        Image.open(folder / genus / 'ü 0.jpg').resize((120, 120)).save(folder / genus / 'small.png')
    (folder / 'Cumulus' / 'again.jpg').write_bytes((folder / 'Cirrus' / 'ü 1.jpg').read_bytes())
    (folder / 'Cumulus' / 'page.jpg').write_text('<html>')
    return folder


def groups_of(out):
    rows = pq.read_table(out / 'groups.parquet').to_pylist()
    paths = [[Path(o['path']) for o in rows if o['group'] == i] for i in range(1 + max(o['group'] for o in rows))]
    return sorted(sorted(f'{path.parent.name}/{path.name}' for path in group) for group in paths)


ENGINES = ['local', pytest.param('ray', marks=[pytest.mark.soak, pytest.mark.filterwarnings('ignore')])]


@pytest.mark.parametrize('engine', ENGINES)
def test_an_archive_has_the_duplicates_that_a_dataset_has(tmp_path, engine, command):
    photos = archive_of_skies(tmp_path / 'my skies')
    status, printed, err = command('duplicates', photos, '--out', tmp_path / 'out', '--engine', engine, '--json')
    assert status == 0, err
    told = json.loads(printed)
    assert told['errors'] == 1  # a photo can't be used
    dataset = duplicates.find_duplicates(photos, series=False, progress=False)
    assert groups_of(tmp_path / 'out') == sorted(sorted(o.photos) for o in dataset.groups)
    assert told['duplicates']['looked_at'] == dataset.looked_at == 16
    assert told['duplicates']['exact'] == sum(o.kind == 'exact' for o in dataset.groups) == 1
    status, printed, _ = command('duplicates', photos, '--out', tmp_path / 'out', '--engine', engine)
    assert printed.startswith(f'{tmp_path / "out"}: 1 of 1 shards are done')
    assert f'\n{told["duplicates"]["copies"]} of 16 photos are copies of each other: 1 groups of equal' in printed


HERE = os.pathsep.join(str(Path(__file__).parent / o) for o in ('', 'servers'))  # what a process needs for these jobs


@dataclass(frozen=True)
class Ending(duplicates.Job):
    "A job that ends its process the first times."

    times: int = 0

    def answer(self):
        tries = Path(f'{self.file}.tries')
        tries.write_text(tries.read_text() + '.' if tries.exists() else '.')
        if len(tries.read_text()) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.arange(3)


def test_a_process_that_ends_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', HERE)
    jobs = [Ending(str(tmp_path / f'{i}.npy'), times=i % 3) for i in range(5)]
    with job_engine(workers=2) as run:
        assert len(list(run(jobs))) == 5
        assert [np.load(o.file).tolist() for o in jobs] == [[0, 1, 2]] * 5
        with pytest.raises(OperationFailed, match=r'worked at .*last.npy ended 3 times'):
            list(run([Ending(str(tmp_path / 'last.npy'), times=9)]))


def test_what_a_job_says_is_said(tmp_path):
    job = duplicates.ListsJob(str(tmp_path / 'lists.npy'), str(tmp_path / 'gone.npy'), 'centres.npy')
    with job_engine(workers=1) as run, pytest.raises(OperationFailed, match=r'gone.npy: No such file'):
        list(run([job]))


def test_processes_end_when_their_command_is_killed(tmp_path):
    "And leave no file that is not whole."
    code = (
        'import sys\n'
        'from cloud_classifier.prediction.scale import job_engine\n'
        'from test_archive_duplicates import Sleeping\n'
        'with job_engine(workers=2) as run: list(run([Sleeping(f"{sys.argv[1]}/{i}") for i in range(2)]))\n'
    )
    words = [sys.executable, '-c', code, str(tmp_path)]
    env = os.environ | {'PYTHONPATH': HERE}
    with subprocess.Popen(words, env=env) as process:
        wait_for(lambda: len(list(tmp_path.glob('*.pid'))) == 2)
        process.kill()
    pids = [int(o.read_text()) for o in tmp_path.glob('*.pid')]
    wait_for(lambda: not any(Path(f'/proc/{pid}').exists() for pid in pids))
    assert not list(tmp_path.glob('*.tmp')) + [tmp_path / str(i) for i in range(2) if (tmp_path / str(i)).exists()]


@dataclass(frozen=True)
class Sleeping(duplicates.Job):
    "A job that takes long, and says in which process."

    def answer(self):
        pid = Path(f'{self.file}.pid')
        pid.with_suffix('.new').write_text(str(os.getpid()))
        pid.with_suffix('.new').rename(pid)
        time.sleep(60)
        return np.zeros(1)


def test_an_archive_in_a_bucket_is_refused_in_a_line(tmp_path):
    with pytest.raises(UserError, match=r's3://b/out: duplicates are searched for on a disk'):
        duplicates_archive([tmp_path], 's3://key:secret@b/out?scheme=http')


def test_hashes_may_differ_less_where_there_are_more_photos():
    limits = [limits_for(n) for n in (20_000, 20_001, 500_000, 500_001)]
    assert limits[0] != limits[1] == limits[2] != limits[3]
    for more, fewer in itertools.pairwise(limits):
        assert fewer.as_is <= more.as_is
        assert fewer.turned <= more.turned


def test_a_command_that_is_killed_goes_on(tmp_path):
    "With what its jobs have finished."
    photos, out = archive_of_skies(tmp_path / 'skies'), tmp_path / 'out'
    command = [sys.executable, '-m', 'cloud_classifier.cli', 'duplicates', photos, '--out', out, '--engine', 'local']
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        wait_for(lambda: list(out.glob('search-*/pieces/*.npy')), 60)
        child.kill()
    kept = {o: o.stat().st_mtime_ns for o in out.glob('search-*/*/*.npy')}
    find_archive_duplicates(sorted(out.glob('parts/*/*.parquet')), tmp_path / 'whole', progress=False)
    jobs = []
    find_archive_duplicates(sorted(out.glob('parts/*/*.parquet')), out, cut_off_after(-1, jobs), progress=False)
    assert kept
    assert not {*map(str, kept)} & {*jobs}
    assert (out / 'pairs.parquet').read_bytes() == (tmp_path / 'whole' / 'pairs.parquet').read_bytes()
