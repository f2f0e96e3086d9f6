"""What ``strata inspect --json`` prints.

Schema ``strata.inspect/1``: one object for each file, ``kind`` says which::

    {"schema": …, "files": [{"kind": "engine", "file": …, "bytes": …, "flavour": …,
        "version": …, "targets": […], "trouble": …, "unknown": …, "manifest": {…},
        "profiles": [{"batch": …, "kernels": [{"name": …, "kind": …, "layers": […],
            "inputs": [{"name": …, "type": …, "shape": […], "bytes": …}], "outputs": […],
            "constant_bytes": …, "moved_bytes": …, "fused": […]}],
          "layers": [{"name": …, "op": …, "asked": …, "kernel": …, "takes": …, "gives": …,
            "form": "codes" | "widening" | "float" | "unknown"}],
          "totals": {"kernels": {…}, "weight_bytes": …, "moved_bytes_per_image": …,
            "scratch_bytes": …}}],
        "meaning": […]},
      {"kind": "onnx", …}], "side_by_side": {…}}

Sizes are in bytes; null is what is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from deploy.inspect.engine_facts import EngineFacts
from deploy.inspect.kernels import Kernel, KernelGraph, Tensor
from deploy.inspect.meaning import meaning
from deploy.inspect.model_facts import ModelFacts
from deploy.inspect.pair_text import verdict
from deploy.inspect.side_by_side import LayerSum, side_by_side
from deploy.inspect.weighted import Asked, weighted_layers

__all__ = ["SCHEMA", "inspection_to_json"]

SCHEMA = "strata.inspect/1"


def inspection_to_json(files: Iterable[EngineFacts | ModelFacts]) -> dict[str, Any]:
    """Return the JSON object that the module describes."""
    facts = list(files)
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "files": [_engine(f) if isinstance(f, EngineFacts) else _model(f) for f in facts],
    }
    engines = [f for f in facts if isinstance(f, EngineFacts)]
    if len(engines) == 2:
        value["side_by_side"] = _pair(*engines)
    return value


def _engine(facts: EngineFacts) -> dict[str, Any]:
    known = facts.header.capabilities
    manifest = facts.manifest
    return {
        "kind": "engine",
        "file": facts.path,
        "bytes": facts.bytes,
        "flavour": facts.flavour or None,
        "version": facts.version or None,
        "targets": list(map(str, known)) if known is not None else None,
        "trouble": facts.trouble or None,
        "unknown": facts.unknown or None,
        "manifest": manifest.to_json() if manifest else None,
        "profiles": [_graph(graph, facts.asked) for graph in facts.graphs],
        "meaning": meaning(facts),
    }


def _graph(graph: KernelGraph, asked: Asked) -> dict[str, Any]:
    layers = weighted_layers(graph, asked)
    places = {id(kernel): place for place, kernel in enumerate(graph.kernels)}
    return {
        "batch": graph.batch,
        "kernels": [_kernel(kernel) for kernel in graph.kernels],
        "layers": [
            {
                "name": layer.name,
                "op": layer.op,
                "asked": layer.asked or None,
                "kernel": places[id(layer.kernel)] if layer.kernel else None,
                "takes": layer.takes or None,
                "gives": layer.gives or None,
                "form": layer.form,
            }
            for layer in layers
        ],
        "totals": {
            "kernels": graph.count(),
            "weight_bytes": graph.constant_bytes,
            "moved_bytes": graph.moved_bytes,
            "moved_bytes_per_image": graph.moved_bytes_per_image,
            "scratch_bytes": graph.scratch_bytes,
        },
    }


def _kernel(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "kind": kernel.kind,
        "layers": list(kernel.layers),
        "inputs": [_tensor(tensor) for tensor in kernel.inputs],
        "outputs": [_tensor(tensor) for tensor in kernel.outputs],
        "constant_bytes": sum(kernel.constants.values()),
        "moved_bytes": kernel.moved_bytes,
        "fused": list(kernel.fused),
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "type": tensor.dtype or None,
        "shape": list(tensor.shape),
        "bytes": tensor.bytes,
    }


def _model(facts: ModelFacts) -> dict[str, Any]:
    card = facts.card
    return {
        "kind": "onnx",
        "file": facts.path,
        "bytes": facts.bytes,
        "sha256": facts.sha256,
        "weights": dict(facts.files),
        "opset": facts.opset,
        "inputs": [asdict(tensor) for tensor in facts.inputs],
        "outputs": [asdict(tensor) for tensor in facts.outputs],
        "operators": dict(facts.operators),
        "constants": dict(facts.constants),
        "layers": [asdict(layer) | {"precision": layer.precision} for layer in facts.layers],
        "card": {
            "stage": card.stage or None,
            "preprocess": asdict(card.preprocess) if card.preprocess else None,
            "labels": list(card.labels),
            "weights": dict(card.weights),
            "parents": dict(card.parents),
        },
    }


def _pair(a: EngineFacts, b: EngineFacts) -> dict[str, Any]:
    pair = side_by_side(a, b)

    def told(one: LayerSum | None) -> dict[str, Any] | None:
        if one is None:
            return None
        layer = one.layer
        return {
            "takes": (layer.takes if layer else "") or None,
            "gives": (layer.gives if layer else "") or None,
            "moved_bytes_per_image": one.moved_bytes,
        }

    return {
        "moved_ratio": pair.ratio,
        "int8_moves_more": pair.int8_moves_more,
        "layers": [{"name": x.name or None, "a": told(x.a), "b": told(x.b)} for x in pair.layers],
        "verdict": verdict(pair),
    }
