"""Read images from an ``.npz`` file: pixels, or network inputs that are already prepared.

========  ===========  ==============  ====================================================
array     type         shape           meaning
========  ===========  ==============  ====================================================
images    uint8        N × H × W × C   pixels, C = 3 (RGB) or 1 (grey)
images    float32      N × 3 × H × W   network inputs; no preprocessing is done, none is known
labels    any integer  N               class of each image, ≥ 0; may be absent
========  ===========  ==============  ====================================================

An array that ``numpy.savez`` stored is mapped, not read, so the file may be larger than the
memory; ``savez_compressed`` has to be unpacked whole. Pickles are refused: they run code.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from calib_data.pixels import Pixels, Tensor
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Labels, array_digest, prepare
from core.errors import InputError
from core.memory import require_memory
from core.stored_arrays import read_header

__all__ = ["NpzSource", "open_npz"]

AnyArray = npt.NDArray[Any]

# Source: PKWARE, APPNOTE 6.3.10, section 4.3.7: a member's local header is 30 bytes, the last
# four of them the lengths of the name and of the extra field that follow it.
_LOCAL_HEADER_BYTES = 30
_PLAINLY = "store it with numpy.savez, which does not pack: then it is mapped, not read"
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True, eq=False)
class NpzSource:
    """A source (see :class:`~calib_data.sources.Source`) over the arrays of an ``.npz``."""

    name: str
    images: AnyArray  # uint8 (N, H, W, 3 or 1), or float32 (N, 3, H, W)
    labels: Labels | None = None
    class_names: tuple[str, ...] = ()

    @property
    def preprocessed(self) -> bool:
        """Whether the images are network inputs already."""
        return self.images.dtype == np.float32

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def where(self, index: int) -> str:
        """Return how a message names one image."""
        return f"{self.name}: image {index}"

    def image(self, index: int) -> Pixels:
        """Return one image: uint8, (H, W, 3), RGB.

        Raises:
            InputError: The file holds preprocessed float32 inputs.
        """
        if self.preprocessed:
            raise InputError(
                f"{self.where(index)}: preprocessed float32 values, not pixels",
                hint="save the uint8 pixels (N×H×W×3) in the .npz instead",
            )
        pixels = np.array(self.images[index])
        _let_go(self.images)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    def tensor(self, index: int, spec: PreprocessSpec | None) -> Tensor:
        """Return one network input: float32, (3, h, w).

        Raises:
            InputError: A NaN or infinity among preprocessed values; no spec for pixels.
        """
        if not self.preprocessed:
            return prepare(self.image(index), spec, where=self.where(index))
        tensor = np.array(self.images[index], np.float32, order="C")
        _let_go(self.images)
        if not np.all(np.isfinite(tensor)):
            raise InputError(
                f"{self.where(index)}: {np.count_nonzero(~np.isfinite(tensor))} values are NaN or "
                "infinite",
                hint="prepare the images again; a network input is finite",
            )
        return tensor

    def digest(self, index: int) -> str:
        """Return the SHA-256 of the image's type, shape and values."""
        digest = array_digest(self.images[index])
        _let_go(self.images)
        return digest


def _let_go(images: AnyArray) -> None:
    """Drop what was read of a mapped file: its pages count as this process's memory.

    They stay in the system's cache, and a view that is still in use reads them again.
    """
    file: object = images.base
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def open_npz(path: Path) -> NpzSource:
    """Open an ``.npz`` file.

    Raises:
        InputError: Missing, not an .npz, no `images`, or arrays of another type or shape.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            images = _read(archive, path, "images")
            labels = _read(archive, path, "labels")
    except _BROKEN as err:
        raise InputError(
            f"{path}: not a readable .npz file ({getattr(err, 'strerror', None) or err})",
            hint="write it with numpy.savez(path, images=…, labels=…), without objects",
        ) from err
    if images is None:
        what = "labels without images" if labels is not None else "no array `images`"
        raise InputError(
            f"{path}: {what}", hint="write it with numpy.savez(path, images=…, labels=…)"
        )
    _check_images(images, path)
    return NpzSource(path.name, images, None if labels is None else _checked(labels, images, path))


def _read(archive: zipfile.ZipFile, path: Path, name: str) -> AnyArray | None:
    """Read one array, mapped from the file where it lies there plainly; None when absent."""
    if f"{name}.npy" not in archive.namelist():
        return None
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        shape, order, dtype = read_header(file, member.file_size, name)
        if math.prod(shape) and member.compress_type == zipfile.ZIP_STORED:
            start = _data_start(path, member) + file.tell()
            return np.memmap(path, dtype, "r", start, shape, order)
        require_memory(member.file_size, where=f"{path}: `{name}` unpacked", hint=_PLAINLY)
        return np.frombuffer(file.read(), dtype).reshape(shape, order=order)


def _data_start(path: Path, member: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin in the file (the directory does not say)."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER_BYTES)
    name_length, extra_length = struct.unpack("<HH", header[-4:])
    return member.header_offset + _LOCAL_HEADER_BYTES + int(name_length) + int(extra_length)


def _check_images(images: AnyArray, path: Path) -> None:
    """Refuse images that are neither pixels nor network inputs."""
    shape = images.shape
    if images.dtype == np.uint8 and len(shape) == 4 and shape[3] in (1, 3) and images.size:
        return
    if images.dtype == np.float32 and len(shape) == 4 and shape[1] == 3 and images.size:
        return
    hint = "images are N×H×W×3 (or ×1) uint8 pixels, or N×3×H×W float32 network inputs"
    if images.dtype == np.uint8 and len(shape) == 4 and shape[1] in (1, 3):
        hint += "; yours look like N×C×H×W: save images.transpose(0, 2, 3, 1)"
    elif images.dtype == np.float32 and len(shape) == 4 and shape[3] == 3:
        hint += "; yours look like N×H×W×C: save images.transpose(0, 3, 1, 2)"
    elif images.dtype in (np.float64, np.float16):
        hint += "; save images.astype(numpy.float32) if yours are prepared"
    raise InputError(f"{path}: `images` is {images.dtype} of shape {shape}", hint=hint)


def _checked(labels: AnyArray, images: AnyArray, path: Path) -> Labels:
    """Return the labels as int64, in memory; refuse what are no labels of these images."""
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise InputError(
            f"{path}: `labels` is {labels.dtype} of shape {labels.shape} for {len(images)} images",
            hint="labels are one integer an image: the number of its class, from 0",
        )
    if labels.min() < 0 or int(labels.max()) > np.iinfo(np.int64).max:
        raise InputError(
            f"{path}: labels from {labels.min()} to {labels.max()}",
            hint="labels count from 0; leave images of unknown class out",
        )
    result = np.array(labels, np.int64)
    result.flags.writeable = False
    return result
