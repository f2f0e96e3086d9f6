"""Number the classes of a set of images as a model numbers them.

Folders are numbered by the order of their names, a model's classes as it was trained: with the
names of both at hand, only the names say which class is which.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calib_data.pixels import Pixels, Tensor
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Labels, Source
from core.errors import InputError

__all__ = ["RenumberedSource", "doubts", "numbered_as"]


@dataclass(frozen=True, slots=True, eq=False)
class RenumberedSource:
    """Another source's images, under a model's classes."""

    source: Source
    labels: Labels
    class_names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def preprocessed(self) -> bool:
        """Whether the source's images are network inputs already."""
        return self.source.preprocessed

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def where(self, index: int) -> str:
        """Return how a message names one image."""
        return self.source.where(index)

    def image(self, index: int) -> Pixels:
        """Decode one image: uint8, (H, W, 3)."""
        return self.source.image(index)

    def tensor(self, index: int, spec: PreprocessSpec | None) -> Tensor:
        """Return one network input: float32, (3, h, w)."""
        return self.source.tensor(index, spec)

    def digest(self, index: int) -> str:
        """Return the SHA-256 of the image's content."""
        return self.source.digest(index)


def numbered_as(source: Source, models: Mapping[str, Sequence[str]]) -> Source:
    """Return a source whose labels are the numbers that the models give to its classes.

    Names are the same when their letters and digits are: a folder cannot be called
    ``T-shirt/top``. A source or a model without names is taken as it is; so are classes of
    which a model knows none by name, such as ImageNet's ``n01440764``: their order stands.

    Args:
        source: The images.
        models: Model → names of its classes, by number; empty where it does not say.

    Raises:
        InputError: A model knows some of the classes and not others, or has two of one name;
            or two models number them differently.
    """
    if source.labels is None or not source.class_names:
        return source
    numbers = {name: _numbers(source, name, tuple(known)) for name, known in models.items()}
    said = {name: found for name, found in numbers.items() if found is not None}
    if not said:
        return source
    (first, chosen), *others = said.items()
    for name, found in others:
        if found != chosen:
            raise InputError(
                f"{first} and {name} number the classes of {source.name} differently",
                hint="give models of the same classes in the same order",
            )
    labels = np.array(chosen, np.int64)[source.labels]
    labels.flags.writeable = False
    return RenumberedSource(source, labels, tuple(models[first]))


def doubts(source: Source) -> tuple[str, ...]:
    """Return what is in doubt of a source's labels, a sentence each.

    Folders called 0, 1, … 11 are numbered in the order of text, as torchvision numbers them:
    folder 10 is class 2. Who trained another way would read wrong answers for low accuracy.
    """
    names = () if isinstance(source, RenumberedSource) else source.class_names
    if not all(name.isdecimal() for name in names) or sorted(names, key=int) == list(names):
        return ()
    at = next(at for at, name in enumerate(names) if name != sorted(names, key=int)[at])
    return (
        f"{source.name}: its folders are numbered in the order of text, as torchvision does: "
        f"{names[at]}/ is class {at}, and no model names its classes; if yours counts otherwise, "
        "call them 00, 01, …",
    )


def _numbers(source: Source, model: str, known: tuple[str, ...]) -> list[int] | None:
    """Return the model's number of each of the source's classes; None where it knows none."""
    names = source.class_names
    if names == known:
        return list(range(len(names)))
    exact, plain = _places(known), _places([_plain(name) for name in known])
    found = [exact.get(name) or plain.get(_plain(name) or name, []) for name in names]
    if not any(found):
        return None
    for name, places in zip(names, found, strict=True):
        if len(places) == 1:
            continue
        what = "is no class" if not places else f"could be class {places[0]} or {places[1]}"
        raise InputError(
            f"{source.name}: {name!r} {what} of {model}, which knows "
            f"{sum(map(bool, found))} of the {len(names)} classes by name",
            hint="call each class (folder) as the model does: strata inspect shows its labels",
        )
    numbers = [places[0] for places in found]
    if len(set(numbers)) < len(numbers):
        one = next(n for at, n in enumerate(numbers) if n in numbers[:at])
        first, second, *_ = (name for name, n in zip(names, numbers, strict=True) if n == one)
        raise InputError(
            f"{source.name}: {first!r} and {second!r} are both {known[one]!r} of {model}",
            hint="put the images of one class into one folder",
        )
    return numbers


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the numbers of the classes of each name."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        found.setdefault(name, []).append(number)
    return found


def _plain(name: str) -> str:
    """Return the letters and digits of a name."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))
