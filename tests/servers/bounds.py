"What a command costs, and commands that are killed: measured from outside, in processes of their own."

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from tempfile import TemporaryFile


@dataclass(frozen=True)
class Cost:
    "How a process ended, and what it took."

    status: int  # exit status; negative: the signal that ended it
    seconds: float
    megabytes: float  # the most memory that it held at a time
    out: str
    err: str


# A new process counts the memory of the one that started it as its own: this one starts them from a small one.
LAUNCHER = """
import json, os, resource, signal, subprocess, sys, time
argv, seconds, megabytes = json.loads(sys.argv[1])
limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, (int(megabytes*1e6),)*2)) if megabytes else None
start = time.monotonic()
pid = subprocess.Popen([os.fsencode(o) for o in argv], stdin=subprocess.DEVNULL, preexec_fn=limit).pid
while (ended := os.wait4(pid, os.WNOHANG))[0] == 0:
    if time.monotonic() - start > seconds: os.kill(pid, signal.SIGKILL)
    time.sleep(.005)
status = os.waitstatus_to_exitcode(ended[1])
with os.fdopen(int(sys.argv[2]), 'w') as told:
    json.dump([status, time.monotonic() - start, ended[2].ru_maxrss/1000], told)
"""


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
    with TemporaryFile() as out, TemporaryFile() as err, TemporaryFile('w+') as told:
        job = json.dumps([argv, seconds, megabytes])
        launcher = [sys.executable, '-S', '-c', LAUNCHER, job, str(told.fileno())]
        subprocess.run(launcher, stdout=out, stderr=err, cwd=cwd, env=merged, pass_fds=[told.fileno()], check=True)
        for file in (out, err, told):
            file.seek(0)
        return Cost(*json.load(told), *(f.read().decode(errors='replace') for f in (out, err)))


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
