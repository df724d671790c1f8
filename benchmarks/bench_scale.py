"""Archives on Ray and on all cores: rates beside one process, memory of workers, faults, growth, a plan of a million.

    python benchmarks/bench_scale.py FOLDER [--quick] [--only ray local growth plan faults] [--near FOLDER]

Writes benchmarks/results/scale.csv and scale_local.csv, scale_growth.csv, scale_plan.csv, scale_faults.csv; with
--quick it takes few photos and only prints. The photos are those of FOLDER again and again, each under a name of its
own, in tar files of 50; one in a hundred is broken.

ray: a cluster of two nodes with a CPU each answers 20,000 photos. Every `--turn` seconds its actors are stopped, and
one process on one CPU answers a shard of its own, so both meet the same machine. In the end the rows are compared.
local: the same with all cores of this machine beside the network alone, on pixels in memory; then it is killed and gone
on with. growth: the local engine on archives of three sizes, the time that a photo takes beside that of the network.
plan: what a plan of a million shards takes. faults: what is killed, cut off or refused, each a few times.
Ratios hold on other machines, seconds do not.
"""

import argparse
import csv
import http.client
import io
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import median
from threading import Lock, Thread
from time import perf_counter, sleep
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from bench_predict import SAMPLE, Network

from cloud_classifier.archive import Archive, read_parts
from cloud_classifier.images import photo_files
from cloud_classifier.prediction.infer import CloudClassifier, shipped_model
from cloud_classifier.prediction.scale import Job, Process, model_file

PAGE = os.sysconf('SC_PAGE_SIZE')
IN_A_TAR = 50  # photos
WEIGH_SECONDS = 3  # between looks at the memory of workers
COMMAND = Path(sys.executable).with_name('cloud-classifier')


def make_tars(found, folder, count):
    "Tar files of `count` photos, one in a hundred of them broken."
    folder.mkdir(parents=True)
    photos, cut = cycle(found), Path(found[0]).read_bytes()[:500]
    for first in range(0, count, IN_A_TAR):
        with tarfile.open(folder / f'{first // IN_A_TAR:06}.tar', 'w') as tar:
            for n in range(first, min(first + IN_A_TAR, count)):
                member, content = tarfile.TarInfo(f'{n:08}.jpg'), Path(next(photos)).read_bytes()
                content = cut if n % 100 == 50 else content
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return folder


def link_tars(tars, folder, count):
    "Tar files of `count` photos, which are those of `tars` under more names."
    folder.mkdir()
    for n, tar in zip(range(-(-count // IN_A_TAR)), cycle(sorted(tars.iterdir())), strict=False):
        os.link(tar, folder / f'{n:06}.tar')
    return folder


def rows_of(out):
    "The rows of an archive by name; `KeyError` where there are two of one photo."
    table = pa.Table.from_batches(read_parts(Archive(str(out)))).drop_columns(['time'])
    rows = {row['path']: row for row in table.to_pylist()}
    assert len(rows) == table.num_rows, f'{table.num_rows - len(rows)} photos have more than one row'
    return rows


def memory_of(pid):
    "Bytes in memory; 0 where the process has ended."
    with suppress(OSError, IndexError):
        return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * PAGE
    return 0


def pids_of(what):
    "The processes below this one whose command has `what` in it."
    said = subprocess.run(['ps', 'axww', '-o', 'pid=,ppid=,args='], capture_output=True, text=True, check=True).stdout
    rows = [(int(pid), int(parent), ''.join(args)) for pid, parent, *args in map(splits, said.splitlines())]
    below, found = {os.getpid()}, set()
    while below := {pid for pid, parent, _ in rows if parent in below} - found:
        found |= below
    return [pid for pid, _, args in rows if pid in found and what in args]


def splits(line):
    return line.split(None, 2)


class Run:
    "A command that answers an archive, in a process of its own."

    def __init__(self, photos, out, model, workers, *options):
        line = [COMMAND, 'predict', *photos, '--out', out, '--model', model, '--quiet', *options]
        self.out, self.workers, self.start = Path(out), workers, perf_counter()
        self.process = subprocess.Popen(list(map(str, line)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.memory, self.weighed, self.stopped, self.first, self.last = [], 0.0, 0.0, None, None

    def parts(self):
        return sum(1 for _ in self.out.glob('parts/*/shard-*.parquet'))

    def ended(self):
        return self.process.poll() is not None

    def look(self):
        "Note when the first and the last part appeared; now and then (`ps` takes time) the memory of each worker."
        parts = self.parts()
        if perf_counter() > self.weighed + WEIGH_SECONDS:
            self.weighed = perf_counter()
            self.memory += [(parts, size) for pid in pids_of(self.workers) if (size := memory_of(pid))]
        if self.first is None and parts >= len(os.sched_getaffinity(0)):  # one of each worker
            self.first = parts, self.running()
        if self.last is None or parts > self.last[0]:
            self.last = parts, self.running()

    def running(self):
        "Seconds that it ran, without those for which it was stopped."
        return perf_counter() - self.start - self.stopped

    def let_run(self, seconds):
        until = perf_counter() + seconds
        while perf_counter() < until and not self.ended():
            self.look()
            sleep(0.25)

    @contextmanager
    def pause(self):
        "Stop the workers for a block."
        workers, start = pids_of(self.workers), perf_counter()
        for sent in (signal.SIGSTOP, signal.SIGCONT):
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, sent)
            if sent == signal.SIGSTOP:
                yield
        self.stopped += perf_counter() - start

    def finish(self, *statuses):
        error = self.process.communicate()[1].decode()
        assert self.process.returncode in statuses, f'{self.process.returncode}: {error}'
        self.look()

    def rate(self, photos):
        "Photos a second, from the first part to the last."
        shards = self.last[0] - self.first[0]
        return photos / self.last[0] * shards / max(self.last[1] - self.first[1], 1e-9)


class OneProcess:
    "One worker on one CPU, which answers the shards of an archive of its own, one for each turn."

    def __init__(self, archive, out, model):
        self.archive, self.process = archive, None
        for name in ('plan.parquet', 'model.onnx', 'archive.json', 'listing'):
            source = Path(archive.out) / name
            if source.is_dir():
                shutil.copytree(source, out / name)
            elif source.exists():
                out.mkdir(exist_ok=True)
                shutil.copyfile(source, out / name)
        job = Job('predict', {}, asdict(model), str(out), os.getcwd(), [], 'one')
        self.process, self.rates = Process('serve_shards', asdict(job), 1), []
        self.shards = iter(list(archive.shards()))
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})  # which the process inherits
        self.process.start()
        os.sched_setaffinity(0, cpus)

    def turn(self):
        "Answer one shard."
        if shard := next(self.shards, None):
            outcome = self.process.do(shard)
            self.rates.append(outcome.rows / outcome.seconds)


@contextmanager
def cluster_of_two():
    "A Ray cluster of two nodes with a CPU each."
    os.environ |= dict(RAY_USAGE_STATS_ENABLED='0', RAY_raylet_start_wait_time_s='180', OMP_NUM_THREADS='1')
    from ray.cluster_utils import Cluster

    for attempt in range(3):  # a busy machine takes too long to start what Ray starts beside its nodes
        cluster = Cluster()
        try:
            cluster.add_node(num_cpus=1, include_dashboard=False)
            cluster.add_node(num_cpus=1)
            break
        except Exception as e:
            print(f'Ray did not start ({e}); again', file=sys.stderr)
            cluster.shutdown()
            if attempt == 2:
                raise
    try:
        yield cluster
    finally:
        cluster.shutdown()


def memory_rows(memory, parts):
    "The memory of the largest worker by tenths of the way."
    rows = []
    for tenth in range(1, 11):
        there = [size for n, size in memory if parts * (tenth - 1) / 10 < n <= parts * tenth / 10]
        if there:
            rows.append(
                ['memory of the largest worker', f'{max(there) / 1e6:.0f}', 'MB', f'up to {tenth}0 % of the parts']
            )
    return rows


def bench_ray(args, tars, root, model):
    "Two nodes with a CPU each beside one process on one CPU."
    out, one = root / 'ray', None
    with cluster_of_two() as cluster:
        run = Run([tars], out, args.model, 'ray::MapWorker', '--engine', 'ray', '--address', cluster.address)
        while not run.parts() and not run.ended():
            sleep(0.2)
        while not run.ended():
            run.look()
            with run.pause():
                one = one or OneProcess(Archive(str(out)), root / 'one', model)
                one.turn()
            run.let_run(args.turn)
        run.finish(3)
    one.process.close()
    beside, ours = median(one.rates), run.rate(args.photos)
    alone = Run([tars], root / 'one', args.model, 'serve_shards')
    alone.finish(0, 3)
    same = rows_of(out) == rows_of(root / 'one')
    assert same, 'rows differ'
    rows = [
        ['photos', args.photos, 'photos', f'in tar files of {IN_A_TAR}; one in a hundred is broken'],
        [
            'Ray, two nodes with one CPU each',
            f'{ours:.1f}',
            'photos/s',
            f'{args.photos} photos in {run.running():.0f} s',
        ],
        ['one process on one CPU', f'{beside:.1f}', 'photos/s', f'median of {len(one.rates)} turns with the above'],
        ['Ray beside one process', f'{ours / beside:.2f}', 'ratio', ''],
        ['rows equal to those of one machine', 'yes', '', f'{len(rows_of(out))} rows, exactly one a photo'],
    ]
    return rows + memory_rows(run.memory, run.parts())


def beside_network(args, tars, out, network, best):
    "The local engine by turns with the network alone: the run, and the network's rates."
    run, alone = Run([tars], out, args.model, 'serve_shards'), []
    while not run.parts() and not run.ended():
        sleep(0.1)
    while not run.ended():
        run.look()
        with run.pause():
            network.rate(best)  # warms up
            alone += [network.rate(best) for _ in range(3)]
        run.let_run(args.turn)
    run.finish(0, 3)
    return run, alone


def bench_local(args, tars, root, model):
    "All cores of this machine beside the network alone; then killed and gone on with."
    network = Network(args.model, pixels_of(args))
    best, rates = network.best()
    run, alone = beside_network(args, tars, root / 'local', network, best)
    whole, rate, marks = rows_of(root / 'local'), run.rate(args.photos), []
    for moment in sorted(Random(0).sample(range(1, max(2, args.photos // IN_A_TAR)), args.kills)):
        killed = Run([tars], root / 'killed', args.model, 'serve_shards')
        while killed.parts() < moment and not killed.ended():
            sleep(0.02)
        killed.process.kill()
        killed.process.communicate()
        marks.append(killed.parts())
    Run([tars], root / 'killed', args.model, 'serve_shards').finish(0, 3)
    assert rows_of(root / 'killed') == whole
    one = max(rate for (streams, _), rate in rates.items() if streams == 1)
    streams, size = best
    rows = [
        ['photos', args.photos, 'photos', f'in tar files of {IN_A_TAR}; one in a hundred is broken'],
        ['predict --engine local', f'{rate:.1f}', 'photos/s', f'{network.cores} processes'],
        [
            'network alone',
            f'{median(alone):.1f}',
            'photos/s',
            f'{streams} at a time, batches of {size}; by turns with predict',
        ],
        ['predict beside the network alone', f'{rate / median(alone):.3f}', 'ratio', ''],
        ['network alone, in one stream with all cores', f'{one:.1f}', 'photos/s', 'trial'],
        ['rows', len(whole), 'rows', 'exactly one a photo'],
        ['kill -9, then gone on with', len(marks), 'times', 'parts that were there: ' + ' '.join(map(str, marks))],
        ['rows after the kills', 'equal', '', 'to those of the run that was left alone'],
    ]
    return rows + memory_rows(run.memory, run.parts())


def pixels_of(args):
    "What the network alone is timed on."
    clouds = CloudClassifier(args.model, threads=1)
    return np.stack([clouds.preprocess(o) for o in Random(0).sample(args.found, SAMPLE)])


def bench_growth(args, tars, root, model):
    "The time that a photo takes in archives of three sizes, in milliseconds and in the network's own time."
    network = Network(args.model, pixels_of(args))
    best, _ = network.best()
    rows, costs = [], []
    for size in args.sizes:
        folder = link_tars(tars, root / f'{size}', size)
        run, alone = beside_network(args, folder, root / f'out {size}', network, best)
        assert len(rows_of(root / f'out {size}')) == size
        rate, beside = run.rate(size), median(alone)
        costs.append(beside / rate)
        rows.append(
            [f'{size} photos', f'{1000 / rate:.2f}', 'ms a photo', f'{beside / rate:.3f} of the network’s own time']
        )
        shutil.rmtree(root / f'out {size}')
    spread = max(costs) / min(costs) - 1
    return [*rows, ['the most beside the least', f'{spread:.1%}', '', 'in the network’s own time']]


PLAN = """
import resource, sys, time
from cloud_classifier import archive as room
from cloud_classifier.prediction.scale import _missing, blocks_of
shards, kind, out = int(sys.argv[1]), sys.argv[2], room.Archive(sys.argv[3])
start = time.monotonic()
tars = (room.Tar(f's3://a-bucket/cameras/2026/north/shard-{n:08}.tar', 10**8) for n in range(shards))
names = (f's3://a-bucket/cameras/2026/north/{n:010}.jpg' for n in range(20*shards))
made = room.make_plan(out, tars if kind == 'tar' else names, photos=20)
planned = time.monotonic() - start
done = [f'shard-{n:08}.parquet' for n in range(0, shards, 2)]
room.Disk.names = lambda self, folder: ['000'] if folder.endswith('parts') else done if 'parts' in folder else []
to_do = _missing(out)
blocks = blocks_of(to_do)
n = sum(1 for _ in room.shards_of(to_do))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6
print(made, n, len(blocks), planned, peak, time.monotonic() - start)
"""


def bench_plan(args, tars, root, model):
    "What a plan takes, of tar files and of photos that lie alone."
    rows = []
    for kind in ('tar', 'listing'):
        command = [sys.executable, '-c', PLAN, args.shards, kind, root / f'plan {kind}']
        said = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout.split()
        made, left, blocks, planned, peak, seconds = map(float, said)
        size = sum(o.stat().st_size for o in (root / f'plan {kind}').rglob('*') if o.is_file())
        what = f'{made:.0f} shards of {"tar files" if kind == "tar" else "20 photos each"}'
        rows += [
            [what, f'{peak:.2f}', 'GB', 'memory at its highest, to plan and to find what is to do'],
            [what, f'{planned:.0f}', 's', f'to plan; {seconds:.0f} with half of them done, and all others looked at'],
            [what, f'{size / 1e6:.0f}', 'MB', f'on disk; {left:.0f} are to do, in {blocks:.0f} blocks of Ray'],
        ]
        shutil.rmtree(root / f'plan {kind}')
    return rows


class Refusing(ThreadingHTTPServer):
    "A server in front of another one, which refuses every tenth read."

    def __init__(self, port):
        self.port, self.reads, self.refused, self.lock = port, 0, 0, Lock()
        super().__init__(('127.0.0.1', 0), Forwarder)


class Forwarder(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def forward(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        with self.server.lock:
            self.server.reads += self.command == 'GET'
            refuse = self.command == 'GET' and self.server.reads % 10 == 0
            self.server.refused += refuse
        if refuse:
            return self.answer(503, {}, b'')
        there = http.client.HTTPConnection('127.0.0.1', self.server.port)
        there.request(self.command, self.path, body, dict(self.headers))
        response = there.getresponse()
        self.answer(response.status, dict(response.getheaders()), response.read())
        there.close()

    def answer(self, status, headers, body):
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ('content-length', 'transfer-encoding', 'connection'):
                self.send_header(name, value)
        length = headers.get('Content-Length', len(body)) if self.command == 'HEAD' else len(body)
        self.send_header('Content-Length', str(length))
        self.end_headers()
        self.wfile.write(b'' if self.command == 'HEAD' else body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

    def log_message(self, *args):
        pass


STORE = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(10**6)
"""


def put(fs, name, content):
    with fs.open_output_stream(name) as file:
        file.write(content)


@contextmanager
def refusing_store(tars):
    "A store that has the tar files and refuses every tenth read; the place of them in it, and the server."
    from pyarrow.fs import FileSystem

    store = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', STORE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        port = int(store.stdout.readline())
        direct = (
            f's3://skies?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true'
        )
        fs, _ = FileSystem.from_uri(direct)
        fs.create_dir('skies')
        for n, tar in enumerate(sorted(tars.iterdir())):
            if n % 2:  # every other one as it is, the rest photo by photo
                put(fs, f'skies/tars/{tar.name}', tar.read_bytes())
                continue
            with tarfile.open(tar) as members:
                for member in members:
                    put(fs, f'skies/tars/{tar.name}/{member.name}', members.extractfile(member).read())
        with Refusing(port) as server:
            server.daemon_threads = True
            Thread(target=server.serve_forever, daemon=True).start()
            settings = f'?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=us-east-1'
            yield f's3://skies/tars{settings}', server
            server.shutdown()
    finally:
        store.kill()
        store.wait()


def shorten(tars, folder):
    "The same tar files, of which one is cut off in the middle; the names that rows have then."
    folder.mkdir()
    for tar in sorted(tars.iterdir()):
        (folder / tar.name).write_bytes(tar.read_bytes())
    cut = folder / f'{1:06}.tar'
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return folder, cut


def harm(fault, run, cluster, random, total):
    "Kill something at a random moment; the run that goes on."
    moment = random.randrange(1, max(2, total - 2))
    while run.parts() < moment and not run.ended():
        sleep(0.02)
    if fault == 'an actor is killed':
        for pid in random.sample(pids_of('ray::MapWorker'), 1):
            os.kill(pid, signal.SIGKILL)
    if fault == 'a node is removed':
        cluster.remove_node(max(cluster.worker_nodes, key=id), allow_graceful=False)
    if fault == 'the driver is killed':
        run.process.kill()
        run.process.communicate()
    return moment


def bench_faults(args, tars, root, model):
    "Each fault a few times: every photo has exactly one row."
    os.environ |= dict(AWS_ACCESS_KEY_ID='key', AWS_SECRET_ACCESS_KEY='secret', AWS_EC2_METADATA_DISABLED='true')
    tars = link_tars(tars, root / 'few', args.fault_photos)
    random, rows, total = Random(0), [], len(list(tars.iterdir()))
    whole = root / 'whole'
    Run([tars], whole, args.model, 'serve_shards').finish(0, 3)
    names = {o.removeprefix(f'{tars}/'): row['label'] for o, row in rows_of(whole).items()}
    with cluster_of_two() as cluster:
        engine = ['--engine', 'ray', '--address', cluster.address]
        for fault in ('an actor is killed', 'a node is removed', 'the driver is killed'):
            moments = []
            for n in range(args.repeats):
                out = root / f'{fault} {n}'
                run = Run([tars], out, args.model, 'ray::MapWorker', *engine)
                moments.append(harm(fault, run, cluster, random, total))
                if fault == 'the driver is killed':
                    run = Run([tars], out, args.model, 'ray::MapWorker', *engine)
                run.finish(0, 3)
                if fault == 'a node is removed':
                    cluster.add_node(num_cpus=1)
                assert {o.removeprefix(f'{tars}/'): row['label'] for o, row in rows_of(out).items()} == names, fault
            note = 'rows equal; parts that were there: ' + ' '.join(map(str, moments))
            rows.append([fault, args.repeats, 'times', note])
        short, cut = shorten(tars, root / 'short')
        for n in range(args.repeats):
            Run([short], root / f'cut {n}', args.model, 'ray::MapWorker', *engine).finish(3)
            found = rows_of(root / f'cut {n}')
            there = {o.removeprefix(f'{short}/'): row['label'] for o, row in found.items() if o != str(cut)}
            assert there.items() <= names.items()
            assert {o for o in names if not o.startswith(cut.name)} <= there.keys()
        lost = len(names) - len(there)
        rows.append(
            ['a shard is cut off', args.repeats, 'times', f'{lost} photos are one row: {found[str(cut)]["error"]}']
        )
        with refusing_store(tars) as (place, server):
            for n in range(args.repeats):
                out = root / f'refused {n}'
                Run([place], out, args.model, 'ray::MapWorker', *engine).finish(0, 3)
                found = {urlsplit(o).path.removeprefix('/tars/'): row['label'] for o, row in rows_of(out).items()}
                assert found == names
            note = f'{server.refused} of {server.reads} reads refused; rows equal'
            rows.append(['the store refuses every tenth read', args.repeats, 'times', note])
    return [['photos', len(names), 'photos', f'in {total} tar files, two nodes with one CPU each'], *rows]


BENCHES = {
    'plan': (bench_plan, 'scale_plan'),
    'ray': (bench_ray, 'scale'),
    'local': (bench_local, 'scale_local'),
    'faults': (bench_faults, 'scale_faults'),
    'growth': (bench_growth, 'scale_growth'),
}
SIZES = {  # in full, and with --quick
    'photos': (20_000, 400),
    'turn': (20, 5),
    'kills': (5, 2),
    'shards': (1_000_000, 20_000),
    'repeats': (3, 1),
    'fault_photos': (1_000, 400),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--model', type=Path, default=shipped_model())
    parser.add_argument('--quick', action='store_true', help='few photos; what is found is only printed')
    parser.add_argument('--faults', action='store_true', help='the faults alone')
    parser.add_argument('--only', nargs='+', choices=BENCHES, default=list(BENCHES))
    parser.add_argument('--sizes', nargs=3, type=int, help='photos for growth')
    parser.add_argument('--near', type=Path, help='a folder with room for the archives')
    parser.add_argument('--results', type=Path, default=Path(__file__).parent / 'results')
    for name, (full, _) in SIZES.items():
        parser.add_argument(f'--{name.replace("_", "-")}', type=type(full), help=f'{full:,} where not --quick')
    args = parser.parse_args()
    for name, sizes in SIZES.items():
        if getattr(args, name) is None:
            setattr(args, name, sizes[args.quick])
    args.sizes = args.sizes or ([200, 400, 800] if args.quick else [2_000, 20_000, 100_000])
    args.only = ['faults'] if args.faults else args.only
    args.model, args.found = args.model.resolve(), list(photo_files(args.folder.resolve()))
    return args


def record(args, name, rows, seconds):
    "Print what was found, and write it down."
    for row in rows:
        print(*row, sep='; ', flush=True)
    print(f'({seconds:.0f} s)', flush=True)
    if args.quick:
        return
    with open(args.results / f'{name}.csv', 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        only = next(key for key, (_, file) in BENCHES.items() if file == name)
        f.write(f'# python benchmarks/bench_scale.py FOLDER --only {only} --photos {args.photos} --turn {args.turn}\n')
        csv.writer(f).writerows([['what', 'value', 'unit', 'note'], *rows])


def main():
    args = arguments()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    model = model_file(args.model)
    with tempfile.TemporaryDirectory(dir=args.near) as root:
        tars = Path(root) / 'tars'
        if set(args.only) - {'plan'}:
            make_tars(args.found, tars, args.photos)
        for name in args.only:
            bench, file = BENCHES[name]
            (place := Path(root) / name).mkdir()
            start = perf_counter()
            record(args, file, bench(args, tars, place, model), perf_counter() - start)
            shutil.rmtree(place)


if __name__ == '__main__':
    main()
