"""Rendered skies: the same everywhere, whole on disk, and worth learning from."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cloud_classifier.samples import make_samples, render_sky
from cloud_classifier.taxonomy import GENERA, UnknownGenus

names = st.sampled_from(list(GENERA))
seeds = st.integers(0, 2**40)
sides = st.integers(16, 200)


def digest(size=48, seed=7):
    """A hash over the ten genera's bytes."""
    return hashlib.sha256(b"".join(render_sky(name, size, seed).tobytes() for name in GENERA)).hexdigest()


def in_another_process(code, **kw):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **kw).stdout.strip()


# -- one sky per genus, size, width and seed


def test_another_process_paints_the_same_bytes():
    code = """
import hashlib, numpy
numpy.random.seed(3)  # must not matter
from cloud_classifier.samples import render_sky
from cloud_classifier.taxonomy import GENERA
print(hashlib.sha256(b''.join(render_sky(name, 48, 7).tobytes() for name in GENERA)).hexdigest())
"""
    assert in_another_process(code, env=os.environ | {"PYTHONHASHSEED": "5"}) == digest()


def test_global_generators_are_neither_read_nor_moved():
    random.seed(1)
    np.random.seed(1)
    first = digest()
    after = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    assert after == (random.random(), np.random.random())
    assert digest() == first


@examples(40)
@given(names, sides, seeds, sides)
def test_any_size_and_aspect_always_gives_a_varied_rgb_picture(name, size, seed, width):
    sky = render_sky(name, size, seed, width)
    assert (sky.mode, sky.size) == ("RGB", (width, size))
    pixels = np.asarray(sky)
    assert pixels.min() < 250
    assert pixels.max() > 40
    assert pixels.std() > 1
    assert sky.tobytes() == render_sky(name, size, seed, width).tobytes()


@pytest.mark.parametrize("name", GENERA)
def test_ribbons_and_poles_are_painted(name):
    assert render_sky(name, 16, width=700).size == (700, 16)
    assert render_sky(name, 700, width=16).size == (16, 700)


@pytest.mark.parametrize(
    ("size", "width"), [(15, None), (-64, None), (4097, None), (64, 15), (64, 4097), (64.0, None), ("64", None)]
)
def test_other_sizes_are_refused(size, width):
    with pytest.raises(ValueError, match="whole number from 16 to 4096"):
        render_sky("Cb", size, width=width)


@examples(15)
@given(names, seeds)
def test_one_seed_looks_the_same_at_every_size(name, seed):
    """Seen at 32 pixels, a sky of 320 is nearer to the same seed's at 96 than that is to the next seed's."""

    def at_32(size, seed):
        return np.asarray(render_sky(name, size, seed).resize((32, 32), Image.Resampling.BOX)).astype(float)

    small = at_32(96, seed)
    assert np.abs(small - at_32(320, seed)).mean() < 0.5 * np.abs(small - at_32(96, seed + 1)).mean()


def test_pictures_of_one_genus_differ():
    for name in GENERA:
        assert len({render_sky(name, 32, seed).tobytes() for seed in range(6)}) == 6


@pytest.mark.parametrize("name", GENERA)
def test_every_spelling_is_the_same_sky(name):
    g = GENERA[name]
    spellings = g.name, g.abbreviation, g.name.upper(), g.aliases[0]
    skies = {render_sky(spelling, 24).tobytes() for spelling in spellings}
    assert len(skies) == 1


def test_what_is_no_genus_or_no_seed_is_refused():
    with pytest.raises(UnknownGenus, match="Cirrus"):
        render_sky("Cirruz")
    for seed in (-1, 1.5, None):
        with pytest.raises(ValueError, match="a seed is a whole number from 0 up"):
            render_sky("Ci", 32, seed)


# -- a folder of them


def contents(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_folder_for_each_genus_under_new_parents(tmp_path):
    files = make_samples(tmp_path / "new" / "skies", per_genus=2, size=16)
    assert len(files) == 20
    assert {f.parent.name for f in files} == set(GENERA)
    assert files[1] == tmp_path / "new" / "skies" / "Cirrus" / "cirrus-00042-0001.jpg"
    for f in files:
        with Image.open(f) as im:
            assert (im.format, im.mode, im.size) == ("JPEG", "RGB", (16, 16))
    assert sorted(contents(tmp_path)) == sorted(f.relative_to(tmp_path).as_posix() for f in files)


def test_pictures_are_the_documented_seeds(tmp_path):
    file = make_samples(str(tmp_path), 3, 32, seed=5, genera=["ac"], format="png")[2]
    with Image.open(file) as im:
        assert im.tobytes() == render_sky("Ac", 32, seed=5_000_002).tobytes()


def test_a_second_call_touches_nothing(tmp_path):
    files = make_samples(tmp_path, 2, 16)
    stamps = [f.stat().st_mtime_ns for f in files]
    assert make_samples(tmp_path, 2, 16) == files
    assert [f.stat().st_mtime_ns for f in files] == stamps


@examples(10)
@given(st.data())
def test_whatever_was_lost_or_cut_off_always_comes_back(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("skies")
    files = make_samples(folder, 2, 16, genera=("Ci", "Cu"))
    whole = contents(folder)
    for f in files:
        cut = data.draw(st.none() | st.integers(0, f.stat().st_size - 3), label=f.name)
        if cut is None:
            f.unlink()
        else:
            f.write_bytes(f.read_bytes()[:cut])
    make_samples(folder, 2, 16, genera=("Ci", "Cu"))
    assert contents(folder) == whole


@pytest.mark.usefixtures('forked')
def test_a_killed_run_is_completed(tmp_path):
    code = "import sys; from cloud_classifier.samples import make_samples; make_samples(sys.argv[1], 50, 32)"
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "killed")])
    waited = time.monotonic() + 60
    while len(list(tmp_path.glob("killed/*/*.jpg"))) < 10 and time.monotonic() < waited:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL  # it had not finished
    done = len(list(tmp_path.glob("killed/*/*.jpg")))
    assert 10 <= done < 500
    make_samples(tmp_path / "killed", 12, 32)
    make_samples(tmp_path / "straight", 12, 32)
    again, straight = contents(tmp_path / "killed"), contents(tmp_path / "straight")
    assert {name: again[name] for name in straight} == straight


@pytest.mark.parametrize("stopped", [KeyboardInterrupt(), OSError("disk full")])
def test_an_interrupted_write_leaves_no_temporary_file(tmp_path, monkeypatch, stopped):
    def replace(part, target):
        assert part.exists()
        assert not target.exists()
        raise stopped

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(type(stopped)):
        make_samples(tmp_path, 1, 16, genera=["St"])
    assert contents(tmp_path) == {}


def test_another_size_is_painted_anew(tmp_path):
    (file,) = make_samples(tmp_path, 1, 16, genera=["St"])
    make_samples(tmp_path, 1, 24, genera=["St"])
    with Image.open(file) as im:
        assert im.size == (24, 24)


def test_mistakes_are_named_before_anything_is_written(tmp_path):
    for wrong, error in (
        (dict(genera=["Ci", "Cumuluz"]), UnknownGenus),
        (dict(format="xyz"), ValueError),
        (dict(seed=-1), ValueError),
        (dict(size=8), ValueError),
        (dict(per_genus=-1), ValueError),
    ):
        with pytest.raises(error):
            make_samples(tmp_path / "skies", **wrong)
        assert not (tmp_path / "skies").exists(), wrong


# -- worth learning from


def features(pixels):
    """How bright and how blue skies are, and how much that changes from pixel to pixel at five scales: (n, 74)."""
    out = []
    for plane in (pixels.mean(3), pixels[..., 2] - pixels[..., 0]):
        out.extend(np.percentile(plane[:, ::2, ::2], (2, 10, 25, 50, 75, 90, 98), axis=(1, 2)))
        for _ in range(5):
            for axis in (1, 2):
                change = np.abs(np.diff(plane, axis=axis))
                half = change.shape[1] // 2
                for statistic in (change[:, :half].mean((1, 2)), change[:, half:].mean((1, 2)), change.std((1, 2))):
                    out.append(np.log(statistic + 0.002))
            side = plane.shape[1] // 2
            plane = plane.reshape(-1, side, 2, side, 2).mean((2, 4))
    return np.stack(out, 1)


TRAIN, TEST = 40, 15  # skies of each genus, by seeds of their own


@pytest.fixture(scope="module")
def skies():
    """Pixels of rendered skies: (10, TRAIN + TEST, 64, 64, 3), 0 to 1."""
    rows = [[np.asarray(render_sky(name, 64, seed)) for seed in range(TRAIN + TEST)] for name in GENERA]
    return np.array(rows, np.float32) / 255


def accuracy(described, fold):
    """What a linear discriminant learns from TRAIN skies a genus: shares of right genera and levels on TEST others."""
    order = np.roll(np.arange(TRAIN + TEST), fold * TEST)
    train, test = described[:, order[:TRAIN]].astype(float), described[:, order[TRAIN:]].astype(float)
    mean, spread = train.mean((0, 1)), train.std((0, 1))
    train, test = (train - mean) / spread, (test - mean) / spread
    centres = train.mean(1)
    within = np.cov((train - centres[:, None]).reshape(10 * TRAIN, -1).T)
    to_score = np.linalg.solve(within + 0.02 * np.eye(len(within)), centres.T)  # a little ridge: 400 skies, 74 features
    guess = (test @ to_score - 0.5 * (centres.T * to_score).sum(0)).argmax(2)
    truth = np.arange(10)[:, None]
    level = np.array([g.level for g in GENERA.values()])
    return (guess == truth).mean(), (level[guess] == level[truth]).mean()


@pytest.mark.parametrize("fold", range(3))
def test_a_small_classifier_learns_them(skies, fold):
    described = np.array([features(row) for row in skies])
    genera, levels = accuracy(described, fold)
    assert genera > 0.85  # 0.92 to 0.93 when this was written
    assert levels > 0.9  # 0.97 to 0.98


def test_mean_colour_alone_does_not_tell_them_apart(skies):
    genera, levels = accuracy(skies.mean((2, 3)), fold=0)
    assert genera < 0.5
    assert levels < 0.7
