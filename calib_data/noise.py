"""Noise in place of images: to try a pipeline, or to time it, where there are no data.

Each pixel is drawn evenly from 0 … 255. What is calibrated or compared on noise says nothing
of real images, so it is refused unless the user says that noise is meant, and whatever is
made with it says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calib_data.pixels import Pixels, Size, Tensor, centre_crop, normalize
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Labels, Source, array_digest, prepare
from core.errors import InputError

__all__ = ["NoiseSource", "is_synthetic", "open_noise"]

_COUNT = 1 << 16
_SIDE = 224


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSource:
    """A source (see :class:`~calib_data.sources.Source`) of made-up images."""

    seed: int
    labels: Labels | None = None
    class_names: tuple[str, ...] = ()
    preprocessed: bool = False

    @property
    def name(self) -> str:
        """Return what opens the same source again."""
        return f"random:{self.seed}"

    def __len__(self) -> int:
        """Return the number of images."""
        return _COUNT

    def where(self, index: int) -> str:
        """Return how a message names one image."""
        return f"{self.name}: image {index}"

    def image(self, index: int) -> Pixels:
        """Return one image: uint8, (224, 224, 3)."""
        return self._pixels(index, (_SIDE, _SIDE))

    def tensor(self, index: int, spec: PreprocessSpec | None) -> Tensor:
        """Return one network input: float32, (3, h, w).

        It is drawn in the size that resizing would give, for to resample noise is to blur it.

        Raises:
            InputError: No spec.
        """
        if spec is None or spec.resize is None:
            return prepare(self.image(index), spec, where=self.where(index))
        size = spec.resize if isinstance(spec.resize, tuple) else (spec.resize, spec.resize)
        pixels = self._pixels(index, size)
        cropped = pixels if spec.crop is None else centre_crop(pixels, spec.crop)
        return normalize(cropped, spec.mean, spec.std)

    def digest(self, index: int) -> str:
        """Return the SHA-256 of the pixels of :meth:`image`."""
        return array_digest(self.image(index))

    def _pixels(self, index: int, size: Size) -> Pixels:
        """Draw an image of (height, width); numpy keeps the bits of PCG64 in every version."""
        count = size[0] * size[1] * 3
        words = np.random.PCG64([self.seed, index]).random_raw(-(-count // 8))
        return words.astype("<u8").view(np.uint8)[:count].reshape(*size, 3)


def open_noise(text: str, *, allowed: bool) -> NoiseSource:
    """Open ``random`` or ``random:SEED``.

    Raises:
        InputError: The user did not allow it, or the seed is no number of 0 or more.
    """
    seed = text.partition(":")[2] or "0"
    if not (seed.isascii() and seed.isdigit()):
        raise InputError(f"{text}: {seed!r} is no seed", hint="give random, or random:0")
    if not allowed:
        raise InputError(
            f"{text}: noise, not images: what is made with it says nothing of real ones",
            hint="name real images; strata calibrate takes noise with --allow-synthetic",
        )
    return NoiseSource(int(seed))


def is_synthetic(source: Source) -> bool:
    """Tell whether a source makes its images up."""
    return isinstance(source, NoiseSource)
