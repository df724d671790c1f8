"Operations on files, and commits of the manifest: counted, and cut off at one of them."

import errno
import os
import signal
from contextlib import contextmanager

from cloud_classifier import files
from cloud_classifier.data import dataset

CALLS = [(os, name) for name in ('link', 'unlink', 'rename', 'replace', 'mkdir', 'fsync')] + [(files, '_rename')]


class Crash(BaseException):
    "What no handler of errors catches, as Ctrl-C."


def crash():
    raise Crash


def fail():
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def cut_off(
    at,  # number of the operation, from 1; 0: none
    when='before',  # or 'after' it was done
    strike=crash,  # what happens there
    commits=True,  # whether a commit is an operation, too
    links=False,  # whether this is a system that can't rename without replacing, so that files are linked and unlinked
):
    "Strike at one operation of the block; gives a list with the names of the operations so far."
    done, before = [], {(where, name): getattr(where, name) for where, name in CALLS}

    def counted(call, name):
        def replaced(*args, **kwargs):
            done.append(name)
            number = len(done)
            if number == at and when == 'before':
                strike()
            result = call(*args, **kwargs)
            if number == at and when == 'after':
                strike()
            return result

        return replaced

    execute = dataset._Connection.execute
    commit = counted(execute, 'COMMIT')
    for (where, name), call in before.items():
        setattr(where, name, counted(call, name))
    if links:
        files._rename = lambda source, target: False
    if commits:
        dataset._Connection.execute = lambda db, sql, *values: (commit if sql == 'COMMIT' else execute)(
            db, sql, *values
        )
    try:
        yield done
    finally:
        dataset._Connection.execute = execute
        for (where, name), call in before.items():
            setattr(where, name, call)
