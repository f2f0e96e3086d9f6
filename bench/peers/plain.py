"""The yardstick: a process that only runs the float network over the images.

ONNX Runtime with its default optimizations (none with ``--off``), answers dropped.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import onnxruntime

from bench.peers.feed import BATCH, batches


def main() -> None:
    """Run the network over the images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--off", action="store_true", help="no optimizations")
    parser.add_argument("--batch", type=int, default=BATCH)
    given = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    if given.off:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(given.model, options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name
    for batch in batches(given.images, given.batch):
        session.run(None, {image: batch})


if __name__ == "__main__":
    main()
