"""Read a folder of image files: flat, or one folder a class as ImageNet has it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calib_data.image import IMAGE_SUFFIXES, read_image
from calib_data.pixels import Pixels, Tensor
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Labels, prepare
from core.artifacts import regular
from core.errors import InputError

__all__ = ["FolderSource", "open_folder"]

# Pictures of kinds that are not read: to pass over them would shrink the set in silence.
_OTHER_PICTURES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl"),
    *(".pgm", ".ppm", ".tif", ".tiff"),
)


@dataclass(frozen=True, slots=True, eq=False)
class FolderSource:
    """A source (see :class:`~calib_data.sources.Source`) over image files, read when asked for."""

    name: str
    root: Path
    files: tuple[str, ...]  # below root: "12.jpg" or "shirts/12.jpg"
    labels: Labels | None = None
    class_names: tuple[str, ...] = ()
    preprocessed: bool = False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def where(self, index: int) -> str:
        """Return how a message names one image: its file, from the folder's name on."""
        return f"{self.name}/{self.files[index]}"

    def image(self, index: int) -> Pixels:
        """Decode one image: uint8, (H, W, 3), RGB, upright.

        Raises:
            InputError: The file is broken.
        """
        return read_image(self.root / self.files[index])

    def tensor(self, index: int, spec: PreprocessSpec | None) -> Tensor:
        """Return one network input: float32, (3, h, w).

        Raises:
            InputError: The file is broken, or no spec.
        """
        return prepare(self.image(index), spec, where=str(self.root / self.files[index]))

    def digest(self, index: int) -> str:
        """Return the SHA-256 of the file's bytes: no decoding, a hundredth of its cost."""
        path = self.root / self.files[index]
        try:
            return hashlib.sha256(regular(path).read_bytes()).hexdigest()
        except OSError as err:
            raise InputError(
                f"{path}: cannot be read ({err.strerror})",
                hint="check its permissions, or remove it from the data set",
            ) from err


def open_folder(root: Path) -> FolderSource:
    """List the images of a folder, in the order of their names.

    Files that are no pictures (lists, licences) and hidden files and folders are passed over.
    With folders in it, each is a class, labelled 0, 1, … in the order of the folders' names.

    Raises:
        InputError: No images; loose images beside class folders; a class without images; a
            picture of a kind that is not read; a folder that cannot be read.
    """
    name = root.resolve().name or "folder"
    loose, folders = _list(root)
    if loose and folders:
        raise InputError(
            f"{root}: {len(loose)} loose images (such as {loose[0]}) beside {len(folders)} folders "
            f"(such as {folders[0]}/)",
            hint="keep the images in one flat folder, or all of them in one folder a class",
        )
    if loose:
        return FolderSource(name, root, tuple(loose))
    pairs = [(f"{c}/{file}", label) for label, c in enumerate(folders) for file in _class(root, c)]
    if not pairs:
        raise InputError(f"{root}: holds no images", hint=_what_instead(root))
    labels = np.array([label for _, label in pairs], np.int64)
    labels.flags.writeable = False
    return FolderSource(name, root, tuple(file for file, _ in pairs), labels, tuple(folders))


def _class(root: Path, folder: str) -> list[str]:
    """List the images of one class folder."""
    files, deeper = _list(root / folder)
    if deeper and not files:
        raise InputError(
            f"{root}: {folder}/ holds folders and no images",
            hint=f"one folder a class is read, no deeper; name {root / folder} if those are them",
        )
    if deeper:
        raise InputError(
            f"{root / folder}: {len(files)} loose images (such as {files[0]}) beside folders "
            f"(such as {deeper[0]}/)",
            hint="keep all images of a class directly in its folder",
        )
    if not files:
        raise InputError(
            f"{root / folder}: a class without images",
            hint="add its images, or remove the folder: every folder counts as a class",
        )
    return files


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the images and of the folders in a folder, both sorted."""
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:  # tells files from folders without a stat each
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as err:
        raise InputError(
            f"{err.filename or folder}: cannot be read ({err.strerror})",
            hint="check its permissions, or where it links to",
        ) from err
    if other := sorted(file for file in files if _suffix(file) in _OTHER_PICTURES):
        raise InputError(
            f"{folder / other[0]}: a picture of a kind that is not read "
            f"({len(other)} such in its folder)",
            hint=f"convert them to one of {', '.join(IMAGE_SUFFIXES)}, or remove them",
        )
    return sorted(file for file in files if _suffix(file) in IMAGE_SUFFIXES), sorted(folders)


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _what_instead(root: Path) -> str:
    """Say what to do about a folder without images."""
    if idx := sorted(root.glob("*images*idx3*")):
        return f"name the IDX file itself: {idx[0]}"
    if npz := sorted(root.glob("*.npz")):
        return f"name the .npz file itself: {npz[0]}"
    return f"name a folder with {', '.join(IMAGE_SUFFIXES)} files, flat or one folder a class"
