"""From a file's tensors to exactly the entries of one network, or a clear refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from core.errors import InputError
from exporter.models.config import BLOCKS, ResNetConfig
from exporter.models.families import name_of
from exporter.models.resnet import skeleton

__all__ = ["fit", "infer_config", "strip_prefix"]

_SHOWN = 3  # names in an error text


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor] | None:
    """Return the entries without ``prefix``; None when not every name has it."""
    if not tensors or not all(name.startswith(prefix) for name in tensors):
        return None
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def infer_config(tensors: Mapping[str, Tensor]) -> ResNetConfig | None:
    """Tell which residual network a state dict belongs to.

    The stride's place and a shortcut without weights leave no trace: version 1.5 stands
    for 1, and ``"none"`` for ``"identity-pad"``.

    Returns:
        The network, or None when the entries are not those of a residual network.
    """
    try:
        bottleneck = "layer1.0.conv3.weight" in tensors
        width = tensors["conv1.weight"].shape[0]
        inner, group = tensors["layer1.0.conv2.weight"].shape[:2]
        classes = tensors["fc.weight"].shape[0] if "fc.weight" in tensors else 1000
        stages = tuple(_count_blocks(tensors, stage) for stage in (1, 2, 3, 4))
        groups = inner // group if bottleneck else 1
        depth = next(
            (d for d, blocks in BLOCKS.items() if blocks == stages and (d >= 50) == bottleneck),
            50 if bottleneck else 18,
        )
        shortcut = "none"
        if "layer2.0.downsample.0.weight" in tensors:
            everywhere = "layer2.1.downsample.0.weight" in tensors
            shortcut = "projection-all" if everywhere else "projection"
        return ResNetConfig(
            depth=depth,
            version="2" if "final_bn.weight" in tensors else "1.5",
            shortcut=shortcut,
            groups=groups,
            width_per_group=64 * inner // (groups * width) if bottleneck else 64,
            width=width,
            classes=classes,
            blocks=() if BLOCKS[depth] == stages else stages,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError, InputError):
        return None


def _count_blocks(tensors: Mapping[str, Tensor], stage: int) -> int:
    """Count the blocks of a stage: one more than the largest number in its names."""
    prefix = f"layer{stage}."
    return 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith(prefix))


def fit(tensors: Mapping[str, Tensor], config: ResNetConfig, *, where: str) -> dict[str, Tensor]:
    """Return exactly the entries of the network ``config``, float32, in its order.

    The final layer is dropped for a network of features. Counters that files older than
    PyTorch 0.4.1 lack are zero.

    Args:
        tensors: Name → tensor, of any origin.
        config: The network that is wanted.
        where: The file, for the error text.

    Raises:
        InputError: Missing, extra or misshapen entries, or a NaN or infinite weight; each
            named.
    """
    wanted = skeleton(config).state_dict()
    given = dict(tensors)
    for name in wanted:
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, torch.zeros((), dtype=torch.int64))
    if config.features:
        given = {name: tensor for name, tensor in given.items() if not name.startswith("fc.")}
    problems = [
        _list("missing", [n for n in wanted if n not in given]),
        _list("unexpected", [n for n in given if n not in wanted]),
        _list(
            "of another shape",
            [
                f"{n} {list(given[n].shape)} for {list(wanted[n].shape)}"
                for n in wanted
                if n in given and given[n].shape != wanted[n].shape
            ],
        ),
        _list(
            "of another type",
            [
                f"{n} {given[n].dtype}"
                for n in wanted
                if n in given and given[n].is_floating_point() != wanted[n].is_floating_point()
            ],
        ),
    ]
    if any(problems):
        raise _misfit(where, config, "; ".join(filter(None, problems)), infer_config(tensors))
    fitted = {
        name: given[name].to(tensor.dtype).contiguous() if tensor.is_floating_point()
        else given[name].to(torch.int64)
        for name, tensor in wanted.items()
    }  # fmt: skip
    _check_values(fitted, where)
    return fitted


def _list(what: str, names: Sequence[str]) -> str:
    """Name the first few of ``names`` and count them; nothing for none."""
    if not names:
        return ""
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names)} {what} ({shown})"


def _misfit(
    where: str, config: ResNetConfig, problems: str, seen: ResNetConfig | None
) -> InputError:
    """Say what does not fit, and which network the entries look like."""
    found = ""
    hint = "give the options of the network it was made from (--depth, --width, --shortcut, …)"
    if seen is None:
        found = "; it does not look like a residual network"
        hint = "the keys must be torchvision's: conv1.weight, layer1.0.conv1.weight, …, fc.bias"
    elif name_of(seen) != name_of(config):
        found = f"; it looks like {name_of(seen)}"
        if seen.depth != config.depth:
            hint = f"give --depth {seen.depth}, or another file"
    elif seen.classes != config.classes:
        found = f"; it has {seen.classes} classes, not {config.classes}"
        hint = f"give --classes {seen.classes}, or leave it out"
    return InputError(f"{where}: does not fit {name_of(config)}: {problems}{found}", hint=hint)


def _check_values(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse a NaN or an infinity, and a variance below zero."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InputError(
                f"{where}: {name} has {bad} of {tensor.numel()} values that are NaN or infinite",
                hint="the training that made this file diverged; use an earlier checkpoint",
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise InputError(
                f"{where}: {name} holds a negative variance ({float(tensor.min()):g})",
                hint="the file is damaged, or its keys were mixed up; make it again",
            )
