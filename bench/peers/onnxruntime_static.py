"""ONNX Runtime's ``quantize_static``: Q/DQ, S8S8, symmetric, weights per channel.

Set as TensorRT wants it: what layers read is quantized, not what they give, and no bias.

Percentile and entropy are asked of ``create_calibrator``, one batch at a time, and handed
over as a calibration cache: ``quantize_static`` by itself keeps every activation of every
image until the end, and cannot set the bins of entropy, whose default (as many bins as
quantized bins) leaves one threshold to choose from, the largest value.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnxruntime.quantization as ort
from onnxruntime.quantization.calibrate import create_calibrator, save_tensors_data

from bench.peers.feed import Images, batches

_LAYERS = ["Conv", "Gemm", "MatMul"]
# What is quantized is the next layer's input, behind the activation.
_NO_OUTPUT = [*_LAYERS, "Add", "Relu", "MaxPool", "GlobalAveragePool", "Flatten"]


class _Reader(ort.CalibrationDataReader):  # type: ignore[misc]
    """Batches of images by their input's name."""

    def __init__(self, stream: Any, image: str) -> None:
        self._stream = stream
        self._image = image

    def get_next(self) -> dict[str, Images] | None:
        """Return the next batch; None behind the last."""
        batch = next(self._stream, None)
        return None if batch is None else {self._image: batch}


def main() -> None:
    """Quantize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--method", choices=["MinMax", "Percentile", "Entropy"], required=True)
    parser.add_argument("--percentile", type=float, default=99.999)
    parser.add_argument("--bins", type=int, default=2048)
    parser.add_argument("--levels", type=int, default=128, help="quantized bins of entropy")
    parser.add_argument("--at-once", action="store_true", help="histograms at the end only")
    parser.add_argument("--add", action="store_true", help="quantize what Add reads, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _quantize(given, Path(folder))


def _quantize(given: argparse.Namespace, folder: Path) -> None:
    """Calibrate, then write the quantized model."""
    operators = [*_LAYERS, "Add"] if given.add else _LAYERS
    method = ort.CalibrationMethod[given.method]
    cache = folder / "ranges.json"
    calibrator = create_calibrator(
        given.model,
        operators,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=method,
        extra_options={
            "symmetric": given.method == "Percentile",  # histograms of magnitudes
            "percentile": given.percentile,
            "num_bins": given.bins,
            "num_quantized_bins": given.levels,
        },
    )
    image = onnx.load(given.model, load_external_data=False).graph.input[0].name
    stream = batches(given.images)
    for part in [stream] if given.at_once else (iter([batch]) for batch in stream):
        calibrator.collect_data(_Reader(part, image))
    save_tensors_data(calibrator.compute_data(), cache)
    del calibrator
    ort.quantize_static(
        given.model,
        given.output,
        op_types_to_quantize=operators,
        per_channel=True,
        calibrate_method=method,
        calibration_cache_path=cache,
        extra_options={
            "ActivationSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": _NO_OUTPUT,
        },
    )


if __name__ == "__main__":
    main()
