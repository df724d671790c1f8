"Sentences about sampling that say always or never."

import random
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_classifier.dataset import BadDataset, Dataset
from cloud_classifier.sampling import Split, equal_frame, get_equal_images, load_split, save_split, split

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
    assert (parts.counts()[['train', 'valid', 'test']] > 0).all(axis=None)
    assert list(parts.frame.path) == list(scan.path)
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
