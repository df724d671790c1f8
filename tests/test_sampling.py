"Sentences about sampling that say always or never."

import copy
import json
import os
import pickle
import random
import shutil
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from examples import examples
from fastcore.foundation import L
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from cloud_classifier.data.dataset import BadDataset, Dataset
from cloud_classifier.data.sampling import (
    Split,
    assign_parts,
    balance,
    folds,
    follow_photos,
    get_equal_images,
    load_split,
    read_split,
    save_split,
    split,
)
from cloud_classifier.files import file_hash
from cloud_classifier.samples import make_samples

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
@examples(60)
def test_a_split_never_divides_a_group_and_always_fills_each_part(three, groups, seed, valid, test):
    scan = scanned(groups)
    parts = split(three, valid, test, seed, scan, group_by=())
    assert (parts.frame.groupby('group').part.nunique() == 1).all()
    assert parts.leaking_groups() == []
    assert (parts.counts()[['train', 'valid', 'test']] > 0).all(axis=None)
    assert list(parts.frame.path) == list(scan.path)  # complete: every photo once, and so in one part
    assert parts.frame.path.is_unique
    assert set(parts.frame.part) == {'train', 'valid', 'test'}
    assert sorted(p for part in ('train', 'valid', 'test') for p in parts.part(part).path) == sorted(scan.path)
    shuffled = scan.sample(frac=1, random_state=seed)
    assert split(three, valid, test, seed, shuffled, group_by=()).hash == parts.hash


@given(st.lists(st.integers(40, 200), min_size=3, max_size=3), st.integers(0, 9))
@examples(20)
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
    assert list(parts.part('excluded').index) == [0, 15, 20]


@pytest.mark.parametrize(('valid', 'test'), [(0, 0.2), (0.2, 0), (0.6, 0.4), (-0.1, 0.2), (float('nan'), 0.2)])
def test_shares_that_leave_nothing_are_refused(three, valid, test):
    with pytest.raises(ValueError, match='leave something to train on'):
        split(three, valid, test, scan=scanned({label: [1] * 10 for label in LABELS}), group_by=())


def test_too_few_different_photos(three):
    with pytest.raises(BadDataset, match='Cirrus has 2 different photos'):
        split(three, scan=scanned({'Cirrus': [5, 4], 'Stratus': [1] * 9, 'Ct': [1] * 9}), group_by=())


@given(st.dictionaries(st.sampled_from(['Ci', 'Cs', 'St', 'Ct']), st.integers(1, 12), min_size=1), st.integers(0, 9))
@examples(40)
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
    few = set(balance(frame.drop(frame[frame.label == 'Stratus'].index[:4])).path)
    more = set(balance(frame).path)
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
@examples(80)
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
@examples(80)
def test_groups_of_several_classes_are_dealt_whole_and_near_their_shares(groups, seed, valid, test):
    rows = [(f'g{i}', label, n) for i, group in enumerate(groups) for label, n in group.items()]
    cells = pd.DataFrame(rows, columns=['group', 'label', 'n'])
    shares = {'train': 1 - valid - test, 'valid': valid, 'test': test}
    parts = assign_parts(cells, shares, seed)
    assert set(parts) == set(cells.group)  # one part each
    assert parts == assign_parts(cells.sample(frac=1, random_state=seed), shares, seed)
    table = cells.assign(part=cells.group.map(parts)).pivot_table('n', 'label', 'part', 'sum', fill_value=0)
    for label, own in cells.groupby('label').n:
        for part, share in shares.items():
            got = table.get(part, pd.Series(dtype=int)).get(label, 0)
            assert abs(got - share * own.sum()) <= 3 * own.max()  # no promise, but this much is held


@given(st.fixed_dictionaries({label: SIZES for label in LABELS}), st.integers(0, 9), st.randoms(use_true_random=False))
@examples(60)
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
    assert after.leaking_groups() == []
    assert split(three, seed=seed, scan=scan, group_by=(), previous=first).hash == after.hash


def test_what_was_drawn_once_is_drawn_again():
    "By another version of a library, too: whoever trained on a sample or a split can make it again."
    frame = scanned({'Cirrus': [1] * 12, 'Stratus': [1] * 3})
    assert list(balance(frame, seed=42).path[:3]) == ['Cirrus/3-0.jpg', 'Cirrus/8-0.jpg', 'Cirrus/11-0.jpg']
    sizes = pd.DataFrame({'group': [f'g{i}' for i in range(8)], 'label': 'Cirrus', 'n': 1})
    parts = assign_parts(sizes, {'train': 0.5, 'valid': 0.25, 'test': 0.25}, 42)
    assert ''.join(parts[group][1] for group in sizes.group) == 'rerearra'


COUNTS = st.dictionaries(st.sampled_from(['Ci', 'Cs', 'St', 'Ct']), st.integers(1, 40), min_size=1)
HOW = st.sampled_from([('equal', None), ('capped', None), ('capped', 1), ('capped', 7), ('weighted', None)])


def photos(sizes, part='train'):
    rows = [(f'{label}/{i}.jpg', label, part) for label, n in sizes.items() for i in range(n)]
    return pd.DataFrame(rows, columns=['path', 'label', 'part'])


@given(COUNTS, HOW, st.integers(0, 9), st.randoms(use_true_random=False))
@examples(80)
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
@examples(60)
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
@examples(60)
def test_only_what_is_trained_on_is_balanced(sizes, how, seed):
    others = [
        photos(sizes, part).assign(path=lambda f, part=part: part + f.path) for part in ('valid', 'test', 'excluded')
    ]
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
    sides = parts.frame[parts.frame.part != 'excluded'].set_index('path').part.groupby(authors).nunique()
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
    assert set(left_out[both]) == {'excluded'}
    kept = split(searched, keep_conflicts=True, progress=False)
    assert set(kept.frame.set_index('path').part[both]) == {'train'}
    assert kept.leaking_groups() == []
    assert kept.conflicts == 1


def test_each_photo_is_validated_on_in_one_fold(three):
    whole = split(three, scan=scanned({label: [1, 2, 1, 3] * 6 for label in LABELS}), group_by=())
    turns = folds(whole, 4)
    asked = pd.concat([turn.part('valid') for turn in turns])
    assert sorted(asked.path) == sorted(whole.frame[whole.frame.part.isin(['train', 'valid'])].path)
    for turn in turns:
        assert turn.leaking_groups() == []
        assert set(turn.part('test').path) == set(whole.part('test').path)
        assert (turn.counts()[['train', 'valid']] > 0).all(axis=None)
    with pytest.raises(ValueError, match='2 folds or more'):
        folds(whole, 1)
    with pytest.raises(BadDataset, match='fewer groups than'):
        folds(whole, 100)


def test_the_certificate_counts_for_itself(searched, tmp_path, command):
    file = tmp_path / 'split.csv'
    status, out, err = command('split', searched.path, '--out', file, '--seed', 7)
    assert status == 0
    assert out.startswith('class\ttrain\tvalid\ttest')
    assert '0 of them in two parts' in err
    said = json.loads(file.with_suffix('.json').read_text())
    frame = pd.read_csv(file, dtype=str)
    assert list(frame.columns) == ['path', 'label', 'group', 'part', 'sha256']
    assert said['groups'] == frame.group.nunique()
    assert (said['leaking_groups'], said['leaks']) == (0, False)
    assert said['rule']['seed'] == 7
    assert said['rule']['group_by'] == ['duplicates', 'series', 'author', 'page']
    assert sum(sum(row.values()) for row in said['counts'].values()) == 40
    frame.loc[0, 'group'] = frame.loc[frame.part != frame.part[0], 'group'].iloc[0]
    frame.to_csv(file, index=False)
    assert load_split(file, searched.path).certificate.leaks is True


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
    ('parts', 'crosses'), [(['excluded', 'train'], False), (['excluded', 'test'], False), (['train', 'test'], True)]
)
def test_what_is_left_out_stands_on_no_side(tmp_path, parts, crosses):
    "Copies under two labels are out; who is tied to them is trained on, which leaks nothing."
    frame = pd.DataFrame(dict(path=['Ci/a.jpg', 'Ci/b.jpg'], label='Ci', group='g', part=parts))
    made = Split(frame, tmp_path)
    assert made.leaking_groups() == (['g'] if crosses else [])
    assert made.certificate.leaks is crosses


@pytest.fixture(scope='module')
def divided(tmp_path_factory):
    "Photos of three classes whose manifest knows them, and their split in a file."
    root = tmp_path_factory.mktemp('divided') / 'skies'
    make_samples(root, per_genus=8, size=32, genera=['Cirrus', 'Cumulus', 'Stratus'])
    Dataset(root).sync(progress=False)
    save_split(split(root, group_by=['author'], progress=False), root.parent / 'split.csv')
    return root


@pytest.fixture(params=['with its manifest', 'without'])
def mine(divided, tmp_path, request):
    "A copy of that dataset to spoil, with and without what remembers its photos."
    root = shutil.copytree(divided, tmp_path / 'skies')  # copytree keeps the times
    if request.param == 'without':
        (root / 'manifest.db').unlink()
    shutil.copy(divided.parent / 'split.csv', tmp_path)
    return Dataset(root)


def opened(dataset):
    return load_split(dataset.path.parent / 'split.csv', dataset.path)


def test_photos_are_followed_wherever_they_go(mine):
    made = opened(mine)
    assert (made.changes, made.made) == ({}, '')
    a, b, c, d, e, *_ = made.part('test').path.tolist() + made.part('train').path.tolist()
    label = next(o for o in made.classes if not c.startswith(o))
    mine.quarantine(a, 'blurry')
    (mine.path / b).unlink()
    mine.relabel(c, label)
    (mine.path / d).rename(mine.path / d.replace('.jpg', ' anew.jpg'))
    found = opened(mine)
    assert {kind: len(paths) for kind, paths in found.changes.items()} == {
        'quarantined': 1,
        'removed': 1,
        'relabelled': 1,
        'moved': 1,
    }
    was, now = made.frame.set_index('sha256'), found.frame.set_index('sha256')
    assert list(found.part('excluded').path) == sorted([a, b], key=list(made.frame.path).index)
    rest = now.index[now.part != 'excluded']
    assert (now.part[rest] == was.part[rest]).all()
    moved = now.index[now.path != was.path]
    assert set(now.label[moved]) >= {label}
    assert all((mine.path / p).is_file() for p in now.path[rest])
    line = '1 photo was quarantined, 1 removed, 1 relabelled and 1 moved since the split was made'
    assert found.changes_line == line
    assert str(found.certificate).endswith(line)
    assert str(found.certificate)[:18] == str(made.certificate)[:18]  # it is still that split
    mine.undo(2)
    assert set(opened(mine).changes) == {'removed', 'moved'}
    assert now.path[was.index[was.path == e]].item() == e


def test_two_photos_that_changed_names_are_told_apart(divided, tmp_path):
    mine = Dataset(shutil.copytree(divided, tmp_path / 'skies'))
    made = load_split(divided.parent / 'split.csv', mine.path)
    a, b = (mine.path / made.part(part).path.iloc[0] for part in ('test', 'train'))
    a.rename(a.with_suffix('.tmp'))
    b.rename(a)
    a.with_suffix('.tmp').rename(b)
    found = load_split(divided.parent / 'split.csv', mine.path)
    assert sum(map(len, found.changes.values())) == 2
    assert set(found.part('test').sha256) == set(made.part('test').sha256)


def turned(photo):
    Image.open(photo).rotate(180).save(photo)


def of_the_same_size_and_time(photo):
    "Other bytes, as many, and the old date. The time of the last change can not be set back."
    was, content = photo.stat(), bytearray(photo.read_bytes())
    content[-1] ^= 1
    while photo.stat().st_ctime_ns == was.st_ctime_ns:  # a clock of files may tick slowly
        photo.write_bytes(content)
        os.utime(photo, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (photo.stat().st_size, photo.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)


@pytest.mark.parametrize('edit', [turned, of_the_same_size_and_time], ids=lambda f: f.__name__)
def test_an_edited_photo_keeps_its_part_and_is_said(divided, tmp_path, monkeypatch, edit):
    mine = Dataset(shutil.copytree(divided, tmp_path / 'skies'))
    mine.sync(progress=False)  # copies have another time of change than what they were copied from
    file, photo = divided.parent / 'split.csv', 'Cirrus/' + sorted(os.listdir(mine.path / 'Cirrus'))[0]
    read = []
    monkeypatch.setattr('cloud_classifier.data.dataset.file_hash', lambda file: read.append(file) or file_hash(file))
    load_split(file, mine.path)
    assert read == []  # nothing is opened while each photo is as it was
    edit(mine.path / photo)
    found = load_split(file, mine.path)
    assert read == [mine.path / photo]
    assert found.changes == {'edited': [photo]}
    before = read_split(file, mine.path).frame.set_index('path')
    after = found.frame.set_index('path')
    assert after.part[photo] == before.part[photo]
    assert after.sha256[photo] != before.sha256[photo]


def test_in_a_dataset_that_was_copied_no_photo_is_edited(divided, tmp_path):
    mine = Dataset(shutil.copytree(divided, tmp_path / 'skies'))
    assert load_split(divided.parent / 'split.csv', mine.path).changes == {}


def test_of_two_copies_one_that_goes_is_not_found_in_the_other(mine):
    rows = opened(mine).frame
    first, second = rows.path[0], rows.path[0].replace('.jpg', ' copy.jpg')
    shutil.copy(mine.path / first, mine.path / second)
    made = split(mine, group_by=['author'], progress=False)
    (mine.path / first).unlink()
    assert follow_photos(made).changes == {'removed': [first]}
    shutil.move(mine.path / second, mine.path / first)
    assert follow_photos(made).changes == {'removed': [second]}


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(['quarantine', 'relabel', 'rename', 'swap', 'delete', 'undo', 'sync', 'add']),
        st.integers(0, 99),
        st.integers(0, 99),
    ),
    max_size=6,
)


@given(DEEDS)
@examples(25)
def test_whatever_becomes_of_photos_what_was_trained_on_is_never_tested_on(divided, deeds):
    with tempfile.TemporaryDirectory() as folder:
        mine = Dataset(shutil.copytree(divided, Path(folder) / 'skies'))
        for deed, i, j in deeds:
            here = [path for path, _ in mine.photos()]
            one, other = here[i % len(here)], here[j % len(here)]
            if deed == 'quarantine':
                mine.quarantine(one, 'a test')
            elif deed == 'relabel' and not one.startswith('Cumulus'):
                mine.relabel(one, 'Cumulus')
            elif deed == 'rename':
                (mine.path / one).rename((mine.path / one).with_name(f'renamed {j}.jpg'))
            elif deed == 'swap' and one != other:
                for source, target in ((one, 'swap'), (other, one), ('swap', other)):
                    (mine.path / source).rename(mine.path / target)
            elif deed == 'delete':
                (mine.path / one).unlink()
            elif deed == 'undo':
                mine.undo()
            elif deed == 'sync':
                mine.sync(progress=False)
            elif deed == 'add':
                make_samples(mine.path, per_genus=1, size=32, seed=1000 + i, genera=['Stratus'])
        file = divided.parent / 'split.csv'
        made, found = read_split(file, mine.path), load_split(file, mine.path)
        part_of = dict(zip(made.frame.sha256, made.frame.part, strict=True))
        bytes_now = mine.digests([path for path, _ in mine.photos()])
        used = found.frame[found.frame.part != 'excluded']
        assert used.path.is_unique
        for path, part in zip(used.path, used.part, strict=True):
            assert part_of[bytes_now[path]] == part  # by its bytes, whatever its name is now
        assert set(used.sha256) == set(bytes_now.values()) & set(made.frame.sha256)  # and none that is there is missed
        assert (used.label == [dict(mine.photos())[path] for path in used.path]).all()


def test_a_folder_of_other_photos_is_refused(divided, tmp_path):
    make_samples(tmp_path / 'others', per_genus=3, size=32, seed=9, genera=['Cirrus', 'Cumulus'])
    with pytest.raises(BadDataset, match=r'split\.csv: none of its 24 photos is in'):
        load_split(divided.parent / 'split.csv', tmp_path / 'others')


def test_a_label_that_is_no_class_of_the_network_is_left_out(mine):
    made = opened(mine)
    photo = made.part('test').path.iloc[0]
    mine.relabel(photo, 'Fog')
    found = opened(mine)
    assert found.part('test').label.tolist().count('Fog') == 1
    assert found.within(made.classes).changes == {
        'relabelled to a class that was not trained': ['Fog/' + Path(photo).name]
    }
    assert 'Fog' not in found.within(made.classes).classes
    assert made.within(made.classes) is made


def test_a_split_that_was_cut_off_is_refused_or_ends_with_a_whole_row(divided, tmp_path):
    content = (divided.parent / 'split.csv').read_bytes()
    rows = content.decode().splitlines()
    whole = 0
    for at in random.Random(1).sample(range(len(content) - 1), 60):
        (tmp_path / 'split.csv').write_bytes(content[:at])
        try:
            frame = load_split(tmp_path / 'split.csv', divided).frame
        except BadDataset:
            continue
        assert [','.join(row) for row in frame.itertuples(index=False)] == rows[1 : len(frame) + 1]
        whole += 1
    assert whole < 10


@pytest.mark.parametrize(
    ('row', 'says'),
    [
        ('/etc/passwd,Ci,g,test,', 'is not in the dataset'),
        ('Ci/../../a.jpg,Ci,g,test,', 'is not in the dataset'),
        (',Ci,g,test,', 'is not in the dataset'),
        ('Ci/a.jpg,Ci,g,out,', "'out' in row 1 is not a part"),
        ('Ci/a.jpg,Ci,g,,', "'' in row 1 is not a part"),
        ('Ci/a.jpg,Ci,g', "'' in row 1 is not a part"),
        ('Ci/a.jpg,Ci,g,test,12ab', 'is not a SHA-256; the file may be cut off'),
        ('Ci/a.jpg,Ci,g,test,\nCi/a.jpg,Ci,g,train,', 'names Ci/a.jpg twice'),
        ('Ci/a.jpg,Ci,g,test,,,,', 'is not a split'),
    ],
)
def test_rows_that_no_split_has(skies, tmp_path, row, says):
    (tmp_path / 'split.csv').write_text(f'path,label,group,part,sha256\n{row}\n')
    with pytest.raises(BadDataset, match=r'split\.csv: ') as caught:
        load_split(tmp_path / 'split.csv', skies)
    assert says in str(caught.value)


CERTIFICATES = [
    '',
    '{',
    '[]',
    '"x"',
    '{"rule": 1}',
    '{"rule": {"group_by": [1]}}',
    '{"rule": {"group_by": 1}}',
    '[' * 99999,
]


@pytest.mark.parametrize('said', [o.encode() for o in CERTIFICATES] + [b'\xff'], ids=lambda o: repr(o[:20]))
def test_a_certificate_that_is_damaged_is_named(divided, tmp_path, said):
    shutil.copy(divided.parent / 'split.csv', tmp_path)
    (tmp_path / 'split.json').write_bytes(said)
    with pytest.raises(BadDataset, match=r'split\.json: is not the certificate'):
        load_split(tmp_path / 'split.csv', divided)
    (tmp_path / 'split.json').unlink()  # as it advises
    assert 'by a rule that was not written down' in str(load_split(tmp_path / 'split.csv', divided).certificate)


@pytest.mark.parametrize(
    'rule', [1, [], {}, {'group_by': [1]}, {'group_by': 1}, {'seed': '42'}, {'valid': None}], ids=repr
)
def test_a_rule_that_is_damaged_is_named(divided, tmp_path, rule):
    whole = json.loads((divided.parent / 'split.json').read_text())
    if rule and isinstance(rule, dict):
        rule = whole['rule'] | rule
    shutil.copy(divided.parent / 'split.csv', tmp_path)
    (tmp_path / 'split.json').write_text(json.dumps(whole | {'rule': rule}))
    with pytest.raises(BadDataset, match=r'split\.json: is not the certificate'):
        load_split(tmp_path / 'split.csv', divided)


def test_a_split_opens_each_photo_once(tmp_path, monkeypatch):
    "With a manifest and without: the scan takes along what the search for copies needs."
    make_samples(tmp_path / 'skies', per_genus=4, size=64, genera=['Cirrus', 'Cumulus'])
    dataset = Dataset(tmp_path / 'skies')
    read = []

    def read_bytes(file, real=Path.read_bytes):
        read.append(file.name)
        return real(file)

    monkeypatch.setattr(Path, 'read_bytes', read_bytes)
    monkeypatch.setattr(
        'cloud_classifier.data.dataset.file_hash', lambda file: read.append(file.name) or file_hash(file)
    )
    for _ in range(3):  # the last time all fingerprints are in the manifest
        read.clear()
        split(dataset, progress=False)
        assert sorted(read) == sorted(Path(path).name for path, _ in dataset.photos())
        if not dataset.manifest.exists():
            dataset.sync(progress=False)


def test_by_what_photos_were_grouped_is_said_as_it_was(three):
    scan = scanned({label: [1] * 5 for label in LABELS})
    assert 'groups by file,' in str(split(three, scan=scan, group_by=()).certificate)
    some = split(three, scan=scan, group_by=['author'])
    assert 'groups by author,' in str(some.certificate)
    assert 'groups, by a rule that was not written down,' in str(Split(some.frame, some.root).certificate)


def test_folders_that_are_missing_are_made(searched, tmp_path, command):
    file = tmp_path / 'a' / 'b' / 'split.csv'
    assert command('split', searched.path, '--out', file)[0] == 0
    assert load_split(file, searched.path).hash == json.loads(file.with_suffix('.json').read_text())['split_hash']


def fill(folder):
    "Leave no room on the disk of a folder."
    with open(folder / 'full', 'wb', buffering=0) as f, suppress(OSError):
        while True:
            f.write(bytes(4096))


def test_a_full_disk_leaves_the_split_that_was_there(divided, small_disk):
    parts = read_split(divided.parent / 'split.csv', divided)
    save_split(parts, small_disk / 'split.csv')
    before = {file.name: file.read_bytes() for file in small_disk.iterdir()}
    fill(small_disk)
    more = pd.concat([parts.frame.assign(path=parts.frame.path + f'{i}.jpg') for i in range(200)])
    with pytest.raises(OSError, match='No space left'):
        save_split(Split(more, parts.root), small_disk / 'split.csv')
    (small_disk / 'full').unlink()
    assert {file.name: file.read_bytes() for file in small_disk.iterdir()} == before
