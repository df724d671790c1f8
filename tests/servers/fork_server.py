"""Python in processes of its own that need not wait for imports.

Run as a program, this imports what is slow to import, once, and then forks a child for each command that it is sent: a
real process, with streams, signals and an exit status of its own. What is about start-up (imports, locales, encodings)
is tested in processes that begin as everyone's do."""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from contextlib import suppress
from pathlib import Path
from types import ModuleType

REAL = subprocess.Popen
IMPORTS = (
    'faiss filelock rich.progress timm uvicorn cloud_classifier.cli cloud_classifier.data.duplicates '
    'cloud_classifier.data.scrape cloud_classifier.data.clean cloud_classifier.evaluation.round '
    'cloud_classifier.prediction.export cloud_classifier.prediction.batch cloud_classifier.prediction.serve '
    'cloud_classifier.prediction.site cloud_classifier.prediction.watch'
)
CLI = ['-m', 'cloud_classifier.cli']
# Beginnings of variables; not LD_LIBRARY_PATH, which cv2 sets where it is imported, as in the process of the tests.
READ_AT_START = ('PYTHON', 'LC_', 'LANG', 'LD_PRELOAD', 'OMP_', 'MPL', 'HF_', 'TZ')


def read_at_start(env):
    "The variables that Python and what is imported look at when they begin."
    return {k: v for k, v in env.items() if k.startswith(READ_AT_START)}


class Zygote:
    "The process that forks. It ends with the one that started it, and its children end with it."

    def __init__(self):
        self.lock = threading.Lock()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
        self.env |= {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg'}
        self.control, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, __file__, str(theirs.fileno())]
            self.process = REAL(argv, pass_fds=[theirs.fileno()], env=self.env, stdin=subprocess.DEVNULL)

    def fork(self, job, streams):
        "Start a child; its process id, and a socket that tells its status when it has ended."
        told, theirs = socket.socketpair()
        body = json.dumps(job).encode()
        with self.lock, theirs:
            socket.send_fds(self.control, [len(body).to_bytes(8, 'big')], [*streams, theirs.fileno()])
            self.control.sendall(body)
        pid = int.from_bytes(told.recv(8), 'big')  # the first one waits for the imports
        assert pid, 'the process that forks has ended'
        return pid, told

    def close(self):
        self.control.close()
        self.process.wait()


class Forked(REAL):
    "A `Popen` that forks what it is asked to run from `zygote`, where that is Python as it begins here."

    zygote, told = None, None

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest,
    ):  # fmt: skip
        argv = [args] if isinstance(args, str | bytes | os.PathLike) else [os.fsdecode(o) for o in args]
        env = {os.fsdecode(k): os.fsdecode(v) for k, v in (os.environ if env is None else env).items()}
        if not self._can_fork(argv, env, executable or preexec_fn or pass_fds or shell):
            return super()._execute_child(
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest,
            )  # fmt: skip
        os.umask(mask := os.umask(0))
        cwd = os.path.abspath(os.fsdecode(cwd or '.'))
        streams = [given if given != -1 else own for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        self.pid, self.told = self.zygote.fork({'argv': argv[1:], 'env': env, 'cwd': cwd, 'umask': mask}, streams)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _can_fork(self, argv, env, special):
        begins_alike = read_at_start(env | {'OMP_NUM_THREADS': '1', 'MPLBACKEND': 'Agg'})
        is_python = argv[0] == sys.executable and (argv[1] == '-c' or argv[1:3] == CLI or argv[1].endswith('.py'))
        same_user = os.geteuid() == os.getuid()
        return is_python and same_user and not special and begins_alike == read_at_start(self.zygote.env)

    def _waited(self, pid, flags):
        "As `os.waitpid`."
        try:
            status = self.told.recv(8, socket.MSG_DONTWAIT if flags & os.WNOHANG else 0)
        except BlockingIOError:
            return 0, 0
        self.told.close()
        assert status, 'the process that forks has ended'
        return pid, int.from_bytes(status, 'big')

    def _try_wait(self, flags):
        return self._waited(self.pid, flags) if self.told else super()._try_wait(flags)

    def _internal_poll(self, _deadstate=None, **how):
        how = {'_waitpid': self._waited} if self.told else how
        return super()._internal_poll(_deadstate, **how)


class Child:
    "A process that runs a piece of code and writes what it says into a file."

    def __init__(self, process, log):
        self.process, self.pid, self.log = process, process.pid, log

    def poll(self):
        "Its exit status, negative for a signal; None while it runs."
        return self.process.poll()

    def wait(self, timeout=120):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f'still running after {timeout} s: {self.said()}') from None

    def wait_for(self, condition, timeout=60):
        "Until the condition holds, which it must before the process ends."
        deadline = time.monotonic() + timeout
        while not condition():
            assert self.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)  # to one that has ended it is none

    def said(self):
        return self.log.read_text()


class ForkServer:
    "Starts children in a folder; `code` is Python, `env` changes their environment."

    def __init__(self, folder):
        self.folder, self.children = Path(folder), []

    def start(self, code, *args, env=None, cwd=None):
        return self._start([sys.executable, '-c', code, *map(str, args)], env, cwd)

    def _start(self, argv, env, cwd):
        log = self.folder / f'child-{len(self.children)}.log'
        with open(log, 'w') as out:
            process = Forked(
                argv, env=os.environ | (env or {}), cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self.children.append(Child(process, log))
        return self.children[-1]

    def run(self, code, **kwargs):
        "Run to the end, which must be a good one; what was printed."
        child = self.start(code, **kwargs)
        assert child.wait() == 0, child.said()
        return child.said()

    def command(self, *args, env=None, cwd=None):
        "Start `cloud-classifier` with these arguments."
        return self._start([sys.executable, *CLI, *map(str, args)], env, cwd)

    def close(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()


def stream_of(number):
    "One of the three standard streams, as Python opens it."
    encoding = sys.__stdout__.encoding
    if number == 0:
        return open(0, encoding=encoding, closefd=False)
    if number == 1:
        return open(1, 'w', encoding=encoding, closefd=False)
    return open(2, 'w', buffering=1, encoding=encoding, errors='backslashreplace', closefd=False)


def become(job, streams):
    "Be a process that has just begun, in the child."
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the shell may have turned off
    os.umask(job['umask'])
    os.chdir(job['cwd'])
    os.environ.clear()
    os.environ.update(job['env'])
    tempfile.tempdir = None
    if 'numpy' in sys.modules:
        sys.modules['numpy'].random.seed()
    sys.stdin, sys.stdout, sys.stderr = map(stream_of, range(3))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr


def run(argv):
    "What Python does with these arguments."
    if argv[:2] == CLI:
        cli = importlib.import_module(argv[1])
        sys.argv, sys.path[0] = [cli.__file__, *argv[2:]], os.getcwd()
        return cli.main()
    main = sys.modules['__main__'] = ModuleType('__main__')
    if argv[0] == '-c':
        sys.argv, sys.path[0] = ['-c', *argv[2:]], ''
        return exec(argv[1], vars(main))
    file = os.path.abspath(argv[0])
    sys.argv, sys.path[0], main.__file__ = argv, os.path.dirname(file), file
    exec(compile(Path(file).read_text(encoding='utf-8'), file, 'exec'), vars(main))


def status_of(error):
    "The exit status of a program that ends with an error; what is not said by it is said."
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    traceback.print_exception(error)
    return 1


def child(job, streams):
    "Run a command, and leave as Python does."
    status, error = 0, None
    try:
        become(job, streams)
        run(job['argv'])
    except BaseException as e:
        status, error = status_of(e), e
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream and stream.flush()
        except (OSError, ValueError):
            status = 120
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


def received(control):
    "The next job and its streams; None where there will be no more."
    head, streams, *_ = socket.recv_fds(control, 8, 4)
    if not head:
        return None, []
    body, length = b'', int.from_bytes(head, 'big')
    while len(body) < length:
        body += control.recv(length - len(body))
    return json.loads(body), streams


def serve(control):
    "Fork until the other side is closed."
    children = {}
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, *_ = select.select([control, woken], [], [])
        if woken in ready:
            woken.recv(4096)
            for pid in [*children]:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    with children.pop(pid) as told, suppress(OSError):  # of which the other end may be closed
                        told.send(status.to_bytes(8, 'big'))
        if control in ready:
            job, streams = received(control)
            if job is None:
                return [os.kill(pid, signal.SIGKILL) for pid in children]
            told = socket.socket(fileno=streams.pop())
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                for end in (control, woken, wake, told, *children.values()):
                    end.close()
                child(job, streams)
            for stream in streams:
                os.close(stream)
            children[pid] = told
            told.send(pid.to_bytes(8, 'big'))


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the one that started it does
    for module in IMPORTS.split():
        importlib.import_module(module)
    from PIL import Image

    Image.init()
    threads = [o.read_text().strip() for o in Path('/proc/self/task').glob('*/comm')]
    assert len(set(threads) - {'jemalloc_bg_thd'}) == len(threads) - threads.count('jemalloc_bg_thd') <= 1, threads
    for end in [*weakref.finalize._registry]:  # what torch does at its end takes longer than most children live
        end.atexit = False
    atexit.unregister(importlib.import_module('torch._dynamo.utils').dump_compile_times)
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == '__main__':
    main()
