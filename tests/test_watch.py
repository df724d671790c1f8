"A camera that is watched: each frame once, half-written files, cameras that are away, kills, commands, clocks."

import errno
import itertools
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import datetime

import numpy as np
import pytest
from camera import Camera, frame
from hostile import CASES, JPEG, Server, head, moved, reply
from hypothesis import given
from hypothesis import strategies as st
from service import COMMAND, write_model

from cloud_classifier import fetch as fetch_room
from cloud_classifier.errors import UserError
from cloud_classifier.fetch import AddressError, FetchLimits, fetch
from cloud_classifier.prediction import watch as room
from cloud_classifier.prediction.decide import Backoff, Decision, Rules
from cloud_classifier.prediction.infer import CloudClassifier, Prediction
from cloud_classifier.prediction.watch import (
    BadRows,
    Pool,
    RowFile,
    Runner,
    leader,
    next_round,
    open_source,
    parse_command,
    run_command,
    watch,
)

CLASSES = ('Cirrus', 'Stratus', 'Contrail')


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp('model') / 'clouds.onnx')


@pytest.fixture(scope='module')
def model(file):
    return CloudClassifier(file, threads=1)


class FakeClock:
    "Time that passes when it is slept; what is in `plan` is done at its second."

    def __init__(self, plan=None, utc=lambda now: f'2026-06-21T12:00:00.{int(now):06d}+00:00'):
        self.time, self.plan, self.as_utc = 1000.0, dict(plan or {}), utc

    def now(self):
        return self.time

    def utc(self):
        return self.as_utc(self.time)

    def sleep(self, seconds):
        self.time += seconds
        for due in sorted(o for o in self.plan if 1000 + o <= self.time):
            self.plan.pop(due)()


def seen(where, model, plan, seconds, **options):
    "The rows of a watch of so many seconds, in which things happen by plan."
    clock = options.pop('clock', None) or FakeClock(plan)
    return [*watch(where, model, clock=clock, stopped=lambda: clock.now() >= 1000 + seconds, **options)]


def of(rows, event, *keys):
    "Fields of the rows of one event."
    return [row[keys[0]] if len(keys) == 1 else tuple(row[k] for k in keys) for row in rows if row['event'] == event]


def writes(path, content):
    "An action that writes a file."

    def write():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return write


# What the frames say together


def said(p, verdict='confident'):
    probs = sorted(zip(CLASSES, p, strict=True), key=lambda o: -o[1])
    return Prediction(tuple(probs), Decision(verdict, (), Backoff('none', '')))


shares = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(lambda o: np.array(o) / sum(o))


@given(st.lists(shares, min_size=3, max_size=30), shares, st.data())
def test_one_odd_frame_never_changes_what_is_said_of_the_sky(frames, odd, data):
    frames = [np.sort(p)[::-1] for p in frames]  # all of them say Cirrus
    frames.insert(data.draw(st.integers(2, len(frames))), odd)
    pool = Pool(CLASSES, Rules({'genus': 0.5}))
    for i, p in enumerate(frames):
        pool.add(said(p), i)
        pool.change()
        assert pool.label in ('', 'Cirrus')


@given(st.lists(shares, min_size=2, max_size=8))
def test_a_leader_leads_whichever_frame_is_left_out(frames):
    probs, found = np.array(frames), leader(np.array(frames))
    for i in range(len(probs)):
        mean = np.delete(probs, i, axis=0).mean(axis=0)
        assert found is None or mean[found] > mean.max() - 1e-9


def test_the_sky_follows_in_less_than_a_pool():
    pool = Pool(CLASSES, Rules({'genus': 0.5}))
    for i in range(20):
        pool.add(said((0.8, 0.1, 0.1) if i < 10 else (0.1, 0.1, 0.8)), i)
        if pool.change() == 'Cirrus':
            break
    assert (i, pool.label) == (13, 'Contrail')


def test_a_pool_of_one_is_no_pool():
    pool = Pool(CLASSES, Rules({'genus': 0.5}), size=1)
    for p in ((0.8, 0.1, 0.1), (0.1, 0.1, 0.8)):
        pool.add(said(p), 0)
        pool.change()
    assert pool.label == 'Contrail'


def test_the_rules_of_a_photo_decide_on_the_mean():
    pool = Pool(CLASSES, Rules({'genus': 0.6}, conformal=0.75))
    for p in ((0.9, 0.1, 0.0), (0.4, 0.6, 0.0)):
        pool.add(said(p), 0)
    answer = pool.answer(said((0.4, 0.6, 0.0)))
    assert (answer.label, round(answer.probability, 6), answer.decision.verdict) == ('Cirrus', 0.65, 'confident')
    assert answer.decision.labels == ('Cirrus', 'Stratus')
    pool.add(said((0, 1, 0), 'not_a_sky'), 1)
    assert len(pool.frames) == 2


# A folder


def test_a_photo_a_second_is_answered_once_each(model, tmp_path):
    plan = {i: writes(tmp_path / '2026-06-21' / f'{i:03}.png', frame(i)) for i in range(1, 40)}
    rows = seen(tmp_path, model, plan, 45, every=1)
    assert of(rows, 'frame', 'name') == [f'2026-06-21/{i:03}.png' for i in range(1, 40)]
    assert [row['event'] for row in rows if row['event'] != 'frame'] == ['start', 'end']
    assert rows[-1]['counts'] == dict(frames=39, unchanged=0, bad=0, away=0, changes=0)


def test_what_was_there_before_is_left_alone_unless_asked_for(model, tmp_path):
    for i in range(3):
        (tmp_path / f'{i}.png').write_bytes(frame(i))
    (tmp_path / '.hidden.png').write_bytes(frame(8))
    (tmp_path / 'notes.txt').write_text('sky')
    assert of(seen(tmp_path, model, {}, 5, every=1), 'frame', 'name') == []
    assert of(seen(tmp_path, model, {}, 5, every=1, everything=True), 'frame', 'name') == ['0.png', '1.png', '2.png']


def test_a_file_that_grows_is_waited_for(model, tmp_path):
    whole, late = frame(1), tmp_path / 'late.png'
    plan = {n: writes(late, whole[: len(whole) * n // 10]) for n in range(1, 11)}
    rows = seen(tmp_path, model, plan, 90, every=10)
    assert of(rows, 'frame', 'name') == ['late.png']
    assert of(rows, 'bad', 'name') == []


def test_a_file_that_stops_growing_is_reported_once_and_taken_when_it_is_whole(model, tmp_path):
    whole, late = frame(1), tmp_path / 'late.png'
    plan = {1: writes(late, whole[:200]), 300: writes(late, whole), 2: writes(tmp_path / 'empty.png', b'')}
    clock = FakeClock(plan)
    rows = seen(tmp_path, model, plan, 400, every=5, clock=clock)
    assert sorted(of(rows, 'bad', 'name')) == ['empty.png', 'late.png']
    assert 'cut off' in dict(of(rows, 'bad', 'name', 'reason'))['late.png']
    assert of(rows, 'frame', 'name') == ['late.png']


def test_renamed_overwritten_and_touched(model, tmp_path):
    still = tmp_path / 'still.png'

    def rename():
        (tmp_path / '.still.tmp').write_bytes(frame(2))
        os.replace(tmp_path / '.still.tmp', still)

    plan = {
        1: writes(still, frame(1)),
        10: rename,
        20: lambda: os.utime(still, (0, 0)),  # a clock that has stopped
        30: lambda: os.utime(still, (4e9, 4e9)),  # and one that is ahead
        40: writes(still, frame(3)),
        41: lambda: os.utime(still, (4e9, 4e9)),
        50: writes(tmp_path / 'copy.png', frame(3)),
    }
    rows = seen(tmp_path, model, plan, 60, every=2)
    assert of(rows, 'frame', 'name') == ['still.png'] * 3
    assert len({*of(rows, 'frame', 'sha256')}) == 3
    assert rows[-1]['counts']['unchanged'] == 4
    assert of(rows, 'unchanged', 'name') == ['still.png', 'still.png', 'copy.png']  # once for each run of the same


def test_a_single_file_that_is_overwritten(model, tmp_path):
    still = tmp_path / 'still.png'
    plan = {5: writes(still, frame(1)), 10: writes(still, frame(2)), 20: still.unlink, 30: writes(still, frame(3))}
    (tmp_path / 'other.png').write_bytes(frame(9))
    rows = seen(still.as_uri(), model, plan, 40, every=1)
    assert of(rows, 'frame', 'name') == ['still.png'] * 3
    assert of(rows, 'away', 'reason') == ['is not there'] * 2
    assert of(rows, 'back', 'seconds') == pytest.approx([5.5, 10.5], abs=0.5)


def test_a_folder_that_is_away_and_a_drive_that_is_not_mounted(model, tmp_path):
    roof, gone = tmp_path / 'roof', tmp_path / 'gone'
    roof.mkdir()
    for i in range(5):
        (roof / f'{i}.png').write_bytes(frame(i))
    plan = {
        5: lambda: roof.rename(gone),
        50: lambda: gone.rename(roof),
        60: lambda: (roof.rename(gone), roof.mkdir()),  # as an unmounted drive looks
        70: lambda: (roof.rmdir(), gone.rename(roof)),
        80: writes(roof / 'new.png', frame(9)),
    }
    rows = seen(roof, model, plan, 90, every=1)
    assert of(rows, 'frame', 'name') == ['new.png']
    assert len(of(rows, 'away', 'reason')) == len(of(rows, 'back', 'seconds')) == 1
    assert 40 < of(rows, 'back', 'seconds')[0] < 50


def test_unusable_files_are_reported_once(model, tmp_path):
    plan = {1: writes(tmp_path / 'raw.dng', b'RAW'), 2: writes(tmp_path / 'page.jpg', b'<html>')}
    rows = seen(tmp_path, model, plan, 200, every=1)
    assert of(rows, 'bad', 'name') == ['raw.dng', 'page.jpg']


def test_names_that_can_not_be_shown(model, tmp_path, command):
    name = os.fsdecode(b'\x1b[31m \xff\n.png')
    rows = seen(tmp_path, model, {1: writes(tmp_path / name, frame(1))}, 5, every=1, out=tmp_path / 'a.jsonl')
    assert of(rows, 'frame', 'name') == [name]
    assert (tmp_path / 'a.jsonl').read_bytes().count(b'\n') == 3
    seen(tmp_path, model, {}, 5, every=1, everything=True, out=tmp_path / 'a.csv')
    assert (tmp_path / 'a.csv').read_bytes().count(b'\n') == 4
    for out in ('a.jsonl', 'a.csv'):
        assert (tmp_path / out).read_text(encoding='utf-8').replace('\n', '').isprintable()


# The schedule, and clocks


@given(st.floats(0.1, 86400), st.floats(0, 1e8), st.integers(0, 5000), st.floats(0, 3600))
def test_rounds_stay_on_the_grid_and_are_never_far(every, now, failures, wait):
    due = next_round(0.0, every, now, failures, wait)
    assert due > now
    assert abs(due / every - round(due / every)) < 1e-6 * max(1, due / every)
    assert due - now <= max(60, every, wait) + every * (1 + 1e-6) + 1e-6 * now


def test_a_clock_that_is_set_and_a_machine_that_sleeps_change_no_round(model, tmp_path):
    looks = []

    class Jumping(FakeClock):
        def utc(self):
            looks.append(self.time)
            return super().utc()

        def sleep(self, seconds):
            super().sleep(seconds + 3600 if 1035 < self.time < 1036 else seconds)

    plan = {n: writes(tmp_path / f'{n}.png', frame(n)) for n in (5, 15, 25, 3800)}
    clock = Jumping(plan, utc=lambda now: f'{2026 - int(now) % 2}-01-01T00:00:00+00:00')  # jumps a year each second
    rows = seen(tmp_path, model, plan, 3900, every=10, clock=clock)
    assert of(rows, 'frame', 'name') == ['5.png', '15.png', '25.png', '3800.png']
    assert [row['pooled']['frames'] for row in rows if row['event'] == 'frame'] == [1, 2, 3, 1]


# An address

LIMITS = FetchLimits(bytes=2_000_000, connect=1, read=1, total=1.5)


@pytest.mark.parametrize(
    'name',
    [
        'silent',
        'silent-in-mid-body',
        'a-byte-now-and-then',
        'a-byte-of-a-header-now-and-then',
        'continue-for-ever',
        'slow-but-it-comes',
        'endless-body',
        'endless-chunks',
        'endless-headers',
        'endless-header',
        'said-to-be-too-long',
        'too-long-but-does-not-say',
        'shorter-than-said',
        'of-no-said-length',
        'length-below-zero',
        'chunks-that-do-not-end',
        'no-bytes',
        'closed-before-a-byte',
        'reset-in-mid-body',
        'closed-in-mid-body',
        'gzip',
        'ssh',
        'status-304',
        'status-404',
        'status-503',
        'redirect-loop',
        'redirect-to-a-file',
        'redirect-to-no-address',
        'redirect-without-an-address',
    ],
)
def test_what_servers_do_ends_in_a_still_or_a_reason(name):
    answer, _ = CASES[name]
    with Server({f'/{name}': answer}) as server:
        start, reason = time.monotonic(), ''
        try:
            still = fetch(server.url(f'/{name}'), LIMITS)
            assert name in ('slow-but-it-comes', 'of-no-said-length', 'no-bytes', 'length-below-zero')
            assert len(still.content) <= LIMITS.bytes
        except AddressError as e:
            reason = str(e)
        assert not reason or 5 < len(reason) < 120
        assert time.monotonic() - start < LIMITS.total + 2
        assert len(server.asked) <= 6


def test_what_is_the_same_need_not_be_sent_again(model):
    def answer(asked):
        same = asked.headers.get('if-none-match') == f'"{asked.n // 3}"'
        return reply(status='304 Same') if same else reply(frame(asked.n // 3), ETag=f'"{asked.n // 3}"')

    with Server({'/still': answer}) as server:
        rows = seen(server.url('/still'), model, {}, 90, every=10)
    assert (rows[-1]['counts']['frames'], rows[-1]['counts']['unchanged']) == (3, 6)
    assert len(of(rows, 'unchanged', 'name')) == 3
    assert not any('if-none-match' in o.headers for o in server.asked[:1])


def test_a_still_that_can_not_be_used_is_asked_for_whole(model):
    def answer(asked):
        if 'if-none-match' in asked.headers:
            return reply(status='304 Same')
        return reply(frame(1)[:200] if asked.n == 0 else frame(1), ETag='"1"')

    with Server({'/still': answer}) as server:
        rows = seen(server.url('/still'), model, {}, 25, every=10)
    assert [row['event'] for row in rows] == ['start', 'bad', 'frame', 'unchanged', 'end']


def test_a_camera_that_is_away_is_asked_less_and_less_on_the_grid(model):
    with Server({'/still': lambda asked: reply(frame(1)) if asked.n > 8 else reply(status='500 Down')}) as server:
        clock, at = FakeClock(), []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, 'fetch', lambda *args: (at.append(clock.now() - 1000), fetch(*args))[1])
            rows = seen(server.url('/still'), model, {}, 500, every=10, clock=clock, count=1)
    gaps = [round(b - a) for a, b in itertools.pairwise(at)]
    assert gaps[:8] == [10, 20, 40, 60, 60, 60, 60, 60]
    assert all(abs(o - 10 * round(o / 10)) < 0.3 for o in at)
    assert of(rows, 'away', 'reason') == ['answers with status 500 (Internal Server Error)']
    assert of(rows, 'back', 'attempts') == [9]


def test_retry_after_is_heeded(model):
    answer = [head(0, '429 Busy', Retry_After='85')]
    with Server({'/still': lambda asked: reply(frame(1)) if asked.n else answer}) as server:
        rows = seen(server.url('/still'), model, {}, 500, every=10, count=1)
    assert of(rows, 'back', 'seconds') == [pytest.approx(90, abs=1)]


def test_the_password_goes_to_the_camera_alone(model, tmp_path):
    with Server({}, hosts=['127.0.0.1', '127.0.0.2']) as server:
        server.answers = {
            '/here': moved('/still'),
            '/there': moved(server.url('/still', '127.0.0.2')),
            '/still': reply(JPEG),
        }
        for path in ('/here', '/there'):
            url = server.url(path).replace('//', '//admin:s%40cret@') + '?pwd=s@cret'
            server.answers[f'{path}?pwd=s@cret'] = server.answers[path]
            out = tmp_path / f'{path[1:]}.jsonl'
            rows = seen(url, model, {}, 5, every=10, count=1, out=out)
            assert len(of(rows, 'frame', 'name')) == 1
            assert 'cret' not in json.dumps(rows) + out.read_text()
    sent = [(o.path, o.host, o.headers.get('authorization', '')) for o in server.asked]
    assert all(a.startswith('Basic ') == (host == '127.0.0.1') for _, host, a in sent)
    assert len(sent) == 4


def test_a_public_camera_does_not_lead_into_the_local_network(monkeypatch):
    monkeypatch.setattr(fetch_room, 'may_connect', lambda address: address == '127.0.0.1')
    with Server({'/still': reply(JPEG)}, hosts=['127.0.0.1', '127.0.0.2']) as server:
        server.answers['/there'] = moved(server.url('/still', '127.0.0.2'))
        with pytest.raises(AddressError, match='not public'):
            fetch(server.url('/there'), LIMITS)
        assert [o.host for o in server.asked] == ['127.0.0.1']


def test_letters_that_may_not_stand_in_an_address(model):
    with Server({'/my%20roof/caf%C3%A9.jpg?a=%20b': reply(JPEG)}) as server:
        assert fetch(server.url('/my roof/café.jpg?a=%20b'), LIMITS).content == JPEG


def test_a_video_and_a_page_are_told_from_stills(model):
    answers = {'/video': reply(b'--x', Content_Type='multipart/x-mixed-replace; boundary=x'), '/page': reply(b'<html>')}
    with Server(answers) as server:
        assert 'video' in of(seen(server.url('/video'), model, {}, 5), 'away', 'reason')[0]
        assert of(seen(server.url('/page'), model, {}, 5), 'bad', 'reason') == ['sent text, not a photo']


@pytest.mark.parametrize('where', ['rtsp://roof/stream', 'nowhere', 'nowhere/still.jpg', 'http://', 'http://[::1', ''])
def test_what_can_not_be_watched(where):
    with pytest.raises(UserError):
        open_source(where)


def test_an_answer_that_never_comes_does_not_hold_up_the_end(model, tmp_path, monkeypatch):
    monkeypatch.setattr(room, 'STALL_SECONDS', 0.5)
    held, start = threading.Event(), time.monotonic()
    monkeypatch.setattr(room.FolderSource, 'poll', lambda self, now: iter(lambda: held.wait(20), None))
    rows = [*watch(tmp_path, model, every=1, stopped=lambda: time.monotonic() - start > 2)]
    held.set()
    assert of(rows, 'away', 'reason') == ['says nothing']
    assert time.monotonic() - start < 5


# Rows in a file


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])
def test_a_torn_row_is_mended_wherever_it_was_torn(model, tmp_path, suffix):
    out, plan = tmp_path / f'rows{suffix}', {i: writes(tmp_path / f'{i}.png', frame(i)) for i in (1, 5)}
    seen(tmp_path, model, plan, 10, every=1, out=out)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(whole), 0, -37):
        out.write_bytes(whole[:cut])
        with closing(RowFile(out)) as rows:
            kept = out.read_bytes()
            assert kept == b''.join(lines[: max(whole[:cut].count(b'\n'), suffix == '.csv')])
            assert len(rows.known) == kept.count(b',frame,') + kept.count(b'"event": "frame"')


@pytest.mark.parametrize('suffix', ['.jsonl', '.csv'])
def test_going_on_answers_nothing_twice(model, tmp_path, suffix):
    out = tmp_path / f'rows{suffix}'
    for i in range(1, 6):
        (tmp_path / f'{i}.png').write_bytes(frame(i))
        rows = seen(tmp_path, model, {}, 5, every=1, everything=True, out=out)
        assert of(rows, 'frame', 'name') == [f'{i}.png']
        assert rows[-1]['counts']['unchanged'] == i - 1
    text = out.read_text()
    assert all(text.count(f'{i}.png') >= 1 for i in range(1, 6))
    assert text.count('"event": "frame"') + text.count(',frame,') == 5


def test_a_change_over_a_restart_is_a_change(model, tmp_path):
    out = tmp_path / 'rows.jsonl'
    for i in range(6):
        (tmp_path / f'{i}.png').write_bytes(frame(i, 'Cirrus' if i < 3 else 'Contrail'))
        if i in (2, 5):
            rows = seen(tmp_path, model, {}, 5, every=1, everything=True, out=out)
    assert of(rows, 'change', 'before', 'sky') == [('Cirrus', 'Contrail')]


@pytest.mark.parametrize(
    ('name', 'content', 'says'),
    [
        ('a.jsonl', b'{"path": "sky.jpg"}\n', 'no row of watch'),
        ('a.jsonl', b'seen from the roof\n', 'no row of watch'),
        ('a.jsonl', bytes(2_000_000), 'no file of rows'),
        ('a.csv', b'path,label\nsky.jpg,Cirrus\n', 'other columns'),
        ('a.txt', b'', 'ends in .jsonl or .csv'),
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(tmp_path, name, content, says):
    out = tmp_path / name
    out.write_bytes(content)
    with pytest.raises(BadRows, match=says):
        RowFile(out)
    assert out.read_bytes() == content


def test_two_watches_do_not_write_one_file(tmp_path):
    with closing(RowFile(tmp_path / 'a.jsonl')), pytest.raises(BadRows, match='another watch'):
        RowFile(tmp_path / 'a.jsonl')
    RowFile(tmp_path / 'a.jsonl').close()


def test_a_file_that_is_moved_away_is_begun_again(tmp_path):
    out = tmp_path / 'a.csv'
    with closing(RowFile(out)) as rows:
        rows.write(dict(time='1', event='start'))
        out.rename(tmp_path / 'a.1.csv')
        rows.write(dict(time='2', event='end'))
    assert [len((tmp_path / o).read_text().splitlines()) for o in ('a.1.csv', 'a.csv')] == [2, 2]


def test_a_full_disk_leaves_whole_rows(small_disk):
    out = small_disk / 'a.jsonl'
    with closing(RowFile(out)) as rows:

        def fill():
            for i in range(100_000):
                rows.write(dict(time=i, event='bad', reason='x' * 1000))

        with pytest.raises(OSError, match='No space') as e:
            fill()
    assert (e.value.errno, e.value.filename) == (errno.ENOSPC, str(out))
    times = [json.loads(o)['time'] for o in out.read_text().splitlines()]
    assert times == [*range(len(times))] != []


def test_cells_are_text_in_a_spreadsheet(model, tmp_path):
    out = tmp_path / 'a.csv'
    seen(tmp_path, model, {1: writes(tmp_path / '=cmd().png', frame(1))}, 5, every=1, out=out)
    assert ",'=cmd().png," in out.read_text()


# A command


def script(folder, text):
    path = folder / 'run.py'
    path.write_text(text)
    return shlex.join([sys.executable, str(path)])


def test_a_change_runs_the_command_with_the_answer_on_its_stdin(model, tmp_path):
    told, photos = tmp_path / 'told', tmp_path / 'photos'
    photos.mkdir()
    command = script(tmp_path, f'import sys; open({str(told)!r}, "a").write(sys.stdin.read() + repr(sys.argv[1:]))')
    skies = {i: 'Cirrus' if i < 8 else 'Contrail' for i in range(1, 16)}
    plan = {i: writes(photos / f'{i:02} $(touch x).png', frame(i, sky)) for i, sky in skies.items()}
    rows = seen(photos, model, plan, 20, every=1, count=15, command=f'{command} "$HOME" ;')
    answer, args = told.read_text().split('\n')
    assert json.loads(answer) == next(row for row in rows if row['event'] == 'change')
    assert of(rows, 'change', 'before', 'sky') == [('Cirrus', 'Contrail')]
    assert args == "['$HOME', ';']"
    assert json.loads(answer)['pooled']['frames'] == 6


def test_a_command_that_fails_or_hangs_is_a_row(tmp_path):
    start = time.monotonic()
    assert run_command(['sleep', '30'], {}, 0.5) == 'was ended after 0.5 seconds'
    assert time.monotonic() - start < 5
    assert run_command(['false'], {}, 5) == 'ended with status 1'
    assert run_command(['true'], dict(x='x' * 10**6), 5) == ''  # which reads nothing
    assert run_command([str(tmp_path)], {}, 5).startswith("can't be run")


def test_one_command_at_a_time_and_the_newest_change_waits(tmp_path):
    log = tmp_path / 'log'
    text = f"""import sys, time
log = open({str(log)!r}, 'a', buffering=1)
log.write('begin ' + sys.stdin.read())
time.sleep(.5)
log.write('end\\n')"""
    runner = Runner(parse_command(script(tmp_path, text)))
    for n in range(5):
        runner.start({'n': n})
        time.sleep(0.02)
    runner.close(lambda: False)
    assert re.sub(r'\s+', ' ', log.read_text()) == 'begin {"n": 0} end begin {"n": 4} end '
    assert len([*runner.rows()]) == 3


@pytest.mark.parametrize('command', ['no-such-command x', '"', "sky 'x"])
def test_a_command_that_can_not_be_run_is_said_at_once(command, tmp_path, model):
    with pytest.raises(UserError):
        watch(tmp_path, model, command=command)


def test_what_waits_for_its_command_ends_with_the_watch(model, tmp_path):
    plan = {i: writes(tmp_path / f'{i:02}.png', frame(i, 'Cirrus' if i < 8 else 'Contrail')) for i in range(1, 16)}
    start = time.monotonic()
    rows = seen(tmp_path, model, plan, 30, every=1, command='sleep 60')
    assert of(rows, 'change', 'sky') == ['Contrail']
    assert time.monotonic() - start < 15


# The command line


def test_lines_and_json(command, file, tmp_path, monkeypatch):
    for i in range(1, 4):
        (tmp_path / f'{i}.png').write_bytes(frame(i))
    options = ['--all', '--every', '.5', '--count', '3', '-m', file]
    status, out, err = command('watch', tmp_path, *options)
    lines = [o.split('\t') for o in out.splitlines()]
    assert (status, len(lines), {len(o) for o in lines}) == (0, 4, {7})
    assert [o[1:3] for o in lines[1:]] == [[f'{i}.png', 'Cirrus'] for i in (1, 2, 3)]
    assert err.splitlines()[-1].startswith('ended: answered 3,')
    status, out, err = command('watch', tmp_path, *options, '--json', '-q')
    rows = [json.loads(o) for o in out.splitlines()]
    assert (status, err, [row['event'] for row in rows]) == (0, '', ['start', *['frame'] * 3, 'end'])


@pytest.mark.parametrize(
    'args',
    [
        ['nowhere'],
        ['.', '--every', '0'],
        ['.', '--every', 'nan'],
        ['.', '--count', '0'],
        ['.', '--pool', '0'],
        ['.', '--out', 'a.txt'],
        ['.', '--out', '.'],
        ['.', '--exec', 'no-such-command'],
        ['.', '--prior', 'Stratus'],
        ['.', '--prior', 'Cumulus=.2'],
        ['ftp://roof/still.jpg'],
        [],
    ],
)
def test_a_wrong_call_is_a_line_and_two(command, file, tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'sky.png').write_bytes(frame(1))
    status, _, err = command('watch', *args, '-m', file)
    assert status == 2
    assert len([o for o in err.splitlines() if not o.startswith('watching')]) == 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_within_a_second_with_a_summary(file, tmp_path, number):
    out = tmp_path / 'rows.jsonl'
    (tmp_path / '1.png').write_bytes(frame(1))
    words = [*COMMAND, 'watch', tmp_path, '--all', '--every', '600', '--out', out, '-m', file, '--json']
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    start = time.time()
    process.send_signal(number)
    rest, err = process.communicate(timeout=30)
    end = json.loads(rest)
    assert (process.returncode, lines[1]['event'], end['event']) == (0, 'frame', 'end')
    assert datetime.fromisoformat(end['time']).timestamp() - start < 1
    assert time.time() - start < 5  # Python's own end takes long on a machine that is busy
    assert err.splitlines()[-1].startswith('ended: answered 1,')
    assert [json.loads(o)['event'] for o in out.read_text().splitlines()] == ['start', 'frame', 'end']


@pytest.mark.usefixtures('forked')
def test_a_reader_that_leaves_ends_it(file, tmp_path):
    for i in range(5):
        (tmp_path / f'{i}.png').write_bytes(frame(i))
    words = [*COMMAND, 'watch', tmp_path, '--all', '--every', '1', '-m', file, '--json']
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    (tmp_path / 'last.png').write_bytes(frame(9))
    assert process.wait(60) == 141
    process.stderr.close()


@pytest.mark.usefixtures('forked')
def test_killed_at_any_moment_and_gone_on_with_each_photo_has_one_row(file, tmp_path):
    out, chance = tmp_path / 'rows.jsonl', random.Random(1)
    for i in range(200):
        (tmp_path / f'{i:03}.png').write_bytes(frame(i))
    words = [*COMMAND, 'watch', tmp_path, '--all', '--every', '.5', '--out', out, '-m', file, '-q', '--json']
    for _ in range(4):
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        process.stdout.readline()  # from here on it writes
        time.sleep(chance.uniform(0, 0.8))
        process.kill()
        process.communicate()
    subprocess.run([*words, '--count', '1'], stdout=subprocess.DEVNULL, check=False, timeout=100)
    rows = [json.loads(o) for o in out.read_text().splitlines()]
    names = of(rows, 'frame', 'name')
    assert len(names) == len({*names}) > 0


# Ten minutes


def finished(process, seconds):
    try:
        return process.communicate(timeout=seconds)
    finally:
        process.kill()


@pytest.mark.soak
def test_a_photo_a_second_for_ten_minutes(file, tmp_path):
    seconds = 600
    words = [*COMMAND, 'watch', tmp_path, '--every', '1', '--out', tmp_path / 'rows.jsonl', '-m', file]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stderr.readline()
    written, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        content = frame(written)
        with open(tmp_path / f'{written:04}.png', 'wb') as f:  # in two pieces, as a slow line does
            f.write(content[:100])
            f.flush()
            time.sleep(0.3)
            f.write(content[100:])
        written += 1
        time.sleep(max(0, begun + written - time.monotonic()))
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, err = finished(process, 30)
    rows = [json.loads(o) for o in (tmp_path / 'rows.jsonl').read_text().splitlines()]
    assert of(rows, 'frame', 'name') == [f'{i:04}.png' for i in range(written)]
    assert [row['event'] for row in rows if row['event'] != 'frame'] == ['start', 'end']
    assert err.splitlines()[-1].startswith(f'ended: answered {written}, unchanged 0, unusable 0,')
    assert written > seconds * 0.9


KINDS = ['new', 'same', 'same', 'new', 'slow', 'truncated', 'new', 'text', 'missing', 'new', 'drop', 'drop', 'new']


@pytest.mark.soak
def test_a_still_that_is_slow_away_truncated_and_repeated_for_ten_minutes(file, tmp_path):
    check_still(file, tmp_path, 600)


@pytest.mark.usefixtures('forked')
def test_a_still_that_is_slow_away_truncated_and_repeated(file, tmp_path):
    check_still(file, tmp_path, 0)


def check_still(file, tmp_path, seconds):
    "Every request is a frame, a repeat, or a trouble that the log explains."
    out = tmp_path / 'rows.jsonl'
    with Camera(lambda n: KINDS[n % len(KINDS)]) as camera:
        words = [*COMMAND, 'watch', camera.url, '--every', '.5', '--out', out, '-m', file]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds or (camera.n <= len(KINDS) and time.monotonic() - begun < 120):
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = finished(process, 30)
    rows, asked = [json.loads(o) for o in out.read_text().splitlines()], camera.asked
    counts, hashes = rows[-1]['counts'], of(rows, 'frame', 'sha256')
    assert len(hashes) == len({*hashes}) == counts['frames']
    assert 0 <= asked['new'] + asked['slow'] - counts['frames'] <= 1  # the last may have been under way
    assert 0 <= asked['same'] - counts['unchanged'] <= 1
    assert 0 <= asked['text'] - counts['bad'] <= 1
    assert 0 <= asked['missing'] + asked['drop'] + asked['truncated'] - counts['away'] <= 1
    assert len(of(rows, 'back', 'seconds')) >= counts['away'] // 3
    reasons = {*of(rows, 'away', 'reason')}
    assert {'broke off in the middle of a photo', 'answers with status 404 (Not Found)'} <= reasons
    assert 'secret' not in err + out.read_text()
