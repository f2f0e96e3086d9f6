"""A calibration spread over a Ray cluster ends in the file of one that ran here."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from ray_local import cluster, workers_of
from resnet_graph import resnet
from test_statistics import TENSORS, toy

from calib_data.open import absolute, open_data
from calib_data.preprocess import PRESETS
from core.artifacts import sha256_file
from core.errors import CalibrationError, InputError, MissingBackendError
from deploy.cli import cli
from exporter.calibrate import calibrate
from exporter.calibration import ray_cluster
from exporter.calibration.statistics import read_statistics
from exporter.calibration.work import CalibrationOptions, Cluster, ImageSet, Taps, plan_work
from exporter.card import Card
from exporter.onnx_file import save

__all__ = ["cluster"]  # a fixture

COUNT = 40


@pytest.fixture
def model(tmp_path):
    return toy(tmp_path / "toy.onnx")


@pytest.fixture
def images(tmp_path):
    """Random inputs, three of them twice."""
    images = np.random.default_rng(1).uniform(0.1, 1, (COUNT, 3, 8, 8)).astype(np.float32)
    images[-3:] = images[:3]
    return stored(tmp_path, images)


def stored(folder, images):
    np.savez(folder / "images.npz", images=images)
    return folder / "images.npz"


def run(model, path, *, data=None, progress=None, **options):
    """Calibrate here, or on a cluster that opens ``data``."""
    source = open_data(str(path))
    where = None if data is None else Cluster(absolute(str(data)))
    return calibrate(
        model,
        ImageSet(source, np.arange(len(source)), None),
        TENSORS,
        CalibrationOptions(cluster=where, **options),
        **({} if progress is None else {"progress": progress}),
    )


@pytest.mark.ray
def test_the_same_bytes_as_here(cluster, model, images):
    seen = []
    found = run(model, images, data=images, progress=lambda done, total: seen.append((done, total)))
    assert found.to_bytes() == run(model, images).to_bytes()
    assert seen[-1] == (COUNT, COUNT)
    assert len(seen) > 8
    assert seen == sorted(seen)


@pytest.mark.ray
def test_threads_and_shards(cluster, model, images):
    for options in ({"threads": 2}, {"shard": (2, 3)}):
        found = run(model, images, data=images, **options)
        assert found.to_bytes() == run(model, images, **options).to_bytes()
    with pytest.raises(InputError, match="3 threads on a Ray cluster of 2 CPUs"):
        run(model, images, data=images, threads=3)


@pytest.mark.ray
def test_an_error_names_tensor_and_image(cluster, tmp_path, model):
    images = np.random.default_rng(1).uniform(0.1, 1, (COUNT, 3, 8, 8)).astype(np.float32)
    images[11] = -1
    path = stored(tmp_path, images)
    with pytest.raises(CalibrationError, match=r"'d': 0 NaN and 512 Inf among 512 .* image 11"):
        run(model, path, data=path)


@pytest.mark.ray
def test_a_worker_that_dies_is_replaced(cluster, model, images):
    killed, parts = [], []

    def kill(done, total):
        parts.append(done)
        if len(parts) in (1, 3):
            for pid in workers_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    found = run(model, images, data=images, progress=kill)
    assert len(set(killed)) > 1
    assert found.to_bytes() == run(model, images).to_bytes()


@pytest.mark.ray
def test_what_was_interrupted_is_carried_on(cluster, tmp_path, model, images):
    partial = tmp_path / ".statistics.npz.partial"

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, images, data=images, partial=partial, progress=stop)
    left = len(read_statistics(partial).images)
    assert 0 < left < COUNT
    seen = []
    found = run(
        model, images, data=images, partial=partial, progress=lambda done, _: seen.append(done)
    )
    assert seen[0] > left
    assert found.to_bytes() == run(model, images, partial=partial).to_bytes()
    assert found.to_bytes() == run(model, images).to_bytes()


@pytest.mark.ray
def test_workers_that_see_other_images_are_found_out(cluster, tmp_path, model, images):
    (tmp_path / "other").mkdir()
    other = stored(tmp_path / "other", np.ones((COUNT, 3, 8, 8), np.float32))
    with pytest.raises(InputError, match="read other images than are here"):
        run(model, images, data=other)
    with pytest.raises(InputError, match=r"no.npz.*no such data"):
        run(model, images, data=tmp_path / "no.npz")


@pytest.mark.ray
def test_the_command_starts_a_cluster_quietly(tmp_path):
    pytest.importorskip("ray")
    model, out = tmp_path / "model.onnx", tmp_path / "ray.npz"
    save(resnet((1,), size=32), model, Card(preprocess=PRESETS["fashion-mnist"]))
    command = ["calibrate", str(model), "--images", "100"]
    here = CliRunner().invoke(cli, [*command, "-o", str(tmp_path / "here.npz")])
    assert here.exit_code == 0, here.output
    code = "import sys; from deploy.cli import main; main()"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "-o", str(out), "--ray", "local"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("calibrate: ")]
    assert (done.returncode, said) == (0, [])
    assert out.read_bytes() == (tmp_path / "here.npz").read_bytes()


@pytest.mark.ray
@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1"])
def test_no_cluster_at_the_address(model, images, address):
    pytest.importorskip("ray").shutdown()
    source = open_data(str(images))
    options = CalibrationOptions(cluster=Cluster(str(images), address))
    with pytest.raises(MissingBackendError, match=f"no Ray cluster at {address}"):
        calibrate(model, ImageSet(source, np.arange(3), None), TENSORS, options)


def test_without_ray(tmp_path, model, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingBackendError, match=r"Ray cannot be imported.*\n.*pip install"):
        run(model, images, data=images)


def test_a_model_is_no_address(model):
    for arguments in (["--ray", str(model)], ["--ray", "gone.onnx"]):
        done = CliRunner().invoke(cli, ["calibrate", *arguments])
        assert done.exit_code == 2
        assert "is a file, no address; write --ray behind MODEL" in done.stderr


@pytest.mark.parametrize("count", [1, 7, 16, 17, 100, 512, 5000])
@pytest.mark.parametrize("workers", [1, 2, 64])
def test_every_image_is_in_one_part(count, workers):
    images = [(f"{i:04}", i) for i in range(count)]
    parts = list(ray_cluster._split(images, workers))
    assert [image for part in parts for image in part] == images
    assert max(map(len, parts)) <= 32
    assert len(parts) >= min(count, 4 * workers)


def test_another_model_at_the_same_path_is_found_out(model, images):
    with pytest.raises(InputError, match=r"toy.onnx: on .* another file than here"):
        ray_cluster._open(str(model), "0" * 64, str(images), (tuple(TENSORS), ()))


def test_a_worker_counts_what_it_was_asked_for(model, tmp_path, images):
    """Without a cluster: what it would run of a part."""
    source = open_data(str(images))
    data = ImageSet(source, np.arange(COUNT), None)
    work = plan_work(sha256_file(model), data, Taps(tuple(TENSORS)), CalibrationOptions())
    job = ray_cluster._Job(str(model), absolute(str(images)), None, work.start, 1)
    assert ray_cluster._count(job, work.left).to_bytes() == run(model, images).to_bytes()
    other = [("0" * 64, 0)], [(source.digest(0), 1)], [*work.left, (source.digest(0), COUNT)]
    for part in other:
        with pytest.raises(InputError, match="read other images than are here"):
            ray_cluster._count(job, tuple(part))
