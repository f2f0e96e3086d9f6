"""The images that a comparison or an evaluation runs on, and what it records of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calib_data.batches import batches, data_digest, sample
from calib_data.classes import numbered_as
from calib_data.noise import is_synthetic
from calib_data.npz import NpzSource
from calib_data.open import open_data
from calib_data.preprocess import PreprocessSpec, preprocess_option
from calib_data.sources import Source
from core.errors import InputError
from exporter.calibration.image_record import Origin

__all__ = ["DataRecord", "ImageRequest", "Images", "open_images"]


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What a user asked for: which images, how many, in batches of how many, prepared how.

    Attributes:
        data: As :func:`~calib_data.open.open_data` reads it.
        images: How many, picked by ``seed``; None for all, in their own order.
        preprocess: As :func:`~calib_data.preprocess.preprocess_option` reads it; None for
            what the model says.
        allow_synthetic: Noise may be named in place of images.
    """

    data: str = "fashion-mnist:test"
    images: int | None = None
    batch: int = 8
    seed: int = 0
    preprocess: str | None = None
    allow_synthetic: bool = False


@dataclass(frozen=True, slots=True)
class DataRecord:
    """What an artifact says of the images it was made with.

    Attributes:
        name: The source's name.
        sha256: Digest of the images' contents, whatever their order.
        images: How many.
        preprocess: The spec as JSON; None for data that came prepared.
    """

    name: str
    sha256: str
    images: int
    preprocess: str | None

    @property
    def synthetic(self) -> bool:
        """Whether the images were made up: their source is called ``random:SEED``."""
        return self.name.startswith("random:")

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "images": self.images,
            "preprocess": self.preprocess,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataRecord:
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError or OverflowError: It is something else.
        """
        name, sha256, spec = (value[key] for key in ("name", "sha256", "preprocess"))
        if not (isinstance(name, str) and isinstance(sha256, str) and isinstance(spec, str | None)):
            raise TypeError("name, sha256 and preprocess are not texts")
        return cls(name, sha256, int(value["images"]), spec)


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Some images of a source, how they are prepared, and how many travel together."""

    source: Source
    indices: npt.NDArray[np.int64]
    spec: PreprocessSpec | None
    batch: int

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield the indices, (n,), and the network inputs, float32 (n, 3, h, w), of a batch."""
        return batches(self.source, self.indices, self.spec, batch=self.batch)

    def where(self, digest: str) -> str:
        """Return how a message names the image of a digest; reads images until it is found."""
        found = (int(i) for i in self.indices if self.source.digest(int(i)) == digest)
        index = next(found, None)
        return f"sha256 {digest[:12]}…" if index is None else self.source.where(index)

    def origin(self, wanted: PreprocessSpec | None) -> Origin:
        """Return what statistics should say of where these images come from.

        Args:
            wanted: How the network wants images that come prepared, if anybody said.
        """
        source, kind = self.source, "files"
        if isinstance(source, NpzSource):
            kind = "inputs" if source.preprocessed else "pixels"
        return Origin(
            kind,
            wanted.to_json() if wanted and source.preprocessed else "",
            source.name if is_synthetic(source) else "",
        )

    def record(self) -> DataRecord:
        """Return what an artifact should say of these images."""
        return DataRecord(
            name=self.source.name,
            sha256=data_digest(self.source, self.indices),
            images=len(self),
            preprocess=self.spec.to_json() if self.spec else None,
        )


def open_images(
    request: ImageRequest,
    specs: Mapping[str, PreprocessSpec | None],
    classes: Mapping[str, Sequence[str]] | None = None,
) -> Images:
    """Open the images that were asked for, to be prepared as the models want it.

    Args:
        request: What the user asked for.
        specs: Model → the spec it carries, if any.
        classes: Model → the names of its classes, which number the labels; None where no
            answer is held against a label.

    Raises:
        InputError: No such data, too few images, two models that want their images
            prepared differently, or nothing that says how to prepare them; classes that
            are not the models' (see :func:`~calib_data.classes.numbered_as`).
    """
    source = open_data(request.data, synthetic=request.allow_synthetic)
    source = numbered_as(source, classes or {})
    indices = sample(source, request.images, seed=request.seed)
    if source.preprocessed:
        spec = None
    elif request.preprocess is not None:
        spec = preprocess_option(request.preprocess)
    else:
        spec = _common_spec(specs)
    return Images(source, indices, spec, request.batch)


def _common_spec(specs: Mapping[str, PreprocessSpec | None]) -> PreprocessSpec:
    """Return the one spec that all models which carry any agree on."""
    known = {name: spec for name, spec in specs.items() if spec is not None}
    if not known:
        raise InputError(
            f"{', '.join(specs)}: nothing says how to prepare images for this model",
            hint="give --preprocess (a preset such as imagenet-v2, or numbers), "
            "or an .npz of preprocessed float32 images",
        )
    (first, spec), *others = known.items()
    for name, other in others:
        if other != spec:
            raise InputError(
                f"{first} and {name} want their images prepared differently "
                f"({spec.to_json()} and {other.to_json()})",
                hint="export both from the same weights, or settle it with --preprocess",
            )
    return spec
