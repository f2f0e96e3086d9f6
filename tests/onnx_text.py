"""Help for tests of graph rewrites: models as ONNX text, and one way to hold a pass to its word."""

import numpy as np
import onnx
import onnx_ir as ir

from core.metrics import sqnr_db
from exporter.graph_file import to_proto
from exporter.onnx_file import check
from exporter.session import open_session
from exporter.tensor_check import random_feed

HEADER = '<ir_version: 9, opset_import: ["" : {opset}]>\n'


def parse(text, opset=19, seed=0, **weights):
    """Parse ONNX text; ``weights`` become initializers: a shape (random) or an array."""
    model = onnx.parser.parse_model(HEADER.format(opset=opset) + text)
    generator = np.random.default_rng(seed)
    for name, value in weights.items():
        if isinstance(value, tuple):
            value = generator.standard_normal(value)
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def batchnorm(channels, prefix="", seed=1):
    """Return random parameters of a BatchNormalization: gamma, beta, mean, var."""
    generator = np.random.default_rng(seed)
    return {
        f"{prefix}gamma": generator.standard_normal(channels),
        f"{prefix}beta": generator.standard_normal(channels),
        f"{prefix}mean": generator.standard_normal(channels),
        f"{prefix}var": generator.uniform(0.1, 2, channels),
    }


def results(model, seed=0, batch=2, outputs=None):
    """Run a model in ONNX Runtime on random numbers; returns every tensor that nodes make."""
    names = [name for node in model.graph.node for name in node.output if name]
    session = open_session(model, outputs=names if outputs is None else outputs)
    return session(random_feed(session.inputs, seed=seed, batch=batch))


def assert_equal(before, after, floor_db=100.0, batch=2):
    """Hold every tensor that both models have to ``floor_db`` against the other."""
    expected, found = results(before, batch=batch), results(after, batch=batch)
    assert set(found) >= {output.name for output in before.graph.output}
    for name in found.keys() & expected.keys():
        assert expected[name].shape == found[name].shape, name
        assert expected[name].dtype == found[name].dtype, name
        assert sqnr_db(expected[name], found[name]) >= floor_db, name


def bytes_of(model):
    return model.SerializeToString(deterministic=True)


def apply(run, model):
    """Run one pass on a copy, and check all that every pass promises.

    Valid ONNX, the same numbers by the same names, an honest ``changed``, and nothing left
    for a second run.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = ir.from_proto(copy)
    result = run(graph)
    assert result.model is graph
    assert result.name == run.__name__
    assert result.reason
    after = to_proto(graph)
    check(after)
    assert_equal(model, after)
    plain = to_proto(ir.from_proto(model))
    assert result.changed == (bytes_of(plain) != bytes_of(after)), result.reason
    again = run(graph)
    assert not again.changed, again.reason
    assert bytes_of(to_proto(graph)) == bytes_of(after)
    return after, result


def operators(model):
    return [node.op_type for node in model.graph.node]


def constants(model):
    return {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
