"""Run the float network over images once, and keep statistics of the planned tensors.

A thread takes an image, runs the network on it and counts its activations, then takes the
next. One image at a time, so that no result can depend on what else is in a batch; and the
images are a set, worked through in the order of their digests. It is also the faster way:
each thread works by itself. Measured on ResNet-50 at 224×224 with 2 CPUs: 1.6 CPU seconds
for 16 images, against 2.0 in batches of 8 with both CPUs on each operator.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.progress import Progress, silent
from exporter.calibration.collector import Collector
from exporter.calibration.counts.tally import Tally
from exporter.calibration.statistics import Statistics
from exporter.calibration.work import (
    CalibrationOptions,
    ImageSet,
    Taps,
    plan_work,
    share_threads,
)
from exporter.session import open_session

__all__ = ["calibrate"]


def calibrate(
    model: Path,
    data: ImageSet,
    tensors: Sequence[str] | Taps,
    options: CalibrationOptions | None = None,
    *,
    progress: Progress = silent,
) -> Statistics:
    """Collect statistics of ``tensors`` over images.

    Args:
        model: ONNX file with one input, (N, C, H, W) float32.
        data: The images; the set of them counts, not their order.
        tensors: Names of float32 tensors whose first axis is the batch; or these, and which of
            their values count.
        options: Where to run, threads, shard, where to carry on from.
        progress: Told of each image, by the thread that ran it; of each part, on a cluster.

    Raises:
        CalibrationError: An activation holds NaN or Inf; the tensor and the image are named.
        GraphError: The model cannot run, or has no such input or tensors.
        InputError: An image or the model cannot be read, or they do not fit together.
        MissingBackendError: A library or the cluster is not here.
        OutputError: The partial file cannot be written.
    """
    options = options or CalibrationOptions()
    taps = tensors if isinstance(tensors, Taps) else Taps(tuple(dict.fromkeys(tensors)))
    if options.cluster is not None:
        from exporter.calibration.ray_cluster import count_on_cluster

        work = plan_work(model, data, taps, options)
        return count_on_cluster(model, data, work, options, progress)
    cpus = options.threads or len(os.sched_getaffinity(0))
    workers, threads = share_threads(cpus, -(-len(data.indices) // options.shard[1]))
    with ThreadPoolExecutor(1, "strata-open") as pool:
        # ONNX Runtime needs no Python to open a network: the work is planned meanwhile.
        opening = pool.submit(open_session, model, optimize=True, threads=threads, outputs=taps.all)
        work = plan_work(model, data, taps, options)
        Tally()  # loads the compiled loops
        session = opening.result()
    collector = Collector(session, data.source, data.preprocess, work.start, workers)
    done = len(work.start.images)
    collector.run(work.left, options.partial, lambda n: progress(done + n, work.total))
    session.close()  # the sums need memory of their own
    return collector.statistics()
