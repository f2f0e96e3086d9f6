"""Activation statistics of one network over a set of images, and their file.

Everything in it is a sum of counts, an extreme or a sorted list, so the file's bytes depend
on the network, the preprocessing and the set of images alone: not on batch size, order,
threads or shards.

The ``.npz`` holds ``header.json`` and plain arrays: of each image its digest and what was
noted of it (:mod:`exporter.calibration.image_record`), of each tensor its bounds, its
histogram (:mod:`exporter.calibration.counts.histogram`) and the counts of its channels
(:mod:`exporter.calibration.counts.channels`).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from core.artifacts import regular, write_whole
from core.errors import InputError
from core.stored_arrays import DAMAGED, read_array, read_stored
from exporter.calibration.counts.channels import ChannelCounts
from exporter.calibration.counts.histogram import SHIFT, Histogram
from exporter.calibration.counts.packing import (
    CHANNEL_ARRAYS,
    HISTOGRAM_ARRAYS,
    InOrder,
    Packed,
    pack_channels,
    pack_histograms,
    rows,
    unpack_channels,
    unpack_histograms,
)
from exporter.calibration.image_record import ImageRecord, Origin

__all__ = ["ImageRecord", "Statistics", "read_statistics"]

_KIND = "strata activation statistics"
_VERSION = 2  # 1 counted other values of large tensors
_ARRAYS = ("image_digests", "image_means", "image_stds", *HISTOGRAM_ARRAYS)
_NOTED = ("image_lows", "image_highs", "image_roughness")
_LATER = (*_NOTED, *CHANNEL_ARRAYS)  # once not written; files may lack them
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the date of every entry: the same bytes on any day


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """What was seen.

    Attributes:
        model: SHA-256 of the ONNX file that ran.
        preprocess: JSON of the preprocess spec; empty when the data came preprocessed.
        images: One record for each image, sorted.
        tensors: Name → histogram, in the order of the graph.
        origin: Where the images come from.
        channels: Name → counts of each channel, of the same tensors; empty in old files.
        passed: Tensor → the tensor in whose zeros its values were counted as zeros: an addition
            and a ReLU are all that becomes of it, and of those the ReLU passes nothing on.
    """

    model: str
    preprocess: str
    images: tuple[ImageRecord, ...]
    tensors: Mapping[str, Histogram]
    origin: Origin = field(default_factory=Origin)
    channels: Mapping[str, ChannelCounts] = field(default_factory=dict)
    passed: Mapping[str, str] = field(default_factory=dict)

    @property
    def taps(self) -> tuple[str, ...]:
        """What the network must return to be counted."""
        return tuple(dict.fromkeys((*self.tensors, *self.passed.values())))

    @property
    def images_sha256(self) -> str:
        """Digest of the set of images; equals ``calib_data.batches.data_digest``."""
        digests = sorted(image.digest for image in self.images)
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the file's content; equal statistics give equal bytes."""
        memory = io.BytesIO()
        self._write_to(memory)
        return memory.getvalue()

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        with write_whole(path) as temporary, temporary.open("wb") as file:
            self._write_to(file)

    def _write_to(self, file: IO[bytes]) -> None:
        header = {
            "kind": _KIND,
            "version": _VERSION,
            "model": self.model,
            "preprocess": self.preprocess,
            "origin": asdict(self.origin),
            "images": len(self.images),
            "images_sha256": self.images_sha256,
            "shift": SHIFT,
            "tensors": list(self.tensors),
            "passed": dict(self.passed),
        }
        # Stored, not compressed: zlib's output differs between its versions.
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            text = json.dumps(header, indent=2, ensure_ascii=False)
            archive.writestr(_entry("header.json"), text)
            for array in self._arrays():
                with archive.open(_entry(f"{array.name}.npy"), "w") as entry:
                    _write_array(entry, array)

    def _arrays(self) -> Iterator[Packed]:
        """Yield what is written, one after the other."""
        images, whole = self.images, Packed.whole
        digests = b"".join(bytes.fromhex(image.digest) for image in images)
        yield whole("image_digests", np.frombuffer(digests, np.uint8).reshape(-1, 32))
        yield whole("image_means", rows(image.mean for image in images))
        yield whole("image_stds", rows(image.std for image in images))
        yield whole("image_lows", rows(image.low for image in images))
        yield whole("image_highs", rows(image.high for image in images))
        yield whole("image_roughness", rows((image.roughness,) for image in images))
        names = tuple(self.tensors)
        yield from pack_histograms(InOrder(self.tensors, names))
        if self.channels:
            yield from pack_channels(InOrder(self.channels, names))


def read_statistics(path: Path) -> Statistics:
    """Read what :meth:`Statistics.write` wrote.

    Raises:
        InputError: Missing, unreadable, or not such a file.
    """
    hint = "collect the statistics again with strata calibrate"
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            header = json.loads(read_stored(archive, "header.json"))
            if header["kind"] != _KIND or header["version"] != _VERSION:
                raise InputError(f"{path}: statistics of another version", hint=hint)
            there = archive.namelist()
            noted = [name for name in _LATER if f"{name}.npy" in there]
            arrays = {name: read_array(archive, name) for name in (*_ARRAYS, *noted)}
        return _from_parts(header, arrays)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err})", hint=hint) from err
    except DAMAGED as err:
        raise InputError(
            f"{path}: not a statistics file, or a damaged one ({err})", hint=hint
        ) from err


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry that says nothing of when and where it was made."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3
    return info


def _write_array(file: IO[bytes], array: Packed) -> None:
    """Write an array as ``.npy``."""
    kind = np.dtype(array.kind).str
    header = {"descr": kind, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for part in array.parts:
        file.write(part.astype(array.kind).tobytes())


def _from_parts(header: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Statistics:
    """Put the parts together; ValueError, KeyError or TypeError when they do not fit."""
    images = _records(arrays)
    names = [str(name) for name in header["tensors"]]
    if header["shift"] != SHIFT:
        raise ValueError("its histograms are of another kind")
    tensors = dict(zip(names, unpack_histograms(arrays), strict=True))
    channels = {}
    if set(CHANNEL_ARRAYS) <= arrays.keys():
        channels = dict(zip(names, unpack_channels(arrays), strict=True))
    origin = Origin(**{str(key): str(value) for key, value in header.get("origin", {}).items()})
    passed = {str(name): str(relu) for name, relu in header.get("passed", {}).items()}
    statistics = Statistics(
        str(header["model"]), str(header["preprocess"]), images, tensors, origin, channels, passed
    )
    if header["images_sha256"] != statistics.images_sha256:
        raise ValueError("its images are not those of its header")
    return statistics


def _records(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[ImageRecord, ...]:
    digests = [bytes(digest).hex() for digest in arrays["image_digests"]]
    empty = np.empty((len(digests), 0))
    low, high = (arrays.get(name, empty).tolist() for name in _NOTED[:2])
    roughness = arrays.get(_NOTED[2], np.zeros(len(digests))).reshape(-1).tolist()
    means, stds = (arrays[name].tolist() for name in ("image_means", "image_stds"))
    rows = zip(digests, means, stds, low, high, roughness, strict=True)
    return tuple(
        ImageRecord(digest, tuple(mean), tuple(std), tuple(least), tuple(most), rough)
        for digest, mean, std, least, most, rough in rows
    )
