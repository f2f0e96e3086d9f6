"""The chosen amax of each tensor, and how it was chosen: ``calibration.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from core.artifacts import read_json, write_json
from core.errors import CalibrationError, InputError
from core.int8 import QMAX
from exporter.calibration.counts.histogram import Histogram
from exporter.calibration.input_look import InputLook, look_at_input
from exporter.quantization.activity import Activity
from exporter.quantization.channel_steps import Steps, steps_from_json, steps_to_json
from exporter.quantization.full_range import ShiftedRange, choose_ranges, grid_clipped, grid_sqnr_db
from exporter.quantization.plan import Activation, QuantizationPlan
from exporter.quantization.thresholds import Method, choose_amax, clipped_share, expected_sqnr_db

__all__ = ["CalibrationTable", "Classes", "TensorAmax", "choose_amaxes"]

_KIND = "strata calibration table"
_VERSION = 1
_FULL_RANGE = "full-range"

Classes = Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class TensorAmax:
    """The choice for one tensor.

    Attributes:
        amax: Magnitude that becomes code 127, real units, a float32; > 0.
        method: What chose it.
        scale: The tensor whose scale it takes: its own name, or that of its group.
        clipped: Share of the values seen that lie beyond, in [0, 1].
        sqnr_db: Of the values seen, quantized; inf when there is no error.
        shift: The graph holds the tensor less this constant, real units (full-range INT8).
    """

    amax: float
    method: str
    scale: str
    clipped: float
    sqnr_db: float
    shift: float = 0.0


@dataclass(frozen=True, slots=True)
class CalibrationTable:
    """All choices, and what they were made from.

    Attributes:
        model: SHA-256 of the ONNX file the statistics are of.
        statistics: SHA-256 of ``statistics.npz``.
        method: What was asked for.
        preprocess: JSON of the preprocess spec; empty when the data came preprocessed.
        images: How many were seen.
        images_sha256: Digest of the set of them.
        tensors: Name → choice, in the order of the graph.
        look: What was seen of the input.
        equalized: Tensor → k of each channel that is divided by 2^(k/8), (C,) int64; amax and
            shift are of what is left.
    """

    model: str
    statistics: str
    method: str
    preprocess: str
    images: int
    images_sha256: str
    tensors: Mapping[str, TensorAmax]
    look: InputLook = field(default_factory=InputLook)
    equalized: Mapping[str, Steps] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the table as JSON made for reading and for diffs.

        Raises:
            OutputError: It cannot be written.
        """
        value = {
            "kind": _KIND,
            "version": _VERSION,
            "parents": {"model": self.model, "statistics": self.statistics},
            "method": self.method,
            "preprocess": json.loads(self.preprocess) if self.preprocess else None,
            "images": self.images,
            "images_sha256": self.images_sha256,
            "input": _look_to_json(self.look),
            "tensors": {name: _to_json(choice) for name, choice in self.tensors.items()},
        } | ({"equalized": steps_to_json(self.equalized)} if self.equalized else {})
        write_json(path, value)

    @classmethod
    def read(cls, path: Path) -> CalibrationTable:
        """Read what :meth:`write` wrote.

        Raises:
            InputError: Missing, not such a table, or an amax that is not finite and > 0.
        """
        value = read_json(path, what="calibration table")
        hint = "make it again with strata quantize"
        try:
            if value["kind"] != _KIND or value["version"] != _VERSION:
                raise InputError(
                    f"{path}: not a calibration table of version {_VERSION}", hint=hint
                )
            spec = value["preprocess"]
            return cls(
                str(value["parents"]["model"]),
                str(value["parents"]["statistics"]),
                str(value["method"]),
                "" if spec is None else json.dumps(spec, separators=(",", ":")),
                int(value["images"]),
                str(value["images_sha256"]),
                {str(name): _from_json(entry) for name, entry in value["tensors"].items()},
                _look_from_json(value.get("input", {})),
                steps_from_json(value.get("equalized", [])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise InputError(
                f"{path}: an entry is not as a calibration table has it "
                f"({type(err).__name__}: {err})",
                hint=hint,
            ) from err


def choose_amaxes(
    plan: QuantizationPlan,
    activity: Activity,
    method: Method,
    classes: Classes = (),
    *,
    half: bool = False,
) -> CalibrationTable:
    """Choose the amax of each tensor of a plan; tensors that share a scale get one together.

    Args:
        plan: What is to be quantized.
        activity: What its tensors held, as the graph will hold them.
        method: How to choose.
        classes: Tensors that may move by a constant together, which then use all 256 codes
            (:attr:`exporter.quantization.shifts.Shifts.classes`); none for plain symmetric INT8.
        half: Move by constants that suit scales of float16.

    Raises:
        CalibrationError: A tensor held nothing, nothing but zeros, NaN or Inf.
        InputError: There are no statistics of a tensor.
    """
    found, histograms = activity.statistics, activity.histograms
    _require_all(plan, activity)
    together = {
        scale: reduce(add, (histograms[name] for name in members))
        for scale, members in plan.groups.items()
    }
    for scale, members in plan.groups.items():
        _require_usable(together[scale], members[0], len(found.images))
    ranges = choose_ranges(plan, classes, histograms, half=half)
    amaxes = {
        scale: choose_amax(together[scale], method)
        for scale, members in plan.groups.items()
        if members[0] not in ranges
    }
    tensors = {
        a.tensor: _moved(a, histograms[a.tensor], ranges[a.tensor])
        if a.tensor in ranges
        else _unmoved(a, histograms[a.tensor], amaxes[a.scale])
        for a in plan.activations
    }
    return CalibrationTable(
        found.model,
        activity.sha256,
        str(method),
        found.preprocess,
        len(found.images),
        found.images_sha256,
        tensors,
        look_at_input(found),
        activity.equalized,
    )


def _unmoved(
    activation: Activation, histogram: Histogram, chosen: tuple[float, Method]
) -> TensorAmax:
    """Return the entry of a tensor that is kept as it is."""
    amax = float(np.float32(chosen[0]))
    return TensorAmax(
        amax,
        str(chosen[1]),
        activation.scale,
        clipped_share(histogram, amax),
        expected_sqnr_db(histogram, amax),
    )


def _moved(activation: Activation, histogram: Histogram, found: ShiftedRange) -> TensorAmax:
    """Return the entry of a tensor that is kept less a constant."""
    return TensorAmax(
        float(np.float32(QMAX * found.scale)),
        _FULL_RANGE,
        activation.scale,
        grid_clipped(histogram, found),
        grid_sqnr_db(histogram, found),
        float(np.float32(found.shift)),
    )


def _require_all(plan: QuantizationPlan, activity: Activity) -> None:
    missing = [a.tensor for a in plan.activations if a.tensor not in activity.histograms]
    if missing:
        raise InputError(
            f"{activity.where}: no statistics of {len(missing)} tensors to quantize, such as "
            f"{missing[0]!r}",
            hint="calibrate with the same --include, --exclude or --plan, or with none of them",
        )


def _require_usable(histogram: Histogram, tensor: str, images: int) -> None:
    if histogram.nonfinite or histogram.count == 0 or histogram.amax == 0.0:
        what = f"{histogram.nonfinite} NaN or Inf" if histogram.nonfinite else "nothing but zeros"
        raise CalibrationError(
            f"tensor {tensor!r} holds {what} over {images} images: no scale can be taken",
            hint="calibrate with more images, or leave the layers that read it in float: --exclude",
        )


def _to_json(choice: TensorAmax) -> dict[str, Any]:
    return {
        # The shortest text that reads back as the same float32.
        "amax": float(str(np.float32(choice.amax))),
        "method": choice.method,
        "scale": choice.scale,
        "clipped": float(f"{choice.clipped:.3g}"),
        "sqnr_db": round(choice.sqnr_db, 2) if math.isfinite(choice.sqnr_db) else None,
    } | ({"shift": float(str(np.float32(choice.shift)))} if choice.shift else {})


def _from_json(entry: Mapping[str, Any]) -> TensorAmax:
    with np.errstate(over="ignore"):  # to inf, which is refused
        amax = float(np.float32(entry["amax"]))
    if not 0.0 < amax < math.inf:
        raise ValueError(f"amax {entry['amax']} is not finite and > 0")
    sqnr, shift = entry["sqnr_db"], float(np.float32(entry.get("shift", 0.0)))
    if not math.isfinite(shift):
        raise ValueError(f"shift {shift} is not finite")
    return TensorAmax(
        amax,
        str(entry["method"]),
        str(entry["scale"]),
        float(entry["clipped"]),
        math.inf if sqnr is None else float(sqnr),
        shift,
    )


def _look_to_json(look: InputLook) -> dict[str, Any]:
    digits = {key: [float(f"{v:.4g}") for v in getattr(look, key)] for key in ("mean", "std")}
    return asdict(look) | digits | {"warnings": list(look.warnings)}


def _look_from_json(value: Mapping[str, Any]) -> InputLook:
    return InputLook(
        tuple(map(float, value.get("mean", ()))),
        tuple(map(float, value.get("std", ()))),
        str(value.get("synthetic", "")),
        tuple(map(str, value.get("warnings", ()))),
    )
