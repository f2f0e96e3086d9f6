"""Write images as tools without Strata's preprocessing read them: prepared, in an ``.npz``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calib_data.sources import require_labels
from core.artifacts import write_whole
from deploy.images import ImageRequest, Images, open_images
from exporter.onnx_file import card_of, load

__all__ = ["prepared", "write_images"]


def prepared(model: Path, request: ImageRequest) -> Images:
    """Open images, to be prepared as the model says.

    Raises:
        InputError: No such model or data, too few images, or nothing says how to prepare them.
    """
    card = card_of(load(model), where=str(model))
    return open_images(request, {model.name: card.preprocess})


def write_images(images: Images, path: Path) -> npt.NDArray[np.int64] | None:
    """Write images as ``images``, float32 N×3×H×W, one batch in memory at a time.

    Returns:
        Their labels, (N,); None where the source has none.

    Raises:
        InputError: An image cannot be read.
        OutputError: The file cannot be written.
    """
    entry = zipfile.ZipInfo("images.npy")
    with (
        write_whole(path) as target,
        zipfile.ZipFile(target, "w") as archive,
        archive.open(entry, "w", force_zip64=True) as file,
    ):
        for number, (_, batch) in enumerate(images.batches()):
            if number == 0:
                shape = (len(images), *batch.shape[1:])
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(batch).data)
    if images.source.labels is None:
        return None
    return require_labels(images.source)[images.indices]
