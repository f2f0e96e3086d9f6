"""Look inside a network: what its modules return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = ["module_outputs"]


@torch.inference_mode()
def module_outputs(
    network: nn.Module, paths: Mapping[str, str], images: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[Any]]:
    """Run a network once and return what some of its modules returned.

    Args:
        network: Ready for inference.
        paths: Path of a module (``layer1.0.conv1``) → name for its output.
        images: (N, 3, H, W) float32.

    Returns:
        Name → output, for each of ``paths`` that ran.
    """
    taken: dict[str, npt.NDArray[Any]] = {}
    modules = dict(network.named_modules())
    # A ReLU that works in place overwrites what the module before it returned.
    overwrites = any(getattr(module, "inplace", False) for module in modules.values())

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            del module, inputs
            taken[name] = (output.clone() if overwrites else output).numpy()

        return hook

    handles = [modules[path].register_forward_hook(keep(name)) for path, name in paths.items()]
    try:
        network(torch.from_numpy(images))
    finally:
        for handle in handles:
            handle.remove()
    return taken
