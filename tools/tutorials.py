"""Runs the tutorials and keeps what they show, but for photos: python tools/tutorials.py FOLDER [NAME …]

FOLDER holds the CCSN database. Under nbdev-test the tutorials work on a few rendered skies, in seconds; the outputs
that are saved with them come from here, and a stamp in each notebook says so.
"""

import hashlib
import io
import json
import os
import resource
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / 'nbs' / 'tutorials'
ON_PHOTOS = 'cloud_learner', 'is_my_dataset_any_good'  # the tutorials that show what they find in FOLDER
INSTEAD = 'Photos are shown here. They are not kept with this notebook: run it to see them.\n'
FLAGS = ['slow', 'network', 'cuda']  # of cells that nbdev-test leaves out


def shows_photos(cell: dict) -> bool:
    "Whether a cell says that what it shows are photos."
    return '#| photos' in ''.join(cell['source']).splitlines()


def is_bar(output: dict) -> bool:
    "Whether an output is a progress bar, or what is left of one."
    html = ''.join(output.get('data', {}).get('text/html', ['-']))
    return output.get('name') == 'stderr' or '<progress' in html or not html.strip()


def drawn_over(text: str) -> list[str]:
    "The lines that a terminal shows in the end: what is drawn over, such as a bar, is gone."
    lines = [line.rpartition('\r')[2].rstrip() for line in text.split('\n')]
    return [f'{line}\n' for line in lines if line]


def smaller(output: dict) -> dict:
    "An output whose picture is no larger than a page shows it."
    from PIL import Image

    if 'image/png' not in output.get('data', {}):
        return output
    picture = Image.open(io.BytesIO(b64decode(''.join(output['data']['image/png']))))
    if picture.width <= 900:
        return output
    picture.thumbnail((900, 900))
    picture.convert('RGB').quantize(192).save(file := io.BytesIO(), 'PNG', optimize=True)
    return output | dict(data=output['data'] | {'image/png': b64encode(file.getvalue()).decode()})


def kept(cell: dict) -> list[dict]:
    "The outputs of a cell that are kept: no progress bars, and a line in the place of photos."
    if shows_photos(cell):
        return [dict(name='stdout', output_type='stream', text=[INSTEAD])]
    outputs = [o | dict(text=drawn_over(''.join(o['text']))) if 'text' in o else o for o in cell['outputs']]
    return [smaller(o) for o in outputs if not is_bar(o) and o.get('text') != []]


def stamp(content: dict) -> str:
    "A hash of all code and all outputs of a notebook."
    cells = [[''.join(c['source']), c['outputs']] for c in content['cells'] if c['cell_type'] == 'code']
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()[:16]


def is_stamped(content: dict) -> bool:
    "Whether code and outputs of a notebook are those that were written here."
    return content['metadata'].get('nbdev', {}).get('ran') == stamp(content)


def write(notebook: Path, content: dict) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + '\n'
    notebook.write_text(text, encoding='utf-8')


def keep_outputs(notebook: Path) -> None:
    "Clean a notebook that was run, leave out what is not kept, and stamp it."
    from nbdev.clean import nbdev_clean

    content = json.loads(notebook.read_text(encoding='utf-8'))
    for cell in content['cells']:
        if cell['cell_type'] == 'code':
            cell['outputs'] = kept(cell)
    write(notebook, content)
    nbdev_clean(str(notebook))
    content = json.loads(notebook.read_text(encoding='utf-8'))
    content['metadata']['nbdev'] = dict(ran=stamp(content))
    write(notebook, content)


def run(notebook: Path) -> None:
    "Run every cell of a notebook, and keep what it shows."
    from nbdev.test import test_nb

    passed, seconds = test_nb(notebook, force_flags=FLAGS, save=True, basepath=ROOT)
    if not passed:
        sys.exit(f'{notebook.name}: a cell failed; the notebook is as it was')
    keep_outputs(notebook)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f'{notebook.name}: {seconds:.0f} s; so far {used.ru_utime + used.ru_stime:.0f} s of a core', flush=True)


def main(photos: str, *names: str) -> None:
    with TemporaryDirectory() as folder:
        place = Path(folder) / 'CCSN'  # a name that can be shown
        place.symlink_to(Path(photos).resolve())
        for name in names or sorted(p.stem for p in TUTORIALS.glob('*.ipynb')):
            os.environ.pop('CLOUD_DATA', None)
            if name in ON_PHOTOS:
                os.environ['CLOUD_DATA'] = str(place)
            run(TUTORIALS / f'{name}.ipynb')


if __name__ == '__main__':
    main(*sys.argv[1:])
