"""How fast copies are found, and how many of them.

    python benchmarks/bench_duplicates.py --photos FOLDER [--repeats 3] [--only NAME]

FOLDER holds real photos in class folders, such as CCSN; it is only read. Copies of 500 of them are made in 7 kinds.
The 200,000 hashes are those of parts of the photos, and the same with about 12 bits changed. Different smooth skies are
drawn from folders named St and As (or Stratus and Altostratus) and from rendered skies; pairs that the whole search
calls one photo are left out: tests/ccsn_pairs.csv, judged by eye, shows that they are. Writes
benchmarks/results/duplicates.csv.
"""

import argparse
import csv
import itertools
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image, ImageEnhance

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.duplicates import (
    MANY_PHOTOS_LIMITS,
    MIN_AGREEMENT,
    MIN_CORRELATION,
    THUMB_SIDE,
    candidates,
    find_pairs,
    fingerprints,
    trimmed_hashes,
    turned_hashes,
    verify_pairs,
)
from cloud_classifier.samples import render_sky

RESULTS = Path(__file__).parent / 'results' / 'duplicates.csv'
MIRROR, QUARTER = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90


def corner(img, share):
    "The photo without a strip at its left and its bottom."
    return img.crop((round(share * img.width), 0, img.width, img.height - round(share * img.height)))


def inner(img, share):
    "The photo without a strip at each side."
    x, y = round(share * img.width), round(share * img.height)
    return img.crop((x, y, img.width - x, img.height - y))


VARIANTS = {
    'JPEG quality 40': lambda img: img,
    'half size': lambda img: img.resize((img.width // 2, img.height // 2)),
    'mirrored': lambda img: img.transpose(MIRROR),
    'rotated by 90 degrees': lambda img: img.transpose(QUARTER),
    '3 % cropped at two sides': lambda img: corner(img, 0.03),
    '3 % cropped at each side': lambda img: inner(img, 0.03),
    'brightness +10 %': lambda img: ImageEnhance.Brightness(img).enhance(1.1),
}


def made(folder, files, size=None):
    "Photos as PNG, or as JPEG of `size` pixels."
    folder.mkdir()
    for i, file in enumerate(files):
        img = Image.open(file).convert('RGB')
        if size:
            img.resize((size, size)).save(folder / f'{i:04}.jpg', quality=90)
            continue
        img.save(folder / f'{i:04}.png')
        for name, change in VARIANTS.items():
            change(img).save(folder / f'{i:04} {name}.jpg', quality=40 if name.startswith('JPEG') else 90)
    return sorted(p.name for p in folder.iterdir())


def hashing(files, tmp, repeats):
    "Fingerprints of photos of 224 pixels."
    names, taken = made(tmp / 'small', files[:1000], 224), []
    for _ in range(repeats):
        start = perf_counter()
        fingerprints(names, tmp / 'small', workers=2, progress=False)
        taken.append(len(names) / (perf_counter() - start))
    yield 'fingerprints of photos of 224 px, two threads', median(taken), 'photos/s', f'slowest {min(taken):.0f}'


def parts_of(thumb, rng, count):
    "Hashes of parts of a photo."
    img = Image.fromarray(thumb)
    for _ in range(count):
        width, height = rng.uniform(0.3, 0.7, 2) * THUMB_SIDE
        x, y = rng.uniform(0, THUMB_SIDE - width), rng.uniform(0, THUMB_SIDE - height)
        part = img.crop(tuple(map(int, (x, y, x + width, y + height))))
        small = np.asarray(part.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BILINEAR))
        yield np.concatenate((turned_hashes(part), trimmed_hashes(small)))


def many_hashes(prints, total):
    "So many hashes of parts of photos; all but the first of each have about 12 bits changed."
    rng = np.random.default_rng(0)
    each = -(-12_000 // len(prints.names))
    with ThreadPoolExecutor(2) as pool:
        seeds = rng.integers(0, 2**32, len(prints.names))
        own = list(pool.map(lambda t, s: list(parts_of(t, np.random.default_rng(s), each)), prints.thumbs, seeds))
    own = np.array(list(itertools.chain(*own)))
    hashes = np.concatenate([own] * -(-total // len(own)))[:total]
    for at in range(len(own), total, len(own)):
        rows = hashes[at : at + len(own)]
        a, b, c, d = rng.integers(0, 256, (4, *rows.shape), dtype=np.uint8)
        rows ^= a & b & (c | d)  # each bit with a probability of 3/16
    return hashes


def shares(prints, pairs, note):
    "Share of the copies that are among pairs, by variant."
    at = {name: i for i, name in enumerate(prints.names)}
    tied = {tuple(sorted(p)) for p in pairs[:, :2].tolist()}
    photos = sorted({name[:4] for name in prints.names})
    for name in VARIANTS:
        found = np.mean([tuple(sorted((at[f'{p}.png'], at[f'{p} {name}.jpg']))) in tied for p in photos])
        yield f'copies found: {name}', found, f'of {len(photos)}', note


def recall(files, tmp, repeats):
    "Copies of 500 photos, by themselves and among 200,000; and the time of that search."
    names = made(tmp / 'variants', random.Random(1).sample(files, min(500, len(files))))
    prints = fingerprints(names, tmp / 'variants', progress=False)
    exact, near, _ = find_pairs(prints)
    yield from shares(prints, np.concatenate((exact, near[:, :2])), f'among {len(names):,}')
    hashes = np.concatenate((prints.hashes, many_hashes(fingerprints(files, progress=False), 200_000 - len(names))))
    taken = []
    for _ in range(repeats):
        start = perf_counter()
        pairs = candidates(hashes, MANY_PHOTOS_LIMITS)
        taken.append(perf_counter() - start)
    yield 'search of 200,000 photos (13 hashes each)', median(taken), 'seconds', f'slowest {max(taken):.1f}'
    yield 'candidates of 200,000 photos', len(pairs), 'pairs', ''
    pairs = pairs[(pairs[:, :2] < len(names)).all(1)]
    start = perf_counter()
    score = verify_pairs(prints.thumbs, pairs)
    yield 'second look', len(pairs) / (perf_counter() - start), 'pairs/s', 'nearly all are copies, which take longest'
    yield from shares(prints, pairs[(score >= (MIN_CORRELATION, MIN_AGREEMENT)).all(1)], 'among 200,000')


def wrong(thumbs, known, pairs):
    "How many of 5,000 pairs of different skies are called one."
    rng = np.random.default_rng(0)
    drawn = np.stack((*rng.integers(0, len(thumbs), (2, 3 * pairs)), rng.integers(0, 8, 3 * pairs)), 1)
    drawn = drawn[[a != b and (min(a, b), max(a, b)) not in known for a, b, _ in drawn.tolist()]][:pairs]
    return int((verify_pairs(thumbs, drawn) >= (MIN_CORRELATION, MIN_AGREEMENT)).all(1).sum()), len(drawn)


def different(files, tmp, repeats):
    "Different smooth skies, real ones and rendered ones, in any orientation."
    real = fingerprints([f for f in files if f.parent.name in ('St', 'As', 'Stratus', 'Altostratus')], progress=False)
    exact, near, _ = find_pairs(real)
    known = {tuple(sorted(p)) for p in (*exact.tolist(), *near[:, :2].tolist())}
    if len(real.names) > 100:
        called, pairs = wrong(real.thumbs, known, 5000)
        yield (
            'different Stratus and Altostratus called one: real',
            called,
            f'of {pairs} pairs',
            f'{len(real.names)} photos',
        )
    skies = [render_sky(genus, seed=seed, size=128) for genus in ('Stratus', 'Altostratus') for seed in range(100)]
    small = [s.convert('L').resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BILINEAR) for s in skies]
    thumbs = np.stack([np.asarray(img) for img in small])
    called, pairs = wrong(thumbs, set(), 5000)
    yield 'different Stratus and Altostratus called one: rendered', called, f'of {pairs} pairs', f'{len(skies)} skies'


def whole(files, tmp, repeats):
    "The command on the whole dataset, and again where a manifest remembers."
    photos = files[0].parents[1]

    def seconds(data):
        start = perf_counter()
        words = [sys.executable, '-m', 'cloud_classifier.cli', 'duplicates', str(data), '--json']
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return perf_counter() - start

    yield f'duplicates --json, {len(files)} photos', median(seconds(photos) for _ in range(repeats)), 'seconds', ''
    copy = shutil.copytree(photos, tmp / 'copy', ignore=shutil.ignore_patterns('.*', 'manifest.db*'))
    Dataset(copy).sync(progress=False)
    yield 'the same with a manifest, first time', seconds(copy), 'seconds', ''
    again = [seconds(copy) for _ in range(repeats)]
    size = (copy / 'manifest.db').stat().st_size / len(files) / 1000
    yield 'the same with a manifest, again', median(again), 'seconds', f'manifest.db: {size:.1f} kB a photo'


PARTS = dict(hashing=hashing, recall=recall, different=different, whole=whole)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--photos', type=Path, required=True, help='a folder of class folders; only read')
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--only', choices=PARTS, help='print one part, and write nothing')
    args = parser.parse_args()
    files, rows = [args.photos / p for p, _ in Dataset(args.photos).photos()], []
    for name in [args.only] if args.only else PARTS:
        with tempfile.TemporaryDirectory() as tmp:
            for what, value, unit, note in PARTS[name](files, Path(tmp), args.repeats):
                rows.append([what, f'{value:.4g}' if isinstance(value, float) else value, unit, note])
                print(*rows[-1], sep=', ', flush=True)
    if args.only:
        return
    with open(RESULTS, 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        f.write(f'# python benchmarks/{Path(__file__).name} --photos <CCSN> --repeats {args.repeats}\n')
        table = csv.writer(f, lineterminator='\n')
        table.writerow(['what', 'value', 'unit', 'note'])
        table.writerows(rows)


if __name__ == '__main__':
    main()
