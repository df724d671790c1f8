"Small copies are a convenience: where none can be kept, that is said once and the photos are read."

import hashlib
import logging

import pytest

from cloud_classifier.images import Preprocess
from cloud_classifier.training.dataloaders import PhotoCache


@pytest.fixture
def photos(skies):
    "Photos and their SHA-256."
    return {photo: hashlib.sha256(photo.read_bytes()).hexdigest() for photo in sorted(skies.rglob('*.jpg'))}


def refused(cache, photos, caplog):
    "Fill a cache; what it says of it."
    with caplog.at_level(logging.WARNING):
        done = cache.fill('square', photos, Preprocess(64), progress=False)
    assert done['bad'] + done['made'] == len(photos)
    assert done['bad']
    assert caplog.text.count("small copies can't be kept there") == 1
    return done


def test_a_cache_that_is_a_file(photos, tmp_path, monkeypatch, caplog):
    (tmp_path / 'cache').write_text('not a folder')
    monkeypatch.setenv('CLOUD_CACHE', str(tmp_path / 'cache'))
    refused(PhotoCache(), photos, caplog)
    assert (tmp_path / 'cache').read_text() == 'not a folder'


def test_a_cache_that_is_read_only(photos, tmp_path, read_only, caplog):
    (tmp_path / 'cache').mkdir()
    refused(PhotoCache(read_only(tmp_path / 'cache')), photos, caplog)


def test_a_cache_without_room_leaves_no_half_copy(photos, small_disk, caplog):
    (small_disk / 'rest').write_bytes(bytes(900_000))
    refused(PhotoCache(small_disk), photos, caplog)
    assert not [f for f in small_disk.rglob('*') if f.suffix == '.tmp']
