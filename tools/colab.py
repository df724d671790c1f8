"Writes into notebooks what they need to open in Colab: a badge, and a first cell that sets Colab up. Twice is as once."

import json
import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
BADGE, SETUP = 'colab-badge', 'colab-setup'  # ids of the two cells


def repository(root: Path = ROOT) -> str:
    "The repository's address, which stands in settings.ini alone."
    config = ConfigParser(delimiters=['='])
    config.read(root / 'settings.ini', encoding='utf-8')
    return config['DEFAULT']['repository']


def notebooks(root: Path = ROOT) -> list[Path]:
    "The notebooks that open in Colab, relative to `root`: the tutorials, and each room's."
    found = (p.relative_to(root) for p in (root / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    return sorted(p for p in found if p.parts[1] == 'tutorials' or re.match(r'\d\d_', p.name))


def badge(notebook: Path, address: str) -> str:
    "A link to a notebook in Colab. The picture is ours, so a page that shows it asks no other host."
    place, up = address.removeprefix('https://github.com/'), '../' * (len(notebook.parts) - 2)
    return (
        f'[![Open in Colab]({up}images/colab.svg)][colab]\n\n'
        f'[colab]: https://colab.research.google.com/github/{place}/blob/main/{notebook.as_posix()}'
    )


def setup(address: str) -> str:
    "The first cell, the same in all notebooks."
    return f'''#| hide
import os
if os.path.exists('/content'): # in Colab: install, mount the Drive, take the key from it; elsewhere nothing
    %pip install -q "cloud_classifier[notebooks] @ git+{address}"
    from cloud_classifier.tutorial import setup_colab
    setup_colab()'''


def opened(cells: list[dict], notebook: Path, address: str) -> list[dict]:
    "The cells of a notebook, with badge and first cell behind its title."
    title, *rest = (cell for cell in cells if cell.get('id') not in (BADGE, SETUP))
    link = dict(cell_type='markdown', id=BADGE, metadata={}, source=badge(notebook, address).splitlines(True))
    first = dict(cell_type='code', execution_count=None, id=SETUP, metadata={}, outputs=[])
    return [title, link, first | dict(source=setup(address).splitlines(True)), *rest]


def write(notebook: Path, root: Path = ROOT) -> bool:  # whether anything was missing
    "Write badge and first cell into a notebook."
    before = (root / notebook).read_text(encoding='utf-8')
    content = json.loads(before)
    content['cells'] = opened(content['cells'], notebook, repository(root))
    after = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + '\n'
    if after != before:
        (root / notebook).write_text(after, encoding='utf-8')
    return after != before


if __name__ == '__main__':
    for notebook in notebooks():
        print(f'{notebook}: {"written" if write(notebook) else "as it was"}')
