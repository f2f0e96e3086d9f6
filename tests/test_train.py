"""Training: the arithmetic it rests on, the same bytes every time, stopped or not, refusals."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import exporter.train
from calib_data.preprocess import PRESETS, PreprocessSpec
from core.errors import GraphError, InputError, StrataError
from deploy.cli import cli
from exporter.models.config import DEPTHS, ResNetConfig
from exporter.models.resnet import build
from exporter.models.training import images as images_module
from exporter.models.training import resume as resume_module
from exporter.models.training.images import Images, load_images, order
from exporter.models.training.learner import Learner, Recipe, has_fast_bfloat16, one_cycle
from exporter.models.training.products import use_products
from exporter.models.training.single_pixel import keep_strides_within
from exporter.train import DEFAULTS, TrainOptions, train
from exporter.weights import load_weights, save_checkpoint

TINY = ResNetConfig(18, width=8, classes=3, blocks=(1, 1, 1, 1))
SPEC = PreprocessSpec((16, 16), None, "bilinear", (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(autouse=True)
def one_thread():
    """Nets this small are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclasses.dataclass
class Squares:
    """Images of three classes: a bright patch at one of three places."""

    count: int
    seed: int = 0
    name: str = "squares:train"
    class_names: tuple = ("left", "middle", "right")
    preprocessed: bool = False
    labelled: bool = True
    sizes: tuple = (18,)

    def __len__(self):
        return self.count

    @property
    def labels(self):
        return np.arange(self.count) % 3 if self.labelled else None

    def where(self, index):
        return f"{self.name}: image {index}"

    def image(self, index):
        side = self.sizes[index % len(self.sizes)]
        rng = np.random.default_rng((self.seed, index))
        image = rng.integers(0, 100, (side, side, 3), dtype=np.uint8)
        start = index % 3 * 6
        image[5:12, start : start + 6] += 120
        return image

    def tensor(self, index, spec):
        return spec.apply(self.image(index))

    def digest(self, index):
        return f"{self.seed:032x}{index:032x}"


OPTIONS = TrainOptions(passes=640, batch=16, lr=0.1, flip=False, preprocess=SPEC)


def run(options=OPTIONS, progress=None, *, config=TINY, count=48):
    extra = () if progress is None else (progress,)
    test = Squares(30, seed=1, name="squares:test")
    return train(config, Squares(count), test, options, *extra)


def saved(checkpoint, path):
    save_checkpoint(checkpoint, path)
    return path.read_bytes()


# --- products ---------------------------------------------------------------------------


def gradients(layer, x, seed=0):
    y = layer(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=y.dtype)
    return y.detach(), *torch.autograd.grad(y, [x, layer.weight], g)


@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
)
def test_products_give_a_convolutions_results_and_gradients(sizes, height, width, kernel, stride):
    count, inputs, outputs = sizes
    generator = torch.Generator().manual_seed(1)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False).double()
    layer.weight.data.normal_(generator=generator)
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(count, inputs, height, width, generator=generator, dtype=torch.double)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    expected = gradients(layer, x)
    use_products(layer)
    assert type(layer) is not nn.Conv2d
    for ours, theirs in zip(gradients(layer, x), expected, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_wrong_tap_would_be_seen():
    layer = nn.Conv2d(2, 2, 3, padding=1, bias=False).double()
    x = torch.randn(1, 2, 2, 2, dtype=torch.double).requires_grad_()
    expected = gradients(layer, x)
    use_products(layer)
    layer.weight.data = layer.weight.data.flip(3)
    ours = gradients(layer, x)
    assert all(
        not torch.allclose(a, b, rtol=1e-3) for a, b in zip(ours[:2], expected[:2], strict=True)
    )


def test_products_leave_names_groups_and_other_layers_alone():
    network = build(ResNetConfig(50, groups=2, width_per_group=32, width=8, classes=3))
    keys = list(network.state_dict())
    use_products(network)
    assert list(network.state_dict()) == keys
    assert type(network.layer1[0].conv2) is nn.Conv2d
    assert type(network.layer1[0].conv1) is not nn.Conv2d


@given(
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    kernel=st.sampled_from([(1, 0), (3, 1), (7, 3), (3, 0), (2, 1)]),
    groups=st.sampled_from([1, 2]),
)
def test_strides_within_one_pixel_are_left_out_and_nothing_changes(height, width, kernel, groups):
    size, padding = kernel
    if min(height, width) + 2 * padding < size:
        return
    generator = torch.Generator().manual_seed(1)
    layer = nn.Conv2d(2, 4, size, 2, padding, groups=groups).double()
    layer.weight.data.normal_(generator=generator)
    x = torch.randn(2, 2, height, width, generator=generator, dtype=torch.double).requires_grad_()
    expected = gradients(layer, x)
    keep_strides_within(layer)
    assert type(layer) is not nn.Conv2d
    for ours, theirs in zip(gradients(layer, x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_gradients_in_bfloat16_are_those_of_float32(size):
    """On a CPU that multiplies bfloat16; elsewhere in software, which is right too."""
    layer = nn.Conv2d(32, 64, 3, 2, 1, bias=False)
    keep_strides_within(layer)
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(16, 32, size, size, generator=torch.Generator().manual_seed(0))
    found = []
    for half in (False, True):
        stale = [torch.full((1 << bits,), torch.nan) for bits in range(8, 20)]
        del stale  # what nobody writes to is NaN
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            layer(x).float().square().sum().backward()
        found.append(layer.weight.grad.clone())
    error = (found[1] - found[0]).norm() / found[0].norm()
    assert error < 0.02


# --- the course of a training -----------------------------------------------------------


@given(st.floats(0, 1))
def test_the_cycle_stays_in_bounds(done):
    rate, momentum = one_cycle(done)
    assert 0 < rate <= 1
    assert 0.85 <= momentum <= 0.95


def test_the_cycle_rises_and_falls():
    rates = [one_cycle(done / 100)[0] for done in range(101)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[20] == pytest.approx(1)
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[100] < 1e-5
    assert one_cycle(0.2)[1] == pytest.approx(0.85)
    assert one_cycle(1.0)[1] == pytest.approx(0.95)


@given(
    images=st.integers(1, 50),
    batch=st.integers(1, 120),
    steps=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_the_order_does_not_depend_on_the_batch_and_shows_all(images, batch, steps, seed):
    total = batch * steps
    whole, coins = order(0, total, images, seed=seed)
    parts = [order(step * batch, batch, images, seed=seed) for step in range(steps)]
    assert np.array_equal(whole, np.concatenate([places for places, _ in parts]))
    assert np.array_equal(coins, np.concatenate([mirrored for _, mirrored in parts]))
    for epoch in range(total // images):
        shown = whole[epoch * images : (epoch + 1) * images]
        assert sorted(shown) == list(range(images))


def test_the_order_is_another_one_each_epoch_and_with_each_seed():
    first, _ = order(0, 100, 100, seed=0)
    second, coins = order(100, 100, 100, seed=0)
    other, _ = order(0, 100, 100, seed=1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert 30 < coins.sum() < 70
    assert first[:8].tolist() == [11, 92, 3, 20, 13, 2, 59, 53]  # whatever numpy's version


def test_mirrored_images_are_mirrored_left_to_right():
    pixels = torch.arange(2 * 2 * 3 * 3, dtype=torch.float32).reshape(2, 2, 3, 3)
    kept = pixels.clone()
    images = Images(pixels, torch.tensor([0, 1]))
    batch = images.batch(np.array([1, 0]), np.array([True, False]))
    assert torch.equal(batch[0], pixels[1].permute(2, 0, 1).flip(2))
    assert torch.equal(batch[1], pixels[0].permute(2, 0, 1))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, kept)


@pytest.mark.parametrize("config", [TINY, ResNetConfig(50, width=8, classes=3)])
def test_a_learner_takes_the_steps_of_pytorchs_own_optimizer(config):
    recipe = Recipe(lr=0.05, weight_decay=1e-2)
    learner = Learner(config, recipe)
    network = build(config, seed=0, zero_last=True)
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 1e-2},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 32, 32, generator=generator)
    y = torch.arange(8) % 3
    for step in range(4):
        rate, momentum = one_cycle(step / 4)
        for group in reference.param_groups:
            group |= {"lr": 0.05 * rate, "momentum": momentum}
        loss = nn.functional.cross_entropy(network(x), y, label_smoothing=0.05)
        reference.zero_grad()
        loss.backward()
        reference.step()
        ours = learner.step(x.to(memory_format=torch.channels_last), y, step / 4)
        assert ours == pytest.approx(float(loss.detach()), rel=1e-3)
    expected = network.state_dict()
    weights = learner.weights()
    worst = max(
        float(
            (weights[key] - expected[key]).abs().max() / expected[key].abs().max().clamp(min=1e-6)
        )
        for key in expected
        if expected[key].is_floating_point()
    )
    assert worst < 2e-2
    assert all(tensor.is_contiguous() for tensor in weights.values())


def test_bfloat16_is_used_only_where_the_cpu_has_it():
    assert has_fast_bfloat16() in (True, False)
    loss = Learner(TINY, Recipe(lr=0.01, bfloat16=True)).step(
        torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]), 0.0
    )
    assert math.isfinite(loss)


# --- training ---------------------------------------------------------------------------


def test_a_network_learns_and_says_how(tmp_path):
    steps = []
    result = run(progress=lambda done, total, note="": steps.append((done, total, note)))
    assert float(result.origin["top1"]) >= 0.9
    assert result.origin["top1_of"] == "30 images of squares:test"
    assert result.origin["name"] == "squares"
    assert result.origin["passes"] == "640"
    assert len(result.origin["data_sha256"]) == 64
    assert result.labels == ("left", "middle", "right")
    assert result.preprocess == SPEC
    assert steps[0][:2] == (16, 640)
    assert steps[-1][:2] == (640, 640)
    assert steps[-1][2].startswith("loss ")
    save_checkpoint(result, tmp_path / "w.safetensors")
    loaded = load_weights(str(tmp_path / "w.safetensors"))
    source = Squares(30, seed=1)
    x = torch.from_numpy(np.stack([source.tensor(index, SPEC) for index in range(30)]))
    answers = loaded.network()(x).argmax(1).numpy()
    assert f"{np.mean(answers == source.labels):.4f}" == result.origin["top1"]


def test_an_untrained_network_does_not_pass_for_a_trained_one():
    assert float(run(dataclasses.replace(OPTIONS, lr=1e-9)).origin["top1"]) < 0.9


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},
        {"shortcut": "none"},
        {"depth": 50, "blocks": (1, 1, 1, 1), "groups": 2, "width_per_group": 32},
    ],
)
def test_every_kind_of_network_trains(change):
    options = dataclasses.replace(OPTIONS, passes=64)
    result = run(options, config=dataclasses.replace(TINY, **change))
    assert all(torch.isfinite(tensor).all() for tensor in result.state_dict.values())


def test_the_seed_alone_decides(tmp_path):
    options = dataclasses.replace(OPTIONS, passes=96, flip=True)
    first = saved(run(options), tmp_path / "a")
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - the global state must not matter
    assert saved(run(options), tmp_path / "b") == first
    assert saved(run(dataclasses.replace(options, seed=1)), tmp_path / "c") != first


class Stop:
    """Ctrl-C after some steps."""

    def __init__(self, after):
        self.left = after
        self.first = None

    def __call__(self, done, total, note=""):
        self.first = self.first or done
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_a_stopped_training_carries_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(resume_module, "_MOST", math.inf)  # save at every step
    whole = saved(run(), tmp_path / "a")
    state = tmp_path / ".w.resume"
    options = dataclasses.replace(OPTIONS, resume=state, resume_every_s=0.0)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(options, Stop(after=13))
    assert state.is_file()
    last = Stop(after=1000)
    assert saved(run(options, last), tmp_path / "b") == whole
    assert last.first == 27 * 16  # 13 + 13 steps were not taken again
    assert not state.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"lr": 0.05}, {"passes": 656}, {"batch": 8}, {"flip": True}]
)
def test_a_changed_option_starts_anew(tmp_path, change):
    options = dataclasses.replace(OPTIONS, resume=tmp_path / ".r", resume_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(options, Stop(after=2))
    other = Stop(after=1)
    changed = dataclasses.replace(options, **change)
    with pytest.raises(KeyboardInterrupt):
        run(changed, other)
    assert other.first == changed.batch


@pytest.mark.parametrize("keep", [0, 1, -500])
def test_a_damaged_state_starts_anew(tmp_path, keep):
    options = dataclasses.replace(OPTIONS, resume=tmp_path / ".r", resume_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        run(options, Stop(after=2))
    (tmp_path / ".r").write_bytes((tmp_path / ".r").read_bytes()[:keep])
    again = Stop(after=1)
    with pytest.raises(KeyboardInterrupt):
        run(options, again)
    assert again.first == 16


def test_a_diverged_training_says_what_to_do():
    with pytest.raises(GraphError, match="diverged: the loss is nan") as caught:
        run(dataclasses.replace(OPTIONS, lr=1e12))
    assert "--lr 2.5e+11" in caught.value.hint


# --- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 1}, "batch 1 is too small"),
        ({"passes": 10}, "10 image passes are less than one batch of 64"),
        ({"lr": 0.0}, "learning rate 0.0"),
        ({"lr": math.nan}, "learning rate nan"),
        ({"seed": -1}, "seed -1 is negative"),
    ],
)
def test_options_that_cannot_train_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        TrainOptions(**{"passes": 1000, **change})


@pytest.mark.parametrize(
    ("learn", "test", "words"),
    [
        (Squares(48, labelled=False), Squares(30), "no labels"),
        (Squares(48), Squares(30, labelled=False), "no labels"),
        (Squares(48), Squares(30, preprocessed=True), "only one of"),
        (Squares(48), Squares(30, class_names=("a", "b", "c")), "its classes are not those"),
    ],
)
def test_images_that_cannot_be_learnt_from_are_refused(learn, test, words):
    with pytest.raises(InputError, match=words):
        train(TINY, learn, test, OPTIONS)


def test_labels_without_an_output_are_refused():
    with pytest.raises(InputError, match="labels go up to 2, the network has 2 classes"):
        load_images(Squares(6), SPEC, classes=2)


@pytest.mark.parametrize("sizes", [(18, 20), (20, 18)])
def test_images_of_many_sizes_are_refused(sizes):
    spec = dataclasses.replace(SPEC, resize=None)
    with pytest.raises(InputError, match="pixels"):
        load_images(Squares(6, sizes=sizes), spec, classes=3)


def test_images_that_would_fill_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(images_module.os, "sysconf", lambda _name: 64)
    with pytest.raises(InputError, match="48 images of 16×16 take"):
        load_images(Squares(48), SPEC, classes=3)


# --- the command ------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """Two small .npz files of labelled images."""
    for name, seed in (("train", 0), ("test", 1)):
        source = Squares(48, seed=seed)
        pixels = np.stack([source.image(index) for index in range(48)])
        np.savez(tmp_path / f"{name}.npz", images=pixels, labels=source.labels)
    return [f"--data={tmp_path / 'train.npz'}", f"--test-data={tmp_path / 'test.npz'}"]


TINY_RUN = ["--depth=18", "--width=8", "--passes=64", "--batch=16",
            "--preprocess=resize=16,crop=16,mean=0.5,std=0.25"]  # fmt: skip


def invoke(*arguments):
    return CliRunner().invoke(cli, ["train", *arguments])


def test_the_command_writes_weights_and_says_what_they_are(tmp_path, data):
    out = tmp_path / "new" / "w.safetensors"
    done = invoke(*TINY_RUN, *data, "-o", str(out))
    assert done.exit_code == 0, done.output
    assert "resnet18-width8, 3 classes" in done.stdout
    assert "of 48 images of test" in done.stdout
    assert [path.name for path in out.parent.iterdir()] == ["w.safetensors"]
    config = load_weights(str(out)).config
    assert config == ResNetConfig(18, width=8, classes=3)
    again = tmp_path / "b.safetensors"
    facts = json.loads(invoke(*TINY_RUN, *data, "-o", str(again), "--json").stdout)
    assert facts["weights"]["passes"] == "64"
    assert again.read_bytes() == out.read_bytes()


def test_fashion_mnist_needs_no_more_words(tmp_path, monkeypatch):
    seen = []

    def stub(config, learn, test, options, progress):
        seen.append((config, learn.name, test.name, options))
        raise GraphError("enough", hint="-")

    monkeypatch.setattr(exporter.train, "train", stub)
    out = tmp_path / "w.safetensors"
    done = invoke("--depth=34", "--seed=3", "-o", str(out))
    assert done.exit_code == GraphError.exit_code
    (config, learn, test, options) = seen[0]
    assert config == ResNetConfig(34, classes=10)
    assert (learn, test) == ("fashion-mnist:train", "fashion-mnist:test")
    expected = dataclasses.replace(
        DEFAULTS[34], seed=3, preprocess=PRESETS["fashion-mnist"],
        resume=tmp_path / ".w.safetensors.resume",
    )  # fmt: skip
    assert options == expected
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--depth=51"], 2, "'51' is not one of"),
        (["--data=nowhere"], 2, "--test-data"),
        (["--data=nowhere", "--test-data=nowhere"], 2, "nowhere"),
        (["--preprocess=nonsense"], 2, "nonsense"),
        (["--lr=0"], 2, "--lr"),
        (["--passes=10"], 2, "10 image passes are less than one batch"),
        (["--depth=18", "--groups=32"], 2, "basic blocks, which take no groups"),
    ],
)
def test_the_command_refuses_in_words(tmp_path, arguments, code, words):
    out = tmp_path / "w.safetensors"
    done = invoke(*arguments, "-o", str(out))
    assert done.exit_code == code
    assert words in done.output
    assert "Traceback" not in done.output
    assert not out.exists()


def test_the_command_needs_to_know_how_images_are_prepared(tmp_path, data):
    done = invoke("--depth=18", *data, "-o", str(tmp_path / "w.safetensors"))
    assert done.exit_code == InputError.exit_code
    assert "--preprocess" in done.output


@pytest.mark.parametrize("name", ["w.pth", "file/w.safetensors", "folder.safetensors"])
def test_an_output_that_cannot_be_is_refused_before_the_training(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    done = invoke("--depth=18", "-o", str(tmp_path / name))
    assert done.exit_code in (2, 8)
    assert "hint:" in done.output


def test_there_are_defaults_for_every_depth():
    assert tuple(DEFAULTS) == DEPTHS
    assert issubclass(GraphError, StrataError)
