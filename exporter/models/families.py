"""The residual networks the field knows by name, and the names of all the others."""

from __future__ import annotations

from dataclasses import replace

from core.errors import InputError
from exporter.models.config import DEPTHS, ResNetConfig

__all__ = ["VARIANTS", "name_of", "variant"]

# name → config, with torchvision's names and channels. ResNeXt: Xie et al. 2016 (arXiv
# 1611.05431); Wide ResNet: Zagoruyko & Komodakis 2016 (arXiv 1605.07146).
VARIANTS: dict[str, ResNetConfig] = {
    **{f"resnet{depth}": ResNetConfig(depth) for depth in DEPTHS},
    "resnext50_32x4d": ResNetConfig(50, groups=32, width_per_group=4),
    "resnext101_32x8d": ResNetConfig(101, groups=32, width_per_group=8),
    "wide_resnet50_2": ResNetConfig(50, width_per_group=128),
    "wide_resnet101_2": ResNetConfig(101, width_per_group=128),
}


def variant(name: str, *, classes: int = 1000) -> ResNetConfig:
    """Return the config of a named network.

    Raises:
        InputError: No network has that name.
    """
    if name not in VARIANTS:
        raise InputError(
            f"network {name!r} is unknown", hint=f"choose one of {', '.join(VARIANTS)}"
        )
    return replace(VARIANTS[name], classes=classes)


def name_of(config: ResNetConfig) -> str:
    """Return the name of a config, whatever its classes and outputs.

    A network with a name in :data:`VARIANTS` has that one; any other has the name of its
    depth and, after it, all in which it differs: ``resnet50-v2-groups8-width16``.
    """
    plain = replace(config, classes=1000, features=False)
    if not plain.bottleneck and plain.version == "1":
        plain = replace(plain, version="1.5")  # a basic block has no 1×1 to stride in
    for name, known in VARIANTS.items():
        if plain == known:
            return name
    default = ResNetConfig(plain.depth)
    parts = [f"resnet{plain.depth}"]
    if plain.blocks:
        parts.append("blocks" + ".".join(str(count) for count in plain.blocks))
    if plain.version != default.version:
        parts.append(f"v{plain.version}")
    if plain.shortcut != default.shortcut:
        parts.append({"none": "plain"}.get(plain.shortcut, plain.shortcut))
    for label in ("groups", "width_per_group", "width"):
        if getattr(plain, label) != getattr(default, label):
            parts.append(f"{label.replace('_', '-')}{getattr(plain, label)}")
    return "-".join(parts)
