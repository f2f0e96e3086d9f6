"""What to do about a layer at fault."""

from __future__ import annotations

from deploy.comparison.values.verdict import Reason

__all__ = ["next_step"]

_CALIBRATE = "calibrate it by another method (strata quantize --method mse), or with more images"
_STEPS = {
    Reason.SHAPE: "compare its padding, strides and kernel with the reference's",
    Reason.NOT_FINITE: "look for NaN or Inf in its weights and bias",
    Reason.OVERFLOW: "leave it in FP32",
    Reason.WEIGHT: "make the file again from the reference: its weights were changed",
    Reason.CHANNEL: "make the file again from the reference: a channel was changed",
    Reason.BIAS: "make the file again from the reference: its bias was changed",
    Reason.SCALES: "give Q and DQ the same scale",
    Reason.ZERO_POINT: "quantize it with zero point 0 and int8",
    Reason.MISSING_Q: "quantize the shortcut",
    Reason.CLIPPING: _CALIBRATE,
    Reason.TOO_WIDE: _CALIBRATE,
    Reason.ERROR: "compare its attributes and weights with the reference's (strata inspect)",
}


def next_step(reason: Reason, node: str) -> str:
    """Return what to do about a layer, and how to leave it out of quantization."""
    step = _STEPS.get(reason, "look at it")
    if reason in (Reason.CLIPPING, Reason.TOO_WIDE, Reason.ERROR):
        return f"{step}, or leave it in float: --exclude {node}"
    return step
