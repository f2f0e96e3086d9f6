"""NNCF's ``quantize``, on OpenVINO (OUT.xml) or on ONNX (OUT.onnx).

Symmetric activations (its preset "performance"), as it quantizes them: tensors that are
never negative get uint8, and NNCF 3.4 has no target whose activations are signed.
The size of a batch matters: NNCF averages the largest values of the batches. Two are better
than one or eight, on ONNX and on OpenVINO, for both networks tried.
``--int8`` writes such codes as int8 over twice the step, as zero point 0 and INT8 need it:
a rewrite of this benchmark's, not of NNCF's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import nncf  # type: ignore[import-not-found]
import numpy as np
import onnx
from nncf.quantization.advanced_parameters import (  # type: ignore[import-not-found]
    AdvancedQuantizationParameters,
    OverflowFix,
)
from nncf.quantization.range_estimator import (  # type: ignore[import-not-found]
    RangeEstimatorParametersSet,
)

from bench.peers.feed import batches, count

_CODES = {np.uint8: 255, np.int8: 127}  # the code of the largest value


def main() -> None:
    """Quantize."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--range", choices=["MEAN_MINMAX", "MINMAX", "HISTOGRAM"])
    parser.add_argument("--full-weights", action="store_true", help="no 7-bit weights for old CPUs")
    parser.add_argument("--int8", action="store_true", help="uint8 codes as int8 (ONNX only)")
    given = parser.parse_args()
    if given.output.suffix == ".xml":
        _on_openvino(given)
    else:
        _on_onnx(given)


def _on_openvino(given: argparse.Namespace) -> None:
    import openvino  # type: ignore[import-not-found]

    model = openvino.convert_model(given.model)
    quantized = nncf.quantize(model, nncf.Dataset(_Batches(given)), **_options(given))
    openvino.save_model(quantized, given.output, compress_to_fp16=False)


def _on_onnx(given: argparse.Namespace) -> None:
    model = onnx.load(given.model)
    image = model.graph.input[0].name
    data = nncf.Dataset(_Batches(given), lambda batch: {image: batch})
    quantized = nncf.quantize(model, data, **_options(given))
    if given.int8:
        _as_int8(quantized)
    onnx.save(quantized, given.output)


class _Batches:
    """The images, to be gone through as often as NNCF likes."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._path, self._size = given.images, given.batch

    def __iter__(self) -> Any:
        return batches(self._path, self._size)

    def __len__(self) -> int:
        length: int = count(self._path) // self._size
        return length


def _options(given: argparse.Namespace) -> dict[str, Any]:
    advanced = AdvancedQuantizationParameters()
    if given.full_weights:
        advanced.overflow_fix = OverflowFix.DISABLE
    if given.range:
        estimator = getattr(RangeEstimatorParametersSet, given.range)
        advanced.activations_range_estimator_params = estimator
    return {
        "subset_size": count(given.images) // given.batch,
        "preset": nncf.QuantizationPreset.PERFORMANCE,
        "advanced_parameters": advanced,
    }


def _as_int8(model: onnx.ModelProto) -> None:
    """Write uint8 codes of zero point 0 as int8 codes over a longer step, in place."""
    graph = model.graph
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    scales, zeros = set(), set()
    for node in graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            zero = arrays[node.input[2]]
            if zero.data_type == onnx.TensorProto.UINT8:
                scales.add(node.input[1])
                zeros.add(node.input[2])
    longer = np.float32(_CODES[np.uint8] / _CODES[np.int8])
    for name in scales:
        scale = onnx.numpy_helper.to_array(arrays[name]) * longer
        arrays[name].CopyFrom(onnx.numpy_helper.from_array(scale, name))
    for name in zeros:
        zero_point = onnx.numpy_helper.to_array(arrays[name]).astype(np.int8)
        arrays[name].CopyFrom(onnx.numpy_helper.from_array(zero_point, name))
    del graph.value_info[:]  # it says uint8


if __name__ == "__main__":
    main()
