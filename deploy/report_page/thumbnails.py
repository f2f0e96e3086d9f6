"""Small pictures of images, as data that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

from PIL import Image

from calib_data.open import open_data
from calib_data.pixels import Pixels
from core.errors import InputError
from deploy.comparison.values.report import Report
from deploy.images import ImageRequest

__all__ = ["Thumbnails", "png_data", "thumbnails"]

_LARGEST = 128  # pixels of the longer side


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """Pictures of some images of a source.

    Attributes:
        data: Index of the image → ``data:image/png;base64,…``.
        unknown: Why there are none; empty when there are.
    """

    data: dict[int, str]
    unknown: str = ""


def thumbnails(report: Report, request: ImageRequest) -> Thumbnails:
    """Return pictures of the images whose answers a report shows, from the data it names.

    They are for looking at: data that is gone or broken costs the pictures, not the page.
    """
    try:
        source = open_data(request.data, synthetic=request.allow_synthetic)
        if source.name != report.data.name:
            return Thumbnails({}, f"{source.name} is not the data of this comparison")
        if source.preprocessed:
            return Thumbnails({}, "the data came prepared: it holds no pictures")
        wanted: Iterable[int] = (answer.image for answer in report.answers)
        there = (index for index in wanted if 0 <= index < len(source))
        return Thumbnails({index: png_data(source.image(index)) for index in there})
    except InputError:
        return Thumbnails({}, f"the images of {report.data.name} could not be read")


def png_data(pixels: Pixels) -> str:
    """Return an image as a PNG in a data address, its longer side at most 128 pixels.

    Args:
        pixels: uint8, (H, W, 3).
    """
    image = Image.fromarray(pixels)
    image.thumbnail((_LARGEST, _LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
