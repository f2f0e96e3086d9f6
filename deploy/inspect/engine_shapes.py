"""Shapes of an engine's inputs, for one of its profiles and one batch."""

from __future__ import annotations

from core.errors import InputError
from deploy.engines.manifest import Manifest
from deploy.inspect.plan_graph import PlanGraph
from deploy.inspect.shape_program import input_name

__all__ = ["Shapes", "bare_shapes", "profile_shapes"]

Shapes = dict[str, tuple[int, ...]]


def profile_shapes(manifest: Manifest | None, index: int, batch: int | None) -> Shapes:
    """Return the shapes of the inputs in one profile; none where the manifest has none.

    Args:
        manifest: Of the engine, if it has one.
        index: Of the profile.
        batch: Images; None for what the profile is tuned for.

    Raises:
        InputError: The profile does not take ``batch``.
    """
    if manifest is None or index >= len(manifest.profiles):
        return {}
    shapes = {}
    for name, given in manifest.profiles[index].items():
        least, most = (*given.min, 1)[0], (*given.max, 1)[0]
        if batch is not None and not least <= batch <= most:
            raise InputError(
                f"--batch {batch}: profile {index} takes {least} to {most} images",
                hint="leave --batch out for what each profile is tuned for",
            )
        shapes[name] = given.opt if batch is None else (batch, *given.opt[1:])
    return shapes


def bare_shapes(graph: PlanGraph, batch: int | None) -> Shapes:
    """Return the shapes of inputs whose batch alone is free, where no manifest tells more."""
    shapes = {}
    for name in graph.inputs:
        tensor = graph.tensors.get(name)
        rest = [dim for dim in tensor.dims[1:] if isinstance(dim, int)] if tensor else []
        if tensor is not None and rest and len(rest) == len(tensor.dims) - 1:
            shapes[input_name(name)] = (batch or 1, *rest)
    return shapes
