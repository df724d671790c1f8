"""Runs a notebook as a Colab session would, without a network: python colab_session.py NOTEBOOK

`google.colab` is a stand-in that is loaded before the first cell, as in Colab, and whose Drive is a folder. Cells that
say that they need a network are left out.
"""

import fcntl
import socket
import struct
import sys
from pathlib import Path

COLAB = {
    'google/colab/__init__.py': 'from google.colab import drive, files, output, userdata\n',
    'google/colab/drive.py': '''
from pathlib import Path

def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    mine = Path(mountpoint)/'MyDrive'
    (mine/'Data_for_apps').mkdir(parents=True, exist_ok=True)
    (mine/'Data_for_apps'/'key.txt').write_text('0123456789abcdef\\n')
    if not (mine.parent/'My Drive').exists(): (mine.parent/'My Drive').symlink_to(mine)
    print(f'Mounted at {mountpoint}')
''',
    'google/colab/files.py': 'def upload(): return {}\ndef download(filename): pass\n',
    'google/colab/output.py': 'def enable_custom_widget_manager(): pass\n',
    'google/colab/userdata.py': 'def get(name): raise KeyError(name)\n',
}


def write_colab(folder: Path) -> None:
    "Write the stand-in, and what has IPython load it before the first cell."
    for name, text in (COLAB | {'ipython/profile_default/startup/00-colab.py': 'import google.colab\n'}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def loopback_up() -> None:
    "In a network namespace of its own a process has a loopback device that is switched off."
    up, running, set_flags = 0x1, 0x40, 0x8914  # IFF_UP, IFF_RUNNING, SIOCSIFFLAGS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, set_flags, struct.pack('16sh14x', b'lo', up | running))


def no_network() -> bool:
    try:
        socket.create_connection(('1.1.1.1', 53), timeout=5).close()
    except OSError:
        return True
    return False


def run(notebook: Path) -> None:
    "Run all cells in the kernel of this environment; an error ends it."
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    content.cells = [cell for cell in content.cells if '#| network' not in cell.source.splitlines()]
    place = dict(metadata=dict(path='/content'))
    NotebookClient(content, timeout=1800, kernel_name='python3', resources=place).execute()
    for cell in content.cells:
        if cell.cell_type == 'code' and cell.id == 'colab-setup':
            print(*(o.get('text', '') for o in cell.outputs))


if __name__ == '__main__':
    loopback_up()
    assert no_network()
    run(Path(sys.argv[1]))
