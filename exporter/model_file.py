"""The bytes of an ONNX file, read once: what is planned is what its digest says.

Needs no onnx, so that they are there when onnx is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.artifacts import regular, sha256_bytes
from core.errors import InputError

__all__ = ["ModelFile", "read_model_file"]

# A protobuf message holds at most 2 GiB; above that ONNX keeps weights in other files.
_LIMIT_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class ModelFile:
    """An ONNX file that was read, whatever it holds.

    Attributes:
        path: Where it is.
        data: All of it, but for weights that lie in other files.
    """

    path: Path
    data: bytes

    def sha256(self) -> str:
        """Return the SHA-256 of its bytes as 64 hexadecimal digits."""
        return sha256_bytes(self.data)


def read_model_file(path: Path) -> ModelFile:
    """Read an ONNX file.

    Raises:
        InputError: Missing, unreadable, or over 2 GiB.
    """
    try:
        size = path.stat().st_size
        if size > _LIMIT_BYTES:
            raise InputError(
                f"{path}: {size} bytes; one ONNX file holds at most 2 GiB",
                hint="save it with external data: onnx.save(…, save_as_external_data=True)",
            )
        return ModelFile(path, regular(path).read_bytes())
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})",
            hint="check the path; strata export writes such a file",
        ) from err
