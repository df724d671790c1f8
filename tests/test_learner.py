"Backbones by name, timm's weights from a server, and what training reads instead of photos."

import hashlib
import logging
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from fastai.torch_core import set_seed
from PIL import Image

from cloud_classifier.data.sampling import split
from cloud_classifier.images import Preprocess
from cloud_classifier.prediction.export import check_parity, export_model
from cloud_classifier.prediction.infer import CloudClassifier
from cloud_classifier.training.config import BadConfig, NoWeights
from cloud_classifier.training.dataloaders import PhotoCache, cloud_dls
from cloud_classifier.training.learner import check_size, cloud_learner, imagenet_weights, preprocess_for
from cloud_classifier.training.run import train


@pytest.fixture(scope='module')
def parts(skies):
    return split(skies)


BACKBONES = ['resnet18', 'mobilenet_v3_small', 'efficientnet_b0', 'convnext_tiny', 'swin_t']
OF_TIMM = ['timm/test_resnet', 'test_efficientnet', 'test_convnext.r160_in1k', 'test_vit']


@pytest.mark.parametrize('arch', BACKBONES + OF_TIMM)
def test_a_backbone_by_name_takes_a_batch_and_learns_its_head_first(parts, arch):
    learn = cloud_learner(cloud_dls(parts, preprocess_for(arch, 64), bs=4), arch, 'none')
    check_size(learn, arch, 64)
    x, y = learn.dls.one_batch()
    learn.loss_func(learn.model.train()(x), y).backward()
    assert all(p.grad is not None for p in learn.model[1].parameters())
    learn.freeze()
    assert all(p.requires_grad for p in learn.model[1].parameters())
    assert not next(learn.model[0].parameters()).requires_grad


def test_a_backbone_of_timm_becomes_a_file_that_says_the_same(parts, tmp_path):
    preprocess = preprocess_for('test_convnext', 64)
    learn = cloud_learner(cloud_dls(parts, preprocess, bs=4), 'test_convnext', 'none')
    file = export_model(learn, tmp_path / 'clouds.onnx')
    assert check_parity(learn, file, parts.files('test')) < 1e-4
    assert CloudClassifier(file).preprocess == preprocess == Preprocess(64, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(
    ('arch', 'says'),
    [
        ('vit_b_16', "fastai can't put a head on vit_b_16"),
        ('vit_tiny_patch16_224', 'does not take squares of 64 pixels'),
        ('timm/test_mambaout', 'another backbone'),
        ('resnet_34', 'did you mean resnet34'),
        ('timm/test_vit.r161_in1k', 'did you mean test_vit.r160_in1k'),
        ('test_vit.', 'did you mean test_vit.r160_in1k'),
        ('', 'did you mean'),
    ],
)
def test_a_backbone_that_will_not_do_is_named_in_one_line(parts, arch, says):
    with pytest.raises(BadConfig) as raised:
        check_size(cloud_learner(cloud_dls(parts, preprocess_for(arch, 64), bs=4), arch, 'none'), arch, 64)
    assert says in str(raised.value)
    assert '\n' not in str(raised.value)


def test_weights_of_timm_are_downloaded_once_and_really_used(hub, skies, tiny_state, tmp_path):
    "From the hub to a run, with the means and deviations that timm's weights were made with."
    settings = {'arch': 'timm/test_resnet', 'size': 64, 'epochs': 1, 'bs': 8, 'progress': False, 'cache': False}
    run = train(skies, 'one_cycle', out=tmp_path / 'run', **settings)
    learn = run.learner()
    for name, was in learn.model[0].model.state_dict().items():
        if was.ndim == 4:  # fastai trains batch normalisation in a frozen body too
            assert torch.equal(was, tiny_state[name]), name
    assert run.preprocess == Preprocess(64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    hub['asked'].clear()
    hub['status'] = 500
    assert torch.equal(imagenet_weights('timm/test_resnet')['conv1.0.weight'], tiny_state['conv1.0.weight'])
    assert not hub['asked']  # from the cache


@pytest.mark.parametrize('status', [404, 500, 403])
def test_weights_that_a_hub_does_not_give_are_asked_for_once(hub, status):
    hub['status'] = status
    with pytest.raises(NoWeights, match=r'weights of timm/test_resnet could not .*--weights none') as raised:
        imagenet_weights('timm/test_resnet')
    assert '\n' not in str(raised.value)
    assert len(hub['asked']) <= 2


def test_without_a_net_there_are_soon_no_weights(hub, monkeypatch, capfd):
    address = 'http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr('huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE', address)
    start = time.monotonic()
    with pytest.raises(NoWeights, match='--weights none'):
        imagenet_weights('timm/test_resnet')
    assert time.monotonic() - start < 10
    assert capfd.readouterr().err == ''


def test_a_model_of_timm_that_has_no_weights(hub):
    without = next(m for m in timm.list_models() if not timm.is_model_pretrained(m))
    with pytest.raises(NoWeights, match=f'timm has no weights of {without}'):
        imagenet_weights(without)


@pytest.fixture
def big(tmp_path):
    "Photos larger than the squares that are cut from them."
    from cloud_classifier.samples import make_samples

    make_samples(tmp_path / 'big', per_genus=6, size=200, genera=['Cirrus', 'Stratus', 'Cumulus'])
    return tmp_path / 'big'


def validated(dls):
    return torch.cat([torch.as_tensor(x) for x, _ in dls.valid])


def test_a_cache_changes_no_pixel_that_is_validated_on(big, tmp_path):
    parts, cache = split(big), PhotoCache(tmp_path / 'cache')
    with_copies, without = (cloud_dls(parts, Preprocess(64), bs=4, cache=o) for o in (cache, None))
    assert with_copies.copies['made'] == len(parts.part('train')) + len(parts.part('valid'))
    assert torch.equal(validated(with_copies), validated(without))


def test_a_cache_that_can_not_be_written_is_done_without(big, tmp_path, caplog):
    "A file stands where the folder should be: one line says so, and the photos themselves are read."
    (tmp_path / 'cache').write_text('')
    parts, cache = split(big), PhotoCache(tmp_path / 'cache' / 'deeper')
    dls = cloud_dls(parts, Preprocess(64), bs=4, cache=cache)
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert 'the photos themselves are read' in caplog.text
    assert dls.copies['made'] == 0
    assert torch.equal(validated(dls), validated(cloud_dls(parts, Preprocess(64), bs=4)))


def cut(copy):
    copy.write_bytes(copy.read_bytes()[:-40])


def empty(copy):
    copy.write_bytes(b'')


def zeros(copy):
    copy.write_bytes(copy.read_bytes()[:100] + bytes(copy.stat().st_size - 100))


@pytest.mark.parametrize('spoil', [cut, empty, zeros], ids=lambda f: f.__name__)
def test_copies_that_a_power_cut_spoilt_are_made_again(big, tmp_path, spoil):
    parts, cache = split(big), PhotoCache(tmp_path / 'cache')
    before = cloud_dls(parts, Preprocess(64), bs=4, cache=cache)
    content = {f: f.read_bytes() for f in cache.files()}
    for copy in content:
        spoil(copy)
    # loaders that are open already read the photos themselves
    assert torch.equal(validated(before), validated(cloud_dls(parts, Preprocess(64), bs=4)))
    assert all(len(x) for x, _ in before.train)
    again = cloud_dls(parts, Preprocess(64), bs=4, cache=cache)
    assert again.copies['made'] == len(content)
    assert {f: f.read_bytes() for f in cache.files()} == content


def test_copies_that_are_thrown_away_meanwhile_are_done_without(big, tmp_path):
    parts, cache = split(big), PhotoCache(tmp_path / 'cache')
    dls = cloud_dls(parts, Preprocess(64), bs=4, cache=cache)
    cache.clear()
    assert torch.equal(validated(dls), validated(cloud_dls(parts, Preprocess(64), bs=4)))


def test_a_photo_that_changes_gets_another_copy_and_never_a_wrong_one(big, tmp_path):
    parts, cache = split(big), PhotoCache(tmp_path / 'cache')
    cloud_dls(parts, Preprocess(64), bs=4, cache=cache)
    photo = parts.files('valid')[0]
    Image.new('RGB', (90, 80), 'red').save(photo)
    dls = cloud_dls(parts, Preprocess(64), bs=4, cache=cache)
    assert dls.copies['made'] == 1
    assert torch.equal(validated(dls), validated(cloud_dls(parts, Preprocess(64), bs=4)))
    # it changes between its checksum and its copy: no copy is made under a checksum that is not its own
    assert cache.fill('square', {photo: '0' * 64}, Preprocess(64))['bad'] == 1
    assert not cache.square('0' * 64, Preprocess(64)).exists()


def test_the_same_photo_twice_shares_a_copy(big, tmp_path):
    photo = next((big / 'Cirrus').iterdir())
    twins = [Path(shutil.copy(photo, tmp_path / f"{i}.jpg")) for i in range(8)]
    sha, cache = hashlib.sha256(photo.read_bytes()).hexdigest(), PhotoCache(tmp_path / 'cache')
    done = cache.fill('square', dict.fromkeys(twins, sha), Preprocess(64))
    assert (done['made'], done['bad']) == (1, 0)
    square = np.asarray(Image.open(cache.square(sha, Preprocess(64))))
    assert np.array_equal(square, np.asarray(Preprocess(64).square(Preprocess(64).open(photo))))


@pytest.mark.parametrize('balance', [None, 'weighted'])
def test_batches_made_at_once_are_those_that_fastai_makes_photo_by_photo(skies, tmp_path, balance):
    "To the last bit, and from the same random numbers; where a copy is spoilt, the photo itself is read."
    cache, loaders, batches = PhotoCache(tmp_path), [], []
    for _ in range(2):
        set_seed(1, reproducible=True)
        loaders.append(
            cloud_dls(split(skies), Preprocess(32), balance, bs=4, cache=cache, device='cpu', progress=False)
        )
    del loaders[1].train.create_batches
    next(iter(cache.files())).write_bytes(b'spoilt')
    for dls in loaders:
        batches.append([])
        for seed in (2, 3):  # fastai draws for the photos that are left over too, so the next epoch would be another
            set_seed(seed, reproducible=True)
            batches[-1] += dls.train
    assert len(batches[0]) == len(batches[1]) > 2
    for one, other in zip(*batches, strict=True):
        assert [type(o) for o in one] == [type(o) for o in other]
        assert all(map(torch.equal, one, other))
    assert 'create_batches' not in vars(loaders[0].test_dl(loaders[0].train_ds.items[:2]))
