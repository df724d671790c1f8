"Search services that answer to do harm: each ends with one line, in little time and memory."

import gzip
import itertools
import json
import re
import sys
from functools import partial

import pytest
from bounds import run_bounded
from hostile import BOMB, HANG, Server, for_ever, head, moved, reply

from cloud_classifier.data import sources
from cloud_classifier.data.sources import MAX_FIELD, MAX_REQUESTS, RateLimit, SearchError, search_images

SEARCH = """
import json, sys, time
from cloud_classifier.data import sources
sources.ANSWER_SECONDS, sources._openverse_rate = 2, sources.RateLimit(10_000)
from cloud_classifier.data.sources import SearchError, search_images
import stamina
stamina.set_testing(True, attempts=1)
for url in sys.argv[2:]:
    start, found, said = time.monotonic(), [], ''
    settings = dict(endpoint=url, contact='me@example.org')
    try: found = [vars(o) for o in search_images('Ci', sys.argv[1], **settings)]
    except SearchError as e: said = str(e)
    print(json.dumps([found, said, time.monotonic() - start]), flush=True)
"""
KEY = '0123456789abcdef0123456789abcdef'
SOURCES = ('commons', 'openverse', 'bing')
STRANGE = "not a JSON object|answers are not as|not Bing's JSON|takes more than 2 s"  # may cost much memory or time


def text(content, **fields):
    return reply(content.encode(), Content_Type='application/json', **fields)


ANSWERS = {  # what is answered, and what is said
    'bomb': (reply(BOMB, Content_Encoding='gzip'), 'more than 5 MB'),
    'bomb-in-a-bomb': (reply(gzip.compress(BOMB), Content_Encoding='gzip, gzip'), 'unknown way'),
    'other-packing': (reply(b'{}', Content_Encoding='br'), 'unknown way'),
    'endless': (for_ever(b' ' * 65536, begin=head(None, Content_Type='application/json')), 'more than 5 MB'),
    'slow': (for_ever(b' ', 0.1, begin=head(None, Content_Type='application/json')), 'takes more than 2 s'),
    'slow-header': (for_ever(b'x', 0.1, begin=b'HTTP/1.1 200 OK\r\nX-Sky: '), 'takes more than 2 s'),
    'endless-headers': (for_ever(b'X-Sky: 1\r\n', begin=b'HTTP/1.1 200 OK\r\n'), "can't be|takes more than 2 s"),
    'silent': ([HANG], 'takes more than 2 s'),
    'circle': (moved('/circle'), "redirects in a circle|not Bing's JSON"),
    'deep-list': (text('[' * 1_000_000), STRANGE),
    'deep-object': (text('{"results":' * 300_000), STRANGE),
    'digits': (text('{"results": [], "page_count": 1' + '0' * 9999 + '}'), STRANGE),
    'a-list': (text('[]'), STRANGE),
    'a-word': (text('"sky"'), STRANGE),
    'a-list-of-numbers': (text('{"results": [1, 2], "value": [1, 2], "query": [1]}'), STRANGE),
    'an-object-for-a-list': (text('{"results": {"a": 1}, "value": {"a": 1}, "query": {"pages": 7}}'), STRANGE),
    'many-brackets': (text('{"query": [' + '[],' * 1_600_000 + '[]], "results": 7, "value": 7}'), STRANGE),
    'command': (text('{"detail": "\\u001b[2J\\u202e", "error": "\\u001b[2J"}', status='403 No'), 'answers 403'),
}


@pytest.fixture(scope='module', params=[*SOURCES[:1], *(pytest.param(o, marks=pytest.mark.soak) for o in SOURCES[1:])])
def said(request):
    "What a search for each of these answers says, and how long it takes, in one process of bounded memory."
    answers = {name: answer for name, (answer, _) in ANSWERS.items()}

    def answer_to(asked):
        answer = answers[re.split('[/?]', asked.path)[1]]
        return answer(asked) if callable(answer) else answer

    env = dict(AZURE_SEARCH_KEY=KEY, NO_PROXY='127.0.0.1')
    with Server({}, otherwise=answer_to) as server:
        argv = [sys.executable, '-c', SEARCH, request.param, *(server.url(f'/{name}') for name in answers)]
        cost = run_bounded(argv, seconds=300, megabytes=1500, env=env)
    assert (cost.status, cost.err) == (0, '')
    return dict(zip(ANSWERS, map(json.loads, cost.out.splitlines()), strict=True))


@pytest.mark.parametrize('name', ANSWERS)
def test_an_answer_that_would_do_harm_is_one_line(said, name):
    found, line, seconds = said[name]
    assert found == []
    assert line.isprintable()
    assert len(line) < 400
    assert re.search(ANSWERS[name][1], line)
    assert seconds < 30


@pytest.fixture
def unhurried(monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    monkeypatch.setenv('AZURE_SEARCH_KEY', KEY)
    monkeypatch.setattr(sources, '_openverse_rate', RateLimit(10_000))


def find(source, answers, **kwargs):
    "What a source finds where its server gives these answers, one after the other."
    answers = iter(answers)
    with Server({}, otherwise=lambda asked: text(json.dumps(next(answers)))) as server:
        settings = dict(endpoint=server.url('/'), contact='me@example.org') | kwargs
        return search_images('Ci', source, 10_000, **settings), len(server.asked)


def test_fields_are_lines_of_sensible_length(unhurried):
    "A result without an address that can be one is left out."
    known = dict(
        license='by',
        title='x' * 10**5,
        creator='\x1b[2J\u202e Ann\n',
        foreign_landing_url='http://a.test/' + 'x' * 10**5,
    )
    results = [
        known | dict(url=url) for url in ('http://a.test/1.jpg', 'http://a.test/' + 'x' * 10**5, 7, {'a': 1}, [], '')
    ]
    found, _ = find('openverse', [dict(results=results, page_count=1)])
    assert [o.url for o in found] == ['http://a.test/1.jpg']
    assert len(found[0].title) == MAX_FIELD
    assert found[0].author == '\\x1b[2J\\u202e Ann'
    assert found[0].page == ''


def test_fields_of_another_kind_are_empty(unhurried):
    odd = dict(license='by', url='http://a.test/1.jpg', title=7, creator=['Ann'], foreign_landing_url={'a': 1})
    found, _ = find('openverse', [dict(results=[odd], page_count=1)])
    assert (found[0].title, found[0].author, found[0].page) == ('', '', '')


def endless_commons():
    for n in itertools.count():
        page = dict(title=f'File:{n}.jpg', imageinfo=[dict(mime='image/jpeg', url=f'http://a.test/{n}.jpg')])
        yield {'query': dict(pages=[page]), 'continue': dict(gcmcontinue=str(n))}


def endless_categories():
    yield dict(query=dict(pages=[dict(title='Category:Cirrus clouds', categoryinfo=dict(files=1))]))
    for n in itertools.count():
        yield dict(query=dict(categorymembers=[dict(title=f'Category:Sky {n}-{i}') for i in range(500)]))


def endless_bing():
    for n in itertools.count():
        yield dict(_type='Images', value=[dict(contentUrl=f'http://a.test/{n}.jpg')], nextOffset=n + 1)


@pytest.mark.parametrize(
    ('source', 'answers'),
    [('commons', endless_commons), ('commons', endless_categories), ('bing', endless_bing)],
    ids=['pages', 'categories', 'offsets'],
)
def test_a_search_that_never_ends_is_ended(unhurried, monkeypatch, source, answers):
    budget = sources._SearchBudget
    monkeypatch.setattr(sources, '_SearchBudget', partial(budget, requests=30))
    with pytest.raises(SearchError, match='goes on and on'):
        find(source, answers(), licences=())
    assert budget().requests == MAX_REQUESTS


def test_html_that_a_parser_takes_hours_for(unhurried):
    "Tags that are never closed, as many as an answer may have."
    page = dict(title='File:1.jpg', imageinfo=[dict(mime='image/jpeg', url='http://a.test/1.jpg')])
    page['imageinfo'][0]['extmetadata'] = {
        name: dict(value=piece * 300_000)
        for name, piece in (('Artist', '<!--'), ('ObjectName', '<a '), ('LicenseUrl', '<![a'))
    }
    answers = iter([{}, dict(query=dict(pages=[page]))])
    with Server({}, otherwise=lambda asked: text(json.dumps(next(answers, {})))) as server:
        script = SEARCH.replace('contact=', 'licences=(), contact=')
        cost = run_bounded(
            [sys.executable, '-c', script, 'commons', server.url('/')], seconds=40, env=dict(NO_PROXY='127.0.0.1')
        )
    assert (cost.status, cost.err) == (0, '')
    assert len(json.loads(cost.out)[0]) == 1
    assert cost.seconds < 30
