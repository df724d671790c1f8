"Copies are found, other skies are not called copies, and on real photos the counts are as a person counted them."

import hashlib
import itertools
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.duplicates import (
    FINGERPRINT_KIND,
    MANY_PHOTOS_LIMITS,
    THUMB_SIDE,
    TURNS,
    HashLimits,
    candidates,
    connected_components,
    find_duplicates,
    find_pairs,
    fingerprint,
    fingerprints,
    trimmed_hashes,
    turned,
    turned_hashes,
    verify_pairs,
    write_page,
)
from cloud_classifier.images import open_image
from cloud_classifier.samples import make_samples, render_sky


def cropped(img, share=0.03):
    "The photo without a strip at its left and its bottom."
    return img.crop((round(share * img.width), 0, img.width, img.height - round(share * img.height)))


VARIANTS = {
    'quality 40': lambda img: img,
    'half size': lambda img: img.resize((img.width // 2, img.height // 2)),
    'mirrored': lambda img: img.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    'rotated': lambda img: img.transpose(Image.Transpose.ROTATE_90),
    'cropped': cropped,
    'brighter': lambda img: ImageEnhance.Brightness(img).enhance(1.1),
}


def save_variants(photos, folder):
    "Each photo as it is and in each variant, in a folder."
    folder.mkdir()
    for i, photo in enumerate(photos):
        img = Image.open(photo).convert('RGB')
        img.save(folder / f'{i:03}.png')
        for name, made in VARIANTS.items():
            made(img).save(folder / f'{i:03} {name}.jpg', quality=40 if name == 'quality 40' else 90)
    return sorted(p.name for p in folder.iterdir())


def recall(prints):
    "Share of the photos whose copy is in their group, by variant; and how many photos share a group with another."
    exact, near, _ = find_pairs(prints)
    group = connected_components(len(prints.names), np.concatenate((exact, near[:, :2])))
    of = dict(zip(prints.names, group, strict=True))
    photos = sorted({name[:3] for name in prints.names})
    found = {v: np.mean([of[f'{p} {v}.jpg'] == of[f'{p}.png'] for p in photos]) for v in VARIANTS}
    mixed = len(photos) - len({of[f'{p}.png'] for p in photos})
    return found, mixed


def test_the_hash_is_imagehashs():
    import imagehash

    for genus, seed in itertools.product(('Cirrus', 'Stratus', 'Cumulus'), range(4)):
        grey = render_sky(genus, seed=seed, size=200).convert('L')
        ours = turned_hashes(grey)
        for turn, bits in zip(TURNS, ours, strict=False):
            theirs = imagehash.phash(grey if turn is None else grey.transpose(turn)).hash
            differ = (np.unpackbits(bits) != theirs.reshape(-1)).sum()
            assert differ <= (0 if turn is None else 6)  # the resampling of a turned picture rounds otherwise


@pytest.mark.parametrize('turn', range(8))
def test_turning_is_what_pillow_does(turn):
    picture = np.random.default_rng(0).integers(0, 255, (5, 5), dtype=np.uint8)
    img = Image.fromarray(picture)
    wanted = img if TURNS[turn] is None else img.transpose(TURNS[turn])
    assert (turned(picture[None], turn)[0] == np.asarray(wanted)).all()


@pytest.mark.parametrize('many', [12, pytest.param(60, marks=pytest.mark.soak)])
def test_real_photos_are_known_again(many, ccsn, tmp_path):
    photos = random.Random(0).sample(sorted(ccsn.rglob('*.jpg')), many)
    found, mixed = recall(fingerprints(save_variants(photos, tmp_path / 'variants'), tmp_path / 'variants'))
    print(found)
    assert min(found.values()) >= 0.95
    assert mixed <= 1  # two of them may be copies of each other themselves


def test_rendered_skies_are_known_again(tmp_path):
    make_samples(
        tmp_path / 'skies', per_genus=3, size=256, genera=['Cirrus', 'Altocumulus', 'Cumulus', 'Stratocumulus']
    )
    photos = sorted((tmp_path / 'skies').rglob('*.jpg'))
    found, mixed = recall(fingerprints(save_variants(photos, tmp_path / 'variants'), tmp_path / 'variants'))
    assert min(found.values()) >= 0.9
    assert mixed == 0


def test_different_smooth_skies_are_never_one(ccsn):
    "Real Stratus and Altostratus, all pairs that the hashes propose at a generous radius, and two thousand at random."
    names = [p for folder in ('St', 'As') for p in sorted((ccsn / folder).glob('*.jpg'))]
    prints = fingerprints(map(str, names))
    exact, near, _ = find_pairs(prints)
    known = {tuple(sorted(p)) for p in (*map(tuple, exact), *map(tuple, near[:, :2]))}
    chance = np.random.default_rng(0)
    pairs = np.stack((*chance.integers(0, len(names), (2, 2000)), chance.integers(0, 8, 2000)), 1)
    pairs = pairs[[a != b and tuple(sorted((a, b))) not in known for a, b, _ in pairs]]
    scores = verify_pairs(prints.thumbs, pairs)
    assert ((scores >= (0.65, 0.74)).all(1)).sum() <= 5


def test_different_rendered_smooth_skies_are_never_one():
    thumbs = []
    for genus, seed in itertools.product(('Stratus', 'Altostratus'), range(40)):
        img = render_sky(genus, seed=seed, size=128)
        thumbs.append(np.asarray(img.convert('L').resize((96, 96), Image.Resampling.BILINEAR)))
    pairs = np.array([(a, b, 0) for a, b in itertools.combinations(range(len(thumbs)), 2)])[:2000]
    scores = verify_pairs(np.stack(thumbs), pairs)
    assert ((scores >= (0.65, 0.74)).all(1)).sum() <= 5


@pytest.fixture
def judged():
    "Pairs that a person judged."
    return pd.read_csv(Path(__file__).with_name('ccsn_pairs.csv'), comment='#')


@pytest.fixture(params=['judged photos', pytest.param('all photos', marks=pytest.mark.soak)])
def real_photos(request, ccsn, judged, tmp_path):
    "The photos of these pairs, or the whole database."
    if request.param == 'all photos':
        return ccsn
    for photo in {*judged.a, *judged.b}:
        (tmp_path / photo).parent.mkdir(exist_ok=True)
        shutil.copy(ccsn / photo, tmp_path / photo)
    return tmp_path


def test_what_ccsn_has_twice(real_photos, judged):
    found = find_duplicates(real_photos, progress=False)
    print(found.summary())
    exact = [g for g in found.groups if g.kind == 'exact']
    by_bytes = {}
    for photo, _ in Dataset(real_photos).photos():
        by_bytes.setdefault(hashlib.sha256((real_photos / photo).read_bytes()).hexdigest(), []).append(photo)
    copies = [set(photos) for photos in by_bytes.values() if len(photos) > 1]
    assert all(any(photos <= set(g.photos) for g in found.groups) for photos in copies)
    assert 15 <= len(exact) <= len(copies)
    assert not found.unreadable
    one, told = (
        {frozenset(pair) for pair in pairs}
        for pairs in (
            judged[judged.kind != 'burst'][['a', 'b']].itertuples(index=False, name=None),
            (pair for g in found.groups for pair in itertools.combinations(g.photos, 2)),
        )
    )
    assert len(one & told) / len(one) >= 0.95
    assert len(one & told) / len(told) >= 0.95


def test_groups_are_told_as_json(tmp_path, command):
    import json

    make_samples(tmp_path / 'skies', per_genus=3, size=160, genera=['Cirrus', 'Cumulus'])
    first = sorted((tmp_path / 'skies' / 'Cirrus').iterdir())[0]
    (tmp_path / 'skies' / 'Cumulus' / 'copy.jpg').write_bytes(first.read_bytes())
    (tmp_path / 'skies' / 'Cumulus' / 'broken.jpg').write_text('<html>')
    page = tmp_path / 'page.html'
    status, out, _ = command('duplicates', tmp_path / 'skies', '--json', '--html', page)
    assert status == 0
    told = json.loads(out)
    photos = [f'Cirrus/{first.name}', 'Cumulus/copy.jpg']
    assert told['groups'] == [{'photos': photos, 'labels': ['Cirrus', 'Cumulus'], 'kind': 'exact', 'conflict': True}]
    assert list(told['unreadable']) == ['Cumulus/broken.jpg']
    assert 'Cirrus or Cumulus?' in page.read_text()
    assert command('duplicates', tmp_path / 'nowhere')[0] == 2


def test_an_empty_dataset_has_no_copies(tmp_path):
    assert find_duplicates(tmp_path).groups == []
    assert write_page(find_duplicates(tmp_path), tmp_path, tmp_path / 'page.html').exists()


def test_names_are_no_markup(tmp_path):
    folder = tmp_path / 'skies' / '<b>Ci & Co'
    folder.mkdir(parents=True)
    render_sky('Cirrus', seed=1, size=128).save(folder / "a'\"<i>.jpg")
    render_sky('Cirrus', seed=1, size=128).save(folder / 'b#?%.jpg')
    text = write_page(find_duplicates(tmp_path / 'skies'), tmp_path / 'skies', tmp_path / 'page.html').read_text()
    assert '<b>Ci' not in text
    assert '<i>' not in text
    assert 'b%23%3F%25.jpg' in text


def test_many_hashes_are_searched_through_lists():
    "Above the limit an inverted index takes over, and still finds nearly all that differ in a few bits."
    chance = np.random.default_rng(0)
    bits = chance.integers(0, 2, (21_000, 64), dtype=np.uint8)
    bits[20_000:] = bits[:1000]
    for row in bits[20_000:]:
        row[chance.choice(64, 4, replace=False)] ^= 1
    hashes = np.repeat(np.packbits(bits, axis=1)[:, None], 13, 1)
    pairs = {(a, b) for a, b, _ in candidates(hashes, HashLimits(6, 6, 6)).tolist()}
    assert np.mean([(i, 20_000 + i) in pairs for i in range(1000)]) > 0.9


def test_a_fingerprint_does_not_depend_on_where_a_photo_lies(tmp_path):
    photos = [tmp_path / 'one.jpg', tmp_path / 'elsewhere' / 'two.jpg']
    photos[1].parent.mkdir()
    for photo in photos:
        render_sky('Cumulus', seed=2, size=160).save(photo)
    one, two = (fingerprint(open_image(photo)).tobytes() for photo in photos)
    assert one == two


@pytest.mark.parametrize('sides', [(1, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0), (1, 1, 1, 1)])
def test_a_cropped_photo_has_nearly_the_hash_of_one_less_its_edge(sides):
    "Within the limit that is used where photos are many."
    near = []
    for genus, seed in itertools.product(('Cirrus', 'Altocumulus', 'Cumulus', 'Stratocumulus'), range(5)):
        grey = render_sky(genus, seed=seed, size=256).convert('L')
        left, top, right, bottom = (8 * side for side in sides)
        bits = turned_hashes(grey.crop((left, top, 256 - right, 256 - bottom)))[0]
        thumb = np.asarray(grey.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BILINEAR))
        near.append(min(np.unpackbits(trimmed_hashes(thumb) ^ bits, axis=1).sum(1)) <= MANY_PHOTOS_LIMITS.trimmed)
    assert np.mean(near) >= 0.9


@pytest.fixture
def remembering(tmp_path):
    "A dataset with a manifest, a copy and a file that is no photo; the names whose bytes are decoded are listed."
    make_samples(tmp_path / 'skies', per_genus=3, size=128, genera=['Cirrus', 'Cumulus'])
    first = sorted((tmp_path / 'skies' / 'Cirrus').iterdir())[0]
    (tmp_path / 'skies' / 'Cumulus' / 'copy.jpg').write_bytes(first.read_bytes())
    (tmp_path / 'skies' / 'Cumulus' / 'broken.jpg').write_text('<html>')
    dataset = Dataset(tmp_path / 'skies')
    dataset.sync(progress=False)
    return dataset


def counted(monkeypatch, cut_off_after=10**9):
    "A list that grows with each photo that is looked at."
    from cloud_classifier.data import duplicates

    seen, real = [], duplicates.inspect_photo

    def inspect_photo(file, *args, **kwargs):
        if len(seen) >= cut_off_after:
            raise KeyboardInterrupt
        seen.append(file.name)
        return real(file, *args, **kwargs)

    monkeypatch.setattr(duplicates, 'inspect_photo', inspect_photo)
    return seen


def test_a_second_search_looks_only_at_what_is_new(remembering, monkeypatch):
    first = find_duplicates(remembering, progress=False)
    seen = counted(monkeypatch)
    again = find_duplicates(remembering, progress=False)
    assert again == first
    assert seen == ['broken.jpg']  # no fingerprint of it could be kept
    render_sky('Cirrus', seed=77, size=128).save(remembering.path / 'Cirrus' / 'new.png')
    photo = sorted((remembering.path / 'Cirrus').glob('*.jpg'))[1]
    render_sky('Cirrus', seed=78, size=128).save(photo)  # other bytes under a known name
    found = find_duplicates(remembering, progress=False)
    assert sorted(seen[1:]) == sorted(['broken.jpg', 'new.png', photo.name])
    assert found.looked_at == first.looked_at + 1


def test_a_search_that_is_cut_off_goes_on(remembering, monkeypatch):
    from cloud_classifier.data import duplicates

    monkeypatch.setattr(duplicates, 'BATCH', 2)
    with monkeypatch.context() as m:
        counted(m, cut_off_after=4)
        with pytest.raises(KeyboardInterrupt):
            find_duplicates(remembering, progress=False)
    kept = len(remembering.manifest.cache_get(FINGERPRINT_KIND))
    assert kept >= 2
    seen = counted(monkeypatch)
    found = find_duplicates(remembering, progress=False)
    assert len(seen) <= 8 - kept
    assert [len(g.photos) for g in found.groups] == [2]


def test_looking_leaves_no_trace_where_there_is_no_manifest(tmp_path):
    make_samples(tmp_path / 'skies', per_genus=2, size=96, genera=['Cirrus', 'Cumulus'])
    before = sorted(tmp_path.rglob('*'))
    find_duplicates(tmp_path / 'skies', progress=False)
    assert sorted(tmp_path.rglob('*')) == before


def plain(folder, many):
    "Photos without any feature, no two of the same bytes."
    for i in range(many):
        (folder / 'AB'[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (100 + i % 7, 100), (i % 256,) * 3).save(folder / 'AB'[i % 2] / f'{i}.png')
    return folder


@pytest.mark.parametrize('many', [1, 2, 40])
def test_plain_photos_are_no_copies_of_each_other(tmp_path, many):
    found = find_duplicates(plain(tmp_path / 'grey', many), progress=False)
    assert (found.groups, found.series, found.looked_at) == ([], [], many)


def test_plain_photos_are_not_compared_each_with_each(tmp_path, monkeypatch):
    from cloud_classifier.data import duplicates

    compared = []
    monkeypatch.setattr(duplicates, 'similarity', lambda a, b: compared.append(len(a)) or np.zeros((len(a), 2)))
    find_duplicates(plain(tmp_path / 'grey', 200), progress=False)
    assert sum(compared) == 0


def test_plain_photos_of_equal_pixels_are_one(tmp_path):
    plain(tmp_path / 'grey', 4)
    Image.open(tmp_path / 'grey/A/0.png').save(tmp_path / 'grey/B/again.png', compress_level=1)
    assert [g.photos for g in find_duplicates(tmp_path / 'grey', progress=False).groups] == [['A/0.png', 'B/again.png']]


def test_photos_in_other_formats_are_counted(tmp_path, no_heic):
    plain(tmp_path / 'grey', 2)
    (tmp_path / 'grey/A/phone.heic').touch()
    found = find_duplicates(tmp_path / 'grey', progress=False)
    assert list(found.unreadable) == ['A/phone.heic']
    assert 'HEIC' in found.unreadable['A/phone.heic']


def test_the_page_is_written_where_there_was_no_folder(tmp_path):
    found = find_duplicates(plain(tmp_path / 'grey', 2), progress=False)
    assert write_page(found, tmp_path / 'grey', tmp_path / 'new' / 'sub' / 'page.html').exists()


def test_a_page_for_which_there_is_no_room_leaves_nothing(tmp_path, small_disk):
    found = find_duplicates(plain(tmp_path / 'grey', 2), progress=False)
    (small_disk / 'page.html').write_text('the last one')
    with open(small_disk / 'rest', 'wb', buffering=0) as file:
        while file.write(bytes(1 << 16)) == 1 << 16:  # a write that does not end whole is the last there is room for
            pass
    with pytest.raises(OSError, match='space'):
        write_page(found, tmp_path / 'grey', small_disk / 'page.html')
    assert sorted(f.name for f in small_disk.iterdir()) == ['page.html', 'rest']
    assert (small_disk / 'page.html').read_text() == 'the last one'


def test_a_read_only_dataset_is_searched(remembering, read_only):
    assert [len(g.photos) for g in find_duplicates(read_only(remembering.path), progress=False).groups] == [2]


def test_a_manifest_without_room_only_costs_the_memory(remembering, monkeypatch, caplog):
    from cloud_classifier.data.dataset import BadManifest, Manifest

    def cache_put(*_):
        raise BadManifest('manifest.db: database or disk is full')

    monkeypatch.setattr(Manifest, 'cache_put', cache_put)
    assert [len(g.photos) for g in find_duplicates(remembering, progress=False).groups] == [2]
    assert 'disk is full' in caplog.text


def test_names_that_are_no_text_and_control_characters_are_shown(tmp_path):
    folder = tmp_path / 'skies' / 'Ci'
    folder.mkdir(parents=True)
    names = [os.fsdecode(b'\xff.jpg'), 'a\n\x1b[31m\u202eb.jpg']
    try:
        for name in names:
            render_sky('Cirrus', seed=1, size=128).save(folder / name)
    except OSError:
        pytest.skip('this file system knows only text')
    (folder / 'c.jpg').write_bytes((folder / names[1]).read_bytes())
    found = find_duplicates(tmp_path / 'skies')
    assert list(found.unreadable) == ['Ci/\\xff.jpg']  # no table can hold it: it is named, not compared
    page = write_page(found, tmp_path / 'skies', tmp_path / 'page.html').read_text('utf-8')
    assert 'Ci/a\ufffd\ufffd[31m\ufffdb.jpg' in page
    assert '\x1b' not in page
    assert '\u202e' not in page
    assert 'skies/Ci/a%0A%1B%5B31m%E2%80%AEb.jpg' in page
