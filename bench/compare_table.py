"""What ``bench.compare`` measures, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Limits, Usage
from bench.peers.feed import BATCH
from bench.rounds import Cost, cost

__all__ = ["Course", "Found", "table"]

# What is promised: time and peak over running both once, and Polygraphy's over Strata's.
_TIME, _PEAK, _PEER_MEMORY = 2.5, 1.5, 5.0


@dataclass(frozen=True, slots=True)
class Course:
    """What is measured.

    Attributes:
        models: The reference and the candidate, ONNX.
        folder: Where images and logs go.
        images: How many are compared, whole batches of ``batch``.
        batch: How many at a time.
        rounds: How often; 0 compares once, with nothing to hold it against.
        peer: Whether Polygraphy compares a batch, too.
        limits: For each process.
    """

    models: tuple[Path, Path]
    folder: Path
    images: int
    batch: int = BATCH
    rounds: int = 3
    peer: bool = True
    limits: Limits = field(default_factory=Limits)

    @property
    def all_images(self) -> Path:
        """The file with all images."""
        return self.folder / "images.npz"

    @property
    def one_batch(self) -> Path:
        """The file with those that Polygraphy is given, too."""
        return self.folder / "batch.npz"


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        plain: Running both once: sums of their times and the larger peak, round by round.
        compared: Strata, round by round.
        batch: Strata and Polygraphy on one batch; None when that was not asked for.
    """

    plain: tuple[Usage, ...]
    compared: tuple[Usage, ...]
    batch: tuple[Usage, Usage] | None = None

    @property
    def ratios(self) -> Cost | None:
        """Strata over running both once; None where that was not run."""
        return cost(self.compared, self.plain) if self.plain else None


def table(found: Found, course: Course) -> str:
    """Return what was found as text."""
    lines = [_line("", "CPU s", "wall s", "peak MiB", "")]
    for plain in found.plain[-1:]:
        lines.append(_usage("both once in ONNX Runtime", plain))
    lines.append(_usage(f"strata compare, {course.images} images", found.compared[-1]))
    if (ratios := found.ratios) is not None:
        for name, ratio, most in (
            ("  CPU time over both", ratios.cpu, _TIME),
            ("  wall time over both", ratios.wall, _TIME),
            ("  peak over the larger", ratios.peak, _PEAK),
        ):
            spread = f"{ratio.median:.2f} ({ratio.low:.2f}…{ratio.high:.2f}), to be ≤ {most:g}"
            lines.append(f"{name:<34}{spread}")
    if found.batch:
        ours, theirs = found.batch
        lines += [
            _usage(f"strata compare, {course.batch} images", ours),
            _usage(f"polygraphy, {course.batch} images", theirs),
            f"{'  CPU time of it over ours':<34}{theirs.cpu_s / ours.cpu_s:.1f}, to be > 1",
            f"{'  peak of it over ours':<34}{theirs.peak_bytes / ours.peak_bytes:.1f}, "
            f"to be ≥ {_PEER_MEMORY:g}",
        ]
    return "\n".join(lines)


def _usage(name: str, used: Usage) -> str:
    peak = f"{used.peak_bytes / 2**20:.0f}"
    return _line(name, f"{used.cpu_s:.1f}", f"{used.wall_s:.1f}", peak, "")


def _line(name: str, *cells: str) -> str:
    return (f"{name:<34}" + "".join(f"{cell:>10}" for cell in cells)).rstrip()
