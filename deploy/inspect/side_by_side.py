"""Two engines of one network beside each other: which moves more, and in which layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.inspect.engine_facts import EngineFacts
from deploy.inspect.kernels import CODES, WEIGHTED, KernelGraph
from deploy.inspect.weighted import WeightedLayer, weighted_layers

__all__ = ["EngineSum", "LayerPair", "LayerSum", "SideBySide", "side_by_side"]

_ABOUT = 0.05  # differences below this share are not worth a word


@dataclass(frozen=True, slots=True)
class LayerSum:
    """A layer with weights, and what follows it up to the next one.

    Attributes:
        layer: The layer; None for what runs before the first.
        moved_bytes: Activations an image that its kernels read and write; None if unknown.
    """

    layer: WeightedLayer | None
    moved_bytes: float | None


@dataclass(frozen=True, slots=True)
class LayerPair:
    """One layer in both engines; None where an engine lacks it."""

    name: str
    a: LayerSum | None
    b: LayerSum | None


@dataclass(frozen=True, slots=True)
class EngineSum:
    """What an engine comes to; sizes are None when unknown."""

    facts: EngineFacts
    graph: KernelGraph | None
    codes: int  # layers with weights that take INT8 or FP8

    @property
    def moved(self) -> float | None:
        """Bytes of activations an image."""
        return self.graph.moved_bytes_per_image if self.graph else None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Two engines, layer by layer."""

    a: EngineSum
    b: EngineSum
    layers: tuple[LayerPair, ...]

    @property
    def ratio(self) -> float | None:
        """How many times as many bytes ``b`` moves as ``a``; None when unknown."""
        if not self.a.moved or self.b.moved is None:
            return None
        return self.b.moved / self.a.moved

    @property
    def int8_moves_more(self) -> bool | None:
        """Whether the engine with INT8 layers moves more than the one without.

        None when it is unknown, or when both have such layers, or neither.
        """
        if self.ratio is None or bool(self.a.codes) == bool(self.b.codes):
            return None
        ratio = self.ratio if self.b.codes else 1 / self.ratio if self.ratio else 0.0
        return ratio > 1 + _ABOUT


def side_by_side(a: EngineFacts, b: EngineFacts) -> SideBySide:
    """Set two engines beside each other, by the first profile of each."""
    one, other = _layer_sums(a), _layer_sums(b)
    names = dict.fromkeys([*one, *other])
    pairs = tuple(LayerPair(name, one.get(name), other.get(name)) for name in names)
    return SideBySide(_engine_sum(a), _engine_sum(b), pairs)


def _engine_sum(facts: EngineFacts) -> EngineSum:
    graph = next(iter(facts.graphs), None)
    layers = weighted_layers(graph, facts.asked) if graph else ()
    return EngineSum(facts, graph, sum(layer.takes in CODES for layer in layers))


def _layer_sums(facts: EngineFacts) -> Mapping[str, LayerSum]:
    """Return layer → its sum; what runs before the first layer is under an empty name."""
    if not facts.graphs:
        return {}
    graph = facts.graphs[0]
    layers = {layer.name: layer for layer in weighted_layers(graph, facts.asked)}
    sums: dict[str, LayerSum] = {}
    current = ""
    for kernel in graph.kernels:
        if kernel.kind in WEIGHTED:
            own = [name for name in (*kernel.layers, kernel.name) if name in layers]
            current = (own or [kernel.name])[0]
        moved = kernel.moved_bytes
        before = sums.get(current, LayerSum(layers.get(current), 0.0)).moved_bytes
        total = None if moved is None or before is None else before + moved / graph.batch
        sums[current] = LayerSum(layers.get(current), total)
    for name, layer in layers.items():
        sums.setdefault(name, LayerSum(layer, None))
    return sums
