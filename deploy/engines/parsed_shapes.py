"""The outputs of a parsed network held against what the ONNX file says of them.

TensorRT's parser computes shapes by its own rules. Where ONNX has another one, the network would
answer something else without a word: a pooling in ceil mode whose last window begins in the
padding has one column less in ONNX. Source: tried on tensorrt-rtx 1.7.1 with ONNX's own tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.errors import BuildError
from deploy.engines.manifest import Binding
from deploy.onnx_files.reader import TensorType

__all__ = ["refuse_other_shapes"]


def refuse_other_shapes(
    declared: Iterable[TensorType], parsed: Iterable[Binding], where: str
) -> None:
    """Refuse a network whose outputs have other shapes than the ONNX file declares.

    Args:
        declared: The graph's outputs; a shape or dimension that is not fixed is not held.
        parsed: What TensorRT made of them.
        where: The file, for the error text.

    Raises:
        BuildError: An output has another shape.
    """
    made = {binding.name: binding.shape for binding in parsed}
    for tensor in declared:
        ours, theirs = tensor.shape, made.get(tensor.name)
        if ours is not None and theirs is not None and not _agree(ours, theirs):
            raise BuildError(
                f"{where}: output {tensor.name!r} is {_text(ours)} in the file, and TensorRT's "
                f"parser makes it {_text(theirs)}",
                hint="a pooling in ceil mode may be it: give it the padding that fits its images, "
                "or export again with right shapes",
            )


def _agree(ours: Sequence[int | str | None], theirs: Sequence[int]) -> bool:
    """Tell whether two shapes agree where both are fixed."""
    return len(ours) == len(theirs) and all(
        a == b or not isinstance(a, int) or a < 1 or b < 0
        for a, b in zip(ours, theirs, strict=True)
    )


def _text(shape: Sequence[int | str | None]) -> str:
    known = (size if isinstance(size, int) and size >= 0 else "N" for size in shape)
    return "×".join(map(str, known)) or "a scalar"
