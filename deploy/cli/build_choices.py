"""The options of ``strata build`` that say how TensorRT builds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deploy.engines.build_options import HARDWARE, BuildOptions

__all__ = ["build_choices"]

_MB = 1 << 20
_NAMED_ALIKE = (
    *("timing_cache", "version_compatible", "hardware"),
    *("strip_weights", "refit", "debug_tensors"),
)
_OPTIONS = (
    click.option("--level", type=int, help="TensorRT's builder optimization level, 0 to 5."),
    click.option(
        "--workspace", type=click.IntRange(min=1), metavar="MB", help="Most scratch memory."
    ),
    click.option(
        "--timing-cache",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read how long kernels took before, and keep what is timed now.  [tensorrt]",
    ),
    click.option(
        "--version-compatible",
        is_flag=True,
        help="A plan that newer versions load too; larger, perhaps slower.  [tensorrt]",
    ),
    click.option(
        "--hardware",
        type=click.Choice(HARDWARE),
        help="A plan for other GPUs too; perhaps slower.  [tensorrt; rtx has --target]",
    ),
    click.option(
        "--strip-weights",
        is_flag=True,
        help="A plan without weights: they come from the ONNX file beside it when it is loaded.",
    ),
    click.option(
        "--refit",
        is_flag=True,
        help="A plan that strata refit gives other weights; not for INT8.",
    ),
    click.option(
        "--debug-tensors",
        is_flag=True,
        help="A plan to compare, not to ship: strata compare sees the tensors within it.",
    ),
)


def build_choices(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command: its function takes ``options: BuildOptions``."""

    @functools.wraps(function)
    def collect(level: int | None, workspace: int | None, **given: Any) -> Any:
        names = (
            "timing_cache",
            "version_compatible",
            "hardware",
            "strip_weights",
            "refit",
            "debug_tensors",
        )
        options = BuildOptions(
            optimization_level=level,
            workspace_bytes=workspace * _MB if workspace else None,
            **{name: given.pop(name) for name in names},
        )
        return function(options=options, **given)

    command: Callable[..., Any] = collect
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
