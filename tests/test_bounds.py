"The measure itself: it would be no use if it could not fail."

import sys

import pytest
from bounds import run_and_kill, run_bounded


def test_time_and_memory_are_those_of_the_process():
    small = run_bounded('print("here")')
    large = run_bounded('import time; x = bytearray(200_000_000); time.sleep(.5)')
    assert (small.status, small.out, small.err) == (0, 'here\n', '')
    assert large.megabytes > small.megabytes + 150
    assert 0.5 < large.seconds < 30


def test_the_memory_of_who_measures_is_not_counted():
    here = bytearray(b'1' * 400_000_000)
    assert run_bounded('pass').megabytes < len(here) / 1e6 / 2


def test_what_hangs_is_killed():
    cost = run_bounded('import time; time.sleep(60)', seconds=0.5)
    assert cost.status == -9
    assert cost.seconds < 10


def test_memory_can_be_bounded():
    assert 'MemoryError' in run_bounded('bytearray(10**9)', megabytes=500).err


def test_a_kill_is_a_kill():
    assert run_and_kill([sys.executable, '-c', 'import time; time.sleep(60)'], 0.2)
    assert not run_and_kill(['true'], 0.2, chance=type('Late', (), {'uniform': staticmethod(max)}))


def test_a_small_disk_is_full_soon(small_disk):
    with pytest.raises(OSError, match='No space left'):
        (small_disk / 'large').write_bytes(bytes(2_000_000))


def test_a_read_only_folder_can_be_read_and_no_more(read_only, tmp_path):
    (tmp_path / 'here').mkdir()
    (tmp_path / 'here' / 'file').write_text('text')
    folder = read_only(tmp_path / 'here')
    assert (folder / 'file').read_text() == 'text'
    with pytest.raises(OSError, match='Read-only'):
        (folder / 'other').write_text('text')
