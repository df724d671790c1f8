"""The page in headless Chromium, from loopback: until it is painted, until its model is there, and until an answer.

    python benchmarks/bench_site.py [--model MODEL.onnx] [--ort FOLDER] [--repeats 10]

Each repeat is a first visit, without anything cached, on which a photo of 12 megapixels and one of a website's size are
chosen. Writes benchmarks/results/site.csv, and fails where a median is over its limit. Needs two cores that have
nothing else to do, chromium on the PATH, and npm or --ort.
"""

import argparse
import csv
import os
import platform
import shutil
import sys
import threading
from contextlib import contextmanager
from datetime import date
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from cloud_classifier.prediction.site import build_site
from cloud_classifier.samples import render_sky

LIMITS = {'first paint': 1.0, 'answer, 1600 x 1200': 1.5, 'answer, 4000 x 3000': 1.5}  # of medians, seconds
FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update']
PAINT = """new Promise(done => new PerformanceObserver(o => done(o.getEntries()[0].startTime / 1000))
    .observe({type: 'paint', buffered: true}))"""

WATCH_FOR_ANSWER = """name => {
    window.answered = new Promise(done => document.getElementById('photos').addEventListener('change', () => {
        const start = performance.now(), card = `.answer[data-name="${name}"][data-label]`;
        const painted = () => done((performance.now() - start) / 1000);
        new MutationObserver((_, observer) => {
            if (!document.querySelector(card)) return;
            observer.disconnect();
            requestAnimationFrame(() => requestAnimationFrame(painted));
        }).observe(document.getElementById('answers'), {childList: true, subtree: true});
    }, {once: true, capture: true}));
}"""


class Quiet(SimpleHTTPRequestHandler):
    "A host of static files that says nothing."

    def log_message(self, *args):
        pass


@contextmanager
def hosted(folder: Path):
    "The address of a folder on loopback while the block runs."
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


def photo(folder: Path, width: int, height: int) -> Path:
    "A JPEG with the noise of a sensor, so that it is as large as a photo."
    noise = np.random.default_rng(0).integers(-9, 10, (height, width, 3))
    pixels = (np.asarray(render_sky('Altocumulus', height, 1, width)) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file := folder / f'{width}.jpg', 'JPEG', quality=90)
    return file


def seconds_to_answer(page, file: Path) -> float:
    "From choosing a photo until its card is painted, by the page's own clock."
    page.evaluate(WATCH_FOR_ANSWER, file.name)
    page.set_input_files('#photos', file)
    return page.evaluate('answered')


def visit(browser, address: str, photos: dict[str, Path]) -> dict[str, float]:
    "What a first visit takes, seconds."
    context = browser.new_context(viewport={'width': 390, 'height': 844})
    context.set_default_timeout(120_000)
    try:
        page, start = context.new_page(), perf_counter()
        page.goto(address)
        paint = page.evaluate(PAINT)
        page.wait_for_selector('body[data-ready]')
        ready = perf_counter() - start
        answers = {f'answer, {size}': seconds_to_answer(page, file) for size, file in photos.items()}
        return {'first paint': paint, 'model ready': ready} | answers
    finally:
        context.close()


def write(file: Path, command: str, visits: list[dict[str, float]]) -> None:
    "The table: median, best and worst of each time."
    rows = [
        (name, *(f'{way(v[name] for v in visits):.2f}' for way in (median, min, max)), LIMITS.get(name, ''))
        for name in visits[0]
    ]
    with open(file, 'w', newline='', encoding='utf-8') as f:
        load = f'load average {os.getloadavg()[0]:.0f}'  # more than the cores: others used them too
        machine = f'{os.cpu_count()} cores, {platform.machine()}'
        print(f'# {date.today()}, {machine}, Python {platform.python_version()}, {load}', file=f)
        print(f'# {command}', file=f)
        header = ('what', 'median, s', 'best, s', 'worst, s', 'limit of the median, s')
        csv.writer(f, lineterminator='\n').writerows([header, *rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', type=Path)
    parser.add_argument('--ort', type=Path)
    parser.add_argument('--repeats', type=int, default=10)
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('results') / 'site.csv')
    args = parser.parse_args()
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if chromium is None:
        parser.error('needs chromium on the PATH')
    with TemporaryDirectory() as folder, hosted(build_site(Path(folder, 'page'), args.model, args.ort)) as address:
        photos = {f'{w} x {h}': photo(Path(folder), w, h) for w, h in [(1600, 1200), (4000, 3000)]}
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
            visits = [visit(browser, address, photos) for _ in range(args.repeats)]
            browser.close()
    write(args.out, f'python benchmarks/bench_site.py --repeats {args.repeats}', visits)
    print(args.out.read_text(encoding='utf-8'))
    sys.exit(any(median(v[name] for v in visits) > limit for name, limit in LIMITS.items()))


if __name__ == '__main__':
    main()
