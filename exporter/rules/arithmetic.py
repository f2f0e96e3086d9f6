"""Rules of the numbers: codes, zero points and scales of Q and DQ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from exporter.rules.base import Fault, Rule, Severity, rule
from exporter.rules.node import FLOATS, Array, named
from exporter.rules.quantizer import Quantizer
from exporter.rules.view import View

__all__ = ["RULES"]

_QUANTIZE = "quantize the float network symmetrically to int8, as strata quantize does"
# What TensorRT's Q and DQ know beside int8. Source: tried on tensorrt-rtx 1.7.1.
_CODES = ("int8", "int4", "float8e4m3fn", "float4e2m1")
# Smallest normal number and largest number of the types scales have.
_RANGES = {
    "float16": (0.0, 65504.0),  # 16-bit arithmetic keeps its subnormal numbers
    "float32": (2.0**-126, 3.4028234663852886e38),
    "bfloat16": (2.0**-126, 3.3895313892515355e38),
}


@rule("zero-point", Severity.ERROR, way_out=_QUANTIZE)
def zero_point(view: View) -> Iterator[Fault]:
    """Every zero point is 0.

    TensorRT's INT8 is symmetric; its parser refuses another zero point. Source: NVIDIA,
    TensorRT documentation, "Working with Quantized Types"; tried on tensorrt-rtx 1.7.1.
    """
    for q in _each(view):
        zeros = _real(q.zero)
        if zeros.any():
            yield Fault(q.node, q.data, f"zero point {zeros[zeros != 0][0]:g}")


@rule("uint8", Severity.ERROR, way_out=_QUANTIZE)
def uint8(view: View) -> Iterator[Fault]:
    """Codes are int8, not uint8.

    TensorRT reads uint8 codes as int8 with no more than a warning, so everything above 127
    is wrong; uint8 weights it refuses. A Q with no zero point makes uint8 by ONNX's
    default. Source: tried on tensorrt-rtx 1.7.1; ONNX QuantizeLinear.
    """
    for q in _each(view):
        if q.code_type == "uint8":
            default = "" if q.node.input(2) else " (no zero point says another type)"
            yield Fault(q.node, q.data, f"codes are uint8{default}")


@rule("code-type", Severity.ERROR, way_out=_QUANTIZE)
def code_type(view: View) -> Iterator[Fault]:
    """Codes are of a type that TensorRT quantizes to: INT8, INT4, FP8 (E4M3) or FP4.

    Its parser refuses the file otherwise: it has no 16-bit codes and no other FP8.
    Source: tried on tensorrt-rtx 1.7.1.
    """
    for q in _each(view):
        if q.code_type not in (None, "uint8", "int32", *_CODES):
            yield Fault(q.node, q.data, f"codes are {q.code_type}")


@rule(
    "bias-quantized",
    Severity.ERROR,
    way_out="keep the bias a plain float initializer; ONNX Runtime: QuantizeBias=False",
)
def bias_quantized(view: View) -> Iterator[Fault]:
    """A bias is a plain float, without Q or DQ.

    A DequantizeLinear of int32 is a parse error to TensorRT ("must have type FP8, FP4, Int4,
    Int8 or UInt8"); an INT8 bias costs accuracy and a multiplication. Source: tried on
    tensorrt-rtx 1.7.1; onnxruntime issues 14229, 17738.
    """
    for q in view.quantizers.values():
        if q.data == q.codes or q.node.op != "DequantizeLinear":
            continue
        added = [
            node
            for node in view.graph.readers(q.data)
            if node.is_op("Conv", "ConvTranspose", "Gemm") and node.input(2) == q.data
        ]
        if q.code_type == "int32" or added:
            where = f" of {named(added[0])}" if added else ""
            yield Fault(q.node, q.data, f"{q.code_type or 'quantized'} bias{where}")


@rule(
    "scale-constant",
    Severity.ERROR,
    way_out="fix the scales at calibration (static quantization), as strata quantize does",
)
def scale_constant(view: View) -> Iterator[Fault]:
    """Scales and zero points are constants of the file.

    TensorRT-RTX 1.7.1 ends the process (a segmentation fault) on a scale that is computed
    or fed; a computed zero point it refuses. Source: tried on tensorrt-rtx 1.7.1.
    """
    for q in _each(view):
        for index, what in ((1, "scale"), (2, "zero point")):
            name = q.node.input(index)
            if name and not view.graph.is_constant(name):
                yield Fault(q.node, name, f"{what} of {q.data} is not constant")


@rule(
    "scale-positive",
    Severity.ERROR,
    way_out="calibrate again without NaN or Inf; give an all-zero channel a safe scale, such as 1",
)
def scale_positive(view: View) -> Iterator[Fault]:
    """Every scale is finite and greater than 0.

    TensorRT refuses 0, a negative scale and NaN ("Scale coefficients must all be
    positive"); Inf it builds, and every value becomes 0 or NaN. Source: tried on
    tensorrt-rtx 1.7.1; TensorRT issue 1480.
    """
    for q in _each(view):
        scale = _real(q.scale)
        bad = scale[~(np.isfinite(scale) & (scale > 0))]
        if bad.size:
            count = f" ({bad.size} of {scale.size})" if scale.size > 1 else ""
            yield Fault(q.node, q.data, f"scale {bad[0]:g}{count}")


@rule(
    "scale-range",
    Severity.ERROR,
    way_out="look for dead or exploding values in this tensor, and calibrate it again",
)
def scale_range(view: View) -> Iterator[Fault]:
    """No scale is so small or so large that its arithmetic leaves its own type.

    The reciprocal of a subnormal float32 overflows, and 128 · scale beyond the type's largest
    number is Inf; TensorRT builds either without a word. Source: IEEE 754; tried on
    tensorrt-rtx 1.7.1.
    """
    for q in _each(view):
        tiny, largest = _RANGES.get(view.graph.dtype(q.node.input(1)) or "", (0.0, np.inf))
        scale = _real(q.scale)
        bad = scale[(scale > 0) & np.isfinite(scale) & ((scale < tiny) | (scale * 128 > largest))]
        if bad.size:
            what = "subnormal" if bad[0] < tiny else f"128 times it is beyond {largest:.6g}"
            yield Fault(q.node, q.data, f"scale {bad[0]:g}: {what}")


@rule(
    "scale-type",
    Severity.ERROR,
    way_out="give the scale the type of the data; strata quantize --precision int8 does",
)
def scale_type(view: View) -> Iterator[Fault]:
    """A scale has the type of the data that it quantizes.

    TensorRT is strongly typed: DQ makes the scale's type, so a float16 scale in a float32
    graph feeds float16 to a float32 Conv, which is refused. Source: NVIDIA, NvInfer.h,
    IQuantizeLayer; tried on tensorrt-rtx 1.7.1.
    """
    for q in view.quantizers.values():
        scale, data = view.graph.dtype(q.node.input(1)), view.graph.dtype(q.data)
        if q.node.op == "QuantizeLinear" and data in FLOATS and scale in FLOATS and scale != data:
            yield Fault(q.node, q.data, f"data is {data}, its scale {scale}")


@rule("pair-mismatch", Severity.ERROR, way_out="give Q and DQ the same scale and zero point")
def pair_mismatch(view: View) -> Iterator[Fault]:
    """The Q and the DQ of a pair have one scale and one zero point.

    TensorRT builds it, and what comes out is the tensor times the quotient of both scales.
    Source: ONNX QuantizeLinear and DequantizeLinear; tried on tensorrt-rtx 1.7.1.
    """
    for dq in view.quantizers.values():
        q = view.quantizers[dq.pair] if dq.pair else None
        if q is None or q.scale is None or dq.scale is None or q.same(dq):
            continue
        said = f"Q has {q.scale_text}, DQ {dq.scale_text}"
        if np.array_equal(_real(q.scale), _real(dq.scale)):
            said = "Q and DQ differ in zero point or axis"
        yield Fault(dq.node, q.data, said)


RULES: tuple[Rule, ...] = (
    zero_point,
    uint8,
    code_type,
    bias_quantized,
    scale_constant,
    scale_positive,
    scale_range,
    scale_type,
    pair_mismatch,
)


def _each(view: View) -> Iterator[Quantizer]:
    """Yield Q and DQ; of a pair with one set of parameters the Q alone."""
    return (q for q in view.quantizers.values() if not q.follows)


def _real(values: Array | None) -> npt.NDArray[np.float64]:
    return np.zeros(0) if values is None else values.astype(np.float64).reshape(-1)
