"""Running a bundle: by a plan, by one built here, by ONNX Runtime; streams, and what breaks."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from gpu_stand_in import cuda_of, stand_ins
from PIL import Image
from refusal import refused
from tiny_nets import SPEC, resnet, with_qdq, write

import deploy
from core.errors import BuildError, MissingBackendError
from deploy.bundle import choose, opening
from deploy.bundle.cache import PlanKey, cached_plan
from deploy.bundle.contents import read_contents
from deploy.bundle.opening import Opening, open_classifier
from deploy.bundle.reader import open_bundle
from deploy.bundle.writer import write_bundle
from deploy.cli import cli
from deploy.engines.build import build
from deploy.engines.manifest import ShapeRange, manifest_path
from deploy.engines.target import BuildTarget, OptimizationProfile, parse_targets
from deploy.frames import as_frames, named_frames
from deploy.preflights.described_host import DescribedHost, described_host
from deploy.runners import open_model
from deploy.runners.engine import open_engine
from deploy.runners.engine_files import EngineFiles
from exporter.onnx_file import Card, save

LABELS = tuple(f"kind {at}" for at in range(10))
NO_GPU = DescribedHost("box", gpus=(), no_gpu="no NVIDIA driver", flavours={})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network with its plan, as `make export` leaves them."""
    path = tmp_path_factory.mktemp("net")
    save(with_qdq(resnet()), path / "int8.onnx", Card(SPEC, LABELS, stage="int8"))
    target = BuildTarget(
        (OptimizationProfile(2, 4, 6),), size=(16, 16), capabilities=parse_targets("sm86")
    )
    build(path / "int8.onnx", target, path / "int8.engine")
    return path


@pytest.fixture(scope="module")
def bundle(folder):
    done = CliRunner().invoke(cli, ["bundle", str(folder)])
    assert done.exit_code == 0, done.stderr
    return folder / f"{folder.name}.strata.zip"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures in one folder a class, as `strata evaluate` reads them."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for at in range(40):
        path = root / LABELS[at % 10] / f"{at:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return root


def run(*arguments):
    return CliRunner().invoke(cli, ["run", *map(str, arguments)])


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_it_answers_what_evaluate_counts(bundle, folder, photos, tmp_path):
    out = tmp_path / "accuracy.json"
    done = CliRunner().invoke(
        cli,
        ["evaluate", str(folder / "int8.onnx"), "--data", str(photos), "--json", str(out)],
    )
    assert done.exit_code == 0, done.output
    counted = json.loads(out.read_text())["models"][0]
    answers = lines(run(bundle, photos, "--on", "cpu", "--json", "--batch", "7"))
    assert len(answers) == 40
    right = [Path(a["image"]).parent.name for a in answers]
    named = [[rank["label"] for rank in a["top"]] for a in answers]
    assert counted["top1"] == sum(r == n[0] for r, n in zip(right, named, strict=True))
    assert counted["top5"] == sum(r in n for r, n in zip(right, named, strict=True))


def test_scores_are_the_softmax_of_the_logits(bundle, folder, photos):
    model = open_model(str(folder / "int8.onnx"))
    file = photos / "kind 3" / "03.png"
    with open_classifier(bundle, Opening(on="cpu")) as ours:
        (answer,) = ours.classify([file], top=10)
    logits = model.logits(SPEC.apply(np.asarray(Image.open(file)))[None])[0]
    scores = np.exp(logits) / np.exp(logits).sum()
    assert [r.index for r in answer.top] == list(np.argsort(-logits))
    assert [r.score for r in answer.top] == pytest.approx(np.sort(scores)[::-1])
    assert answer.top[0].label == LABELS[answer.top[0].index]


def test_the_command_prints_a_table_or_lines(bundle, photos):
    file = photos / "kind 0" / "00.png"
    done = run(bundle, file, "--on", "cpu")
    assert done.exit_code == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head == str(file)
    assert len(rows) == 5
    assert all("%  kind " in row for row in rows)
    assert "ONNX Runtime runs the graph on the CPU" in done.stderr
    (line,) = run(bundle, file, "--on", "cpu", "--top", "1").stdout.splitlines()
    assert line.endswith(str(file))


def test_a_broken_image_does_not_stop_the_rest(bundle, photos, tmp_path):
    broken, cut = tmp_path / "broken.jpg", tmp_path / "cut.png"
    broken.write_bytes(b"no image")
    whole = photos / "kind 1" / "01.png"
    cut.write_bytes(whole.read_bytes()[:300])
    os.mkfifo(tmp_path / "pipe.png")
    names = [whole, broken, tmp_path / "none.jpg", cut, tmp_path / "pipe.png", tmp_path, whole]
    done = run(bundle, *names, "--on", "cpu", "--json", "--batch", "2")
    assert done.exit_code == 2
    answers = lines(done)
    assert ["error" in answer for answer in answers] == [False, *[True] * 7, False]
    assert answers[0]["top"] == answers[-1]["top"]
    assert "7 of 9 images have no answer" in done.stderr
    assert "Traceback" not in done.output


def test_a_folder_without_images_is_said(bundle, tmp_path, photos):
    done = run(bundle, tmp_path, photos / "kind 0", "--on", "cpu", "--json")
    assert done.exit_code == 2
    assert "holds no images" in lines(done)[0]["error"]
    assert len(lines(done)) == 5


def test_a_stream_takes_what_classify_takes(bundle, photos):
    file = sorted(photos.rglob("*.png"))[0]
    pixels = np.asarray(Image.open(file).convert("RGB"))
    images = [file, pixels, str(file), pixels[0], pixels.tolist(), pixels]
    with open_classifier(bundle, Opening(on="cpu", batch=2)) as model:
        answers = list(model.stream(images))
    named = [[ranked.index for ranked in answer.top] for answer in answers]
    assert named == [named[0], named[0], named[0], [], [], named[0]]
    assert [a.image for a in answers[3:]] == ["image 4", "image 5", "image 6"]
    assert "not an image" in str(answers[3].error)
    assert "image 5: list, not an image" in str(answers[4].error)


def test_a_thousand_images_take_no_more_memory_than_fifty(bundle):
    pixels = np.zeros((256, 256, 3), np.uint8)  # 0.2 MB each
    with open_classifier(bundle, Opening(on="cpu")) as model:

        def peak(count):
            source = (pixels.copy() for _ in range(count))
            assert sum(1 for _ in model.stream(as_frames(source))) == count
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        before = peak(50)
        assert peak(1000) - before < 20_000  # kB; all of them are 200 MB


def test_no_more_than_two_batches_are_taken_ahead(bundle):
    taken = []

    def source():
        for at in range(100):
            taken.append(at)
            yield np.zeros((16, 16, 3), np.uint8)

    with open_classifier(bundle, Opening(on="cpu", batch=5)) as model:
        stream = model.stream(as_frames(source()))
        next(stream)
        assert len(taken) == 10
        stream.close()
        assert len(taken) == 10
    with open_classifier(bundle, Opening(on="cpu", batch=1)) as model:
        taken.clear()
        next(model.stream(as_frames(source())))
        assert len(taken) == 1  # a camera's picture does not wait for the next


def test_an_array_that_is_no_image_is_refused(bundle):
    with deploy.open(bundle, on="cpu") as model:
        refused(lambda: model.classify([np.zeros((4, 4), np.uint8)]), "image 1")
        refused(lambda: model.classify([np.zeros((4, 4, 3), np.float32)]), "float32")
        assert model.classify([]) == []


def test_threads_get_the_answers_of_one(bundle, photos):
    files = sorted(photos.rglob("*.png"))
    with deploy.open(str(bundle), on="cpu", batch=3) as model:
        alone, found = model.classify(files), {}
        threads = [
            threading.Thread(target=lambda at=at: found.update({at: model.classify(files)}))
            for at in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert list(found.values()) == [alone] * 3


@pytest.fixture
def gpu(folder, monkeypatch, tmp_path):
    """A machine with a GPU, as far as anybody can tell."""
    flavour, library, seen = stand_ins(folder / "int8.onnx")
    monkeypatch.setattr(opening, "load_flavour", lambda *_: flavour)
    monkeypatch.setattr(opening, "load_cuda", cuda_of(library))
    monkeypatch.setenv("STRATA_CACHE", str(tmp_path / "cache"))
    return types.SimpleNamespace(flavour=flavour, library=library, seen=seen)


RTX = described_host("RTX 3090, driver 580, linux, x86_64, tensorrt-rtx 1.7.1")


def test_a_plan_that_fits_runs_and_answers_as_the_graph(bundle, folder, photos, gpu):
    files = sorted(photos.rglob("*.png"))[:15]  # parts of 6, 6 and 3; and one smaller than 2
    with open_classifier(bundle, Opening(on="cpu")) as cpu:
        expected = cpu.classify(files)
    with open_classifier(bundle, Opening(), host=RTX) as model:
        assert model.notes == ("by plans/rtx-1.7.1.116-linux-x86_64-sm86.engine of the bundle",)
        assert model.batch == 4  # what the plan is tuned for
        for batch in (1, 4, 15):
            model.batch = batch
            assert model.classify(files) == expected
        held = len(gpu.library.taken)
    assert gpu.seen == [(folder / "int8.engine").read_bytes()]
    assert held == 4  # input and output, here and there
    assert not gpu.library.taken  # all was given back


def test_buffers_are_taken_once(folder, gpu):
    model, session = open_engine(gpu.flavour, b"plan", _manifest(folder), cuda=_cuda(gpu))
    taken = dict(gpu.library.taken)
    for count in (6, 1, 13, 2):
        images = np.random.default_rng(count).standard_normal((count, 3, 16, 16))
        first = model.logits(images.astype(np.float32))
        assert first.shape == (count, 10)
        assert gpu.library.taken == taken
    session.close()
    session.close()


@pytest.mark.parametrize(
    ("profiles", "used"),
    [
        # images → profile and batch of each part
        (((1, 1, 1), (4, 8, 8)), {1: [(0, 1)], 2: [(1, 4)], 8: [(1, 8)], 9: [(1, 8), (0, 1)]}),
        (((4, 8, 8), (1, 2, 3)), {1: [(1, 1)], 3: [(1, 3)], 4: [(0, 4)], 11: [(0, 8), (1, 3)]}),
        (((1, 8, 32),), {1: [(0, 1)], 33: [(0, 32), (0, 1)]}),
    ],
)
def test_a_batch_goes_by_the_profile_that_fits_it(folder, gpu, monkeypatch, profiles, used):
    def shapes(batch):
        return ShapeRange(*((n, 3, 16, 16) for n in batch))

    manifest = _manifest(folder)
    manifest = replace(manifest, profiles=tuple({"input": shapes(p)} for p in profiles))
    model, session = open_engine(gpu.flavour, b"plan", manifest, cuda=_cuda(gpu))
    assert session.shapes == ShapeRange(
        *((n, 3, 16, 16) for n in (1, 8, max(p[2] for p in profiles)))
    )
    seen = []
    context = session.context
    run = context.execute_async_v3
    monkeypatch.setattr(
        context,
        "execute_async_v3",
        lambda stream: seen.append((context.profile, context.batch[0])) or run(stream),
    )
    images = np.random.default_rng(0).standard_normal((33, 3, 16, 16)).astype(np.float32)
    alone = np.concatenate([model.logits(images[at : at + 1]) for at in range(33)])
    for count, expected in used.items():
        seen.clear()
        np.testing.assert_allclose(model.logits(images[:count]), alone[:count], rtol=1e-4)
        assert seen == expected
    session.close()


def _manifest(folder):
    from deploy.engines.manifest import read_manifest

    return read_manifest(folder / "int8.engine")


def _cuda(gpu, device=0):
    return cuda_of(gpu.library)(device)


def test_what_rtx_compiles_is_kept_for_the_next_start(bundle, gpu, tmp_path):
    def start():
        with open_classifier(bundle, host=RTX):
            pass
        return gpu.flavour.module.engine.caches[-1].compiled

    assert [start(), start()] == [1, 0]
    (kept,) = (tmp_path / "cache" / "kernels").iterdir()
    kept.write_bytes(b"of another GPU")
    assert [start(), start()] == [1, 0]
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("in the way")  # a cache that cannot be written stops nobody
    assert [start(), start()] == [1, 1]


def test_tensorrt_has_no_such_cache(folder, gpu, tmp_path):
    gpu.flavour.module.engine = types.SimpleNamespace(
        create_execution_context=gpu.flavour.module.engine.create_execution_context
    )
    path = tmp_path / "k.bin"
    model, session = open_engine(
        gpu.flavour, b"plan", _manifest(folder), cuda=_cuda(gpu), files=EngineFiles(path)
    )
    assert model.logits(np.zeros((2, 3, 16, 16), np.float32)).shape == (2, 10)
    session.keep_kernels()
    session.close()
    assert not path.exists()


def test_a_plan_without_weights_takes_those_of_the_bundles_graph(folder, photos, gpu, tmp_path):
    for name in ("int8.onnx", "int8.engine"):
        shutil.copy(folder / name, tmp_path / name)
    manifest = _manifest(folder)
    stripped = replace(manifest, options={**manifest.options, "weights": "stripped"})
    manifest_path(tmp_path / "int8.engine").write_text(stripped.to_text())
    done = CliRunner().invoke(cli, ["bundle", str(tmp_path), "-o", str(tmp_path / "n.zip")])
    assert done.exit_code == 0, done.output
    blank = onnx.load(folder / "int8.onnx")
    for tensor in blank.graph.initializer:
        if tensor.name == "fc.bias":
            tensor.raw_data = np.full(10, 9, np.float32).tobytes()
    gpu.flavour.module.engine.graph = blank.SerializeToString()
    files = sorted(photos.rglob("*.png"))[:4]
    with open_classifier(tmp_path / "n.zip", Opening(on="cpu")) as cpu:
        expected = cpu.classify(files)
    with open_classifier(tmp_path / "n.zip", Opening(), host=RTX) as model:
        assert model.classify(files) == expected
    assert gpu.flavour.module.engine.graph == (folder / "int8.onnx").read_bytes()


def test_a_plan_with_debug_tensors_is_not_shipped(folder, tmp_path):
    for name in ("int8.onnx", "int8.engine"):
        shutil.copy(folder / name, tmp_path / name)
    manifest = _manifest(folder)
    shown = replace(manifest, options={**manifest.options, "debug_tensors": True})
    manifest_path(tmp_path / "int8.engine").write_text(shown.to_text())
    words = ["bundle", str(tmp_path), "-o", str(tmp_path / "n.zip")]
    done = CliRunner().invoke(cli, words)
    assert "int8.engine was built with --debug-tensors, and is left out" in done.stderr
    done = CliRunner().invoke(cli, [*words, "--plan", str(tmp_path / "int8.engine")])
    assert (done.exit_code, "to compare and not to ship" in done.stderr) == (2, True)


def test_images_of_another_size_are_refused(folder, gpu):
    _, session = open_engine(gpu.flavour, b"plan", _manifest(folder), cuda=_cuda(gpu))
    for shape in ((1, 3, 15, 16), (1, 1, 16, 16), (0, 3, 16, 16), (3, 16, 16)):
        feeds = {"input": np.zeros(shape, np.float32)}
        refused(lambda feeds=feeds: session(feeds), "takes images of 3×16×16")
    session.close()


def test_what_tensorrt_does_not_load_is_said_and_given_back(folder, gpu):
    gpu.flavour.module.engine = None
    with pytest.raises(BuildError, match=r"does not load int8.engine") as caught:
        open_engine(gpu.flavour, b"plan", _manifest(folder), cuda=_cuda(gpu))
    assert "preflight" in caught.value.hint
    assert not gpu.library.taken


def test_a_gpu_without_memory_is_said_and_given_back(folder):
    flavour, library, _ = stand_ins(folder / "int8.onnx", memory=20_000)
    with pytest.raises(MissingBackendError, match=r"out of memory") as caught:
        open_engine(flavour, b"plan", _manifest(folder), cuda=cuda_of(library)())
    assert "smaller --batch" in caught.value.hint
    assert not library.taken
    with pytest.raises(MissingBackendError, match="invalid device ordinal"):
        cuda_of(library)(7)


def test_where_no_plan_fits_one_is_built_once(bundle, photos, gpu):
    files = sorted(photos.rglob("*.png"))[:3]
    ada = described_host("L4, driver 580, linux, x86_64, tensorrt-rtx 1.7.1")
    told = []

    def progress(done, total, note=""):
        told.append(done)

    with open_classifier(bundle, host=ada, progress=progress) as model:
        first = model.classify(files)
        assert "built for sm86, not for L4" in model.notes[0]
        assert "built here just now" in model.notes[1]
    assert told
    told.clear()
    with open_classifier(bundle, host=ada, progress=progress) as model:
        assert model.classify(files) == first
        assert "built here before" in model.notes[1]
    assert not told
    assert gpu.seen[0] == gpu.seen[1]
    kept = Path(model.notes[1].split()[1].rstrip(","))
    assert {p.name for p in kept.parent.iterdir()} == {
        ".lock",
        "model.engine",
        "model.engine.json",
    }
    kept.write_bytes(kept.read_bytes()[:-1])  # damaged: built again
    with open_classifier(bundle, host=ada, progress=progress) as model:
        assert "built here just now" in model.notes[1]


def test_of_two_that_need_a_plan_one_builds_and_the_other_waits(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("STRATA_CACHE", str(tmp_path))
    manifest = _manifest(folder)
    key = PlanKey(manifest.parents["onnx"], "rtx", manifest.version, "L4", ("1,8,32",))
    built, found = [], []

    def make(path):
        built.append(path)
        time.sleep(0.2)
        shutil.copy(folder / "int8.engine", path)
        shutil.copy(folder / "int8.engine.json", f"{path}.json")

    threads = [
        threading.Thread(target=lambda: found.append(cached_plan(key, make))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert sorted(new for *_, new in found) == [False, False, True]
    for other in (replace(key, gpu="L40"), replace(key, batches=("8,8,8",))):
        assert cached_plan(other, make)[2]
    # a plan of another version in its place is none
    key = replace(key, version="9.9")
    cached_plan(key, make)
    assert cached_plan(key, make)[2]


def test_a_graph_whose_weights_lie_elsewhere_is_refused(tmp_path, monkeypatch):
    """A hostile bundle could have any file of the device read as weights."""
    monkeypatch.chdir(tmp_path)
    model = with_qdq(resnet())
    onnx.save(
        model, tmp_path / "int8.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    done = CliRunner().invoke(cli, ["bundle", str(tmp_path)])
    assert done.exit_code == 2
    assert "its weights lie in a file beside it" in done.stderr
    write_bundle(tmp_path / "b.zip", {"model.onnx": tmp_path / "int8.onnx"})
    with_spec = Opening(on="cpu", preprocess="fashion-mnist")
    refused(lambda: open_classifier(tmp_path / "b.zip", with_spec), "in another file ('w')")


def test_a_cache_that_cannot_be_written_is_said(bundle, gpu, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRATA_CACHE", str(tmp_path / "file" / "cache"))
    ada = described_host("L4, driver 580, linux, x86_64, tensorrt-rtx 1.7.1")
    with pytest.raises(Exception, match="cannot be kept") as caught:
        open_classifier(bundle, host=ada)
    assert "STRATA_CACHE" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "on", "kind", "says"),
    [
        (NO_GPU, "auto", "onnxruntime", "no GPU here (no NVIDIA driver)"),
        (RTX, "cpu", "onnxruntime", "the CPU was asked for"),
        (RTX, "auto", "plan", ""),
        (RTX, "gpu", "plan", ""),
        (described_host("L4, linux, x86_64, tensorrt-rtx 1.7.1"), "auto", "build", "not for L4"),
        (described_host("Orin, tensorrt 10.3.0"), "auto", "build", "does not serve Orin"),
        (described_host("RTX 3090, linux, tensorrt-rtx 1.8.0"), "auto", "build", "there is 1.8.0"),
        (described_host("H100, linux, tensorrt 10.9.0"), "auto", "build", "TensorRT-RTX"),
    ],
)
def test_the_way_is_chosen(bundle, host, on, kind, says):
    with open_bundle(bundle) as opened:
        way = choose.choose(opened, read_contents(opened), host, on)
    assert way.kind == kind
    assert says in " ".join(way.notes)
    if kind == "build":
        rtx = "rtx" in (host.flavours or {})
        assert way.flavour == ("rtx" if rtx else "tensorrt")


@pytest.mark.parametrize(
    ("host", "on", "error", "hint"),
    [
        (NO_GPU, "gpu", MissingBackendError, "--on cpu"),
        (
            DescribedHost("box", gpus=RTX.gpus, flavours={}),
            "auto",
            MissingBackendError,
            "strata[rtx]",
        ),
        (described_host("H100, tensorrt-rtx 1.7.1"), "auto", BuildError, "strata[tensorrt]"),
        (described_host("Orin, tensorrt-rtx 1.7.1"), "auto", BuildError, "JetPack"),
    ],
)
def test_a_gpu_that_nothing_serves_is_no_reason_to_be_slow_in_silence(
    bundle, host, on, error, hint
):
    with open_bundle(bundle) as opened, pytest.raises(error) as caught:
        choose.choose(opened, read_contents(opened), host, on)
    assert hint in caught.value.hint


def test_with_nothing_to_run_it_both_ways_are_named(bundle, monkeypatch):
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(MissingBackendError, match="ONNX Runtime is not installed") as caught:
        open_classifier(bundle, Opening(on="cpu"))
    assert "pip install onnxruntime" in caught.value.hint


def test_a_bundle_without_preprocessing_asks_for_it(folder, tmp_path, photos):
    write(resnet(), tmp_path / "optimized.onnx", spec=None)
    done = CliRunner().invoke(cli, ["bundle", str(tmp_path), "-o", str(tmp_path / "n.zip")])
    assert "does not say how images are prepared" in done.stderr
    refused(lambda: open_classifier(tmp_path / "n.zip", Opening(on="cpu")), "does not say how")
    file = photos / "kind 0" / "00.png"
    options = ["--preprocess", "resize=16,crop=16,mean=0.5,std=0.5", "--on", "cpu"]
    done = run(tmp_path / "n.zip", file, *options)
    assert done.exit_code == 0, done.stderr
    assert "class " in done.stdout  # without names
    # images of two sizes, each answered with its kind
    Image.new("RGB", (40, 10)).save(tmp_path / "wide.png")
    options[1] = "resize=16,mean=0.5,std=0.5"
    done = run(tmp_path / "n.zip", file, tmp_path / "wide.png", file, *options, "--json")
    assert done.exit_code == 0, done.stderr
    assert lines(done)[0] == lines(done)[2]


def test_nan_is_an_error_of_its_image(bundle):
    with open_classifier(bundle, Opening(on="cpu", batch=2)) as model:
        real = model.model.run
        at = iter(range(9))

        def broken(feeds):
            values = real(feeds)
            if next(at) == 1:
                values["logits"][0, 3] = np.nan
            return values

        object.__setattr__(model.model, "run", broken)
        frames = as_frames(np.zeros((16, 16, 3), np.uint8) for _ in range(6))
        bad = [answer.error is not None for answer in model.stream(frames)]
    assert bad == [False, False, True, False, False, False]


class Capture:
    """OpenCV's VideoCapture, as far as it is used: three frames of blue."""

    released = 0

    def __init__(self, source):
        self.left = 3 if source in (0, "clip.mp4") or str(source).endswith("clip.mp4") else 0
        self.opened = self.left > 0

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.opened

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((8, 8, 3), (255, 0, 0), np.uint8)

    def release(self):
        Capture.released += 1


def test_videos_and_cameras_come_through_opencv(monkeypatch, tmp_path):
    cv2 = types.SimpleNamespace(
        VideoCapture=Capture, COLOR_BGR2RGB=4, cvtColor=lambda image, *_: image[..., ::-1]
    )
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    clip, empty = tmp_path / "clip.mp4", tmp_path / "empty.mkv"
    clip.write_bytes(b"")
    empty.write_bytes(b"")
    names = [str(clip), "camera:0", str(empty), "camera:9", "camera:x", str(tmp_path / "no.mp4")]
    frames = list(named_frames(names))
    good, bad = frames[:6], frames[6:]
    assert [f.name for f in good] == [f"{n}#{at}" for n in names[:2] for at in (1, 2, 3)]
    assert (good[0].load() == (0, 0, 255)).all()  # blue, in RGB
    for frame in bad:
        refused(frame.load, frame.name)
    assert len(bad) == 4
    assert Capture.released == 4


def test_without_opencv_a_video_is_named_and_the_way_to_it(monkeypatch, bundle, photos):
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = run(bundle, "clip.mp4", photos / "kind 0" / "00.png", "--on", "cpu")
    assert done.exit_code == 3
    assert "pip install opencv-python-headless" in done.stderr
    assert "kind" in done.stdout


def test_the_runtime_imports_neither_torch_nor_onnx(bundle, photos):
    """And `import deploy` next to nothing."""
    code = (
        "import sys\nclass Fence:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'onnx', 'onnx_ir', 'onnxscript'):\n"
        "            raise ImportError(f'{name} is not on an edge machine')\n"
        "sys.meta_path.insert(0, Fence())\nimport deploy\n"
        "assert 'numpy' not in sys.modules and 'click' not in sys.modules\n"
        f"with deploy.open({str(bundle)!r}, on='cpu') as model:\n"
        f"    print(model.classify([{str(photos / 'kind 0' / '00.png')!r}])[0].top[0].label)\n"
        "from deploy.cli import cli\n"
        f"for words in (['verify', {str(bundle)!r}], ['inspect', {str(bundle)!r}], "
        f"['preflight', {str(bundle)!r}], ['doctor'], ['run', {str(bundle)!r}, "
        f"{str(photos / 'kind 0' / '00.png')!r}, '--on', 'cpu']):\n"
        "    cli(words, standalone_mode=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kind ")


@pytest.mark.gpu
def test_a_real_engine_answers_as_the_graph(folder, photos, tmp_path):
    """On a GPU: a plan built for it, loaded, asked, and held against ONNX Runtime."""
    done = CliRunner().invoke(cli, ["bundle", str(folder), "-o", str(tmp_path / "n.zip")])
    assert done.exit_code == 0
    files = sorted(photos.rglob("*.png"))
    with deploy.open(tmp_path / "n.zip", on="gpu") as model:
        ours = model.classify(files)
    with deploy.open(tmp_path / "n.zip", on="cpu") as model:
        theirs = model.classify(files)
    same = sum(a.top[0].index == b.top[0].index for a, b in zip(ours, theirs, strict=True))
    assert same >= 38
