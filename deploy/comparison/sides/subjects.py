"""From what a user typed to a model of a comparison."""

from __future__ import annotations

from pathlib import Path

from core.errors import InputError, MissingBackendError
from deploy.comparison.sides.onnx_side import onnx_side
from deploy.comparison.sides.side import Side

__all__ = ["open_side"]

_PLANS = (".engine", ".plan")


def open_side(text: str) -> Side:
    """Open a model for comparison by what the user typed.

    Args:
        text: ``FILE.onnx`` (ONNX Runtime, optimizations off), ``torch:DEPTH`` or
            ``torch:WEIGHTS`` (PyTorch), ``trt-network:FILE.onnx`` (what TensorRT's parser makes of
            the file, on the CPU), or ``FILE.engine`` (TensorRT, on a GPU).

    Raises:
        InputError: Of no kind that can be compared, or unreadable.
        MissingBackendError: The library or the GPU that runs it is not here.
        BuildError: TensorRT refuses it.
        GraphError: It cannot be evaluated.
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "torch" and rest:
            from deploy.comparison.sides.torch_side import torch_side

            return torch_side(rest)
        if kind == "trt-network" and rest:
            from deploy.comparison.sides.network_side import network_side

            return network_side(Path(rest))
    except ImportError as err:
        raise MissingBackendError(
            f"{text}: running it needs a library that is not here ({err})",
            hint="pip install 'strata[export]'",
        ) from err
    if Path(text).suffix in _PLANS:
        return _engine(Path(text))
    if kind in ("torch", "trt-network"):
        raise InputError(
            f"{text}: names no model",
            hint="give torch:50, torch:WEIGHTS.safetensors, or trt-network:FILE.onnx",
        )
    if Path(text).suffix == ".safetensors":
        raise InputError(f"{text}: weights without a network", hint=f"write torch:{text}")
    return onnx_side(Path(text))


def _engine(path: Path) -> Side:
    from deploy.comparison.sides.engine_side import engine_side

    try:
        return engine_side(path)
    except MissingBackendError as err:
        raise MissingBackendError(
            f"{path}: not run: {err.problem}",
            hint="compare trt-network:FILE.onnx here (what the engine was built from), and the "
            "engine on a machine with a GPU",
        ) from err
