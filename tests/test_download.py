"Photos from a server that misbehaves in every way, and what is made of them."

import asyncio
import errno
import hashlib
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from email.utils import formatdate
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import pytest
from examples import examples
from hostile import (
    ANSWERS,
    BOMB,
    CASES,
    ENDLESS,
    HANG,
    HTML,
    MAX_BYTES,
    Server,
    first,
    for_ever,
    head,
    moved,
    photo,
    png,
    progressive_jpeg,
    reply,
    slowly,
    webp,
)
from hypothesis import given
from hypothesis import strategies as st

from cloud_classifier.data import download as module
from cloud_classifier.data.dataset import BadDataset, Dataset, Manifest
from cloud_classifier.data.download import (
    TRANSIENT_REASONS,
    DownloadAborted,
    DownloadLimits,
    DownloadResult,
    download,
    store_results,
)
from cloud_classifier.data.sources import SearchResult
from cloud_classifier.fetch import may_connect
from cloud_classifier.files import move_file
from cloud_classifier.images import inspect_photo

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs the whole of 127.0.0.0/8')
HOSTS = [f'127.0.0.{n}' for n in range(1, 10)]
LIMITS = DownloadLimits(
    allow_private=True, total=200, per_host=200, max_bytes=MAX_BYTES, connect=1.5, read=1.5, grace=2
)
QUICK = DownloadLimits(allow_private=True, attempts=1, connect=2, read=2)


def rows(dataset):
    "The rows of the manifest by address."
    return {row['url']: dict(row) for row in dataset.manifest.read('SELECT * FROM photos ORDER BY id')}


def reasons(dataset):
    return {url: row['reason'] or row['status'] for url, row in rows(dataset).items()}


def files(dataset):
    "Paths of what is in a dataset, but for its manifest."
    found = (p.relative_to(dataset.path).as_posix() for p in dataset.path.rglob('*') if p.is_file())
    return sorted(p for p in found if not p.startswith(('manifest.db', '.manifest.lock')))


def as_named(content, label='Cirrus', suffix='.jpg'):
    "Where a photo belongs."
    return f'{label}/{hashlib.sha256(content).hexdigest()[:16]}{suffix}'


@pytest.fixture(scope='module', autouse=True)
def names():
    "What names of hosts stand for, one address after the other; no question leaves this machine."
    ask, known = socket.getaddrinfo, {}

    def resolve(host, *args, **kwargs):
        if host in known:
            return ask(known[host].pop(0), *args, **kwargs)
        if host.lower() == 'localhost' or re.fullmatch('[0-9a-fx.:]+', host):
            return ask(host, *args, **kwargs)
        host.encode('idna')
        raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, 'getaddrinfo', resolve)
        yield known


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / 'data').mkdir()
    return Dataset(tmp_path / 'data')


@pytest.fixture
def server():
    with Server({}) as server:
        yield server


def found(server, *paths, label='Cirrus'):
    return [SearchResult(server.url(path), label=label) for path in paths]


# Everything at once


@pytest.fixture(scope='module')
def all_at_once(tmp_path_factory):
    "A run over all cases: the dataset, what `download` said, how long it took, and the server."
    dataset = Dataset(tmp_path_factory.mktemp('hostile'))
    with Server(ANSWERS) as server:
        began = time.monotonic()
        done = download(dataset, found(server, *(f'/{case}' for case in CASES)), 'urls', limits=LIMITS, progress=False)
        return dataset, done, time.monotonic() - began, server


@pytest.mark.parametrize('case', CASES)
def test_each_address_ends_with_its_reason(all_at_once, case):
    dataset, _, _, server = all_at_once
    row = rows(dataset)[server.url(f'/{case}')]
    reason = CASES[case][1]
    assert (row['status'], row['reason']) == (('failed', reason) if reason else ('ok', ''))


def test_nothing_hangs_and_nothing_is_forgotten(all_at_once):
    dataset, done, took, _ = all_at_once
    assert took < 15
    assert sum(done.values()) == len(rows(dataset)) == len(CASES)
    assert done['failed'] == sum(bool(reason) for _, reason in CASES.values())
    assert not (dataset.path / '.incoming').exists()


def test_only_what_may_pass_is_asked_again(all_at_once):
    "A server that is silent has cost enough time."
    _, _, _, server = all_at_once
    again = {reason for reason in TRANSIENT_REASONS if reason != 'timeout'}
    expected = {case: 3 if reason in again or case == 'busy-twice' else 1 for case, (_, reason) in CASES.items()}
    expected['redirect-loop'] = 1 + LIMITS.redirects
    for case in ('closed-before-a-byte', 'reset-before-a-byte'):
        expected[case] *= 2  # aiohttp asks once more by itself
    assert {case: server.times(f'/{case}') for case in CASES} == expected


# Addresses

ADDRESSES = {
    'http://[::1': 'bad address',
    'http://[sky]/1.jpg': 'bad address',
    'http://exa mple/': 'bad address',
    'http://a..b/': 'bad address',
    'http://.a.test/': 'bad address',
    f'http://{"a" * 64}.test/': 'bad address',
    f'http://{"a." * 200}test/': 'no connection',
    'http://x:99999/': 'bad address',
    'http://x:0/': 'bad address',
    'http://x:port/': 'bad address',
    'http://x\0y/': 'bad address',
    'http://': 'bad address',
    'http:///1.jpg': 'bad address',
    'http:1.jpg': 'bad address',
    '//example.org/1.jpg': 'bad address',
    '1.jpg': 'bad address',
    'a sky with clouds': 'bad address',
    'javascript:alert(1)': 'bad address',
    'data:image/gif;base64,R0lGODlhAQABAAAAACw=': 'bad address',
    'ftp://example.org/1.jpg': 'bad address',
    'file:///etc/passwd': 'bad address',
    'http://nowhere.invalid/1.jpg': 'no connection',
    'http://127.0.0.1:9/1.jpg': 'no connection',
    'https://127.0.0.1:9/1.jpg': 'no connection',
    'http://169.254.169.254/latest/meta-data/': 'forbidden address',
    'http://[fe80::1]/1.jpg': 'forbidden address',
    'http://0.0.0.0/1.jpg': 'forbidden address',
}


@pytest.mark.parametrize('address', ADDRESSES)
def test_an_address_that_leads_nowhere_has_its_reason(dataset, address):
    download(dataset, [SearchResult(address, label='Cirrus')], limits=QUICK, progress=False)
    assert reasons(dataset) == {address: ADDRESSES[address]}


@pytest.mark.parametrize('address', ['', '  ', 'http://example.org/\ud800.jpg'])
def test_what_is_no_address_at_all_does_no_harm(dataset, server, address):
    "Nothing, blanks, and half a character, which no file can hold."
    server.answers['/1.jpg'] = reply(photo(1))
    download(dataset, [SearchResult(address, label='Cirrus'), *found(server, '/1.jpg')], limits=QUICK, progress=False)
    assert files(dataset) == [as_named(photo(1))]
    assert not dataset.manifest.pending()


@pytest.mark.parametrize(
    'address',
    [
        'https://me:hunter2@127.0.0.1:9/1.jpg',
        'HTTPS://hunter2@127.0.0.1:9/1.jpg',
        ' https://me:hunter2@127.0.0.1:9/1.jpg',
        '\x01https://me:hunter2@127.0.0.1:9/1.jpg',
        'ht\ntps://me:hunter2@127.0.0.1:9/1.jpg',
        'https:\\\\me:hunter2@127.0.0.1:9/1.jpg',
        'https:///me:hunter2@127.0.0.1:9/1.jpg',
        '//me:hunter2@127.0.0.1:9/1.jpg',
        'me:hunter2@127.0.0.1:9/1.jpg',
        'ftp://me:hunter2@127.0.0.1:9/1.jpg',
        'file://me:hunter2@127.0.0.1/1.jpg',
        'svn+ssh://me:hunter2@127.0.0.1:9/1.jpg',
        'https://me:hunter2/or:hunter2@127.0.0.1:9/1.jpg',
        'https://me:hunter2#@127.0.0.1:9/1.jpg',
    ],
)
def test_a_password_is_never_written_down(dataset, address):
    download(dataset, [SearchResult(address, label='Cirrus')], limits=QUICK, progress=False)
    assert list(reasons(dataset).values()) == ['bad address']
    written = b''.join(p.read_bytes() for p in dataset.path.glob('manifest.db*'))
    assert b'hunter2' not in written


def test_nor_is_one_in_the_address_of_a_page(dataset):
    pages = dict(page='https://me:hunter2@127.0.0.1/', licence_url='//me:hunter2@127.0.0.1/')
    download(dataset, [SearchResult('http://127.0.0.1:9/1.jpg', label='Cirrus', **pages)], limits=QUICK, progress=False)
    assert b'hunter2' not in b''.join(p.read_bytes() for p in dataset.path.glob('manifest.db*'))


def test_an_address_from_a_list_can_not_name_a_file_here(dataset, tmp_path):
    (tmp_path / 'own.jpg').write_bytes(photo(1))
    (tmp_path / 'page.jpg').write_bytes(HTML)
    own = [SearchResult((tmp_path / name).as_uri(), label='Cirrus') for name in ('own.jpg', 'page.jpg', 'gone.jpg')]
    strange = [SearchResult(f'file://{path}', label='Cirrus') for path in ('', '/', '/%00', '//host/1.jpg')]
    download(dataset, own, source='urls', progress=False)
    assert set(reasons(dataset).values()) == {'bad address'}
    dataset.manifest.retry(['bad address'])
    with dataset.manifest.open() as db:
        db.execute("UPDATE photos SET source = 'folder'")
    download(dataset, strange, source='folder', progress=False)
    assert list(reasons(dataset).values()) == ['ok', 'html', *2 * ['not found'], 'no file', *2 * ['not found']]


def test_a_connection_that_is_never_taken_is_given_up(dataset):
    with socket.create_server(('127.0.0.1', 0), backlog=0) as deaf, socket.socket() as fills, socket.socket() as more:
        for other in (fills, more):
            other.setblocking(False)
            other.connect_ex(deaf.getsockname())
        address = f'http://127.0.0.1:{deaf.getsockname()[1]}/1.jpg'
        began = time.monotonic()
        limits = DownloadLimits(allow_private=True, connect=0.5, read=50, grace=50)
        download(dataset, [SearchResult(address, label='Cirrus')], limits=limits, progress=False)
    assert reasons(dataset) == {address: 'timeout'}
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ('answer', 'limits'), [([HANG], dict(read=0.3)), (for_ever(b'x', 0.1, begin=head(99)), dict(grace=0.5))]
)
def test_each_limit_of_time_ends_a_wait_by_itself(dataset, server, answer, limits):
    "Silence, and an answer that comes too slowly."
    server.answers['/1.jpg'] = answer
    began = time.monotonic()
    limits = DownloadLimits(**dict(allow_private=True, connect=0.5, read=50, grace=50) | limits)
    download(dataset, found(server, '/1.jpg'), limits=limits, progress=False)
    assert reasons(dataset) == {server.url('/1.jpg'): 'timeout'}
    assert time.monotonic() - began < 5


def test_https_is_not_taken_from_anybody(dataset, tmp_path):
    "A certificate that nobody vouches for, and a server that is silent."
    if not (openssl := shutil.which('openssl')):
        pytest.skip('openssl, which makes the certificate, is not there')
    make = (
        'req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 -days 2 -keyout key -out cert'
    )
    subprocess.run([openssl, *make.split()], cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / 'cert', tmp_path / 'key')
    with Server({'/1.jpg': reply(photo(1))}, tls=tls) as safe, socket.create_server(('127.0.0.1', 0)) as silent:
        says_nothing = f'https://127.0.0.1:{silent.getsockname()[1]}/1.jpg'
        photos = [SearchResult(url, label='Cirrus') for url in (safe.url('/1.jpg'), says_nothing)]
        download(dataset, photos, limits=DownloadLimits(allow_private=True, attempts=1, connect=0.5), progress=False)
        assert not safe.asked
    assert list(reasons(dataset).values()) == ['no connection', 'timeout']


# Where no address may lead


HERE = {
    '127.0.0.1': 'forbidden address',
    'localhost': 'forbidden address',
    'LOCALHOST': 'forbidden address',
    '0x7f.1': 'forbidden address',
    '0': 'bad address',
    '127.1': 'bad address',
    '0177.0.0.1': 'bad address',
    '2130706433': 'bad address',
    '%31%32%37.0.0.1': 'bad address',
    '127.0.0.1%2f': 'bad address',
    '①②⑦.⓪.⓪.①': 'forbidden address',
    '127。0。0。1': 'forbidden address',
    '0.0.0.0': 'forbidden address',
    '255.255.255.255': 'forbidden address',
    '[::]': 'forbidden address',
    '[::1]': 'forbidden address',
    '[::ffff:127.0.0.1]': 'forbidden address',
    '[::ffff:7f00:1]': 'forbidden address',
    '[64:ff9b::7f00:1]': 'forbidden address',
    '[2002:7f00:1::]': 'forbidden address',
}


@pytest.mark.parametrize('host', HERE)
def test_this_machine_is_not_asked_however_it_is_called(dataset, server, host):
    server.otherwise = reply(photo(1))
    address = server.url('/1.jpg', host)
    download(
        dataset, [SearchResult(address, label='Cirrus')], limits=DownloadLimits(attempts=1, connect=2), progress=False
    )
    assert not server.asked
    assert reasons(dataset) == {address: HERE[host]}


ACCESS = {  # by address: 'open' to all, 'ask' (with allow_private), 'shut'; and why
    '8.8.8.8': ('open', 'a server'),
    '1.1.1.1': ('open', 'a server'),
    '9.255.255.255': ('open', 'the last before 10.0.0.0/8'),
    '11.0.0.0': ('open', 'the first after it'),
    '172.15.255.255': ('open', 'the last before 172.16.0.0/12'),
    '172.32.0.0': ('open', 'the first after it'),
    '192.0.1.0': ('open', 'the first after 192.0.0.0/24'),
    '223.255.255.255': ('open', 'the last before multicast'),
    '10.0.0.1': ('ask', 'private (RFC 1918)'),
    '172.31.255.255': ('ask', 'private (RFC 1918)'),
    '192.168.1.1': ('ask', 'private (RFC 1918)'),
    '100.64.0.1': ('ask', "shared behind a provider's NAT (RFC 6598)"),
    '127.0.0.1': ('ask', 'this machine'),
    '127.255.255.254': ('ask', 'this machine'),
    '0.0.0.0': ('shut', 'this machine, by another name'),
    '0.1.2.3': ('shut', 'this network (RFC 791)'),
    '169.254.169.254': ('shut', 'metadata of most clouds, link-local (RFC 3927)'),
    '192.0.0.192': ('shut', "metadata of Oracle's cloud, in IETF protocol assignments (RFC 6890)"),
    '192.0.0.9': ('shut', 'port control anycast, which Python 3.13 calls global'),
    '168.63.129.16': ('shut', "metadata of Azure, at an address that looks like anybody's"),
    '100.100.100.200': ('shut', "metadata of Alibaba's cloud, in the shared network"),
    '192.0.2.1': ('shut', 'documentation'),
    '198.51.100.1': ('shut', 'documentation'),
    '203.0.113.1': ('shut', 'documentation'),
    '198.18.0.1': ('shut', 'benchmarks (RFC 2544)'),
    '198.19.255.255': ('shut', 'benchmarks (RFC 2544)'),
    '192.88.99.1': ('shut', 'relays of 6to4 (RFC 7526)'),
    '192.31.196.1': ('shut', 'AS112'),
    '192.52.193.1': ('shut', 'automatic multicast tunnels'),
    '192.175.48.1': ('shut', 'AS112'),
    '224.0.0.1': ('shut', 'multicast'),
    '239.255.255.255': ('shut', 'multicast'),
    '240.0.0.1': ('shut', 'reserved'),
    '255.255.255.255': ('shut', 'broadcast'),
    '2606:4700::1111': ('open', 'a server'),
    '2a00:1450:4001:82a::200e': ('open', 'a server'),
    '2001:200::1': ('open', 'the first that was given out after 2001::/23'),
    '::1': ('ask', 'this machine'),
    'fd12:3456::1': ('ask', 'unique local (RFC 4193)'),
    'fc00::1': ('ask', 'unique local (RFC 4193)'),
    'fd00:ec2::254': ('shut', 'metadata of AWS, in a unique local network'),
    'fd20:ce::254': ('shut', "metadata of Google's cloud, in a unique local network"),
    '::': ('shut', 'this machine, by another name'),
    'fe80::1': ('shut', 'link-local'),
    'fe80::1%eth0': ('shut', 'link-local, with its interface'),
    'febf::1': ('shut', 'link-local'),
    'fec0::1': ('shut', 'site-local, which Python 3.11 calls global (RFC 3879)'),
    'feff::1': ('shut', 'site-local'),
    'ff02::1': ('shut', 'multicast'),
    'ff0e::1': ('shut', 'multicast, global'),
    '100::1': ('shut', 'discard (RFC 6666)'),
    '2001:db8::1': ('shut', 'documentation'),
    '3fff::1': ('shut', 'documentation (RFC 9637)'),
    '2001:2::1': ('shut', 'benchmarks (RFC 5180)'),
    '2001:10::1': ('shut', 'ORCHID (RFC 4843)'),
    '2001:20::1': ('shut', 'ORCHIDv2, which Python 3.13 calls global (RFC 7343)'),
    '2001:1::1': ('shut', 'port control anycast'),
    '2620:4f:8000::1': ('shut', 'AS112'),
    '5f00::1': ('shut', 'segment routing (RFC 9602)'),
    '4000::1': ('shut', 'given to nobody'),
    '64:ff9b:1::808:808': ('shut', 'NAT64 of a local network (RFC 8215)'),
    '::ffff:8.8.8.8': ('open', 'mapped: carries a server'),
    '::ffff:10.0.0.1': ('ask', 'mapped: carries a private address'),
    '::ffff:169.254.169.254': ('shut', 'mapped: carries metadata'),
    '::8.8.8.8': ('shut', 'compatible, given up long ago (RFC 4291)'),
    '::127.0.0.1': ('shut', 'compatible'),
    '::ffff:0:127.0.0.1': ('shut', 'translated (RFC 2765)'),
    '64:ff9b::8.8.8.8': ('open', 'NAT64: carries a server'),
    '64:ff9b::10.0.0.1': ('ask', 'NAT64: carries a private address'),
    '64:ff9b::192.0.0.192': ('shut', 'NAT64: carries metadata'),
    '2002:808:808::1': ('open', '6to4: carries a server'),
    '2002:7f00:1::1': ('ask', '6to4: carries this machine'),
    '2002:a9fe:a9fe::1': ('shut', '6to4: carries metadata'),
    '2001:0:808:808:0:0:f7f7:f7f7': ('open', 'Teredo: server and client are servers'),
    '2001:0:808:808:0:0:80ff:fffe': ('ask', 'Teredo: its client is this machine'),
    '2001:0:a9fe:a9fe:0:0:f7f7:f7f7': ('shut', 'Teredo: its server is metadata'),
    '2001:0:808:808:0:0:5601:5601': ('shut', 'Teredo: its client is metadata'),
    '2606:4700::5efe:8.8.8.8': ('open', 'ISATAP: carries a server'),
    '2606:4700::5efe:10.0.0.1': ('ask', 'ISATAP: carries a private address'),
    '2606:4700::200:5efe:127.0.0.1': ('ask', 'ISATAP, marked as unique: carries this machine'),
    '2606:4700::5efe:169.254.169.254': ('shut', 'ISATAP: carries metadata'),
    'fe80::5efe:8.8.8.8': ('shut', 'ISATAP on the link'),
}


@pytest.mark.parametrize('address', ACCESS)
def test_where_an_address_may_lead(address):
    access, why = ACCESS[address]
    told = 'open' if may_connect(address) else 'ask' if may_connect(address, allow_private=True) else 'shut'
    assert told == access, why


def test_no_flag_of_the_standard_library_decides(monkeypatch):
    "They differ from one Python to the next: every Python has the same answers."
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        for flag in ('is_global', 'is_private', 'is_reserved', 'is_multicast', 'is_link_local', 'is_loopback'):
            monkeypatch.setattr(kind, flag, property(lambda self: pytest.fail('a flag was asked')))
    for address in ACCESS:
        may_connect(address)


@pytest.fixture
def guarded(monkeypatch):
    "127.0.0.2 stands for the internet; everything else is forbidden."
    monkeypatch.setattr(module, 'may_connect', lambda address, allow_private: address == '127.0.0.2')
    with Server({}, hosts=['127.0.0.1', '127.0.0.2']) as server:
        yield server


GUARDED = DownloadLimits(attempts=1, connect=2, read=2)


def test_a_redirect_into_a_private_network_is_not_followed(dataset, guarded):
    guarded.answers |= {'/fine.jpg': reply(photo(1)), '/secret.jpg': reply(photo(2))}
    guarded.answers |= {'/in': moved(guarded.url('/secret.jpg')), '/in-twice': moved('/in')}
    guarded.answers |= {'/by-name': moved(guarded.url('/secret.jpg', 'localhost'))}
    addresses = [guarded.url(path, '127.0.0.2') for path in ('/fine.jpg', '/in', '/in-twice', '/by-name')]
    download(dataset, [SearchResult(url, label='Cirrus') for url in addresses], limits=GUARDED, progress=False)
    assert list(reasons(dataset).values()) == ['ok', *3 * ['forbidden address']]
    assert {o.host for o in guarded.asked} == {'127.0.0.2'}


def test_a_name_that_turns_private_is_not_followed(dataset, guarded, names):
    "What a name leads to is looked at for the very connection, not once and then believed."
    with Server({'/secret.jpg': reply(photo(2))}) as private:
        names['rebind.test'] = ['127.0.0.2', '127.0.0.1']
        guarded.answers['/1.jpg'] = moved(private.url('/secret.jpg', 'rebind.test'))
        address = guarded.url('/1.jpg', 'rebind.test')
        download(dataset, [SearchResult(address, label='Cirrus')], limits=GUARDED, progress=False)
        assert (guarded.times('/1.jpg'), private.asked) == (1, [])
    assert reasons(dataset) == {address: 'forbidden address'}


@pytest.mark.parametrize('public', ['127.0.0.2', '127.0.0.3'])
def test_of_two_addresses_of_a_name_the_private_one_is_left_out(dataset, guarded, monkeypatch, public):
    "Also where nobody answers at the public one, which is 127.0.0.3."
    ask = socket.getaddrinfo

    def resolve(host, *args, **kwargs):
        both = ('127.0.0.1', public) if host == 'both.test' else (host,)
        return [o for ip in both for o in ask(ip, *args, **kwargs)]

    monkeypatch.setattr(socket, 'getaddrinfo', resolve)
    monkeypatch.setattr(module, 'may_connect', lambda address, allow_private: address == public)
    guarded.answers['/1.jpg'] = reply(photo(1))
    done = download(
        dataset, [SearchResult(guarded.url('/1.jpg', 'both.test'), label='Cirrus')], limits=GUARDED, progress=False
    )
    assert done['ok'] == (public == '127.0.0.2')
    assert '127.0.0.1' not in {o.host for o in guarded.asked}


# What a server hears, and what it can not decide


def test_what_a_server_is_told(dataset, server):
    "Who asks, and nothing that somebody else made up."
    server.otherwise = lambda asked: reply(photo(asked.n), Set_Cookie='sky=blue')
    photos = found(server, '/1.jpg', '/2.jpg', '/3.jpg\r\nX-Evil: 1', '/ä ö.jpg?sig=a%2Bb%2F%3D+c')
    limits = DownloadLimits(allow_private=True, per_host=1, contact='me@example.org\r\nX-Evil: 1')
    download(dataset, photos, limits=limits, progress=False)
    assert [o.path for o in server.asked][1:2] == ['/2.jpg']
    assert unquote(server.asked[-1].path) == '/ä ö.jpg?sig=a+b/=+c'
    for asked in server.asked:
        assert asked.headers['user-agent'].startswith('cloud_classifier/')
        assert '(me@example.org' in asked.headers['user-agent']
        assert set(asked.headers) == {'host', 'user-agent', 'accept', 'accept-encoding'}


NAMES = [
    '/../../x.jpg',
    '/a/../../../../x.jpg',
    '/%2e%2e/%2e%2e/x.jpg',
    '/..%2f..%2fx.jpg',
    '/..\\..\\x.jpg',
    '/\0.jpg',
    '/x%00.jpg',
    '/x\x07.jpg',
    '/CON',
    '/.hidden',
    '/',
    '',
    '/' + 'x' * 5000 + '.jpg',
    '/x.php?file=../../x.jpg',
    '/x.exe',
]


def test_a_photo_is_named_by_its_bytes(dataset, server):
    "No address and no header decides where it goes."
    named = dict(Content_Disposition='attachment; filename="../../x.jpg"', Content_Location='../../x.jpg')
    server.otherwise = lambda asked: reply(photo(len(server.asked)), **named)
    before = sorted(dataset.path.parent.rglob('*'))
    done = download(dataset, found(server, *NAMES), limits=LIMITS, progress=False)
    assert done == dict(ok=len(NAMES), duplicate=0, failed=0)
    assert files(dataset) == sorted(as_named(photo(n + 1)) for n in range(len(NAMES)))
    for row in rows(dataset).values():
        content = (dataset.path / row['path']).read_bytes()
        assert row['sha256'] == hashlib.sha256(content).hexdigest()
        assert (row['width'], row['height'], row['size']) == (160, 160, len(content))
    outside = [p for p in dataset.path.parent.rglob('*') if not p.is_relative_to(dataset.path)]
    assert outside == [p for p in before if not p.is_relative_to(dataset.path)]


def test_a_suffix_says_what_a_photo_is(dataset, server):
    server.answers = {f'/{n}.jpg': reply(photo(1, format)) for n, format in enumerate(['PNG', 'WEBP', 'TIFF', 'BMP'])}
    download(dataset, found(server, *server.answers), limits=QUICK, progress=False)
    assert sorted(os.path.splitext(p)[1] for p in files(dataset)) == ['.bmp', '.png', '.tif', '.webp']


def test_no_redirects_means_none(dataset, server):
    server.answers = {'/1.jpg': moved('/2.jpg'), '/2.jpg': reply(photo(1))}
    limits = DownloadLimits(allow_private=True, redirects=0, grace=2)
    download(dataset, found(server, '/1.jpg'), limits=limits, progress=False)
    assert list(reasons(dataset).values()) == ['too many redirects']


@pytest.mark.parametrize('label', ['', '../Cirrus', '.git', 'a/b', 'x' * 200, 'a\nb'])
def test_a_label_that_is_no_folder_name_is_refused(dataset, server, label):
    with pytest.raises(BadDataset, match='name of a class'):
        download(dataset, found(server, '/1.jpg') + found(server, '/2.jpg', label=label), limits=QUICK, progress=False)
    assert not rows(dataset)
    assert not server.asked


# Manners


@pytest.fixture(scope='module')
def polite(tmp_path_factory):
    "A run over hosts of which each asks for something else: how the rows ended, and what the server heard."
    dataset = Dataset(tmp_path_factory.mktemp('polite'))
    a_while = reply(status='429 Slow Down', Retry_After='1')
    longer = reply(status='429 Slow Down', Retry_After='2')
    too_long = reply(status='429 Slow Down', Retry_After='3600')

    def by_date(asked):
        if asked.n:
            return reply(photo(200))
        return reply(status='429 Slow Down', Retry_After=formatdate(asked.clock + 2, usegmt=True))

    scenes = {  # the first two rows of each host are asked at the same time, since two may be
        'seconds': [
            first(1, *a_while, then=reply(photo(100))),
            slowly(photo(101), 1, 0.3),
            *(reply(photo(n)) for n in (102, 103)),
        ],
        'date': [by_date, slowly(photo(201), 1, 0.3), reply(photo(202))],
        'another': [reply(photo(n)) for n in (300, 301, 302)],
        'for ever': [reply(status='429 Slow Down', Retry_After='0')],
        'too long': [too_long, slowly(photo(501), 1, 0.3), reply(photo(502)), reply(photo(503))],
        'busy': [
            first(1, *longer, then=reply(photo(600))),
            first(1, 0.1, *reply(status='503 Busy'), then=reply(photo(601))),
        ],
        'shorter': [
            first(1, *longer, then=reply(photo(700))),
            first(1, 0.3, *reply(status='503 Busy', Retry_After='1'), then=reply(photo(701))),
            reply(photo(702)),
        ],
    }
    hosts = dict(zip(scenes, HOSTS, strict=False))
    answers = {f'/{scene}/{n}'.replace(' ', '-'): o for scene, answers in scenes.items() for n, o in enumerate(answers)}
    limits = DownloadLimits(allow_private=True, per_host=2, connect=9)
    with Server(answers, HOSTS) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'MAX_WAIT', 2.5)
        photos = [
            SearchResult(server.url(path, hosts[path.split('/')[1].replace('-', ' ')]), label='Cirrus')
            for path in answers
        ]
        download(dataset, photos, limits=limits, progress=False)
    ended = {url.partition(str(server.port))[2]: reason for url, reason in reasons(dataset).items()}
    return ended, {scene: [o for o in server.asked if o.host == host] for scene, host in hosts.items()}


def pauses(heard, path):
    "How long after a path was asked for first each other request came, but for the one at the same time; seconds."
    begin = next(o.at for o in heard if o.path == path)
    return [o.at - begin for o in heard[2:]]


def test_a_host_that_asks_for_seconds_gets_them(polite):
    ended, heard = polite
    assert {ended[f'/seconds/{n}'] for n in range(4)} == {'ok'}
    assert min(pauses(heard['seconds'], '/seconds/0')) >= 0.98
    assert len(heard['seconds']) == 5


def test_a_host_that_asks_for_a_time_gets_it(polite):
    ended, heard = polite
    assert {ended[f'/date/{n}'] for n in range(3)} == {'ok'}
    assert min(o.clock for o in heard['date'][2:]) >= int(heard['date'][0].clock + 2) - 0.02


def test_no_other_host_waits_meanwhile(polite):
    _, heard = polite
    assert max(o.at for o in heard['another']) - heard['seconds'][0].at < 0.9


def test_a_host_that_always_asks_to_wait_is_left_alone(polite):
    ended, heard = polite
    assert ended['/for-ever/0'] == 'too many requests'
    assert len(heard['for ever']) == DownloadLimits().attempts


def test_a_host_that_asks_for_more_than_patience_is_not_asked_again(polite):
    ended, heard = polite
    assert [o.path for o in heard['too long']] == ['/too-long/0', '/too-long/1']
    assert [ended[f'/too-long/{n}'] for n in range(4)] == ['too many requests', 'ok', *2 * ['too many requests']]


def test_another_try_waits_until_its_host_has_rested(polite):
    ended, heard = polite
    assert {ended['/busy/0'], ended['/busy/1']} == {'ok'}
    assert min(pauses(heard['busy'], '/busy/0')) >= 1.98


def test_a_short_rest_does_not_end_a_long_one(polite):
    ended, heard = polite
    assert {ended[f'/shorter/{n}'] for n in range(3)} == {'ok'}
    assert min(pauses(heard['shorter'], '/shorter/0')) >= 1.98


def test_no_more_connections_than_are_allowed(dataset):
    with Server({}, HOSTS[:4], otherwise=slowly(photo(1), 1, 0.2)) as server:
        photos = [SearchResult(server.url(f'/{n}', host), label='Cirrus') for host in HOSTS[:4] for n in range(8)]
        limits = DownloadLimits(allow_private=True, total=10, per_host=3)
        assert download(dataset, photos, limits=limits, progress=False) == dict(ok=1, duplicate=31, failed=0)
        assert server.most_open.pop('') == 10
        assert max(server.most_open.values()) == 3


def test_no_more_connections_than_are_allowed_where_all_redirects_lead(dataset):
    with Server({'/photo': slowly(photo(1), 1, 0.1)}, HOSTS) as server:
        server.otherwise = moved(server.url('/photo'))
        photos = [SearchResult(server.url(f'/{n}', host), label='Cirrus') for host in HOSTS[1:] for n in range(2)]
        limits = DownloadLimits(allow_private=True, total=64, per_host=2)
        assert download(dataset, photos, limits=limits, progress=False) == dict(ok=1, duplicate=15, failed=0)
        assert server.most_open['127.0.0.1'] == 2


def test_waiting_for_a_turn_is_no_silence_of_the_server(dataset):
    "Redirects of many hosts to one, which answers one at a time and takes longer for all than is allowed for one."
    with Server({'/photo': slowly(photo(1), 1, 0.3)}, HOSTS) as server:
        server.otherwise = moved(server.url('/photo'))
        photos = [SearchResult(server.url('/1', host), label='Cirrus') for host in HOSTS[1:6]]
        limits = DownloadLimits(allow_private=True, per_host=1, connect=0.5, read=0.5, grace=0.5)
        assert download(dataset, photos, limits=limits, progress=False) == dict(ok=1, duplicate=4, failed=0)


def test_a_long_list_of_one_host_holds_up_no_other(dataset):
    with Server({}, HOSTS[:2], otherwise=lambda asked: slowly(photo(len(server.asked)), 1, 0.05)) as server:
        photos = [SearchResult(server.url(f'/{n}'), label='Cirrus') for n in range(20)]
        photos.append(SearchResult(server.url('/last', HOSTS[1]), label='Cirrus'))
        limits = DownloadLimits(allow_private=True, total=3, per_host=2)
        download(dataset, photos, limits=limits, progress=False)
        assert '/last' in [o.path for o in server.asked[:3]]


# Into the dataset


def test_the_same_bytes_are_one_photo(dataset, server):
    server.answers = {f'/{n}.jpg': reply(photo(1)) for n in range(3)}
    done = download(dataset, found(server, *server.answers), limits=QUICK, progress=False)
    assert done == dict(ok=1, duplicate=2, failed=0)
    assert files(dataset) == [as_named(photo(1))]
    assert [(row['status'], row['reason'], row['path']) for row in rows(dataset).values()] == [
        ('ok', '', as_named(photo(1))),
        *2 * [('duplicate', '', as_named(photo(1)))],
    ]


def test_the_row_asked_first_has_the_photo_whatever_comes_first(dataset, server):
    server.answers = {'/1.jpg': [0.8, *reply(photo(1))], '/2.jpg': reply(photo(1)), '/3.jpg': [0.3, *reply(photo(1))]}
    photos = [*found(server, '/1.jpg'), *found(server, '/2.jpg', label='Stratus'), *found(server, '/3.jpg')]
    done = download(dataset, photos, limits=QUICK, progress=False)
    assert files(dataset) == [as_named(photo(1))]
    assert list(reasons(dataset).values()) == ['ok', 'other label', 'duplicate']
    assert {row['path'] for row in rows(dataset).values()} == {as_named(photo(1))}
    assert done == dict(ok=1, duplicate=2, failed=0)


def test_an_address_under_two_labels_is_told(dataset, server):
    server.answers = {'/1.jpg': reply(photo(1))}
    photos = [o for label in ('Cirrus', 'Stratus', 'Ci') for o in found(server, '/1.jpg', label=label)]
    assert download(dataset, photos, limits=QUICK, progress=False) == dict(ok=1, duplicate=1, failed=0)
    told = dataset.manifest.read('SELECT asked, status, reason, path FROM photos ORDER BY id')
    place = as_named(photo(1))
    assert [tuple(o) for o in told] == [('Cirrus', 'ok', '', place), ('Stratus', 'duplicate', 'other label', place)]


def test_a_photo_goes_to_the_folder_that_stands_for_its_class(dataset, server):
    (dataset.path / 'ci').mkdir()
    server.answers = {'/1.jpg': reply(photo(1))}
    download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)
    assert files(dataset) == [as_named(photo(1), 'ci')]


def test_what_was_quarantined_does_not_come_back(dataset, server):
    server.answers = {'/1.jpg': reply(photo(1)), '/2.jpg': reply(photo(1))}
    download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)
    dataset.quarantine(as_named(photo(1)), 'no sky')
    for label in ('Cirrus', 'Stratus'):
        download(dataset, found(server, '/1.jpg', '/2.jpg', label=label), limits=QUICK, progress=False)
    assert files(dataset) == [as_named(photo(1), '.quarantine')]
    assert [row['status'] for row in dataset.manifest.read('SELECT status FROM photos ORDER BY id')] == [
        'quarantined',
        *3 * ['duplicate'],
    ]


def test_what_was_relabelled_stays_there(dataset, server):
    "Also when the row that was asked first, and would have had the photo, comes later."
    server.answers = {'/1.jpg': first(1, *reply(status='503 Busy'), then=reply(photo(1))), '/2.jpg': reply(photo(1))}
    download(dataset, found(server, '/1.jpg', '/2.jpg'), limits=QUICK, progress=False)
    dataset.relabel(as_named(photo(1)), 'Stratus')
    dataset.manifest.retry(TRANSIENT_REASONS)
    download(dataset, found(server, '/2.jpg?again'), limits=QUICK, progress=False)
    assert files(dataset) == [as_named(photo(1), 'Stratus')]
    assert [row['status'] for row in rows(dataset).values()] == ['duplicate', 'ok', 'failed']
    assert {row['path'] for row in rows(dataset).values() if row['path']} == {as_named(photo(1), 'Stratus')}


def test_what_is_ok_is_there_also_after_a_photo_was_deleted(dataset, server):
    "The row that was asked first comes when the other's file is gone."
    server.answers = {'/1.jpg': first(1, *reply(status='503 Busy'), then=reply(photo(1))), '/2.jpg': reply(photo(1))}
    download(dataset, found(server, '/1.jpg', '/2.jpg'), limits=QUICK, progress=False)
    (dataset.path / as_named(photo(1))).unlink()
    dataset.manifest.retry(TRANSIENT_REASONS)
    assert download(dataset, limits=QUICK, progress=False)['ok'] == len(files(dataset))


def test_what_may_pass_is_tried_another_day(dataset, server):
    server.answers = {'/busy.jpg': first(1, *reply(status='503 Busy'), then=reply(photo(1))), '/page.jpg': reply(HTML)}
    assert download(dataset, found(server, *server.answers), limits=QUICK, progress=False) == dict(
        ok=0, duplicate=0, failed=2
    )
    assert download(dataset, limits=QUICK, progress=False) == dict(ok=0, duplicate=0, failed=0)
    assert dataset.manifest.retry(TRANSIENT_REASONS) == 1
    assert [row['url'] for row in dataset.manifest.pending()] == [server.url('/busy.jpg')]
    assert download(dataset, limits=QUICK, progress=False) == dict(ok=1, duplicate=0, failed=0)
    assert (server.times('/busy.jpg'), server.times('/page.jpg')) == (2, 1)


# Bytes that are there, and bytes that only seem to be


def other_bytes(kind):
    "What is found where a photo was put: another photo, its beginning, or one of the same length."
    return dict(edited=photo(2), cut=photo(1)[:999], same_size=photo(1)[:-9] + bytes(9))[kind]


def kept(dataset):
    "The bytes of all files in class folders."
    return {(dataset.path / p).read_bytes() for p in files(dataset) if not p.startswith('.')}


def true(dataset):
    "Whether each row says what is there."
    for row in dataset.manifest.read("SELECT * FROM photos WHERE status IN ('ok', 'duplicate', 'quarantined')"):
        content = (dataset.path / row['path']).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row['sha256']
    ok = [row['path'] for row in dataset.manifest.read("SELECT path FROM photos WHERE status = 'ok'")]
    assert len(ok) == len(set(ok))
    return True


@pytest.mark.parametrize('kind', ['edited', 'cut', 'same_size'])
@pytest.mark.parametrize('label', ['Cirrus', 'Stratus'])
def test_what_comes_again_is_kept_beside_what_was_changed(dataset, server, kind, label):
    "Its row, and its name, still say that its bytes are there."
    server.otherwise = reply(photo(1))
    download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)
    (dataset.path / as_named(photo(1))).write_bytes(other_bytes(kind))
    done = download(dataset, found(server, '/2.jpg', label=label), limits=QUICK, progress=False)
    assert done == dict(ok=1, duplicate=0, failed=0)
    assert kept(dataset) == {photo(1), other_bytes(kind)}
    assert true(dataset)
    dataset.sync(progress=False)
    assert kept(dataset) == {photo(1), other_bytes(kind)}


def test_another_photo_with_the_same_beginning_of_its_hash_is_kept(dataset, server):
    "A file that the manifest does not know, by the name that the photo would have."
    for folder in ('Cirrus', 'Stratus'):
        (dataset.path / folder).mkdir()
        (dataset.path / as_named(photo(1), folder)).write_bytes(photo(2))
    server.otherwise = reply(photo(1))
    assert download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)['ok'] == 1
    assert sorted(files(dataset)) == sorted(
        [as_named(photo(1)), as_named(photo(1)).replace('.jpg', '-1.jpg'), as_named(photo(1), 'Stratus')]
    )
    assert kept(dataset) == {photo(1), photo(2)}
    assert true(dataset)


def test_bytes_that_the_manifest_does_not_know_are_not_stored_twice(dataset, server):
    (dataset.path / 'Cirrus').mkdir()
    (dataset.path / as_named(photo(1))).write_bytes(photo(1))
    server.otherwise = reply(photo(1))
    assert download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)['ok'] == 1
    assert files(dataset) == [as_named(photo(1))]
    assert true(dataset)


@pytest.mark.parametrize('status', ['ok', 'quarantined'])
def test_a_photo_that_was_taken_away_comes_back_to_its_row(dataset, server, status):
    "No row is the duplicate of nothing, and what was quarantined stays out of the class."
    server.otherwise = reply(photo(1))
    download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)
    if status == 'quarantined':
        dataset.quarantine(as_named(photo(1)), 'no sky')
    (place,) = files(dataset)
    (dataset.path / place).unlink()
    assert download(dataset, found(server, '/2.jpg'), limits=QUICK, progress=False)['duplicate'] == 1
    assert files(dataset) == [place]
    assert true(dataset)
    assert dataset.undo() == [as_named(photo(1))] if status == 'quarantined' else dataset.undo() == []


def test_what_is_written_is_not_written_through_a_link(dataset, server, tmp_path):
    "Places that lead out of the dataset."
    server.otherwise = reply(photo(1))
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / '1.part').write_bytes(b'mine')
    (dataset.path / '.incoming').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(BadDataset, match='is a link'):
        download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)
    (dataset.path / '.incoming').unlink()
    (dataset.path / 'Cirrus').symlink_to(tmp_path / 'elsewhere')
    download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)
    assert list(reasons(dataset).values()) == ['no class folder']
    assert [p.name for p in (tmp_path / 'elsewhere').iterdir()] == ['1.part']


@pytest.mark.parametrize('asked', ['../elsewhere', '/tmp/elsewhere', '.git', 'manifest.db', 'a/../../elsewhere', ''])
def test_what_a_manifest_asks_for_is_not_believed(dataset, server, asked, tmp_path):
    "A manifest comes with a dataset from a stranger."
    server.otherwise = reply(photo(1))
    dataset.manifest.ask([dict(url=server.url('/1.jpg'), label='Cirrus')])
    with dataset.manifest.open() as db:
        db.execute('UPDATE photos SET asked = ?', (asked,))
    download(dataset, found(server, '/2.jpg', label='Stratus'), limits=QUICK, progress=False)
    assert list(reasons(dataset).values()) == ['no class folder', 'ok']
    assert files(dataset) == [as_named(photo(1), 'Stratus')]
    assert {p.name for p in tmp_path.iterdir()} == {'data'}


@pytest.mark.parametrize('path', ['../mine.jpg', '/etc/hostname', '.incoming/../../mine.jpg'])
def test_no_row_can_make_a_photo_leave(dataset, server, tmp_path, path):
    "A row that says its photo is elsewhere, and so would have others deleted as its duplicates."
    server.otherwise = reply(photo(1))
    (tmp_path / 'mine.jpg').write_bytes(photo(1))
    dataset.manifest.ask([dict(url='http://example.org/1.jpg', label='Cirrus')])
    with dataset.manifest.open() as db:
        sha = hashlib.sha256(photo(1)).hexdigest()
        db.execute("UPDATE photos SET status = 'ok', path = ?, sha256 = ?", (path, sha))
    download(dataset, found(server, '/2.jpg'), limits=QUICK, progress=False)
    assert files(dataset) == [as_named(photo(1))]
    assert (tmp_path / 'mine.jpg').read_bytes() == photo(1)


# Interruptions


def test_in_a_loop_that_is_running(dataset, server):
    "As in a notebook."
    server.answers = {'/1.jpg': reply(photo(1))}

    async def cell():
        return download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)

    assert asyncio.run(cell()) == dict(ok=1, duplicate=0, failed=0)


RUN = """
import json, sys
from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.download import DownloadLimits, download
from cloud_classifier.data.sources import SearchResult

folder, limits, urls = json.load(sys.stdin)
photos = [SearchResult(url, label='Cirrus') for url in urls]
download(Dataset(folder), photos, limits=DownloadLimits(**limits), progress=False)
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""


def start(dataset, limits, urls):
    "A run in a process of its own, which says how much memory it took, in KiB."
    run = subprocess.Popen(
        [sys.executable, '-c', RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run.stdin.write(json.dumps([str(dataset.path), limits, urls]))
    run.stdin.close()
    run.stdin = None
    return run


@pytest.mark.usefixtures('forked')
def test_an_interruption_keeps_what_arrived_and_the_next_run_goes_on(dataset, server):
    "Meanwhile nobody else may fetch into the dataset."
    paths = [f'/{n}.jpg' for n in range(8)]
    server.answers = {path: reply(photo(n)) if n % 2 else [HANG] for n, path in enumerate(paths)}
    run = start(dataset, dict(allow_private=True, per_host=8, read=60, grace=60), [server.url(path) for path in paths])
    deadline = time.monotonic() + 30
    while dataset.manifest.counts()['status'].get('ok') != 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(BadDataset, match='another process is fetching'):
        download(dataset, found(server, '/9.jpg'), limits=QUICK, progress=False)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=10)
    assert run.returncode == -signal.SIGINT
    assert said.rstrip().endswith('KeyboardInterrupt')
    assert dataset.manifest.counts()['status'] == dict(ok=4, pending=4)
    assert files(dataset) == sorted(as_named(photo(n)) for n in (1, 3, 5, 7))
    asked = len(server.asked)
    server.answers = {path: reply(photo(n)) for n, path in enumerate(paths)}
    assert download(dataset, limits=QUICK, progress=False) == dict(ok=4, duplicate=0, failed=0)
    assert files(dataset) == sorted(as_named(photo(n)) for n in range(8))
    assert len(server.asked) - asked == 4


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_no_more(file, mode='r'):
    return no_space() if 'w' in mode else open(file, mode)


@pytest.mark.parametrize('place', ['data.download.open', 'data.download.os.fsync', 'data.dataset.move_file'])
def test_a_full_disk_loses_nothing(dataset, server, monkeypatch, place):
    "While a photo is written, while it is flushed, and while it is brought to its place."
    server.answers = {f'/{n}.jpg': reply(photo(n)) for n in range(3)}
    with monkeypatch.context() as full:
        full.setattr(f'cloud_classifier.{place}', open_no_more if place.endswith('.open') else no_space, raising=False)
        with pytest.raises(DownloadAborted, match='No space left'):
            download(dataset, found(server, *server.answers), limits=QUICK, progress=False)
    assert 'failed' not in dataset.manifest.counts()['status']
    download(dataset, limits=QUICK, progress=False)
    assert dataset.manifest.counts()['status'] == dict(ok=3)
    assert files(dataset) == sorted(as_named(photo(n)) for n in range(3))


def test_a_disk_that_fails_again_while_tidying_is_told_the_same_way(dataset, server, monkeypatch):
    "The first photo has come to its place and the second waits for it when the third can't be written."
    server.answers = {f'/{n}.jpg': slowly(photo(n), 1, 0.15 * n) for n in range(3)}
    rename, moves = move_file, []

    def rename_once(*args):
        moves.append(args)
        return rename(*args) if len(moves) == 1 else no_space()

    def open_but_third(file, mode='r'):
        return open_no_more(file, mode) if file.name == '3.part' else open(file, mode)

    with monkeypatch.context() as full:
        full.setattr('cloud_classifier.data.dataset.move_file', rename_once)
        full.setattr(module, 'open', open_but_third, raising=False)
        with pytest.raises(DownloadAborted, match='No space left'):
            download(dataset, found(server, *server.answers), limits=QUICK, progress=False)
    assert len(moves) == 2
    download(dataset, limits=QUICK, progress=False)
    assert files(dataset) == sorted(as_named(photo(n)) for n in range(3))


def test_something_in_the_way_loses_nothing(dataset, server):
    "A file where the class's folder should be, and one where photos arrive."
    server.answers = {'/1.jpg': reply(photo(1))}
    (dataset.path / '.incoming').touch()
    with pytest.raises(DownloadAborted, match='exists'):
        download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)
    (dataset.path / '.incoming').unlink()
    (dataset.path / 'Cirrus').touch()
    assert download(dataset, limits=QUICK, progress=False)['failed'] == 1
    (why,) = dataset.manifest.counts()['reasons']
    assert why == 'no class folder'
    (dataset.path / 'Cirrus').unlink()
    dataset.manifest.retry([why])
    download(dataset, limits=QUICK, progress=False)
    assert files(dataset) == [as_named(photo(1))]


def test_a_folder_that_can_not_be_written_in_is_told(dataset, server, monkeypatch):
    opened = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & os.O_CREAT and str(path).startswith(str(dataset.path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, 'open', read_only)
    with pytest.raises((BadDataset, DownloadAborted), match='Permission denied'):
        download(dataset, found(server, '/1.jpg'), limits=QUICK, progress=False)


# Always


LABELS = ['Cirrus', 'Stratus', 'Cumulus']


@given(
    pairs=st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([None, 1, 2])), min_size=1, max_size=6),
    data=st.data(),
)
@examples(30)
def test_any_order_of_arrival_ends_the_same(pairs, data):
    "In batches of any size, some of them cut off before the photos were moved."
    with TemporaryDirectory() as folder:
        dataset = Dataset(folder)
        dataset.manifest.ask(dict(url=f'http://example.org/{n}', label=label) for n, (label, _) in enumerate(pairs))
        (dataset.path / '.incoming').mkdir()
        waiting = data.draw(st.permutations(range(len(pairs))))
        while waiting:
            batch = [waiting.pop() for _ in range(data.draw(st.integers(1, len(waiting))))]
            with pytest.MonkeyPatch.context() as patch:
                if data.draw(st.booleans()):
                    patch.setattr(Manifest, 'carry_out', lambda _: None)
                store_results(dataset, [arrival(dataset, n + 1, pairs[n][1]) for n in batch])
            with dataset.exclusive_lock():
                pass
        owner = {n: min(i for i, (_, other) in enumerate(pairs) if other == n) for _, n in pairs if n}
        places = {n: as_named(photo(n), pairs[i][0]) for n, i in owner.items()}
        assert files(dataset) == sorted(places.values())
        for i, row in enumerate(rows(dataset).values()):
            label, n = pairs[i]
            ends = ('failed', 'html')
            if n:
                other = '' if label == pairs[owner[n]][0] else 'other label'
                ends = ('ok', '') if owner[n] == i else ('duplicate', other)
            assert (row['label'], row['status'], row['reason'], row['path']) == (label, *ends, places.get(n, ''))


def arrival(dataset, row, n):
    "Photo number `n` has come; a web page where it is None."
    if n is None:
        return DownloadResult(row, reason='html')
    (dataset.path / '.incoming' / f'{row}.part').write_bytes(photo(n))
    return DownloadResult(row, info=inspect_photo(photo(n)))


# Memory

LARGE = dict(
    rgba=png(7700, 7700),
    rgb=png(7700, 7700, colour=2),
    webp=webp(7700, 7700, alpha=True),
    progressive=progressive_jpeg(7700, 7700),
    beyond=png(13_300, 13_300, colour=2),
    **{f'at-once-{n}': png(4000, 4000) for n in range(6)},
)


@pytest.fixture(scope='module')
def the_worst(tmp_path_factory):
    """64 answers without end, bombs, everything above, and photos of almost as many pixels as may be, all at once and
    in a process of its own: the rows by path, how much memory it took (MiB), and what it said to the terminal."""
    dataset = Dataset(tmp_path_factory.mktemp('worst'))
    limits = dict(allow_private=True, total=250, per_host=250, max_bytes=MAX_BYTES, connect=2, read=2, grace=2)
    limits |= dict(attempts=2)
    large = {f'/large-{name}': reply(content) for name, content in LARGE.items()}
    bombs = {f'/bomb-{n}': reply(BOMB, Content_Encoding='gzip') for n in range(8)}
    with Server(ANSWERS | large | bombs, otherwise=ENDLESS) as server:
        paths = [*large, *(f'/without-end-{n}' for n in range(64)), *bombs, *(f'/{case}' for case in CASES)]
        said, complained = start(dataset, limits, [server.url(path) for path in paths]).communicate(timeout=120)
        assert server.most_open[''] > 64
        return {path: reasons(dataset)[server.url(path)] for path in paths}, int(said) / 1024, complained


def test_the_worst_at_once_fits_in_400_megabytes(the_worst):
    ended, most, _ = the_worst
    assert {ended[path] for path in ended if path.startswith(('/without-end', '/bomb-'))} == {'too many bytes'}
    assert {ended[path] for path in ended if path.startswith('/large')} <= {'ok', 'duplicate', 'too large'}
    assert most < 400  # MiB; 336 beside four other processes on two cores, less on a quiet machine


def test_nothing_is_said_of_what_the_rows_tell(the_worst):
    "No library writes warnings into the terminal."
    assert the_worst[2] == ''
