"The processes that a process started, and those that they started."

import os
import subprocess


def descendants(
    pid=None,  # this process where None
    what='',  # what their command has in it
):
    "The processes below a process, by their id."
    said = subprocess.run(['ps', 'axww', '-o', 'pid=,ppid=,args='], capture_output=True, text=True, check=True).stdout
    rows = [(int(o[0]), int(o[1]), *o[2:]) for o in (line.split(None, 2) for line in said.splitlines())]
    below, found = {pid or os.getpid()}, set()
    while new := {o for o, parent, *_ in rows if parent in below and o not in found}:
        found |= new
        below = new
    return [o for o, _, *args in rows if o in found and what in ' '.join(args)]
