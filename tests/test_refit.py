"""Plans without weights, and plans that take others: loaded, filled, refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from gpu_stand_in import cuda_of, stand_ins
from onnx import numpy_helper
from tensorrt_nets import write

from core.artifacts import sha256_file
from core.errors import BuildError, InputError, MissingBackendError
from deploy.cli import cli
from deploy.engines import refit as refit_module
from deploy.engines.build import build
from deploy.engines.build_options import BuildOptions
from deploy.engines.flavour import load_flavour
from deploy.engines.manifest import manifest_path, read_manifest, verify_plan
from deploy.engines.plan_weights import OnnxWeights, weights_beside
from deploy.engines.refit import refit
from deploy.engines.target import BuildTarget, parse_batch
from deploy.machines.host import find_gpus
from deploy.preflights.described_host import described_host
from deploy.preflights.preflight import preflight
from deploy.runners import open_model
from deploy.runners.engine import open_engine
from deploy.runners.engine_files import EngineFiles
from exporter.session import open_session

RTX = replace(described_host("RTX 3090, driver 580, linux, tensorrt-rtx 1.7.1.116"), here=False)
IMAGES = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)


def trained_on(path, source, shift):
    """Write the same network with another bias of its classifier."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.name == "fc.bias":
            value = numpy_helper.to_array(tensor) + np.array(shift, "float32")
            tensor.CopyFrom(numpy_helper.from_array(value, "fc.bias"))
    onnx.save(model, path)
    return path


def declared(engine, **options):
    """Say of a plan how it was built."""
    manifest = read_manifest(engine)
    made = replace(manifest, options={**manifest.options, **options})
    manifest_path(engine).write_text(made.to_text())
    return engine


@pytest.fixture
def net(tmp_path):
    """A network, and its plan."""
    source = write(tmp_path / "n.onnx", "fp32", changes={"fc.bias": np.ones(5, np.float32)})
    target = BuildTarget(profiles=(parse_batch("1,2,4"),))
    return source, build(source, target, tmp_path / "n.engine").plan


@pytest.fixture
def stripped(net):
    return net[0], declared(net[1], weights="stripped")


@pytest.fixture
def gpu(net, tmp_path, monkeypatch):
    """A TensorRT whose engine has the weights of another file until it is given some."""
    blank = trained_on(tmp_path / "blank.onnx", net[0], 100.0)
    flavour, library, _ = stand_ins(blank.read_bytes())
    blank.unlink()
    monkeypatch.setattr(refit_module, "load_flavour", lambda _: flavour)
    return flavour, library


def logits(gpu, manifest, weights):
    flavour, library = gpu
    files = EngineFiles(weights=weights)
    model, session = open_engine(flavour, b"plan", manifest, cuda=cuda_of(library)(), files=files)
    answers = model.logits(IMAGES)
    session.close()
    return answers


def expected(source):
    return open_session(source, optimize=False)({"input": IMAGES})["logits"]


def test_a_plan_without_weights_answers_with_those_of_its_onnx_file(stripped, gpu):
    source, plan = stripped
    manifest = verify_plan(plan)
    weights = weights_beside(plan, manifest)
    assert weights.path == source
    with pytest.raises(InputError, match=r"n\.engine: was built without its weights"):
        logits(gpu, manifest, None)
    # One with its weights is left alone: the stand-in's own are 100 more.
    whole = verify_plan(declared(plan, weights="in the plan"))
    np.testing.assert_allclose(logits(gpu, whole, weights), expected(source) + 100, rtol=1e-5)
    np.testing.assert_allclose(logits(gpu, manifest, weights), expected(source), rtol=1e-5)


def test_its_onnx_file_is_found_by_digest_whatever_its_name(stripped, tmp_path):
    source, plan = stripped
    manifest = read_manifest(plan)
    other = source.rename(tmp_path / "elsewhere.onnx")
    trained_on(source, other, 1.0)  # of the likely name, and another training
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff")
    assert weights_beside(plan, manifest) == OnnxWeights(other.read_bytes(), other)
    other.unlink()
    with pytest.raises(InputError, match="is not beside it") as caught:
        weights_beside(plan, manifest)
    assert "strata refit" in caught.value.hint


def test_weights_that_tensorrt_does_not_take_are_an_error_with_its_words(stripped, gpu):
    source, plan = stripped
    model = onnx.load(source)
    del model.graph.initializer[:]
    weights = OnnxWeights(model.SerializeToString(), source)
    with pytest.raises(BuildError, match=r"does not take its weights.*no initializer named fc"):
        logits(gpu, read_manifest(plan), weights)
    assert not gpu[1].taken  # the memory of the GPU was given back


def test_preflight_looks_for_the_weights(stripped, monkeypatch):
    source, plan = stripped
    found = {f.check: f for f in preflight(plan, RTX).findings}["weights"]
    assert (found.state, found.note) == ("yes", "they are in n.onnx beside it")
    source.unlink()
    assert {f.check: f.state for f in preflight(plan, RTX).findings}["weights"] == "not said"
    here = preflight(plan, replace(RTX, here=True, gpus=()))
    assert {f.check: f.state for f in here.findings}["weights"] == "no"
    assert isinstance(here.error(), InputError)
    assert "weights" not in {f.check for f in preflight(declared(plan, weights=None), RTX).findings}


def test_refit_writes_a_plan_with_weights_and_its_manifest(stripped, gpu, tmp_path):
    source, plan = stripped
    made = refit(plan, source, tmp_path / "whole.engine", host=RTX)
    assert verify_plan(tmp_path / "whole.engine") == made
    assert made.options["weights"] == "in the plan"
    assert made.parents == {"onnx": sha256_file(source)}
    data = (tmp_path / "whole.engine").read_bytes()
    assert data == b"a plan with the weights of " + source.read_bytes()
    assert made.plan_sha256 == hashlib.sha256(data).hexdigest()


def test_other_weights_go_into_a_plan_that_takes_them_only(stripped, gpu, tmp_path):
    source, plan = stripped
    other = trained_on(tmp_path / "other.onnx", source, 1.0)
    with pytest.raises(InputError, match=r"other\.onnx: not the file that n\.engine was built"):
        refit(plan, other, tmp_path / "o.engine", host=RTX)
    declared(plan, weights="in the plan")
    with pytest.raises(InputError, match="takes no others"):
        refit(plan, source, tmp_path / "o.engine", host=RTX)
    assert not (tmp_path / "o.engine").exists()
    manifest = read_manifest(declared(plan, refit=True))
    manifest_path(plan).write_text(replace(manifest, accuracy={"top1": 0.9}).to_text())
    made = refit(plan, other, tmp_path / "o.engine", host=RTX)
    assert made.parents == {"onnx": sha256_file(other)}
    assert made.accuracy == {}  # it was that of the other weights
    assert made.options["refit"] is True
    assert [flag.name for flag in gpu[0].module.engine.flags] == ["INCLUDE_REFIT"]


def test_refit_refuses_what_does_not_fit_before_it_loads_anything(stripped, gpu, tmp_path):
    source, plan = stripped
    with pytest.raises(BuildError, match="TensorRT-RTX does not serve H100"):
        refit(plan, source, tmp_path / "o.engine", host=described_host("H100"))
    with pytest.raises(MissingBackendError, match="no GPU"):
        refit(plan, source, tmp_path / "o.engine", host=described_host("no gpu"))
    with pytest.raises(InputError, match="would overwrite"):
        refit(plan, source, source, host=RTX)
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match="not those it was built with"):
        refit(plan, source, tmp_path / "o.engine", host=RTX)


def test_the_command(stripped, gpu, tmp_path, monkeypatch):
    source, plan = stripped
    monkeypatch.setattr(refit_module, "this_host", lambda: RTX)
    words = ["refit", str(plan), str(source), "-o", str(tmp_path / "o.engine")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "its manifest beside it" in done.stdout
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert json.loads(done.stdout) == json.loads((tmp_path / "o.engine.json").read_text())
    done = CliRunner().invoke(cli, ["refit", str(plan), str(tmp_path / "no.onnx"), "-o", "x"])
    assert (done.exit_code, "cannot be read" in done.stderr) == (2, True)


def test_a_version_compatible_plan_may_run_its_own_runtime_and_no_other(net, gpu):
    flavour, _ = gpu
    plan = net[1]
    logits(gpu, read_manifest(plan), None)
    assert flavour.module.engine_host_code_allowed is False
    logits(gpu, read_manifest(declared(plan, version_compatible=True)), None)
    assert flavour.module.engine_host_code_allowed is True


def test_kernels_are_kept_after_the_first_answer(net, gpu, tmp_path):
    flavour, library = gpu
    files = EngineFiles(kernels=tmp_path / "k" / "n.bin")

    def answer():
        opening = {"cuda": cuda_of(library)(), "files": files}
        model, session = open_engine(flavour, b"plan", read_manifest(net[1]), **opening)
        assert files.kernels.exists() is bool(compiled)
        model.logits(IMAGES)
        session.close()
        compiled.append(flavour.module.engine.caches[-1].compiled)

    compiled = []
    answer()
    assert files.kernels.read_bytes().startswith(b"kernels")
    answer()
    assert compiled == [1, 0]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["fp16", "int8fp16"])
def test_a_real_plan_without_weights_is_smaller_and_answers_the_same(tmp_path, kind):
    flavour = load_flavour()
    capability = find_gpus().devices[0].capability
    targets = (capability,) if flavour.capabilities else ()
    source = write(tmp_path / "n.onnx", kind)
    whole = build(source, BuildTarget(capabilities=targets), tmp_path / "w.engine", flavour=flavour)
    options = BuildOptions(strip_weights=True)
    target = BuildTarget(capabilities=targets, options=options)
    stripped = build(source, target, tmp_path / "s.engine", flavour=flavour)
    assert stripped.manifest.plan_bytes < whole.manifest.plan_bytes
    made = refit(stripped.plan, source, tmp_path / "filled.engine", flavour=flavour)
    assert made.plan_bytes > stripped.manifest.plan_bytes
    one, other, filled = (
        open_model(str(tmp_path / f"{name}.engine")).logits(IMAGES) for name in ("w", "s", "filled")
    )
    np.testing.assert_allclose(other, one, atol=1e-2)
    np.testing.assert_allclose(filled, one, atol=1e-2)


@pytest.mark.gpu
def test_a_real_refittable_plan_takes_another_training(tmp_path):
    flavour = load_flavour()
    capability = find_gpus().devices[0].capability
    targets = (capability,) if flavour.capabilities else ()
    target = BuildTarget(capabilities=targets, options=BuildOptions(refit=True))
    source = write(tmp_path / "n.onnx", "fp32")
    other = trained_on(tmp_path / "other.onnx", source, 3.0)
    plan = build(source, target, tmp_path / "n.engine", flavour=flavour).plan
    refit(plan, other, tmp_path / "other.engine", flavour=flavour)
    answers = open_model(str(tmp_path / "other.engine")).logits(IMAGES)
    np.testing.assert_allclose(answers, expected(other), atol=1e-2)
