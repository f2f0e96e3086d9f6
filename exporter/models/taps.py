"""Look inside a network: what its modules return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = ["watch"]


@torch.inference_mode()
def watch(
    network: nn.Module,
    paths: Mapping[str, str],
    images: npt.NDArray[np.float32],
    sink: Callable[[str, npt.NDArray[Any]], None],
) -> None:
    """Run a network once and hand on what some of its modules return, as they return it.

    Args:
        network: Ready for inference.
        paths: Path of a module (``layer1.0.conv1``) → name for its output.
        images: (N, 3, H, W) float32.
        sink: Given each name and output. It may keep the array.
    """
    modules = dict(network.named_modules())
    # A ReLU that works in place overwrites what the module before it returned.
    overwrites = any(getattr(module, "inplace", False) for module in modules.values())

    def tap(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            del module, inputs
            sink(name, (output.clone() if overwrites else output).numpy())

        return hook

    handles = [modules[path].register_forward_hook(tap(name)) for path, name in paths.items()]
    try:
        network(torch.from_numpy(images))
    finally:
        for handle in handles:
            handle.remove()
