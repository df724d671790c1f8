"""Speed of answers of a model file, beside bare ONNX Runtime and beside fastai, by turns (A B A B), medians as ratios.

    python benchmarks/bench_infer.py MODEL.onnx FOLDER [--learner learner.pkl] [--repeats 5] [--photos 2000]

Writes benchmarks/results/infer.csv. `--learner` is what `learn.export()` wrote of the same run; without it the
rows beside fastai are left out. Ratios hold on other machines, seconds do not.
"""

import argparse
import csv
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import onnxruntime as ort
from PIL import Image

from cloud_classifier.images import photo_files
from cloud_classifier.prediction.infer import CloudClassifier

BARE = """
import numpy, onnxruntime, PIL.Image
session = onnxruntime.InferenceSession({model!r}, providers=['CPUExecutionProvider'])
photo = PIL.Image.open({photo!r}).convert('RGB').resize(({size}, {size}))
pixels = (numpy.asarray(photo, numpy.float32)/255).transpose(2, 0, 1)[None].copy()
print(session.run(['logits'], {{session.get_inputs()[0].name: pixels}})[0].argmax())
"""
OURS = """
from cloud_classifier.prediction.infer import CloudClassifier
print(CloudClassifier({model!r}).predict({photo!r}).label)
"""


def by_turns(ways, repeats, rest=0):
    """Median seconds of each way, taking turns; a first turn warms up.

    For `rest` seconds a way is called before it is timed: threads of the one before it spin for up to 0.2 s (OpenMP).
    """
    times = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            until = perf_counter() + rest
            while perf_counter() < until:
                way()
            start = perf_counter()
            way()
            if turn:
                times[name].append(perf_counter() - start)
    return {name: median(taken) for name, taken in times.items()}


def first_answers(clouds, photo, repeats, **_):
    "From the start of a process to its answer."
    names = {'model': str(clouds.path), 'photo': photo, 'size': clouds.preprocess.size}

    def python(code):
        line = [sys.executable, '-c', code.format(**names)]
        return lambda: subprocess.run(line, check=True, capture_output=True)

    command = [Path(sys.executable).with_name('cloud-classifier'), 'predict', photo, '-m', clouds.path]
    times = by_turns(
        {
            'bare': python(BARE),
            'predict': python(OURS),
            'command': lambda: subprocess.run(command, check=True, capture_output=True),
        },
        repeats,
    )
    for name in ('predict', 'command'):
        yield f'first answer, {name}', 'bare Python', times['bare'], times[name], times[name] / times['bare']


def warm(clouds, photo, repeats, learn, **_):
    "One photo of the size of the square, again and again."
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'sky.jpg'
        Image.open(photo).convert('RGB').resize((clouds.preprocess.size,) * 2).save(file, quality=92)
        pixels = clouds.preprocess(file)[None]
        session = ort.InferenceSession(str(clouds.path), providers=['CPUExecutionProvider'])
        ways = {
            'bare': lambda: session.run(None, {clouds.input_name: pixels}),
            'ours': lambda: clouds.predict(file),
        } | ({'fastai': lambda: learn.predict(file)} if learn else {})
        times = by_turns(ways, 6 * repeats, rest=0.3)
    yield 'warm photo', 'session.run', times['bare'], times['ours'], times['ours'] / times['bare']
    if learn:
        yield 'warm photo', 'learn.predict', times['fastai'], times['ours'], times['fastai'] / times['ours']


def memory():
    "Bytes of this process that are in memory."
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def folder(clouds, found, photos, repeats, **_):
    "Many photos, beside the network alone at the batch size that suits it best."
    session = ort.InferenceSession(str(clouds.path), providers=['CPUExecutionProvider'])
    pixels = np.stack([clouds.preprocess(o) for o in found[:32]])

    def network(size):
        for i in range(0, 32, size):
            session.run(None, {clouds.input_name: pixels[i : i + size]})

    sizes = by_turns({size: lambda size=size: network(size) for size in (1, 4, 8, 16, 32)}, repeats)
    best = min(sizes, key=sizes.get)
    many, seen, alone, taken = list(islice(cycle(found), photos)), [], [], []
    for chunk in (many[i : i + 250] for i in range(0, photos, 250)):
        start = perf_counter()
        for _ in range(8):
            network(best)
        alone.append((perf_counter() - start) / 256)
        start = perf_counter()
        list(clouds.predict_many(chunk))
        taken.append((perf_counter() - start) / len(chunk))
        seen.append(memory())
    job = f'{photos} photos, share of the network’s rate at {best} a batch'
    yield job, 'session.run', median(alone), median(taken), median(alone) / median(taken)
    yield 'memory at the end beside after 250 photos', 'bytes', seen[0], seen[-1], seen[-1] / seen[0]


def large(clouds, repeats, learn, **_):
    "Photos of 12 megapixels, beside fastai's get_preds."
    if not learn:
        return
    from cloud_classifier.samples import render_sky

    with tempfile.TemporaryDirectory() as root:
        files = [Path(root) / f'{i}.jpg' for i in range(300)]
        render_sky('Altocumulus', 1024).resize((4000, 3000)).save(files[0], quality=92)
        for file in files[1:]:
            os.link(files[0], file)

        def fastai():
            with learn.no_bar():
                learn.get_preds(dl=learn.dls.test_dl(files, num_workers=0))

        times = by_turns({'fastai': fastai, 'ours': lambda: list(clouds.predict_many(files))}, max(1, repeats // 3))
    yield '300 photos of 12 megapixels', 'get_preds', times['fastai'], times['ours'], times['fastai'] / times['ours']


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--learner', type=Path)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--photos', type=int, default=2000)
    args = parser.parse_args()
    learn = None
    if args.learner:
        from fastai.learner import load_learner

        learn = load_learner(args.learner)
        learn.remove_cb(learn.progress)
    clouds, found = CloudClassifier(args.model.resolve()), list(photo_files(args.folder))
    known = dict(clouds=clouds, found=found, photo=found[0], learn=learn, repeats=args.repeats, photos=args.photos)
    rows = []
    for stage in (first_answers, warm, folder, large):
        for job, beside, theirs, ours, ratio in stage(**known):
            rows.append([job, beside, f'{theirs:.4g}', f'{ours:.4g}', f'{ratio:.3g}'])
            print(*rows[-1], sep='; ', flush=True)
    with open(Path(__file__).parent / 'results' / 'infer.csv', 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        f.write(f'# python {shlex.join(sys.argv)}\n')
        csv.writer(f).writerows([['job', 'beside', 'theirs', 'ours', 'ratio'], *rows])


if __name__ == '__main__':
    main()
