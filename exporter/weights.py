"""Weights by name or by file: from what a user typed to a checked checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calib_data.preprocess import PRESETS, PreprocessSpec
from core.errors import InputError
from core.progress import Progress, silent
from exporter.download import cache_folder, fetch
from exporter.imagenet import official
from exporter.models.checkpoint import Checkpoint, save_checkpoint, state_digest
from exporter.models.config import ModelOptions, ResNetConfig
from exporter.models.families import name_of
from exporter.models.init import randomize
from exporter.models.pickled import read_pickle
from exporter.models.resnet import build
from exporter.models.state_dict import fit
from exporter.models.weight_file import SUFFIXES, read_weights

__all__ = ["Checkpoint", "fashion_mnist_file", "load_weights", "save_checkpoint"]

_CHOICES = (
    "give fashion-mnist, imagenet, imagenet-v1, random:SEED, or the path of a .safetensors or "
    ".pth file"
)


def load_weights(
    text: str,
    options: ModelOptions | None = None,
    *,
    preprocess: PreprocessSpec | None = None,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Checkpoint:
    """Return the weights that ``text`` names, checked against the network they are for.

    Args:
        text: ``fashion-mnist`` (what ``make weights`` trained), ``imagenet`` or
            ``imagenet-v1`` (torchvision's official files), ``random:SEED``, or the path of
            a ``.safetensors`` or ``.pth`` file.
        options: The network, as far as the user said; a file says the rest.
        preprocess: In place of what the weights say of their images.
        cache: Where downloads are kept; None for :func:`~exporter.download.cache_folder`.
        progress: Of a download, in bytes.

    Raises:
        InputError: No such weights, or weights that do not fit (what and where is said).
        MissingBackendError: A download could not reach its server.
        OutputError: A download could not be written.
    """
    options = options or ModelOptions()
    kind, _, rest = text.partition(":")
    if text in ("imagenet", "imagenet-v1"):
        checkpoint = _imagenet(text, options, cache or cache_folder(), progress)
    elif kind == "random" and not Path(text).exists():
        checkpoint = _random(text, rest, options)
    elif text == "fashion-mnist":
        checkpoint = read_weights(_trained(options), options, preprocess)
    else:
        checkpoint = read_weights(_existing(text), options, preprocess)
    return checkpoint if preprocess is None else replace(checkpoint, preprocess=preprocess)


def fashion_mnist_file(config: ResNetConfig) -> Path:
    """Return where ``make weights`` keeps a network trained on the embedded data."""
    return Path("build") / "weights" / f"fashion-mnist-{name_of(config)}.safetensors"


def _trained(options: ModelOptions) -> Path:
    config = options.over(ResNetConfig())
    path = fashion_mnist_file(config)
    said = replace(options, depth=config.depth, classes=None).said()
    if not path.is_file():
        raise InputError(
            f"fashion-mnist: {path} is not there: {name_of(config)} has not been trained yet",
            hint=f"make weights DEPTH={config.depth}, or strata train {said} -o {path}",
        )
    return path


def _existing(text: str) -> Path:
    path = Path(text)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return path
    if path.exists():
        what = "a folder" if path.is_dir() else f"a {path.suffix or 'nameless kind of'} file"
        raise InputError(f"{text}: weights cannot be {what}", hint=_CHOICES)
    problem = "no such file" if "/" in text or path.suffix else "no such weights"
    raise InputError(f"{text}: {problem}", hint=_CHOICES)


def _imagenet(name: str, options: ModelOptions, folder: Path, progress: Progress) -> Checkpoint:
    """Return torchvision's official weights, downloaded when they are not in the cache."""
    config = options.over(ResNetConfig())
    chosen = official(config, name)
    path, sha256 = fetch(chosen.file, folder, progress=progress)
    tensors, _ = read_pickle(path)
    return Checkpoint(
        config=config,
        state_dict=fit(tensors, config, where=str(path)),
        preprocess=chosen.preprocess,
        origin={"name": name, "sha256": sha256, **chosen.facts},
    )


def _random(text: str, seed: str, options: ModelOptions) -> Checkpoint:
    """Return random weights: the same for the same seed."""
    if not seed.isdecimal() or int(seed) >= 1 << 63:
        raise InputError(f"{text}: {seed!r} is no seed", hint="give a number, such as random:0")
    config = options.over(ResNetConfig())
    network = build(config)
    randomize(network, seed=int(seed))
    state = network.state_dict()
    return Checkpoint(
        config=config,
        state_dict=state,
        preprocess=PRESETS["imagenet-v1"],
        origin={"name": f"random:{int(seed)}", "sha256": state_digest(state)},
    )
