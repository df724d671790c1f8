"README.md is nbs/index.ipynb, seen from the top of the repository. Run this file to write it anew."

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def readme() -> str:
    "What README.md should say."
    cells = json.loads((ROOT / 'nbs' / 'index.ipynb').read_text(encoding='utf-8'))['cells']
    text = '\n\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'markdown') + '\n'
    text = re.sub(r'\]\((?=[\w/]+\.ipynb\))', '](nbs/', text)
    return text.replace('](../', '](')


if __name__ == '__main__':
    (ROOT / 'README.md').write_text(readme(), encoding='utf-8')
