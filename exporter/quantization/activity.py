"""What the tensors of a graph held, as the graph is going to hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.artifacts import sha256_file
from core.errors import InputError
from exporter.calibration.counts.histogram import Histogram
from exporter.calibration.statistics import Statistics, read_statistics
from exporter.quantization.channel_steps import Steps, factors_of

__all__ = ["Activity"]


@dataclass(frozen=True, slots=True, eq=False)
class Activity:
    """Statistics, with the channels of some tensors divided by factors.

    Attributes:
        where: The file they are from.
        sha256: Of that file.
        statistics: What was seen.
        histograms: Tensor → all values, divided.
        equalized: Tensor → k of each channel, divided by 2^(k/8), (C,) int64; empty for the
            tensors as they were seen.
    """

    where: str
    sha256: str
    statistics: Statistics
    histograms: Mapping[str, Histogram]
    equalized: Mapping[str, Steps] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Activity:
        """Read ``statistics.npz``.

        Raises:
            InputError: It cannot be read, or is no such file.
        """
        found = read_statistics(path)
        return cls(str(path), sha256_file(path), found, found.tensors)

    def divided(self, steps: Mapping[str, Steps]) -> Activity:
        """Return the activity of the graph with those channels divided.

        Args:
            steps: Tensor → k of each channel, as
                :func:`exporter.quantization.equalize.choose_steps` gives it; tensors that nothing
                was seen of are of no account.

        Raises:
            InputError: The file says nothing of channels, or of others.
        """
        histograms = dict(self.statistics.tensors)
        for name in histograms.keys() & steps.keys():
            counts = self.statistics.channels.get(name)
            if counts is None or len(counts) != len(steps[name]):
                raise InputError(
                    f"{self.where}: no statistics of the channels of {name!r}",
                    hint="collect the statistics again with strata calibrate, or "
                    "quantize with --equalize 0",
                )
            histograms[name] = counts.divided(factors_of(steps[name]))
        return replace(self, histograms=histograms, equalized=dict(steps))
