"""Hold the evaluation of a parsed network against ONNX Runtime, tensor by tensor."""

from functools import cache

import numpy as np

from core.metrics import sqnr_db
from deploy.engines.flavour import load_flavour
from deploy.networks.network import read_network
from exporter.session import open_session

FP32_DB, FP16_DB = 110.0, 55.0


@cache
def rtx():
    return load_flavour("rtx")


def parsed(model):
    """Return what TensorRT's parser makes of a model."""
    return read_network(model.SerializeToString(), rtx())


def random_feeds(model, batch=3, seed=0):
    """Return a random array for each input; free dimensions are ``batch``."""
    generator = np.random.default_rng(seed)
    feeds = {}
    for info in open_session(model).inputs:
        shape = [size if isinstance(size, int) else batch for size in info.shape]
        feeds[info.name] = generator.standard_normal(shape).astype(info.dtype)
    return feeds


def reference(model, feeds):
    """Return every tensor that the nodes make in ONNX Runtime, optimizations off."""
    names = [name for node in model.graph.node for name in node.output if name]
    return open_session(model, outputs=names, threads=1)(feeds)


def difference_db(ours, theirs):
    """SQNR of a float tensor in dB; other types must be equal."""
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if theirs.dtype.kind == "f":
        return sqnr_db(theirs, ours)
    return np.inf if np.array_equal(ours, theirs) else -np.inf


def worst_db(model, *, batch=3, own=False, network=None, feeds=None):
    """Return the lowest SQNR over all tensors, and the names that were compared.

    Args:
        model: An ONNX model.
        batch: Length of free dimensions.
        own: Feed each layer the reference's tensors.
        network: In place of what is parsed from ``model``.
        feeds: In place of random ones.
    """
    feeds = feeds or random_feeds(model, batch)
    expected = reference(model, feeds)
    network = network or parsed(model)
    found = {
        name: difference_db(array, expected[name])
        for name, array in network.stream(feeds, replace=expected if own else None)
    }
    for name, array in network.run(feeds).items():
        found[f"{name} (run)"] = difference_db(array, expected[name])
    return min(found.values()), set(found)
