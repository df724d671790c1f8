"Real clients against real servers on loopback that talk as the search engines do."

import inspect
import json
import logging
import re
import time
import traceback
from dataclasses import replace
from email.utils import formatdate
from itertools import islice, pairwise, repeat
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
import pytest
import requests
import stamina
from engines import (
    Bing,
    Commons,
    Openverse,
    Photo,
    Reply,
    busy,
    in_html,
    in_json,
    maxlag,
    mediawiki_error,
    ratelimited,
    throttled,
)
from hypothesis import given
from hypothesis import strategies as st

from cloud_classifier.data import sources
from cloud_classifier.data.sources import (
    MAX_WAIT,
    SOURCES,
    BadSearch,
    RateLimit,
    Search,
    SearchError,
    SearchResult,
    licence_code,
    search_images,
    search_key,
    seconds_to_wait,
    user_agent,
)

ME = 'me@example.org'
KEY = '0123456789abcdef0123456789abcdef'
ALL = 10_000


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    "No address, key or haste from outside."
    for name in ('CLOUD_CONTACT', 'AZURE_SEARCH_KEY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1,localhost')
    monkeypatch.setattr(sources, '_openverse_rate', RateLimit(ALL))


@pytest.fixture
def no_waits():
    "Two attempts, and no waits between them."
    with stamina.set_testing(True, attempts=2):
        yield


@pytest.fixture
def naps(monkeypatch):
    "How long urllib3, which Bing's client waits with, would have slept."
    naps = []
    monkeypatch.setattr('urllib3.util.retry.time', SimpleNamespace(sleep=naps.append, time=time.time))
    return naps


def clouds(n: int, **more) -> list[Photo]:
    return [Photo(f'Cirrus {i:04}.jpg', 'Cirrus', b'', **more) for i in range(n)]


def ask(server, what: str = 'Ci', n: int = ALL, **settings) -> list[SearchResult]:
    "What the source finds that talks to such a server."
    source = type(server).__name__.lower()
    settings = dict(contact=ME, endpoint=server.endpoint) | settings
    return search_images(what, source, n, **settings)


def short(failure) -> bool:
    "Whether a message is one to be shown to a person: a line, and no traceback in it."
    return 0 < len(str(failure.value)) < 200 and '\n' not in str(failure.value)


def asked(server, name: str) -> list[str]:
    "The values of a parameter, in the order they came."
    return [q.params[name] for q in server.log if name in q.params]


# Wikimedia Commons


def expected(server, genus: str = 'Cirrus') -> list[str]:
    "Pages of the photos of a genus in the order of the category, those below it, and the search."
    titles = [f'File:{p.name}' for p in server.photos if p.genus == genus and p.licence != 'by-nc']
    places = [server.categories[f'Category:{genus} clouds{where}'] for where in ('', ' in Finland')]
    in_order = [t for place in places for t in place if t in titles]
    return [server.page(server.file(t)) for t in dict.fromkeys(in_order + titles)]


def test_commons_walks_the_category_and_those_below_it_then_searches(skies):
    with Commons(skies) as server:
        found = ask(server)
        assert [f.page for f in found] == expected(server)
        assert len(found) == len(set(found)) > 10
        assert asked(server, 'gcmtitle') == [
            'Category:Cirrus clouds',
            'Category:Cirrus clouds by country',
            'Category:Cirrus clouds in Finland',
        ]
        assert asked(server, 'gsrsearch') == ['Cirrus clouds filetype:bitmap']
        assert 'gsrsearch' in server.log[-1].params
        assert {q.params['maxlag'] for q in server.log} == {'5'}


@pytest.mark.parametrize(
    ('genus', 'below', 'walked'),
    [
        ('Cumulus', 'Cumulus congestus', True),
        ('Cumulus', 'Cumulus clouds in Japan', True),
        ('Cumulus', 'Clouds over Lake Constance', True),
        ('Stratocumulus', 'Stratocumulus stratiformis', True),
        ('Stratocumulus', 'Clouds with virga', True),
        ('Cirrus', 'Cirrus clouds in Artois', True),
        ('Cumulus', 'Stratocumulus clouds', False),
        ('Stratus', 'Nimbostratus clouds', False),
        ('Stratus', 'Stratus and altostratus clouds', False),
        ('Stratocumulus', 'Stratocumulus and Cumulus clouds', False),
        ('Cirrus', 'Satellite pictures of cirrus clouds', False),
        ('Cirrus', 'Cirrus clouds in art', False),
        ('Cirrus', 'Paintings of cirrus clouds', False),
        ('Cirrus', 'Time-lapse videos of cirrus clouds', False),
        ('Cirrus', 'Cirrus SR22 aircraft', False),
    ],
)
def test_categories_of_another_genus_or_without_photos_are_not_walked(genus, below, walked):
    with Commons([Photo('sky.jpg', genus, b'')]) as server:
        server.categories = {f'Category:{genus} clouds': [f'Category:{below}'], f'Category:{below}': ['File:sky.jpg']}
        ask(server, genus)
        assert (f'Category:{below}' in asked(server, 'gcmtitle')) == walked


def test_three_levels_below_are_walked_and_no_more():
    with Commons(clouds(1)) as server:
        names = ['Category:Cirrus clouds', *(f'Category:Level {n}' for n in range(1, 6))]
        server.categories = {name: [below] for name, below in pairwise(names)} | {names[-1]: []}
        ask(server)
        assert asked(server, 'gcmtitle') == names[:4]


def test_a_genus_without_a_category_is_searched_for():
    with Commons(clouds(3)) as server:
        server.categories = {}
        assert len(ask(server)) == 3
        assert asked(server, 'gcmtitle') == []


def test_words_that_are_no_genus_are_searched_for_as_they_are(skies):
    with Commons(skies) as server:
        found = ask(server, 'stratus 07')
        assert [f.page for f in found] == [server.page(server.file('File:Stratus 07.jpg'))]
        assert asked(server, 'gsrsearch') == ['stratus 07 filetype:bitmap']
        assert len(server.log) == 1


@pytest.mark.parametrize('batch', [1, 2, 5])
def test_continuation_is_followed_to_the_end(skies, batch):
    with Commons(skies, batch=batch) as server:
        assert [f.page for f in ask(server)] == expected(server)
        for name in ('gcmcontinue', 'gsroffset', *(['cmcontinue'] if batch < 3 else [])):
            assert asked(server, name)


def test_a_file_whose_details_come_in_a_later_answer_is_not_lost(skies):
    "A page may be listed in one answer and described in the next: https://www.mediawiki.org/wiki/API:Continue."
    with Commons(skies, transforms=3) as server:
        found = ask(server)
        assert asked(server, 'iicontinue')
        assert {f.page for f in found} == set(expected(server))
        assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ('html', 'text'),
    [
        ('<a href="//x" title="User:Ann">Ann &amp; Bob</a>', 'Ann & Bob'),
        ('<bdi><a href="x">Zoë\n  &#39;Cloud&#39; </a></bdi>\n', "Zoë 'Cloud'"),
        ('<p>Ann</p><p>Bob</p>', 'Ann Bob'),
        ('Ann<br/>Bob', 'Ann Bob'),
        ('<a href="x">Ann</a>, <a href="y">Bob</a>', 'Ann, Bob'),
        ('<a href="x">Ann', 'Ann'),
        ('<style data-mw-deduplicate="x">.vcard{color:red}</style><span>Ann</span>', 'Ann'),
    ],
    ids=['link', 'entity', 'paragraphs', 'break', 'two links', 'unclosed', 'style'],
)
def test_an_author_in_html_becomes_text(html, text):
    with Commons(clouds(1, author=html)) as server:
        assert [f.author for f in ask(server)] == [text]


def test_licence_author_title_and_page_are_recorded(skies):
    with Commons(skies) as server:
        found = {f.page: f for f in ask(server)}
        ours = found[server.page(server.file('File:Cirrus 00.jpg'))]
        assert (ours.title, ours.author) == ('Cirrus 00 as seen', 'Ann & Bob 0')
        assert (ours.licence, ours.licence_url) == ('CC BY-SA 4.0', 'https://creativecommons.org/licenses/by-sa/4.0')
        free = found[server.page(server.file('File:Cirrus 03.jpg'))]
        assert (free.licence, free.licence_url) == ('Public domain', '')


def test_only_licences_that_are_asked_for_are_found(skies):
    with Commons(skies) as server:
        assert {f.licence for f in ask(server)} == {'CC BY-SA 4.0', 'CC BY 2.0', 'CC0', 'Public domain'}
        assert {f.licence for f in ask(server, licences=('by-nc', 'cc0'))} == {'CC BY-NC 2.0', 'CC0'}
        everything = ask(server, licences=())
        assert len(everything) == len([p for p in server.photos if p.genus == 'Cirrus'])


def test_addresses_are_those_the_server_gave(skies):
    "A smaller copy where the photo is wider than 1280 pixels, else the photo itself; both can be fetched."
    with Commons(skies) as server:
        found = {f.page: f.url for f in ask(server, licences=())}
        photos = [p for p in server.photos if p.genus == 'Cirrus']
        assert {p.width > 1280 for p in photos} == {True, False}
        for p in photos:
            assert found[server.page(p)] == (server.thumb(p, 1280) if p.width > 1280 else server.address(p))
            answer = requests.get(found[server.page(p)], headers={'User-Agent': user_agent(ME)}, timeout=5)
            assert (answer.status_code, answer.content) == (200, p.data)
        assert set(asked(server, 'iiurlwidth')) == {'1280'}


def test_what_is_no_photo_is_not_found(skies):
    with Commons(skies) as server:
        found = {f.page for f in ask(server, licences=())}
        others = [p for p in server.others if p.genus == 'Cirrus']
        assert {p.name.rpartition('.')[2] for p in others} == {'svg', 'ogv', 'pdf', 'jpg'}  # a photo that was deleted
        assert not found & {server.page(p) for p in others}
        assert server.downloads == []


def test_no_more_is_asked_than_is_needed(skies):
    with Commons(skies, batch=5) as server:
        assert len(ask(server, n=2)) == 2
        assert len(server.log) == 2


def test_every_question_says_who_asks(skies):
    with Commons(skies, batch=5) as server:
        ask(server, contact=f' {ME}\r\nX-Evil: 1 ')
        for q in server.log:
            assert re.fullmatch(r'cloud_classifier/\d[\w.]* \(me@example\.org X-Evil: 1\)', q.headers['user-agent'])
            assert 'x-evil' not in q.headers


@pytest.mark.parametrize('contact', ['', ' \n'])
def test_commons_is_not_asked_without_an_address(skies, contact):
    with Commons(skies) as server:
        with pytest.raises(BadSearch, match='--contact'):
            ask(server, contact=contact)
        assert server.log == []


def test_the_address_may_come_from_the_environment(skies, monkeypatch):
    monkeypatch.setenv('CLOUD_CONTACT', 'https://example.org/clouds')
    with Commons(skies) as server:
        assert ask(server, contact='')
        assert server.log[0].headers['user-agent'].endswith(' (https://example.org/clouds)')
        ask(server, contact=ME)
        assert server.log[-1].headers['user-agent'].endswith(f' ({ME})')


def test_a_server_that_turns_us_away_is_quoted(skies):
    with Commons(skies) as server, pytest.raises(SearchError, match=r'127\.0\.0\.1:\d+ answers 403') as failure:
        ask(server, contact='nobody')
    assert short(failure)


# Servers in trouble


@pytest.mark.parametrize('said', [maxlag(), ratelimited(), busy(429), busy(503), busy(500), busy(502)])
def test_a_busy_server_is_asked_again(skies, said):
    with Commons(skies) as server:
        server.instead = [said, said]
        assert [f.page for f in ask(server)] == expected(server)
        assert server.log[0].params == server.log[1].params == server.log[2].params != server.log[3].params


@pytest.mark.parametrize('said', [maxlag('1'), busy(503, 'date')])
def test_what_the_server_asks_to_wait_is_waited(said):
    if said.headers['Retry-After'] == 'date':
        said = busy(503, formatdate(time.time() + 2, usegmt=True))  # whole seconds: between one and two from now
    with Commons(clouds(1)) as server:
        server.instead = [said]
        assert len(ask(server)) == 1
        assert 0.8 < server.log[1].at - server.log[0].at < 3


@pytest.mark.parametrize('said', [maxlag(), ratelimited(), busy(429), busy(503)])
def test_a_server_that_stays_busy_is_given_up(skies, said):
    with Commons(skies) as server:
        server.instead = repeat(said)
        with pytest.raises(SearchError, match=r'127\.0\.0\.1:\d+ .*try again later') as failure:
            ask(server)
        assert len(server.log) == 4
    assert short(failure)


def test_a_server_that_says_nothing_of_when_is_given_up_too(skies, no_waits):
    with Commons(skies) as server:
        server.instead = repeat(busy(503, None))
        with pytest.raises(SearchError, match='answers 503; try again later'):
            ask(server)
        assert len(server.log) == 2


def test_nobody_waits_an_hour(skies):
    with Commons(skies) as server:
        server.instead = repeat(busy(429, 3600))
        with pytest.raises(SearchError, match='asks to wait 3600 s'):
            ask(server)
        assert len(server.log) == 1


def test_waiting_is_not_printed(monkeypatch, capsys):
    monkeypatch.setattr(logging.root, 'handlers', [])  # as in a program that configures no logging
    with Commons(clouds(1)) as server:
        server.instead = [busy()]
        assert ask(server)
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('engine', [Commons, Openverse])
def test_a_server_that_is_gone(engine, no_waits):
    with engine(clouds(1)) as server:
        server.stop()
        with pytest.raises(SearchError, match=r"127\.0\.0\.1:\d+ can't be reached") as failure:
            ask(server)
    assert short(failure)


def test_what_was_found_before_the_server_went_is_kept(skies, no_waits):
    with Commons(skies, batch=2) as server:
        found = SOURCES['commons'](Search('Ci', contact=ME, endpoint=server.endpoint))
        assert next(found)
        server.stop()
        with pytest.raises(SearchError, match="can't be reached"):
            list(found)


@pytest.mark.parametrize('engine', [Commons, Openverse])
def test_a_connection_that_breaks_in_the_middle_is_tried_again(engine, no_waits):
    with engine(clouds(3)) as server:
        server.instead = [replace(in_json({'query': {'pages': []}, 'results': []}), cut=True)]
        assert len(ask(server)) == 3


@pytest.mark.parametrize('engine', [Commons, Openverse])
@pytest.mark.parametrize(
    'said',
    [
        in_html('Welcome'),
        Reply(b''),
        Reply(b'{"query": {"pa', headers={'Content-Type': 'application/json'}),
        Reply(b'\xff\xfe\x00\x9f', headers={'Content-Type': 'application/json'}),
        in_json([]),
        in_json(None),
        in_json('hello'),
        in_json({'query': 'hello', 'results': 'hello'}),
    ],
    ids=['html', 'nothing', 'cut', 'bytes', 'list', 'null', 'string', 'other'],
)
def test_an_answer_that_makes_no_sense(engine, said):
    with engine(clouds(1)) as server:
        server.instead = repeat(said)
        with pytest.raises(SearchError, match=r'127\.0\.0\.1:\d+') as failure:
            ask(server)
    assert short(failure)


@pytest.mark.parametrize('engine', [Commons, Openverse])
@pytest.mark.parametrize(
    'said',
    [in_html('You have been blocked', 403), in_json({'error': 'blocked'}, 403), in_json(['blocked'], 403)],
    ids=['html', 'string', 'list'],
)
def test_an_error_is_told_by_its_number(engine, said):
    with engine(clouds(1)) as server:
        server.instead = repeat(said)
        with pytest.raises(SearchError, match='answers 403') as failure:
            ask(server)
        assert len(server.log) == 1  # asking again would change nothing
    assert short(failure)


def test_an_error_of_mediawiki_is_quoted(skies):
    with Commons(skies) as server:
        server.instead = [mediawiki_error('cirrussearch-too-busy-error', 'Search is currently too busy.')]
        with pytest.raises(SearchError, match='Search is currently too busy') as failure:
            ask(server)
    assert short(failure)


@pytest.mark.parametrize('engine', [Commons, Openverse])
def test_a_circle_of_redirects(engine):
    with engine(clouds(1)) as server:
        server.instead = repeat(Reply(status=302, headers={'Location': server.path}))
        with pytest.raises(SearchError) as failure:
            ask(server)
    assert short(failure)


@pytest.mark.parametrize('source', ['commons', 'openverse', 'bing'])
@pytest.mark.parametrize('endpoint', ['127.0.0.1/w/api.php', 'ftp://127.0.0.1/', 'file:///etc/hostname', 'http://['])
def test_an_endpoint_that_is_no_web_address(source, endpoint, monkeypatch):
    monkeypatch.setenv('AZURE_SEARCH_KEY', KEY)
    with pytest.raises(BadSearch, match='not an http or https address'):
        search_images('Ci', source, contact=ME, endpoint=endpoint)


@pytest.mark.parametrize(
    ('header', 'seconds'),
    [
        ('0', 0),
        (' 5 ', 5),
        ('3600', 3600),
        ('Wed, 21 Oct 2015 07:28:00 GMT', 0),
        (None, None),
        ('', None),
        ('soon', None),
        ('-5', None),
        ('Wed, 99 Oct 2015 07:28:00 GMT', None),
        ('Wed, 21 Oct 2015 07:28:00 +99999999999999999', None),
    ],
)
def test_how_long_a_server_asks_to_wait(header, seconds):
    assert seconds_to_wait(header) == seconds


def test_a_date_is_counted_from_now():
    assert 28 < seconds_to_wait(formatdate(time.time() + 30, usegmt=True)) <= 30


DATES = st.builds(
    'Wed, {} Oct {} 07:28:00 {}{}'.format,
    st.integers(0, 40),
    st.integers(0, 10**6),
    st.sampled_from('+-'),
    st.integers(0, 10**20).map('{:04}'.format),
)


@given(st.text('0123456789 .,:+-', max_size=30) | DATES)
def test_no_header_of_a_server_is_too_odd(header):
    assert (seconds_to_wait(header) or 0) >= 0


# Openverse


def test_openverse_is_read_page_by_page_to_the_end():
    with Openverse(clouds(45)) as server:
        assert [f.url for f in ask(server)] == [server.address(p) for p in server.photos]
        assert asked(server, 'page') == ['1', '2', '3']
        assert set(asked(server, 'page_size')) == {'20'}


def test_openverse_is_read_as_deep_as_it_lets_us():
    with Openverse(clouds(450)) as server:
        assert len(ask(server)) == server.depth == 240
        assert len(server.log) == 12


def test_openverse_is_never_asked_for_more_than_twenty_pages_of_twenty():
    class Deep(Openverse):
        def answer(self, question):
            return in_json(json.loads(super().answer(question).body) | {'page_count': 1000})

    with Deep(clouds(450), depth=10_000) as server:
        found = search_images('Ci', 'openverse', ALL, endpoint=server.endpoint)
        assert len(found) == 400
        assert asked(server, 'page') == [str(n) for n in range(1, 21)]
        assert set(asked(server, 'page_size')) == {'20'}


def test_openverse_that_finds_nothing():
    with Openverse(clouds(3)) as server:
        assert ask(server, 'mammatus') == []
        assert len(server.log) == 1


def test_openverse_is_asked_for_a_genus_or_for_words():
    with Openverse(clouds(3)) as server:
        ask(server, 'Ac')
        ask(server, 'mammatus over Ulm & Köln')
        assert asked(server, 'q') == ['Altocumulus clouds', 'mammatus over Ulm & Köln']
        assert set(asked(server, 'category')) == {'photograph'}


def test_openverse_is_asked_for_the_licences(skies):
    with Openverse(skies) as server:
        found = ask(server)
        assert {f.licence for f in found} == {'CC BY-SA 4.0', 'CC BY 2.0', 'CC0 1.0', 'Public Domain Mark 1.0'}
        assert {f.licence for f in ask(server, licences=('by-nc',))} == {'CC BY-NC 2.0'}
        assert len(ask(server, licences=())) == len([p for p in server.photos if p.genus == 'Cirrus']) > len(found)
        assert [q.params.get('license') for q in server.log] == ['cc0,pdm,by,by-sa', 'by-nc', None]


def test_a_server_that_ignores_the_licences_is_not_believed(skies):
    class Careless(Openverse):
        def answer(self, question):
            question.params.pop('license')
            return super().answer(question)

    with Careless(skies) as server:
        found = search_images('Ci', 'openverse', ALL, endpoint=server.endpoint, licences=('cc0',))
        assert {f.licence for f in found} == {'CC0 1.0'}


def test_openverse_says_whose_photo_it_is(skies):
    with Openverse(skies) as server:
        found = {f.title: f for f in ask(server)}
        photo = server.photos[0]
        assert found['Cirrus 00'] == SearchResult(
            url=server.address(photo),
            page=server.page(photo),
            title='Cirrus 00',
            author='Ann & Bob 0',
            licence='CC BY-SA 4.0',
            licence_url='https://creativecommons.org/licenses/by-sa/4.0',
        )
        assert found['Cirrus 03'].licence_url == ''


def test_openverse_may_know_little_of_a_photo():
    little = dict.fromkeys(('title', 'creator', 'foreign_landing_url', 'license_url', 'license_version'))
    results = [little | {'url': None, 'license': 'by'}, little | {'url': 'http://x/1.jpg', 'license': 'by'}, {}]
    with Openverse(clouds(0)) as server:
        server.instead = [in_json({'result_count': 3, 'page_count': 1, 'results': results})]
        assert ask(server) == [SearchResult('http://x/1.jpg', licence='CC BY')]


def test_openverse_wants_no_address_but_is_given_one():
    with Openverse(clouds(1)) as server:
        assert ask(server, contact='')
        assert ask(server, contact=ME)
        first, second = (q.headers['user-agent'] for q in server.log)
        assert first.startswith('cloud_classifier/')
        assert second == f'{first} ({ME})'


def test_openverse_is_waited_for_and_given_up():
    with Openverse(clouds(45)) as server:
        server.instead = [throttled(), throttled()]
        assert len(ask(server)) == 45
        server.instead = repeat(throttled())
        with pytest.raises(SearchError, match='answers 429') as failure:
            ask(server)
    assert short(failure)


def test_openverse_is_quoted():
    with Openverse(clouds(1)) as server:
        server.PAGE = 10
        with pytest.raises(SearchError, match='answers 401: page_size may not exceed 10') as failure:
            ask(server)
        server.PAGE = 20
        with pytest.raises(SearchError, match=r"answers 400: .*License 'sa' does not exist"):
            ask(server, licences=('sa',))
    assert short(failure)


class Clock:
    "A clock that stands still, but for sleep."

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    time = monotonic

    def sleep(self, seconds):
        assert seconds >= 0
        self.now += seconds


def test_openverse_is_asked_twenty_times_a_minute(monkeypatch):
    clock, times = Clock(), []
    monkeypatch.setattr(sources, 'time', clock)
    monkeypatch.setattr(sources, '_openverse_rate', RateLimit(sources._OPENVERSE_PER_MINUTE))

    class Timed(Openverse):
        def answer(self, question):
            times.append(clock.now)
            return super().answer(question)

    with Timed(clouds(330), depth=10_000) as server:
        for _ in range(3):  # 17 pages each: the pace is the process's, not the search's
            assert len(search_images('Ci', 'openverse', ALL, endpoint=server.endpoint)) == 330
    assert len(times) == 51
    assert times[:20] == [1000] * 20
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[20:], strict=False))
    assert clock.now < 1000 + 3 * 60


@given(st.integers(1, 5), st.lists(st.floats(0, 100), max_size=40))
def test_the_pace_waits_until_a_minute_has_room_and_no_longer(a_minute, gaps):
    with pytest.MonkeyPatch.context() as patch:
        clock, pace, times, due = Clock(), RateLimit(a_minute), [], []
        patch.setattr(sources, 'time', clock)
        for gap in gaps:
            clock.now += gap
            due.append(max(clock.now, due[-a_minute] + 60) if len(due) >= a_minute else clock.now)
            pace.wait()
            times.append(clock.now)
    assert times == pytest.approx(due)


# Bing


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv('AZURE_SEARCH_KEY', KEY)


def test_bing_is_read_to_the_end(skies, key):
    with Bing(skies) as server:
        whole = ask(server)
        photo = server.photos[0]
        assert whole[0] == SearchResult(server.address(photo), page=server.page(photo), title='Cirrus 00')
        assert [f.url for f in whole] == [server.address(p) for p in server.photos if p.genus == 'Cirrus']
    with Bing(skies, batch=5) as server:
        assert [f.title for f in ask(server)] == [f.title for f in whole]
        assert asked(server, 'offset')[:4] == ['0', '5', '10', '15']
        assert set(asked(server, 'q')) == {'Cirrus clouds'}
        assert set(asked(server, 'imageType')) == {'Photo'}
        assert max(map(int, asked(server, 'count'))) <= 150
        assert all(KEY not in str(q.params) for q in server.log)


def test_bing_is_searched_for_words_as_they_are(skies, key):
    with Bing(skies) as server:
        assert [f.title for f in ask(server, 'stratus 07')] == ['Stratus 07']
        assert ask(server, 'mammatus') == []


@pytest.mark.parametrize('step', [0, 5], ids=['stands', 'goes on'])
def test_a_server_that_repeats_itself_comes_to_an_end(key, step):
    "At the end of its results Bing gives the last of them again."

    class Endless(Bing):
        def answer(self, question):
            offset, question.params['offset'] = int(question.params['offset']), '0'
            answer = json.loads(super().answer(question).body)
            return in_json(answer | {'nextOffset': offset + step})

    with Endless(clouds(5)) as server:
        found = SOURCES['bing'](Search('Ci', endpoint=server.endpoint))
        assert len(list(islice(found, 100))) < 100


@pytest.mark.parametrize(
    'content',
    [b'KEY', b'KEY\n', b'\xef\xbb\xbfKEY\r\nsecond line\n', b' KEY \t\n\n'],
    ids=['bare', 'line', 'bom', 'blanks'],
)
def test_the_key_is_the_first_line_of_its_file(tmp_path, content):
    file = tmp_path / 'key.txt'
    file.write_bytes(content.replace(b'KEY', KEY.encode()))
    assert search_key(file) == KEY
    with Bing(clouds(1), KEY) as server:
        assert len(ask(server, key_file=str(file))) == 1
        assert server.log[0].headers[server.HEADER] == KEY


def test_the_key_of_the_environment_goes_first(tmp_path, monkeypatch):
    file = tmp_path / 'key.txt'
    file.write_text('another' * 4)
    monkeypatch.setenv('AZURE_SEARCH_KEY', f' {KEY}\n')
    with Bing(clouds(1), KEY) as server:
        assert len(ask(server, key_file=str(file))) == 1
        assert len(ask(server, key_file=str(tmp_path / 'nowhere'))) == 1
    monkeypatch.setenv('AZURE_SEARCH_KEY', ' ')
    assert search_key(file) == 'another' * 4


@pytest.mark.parametrize(
    'content', [b'', b'\n' + KEY.encode(), b'my key', 'schlüssel'.encode(), b'key\x00', b'my key \xff\xd8\xff', None]
)
def test_a_file_that_holds_no_key(tmp_path, content):
    file = tmp_path / 'key.txt'
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with Bing(clouds(1)) as server:
        with pytest.raises(BadSearch, match='key') as failure:
            ask(server, key_file=str(file))
        assert server.log == []
    assert short(failure)
    for secret in ('my key', 'schlüssel', KEY, '\\x'):
        assert secret not in everything_said(failure.value)


def test_without_a_key_the_message_says_where_to_put_it(tmp_path):
    with Bing(clouds(1)) as server:
        with pytest.raises(BadSearch, match='AZURE_SEARCH_KEY'):
            ask(server)
        with pytest.raises(BadSearch, match=r'nowhere: the key can.t be read .*No such file'):
            ask(server, key_file=str(tmp_path / 'nowhere'))


def everything_said(error: BaseException) -> str:
    "What may be printed of an error: it and what led to it, and as a traceback shows them."
    said = traceback.format_exception(error)
    while error:
        said += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return '\n'.join(said)


WRONG = 'fedcba9876543210fedcba9876543210'
ECHOES = {
    'as Bing': None,
    'as the gateway': in_json({'error': {'code': '401', 'message': f'invalid subscription key {WRONG}'}}, 401),
    'html': in_html(f'{WRONG} is wrong', 401),
    'broken json': Reply(f'{{"key": "{WRONG}'.encode(), 401, {'Content-Type': 'application/json'}),
    'reason': Reply(b'{}', 401, {'Content-Type': 'application/json'}, reason=f'Wrong key {WRONG}'),
    'header': in_json({}, 403, WWW_Authenticate=f'key="{WRONG}"'),
    'forbidden': in_json({'_type': 'ErrorResponse', 'errors': [{'code': WRONG, 'message': WRONG}]}, 403),
    'fine in html': in_html(f'Hello {WRONG}'),
    'fine, broken': Reply(f'{{"key": "{WRONG}'.encode(), headers={'Content-Type': 'application/json'}),
    'as a number': in_json({'_type': 'Images', 'nextOffset': WRONG, 'value': []}),
    'as a list': in_json([WRONG]),
    'as results': in_json({'_type': 'Images', 'value': WRONG}),
}


@pytest.fixture
def logged(caplog):
    "What all loggers say, down to the last detail."
    for name in list(logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, logger=name)
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.mark.parametrize('echo', ECHOES.values(), ids=ECHOES)
def test_the_key_is_told_to_nobody(monkeypatch, logged, echo):
    monkeypatch.setenv('AZURE_SEARCH_KEY', WRONG)
    with Bing(clouds(3), KEY) as server:
        server.instead = [echo] if echo else []
        with pytest.raises(SearchError, match=r'127\.0\.0\.1') as failure:
            ask(server)
        assert server.log[0].headers[server.HEADER] == WRONG
    assert short(failure)
    assert WRONG not in everything_said(failure.value)
    assert 'msrest' in {record.name.partition('.')[0] for record in logged.records}
    assert WRONG not in logged.text


def test_a_wrong_key_is_told_to_be_one(monkeypatch):
    monkeypatch.setenv('AZURE_SEARCH_KEY', WRONG)
    with Bing(clouds(3), KEY) as server, pytest.raises(SearchError, match='answers 401; is the key right'):
        ask(server)


def test_the_key_is_not_logged_when_all_goes_well(key, logged):
    with Bing(clouds(3)) as server:
        assert len(ask(server)) == 3
    assert {'msrest', 'urllib3'} <= {record.name.partition('.')[0] for record in logged.records}
    assert KEY not in logged.text


def test_results_that_repeat_the_key_are_left_out(key):
    with Bing([*clouds(2), Photo(f'Cirrus {KEY}.jpg', 'Cirrus', b'')]) as server:
        value = [
            {'contentUrl': f'http://x/1.jpg?key={KEY}', 'name': 'sky'},
            {'contentUrl': 'http://x/2.jpg', 'hostPageUrl': f'http://x/{KEY}', 'name': 'sky'},
            {'contentUrl': 'http://x/3.jpg', 'name': f'sky {KEY}'},
            {'contentUrl': {'address': KEY}},
            {'name': 'a sky without an address'},
            {'contentUrl': 'http://x/4.jpg'},
        ]
        assert [f.title for f in ask(server)] == ['Cirrus 0000', 'Cirrus 0001']
        server.instead = [in_json({'_type': 'Images', 'value': value})]
        assert ask(server) == [SearchResult('http://x/4.jpg')]


def test_the_key_does_not_follow_a_redirect(key):
    with Bing(clouds(1), WRONG) as stranger, Bing(clouds(1), KEY) as server:
        elsewhere = f'{stranger.url}{stranger.SEARCH}?q=clouds'.replace('127.0.0.1', 'localhost')
        server.instead = repeat(Reply(status=302, headers={'Location': elsewhere}))
        with pytest.raises(SearchError):
            ask(server)
        assert KEY not in str([q.headers for q in stranger.log])


def test_a_search_does_not_show_the_key(tmp_path, key):
    file = tmp_path / 'key.txt'
    file.write_text(WRONG)
    search = Search('Ci', endpoint='http://127.0.0.1:9', key_file=str(file))
    assert 'key.txt' in repr(search)
    for secret in (KEY, WRONG):
        assert secret not in repr(search)


@pytest.mark.parametrize(
    'endpoint',
    [
        '',
        'https://api.bing.microsoft.com',
        'https://API.Bing.Microsoft.com:443/v7.0/images/search',
        'https://api.cognitive.microsoft.com/',
        'https://westus.api.cognitive.microsoft.com',
        'https://mine.cognitiveservices.azure.com/',
    ],
)
def test_bings_own_address_was_retired(endpoint, key):
    with pytest.raises(BadSearch, match='2025-08-11') as failure:
        search_images('Ci', 'bing', endpoint=endpoint)
    assert 'commons' in str(failure.value)


def test_bing_that_is_gone(key, naps):
    with Bing(clouds(1)) as server:
        server.stop()
        with pytest.raises(SearchError, match=r"127\.0\.0\.1 can't be asked") as failure:
            ask(server)
    assert short(failure)
    assert KEY not in everything_said(failure.value)


def test_bing_that_is_busy_is_waited_for(key, naps):
    with Bing(clouds(3)) as server:
        server.instead = [busy(429, 7), busy(503, 7)]
        assert len(ask(server)) == 3
    assert naps == [7, 7]


@pytest.mark.parametrize('status', [429, 503])
def test_bing_that_stays_busy_is_given_up_and_not_after_hours(key, naps, status):
    with Bing(clouds(3)) as server:
        server.instead = repeat(busy(status, 3600))
        with pytest.raises(SearchError) as failure:
            ask(server)
    assert sum(naps) <= 3 * MAX_WAIT
    assert f'answers {status}' in str(failure.value)
    assert 'key' not in str(failure.value)


# DuckDuckGo


class Duck:
    "The answers of DuckDuckGo, in place of ddgs's HTTP client."

    def __init__(self, monkeypatch, pages, home=b'<script>vqd="4-123456"</script>'):
        self.pages, self.home, self.asked = pages, home, []
        monkeypatch.setattr('ddgs.http_client.HttpClient.request', lambda _, *args, **more: self.request(*args, **more))

    def request(self, method, url, params=None):
        if url == 'https://duckduckgo.com':
            return SimpleNamespace(status_code=200, content=self.home, text=self.home.decode())
        assert (method, url) == ('GET', 'https://duckduckgo.com/i.js')
        self.asked.append(params)
        page = self.pages[len(self.asked) - 1] if len(self.asked) <= len(self.pages) else []
        if isinstance(page, BaseException):
            raise page
        if isinstance(page, int):
            return SimpleNamespace(status_code=page, content=b'', text='')
        return SimpleNamespace(status_code=200, content=b'', text=json.dumps({'results': page}))


def drake(n: int, **more) -> dict:
    "A result, as DuckDuckGo gives it."
    return {
        'title': f'Cirrus <b>{n}</b>',
        'image': f'http://x/{n}.jpg',
        'thumbnail': f'http://tse/{n}',
        'url': f'http://x/{n}.html',
        'height': 768,
        'width': 1024,
        'source': 'Bing',
    } | more


def test_ddg_asks_duckduckgo_for_photos_page_by_page(monkeypatch):
    duck = Duck(monkeypatch, [[drake(n) for n in range(60)], [drake(60)]])
    found = search_images('Ci', 'ddg', ALL)
    assert found == [
        SearchResult(f'http://x/{n}.jpg', page=f'http://x/{n}.html', title=f'Cirrus {n}') for n in range(61)
    ]
    assert [p.get('s') for p in duck.asked] == [None, '100', '200']
    for asked in duck.asked:
        assert asked['q'] == 'Cirrus clouds'
        assert 'type:photo' in asked['f'].split(',')
        assert asked['vqd'] == '4-123456'


def test_ddg_is_asked_for_words_as_they_are(monkeypatch):
    duck = Duck(monkeypatch, [[drake(1)]])
    search_images('mammatus over Ulm', 'ddg', 1)
    assert [p['q'] for p in duck.asked] == ['mammatus over Ulm']


def test_ddg_is_asked_for_five_pages_at_the_most(monkeypatch):
    duck = Duck(monkeypatch, [[drake(n)] for n in range(9)])
    assert len(search_images('Ci', 'ddg', ALL)) == len(duck.asked) == 5


def test_a_result_without_an_address_is_left_out(monkeypatch):
    Duck(monkeypatch, [[drake(1, image=''), drake(2, url=None), drake(3, url='', title='')]])
    found = search_images('Ci', 'ddg', ALL)
    assert set(found) == {SearchResult('http://x/2.jpg', title='Cirrus 2'), SearchResult('http://x/3.jpg')}


def test_duckduckgo_that_turns_us_away_is_no_end_of_the_results(monkeypatch):
    "It answers 403 where there were too many questions, which ddgs takes for no results."
    Duck(monkeypatch, [403])
    with pytest.raises(SearchError, match='DuckDuckGo') as failure:
        search_images('Ci', 'ddg', ALL)
    assert short(failure)


@pytest.mark.parametrize('home', [b'<html>Please prove that you are no robot</html>', b''])
def test_duckduckgo_that_wants_no_robots(monkeypatch, home):
    Duck(monkeypatch, [[drake(1)]], home)
    with pytest.raises(SearchError, match='DuckDuckGo turns us away'):
        search_images('Ci', 'ddg', ALL)


def stub(monkeypatch, pages):
    "`ddgs.DDGS`, answering with the pages in turn; an exception is raised."
    from ddgs.ddgs import DDGS as Real

    calls = []

    class DDGS:
        def __init__(self, *args, **settings):
            inspect.signature(Real).bind(*args, **settings)

        def images(self, *args, **settings):
            inspect.signature(Real._search_sync).bind(self, 'images', *args, **settings)
            calls.append(settings)
            page = pages[len(calls) - 1]
            if isinstance(page, BaseException):
                raise page
            return page

    monkeypatch.setattr('ddgs.DDGS', DDGS)
    return calls


def test_what_is_asked_of_ddgs_it_understands(monkeypatch):
    from ddgs.engines import ENGINES
    from ddgs.exceptions import DDGSException

    calls = stub(monkeypatch, [[drake(1)], DDGSException('No results found.')])
    assert len(search_images('Ci', 'ddg', ALL)) == 1
    engine = ENGINES['images'][calls[0]['backend']]
    assert urlsplit(engine.search_url).netloc == 'duckduckgo.com'
    options = inspect.getsource(engine.build_payload)  # it ignores what it does not know
    known = set(inspect.signature(engine.build_payload).parameters) | set(re.findall(r'kwargs.get\("(\w+)"\)', options))
    assert set(calls[0]) - {'backend', 'max_results'} <= known
    assert [c['page'] for c in calls] == [1, 2]


@pytest.mark.parametrize('kind', ['RatelimitException', 'TimeoutException', 'DDGSException'])
def test_ddg_that_fails_keeps_what_was_found(monkeypatch, kind):
    from ddgs import exceptions

    stub(monkeypatch, [[drake(1)], getattr(exceptions, kind)('https://duckduckgo.com/i.js 202 Ratelimit')])
    found = SOURCES['ddg'](Search('Ci'))
    assert next(found).url == 'http://x/1.jpg'
    with pytest.raises(SearchError, match=r'DuckDuckGo turns us away .*Ratelimit') as failure:
        next(found)
    assert short(failure)


# Lists of addresses


@pytest.fixture
def listed(tmp_path):
    "Write a list, and read it."

    def read(content, name='list.csv', **settings):
        file = tmp_path / name
        if isinstance(content, pd.DataFrame):
            content.to_parquet(file)
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return search_images('', 'urls', ALL, origin=str(file), **settings)

    return read


def test_a_list_as_people_write_it(listed):
    lines = [
        '\ufeff URL ,"Label", Author,Licence, shoe size',
        ' http://x/1.jpg , Ac ,Ann, CC0,42',
        '"http://x/2,3.jpg",Föhn wall,,,',
        ',,,,',
    ]
    found = listed('\r\n'.join(lines))
    assert found == [
        SearchResult('http://x/1.jpg', 'Altocumulus', author='Ann', licence='CC0'),
        SearchResult('http://x/2,3.jpg', 'Föhn wall'),
    ]


def test_what_is_known_of_a_photo_is_read(listed):
    found = listed('url,label,page,title,author,licence,licence_url\na,Ci,b,NA,null,d,e\n')
    assert found == [SearchResult('a', 'Cirrus', 'b', 'NA', 'null', 'd', 'e')]


def test_labels_are_read_as_class_folders_are(listed):
    found = listed('url,label\n1,Ac\n2,altocumulus\n3,Altostatus\n4,Contrail\n')
    assert [f.label for f in found] == ['Altocumulus', 'Altocumulus', 'Altostratus', 'Contrail']
    assert {f.label for f in listed('url,label\n1,Ac\n2,Ci\n', label='st')} == {'Stratus'}


def test_a_text_has_an_address_on_each_line(listed):
    found = listed(b'\xef\xbb\xbfhttp://x/1.jpg\r\n\r\n  http://x/2.jpg  \n', 'list.txt', label='Cb')
    assert found == [SearchResult('http://x/1.jpg', 'Cumulonimbus'), SearchResult('http://x/2.jpg', 'Cumulonimbus')]
    assert listed('', 'list.TXT', label='Cb') == []
    with pytest.raises(BadSearch, match=r'no column label; --label gives one'):
        listed('http://x/1.jpg', 'list.txt')


@pytest.mark.parametrize('name', ['list.parquet', 'list.PQ'])
def test_parquet_is_read_as_csv_is(listed, name):
    table = pd.DataFrame({'URL': ['http://x/1.jpg', None, 'http://x/2.jpg'], 'label': ['Ac', None, 'Sc']})
    table['author'], table['title'] = [None, None, 'Ann'], [1, 2, 3]
    found = listed(table.set_index('title', drop=False), name)
    assert found == [
        SearchResult('http://x/1.jpg', 'Altocumulus', title='1'),
        SearchResult('http://x/2.jpg', 'Stratocumulus', title='3', author='Ann'),
    ]


@pytest.mark.parametrize(
    ('content', 'name', 'settings', 'message'),
    [
        ('link,label\na,Ci\n', 'list.csv', {}, 'no column url'),
        ('url\na\n', 'list.csv', {}, 'no column label; --label gives one to all'),
        ('a,b\nc,d\n', 'list.csv', {}, 'no column url and no column label'),
        ('a,b\nc,d\n', 'list.csv', {'label': 'Ci'}, r'no column url$'),
        ('url;label\na;Ci\n', 'list.csv', {}, 'no column url and no column label'),
        ('url\tlabel\na\tCi\n', 'list.csv', {}, 'no column url and no column label'),
        ('', 'list.csv', {}, 'no column url'),
        ('\n\n', 'list.csv', {'label': 'Ci'}, 'no column url'),
        (b'\xff\xd8\xff\xe0' + bytes(range(256)) * 9, 'list.csv', {}, "can't be read as a table"),
        (b'\xff\xd8\xff\xe0' + bytes(range(256)) * 9, 'list.txt', {'label': 'Ci'}, "can't be read as a table"),
        (b'\xff\xd8\xff\xe0' + bytes(range(256)) * 9, 'list.parquet', {}, "can't be read as a table"),
        (b'PAR1' + bytes(99) + b'PAR1', 'list.parquet', {}, "can't be read as a table"),
        ('url,label\na,Ci\n'.encode('utf-16'), 'list.csv', {}, "can't be read as a table"),
        ('url,label\na,Ci\n"b,Ci\n', 'list.csv', {}, "can't be read as a table"),
        ('url,label\na,Ci\nhttp://x/1,2.jpg,Ci\n', 'list.csv', {}, 'row 3'),
        ('url,label\nhttp://x/1,2.jpg,Ci\n', 'list.csv', {}, 'row 2'),
    ],
)
def test_a_list_that_is_none(listed, content, name, settings, message):
    with pytest.raises(BadSearch, match=rf'list\.\w+: .*{message}') as failure:
        listed(content, name, **settings)
    assert len(str(failure.value)) < 400
    assert '\n' not in str(failure.value)


@pytest.mark.parametrize(
    ('content', 'row'),
    [
        ('url,label\na,Ci\nb,\n', 3),
        ('url,label\na,Ci\nb,  \nc,Ci\n', 3),
        ('url,label\n,\na,Ci\n\nb,\n', 5),
        ('url,label\na\n', 2),
    ],
)
def test_a_row_without_a_label_is_named(listed, content, row):
    with pytest.raises(BadSearch, match=rf'list\.csv: row {row} has no label'):
        listed(content)


def test_a_row_may_be_shorter_than_the_heading(listed):
    assert listed('url,label,author,title\na,Ci\n') == [SearchResult('a', 'Cirrus')]


def test_a_row_may_end_in_commas(listed):
    assert listed('url,label\na,Ci,\nb,Ci,,\n') == [SearchResult('a', 'Cirrus'), SearchResult('b', 'Cirrus')]


def test_a_heading_alone_is_an_empty_list(listed):
    assert listed('url,label\n') == []


def test_a_list_that_is_not_there(tmp_path):
    for origin, message in [(tmp_path, 'no such file'), (tmp_path / 'a.csv', 'no such file'), ('', '--from')]:
        with pytest.raises(BadSearch, match=message):
            search_images('', 'urls', origin=str(origin))


# Folders


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'x')


def test_a_folder_of_class_folders(tmp_path):
    put(tmp_path, 'Ac/1.jpg', 'altocumulus/deep/2.PNG', 'Contrail/3.webp', 'Ac/notes.txt', '.hidden/4.jpg', 'Ac/.5.jpg')
    found = {(f.label, f.title) for f in search_images('', 'folder', origin=str(tmp_path))}
    assert found == {('Altocumulus', '1.jpg'), ('Altocumulus', '2.PNG'), ('Contrail', '3.webp')}


def test_photos_outside_of_class_folders_need_a_label(tmp_path):
    put(tmp_path, 'Ac/1.jpg', 'loose.jpg')
    with pytest.raises(BadSearch, match='--label'):
        search_images('', 'folder', origin=str(tmp_path))
    found = search_images('', 'folder', origin=str(tmp_path), label='cu')
    assert {(f.label, f.title) for f in found} == {('Cumulus', '1.jpg'), ('Cumulus', 'loose.jpg')}


@pytest.mark.parametrize('name', ['two words', '100 %', 'a#b?c', 'Höhe 空', "it's; [x]", '%41', 'a&b=c+d'])
def test_the_address_of_a_file_leads_back_to_it(tmp_path, name, monkeypatch):
    put(tmp_path, f'{name}/{name}.jpg')
    monkeypatch.chdir(tmp_path.parent)
    for origin in (str(tmp_path), tmp_path.name):
        (found,) = search_images('', 'folder', origin=origin)
        parts = urlsplit(found.url)
        assert (parts.scheme, parts.query, parts.fragment) == ('file', '', '')
        assert Path(url2pathname(parts.path)) == tmp_path / name / f'{name}.jpg'
        assert found.url.isascii()
        assert (found.label, found.title) == (name, f'{name}.jpg')


def test_a_folder_that_is_none(tmp_path):
    put(tmp_path, 'file.txt')
    put(tmp_path, 'file.jpg')
    for origin, message in [
        ('nowhere', 'there is no such folder'),
        ('file.txt', 'there is no such folder'),
        ('file.jpg', 'is one photo; --label says what it shows'),
    ]:
        with pytest.raises(BadSearch, match=f'{origin}: {message}'):
            search_images('', 'folder', origin=str(tmp_path / origin))
    with pytest.raises(BadSearch, match='--from'):
        search_images('', 'folder')
    (tmp_path / 'empty').mkdir()
    assert search_images('', 'folder', origin=str(tmp_path / 'empty')) == []


# Licences and sources


@pytest.mark.parametrize(
    ('licence', 'code'),
    [
        ('CC0', 'cc0'),
        ('CC0 1.0', 'cc0'),
        ('cc-zero', 'cc0'),
        ('Public domain', 'pdm'),
        ('Public Domain Mark 1.0', 'pdm'),
        ('PD', 'pdm'),
        ('PD-USGov-NOAA', 'pdm'),
        ('No restrictions', 'pdm'),
        ('CC BY 4.0', 'by'),
        ('CC-BY-2.0', 'by'),
        ('CC BY 3.0 us', 'by'),
        ('by', 'by'),
        ('CC BY-SA 4.0', 'by-sa'),
        ('cc-by-sa-2.5', 'by-sa'),
        ('CC BY-SA 4.0-3.0-2.5-2.0-1.0', 'by-sa'),
        ('CC BY-SA 3.0 de', 'by-sa'),
        ('CC BY-NC 2.0', 'by-nc'),
        ('CC BY-ND 2.0', 'by-nd'),
        ('CC BY-NC-SA 2.0', 'by-nc-sa'),
        ('CC BY-NC-ND', 'by-nc-nd'),
        ('', ''),
        ('GFDL 1.2', ''),
        ('Attribution', ''),
        ('Copyrighted free use', ''),
        ('All rights reserved', ''),
        ('bystander', ''),
        ('CC SAMPLING+', ''),
    ],
)
def test_licences_by_their_many_names(licence, code):
    assert licence_code(licence) == code


@pytest.mark.parametrize(
    'licence', ['CC BY-SA-NC 3.0', 'CC BY_NC 2.0', 'CC BY (non-commercial)', 'CC BY SA ND', 'PDF', 'PDA, ask first']
)
def test_a_licence_with_a_condition_is_never_taken_for_one_without(licence):
    assert licence_code(licence) not in Search().licences


def test_a_source_is_a_function_in_a_table(monkeypatch):
    def mine(search):
        yield from (SearchResult(f'{search.endpoint}/{search.genus}/{n}') for n in range(search.label.count('x')))

    monkeypatch.setitem(SOURCES, 'mine', mine)
    found = search_images('Ac', 'mine', 2, endpoint='http://x', label='xxx')
    assert [f.url for f in found] == ['http://x/Altocumulus/0', 'http://x/Altocumulus/1']


def test_a_source_that_is_unknown_is_named_beside_those_that_are_not():
    with pytest.raises(
        BadSearch, match="unknown source 'google'; the sources are commons, openverse, ddg, bing, urls, folder"
    ):
        search_images('Ci', 'google')


@pytest.mark.parametrize(
    ('what', 'words'), [('Ci', 'Cirrus clouds'), ('cirri', 'Cirrus clouds'), ('fog bow', 'fog bow')]
)
def test_what_is_searched_for(what, words):
    assert Search(what).words == words
