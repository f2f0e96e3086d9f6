"""The degradation bench: its networks differ in the addition alone, its verdict can be no."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.models.config import ResNetConfig
from exporter.models.resnet import skeleton
from exporter.models.training.images import Images

SCRIPT = Path(__file__).parents[1] / "bench" / "degradation.py"
spec = importlib.util.spec_from_file_location("degradation", SCRIPT)
bench = importlib.util.module_from_spec(spec)
# A frozen dataclass looks up its module by name while it is made.
__import__("sys").modules["degradation"] = bench
spec.loader.exec_module(bench)

SETTING = bench.Setting(passes=64, batch=16, lr=0.1, width=8, shallow=1, deep=2, seeds=3)


def runs(plain_gap, residual_gap, noise=0.01, seeds=3):
    """Runs whose deeper network ends ``gap`` above the shallower one, give or take noise."""
    found = []
    for kind, gap in (("plain", plain_gap), ("residual", residual_gap)):
        for seed in range(seeds):
            for layers, last in ((10, 0.5), (18, 0.5 + gap + noise * (seed - 1))):
                found.append(bench.Run(kind, layers, seed, (1.0, last), last))
    return found


@pytest.mark.parametrize(
    ("plain", "residual", "ends", "seen"),
    [
        (0.3, -0.1, ("higher", "lower"), True),
        (0.3, 0.0, ("higher", "alike"), True),
        (0.3, 0.2, ("higher", "higher"), False),
        (-0.3, -0.1, ("lower", "lower"), False),
        (0.0, 0.0, ("alike", "alike"), False),
    ],
)
def test_the_verdict_is_what_the_numbers_say(plain, residual, ends, seen):
    verdict = bench.judge(runs(plain, residual))
    assert tuple(verdict["kinds"][kind]["deeper_ends"] for kind in ("plain", "residual")) == ends
    assert verdict["degradation_seen"] is seen
    text = bench.table(verdict, 3)
    assert ("\nSeen: " in text) is seen
    assert ("\nNot seen" in text) is not seen
    assert verdict["kinds"]["plain"]["gap"] == pytest.approx(plain)


def test_one_seed_proves_nothing():
    verdict = bench.judge(runs(0.3, -0.1, seeds=1))
    assert verdict["degradation_seen"] is False
    assert "no error known" in bench.table(verdict, 1)


def test_plain_and_residual_have_the_same_weights():
    shapes = [
        {
            key: tensor.shape
            for key, tensor in skeleton(
                ResNetConfig(18, shortcut=shortcut, width=8, blocks=(2,) * 4)
            ).state_dict().items()
        }
        for shortcut in bench._KINDS.values()
    ]  # fmt: skip
    assert shapes[0] == shapes[1]


def test_layers_are_counted_as_the_paper_counts():
    assert [bench.layers_of(blocks) for blocks in (2, 4, 6)] == [18, 34, 50]


def test_a_small_run_from_end_to_end(monkeypatch, tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = Images(torch.randn(48, 16, 16, 3, generator=generator), torch.arange(48) % 10)
    monkeypatch.setattr(bench, "_images", lambda: images)
    threads = torch.get_num_threads()
    done = [
        bench.train_one(SETTING, kind, blocks, seed)
        for kind in ("plain", "residual")
        for blocks in (1, 2)
        for seed in range(2)
    ]
    torch.set_num_threads(threads)
    assert [run.layers for run in done[:4]] == [10, 10, 18, 18]
    assert all(len(run.curve) == 4 for run in done)
    assert all(run.last == pytest.approx(run.curve[-1]) for run in done)
    assert np.isfinite([run.curve for run in done]).all()
    for name in ("a.png", "b.png"):
        bench.draw(done, SETTING, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
