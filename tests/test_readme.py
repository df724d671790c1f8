"Every command and block of code that a page shows: its names and options exist, and what can be run is run."

import ast
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from readme import ROOT

from cloud_classifier.cli import app
from cloud_classifier.samples import make_samples, render_sky

COMMAND = 'cloud-classifier'
PAGES = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md', 'data/README.md', 'models/README.md']
PAGES += ['models/clouds.md', 'Makefile', 'Dockerfile', 'Procfile']
PAGES += [
    p.relative_to(ROOT).as_posix()
    for folder, kind in {'.github': 'yml', 'docs': 'md', 'nbs': 'ipynb'}.items()
    for p in sorted((ROOT / folder).rglob(f'*.{kind}'))
    if p.stem != 'index' and '.ipynb_checkpoints' not in p.parts
]


def text_of(page: str) -> str:
    "A page; of a notebook its prose."
    text = (ROOT / page).read_text(encoding='utf-8')
    if not page.endswith('.ipynb'):
        return text
    return '\n\n'.join(''.join(o['source']) for o in json.loads(text)['cells'] if o['cell_type'] == 'markdown')


class Block(NamedTuple):
    "A fenced block of a page."

    language: str
    code: str
    output: str  # what the page shows below it


def blocks(text: str) -> list[Block]:
    "The fenced blocks of a page, those without a language counting as output of the one above."
    found = []
    for indent, language, code in re.findall(r'^( *)```(\w*)\n(.*?)^\1```', text, re.MULTILINE | re.DOTALL):
        code = re.sub(rf'^{indent}', '', code, flags=re.MULTILINE)
        if language:
            found.append(Block(language, code, ''))
        elif found:
            found[-1] = found[-1]._replace(output=code)
    return found


def commands(code: str) -> Iterator[list[str]]:
    "The commands in lines of shell, as lists of words."
    for line in code.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True)
        while words:
            cut = next((i for i, word in enumerate(words) if word in ('&&', '|', ';', '>', '<')), len(words))
            if words[:cut]:
                yield words[:cut]
            words = words[cut + 1 :]


def spans(text: str) -> Iterator[str]:
    "What stands in backticks within a paragraph."
    prose = re.sub(r'^ *```.*?^ *```', '', text, flags=re.MULTILINE | re.DOTALL)
    for paragraph in re.split(r'\n\s*\n', prose):
        yield from re.findall(r'`([^`]+)`', ' '.join(paragraph.split()))


def ours(page: str) -> Iterator[list[str]]:
    "The calls of `cloud-classifier` that a page shows, without the name of the command."
    text = text_of(page)
    for block in blocks(text):
        yield from (
            (words[1:] for words in commands(block.code) if words[0] == COMMAND) if block.language == 'sh' else ()
        )
    for span in spans(text):
        if span.startswith(f'{COMMAND} '):
            yield shlex.split(span)[1:]
    if not page.endswith(('.md', '.ipynb')):  # files of commands: what stands behind the name, as far as a shell reads
        text = text.replace('\\\n', ' ')
        text = re.sub(r'\$\((?:[^()]|\([^()]*\))*\)|\$\{[^}]*\}', '1', re.sub(r'^\s*#.*', '', text, flags=re.MULTILINE))
        for call in re.findall(rf'[\s/]{COMMAND} ([^\'\n]*)', text):
            yield shlex.split(re.split(r'"\]|\s[<>|;&]', call)[0], comments=True)


def why_not(words: list[str]) -> str:
    "Why the command line would refuse these words, without running anything; nothing where it takes them."
    group = typer.main.get_command(app)
    name, *rest = words
    verb = group if name.startswith('-') else group.commands.get(name)
    if verb is None:
        return f'there is no verb {name}'
    if verb is not group and not rest:  # a verb alone, in a sentence, stands for itself
        return ''
    try:
        verb.make_context(name, words if verb is group else rest)
    except typer.Exit:
        return ''
    except Exception as e:
        if not hasattr(e, 'format_message'):
            raise
        return e.format_message()
    return ''


CALLS = [(page, words) for page in PAGES for words in ours(page) if words[0] != 'VERB']


@pytest.mark.parametrize(('page', 'words'), CALLS, ids=lambda o: o if isinstance(o, str) else ' '.join(o))
def test_the_command_line_knows_each_call_that_is_shown(page, words):
    assert why_not([o.replace('…', 'x') for o in words]) == ''


def test_calls_are_found_and_wrong_ones_noticed():
    assert len(CALLS) > 40
    assert len({page for page, _ in CALLS}) > 8
    assert 'nosuchverb' in why_not(['nosuchverb'])
    assert '--nosuch' in why_not(['predict', 'sky.jpg', '--nosuch'])
    assert 'bf17' in why_not(['train', 'photos', '--precision', 'bf17'])
    assert 'Missing' in why_not(['split', 'data', '--seed', '1'])
    assert why_not(['predict', 'sky.jpg', '--model', 'mine.onnx']) == ''


def options_named(page: str) -> set[str]:
    "Options that a page names on their own, such as `--resume`."
    return {span.split('=')[0].split()[0] for span in spans(text_of(page)) if re.match(r'--[a-z]', span)}


def test_each_option_that_the_papers_name_is_one_of_some_verb():
    group = typer.main.get_command(app)
    known = {o for verb in group.commands.values() for p in verb.params for o in (*p.opts, *p.secondary_opts)}
    theirs = {'--print-width', '--help'}  # of prettier, and of all verbs
    named = set().union(*(options_named(page) for page in PAGES if page.endswith('.md')))
    assert named - known - theirs == set()


# Shell --------------------------------------------------------------------------------------------------------------

TARGETS = set(re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
ENVIRONMENT = Path(sys.executable).parent


def extras() -> set[str]:
    return set(re.findall(r'^(\w+)_requirements', (ROOT / 'settings.ini').read_text(), re.MULTILINE))


def is_known(words: list[str]) -> bool:
    "Whether a command that is not ours can be typed: programs, targets, extras and files exist."
    name, rest = words[0], words[1:]
    if name == 'make':
        return set(rest) <= TARGETS
    if name == 'pip':
        asked = re.findall(r'\[(\w+)\]', ' '.join(rest))
        return rest[0] == 'install' and rest[1].split('[')[0] == '.' and set(asked) <= extras()
    if name == 'git':
        return rest == ['clone', f'https://github.com/cloud-classifier/{ROOT_NAME}']
    if name in ('cd', 'source'):
        return rest[0] in (ROOT_NAME, '.venv/bin/activate')
    files = [o for o in rest if o.endswith(('.py', '.ipynb'))]
    return bool(shutil.which(name, path=ENVIRONMENT)) and all((ROOT / o).is_file() for o in files)


ROOT_NAME = 'cloud_classifier'
SHELL = [
    (page, words)
    for page in PAGES
    if page.endswith(('.md', '.ipynb'))
    for block in blocks(text_of(page))
    if block.language == 'sh'
    for words in commands(block.code)
    if words[0] != COMMAND
]


@pytest.mark.parametrize(('page', 'words'), SHELL, ids=lambda o: o if isinstance(o, str) else ' '.join(o))
def test_what_else_is_typed_exists(page, words):
    assert is_known(words)


def test_what_does_not_exist_is_noticed():
    wrong = 'make nothing; pip install .[nothing]; git clone elsewhere; pytest tests/test_nothing.py; frobnicate'
    assert [words for words in commands(wrong) if is_known(words)] == []


# Running it ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with the photos that the pages speak of, all of them rendered."
    place = tmp_path_factory.mktemp('a stranger’s folder')
    make_samples(place / 'photos', per_genus=5, size=128, genera=['Cirrus', 'Stratus', 'Cumulus'])
    make_samples(place / 'data' / 'skies', per_genus=12, size=96, seed=1, genera=['Cirrus', 'Stratus', 'Cumulus'])
    first = sorted((place / 'data' / 'skies' / 'Cirrus').iterdir())[0]
    shutil.copy(first, place / 'data' / 'skies' / 'Cumulus' / 'a copy.jpg')
    for folder in ('holiday', 'roof', 'FOLDER/Ac'):
        (place / folder).mkdir(parents=True)
        render_sky('Altocumulus', 128, seed=3).save(place / folder / 'sky.jpg')
    (place / 'archive').mkdir()
    with tarfile.open(place / 'archive' / '000.tar', 'w') as tar:
        tar.add(place / 'roof' / 'sky.jpg', 'sky.jpg')
    render_sky('Cirrus', 420, seed=4, width=630).save(place / 'sky.jpg')
    return place


QUICK = {'predict', 'verify', 'duplicates', 'split', 'status', 'journal', 'credits', 'card', 'undo', 'runs', 'add'}
SERVING = {'app', 'serve', 'watch'}
ELSEWHERE = {'scrape', 'fetch', 'site'}  # they ask other machines: each has tests with servers of its own
PAPERS = ('README.md', 'data/README.md')
TYPED = [words for page in PAPERS for words in ours(page)]


def is_quick(words: list[str]) -> bool:
    return words[0] in QUICK and '--model' not in words and len(words) > 1


def test_quick_commands_of_the_papers_run_as_they_stand(place, command, monkeypatch):
    "In the order in which they stand; `undo` finds something to take back."
    monkeypatch.chdir(place)
    monkeypatch.setenv('CLOUD_CACHE', str(place / 'cache'))
    Path('decisions.csv').write_text('path,decision\nCumulus/a copy.jpg,delete\n')
    assert command('clean', 'data/skies', '--apply', 'decisions.csv')[0] == 0
    ran = [words for words in TYPED if is_quick(words)]
    assert {words[0] for words in ran} >= {
        'predict',
        'verify',
        'duplicates',
        'split',
        'undo',
        'journal',
        'status',
        'add',
    }
    for words in ran:
        status, out, err = command(*words)
        assert (words, status, out != '') == (words, 0, True), err
    assert Path('twice.html').is_file()
    assert Path('split.csv').is_file()
    assert (Path('data/skies/Cumulus/a copy.jpg')).is_file()


def shown_value(code: str, names: dict) -> str:
    "What a cell prints, and the value of its last line, as a notebook would show them."
    body = ast.parse(code).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(ast.Module(body, []), 'README.md', 'exec'), names)
        if last:
            value = eval(compile(ast.Expression(last.value), 'README.md', 'eval'), names)
            print(repr(value)) if value is not None else None
    return out.getvalue()


def test_the_first_answer_is_the_one_that_is_printed(place, monkeypatch):
    "Blocks of Python that show an output, one after the other."
    monkeypatch.chdir(place)
    names, shown = {}, [o for o in blocks(text_of('README.md')) if o.language == 'python' and o.output]
    assert len(shown) == 2
    for block in shown:
        assert shown_value(block.code, names) == block.output


def test_an_output_that_is_not_the_code_s_is_noticed():
    assert shown_value('a = 1\na + 1', {}) == '2\n'
    [block] = blocks('```python\na = 1\na + 1\n```\n\n```\n3\n```\n')
    assert shown_value(block.code, {}) != block.output


@pytest.mark.parametrize('page', [o for o in PAGES if o.endswith(('.md', '.ipynb'))])
def test_python_on_pages_is_python(page):
    for block in blocks(text_of(page)):
        if block.language == 'python':
            ast.parse(block.code)


@pytest.mark.soak
def test_the_whole_front_page_as_it_stands(place, tmp_path):
    "Each block in one folder, Python after what stands above it; pages are opened, and what asks others is left out."
    from service import served

    env = os.environ | {
        'PATH': f'{ENVIRONMENT}{os.pathsep}{os.environ["PATH"]}',
        'CLOUD_CACHE': str(tmp_path / 'cache'),
    }
    env |= {'CLOUD_MODEL': '', 'MPLBACKEND': 'Agg'}
    work = shutil.copytree(place, tmp_path / 'Mein Laufwerk é')
    (work / 'split.csv').unlink(missing_ok=True)

    def run(words):
        done = subprocess.run(words, cwd=work, env=env, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, f'{words}: {done.stderr}'

    typed = ''
    for block in blocks(text_of('README.md')):
        if block.language == 'python':
            typed += block.code
            run([sys.executable, '-c', typed])
        for words in commands(block.code) if block.language == 'sh' else ():
            verb = words[1] if words[0] == COMMAND else ''
            if verb in SERVING or words[1:] == ['clean', 'data/skies']:
                if verb == 'watch':
                    run([*words, '--all', '--count', '1'])
                    continue
                no_page = ['--no-site'] if verb == 'serve' else []
                line = [ENVIRONMENT / COMMAND, *words[1:], *no_page, '--port', '0']
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(work)
                    with served(tmp_path, command=line, env=env) as running:
                        assert running.address.startswith('http://127.0.0.1:')
            elif verb and verb not in ELSEWHERE:
                if words[1:3] == ['clean', 'data/skies'] and '--apply' in words:
                    fill_in(work / 'queue.csv')
                run(words)


def fill_in(queue: Path) -> None:
    "Decide about five photos, as a person would in a spreadsheet: `undo` takes three of these decisions back."
    photos = sorted((queue.parent / 'data' / 'skies' / 'Stratus').iterdir())[:5]
    rows = [f'Stratus/{photo.name},delete,' for photo in photos]
    queue.write_text('\n'.join(['path,decision,label', *rows, '']))


# Links --------------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    "What the headings of a page are linked by."
    titles = re.findall(r'^#+ (.*)', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', [o for o in PAGES if o.endswith('.md')])
def test_links_of_the_papers_lead_somewhere(page):
    text = text_of(page)
    links = re.findall(r'\]\((?!https?:)([^)\s]+)\)', text)
    lost = [o for o in links if o.partition('#')[0] and not ((ROOT / page).parent / o.partition('#')[0]).exists()]
    assert lost == []
    assert [o for o in links if o.startswith('#') and o[1:] not in anchors(text)] == []
