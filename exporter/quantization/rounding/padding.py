"""Where the taps of a convolution fall: on its input, or on the zeros around it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from exporter.passes.base import dims

__all__ = ["inside"]


def inside(node: ir.Node, axis: int, taps: int) -> npt.NDArray[np.float64]:
    """Return 1 where a tap reads a pixel and 0 where it reads padding.

    Args:
        node: A Conv whose padding is explicit.
        axis: Spatial, 0 for rows.
        taps: Of the kernel along it.

    Returns:
        (positions of the output, taps)

    Raises:
        ValueError: The size of what it reads or makes is not known.
    """
    size, positions = dims(node.inputs[0]), dims(node.outputs[0])
    if size is None or positions is None:
        raise ValueError(f"{node.name!r} has no known size")
    read, made = size[2 + axis], positions[2 + axis]
    if not read or not made:
        raise ValueError(f"{node.name!r} has no known size")
    pads = node.attributes.get_ints("pads", (0, 0, 0, 0))
    stride = node.attributes.get_ints("strides", (1, 1))[axis]
    dilation = node.attributes.get_ints("dilations", (1, 1))[axis]
    at = (
        np.arange(made)[:, None] * stride
        - (pads[axis] if pads else 0)
        + np.arange(taps)[None] * dilation
    )
    return ((at >= 0) & (at < read)).astype(np.float64)
