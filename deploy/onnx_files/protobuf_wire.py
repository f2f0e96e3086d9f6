"""The wire format of protocol buffers: messages in, (field number, value) pairs out.

Source: protobuf documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Value", "fields", "message", "number", "signed", "text", "varints"]

Value = int | memoryview  # a number, or the bytes of whatever is longer

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value) of one message, without copying.

    Raises:
        ValueError: Bytes that are no message, or a message cut short.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"{size} bytes promised, {len(data) - at} there")
        yield tag >> 3, data[at : at + size]
        at += size


def varints(data: memoryview) -> list[int]:
    """Return the numbers of a packed field.

    Raises:
        ValueError: The last one is cut short.
    """
    numbers, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        numbers.append(value)
    return numbers


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while shift < 70 and at < len(data):
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise ValueError(f"a number without end at byte {at}")


def signed(value: int) -> int:
    """Read a varint as int64."""
    return value - (1 << 64) if value >= 1 << 63 else value


def number(value: Value | None) -> int:
    """Return a field's number; 0, protobuf's default, when it is absent."""
    return value if isinstance(value, int) else 0


def message(value: Value | None) -> memoryview:
    """Return a field's bytes; none when it is absent."""
    return value if isinstance(value, memoryview) else memoryview(b"")


def text(value: Value | None) -> str:
    """Return a field's text; empty when it is absent.

    Raises:
        ValueError: It is not UTF-8.
    """
    return bytes(message(value)).decode("utf-8")
