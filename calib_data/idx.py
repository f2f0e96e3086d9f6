"""Read images and labels in the IDX format of MNIST and its kin, plain or gzipped.

The format: two zero bytes, a type (0x08: unsigned byte), the number of dimensions, each
dimension as a big-endian 32-bit integer, then the bytes.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section on file formats.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from calib_data.pixels import Pixels, Tensor
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Labels, array_digest, prepare
from core.errors import InputError
from core.memory import require_memory

__all__ = ["IdxSource", "is_idx", "labels_path", "open_idx", "read_idx"]

IMAGES_MAGIC = 0x0803  # unsigned bytes, 3 dimensions: N × H × W
LABELS_MAGIC = 0x0801  # unsigned bytes, 1 dimension: N
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
_LOOK_BYTES = 32 << 20  # a header is believed, and the memory asked, when so much is there


@dataclass(frozen=True, slots=True, eq=False)
class IdxSource:
    """A source (see :class:`~calib_data.sources.Source`) over an IDX file held in memory."""

    name: str
    images: Pixels  # (N, H, W), grey
    labels: Labels | None = None
    class_names: tuple[str, ...] = ()
    preprocessed: bool = False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def where(self, index: int) -> str:
        """Return how a message names one image."""
        return f"{self.name}: image {index}"

    def image(self, index: int) -> Pixels:
        """Return one image, grey repeated to RGB: uint8, (H, W, 3)."""
        return np.repeat(self.images[index][:, :, np.newaxis], 3, axis=2)

    def tensor(self, index: int, spec: PreprocessSpec | None) -> Tensor:
        """Return one network input: float32, (3, h, w).

        Raises:
            InputError: No spec.
        """
        return prepare(self.images[index], spec, where=self.where(index))

    def digest(self, index: int) -> str:
        """Return the SHA-256 of the grey pixels and their shape."""
        return array_digest(self.images[index])


def open_idx(path: Path, *, name: str = "", class_names: tuple[str, ...] = ()) -> IdxSource:
    """Read an images file, and the labels file beside it where there is one.

    Args:
        path: The images file, e.g. ``train-images-idx3-ubyte.gz``.
        name: The source's name; the file's name when empty.
        class_names: Name of each class, when known.

    Raises:
        InputError: Missing, damaged, not images, or labels of another number.
    """
    images = read_idx(path, IMAGES_MAGIC)
    if images.size == 0:
        raise InputError(
            f"{path}: holds no pixels ({'×'.join(map(str, images.shape))})",
            hint="name a file with images",
        )
    labels = None
    if (beside := labels_path(path)) is not None:
        labels = read_idx(beside, LABELS_MAGIC).astype(np.int64)
        if len(labels) != len(images):
            raise InputError(
                f"{beside}: {len(labels)} labels for the {len(images)} images of {path.name}",
                hint="put the labels of these very images beside them, or none",
            )
        labels.flags.writeable = False
    return IdxSource(name or path.name, images, labels, class_names)


def is_idx(path: Path) -> bool:
    """Tell whether a file starts as an IDX file of unsigned bytes does, plain or gzipped."""
    try:
        with _open(path) as file:
            return file.read(3) == b"\x00\x00\x08"
    except (OSError, EOFError, zlib.error):
        return False


def labels_path(images: Path) -> Path | None:
    """Return the labels file beside an images file, by the names MNIST gave them."""
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    bare = name.removesuffix(".gz")
    for beside in (name, bare, f"{bare}.gz"):
        path = images.with_name(beside)
        if beside != images.name and path.is_file():
            return path
    return None


def read_idx(path: Path, magic: int) -> npt.NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes.

    Args:
        path: The file, plain or gzipped (its content tells, not its name).
        magic: :data:`IMAGES_MAGIC` or :data:`LABELS_MAGIC`.

    Returns:
        uint8, (N, H, W) or (N,), read-only.

    Raises:
        InputError: Missing, unreadable, of another kind, truncated, or with bytes left over.
    """
    try:
        with _open(path) as file:
            shape = _read_shape(file, path, magic)
            count = math.prod(shape)
            data = _read_up_to(file, count + 1, path)
    except (OSError, EOFError, zlib.error) as err:
        raise InputError(
            f"{path}: cannot be read ({getattr(err, 'strerror', None) or err})",
            hint="check the path and its permissions, or fetch the file again",
        ) from err
    if len(data) != count:
        seen = "more" if len(data) > count else f"{len(data)}"
        raise _damaged(path, f"{'×'.join(map(str, shape))} = {count} bytes announced, {seen} there")
    values = np.frombuffer(data, np.uint8).reshape(shape)
    values.flags.writeable = False
    return values


def _read_up_to(file: BinaryIO, count: int, path: Path) -> bytearray:
    """Read at most ``count`` bytes; a damaged header's count takes no memory by itself.

    Raises:
        InputError: A part of them is there, and the memory does not hold the rest.
    """
    data = bytearray()
    while len(data) < count and (chunk := file.read(min(_CHUNK_BYTES, count - len(data)))):
        data += chunk
        if len(data) == _LOOK_BYTES:
            require_memory(count - len(data), where=str(path), hint="cut it into smaller files")
    return data


def _read_shape(file: BinaryIO, path: Path, magic: int) -> tuple[int, ...]:
    """Read the header of a file that should be of kind ``magic``."""
    head = file.read(4)
    seen = int.from_bytes(head)
    if len(head) == 4 and seen == LABELS_MAGIC and magic == IMAGES_MAGIC:
        raise InputError(
            f"{path}: labels without images (an IDX labels file)",
            hint=f"name the images file, such as "
            f"{path.name.replace('labels', 'images').replace('idx1', 'idx3')}",
        )
    if len(head) != 4 or seen != magic:
        raise _damaged(path, f"starts with 0x{head.hex() or '(nothing)'}, not 0x{magic:08x}")
    dimensions = magic & 0xFF
    sizes = file.read(4 * dimensions)
    if len(sizes) != 4 * dimensions:
        raise _damaged(path, f"ends in its header, after {4 + len(sizes)} bytes")
    return cast("tuple[int, ...]", struct.unpack(f">{dimensions}I", sizes))


def _open(path: Path) -> BinaryIO:
    """Open a file, unpacking gzip where its first bytes say so."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    return cast("BinaryIO", gzip.open(path, "rb") if packed else path.open("rb"))


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: not a whole IDX file of the kind expected ({what})",
        hint="fetch it again, or name the images file of an IDX pair",
    )
