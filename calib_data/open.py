"""From what a user typed after ``--data`` to a source of images."""

from __future__ import annotations

from pathlib import Path

from calib_data.fashion_mnist import CLASS_NAMES, DEBIAN_FOLDER, DEBIAN_PACKAGE, FOLDER, IMAGES
from calib_data.folder import open_folder
from calib_data.idx import is_idx, open_idx
from calib_data.image import IMAGE_SUFFIXES
from calib_data.noise import open_noise
from calib_data.npz import open_npz
from calib_data.sources import Source
from core.errors import InputError

__all__ = ["absolute", "open_data"]

# data set → its folder
_SETS: dict[str, Path] = {"fashion-mnist": FOLDER, "fashion-mnist-full": DEBIAN_FOLDER}
_NOISE = "random"
_CHOICES = (
    "give fashion-mnist[:train|:test], an image folder, an IDX images file or an .npz; "
    f"fashion-mnist-full[:train|:test] needs Debian's package {DEBIAN_PACKAGE}"
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".gz")
_TABLES = (".npy", ".pt", ".pth", ".pkl", ".h5", ".hdf5", ".parquet", ".tfrecord", ".lmdb", ".csv")


def open_data(text: str, *, synthetic: bool = False) -> Source:
    """Open the images that ``text`` names.

    Args:
        text: ``fashion-mnist`` or ``fashion-mnist-full``, with ``:train`` (the default) or
            ``:test``; or the path of an image folder, of the images file of an IDX pair, or
            of an ``.npz``; or ``random``, with ``:SEED`` if wanted, for noise. A folder that
            bears a data set's name is written ``./NAME``.
        synthetic: Noise is allowed.

    Returns:
        A source with at least one image.

    Raises:
        InputError: No such data, or data that cannot be used, or noise that is not allowed.
    """
    name, _, split = text.partition(":")
    if name == _NOISE:
        return open_noise(text, allowed=synthetic)
    if name in _SETS:
        return _open_set(name, split or "train")
    path = Path(text)
    if not text or not path.exists():
        raise InputError(f"{text!r}: no such data set, folder or file", hint=_CHOICES)
    if path.is_dir():
        return open_folder(path)
    if path.is_file():  # a pipe or a device would be waited for
        if path.suffix.lower() == ".npz":
            return open_npz(path)
        if is_idx(path):
            return open_idx(path)
    raise InputError(f"{text}: not a data set that can be read", hint=_way_out(path))


def absolute(text: str) -> str:
    """Return what opens the same data from any working folder."""
    known = text.partition(":")[0] in (_NOISE, *_SETS)
    return text if known else str(Path(text).resolve())


def _open_set(name: str, split: str) -> Source:
    """Open one split of a data set that has a name."""
    if split not in IMAGES:
        raise InputError(
            f"{name}:{split}: {name} has no split {split!r}",
            hint=f"its splits are {' and '.join(f'{name}:{known}' for known in IMAGES)}",
        )
    path = _SETS[name] / IMAGES[split]
    if not path.is_file():
        raise InputError(
            f"{name}: {path} is not there",
            hint=f"install Debian's package {DEBIAN_PACKAGE}, or use fashion-mnist:{split}"
            if name == "fashion-mnist-full"
            else "install strata again: its data files are missing",
        )
    return open_idx(path, name=f"{name}:{split}", class_names=CLASS_NAMES)


def _way_out(path: Path) -> str:
    """Say what to do with a file that is no data set."""
    suffix = path.suffix.lower()
    if not path.is_file():
        return _CHOICES
    if suffix in IMAGE_SUFFIXES:
        return f"one image is not a set: name the folder it lies in ({path.parent})"
    if "idx" in path.name:
        return "its first bytes are not those of an IDX file: fetch it again"
    if suffix in _ARCHIVES:
        return "unpack the archive, and name the folder of images that was in it"
    if suffix in _TABLES:
        return "load it with Python and write numpy.savez('DATA.npz', images=…, labels=…)"
    return _CHOICES
