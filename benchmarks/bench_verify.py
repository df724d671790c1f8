"""Which limits of `verify` give how many hints, on photos of real skies and on damaged copies of them.

    python benchmarks/bench_verify.py --photos <CCSN>

Whole photos are held against CleanVision's limits and those of `verify`, which has others for single genera. The upper
left and the upper right quarter of photos of these genera, which seldom show a horizon, stand for photos of nothing but
cloud: they are held against the base limit and that of the genera, and so are damaged copies of the whole photos.
Writes benchmarks/results/verify.csv.
"""

import argparse
import csv
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from cleanvision.issue_managers.image_property import BlurrinessProperty
from PIL import Image, ImageFilter

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.verify import HINTS, MEASURED_SIDE, measure
from cloud_classifier.images import open_image

CLEANVISION = {'dark': 0.32, 'light': 0.95, 'low information': 3.0, 'blurry': 0.29}
DAMAGE: dict[str, tuple[str, Callable]] = {  # by hint, as a sentence has it, and on an image
    'dark': ('exposed at 15 %', lambda image: image.point(lambda value: value * 0.15)),
    'light': ('three times the light', lambda image: image.point(lambda value: min(255, value * 3))),
    'low information': ('three times the light', lambda image: image.point(lambda value: min(255, value * 3))),
    'blurry': ('blurred by σ = 3 px', lambda image: image.filter(ImageFilter.GaussianBlur(3))),
}


def quarters(image: Image.Image) -> list[Image.Image]:
    "The upper left and the upper right quarter."
    w, h = image.width // 2, image.height // 2
    return [image.crop((0, 0, w, h)), image.crop((image.width - w, 0, image.width, h))]


def beyond(name: str, values: dict, limit: float) -> bool:
    "Whether what was measured lies beyond a limit of the hint."
    hint = HINTS[name]
    return values[hint.measure] > limit if hint.above else values[hint.measure] < limit


def share(name: str, measured: list[dict], limit: float) -> str:
    return f'{np.mean([beyond(name, o, limit) for o in measured]):.4f}'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photos', type=Path, required=True)
    args = parser.parse_args()
    dataset, blurriness = Dataset(args.photos), BlurrinessProperty()
    photos = [(open_image(args.photos / path, min_side=MEASURED_SIDE), label) for path, label in dataset.photos()]
    whole = [measure(image) for image, _ in photos]
    rows = []
    for name, theirs in CLEANVISION.items():
        hint, (damage, do) = HINTS[name], DAMAGE[name]
        if name == 'blurry':  # CleanVision's own measure is another one
            raw = pd.DataFrame([blurriness.calculate(image) for image, _ in photos])
            scores = blurriness.get_scores(raw, name, normalizing_factor=0.01, color_threshold=0.18)
            hints = int((scores.iloc[:, 0] < theirs).sum())
        else:
            hints = sum(beyond(name, o, theirs) for o in whole)
        own = [image for image, label in photos if label in hint.genera]
        parts, damaged = ([measure(o) for o in q] for q in ([p for o in own for p in quarters(o)], map(do, own)))
        rows.append([
            name, len(photos), theirs, hints, hint.limit,
            sum(hint.applies(o, label) for o, (_, label) in zip(whole, photos, strict=True)),
            ' '.join(hint.genera), hint.genera_limit,
            *(share(name, o, limit) for o in (parts, damaged) for limit in (hint.limit, hint.genera_limit)), damage,
        ])  # fmt: skip
    file = Path(__file__).parent / 'results' / 'verify.csv'
    with open(file, 'w', newline='', encoding='utf-8') as f:
        print(f'# {date.today()}, {platform.machine()}, Python {platform.python_version()}', file=f)
        print('# python benchmarks/bench_verify.py --photos <CCSN>', file=f)
        table = csv.writer(f, lineterminator='\n')
        table.writerow([
            'hint', 'photos', "CleanVision's limit", "hints by CleanVision's", 'base limit', 'hints of verify',
            'genera', 'limit of genera', 'quarters beyond the base', 'quarters beyond that of genera',
            'damaged found by the base', 'damaged found by that of genera', 'damage',
        ])  # fmt: skip
        table.writerows(rows)
    print(file.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
