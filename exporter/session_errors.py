"""What ONNX Runtime says of a model that it cannot read or run, in our words."""

from __future__ import annotations

import re

from core.errors import GraphError, InputError, StrataError

__all__ = ["not_onnx", "session_failure"]


def session_failure(err: Exception, where: str) -> StrataError:
    """Turn an exception of ONNX Runtime into one of ours, with the node it names."""
    text = " ".join(str(err).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    kind = type(err).__name__
    if kind == "NoSuchFile":
        return InputError(f"{where}: no such file", hint="check the path")
    if kind in {"InvalidProtobuf", "NoModel"} or "No graph was found" in text:
        return not_onnx(where)
    node = re.search(r"Name:\s?'([^']+)'|[Nn]ode\s?\(([^)]+)\)|[Nn]ode:\s?(\S+)", text)
    name = next((group for group in node.groups() if group), None) if node else None
    at = f"node {name!r}: " if name else ""
    return GraphError(
        f"{where}: {at}ONNX Runtime refused it: {text}",
        hint="check this part of the graph; `strata inspect` shows it",
    )


def not_onnx(where: str) -> InputError:
    """Say that a file is not ONNX."""
    return InputError(
        f"{where}: not an ONNX model, or not all of it", hint="export or copy the file again"
    )
