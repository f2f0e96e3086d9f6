"""Arrays in a zip archive, as ``numpy.savez`` stores them, read with distrust.

A member takes no more memory than the file has bytes: a packed one is refused, since a small
file could unpack to any size, and so is a header that announces more than there is.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["DAMAGED", "Header", "read_array", "read_header", "read_stored"]

# What a damaged or foreign file of ours raises, from its archive to the parts that do not fit;
# what the disk refuses is an OSError and no fault of the file.
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError),
)

Header = tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]


def read_stored(archive: zipfile.ZipFile, member: str) -> bytes:
    """Read a member that is stored, not packed.

    Raises:
        ValueError: It is packed.
        KeyError: There is none of that name.
    """
    info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member} is packed; Strata stores what it writes")
    return archive.read(info)


def read_array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """Read the array ``name`` from its stored member ``name.npy``.

    Raises:
        ValueError: It is packed, holds Python objects, or more or fewer bytes than it announces.
        KeyError: There is none of that name.
    """
    info = archive.getinfo(f"{name}.npy")
    data = io.BytesIO(read_stored(archive, info.filename))
    shape, order, dtype = read_header(data, info.file_size, name)
    return np.frombuffer(data.getbuffer()[data.tell() :], dtype).reshape(shape, order=order)


def read_header(file: IO[bytes], size: int, name: str) -> Header:
    """Read the header of an ``.npy`` file, and leave the file at its data.

    Args:
        file: The file, at its beginning.
        size: Bytes that there are in all.
        name: The array, for the error text.

    Returns:
        Shape, order and type, of as many bytes as are there.

    Raises:
        ValueError: Of an unknown format, of Python objects, or of more or fewer bytes.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f".npy format {version}; numbers are written in (1, 0) or (2, 0)")
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    wanted, seen = math.prod(shape) * dtype.itemsize, size - file.tell()
    if wanted != seen:
        raise ValueError(f"{name}: {shape} {dtype} is {wanted} bytes, {seen} are there")
    return shape, "F" if fortran else "C", dtype
