"Sentences about sampling that say always or never."

import copy
import json
import pickle
import random
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastcore.foundation import L
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cloud_classifier.dataset import BadDataset, Dataset
from cloud_classifier.samples import make_samples
from cloud_classifier.sampling import (
    Split,
    _deal,
    balance,
    certificate,
    equal_frame,
    folds,
    get_equal_images,
    load_split,
    save_split,
    split,
)

LABELS = ['Cirrus', 'Stratus', 'Ct']
CLASS = st.lists(st.integers(1, 3), min_size=3, max_size=30)  # sizes of a class's groups


def scanned(groups):
    "What `Dataset.scan` would see: for each label, groups of so many photos of the same bytes."
    rows = [
        (f'{label}/{g}-{i}.jpg', label, f'{label}{g:02}'.ljust(64, '0'), 'ok', '')
        for label, sizes in groups.items()
        for g, size in enumerate(sizes)
        for i in range(size)
    ]
    return pd.DataFrame(rows, columns=['path', 'label', 'sha256', 'status', 'reason'])


@pytest.fixture(scope='module')
def three(tmp_path_factory):
    "A dataset whose photos are only names."
    root = tmp_path_factory.mktemp('names')
    for label in LABELS:
        (root / label).mkdir()
        for i in range(3):
            (root / label / f'{i}.jpg').touch()
    return Dataset(root)


@given(
    st.fixed_dictionaries({label: CLASS for label in LABELS}),
    st.integers(0, 9),
    st.floats(0.05, 0.45),
    st.floats(0.05, 0.45),
)
@settings(max_examples=60, deadline=None)
def test_a_split_never_divides_a_group_and_always_fills_each_part(three, groups, seed, valid, test):
    scan = scanned(groups)
    parts = split(three, valid, test, seed, scan, group_by=())
    assert (parts.frame.groupby('group').part.nunique() == 1).all()
    assert parts.crossing() == []
    assert (parts.counts()[['train', 'valid', 'test']] > 0).all(axis=None)
    assert list(parts.frame.path) == list(scan.path)  # complete: every photo once, and so in one part
    assert parts.frame.path.is_unique
    assert set(parts.frame.part) == {'train', 'valid', 'test'}
    assert sorted(p for part in ('train', 'valid', 'test') for p in parts.part(part).path) == sorted(scan.path)
    shuffled = scan.sample(frac=1, random_state=seed)
    assert split(three, valid, test, seed, shuffled, group_by=()).hash == parts.hash


@given(st.lists(st.integers(40, 200), min_size=3, max_size=3), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_each_class_is_divided_in_the_same_proportions(three, sizes, seed):
    parts = split(three, 0.2, 0.15, seed, scanned({label: [1] * n for label, n in zip(LABELS, sizes, strict=True)}), ())
    shares = parts.counts().div(parts.counts().sum(axis=1), axis=0)
    assert (abs(shares.valid - 0.2) < 0.02).all()
    assert (abs(shares.test - 0.15) < 0.02).all()


def test_a_conflict_is_left_out_and_a_bad_photo_too(three):
    scan = scanned({label: [1] * 10 for label in LABELS})
    scan.loc[0, 'sha256'] = scan.loc[15, 'sha256']
    scan.loc[20, 'status'] = 'truncated'
    parts = split(three, scan=scan, group_by=())
    assert list(parts.part('out').index) == [0, 15, 20]


@pytest.mark.parametrize(('valid', 'test'), [(0, 0.2), (0.2, 0), (0.6, 0.4), (-0.1, 0.2), (float('nan'), 0.2)])
def test_shares_that_leave_nothing_are_refused(three, valid, test):
    with pytest.raises(ValueError, match='leave something to train on'):
        split(three, valid, test, scan=scanned({label: [1] * 10 for label in LABELS}), group_by=())


def test_too_few_different_photos(three):
    with pytest.raises(BadDataset, match='Cirrus has 2 different photos'):
        split(three, scan=scanned({'Cirrus': [5, 4], 'Stratus': [1] * 9, 'Ct': [1] * 9}), group_by=())


@given(st.dictionaries(st.sampled_from(['Ci', 'Cs', 'St', 'Ct']), st.integers(1, 12), min_size=1), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_equal_images_are_always_equal_and_never_twice(sizes, seed):
    with tempfile.TemporaryDirectory() as root:
        for folder, n in sizes.items():
            (Path(root) / folder).mkdir()
            for i in random.Random(seed).sample(range(99), n):
                (Path(root) / folder / f'{i}.jpg').touch()
        fns = get_equal_images(root, seed=seed)
        assert len(set(fns)) == len(fns) == len(sizes) * min(sizes.values())
        assert {f.parent.name for f in fns} == set(sizes)
        assert fns == get_equal_images(root, seed=seed)


def test_the_sample_is_a_list_in_all_but_the_making(skies):
    "Paths are made when they are asked for; nobody needs to know."
    fns, plain = get_equal_images(skies, seed=1), list(get_equal_images(skies, seed=1))
    assert isinstance(plain[0], Path)
    assert fns[0] == plain[0]
    assert (len(fns), fns[-1], fns[np.int64(2)], fns[1:9:3]) == (len(plain), plain[-1], plain[2], plain[1:9:3])
    with pytest.raises(IndexError):
        fns[len(plain)]
    assert pickle.loads(pickle.dumps(fns)) == fns == plain == copy.copy(fns) == copy.deepcopy(fns) == fns.copy()
    assert all(o in fns for o in plain[:3])
    assert fns.index(plain[5]) == 5
    assert fns + plain[:1] == plain + plain[:1] == plain + fns[:1]
    assert [*reversed(fns)] == plain[::-1]
    assert list(L(fns)) == plain == L(fns).items
    assert L(fns).filter(lambda p: p.parent.name == 'Cirrus') == [p for p in plain if p.parent.name == 'Cirrus']
    assert fns[0] is not None
    assert all(a is b for a, b in zip(fns, fns, strict=True))  # they are made once
    other = copy.copy(fns)
    random.Random(0).shuffle(other)
    assert other != fns == plain
    assert sorted(other) == sorted(plain)
    other.append(Path('more.jpg'))
    del other[0]
    other[0] = Path('first.jpg')
    other.sort()
    assert len(other) == len(plain)
    assert fns == plain
    assert repr(fns[:1]) == repr(plain[:1])


def test_fastai_takes_the_sample_as_the_first_notebook_does(skies):
    data = pytest.importorskip('fastai.data.all')
    clouds = data.DataBlock(
        blocks=(data.TransformBlock, data.CategoryBlock),
        get_items=partial(get_equal_images, folders=['Cirrus', 'Stratus'], seed=0),
        splitter=data.RandomSplitter(valid_pct=0.2, seed=42),
        get_y=data.parent_label,
    )
    found = clouds.datasets(skies)
    assert sorted(found.items) == sorted(get_equal_images(skies, ['Cirrus', 'Stratus'], seed=0))
    assert isinstance(found.train[0][0], Path)
    assert list(found.vocab) == ['Cirrus', 'Stratus']


def test_without_a_seed_each_sample_is_another(skies):
    assert len({tuple(get_equal_images(skies)) for _ in range(5)}) == 5


def test_folders_are_named_in_any_spelling(skies, capsys):
    fns = get_equal_images(str(skies), folders=('st', 'cirrus'), verbose=True, seed=0)
    assert [f.parent.name for f in fns] == ['Stratus'] * 14 + ['Cirrus'] * 14
    assert capsys.readouterr().out == 'Stratus 14\nCirrus 14\n'


def test_balance_is_nested(three):
    "A larger sample keeps what a smaller one had."
    frame = scanned({'Cirrus': [1] * 30, 'Stratus': [1] * 10, 'Ct': [1] * 20})
    few = set(equal_frame(frame.drop(frame[frame.label == 'Stratus'].index[:4])).path)
    more = set(equal_frame(frame).path)
    assert {p for p in few if not p.startswith('Stratus')} <= more


def test_files_that_are_no_split(skies, tmp_path):
    for content, says in {
        'a,b\n1,2\n': 'its columns are',
        'path,label,group,part\nx.jpg,St,g,trian\n': "'trian'",
        '': 'is not a split',
    }.items():
        (tmp_path / 'split.csv').write_text(content)
        with pytest.raises(BadDataset, match=says):
            load_split(tmp_path / 'split.csv', skies)


def test_names_that_csv_might_trip_over_come_back(three, tmp_path):
    names = ['Ct/with,comma.jpg', 'Ct/"quoted".jpg', 'Ct/NA.jpg', 'Ct/line\nbreak.jpg']
    frame = pd.DataFrame({'path': names, 'label': 'Ct', 'group': '0123456789012345', 'part': 'train'})
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    parts = Split(frame, tmp_path)
    save_split(parts, tmp_path / 'split.csv')
    assert load_split(tmp_path / 'split.csv', tmp_path).hash == parts.hash


SIZES = st.lists(st.integers(1, 9), min_size=3, max_size=40)
SHARE = st.floats(0.05, 0.45)


@given(st.dictionaries(st.sampled_from(['Ci', 'Cs', 'St', 'Ct']), SIZES, min_size=2), st.integers(0, 99), SHARE, SHARE)
@settings(max_examples=80, deadline=None)
def test_each_part_ends_within_one_group_of_its_share(three, sizes, seed, valid, test):
    counts = split(three, valid, test, seed, scanned(sizes), group_by=()).counts()
    shares = {'valid': valid, 'test': test, 'train': 1 - valid - test}
    for label, groups in sizes.items():
        enough = min(shares.values()) * sum(groups) >= max(groups)  # each part is to have as much as the largest group
        for part, share in shares.items():
            off = abs(counts.loc[label, part] - share * sum(groups))
            assert off <= max(groups) * (1 if enough else 2)  # a part that would have none of a class is given a group


TIED = st.lists(st.dictionaries(st.sampled_from('abc'), st.integers(1, 4), min_size=1), min_size=3, max_size=60)


SEVEN = [
    {'a': 1},
    {'a': 1, 'b': 1, 'c': 4},
    *[{'a': 1, 'b': 1}] * 3,
    {'a': 1, 'b': 1, 'c': 2},
    {'c': 1, 'a': 1, 'b': 3},
]


@given(TIED, st.integers(0, 99), SHARE, SHARE)
@example(SEVEN, 55, 0.42602523346945925, 0.42602523346945925)  # equal shares, where rounding could decide
@settings(max_examples=80, deadline=None)
def test_groups_of_several_classes_are_dealt_whole_and_near_their_shares(groups, seed, valid, test):
    rows = [(f'g{i}', label, n) for i, group in enumerate(groups) for label, n in group.items()]
    cells = pd.DataFrame(rows, columns=['group', 'label', 'n'])
    shares = {'train': 1 - valid - test, 'valid': valid, 'test': test}
    parts = _deal(cells, shares, seed)
    assert set(parts) == set(cells.group)  # one part each
    assert parts == _deal(cells.sample(frac=1, random_state=seed), shares, seed)
    table = cells.assign(part=cells.group.map(parts)).pivot_table('n', 'label', 'part', 'sum', fill_value=0)
    for label, own in cells.groupby('label').n:
        for part, share in shares.items():
            got = table.get(part, pd.Series(dtype=int)).get(label, 0)
            assert abs(got - share * own.sum()) <= 3 * own.max()  # no promise, but this much is held


@given(st.fixed_dictionaries({label: SIZES for label in LABELS}), st.integers(0, 9), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_a_photo_never_changes_its_part_when_others_are_added(three, sizes, seed, chance):
    "The rule: the split that is extended is named, and what it knew stays."
    scan = scanned(sizes)
    few = scan[[chance.random() < 0.6 for _ in range(len(scan))]]
    if few.label.nunique() < 3 or (few.groupby('label').sha256.nunique() < 3).any():
        return
    first = split(three, seed=seed, scan=few, group_by=())
    after = split(three, seed=seed, scan=scan, group_by=(), previous=first)
    before, now = first.frame.set_index('path').part, after.frame.set_index('path').part
    assert (now[before.index] == before).all()
    assert after.crossing() == []
    assert split(three, seed=seed, scan=scan, group_by=(), previous=first).hash == after.hash


def test_what_was_drawn_once_is_drawn_again():
    "By another version of a library, too: whoever trained on a sample or a split can make it again."
    frame = scanned({'Cirrus': [1] * 12, 'Stratus': [1] * 3})
    assert list(balance(frame, seed=42).path[:3]) == ['Cirrus/3-0.jpg', 'Cirrus/8-0.jpg', 'Cirrus/11-0.jpg']
    cells = pd.DataFrame({'group': [f'g{i}' for i in range(8)], 'label': 'Cirrus', 'n': 1})
    assert (
        ''.join(_deal(cells, {'train': 0.5, 'valid': 0.25, 'test': 0.25}, 42)[g][1] for g in cells.group) == 'rerearra'
    )


COUNTS = st.dictionaries(st.sampled_from(['Ci', 'Cs', 'St', 'Ct']), st.integers(1, 40), min_size=1)
HOW = st.sampled_from([('equal', None), ('capped', None), ('capped', 1), ('capped', 7), ('weighted', None)])


def photos(sizes, part='train'):
    rows = [(f'{label}/{i}.jpg', label, part) for label, n in sizes.items() for i in range(n)]
    return pd.DataFrame(rows, columns=['path', 'label', 'part'])


@given(COUNTS, HOW, st.integers(0, 9), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_balance_gives_each_class_what_was_asked_for(sizes, how, seed, chance):
    frame = photos(sizes).sample(frac=1, random_state=seed)
    way, cap = how
    most = {'equal': min(sizes.values()), 'capped': cap or int(np.median(list(sizes.values()))), 'weighted': 99}[way]
    found = balance(frame, way, cap, seed)
    assert dict(found.groupby('label').size()) == {label: min(n, most) for label, n in sizes.items()}
    pd.testing.assert_frame_equal(found[list(frame)], frame.loc[found.index])  # rows as they were, in their order
    assert found.index.is_unique
    assert set(balance(frame.iloc[::-1], way, cap, seed).path) == set(found.path)
    if way == 'weighted':
        assert np.allclose(found.groupby('label').weight.sum(), len(frame) / len(sizes))
        assert np.isclose(found.weight.mean(), 1)


@given(COUNTS, HOW, st.integers(0, 9), st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_a_photo_that_is_added_takes_the_place_of_one_at_most(sizes, how, seed, number):
    label = min(sizes, key=lambda o: (-sizes[o], o))
    before = set(balance(photos(sizes), *how, seed).path)
    more = pd.concat(
        [photos(sizes), pd.DataFrame([(f'{label}/new{number}.jpg', label, 'train')], columns=['path', 'label', 'part'])]
    )
    if how == ('capped', None) or len(sizes) == 1:  # the cap itself may grow by one
        assert before - {f'{label}/new{number}.jpg'} - set(balance(more, *how, seed).path) <= {
            p for p in before if p.startswith(label)
        }
    else:
        after = set(balance(more, *how, seed).path)
        assert len(before - after) <= 1
        assert all(p.startswith(label) for p in before ^ after)


@given(COUNTS, HOW, st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_only_what_is_trained_on_is_balanced(sizes, how, seed):
    others = [photos(sizes, part).assign(path=lambda f, part=part: part + f.path) for part in ('valid', 'test', 'out')]
    found = balance(pd.concat([photos(sizes), *others], ignore_index=True), *how, seed)
    kept = pd.concat(others, ignore_index=True)
    pd.testing.assert_frame_equal(found[found.part != 'train'][list(kept)].reset_index(drop=True), kept)
    assert list(found.path[found.part == 'train']) == list(balance(photos(sizes), *how, seed).path)
    if how[0] == 'weighted':
        assert (found.weight[found.part != 'train'] == 0).all()


@pytest.mark.parametrize(
    ('frame', 'words', 'says'),
    [
        (photos({'Ci': 3}), {'how': 'fair'}, "by equal, capped, weighted, not 'fair'"),
        (photos({'Ci': 3}), {'how': 'capped', 'cap': 0}, 'cap is 1 photo or more, not 0'),
        (photos({'Ci': 3}), {'how': 'capped', 'cap': 1.5}, 'cap is 1 photo or more, not 1.5'),
        (photos({'Ci': 3}), {'how': 'capped', 'cap': float('nan')}, 'cap is 1 photo or more, not nan'),
        (photos({'Ci': 3}), {'how': 'capped', 'cap': '9'}, "cap is 1 photo or more, not '9'"),
        (photos({'Ci': 3}), {'how': 'equal', 'cap': 5}, "cap is for 'capped'"),
        (photos({}), {}, 'no photos to balance'),
        (photos({'Ci': 3}, 'valid'), {}, 'no photos to balance'),
        (photos({'Ci': 3})[['path']], {}, 'label is missing'),
        (pd.DataFrame(), {}, 'path and label is missing'),
    ],
)
def test_what_can_not_be_balanced_is_said_in_a_line(frame, words, says):
    with pytest.raises(ValueError, match=says) as caught:
        balance(frame, **words)
    assert '\n' not in str(caught.value)


@pytest.fixture
def searched(tmp_path):
    "Forty different photos of two classes, whose authors and pages the manifest knows."
    make_samples(tmp_path / 'skies', per_genus=20, size=96, genera=['Cirrus', 'Cumulus'])
    dataset = Dataset(tmp_path / 'skies')
    dataset.sync(progress=False)
    with dataset.manifest.transaction() as db:
        db.execute("UPDATE photos SET author = 'Ann ' || (id / 2), page = 'the whole database'")
    return dataset


def test_an_authors_photos_stay_on_one_side(searched):
    parts = split(searched, progress=False)
    authors = searched.frame().set_index('path').author
    sides = parts.frame[parts.frame.part != 'out'].set_index('path').part.groupby(authors).nunique()
    assert len(sides) == 21
    assert (sides == 1).all()
    alone = split(searched, group_by=['duplicates'], progress=False)
    assert alone.frame.group.nunique() > parts.frame.group.nunique()


def test_a_page_of_everything_is_no_tie(searched):
    parts = split(searched, group_by=['page'], progress=False)
    assert parts.frame.group.nunique() == 40


def test_copies_that_were_saved_anew_stay_on_one_side(searched):
    first = searched.listing().path[0]
    Image.open(searched.path / first).save(searched.path / 'Cirrus' / 'anew.jpg', quality=60)
    Image.open(searched.path / first).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
        searched.path / 'Cirrus' / 'mirrored.png'
    )
    parts = split(searched, group_by=['duplicates'], progress=False)
    rows = parts.frame[parts.frame.path.isin([first, 'Cirrus/anew.jpg', 'Cirrus/mirrored.png'])]
    assert rows.part.nunique() == rows.group.nunique() == 1


def test_a_conflict_is_kept_for_training_alone(searched):
    first = searched.listing().path[0]
    Image.open(searched.path / first).save(searched.path / 'Cumulus' / 'anew.jpg', quality=60)
    both = [first, 'Cumulus/anew.jpg']
    left_out = split(searched, progress=False).frame.set_index('path').part
    assert set(left_out[both]) == {'out'}
    kept = split(searched, keep_conflicts=True, progress=False)
    assert set(kept.frame.set_index('path').part[both]) == {'train'}
    assert kept.crossing() == []
    assert kept.facts['conflicts'] == 1


def test_each_photo_is_validated_on_in_one_fold(three):
    whole = split(three, scan=scanned({label: [1, 2, 1, 3] * 6 for label in LABELS}), group_by=())
    turns = folds(whole, 4)
    asked = pd.concat([turn.part('valid') for turn in turns])
    assert sorted(asked.path) == sorted(whole.frame[whole.frame.part.isin(['train', 'valid'])].path)
    for turn in turns:
        assert turn.crossing() == []
        assert set(turn.part('test').path) == set(whole.part('test').path)
        assert (turn.counts()[['train', 'valid']] > 0).all(axis=None)
    with pytest.raises(ValueError, match='2 folds or more'):
        folds(whole, 1)
    with pytest.raises(BadDataset, match='fewer groups than'):
        folds(whole, 100)


def test_the_certificate_counts_for_itself(searched, tmp_path, command):
    file = tmp_path / 'split.csv'
    status, out, _ = command('split', searched.path, '--out', file, '--seed', 7)
    assert status == 0
    assert '0 of them in two parts' in out
    said = json.loads(file.with_suffix('.json').read_text())
    frame = pd.read_csv(file, dtype=str)
    assert list(frame.columns) == ['path', 'label', 'group', 'part']
    assert said['groups'] == frame.group.nunique()
    assert (said['crossing'], said['leaks']) == (0, False)
    assert said['rule']['seed'] == 7
    assert said['rule']['group_by'] == ['duplicates', 'series', 'author', 'page']
    assert sum(sum(row.values()) for row in said['counts'].values()) == 40
    frame.loc[0, 'group'] = frame.loc[frame.part != frame.part[0], 'group'].iloc[0]
    frame.to_csv(file, index=False)
    assert certificate(load_split(file, searched.path))['leaks'] is True


def test_a_split_that_is_there_is_extended(searched, tmp_path, command):
    file = tmp_path / 'split.csv'
    assert command('split', searched.path, '--out', file)[0] == 0
    before = pd.read_csv(file, dtype=str).set_index('path').part
    make_samples(searched.path, per_genus=9, size=96, seed=5, genera=['Cirrus', 'Cumulus'])
    assert command('split', searched.path, '--out', file)[0] == 0
    after = pd.read_csv(file, dtype=str).set_index('path').part
    assert len(after) == 58
    assert (after[before.index] == before).all()
    for words in (['--valid', '0.9'], ['--group-by', 'colour']):
        status, _, err = command('split', searched.path, '--out', file, *words)
        assert status == 2
        assert 'Traceback' not in err


def test_check_names_what_has_changed(searched):
    parts = split(searched, progress=False)
    assert parts.check(progress=False) == {}
    first, second, third, *_ = searched.listing().path
    (searched.path / first).rename(searched.path / 'Cumulus' / 'moved.jpg')
    Image.open(searched.path / second).rotate(90).save(searched.path / second)
    (searched.path / third).unlink()
    assert parts.check(progress=False) == {
        'added': ['Cumulus/moved.jpg'],
        'removed': [first, third],
        'changed': [second],
    }


def test_a_sample_is_printed(skies, command):
    status, out, _ = command('sample', skies, '--genus', 'Ci', '--genus', 'St')
    assert status == 0
    assert len(out.splitlines()) == 28


def test_names_without_pixels_are_divided_too(three, tmp_path):
    "Where nothing ties photos together, none is opened: not to divide them, and not to see what has changed."
    parts = split(three, group_by=())
    assert (parts.counts()[['train', 'valid', 'test']] == 1).all(axis=None)
    assert parts.check() == {}
    save_split(parts, tmp_path / 'split.csv')
    again = load_split(tmp_path / 'split.csv', three.path)
    assert again.check() == {}
    (three.path / 'Ct' / 'new.jpg').touch()
    try:
        assert again.check() == {'added': ['Ct/new.jpg']}
    finally:
        (three.path / 'Ct' / 'new.jpg').unlink()


@pytest.mark.parametrize(
    ('parts', 'crosses'), [(['out', 'train'], False), (['out', 'test'], False), (['train', 'test'], True)]
)
def test_what_is_left_out_stands_on_no_side(tmp_path, parts, crosses):
    "Copies under two labels are out; who is tied to them is trained on, which leaks nothing."
    frame = pd.DataFrame(dict(path=['Ci/a.jpg', 'Ci/b.jpg'], label='Ci', group='g', part=parts))
    made = Split(frame, tmp_path)
    assert made.crossing() == (['g'] if crosses else [])
    assert certificate(made)['leaks'] is crosses
