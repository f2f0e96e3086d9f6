"""What is measured: Strata, and the tools it is measured against, each with its best setting.

The settings were chosen by trying the tools' own (percentile, bins, levels, range, batch) on
trained ResNet-18 and ResNet-50, by the sum of both median SQNRs of the logits over 2,000 test
images; a tool with two good ones has two rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PLAIN", "STRATA", "TOOLS", "Job", "Tool", "strata_command"]


@dataclass(frozen=True, slots=True)
class Job:
    """What every tool is given.

    Attributes:
        model: The float network, ONNX.
        images: Prepared images, an ``.npz``.
        count: How many they are.
        folder: Where results go.
        method: What ``strata quantize --method`` is told.
        held_out: Images of ``images`` that Strata does not calibrate with, but tries its
            methods on; 0 for none.
    """

    model: Path
    images: Path
    count: int
    folder: Path
    method: str = "auto"
    held_out: int = 0

    @property
    def calibrated(self) -> int:
        """How many images Strata calibrates with; the others' tools take all."""
        return self.count - self.held_out


@dataclass(frozen=True, slots=True)
class Tool:
    """One row of the table.

    Attributes:
        key: Its name on the command line and in file names.
        title: Its name in the table.
        environment: Whose Python runs it, of ``build/peers``; empty for this one.
        script: Module in ``bench.peers``; empty for Strata.
        flags: More arguments.
        suffix: Of what it writes; empty when it writes nothing.
        note: What a reader must know to judge the row.
    """

    key: str
    title: str
    environment: str = ""
    script: str = ""
    flags: tuple[str, ...] = ()
    suffix: str = ".onnx"
    note: str = ""

    def output(self, job: Job) -> Path:
        """Return the file it writes."""
        return job.folder / f"{self.key}{self.suffix}"

    def command(self, job: Job, environments: Path) -> list[str]:
        """Return the command that quantizes the job's network (or only runs it)."""
        command = [*python(self.environment, environments), f"bench.peers.{self.script}"]
        command += [str(job.model), str(job.images)]
        return command + ([str(self.output(job)), *self.flags] if self.suffix else [])


def python(environment: str, environments: Path) -> list[str]:
    """Return how to run a module in an environment."""
    program = environments / environment / "bin" / "python" if environment else sys.executable
    return [str(program), "-m"]


def strata_command(arguments: Sequence[object]) -> list[str]:
    """Return a command of Strata's."""
    return [str(Path(sys.executable).with_name("strata")), *map(str, arguments)]


PLAIN = Tool("plain", "plain inference", script="plain", suffix="")
STRATA = Tool("strata", "Strata")

_ORT = "ONNX Runtime"
_ENTROPY = ("--method", "Entropy", "--bins", "64", "--levels", "64")
_NNCF_UINT8 = "activations uint8: TensorRT has INT8 only"

TOOLS: tuple[Tool, ...] = (
    STRATA,
    Tool(
        "ort-minmax",
        f"{_ORT} MinMax",
        script="onnxruntime_static",
        flags=("--method", "MinMax"),
    ),
    Tool(
        "ort-percentile",
        f"{_ORT} Percentile 99.9",
        script="onnxruntime_static",
        flags=("--method", "Percentile", "--percentile", "99.9"),
    ),
    Tool(
        "ort-entropy",
        f"{_ORT} Entropy",
        script="onnxruntime_static",
        flags=_ENTROPY,
        note="64 bins and levels, batch by batch: better than any more",
    ),
    Tool(
        "ort-entropy-add",
        f"{_ORT} Entropy, Add too",
        script="onnxruntime_static",
        flags=(*_ENTROPY, "--add"),
        note="both inputs of each Add in INT8; the other rows of ONNX Runtime leave them float",
    ),
    Tool(
        "nncf-openvino",
        "NNCF on OpenVINO",
        environment="nncf",
        script="nncf_ptq",
        suffix=".xml",
        note=f"run by OpenVINO itself; {_NNCF_UINT8}",
    ),
    Tool(
        "nncf-onnx",
        "NNCF on ONNX",
        environment="nncf",
        script="nncf_ptq",
        flags=("--full-weights",),
        note=_NNCF_UINT8,
    ),
    Tool(
        "nncf-onnx-int8",
        "NNCF on ONNX, made INT8",
        environment="nncf",
        script="nncf_ptq",
        flags=("--full-weights", "--int8"),
        note="uint8 codes rewritten to INT8 over twice the step by this benchmark",
    ),
    Tool(
        "modelopt-max",
        "ModelOpt max",
        environment="modelopt",
        script="modelopt_ptq",
        flags=("--method", "max"),
    ),
    Tool(
        "modelopt-entropy",
        "ModelOpt entropy",
        environment="modelopt",
        script="modelopt_ptq",
        flags=("--method", "entropy"),
    ),
)
