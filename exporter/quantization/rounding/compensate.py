"""Codes of all weights of a graph, rounded together by what its layers read on some images.

The graph is the float one: what rounding adds to activations does not depend on the weights.
Samples of what each layer reads are kept, and its weights are rounded by
:mod:`exporter.quantization.rounding.nearest_plane`. Where not all samples have room at once, the
network is run again for the layers that are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from core.int8 import Int8Array
from core.progress import Progress, silent
from exporter.graph_file import to_proto
from exporter.quantization.plan import QuantizationPlan, Weight
from exporter.quantization.rounding.nearest_plane import round_together
from exporter.quantization.rounding.reads import Reader
from exporter.quantization.rounding.scales import weight_codes
from exporter.session import Session, Tensors, open_session

__all__ = ["compensated_codes"]

_SAMPLES = 1024  # outputs of each channel, over all images
_MOST_BYTES = 256 << 20  # of samples at once

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    """A weight, and the layers that multiply something by it."""

    weight: Weight
    values: _Floats
    readers: tuple[Reader, ...]

    @property
    def bytes(self) -> int:
        """Of its samples."""
        return 4 * _SAMPLES * len(self.readers) * (self.values.size // len(self._rows[0]))

    @property
    def _rows(self) -> npt.NDArray[np.generic]:
        return self.readers[0].rows(self.values)

    def codes(self, reads: _Floats, *, half: bool, centred: bool) -> Int8Array:
        """Return its codes by what was read, (P, groups, K)."""
        scale, _ = weight_codes(self.weight, self.values, half=half)
        shape = [1] * self.values.ndim
        shape[self.weight.axis] = -1
        rows = self.readers[0].rows(self.values / scale.reshape(shape))
        rounded = [
            round_together(group, reads[:, at], centred=centred) for at, group in enumerate(rows)
        ]
        return self.readers[0].like(np.stack(rounded), self.values.shape)


def compensated_codes(
    model: ir.Model,
    plan: QuantizationPlan,
    images: Sequence[Tensors],
    *,
    half: bool = False,
    biases: bool = False,
    progress: Progress = silent,
) -> dict[str, Int8Array]:
    """Return the codes of a float graph's weights.

    Args:
        model: The graph whose weights become codes: equalized, if it is to be; untouched.
        plan: Which weights those are.
        images: Feeds of one image each; a graph of a fixed batch gets each as often as it takes.
        half: The scales will be float16.
        biases: Biases will be corrected, of all layers but those that read the images.
        progress: Told of each layer that is done.

    Returns:
        Weight → int8 of its shape. Left out is a weight that layers read in different ways, and
        one of a Conv with implicit padding.

    Raises:
        GraphError: The network cannot run, or a weight is not finite.
        InputError: The images do not fit it.
    """
    layers = list(_layers(model.graph, plan))
    inputs = {str(value.name) for value in model.graph.inputs}
    codes: dict[str, Int8Array] = {}
    for together in _that_fit(layers):
        tensors = sorted({reader.tensor for layer in together for reader in layer.readers})
        session = open_session(
            to_proto(model), optimize=True, outputs=[name for name in tensors if name not in inputs]
        )
        count = -(-_SAMPLES // max(len(images), 1))
        seen: list[list[_Floats]] = [[] for _ in together]
        for number, feed in enumerate(images):
            held = feed | session(_filled(feed, session))
            for layer, samples in zip(together, seen, strict=True):
                samples += [r.sample(held[r.tensor], count, number) for r in layer.readers]
        session.close()
        for layer, samples in zip(together, seen, strict=True):
            centred = biases and not any(reader.tensor in inputs for reader in layer.readers)
            codes[layer.weight.tensor] = layer.codes(
                np.concatenate(samples), half=half, centred=centred
            )
            samples.clear()
            progress(len(codes), len(layers), layer.weight.tensor)
    return codes


def _filled(feed: Tensors, session: Session) -> Tensors:
    """Repeat an image where the network takes a fixed batch."""
    batch = session.inputs[0].shape[0]
    if not isinstance(batch, int):
        return feed
    return {name: np.repeat(image, batch, axis=0) for name, image in feed.items()}


def _layers(graph: ir.Graph, plan: QuantizationPlan) -> Iterator[_Layer]:
    """Yield the weights that can be rounded together."""
    nodes = {str(node.name): node for node in graph}
    for weight in plan.weights:
        value = graph.initializers.get(weight.tensor)
        readers = [Reader.of(nodes[name]) for name in weight.readers if name in nodes]
        known = [reader for reader in readers if reader is not None]
        if value is None or value.const_value is None or not known or len(known) < len(readers):
            continue
        if len({(r.groups, r.transposed) for r in known}) == 1:
            yield _Layer(weight, value.const_value.numpy(), tuple(known))


def _that_fit(layers: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """Yield the layers in order, as many together as have room for their samples."""
    together: list[_Layer] = []
    room = _MOST_BYTES
    for layer in layers:
        if together and layer.bytes > room:
            yield together
            together, room = [], _MOST_BYTES
        together.append(layer)
        room -= layer.bytes
    if together:
        yield together
