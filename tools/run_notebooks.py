"Runs the notebooks as nbdev-test does, and compares what their cells say with what is saved: --help tells the options."

import argparse
import gc
import os
import pickle
import re
import sys
import time
import warnings
from collections.abc import Iterator
from functools import cache, partial
from importlib import import_module
from math import isclose
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryFile
from unittest.mock import patch

import nbdev.test
from fastcore.nbio import read_nb
from fastcore.parallel import parallel
from nbdev.clean import clean_nb
from nbdev.config import get_config
from readme import ROOT

# Trained networks come out differently on each machine: notebooks that train are run and not compared. On newer Pythons
# than the oldest that is supported none is, for versions differ in how they show values and word errors.
HEAVY = r'torch|fastai|timm|cloud_classifier\.(?:training|evaluation|all|demo)'
TRAINS = re.compile(rf'^\s*(?:from|import) (?:{HEAVY})\b', re.MULTILINE)
COMPARED_PYTHON = (3, 11)
FLOAT = re.compile(r'(\d+\.\d+(?:e[-+]?\d+)?)')

# What takes long to import.
IMPORTS = (
    'cleanlab faiss fastai.distributed fastapi filelock rich.progress sklearn.covariance '
    'sklearn.decomposition sklearn.linear_model timm torch.export._trace torch.onnx._internal.exporter._compat '
    'onnxscript.function_libs.torch_lib.ops uvicorn cloud_classifier.cli cloud_classifier.data.duplicates '
    'cloud_classifier.data.scrape cloud_classifier.data.clean cloud_classifier.evaluation.round '
    'cloud_classifier.prediction.export cloud_classifier.prediction.batch cloud_classifier.prediction.serve '
    'cloud_classifier.prediction.site cloud_classifier.prediction.watch'
)
# All workers end at the same time when what takes long doesn't come last.
LONG = 'report run export cli cloud_learner demo calibrate round ood recipes callbacks oof watch'.split()


def same(old: str, new: str) -> bool:
    "Whether two texts say the same: other processors round differently, and widths of columns follow."
    a, b = (FLOAT.split(' '.join(o.split())) for o in (old, new))
    pairs = zip(a[1::2], b[1::2], strict=False)
    return a[::2] == b[::2] and all(isclose(float(x), float(y), rel_tol=0.02, abs_tol=0.01) for x, y in pairs)


def said(cell) -> list[str]:
    "What a cell printed and what its values are, as text."
    outputs = cell.get('outputs', [])
    return [''.join(o.get('text') or o.get('data', {}).get('text/plain', '')) for o in outputs]


def stale(saved, run) -> Iterator[str]:
    "A line for each cell that says something else than is saved; what is marked `#| varies` is not looked at."
    for old, new in zip(saved.cells, run.cells, strict=True):
        texts = '\n'.join(said(old)), '\n'.join(said(new))
        if old.cell_type == 'code' and 'varies' not in old.directives and not same(*texts):
            yield '\n'.join(
                [f'the cell {old.source[:200]!r} is saved with', texts[0][:1000], 'and says', texts[1][:1000]]
            )


def check(file: Path, flags: list[str]) -> tuple[bool, list[str]]:
    "Whether a notebook runs, and which of its saved outputs are stale."
    runs = []
    with patch.object(nbdev.test, 'write_nb', lambda nb, _: runs.append(nb)):
        ran, _ = nbdev.test.test_nb(file, skip_flags=flags, basepath=ROOT, save=True)
    saved = read_nb(file)
    trains = any(TRAINS.search(o.source) for o in saved.cells if o.cell_type == 'code')
    if not (ran and runs) or trains or sys.version_info[:2] != COMPARED_PYTHON:
        return ran, []
    clean_nb(runs[0])
    return True, [*stale(saved, runs[0])]


def prepare() -> None:
    "Import what is slow to import, and draw what many notebooks ask for, so that forked processes have it."
    samples = import_module('cloud_classifier.samples')
    for drawn in ('draw_ood_samples', 'plain_skies'):
        setattr(samples, drawn, cache(getattr(samples, drawn)))
    with warnings.catch_warnings(action='ignore'):
        for module in IMPORTS.split():
            import_module(module)
    samples.draw_ood_samples(40, 128, 0)  # as a report asks for them
    samples.draw_ood_samples(60, 64, 1000)  # as a score of a small network asks for them
    import_module('pandas').reset_option('display.max_colwidth')  # fastai widens it for all who import it
    threads = [o.read_text().strip() for o in Path('/proc/self/task').glob('*/comm')]
    assert len(threads) - threads.count('jemalloc_bg_thd') == 1, f'a process with threads can not be forked: {threads}'
    gc.collect()
    gc.freeze()


def answer(file: Path, flags: list[str], stream) -> None:
    "`check`, in a forked process."
    import_module('numpy').random.seed()
    pickle.dump(check(file, flags), stream)
    stream.flush()


def answered(process, stream) -> tuple[bool, list[str]]:
    "What `check` returned in a process that has ended; one that died has run no notebook to its end."
    stream.seek(0)
    if process.exitcode or not (text := stream.read()):
        print(f'{process.name}: its process ended with status {process.exitcode}', file=sys.stderr)
        return False, []
    return pickle.loads(text)


def in_forks(files: list[Path], flags: list[str], workers: int) -> list[tuple[bool, list[str]]]:
    "`check` of each file, in a process of its own that is forked from this one; so many at a time."
    fork, running, results = get_context('fork'), {}, {}
    places = {name: i for i, name in enumerate(LONG)}
    waiting = sorted(files, key=lambda o: places.get(re.sub(r'^\d+_', '', o.stem), len(LONG)), reverse=True)
    while waiting or running:
        while waiting and len(running) < workers:
            file, stream = waiting.pop(), TemporaryFile()
            process = fork.Process(target=answer, args=(file, flags, stream), name=file.name)
            process.start()
            running[process] = file, stream
        time.sleep(0.02)
        for process in [o for o in running if not o.is_alive()]:
            file, stream = running.pop(process)
            with stream:
                results[file] = answered(process, stream)
    return [results[o] for o in files]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('files', nargs='*', type=Path, help='notebooks; all of them where none is named')
    parser.add_argument('--workers', type=int, default=2, help='processes at a time')
    parser.add_argument(
        '--no-fork', action='store_true', help='each process runs many notebooks, and imports for itself'
    )
    parser.add_argument('--flags', default='', help='cells to run that are left out otherwise: slow, network, cuda')
    args = parser.parse_args()
    config = get_config(ROOT)
    flags = [o for o in config.tst_flags.split() if o not in args.flags.split()]
    files = [o.resolve() for o in args.files] or sorted(config.nbs_path.rglob('[!.]*.ipynb'))
    files = [o for o in files if '.ipynb_checkpoints' not in o.parts]
    # A process with threads of its own can't be forked; and each worker has a core.
    one_thread = os.environ.setdefault('OMP_NUM_THREADS', '1') == '1'
    if len(files) > 1 and args.workers and one_thread and sys.platform == 'linux' and not args.no_fork:
        prepare()
        results = in_forks(files, flags, args.workers)
        gc.unfreeze()  # so that all is taken apart in order at the end
    else:
        results = parallel(partial(check, flags=flags), files, n_workers=args.workers if len(files) > 1 else 0)
    lines = [
        f'{file.relative_to(ROOT)}: {line}'
        for file, (ran, found) in zip(files, results, strict=True)
        for line in (found if ran else ['failed; see above'])
    ]
    sys.exit('\n\n'.join(lines) or 0)


if __name__ == '__main__':
    import run_notebooks  # by its own name, for a notebook that runs takes the name __main__

    run_notebooks.main()
