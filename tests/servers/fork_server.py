"""Pieces of code in processes of their own, without each of them waiting for imports.

Run as a program, this imports modules once, those of training unless it is told others, and forks a child for each
piece of code it is sent."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from reading import read_line


class Child:
    "A process that runs a piece of code."

    def __init__(self, server, pid, log):
        self.server, self.pid, self.log, self.status = server, pid, log, None

    def poll(self):
        "Its exit status, negative for a signal; None while it runs."
        if self.status is None:
            self.status = self.server.ask({'poll': self.pid})
        return self.status

    def wait(self, timeout=120):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < deadline, f'still running after {timeout} s: {self.said()}'
            time.sleep(0.01)
        return self.status

    def wait_for(self, condition, timeout=60):
        "Until the condition holds, which it must before the process ends."
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def said(self):
        return self.log.read_text()


class ForkServer:
    "Starts children; `code` is Python, `env` changes their environment."

    def __init__(self, folder, *imports):
        self.folder, self.children = Path(folder), []
        env = os.environ | {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg'}
        self.process = subprocess.Popen(
            [sys.executable, __file__, *imports], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, question):
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(read_line(self.process))

    def start(self, code, env=None, cwd=None):
        log = self.folder / f'child-{len(self.children)}.log'
        pid = self.ask({'code': code, 'log': str(log), 'env': env or {}, 'cwd': str(cwd or self.folder)})
        self.children.append(Child(self, pid, log))
        return self.children[-1]

    def run(self, code, **kwargs):
        "Run to the end, which must be a good one; what was printed."
        child = self.start(code, **kwargs)
        assert child.wait() == 0, child.said()
        return child.said()

    def command(self, *args, **kwargs):
        "Start `cloud-classifier` with these arguments."
        argv = ['cloud-classifier', *map(str, args)]
        return self.start(f'import sys; sys.argv = {argv!r}; from cloud_classifier.cli import main; main()', **kwargs)

    def close(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
        with self.process:  # which closes its input, and waits for it to end
            pass


def child(job):
    "Be the child: run the code, and leave."
    log = os.open(job['log'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(job['env'])
    os.chdir(job['cwd'])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the shell may have turned off
    status = 1
    try:
        exec(job['code'], {'__name__': '__main__'})
        status = 0
    except SystemExit as e:
        status = e.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def poll(pid):
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


TRAINING = [
    'faiss',
    'timm',
    *(f'cloud_classifier.{module}' for module in ('cli', 'evaluation.report', 'data.duplicates')),
]


def serve():
    from PIL import Image

    for module in sys.argv[1:] or TRAINING:
        importlib.import_module(module)
    Image.init()
    answers = os.fdopen(os.dup(1), 'w')
    for line in sys.stdin:
        job = json.loads(line)
        if 'poll' in job:
            answer = poll(job['poll'])
        else:
            answer = os.fork()
            if not answer:
                child(job)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == '__main__':
    serve()
