"The page of the benchmarks: each recorded result as bars, and its numbers as a table."

import ast
import csv
import re
import tomllib
from dataclasses import dataclass, field
from html import escape as html
from statistics import mean

from api import escaped, table
from readme import ROOT

RESULTS = ROOT / 'benchmarks' / 'results'


@dataclass(frozen=True)
class Chart:
    "An entry of docs/charts.toml."

    file: str
    group: str
    label: list[str]
    values: list[str]
    says: str
    title: str = ''  # of the file, at its first chart
    ends: list[str] = field(default_factory=list)
    unit: str = ''
    where: dict[str, str] = field(default_factory=dict)
    mean_over: str = ''
    own_scale: bool = False

    def columns(self) -> set[str]:
        return {*self.label, *self.values, *self.ends, *self.where, *filter(None, [self.mean_over])}


def charts() -> list[Chart]:
    text = (ROOT / 'docs' / 'charts.toml').read_text(encoding='utf-8')
    return [Chart(**o) for o in tomllib.loads(text)['chart']]


def read_result(name: str) -> tuple[list[str], list[dict[str, str]]]:
    "The comments at the head of a result, and its rows; lists of numbers are left out."
    lines = (RESULTS / f'{name}.csv').read_text(encoding='utf-8').splitlines()
    rows = csv.DictReader(o for o in lines if not o.startswith('#'))
    rows = [{k: v or '' for k, v in row.items() if not (v or '').startswith('[')} for row in rows]
    return [o.lstrip('# ') for o in lines if o.startswith('#')], rows


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def averaged(rows: list[dict], chart: Chart) -> list[dict]:
    "A row for each label, with the mean, the lowest and the highest number."
    groups, [value] = {}, chart.values
    for row in rows:
        groups.setdefault(tuple(row[o] for o in chart.label), []).append(float(row[value]))
    return [
        dict(zip(chart.label, key, strict=True), **{value: str(mean(o)), 'lowest': str(min(o)), 'highest': str(max(o))})
        for key, o in groups.items()
    ]


def shown(value: float, unit: str = '') -> str:
    "A number for people."
    if unit == '%':
        return f'{100 * value:.1f} %'
    digits = next((n for n, least in enumerate((100, 10, 1)) if abs(value) >= least), 3)
    return f'{value:,.{digits}f} {unit}'.strip()


def bar(value: float | None, ends: list[float], most: float, unit: str, name: str) -> str:
    "A bar with its number, and its interval as a line."
    name = f'<span class="bar-name">{html(name)}</span>' if name else ''
    if value is None:
        return f'<div class="bar">{name}<span class="bar-track"></span><span class="bar-value">never</span></div>'
    line, text = '', shown(value, unit)
    if ends and ends[1] > ends[0]:
        low, high = (100 * o / most for o in ends)
        line = f'<i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        text += ' ({} to {})'.format(*(shown(o, unit).removesuffix(unit).strip() for o in ends))
    track = f'<b style="width:{100 * value / most:.1f}%"></b>{line}'
    track = f'<span class="bar-track" aria-hidden="true">{track}</span>'
    return f'<div class="bar">{name}{track}<span class="bar-value">{html(text)}</span></div>'


def label_of(row: dict, chart: Chart) -> str:
    "What a row is called; a bare number has the name of its column before it."
    return ' · '.join(row[o] if number(row[o]) is None else f'{o} {row[o]}' for o in chart.label if row[o])


def names_of(chart: Chart) -> list[str]:
    "What several bars of a row are called: their columns, without what these have in common."
    if len(chart.values) == 1:
        return ['']
    short = [o.partition(',')[0].removesuffix(' reached it after') for o in chart.values]
    return short if len({*short}) == len(short) else chart.values


def bars(chart: Chart, rows: list[dict]) -> str:
    "A chart as a table of HTML: it can be read aloud, and fits a phone."
    rows = [row for row in rows if all(re.fullmatch(o, row[k]) for k, o in chart.where.items())]
    rows = averaged(rows, chart) if chart.mean_over else rows
    columns = ['lowest', 'highest'] if chart.mean_over else chart.ends
    values = [[number(row[o]) for o in chart.values] for row in rows]
    ends = [[o for o in (number(row[k]) for k in columns) if o is not None] for row in rows]
    most = [max([*filter(None, a), *b], default=1) for a, b in zip(values, ends, strict=True)]
    most = most if chart.own_scale else [max(most)] * len(rows)
    lines = []
    for row, numbers, interval, scale in zip(rows, values, ends, most, strict=True):
        cells = [bar(o, interval, scale, chart.unit, k) for o, k in zip(numbers, names_of(chart), strict=True)]
        lines.append(f'<tr><th scope="row">{html(label_of(row, chart))}</th><td>{"".join(cells)}</td></tr>')
    body = '\n'.join(lines)
    caption = f'<caption>{html(chart.says)}</caption>'
    return f'```{{raw}} html\n<table class="bars">{caption}<tbody>\n{body}\n</tbody></table>\n```'


def docstrings() -> dict[str, str]:
    "What each script says of itself, by the results that it writes."
    texts = {o.stem: ast.get_docstring(ast.parse(o.read_text())) or '' for o in (ROOT / 'benchmarks').glob('*.py')}
    named = {name: text for text in texts.values() for name in re.findall(r'results/(\w+)\.csv', text)}
    return {stem.removeprefix('bench_'): text for stem, text in texts.items()} | named


def section(name: str, own: list[Chart], doc: str) -> str:
    "What one result says: a line on what was measured, the charts, and folded below them all numbers."
    comments, rows = read_result(name)
    what, _, how = doc.partition('\n\n')
    columns = [k for k in rows[0] if any(row.get(k) for row in rows)]
    numbers = table([escaped(o) for o in columns], [[escaped(row.get(o, '')) for o in columns] for row in rows])
    parts = [
        f'### {own[0].title if own else name.replace("_", " ").capitalize()}',
        escaped(' '.join(what.split())),
        *(bars(o, rows) for o in own),
        f'::::{{dropdown}} All numbers of `{name}.csv`, and how they were measured',
        '\n'.join(f'- {escaped(o)}' for o in comments),
        how,
        numbers,
        '::::',
    ]
    return '\n\n'.join(filter(None, parts))


def benchmarks_page() -> str:
    "The page; a result that no chart is planned for is there with its numbers."
    there, docs, planned = sorted(o.stem for o in RESULTS.glob('*.csv')), docstrings(), {}
    for chart in charts():
        planned.setdefault(chart.group, {}).setdefault(chart.file, []).append(chart)
    known = {name for group in planned.values() for name in group}
    planned['Others'] = {name: [] for name in there if name not in known}
    parts = [
        '# Benchmarks',
        f'> What was measured, on which machine and with which command: {len(there)} recorded results.',
        'Ratios hold on other machines, seconds do not. A line over a bar is an interval of 95 %, or the range of '
        'several runs. The files lie in `benchmarks/results`, the scripts that wrote them in `benchmarks`.',
    ]
    for group, results in planned.items():
        found = [section(name, own, docs.get(name, '')) for name, own in results.items() if name in there]
        parts += [f'## {group}', *found] if found else []
    return '\n\n'.join(parts) + '\n'
