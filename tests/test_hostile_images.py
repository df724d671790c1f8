"Photos that are made to cost much end in their error, or open, within limits of time and memory that are measured."

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bounds import run_bounded
from hostile_images import hostile_images, jpeg_scans
from reading import read_line

from cloud_classifier.images import MAX_MEMORY

SECONDS = 4  # of the processor, a stage: twice what it takes here
MEGABYTES = MAX_MEMORY / 1e6 + 100  # beyond what the process held before
KINDS = {'fine', 'empty', 'not an image', 'unsupported', 'truncated', 'too large'}

needs_proc = pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='needs /proc')

MEASURE = """
import json, sys, time
from pathlib import Path
from cloud_classifier.images import BadImage, Preprocess, check_image, inspect_photo, open_image, photo_header
from cloud_classifier.data.duplicates import READ_SIDE, fingerprint
from cloud_classifier.data.verify import MEASURED_SIDE, measure, measures
from cloud_classifier.prediction.app import preview

def held(name):
    return int(next(line for line in open('/proc/self/status') if line.startswith(name)).split()[1]) / 1e3

def inspected(function, min_side):
    def stage(content):
        info = inspect_photo(content, dict(it=function), min_side)
        if info.error: raise info.error
    return stage

measures()
stages = dict(header=photo_header, check=check_image, open=open_image, square=Preprocess(),
              fingerprint=inspected(fingerprint, READ_SIDE), measure=inspected(measure, MEASURED_SIDE), preview=preview)
for path in sys.argv[2:]:
    for name in sys.argv[1].split():
        stage = stages[name]
        content = Path(path).read_bytes()
        open('/proc/self/clear_refs', 'w').write('5')  # the most that was held is forgotten
        before, start = held('VmRSS'), time.process_time()
        try: stage(content); ended = 'fine'
        except BadImage as e: ended = e.kind
        cost = time.process_time() - start, held('VmHWM') - before
        print(json.dumps([Path(path).name, name, ended, *cost]), flush=True)
"""


STAGES = 'header open fingerprint'  # two of them decode, each in a way of its own
ALL_STAGES = 'header check open square fingerprint measure preview'


@needs_proc
@pytest.mark.parametrize('stages', [STAGES, pytest.param(ALL_STAGES, marks=pytest.mark.soak)], ids=['few', 'all'])
@pytest.mark.parametrize(
    'suffix',
    ['jpg', 'png', 'tif', *(pytest.param(o, marks=pytest.mark.soak) for o in ('gif', 'webp', 'bmp', 'ppm', 'avif'))],
)
def test_no_photo_costs_more_than_it_may(tmp_path, suffix, stages):
    bombs, photos = set(), []
    for name, make, bomb in hostile_images(suffix):
        photos.append(tmp_path / name)
        photos[-1].write_bytes(make())
        bombs |= {name} if bomb else set()
    if not photos:
        pytest.skip(f'this Pillow writes no {suffix}')
    (tmp_path / 'measure.py').write_text(MEASURE)
    done = run_bounded([sys.executable, tmp_path / 'measure.py', stages, *photos], seconds=300)
    assert done.status == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert len(rows) == len(stages.split()) * len(photos)
    assert {ended for _, _, ended, _, _ in rows} <= KINDS
    assert {name for name, stage, ended, _, _ in rows if stage == 'open' and ended == 'too large'} == bombs
    assert [row for row in rows if row[3] > SECONDS or row[4] > MEGABYTES] == []


THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from cloud_classifier.images import Preprocess, inspect_photo
from cloud_classifier.data.duplicates import READ_SIDE, fingerprint
content = open(sys.argv[1], 'rb').read()
def inspect(content): return inspect_photo(content, dict(fingerprint=fingerprint), READ_SIDE)
def held(): return int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) / 1e3
before = held()
n = int(sys.argv[2])
with ThreadPoolExecutor(n) as pool:
    list(pool.map(Preprocess(), [content]*n)), list(pool.map(inspect, [content]*n))
print(held() - before)
"""


@needs_proc
@pytest.mark.parametrize('threads', [2, pytest.param(6, marks=pytest.mark.soak)])
def test_threads_share_the_memory(tmp_path, threads):
    make = next(make for name, make, _ in hostile_images() if name == 'promised_in_full.png')
    (tmp_path / 'large.png').write_bytes(make())
    (tmp_path / 'threads.py').write_text(THREADS)
    done = run_bounded([sys.executable, tmp_path / 'threads.py', tmp_path / 'large.png', threads], seconds=120)
    assert done.status == 0, done.err
    assert 300 < float(done.out) < MEGABYTES + 200  # one photo of 400 MB at a time, and its grey copy


@pytest.mark.usefixtures('forked')
@pytest.mark.skipif(sys.platform == 'win32', reason='signals')
def test_ctrl_c_is_heard_while_a_photo_is_decoded(tmp_path):
    (tmp_path / 'scans.jpg').write_bytes(jpeg_scans(8000, 6000, 17))
    code = 'import sys, cloud_classifier.images as m\nprint(flush=True)\nwhile True: m.open_image(sys.argv[1])'
    run = subprocess.Popen(
        [sys.executable, '-c', code, tmp_path / 'scans.jpg'], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    read_line(run)
    time.sleep(0.3)
    start = time.monotonic()
    os.kill(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert b'KeyboardInterrupt' in said
    assert time.monotonic() - start < 10  # a second or so where nobody else is at work
