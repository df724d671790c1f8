"A model file in a few kilobytes, written by hand."

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from cloud_classifier.images import Preprocess
from cloud_classifier.prediction.infer import FORMAT, seal

SIZE = 32


def small_net(file, card='{}', first_only=False, biases=True):
    "A network of a depthwise block with a residual, as mobile nets have them, and a head with large matrices."
    rng, nodes = np.random.default_rng(0), []
    arrays = {'zero': np.float32(0), 'six': np.float32(6), 'axes': np.array([2, 3])}

    def conv(source, name, cin, cout, side, groups=1):
        fan = cin // groups * side * side
        arrays[f'{name} w'] = rng.normal(0, (2 / fan) ** 0.5, (cout, cin // groups, side, side)).astype(np.float32)
        arrays[f'{name} b'] = rng.normal(0, 0.1, cout).astype(np.float32)
        inputs = [source, f'{name} w', f'{name} b'][: 3 if biases else 2]
        nodes.append(helper.make_node('Conv', inputs, [name], name, pads=[side // 2] * 4, group=groups))
        nodes.append(helper.make_node('Clip', [name, 'zero', 'six'], [f'{name} clipped'], f'{name} clipped'))

    conv('pixels', 'first', 3, 16, 3)
    if not first_only:
        conv('first clipped', 'deep', 16, 16, 3, groups=16)
        conv('deep clipped', 'point', 16, 16, 1)
        nodes.append(helper.make_node('Add', ['point clipped', 'first clipped'], ['sum'], 'sum'))
        conv('sum', 'last', 16, 128, 1)
    last = 'first' if first_only else 'last'
    nodes.append(helper.make_node('ReduceMean', [f'{last} clipped', 'axes'], ['embedding'], 'pool', keepdims=0))
    width = 16 if first_only else 128
    arrays['hidden w'] = rng.normal(0, 0.3, (128, width)).astype(np.float32)
    arrays['hidden b'] = np.zeros(128, np.float32)
    arrays['out w'] = rng.normal(0, 0.1, (128, 3)).astype(np.float32)
    nodes.append(helper.make_node('Gemm', ['embedding', 'hidden w', 'hidden b'], ['hidden'], 'hidden', transB=1))
    nodes.append(helper.make_node('MatMul', ['hidden', 'out w'], ['logits'], 'out'))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        'small',
        [value('pixels', TensorProto.FLOAT, ['n', 3, SIZE, SIZE])],
        [value('logits', TensorProto.FLOAT, ['n', 3]), value('embedding', TensorProto.FLOAT, ['n', width])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    known = {'classes': '["Cirrus", "Stratus", "Cumulus"]', 'temperature': '1.5', 'card': card}
    helper.set_model_props(model, {'format': FORMAT, 'preprocess': Preprocess(SIZE).to_json()} | known)
    file.write_bytes(seal(model.SerializeToString()))
    return file
