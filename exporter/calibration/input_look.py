"""A look at the input: is what reached the network what it should be?

Most bad INT8 networks were calibrated with the wrong input: pixels that nobody divided by
255, arrays that nobody normalized, noise in place of images. Each check here is one
function of what calibration noted of its images; it gives one sentence, or none. The limits
leave photographs and drawings alone, and catch what no set of images does by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calib_data.preprocess import PreprocessSpec
from exporter.calibration.image_record import Origin
from exporter.calibration.statistics import Statistics

__all__ = ["FEWEST", "InputLook", "look_at_input"]

# Of n images that come in no order, the largest is the last with probability 1/n: so an unseen
# image exceeds the largest value seen of a tensor with probability 1/(n + 1), 1 % at 99.
FEWEST = 100
_COPIES = 0.01  # share of copies that a set of real images stays below
_ROUGH = 0.5  # the median image; Fashion-MNIST 0.1, noise 1.0, resized noise 0.6 and more
_OUTSIDE = 0.25  # of [0, 1]; resampling in float may overshoot by a fifth
_DARK = 1.5 / 255
_BLUE, _SIGMAS, _ENOUGH = 0.05, 4.0, 30
_FAR_MEAN, _FAR_STD = 3.0, 5.0

_Floats = npt.NDArray[np.float64]
_Where = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class InputLook:
    """What was seen of the input.

    Attributes:
        mean: Of each channel as the network gets it, over all images.
        std: The same.
        synthetic: The name of the source that made the images up; empty for real ones.
        warnings: One sentence each: what is wrong, and what to do.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    synthetic: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """The images as arrays; (N, C) each, real units of the network's input."""

    origin: Origin
    spec: PreprocessSpec | None
    digests: list[str]
    where: _Where
    mean: _Floats
    low: _Floats
    high: _Floats
    roughness: _Floats
    total_mean: _Floats  # (C,)
    total_std: _Floats

    def pixels(self, values: _Floats) -> _Floats | None:
        """Undo the normalization: pixels in [0, 1]; None when it is not known."""
        if self.spec is None or values.shape[-1] != len(self.spec.mean):
            return None
        undone: _Floats = values * np.array(self.spec.std) + np.array(self.spec.mean)
        return undone


def look_at_input(
    statistics: Statistics, *, part: bool = False, where: _Where | None = None
) -> InputLook:
    """Judge the images of a calibration.

    Args:
        statistics: What calibration counted.
        part: They are one of several shards, and may be few.
        where: Digest → name of an image; a part of the digest serves by itself.
    """
    records = [image for image in statistics.images if image.low]
    origin = statistics.origin
    if not records:  # nothing was noted of them
        return InputLook(synthetic=origin.synthetic)
    mean, std = (np.array([getattr(r, name) for r in records]) for name in ("mean", "std"))
    total_mean = mean.mean(axis=0)
    total_std = np.sqrt((np.square(std) + np.square(mean - total_mean)).mean(axis=0))
    text = statistics.preprocess or origin.wanted
    seen = _Seen(
        origin,
        PreprocessSpec.from_json(text, where="statistics") if text else None,
        [record.digest for record in records],
        where or (lambda digest: f"sha256 {digest[:12]}…"),
        mean,
        np.array([record.low for record in records]),
        np.array([record.high for record in records]),
        np.array([record.roughness for record in records]),
        total_mean,
        total_std,
    )
    checks = (_noise_by_name,) if origin.synthetic else _CHECKS
    found = [check(seen) for check in (*checks, *(() if part else (_few,)))]
    return InputLook(
        tuple(total_mean.tolist()),
        tuple(total_std.tolist()),
        origin.synthetic,
        tuple(text for text in found if text),
    )


def _few(seen: _Seen) -> str:
    count = len(set(seen.digests))
    if count >= FEWEST:
        return ""
    return (
        f"{count} different image{'s are' if count > 1 else ' is'} few: of each tensor, one unseen "
        f"image in {count + 1} will exceed the largest value seen; calibrate with {FEWEST} or more"
    )


def _copies(seen: _Seen) -> str:
    counts = Counter(seen.digests)
    copies = len(seen.digests) - len(counts)
    if copies <= _COPIES * len(seen.digests):
        return ""
    digest, most = counts.most_common(1)[0]
    return (
        f"{copies} of {len(seen.digests)} images are copies of others (one is there {most} times: "
        f"{seen.where(digest)}) and count again; remove them from the data"
    )


def _one_colour(seen: _Seen) -> str:
    flat = np.flatnonzero((seen.high == seen.low).all(axis=1))
    if not flat.size:
        return ""
    return (
        f"{flat.size} of {len(seen.digests)} images "
        f"{'are' if flat.size > 1 else 'is'} of one colour (such as "
        f"{seen.where(seen.digests[flat[0]])}) and say nothing of the activations; "
        "remove them from the data"
    )


def _noise_by_name(seen: _Seen) -> str:
    return (
        f"calibrated with {seen.origin.synthetic}, which is noise: the scales suit no real image, "
        "and every report will say so; calibrate with images of the kind the network will see"
    )


def _noise(seen: _Seen) -> str:
    rough = float(np.median(seen.roughness))
    if rough <= _ROUGH:
        return ""
    return (
        f"neighbouring pixels are hardly alike (correlation {1 - rough:.2f}; in images about 0.9), "
        "as in noise or in arrays of another memory layout; calibrate with real images"
    )


def _units_of_spec(seen: _Seen) -> str:
    if seen.spec is None or max(*seen.spec.mean, *seen.spec.std) <= 1.0:
        return ""
    return (
        f"the preprocessing has mean {_list(seen.spec.mean)} and std {_list(seen.spec.std)}, as "
        "for pixels of 0…255, but means them for pixels in [0, 1]; divide them by 255"
    )


def _dark(seen: _Seen) -> str:
    high = seen.pixels(seen.high)
    if high is None or high.max() > _DARK or (seen.high == seen.low).all():
        return ""
    return (
        f"no pixel is brighter than {max(255 * high.max(), 0):.1f} of 255, as when pixels are "
        "divided by 255 twice, or saved as bytes after it; divide once, as the last step"
    )


def _not_prepared(seen: _Seen) -> str:
    """Judge prepared inputs against the spec they should have been prepared by."""
    low, high = float(seen.low.min()), float(seen.high.max())
    pixels = seen.pixels(np.stack([seen.low.min(axis=0), seen.high.max(axis=0)]))
    if seen.origin.kind != "inputs" or seen.spec is None or pixels is None:
        return ""
    spec = seen.spec
    least = min(-m / s for m, s in zip(spec.mean, spec.std, strict=True))
    most = max((1 - m) / s for m, s in zip(spec.mean, spec.std, strict=True))
    what = ""
    if low >= 0 and 0.9 < high <= 1 and least < -0.25:
        what = "as pixels in [0, 1] have that were not normalized"
    elif -1 <= low < -0.99 and 0.99 < high <= 1 and (least, most) != (-1.0, 1.0):
        what = "as pixels have that were scaled to [−1, 1]"
    elif pixels.min() < -_OUTSIDE or pixels.max() > 1 + _OUTSIDE:
        bytes_ = low >= 0 and high <= 255
        what = (
            "as pixels of 0…255 have that were not divided by 255 and normalized"
            if bytes_
            else "so they were prepared otherwise (is the division by 255 missing?)"
        )
    if not what:
        return ""
    return (
        f"the inputs lie in [{low:.4g}, {high:.4g}] where the network's preprocessing gives "
        f"[{least:.3g}, {most:.3g}], {what}; prepare them as it says: (pixel / 255 − mean) / std "
        f"with mean {_list(spec.mean)} and std {_list(spec.std)}"
    )


def _unknown(seen: _Seen) -> str:
    """Judge prepared inputs of which nobody says how they should be."""
    if seen.spec is not None or seen.origin.kind != "inputs":
        return ""
    far = np.abs(seen.total_mean).max() > _FAR_MEAN or seen.total_std.max() > _FAR_STD
    if not far and seen.low.min() < 0:
        return ""
    what = "far from that" if far else "none of them below 0"
    return (
        f"the inputs have mean {_list(seen.total_mean)} and std {_list(seen.total_std)}, "
        f"{what}, and normalized ones have about 0 and 1; normalize them, or say how the network "
        "wants them with --preprocess"
    )


def _blue(seen: _Seen) -> str:
    """Judge the order of channels, of arrays that somebody else made."""
    pixels = seen.pixels(seen.mean)
    if seen.origin.kind == "files" or pixels is None or len(pixels) < _ENOUGH:
        return ""
    excess = pixels[:, 2] - pixels[:, 0]
    if excess.mean() <= max(_BLUE, _SIGMAS * excess.std() / np.sqrt(len(excess))):
        return ""
    return (
        f"the last channel is brighter than the first by {excess.mean():.2f} of 1 on average, as "
        "in few sets of photographs; if the arrays hold B, G, R (OpenCV's order), turn the "
        "channels round"
    )


def _list(values: tuple[float, ...] | _Floats) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


_CHECKS: tuple[Callable[[_Seen], str], ...] = (
    _units_of_spec,
    _not_prepared,
    _unknown,
    _dark,
    _blue,
    _noise,
    _one_colour,
    _copies,
)
