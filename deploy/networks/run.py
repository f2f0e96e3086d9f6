"""A network that runs on the CPU: layers in order, tensors that live as long as they are read.

float16 tensors are held in float32 arrays (:mod:`deploy.networks.ops.base`); whoever gives
or takes a tensor sees its own type.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import GraphError, InputError
from deploy.networks.ops.base import Array
from deploy.networks.ops.half import round_half
from deploy.networks.ops.threads import ONE_BLAS_THREAD
from deploy.networks.reader import Layer, TensorFacts

__all__ = ["Network", "Tensors", "apply_layer"]

Tensors = dict[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network and its weights, ready to be evaluated at any batch size.

    Attributes:
        name: Of its file, for error texts.
        flavour: Whose parser built it: name and version.
        inputs: What must be fed.
        outputs: Names of its outputs.
        layers: In an order that can run; without those that depend on no input.
        constants: What those made, by name; float16 values are held in float32.
        known: Names of the tensors of the ONNX graph; all others are TensorRT's own.
        facts: Each tensor by name.
    """

    name: str
    flavour: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    constants: Mapping[str, Array]
    known: frozenset[str]
    facts: Mapping[str, TensorFacts]

    def run(self, feeds: Tensors) -> Tensors:
        """Evaluate the network.

        Args:
            feeds: One array for each of ``inputs``, by name.

        Returns:
            One array for each of ``outputs``, by name.

        Raises:
            InputError: An input is missing, unknown, or of another type or shape.
            GraphError: A layer cannot be computed; it is named.
        """
        self._check(feeds)
        return self.evaluate(feeds, self.outputs)

    def evaluate(self, given: Mapping[str, Array], wanted: Collection[str]) -> Tensors:
        """Evaluate those layers that lead from some tensors to others.

        With a layer's inputs given, that is this layer alone: its own error, free of what
        the layers before it did.

        Args:
            given: Arrays by tensor name, in place of what the network makes there.
            wanted: Names of the tensors to return.

        Raises:
            InputError: A tensor is not known, or would need an input that is not given.
            GraphError: A layer cannot be computed; it is named.
        """
        live = dict(self.constants) | self._held(given)
        steps = self._steps(live, wanted)
        results = {name: self._handed(name, live[name]) for name in wanted if name in live}
        for layer in self._walk(live, steps, shared=frozenset(wanted)):
            name = layer.output.name
            if name in wanted:
                results[name] = self._handed(name, live[name])
        return {name: results[name] for name in wanted}

    def stream(
        self,
        feeds: Tensors,
        *,
        names: Collection[str] | None = None,
        replace: Mapping[str, Array] | None = None,
    ) -> Iterator[tuple[str, Array]]:
        """Evaluate the network and hand out its tensors as they are made.

        A tensor is let go of once no later layer reads it; keep those that you need.

        Args:
            feeds: One array for each of ``inputs``, by name.
            names: Which tensors to hand out; None for all that ONNX knows and that depend
                on an input.
            replace: Arrays by tensor name: once a layer has made such a tensor, and it was
                handed out, the layers behind read this array in its place. With another
                network's tensors, each layer is so evaluated on that network's values.

        Yields:
            Name and array of each tensor, in the order of evaluation.

        Raises:
            InputError: An input is missing or unknown; a type or shape does not fit.
            GraphError: A layer cannot be computed; it is named.
        """
        self._check(feeds)
        wanted = self.known if names is None else frozenset(names)
        return self._stream(dict(self.constants) | self._held(feeds), wanted, replace or {})

    def _stream(
        self, live: Tensors, wanted: frozenset[str], replace: Mapping[str, Array]
    ) -> Iterator[tuple[str, Array]]:
        for layer in self._walk(live, self.layers, shared=wanted):
            name = layer.output.name
            if name in wanted:
                yield name, self._handed(name, live[name])
            if name in live and (other := replace.get(name)) is not None:
                live |= self._held({name: other})

    def _walk(
        self, live: Tensors, steps: Sequence[Layer], *, shared: frozenset[str]
    ) -> Iterator[Layer]:
        """Run ``steps``; after each, its output is in ``live``, and what is dead is not.

        Args:
            live: Tensors by name, as they are held; changed on the way.
            steps: The layers.
            shared: Tensors that others hold too, so that nothing may be written over them.
        """
        last = {name: at for at, layer in enumerate(steps) for name in layer.inputs}
        owned: set[str] = set()
        for at, layer in enumerate(steps):
            name, operation = layer.output.name, layer.operation
            dead = [i for i in dict.fromkeys(layer.inputs) if i is not None and last[i] == at]
            spare = next((live[i] for i in dead if i in owned), None)
            live[name] = apply_layer(self.name, layer, live, spare if operation.in_place else None)
            del spare
            if operation.fresh and name not in shared:
                owned.add(name)
            elif not operation.fresh:  # its memory may be that of its inputs
                owned.difference_update(i for i in layer.inputs if i is not None)
            for i in dead:
                del live[i]
            yield layer
            if name not in last:
                live.pop(name, None)

    def _steps(self, live: Mapping[str, Array], wanted: Collection[str]) -> list[Layer]:
        """Return the layers that make ``wanted`` of what is there."""
        makers = {layer.output.name: layer for layer in self.layers}
        needed: set[str] = set()
        todo = [name for name in wanted if name not in live]
        while todo:
            name = todo.pop()
            if name in needed:
                continue
            if name not in makers:
                raise InputError(
                    f"{self.name}: tensor {name!r} is neither given nor made by a layer",
                    hint=f"its inputs are {', '.join(i.name for i in self.inputs)}",
                )
            needed.add(name)
            todo += [i for i in makers[name].inputs if i is not None and i not in live]
        return [layer for layer in self.layers if layer.output.name in needed]

    def _check(self, feeds: Tensors) -> None:
        names = [fact.name for fact in self.inputs]
        if feeds.keys() != set(names):
            raise InputError(
                f"{self.name}: fed {sorted(feeds)}, but its inputs are {sorted(names)}",
                hint="feed one array for each input",
            )

    def _held(self, given: Mapping[str, Array]) -> Tensors:
        """Return arrays as the evaluation holds them, once they fit."""
        held: Tensors = {}
        for name, array in given.items():
            fact = self.facts.get(name)
            if fact is None:
                raise InputError(
                    f"{self.name}: it has no tensor {name!r}", hint="names are those of ONNX"
                )
            real = array.dtype.kind == fact.dtype.kind == "f"
            if not _fits(array.shape, fact.shape) or not (real or array.dtype == fact.dtype):
                raise InputError(
                    f"{self.name}: tensor {name!r} is {fact.dtype} {_text(fact.shape)}, "
                    f"given {array.dtype} {_text(array.shape)}",
                    hint="check the preprocessing: crop size, layout N×3×H×W, float32",
                )
            half = fact.dtype == np.float16
            with np.errstate(over="ignore"):
                rounded = array.astype(fact.dtype, copy=False)
            held[name] = rounded.astype(np.float32) if half else rounded
        return held

    def _handed(self, name: str, array: Array) -> Array:
        """Return a held array in the tensor's own type."""
        with np.errstate(over="ignore"):
            return array.astype(self.facts[name].dtype, copy=False)


def apply_layer(name: str, layer: Layer, live: Mapping[str, Array], out: Array | None) -> Array:
    """Compute one layer, and round to its type."""
    operation, fact = layer.operation, layer.output
    inputs = [None if i is None else live[i] for i in layer.inputs]
    try:
        with np.errstate(all="ignore"), ONE_BLAS_THREAD:
            value = operation(inputs, out)
            if fact.dtype == np.float16 and not operation.exact:
                value = round_half(value, value if operation.fresh else None)
    except (ValueError, IndexError) as err:
        raise GraphError(
            f"{name}: {layer}: {err}", hint="check the sizes of what is fed, and this node"
        ) from err
    held = np.float32 if fact.dtype == np.float16 else fact.dtype
    if value.dtype != held or not _fits(value.shape, fact.shape):
        raise GraphError(
            f"{name}: {layer} gave {value.dtype} {_text(value.shape)}, where TensorRT "
            f"declares {fact.dtype} {_text(fact.shape)}",
            hint="this is a fault of the evaluation; report it with the ONNX file",
        )
    return value


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    """Tell whether a shape is as declared, −1 standing for any length."""
    return len(shape) == len(declared) and all(
        want in (-1, size) for size, want in zip(shape, declared, strict=True)
    )


def _text(shape: Sequence[int]) -> str:
    """Write a shape as N×3×224×224."""
    return "×".join("N" if size < 0 else str(size) for size in shape) or "scalar"
