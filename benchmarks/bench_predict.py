"""Many photos to Parquet: the rate beside the network's own, memory over time, and ten kills.

    python benchmarks/bench_predict.py FOLDER [--model clouds.onnx] [--photos 20000] [--kills 10]

Writes benchmarks/results/predict.csv. The photos are hard links to those of FOLDER, each under a name of its own, and
one in a hundred is broken; where HEIC and AVIF can be written here, one in a hundred of each. While the command
`cloud-classifier predict FOLDER --out answers.parquet` runs, its memory and the lines of its journal are read twice a
second. Every `--turn` seconds it is stopped and the network runs alone for a while, on photos that were opened before:
in the ways and batch sizes of a first trial, the best of which is the network's own rate. So both meet the same
machine, and medians of their rates are compared. Ratios hold on other machines, seconds do not.
"""

import argparse
import csv
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter, sleep

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
from PIL import Image

from cloud_classifier.images import BadImage, open_image, photo_files
from cloud_classifier.prediction.infer import CloudClassifier, shipped_model

PAGE = os.sysconf('SC_PAGE_SIZE')
SAMPLE = 32  # photos that the network is timed on


def other_format(photo, file, suffix):
    "A copy in HEIC or AVIF; whether this installation writes and reads it."
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    try:
        Image.open(photo).convert('RGB').save(file)
        open_image(file)
    except (OSError, ValueError, KeyError, BadImage):
        file.unlink(missing_ok=True)
        return False
    return True


def make_photos(found, folder, count):
    "A folder of `count` photos; how many of each kind."
    folder.mkdir()
    others = [o for o in ('.heic', '.avif') if other_format(found[0], folder.parent / f'other{o}', o)]
    kinds = dict.fromkeys(['.jpg', 'broken', *others], 0)
    for n, photo in zip(range(count), cycle(found)):
        file, kind = folder / f'{n // 1000:03}' / f'{n:06}.jpg', '.jpg'
        file.parent.mkdir(exist_ok=True)
        if n % 100 == 50:
            kind = 'broken'
            file.write_bytes(Path(photo).read_bytes()[:500])
        elif (place := n % 100 - 60) in range(len(others)):
            kind = others[place]
            os.link(folder.parent / f'other{kind}', file.with_suffix(kind))
        else:
            try:
                os.link(photo, file)
            except OSError:  # on another disk
                shutil.copyfile(photo, file)
        kinds[kind] += 1
    return kinds


class Network:
    "The network alone: in one stream with all cores, or in a stream a core; in batches of some size."

    def __init__(self, path, pixels):
        self.pixels, self.cores = pixels, len(os.sched_getaffinity(0))
        self.sessions = {threads: self.load(path, threads) for threads in (1, self.cores)}
        self.name = self.sessions[1].get_inputs()[0].name
        self.pool = ThreadPoolExecutor(self.cores)

    def load(self, path, threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        return ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])

    def rate(self, way):
        "Photos a second."
        streams, size = way
        session = self.sessions[1 if streams > 1 else self.cores]
        batches = [self.pixels[i : i + size] for i in range(0, len(self.pixels), size)]
        start = perf_counter()
        if streams == 1:
            for batch in batches:
                session.run(None, {self.name: batch})
        else:
            list(self.pool.map(lambda batch: session.run(None, {self.name: batch}), batches))
        return len(self.pixels) / (perf_counter() - start)

    def best(self, repeats=3):
        "The fastest way: streams, and photos a batch; and the rates of all."
        ways = [(streams, size) for streams in {1, self.cores} for size in (1, 2, 4, 8, 16, 32)]
        rates = {way: [] for way in ways}
        for turn in range(repeats + 1):
            for way in ways:
                rate = self.rate(way)
                if turn:
                    rates[way].append(rate)
        rates = {way: median(o) for way, o in rates.items()}
        return max(rates, key=rates.get), rates


class Command:
    "`cloud-classifier predict` in a process of its own."

    def __init__(self, model, photos, table):
        command = Path(sys.executable).with_name('cloud-classifier')
        line = [command, 'predict', photos, '--out', table, '--model', model, '--quiet']
        self.journal, self.start = table.with_name(table.name + '.journal'), perf_counter()
        self.process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.file, self.lines = None, 0

    def done(self):
        "Lines in the journal."
        if self.file is None and self.journal.exists():
            self.file = open(self.journal, 'rb')
        if self.file is not None:
            while chunk := self.file.read(1 << 20):
                self.lines += chunk.count(b'\n')
        return self.lines

    def memory(self):
        "Bytes in memory; 0 when it has ended."
        try:
            return int(Path(f'/proc/{self.process.pid}/statm').read_text().split()[1]) * PAGE
        except (OSError, IndexError):
            return 0

    def ended(self):
        return self.process.poll() is not None


def run_beside(command, network, ways, turn):
    "Rates of the command and of the network, by turns; memory of the command by photos that are done."
    ours, alone, memory = [], {way: [] for way in ways}, []
    while not command.done() and not command.ended():
        sleep(0.05)
    while not command.ended():
        start, before = perf_counter(), command.done()
        while perf_counter() < start + turn and not command.ended():
            sleep(0.5)
            memory.append((command.done(), command.memory()))
        if command.ended():
            break
        ours.append((command.done() - before) / (perf_counter() - start))
        command.process.send_signal(signal.SIGSTOP)
        for way in ways:
            network.rate(way)  # warms up
            alone[way].append(network.rate(way))
        command.process.send_signal(signal.SIGCONT)
    return ours, alone, [(n, size) for n, size in memory if size]


def check_rows(table, photos, kinds):
    "Each photo has exactly one row, and the broken ones say so."
    rows = pq.read_table(table, columns=['path', 'label', 'error']).to_pylist()
    assert sorted(row['path'] for row in rows) == sorted(map(str, photos_below(photos)))
    assert sum(row['error'] is not None for row in rows) == kinds['broken']
    assert all((row['label'] is None) == (row['error'] is not None) for row in rows)
    return len(rows)


def photos_below(folder):
    return [o for o in folder.rglob('*') if o.is_file()]


def kill_and_go_on(model, photos, table, kinds, kills, seed=0):
    "Kill the command at random moments, let it finish, and give its rows, and lines of the journal when it was killed."
    random, marks, total = Random(seed), [], sum(kinds.values())
    for moment in sorted(random.sample(range(1, total), kills)):
        command = Command(model, photos, table)
        while command.done() < moment and not command.ended():
            sleep(random.random() / 50)
        command.process.kill()
        command.process.wait()
        marks.append(command.done())
        assert not table.exists()
    assert Command(model, photos, table).process.wait() == 3
    return check_rows(table, photos, kinds), marks


def same_tables(one, other):
    return pq.read_table(one).equals(pq.read_table(other))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', type=Path, default=shipped_model())
    parser.add_argument('--photos', type=int, default=20_000)
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--turn', type=float, default=10)
    parser.add_argument('--near', type=Path, help='a folder on the disk of the photos, so that they can be linked')
    args = parser.parse_args()
    model, found = args.model.resolve(), list(photo_files(args.folder.resolve()))
    clouds = CloudClassifier(model, threads=1)
    network = Network(model, np.stack([clouds.preprocess(o) for o in Random(0).sample(found, SAMPLE)]))
    best, rates = network.best()
    plain = max((way for way in rates if way[0] == 1), key=rates.get)
    with tempfile.TemporaryDirectory(dir=args.near) as root:
        folder, table = Path(root) / 'photos', Path(root) / 'answers.parquet'
        kinds = make_photos(found, folder, args.photos)
        command = Command(model, folder, table)
        ours, alone, memory = run_beside(command, network, {best, plain}, args.turn)
        assert command.process.returncode == 3
        written = check_rows(table, folder, kinds)
        marks = []
        if args.kills:
            killed = table.with_name('killed.parquet')
            _, marks = kill_and_go_on(model, folder, killed, kinds, args.kills)
            assert same_tables(table, killed)
    report(kinds, written, best, plain, rates, ours, alone, memory, marks)


def report(kinds, written, best, plain, rates, ours, alone, memory, marks):
    def text(way):
        streams, size = way
        return f'{streams} thread{"s" * (streams > 1)} at a time, batches of {size}'

    rows = [[f'photos, {kind.lstrip(".")}', count, 'files', ''] for kind, count in kinds.items()]
    rows += [['rows in the table', written, 'rows', 'exactly one a photo']]
    rows += [[f'network alone: {text(way)}', f'{rate:.1f}', 'photos/s', 'trial'] for way, rate in rates.items()]
    rate = median(ours)
    rows += [['predict --out answers.parquet', f'{rate:.1f}', 'photos/s', f'median of {len(ours)} turns']]
    for what, way in {'network alone, the best of all': best, 'network alone, the best in one thread': plain}.items():
        beside = median(alone[way])
        rows += [[what, f'{beside:.1f}', 'photos/s', f'{text(way)}; by turns with predict']]
        rows += [[f'predict beside the {what}', f'{rate / beside:.3f}', 'ratio', 'medians']]
    tenths = [next(o for o in memory if o[0] >= n * memory[-1][0] / 10) for n in range(1, 10)] + [memory[-1]]
    rows += [['memory', f'{size / 1e6:.0f}', 'MB', f'after {n} photos'] for n, size in tenths]
    rows += [['memory at its highest', f'{max(size for _, size in memory) / 1e6:.0f}', 'MB', '']]
    if marks:
        note = 'answers in the journal when it was killed: ' + ' '.join(str(n - 1) for n in marks)
        rows += [['kill -9, then gone on with', len(marks), 'times', note]]
        rows += [['table after the kills', 'equal', '', 'to that of the run that was left alone']]
    with open(Path(__file__).parent / 'results' / 'predict.csv', 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        f.write(f'# python benchmarks/bench_predict.py FOLDER --photos {sum(kinds.values())} --kills {len(marks)}\n')
        csv.writer(f).writerows([['what', 'value', 'unit', 'note'], *rows])
    for row in rows:
        print(*row, sep='; ')


if __name__ == '__main__':
    main()
