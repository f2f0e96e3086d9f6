"""What a residual network is made of: one frozen value, checked when it is made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from core.errors import InputError

__all__ = ["BLOCKS", "DEPTHS", "SHORTCUTS", "VERSIONS", "ModelOptions", "ResNetConfig"]

# Blocks per stage, conv2_x … conv5_x. Source: He et al. 2015, "Deep Residual Learning for
# Image Recognition" (arXiv 1512.03385), table 1.
BLOCKS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
DEPTHS = tuple(BLOCKS)
VERSIONS = ("1", "1.5", "2")
SHORTCUTS = ("identity-pad", "projection", "projection-all", "none")


@dataclass(frozen=True, slots=True)
class ResNetConfig:
    """A residual network.

    Attributes:
        depth: 18 or 34 (basic blocks), 50, 101 or 152 (bottleneck blocks).
        version: Where a bottleneck strides: ``"1"`` in its first 1×1 (the paper),
            ``"1.5"`` in its 3×3 (torchvision); ``"2"`` is pre-activation (He et al.
            2016, arXiv 1603.05027), which strides in the 3×3.
        shortcut: The paper's options: ``"identity-pad"`` (A), ``"projection"`` (B: where
            shapes disagree), ``"projection-all"`` (C), or ``"none"``, the plain network.
        groups: Groups of the bottleneck's 3×3 (ResNeXt: 32).
        width_per_group: Channels of one group, counted at ``width`` 64 (ResNeXt-50: 4;
            Wide-ResNet-50-2: 128).
        width: Channels of the stem; every other layer scales with it.
        classes: Outputs of the final layer.
        features: Return the four stages (C2 … C5) in place of the logits.
        blocks: Blocks per stage in place of the table's; ``depth`` then only names the
            kind of block. Empty: the table's.

    Raises:
        InputError: A value is not one of the above.
    """

    depth: int = 50
    version: str = "1.5"
    shortcut: str = "projection"
    groups: int = 1
    width_per_group: int = 64
    width: int = 64
    classes: int = 1000
    features: bool = False
    blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no network can be built from, naming the valid choices."""
        _one_of("depth", self.depth, DEPTHS)
        _one_of("version", self.version, VERSIONS)
        _one_of("shortcut", self.shortcut, SHORTCUTS)
        for name in ("groups", "width_per_group", "width", "classes"):
            _positive(name, getattr(self, name))
        _one_of("features", self.features, (False, True))
        if not isinstance(self.blocks, tuple) or len(self.blocks) not in (0, 4):
            raise InputError(
                f"blocks {self.blocks!r} are not four numbers",
                hint="give one number for each of the four stages",
            )
        for count in self.blocks:
            _positive("blocks", count)
        self._check_channels()

    def _check_channels(self) -> None:
        """Refuse groups and widths that give a layer a fraction of a channel."""
        if not self.bottleneck and (self.groups, self.width_per_group) != (1, 64):
            raise InputError(
                f"depth {self.depth} has basic blocks, which take no groups "
                f"(groups {self.groups}, width per group {self.width_per_group})",
                hint="use depth 50, 101 or 152, or leave groups and width per group out",
            )
        if self.width * self.width_per_group % 64:
            raise InputError(
                f"width {self.width} with {self.width_per_group} channels a group gives the "
                f"first 3×3 {self.width * self.width_per_group / 64:g} channels a group",
                hint="choose them so that width × width per group is a multiple of 64",
            )

    @property
    def bottleneck(self) -> bool:
        """Whether the blocks are 1×1, 3×3, 1×1 rather than two 3×3."""
        return self.depth >= 50

    @property
    def expansion(self) -> int:
        """Channels of a block's output over those of its 3×3 at groups 1: 4 or 1."""
        return 4 if self.bottleneck else 1

    @property
    def stages(self) -> tuple[int, ...]:
        """Blocks in each of the four stages."""
        return self.blocks or BLOCKS[self.depth]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the network's outputs, in order."""
        return ("c2", "c3", "c4", "c5") if self.features else ("logits",)

    def to_json(self) -> str:
        """Return the config as one line of JSON, the same for the same config."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> ResNetConfig:
        """Read :meth:`to_json`'s text.

        Args:
            text: JSON.
            where: What it was read from, for the error text.

        Raises:
            InputError: Not JSON, an unknown field, or a value no network can have.
        """
        try:
            values: Any = json.loads(text)
        except (ValueError, RecursionError) as err:
            raise InputError(
                f"{where}: the network's config is not JSON ({err})", hint="make the file again"
            ) from err
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or not names >= values.keys():
            raise InputError(
                f"{where}: the network's config {text[:80]!r} is not one of a residual network",
                hint="make the file again with this version of strata",
            )
        if isinstance(values.get("blocks"), list):
            values["blocks"] = tuple(values["blocks"])
        try:
            return cls(**values)
        except InputError as err:
            raise InputError(f"{where}: {err.problem}", hint=err.hint) from err


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What a user asked of a network; None is "not said": the file's, or the default."""

    depth: int | None = None
    version: str | None = None
    shortcut: str | None = None
    groups: int | None = None
    width_per_group: int | None = None
    width: int | None = None
    classes: int | None = None
    features: bool | None = None

    def over(self, base: ResNetConfig) -> ResNetConfig:
        """Return ``base`` with everything that was said in its place.

        Raises:
            InputError: The two do not go together.
        """
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(base, **{name: value for name, value in said.items() if value is not None})

    def said(self) -> str:
        """Return what was said of the architecture as it is typed: ``--depth 50 --width 8``."""
        given = {f.name.replace("_", "-"): getattr(self, f.name) for f in fields(self)}
        given["features"] = None
        return " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)


def _one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value outside ``choices`` (``True`` is no 1, ``"18"`` no 18)."""
    if type(value) is not type(choices[0]) or value not in choices:
        raise InputError(
            f"{name} {value!r} is unknown",
            hint=f"choose one of {', '.join(str(choice) for choice in choices)}",
        )


def _positive(name: str, value: object) -> None:
    """Refuse what is not an integer of at least 1."""
    if type(value) is not int or value < 1:
        raise InputError(f"{name} {value!r} is not a whole number ≥ 1", hint="give a number ≥ 1")
