"""Times the downloader beside fastai's download_images, in one run and by turns (A B A B), and records medians.

    python benchmarks/bench_download.py [--photos FOLDER] [--urls 2000] [--hosts 50] [--repeats 3]

A server in a process of its own answers on many loopback addresses (127.0.1.x, Linux) after 50 to 250 ms; of its
addresses 5 % are not there and 5 % are web pages under a .jpg name. Without --photos it serves rendered skies.
Writes benchmarks/results/download.csv. Ratios hold on other machines, seconds do not.
"""

import argparse
import asyncio
import csv
import multiprocessing
import os
import platform
import random
import shlex
import sys
import tempfile
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

HERE = Path(__file__).parent


def fate(number):
    "Seconds until the server answers, and what with: the same for every run."
    chance = random.Random(number)
    seconds, lot = chance.uniform(0.05, 0.25), chance.random()
    return seconds, 'missing' if lot < 0.05 else 'page' if lot < 0.10 else 'photo'


def serve(files, port):
    "Answer GET /img/<number>.jpg for ever."
    photos = [Path(file).read_bytes() for file in files]

    async def answer(reader, writer):
        try:
            while request := await reader.readuntil(b'\r\n\r\n'):
                number = int(request.split(b' ', 2)[1].rsplit(b'/', 1)[1].split(b'.')[0])
                seconds, kind = fate(number)
                await asyncio.sleep(seconds)
                status = b'404 Not Found' if kind == 'missing' else b'200 OK'
                # Each photo's bytes are its own: a comment with its number stands behind the end of the picture.
                photo = photos[number % len(photos)] + number.to_bytes(4, 'big')
                body = {'missing': b'', 'page': b'<html>nope</html>', 'photo': photo}[kind]
                writer.write(b'HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n' % (status, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def forever():
        async with await asyncio.start_server(answer, '0.0.0.0', port.value, backlog=1000) as server:
            port.value = server.sockets[0].getsockname()[1]
            await server.serve_forever()

    asyncio.run(forever())


def ours(urls, folder):
    "Photos that were kept, and the addresses that were named as bad."
    from cloud_classifier.data.dataset import Dataset
    from cloud_classifier.data.download import DownloadLimits, download
    from cloud_classifier.data.sources import SearchResult

    dataset = Dataset(folder)
    download(dataset, (SearchResult(url, label='Cirrus') for url in urls), limits=DownloadLimits(allow_private=True))
    counts = dataset.manifest.counts()
    return counts['classes'].get('Cirrus', 0), counts['reasons']


def fastai_way(urls, folder):
    "Photos that were kept, and the files that have to be looked through afterwards."
    from fastai.vision.utils import download_images

    download_images(folder, urls=urls)
    return len(os.listdir(folder)), {}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--photos', type=Path, help='a folder of photos to serve')
    parser.add_argument('--urls', type=int, default=2000)
    parser.add_argument('--hosts', type=int, default=50)
    parser.add_argument('--repeats', type=int, default=3)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as tmp:
        if args.photos is None:
            from cloud_classifier.samples import make_samples

            make_samples(Path(tmp) / 'skies', per_genus=10, size=300)
        files = sorted(map(str, (args.photos or Path(tmp) / 'skies').rglob('*.jpg')))[:400]
        fresh = multiprocessing.get_context('spawn')
        port = fresh.Value('i', 0)
        server = fresh.Process(target=serve, args=(files, port), daemon=True)
        server.start()
        while not port.value:
            assert server.is_alive()
        urls = [f'http://127.0.1.{1 + i % args.hosts}:{port.value}/img/{i}.jpg' for i in range(args.urls)]
        kinds = [fate(i)[1] for i in range(args.urls)]
        import fastai.vision.utils  # noqa: F401  neither way pays for its imports

        import cloud_classifier.data.download  # noqa: F401

        seconds, kept = {ours: [], fastai_way: []}, {}
        for repeat in range(args.repeats):
            for way in seconds:
                folder = Path(tmp) / f'{way.__name__}-{repeat}'
                folder.mkdir()
                start = perf_counter()
                kept[way] = way(urls, folder)
                seconds[way].append(perf_counter() - start)
                print(f'{way.__name__:12} {seconds[way][-1]:6.1f} s, kept {kept[way][0]}, named {kept[way][1]}')
        server.terminate()
        server.join()

    count, named = kept[ours]
    assert count == kinds.count('photo'), (count, kinds.count('photo'))
    assert named == {'not found': kinds.count('missing'), 'html': kinds.count('page')}, named
    rate = {way: args.urls / median(taken) for way, taken in seconds.items()}
    HERE.joinpath('results').mkdir(exist_ok=True)
    with open(HERE / 'results' / 'download.csv', 'w', newline='') as f:
        f.write(f'# {date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n')
        f.write(f'# python benchmarks/{Path(__file__).name} {shlex.join(sys.argv[1:])}\n')
        table = csv.writer(f, lineterminator='\n')
        table.writerow(['way', 'addresses a second', 'slowest run', 'fastest run', 'photos kept', 'bad files kept'])
        for way, taken in seconds.items():
            bad = kept[way][0] - kinds.count('photo')
            table.writerow(
                [
                    'ours' if way is ours else 'fastai download_images',
                    f'{rate[way]:.1f}',
                    f'{args.urls / max(taken):.1f}',
                    f'{args.urls / min(taken):.1f}',
                    kept[way][0] - bad,
                    bad,
                ]
            )
        table.writerow(['times as fast', f'{rate[ours] / rate[fastai_way]:.2f}', '', '', '', ''])
    print((HERE / 'results' / 'download.csv').read_text())


if __name__ == '__main__':
    main()
