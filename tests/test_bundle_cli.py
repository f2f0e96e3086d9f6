"""`strata bundle` and `strata verify` as a user meets them; what is collected; signatures."""

import json
import os
import random
import shutil
import stat
import subprocess

import numpy as np
import pytest
from click.testing import CliRunner
from refusal import refused
from tiny_nets import SPEC, resnet, with_qdq, write

from core.artifacts import sha256_file
from core.errors import MissingBackendError
from deploy.bundle import signature
from deploy.bundle.contents import MODEL, read_contents
from deploy.bundle.reader import open_bundle
from deploy.bundle.verify import verify
from deploy.bundle.writer import write_bundle
from deploy.cli import cli
from deploy.engines.build import build
from deploy.engines.target import BuildTarget, OptimizationProfile, parse_targets
from exporter.onnx_file import Card, save

LABELS = ("T-shirt/top", "naïve", *(f"kind {at}" for at in range(8)))


def strata(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


def plan(onnx, path, gpus="sm86", batch=4):
    target = BuildTarget((OptimizationProfile(batch, batch, batch),), (16, 16), parse_targets(gpus))
    return build(onnx, target, path).plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An output folder: a graph trained on the embedded images, and plans of two kinds."""
    folder = tmp_path_factory.mktemp("net")
    weights = {"name": "fashion-mnist", "data": "fashion-mnist:train"}
    card = Card(SPEC, LABELS, weights, stage="int8")
    save(with_qdq(resnet()), folder / "int8.onnx", card)
    plan(folder / "int8.onnx", folder / "int8.engine")
    plan(folder / "int8.onnx", folder / "ada.engine", "sm89,sm120")
    (folder / "accuracy.json").unlink(missing_ok=True)
    (folder / "notes.txt").write_text("not ours")
    return folder


@pytest.fixture(scope="module")
def bundle(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "net.strata.zip"
    done = strata("bundle", made, "-o", path)
    assert done.exit_code == 0, done.stderr
    return path


def test_what_belongs_to_the_network_is_in_it(bundle, made):
    with open_bundle(bundle) as opened:
        contents = read_contents(opened)
        assert opened.read(MODEL) == (made / "int8.onnx").read_bytes()
        assert list(opened.files) == [
            "labels.json",
            "licences/fashion-mnist.txt",
            "model.onnx",
            "plans/rtx-1.7.1.116-linux-x86_64-sm86.engine",
            "plans/rtx-1.7.1.116-linux-x86_64-sm86.engine.json",
            "plans/rtx-1.7.1.116-linux-x86_64-sm89-sm120.engine",
            "plans/rtx-1.7.1.116-linux-x86_64-sm89-sm120.engine.json",
            "preprocess.json",
        ]
        assert b"Zalando" in opened.read("licences/fashion-mnist.txt")
    assert contents.preprocess == SPEC
    assert contents.labels == LABELS
    assert [p.manifest.targets for p in contents.plans] == [("sm86",), ("sm89", "sm120")]
    assert verify(bundle).error() is None


def test_the_same_folder_gives_the_same_bytes(bundle, made, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(made, copy)
    for file in copy.iterdir():
        os.utime(file, (10, 10))
    again = tmp_path / "again.zip"
    assert strata("bundle", copy, "-o", again).exit_code == 0
    assert again.read_bytes() == bundle.read_bytes()


def test_200_flipped_bytes_are_each_detected_by_the_command(bundle, tmp_path):
    data = bundle.read_bytes()
    with open_bundle(bundle) as opened:
        names = {*opened.files, "index.json", "the end of the zip"}
    path, picked = tmp_path / "flipped.zip", random.Random(1)
    for at in (picked.randrange(len(data)) for _ in range(200)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << picked.randrange(8)
        path.write_bytes(flipped)
        done = strata("verify", path)
        assert done.exit_code == 2
        (row, *_) = done.stdout.splitlines()[1:]
        assert row.split(None, 1)[1].split(": ")[0] in names, row


def test_the_commands_print_what_is_there(bundle, made, tmp_path):
    done = strata("verify", bundle)
    assert done.exit_code == 0
    assert "every byte is as it was written" in done.stdout
    assert "TensorRT-RTX 1.7.1.116 for sm89, sm120, batch 4" in done.stdout
    assert "not checked: no --key" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100 + len(str(bundle))
    facts = json.loads(strata("verify", bundle, "--json").stdout)
    assert (facts["whole"], facts["problems"]) == (True, [])
    again = json.loads(strata("bundle", made, "-o", tmp_path / "net.zip", "--json").stdout)
    assert again["identity"] == facts["identity"]
    assert len(again["index"]["files"]) == 8
    assert json.loads(strata("inspect", bundle, "--json").stdout)["labels"] == list(LABELS)
    assert "10: T-shirt/top" in strata("inspect", bundle).stdout


def test_preflight_says_how_it_would_run(bundle):
    host = ["--host", "RTX 3090, driver 580, linux, x86_64, tensorrt-rtx 1.7.1"]
    done = strata("preflight", bundle, *host)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].startswith("strata run: by plans/")
    facts = json.loads(strata("preflight", bundle, *host, "--json").stdout)
    assert [p["verdict"] for p in facts["plans"]] == ["fits", "does not fit"]
    done = strata("preflight", bundle, "--host", "H100, tensorrt-rtx 1.7.1")
    assert done.exit_code == 6
    assert "does not serve H100" in done.stderr


def test_verify_unpacks_what_it_checked(bundle, made, tmp_path):
    assert strata("verify", bundle, "-o", tmp_path / "out").exit_code == 0
    assert sha256_file(tmp_path / "out" / MODEL) == sha256_file(made / "int8.onnx")
    done = strata("verify", bundle, "-o", tmp_path / "out")
    assert done.exit_code == 8
    assert "not an empty folder" in done.stderr
    bad = bytearray(bundle.read_bytes())
    bad[5000] ^= 1
    (tmp_path / "bad.zip").write_bytes(bad)
    assert strata("verify", tmp_path / "bad.zip", "-o", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()


def test_plans_of_another_graph_stay_out(made, tmp_path):
    folder = tmp_path / "net"
    shutil.copytree(made, folder)
    (folder / "ada.engine").unlink()
    other = write(resnet(), tmp_path / "other.onnx")
    plan(other, folder / "other.engine")
    done = strata("bundle", folder)
    assert done.exit_code == 0
    assert "other.engine was built from another graph" in done.stderr
    done = strata("bundle", folder, "--plan", folder / "other.engine")
    assert done.exit_code == 2
    assert "another ONNX file" in done.stderr
    # one that was built elsewhere, of the same graph; and two for the same GPUs
    plan(folder / "int8.onnx", tmp_path / "far.engine", batch=2)
    done = strata("bundle", folder, "--plan", tmp_path / "far.engine", "-o", tmp_path / "b.zip")
    assert done.exit_code == 0, done.stderr
    with open_bundle(tmp_path / "b.zip") as opened:
        names = [p.file for p in read_contents(opened).plans]
    assert len(names) == 2
    assert all(name.count("-") == 5 for name in names)  # told apart by their digests
    # the graph that was named is the one whose plans go in
    done = strata("bundle", folder, "--model", other, "-o", tmp_path / "c.zip")
    assert done.exit_code == 0, done.stderr
    with open_bundle(tmp_path / "c.zip") as opened:
        assert len(read_contents(opened).plans) == 1
        assert opened.read(MODEL) == other.read_bytes()


def test_stale_and_damaged_files_are_refused(made, tmp_path):
    folder = tmp_path / "net"
    shutil.copytree(made, folder)
    (folder / "int8.engine").write_bytes((made / "int8.engine").read_bytes()[:-1])
    done = strata("bundle", folder)
    assert done.exit_code == 2
    assert "truncated" in done.stderr
    shutil.copy(made / "int8.engine", folder)
    write(resnet(), folder / "int8.onnx")  # another network under the old name
    done = strata("bundle", folder)
    assert done.exit_code == 2
    assert not list(folder.glob("*.zip"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["none"], 2, "no such folder"),
        (["."], 2, "nothing that Strata makes"),
        (["NET", "--model", "none.onnx"], 2, "none.onnx: cannot be read"),
        (["NET", "--plan", "none.engine"], 2, "none.engine"),
        (["NET", "--licence", "none.txt"], 2, "none.txt: cannot be read"),
        (["NET", "--preprocess", "nonsense"], 2, "nonsense"),
        (["NET", "--sign", "none.key"], 2, "none.key: cannot be read"),
        (["NET", "-o", "file/b.zip"], 8, "cannot be written"),
    ],
)
def test_mistakes_are_said(made, tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    done = strata("bundle", *(made if word == "NET" else word for word in arguments))
    assert done.exit_code == code, done.output
    assert says in done.stderr
    assert "hint:" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_no_bundle_is_said(made, tmp_path):
    for path in (made / "int8.engine", made / "int8.onnx", made, tmp_path / "none"):
        done = strata("verify", path)
        assert done.exit_code == 2
        assert "hint:" in done.stderr
        done = strata("run", path, "x.png", "--on", "cpu")
        assert done.exit_code == 2
        assert "Traceback" not in done.output


def test_a_bundle_of_files_that_do_not_belong_together_is_no_good(bundle, tmp_path):
    """Whole, byte by byte, and yet of two networks: made by somebody else's hand."""
    with open_bundle(bundle) as opened:
        parts = {name: opened.read(name) for name in opened.files}
    sm86, ada = (n for n in parts if n.endswith(".engine"))
    cases = {
        "another ONNX": parts | {MODEL: parts[MODEL] + b"\0"},
        "is not the plan": parts | {sm86: parts[ada]},
        "its manifest is not in": {n: d for n, d in parts.items() if n != f"{sm86}.json"},
        "seal": parts | {f"{sm86}.json": parts[f"{sm86}.json"].replace(b"sm86", b"sm89")},
        "holds no model.onnx": {n: d for n, d in parts.items() if n != MODEL},
        "not a list of texts": parts | {"labels.json": b"{}"},
        "not JSON": parts | {"labels.json": b"["},
        "missing": parts | {"preprocess.json": b"{}"},
    }
    for says, files in cases.items():
        path = tmp_path / "odd.zip"
        write_bundle(path, files)
        done = strata("verify", path)
        assert done.exit_code == 2
        assert says in done.stdout, done.stdout
        assert strata("run", path, "x.png", "--on", "cpu").exit_code == 2


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a b", "-f", folder / name]
        subprocess.run(make, check=True)
    return folder


def test_a_signature_by_ssh(bundle, made, keys, tmp_path):
    path = tmp_path / "net.strata.zip"
    done = strata("bundle", made, "-o", path, "--sign", keys / "ours")
    assert done.exit_code == 0, done.stderr
    assert path.read_bytes() == bundle.read_bytes()  # it is beside the bundle, not in it
    assert (tmp_path / "net.strata.zip.sig").is_file()
    done = strata("verify", path, "--key", keys / "ours.pub")
    assert done.exit_code == 0, done.stderr
    assert "signed   by the SSH key" in done.stdout
    done = strata("verify", path, "--key", keys / "theirs.pub")
    assert done.exit_code == 2
    assert "ssh-keygen refused" in done.stderr
    signers = tmp_path / "signers"
    signers.write_text(f"ann@example.com {(keys / 'ours.pub').read_text()}")
    assert "by ann@example.com" in strata("verify", path, "--key", signers).stdout
    # a bundle that is whole, and another one
    with open_bundle(path) as opened:
        parts = {name: opened.read(name) for name in opened.files}
    write_bundle(path, parts | {"licences/more.txt": b"more"})
    assert strata("verify", path).exit_code == 0
    assert strata("verify", path, "--key", keys / "ours.pub").exit_code == 2
    # a signature for another purpose
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", keys / "ours", "-n", "file", path],
        input=b"y\n",
        check=True,
        capture_output=True,
    )
    assert strata("verify", path, "--key", keys / "ours.pub").exit_code == 2


def test_what_is_not_signed_is_said(bundle, keys, tmp_path):
    done = strata("verify", bundle, "--key", keys / "ours.pub")
    assert done.exit_code == 2
    assert "is not signed" in done.stderr
    done = strata("verify", bundle, "--key", tmp_path / "none")
    assert done.exit_code == 2
    refused(lambda: signature.sign(bundle, bundle), "ssh-keygen refused")


MINISIGN = """#!/bin/sh
echo "$@" > "$(dirname "$0")/called"
case "$1" in -S) echo signature > "$7";; -V) grep -q signature "$8";; esac
"""


def test_minisign_is_called_for_its_own_keys(bundle, tmp_path, monkeypatch):
    """By a stand-in: that the tool is given the files it needs, in its own words."""
    path, tools = tmp_path / "net.zip", tmp_path / "bin"
    shutil.copy(bundle, path)
    key = tmp_path / "key"
    key.write_text("untrusted comment: minisign encrypted secret key\nRW\n")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(MissingBackendError, match="minisign is not installed") as caught:
        signature.sign(path, key)
    assert "install minisign" in caught.value.hint
    assert not (tmp_path / "net.zip.minisig").exists()
    tools.mkdir()
    (tools / "minisign").write_text(MINISIGN)
    (tools / "minisign").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    assert signature.sign(path, key) == tmp_path / "net.zip.minisig"
    assert (tools / "called").read_text().startswith(f"-S -s {key} -m {path} -x ")
    assert "minisign key" in signature.check_signature(path, key)
    assert (tools / "called").read_text() == f"-V -q -p {key} -m {path} -x {path}.minisig\n"
    (tmp_path / "net.zip.minisig").write_text("other")
    refused(lambda: signature.check_signature(path, key), "minisign refused")


def test_files_are_for_everybody_to_read(bundle):
    """A bundle is copied to other machines: no mode of a temporary file stays on it."""
    assert stat.S_IMODE(bundle.stat().st_mode) & 0o044 == 0o044
    assert np.frombuffer(bundle.read_bytes()[:4], "<u4")[0] == 0x04034B50


def test_the_reports_of_the_graph_are_in_it_and_no_others(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    save(resnet(), folder / "optimized.onnx", Card(SPEC, LABELS, stage="optimized"))
    card = Card(SPEC, LABELS, parents={"model": sha256_file(folder / "optimized.onnx")})
    save(with_qdq(resnet()), folder / "int8.onnx", card)
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(8))
    models, data = (folder / "optimized.onnx", folder / "int8.onnx"), tmp_path / "images.npz"
    reports = ("--json", folder / "layers.json", "--html", folder / "report.html")
    done = strata("compare", *models, "--data", data, "--images", 8, *reports)
    assert done.exit_code in {0, 7}, done.output
    accuracy = ("--json", folder / "accuracy.json")
    assert strata("evaluate", *models, "--data", data, *accuracy).exit_code == 0
    assert strata("bundle", folder, "-o", tmp_path / "a.zip").exit_code == 0
    with open_bundle(tmp_path / "a.zip") as opened:
        assert {"layers.json", "accuracy.json", "report.html"} <= set(opened.files)
        assert opened.read("report.html") == (folder / "report.html").read_bytes()
    (folder / "report.html").write_text("<html>of another graph</html>")
    assert strata("bundle", folder, "-o", tmp_path / "b.zip").exit_code == 0
    with open_bundle(tmp_path / "b.zip") as opened:
        assert "report.html" not in opened.files
