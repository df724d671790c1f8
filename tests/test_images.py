"Photos of every kind and in every state of decay."

import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cloud_classifier import images
from cloud_classifier.images import (
    BadImage,
    Preprocess,
    check_image,
    data_uri,
    inspect_photo,
    open_image,
    other_photos,
    photo_files,
    photo_header,
    photo_names,
    thumbnail,
)
from cloud_classifier.samples import render_sky

SKY = render_sky('Cumulus', 64, seed=3)


def stored(image, format, **how):
    "The bytes of `image` as a file."
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


JPEG = stored(SKY, 'JPEG', quality=90)


HOLDS = {
    'PNG': ['1', 'L', 'P', 'RGB', 'LA', 'RGBA'],
    'JPEG': ['1', 'L', 'RGB', 'CMYK', 'YCbCr'],
    'TIFF': ['1', 'L', 'P', 'RGB', 'CMYK', 'YCbCr', 'LA', 'RGBA', 'PA'],
    'WEBP': ['L', 'P', 'RGB', 'RGBA'],
    'GIF': ['1', 'L', 'P', 'RGB', 'RGBA'],
    'BMP': ['1', 'L', 'P', 'RGB', 'RGBA'],
}


@pytest.mark.parametrize(('format', 'mode'), [(f, m) for f, modes in HOLDS.items() for m in modes])
def test_every_mode_becomes_upright_rgb(format, mode):
    image = open_image(stored(SKY.convert(mode), format))
    assert (image.mode, image.size) == ('RGB', SKY.size)
    few = mode in ('1', 'P') or format == 'GIF'  # black and white dots, or 256 colours, stand for the photo
    expected = np.asarray(SKY.convert('L') if mode in ('1', 'L', 'LA') else SKY, float).mean()
    assert abs(np.asarray(image, float).mean() - expected) < (20 if few else 4)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_each_orientation_is_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = Image.open(io.BytesIO(stored(SKY.resize((64, 48)), 'PNG', exif=exif)))
    photo = stored(SKY.resize((64, 48)), 'PNG', exif=exif)
    assert np.array_equal(open_image(photo), ImageOps.exif_transpose(lying))


def test_damaged_exif_leaves_the_photo_as_it_lies():
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = stored(SKY, 'JPEG', exif=exif).replace(b'Exif\0\0', b'Exif\0\0\xff\xff', 1)
    assert open_image(photo).size == SKY.size


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    values = np.asarray(open_image(stored(Image.fromarray(ramp), 'PNG')))[..., 0]
    assert abs(values.astype(float) - ramp / 257).max() <= 1


def test_transparency_is_laid_on_white():
    clear = Image.new('RGBA', (32, 32), (255, 0, 0, 0))
    assert open_image(stored(clear, 'PNG')).getpixel((5, 5)) == (255, 255, 255)


def test_first_frame_of_an_animation():
    frames = [Image.new('RGB', (32, 32), colour) for colour in ('red', 'blue')]
    photo = stored(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    assert open_image(photo).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    'content', [b'%!PS-Adobe-3.0 EPSF-3.0', b'<svg xmlns="http://www.w3.org/2000/svg"/>', b'%PDF-1.7']
)
def test_formats_that_are_no_photos_are_not_even_tried(content):
    with pytest.raises(BadImage) as bad:
        open_image(content)
    assert bad.value.kind == 'not an image'


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    file = tmp_path / 'bomb.png'
    Image.new('1', (20000, 20000)).save(file)  # 400 megapixels in 50 kB
    with pytest.raises(BadImage, match='limit') as bad:
        open_image(file)
    assert (bad.value.kind, bad.value.name) == ('too large', str(file))


@given(st.integers(0, len(JPEG) - 1))
@examples(60)
def test_a_photo_that_is_cut_off_is_always_a_bad_image(length):
    with pytest.raises(BadImage) as bad:
        open_image(JPEG[: min(length, len(JPEG) - 3)])  # without its last bytes Pillow still has each pixel
    assert bad.value.kind in ('empty', 'truncated', 'not an image')


@given(st.data())
@examples(200)
def test_damage_never_raises_anything_but_bad_image(data):
    photo = bytearray(data.draw(st.sampled_from([JPEG, stored(SKY, 'PNG'), stored(SKY, 'GIF'), stored(SKY, 'WEBP')])))
    for _ in range(data.draw(st.integers(1, 8))):
        photo[data.draw(st.integers(0, len(photo) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = open_image(bytes(photo))
    except BadImage:
        return
    assert image.mode == 'RGB'


@given(st.binary(max_size=200))
@examples(100)
def test_bytes_are_never_mistaken_for_a_photo(content):
    with pytest.raises(BadImage):
        open_image(content)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(8, 96),
    st.sampled_from(['short', 'squash']),
    st.floats(0.1, 1),
)
@examples(80)
def test_any_photo_becomes_a_square_of_finite_numbers(width, height, size, resize, crop):
    pre = Preprocess(size, resize, crop)
    x = pre(Image.new('RGB', (width, height), (30, 90, 200)))
    assert (x.shape, x.dtype) == ((3, size, size), np.float32)
    expected = (np.array([30, 90, 200]) / 255 - pre.mean) / pre.std
    assert np.allclose(x, expected[:, None, None], atol=1e-5)  # a plain colour stays that colour, edges included
    assert Preprocess.from_json(pre.to_json()) == pre


@pytest.mark.parametrize(
    'wrong',
    [
        {'size': 4},
        {'size': 224.5},
        {'resize': 'pad'},
        {'crop': 0},
        {'crop': float('nan')},
        {'std': [1, 0, 1]},
        {'mean': [0.5]},
    ],
)
def test_preprocessing_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError):
        Preprocess.from_json(json.dumps(wrong))


def test_a_draft_keeps_what_the_square_needs():
    large = stored(render_sky('Altocumulus', 1200, width=1600), 'JPEG', quality=95)
    pre = Preprocess(224)
    assert min(pre.open(large).size) >= pre.min_side
    assert abs(pre(large) - pre(open_image(large))).mean() < 0.02  # as if all of it had been decoded


def test_photos_are_found_below_a_folder_and_hidden_ones_are_not(tmp_path):
    for name in ('b/2.JPG', 'a/1.png', '.quarantine/3.jpg', 'a/.4.jpg', 'a/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(photo_files(tmp_path)) == [str(tmp_path / 'a/1.png'), str(tmp_path / 'b/2.JPG')]


def plainly_opened(content, min_side=None):
    "What `open_image` gives, put down in the plainest way: all at once, and without looking at what it costs."
    img = Image.open(io.BytesIO(content))
    if min_side:
        img.draft('RGB', (min_side, min_side))
    img.load()
    turned = ImageOps.exif_transpose(img)
    if img.has_transparency_data:
        turned = Image.alpha_composite(Image.new('RGBA', turned.size, 'white'), turned.convert('RGBA'))
    return turned.convert('RGB')


@pytest.mark.parametrize(('format', 'mode'), [(f, m) for f, modes in HOLDS.items() for m in modes])
@pytest.mark.parametrize('orientation', [1, 6])
def test_large_photos_have_the_pixels_that_pillow_gives(format, mode, orientation):
    "More than a megapixel: they are converted in bands."
    exif = Image.Exif()
    exif[0x0112] = orientation
    sky = SKY.resize((1300, 1100))
    if mode in ('LA', 'RGBA', 'PA'):
        sky.putalpha(Image.linear_gradient('L').resize(sky.size))
    how = {'exif': exif} if format in ('JPEG', 'PNG', 'TIFF', 'WEBP') else {}
    photo = stored(sky.convert(mode), format, **how)
    for min_side in (None, 300):
        ours, plain = open_image(photo, min_side), plainly_opened(photo, min_side)
        assert ours.size == plain.size
        assert np.array_equal(ours, plain)


def test_real_photos_have_the_pixels_that_pillow_gives(ccsn):
    for photo in sorted(ccsn.rglob('*.jpg'))[::40]:
        pre, content = Preprocess(224), photo.read_bytes()
        assert np.array_equal(pre(content), pre(plainly_opened(content, pre.min_side)))


def large(width, height, format, **how):
    "A photo of many pixels, with features."
    mode = how.pop('mode', 'RGB')
    ramp = SKY.resize((width, height), Image.Resampling.BILINEAR)
    return stored(
        Image.fromarray(np.asarray(ramp)[..., 0].astype(np.uint16) * 257) if mode == 'I;16' else ramp, format, **how
    )


@pytest.mark.parametrize(
    ('size', 'how'),
    [
        ((4000, 3000), {'format': 'JPEG'}),
        ((4000, 3000), {'format': 'JPEG', 'progressive': True, 'subsampling': 0}),
        pytest.param((8688, 5792), {'format': 'JPEG'}, marks=pytest.mark.soak),
        pytest.param((8688, 5792), {'format': 'JPEG', 'progressive': True}, marks=pytest.mark.soak),
        pytest.param((8688, 5792), {'format': 'JPEG', 'progressive': True, 'subsampling': 0}, marks=pytest.mark.soak),
        ((16000, 4000), {'format': 'JPEG'}),
        ((6000, 4000), {'format': 'PNG', 'compress_level': 1}),
        pytest.param((6000, 4000), {'format': 'TIFF', 'compression': 'tiff_lzw'}, marks=pytest.mark.soak),
        ((6000, 4000), {'format': 'TIFF', 'compression': 'tiff_adobe_deflate', 'mode': 'I;16'}),
        pytest.param((6000, 4000), {'format': 'TIFF', 'mode': 'I;16'}, marks=pytest.mark.soak),
        ((5000, 4000), {'format': 'WEBP', 'method': 0}),
    ],
    ids=str,
)
def test_what_cameras_and_editors_write_passes(size, how):
    photo = large(*size, **how)
    header = check_image(photo)
    assert (header.width, header.height) == size
    assert min(Preprocess(224).open(photo).size) >= 448
    assert open_image(photo).size == size


def test_a_profile_and_a_thumbnail_are_no_bombs():
    exif = Image.Exif()
    exif[0x010F] = 'a telephone'
    thumbnail = stored(SKY, 'JPEG', progressive=True)
    photo = stored(SKY, 'JPEG', progressive=True, exif=exif.tobytes(), icc_profile=thumbnail * 30, comment=thumbnail)
    assert open_image(photo).size == SKY.size


@pytest.mark.parametrize(
    ('name', 'content', 'format'),
    [
        ('a.jpg', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic', 'HEIC'),
        ('a.jxl', b'\xff\x0a' + bytes(20), 'JPEG XL'),
        ('a.jp2', b'\0\0\0\x0cjP  \r\n\x87\n', 'JPEG 2000'),
        ('a.nef', stored(SKY, 'TIFF'), 'RAW'),
        ('a.tif', stored(SKY, 'TIFF', tiffinfo={50706: b'\1\4\0\0'}), 'RAW'),
    ],
)
def test_other_formats_are_unsupported_and_named(tmp_path, no_heic, name, content, format):
    (tmp_path / name).write_bytes(content)
    for look in (open_image, check_image, photo_header):
        with pytest.raises(BadImage, match=format) as bad:
            look(tmp_path / name)
        assert bad.value.kind == 'unsupported'


def test_avif_is_unsupported_where_pillow_lacks_it(monkeypatch):
    monkeypatch.setattr('cloud_classifier.images._openable_formats', lambda: ['JPEG', 'PNG'])
    with pytest.raises(BadImage, match='AVIF') as bad:
        open_image(b'\0\0\0\x1cftypavif' + bytes(20))
    assert bad.value.kind == 'unsupported'


def test_other_photos_and_folders_are_told(tmp_path, monkeypatch, no_heic):
    for name in ('a/1.jpg', 'a/2.HEIC', 'a/b/3.dng', 'locked/4.jpg', 'a/notes.txt', 'a/.5.heic'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(other_photos(tmp_path)) == ['a/2.HEIC', 'a/b/3.dng']

    def scandir(folder, real=os.scandir):
        if str(folder).endswith('locked'):
            raise PermissionError(13, 'Permission denied', str(folder))
        return real(folder)

    monkeypatch.setattr('cloud_classifier.images.os.scandir', scandir)
    assert other_photos(tmp_path)['locked/'] == "can't be read (Permission denied)"
    with pytest.raises(PermissionError, match='locked'):
        photo_names(tmp_path)


@pytest.mark.parametrize('name', ['n' * 300 + '.jpg', 'a\0b.jpg', os.fsdecode(b'\xff.jpg'), 'd/' * 2500 + 'a.jpg'])
def test_names_that_can_not_be_are_missing(tmp_path, name):
    with pytest.raises(BadImage) as bad:
        open_image(f'{tmp_path}/{name}')
    assert bad.value.kind == 'missing'


# Everything about a photo, at one reading


def measures(image):
    "What is extracted in these tests."
    return image.mode, image.size


def test_a_photo_is_read_once_and_decoded_at_most_once(tmp_path, monkeypatch):
    (tmp_path / 'a.jpg').write_bytes(JPEG)
    reads, decodes = [], []

    def read_bytes(path, real=Path.read_bytes):
        reads.append(path)
        return real(path)

    def upright(*args, real=images._upright):
        decodes.append(args)
        return real(*args)

    monkeypatch.setattr(images.Path, 'read_bytes', read_bytes)
    monkeypatch.setattr(images, '_upright', upright)
    info = inspect_photo(tmp_path / 'a.jpg', {'first': measures, 'second': measures})
    assert info.extracted == {'first': ('RGB', SKY.size), 'second': ('RGB', SKY.size)}
    assert (len(reads), len(decodes)) == (1, 1)
    assert inspect_photo(tmp_path / 'a.jpg').extracted == {}
    assert (len(reads), len(decodes)) == (2, 1)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_what_is_extracted_is_the_image_that_open_image_gives(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = stored(SKY.resize((64, 48)), 'JPEG', exif=exif)
    extracted = inspect_photo(photo, {'pixels': np.asarray}).extracted
    assert np.array_equal(extracted['pixels'], open_image(photo))


@given(st.data(), st.booleans())
@examples(200)
def test_inspecting_never_raises_and_says_what_opening_says(data, extracts):
    photo = bytearray(data.draw(st.sampled_from([JPEG, stored(SKY, 'PNG'), stored(SKY, 'GIF'), stored(SKY, 'WEBP')])))
    for _ in range(data.draw(st.integers(0, 8))):
        photo[data.draw(st.integers(0, len(photo) - 1))] = data.draw(st.integers(0, 255))
    photo = bytes(photo[: data.draw(st.integers(0, len(photo)))])
    info = inspect_photo(photo, {'measures': measures} if extracts else {})
    assert (info.sha256, info.size) == (hashlib.sha256(photo).hexdigest(), len(photo))
    expected = ('ok', '')
    try:
        open_image(photo) if extracts else check_image(photo)
    except BadImage as e:
        expected = e.kind, e.reason
    assert (info.status, info.reason) == expected
    assert bool(info.extracted) == (extracts and info.error is None)


def test_an_error_does_not_keep_the_photo_in_memory():
    error = inspect_photo(JPEG[:400]).error
    assert error.__traceback__ is error.__cause__ is error.__context__ is None


def test_an_error_of_the_function_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        inspect_photo(JPEG, {'wrong': lambda image: 1 / 0})


def test_files_that_are_none_or_too_large_are_not_read(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'nowhere.jpg').symlink_to('none.jpg')
    with open(tmp_path / 'film.jpg', 'wb') as file:
        file.truncate(101_000_000)
    infos = {path.name: inspect_photo(path) for path in (*tmp_path.iterdir(), tmp_path / 'a\0b.jpg', tmp_path)}
    assert {name: info.status for name, info in infos.items()} == {
        'pipe.jpg': 'not an image',
        'nowhere.jpg': 'missing',
        'film.jpg': 'too large',
        'a\0b.jpg': 'missing',
        tmp_path.name: 'not an image',
    }
    assert {(info.sha256, info.size, info.header) for info in infos.values()} == {('', 0, None)}
    assert inspect_photo(tmp_path / 'film.jpg', max_bytes=None).status == 'not an image'


def test_limits_and_known_checksums_are_passed_on():
    assert inspect_photo(JPEG, max_pixels=1000).status == 'too large'
    assert inspect_photo(JPEG, max_bytes=1000).status == 'too large'
    assert inspect_photo(JPEG, sha256='f' * 64).sha256 == 'f' * 64
    photo = stored(SKY.resize((1024, 1024)), 'JPEG')
    assert inspect_photo(photo, {'measures': measures}, min_side=200).extracted == {'measures': ('RGB', (256, 256))}


def test_a_thumbnail_is_small_upright_and_leaves_its_image_alone():
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = stored(SKY.resize((400, 200)), 'PNG', exif=exif)
    header = photo_header(thumbnail(photo, 100))
    assert (header.format, header.width, header.height) == ('JPEG', 50, 100)
    image = SKY.convert('RGBA')
    assert photo_header(thumbnail(image, 20)).width == 20
    assert image.size == SKY.size
    assert data_uri(b'\xff\xd8\xff') == 'data:image/jpeg;base64,/9j/'
    with pytest.raises(BadImage):
        thumbnail(JPEG[:100], 20)


def test_each_function_gets_the_size_it_wants_at_as_few_decodings_as_can_be(tmp_path, monkeypatch):
    Image.effect_noise((900, 900), 90).convert('RGB').save(tmp_path / 'a.jpg')
    decoded = []
    upright = images._upright
    monkeypatch.setattr(images, '_upright', lambda *args: decoded.append(1) or upright(*args))
    wanted = {name: np.asarray for name in ('large', 'half', 'also half')}
    info = inspect_photo(tmp_path / 'a.jpg', wanted, min_side={'large': 512, 'half': 448, 'also half': 300})
    assert len(decoded) == 2
    for name, side in (('large', 512), ('half', 448), ('also half', 300)):
        assert np.array_equal(info.extracted[name], np.asarray(images.open_image(tmp_path / 'a.jpg', side)))


def test_what_is_extracted_may_depend_on_the_checksum(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(JPEG)
    known = {inspect_photo(JPEG).sha256}
    assert inspect_photo(JPEG, lambda sha: {} if sha in known else {'size': measures}).extracted == {}
    assert inspect_photo(JPEG[:-1] + b'\xd9\0', lambda sha: {} if sha in known else {'size': measures}).extracted
