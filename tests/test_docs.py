"The documentation: its pages are made of the sources, and no link leads nowhere."

import json
import re
import subprocess
import sys
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest
from api import Entries, Names, Source, escaped, table
from charts import RESULTS, bar, benchmarks_page, charts, read_result
from chromium import chromium, needs_chromium
from fastcore.nbio import mk_cell, nb2str, new_nb
from links import external_links, site_problems, source_files, source_problems
from pages import Site, sections
from readme import ROOT
from run_notebooks import check, in_forks, same
from static_site import Host
from verbs import exit_statuses, verb_page, verbs


@pytest.mark.parametrize('file', source_files(), ids=lambda o: o.relative_to(ROOT).as_posix())
def test_links_of_the_sources_lead_somewhere(file):
    assert [*source_problems(file)] == []


def test_a_link_of_the_sources_that_leads_nowhere_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr('links.ROOT', tmp_path)
    (tmp_path / 'there.md').write_text('# There\n\n## Two words, `code`\n')
    page = tmp_path / 'page.md'
    page.write_text('[a](there.md) [b](there.md#two-words-code) [c](there.md#three) [d](gone.ipynb) `[e](gone)`\n')
    assert [*source_problems(page)] == [
        'page.md: there.md#three: there is no such heading',
        'page.md: gone.ipynb leads nowhere',
    ]


def test_what_is_wrong_with_built_pages_is_found(tmp_path):
    (tmp_path / 'a b').mkdir()
    (tmp_path / 'a b' / 'ü.html').write_text('<h1 id="x">X</h1><a href="../index.html#y">up</a>')
    links = (
        '<a href="a%20b/%C3%BC.html#x">there</a><a href="a%20b/%C3%BC.html#gone">gone</a><a href="https://x.org">x</a>'
    )
    loads = '<img src="no.png"><script src="//cdn.org/x.js"></script>'
    (tmp_path / 'index.html').write_text(f'<h1>I</h1><h3 id="y">Y</h3>{links}{loads}')
    (tmp_path / 'x.css').write_text('@font-face { src: url("https://fonts.org/x.woff2") }')
    assert [*site_problems(tmp_path)] == [
        'index.html: a picture has no text: no.png',
        'index.html: a heading of level 3 follows one that is too high',
        'index.html: a%20b/%C3%BC.html#gone: there is no such place on that page',
        'index.html: no.png leads nowhere',
        'index.html: loads //cdn.org/x.js from elsewhere',
        'x.css: loads https://fonts.org/x.woff2 from elsewhere',
    ]
    assert external_links(tmp_path) == {'https://x.org'}


def test_every_notebook_has_its_place():
    listed = [o for names in sections().values() for o in names]
    there = {o.relative_to(ROOT / 'nbs').with_suffix('').as_posix() for o in (ROOT / 'nbs').rglob('*.ipynb')}
    assert sorted(listed) == sorted(o for o in there - {'index', 'notebooks'} if not re.search('app/|checkpoint', o))


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    return Site(tmp_path_factory.mktemp('pages'))


def test_the_docments_of_a_function_become_a_table(site):
    entry = Entries('cloud_classifier.taxonomy', site.names)
    cell = next(o for o in site.exported['00_taxonomy'] if o.startswith('def genus('))
    assert entry.of(cell) == [
        ':::{py:function} genus(name)\n\n'
        'The genus that `name` means; {py:obj}`UnknownGenus <cloud_classifier.taxonomy.UnknownGenus>` names the '
        'nearest spellings.\n\n'
        '| name | type | meaning |\n| --- | --- | --- |\n'
        "| `name` | `str` | a genus's name, abbreviation or alias, in any case |\n"
        '| *returns* | {py:obj}`Genus <cloud_classifier.taxonomy.Genus>` | the genus |\n:::'
    ]


def test_a_class_is_shown_with_its_fields_and_methods(site):
    entry = Entries('cloud_classifier.prediction.infer', site.names)
    cell = next(o for o in site.exported['prediction/41_infer'] if 'class Prediction:' in o)
    [shown] = entry.of(cell)
    assert '| `top` | `tuple[tuple[str, float], ...]` |  | The most probable labels, best first,' in shown
    assert ':::{py:property} Prediction.cloud_base\n:type: tuple[int, int] | None\n' in shown
    assert ':::{py:method} Prediction.as_row()' in shown
    assert '_of_genus' not in shown


def test_a_room_is_shown_as_it_was_saved(site):
    site.notebook('00_taxonomy')
    cells = json.loads((site.out / '00_taxonomy.ipynb').read_text())['cells']
    text = '\n'.join(''.join(o['source']) for o in cells)
    assert '#|' not in text
    assert 'fastcore.test' not in text  # what is hidden stays hidden
    assert '```{py:module} cloud_classifier.taxonomy' in ''.join(cells[0]['source'])
    assert "<cloud_classifier.taxonomy.near_miss>` |" in ''.join(cells[0]['source'])
    outputs = [''.join(o['data']['text/plain']) for cell in cells for o in cell.get('outputs', [])]
    assert "'altocumulus'" in outputs


def test_markdown_says_just_its_characters():
    assert escaped('a*b of `c*d` [x] <y> $z') == r'a\*b of `c*d` \[x\] \<y> \$z'
    assert table(['a', 'b', 'c'], [['1|2', '', '3']]) == '| a | c |\n| --- | --- |\n| 1\\|2 | 3 |'
    names = Names(genus='taxonomy.genus')
    names.add('split', 'one.split')
    names.add('split', 'other.split')
    text = '# `genus`\n\n`genus` and `genus()`, [`genus`](x.md), `split`\n\n```\n`genus`\n```'
    linked = f'{names.link("genus")} and {names.link("genus()")}'
    assert names.linked(text) == text.replace('`genus` and `genus()`', linked)
    assert Source('A = 1 # one\nB = 2\n_C = 3 # three').constants() == [('A', '1', 'one')]


def test_links_of_a_page_lead_to_pages(site):
    text = '[a](45_serve.ipynb#limits) [b](../../models/clouds.md) [c](https://x.org/y.ipynb) ![d](https://x.org/badge.svg)'
    assert site.markdown(text, 'nbs/prediction/41_infer.ipynb', 'prediction/41_infer.ipynb') == (
        '[a](45_serve.ipynb#limits) [b](../model.md) [c](https://x.org/y.ipynb) d'
    )


@pytest.mark.parametrize('verb', verbs())
def test_the_page_of_a_verb_says_what_help_says(verb):
    page = verb_page(verb, [], {})
    assert page.startswith(f'# {verb}\n\n> ')
    assert f'cloud-classifier {verb} ' in page
    assert '`--help' in page or '--help`' in page
    assert '| `2` | a wrong argument or input |' in page


def test_the_page_of_predict_says_all():
    page = verb_page('predict', ['cloud-classifier predict sky.jpg'], {'prediction.batch': '[batch](x)'})
    assert '| `-o, --out PATH` | File for the answers' in page
    assert '| `3` | some photos of predict could not be used |' in page
    assert '\ncloud-classifier predict sky.jpg\n' in page
    assert page.endswith('[batch](x)\n')
    assert '`3`' not in exit_statuses('train')


def test_every_result_is_shown():
    page = benchmarks_page()
    assert [o.stem for o in RESULTS.glob('*.csv') if f'All numbers of `{o.stem}.csv`' not in page] == []


@pytest.mark.parametrize('chart', charts(), ids=lambda o: o.file)
def test_charts_are_drawn_from_columns_that_are_there(chart):
    if (RESULTS / f'{chart.file}.csv').is_file():
        assert chart.columns() <= {*read_result(chart.file)[1][0]}


def test_a_bar_says_its_number():
    shown = bar(0.581, [0.517, 0.642], 0.642, '%', '')
    assert '<b style="width:90.5%">' in shown
    assert '58.1 % (51.7 to 64.2)' in shown


@pytest.mark.parametrize(
    ('saved', 'now', 'fits'),
    [
        ("('Cirrus', 0.74)", "('Cirrus', 0.7399)", True),  # another processor rounds differently
        ("('Cirrus', 0.74)", "('Cirrus', 0.84)", False),
        ("('Cirrus', 0.74)", "('Stratus', 0.74)", False),
        ('a    1.0\nb   10.0', 'a  1.001\nb 10.001', True),
        ('3 photos', '4 photos', False),
        ('', 'a warning', False),
    ],
)
def test_an_output_that_is_stale_is_told_from_one_that_was_rounded(saved, now, fits):
    assert same(saved, now) == fits


def test_a_notebook_whose_saved_output_is_stale_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr('run_notebooks.COMPARED_PYTHON', sys.version_info[:2])

    def cell(source, text):
        output = dict(output_type='execute_result', data={'text/plain': text}, metadata={}, execution_count=None)
        return mk_cell(source, outputs=[output])

    cells = [cell('1 + 1', '2'), cell('2 + 2', '5'), cell('#| varies\n3 + 3', '7')]
    (tmp_path / 'x.ipynb').write_text(nb2str(new_nb(cells)))
    ran, [line] = check(tmp_path / 'x.ipynb', [])
    assert ran
    assert line == "the cell '2 + 2' is saved with\n5\nand says\n4"
    assert '"5"' in (tmp_path / 'x.ipynb').read_text()  # nothing is written


@pytest.mark.skipif(sys.platform != 'linux', reason='notebooks are run in forked processes on Linux alone')
def test_notebooks_in_forked_processes_fail_and_die_alone(tmp_path, capfd):
    cells = {
        'good': 'import os; os.chdir("/"); os.environ["SKY"] = "clear"',
        'alone': 'import os; assert "SKY" not in os.environ and os.getcwd() != "/"',
        'bad': '1 / 0',
        'killed': 'import os; os.kill(os.getpid(), 9)',
        'left': 'import os; os._exit(0)',
    }
    for name, source in cells.items():
        (tmp_path / f'{name}.ipynb').write_text(nb2str(new_nb([mk_cell(source)])))
    results = in_forks([tmp_path / f'{name}.ipynb' for name in cells], [], 2)
    assert [ran for ran, _ in results] == [True, True, False, False, False]
    said = capfd.readouterr().err
    assert 'ZeroDivisionError' in said
    assert 'killed.ipynb: its process ended with status -9' in said
    assert 'left.ipynb: its process ended with status 0' in said


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "The whole documentation, with every warning an error."
    pytest.importorskip('sphinx', reason='the extra docs is not installed: `make docs` installs it')
    pages, out = tmp_path_factory.mktemp('sources'), tmp_path_factory.mktemp('site')
    sphinx = ['-m', 'sphinx', '-q', '-W', '--keep-going', '-c', ROOT / 'docs', pages, out]
    for command in (['tools/pages.py', pages], sphinx, ['tools/links.py', out]):
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.soak
def test_the_whole_site_is_built_without_a_warning(built):
    names = [o for part in sections().values() for o in part] + [f'cli/{o}' for o in verbs()]
    assert [o for o in [*names, 'gallery', 'benchmarks', '404'] if not (built / f'{o}.html').is_file()] == []


@pytest.mark.soak
@needs_chromium
def test_pages_fit_a_phone_and_ask_no_other_host(built):
    host, asked, wide = Host(built), set(), {}
    with chromium() as browser:
        page = browser.new_page(viewport={'width': 390, 'height': 844})
        page.on('request', lambda o: asked.add(urlsplit(o.url).netloc))
        for file in sorted(built.rglob('*.html')):
            page.goto(host.address + file.relative_to(built).as_posix())
            if (width := page.evaluate('document.scrollingElement.scrollWidth')) > 390:
                wide[file.name] = width
    host.stop()
    assert wide == {}
    assert asked - {''} == {urlsplit(host.address).netloc}


@pytest.mark.network
def test_links_to_elsewhere_are_answered(built):
    def status(url: str) -> int:
        with urlopen(Request(url, headers={'User-Agent': 'cloud_classifier docs'}), timeout=30) as answer:
            return answer.status

    assert {url: o for url in sorted(external_links(built)) if (o := status(url)) != 200} == {}
