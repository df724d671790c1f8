"A web server on loopback that does what it is told, and the worst that a photo's address can do."

import asyncio
import io
import itertools
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from socket import SO_LINGER, SOL_SOCKET

from PIL import Image

from cloud_classifier.samples import render_sky

# An answer is made of steps: bytes are sent, a number is a pause in seconds, and one of these.
HANG = object()  # say nothing more, until the other side leaves
RESET = object()  # break the connection off
KEEP = object()  # wait for another request on the same connection, which is closed otherwise


@dataclass(frozen=True)
class Asked:
    "A request."

    path: str  # as it was sent
    host: str  # the address it came to
    n: int  # how often the path had been asked for before
    headers: dict[str, str] = field(repr=False)  # names in lower case
    at: float = field(default_factory=time.monotonic)
    clock: float = field(default_factory=time.time)


class Server:
    "A server in a thread of its own, on some of the addresses of loopback."

    def __init__(self, answers: dict, hosts: Iterable[str] = ('127.0.0.1',), otherwise=None, tls=None):
        self.answers, self.hosts, self.tls = answers, list(hosts), tls  # steps by path, or a function of the request
        self.otherwise = otherwise or reply(status='404 Not Found')
        self.asked: list[Asked] = []
        self.open, self.most_open = Counter(), Counter()  # requests at a time: by host, and under '' of all

    def __enter__(self) -> 'Server':
        ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(ready),))
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()

    def url(self, path: str, host: str = '127.0.0.1') -> str:
        return f'http{"s" if self.tls else ""}://{host}:{self.port}{path}'

    def times(self, path: str) -> int:
        "How often a path was asked for."
        return sum(o.path == path for o in self.asked)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._leave, self._tasks, self.port = asyncio.get_running_loop(), asyncio.Event(), set(), 0
        servers = []
        for host in self.hosts:
            servers.append(await asyncio.start_server(self._connection, host, self.port, ssl=self.tls, backlog=500))
            self.port = servers[0].sockets[0].getsockname()[1]
        ready.set()
        with suppress(TimeoutError):  # no test waits for ever
            await asyncio.wait_for(self._leave.wait(), 300)
        for server in servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _connection(self, reader, writer) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        self._tasks.discard(task)
        writer.close()

    async def _answer(self, reader, writer) -> bool:
        "Answer a request; whether the connection is kept."
        line, *lines = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1').split('\r\n')
        path, host = line.split(' ')[1], writer.get_extra_info('sockname')[0]
        headers = {name.lower(): value.strip() for name, _, value in (o.partition(':') for o in lines if o)}
        asked = Asked(path, host, self.times(path), headers)
        self.asked.append(asked)
        for who in (host, ''):
            self.open[who] += 1
            self.most_open[who] = max(self.most_open[who], self.open[who])
        try:
            answer = self.answers.get(path, self.otherwise)
            for step in answer(asked) if callable(answer) else answer:
                if step is KEEP:
                    return True
                await self._take(step, reader, writer)
            return False
        finally:
            self.open.subtract((host, ''))

    async def _take(self, step, reader, writer) -> None:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif step is HANG:
            await reader.read()
        elif step is RESET:
            writer.get_extra_info('socket').setsockopt(SOL_SOCKET, SO_LINGER, struct.pack('ii', 1, 0))
            writer.transport.abort()
        else:
            await asyncio.sleep(step)


def head(length: int | None, status: str = '200 OK', **fields) -> bytes:
    "The beginning of an answer; `Content_Type='text/html'` becomes a header."
    lines = [f'HTTP/1.1 {status}', *([] if length is None else [f'Content-Length: {length}'])]
    fields = {'Connection': 'close'} | fields
    lines += [f'{name.replace("_", "-")}: {value}' for name, value in fields.items()]
    return '\r\n'.join([*lines, '', '']).encode()


def reply(body: bytes = b'', status: str = '200 OK', **fields) -> list:
    "A whole answer."
    return [head(len(body), status, **fields), body]


def moved(target: str) -> list:
    "A redirect."
    return reply(status='302 Found', Location=target)


def first(times: int, *steps, then: list) -> Callable:
    "Something else the first few times."
    return lambda asked: steps if asked.n < times else then


def for_ever(*steps, begin: bytes = b'') -> Callable:
    "The same again and again."
    return lambda asked: itertools.chain([begin], itertools.cycle(steps))


def slowly(body: bytes, pieces: int, pause: float) -> list:
    "A whole answer, in pieces."
    size = -(-len(body) // pieces)
    return [head(len(body)), *(o for i in range(0, len(body), size) for o in (pause, body[i : i + size]))]


def stored(image: Image.Image, format: str = 'JPEG', **how) -> bytes:
    "The bytes of `image` as a file."
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


@cache
def photo(n: int, format: str = 'JPEG', size: int = 160) -> bytes:
    "A photo, another for each `n`."
    return stored(render_sky('Cumulus', size, seed=n), format)


def frames(format: str) -> bytes:
    "An animation."
    skies = [render_sky('Cumulus', 160, seed=n) for n in (1, 2)]
    return stored(skies[0], format, save_all=True, append_images=skies[1:])


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))


def png(width: int, height: int, colour: int = 6, rows: int | None = None) -> bytes:
    "A black PNG of any size (colour 6: RGBA, 2: RGB), and of fewer rows than it says where `rows` is given."
    row = bytes(1 + width * {6: 4, 2: 3}[colour])
    squeeze = zlib.compressobj(9)
    begin = squeeze.compress(row) + squeeze.flush(zlib.Z_FULL_FLUSH)
    again = squeeze.compress(row) + squeeze.flush(zlib.Z_FULL_FLUSH)  # the same for each further row
    rows, check = height if rows is None else rows, 1
    for _ in range(rows):
        check = zlib.adler32(row, check)
    content = begin + again * (rows - 1) + b'\x01\x00\x00\xff\xff' + struct.pack('>I', check)
    size = struct.pack('>IIBBBBB', width, height, 8, colour, 0, 0, 0)
    chunks = _png_chunk(b'IHDR', size) + _png_chunk(b'IDAT', content) + _png_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + chunks


def webp(width: int, height: int, alpha: bool = False) -> bytes:
    "A WebP of one colour, which takes 38 bytes whatever its size."
    small = stored(
        Image.new('RGBA' if alpha else 'RGB', (16, 16), (9, 9, 9, 99)[: 4 if alpha else 3]), 'WEBP', lossless=True
    )
    at = small.index(b'VP8L') + 9
    bits = (width - 1) | (height - 1) << 14 | int.from_bytes(small[at : at + 4], 'little') >> 28 << 28
    return small[:at] + bits.to_bytes(4, 'little') + small[at + 4 :]


def progressive_jpeg(width: int, height: int) -> bytes:
    "A grey JPEG in full colour resolution, which a decoder must hold in memory as a whole."

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack('>BBH', 0xFF, marker, len(content) + 2) + content

    blocks = 3 * -(-width // 8) * -(-height // 8)
    frame = struct.pack('>BHHB', 8, height, width, 3) + b''.join(bytes((i, 0x11, 0)) for i in (1, 2, 3))
    return b''.join(
        (
            b'\xff\xd8',
            segment(0xDB, b'\0' + b'\x10' * 64),
            segment(0xC2, frame),
            segment(0xC4, b'\0' + bytes((1, *(15 * [0]))) + b'\0'),  # one code, '0', which says: as the block before
            segment(0xDA, b'\x03' + b''.join(bytes((i, 0)) for i in (1, 2, 3)) + b'\0\0\0'),
            bytes(-(-blocks // 8)),
            b'\xff\xd9',
        )
    )


def squeezed(body: bytes, wbits: int = 31) -> bytes:
    "The bytes in gzip (wbits 31), zlib (15) or bare deflate (-15)."
    squeeze = zlib.compressobj(9, wbits=wbits)
    return squeeze.compress(body) + squeeze.flush()


def chunked(body: bytes) -> list:
    "A body in chunks."
    pieces = [body[i : i + 65536] for i in range(0, len(body), 65536)]
    return [b'%x\r\n%b\r\n' % (len(piece), piece) for piece in (*pieces, b'')]


def _zeros(n: int) -> bytes:
    "A piece of a deflate stream that can be repeated."
    squeeze = zlib.compressobj(9, wbits=-15)
    return squeeze.compress(bytes(n)) + squeeze.flush(zlib.Z_FULL_FLUSH)


GZIP_HEADER = b'\x1f\x8b\x08' + bytes(7)
EMPTY_BLOCK = b'\0\0\0\xff\xff'  # which unpacks to nothing
EMPTY_MEGABYTE = _zeros(1 << 20)
BOMB = GZIP_HEADER + EMPTY_MEGABYTE * 1900  # two gigabytes, in less than `MAX_BYTES`


HTML = b'<!DOCTYPE html><html><head><title>Sign in</title></head><body>to see this photo</body></html>'
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="400" height="400"><circle r="200"/></svg>'
SKY = render_sky('Cumulus', 160, seed=3)
JPEG, PNG = photo(1), photo(1, 'PNG')
HALF = len(JPEG) // 2
CHUNKED = head(None, Transfer_Encoding='chunked')
GZIP = head(None, Content_Encoding='gzip')
ENDLESS = for_ever(bytes(65536), begin=head(None))

MAX_BYTES = 2_000_000

# What becomes of an address, by what its server does; '' where the photo is taken. `test_download.LIMITS` go with it.
CASES = {
    # silent, or slow without end
    'silent': ([HANG], 'timeout'),
    'silent-after-the-headers': ([head(1000), HANG], 'timeout'),
    'silent-in-mid-body': ([head(len(JPEG)), JPEG[:HALF], HANG], 'timeout'),
    'a-byte-now-and-then': (for_ever(b'x', 0.2, begin=head(1000)), 'timeout'),
    'a-byte-of-a-header-now-and-then': (for_ever(b'x', 0.2, begin=b'HTTP/1.1 200 OK\r\nX: '), 'timeout'),
    'continue-for-ever': (for_ever(b'HTTP/1.1 100 Continue\r\n\r\n', 0.2), 'timeout'),
    'slow-but-it-comes': (slowly(photo(10), 4, 0.2), ''),
    # without end
    'endless-body': (ENDLESS, 'too many bytes'),
    'endless-chunks': (for_ever(b'10000\r\n' + bytes(65536) + b'\r\n', begin=CHUNKED), 'too many bytes'),
    'endless-gzip': (for_ever(EMPTY_MEGABYTE, begin=GZIP + GZIP_HEADER), 'too many bytes'),
    'endless-headers': (for_ever(b'X-Sky: blue\r\n' * 1000, begin=b'HTTP/1.1 200 OK\r\n'), 'odd answer'),
    'endless-header': (for_ever(b'x' * 65536, begin=b'HTTP/1.1 200 OK\r\nX: '), 'odd answer'),
    'giant-header': (reply(JPEG, X_Sky='blue' * 50_000), 'odd answer'),
    'said-to-be-too-long': ([head(10**15), HANG], 'too many bytes'),
    'too-long': (reply(bytes(MAX_BYTES + 1)), 'too many bytes'),
    'too-long-but-does-not-say': ([head(None), bytes(MAX_BYTES + 1)], 'too many bytes'),
    'as-long-as-may-be': (reply(photo(11) + bytes(MAX_BYTES - len(photo(11)))), ''),
    # lengths that are wrong
    'shorter-than-said': ([head(len(JPEG) + 1), JPEG], 'broken off'),
    'longer-than-said': ([head(HALF), JPEG[:HALF], 0.2, JPEG[HALF:]], 'truncated'),
    'longer-than-said-at-once': ([head(HALF) + JPEG], 'odd answer'),
    'of-no-said-length': ([head(None), photo(12)], ''),
    'length-below-zero': ([head(-5), JPEG], 'odd answer'),
    'length-of-letters': ([head('many'), JPEG], 'odd answer'),
    'chunks-that-are-none': ([CHUNKED + b'sky'], 'odd answer'),
    # aiohttp 3.14 closes the connection and goes on waiting: the deadline ends it.
    'chunks-that-go-wrong': ([CHUNKED, b'3\r\nsky\r\n', 0.2, b'sky\r\n', HANG], 'timeout'),
    'chunks-that-do-not-end': ([CHUNKED, b'ffffff\r\n', JPEG], 'broken off'),
    'no-bytes': (reply(b''), 'empty'),
    'no-bytes-and-no-length': ([head(None)], 'empty'),
    # broken off
    'closed-before-a-byte': ([], 'broken off'),
    'reset-before-a-byte': ([RESET], 'broken off'),
    'reset-in-mid-body': ([head(len(JPEG)), JPEG[:HALF], 0.1, RESET], 'broken off'),
    'closed-in-mid-body': ([head(len(JPEG)), JPEG[:HALF]], 'broken off'),
    # packed
    'gzip': (reply(squeezed(photo(13)), Content_Encoding='gzip'), ''),
    'gzip-in-capitals': (reply(squeezed(photo(14)), Content_Encoding='GZip'), ''),
    'gzip-in-two-members': (
        reply(squeezed(photo(15)[:999]) + squeezed(photo(15)[999:]), Content_Encoding='gzip'),
        '',
    ),
    'deflate': (reply(squeezed(photo(16), 15), Content_Encoding='deflate'), ''),
    'gzip-bomb': (reply(BOMB, Content_Encoding='gzip'), 'too many bytes'),
    'gzip-bomb-in-chunks': (
        [CHUNKED.replace(b'\r\n', b'\r\nContent-Encoding: gzip\r\n', 1), *chunked(BOMB)],
        'too many bytes',
    ),
    'gzip-that-is-none': (reply(JPEG, Content_Encoding='gzip'), 'broken off'),
    'gzip-cut-off': (reply(squeezed(JPEG)[:-999], Content_Encoding='gzip'), 'truncated'),
    'gzip-of-nothing-without-end': (for_ever(EMPTY_BLOCK * 10_000, begin=GZIP + GZIP_HEADER), 'too many bytes'),
    'gzip-and-then-without-end': (for_ever(bytes(65536), begin=GZIP + squeezed(JPEG)), 'too many bytes'),
    'unknown-packing': (reply(JPEG, Content_Encoding='br'), 'odd answer'),
    # no HTTP, and statuses
    'ssh': ([b'SSH-2.0-OpenSSH_9.6\r\n', HANG], 'odd answer'),
    'a-photo-and-nothing-else': ([JPEG], 'odd answer'),
    'another-protocol': (
        [b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: sky\r\nConnection: upgrade\r\n\r\n', HANG],
        'odd answer',
    ),
    **{f'status-{s}': (reply(photo(2), f'{s} Sky'), 'odd answer') for s in (204, 206, 300, 304, 400, 418)},
    **{f'status-{s}': (reply(photo(2), f'{s} Sky'), 'not found') for s in (404, 410)},
    **{f'status-{s}': (reply(photo(2), f'{s} Sky'), 'not allowed') for s in (401, 402, 403, 451)},
    **{f'status-{s}': (reply(photo(2), f'{s} Sky'), 'server error') for s in (500, 503, 599)},
    'busy-twice': (first(2, *reply(status='503 Busy'), then=reply(photo(17))), ''),
    'busy-for-ever': (reply(status='429 Slow Down'), 'too many requests'),
    # redirects
    'redirect-loop': (moved('/redirect-loop'), 'too many redirects'),
    'five-redirects': (moved('/hop-4'), ''),
    'six-redirects': (moved('/hop-5'), 'too many redirects'),
    'redirect-to-metadata': (moved('http://169.254.169.254/latest/meta-data/'), 'forbidden address'),
    'redirect-to-multicast': (moved('http://224.0.0.1/'), 'forbidden address'),
    'redirect-to-a-file': (moved('file:///etc/passwd'), 'bad address'),
    'redirect-to-ftp': (moved('ftp://127.0.0.1/1.jpg'), 'bad address'),
    'redirect-to-a-script': (moved('javascript:alert(1)'), 'bad address'),
    'redirect-to-data': (moved('data:image/gif;base64,R0lGODlhAQABAAAAACw='), 'bad address'),
    'redirect-to-no-address': (moved('http://[::1'), 'bad address'),
    'redirect-to-no-host': (moved('http://a..b/'), 'bad address'),
    'redirect-to-nowhere': (moved('http://nowhere.invalid/'), 'no connection'),
    'redirect-without-an-address': (reply(status='302 Found'), 'odd answer'),
    # what is no photo
    'page.jpg': (reply(HTML, Content_Type='image/jpeg'), 'html'),
    'page-that-begins-late.jpg': (reply(b'\xef\xbb\xbf' + b'\n' * 999 + HTML), 'html'),
    'photo.html': (reply(photo(18), Content_Type='text/html'), ''),
    'photo-without-a-type': (reply(photo(19)), ''),
    'photo-that-speaks-of-pages.jpg': (reply(stored(SKY, comment=b'<html> and <svg >')), ''),
    'drawing.svg': (reply(SVG, Content_Type='image/svg+xml'), 'svg'),
    'drawing.png': (reply(SVG, Content_Type='image/png'), 'svg'),
    'letters.jpg': (reply(b'no photo'), 'not an image'),
    'document.jpg': (reply(b'%PDF-1.7\n' + bytes(5000)), 'not an image'),
    'truncated.jpg': (reply(JPEG[:HALF]), 'truncated'),
    'truncated.png': (reply(PNG[: len(PNG) // 2]), 'truncated'),
    'truncated.webp': (reply(photo(1, 'WEBP')[:-1000]), 'truncated'),
    'beginning.jpg': (reply(JPEG[:400]), 'truncated'),
    'damaged.png': (reply(PNG[:5000] + b'sky' + PNG[5003:]), 'truncated'),
    'moving.gif': (reply(frames('GIF')), 'animated'),
    'moving.webp': (reply(frames('WEBP')), 'animated'),
    'moving.png': (reply(frames('PNG')), 'animated'),
    'still.gif': (reply(photo(20, 'GIF')), ''),
    'still.webp': (reply(photo(21, 'WEBP')), ''),
    'still.png': (reply(photo(22, 'PNG')), ''),
    'pixel.gif': (reply(stored(Image.new('P', (1, 1)), 'GIF')), 'tracker'),
    'two-pixels.png': (reply(stored(Image.new('RGBA', (2, 2)), 'PNG')), 'tracker'),
    'strip.png': (reply(stored(Image.new('RGB', (600, 1)), 'PNG')), 'too small'),
    'a-pixel-too-few.jpg': (reply(photo(1, size=127)), 'too small'),
    'as-few-pixels-as-may-be.jpg': (reply(photo(23, size=128)), ''),
    'a-row-too-many.png': (reply(png(7746, 7747, rows=1)), 'too large'),
    'a-hundred-million-pixels.png': (reply(png(10_000, 10_000, rows=1)), 'too large'),
    'bomb.png': (reply(png(30_000, 30_000, rows=1)), 'too large'),
    'bomb.webp': (reply(webp(16_383, 16_383)), 'too large'),
    'bomb.jpg': (reply(progressive_jpeg(8, 8).replace(b'\0\x08\0\x08', b'\xff\xff\xff\xff', 1)), 'too large'),
}
HOPS = {'/hop-0': reply(photo(24)), **{f'/hop-{n}': moved(f'/hop-{n - 1}') for n in range(1, 6)}}
ANSWERS = {f'/{name}': answer for name, (answer, _) in CASES.items()} | HOPS
