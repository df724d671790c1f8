"Models as strangers might make them: small files that are wrong in one way each, written by code."

import json

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from cloud_classifier.images import Preprocess
from cloud_classifier.prediction.infer import FORMAT, seal

SIZE, CLASSES = 32, ('Cirrus', 'Stratus', 'Contrail')
KNOWN = {
    'format': FORMAT,
    'classes': json.dumps(CLASSES),
    'preprocess': Preprocess(SIZE).to_json(),
    'temperature': '1.0',
    'card': '{"trained_on": "nothing"}',
}
WEIGHTS = np.array([[-3, 1, 3], [0, 0, -3], [3, -1, -3]], np.float32)  # red, green, blue: blue is Cirrus, red Contrail
PIXELS = ('pixels', TensorProto.FLOAT, ['n', 3, SIZE, SIZE])
LOGITS = ('logits', TensorProto.FLOAT, ['n', 3])


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def proto(*nodes, inputs=(PIXELS,), outputs=(LOGITS,), metadata=None, opset=20, **tensors):
    "A model: mean colours, then `nodes`, by default the ones that weigh them. None as a value takes metadata away."
    nodes = nodes or [node('MatMul', 'colour weights', 'logits')]
    first = [node('ReduceMean', 'pixels axes', 'colour', keepdims=0)] if PIXELS in inputs else []
    tensors = {'weights': WEIGHTS, 'axes': np.array([2, 3])} | tensors
    graph = helper.make_graph(
        [*first, *nodes],
        'by_colour',
        [helper.make_tensor_value_info(*o) for o in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [o if isinstance(o, TensorProto) else numpy_helper.from_array(o, name) for name, o in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=10)
    helper.set_model_props(model, {k: v for k, v in (KNOWN | (metadata or {})).items() if v is not None})
    return model


def sealed(*nodes, **kwargs):
    "The bytes of such a model, as export writes them."
    return seal(proto(*nodes, **kwargs).SerializeToString())


def says(**metadata):
    return sealed(metadata={k: v if isinstance(v, str | None) else json.dumps(v) for k, v in metadata.items()})


def pixels(**fields):
    return says(preprocess=json.loads(KNOWN['preprocess']) | fields)


def varint(n):
    out = b''
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def external(tensor, file):
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value=str(file))
    tensor.ClearField('raw_data')
    return tensor


def body(*nodes, inputs=(), outputs=()):
    return helper.make_graph(list(nodes), 'body', list(inputs), list(outputs))


def value(name, kind=TensorProto.FLOAT, shape=()):
    return helper.make_tensor_value_info(name, kind, list(shape))


def endless(inner=None):
    "A loop that goes on for as long as an integer lasts, and then again."
    counted = body(
        node('Identity', 'go', 'still'),
        node('Identity', 'x', 'y'),
        inputs=[value('i', TensorProto.INT64), value('go', TensorProto.BOOL), value('x', shape=['n', 3])],
        outputs=[value('still', TensorProto.BOOL), value('y', shape=['n', 3])],
    )
    return node('Loop', 'often yes colour', 'logits', body=counted)


FOR_EVER = {'often': np.array(2**62), 'yes': np.array(True)}


def with_function():
    "The loop, in a function with a name of its own."
    model = proto(helper.make_node('Calm', ['colour', 'often', 'yes'], ['logits'], domain='ours'), **FOR_EVER)
    imports = [helper.make_opsetid('', 20)]
    model.functions.append(
        helper.make_function('ours', 'Calm', ['colour', 'often', 'yes'], ['logits'], [endless()], imports)
    )
    model.opset_import.append(helper.make_opsetid('ours', 1))
    return seal(model.SerializeToString())


def with_sparse():
    model = proto()
    values, indices = (
        numpy_helper.from_array(np.ones(1, np.float32), 'values'),
        numpy_helper.from_array(np.zeros(1, int)),
    )
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**6, 10**6]))
    return seal(model.SerializeToString())


def with_graph_in_an_attribute():
    relu = node('Relu', 'weighed', 'logits')
    relu.attribute.append(helper.make_attribute('hidden', body(endless())))
    return sealed(node('MatMul', 'colour weights', 'weighed'), relu)


def with_reference():
    relu = node('Relu', 'weighed', 'logits')
    relu.attribute.append(AttributeProto(name='alpha', ref_attr_name='alpha', type=AttributeProto.FLOAT))
    return sealed(node('MatMul', 'colour weights', 'weighed'), relu)


def flipped(at, bit=3):
    "A good model with one bit changed, at a share of its length."
    data = bytearray(sealed())
    data[int(at * len(data))] ^= 1 << bit
    return bytes(data)


def chain(n):
    "A great many operators, one after another."
    steps = [node('Relu', f'x{i}', f'x{i + 1}') for i in range(n)]
    return sealed(node('MatMul', 'colour weights', 'x0'), *steps, node('Identity', f'x{n}', 'logits'))


def grown(*nodes, **tensors):
    "A model that makes a large tensor of a small one, and answers with its mean."
    end = [
        node('ReduceMean', 'large', 'one', keepdims=0),
        node('MatMul', 'colour weights', 'weighed'),
        node('Add', 'weighed one', 'logits'),
    ]
    return sealed(*nodes, *end, seed=np.array([[1.0]], np.float32), **tensors)


def doubled(times):
    steps = [helper.make_node('Concat', [f'x{i}'] * 2, [f'x{i + 1}'], axis=0) for i in range(times)]
    return grown(node('Identity', 'seed', 'x0'), *steps, node('Identity', f'x{times}', 'large'))


def slow(times=2000, side=4000):
    "Products of large matrices, one after another: minutes of computing, and little memory."
    steps = [node('MatMul', f'x{i} x{i}', f'x{i + 1}') for i in range(times)]
    first = node('Expand', 'seed shape', 'x0')
    return grown(first, *steps, node('Identity', f'x{times}', 'large'), shape=np.array([side, side]))


def logits(kind=TensorProto.FLOAT, shape=('n', 3), name='logits'):
    return (name, kind, list(shape))


FLAT = node('MatMul', 'colour weights', 'flat')
HUGE = 10**6

# What each holds, under a name that says what is wrong with it.
CORPUS = {
    # not ONNX at all
    'nothing': lambda: b'',
    'a page': lambda: b'<!doctype html><title>404</title>',
    'zeros': lambda: bytes(4096),
    'noise': lambda: np.random.default_rng(0).bytes(4096),
    'a number without an end': lambda: b'\xff' * 64,
    'groups': lambda: b'\x0b' * 4096,
    'a million fields': lambda: b'\x08\x01' * 2_000_000,
    'a field of exabytes': lambda: b'\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f',
    'half a model': lambda: sealed()[: len(sealed()) // 2],
    'numbers for tables': lambda: seal(b'\x08\x0a\x38\x01\x40\x01\x70\x01'),
    # damaged
    **{f'a bit at {at}': lambda at=at: flipped(at) for at in (0.1, 0.3, 0.45, 0.6, 0.8, 0.99)},
    'a byte more': lambda: sealed() + b'\x00',
    'no digest': lambda: proto().SerializeToString(),
    'another graph appended': lambda: seal(proto().SerializeToString() + field(7, endless().SerializeToString())),
    # metadata
    'nothing known': lambda: sealed(metadata=dict.fromkeys(KNOWN)),
    'said twice': lambda: seal(proto().SerializeToString() + field(14, field(1, b'card') + field(2, b'{}'))),
    'text that is no UTF-8': lambda: seal(proto().SerializeToString() + field(14, field(1, b'\xff') + field(2, b'{}'))),
    'an older version': lambda: says(format='cloud_classifier/1'),
    'a card of brackets': lambda: says(card='[' * 100_000),
    'a deep card': lambda: says(card='{"a":' * 500 + '1' + '}' * 500),
    'a card of 20 MB': lambda: says(card=json.dumps({'a': 'x' * 20_000_000})),
    'preprocessing of brackets': lambda: says(preprocess='[' * 100_000),
    'classes of brackets': lambda: says(classes='[' * 100_000),
    'a temperature of 400 digits': lambda: says(temperature='1' + '0' * 400),
    'a temperature of 5000 digits': lambda: says(temperature='9' * 5000),
    'no temperature': lambda: says(temperature='NaN'),
    'a temperature near none': lambda: says(temperature='1e-320'),
    'a temperature of true': lambda: says(temperature='true'),
    'a size of 400 digits': lambda: pixels(size=10**400),
    'a mean of 400 digits': lambda: pixels(mean=[10**400, 0, 0]),
    'a size of words': lambda: pixels(size='large'),
    'a deviation near none': lambda: pixels(std=[1e-30] * 3),
    'next to nothing of a photo': lambda: pixels(crop=1e-9),
    'too many pixels': lambda: sealed(
        inputs=[('pixels', TensorProto.FLOAT, ['n', 3, 4096, 4096])],
        metadata={'preprocess': json.dumps({'size': 4096})},
    ),
    'a threshold of 400 digits': lambda: says(rules='{"thresholds": {"genus": 1' + '0' * 400 + '}}'),
    'rules that are a list': lambda: says(rules=[1]),
    'OOD score without an end': lambda: says(rules='{"thresholds": {}, "ood_threshold": 1e999}'),
    'shares of words': lambda: says(trained=['0.5', '0.25', '0.25']),
    'shares of 400 digits': lambda: says(trained='[1' + '0' * 400 + ', 1, 1]'),
    'a class that clears the screen': lambda: says(classes=['Cirrus', 'Stratus', '\x1b[2J']),
    'a class that writes backwards': lambda: says(classes=['Cirrus', 'Stratus', '\u202esurric']),
    'a class without a name': lambda: says(classes=['Cirrus', 'Stratus', ' ']),
    'a class with a long name': lambda: says(classes=['Cirrus', 'Stratus', 'x' * 10_000]),
    'a hundred thousand classes': lambda: says(classes=[f'class {i}' for i in range(100_000)]),
    # what goes in and out
    'no inputs': lambda: sealed(node('Identity', 'fixed', 'logits'), inputs=(), fixed=np.zeros((1, 3), np.float32)),
    'two inputs': lambda: sealed(inputs=(PIXELS, ('more', TensorProto.FLOAT, ['n']))),
    'half floats in': lambda: sealed(inputs=[('pixels', TensorProto.FLOAT16, ['n', 3, SIZE, SIZE])]),
    'integers in': lambda: sealed(inputs=[('pixels', TensorProto.UINT8, ['n', 3, SIZE, SIZE])]),
    'one photo alone': lambda: sealed(inputs=[('pixels', TensorProto.FLOAT, [1, 3, SIZE, SIZE])]),
    'flat photos': lambda: sealed(inputs=[('pixels', TensorProto.FLOAT, ['n', 3 * SIZE * SIZE])]),
    'no shape at all': lambda: sealed(inputs=[('pixels', TensorProto.FLOAT, None)]),
    'no outputs': lambda: sealed(outputs=()),
    'another output': lambda: sealed(node('MatMul', 'colour weights', 'answer'), outputs=[logits(name='answer')]),
    'more outputs': lambda: sealed(
        node('MatMul', 'colour weights', 'logits'),
        *[node('Identity', 'colour', f'more{i}') for i in range(9)],
        outputs=[logits(), *(logits(name=f'more{i}') for i in range(9))],
    ),
    'doubles out': lambda: sealed(FLAT, node('Cast', 'flat', 'logits', to=11), outputs=[logits(TensorProto.DOUBLE)]),
    'text out': lambda: sealed(FLAT, node('Cast', 'flat', 'logits', to=8), outputs=[logits(TensorProto.STRING)]),
    'four logits of three': lambda: sealed(outputs=[logits(shape=('n', 4))]),
    'a logit a photo': lambda: sealed(outputs=[logits(shape=('n',))]),
    'OOD score in rows': lambda: sealed(
        node('MatMul', 'colour weights', 'logits'),
        node('Identity', 'colour', 'ood_score'),
        outputs=[LOGITS, logits(name='ood_score')],
    ),
    # what is answered
    'weights of NaN': lambda: sealed(weights=np.full((3, 3), np.nan, np.float32)),
    'weights without an end': lambda: sealed(weights=np.full((3, 3), np.inf, np.float32)),
    'weights too large': lambda: sealed(weights=np.full((3, 3), 3e38, np.float32)),
    'NaN for OOD score': lambda: sealed(
        node('MatMul', 'colour weights', 'logits'),
        node('ReduceSum', 'colour one', 'sum', keepdims=0),
        node('Mul', 'sum nan', 'ood_score'),
        outputs=[LOGITS, logits(name='ood_score', shape=('n',))],
        one=np.array([1]),
        nan=np.array(np.nan, np.float32),
    ),
    'one answer for all': lambda: sealed(
        FLAT, node('ReduceMean', 'flat first', 'mean'), node('Reshape', 'mean where', 'logits'),
        first=np.array([0]), where=np.array([-1, 3]),
    ),
    'a place that is not there': lambda: sealed(
        node('Cast', 'colour', 'where', to=7), node('Add', 'where far', 'there'),
        node('GatherElements', 'weights there', 'logits'), far=np.array(99),
    ),
    'a shape that does not fit': lambda: sealed(
        node('Shape', 'colour', 'shape'), node('Add', 'shape one', 'wrong'), node('Reshape', 'colour wrong', 'logits'),
        one=np.array([1, 1]),
    ),
    # what runs
    'a loop': lambda: sealed(endless(), **FOR_EVER),
    'a loop in a function': with_function,
    'a loop in an attribute': with_graph_in_an_attribute,
    'an attribute from nowhere': with_reference,
    'a choice': lambda: sealed(node('If', 'yes', 'logits', then_branch=body(), else_branch=body()), **FOR_EVER),
    'a scan': lambda: sealed(node('Scan', 'colour', 'logits', num_scan_inputs=1, body=body())),
    'a map over a sequence': lambda: sealed(node('SequenceMap', 'colour', 'logits', body=body())),
    'chance': lambda: sealed(node('RandomNormalLike', 'colour', 'logits')),
    'another maker’s operator': lambda: sealed(helper.make_node('Evil', ['colour'], ['logits'], domain='evil')),
    'ONNX Runtime’s own operator': lambda: sealed(
        helper.make_node('FusedMatMul', ['colour', 'weights'], ['logits'], domain='com.microsoft')
    ),
    'an operator of no name': lambda: sealed(helper.make_node('', ['colour'], ['logits'])),
    'an operator that is none': lambda: sealed(helper.make_node('\x1b[2J', ['colour'], ['logits'])),
    'an operator of a later year': lambda: sealed(opset=9999),
    'a circle': lambda: sealed(node('Add', 'logits colour', 'logits')),
    'an input that is not there': lambda: sealed(node('MatMul', 'colour nowhere', 'logits')),
    'twenty thousand operators': lambda: chain(20_000),
    'weights in another file': lambda: sealed(
        weights=external(numpy_helper.from_array(WEIGHTS, 'weights'), 'secret')
    ),
    'weights in /etc': lambda: sealed(
        weights=external(numpy_helper.from_array(WEIGHTS, 'weights'), '../../../../../../../../etc/hostname')
    ),
    'a constant in another file': lambda: sealed(
        node('Constant', '', 'other', value=external(numpy_helper.from_array(WEIGHTS, 'o'), 'secret')),
        node('MatMul', 'colour other', 'logits'),
    ),
    'terabytes without a byte': lambda: sealed(weights=TensorProto(name='weights', data_type=1, dims=[HUGE, HUGE])),
    'less than nothing': lambda: sealed(weights=TensorProto(name='weights', data_type=1, dims=[-1, 3])),
    'more bytes than elements': lambda: sealed(
        weights=TensorProto(name='weights', data_type=1, dims=[3, 3], raw_data=bytes(99))
    ),
    'weights of text': lambda: sealed(
        weights=TensorProto(name='weights', data_type=8, dims=[1, 1], string_data=[b'a'])
    ),
    'sparse weights': with_sparse,
}  # fmt: skip

# Files that ask for much while they answer: gigabytes, or minutes.
GREEDY = {
    'zeros': lambda: grown(node('ConstantOfShape', 'shape', 'large'), shape=np.array([HUGE, 5000])),
    'copies': lambda: grown(node('Expand', 'seed shape', 'large'), shape=np.array([HUGE, 5000])),
    'tiles': lambda: grown(node('Tile', 'seed often', 'large'), often=np.array([HUGE, 5000])),
    'a border': lambda: grown(node('Pad', 'seed wide', 'large'), wide=np.array([40_000, 40_000, 0, 0])),
    'a zoom': lambda: grown(
        node('Resize', 'seed  none scales'.replace('  ', ' '), 'large'),
        none=np.array([], np.float32), scales=np.array([40_000, 40_000], np.float32),
    ),
    'a count': lambda: grown(
        node('Range', 'zero end step', 'large'),
        zero=np.array(0, np.float32), end=np.array(5e9, np.float32), step=np.array(1, np.float32),
    ),
    'rows by columns': lambda: grown(
        node('MatMul', 'rows columns', 'large'),
        rows=np.ones((40_000, 1), np.float32), columns=np.ones((1, 40_000), np.float32),
    ),
    'rows and columns': lambda: grown(
        node('Add', 'rows columns', 'large'),
        rows=np.ones((40_000, 1), np.float32), columns=np.ones((1, 40_000), np.float32),
    ),
    'forty doublings': lambda: doubled(40),
}  # fmt: skip


def write(folder, corpus=None):
    "Write the files into a folder; their paths."
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f'{i:03} {name.replace("/", "_")}.onnx' for i, name in enumerate(corpus or CORPUS)}
    for name, make in (corpus or CORPUS).items():
        files[name].write_bytes(make())
    return files
