"HEIC and AVIF: the same sky as from a JPEG, the right way up, and nothing that is cut off or made to do harm."

import io
import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from cloud_classifier import images
from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.scrape import add_photos
from cloud_classifier.data.verify import verify
from cloud_classifier.images import (
    BadImage,
    Preprocess,
    check_image,
    inspect_photo,
    is_photo_name,
    open_image,
    other_photos,
    photo_header,
    photo_names,
)
from cloud_classifier.samples import render_sky

pillow_heif = pytest.importorskip('pillow_heif')
SKY = render_sky('Cumulus', 320, 1, 240)


def heic(image=SKY, exif=None, **how):
    "A HEIC as `image`, without a word to Pillow."
    out, container = io.BytesIO(), pillow_heif.from_pillow(image)
    if exif:
        container.info['exif'] = exif  # its encoder says the orientation in boxes, too
    container.save(out, **{'quality': 90, 'enc_params': {'preset': 'ultrafast'}, **how})
    return out.getvalue()


def stored(format, image=SKY, **how):
    out = io.BytesIO()
    image.save(out, format, **how)
    return out.getvalue()


def difference(a, b):
    assert a.size == b.size
    return np.abs(np.asarray(a, float) - np.asarray(b.convert('RGB'), float)).mean()


needs_avif = pytest.mark.skipif(not features.check('avif'), reason='this Pillow has no AVIF')
FORMATS = ['HEIF', pytest.param('AVIF', marks=needs_avif)]


def photo(format, image=SKY, **how):
    return heic(image, **how) if format == 'HEIF' else stored('AVIF', image, quality=90, **how)


@pytest.mark.parametrize('format', FORMATS)
def test_a_network_sees_what_it_sees_of_a_jpeg(format):
    sky = render_sky('Cumulus', 640, 1, 480)
    content, jpeg = photo(format, sky), stored('JPEG', sky, quality=92)
    assert difference(open_image(content), sky) < 2
    assert photo_header(content) == check_image(content) == images.PhotoHeader(format, *sky.size, False)
    pixels = [Preprocess(224, mean=(0, 0, 0), std=(1, 1, 1))(o) * 255 for o in (content, jpeg)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 1
    assert inspect_photo(content).status == 'ok'


def test_pillow_is_told_nothing():
    open_image(heic())
    assert 'HEIF' not in Image.OPEN


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('orientation', range(1, 9))
def test_each_orientation_is_applied_once(format, orientation):
    "Encoders turn the note in Exif into boxes; the note stays, and is no order to turn the picture again."
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = SKY.copy()
    turned.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(turned)
    content = photo(format, exif=exif.tobytes())
    assert difference(open_image(content), upright) < 2
    header = photo_header(content)
    assert (header.width, header.height) == upright.size
    assert min(open_image(content, min_side=100).size) >= 100


def test_exif_alone_turns_no_heic():
    "ISO/IEC 23008-12: the boxes count, whatever Exif says."
    exif = Image.Exif()
    exif[0x0112] = 6
    content = heic(exif=exif.tobytes())
    assert content.count(b'irot') == 1
    assert difference(open_image(content.replace(b'irot', b'free')), SKY) < 2


@pytest.mark.parametrize('tile_size', [0, 64])
@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'LA'])
def test_kinds_of_pixels(mode, tile_size):
    image = SKY.convert(mode)
    if mode.endswith('A'):
        image.putalpha(Image.linear_gradient('L').resize(SKY.size))
    expected = open_image(stored('PNG', image))
    assert difference(open_image(heic(image, tile_size=tile_size)), expected) < 3


@pytest.mark.parametrize(('mode', 'chroma'), [('RGB;16', 420), ('RGB;16', 444), ('RGBA;16', 420), ('L;16', 420)])
def test_ten_bits(mode, chroma):
    pixels = np.asarray(SKY.convert(mode.partition(';')[0])).astype(np.uint16) * 257
    out = io.BytesIO()
    pillow_heif.from_bytes(mode, SKY.size, pixels.tobytes()).save(out, quality=90, chroma=chroma)
    grey = mode[0] == 'L'
    assert difference(open_image(out.getvalue()), SKY.convert('L') if grey else SKY) < 2


def test_of_several_pictures_the_main_one_counts():
    container = pillow_heif.from_pillow(render_sky('Stratus', 200, 3))
    container.add_from_pillow(SKY)
    container.add_from_pillow(render_sky('Cirrus', 300, 3))
    out = io.BytesIO()
    container.save(out, quality=90, primary_index=1)
    assert difference(open_image(out.getvalue()), SKY) < 2
    assert not photo_header(out.getvalue()).animated


def test_a_thumbnail_never_stands_in_for_the_photo():
    container = pillow_heif.from_pillow(SKY)
    container[0].info['thumbnails'] = [200]
    out = io.BytesIO()
    container.save(out, quality=90)
    assert open_image(out.getvalue(), min_side=100).size == SKY.size


@pytest.mark.parametrize(
    'how', [{}, {'tile_size': 64}, {'image': SKY.convert('RGBA')}], ids=['plain', 'tiles', 'alpha']
)
def test_what_is_cut_off_is_refused_wherever(how):
    "A decoder paints the tiles that are missing, and says nothing."
    content = heic(**how)
    for end in [*range(12, min(3000, len(content)), 31), *np.linspace(3000, len(content) - 1, 20).astype(int)]:
        for look in (open_image, check_image):
            with pytest.raises(BadImage) as bad:
                look(content[:end])
            assert bad.value.kind == 'truncated', end


def test_damage_never_gets_out_as_another_error():
    content, rng = heic(tile_size=128), np.random.default_rng(0)
    for _ in range(150):
        spoilt = bytearray(content)
        for at in rng.integers(0, 700, 3):
            spoilt[at] = rng.integers(256)
        info = inspect_photo(bytes(spoilt), {'mode': lambda image: image.mode})
        assert info.status in ('ok', 'truncated', 'not an image', 'too large', 'unsupported')
        assert info.extracted == ({'mode': 'RGB'} if info.status == 'ok' else {})


@pytest.mark.parametrize('size', [(64, 64), (12_000, 9_000), (60_000, 60_000), (0, 0), (65_600, 2)])
def test_a_size_that_is_not_so(size):
    content = heic()
    spoilt = content.replace(struct.pack('>II', *SKY.size), struct.pack('>II', *size))
    assert spoilt != content
    with pytest.raises(BadImage) as bad:
        open_image(spoilt)
    assert bad.value.kind == ('too large' if min(size) * max(size) > 1e8 or max(size) > 65_535 else 'truncated')


def test_the_limit_of_pixels_is_held_before_decoding(monkeypatch):
    content = heic()
    monkeypatch.setattr('pillow_heif.HeifImageFile.load', lambda self: pytest.fail('it was decoded'))
    with pytest.raises(BadImage, match='over the limit of 70,000 pixels'):
        open_image(content, max_pixels=70_000)
    with pytest.raises(BadImage, match='MB to open'):
        open_image(content, max_memory=500_000)


def test_pieces_that_overlap_are_not_read():
    "Each tile at the same place would be read once a tile."
    content = heic(tile_size=64)
    at = content.index(b'iloc')
    box = content[at - 4 : at - 4 + int.from_bytes(content[at - 4 : at], 'big')]
    pieces = list(images._item_pieces(io.BytesIO(box[8:])))
    assert len(pieces) > 20
    assert sum(size for _, _, size in pieces) < len(content)
    whole = box[8:].replace(struct.pack('>I', pieces[3][2]), struct.pack('>I', 10**6))
    spoilt = content.replace(box[8:], whole) + bytes(2 * 10**6)
    for item in pieces[5:]:
        spoilt = spoilt.replace(struct.pack('>I', item[2]), struct.pack('>I', 1_900_000), 1)
    with pytest.raises(BadImage, match='pieces that overlap'):
        open_image(spoilt)


def test_packed_tags_are_not_unpacked():
    content = heic()
    assert b'\0deflate\0' not in content
    at = content.index(b'iinf') + 4
    with pytest.raises(BadImage, match='compressed tags'):
        open_image(content[:at] + content[at:].replace(content[at + 30 : at + 39], b'\0deflate\0', 1))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'Cumulus').mkdir()
    for name, content in {'phone.HEIC': heic(), 'tiles.heif': heic(tile_size=128), 'cut.hif': heic()[:-9]}.items():
        (tmp_path / 'Cumulus' / name).write_bytes(content)
    (tmp_path / 'Cumulus' / 'named.jpg').write_bytes(heic(render_sky('Cumulus', 300, 5)))
    return tmp_path


def test_they_are_photos_of_a_folder(folder):
    assert sorted(photo_names(folder)) == [f'Cumulus/{o}' for o in ('cut.hif', 'named.jpg', 'phone.HEIC', 'tiles.heif')]
    assert other_photos(folder) == {}
    assert all(map(is_photo_name, ('a.heic', 'a.HIF', 'a.avif')))
    table = verify(folder).table.set_index('path')
    assert table.status.to_dict() == {
        'Cumulus/cut.hif': 'truncated',
        'Cumulus/named.jpg': 'ok',
        'Cumulus/phone.HEIC': 'ok',
        'Cumulus/tiles.heif': 'ok',
    }
    assert table.hints['Cumulus/named.jpg'] == ['odd suffix'] or 'odd suffix' in table.hints['Cumulus/named.jpg']
    assert 'odd suffix' not in table.hints['Cumulus/phone.HEIC']


def test_without_the_extra_each_is_a_row_that_says_what_to_install(folder, no_heic):
    assert photo_names(folder) == ['Cumulus/named.jpg']
    assert sorted(other_photos(folder)) == [f'Cumulus/{o}' for o in ('cut.hif', 'phone.HEIC', 'tiles.heif')]
    for name in ('phone.HEIC', 'named.jpg'):
        with pytest.raises(BadImage, match=r"is a HEIC photo, .*pip install 'cloud_classifier\[heic\]'") as bad:
            open_image(folder / 'Cumulus' / name)
        assert bad.value.kind == 'unsupported'
    assert set(verify(folder).table.status) == {'unsupported'}


def test_a_library_that_does_not_load_is_an_installation_without(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    with pytest.raises(BadImage, match='is a HEIC photo') as bad:
        open_image(heic())
    assert bad.value.kind == 'unsupported'


def test_they_can_be_added_to_a_dataset(folder, tmp_path_factory):
    mine = tmp_path_factory.mktemp('mine')
    counts = add_photos(mine, folder, progress=False)
    assert (counts['ok'], counts['failed']) == (3, 1)
    names = [path for path, _ in Dataset(mine).photos()]
    assert sorted({o.rpartition('.')[2] for o in names}) == ['heic']
    assert list(Dataset(mine).status()['reasons']) == ['truncated']


def test_predict_answers_them_as_the_jpeg(command, folder):
    (folder / 'Cumulus' / 'same.jpg').write_bytes(stored('JPEG', quality=95))
    if features.check('avif'):
        (folder / 'Cumulus' / 'same.avif').write_bytes(stored('AVIF', quality=95))
    status, out, _ = command('predict', folder, '--json')
    rows = {row['path'].rpartition('/')[2]: row for row in map(json.loads, out.splitlines())}
    assert status == 3
    assert 'is cut off or damaged' in rows['cut.hif']['error']
    for name in rows.keys() & {'phone.HEIC', 'tiles.heif', 'same.avif'}:
        assert rows[name]['label'] == rows['same.jpg']['label']
        assert rows[name]['probability'] == pytest.approx(rows['same.jpg']['probability'], abs=0.1)
