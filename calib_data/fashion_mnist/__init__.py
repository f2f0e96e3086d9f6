"""Fashion-MNIST, the data set that is always there: grey 28×28 images of ten kinds of clothes.

The folder holds the first 20,000 training images and the whole test set, cut by
``scripts/cut_fashion_mnist.py`` from Debian's package ``dataset-fashion-mnist``; ORIGIN.md
and LICENSE say where they come from. Where that package is installed, its full set can be
named too.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking
Machine Learning Algorithms", 2017 (classes and splits).
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["CLASS_NAMES", "DEBIAN_FOLDER", "DEBIAN_PACKAGE", "FOLDER", "IMAGES", "TRAIN_IMAGES"]

FOLDER = Path(__file__).parent
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
TRAIN_IMAGES = 20_000  # how many of the 60,000 are embedded

# split → its images file; the labels file lies beside it
IMAGES: dict[str, str] = {
    "train": "train-images-idx3-ubyte.gz",
    "test": "t10k-images-idx3-ubyte.gz",
}
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
