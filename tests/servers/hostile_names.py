"Names that a file system takes and a careless program does not."

import os

NAMES = {
    'newline': 'a\nb',
    'tab': 'a\tb',
    'carriage return': 'good.jpg\rbad',
    'clears the screen': '\x1b[2J\x1b[31mred',
    'C1 control': 'a\x9b31mb',
    'delete': 'a\x7fb',
    'right to left': 'gpj\u202efdp',
    'no text': 'caf\udce9',
    'markup': '[red]a[/red] [link=x]',
    'dash': '-rf',
    'long': 'x' * 251,
    'long and accented': 'é' * 125,
    'emoji': '☁️🌩👩‍🔬',
    'spaces': '  a  b',
    'quotes': '\'"`$(touch pwned)`',
    'backslash': 'a\\tb\\',
    'formula': '=1+1',
    'number': '007',
    'line separator': 'a\u2028b',
    'zero width': 'a\u200bb\ufeff',
    'null': 'NaN',
}


def make(folder, photo, suffix='.jpg'):
    "Copy a photo under each name that this file system takes; the paths."
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in NAMES.values():
        file = folder / (name + suffix)
        try:
            with open(file, 'xb') as f:
                f.write(photo)
        except (OSError, UnicodeError):
            continue
        made.append(file)
    assert len(made) > 10 or os.name == 'nt'
    return made
