"The folder of the page, and its modules asked by Node: the same pixels and the same answers as Python's, to the bit."

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from static_site import stand_in_ort

from cloud_classifier.images import BadImage, Preprocess, open_image
from cloud_classifier.prediction import site as module
from cloud_classifier.prediction.decide import Rules, decide, softmax
from cloud_classifier.prediction.site import ORT_FILES, build_site, class_groups, photo_limits, static_files

NODE = shutil.which('node')
SCRIPT = Path(__file__).parent / 'servers' / 'ask_modules.mjs'
needs_node = pytest.mark.skipif(NODE is None, reason='needs node on the PATH')


@pytest.fixture
def ort(tmp_path):
    "A folder that stands in for onnxruntime-web."
    return stand_in_ort(tmp_path / 'ort')


@pytest.fixture(scope='module')
def ask(tmp_path_factory):
    "Ask the page's modules: a task and its jobs in, answers out."
    folder = tmp_path_factory.mktemp('modules')
    for name, content in static_files().items():
        (folder / name).write_bytes(content)
    (folder / 'package.json').write_text('{"type": "module"}')

    def ask(task, jobs):
        job = json.dumps({'task': task, 'jobs': jobs})
        done = subprocess.run(
            [NODE, SCRIPT, folder], input=job, capture_output=True, text=True, check=False, timeout=300
        )
        assert not done.returncode, done.stderr
        return json.loads(done.stdout)

    return ask


def pixels(answer, dtype=np.uint8):
    return np.frombuffer(base64.b64decode(answer), dtype)


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def scene(width, height, seed=0, mode='RGB'):
    "A picture with smooth parts, edges and noise."
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noise = rng.integers(-25, 26, (height, width, 3))
    return Image.fromarray((np.asarray(small) + noise).clip(0, 255).astype(np.uint8)).convert(mode)


def saved(image, format, **how):
    out = io.BytesIO()
    image.save(out, format, **how)
    return out.getvalue()


def opened_or_refused(data, side):
    try:
        return open_image(data, min_side=side)
    except BadImage as error:
        return error


HEADERS = {'truncated', 'not an image'}  # what a file is called that ends before its pixels begin


def check_opened(ask, photos, side=None, same=()):
    "Both open the photos {name: bytes} as the same pixels, or refuse them as the same kind, or one of the `same`."
    jobs = [
        {'name': name, 'bytes': as_text(data), 'side': side or 10**6, 'site': photo_limits()}
        for name, data in photos.items()
    ]
    for (name, data), answer in zip(photos.items(), ask('open', jobs), strict=True):
        expected = opened_or_refused(data, side)
        if isinstance(expected, BadImage):
            kinds = {answer.get('kind'), expected.kind}
            assert len(kinds) == 1 or kinds <= set(same), f'{name}: {answer} for {expected.kind} ({expected.reason})'
            continue
        assert 'data' in answer, f'{name}: {answer}'
        assert (answer['width'], answer['height']) == expected.size, name
        got = pixels(answer['data']).reshape(expected.height, expected.width, 4)[..., :3]
        assert (got == np.asarray(expected)).all(), f'{name} differs'


def test_a_site_is_whole_and_names_its_files_by_their_content(tmp_path, ort):
    site = build_site(tmp_path / 'page', ort=ort)
    worker = (site / 'sw.js').read_text()
    names = json.loads(re.search(r'^const FILES = (.*);$', worker, re.M)[1])
    assert sorted([*names, 'sw.js']) == sorted(o.name for o in site.iterdir())
    model = json.loads((site / 'model.json').read_text())
    assert {model['model']['file'], *model['ort'].values()} <= set(names)
    for icon in json.loads((site / 'manifest.webmanifest').read_text())['icons']:
        assert icon['src'] in names
    page = (site / 'index.html').read_text()
    assert {*re.findall(r'(?:href|src)="([\w.-]+)"', page)} <= set(names)
    for name in names:
        imported = re.findall(r"from '\./([\w-]+\.js)'", (site / name).read_text()) if name.endswith('.js') else []
        assert set(imported) <= set(names), name


def test_nothing_is_loaded_from_another_host():
    addresses = [
        (name, address)
        for name, content in static_files().items()
        for address in re.findall(r'https?://[^\s\'"\\]+', content.decode())
    ]
    names = ('http://www.w3.org/2000/svg', 'http://ns.adobe.com/xap/1.0/')  # of languages, not of places
    assert not [o for o in addresses if not o[1].startswith(names)]


def test_the_policy_lets_nothing_in_but_the_folder():
    policy = re.search(r'Content-Security-Policy" content="([^"]+)', static_files()['index.html'].decode())[1]
    assert dict(o.strip().split(' ', 1) for o in policy.split(';')) == {
        'default-src': "'none'",
        'script-src': "'self' 'wasm-unsafe-eval'",
        'worker-src': "'self' blob:",
        'connect-src': "'self'",
        'img-src': "'self' blob:",
        'media-src': "'self' blob:",
        'style-src': "'self'",
        'manifest-src': "'self'",
        'base-uri': "'none'",
        'form-action': "'none'",
    }


def test_the_same_site_twice_is_the_same_version(tmp_path, ort):
    first = (build_site(tmp_path / 'page', ort=ort) / 'sw.js').read_text()
    assert (build_site(tmp_path / 'page', ort=ort) / 'sw.js').read_text() == first
    (ort / ORT_FILES[0]).write_text('another')
    site = build_site(tmp_path / 'page', ort=ort)
    assert (site / 'sw.js').read_text() != first
    assert len([*site.glob('ort.*.js')]) == 1, 'the file of the version before is gone'


def test_other_files_are_never_written_among(tmp_path, ort, command):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'diary.txt').write_text('mine')
    status, out, err = command('site', tmp_path / 'mine', '--ort', ort)
    assert (status, out) == (2, '')
    assert err.count('\n') == 1
    assert 'diary.txt' in err
    assert [o.name for o in (tmp_path / 'mine').iterdir()] == ['diary.txt']
    status, _, err = command('site', tmp_path / 'mine' / 'diary.txt', '--ort', ort)
    assert status == 2
    assert err.count('\n') == 1


def test_a_file_that_a_later_version_no_longer_has_goes(tmp_path, ort, monkeypatch):
    files = static_files()
    monkeypatch.setattr(module, 'static_files', lambda: files | {'old.js': b'let a'})
    site = build_site(tmp_path / 'page', ort=ort)
    assert (site / 'old.js').is_file()
    monkeypatch.undo()
    build_site(site, ort=ort)
    assert not (site / 'old.js').exists()


def test_the_command_says_what_it_made(tmp_path, ort, command):
    status, out, err = command('site', tmp_path / 'page', '--ort', ort)
    assert (status, err) == (0, '')
    assert 'http.server' in out
    assert command('site', tmp_path / 'page', '--ort', ort, '-q')[1].strip() == str(tmp_path / 'page')


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    "Nothing was fetched before."
    monkeypatch.setenv('CLOUD_CACHE', str(tmp_path / 'cache'))


def test_without_npm_one_line_says_what_to_do(tmp_path, command, monkeypatch, no_cache):
    monkeypatch.setenv('PATH', str(tmp_path))
    status, out, err = command('site', tmp_path / 'page')
    assert (status, out) == (2, '')
    assert err.count('\n') == 1
    assert '--ort' in err
    assert 'npm' in err
    status, _, err = command('site', tmp_path / 'page', '--ort', tmp_path)
    assert status == 2
    assert err.count('\n') == 1
    assert ORT_FILES[0] in err
    assert not (tmp_path / 'page').exists()


@pytest.mark.parametrize(
    ("script", "expected"), [('echo "npm error network" >&2; exit 1', 'npm error network'), ('echo > a.tgz', 'SHA-512')]
)
def test_what_npm_fails_to_bring_is_not_used(tmp_path, command, monkeypatch, no_cache, script, expected):
    npm = tmp_path / 'bin' / 'npm'
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\n{script}\n')
    npm.chmod(0o755)
    monkeypatch.setenv('PATH', str(npm.parent), prepend=os.pathsep)
    status, _, err = command('site', tmp_path / 'page')
    assert status == 1
    assert err.count('\n') == 1
    assert expected in err
    assert not (tmp_path / 'page').exists()


def test_what_npm_brought_is_kept_and_checked(tmp_path, ort, monkeypatch, no_cache):
    fetched = []
    monkeypatch.setattr(module, 'fetch_ort', lambda: fetched.append(1) or module.read_ort(ort))
    digests = [hashlib.sha256((ort / name).read_bytes()).hexdigest() for name in ORT_FILES]
    monkeypatch.setattr(module, 'ORT_SHA256', digests)
    for _ in range(2):
        build_site(tmp_path / 'page')
    assert len(fetched) == 1
    (module.ort_cache() / ORT_FILES[0]).write_text('changed by someone')
    build_site(tmp_path / 'page')
    assert len(fetched) == 2
    assert module.read_cached_ort() == module.read_ort(ort)


def test_a_cache_that_cant_be_written_is_done_without(tmp_path, ort, monkeypatch):
    monkeypatch.setattr(module, 'fetch_ort', lambda: module.read_ort(ort))
    (tmp_path / 'file').touch()
    monkeypatch.setenv('CLOUD_CACHE', str(tmp_path / 'file'))
    assert (build_site(tmp_path / 'page') / 'index.html').is_file()


SIZES = [(460, 700), (700, 460), (224, 300), (100, 150), (224, 224), (214, 321), (231, 1000), (999, 777), (30, 31)]
SIZES += [(461, 698), (461, 699), (2000, 90)]


@needs_node
@pytest.mark.parametrize('settings', [{}, {'crop': 0.875}, {'resize': 'squash'}, {'size': 65, 'crop': 0.3}], ids=str)
def test_the_square_is_pillows(ask, settings):
    preprocess = Preprocess(**({'size': 224} | settings))
    images = [scene(width, height, i) for i, (width, height) in enumerate(SIZES)]
    jobs = [
        {
            'width': image.width,
            'height': image.height,
            'data': as_text(image.convert('RGBA').tobytes()),
            'preprocess': json.loads(preprocess.to_json()),
        }
        for image in images
    ]
    for image, answer in zip(images, ask('square', jobs), strict=True):
        expected = preprocess.square(image)
        got = pixels(answer['data']).reshape(preprocess.size, preprocess.size, 4)[..., :3]
        assert (got == np.asarray(expected)).all(), image.size
        normal = pixels(answer['normal'], np.float32).reshape(3, preprocess.size, preprocess.size)
        assert (normal == preprocess(expected)).all() or np.allclose(normal, preprocess(image), rtol=0, atol=1e-6)


JPEGS = {
    f'{width}x{height} {sampling} {kind}': saved(
        scene(width, height, i), 'JPEG', quality=quality, subsampling=sampling, **how
    )
    for i, (width, height, sampling, quality, kind, how) in enumerate(
        (w, h, s, q, kind, how)
        for w, h, q in ((64, 48, 90), (101, 67, 75), (17, 130, 40), (8, 8, 95), (1, 1, 90), (3, 200, 99))
        for s in ('4:4:4', '4:2:2', '4:2:0')
        for kind, how in {
            'baseline': {},
            'progressive': {'progressive': True},
            'restarts': {'restart_marker_blocks': 3},
        }.items()
    )
}


@needs_node
@pytest.mark.parametrize('by', [1, 2, 4, 8])
def test_jpegs_are_decoded_as_libjpeg_does_at_each_scale(ask, by):
    sizes = {name: Image.open(io.BytesIO(data)).size for name, data in JPEGS.items()}
    for side in sorted({min(size) // by for size in sizes.values()} - {0}):
        check_opened(ask, {n: d for n, d in JPEGS.items() if min(sizes[n]) // by == side}, side)


@needs_node
def test_other_colours_of_jpegs(ask):
    photos = {f'{mode} {i}': saved(scene(90 + i, 71, i, mode), 'JPEG') for mode in ('L', 'CMYK') for i in range(3)}
    photos |= {'progressive ink': saved(scene(90, 71, 7, 'CMYK'), 'JPEG', progressive=True)}
    photos |= {'RGB as it is': saved(scene(90, 71, 8), 'JPEG', keep_rgb=True)}
    check_opened(ask, photos)
    check_opened(ask, photos, 30)


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@needs_node
@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'TIFF'])
def test_photos_are_turned(ask, format):
    photos = {str(o): saved(scene(40, 25), format, exif=oriented(o)) for o in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)}
    check_opened(ask, photos)


def png_photos():
    rgba = scene(61, 37).convert('RGBA')
    rgba.putalpha(Image.linear_gradient('L').resize(rgba.size))
    yield 'RGB', scene(61, 37), {}
    yield 'RGBA', rgba, {}
    yield 'LA', rgba.convert('LA'), {}
    yield 'L', scene(61, 37, 1, 'L'), {}
    yield '1', scene(61, 37, 1, '1'), {}
    yield (
        'RGB with a clear colour',
        scene(61, 37).quantize(9).convert('RGB'),
        {'transparency': scene(61, 37).quantize(9).convert('RGB').getpixel((9, 9))},
    )
    yield 'L with a clear grey', scene(61, 37, 1, 'L'), {'transparency': scene(61, 37, 1, 'L').getpixel((3, 3))}
    yield 'I;16', Image.fromarray(np.random.default_rng(0).integers(0, 65536, (37, 61), dtype=np.uint16)), {}
    for n in (2, 4, 16, 200):
        yield f'palette of {n}', scene(61, 37).quantize(n), {}
        yield f'palette of {n}, one clear', scene(61, 37).quantize(n), {'transparency': 1}
        yield f'palette of {n}, alpha', scene(61, 37).quantize(n), {'transparency': bytes(range(50, 50 + n // 2))}


def png_chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, 'big') + name + content + zlib.crc32(name + content).to_bytes(4, 'big')


def wide_png(channels: int, type: int) -> bytes:
    "A PNG of 16 bits, which Pillow reads and doesn't write."
    values = np.random.default_rng(0).integers(0, 65536, (20, 30, channels)).astype('>u2')
    lines = b''.join(b'\0' + line.tobytes() for line in values)
    header = (30).to_bytes(4, 'big') + (20).to_bytes(4, 'big') + bytes([16, type, 0, 0, 0])
    parts = png_chunk(b'IHDR', header), png_chunk(b'IDAT', zlib.compress(lines)), png_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def interlaced_png() -> bytes:
    "A PNG in seven passes."
    image = np.asarray(scene(29, 21))
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    lines = [b'\0' + line.tobytes() for x, y, dx, dy in passes for line in image[y::dy, x::dx]]
    header = (29).to_bytes(4, 'big') + (21).to_bytes(4, 'big') + bytes([8, 2, 0, 0, 1])
    parts = png_chunk(b'IHDR', header), png_chunk(b'IDAT', zlib.compress(b''.join(lines))), png_chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


@needs_node
def test_pngs_of_all_kinds(ask):
    photos = {name: saved(image, 'PNG', **how) for name, image, how in png_photos()}
    photos |= {f'16 bits, type {t}': wide_png(n, t) for n, t in ((1, 0), (3, 2), (2, 4), (4, 6))}
    check_opened(ask, photos | {'interlaced': interlaced_png()})


@needs_node
def test_tiffs_and_pixmaps(ask):
    photos = {}
    for mode in ('RGB', 'L', 'CMYK', 'P', 'RGBA', 'I;16'):
        image = scene(61, 137).quantize(50) if mode == 'P' else scene(61, 137).convert(mode)
        for how in (None, 'tiff_lzw', 'tiff_adobe_deflate', 'packbits'):
            photos[f'{mode} {how}'] = saved(image, 'TIFF', compression=how)
    photos['a fax'] = saved(scene(61, 37, mode='1'), 'TIFF', compression='group4')
    photos |= {f'PPM {mode}': saved(scene(61, 37, mode=mode), 'PPM') for mode in ('RGB', 'L')}
    check_opened(ask, photos)


@needs_node
def test_photos_that_are_cut_off_are_refused_alike(ask):
    photos = {}
    whole = {
        'JPEG': saved(scene(90, 60), 'JPEG'),
        'progressive': saved(scene(90, 60), 'JPEG', progressive=True),
        'PNG': saved(scene(90, 60), 'PNG'),
        'PPM': saved(scene(90, 60), 'PPM'),
    }
    for name, data in whole.items():
        for at in [0, *np.linspace(12, len(data) - 1, 25).astype(int)]:
            photos[f'{name} cut at {at} of {len(data)}'] = data[:at]
    check_opened(ask, photos, same=HEADERS)


@needs_node
def test_what_is_no_photo_is_refused_alike(ask, no_heic):
    photos = {
        'nothing': b'',
        'text.jpg': b'not a photo',
        'page.html': b'<!doctype html><p>a page',
        'drawing.svg': b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        'phone.heic': b'\0\0\0\x18ftypheic' + bytes(100),
        'new.jxl': b'\xff\x0a' + bytes(100),
        'old.jp2': b'\0\0\0\x0cjP  \r\n\x87\n' + bytes(100),
        'canon.cr3': b'\0\0\0\x18ftypcrx ' + bytes(100),
        'canon.cr2': b'II*\0\x10\0\0\0CR\2\0' + bytes(100),
        'adobe.psd': b'8BPS\0\1' + bytes(100),
        'wide.png': saved(Image.new('1', (65_600, 2)), 'PNG'),
        'huge.png': saved(Image.new('1', (20_000, 6_000)), 'PNG'),
        'huge.jpg': saved(Image.new('L', (12_000, 9_000)), 'JPEG', quality=5),
    }
    check_opened(ask, photos)


CLASSES = ('Cirrus', 'Cirrocumulus', 'Cirrostratus', 'Altocumulus', 'Stratocumulus', 'Stratus', 'Cumulus', 'Ct')


@needs_node
def test_answers_are_decided_alike(ask):
    rng = np.random.default_rng(0)
    rules = [
        Rules({'genus': 0.6, 'level': 0.7, 'family': 0.75}, conformal=0.9, ood_threshold=1.5),
        Rules({'genus': 0.9, 'level': None, 'family': 0.8}, conformal=0.5),
        Rules({}),
        Rules({'genus': None, 'level': 0.4, 'family': 0.3}, ood_threshold=-1),
    ]
    cases = [
        (rng.normal(0, rng.choice([0.5, 2, 6]), len(CLASSES)), rng.choice([None, 0.0, 1.5, 3.0]), rule, temperature)
        for rule in rules
        for temperature in (0.5, 1.0, 2.2)
        for _ in range(60)
    ]
    cases.append((np.zeros(len(CLASSES)), None, rules[0], 1.0))
    jobs = [
        {
            'logits': logits.tolist(),
            'score': score,
            'model': {
                'classes': CLASSES,
                'rules': rule.as_dict(),
                'temperature': temperature,
                'groups': class_groups(CLASSES),
            },
        }
        for logits, score, rule, temperature in cases
    ]
    for (logits, score, rule, temperature), answer in zip(cases, ask('decide', jobs), strict=True):
        probs = softmax(logits, temperature)
        expected = decide(probs, CLASSES, rule, score)
        best = np.argsort(-probs, kind='stable')[:3]
        assert [o['label'] for o in answer['top']] == [CLASSES[i] for i in best]
        assert np.allclose([o['probability'] for o in answer['top']], probs[best], rtol=0, atol=1e-12)
        assert (answer['verdict'], answer['set']) == (expected.verdict, list(expected.labels))
        assert (answer['backoff']['depth'], answer['backoff']['name']) == (
            expected.backoff.depth,
            expected.backoff.name,
        )
        assert [o['label'] for o in answer['backoff']['members']] == [o for o, _ in expected.backoff.members]
        assert not expected.backoff.members or answer['backoff']['likely'] == list(expected.backoff.likely)


def test_a_site_that_was_broken_off_is_written_again(tmp_path, ort, monkeypatch):
    def break_off(file, content, write=module.atomic_write):
        if file.name.endswith('.onnx'):
            raise KeyboardInterrupt
        write(file, content)

    monkeypatch.setattr(module, 'atomic_write', break_off)
    with pytest.raises(KeyboardInterrupt):
        build_site(tmp_path / 'page', ort=ort)
    monkeypatch.undo()
    test_a_site_is_whole_and_names_its_files_by_their_content(tmp_path, ort)


def test_a_page_of_another_kind_is_not_written_over(tmp_path, ort):
    (tmp_path / 'page').mkdir()
    (tmp_path / 'page' / 'index.html').write_text('my own page')
    with pytest.raises(module.BadSite, match=r'index\.html'):
        build_site(tmp_path / 'page', ort=ort)
    assert (tmp_path / 'page' / 'index.html').read_text() == 'my own page'
