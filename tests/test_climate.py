"When and where: read from any Exif without a fault, told where it is asked for, and never anywhere else."

import base64
import io
import json
import shutil
import struct
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from examples import examples
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features
from PIL.TiffImagePlugin import IFDRational
from service import write_model

from cloud_classifier.images import open_image, thumbnail
from cloud_classifier.prediction.climate import (
    CLIMATE,
    SEASONS,
    BadClimate,
    PhotoExif,
    photo_exif,
    prior_for,
    prior_of_photo,
    read_climate,
    season_of,
    why_no_prior,
)
from cloud_classifier.prediction.decide import adjust_prior, read_prior
from cloud_classifier.prediction.infer import CloudClassifier, shipped_model
from cloud_classifier.samples import render_sky

TAKEN, PLACE = '2026:01:15 09:30:00', (47.0, 13.25)
GPS = {1: 'N', 2: (47.0, 0.0, 0.0), 3: 'E', 4: (13.0, 15.0, 0.0)}
SHOT = {0x9003: TAKEN}
SEASONAL = """season,latitude,Ci+Cc+Cs,Ac+As,St,Cu
DJF,20,20,20,10,50
DJF,60,20,20,50,10
MAM,40,20,20,30,30
JJA,20,20,20,10,50
JJA,60,20,20,10,50
SON,40,20,20,30,30
""".splitlines()


def exif_of(shot=SHOT, gps=GPS):
    exif = Image.Exif()
    exif[0x8769], exif[0x8825] = shot, gps
    exif[0x013B] = 'Anna Angstrom'  # the artist
    return exif


def photo(exif=None, format='JPEG', sky='Stratus', side=128, **options) -> bytes:
    file = io.BytesIO()
    if exif is not None:
        options['exif'] = exif
    render_sky(sky, side, 3).save(file, format, **options)
    return file.getvalue()


FORMATS = ['JPEG', 'PNG', 'WEBP', *(['AVIF'] if features.check('avif') else [])]


# Reading


@pytest.mark.parametrize('format', FORMATS)
def test_time_and_place_are_read_from_each_format(format):
    assert photo_exif(photo(exif_of(), format)) == PhotoExif(datetime(2026, 1, 15, 9, 30), *PLACE)


def test_time_and_place_are_read_from_heic():
    pillow_heif = pytest.importorskip('pillow_heif')
    image = pillow_heif.from_pillow(render_sky('Stratus', 128, 3))
    file = io.BytesIO()
    image.save(file, exif=exif_of().tobytes())
    assert photo_exif(file.getvalue()) == PhotoExif(datetime(2026, 1, 15, 9, 30), *PLACE)


def test_a_png_may_keep_its_exif_behind_the_pixels():
    content = photo(exif_of(), 'PNG')
    at = content.index(b'eXIf') - 4
    length = 12 + struct.unpack('>L', content[at : at + 4])[0]
    chunk, rest = content[at : at + length], content[:at] + content[at + length :]
    end = rest.index(b'IEND') - 4
    assert photo_exif(rest[:end] + chunk + rest[end:]) == photo_exif(content)
    assert photo_exif(rest) == PhotoExif()


@pytest.mark.parametrize(
    ('shot', 'taken'),
    [
        ({0x9003: TAKEN, 0x9011: '-03:30'}, datetime(2026, 1, 15, 9, 30, tzinfo=timezone(-timedelta(hours=3.5)))),
        ({0x9003: TAKEN, 0x9011: 'Z'}, datetime(2026, 1, 15, 9, 30, tzinfo=UTC)),
        ({0x9003: TAKEN, 0x9011: '+25:00'}, datetime(2026, 1, 15, 9, 30)),
        ({0x9003: '    :  :     :  :  ', 0x9004: TAKEN}, datetime(2026, 1, 15, 9, 30)),
        ({0x9003: '2026:02:30 09:30:00'}, None),
        ({0x9003: '0000:00:00 00:00:00'}, None),
        ({0x9003: 'x' * 60_000}, None),
        ({0x9003: '\udcff'.encode('utf-8', 'surrogateescape')}, None),
        ({}, None),
    ],
)
def test_a_moment_is_one_that_there_is(shot, taken):
    assert photo_exif(photo(exif_of(shot, {}))).taken == taken


def test_gps_tells_the_time_where_the_camera_does_not():
    gps = GPS | {7: (10.0, 30.0, 12.0), 29: '2026:06:21'}
    assert photo_exif(photo(exif_of({}, gps))).taken == datetime(2026, 6, 21, 10, 30, 12, tzinfo=UTC)
    assert photo_exif(photo(exif_of(SHOT, gps))).taken == datetime(2026, 1, 15, 9, 30)
    assert photo_exif(photo(exif_of({}, gps | {7: (24.0, 0.0, 0.0)}))).taken is None


@pytest.mark.parametrize(
    ('gps', 'place'),
    [
        ({1: 'S', 3: 'W'}, (-47.0, -13.25)),
        ({1: 's\0'}, (-47.0, 13.25)),
        ({1: ''}, (None, 13.25)),
        ({1: 'NS'}, (None, 13.25)),
        ({2: (90.0, 1.0, 0.0)}, (None, 13.25)),
        ({2: (47.0, 61.0, 0.0)}, (None, 13.25)),
        ({2: (IFDRational(47, 0), 0.0, 0.0)}, (None, 13.25)),
        ({2: (47.0, 0.0)}, (None, 13.25)),
        ({4: (180.0, 0.0, 1.0)}, (47.0, None)),
        ({2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)}, (None, None)),
        ({9: 'V'}, (None, None)),
    ],
)
def test_a_place_is_one_that_there_is(gps, place):
    exif = photo_exif(photo(exif_of(gps=GPS | gps)))
    assert (exif.latitude, exif.longitude) == place


def test_a_missing_hemisphere_is_not_guessed():
    gps = {tag: value for tag, value in GPS.items() if tag != 1}
    assert photo_exif(photo(exif_of(gps=gps))).latitude is None


WHOLE = photo(exif_of())


@examples(150)
@given(st.data())
def test_damaged_exif_is_never_an_error(data):
    start = WHOLE.index(b'Exif\0\0')
    content = bytearray(WHOLE)
    for place in data.draw(st.lists(st.integers(start, start + 200), max_size=12)):
        content[place] = data.draw(st.integers(0, 255))
    exif = photo_exif(bytes(content))
    assert exif.latitude is None or -90 <= exif.latitude <= 90
    assert exif.longitude is None or -180 <= exif.longitude <= 180
    json.dumps(exif.as_dict(), allow_nan=False)


@examples(100)
@given(st.binary(max_size=300))
def test_garbage_for_exif_is_none(garbage):
    exif = photo_exif(photo(b'Exif\0\0' + garbage, side=16))
    assert isinstance(exif, PhotoExif)


def test_what_is_no_photo_says_nothing(tmp_path, capfd):
    (tmp_path / 'text.jpg').write_text('seen from the roof')
    for source in (b'', b'<html>', tmp_path / 'none.jpg', tmp_path / 'text.jpg', WHOLE[:300], Image.new('L', (8, 8))):
        assert isinstance(photo_exif(source), PhotoExif)
    assert capfd.readouterr() == ('', '')


def test_as_text_and_as_json():
    exif = photo_exif(photo(exif_of()))
    assert str(exif) == '2026-01-15 09:30, 47.0000° N, 13.2500° E'
    assert exif.as_dict() == {'taken': '2026-01-15T09:30:00', 'latitude': 47.0, 'longitude': 13.25}
    assert (str(PhotoExif()), set(PhotoExif().as_dict().values())) == ('', {None})


# The table


@given(st.floats(-90, 90))
def test_shares_sum_to_one_and_both_hemispheres_are_alike(latitude):
    assert np.isclose(CLIMATE.shares(latitude).sum(), 1)
    assert (CLIMATE.shares(latitude) == CLIMATE.shares(-latitude)).all()
    seasonal = read_climate(SEASONAL)
    for month in range(1, 13):
        there = seasonal.shares(-latitude, (month + 5) % 12 + 1)
        assert np.allclose(seasonal.shares(latitude, month), there, atol=1e-12)


def test_seasons_are_quarters_that_begin_with_december():
    assert [season_of(m) for m in range(1, 13)] == [SEASONS[m % 12 // 3] for m in range(1, 13)]
    assert [season_of(m, opposite=True) for m in (1, 4, 7, 10)] == ['JJA', 'SON', 'DJF', 'MAM']


def test_a_table_with_the_south_in_it_is_taken_as_it_stands():
    climate = read_climate(['season,latitude,St,Cu', 'year,-60,3,1', 'year,60,1,3', '', 'year,0,1,1'])
    assert np.allclose(climate.shares(-60), [0.75, 0.25])
    assert np.allclose(climate.shares(-30), [2 / 3, 1 / 3])
    assert np.allclose(climate.shares(90), [0.25, 0.75])


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        ([], 'first columns'),
        (['latitude,season,St,Cu'], 'first columns'),
        (['season,latitude,St'], 'fewer than two'),
        (['season,latitude,St,Cu+St'], 'Stratus is in it twice'),
        (['season,latitude,St,Cumlus'], 'Cumulus'),
        (['season,latitude,St,Cu'], 'no season'),
        (['season,latitude,St,Cu', 'DJF,0,1,1'], 'it has DJF'),
        (['season,latitude,St,Cu', 'year,0,1,1', 'year,0,1,2'], 'a latitude twice'),
        (['season,latitude,St,Cu', 'winter,0,1,1'], 'line 2.*winter'),
        (['season,latitude,St,Cu', 'year,0,1'], 'line 2.*3 cells'),
        (['season,latitude,St,Cu', 'year,91,1,1'], 'line 2.*91'),
        (['season,latitude,St,Cu', 'year,0,0,1'], 'line 2.*above 0'),
        (['season,latitude,St,Cu', 'year,0,nan,1'], 'line 2.*above 0'),
        (['season,latitude,St,Cu', 'year,0,many,1'], 'line 2'),
        (['season,latitude,St,Cu', 'year'], 'line 2'),
    ],
)
def test_a_table_that_cant_be_used_says_why(lines, message):
    from cloud_classifier.errors import UserError

    with pytest.raises(UserError, match=message) as caught:
        read_climate(lines)
    assert 'line' not in message or isinstance(caught.value, BadClimate)


# The prior

CLASSES = ['Ci', 'Cirrostratus', 'Ac', 'Sc', 'Ns', 'Ct']
TRAINED = [0.3, 0.1, 0.2, 0.2, 0.1, 0.1]


@given(st.floats(-90, 90), st.floats(0, 1))
def test_the_prior_is_the_formula(latitude, strength):
    prior = prior_for(None, latitude, CLASSES, TRAINED, strength)
    high, middle, low = np.array([0.4, 0.2, 0.2]) ** (1 - strength) * CLIMATE.shares(latitude) ** strength
    counted = 0.8 / (high + middle + low)
    expected = [high * counted * 0.75, high * counted * 0.25, middle * counted, low * counted, 0.1, 0.1]
    assert np.allclose([*prior.values()], expected, atol=1e-12)
    assert [*prior] == CLASSES
    assert np.allclose(read_prior(prior, CLASSES, TRAINED), expected, atol=1e-9)


@given(st.floats(-90, 90), st.floats(0, 0.9), st.floats(0.01, 0.1))
def test_the_more_the_table_is_believed_the_nearer_is_its_mix(latitude, strength, more):
    def distance(s):
        high, _, _, low, *_ = prior_for(None, latitude, CLASSES, strength=s).values()
        return abs(np.log(low / high) - np.log(CLIMATE.shares(latitude)[2] / CLIMATE.shares(latitude)[0] * 2))

    assert distance(strength + more) <= distance(strength) + 1e-12


def test_classes_that_the_table_does_not_count_keep_their_shares():
    assert prior_for(None, 10, ['Ct', 'Ns', 'Ci'], [0.5, 0.3, 0.2]) == {'Ct': 0.5, 'Ns': 0.3, 'Ci': 0.2}
    assert prior_for(None, 10, ['Ct', 'Clear']) == {'Ct': 0.5, 'Clear': 0.5}


def test_without_what_is_needed_there_is_no_prior():
    seasonal, now = read_climate(SEASONAL), datetime(2026, 7, 1)
    assert prior_for(now, None, CLASSES) is None
    assert prior_for(None, 10, CLASSES, climate=seasonal) is None
    assert prior_for(now, 10, CLASSES, climate=seasonal) is not None
    assert (why_no_prior(now, None), why_no_prior(None, 1, seasonal), why_no_prior(None, 1)) == (
        'no place',
        'no time',
        '',
    )
    with pytest.raises(ValueError, match='from 0 to 1'):
        prior_for(now, 10, CLASSES, strength=2)


# Ten photos of both hemispheres, and without

JOURNEY = [
    ('2026:01:15 09:30:00', 60.0),
    ('2026:07:15 09:30:00', 60.0),
    ('2026:01:15 09:30:00', -60.0),
    ('2026:07:15 09:30:00', -60.0),
    ('2026:01:15 09:30:00', 20.0),
    ('2026:07:15 09:30:00', -20.0),
    (None, 47.0),
    ('2026:01:15 09:30:00', None),
    (None, None),
    ('garbage', 90.5),
]


@pytest.fixture(scope='module')
def journey(tmp_path_factory):
    "Photos of one sky at many places."
    folder = tmp_path_factory.mktemp('journey')
    files = [folder / f'{n}.jpg' for n in range(len(JOURNEY))]
    for file, (taken, latitude) in zip(files, JOURNEY, strict=True):
        gps = {} if latitude is None else GPS | {1: 'NS'[latitude < 0], 2: (abs(latitude), 0.0, 0.0)}
        file.write_bytes(photo(exif_of({0x9003: taken} if taken else {}, gps)))
    return files


@pytest.fixture(scope='module')
def clouds():
    return CloudClassifier(shipped_model(), threads=1)


def test_the_prior_moves_answers_as_the_table_says(journey, clouds):
    seasonal, k = read_climate(SEASONAL), len(clouds.classes)
    plain = dict(clouds.predict(journey[0], k).top)
    probs = np.array([plain[o] for o in clouds.classes])

    def prior(file):
        return prior_of_photo(file, clouds.classes, clouds.trained, climate=seasonal)

    answers = [dict(o.top) for o in clouds.predict_many(journey, k, batch_size=4, prior=prior)]
    for file, answer in zip(journey, answers, strict=True):
        if shares := prior(file):
            expected = adjust_prior(probs, clouds.trained, read_prior(shares, clouds.classes, clouds.trained))
        else:
            expected = probs
        assert np.allclose([answer[o] for o in clouds.classes], expected, atol=1e-12)
        assert clouds.predict(file, k, prior).top == tuple(answer.items())
    stratus = [o['Stratus'] / o['Cumulus'] for o in answers]
    assert stratus[0] == pytest.approx(stratus[3])  # winters
    assert stratus[1] == pytest.approx(stratus[2])  # summers
    assert stratus[0] / stratus[1] == pytest.approx((5 / 0.2) ** 0.5)
    assert stratus[1] == pytest.approx(stratus[4]) == pytest.approx(stratus[5])
    assert [prior(o) is None for o in journey] == [False] * 6 + [True] * 4


def test_without_being_asked_for_it_changes_no_digit(journey, clouds):
    bare = photo()
    alone = clouds.predict(bare).as_dict()
    assert [o.as_dict() for o in clouds.predict_many(journey)] == [alone] * len(journey)
    assert clouds.predict(journey[0], prior=prior_of_photo(bare, clouds.classes)).as_dict() == alone


# On the command line


def predict(command, *args):
    status, out, err = command('predict', '-q', *args)
    assert (status, err) == (0, '')
    return out


SECRETS = ('2026', '47.0', '13.25', 'Anna', 'latitude', 'taken')


def test_predict_tells_time_and_place_only_where_asked(command, journey):
    folder = journey[0].parent
    plain = predict(command, '--json', *journey)
    entries = [json.loads(line) for line in plain.splitlines()]
    text = plain.replace(str(folder), '')
    assert not [o for o in SECRETS if o in text]
    assert not [o for o in SECRETS if o in predict(command, *journey).replace(str(folder), '')]
    asked = [json.loads(line) for line in predict(command, '--json', '--exif', *journey).splitlines()]
    assert [{k: v for k, v in o.items() if k not in ('taken', 'latitude', 'longitude')} for o in asked] == entries
    assert [o['latitude'] for o in asked] == [60, 60, -60, -60, 20, -20, 47, None, None, None]
    assert [o['taken'] for o in asked][6:] == [None, '2026-01-15T09:30:00', None, None]
    assert not any('Anna' in json.dumps(o) for o in asked)


def test_predict_by_climate(command, journey, tmp_path):
    table = tmp_path / 'table.csv'
    table.write_text('\n'.join(SEASONAL), encoding='utf-8-sig')
    plain = [json.loads(line) for line in predict(command, '--json', *journey).splitlines()]
    for args, used in {
        (): ['used'] * 7 + ['no place'] * 3,
        ('--latitude', '-10'): ['used'] * 10,
        ('--climate-table', table): ['used'] * 6 + ['no time'] + ['no place'] * 3,
        ('--climate-table', table, '--taken', '2026-06'): ['used'] * 7 + ['no place'] * 3,
        ('--climate-table', table, '--taken', '2026-06-21', '--latitude', '50'): ['used'] * 10,
    }.items():
        out = predict(command, '--json', '--climate', *args, *journey)
        answers = [json.loads(line) for line in out.splitlines()]
        assert [o.pop('climate') for o in answers] == used
        same = [o == p for o, p in zip(answers, plain, strict=True)]
        assert same == [o != 'used' for o in used]
        assert not [o for o in SECRETS if o in out.replace(str(journey[0].parent), '')]


def test_watch_by_climate(command, journey, tmp_path):
    table, camera = tmp_path / 'table.csv', tmp_path / 'camera'
    table.write_text('\n'.join(SEASONAL), encoding='utf-8')
    camera.mkdir()
    for n in (3, 8):  # a winter in the south, and nothing said
        shutil.copy(journey[n], camera)
    climate = ['--climate', '--climate-table', table, '--latitude', '60', '--json']
    status, out, _ = command('watch', camera, '--all', '--count', '2', '--every', '.1', *climate)
    frames = {row['name']: row for row in map(json.loads, out.splitlines()) if row['event'] == 'frame'}
    now = f'{datetime.now():%Y-%m}'
    expected = [json.loads(o) for o in predict(command, *climate, '--taken', now, journey[3], journey[8]).splitlines()]
    assert status == 0
    assert [(frames[f'{n}.jpg']['label'], frames[f'{n}.jpg']['probability']) for n in (3, 8)] == [
        (o['label'], pytest.approx(o['probability'], abs=1e-4)) for o in expected
    ]
    assert not [o for o in (*SECRETS[1:], '"60') if o in out]


@pytest.mark.parametrize('kind', ['csv', 'jsonl', 'parquet'])
def test_tables_hold_time_and_place_only_where_asked(command, journey, tmp_path, kind):
    if kind == 'parquet':
        pytest.importorskip('pyarrow')
    photos = [shutil.copy(file, tmp_path) for file in journey]
    for args, told in {(): False, ('--climate', '--latitude', '13.25'): False, ('--exif',): True}.items():
        folder = tmp_path / f'tables {len(args)}'
        folder.mkdir()
        predict(command, *photos, '--out', folder / f'answers.{kind}', *args)
        content = b''.join(p.read_bytes() for p in folder.rglob('*') if p.is_file())
        assert (b'latitude' in content, b'taken' in content) == (told, told)
        assert told or not [o for o in (b'2026', b'13.25') if o in content]
        assert b'Anna' not in content
    if kind == 'parquet':
        from pyarrow.parquet import read_table

        assert read_table(folder / 'answers.parquet')['latitude'].to_pylist()[:3] == [60, 60, -60]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--latitude', '3'], '--latitude'),
        (['--taken', '2026-01'], '--taken'),
        (['--climate-table', 'x.csv'], '--climate-table'),
        (['--climate', '--taken', 'yesterday'], 'YYYY-MM-DD'),
        (['--climate', '--latitude', '91'], '--latitude'),
        (['--climate', '--prior', 'St=.3'], '--prior'),
        (['--climate', '--climate-table', 'nowhere.csv'], 'nowhere.csv'),
    ],
)
def test_options_that_cant_be_are_refused(command, journey, args, message):
    status, out, err = command('predict', journey[0], *args)
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert message in err


# Nothing that is written or shown carries it


def telling(content: bytes) -> list[bytes]:
    "What of the photo's Exif, comment and XMP stands in some bytes."
    return [o for o in (b'2026', b'Anna', b'Angstrom', b'at home', b'GPSLatitude', b'Exif\0\0') if o in content]


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a exif:GPSLatitude="47,0N"/></x:xmpmeta>'


@pytest.fixture
def told():
    "A photo that tells much."
    content = photo(exif_of(), side=400, comment=b'at home', xmp=XMP)
    assert len(telling(content)) == 6
    return content


def test_pictures_that_are_made_of_a_photo_carry_nothing(told, tmp_path):
    from cloud_classifier.data.duplicates import _picture_uri
    from cloud_classifier.data.widget import small_copies
    from cloud_classifier.evaluation.report import _photo
    from cloud_classifier.prediction.app import preview

    file = tmp_path / 'sky.jpg'
    file.write_bytes(told)
    (cleaner, _), *_ = small_copies([file], 100)
    pages = [_picture_uri(file), _photo(str(file))['src']]
    uris = [base64.b64decode(o.partition(',')[2]) for o in pages]
    for copy in (thumbnail(told, 100), preview(told), cleaner, *uris):
        assert telling(copy) == []
        with Image.open(io.BytesIO(copy)) as image:
            assert (dict(image.getexif()), image.info.get('comment')) == ({}, None)
    for format in ('JPEG', 'PNG', 'WEBP'):
        saved = io.BytesIO()
        open_image(told).save(saved, format)
        assert telling(saved.getvalue()) == []


def test_a_dataset_keeps_the_file_as_it_is_and_notes_nothing_of_it(told, tmp_path):
    from cloud_classifier.data.dataset import Dataset, write_attribution
    from cloud_classifier.data.scrape import add_photos

    (tmp_path / 'new').mkdir()
    (tmp_path / 'new' / 'sky.jpg').write_bytes(told)
    add_photos(tmp_path / 'data', tmp_path / 'new', 'Stratus', progress=False)
    (kept,) = (tmp_path / 'data' / 'Stratus').iterdir()
    assert kept.read_bytes() == told
    dataset = Dataset(tmp_path / 'data')
    write_attribution(dataset, tmp_path / 'data' / 'attribution.csv')
    for file in (tmp_path / 'data').glob('*.*'):
        found = [o for o in telling(file.read_bytes()) if o != b'2026']  # when it was added is told
        assert found == [], file.name


def test_the_service_and_the_app_answer_without_it(told, tmp_path):
    from cloud_classifier.prediction.app import answer_html

    pytest.importorskip('fastapi_offline')
    from cloud_classifier.prediction.serve import api

    model = write_model(tmp_path / 'clouds.onnx')
    with TestClient(api(model)) as client:
        answer = client.post('/predict', files={'files': ('sky.jpg', told)})
    assert answer.status_code == 200
    headers = ' '.join(f'{k}: {v}' for k, v in answer.headers.items() if k != 'date').encode()
    assert telling(answer.content + headers) == []
    assert b'latitude' not in answer.content
    clouds = CloudClassifier(model)
    assert telling(answer_html(clouds.predict(told)).encode()) == []
    assert telling(model.read_bytes()) == []
