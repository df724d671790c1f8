"README.md is nbs/index.ipynb, seen from the top of the repository. Run this file to write it anew."

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def shown(cell: dict) -> str:
    "A cell as Markdown: code in a block, and below it the value that was saved."
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
        return source
    values = [''.join(o['data']['text/plain']) for o in cell['outputs'] if 'data' in o]
    return '\n\n'.join([f'```python\n{source}\n```', *(f'```\n{value}\n```' for value in values)])


def readme() -> str:
    "What README.md should say."
    cells = json.loads((ROOT / 'nbs' / 'index.ipynb').read_text(encoding='utf-8'))['cells']
    text = '\n\n'.join(shown(cell) for cell in cells) + '\n'
    text = re.sub(r'\]\((?=[\w/]+\.(?:ipynb|png)\))', '](nbs/', text)
    return text.replace('](../', '](')


if __name__ == '__main__':
    (ROOT / 'README.md').write_text(readme(), encoding='utf-8')
