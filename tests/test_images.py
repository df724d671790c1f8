"Photos of every kind and in every state of decay."

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cloud_classifier.images import BadImage, Preprocess, open_image, photo_files
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
@settings(max_examples=60, deadline=None)
def test_a_photo_that_is_cut_off_is_always_a_bad_image(length):
    with pytest.raises(BadImage) as bad:
        open_image(JPEG[: min(length, len(JPEG) - 3)])  # without its last bytes Pillow still has each pixel
    assert bad.value.kind in ('empty', 'truncated', 'not an image')


@given(st.data())
@settings(max_examples=200, deadline=None)
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
@settings(deadline=None)
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
@settings(max_examples=80, deadline=None)
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
