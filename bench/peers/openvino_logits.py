"""Answer images with an OpenVINO model: ``MODEL.xml IMAGES.npz LOGITS.npy FACTS.json``.

OpenVINO runs its quantized model with its own integer kernels. FACTS.json says how many of
its activations take unsigned codes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-not-found]

from bench.peers.feed import batches


def main() -> None:
    """Run the model; write its answers and what its codes are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("logits", type=Path)
    parser.add_argument("facts", type=Path)
    given = parser.parse_args()
    core = openvino.Core()
    model = core.read_model(given.model)
    run = core.compile_model(model, "CPU")
    np.save(given.logits, np.concatenate([run(batch)[0] for batch in batches(given.images)]))
    quantizers = [node for node in model.get_ops() if node.get_type_name() == "FakeQuantize"]
    lowest = [_lowest(node) for node in quantizers if not _constant(node)]
    facts = {"int8": sum(low < 0 for low in lowest), "uint8": sum(low >= 0 for low in lowest)}
    given.facts.write_text(json.dumps(facts), encoding="utf-8")


def _constant(node: Any) -> bool:
    """Whether a FakeQuantize is a weight's."""
    return bool(node.input_value(0).get_node().get_type_name() == "Constant")


def _lowest(node: Any) -> float:
    """Return the smallest value that a FakeQuantize lets through."""
    return float(node.input_value(1).get_node().get_data().min())


if __name__ == "__main__":
    main()
