"""torchvision's official ImageNet weights: which files exist, and how they want their images.

Source: torchvision 0.29, models/resnet.py (file names, transforms, acc@1 on ImageNet-1K).
The eight digits in a file's name begin its SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass

from calib_data.preprocess import PRESETS, PreprocessSpec
from core.errors import InputError
from exporter.models.config import ResNetConfig
from exporter.models.families import name_of

__all__ = ["Official", "official", "official_by_file"]


@dataclass(frozen=True, slots=True)
class Official:
    """One file of weights.

    Attributes:
        file: Its name on the server.
        top1: Published top-1 accuracy on ImageNet-1K, 0 to 1.
        recipe: ``"v1"`` or ``"v2"``, torchvision's old and new training recipe.
    """

    file: str
    top1: float
    recipe: str

    @property
    def preprocess(self) -> PreprocessSpec:
        """How its images were prepared for the published accuracy."""
        return PRESETS[f"imagenet-{self.recipe}"]

    @property
    def sha256_begins(self) -> str:
        """The first eight digits of the file's SHA-256."""
        return self.file.removesuffix(".pth").rpartition("-")[2]

    @property
    def facts(self) -> dict[str, str]:
        """What a checkpoint's origin says of it."""
        return {
            "file": self.file,
            "top1": f"{self.top1:.4f}",
            "top1_of": "ImageNet-1K validation, as published",
        }


# network → its files by recipe, the older one first
_FILES: dict[str, tuple[Official, ...]] = {
    "resnet18": (Official("resnet18-f37072fd.pth", 0.69758, "v1"),),
    "resnet34": (Official("resnet34-b627a593.pth", 0.73314, "v1"),),
    "resnet50": (
        Official("resnet50-0676ba61.pth", 0.76130, "v1"),
        Official("resnet50-11ad3fa6.pth", 0.80858, "v2"),
    ),
    "resnet101": (
        Official("resnet101-63fe2227.pth", 0.77374, "v1"),
        Official("resnet101-cd907fc2.pth", 0.81886, "v2"),
    ),
    "resnet152": (
        Official("resnet152-394f9c45.pth", 0.78312, "v1"),
        Official("resnet152-f82ba261.pth", 0.82284, "v2"),
    ),
    "resnext50_32x4d": (
        Official("resnext50_32x4d-7cdf4587.pth", 0.77618, "v1"),
        Official("resnext50_32x4d-1a0047aa.pth", 0.81198, "v2"),
    ),
    "resnext101_32x8d": (
        Official("resnext101_32x8d-8ba56ff5.pth", 0.79312, "v1"),
        Official("resnext101_32x8d-110c445d.pth", 0.82834, "v2"),
    ),
    "wide_resnet50_2": (
        Official("wide_resnet50_2-95faca4d.pth", 0.78468, "v1"),
        Official("wide_resnet50_2-9ba9bcbe.pth", 0.81602, "v2"),
    ),
    "wide_resnet101_2": (
        Official("wide_resnet101_2-32ee1156.pth", 0.78848, "v1"),
        Official("wide_resnet101_2-d733dc28.pth", 0.82510, "v2"),
    ),
}


def official(config: ResNetConfig, weights: str) -> Official:
    """Return the file for a network.

    Args:
        config: The network.
        weights: ``"imagenet"`` (the newest recipe there is) or ``"imagenet-v1"``.

    Raises:
        InputError: No such file: another network, or not 1000 classes.
    """
    files = _FILES.get(name_of(config))
    if files is None:
        raise InputError(
            f"{weights}: there are no official weights for {name_of(config)}",
            hint=f"they exist for {', '.join(_FILES)}",
        )
    if config.classes != 1000:
        raise InputError(
            f"{weights}: its weights have 1000 classes, not {config.classes}",
            hint="leave --classes out",
        )
    return files[0] if weights == "imagenet-v1" else files[-1]


def official_by_file(name: str) -> Official | None:
    """Return what is known of an official file's name; None for any other name."""
    return next((known for files in _FILES.values() for known in files if known.file == name), None)
