"""The options that say which images are meant, shared by the commands that run networks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from deploy.images import ImageRequest

__all__ = ["data_options"]


def data_options(
    *,
    images: int | None,
    batch: int,
    data: str = "fashion-mnist:test",
    batch_help: str = "How many run together; the result does not depend on it.",
    noise: bool = False,
) -> Callable[..., Any]:
    """Decorate a command with ``--data --images --batch --seed --preprocess``.

    Args:
        images: Default number of images; None for all.
        batch: Default batch size.
        data: Default images.
        batch_help: What the batch size is to this command.
        noise: Take ``--data random``, with ``--allow-synthetic``.

    Returns:
        A decorator: the command's function takes ``request: ImageRequest``.
    """
    allow = click.option(
        "--allow-synthetic",
        is_flag=True,
        help="Take noise in place of images; every later report says so.",
    )
    options = (
        click.option(
            "--data",
            default=data,
            show_default=True,
            help="fashion-mnist[:train|:test], an image folder, an IDX file or an .npz"
            + ("; or random[:SEED], noise." if noise else "."),
        ),
        click.option(
            "--images",
            type=click.IntRange(min=1),
            default=images,
            show_default=images is not None or "all",
            help="How many of the images.",
        ),
        click.option(
            "--batch",
            type=click.IntRange(min=1),
            default=batch,
            show_default=True,
            help=batch_help,
        ),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Another seed picks other images.",
        ),
        click.option("--preprocess", help="A preset or numbers, in place of what the model says."),
        *((allow,) if noise else ()),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def collect(**given: Any) -> Any:
            names = ("data", "images", "batch", "seed", "preprocess", "allow_synthetic")
            request = ImageRequest(**{name: given.pop(name) for name in names if name in given})
            return function(request=request, **given)

        command: Callable[..., Any] = collect
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
