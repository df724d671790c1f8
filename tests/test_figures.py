"Figures that pages quote come from recorded results, the model's card, the model or the code, and say what these say."

import csv
import json
import re
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from readme import ROOT

from cloud_classifier.files import file_hash
from cloud_classifier.images import MAX_MEMORY
from cloud_classifier.prediction.infer import CloudClassifier, shipped_model

RESULTS, CARD = ROOT / 'benchmarks' / 'results', ROOT / 'models' / 'clouds.md'


class Quote(NamedTuple):
    "A sentence of a page with a {} for each figure, and where the figures come from: functions of no arguments."

    page: str
    words: str
    sources: tuple


# Where figures come from ------------------------------------------------------------------------------------------


@cache
def table(file: Path) -> list[dict]:
    "The rows of a recorded result."
    lines = [o for o in file.read_text(encoding='utf-8').splitlines() if not o.startswith('#')]
    return list(csv.DictReader(lines))


def result(name: str, column: str, times: float = 1, **where):
    "The number in a column of the one row that has these values in other columns, times something."

    def value() -> float:
        rows = [o for o in table(RESULTS / f'{name}.csv') if all(o[k] == v for k, v in where.items())]
        assert len(rows) == 1, f'{name}.csv has {len(rows)} rows with {where}'
        return float(rows[0][column]) * times

    return value


def most(name: str, column: str, least=False, times: float = 1, **where):
    "The largest number in a column of the rows that have these values in other columns, or the smallest."

    def value() -> float:
        rows = [o for o in table(RESULTS / f'{name}.csv') if all(o[k] == v for k, v in where.items())]
        return (min if least else max)(float(o[column]) for o in rows) * times

    return value


def card(pattern: str):
    "What the card says in the place of the brackets of a pattern."

    def value() -> str:
        found = re.findall(pattern, CARD.read_text(encoding='utf-8'))
        assert len(found) == 1, f'the card has {len(found)} places like {pattern!r}'
        return found[0]

    return value


def cell(row: str, column: int = 2):
    "A cell of the card's first table: 1 for the folds, 2 for the file itself."
    return card(rf'\| {re.escape(row)} \|' + r' [^|]* \|' * (column - 1) + r' ([^|]*?) \|')


@cache
def model() -> CloudClassifier:
    return CloudClassifier(shipped_model())


def of_model(*path: str, times: float = 1):
    "A number in the card that the model file brings along."

    def value():
        found = model().card
        for name in path:
            found = found[name]
        return found * times if isinstance(found, float) else found

    return value


def less(a, b):
    return lambda: a() - b()


def faster_in_pairs() -> float:
    "By how much more photos the network answers in pairs than one by one, percent."
    one, two = (
        result('predict', 'value', what=f'network alone: 2 threads at a time, batches of {n}')() for n in (1, 2)
    )
    return 100 * (two / one - 1)


def fingerprints_in_gb() -> float:
    "What the fingerprints of 200,000 photos take."
    from cloud_classifier.data.duplicates import FINGERPRINT

    return FINGERPRINT.itemsize * 200_000 / 1e9


# What is quoted ---------------------------------------------------------------------------------------------------

INFER = 'time, on two cores without a GPU | {:.3f} s a photo | {:.1f} s for a command'
OOD = 'nbs/evaluation/30_ood.ipynb'
ROUND = 'nbs/evaluation/34_round.ipynb'
EXPORT = 'nbs/prediction/42_export.ipynb'
NETS = ('resnet18', 'convnext_atto', 'mobilenetv3_small_100')
SCORES = {
    'the larger of both, all 383 pictures': ('louder', 'all'),
    'the same, the 23 that can\'t be drawn': ('louder', 'pictures'),
    'distance alone, all pictures': ('distance', 'all'),
    'regression alone, all pictures': ('side', 'all'),
    'energy of the logits (Liu et al. 2020), all pictures': ('energy', 'all'),
    'probability of the first answer, all pictures': ('belief', 'all'),
}
README = [
    ('That takes {:.0f} MB', result('install', 'MB', install='base', package='all')),
    ('judged by {} photos that were held out', card(r'this file \((\d+) test photos\)')),
    (
        'the first answer is right | {} | chance is {} %',
        cell('right at once (top-1)'),
        card(r'all of the photos .* more than the (\d+)% of chance'),
    ),
    ('the true class is among the first three | {} |', cell('among the first three (top-3)')),
    (
        'answers that are called *confident* | {} %, and {} % of them are right ({} to {})',
        *(card(rf'It is confident of {p}') for p in (
            r'(\d+)%',
            r'\d+% of these photos, and right in (\d+)%',
            r'\d+% of these photos, and right in \d+% of them \((\d+)%',
            r'\d+% of these photos, and right in \d+% of them \(\d+% to (\d+)%',
        )),
    ),
    (
        'sets of classes that can\'t be ruled out | {} % hold the true class ({}) | {} % were promised; a set names {}',
        card(r'hold the true class .* \| ([\d.]+) % \('),
        card(r'hold the true class .* % \(([\d.]+ to [\d.]+)\)'),
        card(r'hold the true class \| (\d+) % promised'),
        card(r'hold the true class .*, ([\d.]+) classes a set'),
    ),
    ('expected calibration error | {} |', cell('expected calibration error')),
    (
        'pictures that are no sky | {} of {} refused | {} of the {} skies were refused as well',
        card(r'that are no sky it refuses (\d+),'),
        card(r'Of (\d+) pictures that are no sky'),
        card(r'of \d+ skies (\d+)\.'),
        card(r', of (\d+) skies'),
    ),
    (
        INFER,
        result('infer', 'ours', job='warm photo', beside='session.run'),
        result('infer', 'ours', job='first answer, command'),
    ),
    (
        'that reaches {:.2f} of what the network alone could answer',
        result('scale_local', 'value', what='predict beside the network alone'),
    ),
    (
        'with one core each answered {:.2f} times as many photos as one process',
        result('scale', 'value', what='Ray beside one process'),
    ),
    (
        'in the page that runs on a phone | {:.2f} s for a photo of 4000 x 3000 pixels',
        result('site', 'median, s', what='answer, 4000 x 3000'),
    ),
    ('size | a file of {} MiB', card(r'`clouds.onnx`, ([\d.]+) MiB')),
    ('set-up takes about {:.1f} GB', result('install', 'MB', 1e-3, install='dev', package='all')),
    ('about {:.0f} minutes: photos in', most('demo', 'seconds', times=1 / 60)),
]  # fmt: skip
MODEL = [
    ('`clouds.onnx`, {:.1f} MiB', lambda: shipped_model().stat().st_size / 2**20),
    ('SHA-256 `{}`. It says', lambda: file_hash(shipped_model())),
    ('which of {} classes', lambda: len(model().classes)),
    ('Temperature {:.3f};', lambda: model().temperature),
    ('settled by {} answers out of fold', of_model('calibration', 'photos')),
    (
        'is confident from a probability of {:.0f}% on',
        of_model('calibration', 'rules', 'thresholds', 'genus', times=100),
    ),
    ('CC0; {} in the folds', of_model('trained_on')),
    ('SHA-256 of the data `{}`, of the split `{}`', of_model('data_hash'), of_model('split_hash')),
    (
        'On {} photos the file agrees with the network in 32 bits in {:.1f} % of first answers, its probabilities '
        'differ by {:.3f} at most, and its accuracy by {:+.2f} points',
        of_model('parity', 'photos'),
        of_model('parity', 'agreement', times=100),
        of_model('parity', 'largest_difference'),
        less(
            of_model('parity', 'small', 'accuracy', times=100),
            of_model('parity', 'exact', 'accuracy', times=100),
        ),
    ),
]
CCSN = [
    ('{:.0f} of these were at hand', result('ccsn', 'value', what='photos')),
    (
        '{:.0f} photographs are there more than once, as {:.0f} files',
        result('ccsn', 'value', what='photographs that are there more than once'),
        result('ccsn', 'value', what='photos of these'),
    ),
    (
        '{:.0f} of these photographs stand under two labels, as {:.0f} files',
        result('ccsn', 'value', what='of these photographs under two labels'),
        result('ccsn', 'value', what='photos of those'),
    ),
    (
        'finds {:.0f} groups of copies, {:.0f} of them under two labels',
        result('ccsn', 'value', what='groups of copies found'),
        result('ccsn', 'value', what='of these under two labels'),
    ),
    (
        '{:.0f} pairs more show one scene',
        result('ccsn', 'value', what='pairs that show one scene a moment apart'),
    ),
    (
        'from {:.0f} photos of {} to {:.0f} of {}',
        result('ccsn', 'value', what='photos of the smallest class'),
        lambda: next(o['from'] for o in table(RESULTS / 'ccsn.csv') if o['what'] == 'photos of the smallest class'),
        result('ccsn', 'value', what='photos of the largest class'),
        lambda: next(o['from'] for o in table(RESULTS / 'ccsn.csv') if o['what'] == 'photos of the largest class'),
    ),
    (
        '{:.0f} to train on, {:.0f} to validate, {:.0f} to test, and leaves out {:.0f}',
        *(result('ccsn', 'value', what=f'photos to {part}') for part in ('train', 'valid', 'test', 'excluded')),
    ),
    ('doubts {:.0f} labels', result('ccsn', 'value', what='issues: label')),
]
VERIFY = 'nbs/data/14_verify.ipynb'
HINTS = {
    'dark': ('dark | 99 % of the pixels are darker than', 'Cb, Ns'),
    'light': ('light | 95 % of the pixels are lighter than', 'St, Ns, Sc'),
    'low information': ('low information | entropy of the colours, bits, 0 to 9.6', 'St, As, Ns, Cs'),
    'blurry': ('blurry | sharpness, grey levels', 'St, As, Ns, Cs'),
}


def hint_rows():
    "The two tables of limits of `verify`."
    for hint, (measure, genera) in HINTS.items():
        theirs = '(64 px, framed) {:g}' if hint == 'blurry' else '{:g}'
        columns = ("CleanVision's limit", "hints by CleanVision's", 'base limit', 'hints of verify')
        yield Quote(
            VERIFY,
            f'| {measure} | {theirs}: {{:.0f}} | {{:g}}: {{:.0f}} |',
            [result('verify', o, hint=hint) for o in columns],
        )
        shares = ('quarters beyond the base', 'quarters beyond that of genera')
        shares += ('damaged found by the base', 'damaged found by that of genera')
        damage = {'dark': 'exposed at 15 %', 'blurry': 'blurred by σ = 3 px'}.get(hint, 'three times the light')
        yield Quote(
            VERIFY,
            f'| {hint} | {genera} | {{:g}} | {{:.1f}} %, {{:.1f}} % | {damage} | {{:.1f}} %, {{:.1f}} % |',
            [result('verify', 'limit of genera', hint=hint), *(result('verify', o, 100, hint=hint) for o in shares)],
        )


QUOTES = [
    *hint_rows(),
    *(Quote('README.md', words, sources) for words, *sources in README),
    *(Quote('models/clouds.md', words, sources) for words, *sources in MODEL),
    *(Quote('data/README.md', words, sources) for words, *sources in CCSN),
    Quote('CHANGELOG.md', 'opening a photo takes at most {:.0f} MB', [lambda: MAX_MEMORY / 1e6]),
    Quote('nbs/prediction/46_batch.ipynb', 'Two together would be {:.0f} % faster', [faster_in_pairs]),
    Quote('nbs/prediction/49_scale.ipynb', 'by {:.0f} % where it was measured', [faster_in_pairs]),
    Quote('nbs/data/15_duplicates.ipynb', 'Two hundred thousand photos take {:.1f} GB', [fingerprints_in_gb]),
    Quote(
        'nbs/data/15_duplicates.ipynb',
        'of the {:,.0f} of its photos that we looked through, {:.0f} photographs are there more than once, {:.0f} of '
        'these under two labels',
        [
            result('ccsn', 'value', what=o)
            for o in (
                'photos',
                'photographs that are there more than once',
                'of these photographs under two labels',
            )
        ],
    ),
    *(
        Quote(OOD, f'| {name} | {{:.3f}} | {{:.3f}} | {{:.3f}} |', [
            result('strange', 'auroc', arch=arch, score=score, against=against) for arch in NETS
        ])
        for name, (score, against) in SCORES.items()
    ),
    Quote(OOD, 'their interval is wide ({:.2f} to {:.0f} for resnet18)', [
        result('strange', column, arch='resnet18', score='louder', against='pictures') for column in ('low', 'high')
    ]),
    Quote(OOD, 'the skies themselves {:.1f} to {:.1f} % were refused', [
        most('strange', 'refused', least, 100, against='test skies', score='louder') for least in (True, False)
    ]),
    Quote(OOD, 'of plain blue and grey skies {:.0f} to {:.0f} %', [
        most('strange', 'refused', least, 100, against='plain skies', score='louder') for least in (True, False)
    ]),
    Quote(ROUND, 'three seeds and {:.0f} test photos: without cleaning {:.1f}%', [
        result('round', 'test_photos', seed='all of 0 to 2', what='no cleaning'),
        result('round', 'accuracy', 100, seed='all of 0 to 2', what='no cleaning'),
    ]),
    Quote(ROUND, 'relabelled as suggested, {:.1f}%', [
        result('round', 'accuracy', 100, seed='all of 0 to 2', what='suggestions taken'),
    ]),
    *(
        Quote(ROUND, words, [
            result('round', column, 100, seed='all of 0 to 2', what=what)
            for column in ('difference', 'difference_low', 'difference_high')
        ])
        for what, words in {
            'suggestions taken': 'a difference of {:+.1f} points ({:+.1f} to {:+.1f})',
            'suggestions deleted': 'with the same photos deleted, {:+.1f} points ({:+.1f} to {:+.1f})',
            'perfect cleaning': 'with every flip undone, {:+.1f} points ({:+.1f} to {:+.1f})',
        }.items()
    ),
    Quote(EXPORT, '{:.2f} MiB with all convolutions in 8 bits agree with float32 in {:.0f} % of first answers, {:.2f} '
                  'MiB with the small ones in 16 bits in {:.1f} %', [
        result('quantize', column, times, file=file)
        for file in ('int8-weights, small convolutions too', 'int8-weights')
        for column, times in (('MiB', 1), ('agreement', 100))
    ]),
]  # fmt: skip

# What looks like a measurement and is none, by page and as it stands there: limits and constants, promises, examples,
# and what others have measured and say so.
NOT_MEASURED = {
    'README.md': ['that can\'t be ruled out at 90 %'],
    'CHANGELOG.md': ['ruled out at 90 %'],
    'nbs/03_images.ipynb': ['the slowest blocks take 90 ns each', '1,500 tags share 60 kB', 'blocks of 16 MB'],
    'nbs/05_hosting.ipynb': ['Jupyter\'s own limit, 10 MB'],
    'nbs/billion.ipynb': ['[3.6 MB] is what a calculator of June 2026 says', '[$0.0816 an hour] (m7g.large'],
    'nbs/data/15_duplicates.ipynb': ['Published scores of 90 %'],
    'nbs/data/17_issues.ipynb': ['photos with 8 % of the labels', 'the first 8 % of the queue'],
    'nbs/evaluation/31_calibrate.ipynb': [
        'The middle 95% of',
        'a certainty of about 70%, are 70% right',
        '1934, 90% one-sided',
        'their quantile at 90%',
        'it promises 90% of all photos',
    ],
    'nbs/evaluation/32_audit.ipynb': ['should happen for 2.5% of networks'],
    'nbs/evaluation/33_report.ipynb': ['"accuracy 0.71"', 'can\'t tell 0.71 from', 'An answer of "80%"'],
    'nbs/evaluation/34_round.ipynb': ['with 8% of the labels', 'the top 8% of the queue'],
    'nbs/prediction/41_infer.ipynb': ['never says 100% or 0%'],
    'nbs/prediction/43_app.ipynb': ['about 190 MB (`tests/test_app_browser.py` measures it'],
    'nbs/prediction/44_site.ipynb': ['14 MB of WebAssembly'],
    'nbs/prediction/47_watch.ipynb': ['Three frames that say 60 %'],
    'nbs/prediction/48_climate.ipynb': ['56 % of them low, 23 % middle and 21 % high (Grajek and Dyszy 2023'],
    'nbs/training/22_learner.ipynb': ['among 0.0003, 0.001 and 0.003'],
    'nbs/training/24_recipes.ipynb': [
        'each is known to about 0.05 either way',
        'first notebook\'s own errors, 0.294 after `fine_tune`, 0.379 after `one_cycle` and 0.315 after',
    ],
    'nbs/tutorials/cloud_learner.ipynb': [
        'the first version of this notebook took 0.009',
        'fetches it, 90 MB,',
        'can\'t be ruled out at 90 %',
    ],
    'CONTRIBUTING.md': ['Numbers may differ by 2 %'],
}
INTERVALS = re.compile(r'95 ?%\s+intervals?|Python 3\.\d+')  # promises that stand everywhere, and versions

# ------------------------------------------------------------------------------------------------------------------

UNITS = r'%|percent\b|points?\b|MB\b|MiB\b|GB\b|kB\b|ms\b|ns\b|µs\b|s\b|seconds?\b|minutes?\b|hours?\b|times as\b'
FIGURE = re.compile(
    rf'(?<![\w.,:/-])\d[\d,]*(?:\.\d+)?(?: to \d[\d.,]*)? ?(?:{UNITS})|(?<![\w.:/-])\d+\.\d{{2,}}(?![\w.])'
)


def cells(page: str) -> list[dict]:
    return json.loads((ROOT / page).read_text(encoding='utf-8'))['cells']


@cache
def prose(page: str) -> str:
    "What a page says, in one line; of a notebook its prose, without addresses and blocks of code."
    if page.endswith('.ipynb'):
        text = '\n\n'.join(''.join(o['source']) for o in cells(page) if o['cell_type'] == 'markdown')
    else:
        text = (ROOT / page).read_text(encoding='utf-8')
    text = re.sub(r'^```.*?^```', '', text, flags=re.MULTILINE | re.DOTALL)
    return ' '.join(re.sub(r'\]\([^)\s]*\)', ']', text).split())


def sentence(words: str, values) -> str:
    "The sentence with its figures; a half is rounded up, as people do it."
    values = [Decimal(f'{o:.10g}') if isinstance(o, float) else o for o in values]
    with localcontext(rounding=ROUND_HALF_UP):
        return words.format(*values)


def problem(quote: Quote, values: list) -> str:
    "What is wrong with a sentence, or nothing."
    right, text = sentence(quote.words, values), prose(quote.page)
    if right in text:
        return ''
    parts = [re.escape(o) for o in re.split(r'\{[^}]*\}', quote.words)]
    found = re.search('.{1,70}?'.join(parts), text)
    said = f'says “{found[0]}”' if found else f'has no sentence like “{quote.words}”'
    return f'{quote.page} {said}, and its source says “{right}”'


@pytest.mark.parametrize('quote', QUOTES, ids=lambda o: f'{o.page}: {o.words}')
def test_what_is_quoted_is_what_was_recorded(quote):
    assert problem(quote, [source() for source in quote.sources]) == ''


def changed(value):
    "Another value, by a little more than the page rounds off."
    if isinstance(value, str):
        return value.translate(str.maketrans('0123456789', '1234567890')) + ('' if re.search(r'\d', value) else '?')
    return value + 0.11 if 0 < abs(value) < 1 else value * 1.1 + 1


@pytest.mark.parametrize('quote', QUOTES, ids=lambda o: f'{o.page}: {o.words}')
def test_any_figure_that_changes_is_noticed(quote):
    "Each on its own, and the message names page and sentence."
    values = [source() for source in quote.sources]
    for i, value in enumerate(values):
        message = problem(quote, [*values[:i], changed(value), *values[i + 1 :]])
        assert message.startswith(f'{quote.page} says “')


def test_a_result_that_is_recorded_again_fails_the_sentence(tmp_path, monkeypatch):
    lines = (RESULTS / 'infer.csv').read_text(encoding='utf-8').replace('0.02248,1.2', '0.05248,2.8')
    (tmp_path / 'infer.csv').write_text(lines, encoding='utf-8')
    monkeypatch.setattr('test_figures.RESULTS', tmp_path)
    [quote] = [o for o in QUOTES if o.words == INFER]
    with pytest.raises(AssertionError, match=r'README.md says “time, on two cores .* 0.022 s a photo.*source.*0.052 s'):
        test_what_is_quoted_is_what_was_recorded(quote)


PAGES = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'data/README.md', 'models/README.md']
PAGES += [
    p.relative_to(ROOT).as_posix()
    for folder, kind in {'docs': 'md', 'nbs': 'ipynb'}.items()
    for p in sorted((ROOT / folder).rglob(f'*.{kind}'))
    if p.stem != 'index' and '.ipynb_checkpoints' not in p.parts
]


def is_in(figure: str, outputs: str) -> bool:
    "Whether a cell printed a figure; one of two digits could be anywhere by chance."
    number = re.match(r'[\d.,]*\d', figure)[0]
    return sum(map(str.isdigit, number)) > 2 and bool(re.search(rf'(?<![\d.]){re.escape(number)}', outputs))


def unaccounted(page: str) -> list[str]:
    "Figures of a page, each with the words around it, that nobody has said the source of."
    text = prose(page)
    for quote in QUOTES:
        if quote.page == page:
            text = text.replace(sentence(quote.words, [source() for source in quote.sources]), '…')
    for phrase in NOT_MEASURED.get(page, ()):
        text = text.replace(phrase, '…')
    text = INTERVALS.sub('…', text)
    shown = ''
    if page.endswith('.ipynb'):  # a figure that a cell above or below has computed
        shown = json.dumps([o['outputs'] for o in cells(page) if o['cell_type'] == 'code'])
    return [text[max(0, o.start() - 60) : o.end() + 20] for o in FIGURE.finditer(text) if not is_in(o[0], shown)]


@pytest.mark.parametrize('page', PAGES)
def test_each_figure_has_a_source(page):
    assert unaccounted(page) == [], 'quote it in QUOTES, or say in NOT_MEASURED that it is no measurement'


@pytest.mark.parametrize('page', NOT_MEASURED)
def test_what_is_let_pass_is_still_there(page):
    assert [o for o in NOT_MEASURED[page] if o not in prose(page)] == []


def test_a_figure_without_a_source_is_noticed(monkeypatch):
    monkeypatch.setattr('test_figures.prose', lambda page: 'It is right in 93.4 % and takes 12 ms, twice.')
    assert len(unaccounted('README.md')) == 2
