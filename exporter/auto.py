"""The default method: what gives the best outputs on images that were not calibrated with.

No method is best for every network: ``max`` wastes codes on outliers, ``percentile`` and
``mse`` clip what a later layer may need. So each is tried, then the best ones with full-range
constants where they cost nothing. The winner is the one that changes the network least, by
the median over images of the SQNR of its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx

from core.progress import Progress, silent
from exporter.calibration_table import CalibrationTable
from exporter.plan import QuantizationPlan
from exporter.quantize import quantize_graph
from exporter.session import Tensors, open_session

__all__ = ["CANDIDATES", "REACHES", "Choice", "choose_best", "output_sqnr_db"]

CANDIDATES = ("max", "percentile:99.99", "mse")
_IN_WORDS = {"off": "", "on": ", full range", "all": ", full range everywhere"}

# What full-range constants may reach: nothing, what costs nothing, or padded convolutions too.
REACHES = ("off", "on", "all")

# Method and reach → the table they give.
MakeTable = Callable[[str, str], CalibrationTable]


@dataclass(frozen=True, slots=True)
class Choice:
    """What won, and against what.

    Attributes:
        table: The winner's, its ``method`` saying so.
        sqnr_db: Candidate → median SQNR of the outputs over the held-out images, in dB.
    """

    table: CalibrationTable
    sqnr_db: Mapping[str, float]


def choose_best(
    model: onnx.ModelProto,
    plan: QuantizationPlan,
    make_table: MakeTable,
    feeds: Sequence[Tensors],
    reach: str | None = None,
    progress: Progress = silent,
) -> Choice:
    """Try the candidates on held-out images and return the best.

    Args:
        model: The float32 graph.
        plan: What is quantized.
        make_table: Gives the table of a candidate.
        feeds: Held-out images, preprocessed, batch by batch.
        reach: One of ``REACHES``; None tries off and on.
        progress: Told of each candidate.

    Raises:
        GraphError: The plan does not fit the graph.
    """
    reference = _outputs(model, feeds)
    found: dict[str, float] = {}
    tables: dict[str, CalibrationTable] = {}

    def attempt(method: str, reach: str) -> None:
        name = method + _IN_WORDS[reach]
        progress(len(found), len(CANDIDATES) + 2, name)
        tables[name] = make_table(method, reach)
        int8 = quantize_graph(model, plan, tables[name]).model
        found[name] = output_sqnr_db(reference, _outputs(int8, feeds))

    for method in CANDIDATES:
        attempt(method, reach or "off")
    if reach is None:
        winner = max(found, key=lambda name: found[name])
        # With mse too: it is how full range chooses its own scales.
        for method in dict.fromkeys((winner, "mse")):
            attempt(method, "on")
    best = max(found, key=lambda name: found[name])
    return Choice(replace(tables[best], method=f"auto: {best}"), found)


def output_sqnr_db(
    reference: Sequence[npt.NDArray[np.float32]], candidate: Sequence[npt.NDArray[np.float32]]
) -> float:
    """Return the median over images of the SQNR of all outputs together, in dB.

    Args:
        reference: Outputs, N×… each.
        candidate: The same tensors of the other network.
    """
    signal = sum(_per_image(array) for array in reference)
    noise = sum(_per_image(a - b) for a, b in zip(reference, candidate, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.median(10.0 * np.log10(signal / noise)))


def _per_image(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    flat = array.reshape(len(array), -1).astype(np.float64)
    result: npt.NDArray[np.float64] = np.einsum("ij,ij->i", flat, flat)
    return result


def _outputs(model: onnx.ModelProto, feeds: Sequence[Tensors]) -> list[npt.NDArray[np.float32]]:
    """Return every output over all feeds, joined."""
    session = open_session(model)
    parts = [session(feed) for feed in feeds]
    return [np.concatenate([part[name] for part in parts]) for name in session.outputs]
