"""The reference network: torchvision's keys and logits, the paper's shapes, named modules."""

import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import InputError
from exporter.models.config import DEPTHS, SHORTCUTS, VERSIONS, ModelOptions, ResNetConfig
from exporter.models.families import VARIANTS, name_of, variant
from exporter.models.init import initialize, randomize
from exporter.models.resnet import ResNet, build, skeleton

GOLDEN = Path(__file__).parent / "golden" / "torchvision_keys.json"
NORM = ("weight", "bias", "running_mean", "running_var")


def expand(rows):
    """Undo the golden file's short rows: block ranges, and a norm's five entries as one."""
    shapes = {}
    for pattern, shape in rows:
        layer, _, rest = pattern.partition(".")
        names = [pattern]
        if layer.startswith("layer"):
            blocks, _, rest = rest.partition(".")
            first, last = map(int, blocks.split("-"))
            names = [f"{layer}.{block}.{rest}" for block in range(first, last + 1)]
        for name in names:
            if name.endswith(".*"):
                shapes |= {f"{name[:-1]}{entry}": tuple(shape) for entry in NORM}
                shapes[f"{name[:-1]}num_batches_tracked"] = ()
            else:
                shapes[name] = tuple(shape)
    return shapes


def uniform(key, shape, low, high):
    """Numbers that depend on the key alone, from a bit stream that numpy never changes."""
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(int(np.prod(shape)))
    unit = (raw >> np.uint64(40)).astype(np.float64) / 2**24
    return torch.from_numpy((low + (high - low) * unit).astype(np.float32).reshape(shape))


def filled(shapes):
    """Weights by formula: convolutions keep the variance of what they read."""
    weights = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.zeros((), dtype=torch.int64)
        elif len(shape) > 1:
            bound = (3 / np.prod(shape[1:])) ** 0.5
            weights[key] = uniform(key, shape, -bound, bound)
        elif key.endswith((".weight", "running_var")):
            weights[key] = uniform(key, shape, 0.5, 1.5)
        else:
            weights[key] = uniform(key, shape, -0.2, 0.2)
    return weights


def fixed_input():
    return uniform("input", (2, 3, 64, 64), -2.0, 2.0)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def trace(network, x):
    """Run the network; return each module's output by name, and the number of its calls."""
    seen = {}
    for name, module in network.named_modules():
        if name and not isinstance(module, nn.Sequential):
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: seen.setdefault(name, []).append(output)
            )
    with torch.no_grad():
        result = network(x)
    return seen, result


# --- torchvision -----------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_state_dict_keys_and_shapes_are_torchvisions(name):
    golden = expand(json.loads(GOLDEN.read_text())["keys"][name])
    ours = {key: tuple(t.shape) for key, t in skeleton(VARIANTS[name]).state_dict().items()}
    assert ours == golden


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_logits_are_torchvisions(name):
    golden = torch.tensor(json.loads(GOLDEN.read_text())["logits"][name])
    network = skeleton(variant(name, classes=16)).eval()
    weights = filled({key: tuple(t.shape) for key, t in network.state_dict().items()})
    network.load_state_dict(weights, assign=True)
    with torch.no_grad():
        logits = network(fixed_input())
        weights["layer3.1.bn2.bias"][7] += 0.05
        network.load_state_dict(weights, assign=True)
        wrong = network(fixed_input())
    assert relative(logits, golden) < 1e-4
    assert relative(wrong, golden) > 1e-4  # one shifted channel of one layer is seen


# --- the paper's table -----------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("depth", [18, 50])
def test_shapes_of_a_1024_by_2048_image(depth, version):
    config = ResNetConfig(depth, version, width=8)
    seen, _ = trace(skeleton(config), torch.empty(1, 3, 1024, 2048, device="meta"))
    shapes = {name: tuple(outputs[0].shape[1:]) for name, outputs in seen.items()}
    assert shapes["conv1"] == (8, 512, 1024)
    assert shapes["maxpool"] == (8, 256, 512)
    for stage, (height, width) in enumerate([(256, 512), (128, 256), (64, 128), (32, 64)]):
        last = f"layer{stage + 1}.{config.stages[stage] - 1}"
        expected = (8 * 2**stage * config.expansion, height, width)
        assert shapes[f"{last}.add"] == expected
    assert shapes["avgpool"] == (64 * config.expansion, 1, 1)
    assert shapes["fc"] == (1000,)


@pytest.mark.parametrize("depth", DEPTHS)
def test_weighted_layers_add_up_to_the_depth(depth):
    network = skeleton(ResNetConfig(depth))
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = [n for n, _ in network.named_modules() if n.endswith("downsample")]
    assert len(weighted) - len(projections) == depth


@pytest.mark.parametrize(("version", "strides"), [("1", "2 1"), ("1.5", "1 2"), ("2", "1 2")])
def test_version_says_where_a_bottleneck_strides(version, strides):
    block = skeleton(ResNetConfig(50, version)).layer2[0]
    assert f"{block.conv1.stride[0]} {block.conv2.stride[0]}" == strides


@pytest.mark.parametrize(
    ("depth", "shortcut", "projections"),
    [
        (18, "projection", 3),
        (50, "projection", 4),
        (18, "projection-all", 8),
        (50, "projection-all", 16),
        (18, "identity-pad", 0),
        (50, "none", 0),
    ],
)
def test_shortcut_options_of_the_paper(depth, shortcut, projections):
    keys = skeleton(ResNetConfig(depth, shortcut=shortcut)).state_dict()
    assert sum(key.endswith("downsample.0.weight") for key in keys) == projections


def test_identity_pad_is_x_subsampled_and_zeros():
    block = build(ResNetConfig(18, shortcut="identity-pad", width=8)).layer2[0].eval()
    nn.init.zeros_(block.bn2.weight)  # F(x) = 0
    x = torch.rand(2, 8, 7, 6)
    with torch.no_grad():
        y = block(x)
    assert torch.equal(y[:, :8], x[:, :, ::2, ::2])
    assert torch.equal(y[:, 8:], torch.zeros(2, 8, 4, 3))


def test_pre_activation_leaves_the_identity_path_clean():
    network = build(ResNetConfig(50, "2", width=8)).eval()
    block = network.layer1[1]
    nn.init.zeros_(block.conv3.weight)  # F(x) = 0
    x = torch.randn(1, 32, 4, 4)
    with torch.no_grad():
        assert torch.equal(block(x), x)  # negative values too: no ReLU behind the addition
    names = {name for name, _ in network.named_modules()}
    assert {"final_bn", "final_relu", "layer1.1.bn1"} <= names
    assert "layer1.0.bn1" not in names  # the stem has activated it already


# --- every operation has a name ---------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("depth", [34, 50])
def test_every_module_runs_exactly_once(depth, shortcut, version):
    config = ResNetConfig(depth, version, shortcut, width=8, classes=5, blocks=(1, 2, 1, 1))
    network = skeleton(config)
    seen, logits = trace(network, torch.empty(1, 3, 64, 64, device="meta"))
    modules = {n for n, m in network.named_modules() if n and not isinstance(m, nn.Sequential)}
    assert set(seen) == modules
    assert all(len(outputs) == 1 for outputs in seen.values())
    assert logits.shape == (1, 5)


def test_names_of_a_bottleneck():
    seen, _ = trace(skeleton(ResNetConfig(50)), torch.empty(2, 3, 32, 32, device="meta"))
    block = [name.removeprefix("layer1.0.") for name in seen if name.startswith("layer1.0.")]
    expected = "conv1 bn1 relu1 conv2 bn2 relu2 conv3 bn3 downsample.0 downsample.1 add relu"
    assert block == expected.split()
    assert [n for n in seen if "." not in n and not n.startswith("layer")] == (
        ["conv1", "bn1", "relu", "maxpool", "avgpool", "flatten", "fc"]
    )


@pytest.mark.parametrize("version", ["1.5", "2"])
def test_features_are_the_four_stages(version):
    config = ResNetConfig(18, version, width=8, features=True)
    network = build(config).eval()
    outputs = network(torch.rand(1, 3, 64, 96))
    assert config.outputs == ("c2", "c3", "c4", "c5")
    assert [tuple(c.shape) for c in outputs] == [
        (1, 8, 16, 24),
        (1, 16, 8, 12),
        (1, 32, 4, 6),
        (1, 64, 2, 3),
    ]
    assert not any(key.startswith("fc") for key in network.state_dict())
    assert float(outputs[-1].detach().min()) >= 0.0


# --- initial weights --------------------------------------------------------------------


def test_initial_weights_depend_on_the_seed_alone():
    config = ResNetConfig(18, width=8)
    first = build(config, seed=3).state_dict()
    torch.manual_seed(99)
    again, other = build(config, seed=3).state_dict(), build(config, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_initial_weights_are_he_normal_by_fan_out():
    weight = build(ResNetConfig(50, width=16), seed=1).layer3[0].conv2.weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (9 * weight.shape[0])) ** 0.5, rel=0.02)


@pytest.mark.parametrize("depth", [18, 50])
def test_zeroed_branches_start_as_the_identity(depth):
    block = build(ResNetConfig(depth, width=8), zero_last=True).layer1[1].eval()
    x = torch.rand(1, 8 * ResNetConfig(depth).expansion, 4, 4)
    assert torch.equal(block(x), x)


def test_zero_last_leaves_a_plain_network_alive():
    network = build(ResNetConfig(18, shortcut="none", width=8), zero_last=True).eval()
    assert float(network(torch.rand(1, 3, 32, 32)).detach().std()) > 0


@pytest.mark.parametrize("config", [ResNetConfig(152, width=8), ResNetConfig(101, "2", width=8)])
def test_random_networks_stay_in_range_and_no_norm_is_the_identity(config):
    network = build(config).eval()
    randomize(network, seed=0)
    with torch.no_grad():
        logits = network(torch.rand(1, 3, 32, 32))
    assert 0.01 < float(logits.std()) < 1000
    initialize(network, seed=0)
    assert torch.equal(network.bn1.weight, torch.ones(8))


# --- configs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 51}, "depth 51 is unknown"),
        ({"depth": True}, "depth True is unknown"),
        ({"depth": "50"}, "depth '50' is unknown"),
        ({"version": "3"}, "version '3' is unknown"),
        ({"version": 1}, "version 1 is unknown"),
        ({"shortcut": "skip"}, "shortcut 'skip' is unknown"),
        ({"classes": 0}, "classes 0 is not a whole number"),
        ({"width": 0.5}, "width 0.5 is not a whole number"),
        ({"depth": 18, "groups": 32}, "depth 18 has basic blocks, which take no groups"),
        ({"groups": 32, "width_per_group": 4, "width": 8}, "0.5 channels a group"),
        ({"features": 1}, "features 1 is unknown"),
        ({"blocks": (1, 2)}, "blocks (1, 2) are not four numbers"),
        ({"blocks": (1, 2, 0, 1)}, "blocks 0 is not a whole number"),
    ],
)
def test_a_network_that_cannot_be_is_refused(change, words):
    with pytest.raises(InputError) as caught:
        ResNetConfig(**change)
    assert words in caught.value.problem
    assert caught.value.hint


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(),
        ResNetConfig(18, "2", "identity-pad", width=8, classes=10, features=True),
        ResNetConfig(50, groups=32, width_per_group=4, blocks=(1, 1, 2, 1)),
    ],
)
def test_config_survives_json(config):
    assert ResNetConfig.from_json(config.to_json(), where="here") == config


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "null", '{"depth": 51}', '{"colour": 1}', '{"blocks": [1]}', '{"width": "8"}',
     '{"blocks": 3}', '{"blocks": null}'],
)  # fmt: skip
def test_json_that_is_no_config_is_refused(text):
    with pytest.raises(InputError, match=r"^file\.safetensors: "):
        ResNetConfig.from_json(text, where="file.safetensors")


def test_names():
    assert [name_of(config) for config in VARIANTS.values()] == list(VARIANTS)
    assert name_of(ResNetConfig(18, "1", classes=10)) == "resnet18"
    assert name_of(ResNetConfig(50, "1")) == "resnet50-v1"
    odd = ResNetConfig(50, "2", "none", groups=8, width_per_group=16, width=16)
    assert name_of(odd) == "resnet50-v2-plain-groups8-width-per-group16-width16"
    assert name_of(ResNetConfig(18, blocks=(1, 1, 1, 1))) == "resnet18-blocks1.1.1.1"
    with pytest.raises(InputError, match="resnet51"):
        variant("resnet51")


def test_options_that_were_not_said_leave_the_base_alone():
    base = ResNetConfig(18, width=8, classes=10)
    assert ModelOptions().over(base) == base
    assert ModelOptions(depth=34).over(base) == dataclasses.replace(base, depth=34)
    with pytest.raises(InputError):
        ModelOptions(groups=32).over(base)


def test_a_fresh_module_is_an_ordinary_module():
    assert isinstance(ResNet(ResNetConfig(18, width=8)), nn.Module)
