"""ONNX files in and out: read with distrust, written whole, checked and deterministic."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, EncodeError, Message  # type: ignore[import-untyped]

from core.artifacts import write_bytes
from core.errors import GraphError, InputError
from exporter.card import KEY_PREFIX, Card
from exporter.external_data import load_external_data
from exporter.model_file import ModelFile, read_model_file

__all__ = ["Card", "card_of", "check", "load", "parse", "save", "set_card"]


def load(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, its external weights included.

    Raises:
        InputError: As :func:`~exporter.model_file.read_model_file`, and as :func:`parse`.
    """
    return parse(read_model_file(path))


def parse(file: ModelFile) -> onnx.ModelProto:
    """Return the model in an ONNX file, its external weights included.

    Raises:
        InputError: Truncated, not ONNX, without nodes, or with weights that are missing or
            outside the model's folder.
    """
    path, data = file.path, file.data
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as err:
        raise InputError(
            f"{path}: not an ONNX file, or a truncated one ({len(data)} bytes)",
            hint="export it again, or copy it again whole",
        ) from err
    if (name := _no_text(model)) is not None:
        raise InputError(
            f"{path}: not an ONNX file, or a damaged one ({name!r} is not UTF-8)",
            hint="export it again, or copy it again whole",
        )
    # Nearly any bytes can be read as some protobuf message; these fields tell ONNX apart.
    if not model.ir_version or not model.opset_import or not model.HasField("graph"):
        raise InputError(
            f"{path}: not an ONNX model (no IR version, opset or graph)",
            hint="name a model.onnx file",
        )
    if not model.graph.node:
        raise InputError(
            f"{path}: the graph has no nodes", hint="export the network again, with its layers"
        )
    load_external_data(model, path)
    return model


def save(model: onnx.ModelProto, path: Path, card: Card | None = None) -> None:
    """Check a model and write it, whole or not at all; the same model gives the same bytes.

    Args:
        model: Float32, float16 or Q/DQ graph; takes ``card`` into its metadata.
        path: The file to write.
        card: What the file says of itself; None keeps what the model carries.

    Raises:
        GraphError: The model is not valid ONNX (the node is named), or is over 2 GiB.
        OutputError: The file cannot be written.
    """
    if card is not None:
        set_card(model, card)
    data = _to_bytes(model)
    _check(data)
    write_bytes(path, data)


def check(model: onnx.ModelProto) -> None:
    """Hold a model to the ONNX specification, shapes and types included.

    Raises:
        GraphError: It breaks a rule; the node is named. Or it is over 2 GiB.
    """
    _check(_to_bytes(model))


def _check(data: bytes) -> None:
    try:
        onnx.checker.check_model(data, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise GraphError(
            f"not valid ONNX{_at_node(str(err))}: {_gist(str(err))}",
            hint="correct that node in the program that made the model, and export again",
        ) from err


def card_of(model: onnx.ModelProto, *, where: str = "ONNX metadata") -> Card:
    """Return what a model says of itself; an empty card for a foreign one.

    Raises:
        InputError: An entry of ours cannot be read.
    """
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Card.from_metadata(metadata, where=where)


def set_card(model: onnx.ModelProto, card: Card) -> None:
    """Put ``card`` into the model's metadata in place; entries of others stay."""
    facts = {
        entry.key: entry.value
        for entry in model.metadata_props
        if not entry.key.startswith(KEY_PREFIX)
    } | card.to_metadata()
    del model.metadata_props[:]
    for key, value in sorted(facts.items()):
        model.metadata_props.add(key=key, value=value)


def _no_text(message: Message) -> bytes | None:
    """Return the first text that is none: protobuf hands out the bytes of what is not UTF-8."""
    for name, is_text in _texts(message.DESCRIPTOR):
        value = getattr(message, name)
        if isinstance(value, Message) and not message.HasField(name):
            continue
        many = not isinstance(value, str | bytes | Message)
        for item in value if many else (value,):
            if is_text and isinstance(item, bytes):
                return item
            if isinstance(item, Message) and (found := _no_text(item)) is not None:
                return found
    return None


@cache
def _texts(kind: Any) -> tuple[tuple[str, bool], ...]:
    """Return the fields of a kind of message that hold text, or messages that may; and which.

    Not those of bytes: to look at a weight is to copy it.
    """
    text, inner = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE
    return tuple((f.name, f.type == text) for f in kind.fields if f.type in (text, inner))


def _to_bytes(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as err:  # which of the two depends on protobuf's version
        raise GraphError(
            f"the model is over 2 GiB with its weights ({err})",
            hint="Strata works on networks under 2 GiB; use a smaller one",
        ) from err


def _at_node(text: str) -> str:
    """Return `` at node 'name'`` when the checker's text names one."""
    found = re.search(r"(?:node name|[Nn]ame): ([^)\s]+)", text)
    return f" at node {found[1]!r}" if found else ""


def _gist(text: str) -> str:
    """Return the checker's reason without its context dump, on one line."""
    lines = [line.strip() for line in text.split("==> Context")[0].splitlines()]
    return " ".join(line for line in lines if line)
