"Maps of what a network looks at, and audits that accuse a network with a shortcut and no other."

import io
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.sampling import split
from cloud_classifier.evaluation.audit import (
    FACTS,
    MIN_PHOTOS,
    VIEWS,
    Explanation,
    NoMap,
    _as_map,
    above_chance,
    audit_facts,
    audit_views,
    describe,
    explain,
    file_facts,
    probabilities_of,
    visible,
)
from cloud_classifier.images import BadImage, Preprocess
from cloud_classifier.prediction.infer import CloudClassifier
from cloud_classifier.training.dataloaders import cloud_dls
from cloud_classifier.training.learner import cloud_learner, preprocess_for


@pytest.fixture(scope='module')
def learner(run):
    "The learner of a finished run."
    return run.learner()


@pytest.fixture(scope='module')
def photo(skies):
    return next((skies / 'Cumulus').glob('*'))


# Where the signs of a label are


def by_hand(learn, pixels, column):
    "Grad-CAM in a few lines of torch."
    body, head = learn.model.eval()[0], learn.model[1]
    activations = body(torch.from_numpy(pixels)[None]).detach().requires_grad_()
    (grads,) = torch.autograd.grad(head(activations)[0, column], activations)
    cam = (grads.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu().detach()
    cam = torch.nn.functional.interpolate((cam - cam.min()) / cam.max(), pixels.shape[1:], mode='bilinear')[0, 0]
    return ((cam - cam.min()) / (cam.max() - cam.min())).numpy()


def test_the_map_is_that_of_the_paper(run, learner, skies):
    compared = 0
    for photo in sorted(skies.glob('*/*'))[::9]:
        for column, label in enumerate(learner.dls.vocab):
            found = explain(learner, photo, label)
            if found.heat.max():  # else no place speaks for this label
                assert abs(found.heat - by_hand(learner, run.preprocess(photo), column)).max() < 1e-3
                compared += 1
    assert compared > 4


def test_the_answer_is_the_learners_and_the_photo_is_what_it_saw(run, learner):
    paths, _, probs, classes, _ = run.predictions('test')
    for path, row in zip(paths[:3], probs, strict=False):
        found = explain(learner, path)
        assert (found.label, found.probability) == (classes[row.argmax()], pytest.approx(row.max(), abs=1e-5))
        shown = np.asarray(found.photo) / 255
        seen = run.preprocess(path).transpose(1, 2, 0) * run.preprocess.std + run.preprocess.mean
        assert abs(shown - seen).max() < 1e-5


def test_each_kind_of_photo_gives_the_same_map(learner, photo):
    kinds = [str(photo), photo.read_bytes(), io.BytesIO(photo.read_bytes()), Image.open(photo)]
    maps = [explain(learner, kind).heat for kind in [photo, *kinds]]
    assert all((heat == maps[0]).all() for heat in maps)


@pytest.mark.parametrize('name', ['Ci', 'CIRRUS', 'cirus', 'Cirrus clouds'])
def test_a_label_is_read_in_any_spelling(learner, photo, name):
    assert explain(learner, photo, name).label == 'Cirrus'


def state_of(model):
    "All that explaining must not change."
    return dict(
        modes=[m.training for m in model.modules()],
        learns=[p.requires_grad for p in model.parameters()],
        grads=[id(p.grad) for p in model.parameters()],
        weights=[hash(v.numpy().tobytes()) for v in model.state_dict().values()],
        hooks=[len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()],
    )


def test_the_learner_is_left_as_it_was_even_if_it_could_not_answer(run, photo, tmp_path):
    learn = run.learner()
    learn.model.train()
    [*learn.model[0].modules()][2].eval()
    for p in learn.model[0].parameters():
        p.requires_grad_(False)
    learn.model(torch.rand(2, 3, 64, 64)).sum().backward()
    learn.model[1][0].register_forward_hook(lambda *_: None)
    before = state_of(learn.model)
    bad = tmp_path / 'bad.jpg'
    bad.write_bytes(b'no photo')
    with torch.no_grad():
        assert max(explain(learn, photo, label).heat.max() for label in learn.dls.vocab) > 0.99
    probabilities_of(learn)(np.zeros((1, 3, 64, 64), np.float32))
    for wrong, error in ((dict(photo=bad), BadImage), (dict(photo=photo, label='Ct'), ValueError)):
        with pytest.raises(error):
            explain(learn, **wrong)
    with pytest.raises(NoMap, match='single place'):
        explain(learn, photo, preprocess=Preprocess(32))
    assert state_of(learn.model) == before


BACKBONES = ['mobilenet_v3_small', 'densenet121', 'swin_t', 'test_efficientnet', 'test_convnext', 'test_vit']


@pytest.mark.parametrize('arch', BACKBONES)
def test_a_frozen_network_of_any_family_has_a_map(skies, photo, arch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learn = cloud_learner(cloud_dls(split(skies), preprocess_for(arch, 96), bs=4), arch, 'none')
    learn.freeze()
    maps = [explain(learn, photo, label).heat for label in learn.dls.vocab]
    for heat in maps:
        assert (heat.shape, heat.dtype) == ((96, 96), np.float32)
        assert heat.min() == 0
        assert heat.max() == 0 or heat.max() > 0.99
    assert max(heat.max() for heat in maps) > 0.99


def test_a_network_without_a_map_says_so_in_one_line(skies, photo):
    learn = cloud_learner(cloud_dls(split(skies), preprocess_for('pit_ti_224', 224), bs=4), 'pit_ti_224', 'none')
    with pytest.raises(NoMap, match='PoolingVisionTransformer has no layer') as raised:
        explain(learn, photo)
    assert '\n' not in str(raised.value)


@given(st.integers(2, 9), st.integers(0, 5))
def test_tokens_always_find_their_places(side, extra):
    there = torch.arange(3.0 * side * side).reshape(1, 3, side, side)
    tokens = torch.cat([torch.full((1, extra, 3), -1.0), there.flatten(2).transpose(1, 2)], 1)
    assert torch.equal(_as_map(tokens, extra), there)


def test_the_colours_can_be_read_by_their_lightness_alone():
    heat = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    found = Explanation(Image.new('RGB', (64, 64), (120, 130, 160)), heat, 'Cirrus', 0.5)
    light = np.asarray(found.overlay().convert('L')).astype(int)
    assert (np.diff(light[0]) >= 0).all()
    assert light[0, -1] - light[0, 0] > 100
    assert found.overlay().size == (64, 64)
    shown = Image.open(io.BytesIO(found._repr_png_()))
    assert (shown.format, shown.height) == ('PNG', 224)


def test_what_is_missing_is_named(learner, photo, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'cloud_classifier\[explain\]'"):
        explain(learner, photo)
    fake = SimpleNamespace(model=None, dls=SimpleNamespace(vocab=['a', 'b'], after_item=SimpleNamespace(fs=[])))
    monkeypatch.undo()
    with pytest.raises(ValueError, match='preprocess=Preprocess'):
        explain(fake, photo)


def test_real_photos_have_maps(ccsn, learner):
    for photo in sorted(ccsn.glob('*/*'))[::500]:
        found = explain(learner, photo)
        assert np.isfinite(found.heat).all()
        assert found.heat.min() == 0


# What remains to be seen


@given(st.integers(8, 400))
def test_views_always_divide_the_square(size):
    seen = {name: visible(view, size) for name, view in VIEWS.items()}
    assert all((mask.shape, mask.dtype) == ((size, size), bool) for mask in seen.values())
    assert seen['all'].all()
    assert (seen['centre'] ^ seen['border']).all()
    assert (seen['top'] == seen['ground'][::-1]).all()
    assert not (seen['top'] & seen['ground']).any()


def test_the_rest_is_the_mean_colour():
    asked = []

    def probabilities(pixels):
        asked.append(pixels)
        return np.ones((len(pixels), 2)) / 2

    audit_views(probabilities, np.ones((5, 3, 12, 12), np.float32), 'ababa', 'ab', batch_size=4, n_boot=10)
    assert [len(pixels) for pixels in asked] == [4] * len(VIEWS) + [1] * len(VIEWS)
    ground = asked[list(VIEWS).index('ground')]
    assert (ground[:, :, 8:] == 1).all()
    assert not ground[:, :, :8].any()


# Beyond chance


@st.composite
def answers(draw):
    n, c = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    some = st.lists(st.integers(0, c - 1), min_size=n, max_size=n)
    return (
        np.array(draw(some)),
        np.array(draw(some)),
        np.array(draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))),
    )


@examples(50)
@given(answers())
def test_numbers_always_fit_together(drawn):
    said, truth, groups = drawn
    found = above_chance(said, truth, groups, n_boot=50)
    assert found['difference']['low'] <= found['difference']['value'] <= found['difference']['high']
    assert found['difference']['value'] == pytest.approx(found['accuracy']['value'] - found['chance'])
    assert found['accuracy']['value'] == (said == truth).mean()
    names = np.array(['x', 'y', 'a', 'b', 'c'])  # other names, in another order
    assert above_chance(names[said], names[truth], groups, n_boot=50) == found
    assert not above_chance(said * 0, truth, groups, n_boot=50)['above_chance']


@examples(25)
@given(answers(), st.integers(2, 5))
def test_copies_never_make_a_finding_surer(drawn, copies):
    said, truth, _ = drawn
    once = above_chance(said, truth, n_boot=50)
    often = above_chance(*(np.repeat(o, copies) for o in (said, truth, np.arange(len(said)))), n_boot=50)
    assert often['difference'] == pytest.approx(once['difference'])
    assert often['above_chance'] == once['above_chance']


def simulated(seed, tie, c=6):
    "Small squares of scenes whose sky shows the class, and whose ground does in a share `tie` of the scenes."
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(70), rng.integers(1, 4, 70))
    truth = rng.choice(c, 70, p=rng.dirichlet(np.full(c, 4.0)))
    ground = np.where(rng.random(70) < tie, truth, rng.choice(c, 70, p=rng.dirichlet(np.full(c, 2.0))))
    pixels = np.zeros((len(scene), 3, 9, 9), np.float32)
    pixels[:, :, :5], pixels[:, :, 6:] = (o[scene, None, None, None] + 1 for o in (truth, ground))
    return pixels, truth[scene], scene


def reads(pixels):
    "Answers by the sky, or by the ground where no sky is to be seen."
    said = np.where(pixels[:, 0, 2, 4] > 0, pixels[:, 0, 2, 4], pixels[:, 0, 8, 4]) - 1
    return np.eye(6)[said.clip(min=0).astype(int)]


def test_a_ground_that_says_nothing_is_seldom_accused_and_one_that_does_is():
    views = {'ground': VIEWS['ground']}

    def accused(tie, seeds):
        found = []
        for seed in range(seeds):
            pixels, truth, scene = simulated(seed, tie)
            found += audit_views(reads, pixels, truth, range(6), scene, views=views, n_boot=200)
        return np.mean([o['above_chance'] for o in found])

    assert accused(0, 120) <= 0.05
    assert accused(0.5, 20) >= 0.95


GROUND = {'Cirrus': (150, 70, 130), 'Stratus': (60, 130, 50), 'Cumulus': (220, 200, 30)}


def on_the_ground(photo, colour):
    img = Image.open(photo).convert('RGB')
    img.paste(colour, (0, 3 * img.height // 4, img.width, img.height))
    return img


def test_a_network_that_looks_at_the_ground_is_caught_on_rendered_skies(skies):
    "The same network, by the colour below: once each genus has ground of its own, once ground is dealt out at random."
    preprocess, rng = Preprocess(64), np.random.default_rng(0)
    colours = np.array([(np.array(c) / 255 - preprocess.mean) / preprocess.std for c in GROUND.values()])

    def nearest(pixels):
        below = pixels[:, :, -8:].mean((2, 3))
        return np.eye(3)[((below[:, None] - colours) ** 2).sum(2).argmin(1)]

    photos = sorted(skies.glob('*/*'))
    labels = [p.parent.name for p in photos]
    tied = [on_the_ground(p, GROUND[label]) for p, label in zip(photos, labels, strict=True)]
    dealt = [on_the_ground(p, GROUND[label]) for p, label in zip(photos, rng.permutation(labels), strict=True)]
    found = [audit_views(nearest, o, labels, list(GROUND), preprocess=preprocess) for o in (tied, dealt)]
    tied, dealt = ({o['view']: o['above_chance'] for o in findings} for findings in found)
    assert (tied['ground'], tied['top'], dealt['ground']) == (True, False, False)
    assert sum('something else carries' in line for line in describe(found[0])) == 1


def test_learner_and_file_are_audited_alike(run, learner, model):
    "The photos as they are, and their pixels; the learner, and the file that was exported from it."
    paths, labels, probs, classes, groups = run.predictions('test')
    clouds = CloudClassifier(model)
    pixels = [run.preprocess(p) for p in paths]
    a = audit_views(probabilities_of(learner), paths, labels, classes, groups, run.preprocess)
    b = audit_views(clouds.probabilities, pixels, labels, classes, groups, batch_size=2)
    assert a == b
    assert a[0]['accuracy']['value'] == (probs.argmax(1) == [classes.index(o) for o in labels]).mean()


def test_what_does_not_fit_is_refused():
    pixels = np.zeros((2, 3, 9, 9), np.float32)
    with pytest.raises(ValueError, match="does not know the class 'Ct'; its classes are Cirrus, Stratus"):
        audit_views(reads, pixels, ['Ct', 'Cirrus'], ['Cirrus', 'Stratus'])
    with pytest.raises(ValueError, match='2 answers and 1 labels'):
        audit_views(reads, pixels, ['Cirrus'], ['Cirrus', 'Stratus'])
    with pytest.raises(ValueError, match='0 answers and 0 labels'):
        audit_views(reads, [], [], ['Cirrus', 'Stratus'])


# What the file alone tells


def rows(labels, **facts):
    return pd.DataFrame(dict(label=list(labels), **{k: list(v) for k, v in facts.items()}))


def test_a_table_says_the_commonest_label_of_a_value_and_the_commonest_of_all_elsewhere():
    train = rows('aaabbbb', size=['s', 's', 'l', 'l', 'l', 's', 'l'], kind=['x', 'y'] * 3 + ['z'])
    test = rows('aabbab', size=['s', 's', 'l', 'l', 'new', 'new'], kind=['x', 'y', None, 'z', 'x', 'y'])
    by_size, by_kind = audit_facts(train, test, ['size', 'kind'])
    assert by_size['accuracy']['value'] == pytest.approx(5 / 6)
    assert (by_size['unseen'], by_size['values']) == (pytest.approx(2 / 6), 3)
    assert by_kind['accuracy']['value'] == pytest.approx(5 / 6)  # x: a, y: b, z: b, not known: b
    assert by_kind['unseen'] == pytest.approx(1 / 6)


def test_facts_that_say_nothing_are_seldom_accused_and_those_that_do_are():
    def accused(tie, seeds):
        found = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            truth = rng.choice(list('abcde'), 300, p=[0.4, 0.2, 0.2, 0.1, 0.1])
            source = np.where(rng.random(300) < tie, truth, rng.choice(list('abcde'), 300))
            table = rows(truth, source=source, group=rng.integers(0, 120, 300))
            found += audit_facts(table[:150], table[150:], ['source'], n_boot=200)
        return np.mean([o['above_chance'] for o in found])

    assert accused(0, 60) <= 0.05
    assert accused(0.4, 20) >= 0.95


def test_the_network_is_judged_by_the_commonest_values():
    size = ['s'] * 50 + ['l'] * 40 + ['odd'] * (MIN_PHOTOS - 1)
    table = rows(['a', 'b'] * 54 + ['a'], size=size)
    right = np.r_[np.ones(45), np.zeros(5), np.zeros(38), np.ones(2), np.ones(MIN_PHOTOS - 1)]
    (found,) = audit_facts(table, table, ['size'], right=right)
    assert [(o['value'], o['n'], o['accuracy']['value']) for o in found['by_value']] == [
        ('s', 50, 0.9),
        ('l', 40, 0.05),
    ]
    said = describe([found])
    assert said[1].startswith('The network is right in 90% (')
    assert said[1].endswith('of the 40 photos whose size is l.')
    with pytest.raises(ValueError, match='109 and 109 photos'):
        audit_facts(table, table, ['size'], right=right[1:])


def test_facts_come_from_the_first_bytes_and_from_the_manifest(tmp_path):
    for i, (name, kind) in enumerate((('a.jpg', 'JPEG'), ('b.png', 'PNG'), ('c.webp', 'WEBP'))):
        folder = tmp_path / ('Ci', 'Cu')[i % 2]
        folder.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6  # upright, it is taller than wide
        Image.new('RGB', (40, 30), (i, 90, 200)).save(
            folder / name, kind, **(dict(exif=exif) if kind == 'JPEG' else {})
        )
    (tmp_path / 'Cu' / 'd.jpg').write_bytes(b'no photo')
    paths = ['Cu/d.jpg', 'Ci/c.webp', 'Ci/a.jpg', 'Cu/b.png']
    bare = file_facts(tmp_path, paths)
    assert bare.path.tolist() == paths
    assert bare.resolution.tolist() == ['', '40 x 30', '30 x 40', '40 x 30']
    assert bare.format.tolist() == ['', 'WEBP', 'JPEG', 'PNG']
    assert set(bare.source) == set(bare.author) == {''}
    Dataset(tmp_path).sync(progress=False, source='archive', author='Luke')
    known = file_facts(tmp_path, paths)
    assert known[known.path == 'Ci/a.jpg'].iloc[0].tolist() == ['Ci/a.jpg', '30 x 40', 'JPEG', 'archive', 'Luke']
    assert list(known.columns) == ['path', *FACTS]


# In words


def finding(value, chance, low, **more):
    share = dict(value=value, low=value - 0.06, high=value + 0.06)
    difference = dict(value=value - chance, low=low, high=value - chance + 0.06)
    return dict(accuracy=share, chance=chance, difference=difference, above_chance=low > 0, **more)


def test_a_finding_is_a_sentence():
    ground = dict(view='ground', title='only the lower third', suspect=True)
    source = dict(fact='source', only=None, by_value=[])
    lines = describe(
        [
            finding(0.31, 0.14, 0.11, **ground),
            finding(0.16, 0.14, -0.04, **ground),
            finding(0.24, 0.15, 0.031, **source),
            dict(fact='format', only='JPEG'),
            dict(fact='author', only=''),
        ]
    )
    assert lines == [
        'With only the lower third of the photos visible the first answer is still right in 31% (25% to 37%), '
        'more than the 14% of chance (by 11.0 to 23.0 points): where no cloud is to be seen there, something else '
        'carries part of the score.',
        'With only the lower third of the photos visible the first answer is right in 16% (10% to 22%), '
        'not clearly more than the 14% of chance.',
        'From the source of the file alone the guess is right in 24% (18% to 30%), more than the 15% of chance '
        '(by 3.1 to 15.0 points): a network that sees traces of the source can know the genus from them.',
        'All photos have the same format, JPEG, which tells nothing.',
        'The author of no photo is known.',
    ]
