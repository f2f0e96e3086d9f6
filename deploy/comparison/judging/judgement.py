"""What is known of a layer that is judged, and what is concluded of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from deploy.comparison.graphs.layer_facts import LayerFacts
from deploy.comparison.graphs.lineage import Source
from deploy.comparison.sums.pair_sums import PairSums
from deploy.comparison.values.measures import Explained
from deploy.comparison.values.verdict import Blame, Verdict

__all__ = ["Found", "Judgement", "Layer", "Look", "Unexplained"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Unexplained:
    """An error of a layer that is larger than was computed.

    Attributes:
        sources: What the layer reads.
        own: The error.
        channels: In which channels it is larger than one channel's may be.
    """

    sources: tuple[Source, ...]
    own: PairSums
    channels: tuple[int, ...]

    @property
    def images(self) -> frozenset[int]:
        """The numbers of the images on which those channels err most, where they are known."""
        if not self.own.by_image:
            return frozenset()
        return frozenset(int(self.own.worst[channel, 1]) for channel in self.channels)


Look = Callable[[Mapping[str, Unexplained]], Mapping[str, Array]]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is concluded of a step.

    Attributes:
        verdict: The layers at fault.
        explained: Tensor → its own error against its expectation.
        precisions: Tensor → what the layer computes in, of the reference and the candidate.
    """

    verdict: Verdict
    explained: Mapping[str, Explained] = field(default_factory=dict)
    precisions: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What is found of a layer.

    Attributes:
        facts: Of the candidate's, without its weights; None when they are not known.
        precisions: What it computes in, in the reference and the candidate; empty if unknown.
        explained: Its own error against what is expected.
        fault: What is wrong with it.
        unexplained: Its own error, where that alone is.
    """

    facts: LayerFacts | None
    precisions: tuple[str, str]
    explained: Explained | None
    fault: Blame | None
    unexplained: Unexplained | None


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What makes a tensor on both sides, and its own error.

    Attributes:
        name: The tensor's.
        theirs: Of the reference; None when it is not known.
        facts: Of the candidate; likewise.
        own: Sums of the own error; None when it was not measured.
        expected: Its mean square to expect, (channels,); None when unknown.
    """

    name: str
    theirs: LayerFacts | None
    facts: LayerFacts | None
    own: PairSums | None = None
    expected: Array | None = None
