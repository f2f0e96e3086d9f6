import gzip
import hashlib
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from refusal import refused

from calib_data import open as open_module
from calib_data.batches import sample
from calib_data.fashion_mnist import CLASS_NAMES, DEBIAN_FOLDER, FOLDER, IMAGES, TRAIN_IMAGES
from calib_data.idx import IMAGES_MAGIC, LABELS_MAGIC, read_idx
from calib_data.open import open_data
from calib_data.preprocess import PRESETS

FILES = [
    name
    for images in IMAGES.values()
    for name in (images, images.replace("images-idx3", "labels-idx1"))
]
SCRIPT = Path(__file__).parents[1] / "scripts" / "cut_fashion_mnist.py"
debian = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("cut_fashion_mnist", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FILES)
def test_files_are_those_that_origin_md_describes(name):
    row = re.search(
        rf"`{re.escape(name)}` \| .* \| `([0-9a-f]{{64}})`", (FOLDER / "ORIGIN.md").read_text()
    )
    assert row is not None
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == row[1]


@pytest.mark.parametrize("name", FILES)
def test_files_carry_no_time_and_no_name(name):
    head = (FOLDER / name).read_bytes()[:10]
    assert head[:4] == b"\x1f\x8b\x08\x00"  # gzip, deflate, no flags: no file name
    assert head[4:8] == bytes(4)


@pytest.mark.parametrize(("split", "count"), [("train", TRAIN_IMAGES), ("test", 10_000)])
def test_sets_are_whole_and_balanced(split, count):
    source = open_data(f"fashion-mnist:{split}")
    assert source.name == f"fashion-mnist:{split}"
    assert len(source) == count
    assert source.images.shape == (count, 28, 28)
    assert source.class_names == CLASS_NAMES
    assert len(set(CLASS_NAMES)) == 10
    counts = np.bincount(source.labels, minlength=10)
    assert counts.shape == (10,)
    assert all(abs(counts - count // 10) <= count // 100)


def test_train_is_the_default():
    assert open_data("fashion-mnist").name == "fashion-mnist:train"
    assert open_data("fashion-mnist:").name == "fashion-mnist:train"


def test_train_and_test_share_no_image():
    train, test = (open_data(f"fashion-mnist:{split}") for split in IMAGES)
    both = {train.digest(i) for i in range(len(train))} & {test.digest(i) for i in range(len(test))}
    assert not both


def test_labels_mean_what_the_class_names_say():
    # Trousers are two legs: dark between them, at the bottom; bags are wide; an ankle boot
    # is taller at one end. A shifted table of names would fail.
    source = open_data("fashion-mnist:test")
    mean = {
        name: source.images[source.labels == label].mean(axis=0)
        for label, name in enumerate(CLASS_NAMES)
    }
    legs = mean["Trouser"][20:26]
    assert legs[:, 10].mean() > 1.5 * legs[:, 13:15].mean()
    widths = {name: (image.mean(axis=0) > 40).sum() for name, image in mean.items()}
    assert min(widths, key=widths.get) in ("Trouser", "Dress")
    assert widths["Bag"] == max(widths.values())


def test_preset_normalizes_the_training_set():
    source = open_data("fashion-mnist:train")
    spec = PRESETS["fashion-mnist"]
    tensors = np.stack([source.tensor(int(i), spec) for i in sample(source, 2000)])
    assert tensors.shape[1:] == (3, 32, 32)
    assert abs(tensors.mean()) < 0.02
    assert abs(tensors.std() - 1) < 0.05
    assert abs((tensors * 1.1).std() - 1) > 0.05  # so close a bound tells a wrong std


# The script


@debian
@pytest.mark.parametrize("name", FILES)
def test_committed_files_are_the_first_of_debians(name):
    magic = IMAGES_MAGIC if "images" in name else LABELS_MAGIC
    ours, full = read_idx(FOLDER / name, magic), read_idx(DEBIAN_FOLDER / name, magic)
    assert len(ours) == (TRAIN_IMAGES if name.startswith("train") else len(full))
    assert np.array_equal(ours, full[: len(ours)])


@pytest.fixture
def small_set(script, tmp_path):
    """A set of the names and formats of Debian's, of few images."""
    values = np.random.default_rng(0).integers(0, 10, (30, 28, 28), dtype=np.uint8)
    folder = tmp_path / "full"
    folder.mkdir()
    for name in FILES:
        images = "images" in name
        magic = IMAGES_MAGIC if images else LABELS_MAGIC
        (folder / name).write_bytes(script.pack(values if images else values[:, 0, 0], magic))
    return folder


def test_cut_keeps_the_first_training_images_and_all_others(
    script, small_set, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "TRAIN_IMAGES", 12)
    assert [path.name for path in script.cut(small_set, tmp_path / "out")] == FILES
    for name in FILES:
        magic = IMAGES_MAGIC if "images" in name else LABELS_MAGIC
        full, part = read_idx(small_set / name, magic), read_idx(tmp_path / "out" / name, magic)
        assert len(part) == (12 if name.startswith("train") else 30)
        assert np.array_equal(part, full[: len(part)])


def test_cut_is_deterministic(script, small_set, tmp_path):
    for out in ("a", "b"):
        script.cut(small_set, tmp_path / out)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_script_says_what_to_install(script, tmp_path, capsys):
    assert script.main([str(tmp_path / "no"), "-o", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert "train-images-idx3-ubyte.gz: not there" in err
    assert "apt-get install dataset-fashion-mnist" in err
    assert list(tmp_path.iterdir()) == []


def test_script_refuses_a_damaged_source(script, small_set, tmp_path, capsys):
    path = small_set / FILES[2]
    path.write_bytes(gzip.compress(b"nonsense"))
    assert script.main([str(small_set), "-o", str(tmp_path / "out")]) == 2
    assert FILES[2] in capsys.readouterr().err


# The full set


@debian
@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_full_set_where_debian_has_it(split, count):
    source = open_data(f"fashion-mnist-full:{split}")
    assert len(source) == len(source.labels) == count
    assert source.name == f"fashion-mnist-full:{split}"
    assert source.class_names == CLASS_NAMES


def test_full_set_elsewhere_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(open_module._SETS, "fashion-mnist-full", tmp_path)
    error = refused(lambda: open_data("fashion-mnist-full:test"), "is not there")
    assert "dataset-fashion-mnist" in error.hint
    assert "fashion-mnist:test" in error.hint
