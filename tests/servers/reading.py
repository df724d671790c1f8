"What a process says and does, waited for no longer than it should take."

import subprocess
import time
from collections.abc import Callable
from threading import Thread


def read_line(process: subprocess.Popen, seconds: float = 120):
    "The next line of a process's output; a process that says nothing in time is killed, and the test fails."
    lines = []
    reader = Thread(target=lambda: lines.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    if not lines:
        process.kill()
        raise AssertionError(f'no line within {seconds:g} seconds from {process.args}')
    return lines[0]


def wait_for(condition: Callable[[], object], seconds: float = 30):
    "Return once a condition holds; the test fails where it does not in time."
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)
