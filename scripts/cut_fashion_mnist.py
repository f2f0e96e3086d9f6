"""Cut the embedded data set from Debian's package ``dataset-fashion-mnist``.

Writes into ``calib_data/fashion_mnist``: the first 20,000 training images and the whole
test set, with their labels, as gzipped IDX files. The same source gives the same bytes.

    python scripts/cut_fashion_mnist.py [FOLDER] [-o OUT]
"""

from __future__ import annotations

import argparse
import gzip
import io
import struct
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calib_data.fashion_mnist import (
    DEBIAN_FOLDER,
    DEBIAN_PACKAGE,
    FOLDER,
    IMAGES,
    TRAIN_IMAGES,
)
from calib_data.idx import IMAGES_MAGIC, LABELS_MAGIC, read_idx
from core.artifacts import sha256_file, write_bytes
from core.errors import InputError, StrataError


def main(arguments: list[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", nargs="?", type=Path, default=DEBIAN_FOLDER)
    parser.add_argument("-o", dest="out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    try:
        for path in cut(options.folder, options.out):
            print(f"{sha256_file(path)}  {path.name}")
    except StrataError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    return 0


def cut(source: Path, out: Path) -> list[Path]:
    """Cut the four files of ``source`` into ``out``; return their paths.

    Raises:
        InputError: A file is missing or damaged.
        OutputError: A file cannot be written.
    """
    written = []
    for split, images in IMAGES.items():
        count = TRAIN_IMAGES if split == "train" else None
        for name, magic in (
            (images, IMAGES_MAGIC),
            (images.replace("images-idx3", "labels-idx1"), LABELS_MAGIC),
        ):
            if not (source / name).is_file():
                raise InputError(
                    f"{source / name}: not there",
                    hint=f"install Debian's package {DEBIAN_PACKAGE} "
                    f"(apt-get install {DEBIAN_PACKAGE}), or name the folder that has its files",
                )
            write_bytes(out / name, pack(read_idx(source / name, magic)[:count], magic))
            written.append(out / name)
    return written


def pack(values: npt.NDArray[np.uint8], magic: int) -> bytes:
    """Return ``values`` as a gzipped IDX file, with no name and no time in it."""
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, buffer, mtime=0) as file:
        file.write(struct.pack(f">{1 + values.ndim}I", magic, *values.shape))
        file.write(values.tobytes())
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
