"""An evaluation spread over a Ray cluster gives the predictions of one that ran here."""

import os
import signal
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from ray_local import cluster, workers_of
from tiny_nets import resnet, with_qdq, write

from calib_data.open import absolute
from core.errors import GraphError, InputError, MissingBackendError
from deploy.cli import cli
from deploy.evaluation import on_cluster
from deploy.evaluation.on_cluster import predict_on_cluster
from deploy.evaluation.opening import open_models
from deploy.evaluation.predict import open_part, predict
from deploy.evaluation.predictions_file import predictions_to_bytes, read_predictions
from deploy.images import ImageRequest
from exporter.calibration.work import Cluster

__all__ = ["cluster"]  # a fixture

IMAGES = 90


@pytest.fixture
def place(tmp_path):
    write(resnet(), tmp_path / "float.onnx")
    write(with_qdq(resnet()), tmp_path / "int8.onnx")
    stored(tmp_path / "d.npz")
    return tmp_path


def stored(path, seed=0, shift=0):
    images = np.random.default_rng(seed).standard_normal((IMAGES, 3, 16, 16)).astype(np.float32)
    images[-2:] = images[:2]  # two images are there twice
    np.savez(path, images=images, labels=(np.arange(IMAGES) + shift) % 10)


def run(place, *, data=None, here=False, fast=False, shard=(1, 1), progress=None, **request):
    """Evaluate here, or on a cluster that opens ``data``."""
    models = open_models([str(place / name) for name in ("float.onnx", "int8.onnx")]).models
    asked = ImageRequest(str(place / "d.npz"), **({"batch": 4} | request))
    images = open_part(list(models.values()), asked, shard)
    if here:
        return predict(list(models.values()), images)
    where = Cluster(absolute(str(data or place / "d.npz")))
    told = {} if progress is None else {"progress": progress}
    return predict_on_cluster(models, images, where, fast=fast, **told)


@pytest.mark.ray
def test_the_same_bytes_as_here(cluster, place):
    seen = []
    found = run(place, progress=lambda done, total: seen.append((done, total)))
    assert predictions_to_bytes(found) == predictions_to_bytes(run(place, here=True))
    assert seen[-1] == (IMAGES, IMAGES)
    assert len(seen) > 8
    assert seen == sorted(seen)
    for options in ({"batch": 64}, {"batch": 1}, {"images": 50, "seed": 3}, {"shard": (2, 3)}):
        found, wanted = run(place, **options), run(place, here=True, **options)
        assert predictions_to_bytes(found) == predictions_to_bytes(wanted), options


@pytest.mark.ray
def test_a_worker_that_dies_is_replaced(cluster, place):
    killed, parts = [], []

    def kill(done, total):
        parts.append(done)
        if len(parts) in (1, 3):
            for pid in workers_of(os.getpid()):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    found = run(place, progress=kill)
    assert len(set(killed)) > 1
    assert predictions_to_bytes(found) == predictions_to_bytes(run(place, here=True))


@pytest.mark.ray
def test_workers_that_see_something_else_are_found_out(cluster, place):
    (place / "other").mkdir()
    stored(place / "other" / "d.npz", seed=1)
    with pytest.raises(InputError, match="read other images than are here"):
        run(place, data=place / "other" / "d.npz")
    (place / "labels").mkdir()
    stored(place / "labels" / "d.npz", shift=1)  # the images, with other labels
    with pytest.raises(InputError, match="read other images than are here"):
        run(place, data=place / "labels" / "d.npz")
    with pytest.raises(InputError, match=r"no.npz.*no such data"):
        run(place, data=place / "no.npz")


@pytest.mark.ray
def test_an_error_of_a_worker_is_raised_here(cluster, place):
    with np.load(place / "d.npz") as held:
        images, labels = held["images"], held["labels"]
    images[11] = np.inf
    np.savez(place / "d.npz", images=images, labels=labels)
    with pytest.raises((GraphError, InputError), match="11"):
        run(place)


@pytest.mark.ray
def test_the_command_writes_the_file_of_a_run_here(cluster, place):
    command = ["evaluate", "float.onnx", "int8.onnx", "--data", "d.npz", "--fast"]
    written = []
    for name, more in (("here.npz", []), ("ray.npz", ["--ray"])):
        before = os.getcwd()  # noqa: PTH109
        os.chdir(place)
        try:
            done = CliRunner().invoke(cli, [*command, "--predictions", name, *more])
        finally:
            os.chdir(before)
        assert done.exit_code == 0, done.output
        written.append((done.stdout, (place / name).read_bytes()))
    assert written[0] == written[1]
    assert read_predictions(place / "ray.npz").models[1].backend.endswith("fast kernels")


def test_an_engine_takes_no_cluster(place):
    models = open_models([str(place / "float.onnx")]).models
    images = open_part(list(models.values()), ImageRequest(str(place / "d.npz")))
    engines = {"int8.engine": models[str(place / "float.onnx")]}
    with pytest.raises(InputError, match=r"int8.engine.*\n.*--shard I/N"):
        predict_on_cluster(engines, images, Cluster("d.npz"))


def test_without_ray(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingBackendError, match=r"Ray cannot be imported.*\n.*pip install"):
        run(place)


def test_another_model_at_the_same_path_is_found_out(place):
    text = str(place / "float.onnx")
    with pytest.raises(InputError, match=r"float.onnx: on .* another file than here"):
        on_cluster._open(((text, "0" * 64),), False, str(place / "d.npz"))


def test_what_is_named_is_found_from_anywhere(place, monkeypatch):
    monkeypatch.chdir(place)
    assert on_cluster._absolute("float.onnx") == str(place / "float.onnx")
    assert on_cluster._absolute("trt-network:int8.onnx") == f"trt-network:{place / 'int8.onnx'}"
    assert on_cluster._absolute("torch:random:0") == "torch:random:0"


@pytest.mark.parametrize("batch", [1, 4, 64, 300])
@pytest.mark.parametrize("workers", [1, 2, 64])
def test_parts_are_whole_batches(place, batch, workers):
    models = list(open_models([str(place / "float.onnx")]).models.values())
    images = open_part(models, ImageRequest(str(place / "d.npz"), batch=batch))
    parts = list(on_cluster._split(images, workers))
    np.testing.assert_array_equal(np.concatenate(parts), images.indices)
    assert all(len(part) % batch == 0 for part in parts[:-1])
    assert max(map(len, parts)) <= max(256, batch)


def test_what_takes_no_cluster_is_refused(place):
    for words, text in (
        (["p.npz", "--ray"], "run nowhere"),
        (["p.npz", "--shard", "1/2"], "in no shards"),
        (["--ray", "float.onnx"], "is a file, no address; write --ray behind MODEL"),
    ):
        done = CliRunner().invoke(cli, ["evaluate", *words])
        assert done.exit_code == 2
        assert text in done.stderr
