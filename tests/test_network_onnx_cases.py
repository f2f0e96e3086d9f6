"""ONNX's own tests of its operators, by TensorRT's parser and the evaluation on the CPU."""

import warnings
from collections import defaultdict

import numpy as np
import pytest
from network_nets import rtx

from core.errors import BuildError, GraphError, InputError
from deploy.networks.network import read_network

# Of texts, sequences, loops, training and chance: nothing that TensorRT's parser takes.
_NONE_OF_OURS = (
    *("sequence", "optional", "string", "loop", "scan", "_if", "lstm", "gru", "rnn"),
    *("adagrad", "adam", "momentum", "training", "ai_onnx_ml", "bernoulli", "image_decoder"),
    *("nonmax", "unique", "nonzero", "compress"),  # shapes that depend on the data
)


def outcome(case):
    """Return what became of a case: ``refused``, ``unknown`` or ``right``, or what is wrong."""
    try:
        network = read_network(case.model.SerializeToString(), rtx())
    except BuildError:
        return "refused"
    except GraphError:
        return "unknown"
    given, expected = case.data_sets[0]
    feeds = {i.name: np.asarray(v) for i, v in zip(case.model.graph.input, given, strict=False)}
    names = {fact.name for fact in network.inputs}
    try:
        made = network.run({name: array for name, array in feeds.items() if name in names})
    except (GraphError, InputError):  # it names the layer, or the input
        return "unknown"
    for output, want in zip(case.model.graph.output, map(np.asarray, expected), strict=True):
        found = made[output.name]
        rough = 1e-2 if want.dtype.itemsize <= 2 else 1e-3
        close = found.shape == want.shape and np.allclose(
            found.astype(np.float64), want.astype(np.float64), rough, rough / 100, equal_nan=True
        )
        if not close:
            return f"output {output.name}: {found.shape} of {want.shape}"
    return "right"


@pytest.mark.slow
def test_what_is_evaluated_is_right():
    found = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX makes its cases with overflows and 0/0
        from onnx.backend.test.case.node import collect_testcases

        for case in collect_testcases(None):
            taken = case.model is not None and case.data_sets
            if taken and not any(word in case.name for word in _NONE_OF_OURS):
                found[outcome(case)].append(case.name)
    assert len(found.pop("right")) > 550
    found.pop("refused")
    found.pop("unknown")
    assert not found
