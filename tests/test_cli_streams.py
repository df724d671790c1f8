"The command in processes of its own: locales, pipes, closed streams, full disks, and two streams in one file."

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from cloud_classifier.samples import make_samples

POSIX = pytest.mark.skipif(os.name == 'nt', reason='shells and signals as POSIX has them')
STREAMS = {'PYTHONIOENCODING': 'ascii'}
ASCII = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'} | STREAMS  # names of files are bytes then
RUN = [sys.executable, '-m', 'cloud_classifier.cli']


def environment(**more):
    "As nearly everywhere: nothing is said about Python."
    return {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'COLUMNS'))} | more


def run(*args, env=None, **kwargs):
    "Exit status, output and errors of the command."
    kwargs = {'capture_output': True, 'check': False, 'timeout': 120} | kwargs
    done = subprocess.run([*RUN, *map(os.fspath, map(str_or_path, args))], env=environment(**env or {}), **kwargs)
    decoded = [(o or b'').decode('utf-8', 'surrogateescape') for o in (done.stdout, done.stderr)]
    return done.returncode, *decoded


def str_or_path(arg):
    return arg if isinstance(arg, str | os.PathLike) else str(arg)


def shell(line, *args):
    "The command in a shell: `$run` is the command, `$1` the first argument."
    script = f'run() {{ "{sys.executable}" -m cloud_classifier.cli "$@"; }}; set -o pipefail; {line}'
    done = subprocess.run(
        ['bash', '-c', script, 'bash', *map(os.fspath, args)],
        env=environment(),
        capture_output=True,
        text=True,
        errors='surrogateescape',
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope='module')
def accented(tmp_path_factory):
    "A dataset whose classes are more than ASCII, with a photo that is none. Look, but don't touch."
    root = tmp_path_factory.mktemp('skies') / 'Zürich – ☁'
    make_samples(root, per_genus=4, size=64, genera=['Cirrus', 'Stratus'])
    (root / 'Stratus').rename(root / 'Föhn – ☁')
    (root / 'Cirrus' / 'näher … dran.jpg').write_text('this is text')
    return root


VERBS = [
    ['status'],
    ['status', '--json'],
    ['sample'],
    ['sample', '--json'],
    ['verify'],
    ['verify', '--json'],
    ['duplicates'],
    ['info'],
    ['info', '--json'],
    ['journal'],
    ['undo'],
]
EVERY_DAY = {  # a table, JSON, and nothing to say, in a terminal of ASCII; and where names of files are bytes
    'streams': [['status'], ['verify', '--json'], ['journal']],
    'locale': [['status'], ['verify'], ['info', '--json']],
}


def some(every_day, *others):
    "Parameters of a test, of which the others run in `make soak`."
    return [*every_day, *(pytest.param(*o if isinstance(o, tuple) else [o], marks=pytest.mark.soak) for o in others)]


def same_bytes(text):
    "A JSON value, its names as bytes."
    return json.dumps(json.loads(text), ensure_ascii=False, sort_keys=True).encode('utf-8', 'surrogateescape')


@pytest.mark.parametrize(
    ('kind', 'verb'),
    some(
        [(kind, verb) for kind, verbs in EVERY_DAY.items() for verb in verbs],
        *((kind, verb) for kind in EVERY_DAY for verb in VERBS if verb not in EVERY_DAY[kind]),
    ),
    ids=lambda o: o if isinstance(o, str) else ' '.join(o),
)
def test_a_terminal_that_knows_ascii_alone_is_spoken_to_in_ascii(accented, verb, kind):
    env = {'streams': STREAMS, 'locale': ASCII}[kind]
    status, out, err = run(verb[0], accented, *verb[1:], env=env)
    assert status == 0, err
    assert (out + err).isascii()
    assert 'Traceback' not in err
    if env is ASCII:  # the folder with an accent is not read, and that is said
        assert ('PYTHONUTF8=1' in out + err) == (verb[0] in ('status', 'verify'))
    elif '--json' in verb:
        assert same_bytes(out) == same_bytes(run(verb[0], accented, *verb[1:])[1])
    if verb == ['status'] and env is STREAMS:
        assert 'F\\xf6hn - \\u2601\t4\n' in out


@pytest.mark.parametrize(
    'words', some([['status', 'fehlt – ☁'], ['train', '--help']], ['--hülfe'], ['--help'], ['flügge'])
)
def test_what_is_wrong_is_said_in_ascii_too(words):
    status, out, err = run(*words, env=ASCII)
    assert status == (0 if '--help' in words else 2)
    assert (out + err).isascii()
    assert err.count('\n') == (0 if '--help' in words else 1)


def test_an_ascii_terminal_gets_answers(accented, model):
    status, out, err = run('predict', accented / 'Cirrus', '-m', model, env=STREAMS)
    assert status == 3
    assert (out + err).isascii()
    assert len(out.splitlines()) == 5
    assert err.count('\n') == 1
    assert 'n\\xe4her ... dran.jpg: is not a photo' in err
    assert re.search(r'\t\d+-\d+ m\t', out) or '\t-\t' in out


@POSIX
@pytest.mark.parametrize(
    'words', some([['--help'], ['verify']], ['--version'], ['status'], ['sample'], ['info', '--json'])
)
def test_whoever_reads_may_go_away(accented, words):
    "Nobody reads at all: the first flush meets a closed pipe, the last one when Python ends would as well."
    read, write = os.pipe()
    os.close(read)
    args = [*words[:1], accented, *words[1:]] if words[0][0] != '-' else words
    status, _, err = run(*args, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert status == 128 + signal.SIGPIPE
    assert err.replace('cloud-classifier: ', '') == '' or 'Traceback' not in err
    assert 'Exception ignored' not in err
    assert 'Broken pipe' not in err


@POSIX
def test_head_takes_one_line(tmp_path):
    for i in range(3000):
        (tmp_path / f'{i % 2}').mkdir(exist_ok=True)
        (tmp_path / f'{i % 2}' / f'{"long" * 20}-{i}.jpg').touch()
    status, out, err = shell('run sample "$1" | head -1', tmp_path)
    assert (status, out.count('\n'), err) == (141, 1, '')


@POSIX
@pytest.mark.parametrize('close', some(['>&-', '2>&-', '<&- >&- 2>&-'], '<&-', '<&- >&-', '>&- 2>&-'))
def test_streams_may_be_closed(accented, tmp_path, close):
    status, out, err = shell(f'run split "$1" --group-by author -o "$2" {close}', accented, tmp_path / 'split.csv')
    assert status == 0, err
    assert 'Traceback' not in err
    assert ('Cirrus' in out) == ('>&-' not in close.replace('2>&-', ''))
    assert (tmp_path / 'split.csv').read_text().startswith('path,label')  # and nothing was printed into it
    status, out, err = shell(f'run status nowhere {close}')
    assert status == 2
    assert err.count('\n') == ('2>&-' not in close)


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='there is no /dev/full')
@pytest.mark.parametrize('words', some([['--help'], ['verify', '--json']], ['status'], ['sample']))
def test_an_output_that_is_full_is_a_failure(accented, words):
    args = [words[0], accented, *words[1:]] if words[0][0] != '-' else words
    with open('/dev/full', 'w') as full:
        status, _, err = run(*args, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (status, err) == (1, 'cloud-classifier: No space left on device\n')


def test_what_is_read_last_is_written_last(accented, model, tmp_path):
    "Both streams into one file, without PYTHONUNBUFFERED: the output is complete before the last word."
    for args, last in (
        (['verify', accented], '9 photos, 9 of them opened'),
        (['status', accented], 'rows: 9 new'),
        (['add', tmp_path / 'skies', accented, '--label', 'x'], 'none of 9 gave a usable photo'),
    ):
        with open(tmp_path / 'both.txt', 'w+b') as both:
            run(*args, capture_output=False, stdout=both, stderr=both)
            both.seek(0)
            lines = both.read().decode().splitlines()
        assert last in lines[-1], lines


@POSIX
@pytest.mark.parametrize('verbs', some([('status', 'verify')], (('sample', 'info', 'duplicates'),)), ids=' '.join)
def test_a_path_need_not_be_text(tmp_path, verbs):
    name = os.fsencode(tmp_path) + b'/caf\xe9'
    status, out, err = shell('run status "$1"', name)
    assert (status, out, err) == (2, '', f'cloud-classifier: {tmp_path}/caf\\udce9: there is no such folder\n')
    make_samples(os.fsdecode(name), per_genus=4, size=64, genera=['Cirrus', 'Stratus'])
    os.rename(name + b'/Stratus', name + b'/F\xf6hn')
    for photo in os.scandir(name + b'/F\xf6hn'):
        os.rename(photo.path, photo.path + b'\xff.jpg')
    for verb in verbs:
        status, out, err = shell(f'run {verb} "$1"', name)
        assert (status, 'Traceback' in err) == (0, False), err
        assert '\ufffd' not in out
    photos = json.loads(shell('run sample "$1" --json', name)[1])
    assert len(photos) == 4
    assert all(os.path.isfile(photo) for photo in photos)
    assert 'not UTF-8; rename it' in shell('run verify "$1"', name)[1]  # the others are not passed over in silence
    status, _, err = shell('run split "$1" --group-by author -o "$1"/split.csv', name)
    assert 'Traceback' not in err
    assert err.count('\n') == 1


@pytest.mark.parametrize('columns', some(['40'], '80', '200'))
def test_a_terminal_shows_paths_whole(accented, columns):
    pty = pytest.importorskip('pty')
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*RUN, 'verify', accented], stdout=theirs, stderr=theirs, env=environment(COLUMNS=columns, TERM='xterm')
    )
    process.wait(60)
    os.close(theirs)
    shown = b''
    while True:
        try:
            piece = os.read(ours, 10_000)
        except OSError:  # how the end of a terminal looks
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    shown = re.sub(r'\x1b\[[\d;]*m', '', shown.decode())
    assert 'Cirrus/näher … dran.jpg' in shown
    assert shown.rstrip().splitlines()[-1].startswith('9 photos')
    assert process.returncode == 0


def test_completion_knows_the_verbs():
    env = {'_CLOUD_CLASSIFIER_COMPLETE': 'complete_bash', 'COMP_WORDS': 'cloud-classifier pre', 'COMP_CWORD': '1'}
    status, out, _ = run(env=env)
    assert (status, out.split()) == (0, ['predict'])
    assert '--install-completion' in run('--help')[1]


def test_a_list_with_a_slip_in_it_is_asked_about_in_a_line(tmp_path):
    (tmp_path / 'list.csv').write_text('url,label\nhttp://127.0.0.1:9/sky.jpg,Cumlus\n')
    status, _, err = run('scrape', tmp_path / 'skies', '--source', 'urls', '--from', tmp_path / 'list.csv')
    assert status == 1  # the one address is not asked
    assert err.splitlines()[0] == 'cloud-classifier: Cumlus: read as a class of its own; did you mean Cumulus?'
    assert 'Warning' not in err
