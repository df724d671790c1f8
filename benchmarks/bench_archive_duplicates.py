"""What a search for duplicates costs as an archive grows, and whether it finds what one search in one process finds.

    python benchmarks/bench_archive_duplicates.py --photos FOLDER [--counts 20000 200000 2000000] [--equal 200000]
        [--engine local] [--work FOLDER]

FOLDER holds real photos, such as CCSN; it is only read. The fingerprints of an archive are made from theirs. A sky is
a real photo with 3 of 16 bits changed in each hash, about as different photos differ that are alike; its thumbnail is
the mean of two photos'. The first rows say how many pairs are alike by chance among real photos, and how many fewer
among these. Of 100 photos one has all bytes of another one, and four are near copies: the hashes differ from the sky's
in just the bits in which a real copy (saved again at quality 40, at half the size, 3 % cropped at two or four sides,
brighter) differs from its photo, and the thumbnail is the mean of the same copies of the two photos. Searches of up to
`--equal` photos are done a second time in one process, and compared. 2,000,000 photos take 9 GB in WORK (a temporary
folder where there is none). Writes benchmarks/results/archive_duplicates.csv.
"""

import argparse
import csv
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance

from cloud_classifier.data.duplicates import (
    MANY_PHOTOS_LIMITS,
    MILLIONS_LIMITS,
    MIN_AGREEMENT,
    MIN_CORRELATION,
    READ_SIDE,
    THUMB_SIDE,
    candidates,
    find_pairs,
    fingerprint,
    limits_for,
    list_parts,
    part_fingerprints,
    search_parts,
    verify_pairs,
)
from cloud_classifier.images import core_count, open_image
from cloud_classifier.prediction.scale import job_engine

RESULTS = Path(__file__).parent / 'results' / 'archive_duplicates.csv'
PART = 10_000  # photos
PIXEL_BITS = 0xFC  # of a thumbnail's 8: the others are noise, and would double what 2,000,000 photos take


def cut(img, left, top, right, bottom, share=0.03):
    "The photo without a strip at some sides."
    x, y = round(share * img.width), round(share * img.height)
    return img.crop((left * x, top * y, img.width - right * x, img.height - bottom * y))


def saved(img, quality=90):
    "The photo as a JPEG file has it."
    file = io.BytesIO()
    img.save(file, 'JPEG', quality=quality)
    return Image.open(file).convert('RGB')


COPIES = [
    partial(saved, quality=40),
    lambda img: saved(img.resize((img.width // 2, img.height // 2))),
    lambda img: saved(cut(img, 1, 0, 0, 1)),
    lambda img: saved(cut(img, 1, 1, 1, 1)),
    lambda img: saved(ImageEnhance.Brightness(img).enhance(1.1)),
]


def real_fingerprints(files):
    "Fingerprints of real photos, and of five copies of each: (n, 6)."

    def prints(file):
        img = open_image(file, min_side=READ_SIDE)
        return np.stack([fingerprint(img), *(fingerprint(copy(img)) for copy in COPIES)])

    with ThreadPoolExecutor(2) as pool:
        return np.stack([*pool.map(prints, files)])


def mean(a, b):
    "The thumbnails half-way between others."
    return ((a.astype(np.uint16) + b) // 2).astype(np.uint8) & PIXEL_BITS


def changed(hashes, rng):
    "Hashes with each bit changed with a probability of 3/16."
    a, b, c, d = rng.integers(0, 256, (4, *hashes.shape), dtype=np.uint8)
    return hashes ^ (a & b & (c | d))


class Archive:
    "So many fingerprints, made a part at a time."

    def __init__(self, real, photos):
        rng = np.random.default_rng(0)
        self.real, self.photos = real, photos
        self.made = rng.integers(0, len(real), (photos, 2))
        self.hashes = changed(real['hashes'][self.made[:, 0], 0], rng)
        self.kind, self.digest, chosen = np.zeros(photos, int), np.arange(photos), rng.permutation(photos)
        exact, near = chosen[: photos // 100], chosen[photos // 100 : photos // 20]
        copies, skies = chosen[: photos // 20], rng.choice(chosen[photos // 20 :], photos // 20)
        self.made[copies], self.hashes[copies] = self.made[skies], self.hashes[skies]
        self.digest[exact] = skies[: len(exact)]
        self.kind[near] = rng.integers(1, 1 + len(COPIES), len(near))
        photo, kind = self.made[near, 0], self.kind[near]
        self.hashes[near] ^= real['hashes'][photo, 0] ^ real['hashes'][photo, kind]
        self.copies = {tuple(sorted(o)) for o in zip(near.tolist(), skies[len(exact) :].tolist(), strict=True)}

    def part(self, first):
        "A table of fingerprints."
        some = slice(first, first + PART)
        (a, b), kind = self.made[some].T, self.kind[some]
        thumbs = mean(self.real['thumb'][a, kind], self.real['thumb'][b, kind])
        digests = [int(o).to_bytes(32) for o in self.digest[some] + 1]
        values = {
            'path': [f'{first // PART:06}.tar/{i:08}.jpg' for i in range(first, first + len(a))],
            'content': [o.hex() for o in digests],
            'pixels': pa.array(digests, pa.binary(32)),
            'hashes': pa.array([o.tobytes() for o in self.hashes[some]], pa.binary(104)),
            'thumb': pa.array([o.tobytes() for o in thumbs], pa.binary(THUMB_SIDE**2)),
            'error': pa.nulls(len(a), pa.string()),
        }
        return pa.table(values)

    def write(self, folder):
        "All parts."
        for first in range(0, self.photos, PART):
            pq.write_table(self.part(first), folder / f'{first:09}.parquet', compression='zstd', row_group_size=500)
        return list_parts(sorted(folder.iterdir()))


def alike_by_chance(hashes, thumbs):
    "Candidates that are no copies, of a million pairs of photos, within each of the limits."
    pairs = len(hashes) * (len(hashes) - 1) / 2
    for limits in (MANY_PHOTOS_LIMITS, MILLIONS_LIMITS):
        found = candidates(hashes, limits)
        is_copy = (verify_pairs(thumbs, found) >= (MIN_CORRELATION, MIN_AGREEMENT)).all(1)
        others = {*map(tuple, found[~is_copy, :2].tolist())} - {*map(tuple, found[is_copy, :2].tolist())}
        yield limits, len(others) / pairs * 1e6


class Timed:
    "A way to run jobs that adds up their seconds by kind."

    def __init__(self, run):
        self.run, self.seconds = run, {}

    def __call__(self, jobs):
        start = perf_counter()
        yield from self.run(jobs)
        if jobs:
            kind = type(jobs[0]).__name__
            self.seconds[kind] = self.seconds.get(kind, 0) + perf_counter() - start


STEPS = {
    'PieceJob': 'hashes and digests read',
    'ListsJob': 'inverted lists looked up',
    'SearchJob': 'candidates searched for',
    'VerifyJob': 'pixels compared',
    'ExactJob': 'equal digests found',
}


def same(found, prints):
    "Whether one search in this process finds the same, how long it takes, and the most memory it took."
    start = perf_counter()
    exact, near, score = find_pairs(prints)
    seconds, numbers = perf_counter() - start, prints.thumbs.numbers
    equal = (
        np.array_equal(numbers[exact], found.exact)
        and np.array_equal(np.column_stack((numbers[near[:, :2]], near[:, 2])), found.near)
        and np.array_equal(score, found.score)
    )
    return equal, seconds, peak()


def forget_peak():
    "Begin to measure this process's memory."
    Path('/proc/self/clear_refs').write_text('5')


def peak(pid='self'):
    "The most memory that a process has taken, in MB."
    status = Path(f'/proc/{pid}/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) / 1024


def processor_time(pid='self'):
    "The seconds that a process has been computing, by all its threads."
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def measure(real, photos, engine, work, equal):
    "One archive."
    archive = Archive(real, photos)
    (work / 'parts').mkdir()
    parts, made = archive.write(work / 'parts'), archive.copies
    del real, archive
    size = sum(Path(o.file).stat().st_size for o in parts)
    yield 'fingerprints on disk', size / photos, 'bytes a photo', 'thumbnails of 6 bits, zstd'
    forget_peak()
    before, busy, start = peak(), processor_time(), perf_counter()
    with job_engine(engine) as jobs:
        run = Timed(jobs)
        found = search_parts(parts, work / 'search', run, progress=False)
        seconds = perf_counter() - start
        processes = [o.process.pid for o in getattr(jobs, 'processes', ()) if o.process]
        if processes:
            busy -= sum(map(processor_time, processes))
            yield 'memory of a process that works', max(map(peak, processes)), 'MB', 'at its highest'
        busy = processor_time() - busy
    yield 'memory of the process that leads', peak() - before, 'MB', 'at its highest, beside what it had before'
    for kind, what in STEPS.items():
        yield what, run.seconds.get(kind, 0.0), 'seconds', ''
    yield 'whole search', seconds, 'seconds', f'{engine}, {core_count()} processes'
    yield 'processor time of the whole search', busy, 'seconds', 'which other work on the machine hardly changes'
    limits = limits_for(photos)
    yield 'candidates', found.candidates, 'pairs', f'within {limits.as_is}, {limits.turned}, {limits.trimmed} bits'
    yield 'near copies', len(found.near), 'pairs', ''
    told = {*map(tuple, np.sort(found.near[:, :2], axis=1).tolist())}
    yield 'near copies that were made and found', len(made & told) / len(made), 'share', f'of {len(made)}'
    if photos <= equal:
        forget_peak()
        is_same, seconds, memory = same(found, part_fingerprints(parts))
        yield 'pairs and similarities', 'equal' if is_same else 'different', '', 'to those of one search in one process'
        yield 'one search in one process', seconds, 'seconds', f'{core_count()} threads'
        yield 'memory of one search in one process', memory, 'MB', 'at its highest'


def rows_of(args, photos, real):
    "The rows of one archive, measured in a process of its own."
    words = [sys.executable, __file__, '--photos', args.photos, '--one', photos, '--real', real]
    words += ['--engine', args.engine, '--equal', args.equal, *(['--work', args.work] if args.work else [])]
    with subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            row = json.loads(line)
            print(photos, *row, sep=', ', flush=True)
            yield [photos, *row]
    if process.returncode:
        sys.exit(process.returncode)


def one(args):
    "Measure one archive, and print its rows."
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        if shutil.disk_usage(work).free < 6_000 * args.one:
            sys.exit(f'{work}: {args.one:,} photos need {6_000 * args.one / 1e9:.0f} GB there; name another --work')
        for row in measure(np.load(args.real), args.one, args.engine, Path(work), args.equal):
            print(json.dumps(row), flush=True)


def measured(args):
    "All rows."
    files = sorted(args.photos.rglob('*.jpg'))
    yield [
        '',
        'size of a real photo',
        sum(o.stat().st_size for o in files) / len(files),
        'bytes',
        f'{len(files)} photos',
    ]
    real = real_fingerprints(files)
    made = Archive(real, 20_000)
    thumbs = mean(real['thumb'][made.made[:, 0], made.kind], real['thumb'][made.made[:, 1], made.kind])
    for what, *prints in (('real', real['hashes'][:, 0], real['thumb'][:, 0]), ('made', made.hashes, thumbs)):
        for limits, rate in alike_by_chance(*prints):
            bits = f'within {limits.as_is}, {limits.turned}, {limits.trimmed} bits'
            yield ['', f'{what} photos alike by chance', rate, 'of 10^6 pairs', bits]
    with tempfile.TemporaryDirectory() as folder:
        np.save(f'{folder}/real.npy', real)
        for photos in args.counts:
            yield from rows_of(args, photos, f'{folder}/real.npy')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--photos', type=Path, required=True, help='a folder of photos; only read')
    parser.add_argument('--counts', type=int, nargs='+', default=[20_000, 200_000, 2_000_000])
    parser.add_argument('--equal', type=int, default=200_000, help='the most photos that are searched a second time')
    parser.add_argument('--engine', default='local', choices=['local', 'ray'])
    parser.add_argument('--work', type=Path, help='a folder with room')
    parser.add_argument('--one', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--real', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return one(args)
    rows = list(measured(args))
    with open(RESULTS, 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        counts = ' '.join(map(str, args.counts))
        f.write(f'# python benchmarks/{Path(__file__).name} --photos <CCSN> --counts {counts} --engine {args.engine}\n')
        table = csv.writer(f, lineterminator='\n')
        table.writerow(['photos', 'what', 'value', 'unit', 'note'])
        for photos, what, value, *rest in rows:
            table.writerow([photos, what, f'{value:.4g}' if isinstance(value, float) else value, *rest])
    return None


if __name__ == '__main__':
    main()
