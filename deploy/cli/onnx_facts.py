"""What ``strata export`` and ``strata optimize`` say of the file they wrote."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.inspect.columns import plain

if TYPE_CHECKING:
    import onnx

    from calib_data.batches import Indices
    from calib_data.pixels import Tensor
    from calib_data.preprocess import PreprocessSpec
    from calib_data.sources import Source
    from exporter.tensor_check import TensorCheck

__all__ = ["check_facts", "graph_facts", "open_images", "prepared", "result_text"]


def open_images(data: str, count: int) -> tuple[Source, Indices]:
    """Return a source and ``count`` of its images, picked by seed 0.

    Raises:
        InputError: No such data, or too few images.
    """
    from calib_data.batches import sample
    from calib_data.open import open_data

    source = open_data(data)
    return source, sample(source, count)


def prepared(images: tuple[Source, Indices], spec: PreprocessSpec | None) -> Tensor:
    """Return images as a network's input, float32 (N, 3, H, W).

    Raises:
        InputError: A broken image, or no way to prepare them.
    """
    from calib_data.batches import batches

    source, indices = images
    _, tensor = next(iter(batches(source, indices, spec, batch=len(indices))))
    return tensor


def graph_facts(model: onnx.ModelProto, path: Path) -> dict[str, Any]:
    """Return what a graph is made of, for a person and for JSON."""
    operators = Counter(node.op_type for node in model.graph.node)
    return {
        "bytes": path.stat().st_size,
        "opset": max(item.version for item in model.opset_import if item.domain == ""),
        "inputs": {value.name: _shape(value) for value in model.graph.input},
        "outputs": {value.name: _shape(value) for value in model.graph.output},
        "nodes": len(model.graph.node),
        "operators": dict(operators.most_common()),
    }


def check_facts(check: TensorCheck) -> dict[str, Any]:
    """Return what a check found; null for the SQNR of tensors that are equal bit for bit."""
    worst, decibel = check.worst
    return {
        "tensors": len(check.sqnr_db),
        "floor_db": check.floor_db,
        "min_sqnr_db": round(decibel, 1) if math.isfinite(decibel) else None,
        "worst": worst,
    }


def result_text(facts: dict[str, Any]) -> str:
    """Return the lines that a person reads."""
    check = facts["check"]
    lowest = check["min_sqnr_db"]
    sqnr = "all equal" if lowest is None else f"lowest SQNR {lowest:.1f} dB at {check['worst']}"
    rows = [
        ("takes", ", ".join(f"{name} {shape}" for name, shape in facts["inputs"].items())),
        ("gives", ", ".join(f"{name} {shape}" for name, shape in facts["outputs"].items())),
        ("nodes", ", ".join(f"{count} {op}" for op, count in facts["operators"].items())),
        (
            "check",
            f"{check['tensors']} tensors against {check['against']} on {check['images']} images "
            f"({check['data']}): {sqnr}",
        ),
    ]
    head = f"{facts['file']}  {facts['bytes'] / 1e6:.1f} MB, opset {facts['opset']}"
    return "\n".join([head, *(f"  {key:<7} {plain(text)}" for key, text in rows)])


def _shape(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return "×".join(str(dim.dim_value or dim.dim_param or "?") for dim in dims)
