"""Times each stage beside the plain fastai way, in one run and by turns (A B A B), and records medians and ratios.

    python benchmarks/bench_stages.py [--photos FOLDER] [--files 20000] [--repeats 5]

Writes benchmarks/results/stages.csv. Ratios hold on other machines, seconds do not.
"""

import argparse
import csv
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

HERE = Path(__file__).parent


def by_turns(ways, repeats):
    "Median seconds of each way, taking turns."
    times = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = perf_counter()
            way()
            times[name].append(perf_counter() - start)
    return {name: median(taken) for name, taken in times.items()}


def sampling(files, repeats, **_):
    "The same number of photos from each of ten folders of so many empty files."
    import random

    from fastai.data.transforms import get_image_files

    from cloud_classifier.data.sampling import get_equal_images
    from cloud_classifier.taxonomy import GENERA

    with tempfile.TemporaryDirectory() as root:
        for name in GENERA:
            os.mkdir(f'{root}/{name}')
            for i in range(files):
                open(f'{root}/{name}/{i:06}.jpg', 'x').close()

        def fastai_way():
            "List every folder twice: once for the smallest, once for the sample."
            smallest = min(len(get_image_files(root, folders=name)) for name in GENERA)
            found = []
            for name in GENERA:
                photos = get_image_files(root, folders=name)
                random.shuffle(photos)
                found.extend(photos[:smallest])
            return found

        yield (
            f'sample from 10 x {files} files',
            by_turns({'fastai': fastai_way, 'ours': lambda: get_equal_images(root, seed=42)}, repeats),
        )


def opening(repeats, **_):
    "A 12-megapixel JPEG, down to the numbers of a square of 224."
    import numpy as np
    from PIL import Image, ImageOps

    from cloud_classifier.images import Preprocess
    from cloud_classifier.samples import render_sky

    pre = Preprocess(224)

    def plain():
        image = ImageOps.exif_transpose(Image.open(file)).convert('RGB')
        return pre(image)

    with tempfile.TemporaryDirectory() as root:
        file = Path(root) / 'sky.jpg'
        grain = np.random.default_rng(0).normal(0, 6, (3000, 4000, 3))
        sky = np.asarray(render_sky('Altocumulus', 1024).resize((4000, 3000)), dtype=float)
        Image.fromarray((sky + grain).clip(0, 255).astype(np.uint8)).save(file, quality=92)
        yield 'open a 12-megapixel photo', by_turns({'fastai': plain, 'ours': lambda: pre(file)}, 4 * repeats)


CLOCK = """
from time import perf_counter as now
ask()
print('first', flush=True)
times = []
for _ in range(20):
    start = now()
    ask()
    times.append(now() - start)
print(sorted(times)[10])
"""


def answers(code):
    "Seconds from the start of a process to its first answer, and the median of twenty more."
    start = perf_counter()
    with subprocess.Popen([sys.executable, '-c', code + CLOCK], stdout=subprocess.PIPE, text=True) as process:
        while (line := process.stdout.readline()) != 'first\n':
            assert line, 'the process ended without an answer'
        return perf_counter() - start, float(process.stdout.read())


def predicting(photos, repeats, **_):
    "resnet34 at 224 pixels, asked for one photo."
    from cloud_classifier.data.sampling import split
    from cloud_classifier.prediction.export import export_model
    from cloud_classifier.training.dataloaders import cloud_dls
    from cloud_classifier.training.learner import cloud_learner

    with tempfile.TemporaryDirectory() as root:
        learn = cloud_learner(cloud_dls(split(photos), bs=8), 'resnet34', weights='none')
        learn.path = Path(root)
        learn.export('learner.pkl')
        export_model(learn, Path(root) / 'clouds.onnx')
        photo = learn.dls.valid_ds.items[0]
        ways = {
            'fastai': f"""
import warnings
warnings.simplefilter('ignore')
from fastai.vision.all import *
model = load_learner('{root}/learner.pkl')
model.remove_cb(model.progress)
def ask(): return model.predict(Path('{photo}'))
""",
            'ours': f"""
from cloud_classifier.prediction.infer import CloudClassifier
model = CloudClassifier('{root}/clouds.onnx')
def ask(): return model.predict('{photo}')
""",
        }
        times = {name: [] for name in ways}
        for _ in range(repeats):
            for name, code in ways.items():
                times[name].append(answers(code))
        for i, job in enumerate(('predict, first answer of a process', 'predict, warm')):
            yield job, {name: median(taken[i] for taken in each) for name, each in times.items()}


def helping(repeats, **_):
    "cloud-classifier --help; nothing of fastai's to compare with."
    command = [Path(sys.executable).with_name('cloud-classifier'), '--help']
    yield (
        'cloud-classifier --help',
        by_turns({'ours': lambda: subprocess.run(command, check=True, capture_output=True)}, 3 * repeats),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, help='a dataset; rendered skies where it is not given')
    parser.add_argument('--files', type=int, default=20_000, help='files in each of ten folders')
    parser.add_argument('--repeats', type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        if not args.photos:
            from cloud_classifier.samples import make_samples

            args.photos = Path(root) / 'skies'
            make_samples(args.photos, per_genus=4)
        rows = []
        for stage in (helping, sampling, opening, predicting):
            for job, seconds in stage(**vars(args)):
                ratio = seconds['fastai'] / seconds['ours'] if 'fastai' in seconds else None
                rows.append(
                    [
                        job,
                        f'{seconds["fastai"]:.4g}' if ratio else '',
                        f'{seconds["ours"]:.4g}',
                        f'{ratio:.3g}' if ratio else '',
                    ]
                )
                print(json.dumps(dict(zip(('job', 'fastai', 'ours', 'ratio'), rows[-1], strict=True))), flush=True)
    with open(HERE / 'results' / 'stages.csv', 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        f.write(f'# python {shlex.join(sys.argv)}\n')
        writer = csv.writer(f)
        writer.writerow(['job', 'plain fastai, seconds', 'ours, seconds', 'times as fast'])
        writer.writerows(rows)


if __name__ == '__main__':
    main()
