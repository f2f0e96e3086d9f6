"""The own error of a model's layers: what changes before an answer does."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from calib_data.batches import data_digest, sample
from calib_data.open import open_data
from core.errors import ImageDriftError
from core.progress import Progress, silent
from deploy.gate.baseline import Baseline, Layers
from deploy.gate.verdict import Outcome, Row
from deploy.images import ImageRequest

if TYPE_CHECKING:
    from deploy.comparison.values.report import Report

__all__ = [
    "LAYER_IMAGES",
    "has_layers",
    "layer_request",
    "layers_not_run",
    "layers_of",
    "measure_layers",
    "require_layer_images",
]

LAYER_IMAGES = 32
_BATCH = 8


def has_layers(text: str) -> bool:
    """Tell whether a model, as the user named it, can be compared layer by layer here."""
    return bool(text) and not text.endswith((".engine", ".plan"))


def layer_request(request: ImageRequest, total: int) -> ImageRequest:
    """Return the images for the layers: some of those that were asked for.

    Args:
        request: What was asked for.
        total: How many images that is.
    """
    return ImageRequest(
        request.data,
        min(LAYER_IMAGES, total),
        _BATCH,
        request.seed,
        request.preprocess,
    )


def measure_layers(
    reference: str, candidate: str, request: ImageRequest, progress: Progress = silent
) -> Layers:
    """Measure each layer of a candidate on the reference's tensors.

    Args:
        reference: A model, as the user named it.
        candidate: The same.
        request: From :func:`layer_request`.
        progress: Told the images done.

    Raises:
        StrataError: As :func:`deploy.comparison.run.compare_models` does.
    """
    from deploy.comparison.run import compare_models

    return layers_of(compare_models([reference, candidate], request, progress=progress))


def layers_of(report: Report, step: int = 0) -> Layers:
    """Return the layers of a comparison's candidate.

    Args:
        report: A comparison.
        step: Which of its steps, counted from 0.
    """
    own = ((row.tensor, row.cells[step].own) for row in report.rows)
    kept = ((row.tensor, row.cells[step].codes) for row in report.rows)
    return Layers(
        images=report.data.images,
        sha256=report.data.sha256,
        own_db={tensor: errors.sqnr_db for tensor, errors in own if errors is not None},
        scales={tensor: codes.scale for tensor, codes in kept if codes is not None},
    )


def layers_not_run(baseline: Baseline, entries: Collection[str], why: str) -> list[Row]:
    """Return a row for each of some entries whose layers should have been measured."""
    head = ("layers", Outcome.NOT_RUN, "dB", baseline.rules.layers or 0.0)
    return [Row(held.model, *head, note=why) for held in baseline.models if held.model in entries]


def require_layer_images(baseline: Baseline, layers: Layers, request: ImageRequest) -> None:
    """Refuse other images than the baseline's layers were measured on, before they run.

    Raises:
        ImageDriftError: They are others.
    """
    source = open_data(request.data)
    chosen = sample(source, layers.images, seed=baseline.selection.seed)
    if data_digest(source, chosen) != layers.sha256:
        raise ImageDriftError(
            f"{request.data}: the {layers.images} images that the layers are measured on are "
            "not the baseline's",
            hint="restore them; if the change is meant: strata baseline --update",
        )
