"""Protobuf's text format, read and written: what Triton's ``config.pbtxt`` is in.

No schema is known here: a message is its fields in their order, with every value they were
given. A machine that packs models needs no protobuf library.

Source: "Text Format Language Specification", protobuf.dev.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Message", "PbtxtError", "Value", "Word", "message_text", "parse_pbtxt"]


class PbtxtError(ValueError):
    """A text that is not in protobuf's text format; says at which line."""


class Word(str):
    """A name without quotes: an enumeration's value, ``true``, ``inf``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A message: name → all values of that field, in the order of the text."""

    fields: dict[str, list[Value]] = field(default_factory=dict)

    def add(self, name: str, value: Value) -> None:
        """Append a value to a field."""
        self.fields.setdefault(name, []).append(value)


Value = str | int | float | Word | Message

_TOKENS = re.compile(
    r"(?P<space>[\s\ufeff]+|\#[^\n]*)"
    r"|(?P<text>\"(?:[^\"\\\n]|\\[^\n])*\"|'(?:[^'\\\n]|\\[^\n])*')"
    r"|(?P<number>-?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?))(?![\w.])"
    r"|(?P<word>-?[A-Za-z_][\w]*(?:[./][\w]+)*)"
    r"|(?P<mark>[{}\[\]<>:,;])",
    re.ASCII,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CHARACTER = re.compile(
    r"\\(?:[xX]([0-9a-fA-F]{1,2})|([0-7]{1,3})|(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|(.))|[^\\]"
)
_REPEATED = {"dims", "preferred_batch_size", "gpus"}  # written as a list, even of one number
_DEEPEST = 64
_LONGEST_NUMBER = 60
_CLOSERS = {"{": "}", "<": ">"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def parse_pbtxt(text: str) -> Message:
    """Read a whole text.

    Raises:
        PbtxtError: It is not in the text format.
    """
    reader = _Reader([*_tokens(text), _Token("end", "", text.count("\n") + 1)])
    return reader.message("", 0)


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        found = _TOKENS.match(text, at)
        if found is None:
            raise PbtxtError(f"line {line}: {text[at : at + 20]!r} is not understood")
        kind = found.lastgroup or ""
        if kind != "space":
            yield _Token(kind, found[0], line)
        line += found[0].count("\n")
        at = found.end()


class _Reader:
    """Reads tokens from the left to the right."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _peek(self) -> str:
        return self._tokens[self._at].text

    def message(self, closer: str, depth: int) -> Message:
        """Read fields up to the mark that ends the message; "" is the end of the text."""
        if depth > _DEEPEST:
            raise self._wrong(self._tokens[self._at], f"more than {_DEEPEST} messages in another")
        found = Message()
        while True:
            token = self._next()
            if token.text == closer and token.kind in {"mark", "end"}:
                return found
            if token.kind != "word":
                wanted = f"a field or {closer!r}" if closer else "a field"
                raise self._wrong(token, f"not {wanted}")
            self._field(found, token, depth)
            if self._peek() in {",", ";"}:
                self._next()

    def _field(self, message: Message, name: _Token, depth: int) -> None:
        colon = self._peek() == ":"
        if colon:
            self._next()
        if self._peek() == "[":
            self._next()
            self._list(message, name, depth)
            return
        message.add(name.text, self._value(depth, scalar=colon))

    def _list(self, message: Message, name: _Token, depth: int) -> None:
        if self._peek() == "]":
            self._next()
            return
        while True:
            message.add(name.text, self._value(depth, scalar=True))
            token = self._next()
            if token.text == "]":
                return
            if token.text != ",":
                raise self._wrong(token, "not ',' or ']'")

    def _value(self, depth: int, *, scalar: bool) -> Value:
        token = self._next()
        if token.kind == "mark" and token.text in _CLOSERS:
            return self.message(_CLOSERS[token.text], depth + 1)
        if not scalar:
            raise self._wrong(token, "not ':' or '{'")
        if token.kind == "text":
            parts = [_unquoted(token)]
            while self._tokens[self._at].kind == "text":
                parts.append(_unquoted(self._next()))
            return "".join(parts)
        if token.kind == "number":
            if len(token.text) > _LONGEST_NUMBER:
                raise self._wrong(token, "too long a number")
            return _number(token.text)
        if token.kind == "word":
            return Word(token.text)
        raise self._wrong(token, "not a value")

    @staticmethod
    def _wrong(token: _Token, why: str) -> PbtxtError:
        seen = repr(token.text) if token.kind != "end" else "the text ends"
        return PbtxtError(f"line {token.line}: {seen}: {why}")


def _number(text: str) -> int | float:
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    if digits[:2] in {"0x", "0X"}:
        return sign * int(digits, 16)
    if digits.isdigit():
        octal = len(digits) > 1 and digits[0] == "0" and not set(digits) & {"8", "9"}
        return sign * int(digits, 8 if octal else 10)
    return sign * float(digits.rstrip("fF"))


def _unquoted(token: _Token) -> str:
    """Return what a text in quotes says; octal and hexadecimal escapes are bytes of UTF-8."""
    try:
        return b"".join(map(_character, _CHARACTER.finditer(token.text[1:-1]))).decode()
    except (ValueError, OverflowError) as err:
        raise PbtxtError(f"line {token.line}: a text that is not UTF-8") from err


def _character(part: re.Match[str]) -> bytes:
    hexadecimal, octal, point, plain = part.groups()
    if hexadecimal or octal:
        return bytes([int(hexadecimal or octal, 16 if hexadecimal else 8) & 0xFF])
    if point:
        return chr(int(point[1:], 16)).encode()
    return (_ESCAPES.get(plain, plain) if plain else part[0]).encode()


def message_text(message: Message, indent: str = "") -> str:
    """Write a message as ``config.pbtxt`` is usually written, a field a line."""
    lines = []
    for name, values in message.fields.items():
        numbers = [value for value in values if isinstance(value, int)]
        if name in _REPEATED and len(numbers) == len(values):
            lines.append(f"{indent}{name}: [{', '.join(map(str, numbers))}]")
            continue
        for value in values:
            if isinstance(value, Message):
                lines += [f"{indent}{name} {{", message_text(value, indent + "  ") + f"{indent}}}"]
            else:
                lines.append(f"{indent}{name}: {_scalar(value)}")
    return "".join(f"{line}\n" for line in lines)


def _scalar(value: str | int | float | Word) -> str:
    if isinstance(value, Word) or not isinstance(value, str):
        return str(value)
    return '"' + "".join(map(_quoted, value)) + '"'


def _quoted(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())
