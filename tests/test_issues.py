"Tables of out-of-fold probabilities as strangers make them, and the queue that comes of them."

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cloud_classifier.data.dataset import Dataset
from cloud_classifier.data.issues import (
    ISSUES,
    KINDS,
    BadOOF,
    check_oof,
    label_issues,
    most_confused,
    plot_issues,
    plot_top_losses,
    read_oof,
    top_losses,
)


def noise(file, seed):
    "A picture like no other."
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype='uint8')).save(file)


@pytest.fixture
def data(tmp_path):
    "Twelve photos each of Cirrus, Cumulus and a class whose name is markup."
    root = tmp_path / 'skies'
    for i in range(36):
        noise(root / ['Cirrus', 'Cu', '<b>$x_1$&amp;'][i // 12] / f'{i:02}.png', i)
    return Dataset(root)


@pytest.fixture
def oof(data):
    "Models that agree with each label but the first."
    table = data.scan(progress=False)[['path', 'sha256', 'label']]
    classes = ['Cirrus', 'Cumulus', '<b>$x_1$&amp;']
    rng = np.random.default_rng(0)
    probs = np.array([[8 if c == o else 1 for c in classes] for o in table.label]) + rng.random((36, 3))
    first = table.path.tolist().index('Cirrus/00.png')
    probs[first] = [0.2, 9.8, 0.3]
    return table.join(pd.DataFrame(probs / probs.sum(1, keepdims=True), columns=classes))


def test_the_planted_mistake_comes_first(data, oof):
    issues = label_issues(data, oof)
    first = issues.iloc[0]
    assert list(issues) == list(ISSUES)
    assert set(issues.kind) <= {*KINDS}
    assert (first.path, first.label, first.suggested, first.kind) == ('Cirrus/00.png', 'Cirrus', 'Cumulus', 'label')
    assert issues.score.between(0, 1).all()
    assert issues.score.is_monotonic_decreasing
    assert first.given < 0.05
    assert first.probability > 0.9
    assert first.loss == pytest.approx(-np.log(first.given))
    assert 'Cumulus (95%)' in first.reason
    assert '\n' not in first.reason


def test_the_order_of_rows_and_columns_does_not_matter(data, oof):
    shuffled = oof.sample(frac=1, random_state=1)[[*reversed(oof.columns)]]
    pd.testing.assert_frame_equal(label_issues(data, oof), label_issues(data, shuffled), check_exact=False)


def test_a_path_is_enough(data, oof):
    pd.testing.assert_frame_equal(label_issues(data, oof), label_issues(str(data.path), oof))


def set_first(column, value):
    def change(oof):
        oof = oof.astype({column: object})
        oof.loc[0, column] = value
        return oof

    return change


BAD = {
    'NaN': (set_first('Cirrus', np.nan), 'is nan, not a number from 0 to 1'),
    'infinity': (set_first('Cirrus', np.inf), 'is inf, not a number'),
    'negative': (set_first('Cirrus', -0.1), 'is -0.1, not a number from 0 to 1'),
    'text': (lambda o: o.assign(author='x'), 'author of .* is x, not a number'),
    'logits': (lambda o: o.assign(Cirrus=o.Cirrus / 2), 'sum to .*, not 1'),
    'an index': (lambda o: o.reset_index(), 'index of .* is 2, not a number'),
    'no path': (lambda o: o.drop(columns='path'), 'no column path'),
    'no label': (lambda o: o.drop(columns='label'), 'no column label'),
    'neither': (lambda o: o.drop(columns=['path', 'label']), 'no column path and none label'),
    'one class': (lambda o: o[['path', 'label', 'Cirrus']], 'fewer than two classes'),
    'no rows': (lambda o: o[:0], 'names no photo'),
    'two answers': (lambda o: pd.concat([o, o[:1].assign(Cirrus=o.Cumulus, Cumulus=o.Cirrus)]), 'is there twice'),
    'a class twice': (lambda o: o.assign(Ci=0.0), 'two columns for Cirrus'),
    'no table': (lambda o: o.to_dict(), 'are a table, not dict'),
    'other photos': (lambda o: o.assign(path='gone/' + o.path, sha256=''), 'none of the 36 photos'),
    'outlier': (lambda o: o.assign(outlier=7), 'outlier of .* is 7, not a number'),
}


@pytest.mark.parametrize('name', BAD)
def test_what_is_no_table_is_refused_in_a_line(data, oof, name):
    spoil, message = BAD[name]
    with pytest.raises(BadOOF, match=message) as error:
        label_issues(data, spoil(oof))
    assert '\n' not in str(error.value)


def test_rows_that_are_there_twice_count_once(data, oof):
    pd.testing.assert_frame_equal(label_issues(data, pd.concat([oof, oof])), label_issues(data, oof))


def test_rounded_probabilities_are_taken(oof):
    classes = [*oof.columns[3:]]
    assert check_oof(oof.round(2))[classes].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-12)


def test_photos_that_are_gone_are_left_out(data, oof, caplog):
    (data.path / 'Cirrus/00.png').unlink()
    assert 'Cirrus/00.png' not in set(label_issues(data, oof).path)
    assert '1 of 36 photos of the table are left out' in caplog.text


def test_a_relabelled_photo_is_followed_by_its_bytes(data, oof):
    data.relabel('Cirrus/00.png', 'Cumulus', 'it is one')
    (place,) = [path for path, _ in data.photos() if path.endswith('/00.png')]
    row = top_losses(oof).set_index('path').loc['Cirrus/00.png']
    issues = label_issues(data, oof)
    assert row.given < 0.05
    assert place not in set(issues.path[issues.kind == 'label'])


def test_without_checksums_a_moved_photo_is_left_out(data, oof, caplog):
    data.relabel('Cirrus/00.png', 'Cumulus', 'it is one')
    label_issues(data, oof.drop(columns='sha256'))
    assert '1 of 36 photos' in caplog.text


def test_an_edited_photo_is_left_out(data, oof):
    data.sync(progress=False)
    noise(data.path / 'Cirrus/00.png', 99)
    assert 'Cirrus/00.png' not in set(label_issues(data, oof).path)


def test_a_label_that_the_table_does_not_know_is_left_out(data, oof, caplog):
    noise(data.path / 'Contrails/0.png', 7)
    (data.path / 'Cirrus/01.png').rename(data.path / 'Contrails/01.png')
    issues = label_issues(data, oof)
    assert not issues.path.str.startswith('Contrails').any()
    assert 'does not know their label (Contrails)' in caplog.text


def test_a_table_of_other_classes_is_refused(data, oof):
    renamed = oof.set_axis(['path', 'sha256', 'label', 'a', 'b', 'c'], axis=1)
    with pytest.raises(BadOOF, match='does not know the labels'):
        label_issues(data, renamed)


@pytest.mark.parametrize('noted', [False, True], ids=['looked for', 'noted by a scan'])
def test_copies_under_two_labels(data, oof, noted):
    from cloud_classifier.samples import make_samples

    (photo,) = make_samples(data.path, per_genus=1, size=96, genera=['Cirrus'])
    name = photo.relative_to(data.path).as_posix() if photo.is_absolute() else photo.as_posix()
    shutil.copy(data.path / name, data.path / 'Cu/copy.jpg')
    rows = data.scan(progress=False)
    rows = rows[rows.path.isin([name, 'Cu/copy.jpg'])][['path', 'sha256', 'label']]
    both = pd.concat([oof, rows.assign(**{'Cirrus': 0.7, 'Cumulus': 0.2, '<b>$x_1$&amp;': 0.1})], ignore_index=True)
    both = both.assign(copies=both.sha256) if noted else both
    issues = label_issues(data, both)
    conflicts = issues[issues.kind == 'conflict'].set_index('path')
    assert set(conflicts.index) == {name, 'Cu/copy.jpg'}
    assert conflicts.suggested['Cu/copy.jpg'] == 'Cirrus'
    assert conflicts.score['Cu/copy.jpg'] > 0.7
    assert conflicts.score[name] < 0.3
    assert 'Cu/copy.jpg, stands under Cumulus' in conflicts.reason[name]


def test_ambiguous_photos_are_no_mistakes(data, oof):
    photo = oof.path == 'Cirrus/03.png'
    oof.loc[photo, ['Cirrus', 'Cumulus', '<b>$x_1$&amp;']] = [0.47, 0.45, 0.08]
    issues = label_issues(data, oof)
    kinds = set(issues.kind[issues.path == 'Cirrus/03.png'])
    assert 'ambiguous' in kinds
    assert 'label' not in kinds
    assert issues.score[issues.kind == 'ambiguous'].max() <= 0.5


def test_outliers_come_from_the_table(data, oof):
    outlier = np.full(36, 0.2)
    outlier[5] = 0.99
    issues = label_issues(data, oof.assign(outlier=outlier))
    assert issues.path[issues.kind == 'outlier'].tolist() == [oof.path[5]]
    assert (issues.suggested[issues.kind == 'outlier'] == '').all()


def test_files(data, oof, tmp_path):
    oof.to_csv(tmp_path / 'oof.csv', index=False)
    oof.to_parquet(tmp_path / 'oof.parquet')
    for name in ('oof.csv', 'oof.parquet'):
        pd.testing.assert_frame_equal(
            label_issues(data, read_oof(tmp_path / name)), label_issues(data, oof), check_exact=False
        )


def test_texts_of_a_csv_stay_texts(tmp_path):
    digits = '1' * 64
    file = tmp_path / 'oof.csv'
    file.write_text(f'path,sha256,label,NA,007\nNA/1.jpg,{digits},NA,0.25,0.75\n007/2.jpg,,007,.5,.5\n')
    table = read_oof(file)
    assert table.label.tolist() == ['NA', '007']
    assert table.sha256.tolist() == [digits, '']


@pytest.mark.parametrize('content', [b'', b'\0\1\2', b'PAR1', b'path,label\n"', 'path,label,ü,b\n'.encode('latin1')])
@pytest.mark.parametrize('name', ['oof.csv', 'oof.parquet'])
def test_files_that_are_no_table(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadOOF, match=name) as error:
        read_oof(tmp_path / name)
    assert '\n' not in str(error.value)


def test_missing_files(tmp_path):
    with pytest.raises(BadOOF, match='no such file'):
        read_oof(tmp_path / 'oof.csv')
    with pytest.raises(BadOOF, match='no such file'):
        read_oof(tmp_path)


def test_labels_are_drawn_as_they_are(data, oof):
    from matplotlib import pyplot

    oof.loc[oof.label == '<b>$x_1$&amp;', ['Cirrus', 'Cumulus', '<b>$x_1$&amp;']] = [0.98, 0.01, 0.01]
    plot_issues(data, label_issues(data, oof), n=5)
    (data.path / 'Cirrus/00.png').write_text('no photo any more')
    plot_top_losses(data, oof, n=16)
    pyplot.gcf().canvas.draw()
    titles = [ax.get_title() for ax in pyplot.gcf().axes]
    assert len(titles) == 16
    assert any('<b>$x_1$&amp;' in title for title in titles)
    plot_issues(data, label_issues(data, oof)[:0])
    pyplot.close('all')


def test_most_confused(oof):
    table = most_confused(oof)
    assert table[['label', 'predicted', 'n']].to_numpy().tolist() == [['Cirrus', 'Cumulus', 1]]
    assert most_confused(oof, min_val=2).empty
