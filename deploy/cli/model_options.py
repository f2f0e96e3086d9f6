"""The options that say which network is meant, shared by the commands that build one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from exporter.models.config import DEPTHS, SHORTCUTS, VERSIONS, ModelOptions

__all__ = ["model_options"]

_POSITIVE = click.IntRange(min=1)
_FEATURES = click.option(
    "--features",
    is_flag=True,
    default=None,
    help="Return the stages C2 … C5, the backbone of detectors, in place of logits.",
)
_CLASSES = click.option("--classes", type=_POSITIVE, help="Outputs of the final layer.")
_NETWORK = (
    click.option(
        "--depth",
        type=click.Choice([str(depth) for depth in DEPTHS]),
        callback=lambda _ctx, _param, value: None if value is None else int(value),
        help="Weighted layers, as in the paper: 18, 34 (basic), 50, 101, 152 (bottleneck).",
    ),
    click.option(
        "--version",
        type=click.Choice(VERSIONS),
        help="1: stride in the 1×1; 1.5: in the 3×3 (torchvision's); 2: pre-activation.",
    ),
    click.option(
        "--shortcut",
        type=click.Choice(SHORTCUTS),
        help="The paper's options A, B, C; none is the plain network.",
    ),
    click.option("--groups", type=_POSITIVE, help="Groups of the 3×3 (ResNeXt: 32)."),
    click.option(
        "--width-per-group",
        type=_POSITIVE,
        help="Channels of a group at width 64 (ResNeXt-50: 4; Wide-ResNet-50-2: 128).",
    ),
    click.option("--width", type=_POSITIVE, help="Channels of the stem; the rest scales."),
)


def model_options(*, outputs: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with the network's options; it receives them as ``model``.

    Args:
        outputs: Also offer ``--classes`` and ``--features``.

    Returns:
        A decorator: the command's function takes ``model: ModelOptions``, in which None
        means that the user did not say.
    """
    options = (*_NETWORK, _CLASSES, _FEATURES) if outputs else _NETWORK
    names = {field.name for field in fields(ModelOptions)}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def collect(**given: Any) -> Any:
            said = {name: given.pop(name) for name in tuple(given) if name in names}
            return function(model=ModelOptions(**said), **given)

        command: Callable[..., Any] = collect
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
