"""What the files of a bundle are: a network to run, and what is known of it.

=====================  ==========================================================
``model.onnx``         the strongly typed graph; a device builds its plan from it
``plans/*.engine``     plans that were built from it, each with its manifest
``preprocess.json``    how an image becomes its input
``labels.json``        names of its classes, by index
``calibration.json``   the chosen amax of each tensor
``layers.json``        the comparison, layer by layer
``accuracy.json``      right answers on a labelled set
``report.html``        the comparison as a page to look at
``licences/*``         of the data and weights
=====================  ==========================================================

Only ``model.onnx`` is in every bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calib_data.preprocess import PreprocessSpec
from core.errors import InputError
from core.json_text import parse_json
from deploy.bundle.reader import Bundle
from deploy.engines.manifest import Manifest, manifest_from_json

__all__ = [
    "ACCURACY",
    "CALIBRATION",
    "LABELS",
    "LAYERS",
    "LICENCES",
    "MODEL",
    "PLANS",
    "PREPROCESS",
    "REPORT",
    "BundledPlan",
    "Contents",
    "read_contents",
]

MODEL = "model.onnx"
PREPROCESS = "preprocess.json"
LABELS = "labels.json"
CALIBRATION = "calibration.json"
LAYERS = "layers.json"
ACCURACY = "accuracy.json"
REPORT = "report.html"
PLANS = "plans/"
LICENCES = "licences/"
_PLAN_SUFFIX = ".engine"


@dataclass(frozen=True, slots=True)
class BundledPlan:
    """A plan in a bundle: the name of its file, and its manifest."""

    file: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle says of its network.

    Attributes:
        model_sha256: Digest of the ONNX file, from which all plans were built.
        preprocess: How an image becomes the network's input; None when nobody said.
        labels: Class names by index; empty when unknown.
        plans: In the order of their names.
    """

    model_sha256: str
    preprocess: PreprocessSpec | None
    labels: tuple[str, ...]
    plans: tuple[BundledPlan, ...]


def read_contents(bundle: Bundle) -> Contents:
    """Read the small files of a bundle, each checked against its digest.

    Raises:
        InputError: A file is damaged, not what its name says, or of another network than
            the rest.
    """
    if MODEL not in bundle:
        raise InputError(
            f"{bundle.path}: holds no {MODEL}", hint="make it again with strata bundle"
        )
    preprocess = None
    if PREPROCESS in bundle:
        where = f"{bundle.path}: {PREPROCESS}"
        text = bundle.read(PREPROCESS).decode("utf-8", "replace")
        preprocess = PreprocessSpec.from_json(text, where=where)
    plans = [
        _plan(bundle, name)
        for name in bundle.files
        if name.startswith(PLANS) and name.endswith(_PLAN_SUFFIX)
    ]
    return Contents(bundle.files[MODEL].sha256, preprocess, _labels(bundle), tuple(plans))


def _labels(bundle: Bundle) -> tuple[str, ...]:
    if LABELS not in bundle:
        return ()
    value = _json(bundle, LABELS)
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise _wrong(bundle, LABELS, "not a list of texts")
    return tuple(value)


def _plan(bundle: Bundle, name: str) -> BundledPlan:
    """Read the manifest of a plan, which is that plan's, and of this bundle's network."""
    manifest_name = f"{name}.json"
    if manifest_name not in bundle:
        raise _wrong(bundle, name, "its manifest is not in the bundle")
    value = _json(bundle, manifest_name)
    if not isinstance(value, dict):
        raise _wrong(bundle, manifest_name, "not an object")
    manifest = manifest_from_json(value, bundle.path / manifest_name)
    if manifest.plan_sha256 != bundle.files[name].sha256:
        raise _wrong(bundle, name, "is not the plan that its manifest describes")
    if manifest.parents["onnx"] != bundle.files[MODEL].sha256:
        raise _wrong(bundle, name, f"was built from another ONNX file than {MODEL}")
    return BundledPlan(name, manifest)


def _json(bundle: Bundle, name: str) -> Any:
    try:
        return parse_json(bundle.read(name).decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise _wrong(bundle, name, f"not JSON: {err}") from err


def _wrong(bundle: Bundle, name: str, what: str) -> InputError:
    return InputError(
        f"{bundle.path}: {name}: {what}", hint="do not use it: make it again with strata bundle"
    )
