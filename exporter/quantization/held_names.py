"""What a graph calls tensors that it holds otherwise than they are.

Such a tensor has other values than the one it stands for, so it has a name of its own:
``T.equalized`` = T / f (:mod:`exporter.quantization.scale_channels`), ``T.shifted`` = T − c
(:mod:`exporter.quantization.shift`), or ``T.equalized.shifted`` = T / f − c.
"""

from __future__ import annotations

__all__ = ["EQUALIZED", "SHIFTED"]

EQUALIZED = ".equalized"
SHIFTED = ".shifted"
