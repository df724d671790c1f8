"Runs the notebooks as nbdev-test does, and compares what their cells say with what is saved: --help tells the options."

import argparse
import re
import sys
from collections.abc import Iterator
from functools import partial
from math import isclose
from pathlib import Path
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('files', nargs='*', type=Path, help='notebooks; all of them where none is named')
    parser.add_argument('--workers', type=int, default=2, help='processes at a time')
    parser.add_argument('--flags', default='', help='cells to run that are left out otherwise: slow, network, cuda')
    args = parser.parse_args()
    config = get_config(ROOT)
    flags = [o for o in config.tst_flags.split() if o not in args.flags.split()]
    files = [o.resolve() for o in args.files] or sorted(config.nbs_path.rglob('[!.]*.ipynb'))
    files = [o for o in files if '.ipynb_checkpoints' not in o.parts]
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
