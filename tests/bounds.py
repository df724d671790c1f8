"What a command costs, and commands that are killed: measured from outside, in processes of their own."

import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from tempfile import TemporaryFile


@dataclass(frozen=True)
class Cost:
    "How a process ended, and what it took."

    status: int  # exit status; negative: the signal that ended it
    out: str
    err: str
    seconds: float
    megabytes: float  # the most memory that it held at a time


def run_bounded(
    argv,  # a command, or a piece of Python as text
    seconds=60,  # it is killed after this long
    megabytes=None,  # address space it may have at the most; None: as much as there is
    cwd=None,
    env=None,  # what its environment has besides; None as a value takes a variable away
):
    "Run a command in a process of its own, and measure it."
    argv = [sys.executable, '-c', argv] if isinstance(argv, str) else list(map(str, argv))
    merged = {k: v for k, v in (os.environ | (env or {})).items() if v is not None}

    def limit():
        if megabytes:
            resource.setrlimit(resource.RLIMIT_AS, (int(megabytes * 1e6),) * 2)

    with TemporaryFile() as out, TemporaryFile() as err:
        start = time.monotonic()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=merged, preexec_fn=limit
        )
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() - start > seconds:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.005)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        took = time.monotonic() - start
        out.seek(0), err.seek(0)
        said = [f.read().decode(errors='replace') for f in (out, err)]
        return Cost(process.returncode, *said, took, ended[2].ru_maxrss / 1000)


def run_and_kill(argv, longest, chance=random, **kwargs):
    "Start a command and kill it -9 at a random moment of the first `longest` seconds; whether it was still running."
    process = subprocess.Popen(list(map(str, argv)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)
    try:
        process.wait(chance.uniform(0, longest))
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
