"""``predictions.npz``: what models answered, image by image, as a file.

It holds ``header.json`` and plain arrays: ``indices``, ``digests`` and ``labels`` of the
images, and for model number k ``k.answer``, ``k.rank``, ``k.loss``, ``k.confidence``,
``k.sqnr_db`` and ``k.logits`` (see :class:`~deploy.evaluation.predictions.ModelAnswers`); the
last two may be absent. It is bound to the models and the images by their digests; equal
predictions give equal bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.artifacts import regular, write_bytes
from core.errors import InputError
from core.stored_arrays import DAMAGED, read_array, read_stored
from deploy.evaluation.predictions import (
    ARRAYS,
    ImageTable,
    ModelAnswers,
    Predictions,
    arrays_of,
    set_digest,
)
from deploy.images import DataRecord

__all__ = ["predictions_to_bytes", "read_predictions", "write_predictions"]

_KIND = "strata predictions"
_VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every entry: the same bytes on any day
_FACTS = ("model", "sha256", "backend", "weights")
_OPTIONAL = ("sqnr_db", "logits")
_TYPES = {"answer": np.int32, "rank": np.int32}  # float32 is the others'

Array = npt.NDArray[Any]


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_bytes(path, predictions_to_bytes(predictions))


def predictions_to_bytes(predictions: Predictions) -> bytes:
    """Return the file's content; equal predictions give equal bytes."""
    images = predictions.images
    header = {
        "kind": _KIND,
        "version": _VERSION,
        "data": predictions.data.to_json(),
        "classes": predictions.classes,
        "class_names": list(images.class_names),
        "models": [
            {"model": m.name, "sha256": m.sha256, "backend": m.backend, "weights": m.weights}
            for m in predictions.models
        ],
    }
    arrays: dict[str, Array] = {
        "indices": images.indices.astype(np.int64),
        "digests": images.digests,
        "labels": images.labels.astype(np.int32),
    }
    for at, model in enumerate(predictions.models):
        arrays |= {f"{at}.{name}": array for name, array in arrays_of(model).items()}
    memory = io.BytesIO()
    # Stored, not compressed: zlib's output differs between its versions.
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("header.json"), json.dumps(header, indent=2, ensure_ascii=False))
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, array, version=(1, 0), allow_pickle=False)
            archive.writestr(_entry(f"{name}.npy"), entry.getvalue())
    return memory.getvalue()


def read_predictions(path: Path) -> Predictions:
    """Read what :func:`write_predictions` wrote.

    Raises:
        InputError: Missing, unreadable, or not such a file.
    """
    hint = "make it again: strata evaluate MODEL… --predictions " + path.name
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            header = json.loads(read_stored(archive, "header.json"))
            if header["kind"] != _KIND or header["version"] != _VERSION:
                raise InputError(f"{path}: predictions of another version", hint=hint)
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            arrays = {name: read_array(archive, name) for name in names if name != "header.json"}
        return _from_parts(header, arrays)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err})", hint=hint) from err
    except DAMAGED as err:
        raise InputError(
            f"{path}: not a predictions file, or a damaged one ({err})", hint=hint
        ) from err


def _from_parts(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Predictions:
    """Put the parts together; ValueError, KeyError or TypeError when they do not fit."""
    data = DataRecord.from_json(header["data"])
    images = ImageTable(
        _checked(arrays["indices"], np.int64, (data.images,)),
        _checked(arrays["digests"], np.uint8, (data.images, 32)),
        _checked(arrays["labels"], np.int32, (data.images,)).astype(np.int64),
        tuple(map(str, header["class_names"])),
    )
    if data.images < 1 or set_digest(images.digests) != data.sha256:
        raise ValueError("its images are not those of its header")
    classes = int(header["classes"])
    if images.labels.min() < 0 or images.labels.max() >= classes:
        raise ValueError("a label is of no class")
    models = tuple(
        _model(facts, at, arrays, (data.images, classes))
        for at, facts in enumerate(header["models"])
    )
    return Predictions(data, classes, images, models)


def _model(
    facts: Mapping[str, Any], at: int, arrays: Mapping[str, Array], shape: tuple[int, int]
) -> ModelAnswers:
    """Return one model's answers."""
    found: dict[str, Any] = {}
    for name in ARRAYS:
        array = arrays.get(f"{at}.{name}")
        if array is None and name not in _OPTIONAL:
            raise KeyError(f"{at}.{name}")
        if array is not None:
            wanted = shape if name == "logits" else shape[:1]
            found[name] = _checked(array, _TYPES.get(name, np.float32), wanted)
    name, sha256, backend, weights = (str(facts[key]) for key in _FACTS)
    return ModelAnswers(name, sha256, backend, weights, **found)


def _checked(array: Array, dtype: type, shape: tuple[int, ...]) -> Array:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"an array is {array.dtype} {array.shape}, not {dtype} {shape}")
    return array


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry that says nothing of when and where it was made."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3
    return info
