"""TensorRT's log: collected, and put in our words where we know what a line means.

TensorRT writes thousands of lines a build, repeats a warning for each layer, and reports
an error with the source line that raised it. A reader gets each warning once, and of an
error its cause and a way out; ``-v`` shows the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from core.errors import BuildError, MissingBackendError, StrataError

__all__ = ["Listener", "ParserFault", "Severity", "TensorrtLog", "build_failure", "parser_failure"]

Severity = Literal["error", "warning", "info", "verbose"]
Listener = Callable[[Severity, str], None]

_NO_DRIVER = r"cudaError 35|CUDA driver version is insufficient|CUDA initialization failure"
# Warning → our words; an empty text is not worth a reader's time.
_WARNINGS: tuple[tuple[str, str], ...] = (
    (
        r"Converting conv (activation|weight) scales to fp32",
        "FP16 scales are widened to FP32 inside the convolutions; no value changes",
    ),
    (_NO_DRIVER, "no CUDA driver here: the plan is built for its targets, but cannot run here"),
    (
        r"kREFIT",
        "a refittable plan can lose a Gemm's bias and INT8 fusions: build INT8 without refit",
    ),
    (r"INT64", "INT64 constants are stored as INT32 where they fit; indices do not change"),
    (r"UINT8 zero_point", "UINT8 codes are read as INT8: the results will be wrong"),
    (r"For zero_point with type int32", ""),  # the error that follows says it
)
# Error → the way out.
_ERRORS: tuple[tuple[str, str], ...] = (
    (
        r"FP32 GEMM is not supported",
        "SM 7.5 needs an FP16 graph: strata quantize --precision fp16, or leave sm75 out",
    ),
    (
        r"must be of same type",
        "a strongly typed network never mixes types: make the graph with strata quantize",
    ),
    (
        r"Plugin not found|UNSUPPORTED_NODE|no importer",
        "TensorRT has no such operator: export the network with standard ONNX operators, or "
        "rewrite this node",
    ),
    (r"[Zz]ero point", "quantize symmetrically, with zero point 0 (strata quantize does)"),
    (
        r"must all be positive",
        "an all-zero or NaN channel has no scale: quantize again with strata quantize",
    ),
    (r"type Int32 but must have", "keep the bias a plain float, not int32 with a DequantizeLinear"),
    (
        r"[Oo]ut ?[Oo]f ?[Mm]emory|bad_alloc|[Ii]nsufficient memory",
        "free some memory, or ask for a smaller --batch or --workspace",
    ),
    (
        r"no optimization profile|minShape|profile",
        "give --batch min,opt,max that the network's input can take",
    ),
)
_ASK_LOG = "run again with -v to read TensorRT's own log"


class TensorrtLog:
    """What one parse or build said.

    Attributes:
        errors: Each error, cleaned of source lines, in order, once.
        warnings: Each warning once, in our words where we have some.
    """

    def __init__(self, listen: Listener | None = None) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._listen = listen

    def add(self, severity: Severity, text: str) -> None:
        """Take one line from TensorRT."""
        if self._listen is not None:
            self._listen(severity, text)
        if severity == "error":
            _once(self.errors, clean(text))
        elif severity == "warning":
            _once(self.warnings, _in_our_words(text))


def _once(lines: list[str], line: str) -> None:
    if line and line not in lines:
        lines.append(line)


def _in_our_words(text: str) -> str:
    for pattern, words in _WARNINGS:
        if re.search(pattern, text):
            return words
    return clean(text)


def clean(text: str) -> str:
    """Take TensorRT's function names, codes and source lines off a message.

    >>> clean("IBuilder::f: Error Code 4: API Usage Error (no outputs. In g at /_src/x.cpp:1)")
    'no outputs'
    """
    if "catchCudaError" in text:  # it follows every other error on a machine without a driver
        return ""
    found = re.search(r"Error Code \d+: [^(]*\((?P<cause>.*)\)\s*$", text, re.DOTALL)
    cause = found["cause"] if found else text
    cause = re.sub(r"[. ]*\bIn \w+ at \S+:\d+(?= |\)|$)", "", cause)
    cause = re.sub(r"\[\w+\.cpp:+\w*:? ?\w*\]\s*|\b\w+\.cpp:\d+:?\s*", "", cause)
    cause = re.sub(r"\(cudaError (\d+): ([^)]*)\)?", r"\2 (CUDA error \1)", cause)
    return " ".join(cause.split()).strip(" .")


class ParserFault(NamedTuple):
    """One entry of the ONNX parser's list of errors."""

    node: str
    op: str
    code: str
    text: str


def parser_failure(where: str, faults: Iterable[ParserFault], log: TensorrtLog) -> StrataError:
    """Return the error to raise for an ONNX file that TensorRT's parser refused."""
    for fault in faults:
        causes = [clean(line) for line in fault.text.splitlines()]
        causes = [c for c in causes if c and not c.startswith("Invalid Node")] or [fault.code]
        cause = _parser_words(causes[0])
        node = f"node {fault.node!r} ({fault.op})" if fault.node else f"a node of type {fault.op}"
        at = node if fault.op else "the file"
        return BuildError(
            f"{where}: TensorRT cannot take {at}: {cause}",
            hint=_way_out(f"{fault.code} {cause} {fault.text}"),
        )
    return build_failure(where, log)


def _parser_words(cause: str) -> str:
    """Turn an assertion of the parser's source into a statement."""
    if "Plugin not found" in cause or cause in {"false", "UNSUPPORTED_NODE"}:
        return "this operator is not supported"
    return re.sub(r"^Assertion failed: .*?: ", "", cause).split(" Please set ")[0]


def build_failure(where: str, log: TensorrtLog) -> StrataError:
    """Return the error to raise for a build that gave no plan."""
    text = "; ".join(log.errors) or "no reason was given"
    if re.search(_NO_DRIVER, text):
        return MissingBackendError(
            f"{where}: this build needs a GPU and its driver ({text})",
            hint="build for named GPUs with --flavour rtx, or on the machine that has the GPU",
        )
    return BuildError(f"{where}: TensorRT could not build it: {text}", hint=_way_out(text))


def _way_out(text: str) -> str:
    for pattern, hint in _ERRORS:
        if re.search(pattern, text):
            return hint
    return _ASK_LOG
