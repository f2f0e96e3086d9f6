"""Weights by name and by file: what is accepted, what is said, what is refused."""

import dataclasses
import json
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch

from calib_data.preprocess import PRESETS
from core.errors import InputError
from exporter.imagenet import official
from exporter.models.checkpoint import Checkpoint, read_safetensors, save_checkpoint, state_digest
from exporter.models.config import ModelOptions, ResNetConfig
from exporter.models.families import VARIANTS
from exporter.models.resnet import build, skeleton
from exporter.models.state_dict import fit, infer_config
from exporter.weights import fashion_mnist_file, load_weights

SMALL = ResNetConfig(18, width=8, classes=10)
FASHION = PRESETS["fashion-mnist"]


@pytest.fixture
def state():
    """A fresh small network's state dict; a test may spoil it."""
    return {key: tensor.clone() for key, tensor in build(SMALL).state_dict().items()}


@pytest.fixture
def pth(tmp_path, state):
    """Write a state dict, changed or not, and return its path."""

    def write(change=None, *, name="w.pth", value=None):
        if change is not None:
            change(state)
        torch.save(state if value is None else value, tmp_path / name)
        return tmp_path / name

    return write


def refusal(path, *words, options=None, preprocess=FASHION):
    """Load and return the refusal: one line that names the file and holds every word."""
    with pytest.raises(InputError) as caught:
        load_weights(str(path), options, preprocess=preprocess)
    problem = caught.value.problem
    assert "\n" not in problem
    assert str(path) in problem
    for word in words:
        assert word in problem, problem
    assert caught.value.hint
    return caught.value


# --- our own files ----------------------------------------------------------------------


def checkpoint(state):
    return Checkpoint(
        config=SMALL,
        state_dict=state,
        preprocess=FASHION,
        labels=tuple(f"Klasse {number} ≥" for number in range(10)),
        origin={"name": "fashion-mnist", "top1": "0.8812"},
    )


def test_a_checkpoint_survives_the_disk(tmp_path, state):
    path = tmp_path / "w.safetensors"
    save_checkpoint(checkpoint(state), path)
    loaded = load_weights(str(path), ModelOptions(depth=18))
    assert (loaded.config, loaded.preprocess) == (SMALL, FASHION)
    assert loaded.labels[3] == "Klasse 3 ≥"
    assert loaded.origin["name"] == "fashion-mnist"
    assert loaded.origin["top1"] == "0.8812"
    assert len(loaded.origin["sha256"]) == 64
    assert loaded.notes == ()
    assert list(loaded.state_dict) == list(state)
    assert all(torch.equal(loaded.state_dict[key], state[key]) for key in state)
    network = loaded.network()
    assert not network.training
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path, state):
    save_checkpoint(checkpoint(state), tmp_path / "a.safetensors")
    # Another process, entries in another order, tensors in another memory format.
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from dataclasses import replace\n"
        "from exporter.weights import load_weights, save_checkpoint\n"
        "c = load_weights(sys.argv[1])\n"
        "s = {k: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t"
        " for k, t in reversed(c.state_dict.items())}\n"
        "o = {k: v for k, v in reversed(c.origin.items()) if k != 'sha256'}\n"
        "save_checkpoint(replace(c, state_dict=s, origin=o), Path(sys.argv[2]))\n"
    )
    names = [str(tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    subprocess.run([sys.executable, "-c", code, *names], check=True)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.safetensors", "b.safetensors"))
    assert first == second


def test_the_safetensors_library_reads_what_is_written(tmp_path, state):
    save_checkpoint(checkpoint(state), tmp_path / "w.safetensors")
    tensors, metadata = read_safetensors(tmp_path / "w.safetensors")
    assert tensors.keys() == state.keys()
    assert all(tensors[key].dtype == state[key].dtype for key in state)
    assert sorted(metadata) == [
        "strata.config", "strata.labels", "strata.origin", "strata.preprocess",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ModelOptions(depth=50),
        ModelOptions(depth=34),
        ModelOptions(width=16),
        ModelOptions(classes=1000),
        ModelOptions(groups=2),
    ],
)
def test_options_that_contradict_the_file_are_refused(tmp_path, state, options):
    path = tmp_path / "w.safetensors"
    save_checkpoint(checkpoint(state), path)
    refusal(path, "holds resnet18-width8 with 10 classes", options.said(), options=options)


def test_features_drop_the_final_layer(tmp_path, state):
    path = tmp_path / "w.safetensors"
    save_checkpoint(checkpoint(state), path)
    loaded = load_weights(str(path), ModelOptions(features=True))
    assert loaded.config == dataclasses.replace(SMALL, features=True)
    assert "fc.weight" not in loaded.state_dict
    assert len(loaded.network()(torch.zeros(1, 3, 32, 32))) == 4


def test_preprocess_can_be_said_anew(tmp_path, state):
    path = tmp_path / "w.safetensors"
    save_checkpoint(checkpoint(state), path)
    loaded = load_weights(str(path), preprocess=PRESETS["imagenet-v2"])
    assert loaded.preprocess == PRESETS["imagenet-v2"]


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("strata.config", "{", "config is not JSON"),
        ("strata.config", '{"depth": 20}', "depth 20 is unknown"),
        ("strata.labels", "[1, 2]", "labels or its origin are damaged"),
        ("strata.labels", '["one"]', "labels or its origin are damaged"),
        ("strata.origin", "nonsense", "strata.origin is not JSON"),
        ("strata.preprocess", '{"resize": -1}', "w.safetensors"),
    ],
)
def test_damaged_metadata_is_refused(tmp_path, state, key, text, words):
    path = tmp_path / "w.safetensors"
    save_checkpoint(checkpoint(state), path)
    old = read_safetensors(path)[1][key]
    data = path.read_bytes()
    escaped = [json.dumps(value, ensure_ascii=False).encode() for value in (old, text)]
    header = data[8 : 8 + int.from_bytes(data[:8], "little")].replace(*escaped)
    body = data[8 + int.from_bytes(data[:8], "little") :]
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    refusal(path, words, preprocess=None)


@pytest.mark.parametrize("keep", [0, 4, 100, 20_000, -1])
def test_a_truncated_safetensors_file_is_refused(tmp_path, state, keep):
    path = tmp_path / "w.safetensors"
    save_checkpoint(checkpoint(state), path)
    path.write_bytes(path.read_bytes()[:keep])
    refusal(path, "truncated or no safetensors")


# --- files of others --------------------------------------------------------------------


def test_a_foreign_state_dict_says_its_network(pth, state):
    loaded = load_weights(str(pth()), preprocess=FASHION)
    assert loaded.config == SMALL
    assert loaded.preprocess == FASHION
    assert all(torch.equal(loaded.state_dict[key], state[key]) for key in state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrappers_and_prefixes_come_off_and_it_is_said(pth, state, wrapper):
    prefixed = {f"module.{key}": tensor for key, tensor in state.items()}
    loaded = load_weights(str(pth(value={wrapper: prefixed, "epoch": 3})), preprocess=FASHION)
    assert loaded.state_dict.keys() == state.keys()
    assert loaded.notes[:2] == (
        f"took {wrapper!r} of the checkpoint",
        "dropped the prefix 'module.' of every key",
    )


def test_half_precision_is_converted_and_it_is_said(pth, state):
    halves = {k: t.half() if t.is_floating_point() else t for k, t in state.items()}
    loaded = load_weights(str(pth(value=halves)), preprocess=FASHION)
    assert loaded.state_dict["conv1.weight"].dtype == torch.float32
    assert "converted torch.float16 to float32" in loaded.notes


def test_the_legacy_format_without_counters_loads(tmp_path, state):
    old = {key: t for key, t in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    loaded = load_weights(str(tmp_path / "old.pth"), preprocess=FASHION)
    assert loaded.state_dict["bn1.num_batches_tracked"].item() == 0


def test_an_image_preparation_is_never_guessed_but_for_a_thousand_classes(pth, tmp_path):
    error = refusal(pth(), "nothing says how to prepare images", preprocess=None)
    assert "--preprocess" in error.hint
    thousand = build(dataclasses.replace(SMALL, classes=1000)).state_dict()
    loaded = load_weights(str(pth(value=thousand)))
    assert loaded.preprocess == PRESETS["imagenet-v1"]
    assert any("--preprocess imagenet-v1" in note for note in loaded.notes)


def test_a_bottlenecks_stride_leaves_no_trace_and_it_is_said(pth):
    state = build(ResNetConfig(50, width=8, classes=10)).state_dict()
    loaded = load_weights(str(pth(value=state)), preprocess=FASHION)
    assert loaded.config.version == "1.5"
    assert any("--version 1.5" in note for note in loaded.notes)
    said = load_weights(str(pth(value=state)), ModelOptions(version="1"), preprocess=FASHION)
    assert said.config.version == "1"
    assert said.notes == ()


@pytest.mark.parametrize(
    "config",
    [
        *(pytest.param(config, id=name) for name, config in VARIANTS.items()),
        ResNetConfig(50, "2", width=16),
        ResNetConfig(34, shortcut="projection-all", classes=7),
        ResNetConfig(18, shortcut="none"),
        ResNetConfig(50, groups=8, width_per_group=16, width=32, blocks=(1, 2, 1, 2)),
    ],
)
def test_every_network_is_known_by_its_keys(config):
    assert infer_config(skeleton(config).state_dict()) == config


# --- refusals ---------------------------------------------------------------------------


def test_missing_keys_are_named_and_counted(pth):
    error = refusal(pth(lambda s: s.pop("layer2.1.bn2.weight")), "1 missing (layer2.1.bn2.weight)")
    assert error.exit_code == 2


def test_extra_keys_are_named_the_first_few(pth):
    def change(state):
        state |= {f"ema.{number}": torch.zeros(1) for number in range(5)}

    refusal(pth(change), "5 unexpected (ema.0, ema.1, ema.2, …)")


def test_misshapen_keys_are_named_with_both_shapes(pth):
    def change(state):
        state["layer1.0.conv1.weight"] = torch.zeros(8, 8, 1, 1)

    refusal(pth(change), "1 of another shape (layer1.0.conv1.weight [8, 8, 1, 1] for [8, 8, 3, 3])")


def test_integers_in_place_of_weights_are_refused(pth):
    def change(state):
        state["bn1.weight"] = torch.ones(8, dtype=torch.int32)

    refusal(pth(change), "1 of another type (bn1.weight torch.int32)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_named(pth, value):
    def change(state):
        state["layer3.0.conv2.weight"][1, 2, 0, 0] = value

    refusal(pth(change), "layer3.0.conv2.weight has 1 of 9216 values that are NaN or infinite")


def test_a_negative_variance_is_named(pth):
    refusal(pth(lambda s: s["bn1.running_var"].neg_()), "bn1.running_var holds a negative variance")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_another_depth_says_which_depth_it_looks_like(tmp_path, pth, state, suffix):
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        pth()
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    error = refusal(path, "missing", "it looks like resnet18", options=ModelOptions(depth=50))
    assert error.hint.startswith("give --depth 18")


def test_another_number_of_classes_says_which(pth):
    error = refusal(pth(), "of another shape (fc.weight", "10 classes, not 1000",
                    options=ModelOptions(classes=1000))  # fmt: skip
    assert "--classes 10" in error.hint


def test_a_state_dict_of_another_network_is_refused(pth):
    value = {"features.0.weight": torch.zeros(64, 3, 3, 3), "classifier.bias": torch.zeros(10)}
    refusal(pth(value=value), "does not look like a residual network")


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path, new_format, wrapped):
    path, trap = tmp_path / "evil.pth", tmp_path / "trapped"
    value = {"state_dict": {"conv1.weight": Trap(trap)}} if wrapped else Trap(trap)
    torch.save(value, path, _use_new_zipfile_serialization=new_format)
    refusal(path, "asks to run code", "open")
    assert not trap.exists()


def test_a_raw_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    path, trap = tmp_path / "evil.pt", tmp_path / "trapped"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Trap(trap), protocol=protocol))
        refusal(path, "asks to run code", "open")
    assert not trap.exists()


def test_a_torchscript_archive_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("constants.pkl", "data.pkl", "version"):
            archive.writestr(f"w/{name}", b"3")
    refusal(tmp_path / "w.pt", "TorchScript")


def test_a_whole_pickled_model_is_refused_with_the_way_out(pth):
    error = refusal(pth(value=build(SMALL)), "asks to run code", "ResNet")
    assert "state_dict()" in error.hint


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(3), {"epoch": 3}, {1: torch.zeros(1)}, None])
def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path, value):
    path = tmp_path / "w.pth"
    torch.save(value, path)
    error = refusal(path, "no state dict")
    assert "state_dict()" in error.hint


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_pickle_is_refused(tmp_path, state, new_format, part):
    path = tmp_path / "w.pth"
    torch.save(state, path, _use_new_zipfile_serialization=new_format)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    refusal(path, "truncated" if part else "empty")


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 100, b"PK\x03\x04nonsense", b"\x80\x02."])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    refusal(path)


def test_an_ordinary_zip_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refusal(path, "truncated, or not a file of torch.save")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "nonsense: no such weights"),
        ("nowhere/w.pth", "nowhere/w.pth: no such file"),
        ("random", "'' is no seed"),
        ("random:x", "'x' is no seed"),
        ("random:-1", "'-1' is no seed"),
    ],
)
def test_weights_that_do_not_exist_are_refused_with_the_choices(text, words):
    with pytest.raises(InputError) as caught:
        load_weights(text)
    assert words in caught.value.problem
    assert "random:" in caught.value.hint


def test_a_folder_and_a_file_of_another_kind_are_no_weights(tmp_path):
    refusal(tmp_path, "weights cannot be a folder")
    (tmp_path / "w.onnx").touch()
    refusal(tmp_path / "w.onnx", "weights cannot be a .onnx file")


# --- weights by name --------------------------------------------------------------------


def test_random_weights_depend_on_the_seed_alone():
    options = ModelOptions(depth=18, width=8, classes=10)
    first, again, other = (load_weights(f"random:{seed}", options) for seed in (1, 1, 2))
    assert first.config == SMALL
    assert first.preprocess == PRESETS["imagenet-v1"]
    assert first.origin == again.origin == {
        "name": "random:1", "sha256": state_digest(first.state_dict),
    }  # fmt: skip
    assert other.origin["sha256"] != first.origin["sha256"]
    assert fit(first.state_dict, SMALL, where="random").keys() == first.state_dict.keys()


def test_fashion_mnist_names_the_command_that_makes_it(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    options = ModelOptions(depth=18, width=8)
    with pytest.raises(InputError) as caught:
        load_weights("fashion-mnist", options)
    path = fashion_mnist_file(SMALL)
    assert str(path) == "build/weights/fashion-mnist-resnet18-width8.safetensors"
    assert f"strata train --depth 18 --width 8 -o {path}" in caught.value.hint
    save_checkpoint(checkpoint(state), path)
    assert load_weights("fashion-mnist", options).config == SMALL


@pytest.mark.parametrize("name", VARIANTS)
def test_imagenet_files(name):
    old, new = (official(VARIANTS[name], weights) for weights in ("imagenet-v1", "imagenet"))
    assert old.file.startswith(f"{name}-")
    assert old.preprocess == PRESETS["imagenet-v1"]
    has_new = name not in ("resnet18", "resnet34")
    assert new.preprocess == PRESETS["imagenet-v2" if has_new else "imagenet-v1"]
    assert (new.file != old.file) == has_new


def test_imagenet_weights_bring_their_images_and_their_accuracy(pth, monkeypatch, tmp_path):
    path = pth(value=build(ResNetConfig(18)).state_dict(), name="resnet18-f37072fd.pth")
    asked = []

    def fetch(file, folder, *, progress):
        asked.append((file, folder))
        return path, "f37072fd" + "0" * 56

    monkeypatch.setattr("exporter.weights.fetch", fetch)
    loaded = load_weights("imagenet", ModelOptions(depth=18), cache=tmp_path)
    assert asked == [("resnet18-f37072fd.pth", tmp_path)]
    assert loaded.config == ResNetConfig(18)
    assert loaded.preprocess == PRESETS["imagenet-v1"]
    assert loaded.origin["top1"] == "0.6976"
    assert loaded.origin["sha256"].startswith("f37072fd")
    # The same name by hand, but another content: it is not taken for the official one.
    by_hand = load_weights(str(path))
    assert "top1" not in by_hand.origin
    assert any("--preprocess imagenet-v1" in note for note in by_hand.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ModelOptions(version="2"), "no official weights for resnet50-v2"),
        (ModelOptions(depth=18, width=8), "no official weights for resnet18-width8"),
        (ModelOptions(depth=18, classes=10), "1000 classes, not 10"),
    ],
)
def test_imagenet_weights_of_other_networks_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        load_weights("imagenet", options)
