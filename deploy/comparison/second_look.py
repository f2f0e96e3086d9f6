"""Look again at layers whose own error is larger than rounding was thought to explain.

What rounding explains is computed as if the rounding errors of a layer's inputs were independent
(:mod:`deploy.comparison.judging.explain`). Where they are not, and above all where an outlier is
clipped, errors go together through a layer and come out several times as large. So before a sound
layer is blamed for it, the *reference's* layer is fed what the candidate's codes stand for: what
comes out of it then is off by what these codes do, and by nothing else. A layer that computes
something else than the reference's is not excused by that.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.holding import whole_of
from deploy.comparison.graphs.lineage import Source
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.graphs.wiring import passed_by
from deploy.comparison.judging.judgement import Unexplained
from deploy.comparison.sides.side import Side
from deploy.comparison.sums.pair_sums import PairSums
from deploy.images import Images
from exporter.session import Tensors

__all__ = ["Layers", "Seen", "look_again", "noise_of_codes"]

Array = npt.NDArray[Any]
Layers = Mapping[str, Sequence[Source]]  # tensor → what the layer that makes it reads
_Noise = dict[str, tuple[Array, int]]  # Σ error² of each channel, and of how many values

_LOOKED_AT = 4  # images, and the worst of each layer and channel
_AT_ONCE = 2  # parts of them, a thread each


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """How a comparison ran.

    Attributes:
        ends: The tensor that each piece of the models ends with; None for the last.
        images: What the models ran over; not all, if they were stopped.
        together: How many images ran at a time: memory is theirs.
    """

    ends: Sequence[str | None]
    images: Images
    together: int


def look_again(
    reference: Side,
    quantizers: Mapping[str, Quantizer],
    layers: Mapping[str, Unexplained],
    seen: Seen,
) -> dict[str, Array]:
    """Return what a candidate's codes do to layers of the reference, over all images.

    It is measured on the images that the layers err on most: outliers are clipped there.

    Args:
        reference: The model whose layers they are.
        quantizers: Of the candidate, by tensor.
        layers: Which layers, and how the candidate's err.
        seen: What that was measured on.

    Returns:
        Tensor → mean square of the error in each channel, (channels,), as much more or less than
        on the images looked at as the candidate's error is.
    """
    by_image = [layer.own for layer in layers.values() if layer.own.by_image]
    count = max((len(own.noises) for own in by_image), default=len(seen.images.indices))
    noises = np.zeros((len(layers), count))  # 0 on images that a stopped run kept from a layer
    for row, layer in zip(noises, layers.values(), strict=True):
        if layer.own.by_image:
            row[: len(layer.own.noises)] = layer.own.noises
    shares = noises / np.maximum(noises.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    whole = isinstance(reference.image.shape[0], int)  # it takes no single images
    most = np.argsort(-shares.sum(axis=0), kind="stable")
    few = {*most[:_LOOKED_AT].tolist(), *np.argmax(noises, axis=1).tolist()}
    few = few.union(*(layer.images for layer in layers.values()))
    chosen = np.sort(most) if whole else np.array(sorted(few))
    some = replace(seen.images, indices=seen.images.indices[chosen])
    read = {name: layer.sources for name, layer in layers.items()}
    found = noise_of_codes(reference, quantizers, read, seen.ends, some, together=seen.together)
    return {name: noise * _usual(layers[name].own, chosen) for name, noise in found.items()}


def _usual(own: PairSums, chosen: npt.NDArray[np.int64]) -> float:
    """Return the mean noise of all images over that of the chosen ones; 1 if it is not known."""
    if not own.by_image:
        return 1.0
    noises = own.noises
    there = chosen[chosen < len(noises)]
    return float(np.mean(noises) / np.mean(np.asarray(noises)[there]))


def noise_of_codes(
    reference: Side,
    quantizers: Mapping[str, Quantizer],
    layers: Layers,
    ends: Sequence[str | None],
    images: Images,
    *,
    together: int,
) -> dict[str, Array]:
    """Return what a candidate's codes do to layers of the reference.

    Args:
        reference: The model whose layers they are.
        quantizers: Of the candidate, by tensor.
        layers: Which layers, and what the candidate's read as codes.
        ends: The tensor that each piece of the models ends with; None for the last.
        images: The images to look at.
        together: How many at a time: memory is theirs.

    Returns:
        Tensor → mean square of the error in each channel, (channels,).
    """
    # As the comparison itself ran: a graph of one batch size is not held twice.
    whole = reference.alone or isinstance(reference.image.shape[0], int)
    at_once = 1 if whole else _AT_ONCE
    look = _Look(reference, quantizers, layers, ends, at_once)
    noise: dict[str, Array] = {}
    elements: dict[str, int] = {}
    with ThreadPoolExecutor(at_once, "strata-look") as pool:
        for _, batch in images.batches():
            starts = range(0, len(batch), together)
            feeds = (reference.feed(batch[at : at + together]) for at in starts)
            # In the order of the images, however fast they run: sums have the same bits.
            for found in pool.map(look.take, feeds):
                for name, (squares, count) in found.items():
                    noise[name] = noise.get(name, 0.0) + squares
                    elements[name] = elements.get(name, 0) + count
    return {name: sums / elements[name] for name, sums in noise.items()}


class _Look:
    def __init__(
        self,
        reference: Side,
        quantizers: Mapping[str, Quantizer],
        layers: Layers,
        ends: Sequence[str | None],
        at_once: int,
    ) -> None:
        makers = reference.wiring.makers
        self._layers = {name: sources for name, sources in layers.items() if name in makers}
        self._quantizers, self._ends, self._holdings = quantizers, ends, reference.holdings
        self._summed = set(passed_by(reference.wiring, reference.outputs).values())
        read = {s.tensor for sources in self._layers.values() for s in sources}
        cuts = [end for end in ends if end is not None]
        self._walker = reference.open(cuts, {*self._layers, *read}, at_once)
        edges = [*(makers[cut].position for cut in cuts), sys.maxsize]
        self._of_piece: list[list[str]] = [[] for _ in edges]
        for name in self._layers:
            position = makers[name].position
            piece = next(at for at, edge in enumerate(edges) if position <= edge)
            self._of_piece[piece].append(name)

    def take(self, feeds: Tensors) -> _Noise:
        """Return what codes do to each layer on some images."""
        found: _Noise = {}
        entry = held = feeds
        last = max((at for at, names in enumerate(self._of_piece) if names), default=-1)
        for at in range(last + 1):
            free, held = self._walker.free(at, held)
            made = {name: whole_of(tensor) for name, tensor in free.items()}
            if self._of_piece[at]:
                found |= self._feed(at, entry, made)
            end = self._ends[at]
            entry = {end: made[end]} if end is not None and end in made else {}
        return found

    def _feed(self, at: int, entry: Tensors, made: Tensors) -> _Noise:
        """Feed a piece's layers with codes; return what that does to them."""
        names = self._of_piece[at]
        coded = {s.tensor for n in names for s in self._layers[n] if s.quantized}
        given = {name: array for name, array in made.items() if name in coded}
        given |= {s.tensor: made[s.tensor] for n in names for s in self._layers[n]
                  if s.tensor in made} | {n: made[n] for n in names}  # fmt: skip
        rounded = {n: self._rounded(n, a) if n in coded else a for n, a in given.items()}
        begin = {n: self._rounded(n, a) if n in coded else a for n, a in entry.items()}
        fed = self._walker.fed(at, self._inside(begin), self._inside(rounded))
        return {
            name: self._noise(name, whole_of(tensor), made[name])
            for name, tensor in fed.items()
            if name in self._layers
        }

    def _inside(self, tensors: Tensors) -> Tensors:
        """Return tensors as the reference holds them."""
        held = self._holdings
        return {n: held[n].inside(a) if n in held else a for n, a in tensors.items()}

    def _rounded(self, name: str, array: Array) -> Array:
        quantizer = self._quantizers.get(name)
        return array if quantizer is None else quantizer.rounded(array)

    def _noise(self, name: str, array: Array, reference: Array) -> tuple[Array, int]:
        """Return the sum of the squares of the error of each channel, and of how many values."""
        if name in self._summed:
            array, reference = (np.maximum(a, np.zeros((), a.dtype)) for a in (array, reference))
        error = array.astype(np.float64) - reference
        along = tuple(axis for axis in range(error.ndim) if axis != 1)
        squares = np.atleast_1d(np.square(error).sum(axis=along if error.ndim > 1 else None))
        return squares, error.size // len(squares)
