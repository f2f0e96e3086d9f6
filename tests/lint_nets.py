"""A small INT8 network that keeps every rule, as text, and ways to break it one at a time."""

import re

import numpy as np
import onnx
from onnx_text import parse

F32, F16, I8, U8, I32 = np.float32, np.float16, np.int8, np.uint8, np.int32


def pair(name, scale="s", zero="z"):
    """Q and DQ of a tensor: NAME → NAMEq → NAMEd."""
    return (
        f"{name}q = QuantizeLinear({name}, {scale}, {zero}) "
        f"{name}d = DequantizeLinear({name}q, {scale}, {zero})"
    )


def weight(name):
    """DQ of a weight: NAME → NAMEd."""
    return f"{name}d = DequantizeLinear<axis = 0>({name}, {name}s, {name}z)"


PAD = "<pads = [1, 1, 1, 1]>"
POOL = "<kernel_shape = [2, 2], strides = [2, 2]>"
# Stem, identity block, projection block, Concat, mean, FC: all of a ResNet, and a Concat.
GOOD = f"""
good (float[1,4,8,8] x) => (float[1,4] y) {{
  {weight("w1")} {weight("w2")} {weight("w3")} {weight("w4")} {weight("w5")}
  {weight("w6")} {weight("wf")}
  {pair("x")}
  c1 = Conv{PAD}(xd, w1d, b)
  r1 = Relu(c1)
  p1 = MaxPool{POOL}(r1)
  {pair("p1")}
  c2 = Conv{PAD}(p1d, w2d, b)
  r2 = Relu(c2)
  {pair("r2")}
  c3 = Conv{PAD}(r2d, w3d, b)
  a1 = Add(c3, p1d)
  r3 = Relu(a1)
  {pair("r3")}
  c4 = Conv{PAD}(r3d, w4d, b)
  c5 = Conv(r3d, w5d, b)
  {pair("c5", "s5")}
  a2 = Add(c4, c5d)
  r4 = Relu(a2)
  {pair("r4")}
  j = Concat<axis = 1>(r4d, r3d)
  {pair("j")}
  c6 = Conv(jd, w6d, b)
  r6 = Relu(c6)
  {pair("r6")}
  g = GlobalAveragePool(r6d)
  f = Flatten(g)
  {pair("f")}
  y = Gemm<transB = 1>(fd, wfd, b)
}}
"""


def codes(*shape, seed=0):
    """Random weights that reach code 127 in every channel."""
    values = np.random.default_rng(seed).integers(-100, 101, shape).astype(I8)
    values.reshape(shape[0], -1)[:, 0] = 127
    return values


def constants():
    """Weights, scales and zero points of :data:`GOOD`; b is every bias."""
    shapes = {
        **dict.fromkeys(("w1", "w2", "w3", "w4"), (4, 4, 3, 3)),
        **{"w5": (4, 4, 1, 1), "w6": (4, 8, 1, 1), "wf": (4, 4)},
    }
    found = {"s": F32(0.1), "s5": F32(0.2), "z": I8(0), "b": np.zeros(4, F32)}
    for name, shape in shapes.items():
        found |= {
            name: codes(*shape),
            f"{name}s": np.full(4, 0.01, F32),
            f"{name}z": np.zeros(4, I8),
        }
    return found


def net(*edits, opset=19, text=GOOD, **changes):
    """Return :data:`GOOD` with pieces of its text and some constants replaced.

    Args:
        edits: (old, new); every ``old`` must be there.
        opset: Of the standard domain.
        text: In place of GOOD.
        changes: Constants to replace or add.
    """
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    read = set(re.findall(r"[(,]\s*(\w+)", text.partition("{")[2]))
    used = {n: v for n, v in (constants() | changes).items() if n in read and v is not None}
    return parse(text, opset=opset, **used)


def retyped(model, kind, *names):
    """Give constants another element type; `parse` makes every float a float32."""
    for tensor in model.graph.initializer:
        if tensor.name in names:
            array = onnx.numpy_helper.to_array(tensor).astype(kind)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model
