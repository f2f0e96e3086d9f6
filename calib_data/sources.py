"""What a set of images is to the rest of Strata: one small interface, three readers.

``idx.IdxSource``, ``folder.FolderSource`` and ``npz.NpzSource`` implement it;
``open.open_data`` picks one. A reader promises:

- **Order.** Images are numbered 0 … len − 1, in an order that depends on the data alone.
- **Purity.** ``image(i)``, ``tensor(i, spec)`` and ``digest(i)`` depend on image i alone and
  give the same bits at every call, from any thread, in any order.
- **Laziness.** Opening reads names and headers, or one file that fits in memory; an image is
  decoded when it is asked for, and not kept.
- **Errors.** What is wrong with the data is an InputError that names the file or the image.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from calib_data.pixels import Pixels, Tensor
from calib_data.preprocess import PreprocessSpec
from core.errors import InputError

__all__ = ["Labels", "Source", "array_digest", "prepare", "require_labels"]

Labels = npt.NDArray[np.int64]


class Source(Protocol):
    """A numbered set of images, with labels where they are known."""

    @property
    def name(self) -> str:
        """Short name for messages and records; never an absolute path."""

    @property
    def labels(self) -> Labels | None:
        """Class of each image, (N,) int64, ≥ 0; None when unknown."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class, by label; empty when unknown."""

    @property
    def preprocessed(self) -> bool:
        """Whether the data are network inputs already, and :meth:`image` has none to give."""

    def __len__(self) -> int:
        """Return the number of images, at least 1."""

    def where(self, index: int) -> str:
        """Return how a message names one image ("shirts/12.jpg", "test: image 7")."""

    def image(self, index: int) -> Pixels:
        """Decode one image.

        Returns:
            uint8, (H, W, 3), RGB, upright.

        Raises:
            InputError: The image is broken, or the source holds preprocessed tensors.
        """

    def tensor(self, index: int, spec: PreprocessSpec | None) -> Tensor:
        """Return one network input.

        Args:
            index: Which image.
            spec: How to prepare it; ignored when :attr:`preprocessed`, required otherwise.

        Returns:
            float32, (3, h, w).

        Raises:
            InputError: The image is broken, or there is no spec to prepare it by.
        """

    def digest(self, index: int) -> str:
        """Return a SHA-256 of the image's content: 64 hexadecimal digits.

        It does not depend on the image's number or name, so a set of digests identifies a
        set of images in any order. Equal pixels in two kinds of container (a PNG and an
        .npz) have different digests.
        """


def prepare(pixels: Pixels, spec: PreprocessSpec | None, *, where: str) -> Tensor:
    """Apply a spec to one image of a source, naming the image when that cannot be done.

    Raises:
        InputError: No spec, or an image the spec cannot be applied to.
    """
    if spec is None:
        raise InputError(
            f"{where}: nothing says how to prepare images for this model",
            hint="give --preprocess (a preset such as imagenet-v2, or numbers), "
            "or an .npz of preprocessed float32 images",
        )
    try:
        return spec.apply(pixels)
    except InputError as err:
        raise InputError(f"{where}: {err.problem}", hint=err.hint) from err


def require_labels(source: Source) -> Labels:
    """Return the labels of a source, (N,) int64.

    Raises:
        InputError: They are unknown.
    """
    if source.labels is None:
        raise InputError(
            f"{source.name}: its images have no labels, and accuracy needs them",
            hint="sort the images into one folder a class, put the IDX labels file beside the "
            "images file, or add an array `labels` to the .npz",
        )
    return source.labels


def array_digest(array: npt.NDArray[Any]) -> str:
    """Return a SHA-256 of an array's type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
