r"""Parse the text of a compiled graph (see :mod:`deploy.inspect.plan_text`).

The text is four blocks of entries, ``key=value``, where a value is a word, a quoted text or
a block in braces. What is used of them::

    header       region = { name=… size=51380224 place=accelerator … }   memory at the
                 largest shapes
                 inputs={ "input.1" }   outputs={ "logits.1" }
    descriptors  tensor={ dims={ "__mye7_proxy.1" 64 56 56 } name="relu.1_13" type=half … }
                 a constant has const_payload_size=…; a sub_tensor is a view of another tensor
    main         corrltn={ name="conv1_U1" output={ … } input={ … } layers="[ONNX Layer: conv1]…" }
    shape_main   mul={ output={"a"} input={"b" "c"} }   arithmetic on free dimensions

Names in quotes may hold braces, spaces and line breaks; ``\"`` is a quote within a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["PlanGraph", "PlanTensor", "Statement", "parse_graph"]

_BLOCK = re.compile(r"\s*(\w+)\s*\{")
_LABEL = re.compile(r"\s*label [^:\n]*:")
_KEY = re.compile(r"\s*(\w+)\s*=\s*")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_WORD = re.compile(r"[^\s{}\"]+")
_MARK = re.compile(r'[{}"]')
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """A tensor, or a view of one.

    Attributes:
        dims: Sizes, and names of those that are free.
        constant_bytes: Size of a constant; None for what is computed.
        base: The tensor that this one is a view of; empty when it is none.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]
    constant_bytes: int | None = None
    base: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """One step: ``op`` and its fields, a block's without its braces."""

    op: str
    fields: Mapping[str, str]

    def names(self, *keys: str) -> tuple[str, ...]:
        """Return the names in the blocks of ``keys``, in order."""
        return tuple(name for key in keys for name in _words(self.fields.get(key, "")))


@dataclass(frozen=True, slots=True)
class PlanGraph:
    """A compiled graph as the plan tells it.

    Attributes:
        inputs: Names of tensors; the ONNX name with ``.1`` behind it.
        tensors: Every tensor by name.
        main: What runs on the GPU, in order.
        shape_program: What computes free dimensions before that.
        scratch_bytes: Memory on the GPU besides weights, inputs and outputs, at the
            largest shapes of the profile.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, PlanTensor]
    main: tuple[Statement, ...]
    shape_program: tuple[Statement, ...]
    scratch_bytes: int


def parse_graph(text: str) -> PlanGraph:
    """Parse the text of a compiled graph.

    Raises:
        ValueError: It is not as this module knows it.
    """
    blocks: dict[str, list[tuple[str, str]]] = {}
    at = 0
    while found := _BLOCK.match(text, at):
        end = _end_of_block(text, found.end() - 1)
        blocks[found[1]] = list(_entries(text, found.end(), end - 1))
        at = end
    missing = {"header", "descriptors", "main"} - set(blocks)
    if missing or text[at:].strip():
        raise ValueError(f"a graph without {', '.join(sorted(missing)) or 'an end'}")
    header = dict(blocks["header"])
    described = [_tensor(value) for key, value in blocks["descriptors"] if "tensor" in key]
    return PlanGraph(
        inputs=_words(header.get("inputs", "")),
        outputs=_words(header.get("outputs", "")),
        tensors={tensor.name: tensor for tensor in described},
        main=_statements(blocks["main"]),
        shape_program=_statements(blocks.get("shape_main", [])),
        scratch_bytes=sum(_scratch(value) for key, value in blocks["header"] if key == "region"),
    )


def _end_of_block(text: str, at: int) -> int:
    """Return the place behind the brace that closes the one at ``at``."""
    depth = 0
    while found := _MARK.search(text, at):
        at = found.end()
        if found[0] == '"':
            at = _text(text, found.start()).end()
            continue
        depth += 1 if found[0] == "{" else -1
        if depth == 0:
            return at
    raise ValueError("a block that does not end")


def _text(text: str, at: int) -> re.Match[str]:
    found = _TEXT.match(text, at)
    if found is None:
        raise ValueError("a quoted text that does not end")
    return found


def _entries(text: str, at: int, end: int) -> Iterator[tuple[str, str]]:
    """Yield key and value of each entry between two places; blocks without their braces."""
    while True:
        if label := _LABEL.match(text, at, end):
            at = label.end()
        key = _KEY.match(text, at, end)
        if key is None:
            if text[at:end].strip():
                raise ValueError(f"no entry: {text[at : min(end, at + 40)]!r}")
            return
        at = key.end()
        if text.startswith("{", at):
            start, at = at + 1, _end_of_block(text, at)
            yield key[1], text[start : at - 1]
        elif text.startswith('"', at):
            found = _text(text, at)
            at = found.end()
            yield key[1], _ESCAPE.sub(r"\1", found[1])
        else:
            word = _WORD.match(text, at, end)
            if word is None:
                raise ValueError(f"{key[1]} has no value")
            at = word.end()
            yield key[1], word[0]


def _fields(block: str) -> dict[str, str]:
    return dict(_entries(block, 0, len(block)))


def _words(block: str) -> tuple[str, ...]:
    """Return the quoted texts and words of a block."""
    found, at = [], 0
    while at < len(block):
        if block[at] == '"':
            quoted = _text(block, at)
            found.append(_ESCAPE.sub(r"\1", quoted[1]))
            at = quoted.end()
        elif word := _WORD.match(block, at):
            found.append(word[0])
            at = word.end()
        else:
            at += 1
    return tuple(found)


def _tensor(block: str) -> PlanTensor:
    fields = _fields(block)
    payload = fields.get("const_payload_size")
    return PlanTensor(
        name=fields.get("name", ""),
        dtype=fields.get("type", ""),
        dims=tuple(int(d) if d.isdecimal() else d for d in _words(fields.get("dims", ""))),
        constant_bytes=int(payload) if payload is not None else None,
        base=fields.get("base", ""),
    )


def _statements(entries: list[tuple[str, str]]) -> tuple[Statement, ...]:
    return tuple(Statement(op, _fields(value)) for op, value in entries)


def _scratch(block: str) -> int:
    fields = _fields(block)
    scratch = fields.get("place") == "accelerator" and "constant" not in fields
    return int(fields.get("size", "0")) if scratch else 0
