"""From batch sizes to the shapes of every input in every optimization profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.errors import InputError
from deploy.engines.manifest import ShapeRange
from deploy.engines.target import BuildTarget, OptimizationProfile
from deploy.onnx_files.reader import TensorType

__all__ = ["DEFAULT_PROFILE", "Profiles", "resolve_profiles"]

DEFAULT_PROFILE = OptimizationProfile(1, 8, 32)
Profiles = tuple[Mapping[str, ShapeRange], ...]
_IMAGE_RANK = 4  # (N, C, H, W)


def resolve_profiles(inputs: Sequence[TensorType], target: BuildTarget, where: str) -> Profiles:
    """Return the shapes of every input in every profile of ``target``.

    Args:
        inputs: The graph's inputs; the first dimension is the batch.
        target: Its batch sizes (none for the default, or for the network's own where that
            is fixed) and its image size.
        where: The file, for the error text.

    Raises:
        InputError: A shape that is unknown, or free where nothing was asked; or fixed, where
            something else was asked.
    """
    if not inputs:
        raise InputError(f"{where}: has no inputs", hint="export the network with an input")
    asked = target.profiles or (_own_batch(inputs) or DEFAULT_PROFILE,)
    return tuple(
        {t.name: _range(t, profile, target.size, where) for t in inputs} for profile in asked
    )


def _own_batch(inputs: Sequence[TensorType]) -> OptimizationProfile | None:
    """Return the profile of a network whose batch is fixed."""
    fixed = [t.shape[0] for t in inputs if t.shape and isinstance(t.shape[0], int)]
    return OptimizationProfile(fixed[0], fixed[0], fixed[0]) if fixed else None


def _range(
    tensor: TensorType, profile: OptimizationProfile, size: tuple[int, int] | None, where: str
) -> ShapeRange:
    if not tensor.shape:
        raise InputError(
            f"{where}: the shape of input {tensor.name!r} is unknown",
            hint="export it with a shape, e.g. (N, 3, 224, 224)",
        )
    batch, *rest = tensor.shape
    if isinstance(batch, int) and (profile.min, profile.max) != (batch, batch):
        raise InputError(
            f"{where}: its batch is fixed at {batch}, --batch asks for {profile}",
            hint=f"leave --batch out, say --batch {batch}, or export with a dynamic batch",
        )
    image = _with_size(tensor, rest, size, where)
    return ShapeRange(*((n, *image) for n in (profile.min, profile.opt, profile.max)))


def _with_size(
    tensor: TensorType, rest: list[int | str | None], size: tuple[int, int] | None, where: str
) -> list[int]:
    """Return all dimensions but the batch; ``size`` fills in height and width."""
    if size is not None and len(rest) == _IMAGE_RANK - 1:
        fixed = [d for d in rest[1:] if isinstance(d, int)]
        if fixed and tuple(rest[1:]) != size:
            raise InputError(
                f"{where}: its images are {rest[1]}x{rest[2]}, --size asks for {size[0]}x{size[1]}",
                hint="leave --size out, or export with that --size",
            )
        rest = [rest[0], *size]
    known = [d for d in rest if isinstance(d, int) and d > 0]
    if len(known) < len(rest):
        names = ", ".join(str(d or "?") for d in tensor.shape or ())
        raise InputError(
            f"{where}: input {tensor.name!r} is ({names}); only its batch may be free",
            hint="say --size 1024x2048 for free images, or export them with a fixed size",
        )
    return known
