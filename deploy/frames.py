"""Images to answer for, one after another: files, folders, videos, cameras, arrays.

A frame knows its name and how to get its pixels; a file is decoded when its turn comes, and
what is wrong with it is found then. Videos and cameras need OpenCV, imported here alone and
only when one is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calib_data.image import IMAGE_SUFFIXES, read_image
from calib_data.pixels import Pixels
from core.errors import InputError, MissingBackendError, StrataError

__all__ = ["Frame", "Image", "as_frames", "is_live", "named_frames"]

Image = Path | str | Pixels  # a file, or uint8 (H, W, 3) RGB
_VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm")
_CAMERA = "camera:"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An image by name, and how to get it: uint8, (H, W, 3), RGB, upright.

    ``load`` raises a StrataError when the image is missing or broken.
    """

    name: str
    load: Callable[[], Pixels]


def as_frames(images: Iterable[Image | Frame]) -> Iterator[Frame]:
    """Name each of some images: a file by its path, an array by its number from 1."""
    for number, image in enumerate(images, start=1):
        if isinstance(image, Frame):
            yield image
        elif isinstance(image, str | Path):
            yield _of_file(Path(image))
        else:
            yield _of_array(f"image {number}", image)


def named_frames(texts: Iterable[str]) -> Iterator[Frame]:
    """Yield the frames of what a user named, in that order.

    What cannot be opened is a frame without pixels: the others are not held up by it.

    Args:
        texts: Image files; folders, whose images are taken in the order of their names, in
            their folders too; videos; ``camera:0``.
    """
    for text in texts:
        path = Path(text)
        try:
            if is_live(text) or path.suffix.lower() in _VIDEO_SUFFIXES:
                yield from _film(text)
            elif path.is_dir():
                yield from map(_of_file, _images(path))
            else:
                yield _of_file(path)
        except StrataError as err:
            yield _failed(text, err)


def is_live(text: str) -> bool:
    """Tell whether what a user named is a camera."""
    return text.startswith(_CAMERA)


def _failed(name: str, error: StrataError) -> Frame:
    def load() -> Pixels:
        raise error

    return Frame(name, load)


def _of_file(path: Path) -> Frame:
    def load() -> Pixels:
        if path.exists() and not path.is_file():  # a pipe or a device would be waited for
            raise InputError(f"{path}: is not a file", hint="name an image, or a folder of images")
        return read_image(path)

    return Frame(str(path), load)


def _of_array(name: str, pixels: Pixels) -> Frame:
    def load() -> Pixels:
        if not isinstance(pixels, np.ndarray):
            raise InputError(
                f"{name}: {type(pixels).__name__}, not an image",
                hint="give a file's name, or uint8 (height, width, 3) in RGB",
            )
        if pixels.dtype != np.uint8 or pixels.shape[2:] != (3,) or not pixels.size:
            raise InputError(
                f"{name}: an array of {pixels.dtype} {pixels.shape}, not an image",
                hint="give uint8 (height, width, 3) in RGB",
            )
        return pixels

    return Frame(name, load)


def _images(folder: Path) -> Iterator[Path]:
    """Walk a folder in the order of names; hidden files and folders are passed over."""
    found = False
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                found = True
                yield Path(root, name)
    if not found:
        raise InputError(
            f"{folder}: holds no images", hint=f"images end in {', '.join(IMAGE_SUFFIXES)}"
        )


def _film(text: str) -> Iterator[Frame]:
    """Yield the frames of a video or a camera, by ``clip.mp4#1``, ``clip.mp4#2``."""
    cv2 = _opencv(text)
    source: int | str = text
    if is_live(text):
        number = text.removeprefix(_CAMERA)
        if not (number.isascii() and number.isdecimal()):
            raise InputError(f"{text}: no number of a camera", hint="for example camera:0")
        source = int(number)
    elif not Path(text).is_file():
        raise InputError(f"{text}: no such file", hint="check the path")
    capture = cv2.VideoCapture(source)
    try:
        if not capture.isOpened():
            live = "check its number, and that it may be used: ls -l /dev/video*"
            raise InputError(
                f"{text}: OpenCV cannot open it",
                hint=live if is_live(text) else "convert it, for example to MP4 with H.264",
            )
        number_of = 0
        while True:
            there, bgr = capture.read()
            if not there:
                break
            number_of += 1
            yield _of_array(f"{text}#{number_of}", cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    if not number_of:
        raise InputError(f"{text}: gave no picture", hint="check the file, or the camera")


def _opencv(text: str) -> Any:
    try:
        import cv2
    except ImportError as err:
        raise MissingBackendError(
            f"{text}: videos and cameras are read by OpenCV, which is not here ({err})",
            hint="pip install opencv-python-headless",
        ) from err
    return cv2
