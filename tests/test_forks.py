"Processes that are forked: what they say and how they end is what they say and how they end when they begin afresh."

import os
import signal
import subprocess
import sys
import time

import pytest
from fork_server import REAL, Forked

CODES = {
    'its arguments': 'import sys; print(sys.argv, repr(sys.path[0]), __name__)',
    'what it reads': 'import sys; print(sys.stdin.read()[::-1])',
    'its surroundings': 'import os; print(os.getcwd(), os.environ["SKY"], oct(os.umask(0)), os.getpgrp())',
    'signals': 'import signal; print([signal.getsignal(o) for o in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)])',
    'streams': 'import sys; print(sys.stdout.encoding, sys.stderr.errors, sys.stdout.line_buffering, file=sys.stderr)',
    'a status': 'import sys; sys.exit(5)',
    'a last word': 'import sys; sys.exit("that was all")',
    'an error': 'print("before", flush=True); 1 / 0',
    'a kill': 'import os; print("never seen"); os.kill(os.getpid(), 9)',
    'a signal': 'import os; os.kill(os.getpid(), 15)',
    'Ctrl-C': 'import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)',
    'at the end': 'import atexit; atexit.register(print, "the end"); print("begun")',
    'a thread': 'import threading, time; threading.Thread(target=lambda: (time.sleep(.1), print("late"))).start()',
}


def ended(popen, argv, **how):
    "Exit status, output and the last line of what is said on the other stream."
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with popen([sys.executable, *map(str, argv)], **pipes | how) as process:
        out, err = process.communicate('yks', timeout=60)
    return process.returncode, out, (err or '').splitlines()[-1:]


@pytest.fixture
def place(tmp_path, monkeypatch, zygote):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('SKY', 'föhn ☁')
    for name in [o for o in os.environ if o.startswith('PYTHON')]:
        monkeypatch.delenv(name)
    before = os.umask(0o027)
    yield tmp_path
    os.umask(before)


@pytest.mark.parametrize('code', CODES.values(), ids=CODES)
def test_a_piece_of_code(place, code):
    assert ended(Forked, ['-c', code, 'a', 'b c']) == ended(REAL, ['-c', code, 'a', 'b c'])


def test_a_script_and_the_command(place):
    (place / 'run.py').write_text('import sys; print(sys.argv, sys.path[0], __file__)')
    for argv in (['run.py', 'a'], [place / 'run.py'], ['-m', 'cloud_classifier.cli', 'status', 'nowhere']):
        assert ended(Forked, argv) == ended(REAL, argv)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='there is no /dev/full')
def test_an_output_that_takes_nothing(place):
    for out in ('/dev/full', '/dev/null'):
        with open(out, 'w') as stream:
            code = ['-c', 'print("a line")']
            assert ended(Forked, code, stdout=stream)[0] == ended(REAL, code, stdout=stream)[0]


def test_it_is_a_process_that_can_be_waited_for_and_killed(place):
    process = Forked([sys.executable, '-c', 'import time; print("up", flush=True); time.sleep(60)'], stdout=-1)
    assert process.stdout.readline() == b'up\n'
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == process.poll() == -signal.SIGKILL
    process.stdout.close()
    assert not os.path.exists(f'/proc/{process.pid}')


def parent_of(*argv, **env):
    return int(ended(Forked, [*argv, '-c', 'import os; print(os.getppid())'], env=os.environ | env)[1])


def test_what_begins_otherwise_begins_afresh(place):
    assert parent_of() == parent_of(LD_LIBRARY_PATH='lib64') == Forked.zygote.process.pid
    assert parent_of('-W', 'ignore') == parent_of(PYTHONIOENCODING='ascii') == parent_of(LC_ALL='C') == os.getpid()


def test_modules_are_there_already(place):
    start = time.monotonic()
    assert ended(Forked, ['-c', 'import torch, fastai.vision.all, pandas; print(torch.get_num_threads())'])[1] == '1\n'
    assert time.monotonic() - start < 3  # hardly a tenth of one, where nobody else is at work
