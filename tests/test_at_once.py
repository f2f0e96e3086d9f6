"""Several threads evaluate: in order, in bounded memory, to the same bits as one."""

import os
import threading
import time

import numpy as np
import onnx
import pytest
from tiny_nets import resnet, with_qdq, write

from core.errors import GraphError
from deploy.evaluation.at_once import in_order
from deploy.evaluation.opening import open_models
from deploy.evaluation.predict import open_part, predict
from deploy.evaluation.predictions_file import predictions_to_bytes
from deploy.images import ImageRequest
from deploy.runners import Model, open_model
from exporter.card import Card
from exporter.session import open_session

IMAGES = 45


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "d.npz"
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, 16, 16)).astype(np.float32)
    np.savez(path, images=images, labels=np.arange(IMAGES) % 10)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write(resnet(), folder / "float.onnx")
    write(with_qdq(resnet()), folder / "int8.onnx")
    return [str(folder / "float.onnx"), str(folder / "int8.onnx")]


def cpus(monkeypatch, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))


def answers(texts, request, *, fast=False):
    models = list(open_models(texts, fast=fast).models.values())
    return predictions_to_bytes(predict(models, open_part(models, request)))


def fake(answer, calls=1):
    return Model("fake", "0" * 64, "fake", Card(), "input", "logits", lambda feeds: {
        "logits": answer(feeds["input"])
    }, calls=calls)  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_however_threads_race(workers):
    def work(job):
        time.sleep(0.002 * (job % 3))
        return job * job

    assert list(in_order(work, range(30), workers=workers)) == [n * n for n in range(30)]
    assert list(in_order(work, (), workers=workers)) == []


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_no_more_is_taken_than_can_be_worked_on(workers):
    taken = []

    def jobs():
        for job in range(40):
            taken.append(job)
            yield job

    for seen, _ in enumerate(in_order(lambda job: job, jobs(), workers=workers)):
        assert len(taken) <= seen + workers + 2
        time.sleep(0.001)


def test_the_first_failure_is_raised_and_the_threads_end():
    def work(job):
        if job in (3, 4):
            time.sleep(0.02 if job == 3 else 0)  # the later one fails before it
            raise GraphError(f"job {job}", hint="none")
        return job

    before = threading.active_count()
    found = []
    with pytest.raises(GraphError, match="job 3"):
        for result in in_order(work, range(1000), workers=4):
            found.append(result)
    assert found == [0, 1, 2]
    assert threading.active_count() == before


def test_leaving_early_ends_the_threads():
    before = threading.active_count()
    results = in_order(lambda job: job, range(1000), workers=3)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("fast", [False, True])
def test_the_same_bits_in_any_batch_on_any_number_of_cpus(files, data, monkeypatch, fast):
    cpus(monkeypatch, 1)
    expected = answers(files, ImageRequest(data, batch=64), fast=fast)
    for count, batch in ((1, 1), (1, 7), (2, 1), (2, 44), (3, 64), (4, 9), (16, 64)):
        cpus(monkeypatch, count)
        found = answers(files, ImageRequest(data, batch=batch), fast=fast)
        assert found == expected, (count, batch)
    # The twin: another network gives other bits.
    assert answers(files[:1] * 2, ImageRequest(data), fast=fast) != expected


def test_a_call_takes_one_thread_where_several_run_at_once(files, monkeypatch):
    asked = []

    def record(source, **options):
        asked.append(options["threads"])
        return open_session(source, **options)

    monkeypatch.setattr("deploy.runners.onnx.open_session", record)
    cpus(monkeypatch, 3)
    assert [open_model(files[1], many=many).calls for many in (True, False)] == [3, 1]
    assert asked == [1, 0]


def test_a_thread_takes_its_part_of_a_batch(data):
    """64 images on two CPUs are 32 a thread; 8 at least; all of them for a serial model."""

    def sizes(batch, *calls):
        seen = []

        def answer(images):
            seen.append(len(images))
            return np.zeros((len(images), 10), np.float32)

        models = [fake(answer, count) for count in calls]
        predict(models, open_part(models, ImageRequest(data, batch=batch)))
        return sorted(set(seen))

    assert sizes(40, 2) == [5, 20]
    assert sizes(40, 16) == [5, 8]
    assert sizes(3, 2) == [3]
    assert sizes(40, 1) == [5, 40]
    assert sizes(40, 2, 1) == [5, 40]


def test_a_model_that_is_busy_by_itself_is_asked_in_turns(data):
    inside, most = {"serial": 0, "free": 0}, {"serial": 0, "free": 0}
    lock = threading.Lock()

    def answering(name):
        def answer(images):
            with lock:
                inside[name] += 1
                most[name] = max(most[name], inside[name])
            time.sleep(0.01)
            with lock:
                inside[name] -= 1
            return np.zeros((len(images), 10), np.float32)

        return answer

    models = [fake(answering("free"), 3), fake(answering("serial"))]
    predict(models, open_part(models, ImageRequest(data, batch=3)))
    assert most["serial"] == 1
    assert most["free"] > 1


def test_done_is_told_in_order(data):
    seen = []
    model = fake(lambda images: np.zeros((len(images), 10), np.float32), 4)
    images = open_part([model], ImageRequest(data, batch=8))
    predict([model], images, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, IMAGES) for done in (8, 16, 24, 32, 40, 45)]


@pytest.mark.parametrize("fixed", [1, 8])
def test_a_network_of_a_fixed_batch_takes_any_number(tmp_path, data, fixed):
    onnx.save(resnet(), tmp_path / "free.onnx")
    onnx.save(resnet(batch=fixed), tmp_path / "bound.onnx")
    images = np.load(data)["images"][:19]
    wanted = open_model(str(tmp_path / "free.onnx"), many=True).logits(images)
    np.testing.assert_allclose(
        open_model(str(tmp_path / "bound.onnx"), many=True).logits(images), wanted, rtol=1e-5
    )
