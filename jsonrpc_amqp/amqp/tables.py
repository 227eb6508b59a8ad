"""
Headers tables as bytes (pure): what RabbitMQ takes, and what can be read of any. ``frames`` describes the bytes.

RabbitMQ answers a table that it does not understand by closing the connection, or the channel, with all that is under
way on it. So the headers of a caller are checked and encoded before anything is sent. What others send is read entry by
entry: a value that cannot be read costs itself only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isfinite
from struct import Struct
from typing import Any

from ..errors import EncodeError
from .frames import TIMEOUT

# Levels of arrays and tables. Most libraries read them recursively: Java's ends a connection that brings thousands.
MAX_DEPTH = 100
# More than any frame that is agreed on with RabbitMQ's defaults.
_MOST_BYTES = 1 << 20
# RabbitMQ sends copies to the keys in these; of any type but an array it closes the channel.
_COPIES = (b"\2CC", b"\3BCC")
# RabbitMQ's own. When a message with others in it is dead-lettered, the process of its queue crashes, and a classic
# queue loses its transient messages.
_DEATHS = b"\7x-death"
_EPOCH = datetime(1970, 1, 1)

_pack_kind_and_length = Struct(">cI").pack
_pack_int = Struct(">ci").pack
_pack_longlong = Struct(">cq").pack
_pack_double = Struct(">cd").pack
_pack_time = Struct(">cQ").pack
_pack_decimal = Struct(">cBi").pack


class Headers(dict[str, Any]):
    """
    A caller's headers, checked and encoded: their values may change, what is sent does not.

    Attributes:
        entries: The entries of the table, without its length.

    Raises:
        EncodeError: RabbitMQ would not take them; the message names the header.
    """

    __slots__ = ("entries",)

    def __init__(self, headers: Mapping[str, Any]) -> None:
        if not isinstance(headers, Mapping):
            raise EncodeError(
                f"headers is a mapping of names to values, not {type(headers).__name__}; nothing was sent"
            )
        super().__init__(headers)
        self.pop("timeout-ms", None)  # a property of ``Publish``, never a header of the caller's
        self.entries = encode(self)


def checked(headers: Mapping[str, Any] | None) -> Headers | None:
    """Check and encode a caller's headers, if there are any; raises as ``Headers``."""
    if not headers:
        return None
    return headers if type(headers) is Headers else Headers(headers)


# -- encoding -------------------------------------------------------------------------------------------------------


def encode(headers: Mapping[str, Any]) -> bytes:
    """
    Return the entries of a table, without its length; ``timeout-ms`` is left out.

    Text and bytes become long strings, and None a void, as in py-amqp. A time without a zone is in UTC.

    Raises:
        EncodeError: RabbitMQ would not take them; the message names the header.
    """
    entries = []
    for name, value in headers.items():
        try:
            raw = _name(name)
            if raw == TIMEOUT:
                continue
            if raw in _COPIES:
                _check_copies(value)
            elif raw == _DEATHS:
                _check_deaths(value)
            entries.append(raw + _value(value, 1))
        except Exception as exc:  # a type of the caller's may raise anything
            raise EncodeError(f"header {name!r:.80} cannot be sent: {exc}. Nothing was sent") from exc
    return b"".join(entries)


def _name(name: Any) -> bytes:
    if isinstance(name, str):
        try:
            # surrogateescape: a name that a message brought, and that was not UTF-8, is sent on as it came.
            raw = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError("its name has lone surrogates, which UTF-8 has no form for") from None
    elif isinstance(name, bytes):
        raw = name
    else:
        raise ValueError(f"names are text, not {type(name).__name__}")
    if len(raw) > 255:
        raise ValueError(f"its name has {len(raw)} bytes, where AMQP takes 255")
    return bytes([len(raw)]) + raw


def _value(value: Any, depth: int) -> bytes:
    encode_one = _ENCODERS.get(type(value))
    if encode_one is None:
        encode_one = next((each for kind, each in _ENCODERS.items() if isinstance(value, kind)), None)
    if encode_one is None:
        raise ValueError(f"AMQP has no form for {type(value).__name__}")
    return encode_one(value, depth)


def _text(value: str, _depth: int) -> bytes:
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise ValueError("it has lone surrogates, which UTF-8 has no form for") from None
    return _with_length(b"S", raw)


def _bytes(value: bytes, _depth: int) -> bytes:
    return _with_length(b"S", value)


def _bool(value: bool, _depth: int) -> bytes:
    return b"t\1" if value else b"t\0"


def _integer(value: int, _depth: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return _pack_int(b"I", value)
    if -(1 << 63) <= value < 1 << 63:
        # Not "L", which py-amqp writes: RabbitMQ's Java library does not know it, and closes its connection.
        return _pack_longlong(b"l", value)
    raise ValueError("integers have 64 bits, signed")


def _float(value: float, _depth: int) -> bytes:
    if not isfinite(value):
        raise ValueError(f"RabbitMQ closes the connection that sends {float(value)}")
    return _pack_double(b"d", value)


def _decimal(value: Decimal, _depth: int) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 0 or len(digits) > 10:
        raise ValueError("decimals have 32 bits, signed, and at most 255 decimal places")
    unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)
    if not -(1 << 31) <= unscaled < 1 << 31:
        raise ValueError("decimals have 32 bits, signed, and at most 255 decimal places")
    return _pack_decimal(b"D", -exponent, unscaled)


def _time(value: datetime, _depth: int) -> bytes:
    try:
        in_utc = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    except (OverflowError, ValueError):
        raise ValueError("the time is beyond the years 1970 to 9999 in UTC") from None
    if in_utc < _EPOCH:
        raise ValueError("the time is beyond the years 1970 to 9999 in UTC")
    return _pack_time(b"T", (in_utc - _EPOCH) // timedelta(seconds=1))


def _table(value: Mapping[Any, Any], depth: int) -> bytes:
    _check_depth(depth)
    entries = b"".join([_name(name) + _value(each, depth + 1) for name, each in value.items()])
    return _with_length(b"F", entries)


def _array(value: list[Any] | tuple[Any, ...], depth: int) -> bytes:
    _check_depth(depth)
    elements = b"".join([_value(each, depth + 1) for each in value])
    return _with_length(b"A", elements)


def _void(_value: None, _depth: int) -> bytes:
    return b"V"


def _with_length(kind: bytes, content: bytes) -> bytes:
    # Here, not at the end: tables that share their parts may be without bounds.
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES} bytes, which no frame has room for")
    return _pack_kind_and_length(kind, len(content)) + content


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


# By type; a value of a subclass is encoded as the first that it is an instance of: bool, which is an int, comes first.
_ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    str: _text,
    bool: _bool,
    int: _integer,
    float: _float,
    type(None): _void,
    bytes: _bytes,
    dict: _table,
    list: _array,
    tuple: _array,
    datetime: _time,
    Decimal: _decimal,
}


def _check_copies(value: Any) -> None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(key, (str, bytes)) for key in value):
        raise ValueError("RabbitMQ takes a list of routing keys there, each a text, and closes the channel otherwise")


def _check_deaths(value: Any) -> None:
    if (
        not isinstance(value, (list, tuple))
        or not all(isinstance(death, dict) for death in value)
        or not all(type(death.get("count", 0)) is int for death in value)
    ):
        raise ValueError("what RabbitMQ writes there is a list of tables, and anything else makes its queues crash")


# -- reading --------------------------------------------------------------------------------------------------------


class Unreadable:
    """
    What could not be read of one table.

    Attributes:
        names: The top-level header of each value that could not be read; "" for entries behind a break.
        first: Of the first one: its name, and why.
    """

    __slots__ = ("first", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.first = ""

    def note(self, name: str, why: str) -> None:
        """Add a value."""
        if not self.names:
            self.first = f"{name!r:.80}: {why}"
        self.names.append(name)


class _Break(Exception):
    """A length, or a type, leaves it unknown where the next value begins."""


class _Skip(Exception):
    """A value cannot be read, but the next one can."""

    def __init__(self, why: str, position: int) -> None:
        super().__init__(why, position)
        self.why = why
        self.position = position


def read(table: bytes) -> tuple[dict[str, Any], Unreadable]:
    """
    Read a table with its length, as py-amqp does, but entry by entry.

    Of several entries with one name the first counts, as for RabbitMQ, which replaces the first one when it writes a
    header itself; the others are unreadable. An entry whose value cannot be read is left out, and None stands for
    such an element of an array. Behind lengths that do not add up, or a type that is not known, nothing can be read;
    what comes before is kept, at each level. Text that is not UTF-8 is returned as bytes; in names, it is decoded with
    ``surrogateescape``.
    """
    unreadable = Unreadable()
    headers: dict[str, Any] = {}
    length = int.from_bytes(table[:4], "big")
    _read_entries(headers, table, 4, min(4 + length, len(table)), 1, unreadable, None)
    if 4 + length != len(table):
        unreadable.note("", "the length of the table is wrong")
    return headers, unreadable


def _read_entries(
    into: dict[str, Any], data: bytes, position: int, end: int, depth: int, unreadable: Unreadable, header: str | None
) -> None:
    """Read the entries of a table; ``header`` is the top-level one that it belongs to, None at the top."""
    name, skipped = "", set[str]()
    try:
        while position < end:
            name = ""
            start = position + 1
            position = start + data[position]
            if position > end:
                raise _Break("a name is longer than the table")
            name = data[start:position].decode("utf-8", "surrogateescape")
            try:
                value, position = _read(data, position, end, depth, unreadable, header or name)
            except _Skip as exc:
                unreadable.note(name if header is None else header, exc.why)
                skipped.add(name)
                position = exc.position
                continue
            if name in into or name in skipped:
                unreadable.note(name if header is None else header, "it occurs again, and the first one counts")
            else:
                into[name] = value
    except _Break as exc:
        unreadable.note("" if header is None else header, f"{exc}, in the entry {name!r:.80}")


def _read_array(data: bytes, position: int, end: int, depth: int, unreadable: Unreadable, header: str) -> list[Any]:
    elements: list[Any] = []
    try:
        while position < end:
            try:
                element, position = _read(data, position, end, depth, unreadable, header)
            except _Skip as exc:
                unreadable.note(header, exc.why)
                element, position = None, exc.position
            elements.append(element)
    except _Break as exc:
        unreadable.note(header, str(exc))
    return elements


def _read(data: bytes, position: int, end: int, depth: int, unreadable: Unreadable, header: str) -> tuple[Any, int]:
    """Read one value; return it, and where the next one begins."""
    if position >= end:
        raise _Break("a value is missing")
    kind = data[position]
    position += 1
    fixed = _FIXED.get(kind)
    if fixed is not None:
        size, unpack = fixed
        if position + size > end:
            raise _Break("a value is longer than its table")
        return unpack(data, position)[0], position + size
    if kind in _WITH_LENGTH:
        start = position + 4
        stop = start + int.from_bytes(data[position:start], "big")
        if start > end or stop > end:
            raise _Break("a value is longer than its table")
        if kind == _LONG_STRING:
            return _read_text(data[start:stop]), stop
        if kind == _BINARY:
            return data[start:stop], stop
        if depth > MAX_DEPTH:
            raise _Skip(f"it is nested deeper than {MAX_DEPTH} levels", stop)
        if kind == _ARRAY:
            return _read_array(data, start, stop, depth + 1, unreadable, header), stop
        nested: dict[str, Any] = {}
        _read_entries(nested, data, start, stop, depth + 1, unreadable, header)
        return nested, stop
    return _read_rare(kind, data, position, end)


def _read_rare(kind: int, data: bytes, position: int, end: int) -> tuple[Any, int]:
    if kind == _VOID:
        return None, position
    stop = position + _RARE.get(kind, 0)
    if stop == position:
        raise _Break(f"{chr(kind)!a} is no type that RabbitMQ knows")
    if stop > end:
        raise _Break("a value is longer than its table")
    if kind == _BOOL:
        return data[position] != 0, stop
    if kind == _DECIMAL:
        unscaled = int.from_bytes(data[position + 1 : stop], "big", signed=True)
        # By its digits: arithmetic would round as the thread's decimal context says.
        return Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -data[position])), stop
    seconds = int.from_bytes(data[position:stop], "big")
    try:
        return _EPOCH + timedelta(seconds=seconds), stop
    except OverflowError:
        raise _Skip(f"a time of {seconds} seconds is beyond the year 9999", stop) from None


def _read_text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


_LONG_STRING, _BINARY, _ARRAY, _VOID, _BOOL, _DECIMAL = b"SxAVtD"
_WITH_LENGTH = frozenset(b"SxAF")
_RARE = {_BOOL: 1, _DECIMAL: 5, ord("T"): 8}
# Sizes in bytes. "U" is py-amqp's; RabbitMQ does not know it.
_FIXED: dict[int, tuple[int, Callable[[bytes, int], tuple[Any, ...]]]] = {
    ord(kind): (Struct(f">{code}").size, Struct(f">{code}").unpack_from)
    for kind, code in zip("bBsUuIiLlfd", "bBhhHiIqqfd", strict=True)
}
