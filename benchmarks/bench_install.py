"""How large an installation is: the package, and each package that comes with it.

    python benchmarks/bench_install.py [--extra dev]

The wheel and the source distribution are built from this folder, and the wheel is installed into an empty environment,
with the versions of constraints.txt, first alone and then with each --extra. Counted are the bytes of all files that
pip lists and, where there is no extra, of what it compiles.
Writes benchmarks/results/install.csv. Needs uv and a network.
"""

import argparse
import csv
import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import Distribution, distributions
from importlib.util import cache_from_source
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
UV = [sys.executable, '-m', 'uv']


def uv(*words) -> None:
    subprocess.run([*UV, *map(str, words)], cwd=ROOT, check=True, capture_output=True)


def built(out: Path) -> tuple[Path, Path]:
    "The wheel and the source distribution."
    uv('build', '--quiet', '--out-dir', out)
    return next(out.glob('*.whl')), next(out.glob('*.tar.gz'))


def bytes_of(package: Distribution) -> int:
    "The files that an installer wrote, and the modules that it compiled."
    paths = {os.path.realpath(file.locate()) for file in package.files or ()}
    paths |= {cache_from_source(path) for path in paths if path.endswith('.py')}
    return sum(os.path.getsize(path) for path in paths if os.path.isfile(path))


def installed(wheel: Path, extras: str, folder: Path) -> list[tuple[str, str, int]]:
    "Name, version and bytes of what is in an environment that has the package, the largest first."
    uv('venv', '--quiet', '--python', sys.executable, folder)
    uv(
        'pip',
        'install',
        '--quiet',
        '--compile-bytecode',
        '--python',
        folder,
        '-c',
        'constraints.txt',
        f'{wheel}{extras}',
    )
    packages = next(folder.rglob('site-packages'))
    rows = [(o.metadata['Name'], o.version, bytes_of(o)) for o in distributions(path=[str(packages)])]
    return sorted(rows, key=lambda row: -row[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--extra', action='append', default=[], help='an extra to measure as well; repeatable')
    args = parser.parse_args()
    rows = []
    with TemporaryDirectory() as name:
        place = Path(name)
        wheel, source = built(place / 'dist')
        rows += [
            ('files', 'wheel', '', wheel.stat().st_size),
            ('files', 'source distribution', '', source.stat().st_size),
        ]
        base = installed(wheel, '', place / 'base')
        rows += [('base', *row) for row in base] + [('base', 'all', '', sum(row[2] for row in base))]
        for extra in args.extra:
            more = installed(wheel, f'[{extra}]', place / extra)
            rows += [(extra, *row) for row in more[:10]] + [(extra, 'all', '', sum(row[2] for row in more))]
    file = ROOT / 'benchmarks' / 'results' / 'install.csv'
    with open(file, 'w', newline='', encoding='utf-8') as f:
        print(
            f'# {date.today()}, {platform.machine()}, {platform.system()}, Python {platform.python_version()}', file=f
        )
        print(f'# python {" ".join(["benchmarks/bench_install.py", *sys.argv[1:]])}', file=f)
        print('# of an extra the ten largest packages, and all of them together, the base included', file=f)
        table = csv.writer(f, lineterminator='\n')
        table.writerow(('install', 'package', 'version', 'MB'))
        table.writerows((*row[:3], f'{row[3] / 1e6:.2f}') for row in rows)
    print(file.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
