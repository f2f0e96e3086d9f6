"""Decode one image file to upright RGB.

JPEG, PNG and WebP; whatever colour they hold becomes RGB as Pillow's ``convert("RGB")``
makes it (and so torchvision's loader): alpha is dropped, not blended; CMYK is converted
without a profile. 16-bit grey keeps its upper byte, as Pillow does for 16-bit RGB.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from calib_data.pixels import Pixels
from core.artifacts import regular
from core.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "read_image"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # in lower case
_FORMATS = ("JPEG", "PNG", "WEBP")  # nothing else of what Pillow can open is let in
# What Pillow's decoders raise on damaged files. Warning: its complaints, where the caller
# made warnings errors; among them the one of a decompression bomb.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Warning,
)
_ORIENTATION = 0x0112  # Exif tag
# Source: Exif 2.32, table 6 (Orientation): what was done to the scene, undone.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: Path) -> Pixels:
    """Decode one image file.

    Args:
        path: A JPEG, PNG or WebP file; its content counts, not its suffix. Of an animation
            the first frame is taken.

    Returns:
        uint8, (H, W, 3), RGB, turned upright by its Exif orientation.

    Raises:
        InputError: Missing, unreadable, damaged, of another format, or so large that
            decoding it would fill the memory (Pillow's ``Image.MAX_IMAGE_PIXELS``).
    """
    try:
        with Image.open(regular(path), formats=_FORMATS) as image:
            _refuse_bomb(image, path)
            orientation = image.getexif().get(_ORIENTATION)
            rgb = _to_rgb(image)
    except UnidentifiedImageError as err:
        raise InputError(
            f"{path}: not a JPEG, PNG or WebP image",
            hint="convert it, or remove it from the data set",
        ) from err
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as err:
        raise _bomb(path, str(err)) from err
    except _BROKEN as err:
        reason = err.strerror if isinstance(err, OSError) else None  # the system's, not Pillow's
        raise InputError(
            f"{path}: cannot be read ({reason})" if reason else f"{path}: a broken image ({err})",
            hint="replace it, or remove it from the data set",
        ) from err
    upright = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return np.asarray(rgb if upright is None else rgb.transpose(upright), dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Decode and convert; the result no longer needs the file."""
    if image.mode.startswith("I"):  # 16-bit grey; convert() would clip it at 255
        upper = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(upper).convert("RGB")
    if "transparency" in image.info:  # the same colours; straight to RGB Pillow may warn
        image = image.convert("RGBA")
    return image.convert("RGB")


def _refuse_bomb(image: Image.Image, path: Path) -> None:
    """Refuse from the header what Pillow itself would only warn of."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise _bomb(path, f"{image.width}×{image.height} pixels, more than {limit}")


def _bomb(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: too large an image ({what})", hint="scale it down, or remove it from the data set"
    )
