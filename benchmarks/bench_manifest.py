"""Times what a person waits for when a dataset has grown large: `status`, and a run that goes on.

    python benchmarks/bench_manifest.py [--rows 100000] [--repeats 3]

The manifest has that many rows, three quarters of them with files of a few bytes, all made for the occasion. Times are
wall times of the whole command, from its start: to its end for `status`, to the first address asked for the run.
Writes benchmarks/results/manifest.csv.
"""

import argparse
import csv
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

from cloud_classifier.data.dataset import Dataset

HERE = Path(__file__).parent
LABELS = ('Cirrus', 'Stratus', 'Cumulus', 'Contrail')


def make(folder, rows, port):
    "A dataset with so many rows, ten of which are pending, and the list that they came from."
    dataset = Dataset(folder)
    asked = [dict(url=f'http://127.0.0.1:{port}/{i}.jpg', label=LABELS[i % 4], source='urls') for i in range(rows)]
    dataset.manifest.ask(asked)
    for label in LABELS:
        (folder / label).mkdir()
    done = [(f'{row["label"]}/{i:016x}.jpg', f'{i:064x}', i + 1) for i, row in enumerate(asked) if i % 4 and i > 20]
    for path, *_ in done:
        (folder / path).write_bytes(b'photo')
    with dataset.manifest.transaction() as db:
        db.execute("UPDATE photos SET status = 'failed', reason = 'not found' WHERE id > 10")
        db.executemany(
            "UPDATE photos SET status = 'ok', reason = '', path = ?, sha256 = ?, size = 5 WHERE id = ?", done
        )
        for path, _, number in done:
            modified = os.stat(folder / path).st_mtime_ns
            db.execute('UPDATE photos SET mtime = ? WHERE id = ?', (modified, number))
    with open(folder.with_suffix('.csv'), 'w', newline='') as f:
        table = csv.writer(f)
        table.writerow(['url', 'label'])
        table.writerows((row['url'], row['label']) for row in asked)


def command(*words):
    return [sys.executable, '-m', 'cloud_classifier.cli', *map(str, words)]


def seconds_of_status(folder):
    start = perf_counter()
    subprocess.run(command('status', folder, '--json'), check=True, capture_output=True)
    return perf_counter() - start


def seconds_until_it_asks(folder, server):
    start = perf_counter()
    words = ['scrape', folder, '--source', 'urls', '--from', folder.with_suffix('.csv'), '--allow-private']
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    connection, _ = server.accept()
    took = perf_counter() - start
    process.kill()
    process.wait()
    connection.close()
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rows', type=int, default=100_000)
    parser.add_argument('--repeats', type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp, socket.create_server(('127.0.0.1', 0), backlog=100) as server:
        folder = Path(tmp) / 'skies'
        folder.mkdir()
        make(folder, args.rows, server.getsockname()[1])
        results = {
            'status --json': [seconds_of_status(folder) for _ in range(args.repeats)],
            'scrape, until it asks the first address': [
                seconds_until_it_asks(folder, server) for _ in range(args.repeats)
            ],
        }
    with open(HERE / 'results' / 'manifest.csv', 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        f.write(f'# python benchmarks/{Path(__file__).name} {shlex.join(sys.argv[1:])}\n')
        table = csv.writer(f, lineterminator='\n')
        table.writerow(['command', 'rows', 'median seconds', 'slowest'])
        for name, taken in results.items():
            table.writerow([name, args.rows, f'{median(taken):.2f}', f'{max(taken):.2f}'])
    print((HERE / 'results' / 'manifest.csv').read_text())


if __name__ == '__main__':
    main()
