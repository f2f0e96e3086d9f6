"""Whether the memory that calibration takes grows with the number of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.images import prepared, write_images
from bench.measure import Limits, measure
from bench.rounds import strata_steps
from bench.tools import Job
from deploy.images import ImageRequest

__all__ = ["flat_lines"]


def flat_lines(
    job: Job, data: str, counts: Sequence[int], limits: Limits, say: Callable[[str], None]
) -> list[str]:
    """Calibrate with Strata over so many images each; say its peaks, and their ratios.

    Args:
        job: Whose model; its own images are left alone.
        data: Where images come from.
        counts: How many images, each; none for no lines.
        limits: For each process.
        say: Told what runs.
    """
    peaks: list[int] = []
    lines: list[str] = []
    for count in counts:
        say(f"memory: {count} images")
        path = job.folder / f"images-{count}.npz"
        write_images(prepared(job.model, ImageRequest(data, count)), path)
        sized = replace(job, images=path, count=count, held_out=0)
        used = measure(strata_steps(sized)["calibrate"], job.folder / "flat.log", limits)
        path.unlink()
        if used.problem:
            return [*lines, f"memory at {count} images: failed: {used.problem}"]
        peaks.append(used.peak_bytes)
        text = f"memory at {count} images: {used.peak_bytes / 2**20:.0f} MiB"
        lines.append(text + (f", {used.peak_bytes / peaks[0]:.3f} ×" if len(peaks) > 1 else ""))
    return lines
