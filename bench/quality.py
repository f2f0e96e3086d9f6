"""How well a quantized network answers: its logits and features against the float network's.

ONNX files run in ONNX Runtime with its graph optimizations off, so that each Q and DQ
computes what it says; an OpenVINO model is run by OpenVINO, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from bench.measure import measure
from bench.peers.feed import batches, count
from bench.tools import Tool, python, strata_command
from core.progress import Progress, silent
from deploy.comparison.graphs.holding import Holding, holdings_of
from exporter.onnx_file import card_of
from exporter.session import open_session

__all__ = [
    "Answered",
    "Quality",
    "answer",
    "codes_of",
    "feature_of",
    "openvino_answers",
    "quality",
    "tensorrt_says",
]

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

_BATCH = 50
_SHAPE_ONLY = {"Flatten", "Reshape", "Squeeze", "Identity"}


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """What a network makes of N images: logits, (N, classes), and what the classifier reads.

    Attributes:
        features: (N, …); None where the file has no tensor of that name.
    """

    logits: Floats
    features: Floats | None = None


@dataclass(frozen=True, slots=True)
class Quality:
    """A network's answers against the float network's, over the same images.

    Attributes:
        sqnr_db: Median over the images of the SQNR of their logits, in dB.
        feature_db: The same of what the classifier reads; None when it is not known.
        changed: Share of images with another answer.
        top1: Share of right answers.
    """

    sqnr_db: float
    feature_db: float | None
    changed: float
    top1: float


def quality(reference: Answered, candidate: Answered, labels: Labels) -> Quality:
    """Compare what two networks make of the same images; labels (N,)."""
    features = None
    if reference.features is not None and candidate.features is not None:
        features = _median_db(reference.features, candidate.features)
    answers = candidate.logits.argmax(axis=1)
    return Quality(
        _median_db(reference.logits, candidate.logits),
        features,
        float(np.mean(answers != reference.logits.argmax(axis=1))),
        float(np.mean(answers == labels)),
    )


def _median_db(reference: Floats, candidate: Floats) -> float:
    """Return the median SQNR of the rows, in dB; both (N, …)."""
    r, c = (x.reshape(len(x), -1).astype(np.float64) for x in (reference, candidate))
    with np.errstate(divide="ignore"):  # equal rows: infinite
        ratio = (r**2).sum(axis=1) / ((r - c) ** 2).sum(axis=1)
    return float(np.median(10 * np.log10(ratio)))


def feature_of(model: onnx.ModelProto) -> str:
    """Return the tensor that the last layer, the classifier, reads; empty when there is none."""
    made = {name: node for node in model.graph.node for name in node.output}
    node = made.get(model.graph.output[0].name)
    if node is not None and node.op_type == "Add":  # a MatMul with its bias
        node = next((made[x] for x in node.input if x in made), None)
    if node is None or node.op_type not in {"Gemm", "MatMul"}:
        return ""
    name: str = node.input[0]
    while name in made and made[name].op_type in _SHAPE_ONLY:
        name = made[name].input[0]
    return name


def answer(model: Path, images: Path, feature: str, progress: Progress = silent) -> Answered:
    """Answer images with an ONNX file.

    Args:
        model: One image input, logits as its first output.
        images: An ``.npz`` of prepared images, whole batches of 50 (or of what the file takes).
        feature: A tensor to return, too, where the file has it; empty for none.
        progress: Told the images done.
    """
    held = _held(onnx.load(model), feature)
    session = open_session(model, optimize=False, outputs=[held.name] if held else None)
    image, total = session.inputs[0], count(images)
    fixed = image.shape[0]
    size = fixed if isinstance(fixed, int) and fixed > 0 else min(_BATCH, total)
    logits, features = [], []
    for done, batch in enumerate(batches(images, size), start=1):
        found = session({image.name: batch})
        logits.append(found[session.outputs[0]])
        if held:
            features.append(held.whole(found[held.name]))
        progress(done * size, total)
    whole = np.concatenate(features) if held else None
    return Answered(np.concatenate(logits), whole)


def _held(model: onnx.ModelProto, feature: str) -> Holding | None:
    """Return how a file holds a tensor; None without it."""
    names = {name for node in model.graph.node for name in node.output}
    if feature in names:
        return Holding(feature)
    return holdings_of(card_of(model), names).get(feature)


def openvino_answers(
    tool: Tool, model: Path, images: Path, environments: Path
) -> tuple[Answered, Mapping[str, int]]:
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
    return Answered(np.load(logits)), codes


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
