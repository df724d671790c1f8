"""The HTTP service at saturation, beside the bare session: throughput, waiting times, memory, and what got lost.

    python benchmarks/bench_serve.py FOLDER [--model MODEL.onnx] [--seconds 60] [--clients 16]

wrk (Debian's package of that name) asks without a pause for the photos in FOLDER, one a request. At the same time
others send what is no photo, photos of too many pixels, requests of too many bytes, and a byte a second. Writes
benchmarks/results/serve.csv, and fails where a good request was lost or memory grew. Ratios hold on other machines.
"""

import argparse
import csv
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import onnxruntime as ort

from cloud_classifier.images import photo_files
from cloud_classifier.prediction.infer import CloudClassifier, find_model

PHOTOS = 40  # that wrk sends by turns
MAX_GROWTH = 0.15  # of memory, between the second quarter of the time and the last
LUA = """
local bodies, i = {}, 0
function init(args)
  for _, name in ipairs(args) do
    local file = io.open(name, 'rb')
    bodies[#bodies + 1] = '--x\\r\\nContent-Disposition: form-data; name="files"; filename="photo.jpg"\\r\\n\\r\\n'
      .. file:read('*a') .. '\\r\\n--x--\\r\\n'
    file:close()
  end
end
function request()
  i = i % #bodies + 1
  return wrk.format('POST', '/predict', {['Content-Type'] = 'multipart/form-data; boundary=x'}, bodies[i])
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %d, "microseconds": %d, "p50": %d, "p95": %d, "p99": %d, "lost": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def bare_rates(model: Path, photos: list[str], seconds: float) -> dict[str, float]:
    "Photos a second of bare sessions on ready pixels, and of `predict_many`, decoding included."
    clouds = CloudClassifier(model)
    pixels = [clouds.preprocess(o)[None] for o in photos[:8]]

    def session(threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(str(model), options, providers=['CPUExecutionProvider'])
        name = session.get_inputs()[0].name
        return lambda o: session.run(['logits'], {name: o})

    def rate(way):
        way()
        n, start = 0, perf_counter()
        while perf_counter() - start < seconds:
            n += way()
        return n / (perf_counter() - start)

    whole, single = session(0), session(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {
            'bare session on all cores, ready pixels': rate(lambda: len([whole(o) for o in pixels])),
            'bare session asked by a thread a core, ready pixels': rate(lambda: len(list(pool.map(single, pixels)))),
            'predict_many, with decoding': rate(lambda: len(list(clouds.predict_many(photos[:8], batch_size=1)))),
        }


@contextmanager
def service(model: Path, log: Path):
    "A running service and its port."
    command = [
        sys.executable,
        '-m',
        'cloud_classifier.cli',
        'serve',
        '-q',
        '--no-site',
        '--port',
        '0',
        '--model',
        str(model),
    ]
    limits = ['--max-bytes', '20000000', '--upload-seconds', '5', '--per-client', '500']
    with open(log, 'w') as errors:
        process = subprocess.Popen([*command, *limits], stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process, int(process.stdout.readline().rstrip('/\n').rpartition(':')[2])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def ask(port: int, body: bytes, declared: int | None = None) -> int:
    "The status of the answer to one request; 0 where there is none."
    multipart = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + body + b'\r\n--x--\r\n'
    head = f'POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {declared or len(multipart)}\r\n'
    with socket.create_connection(('127.0.0.1', port), 120) as connection:
        try:
            connection.sendall(f'{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n'.encode() + multipart)
            line = connection.makefile('rb').readline().split()
        except OSError:
            line = []
    return int(line[1]) if len(line) > 1 else 0


def slow(port: int, stopped: threading.Event) -> int:
    "Send a byte a second until the service has had enough; the status, 0 where it only closed the connection."
    with socket.create_connection(('127.0.0.1', port), 60) as connection:
        head = (
            b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\nContent-Type: multipart/form-data; boundary=x'
        )
        try:
            connection.sendall(head + b'\r\n\r\n--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n')
            connection.settimeout(1)
            for _ in range(60):
                if stopped.is_set():
                    return -1
                try:
                    return int(connection.recv(100).split()[1])
                except TimeoutError:
                    connection.sendall(b'-')
        except (OSError, IndexError):
            pass
    return 0


def wide_png() -> bytes:
    "A PNG of 150 million pixels."
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new('1', (15_000, 10_000)).save(out, 'PNG')
    return out.getvalue()


@contextmanager
def disturbed(port: int):
    "Clients that misbehave while the block runs; yields a count of (kind, status)."
    stopped, seen, wide = threading.Event(), Counter(), wide_png()
    kinds = {
        'no photo': lambda: ask(port, b'seen from the roof'),
        'too many pixels': lambda: ask(port, wide),
        'too many bytes': lambda: ask(port, b'', declared=10**9),
        'a byte a second': lambda: slow(port, stopped),
    }

    def repeat(kind, way):
        while not stopped.is_set():
            seen[kind, way()] += 1
            stopped.wait(0.5)

    threads = [threading.Thread(target=repeat, args=o) for o in kinds.items()]
    for o in threads:
        o.start()
    try:
        yield seen
    finally:
        stopped.set()
        for o in threads:
            o.join()


@contextmanager
def memory_watched(pid: int):
    "Samples of a process's memory, MB, one a second while the block runs."
    stopped, samples = threading.Event(), []

    def watch():
        while not stopped.wait(1):
            pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
            samples.append(pages * os.sysconf('SC_PAGE_SIZE') / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join()


def saturate(port: int, photos: list[str], seconds: int, clients: int) -> dict:
    "What wrk counted."
    with tempfile.NamedTemporaryFile('w', suffix='.lua') as script:
        script.write(LUA)
        script.flush()
        command = ['wrk', '-t1', f'-c{clients}', f'-d{seconds}s', '--timeout', '120s', '-s', script.name]
        done = subprocess.run([*command, f'http://127.0.0.1:{port}', '--', *photos], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def growth(samples: list[float]) -> float:
    "How much more memory there was in the last quarter than in the second, as a share."
    quarter = max(1, len(samples) // 4)
    return median(samples[-quarter:]) / median(samples[quarter : 2 * quarter]) - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', type=Path)
    parser.add_argument('--seconds', type=int, default=60)
    parser.add_argument('--clients', type=int, default=16)
    parser.add_argument('--out', type=Path, default=Path(__file__).with_name('results') / 'serve.csv')
    args = parser.parse_args()
    model, photos = find_model(args.model), list(photo_files(args.folder))
    photos = [photos[i] for i in np.linspace(0, len(photos) - 1, PHOTOS).astype(int)]
    with tempfile.TemporaryDirectory() as folder, service(model, Path(folder, 'log')) as (process, port):
        seconds = max(3, min(15, args.seconds / 6))
        before = bare_rates(model, photos, seconds)
        with memory_watched(process.pid) as alone:
            quiet = saturate(port, photos, args.seconds // 2, args.clients)
        with memory_watched(process.pid) as samples, disturbed(port) as seen:
            loaded = saturate(port, photos, args.seconds, args.clients)
        after = bare_rates(model, photos, seconds)
    rate = quiet['requests'] / quiet['microseconds'] * 1e6
    bare = {name: (before[name] + after[name]) / 2 for name in before}
    rows = [
        *((name, f'{value:.1f}', 'photos a second') for name, value in bare.items()),
        ('service, good clients alone', f'{rate:.1f}', 'photos a second'),
        *((f'service beside {name}', f'{rate / value:.2f}', 'ratio') for name, value in bare.items()),
        *((f'{k}, good clients alone', f'{quiet[k] / 1000:.0f}', 'ms') for k in ('p50', 'p95', 'p99')),
        (
            'with bad, huge and slow clients',
            f'{loaded["requests"] / loaded["microseconds"] * 1e6:.1f}',
            'photos a second',
        ),
        *((f'{k}, with bad, huge and slow clients', f'{loaded[k] / 1000:.0f}', 'ms') for k in ('p50', 'p95', 'p99')),
        ('good requests answered', quiet['requests'] + loaded['requests'], ''),
        ('good requests lost', quiet['lost'] + loaded['lost'], ''),
        ('memory, median', f'{median(alone + samples):.0f}', 'MB'),
        ('memory, growth from the second quarter to the last', f'{100 * growth(samples):.0f}', '%'),
        *((f'{kind}: answered with {status}', n, '') for (kind, status), n in sorted(seen.items()) if status >= 0),
    ]
    python = f'Python {platform.python_version()}'
    with open(args.out, 'w', newline='', encoding='utf-8') as f:
        load = f'load average {os.getloadavg()[0]:.0f}'  # more than the cores: others used them too
        print(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, {python}, {load}', file=f)
        print(f'# python benchmarks/bench_serve.py FOLDER --seconds {args.seconds} --clients {args.clients}', file=f)
        csv.writer(f, lineterminator='\n').writerows([('what', 'value', 'unit'), *rows])
    print(args.out.read_text(encoding='utf-8'))
    sys.exit(bool(quiet['lost'] + loaded['lost']) or growth(samples) > MAX_GROWTH)


if __name__ == '__main__':
    main()
