"""Run the float network over images once, and keep statistics of the planned tensors.

A thread takes an image, runs the network on it and counts its activations as they are made, then
takes the next: some images at once where they are small, and nothing in the network can make
the result depend on that. The images are a set, worked through in the order of their digests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from core.artifacts import sha256_file
from core.progress import Progress, silent
from exporter.calibration.collector import Collector
from exporter.calibration.counts.tally import load_loops
from exporter.calibration.network import Network
from exporter.calibration.statistics import Statistics
from exporter.calibration.work import (
    CalibrationOptions,
    ImageSet,
    Taps,
    count_workers,
    plan_work,
)

__all__ = ["calibrate"]


def calibrate(
    model: Path,
    data: ImageSet,
    tensors: Sequence[str] | Taps,
    options: CalibrationOptions | None = None,
    *,
    sha256: str = "",
    progress: Progress = silent,
) -> Statistics:
    """Collect statistics of ``tensors`` over images.

    Args:
        model: ONNX file with one input, (N, C, H, W) float32.
        data: The images; the set of them counts, not their order.
        tensors: Names of float32 tensors whose first axis is the batch; or these, and which of
            their values count.
        options: Where to run, threads, shard, where to carry on from.
        sha256: Of the model's file, where it is known already.
        progress: Told of each image, by the thread that ran it; of each part, on a cluster.

    Raises:
        CalibrationError: An activation holds NaN or Inf; the tensor and the image are named.
        GraphError: The model cannot run, or has no such input or tensors.
        InputError: An image or the model cannot be read, or they do not fit together.
        MissingBackendError: A library or the cluster is not here.
        OutputError: The partial file, or a temporary copy of the model, cannot be written.
    """
    options = options or CalibrationOptions()
    taps = tensors if isinstance(tensors, Taps) else Taps(tuple(dict.fromkeys(tensors)))
    sha256 = sha256 or sha256_file(model)
    if options.cluster is not None:
        from exporter.calibration.ray_cluster import count_on_cluster

        work = plan_work(sha256, data, taps, options)
        return count_on_cluster(model, data, work, options, progress)
    cpus = options.threads or len(os.sched_getaffinity(0))
    workers = count_workers(cpus, -(-len(data.indices) // options.shard[1]))
    with ThreadPoolExecutor(1, "strata-open") as pool:
        # ONNX Runtime needs no Python to open a network: all else is made ready meanwhile.
        opening = pool.submit(Network, model, taps)
        work = plan_work(sha256, data, taps, options)
        load_loops()
        network = opening.result()
    done = len(work.start.images)
    with closing(network):  # the sums need memory of their own
        collector = Collector(network, data.source, data.preprocess, work.start, workers)
        collector.run(work.left, options.partial, lambda n: progress(done + n, work.total))
    return collector.statistics()
