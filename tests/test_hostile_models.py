"A model is data from strangers: each file of the corpus is answered with one line, soon, and in little memory."

import json
import signal
import subprocess
import sys
import time

import hostile_models
import numpy as np
import pytest
from bounds import run_bounded
from hostile_models import CORPUS, GREEDY, LOGITS, SIZE, node, says, sealed, slow
from PIL import Image
from reading import read_line

from cloud_classifier.prediction.infer import BadModel, CloudClassifier

ASK = '''
import json, resource, sys, time, tracemalloc
import numpy as np
from cloud_classifier.prediction import infer
for file in sys.argv[1:]:
    start, said = time.monotonic(), ''
    try: said = str(infer.CloudClassifier(file).run(np.ones((2, 3, 32, 32), np.float32)))
    except Exception as e: kind, said = type(e).__name__, str(e)
    else: kind = 'answer'
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps(dict(kind=kind, said=said, seconds=time.monotonic() - start, megabytes=used)))
'''


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    "What the predictor says of each file of the corpus, in one process, and what that cost."
    files = hostile_models.write(tmp_path_factory.mktemp('corpus'), CORPUS | {'good': sealed})
    cost = run_bounded([sys.executable, '-c', ASK, *files.values()], seconds=300)
    assert cost.status == 0, cost.err
    return dict(zip(files, map(json.loads, cost.out.splitlines()), strict=True)), cost


@pytest.mark.parametrize('name', CORPUS)
def test_each_is_a_bad_model(answers, name):
    found = answers[0][name]
    assert found['kind'] == 'BadModel', found['said']
    assert found['said'].isprintable()
    assert len(found['said']) < 700
    assert found['seconds'] < 10


def test_the_model_that_they_are_made_of_is_a_good_one(answers):
    assert answers[0]['good']['kind'] == 'answer'


def test_a_hundred_of_them_take_little_memory(answers):
    _, cost = answers
    assert cost.megabytes < 400
    assert cost.err == ''


@pytest.mark.parametrize('name', GREEDY)
def test_memory_has_an_end(name, tmp_path):
    [file] = hostile_models.write(tmp_path, {name: GREEDY[name]}).values()
    cost = run_bounded([sys.executable, '-c', ASK, file], seconds=60)
    found = json.loads(cost.out)
    assert found['kind'] == 'BadModel', found['said']
    assert 'memory' in found['said'] or 'fails when it runs' in found['said']
    assert cost.megabytes < 1500
    assert found['seconds'] < 20


def test_time_has_an_end(tmp_path):
    (tmp_path / 'slow.onnx').write_bytes(slow())
    ask = ASK.replace('import infer\n', 'import infer\ninfer.MAX_SECONDS = 1\n')
    cost = run_bounded([sys.executable, '-c', ask, tmp_path / 'slow.onnx'], seconds=60)
    found = json.loads(cost.out)
    assert (found['kind'], cost.status) == ('BadModel', 0)
    assert 'gave no answer within 2 seconds' in found['said']
    assert found['seconds'] < 30


def test_ctrl_c_is_heard_while_a_network_computes(tmp_path):
    (tmp_path / 'slow.onnx').write_bytes(slow())
    ask = ASK.replace('for file', 'print("asked", flush=True)\nfor file')
    process = subprocess.Popen(
        [sys.executable, '-c', ask, tmp_path / 'slow.onnx'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        read_line(process)
        time.sleep(1)  # the network takes minutes
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode != 0
    assert err.strip().endswith('KeyboardInterrupt')


def test_weights_beside_the_file_are_not_read(tmp_path, monkeypatch):
    "ONNX Runtime itself would: the file's name comes from the model."
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'secret').write_bytes(hostile_models.WEIGHTS.tobytes())
    (tmp_path / 'clouds.onnx').write_bytes(CORPUS['weights in another file']())
    with pytest.raises(BadModel, match='another file'):
        CloudClassifier('clouds.onnx')
    (tmp_path / 'clouds.onnx').write_bytes(sealed())
    CloudClassifier('clouds.onnx').run(np.zeros((1, 3, SIZE, SIZE), np.float32))


def test_no_bit_can_fall_over_unnoticed(tmp_path):
    "One bit of each byte of a model, one after another; the words that follow differ, the error does not."
    whole, file = sealed(), tmp_path / 'clouds.onnx'
    for i in range(len(whole)):
        file.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        with pytest.raises(BadModel):
            CloudClassifier(file)


def test_a_card_steers_no_terminal(tmp_path, command):
    "It may say anything; what would move the cursor is written out."
    (tmp_path / 'clouds.onnx').write_bytes(
        says(card={'note\x1b[2J': ['\x1b]0;title\x07', '\u202egpj', '\x9b31m', 'Süd\nWest']})
    )
    card = CloudClassifier(tmp_path / 'clouds.onnx').card
    assert card == {'note\\x1b[2J': ['\\x1b]0;title\\x07', '\\u202egpj', '\\x9b31m', 'Süd\nWest']}
    for options in ([], ['--json']):
        status, out, _ = command('info', tmp_path / 'clouds.onnx', *options)
        assert status == 0
        assert not set(out) & {'\x1b', '\x07', '\x9b', '\u202e'}


@pytest.mark.parametrize('name', ['weights of NaN', 'a deep card', 'a loop', 'no inputs', 'a shape that does not fit'])
def test_commands_say_it_in_one_line(name, tmp_path, command):
    [file] = hostile_models.write(tmp_path / 'models', {name: CORPUS[name]}).values()
    Image.new('RGB', (64, 64)).save(tmp_path / 'sky.jpg')
    for options in ([], ['--json']):
        status, out, err = command('predict', tmp_path / 'sky.jpg', '--model', file, *options)
        assert (status, out, err.count('\n')) == (2, '', 1), (out, err)
        assert file.name in err


def test_info_says_it_in_one_line(tmp_path, command):
    for name, file in hostile_models.write(
        tmp_path, {k: CORPUS[k] for k in ('a loop', 'a deep card', 'noise')}
    ).items():
        status, out, err = command('info', file)
        assert (status, out, err.count('\n')) == (2, '', 1), name


@pytest.mark.parametrize('name', ['a loop', 'weights of NaN', 'one answer for all'])
def test_evaluating_one_is_refused_in_one_line(name, tmp_path, skies, command):
    [file] = hostile_models.write(tmp_path, {name: CORPUS[name]}).values()
    status, out, err = command('evaluate', file, skies)
    assert (status, out) == (2, '')
    assert len([line for line in err.splitlines() if file.name in line]) == 1
    assert not list(tmp_path.glob('*report*'))


TRUST = [
    None,
    1,
    [],
    'x',
    {'rules': None},
    {'rules': {'thresholds': {}}, 'more': 1},
    {'rules': {'thresholds': {'genus': []}}},
]


@pytest.mark.parametrize('calibration', TRUST, ids=str)
def test_a_card_may_say_anything_of_trust(calibration, tmp_path):
    "What chose the rules is told in the card; the rules themselves are not read from there."
    from cloud_classifier.evaluation.report import Predictor

    (tmp_path / 'clouds.onnx').write_bytes(says(card={'calibration': calibration}))
    assert Predictor.from_onnx(CloudClassifier(tmp_path / 'clouds.onnx')).calibration.temperature == 1


def test_photos_that_do_not_fit_together_are_asked_about_in_halves(tmp_path):
    "In a process that has 20 MB for what is computed; the answers are those of one that has a gigabyte."
    side = 1000
    big = sealed(
        node('MatMul', 'colour weights', 'flat'),
        node('Expand', 'flat shape', 'many'),
        node('ReduceMean', 'many first', 'mean', keepdims=0),
        node('Identity', 'mean', 'logits'),
        outputs=[LOGITS],
        shape=np.array([side, 1, 3]),
        first=np.array([0]),
    )
    (tmp_path / 'clouds.onnx').write_bytes(big)
    pixels = np.random.default_rng(0).normal(size=(4096, 3, SIZE, SIZE)).astype(np.float32)
    np.save(tmp_path / 'pixels.npy', pixels)
    code = f'''
import numpy as np
from cloud_classifier.prediction import infer
infer.MAX_MEMORY = 20_000_000
found, _ = infer.CloudClassifier({str(tmp_path / 'clouds.onnx')!r}).run(np.load({str(tmp_path / 'pixels.npy')!r}))
np.save({str(tmp_path / 'found.npy')!r}, found)
'''
    cost = run_bounded(code, seconds=120)
    assert cost.status == 0, cost.err
    expected, _ = CloudClassifier(tmp_path / 'clouds.onnx').run(pixels)
    assert np.allclose(np.load(tmp_path / 'found.npy'), expected, atol=1e-5)
