"""ModelOpt's ONNX post-training quantization, INT8, what stays float in FP32.

It feeds a model with a free batch size one image at a time, so it is given a copy with a
batch of 8 (making the copy is part of what is timed).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization.calibrate import CalibrationDataReader

from bench.peers.feed import BATCH, Images, batches


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches of images, as ModelOpt asks for them: also the first, and from the start."""

    def __init__(self, path: Path, image: str) -> None:
        self._path = path
        self._image = image
        self.rewind()

    def rewind(self) -> None:
        """Start at the first batch again."""
        self._stream = batches(self._path)

    def get_first(self) -> dict[str, Images]:
        """Return the first batch, without moving on."""
        return {self._image: next(batches(self._path))}

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
    parser.add_argument("--method", choices=["max", "entropy"], required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _quantize(given, Path(folder) / "fixed.onnx")


def _quantize(given: argparse.Namespace, fixed: Path) -> None:
    """Fix the batch size, then quantize."""
    # Of its own environment, and slow to import: not before the arguments are right.
    import modelopt.onnx.quantization as modelopt  # type: ignore[import-not-found]

    image = _fix_batch(given.model, fixed)
    options: dict[str, Any] = {"high_precision_dtype": "fp32", "log_level": "WARNING"}
    modelopt.quantize(
        str(fixed),
        quantize_mode="int8",
        calibration_data_reader=_Reader(given.images, image),
        calibration_method=given.method,
        calibration_eps=["cpu"],
        output_path=str(given.output),
        **options,
    )


def _fix_batch(source: Path, target: Path) -> str:
    """Write a copy of a model that takes batches of 8; return the name of its input."""
    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = BATCH
    del model.graph.value_info[:]  # shapes of another batch
    onnx.save(model, target)
    name: str = model.graph.input[0].name
    return name


if __name__ == "__main__":
    main()
