"""The arithmetic of each kind of layer, in numpy: what the CPU evaluation of a network knows.

:data:`READERS` is the whole list. A kind that is not in it is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deploy.networks.ops.activation import ParametricRelu, read_activation
from deploy.networks.ops.base import Operation
from deploy.networks.ops.cast import Cast
from deploy.networks.ops.convolution import Convolution
from deploy.networks.ops.elementwise import ElementWise, Select
from deploy.networks.ops.gather import Concatenation, Constant, Fill, Gather, Shape
from deploy.networks.ops.matmul import MatrixMultiply
from deploy.networks.ops.normalization import Normalization
from deploy.networks.ops.pooling import read_pooling
from deploy.networks.ops.quantize import Dequantize, Quantize
from deploy.networks.ops.reduce import Reduce, SoftMax
from deploy.networks.ops.resize import Resize
from deploy.networks.ops.scale import Scale
from deploy.networks.ops.shuffle import Identity, Shuffle, Squeeze, Unsqueeze
from deploy.networks.ops.slice import Padding, Slice
from deploy.networks.ops.unary import Unary

__all__ = ["READERS"]

# TensorRT's layer type → the Python class of such a layer, and what reads it.
READERS: Mapping[str, tuple[str, Callable[[Any], Operation]]] = {
    "ACTIVATION": ("IActivationLayer", read_activation),
    "CAST": ("ICastLayer", Cast.read),
    "CONCATENATION": ("IConcatenationLayer", Concatenation.read),
    "CONSTANT": ("IConstantLayer", Constant.read),
    "CONVOLUTION": ("IConvolutionLayer", Convolution.read),
    "DEQUANTIZE": ("IDequantizeLayer", Dequantize.read),
    "ELEMENTWISE": ("IElementWiseLayer", ElementWise.read),
    "FILL": ("IFillLayer", Fill.read),
    "GATHER": ("IGatherLayer", Gather.read),
    "IDENTITY": ("IIdentityLayer", Identity.read),
    "MATRIX_MULTIPLY": ("IMatrixMultiplyLayer", MatrixMultiply.read),
    "NORMALIZATION": ("INormalizationLayer", Normalization.read),
    "PADDING": ("IPaddingLayer", Padding.read),
    "PARAMETRIC_RELU": ("IParametricReLULayer", ParametricRelu.read),
    "POOLING": ("IPoolingLayer", read_pooling),
    "QUANTIZE": ("IQuantizeLayer", Quantize.read),
    "REDUCE": ("IReduceLayer", Reduce.read),
    "RESIZE": ("IResizeLayer", Resize.read),
    "SCALE": ("IScaleLayer", Scale.read),
    "SELECT": ("ISelectLayer", Select.read),
    "SHAPE": ("IShapeLayer", Shape.read),
    "SHUFFLE": ("IShuffleLayer", Shuffle.read),
    "SLICE": ("ISliceLayer", Slice.read),
    "SOFTMAX": ("ISoftMaxLayer", SoftMax.read),
    "SQUEEZE": ("ISqueezeLayer", Squeeze.read),
    "UNARY": ("IUnaryLayer", Unary.read),
    "UNSQUEEZE": ("IUnsqueezeLayer", Unsqueeze.read),
}
