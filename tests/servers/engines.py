"Search engines in small: real servers on loopback that talk as Commons, Openverse and Bing do, and serve their photos."

import io
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from PIL import Image

TYPES = {'.jpg': 'image/jpeg', '.png': 'image/png', '.webp': 'image/webp'}
LICENCES = {  # Openverse's code: Commons' words, the version, the address
    'by-sa': ('CC BY-SA 4.0', '4.0', 'https://creativecommons.org/licenses/by-sa/4.0'),
    'by': ('CC BY 2.0', '2.0', 'https://creativecommons.org/licenses/by/2.0'),
    'cc0': ('CC0', '1.0', 'http://creativecommons.org/publicdomain/zero/1.0/deed.en'),
    'pdm': ('Public domain', '1.0', ''),
    'by-nc': ('CC BY-NC 2.0', '2.0', 'https://creativecommons.org/licenses/by-nc/2.0'),
}


@dataclass
class Photo:
    "A photo that an engine knows, and what a downloader should find when it asks for it."

    name: str
    genus: str
    data: bytes
    fate: str = 'ok'  # or 'duplicate', 'truncated', 'html'
    mime: str = 'image/jpeg'
    width: int = 4000  # as the engine tells it
    height: int = 3000
    author: str = 'Ann Ångström'  # on Commons, HTML where it has tags
    licence: str = 'by-sa'


def photos_of(folder: Path) -> list[Photo]:
    "The photos of a folder of class folders; for each class one a second time, one cut off and one that is a web page."
    found = []
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        good = [_photo(file, n, place.name) for n, file in enumerate(sorted(place.iterdir()))]
        first = good[0]
        odd = [
            Photo(f'{place.name} again.jpg', place.name, first.data, 'duplicate', first.mime),
            Photo(f'{place.name} cut off.jpg', place.name, first.data[: len(first.data) // 2], 'truncated', first.mime),
            Photo(f'{place.name} gone.jpg', place.name, b'<!DOCTYPE html><html>Gone.</html>', 'html'),
        ]
        found += good[:2] + odd + good[2:]
    return found


def _photo(file: Path, n: int, genus: str) -> Photo:
    data = file.read_bytes()
    photo = Photo(f'{genus} {n:02}{file.suffix}', genus, data, mime=TYPES[file.suffix], author=f'Ann & Bob {n}')
    photo.licence = list(LICENCES)[n % len(LICENCES)]
    if n % 3 == 2:  # some are no wider than they are
        photo.width, photo.height = Image.open(io.BytesIO(data)).size
    return photo


@dataclass
class Question:
    "What a client asked."

    path: str
    params: dict[str, str]
    headers: dict[str, str]  # names in lower case
    at: float = field(default_factory=time.monotonic)


@dataclass
class Reply:
    "What a server answers."

    body: bytes = b''
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    cut: bool = False  # whether the connection breaks in the middle of the body


def in_json(answer, status: int = 200, **headers: str) -> Reply:
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    return Reply(json.dumps(answer).encode(), status, {'Content-Type': 'application/json; charset=utf-8'} | names)


def in_html(text: str, status: int = 200) -> Reply:
    return Reply(f'<!DOCTYPE html><html><body>{text}</body></html>'.encode(), status, {'Content-Type': 'text/html'})


def busy(status: int = 503, wait: str | int | None = 0) -> Reply:
    "What a server, or the cache before it, says when it has too much to do."
    reply = in_html('Our servers are currently under maintenance.', status)
    if wait is not None:
        reply.headers['Retry-After'] = str(wait)
    return reply


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def do_GET(self):
        parts = urlsplit(self.path)
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.engine.reply(Question(unquote(parts.path), params, headers))
        self.send_response(reply.status, reply.reason)
        for name, value in ({'Content-Length': str(len(reply.body))} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) // 2] if reply.cut else reply.body)
        self.close_connection |= reply.cut

    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, engine):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.engine, self.connections, self.errors = engine, set(), []

    def get_request(self):
        connection, address = super().get_request()
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request):
        super().shutdown_request(request)
        self.connections.discard(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client may leave
            self.errors.append(sys.exception())

    def stop(self):
        "Stop, as a server that is switched off: connections that clients keep open end as well."
        self.shutdown()
        self.server_close()
        deadline = time.monotonic() + 5
        while self.connections and time.monotonic() < deadline:
            for connection in tuple(self.connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            time.sleep(0.005)


class Engine:
    "What all engines share. `with Commons(folder) as server:` starts one; what goes wrong in it is raised at the end."

    path = '/'

    def __init__(self, photos: Path | list[Photo]):
        self.photos = photos_of(photos) if isinstance(photos, Path) else photos
        self.log: list[Question] = []  # what was asked of the search
        self.downloads: list[Question] = []  # which photos were asked for
        self.instead: Iterable[Reply] = []  # what the search says before it answers
        self._lock = threading.Lock()

    def __enter__(self):
        self._server = _Server(self)
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        self.endpoint = self.url + self.path
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
        if self._server.errors:
            raise self._server.errors[0]

    def stop(self):
        "Go away. A second time does nothing."
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join()

    def reply(self, question: Question) -> Reply:
        if question.path.startswith(('/photos/', '/thumb/')):
            self.downloads.append(question)
            return self.photo(question)
        with self._lock:
            self.log.append(question)
            self.instead = iter(self.instead)
            instead = next(self.instead, None)
        return instead or self.answer(question)

    def answer(self, question: Question) -> Reply:
        raise NotImplementedError

    def photo(self, question: Question) -> Reply:
        name = question.path.split('/')[2]
        found = next((p for p in self.photos if p.name == name), None)
        return Reply(found.data, headers={'Content-Type': found.mime}) if found else in_html('Not found', 404)

    def address(self, photo: Photo) -> str:
        return f'{self.url}/photos/{quote(photo.name)}'

    def page(self, photo: Photo) -> str:
        return f'{self.url}/wiki/{quote("File:" + photo.name)}'

    def matching(self, words: str) -> list[Photo]:
        "The photos whose names and genera have all the words."
        return [p for p in self.photos if all(w in f'{p.name} {p.genus} clouds'.lower() for w in words.lower().split())]


WIDTHS = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)  # $wgThumbnailSteps of Wikimedia


def mediawiki_error(code: str, info: str, wait: str | int | None = None) -> Reply:
    "MediaWiki's errors come with the status 200."
    reply = in_json({'error': {'code': code, 'info': info, 'docref': 'See …'}, 'servedby': 'mw-api-ext'})
    reply.headers['MediaWiki-API-Error'] = code
    if wait is not None:
        reply.headers['Retry-After'] = str(wait)
    return reply


def maxlag(wait: str | int | None = 0) -> Reply:
    return mediawiki_error('maxlag', 'Waiting for db1234: 5.2 seconds lagged.', wait)


def ratelimited(wait: str | int | None = 0) -> Reply:
    return mediawiki_error('ratelimited', "You've exceeded your rate limit. Please wait some time and try again.", wait)


class Commons(Engine):
    """A MediaWiki with a category for each genus: half of its photos in it, a quarter two levels below, the rest found
    by searching alone. There are categories of other things besides, circles, and files that are no photos."""

    path = '/w/api.php'

    def __init__(
        self,
        photos: Path | list[Photo],
        batch: int = 500,  # the most members in one answer
        transforms: int = 50,  # the most thumbnails in one answer (TRANSFORM_LIMIT in ApiQueryImageInfo.php)
    ):
        super().__init__(photos)
        self.batch, self.transforms = batch, transforms
        self.categories: dict[str, list[str]] = {}  # title of a category: titles of its members
        self.hidden: set[str] = set()  # titles of files that were deleted
        self.others: list[Photo] = []  # files that are no photos
        genera = sorted({p.genus for p in self.photos})
        for genus, other in zip(genera, genera[1:] + genera[:1], strict=True):
            self._build(genus, other)

    def _build(self, genus: str, other: str):
        files = [f'File:{p.name}' for p in self.photos if p.genus == genus]
        half, quarter = len(files) // 2, len(files) * 3 // 4
        for ending, mime in (('svg', 'image/svg+xml'), ('ogv', 'application/ogg'), ('pdf', 'application/pdf')):
            self.others.append(Photo(f'{genus} explained.{ending}', genus, b'', mime=mime))
        deleted = Photo(f'{genus} deleted.jpg', genus, b'')
        self.others.append(deleted)
        self.hidden.add(f'File:{deleted.name}')
        top, places, place = f'{genus} clouds', f'{genus} clouds by country', f'{genus} clouds in Finland'
        both, satellites = f'{genus} and {other} clouds', f'Satellite pictures of {genus} clouds'
        others = [f'File:{p.name}' for p in self.others if p.genus == genus]
        foreign = [f'File:{p.name}' for p in self.photos if p.genus == other]
        self._add(top, *files[:half], *others, *(f'Category:{name}' for name in (both, satellites, places)))
        self._add(places, f'Category:{place}')
        self._add(place, files[0], *files[half:quarter], f'Category:{top}', f'Category:{places}')
        self._add(both, *foreign[:2])
        self._add(satellites, *foreign[2:3])

    def _add(self, name: str, *members: str):
        self.categories[f'Category:{name}'] = list(members)

    def file(self, title: str) -> Photo:
        return next(p for p in self.photos + self.others if f'File:{p.name}' == title)

    def reply(self, question: Question) -> Reply:
        reply = super().reply(question)
        if not re.search(r'\(.*(@|://).*\)', question.headers.get('user-agent', '')):
            text = b'Please set a user-agent and respect our robot policy https://w.wiki/4wJS. See also T400119.\n'
            return Reply(text, 403, {'Content-Type': 'text/plain'})
        return reply

    def photo(self, question: Question) -> Reply:
        if question.path.startswith('/thumb/'):
            width = int(question.path.split('/')[3].partition('px-')[0])
            if width not in WIDTHS:
                return in_html('Use thumbnail sizes listed on https://w.wiki/GHai', 400)
        return super().photo(question)

    def answer(self, question: Question) -> Reply:
        p = question.params
        asked = p.get('action'), p.get('format'), p.get('formatversion'), question.path
        if asked != ('query', 'json', '2', self.path):
            return mediawiki_error('badvalue', f'Not spoken here: {asked}.')
        if p.get('list') == 'categorymembers':
            return self._list(p)
        if 'generator' in p:
            return self._generate(p)
        return in_json({'batchcomplete': True, 'query': {'pages': [self._about(t) for t in p['titles'].split('|')]}})

    def _about(self, title: str) -> dict:
        if title not in self.categories:
            return {'ns': 14, 'title': title, 'missing': True}
        kinds = [member.partition(':')[0] for member in self.categories[title]]
        counts = {'size': len(kinds), 'pages': 0, 'files': kinds.count('File'), 'subcats': kinds.count('Category')}
        return {'pageid': _id(title), 'ns': 14, 'title': title, 'categoryinfo': counts | {'hidden': False}}

    def _members(self, p: dict, prefix: str) -> tuple[list[str], dict]:
        kinds = p.get(f'{prefix}type', 'page|subcat|file').replace('subcat', 'Category').replace('file', 'File')
        found = [t for t in self.categories.get(p[f'{prefix}title'], []) if t.partition(':')[0] in kinds.split('|')]
        start = int(p.get(f'{prefix}continue', '||0').rpartition('|')[2])
        end = start + self._limit(p.get(f'{prefix}limit', '10'))
        return found[start:end], {f'{prefix}continue': f'x|{"f" * 12}|{end}'} if end < len(found) else {}

    def _limit(self, limit: str) -> int:
        return min(self.batch, 500 if limit == 'max' else int(limit), 500)

    def _list(self, p: dict) -> Reply:
        titles, more = self._members(p, 'cm')
        answer = {'query': {'categorymembers': [{'pageid': _id(t), 'ns': _space(t), 'title': t} for t in titles]}}
        return in_json(answer | ({'continue': more | {'continue': '-||'}} if more else {'batchcomplete': True}))

    def _generate(self, p: dict) -> Reply:
        titles, more = self._members(p, 'gcm') if p['generator'] == 'categorymembers' else self._found(p)
        if more:
            more['continue'] = f'{next(iter(more))}||'
        first = p.get('iicontinue', '').partition('|')[0]
        wanted = sorted(t for t in titles if t >= first)
        if len(wanted) > self.transforms:
            more = {'iicontinue': f'{wanted[self.transforms]}|20240101000000', 'continue': '||'}
        pages = [{'pageid': _id(t), 'ns': 6, 'title': t, 'imagerepository': 'local'} for t in titles]
        for page in pages:
            if page['title'] in wanted[: self.transforms]:
                page['imageinfo'] = [self._info(page['title'], p)]
        answer = {'query': {'pages': pages}} if pages else {}
        done = {} if 'iicontinue' in more else {'batchcomplete': True}
        return in_json(done | ({'continue': more} if more else {}) | answer)

    def _found(self, p: dict) -> tuple[list[str], dict]:
        words = p['gsrsearch'].replace('filetype:bitmap', '')
        titles = [f'File:{photo.name}' for photo in self.matching(words)] if p.get('gsrnamespace') == '6' else []
        start = int(p.get('gsroffset', 0))
        end = start + self._limit(p.get('gsrlimit', '10'))
        return titles[start:end], {'gsroffset': end} if end < len(titles) else {}

    def _info(self, title: str, p: dict) -> dict:
        if title in self.hidden:
            return {'filehidden': True}
        photo, wanted, info = self.file(title), p.get('iiprop', 'timestamp|user').split('|'), {}
        if 'url' in wanted:
            info |= self._thumb(photo, int(p.get('iiurlwidth', -1)))
            info |= {'url': self.address(photo), 'descriptionurl': self.page(photo)}
        if 'mime' in wanted:
            info['mime'] = photo.mime
        if 'extmetadata' in wanted:
            said = self._said(photo)
            kept = p.get('iiextmetadatafilter', '|'.join(said)).split('|')
            info['extmetadata'] = {k: {'value': said[k], 'source': 'commons-desc-page'} for k in said if k in kept}
        return info

    def _thumb(self, photo: Photo, width: int) -> dict:
        if width == -1:
            return {}
        if width >= photo.width:
            return {'thumburl': self.address(photo), 'thumbwidth': photo.width, 'thumbheight': photo.height}
        if width not in WIDTHS:
            return {'thumberror': 'Error creating thumbnail: not a standard size'}
        return {'thumburl': self.thumb(photo, width), 'thumbwidth': width, 'thumbheight': width * 3 // 4}

    def thumb(self, photo: Photo, width: int) -> str:
        "Where a smaller copy is: an address that nobody would guess."
        name = quote(photo.name)
        return f'{self.url}/thumb/{name}/{width}px-{name}?utm_source=commons&_={_id(photo.name):x}'

    def _said(self, photo: Photo) -> dict[str, str]:
        name, _, url = LICENCES[photo.licence]
        author = photo.author
        if '<' not in author:
            author = f'<a href="//commons.wikimedia.org/wiki/User:Ann" title="User:Ann">{escape(author)}</a>\n<br>'
        said = {
            'DateTime': '2024-01-01 00:00:00',
            'ObjectName': f'<b>{photo.name.rpartition(".")[0]}</b>\n  as seen',
            'Artist': author,
            'LicenseShortName': name,
        }
        return said | ({'LicenseUrl': url} if url else {})


def _id(title: str) -> int:
    return int.from_bytes(title.encode()) % 100_000_007


def _space(title: str) -> int:
    return {'Category': 14, 'File': 6}[title.partition(':')[0]]


class Openverse(Engine):
    "Openverse for those who have no key: 20 results a page, no page after the 20th, `depth` results in all."

    path = '/v1/images/'
    PAGE, PAGES = 20, 20

    def __init__(self, photos: Path | list[Photo], depth: int = 240):
        super().__init__(photos)
        self.depth = depth

    def answer(self, question: Question) -> Reply:
        p = question.params
        page, size = int(p.get('page', 1)), int(p.get('page_size', self.PAGE))
        licences = p['license'].split(',') if 'license' in p else list(LICENCES)
        if question.path != self.path:
            return in_json({'detail': 'Not found.'}, 404)
        if size > self.PAGE:
            return in_json({'detail': f'page_size may not exceed {self.PAGE} for anonymous requests.'}, 401)
        if page > self.PAGES:
            return in_json({'detail': {'page': [f'Ensure this value is less than or equal to {self.PAGES}.']}}, 400)
        if wrong := [code for code in licences if code not in LICENCES]:
            return in_json({'detail': {'license': [f"License '{wrong[0]}' does not exist."]}}, 400)
        found = [photo for photo in self.matching(p.get('q', '')) if photo.licence in licences][: self.depth]
        answer = {
            'result_count': len(found),
            'page_count': min(-(-len(found) // size), self.PAGES),
            'page_size': size,
            'page': page,
            'results': [self._result(photo) for photo in found[(page - 1) * size : page * size]],
        }
        return in_json(answer)

    def _result(self, photo: Photo) -> dict:
        _, version, url = LICENCES[photo.licence]
        return {
            'id': f'{_id(photo.name):032x}',
            'title': photo.name.rpartition('.')[0],
            'foreign_landing_url': self.page(photo),
            'url': self.address(photo),
            'creator': photo.author,
            'creator_url': None,
            'license': photo.licence,
            'license_version': version,
            'license_url': url or None,
            'provider': 'flickr',
            'source': 'flickr',
            'category': None,
            'filesize': None,
            'filetype': 'jpg',
            'tags': [],
            'mature': False,
            'height': photo.height,
            'width': photo.width,
            'thumbnail': f'{self.url}/v1/images/{_id(photo.name)}/thumb/',
        }


def throttled(wait: str | int = 0) -> Reply:
    detail = f'Request was throttled. Expected available in {wait} seconds.'
    return in_json({'detail': detail}, 429, Retry_After=str(wait))


class Bing(Engine):
    "A server that Bing's own client can talk to. Whoever comes with a wrong key is told which."

    path = ''  # the client adds its own
    SEARCH = '/bing/v7.0/images/search'
    HEADER = 'ocp-apim-subscription-key'

    def __init__(self, photos: Path | list[Photo], key: str = '0123456789abcdef0123456789abcdef', batch: int = 150):
        super().__init__(photos)
        self.key, self.batch = key, batch

    def answer(self, question: Question) -> Reply:
        p, key = question.params, question.headers.get(self.HEADER)
        if question.path != self.SEARCH:
            return in_json({'error': {'code': '404', 'message': 'Resource not found'}}, 404)
        if key != self.key:
            details = f'Subscription key {key} is not recognized.'
            return self.error(401, 'InvalidAuthorization', 'AuthorizationMissing', moreDetails=details, value=key)
        if not p.get('q'):
            return self.error(400, 'InvalidRequest', 'ParameterMissing', parameter='q')
        found, start = self.matching(p['q']), int(p.get('offset', 0))
        end = min(start + min(int(p.get('count', 35)), self.batch), len(found))
        answer = {
            '_type': 'Images',
            'instrumentation': {'_type': 'ResponseInstrumentation'},
            'readLink': f'images/search?q={quote(p["q"])}',
            'webSearchUrl': f'https://www.bing.com/images/search?q={quote(p["q"])}&FORM=OIIARP',
            'totalEstimatedMatches': len(found),
            'nextOffset': end,
            'currentOffset': start,
            'value': [self._result(photo) for photo in found[start:end]],
        }
        return in_json(answer)

    def error(self, status: int, code: str, sub_code: str, **more: str) -> Reply:
        error = {'code': code, 'subCode': sub_code, 'message': f'{code}: {more}'} | more
        return in_json({'_type': 'ErrorResponse', 'errors': [error]}, status)

    def _result(self, photo: Photo) -> dict:
        return {
            'webSearchUrl': 'https://www.bing.com/images/search?view=detailv2&FORM=OIIRPO',
            'name': photo.name.rpartition('.')[0],
            'thumbnailUrl': 'https://tse1.mm.bing.net/th?id=OIP.x',
            'datePublished': '2024-01-01T00:00:00.0000000Z',
            'isFamilyFriendly': True,
            'contentUrl': self.address(photo),
            'hostPageUrl': self.page(photo),
            'contentSize': f'{len(photo.data)} B',
            'encodingFormat': 'jpeg',
            'hostPageDisplayUrl': self.page(photo),
            'width': photo.width,
            'height': photo.height,
            'thumbnail': {'width': 474, 'height': 355},
            'imageInsightsToken': 'ccid_x*mid_x*simid_x',
            'insightsMetadata': {'pagesIncludingCount': 1, 'availableSizesCount': 1},
            'imageId': f'{_id(photo.name):040X}',
            'accentColor': '6E5D4B',
        }
