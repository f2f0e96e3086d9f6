"""The options that spread the images of a run over processes or machines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

__all__ = ["ray_option", "shard_option"]


def shard_option(then: str) -> Callable[..., Any]:
    """Decorate a command with ``--shard I/N``; it receives ``shard: tuple[int, int]``.

    Args:
        then: How the parts are put together, for the help.
    """
    return click.option(
        "--shard",
        callback=_shard,
        metavar="I/N",
        help=f"Only the I-th of N parts of the images; {then}.",
    )


def ray_option(models: str) -> Callable[..., Any]:
    """Decorate a command with ``--ray [ADDRESS]``; it receives ``address: str | None``.

    Args:
        models: What the command calls its models.
    """
    return click.option(
        "--ray",
        "address",
        is_flag=False,
        flag_value="",
        callback=_address,
        metavar="[ADDRESS]",
        help="Spread the images over a Ray cluster; without ADDRESS, that of RAY_ADDRESS, one that "
        f"runs here, or one started here. Every node needs strata[export,ray] and reads {models} "
        "and DATA by the same paths.",
    )


def _shard(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int]:
    """Read 1/4."""
    if value is None:
        return 1, 1
    found = re.fullmatch(r"(\d+)/(\d+)", value)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise click.BadParameter(f"{value!r} is not i/n with i from 1 to n, such as 1/4")
    return int(found[1]), int(found[2])


def _address(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Refuse the model that was taken for an address."""
    if value is not None and (value.endswith((".onnx", ".npz")) or Path(value).is_file()):
        raise click.BadParameter(f"{value!r} is a file, no address; write --ray behind MODEL")
    return value
