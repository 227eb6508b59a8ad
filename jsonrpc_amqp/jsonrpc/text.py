"""
JSON text <-> values, strict in both directions (pure; the only import of msgspec).

Reading takes what RFC 8259 calls JSON and nothing else: UTF-8 without a byte order mark, no NaN or Infinity, no lone
surrogates, nothing after the value. Integers stay exact up to 4300 digits. Where a name occurs twice in one object the
last one counts, as in the standard library.

Writing also takes what msgspec has a text for: tuples and sets (arrays), dataclasses, ``attrs`` classes and msgspec
structs (objects), enums (their value), dates and times (ISO 8601), UUIDs and Decimals (strings), bytes (base64).
"""

from __future__ import annotations

import re
from itertools import accumulate, chain
from math import isfinite
from typing import Any

import msgspec

from ..errors import EncodeError

_LONG, _FEW = 4096, 64
_EXACT = frozenset((str, int, bool, type(None), dict, list))
_BRACKETS = b"[]{}"
_NEITHER_BRACKET_NOR_QUOTE = bytes(set(range(256)) - {*_BRACKETS, *b'"'})
# One level down is 1, one level up is 255, which is -1 when the byte is read as signed.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
# What stands before a string (or the end), and the string. It matches wherever it is tried, since the closing quote is
# optional, so nothing is looked at twice: linear on any text.
_OUTSIDE = re.compile(rb'([^"]*)(?:"[^"]*"?)?')


class Malformed(ValueError):
    """The bytes are not JSON, or are nested too deep. The message says where, and quotes nothing."""


def loads(data: bytes, *, max_depth: int = 100) -> Any:
    """
    Read one JSON value.

    Args:
        data: JSON in UTF-8.
        max_depth: Most arrays and objects inside one another.

    Raises:
        Malformed: It is not JSON, is nested too deep, or has a number that Python has no value for.
    """
    # Before parsing: the parser recurses, and only the interpreter's recursion limit, which programs raise, stops it.
    if _is_deeper(data, max_depth):
        raise Malformed(f"nested deeper than {max_depth} levels")
    try:
        return _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise Malformed(str(exc)) from exc


def dumps(value: Any, *, max_depth: int = 100) -> bytes:
    """
    Write one JSON value, compact, in UTF-8.

    Args:
        value: What to write; see the module for the types.
        max_depth: Most arrays and objects inside one another.

    Raises:
        EncodeError: JSON has no form for it, or it is nested too deep.
    """
    try:
        text = _encode(value)
        _check_written(text, value, max_depth)
    except Exception as exc:
        raise EncodeError(str(exc)) from exc
    return text


def _check_written(text: bytes, value: Any, max_depth: int) -> None:
    """Refuse what msgspec writes and others could not read back."""
    if _is_deeper(text, max_depth):
        raise ValueError(f"nested deeper than {max_depth} levels")
    # msgspec writes NaN and Infinity as null, so only a text with a null in it is worth the walk. to_builtins knows
    # the same types as the encoder does, and leaves floats as they are.
    if len(text) > _LONG and _has_no_floats(value):
        return  # a long string, most likely, which would take longer to search than to write
    if b"null" in text and not _is_finite(msgspec.to_builtins(value, enc_hook=_plain)):
        raise ValueError("NaN and Infinity have no form in JSON")


def _is_deeper(text: bytes, limit: int) -> bool:
    """Tell whether a text opens more than ``limit`` brackets inside one another, strings aside; linear in its size."""
    if len(text) <= limit or not _opens_more_than(text, limit):
        return False
    if b"\\" in text:
        # An escaped quote does not end a string, unless its backslash is itself escaped.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = text.translate(_STEPS, _NEITHER_BRACKET_NOR_QUOTE)
    # Two quotes in a row cancel out: whatever follows stays inside or outside of a string. That is nearly all of them.
    marks = marks.replace(b'""', b"")
    steps = memoryview(marks).cast("b")
    outside = chain.from_iterable(steps[slice(*match.span(1))] for match in _OUTSIDE.finditer(marks))
    # The depth changes in steps of one, so it cannot pass the limit without standing just above it.
    return limit + 1 in accumulate(outside)


def _opens_more_than(text: bytes, limit: int) -> bool:
    if len(text) < _LONG:
        return text.count(b"[") + text.count(b"{") > limit
    # Looking for the next one takes a twentieth of the time that counting does, where they are few.
    opened = 0
    for bracket in (b"[", b"{"):
        place = text.find(bracket)
        while place >= 0:
            opened += 1
            if opened > limit:
                return True
            place = text.find(bracket, place + 1)
    return False


def _has_no_floats(value: Any) -> bool:
    """Tell whether a value has a few parts only, and no float among them; False where that takes long to tell."""
    parts = [value]
    for part in parts:
        if len(parts) > _FEW or type(part) not in _EXACT:
            return False
        if type(part) is dict:
            parts += part.values()
        elif type(part) is list:
            parts += part
    return True


def _is_finite(value: Any) -> bool:
    """Tell whether no float in a value made of builtin types is NaN or infinite."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return True


def _plain(value: Any) -> Any:
    """Give the builtin value of a subclass of str, int or float, which msgspec does not write by itself."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"JSON has no form for {type(value).__name__}")


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(enc_hook=_plain).encode
