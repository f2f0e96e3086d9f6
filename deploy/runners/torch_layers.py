"""A PyTorch network taken apart into its modules, which run one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.artifacts import sha256_file
from exporter.card import Card
from exporter.models.checkpoint import state_digest
from exporter.models.config import DEPTHS, ModelOptions
from exporter.names import INPUT
from exporter.weights import load_weights

__all__ = ["TorchLayers", "TorchModule", "open_layers"]

_SIZE = 64  # pixels of the image that the modules are found with; any that all stages fit
# What ONNX calls the operator that a module becomes.
_OPERATORS = {
    "Conv2d": "Conv",
    "BatchNorm2d": "BatchNormalization",
    "ReLU": "Relu",
    "MaxPool2d": "MaxPool",
    "AdaptiveAvgPool2d": "GlobalAveragePool",
    "Linear": "Gemm",
}


@dataclass(frozen=True, slots=True, eq=False)
class TorchModule:
    """A module without parts, and the tensors it reads.

    Attributes:
        path: ``layer1.0.conv1``.
        op_type: What it becomes in ONNX.
        reads: Names of its inputs.
        made: Name of its output: its path, or the name of an output of the network.
        run: The module.
    """

    path: str
    op_type: str
    reads: tuple[str, ...]
    made: str
    run: nn.Module


@dataclass(frozen=True, slots=True, eq=False)
class TorchLayers:
    """A network as a list of modules, in the order they run.

    Attributes:
        name: As reports name it.
        sha256: Of the weights' file, or of the weights.
        file: Its name; empty for none.
        file_bytes: Its size.
        card: What the weights say of themselves.
        modules: The modules.
        outputs: Names of the network's outputs, and their shapes less the batch.
    """

    name: str
    sha256: str
    file: str
    file_bytes: int
    card: Card
    modules: tuple[TorchModule, ...]
    outputs: Mapping[str, tuple[int | None, ...]]

    @torch.inference_mode()
    def apply(self, module: TorchModule, values: Mapping[str, Any]) -> Any:
        """Run one module.

        Args:
            module: One of ``modules``.
            values: Arrays by name; those it reads, at least.

        Returns:
            float32, its output.
        """
        inputs = [torch.from_numpy(values[name]) for name in module.reads]
        output: Tensor = module.run(*inputs)
        return output.numpy()


def open_layers(text: str) -> TorchLayers:
    """Open the network of some weights.

    Args:
        text: A depth (18, 34, 50, 101, 152), for what ``make weights`` trained; or as
            :func:`~exporter.weights.load_weights` reads it.

    Raises:
        InputError: No such weights.
    """
    depth = text.isdecimal() and int(text) in DEPTHS
    weights = "fashion-mnist" if depth else text
    checkpoint = load_weights(weights, ModelOptions(depth=int(text)) if depth else None)
    modules, outputs = _modules(checkpoint.network(), checkpoint.config.outputs)
    path = Path(weights)
    there = path.is_file()
    origin = checkpoint.origin.get("sha256", "")
    return TorchLayers(
        name=f"torch:{path.name if there else text}",
        sha256=sha256_file(path) if there else origin or state_digest(checkpoint.state_dict),
        file=path.name if there else "",
        file_bytes=path.stat().st_size if there else 0,
        card=Card(checkpoint.preprocess, checkpoint.labels, checkpoint.origin, stage="weights"),
        modules=modules,
        outputs=outputs,
    )


@torch.inference_mode()
def _modules(
    network: nn.Module, outputs: tuple[str, ...]
) -> tuple[tuple[TorchModule, ...], dict[str, tuple[int | None, ...]]]:
    """Run a small image through a network, and note which module reads what."""
    image = torch.zeros(1, 3, _SIZE, _SIZE)
    names: dict[int, str] = {id(image): INPUT}
    calls: list[tuple[str, nn.Module, tuple[Tensor, ...], Tensor]] = []

    def note(path: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls.append((path, module, inputs, output))  # kept, so that no id comes twice
            names[id(output)] = path

        return hook

    leaves = {p: m for p, m in network.named_modules() if not any(m.children())}
    handles = [module.register_forward_hook(note(path)) for path, module in leaves.items()]
    try:
        results = network(image)
    finally:
        for handle in handles:
            handle.remove()
    results = results if isinstance(results, tuple) else (results,)
    names |= {id(result): name for result, name in zip(results, outputs, strict=True)}
    modules = tuple(
        TorchModule(
            path=path,
            op_type=_OPERATORS.get(type(module).__name__, type(module).__name__),
            reads=tuple(names[id(value)] for value in inputs),
            made=names[id(output)],
            run=module,
        )
        for path, module, inputs, output in calls
    )
    shapes = {
        name: (None, *(int(n) if result.ndim == 2 else None for n in result.shape[1:]))
        for result, name in zip(results, outputs, strict=True)
    }
    return modules, shapes
