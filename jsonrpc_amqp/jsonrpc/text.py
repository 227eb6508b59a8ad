"""
JSON text <-> values, strict in both directions (pure; the only import of msgspec).

Reading accepts JSON as RFC 8259 defines it and nothing else: UTF-8 without a byte order mark, no NaN or Infinity, no
lone surrogates, nothing after the value. Integers stay exact up to 4300 digits. If a name occurs twice in one object,
the last one counts, as in the standard library.

Writing also accepts the further types that msgspec can write: tuples and sets (arrays), dataclasses, ``attrs`` classes
and msgspec structs (objects), enums (their value), dates and times (ISO 8601), UUIDs and Decimals (strings), bytes
(base64).
"""

from __future__ import annotations

import re
from itertools import accumulate, chain
from math import isfinite
from typing import Any

import msgspec

from ..errors import EncodeError

# To find floats: walk a value of at most so many parts if its text is over so many bytes; otherwise search the text.
_LONG_TEXT, _FEW_PARTS = 4096, 64
_EXACT = frozenset((str, int, bool, type(None), dict, list))
_BRACKETS = b"[]{}"
_NEITHER_BRACKET_NOR_QUOTE = bytes(set(range(256)) - {*_BRACKETS, *b'"'})
# One level down is 1, one level up is 255, which is -1 when the byte is read as signed.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
# The marks before a string (or the end), and the string. The closing quote is optional, so the pattern matches wherever
# it is tried and never backtracks: linear on any text.
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
        Malformed: It is not JSON, is nested too deep, or has a number that Python cannot represent.
    """
    # Before parsing: the parser recurses, limited only by the interpreter's recursion limit, which programs may raise.
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
        value: Of the types that the module's description lists.
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
    """
    Check that other JSON parsers can read what msgspec wrote.

    Raises:
        ValueError: They cannot.
    """
    if _is_deeper(text, max_depth):
        raise ValueError(f"nested deeper than {max_depth} levels")
    # msgspec writes NaN and Infinity as null, so only a value whose text has a null in it needs the walk below.
    # to_builtins knows the same types as the encoder, and keeps floats.
    if len(text) > _LONG_TEXT and _has_no_floats(value):
        return  # typically one long string, which takes longer to search than to write
    if b"null" in text and not _is_finite(msgspec.to_builtins(value, enc_hook=_plain)):
        raise ValueError("NaN and Infinity have no form in JSON")


def _is_deeper(text: bytes, limit: int) -> bool:
    """Whether more than ``limit`` brackets are open at once, outside of strings; takes time linear in the size."""
    if len(text) <= limit or not _opens_more_than(text, limit):
        return False
    if b"\\" in text:
        # An escaped quote does not end a string, unless its backslash is itself escaped.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = text.translate(_STEPS, _NEITHER_BRACKET_NOR_QUOTE)
    # Two quotes in a row cancel out: what follows stays inside or outside of a string. Few quotes are left after this.
    marks = marks.replace(b'""', b"")
    steps = memoryview(marks).cast("b")
    outside = chain.from_iterable(steps[slice(*match.span(1))] for match in _OUTSIDE.finditer(marks))
    # The depth changes in steps of one, so a text that exceeds the limit has a depth of exactly one more somewhere.
    return limit + 1 in accumulate(outside)


def _opens_more_than(text: bytes, limit: int) -> bool:
    if len(text) < _LONG_TEXT:
        return text.count(b"[") + text.count(b"{") > limit
    # With few brackets, searching for the next one takes a twentieth of the time of counting.
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
    """Whether a value has few parts, and none is a float. False also for a value that would take long to check."""
    parts = [value]
    for part in parts:
        if len(parts) > _FEW_PARTS or type(part) not in _EXACT:
            return False
        if type(part) is dict:
            parts += part.values()
        elif type(part) is list:
            parts += part
    return True


def _is_finite(value: Any) -> bool:
    """Whether no float in a value made of builtin types is NaN or infinite."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    return True


def _plain(value: Any) -> Any:
    """Return the builtin value of a subclass of str, int or float, which msgspec does not write itself."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f"JSON has no form for {type(value).__name__}{_where(value)}")


def _where(value: Any) -> str:
    """Return where JSON has no form for a value, if it has one elsewhere."""
    try:
        msgspec.json.encode(value)
    except Exception:
        return ""
    return " as the name of a member (a key of a dict); names are strings"


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(enc_hook=_plain).encode
