"`cloud-classifier serve` as a process of its own, and a model that answers at once, for tests."

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from reading import read_line

from cloud_classifier.images import Preprocess
from cloud_classifier.prediction.infer import FORMAT, seal

COMMAND = [sys.executable, '-m', 'cloud_classifier.cli']


def write_model(file: Path) -> Path:
    "A model that tells skies by their mean colour: blue is Cirrus, red Contrail."
    size = 32
    weights = np.array([[-3, 1, 3], [0, 0, -3], [3, -1, -3]], np.float32)  # red, green, blue
    graph = helper.make_graph(
        [
            helper.make_node('ReduceMean', ['pixels', 'axes'], ['colour'], keepdims=0),
            helper.make_node('MatMul', ['colour', 'weights'], ['logits']),
        ],
        'by_colour',
        [helper.make_tensor_value_info('pixels', TensorProto.FLOAT, ['n', 3, size, size])],
        [helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['n', 3])],
        [numpy_helper.from_array(weights, 'weights'), numpy_helper.from_array(np.array([2, 3]), 'axes')],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=10)
    facts = {
        'format': FORMAT,
        'classes': '["Cirrus", "Stratus", "Contrail"]',
        'preprocess': Preprocess(size).to_json(),
        'temperature': '1.0',
        'card': '{}',
    }
    helper.set_model_props(model, facts)
    file.write_bytes(seal(model.SerializeToString()))
    return file


class Served:
    "A running service: its process, its address, and the file that it logs to."

    def __init__(self, process: subprocess.Popen, address: str, log: Path):
        self.process, self.address, self._log = process, address, log

    @property
    def port(self) -> int:
        return int(self.address.rstrip('/').rpartition(':')[2])

    @property
    def log(self) -> str:
        return self._log.read_text(encoding='utf-8')


@contextmanager
def served(folder: Path, *options, command=(*COMMAND, 'serve'), env=None):
    "The service while the block runs; ended by SIGTERM where the block has not."
    log = folder / 'serve.log'
    with open(log, 'w', encoding='utf-8') as errors:
        process = subprocess.Popen(
            [*map(str, command), *map(str, options)],
            stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | (env or {}),
        )  # fmt: skip
    try:
        line = read_line(process)
        assert 'http://' in line, log.read_text(encoding='utf-8')
        yield Served(process, line.split()[0], log)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.stdout.close()
