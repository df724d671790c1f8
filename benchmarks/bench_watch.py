"""How steady `watch` is: single frames beside the mean of the last few, on sequences of one sky with noise.

    python benchmarks/bench_watch.py FOLDER [--photos 60] [--frames 60] [--model MODEL.onnx]

A sequence is one real photo of FOLDER as a camera that shakes would give it: each frame a part of it (0.7 to 1 of its
sides, anywhere), lighter or darker (0.8 to 1.2), with noise and saved as JPEG. Counts how often the label jumps from
one frame to the next, and how soon another sky is noticed. Writes benchmarks/results/watch.csv.
"""

import argparse
import csv
import io
import os
import platform
import sys
from collections import Counter
from datetime import date
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

import numpy as np
from PIL import Image

from cloud_classifier.images import open_image, photo_files
from cloud_classifier.prediction.infer import CloudClassifier, find_model
from cloud_classifier.prediction.watch import Pool

SIZES = (1, 3, 6, 12)  # of pools, frames


def shaken(photo: Image.Image, rng) -> bytes:
    "The photo as one frame of a camera."
    part = rng.uniform(0.7, 1)
    x, y = rng.uniform(0, 1 - part, 2) * photo.size
    width, height = part * np.array(photo.size)
    pixels = np.asarray(photo.crop((int(x), int(y), int(x + width), int(y + height))), float) * rng.uniform(0.8, 1.2)
    pixels = pixels + rng.normal(0, rng.uniform(0, 4), pixels.shape)
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, 'JPEG', quality=int(rng.integers(60, 95)))
    return out.getvalue()


def sequences(clouds: CloudClassifier, photos: list[str], frames: int, rng) -> list[list]:
    "For each photo its frames' predictions, with all classes."
    found = []
    for n, name in enumerate(photos, 1):
        photo = open_image(name, min_side=512)
        found.append([clouds.predict(shaken(photo, rng), k=len(clouds.classes)) for _ in range(frames)])
        print(f'\r{n} of {len(photos)} photos', end='', file=sys.stderr)
    print(file=sys.stderr)
    return found


def pooled(clouds: CloudClassifier, frames: list, size: int) -> tuple[list[str], list[str]]:
    "The label of the mean, and the one that is said of the sky, after each frame; '' for none."
    pool, means, skies = Pool(clouds.classes, clouds.rules, size), [], []
    for n, frame in enumerate(frames):
        pool.add(frame, n)
        pool.change()
        answer = pool.answer(frame)
        means.append(answer.label if answer else '')
        skies.append(pool.label)
    return means, skies


def jumps(labels: list[str]) -> float:
    "The share of steps at which the label is another one, the first ones without any left out."
    steps = [(a, b) for a, b in pairwise(labels) if a]
    return sum(a != b for a, b in steps) / max(1, len(steps))


def delay(skies: list[str], change: int) -> int | None:
    "Frames from a change until the label stays what it is in the end; None where it was that before."
    last = skies[-1]
    if skies[change - 1] == last:
        return None
    return max(n for n, label in enumerate(skies) if label != last) + 1 - change


def measure(clouds: CloudClassifier, found: list[list]) -> list[tuple]:
    "Rows of what, frames together, value and unit."
    rows = [
        ('frames that count as no sky', 1, mean(o.decision.verdict == 'not_a_sky' for f in found for o in f), 'share'),
        ('label jumps, single frames', 1, mean(jumps([o.label for o in f]) for f in found), 'share of steps'),
    ]
    for size in SIZES:
        skies = [pooled(clouds, f, size) for f in found]
        rows.append(('label of the mean jumps', size, mean(jumps(m) for m, _ in skies), 'share of steps'))
        rows.append(('the sky is said to change', size, mean(jumps(s) for _, s in skies), 'share of steps'))
    sure = [f for f in found if Counter(o.label for o in f).most_common(1)[0][1] >= 0.8 * len(f)]
    half = len(found[0]) // 2
    for size in SIZES:
        pairs = [pooled(clouds, a[:half] + b[:half], size)[1] for a, b in pairwise(sure)]
        delays = [d for s in pairs if (d := delay(s, half)) is not None]
        if delays:
            rows.append((f'another sky is noticed ({len(delays)} pairs)', size, median(delays), 'frames, median'))
    for size in SIZES:
        odd = [a[:half] + b[:1] + a[half:] for a, b in pairwise(sure)]
        told = [
            jumps(pooled(clouds, f, size)[1]) - jumps(pooled(clouds, a, size)[1])
            for f, a in zip(odd, sure, strict=False)
        ]
        rows.append(
            (f'one odd frame changes what is said ({len(odd)} pairs)', size, mean(t > 0 for t in told), 'share')
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--photos', type=int, default=60)
    parser.add_argument('--frames', type=int, default=60)
    parser.add_argument('--model', type=Path)
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('results') / 'watch.csv')
    args = parser.parse_args()
    clouds, photos = CloudClassifier(find_model(args.model)), list(photo_files(args.folder))
    photos = [photos[i] for i in np.linspace(0, len(photos) - 1, args.photos).astype(int)]
    np.random.default_rng(1).shuffle(photos)  # so that neighbours show other skies
    rows = measure(clouds, sequences(clouds, photos, args.frames, np.random.default_rng(0)))
    with open(args.out, 'w', newline='', encoding='utf-8') as f:
        python = f'Python {platform.python_version()}, load average {os.getloadavg()[0]:.0f}'
        print(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, {python}', file=f)
        print(f'# python benchmarks/bench_watch.py FOLDER --photos {args.photos} --frames {args.frames}', file=f)
        lines = [(what, size, f'{value:.4g}', unit) for what, size, value, unit in rows]
        csv.writer(f, lineterminator='\n').writerows([('what', 'frames together', 'value', 'unit'), *lines])
    print(args.out.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
