"""The options that say which layers are quantized, shared by calibrate and quantize."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.errors import InputError

if TYPE_CHECKING:
    import onnx

    from exporter.quantization.plan import QuantizationPlan

__all__ = ["LayerRequest", "layer_options"]


@dataclass(frozen=True, slots=True)
class LayerRequest:
    """What a user said of the layers.

    Attributes:
        include: Patterns of layers; all if empty.
        exclude: Patterns of layers and sums to leave in float.
        plan: An edited plan in place of the rules.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    plan: Path | None = None

    def plan_for(self, model: onnx.ModelProto) -> QuantizationPlan:
        """Return the plan that was given, or that of the rules.

        Raises:
            GraphError: Nothing to quantize, or it is quantized already.
            InputError: The plan cannot be read, or a pattern matches nothing.
        """
        from exporter.quantization.placement import plan_quantization
        from exporter.quantization.plan import QuantizationPlan, Selection

        if self.plan is None:
            return plan_quantization(model, Selection(self.include, self.exclude))
        if self.include or self.exclude:
            raise InputError(
                "--plan together with --include or --exclude",
                hint="edit the plan, or let the rules make it",
            )
        return QuantizationPlan.read(self.plan)


def layer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with ``--include --exclude --plan``: ``layers: LayerRequest``."""

    @functools.wraps(function)
    def collect(**given: Any) -> Any:
        names = ("include", "exclude", "plan")
        layers = LayerRequest(**{name: given.pop(name) for name in names})
        return function(layers=layers, **given)

    options = (
        click.option(
            "--include",
            multiple=True,
            metavar="LAYER",
            help="Quantize only layers of this name, glob or operator; may be repeated.",
        ),
        click.option(
            "--exclude",
            multiple=True,
            metavar="LAYER",
            help="Leave layers of this name, glob or operator in float; may be repeated.",
        ),
        click.option(
            "--plan",
            type=click.Path(path_type=Path),
            help="An edited plan (strata quantize --print-plan) in place of the rules.",
        ),
    )
    command: Callable[..., Any] = collect
    for option in reversed(options):
        command = option(command)
    return command
