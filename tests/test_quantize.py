"Smaller files: that they say the same, are refused like any other when they are damaged, and cost what they may cost."

import json
import logging

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_net import SIZE, small_net

from cloud_classifier.images import Preprocess
from cloud_classifier.prediction.export import quantize, quantized
from cloud_classifier.prediction.infer import OPERATORS, BadModel, CloudClassifier, read_graph
from cloud_classifier.training.config import BadConfig


@pytest.fixture
def exact(tmp_path, monkeypatch):
    # As many weights as its last convolution has.
    monkeypatch.setattr('cloud_classifier.prediction.export.MIN_CONVOLUTION', 2_000)
    return small_net(tmp_path / 'clouds.onnx', card='{"arch": "by hand"}')


@pytest.fixture
def photos(skies):
    return sorted(skies.rglob('*.jpg'))


def pixels(photos):
    return np.stack([Preprocess(SIZE)(o) for o in photos])


@pytest.mark.parametrize(
    ('to', 'share', 'apart'), [('int8', 0.4, 0.02), ('int8-weights', 0.6, 0.01), ('fp16', 0.6, 0.002)]
)
def test_a_smaller_file_says_nearly_the_same(to, share, apart, exact, photos):
    small = quantize(exact, photos[::2], to)
    assert small.name == f'clouds-{to}.onnx'
    assert small.stat().st_size < share * exact.stat().st_size
    a, b = (CloudClassifier(o).probabilities(pixels(photos[1::2])) for o in (exact, small))
    assert 0 < abs(a - b).max() < apart
    assert (a.argmax(1) == b.argmax(1)).mean() > 0.9


def test_what_is_known_of_the_model_stays(exact, photos):
    a, b = CloudClassifier(exact), CloudClassifier(quantize(exact, photos[::2]))
    assert (a.classes, a.preprocess, a.temperature) == (b.classes, b.preprocess, b.temperature)
    assert b.card == a.card | {'precision': 'int8', 'ranges_from': len(photos[::2])}


@pytest.mark.parametrize('to', ['int8', 'int8-weights', 'fp16'])
def test_the_file_holds_each_weight_once_and_what_every_reader_knows(to, exact, photos):
    data = quantized(exact, photos[::2], to)
    assert [o.name for o in read_graph(data)[1]] == ['logits', 'embedding']
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert {o.op_type for o in model.graph.node} <= OPERATORS
    assert [o.domain for o in model.opset_import] == ['']
    arrays = {o.name: numpy_helper.to_array(o) for o in model.graph.initializer}
    assert {o for node in model.graph.node for o in node.input} >= set(arrays)
    assert not [k for k, a in arrays.items() if a.size >= 10_000 and a.itemsize > (1 if to == 'int8' else 2)]
    weights = {o.input[0] for o in model.graph.node if o.op_type == 'Cast'}
    if to == 'int8-weights':
        assert any(o.op_type == 'Conv' for o in model.graph.node)
        assert {arrays[o].dtype for o in weights if arrays[o].ndim == 4} == {np.dtype('int8')}


def test_the_same_photos_give_the_same_bytes(exact, photos):
    assert quantized(exact, photos[::2]) == quantized(exact, photos[::2])


def test_threads_and_company_do_not_change_an_answer(exact, photos):
    file, x = quantize(exact, photos[::2]), pixels(photos)
    one = CloudClassifier(file, threads=1).run(x)[0]
    assert np.allclose(one, CloudClassifier(file, threads=2).run(x)[0], atol=1e-5)
    alone = np.concatenate([CloudClassifier(file, threads=1).run(o[None])[0] for o in x])
    assert np.allclose(one, alone, atol=1e-4)


def test_sums_that_overflow_on_older_processors_are_asked_for_exactly(exact, photos, monkeypatch):
    "Without VNNI ONNX Runtime would add unsigned and signed products in 16 bits, and clamp them."
    from cloud_classifier.prediction import infer

    asked = {}
    real = infer.ort.InferenceSession

    def watched(model, options, **kwargs):
        asked['exact'] = options.get_session_config_entry('session.x64quantprecision')
        return real(model, options, **kwargs)

    monkeypatch.setattr(infer.ort, 'InferenceSession', watched)
    CloudClassifier(exact)
    assert asked == {'exact': '1'}


def test_shifted_means_are_taken_back(exact, photos, monkeypatch):
    "Of the last layer's channels, over photos: with the correction they are nearer to what they were."
    from cloud_classifier.prediction import export as module

    def shift(data, file):
        file.write_bytes(data)
        a, b = (CloudClassifier(o).session.run(['embedding'], {'pixels': x})[0].mean(0) for o in (exact, file))
        return abs(a - b).mean()

    x, file = pixels(photos), exact.with_name('other.onnx')
    corrected = shift(quantized(exact, photos), file)
    monkeypatch.setattr(module, '_correct_biases', lambda *_: None)
    assert corrected < shift(quantized(exact, photos), file)


def test_a_network_without_biases_gets_some(tmp_path, photos):
    exact = small_net(tmp_path / 'bare.onnx', biases=False)
    a, b = (CloudClassifier(o).probabilities(pixels(photos)) for o in (exact, quantize(exact, photos)))
    assert abs(a - b).max() < 0.05


def test_a_smaller_file_that_was_tampered_with_is_refused(exact, photos):
    file = quantize(exact, photos[::2])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(BadModel, match=r'is damaged|cut off|can’t be used'):
        CloudClassifier(file)


def test_photos_that_can_not_be_opened_are_said(exact, photos, tmp_path, caplog):
    (tmp_path / 'page.jpg').write_text('<html>404</html>')
    with caplog.at_level(logging.WARNING, 'cloud_classifier.prediction.export'):
        data = quantized(exact, [*photos[::2], tmp_path / 'page.jpg', tmp_path / 'gone.jpg'])
    [line] = [o.message for o in caplog.records if o.name == 'cloud_classifier.prediction.export']
    assert line.startswith(f'2 of {len(photos[::2]) + 2} photos could not be opened')
    assert 'page.jpg: is not a photo' in line
    assert data == quantized(exact, photos[::2])


def test_wrong_arguments_get_a_line(exact, photos, tmp_path):
    lines = {
        'int8, int8-weights or fp16': lambda: quantized(exact, photos, 'int4'),
        'needs photos to find its ranges': lambda: quantized(exact),
        'none could be opened: .*gone.jpg': lambda: quantized(exact, [tmp_path / 'gone.jpg']),
        'is a folder': lambda: quantize(exact, photos, out=tmp_path),
        'quantised already': lambda: quantized(quantize(exact, to='fp16'), photos),
        'no convolutions': lambda: quantized(small_net(tmp_path / 'first.onnx', first_only=True), photos),
    }
    for line, call in lines.items():
        with pytest.raises(BadConfig, match=line) as e:
            call()
        assert '\n' not in str(e.value)
    with pytest.raises(BadModel, match='no such model'):
        quantize(tmp_path / 'none.onnx', photos)


def test_a_failed_write_leaves_what_was_there(exact, photos, monkeypatch):
    file = quantize(exact, photos[::2])
    before = file.read_bytes()
    monkeypatch.setattr('os.fsync', lambda _: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        quantize(exact, photos)
    assert file.read_bytes() == before


@pytest.mark.parametrize('of', ['run', pytest.param('large_run', marks=pytest.mark.soak)])
def test_a_run_is_exported_smaller(of, request, tmp_path, monkeypatch, traced_once):
    "With temperature, rules and limit of OOD score of its own, and a word on what it costs."
    from cloud_classifier.prediction import export
    from cloud_classifier.prediction.export import ParityError, export_run

    run = request.getfixturevalue(of)
    monkeypatch.setattr(export, 'MAX_LOSS', {'accuracy': 1, 'ece': 1})  # of six photos one is a sixth
    big, _ = export_run(run, tmp_path / 'big.onnx')
    small, worst = export_run(run, tmp_path / 'small.onnx', to='int8')
    a, b = CloudClassifier(big), CloudClassifier(small)
    assert small.stat().st_size < 0.4 * big.stat().st_size
    assert b.card['parity']['largest_difference'] == worst < 0.2
    assert b.card['calibration']['basis'] == a.card['calibration']['basis'] == 'validation part'
    assert b.temperature == b.card['calibration']['temperature'] != a.temperature
    valid = np.stack([b.preprocess(o) for o in run.split.files('valid')])
    assert (b.run(valid)[1] < b.rules.ood_threshold).all()  # at so few photos 95% means all
    assert json.loads(json.dumps(b.card)) == b.card
    monkeypatch.setattr(export, 'MAX_LOSS', {'accuracy': -1})
    before = small.read_bytes()
    with pytest.raises(ParityError, match=r'small.onnx: is not written, because it loses'):
        export_run(run, small, to='int8')
    assert small.read_bytes() == before
    assert sorted(o.name for o in tmp_path.iterdir()) == ['big.onnx', 'small.onnx']
