"""How well a quantized network answers: its logits against those of the float network.

ONNX files run in ONNX Runtime with its graph optimizations off, so that each Q and DQ
computes what it says; an OpenVINO model is run by OpenVINO, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from bench.measure import measure
from bench.peers.feed import batches, count
from bench.tools import Tool, python, strata_command
from exporter.session import open_session

__all__ = ["Quality", "codes_of", "logits_of", "openvino_answers", "quality", "tensorrt_says"]

Logits = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_BATCH = 50


@dataclass(frozen=True, slots=True)
class Quality:
    """A network's answers against the float network's, over the same images.

    Attributes:
        sqnr_db: Median over the images of the SQNR of their logits, in dB.
        changed: Share of images with another answer.
        top1: Share of right answers.
    """

    sqnr_db: float
    changed: float
    top1: float


def quality(reference: Logits, candidate: Logits, labels: Labels) -> Quality:
    """Compare two networks' logits, (N, classes) each; labels (N,)."""
    noise = ((reference - candidate) ** 2).sum(axis=1)
    with np.errstate(divide="ignore"):  # equal logits: infinite
        sqnr = 10 * np.log10((reference**2).sum(axis=1) / noise)
    answers = candidate.argmax(axis=1)
    return Quality(
        float(np.median(sqnr)),
        float(np.mean(answers != reference.argmax(axis=1))),
        float(np.mean(answers == labels)),
    )


def logits_of(model: Path, images: Path, progress: Callable[[int, int], None]) -> Logits:
    """Answer images with an ONNX file: float64, (N, classes).

    Args:
        model: One image input, logits as its first output.
        images: An ``.npz`` of prepared images, whole batches of 50 (or of what the file takes).
        progress: Told the images done, of how many.
    """
    session = open_session(model, optimize=False)
    image, total = session.inputs[0], count(images)
    fixed = image.shape[0]
    size = fixed if isinstance(fixed, int) and fixed > 0 else min(_BATCH, total)
    answers = []
    for done, batch in enumerate(batches(images, size), start=1):
        answers.append(session({image.name: batch})[session.outputs[0]])
        progress(done * size, total)
    return np.concatenate(answers).astype(np.float64)


def openvino_answers(
    tool: Tool, model: Path, images: Path, environments: Path
) -> tuple[Logits, Mapping[str, int]]:
    """Answer images with an OpenVINO model; also return its activations by type of code.

    Raises:
        RuntimeError: OpenVINO failed; the text says why.
    """
    logits, facts = model.with_suffix(".npy"), model.with_suffix(".json")
    command = [*python(tool.environment, environments), "bench.peers.openvino_logits"]
    command += map(str, (model, images, logits, facts))
    done = measure(command, model.with_suffix(".logits.log"))
    if done.problem:
        raise RuntimeError(done.problem)
    codes: dict[str, int] = json.loads(facts.read_text(encoding="utf-8"))
    return np.load(logits).astype(np.float64), codes


def codes_of(model: onnx.ModelProto) -> Counter[str]:
    """Count the quantized activations of an ONNX file by the type of their codes.

    Returns:
        Type (``"int8"``; ``"int8 shifted"`` with another zero point than 0) → how many.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    found: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None:
            found["uint8"] += 1  # ONNX's default
            continue
        values = onnx.numpy_helper.to_array(zero)
        found[f"{values.dtype}{' shifted' if values.any() else ''}"] += 1
    return found


def tensorrt_says(model: Path) -> str:
    """Ask TensorRT-RTX to build an ONNX file: ``"builds"``, or why it does not."""
    engine = model.with_suffix(".engine")
    command = strata_command(["build", model, "--flavour", "rtx", "--batch", 8, "-o", engine])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return "builds"
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return (lines or ["error: failed"])[0].removeprefix("error: ").removeprefix(f"{model}: ")
