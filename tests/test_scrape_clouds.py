"The loop over the genera, against servers that speak as the real ones do."

import json

import pytest
import stamina
from engines import Bing, Commons, Openverse

from cloud_classifier.data import sources
from cloud_classifier.data.dataset import Dataset, attribution, write_croissant
from cloud_classifier.data.download import DownloadLimits
from cloud_classifier.data.scrape import add_photos, scrape_clouds
from cloud_classifier.data.sources import BadSearch, RateLimit, SearchError
from cloud_classifier.samples import make_samples

LIMITS = DownloadLimits(allow_private=True, contact='me@example.org')


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Eight photos of each of three genera, of which the servers spoil or hold back some."
    root = tmp_path_factory.mktemp('served') / 'skies'
    make_samples(root, per_genus=8, size=160, genera=['Cirrus', 'Stratus', 'Cumulus'])
    return root


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    "The pace of Openverse is that of a person, and these servers are no strangers."
    monkeypatch.setattr(sources, '_openverse_rate', RateLimit(1000))


def loop(folder, server, genera=('Ci', 'St', 'Cu'), **kwargs):
    kwargs = dict(source='commons', top_up=False, limits=LIMITS, endpoint=server.endpoint, progress=False) | kwargs
    return scrape_clouds(folder, genera, **kwargs)


def test_each_genus_has_what_there_is(photos, tmp_path, capsys):
    with Commons(photos) as server:
        counts = loop(tmp_path / 'skies', server, per_genus=50)
    assert counts.to_dict() == {name: 7 for name in ('Cirrus', 'Stratus', 'Cumulus')}
    assert capsys.readouterr().out == 'Cirrus 7\nStratus 7\nCumulus 7\n'
    dataset = Dataset(tmp_path / 'skies')
    assert dataset.status()['reasons'] == {'truncated': 3, 'html': 3}
    frame = dataset.frame('ok')
    assert set(frame.source) == {'commons'}
    assert set(frame['query']) == {'Cirrus clouds', 'Stratus clouds', 'Cumulus clouds'}
    assert (frame.author != '').all()
    assert (frame.licence != '').all()
    assert (frame.page != '').all()


def test_no_more_is_downloaded_than_is_asked_for(photos, tmp_path):
    with Commons(photos) as server:
        assert set(loop(tmp_path, server, per_genus=2)) == {2}
        asked = len(server.downloads)
        assert asked < 3 * 5
        assert set(loop(tmp_path, server, per_genus=2)) == {2}
        assert len(server.downloads) == asked
        assert set(loop(tmp_path, server, per_genus=4)) == {4}
    assert sum(Dataset(tmp_path).sync(progress=False).values()) == 0  # what was downloaded is known


def test_photos_of_ones_own_count(photos, tmp_path):
    add_photos(tmp_path, photos / 'Cirrus', label='Ci', limits=LIMITS, progress=False)
    with Commons(photos) as server:
        loop(tmp_path, server, genera=['Ci'], per_genus=8)
        assert server.downloads == []


def test_what_is_dropped_into_a_folder_counts_too(photos, tmp_path):
    (tmp_path / 'St').mkdir()
    for photo in (photos / 'Stratus').iterdir():
        (tmp_path / 'St' / photo.name).write_bytes(photo.read_bytes())
    with Commons(photos) as server:
        assert loop(tmp_path, server, genera=['St'], per_genus=8).to_dict() == {'Stratus': 8}
        assert server.downloads == []


def test_a_short_class_is_topped_up_from_the_next_source(photos, tmp_path, monkeypatch):
    make_samples(tmp_path / 'more', per_genus=8, size=170, seed=1, genera=['Cirrus'])
    with Commons(photos) as server, Openverse(tmp_path / 'more') as other:
        monkeypatch.setattr(sources, 'OPENVERSE', other.endpoint)
        counts = loop(tmp_path / 'skies', server, genera=['Ci'], per_genus=10, top_up=True)
    assert counts.to_dict() == {'Cirrus': 10}
    assert Dataset(tmp_path / 'skies').frame('ok').source.value_counts().to_dict() == {'commons': 7, 'openverse': 3}


def test_a_source_that_was_read_to_its_end_is_not_asked_again(photos, tmp_path):
    with Commons(photos) as server:
        loop(tmp_path, server, per_genus=50)
        asked = len(server.log)
        loop(tmp_path, server, per_genus=50)
        assert len(server.log) == asked
        loop(tmp_path, server, per_genus=50, retry=True)
        assert len(server.log) > asked


def test_a_server_that_goes_away_in_the_middle(photos, tmp_path):
    with Commons(photos) as server, stamina.set_testing(True, attempts=1):
        loop(tmp_path, server, genera=['Ci'], per_genus=50)
        server.stop()
        with pytest.raises(SearchError, match="can't be reached"):
            loop(tmp_path, server, genera=['Ci', 'St'], per_genus=50)
    assert Dataset(tmp_path).status()['classes'] == {'Cirrus': 7}
    with Commons(photos) as server:
        assert set(loop(tmp_path, server, per_genus=50)) == {7}


def test_a_top_up_that_fails_is_told_and_is_no_failure(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, 'OPENVERSE', 'ftp://nowhere/')
    with Commons(photos) as server:
        assert loop(tmp_path, server, genera=['Ci'], per_genus=50, top_up=True).to_dict() == {'Cirrus': 7}
    assert 'openverse was left out' in capsys.readouterr().out


def test_bing_with_a_key(photos, tmp_path, monkeypatch, command):
    with Bing(photos) as server:
        (tmp_path / 'key.txt').write_text(f'{server.key}\n')
        words = ['scrape', tmp_path / 'skies', '--source', 'bing', '--endpoint', server.endpoint, '--no-top-up']
        words += ['--genus', 'Ci', '--per-genus', 50, '--allow-private', '--json']
        assert command(*words)[0] == 2
        status, out, err = command(*words, '--key-file', tmp_path / 'key.txt')
        assert status == 0
        assert json.loads(out)['classes'] == {'Cirrus': 8}
        assert server.key not in out + err
        for file in (tmp_path / 'skies').rglob('*'):
            assert file.is_dir() or server.key.encode() not in file.read_bytes()


def test_on_the_command_line(photos, tmp_path, command):
    with Commons(photos) as server:
        words = [
            'scrape',
            tmp_path / 'skies',
            '--source',
            'commons',
            '--per-genus',
            5,
            '--genus',
            'Ci',
            '--genus',
            'St',
        ]
        words += ['--endpoint', server.endpoint, '--allow-private', '--no-top-up']
        status, _, err = command(*words)
        assert status == 2
        assert '--contact' in err
        status, out, err = command(*words, '--contact', 'me@example.org')
    assert (status, out) == (0, 'class\tphotos\nCirrus\t5\nStratus\t5\n')
    assert 'Cirrus 5\n' in err
    assert 'rows: ' in err
    status, out, _ = command('status', tmp_path / 'skies', '--json')
    counts = json.loads(out)
    assert counts['classes'] == {'Cirrus': 5, 'Stratus': 5}
    assert sum(counts['reasons'].values()) == counts['status'].get('failed', 0)
    status, out, _ = command('credits', tmp_path / 'skies')
    assert (status, out.strip()) == (0, str(tmp_path / 'skies' / 'attribution.csv'))


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--source', 'unsplash'], "unknown source 'unsplash'"),
        (['--source', 'bing'], '2025-08-11'),
        (['--source', 'urls'], 'needs --from'),
        (['--source', 'urls', '--from', 'nowhere.csv'], 'there is no such file'),
        (['--source', 'folder', '--from', 'nowhere'], 'there is no such file'),
        (['--genus', '../up'], "can't be the name of a class"),
        (['--source', 'commons'], '--contact'),
    ],
)
def test_a_mistake_is_one_line(tmp_path, command, words, says):
    status, out, err = command('scrape', tmp_path / 'skies', *words)
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert says in err


def test_a_dataset_does_not_swallow_itself(tmp_path):
    make_samples(tmp_path, per_genus=1, size=160, genera=['Cirrus', 'Stratus'])
    with pytest.raises(BadSearch, match='the dataset lies in it'):
        add_photos(tmp_path / 'skies', tmp_path)


def test_own_photos_are_copied_and_credited(tmp_path, command):
    make_samples(tmp_path / 'mine', per_genus=2, size=160, genera=['Cirrus', 'Stratus'])
    (tmp_path / 'mine' / 'Cirrus' / 'notes of #1 (50%).jpg').write_text('seen from the roof')
    for said in ('4 added, 0 were there already, 1 can', '0 added, 4 were there already, 1 can'):
        status, out, _ = command('add', tmp_path / 'skies', tmp_path / 'mine')
        assert status == 0
        assert said in out
    assert len(list((tmp_path / 'mine').rglob('*.jpg'))) == 5
    credits = attribution(Dataset(tmp_path / 'skies'))
    assert len(credits) == 4
    assert (credits.url == '').all()
    assert str(tmp_path) not in credits.to_csv()


def test_croissants_own_validator_accepts_the_description(photos, tmp_path, command):
    import mlcroissant

    with Commons(photos) as server:
        loop(tmp_path / 'skies', server, per_genus=3)
    file = write_croissant(Dataset(tmp_path / 'skies'), tmp_path / 'out.json', url='https://example.org/skies')
    described = mlcroissant.Dataset(jsonld=file)
    assert not described.metadata.issues.errors
    assert not described.metadata.issues.warnings
    records = list(described.records('photos'))
    assert {record['photos/path'].decode() for record in records} == set(Dataset(tmp_path / 'skies').frame('ok').path)
    assert command('credits', tmp_path / 'skies', '--croissant', tmp_path / 'again.json')[0] == 0


def test_there_is_nobody_to_credit_in_an_empty_dataset(tmp_path, command):
    status, _, err = command('credits', tmp_path)
    assert status == 2
    assert 'nothing is known of any photo' in err
