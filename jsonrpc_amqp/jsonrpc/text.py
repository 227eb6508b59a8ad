"""
JSON text <-> values, strict in both directions (pure).

Reading accepts JSON as RFC 8259 defines it and nothing else: UTF-8 without a byte order mark, no NaN or Infinity, no
lone surrogates, nothing after the value. Integers stay exact up to 4300 digits. If a name occurs twice in one object,
the last one counts, as in the standard library.

Writing also accepts the further types that msgspec can write: tuples and sets (arrays), dataclasses, ``attrs`` classes
and msgspec structs (objects), enums (their value), dates and times (ISO 8601), UUIDs and Decimals (strings), bytes
(base64). The keys of a dict may be of any of these types that is written as a string or a number, which becomes the
name of the member: of 1 it is "1". Other keys are refused: True, False, None, tuples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate, chain, islice
from math import isfinite
from typing import Any

import msgspec

from ..errors import EncodeError
from .unwritable import explain, no_form, no_name

# To find floats: walk a value of at most so many parts if its text is over so many bytes; otherwise search the text.
_LONG_TEXT, _FEW_PARTS = 4096, 64
_EXACT = frozenset((str, int, bool, type(None), dict, list))
_BRACKETS = b"[]{}"
_NEITHER_BRACKET_NOR_QUOTE = bytes(set(range(256)) - {*_BRACKETS, *b'"'})
_NO_MARK = bytes(set(_NEITHER_BRACKET_NOR_QUOTE) - {*b","})
# Types with a form as a value: msgspec asks what to write for one only where it is a key.
_NEVER_A_NAME = (bool, type(None), tuple, frozenset)
# One level down is 1, one level up is 255, which is -1 when the byte is read as signed.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_UP_AND_DOWN = b"\xff\x01"
_AT_A_TIME = 1 << 16
_ARRAY = re.compile(rb"[ \t\n\r]*\[")
# The marks before a string (or the end), and the string. The closing quote is optional, so the pattern matches wherever
# it is tried and never backtracks: linear on any text.
_OUTSIDE = re.compile(rb'([^"]*)(?:"[^"]*"?)?')


Raw = msgspec.Raw
"""The text of a JSON value; ``bytes(raw)`` are its bytes."""


class Malformed(ValueError):
    """The bytes are not JSON, or are nested too deep. The message says where, and quotes nothing."""


class TooManyMembers(Malformed):
    """The bytes begin as an array with too many members, which was not read further."""


def loads(data: bytes, *, max_depth: int = 100, max_members: int | None = None) -> Any:
    """
    Read one JSON value.

    Args:
        data: JSON in UTF-8.
        max_depth: Most arrays and objects inside one another.
        max_members: Most members of the value, if it is an array, at least 1; None: any number.

    Raises:
        TooManyMembers: It has more members.
        Malformed: It is not JSON, is nested too deep, or has a number that Python cannot represent.
    """
    # Before parsing, since a value takes up to thirty times the memory of its text. And the parser recurses, limited
    # only by the interpreter's recursion limit, which programs may raise.
    if _is_deeper(data, max_depth):
        raise Malformed(f"nested deeper than {max_depth} levels")
    if max_members is not None and data[:1] != b"{" and _has_more_members(data, max_members):
        raise TooManyMembers(f"an array with more than {max_members} members")
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
        EncodeError: JSON has no form for it, or it is nested too deep. The message begins with the path to the part:
            ``order.items[3].price: JSON has no form for complex``.
    """
    try:
        text = _encode(value)
        _check_written(text, value, max_depth)
    except Exception as exc:
        why = explain(value, encode=_encode, max_depth=max_depth, unset=msgspec.UNSET) or str(exc)
        raise EncodeError(why) from exc
    return text


def begins(text: bytes | Raw, characters: str) -> bool:
    """Whether a JSON text begins with one of some characters. The texts of ``split_object`` begin with no space."""
    return bytes(memoryview(text)[:1]).decode("latin-1") in tuple(characters)


def split_object(text: bytes | Raw) -> dict[str, Raw]:
    """Return the members of an object, each as the text that it is; ``text`` was read by ``loads`` before."""
    return _decode_object(text)


def split_array(text: bytes | Raw) -> list[Raw]:
    """Return the elements of an array, each as the text that it is; ``text`` was read by ``loads`` before."""
    return _decode_array(text)


def join(parts: dict[str, Raw] | list[Raw]) -> Raw:
    """Write an object or an array of texts, which stay as they are."""
    return Raw(_encode(parts))


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
    # The depth changes in steps of one, so a text that exceeds the limit has a depth of exactly one more somewhere.
    return limit + 1 in _depths(text, _NEITHER_BRACKET_NOR_QUOTE)


def _has_more_members(text: bytes, most: int) -> bool:
    """
    Whether a text is an array with more members; takes time linear in the size, and little of it if it has many more.

    For a text that is not JSON the result is of no use.
    """
    if text.count(b",") < most or not _ARRAY.match(text):
        return False
    # A comma goes up and down again, so that the depth is 0 once for each member: at the comma, or the end, behind it.
    depths = _depths(text, _NO_MARK)
    found = 0
    while found <= most and (some := list(islice(depths, _AT_A_TIME))):
        found += some.count(0)
    return found > most


def _depths(text: bytes, dropped: bytes) -> Iterator[int]:
    """Return the depth after each bracket and comma outside of strings, but for those that are ``dropped``."""
    if b"\\" in text:
        # An escaped quote does not end a string, unless its backslash is itself escaped.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes in a row cancel out: what follows stays inside or outside of a string. Few quotes are left after this.
    marks = text.translate(_STEPS, dropped).replace(b'""', b"").replace(b",", _UP_AND_DOWN)
    steps = memoryview(marks).cast("b")
    outside = chain.from_iterable(steps[slice(*match.span(1))] for match in _OUTSIDE.finditer(marks))
    return accumulate(outside)


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
    """Return the builtin value of what msgspec does not write itself: of a subclass of str, or a model of pydantic."""
    if isinstance(value, str):
        return str.__str__(value)
    # Of keys, msgspec asks for bool as well, and would write the names "0" and "1".
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    serializer = getattr(type(value), "__pydantic_serializer__", None)
    if serializer is not None:
        return serializer.to_python(value, mode="json", by_alias=True)
    raise TypeError(no_name(value) if isinstance(value, _NEVER_A_NAME) else no_form(value))


_decode = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_encode = msgspec.json.Encoder(enc_hook=_plain).encode
