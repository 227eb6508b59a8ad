"""
Headers that RabbitMQ takes, and headers that cannot be sent; ``tests/integration/test_headers.py`` tries them on one.

What RabbitMQ 3.10.8 answers to each as raw bytes is in ``RAW``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from struct import pack
from typing import Any, NamedTuple

_EAST, _WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))


class Taken(NamedTuple):
    """Headers that are sent, and what a receiver finds."""

    headers: Mapping[Any, Any]
    received: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.headers!r:.40}"


class Refused(NamedTuple):
    """Headers of which the last one cannot be sent, and what the error says besides its name."""

    headers: Mapping[Any, Any]
    says: str

    def __repr__(self) -> str:
        # Without the values: the address of an object differs from process to process.
        return f"{', '.join(map(repr, self.headers)):.40}: {self.says:.40}"


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = {"n": value}
    return value


def _same(headers: dict[str, Any]) -> Taken:
    return Taken(headers, headers)


TAKEN = [
    _same({"text": "t", "empty": "", "accents": "é", "nul": "a\0b", "line": "a\r\nb"}),
    _same({"": "a name of no bytes", "é": 1, "a\0b": 1, "1": 1, "$ # .": 1}),
    _same({"x" * 255: 1}),
    _same({"ints": [0, -1, (1 << 31) - 1, -(1 << 31), 1 << 31, (1 << 63) - 1, -(1 << 63)]}),
    _same({"bools": [True, False], "none": None}),
    _same({"floats": [0.5, -0.0, 1.7976931348623157e308, 5e-324]}),
    _same({"decimals": [Decimal("1.50"), Decimal(-7), Decimal("1E-255")]}),
    Taken({"bytes": b"abc", "binary": b"\xff"}, {"bytes": "abc", "binary": b"\xff"}),
    Taken({"tuple": (1, (2,))}, {"tuple": [1, [2]]}),
    _same({"deep": {"a": [{"b": {}}]}}),
    _same({"levels": nested(100)}),
    _same({"times": [datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59)]}),
    Taken({"time": datetime(1970, 1, 1, 14, tzinfo=_EAST)}, {"time": datetime(1970, 1, 1)}),
    _same({"CC": ["audit", "é"]}),
    _same({"CC": []}),
    _same({"cc": "no header of RabbitMQ's"}),
    _same({"x-death": [{"queue": "q", "reason": "expired", "count": 1}], "x-other": 1}),
    Taken({b"bytes": 1}, {"bytes": 1}),
    Taken({"timeout-ms": "left out", b"timeout-ms": 1, "a": 1}, {"a": 1}),
]

REFUSED = [
    Refused({"a": 1, "load": math.nan}, "nan"),
    Refused({"load": math.inf}, "inf"),
    Refused({"load": -math.inf}, "-inf"),
    Refused({"deep": {"a": [1, {"b": math.nan}]}}, "nan"),
    Refused({"CC": "audit"}, "a list of routing keys"),
    Refused({"CC": None}, "a list of routing keys"),
    Refused({"BCC": "audit"}, "a list of routing keys"),
    Refused({"BCC": {"a": 1}}, "a list of routing keys"),
    Refused({b"CC": "audit"}, "a list of routing keys"),
    Refused({"CC": ["audit", 1]}, "a list of routing keys"),
    Refused({"x-death": "x"}, "a list of tables"),
    Refused({"x-death": [1]}, "a list of tables"),
    Refused({"x-death": [{"count": "1"}]}, "a list of tables"),
    Refused({"x-death": [{"count": 1.5}]}, "a list of tables"),
    Refused({"x" * 256: 1}, "256 bytes, where AMQP takes 255"),
    Refused({"é" * 128: 1}, "256 bytes, where AMQP takes 255"),
    Refused({"\ud800": 1}, "lone surrogates"),
    Refused({5: 1}, "names are text, not int"),
    Refused({None: 1}, "names are text, not NoneType"),
    Refused({"deep": {5: 1}}, "names are text, not int"),
    Refused({"text": "\ud800"}, "lone surrogates"),
    Refused({"text": "\udcff"}, "lone surrogates"),
    Refused({"int": 1 << 63}, "64 bits"),
    Refused({"int": -(1 << 63) - 1}, "64 bits"),
    Refused({"int": 1 << 5000}, "64 bits"),
    Refused({"decimal": Decimal("NaN")}, "32 bits"),
    Refused({"decimal": Decimal("Infinity")}, "32 bits"),
    Refused({"decimal": Decimal("1E+3")}, "32 bits"),
    Refused({"decimal": Decimal("1E-256")}, "32 bits"),
    Refused({"decimal": Decimal(1 << 31)}, "32 bits"),
    Refused({"decimal": Decimal("1." + "0" * 5000)}, "32 bits"),
    Refused({"time": datetime(1969, 12, 31, 23, 59, 59)}, "1970 to 9999"),
    Refused({"time": datetime(1970, 1, 1, tzinfo=_EAST)}, "1970 to 9999"),
    Refused({"time": datetime(9999, 12, 31, 23, tzinfo=_WEST)}, "1970 to 9999"),
    Refused({"time": datetime(1, 1, 1, tzinfo=_EAST)}, "1970 to 9999"),
    Refused({"levels": nested(101)}, "nested deeper than 100 levels"),
    Refused({"levels": nested(900)}, "nested deeper than 100 levels"),
    Refused({"object": object()}, "no form for object"),
    Refused({"set": {1}}, "no form for set"),
    Refused({"complex": 1j}, "no form for complex"),
    Refused({"large": "x" * (1 << 20) + "x"}, "1048576 bytes"),
]


def entry(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + value


def table(*entries: bytes) -> bytes:
    return pack(">I", len(b"".join(entries))) + b"".join(entries)


def text(value: bytes) -> bytes:
    return b"S" + pack(">I", len(value)) + value


def _levels(count: int) -> bytes:
    value = b"F" + table()
    for _ in range(count):
        value = b"F" + table(entry(b"", value))
    return value


def same(ours: Any, theirs: Any) -> bool:
    """Return whether we read what py-amqp reads, apart from texts that are not UTF-8: it passes lone surrogates."""
    if isinstance(theirs, dict):
        names = {_name(name): value for name, value in theirs.items()}
        return isinstance(ours, dict) and ours.keys() == names.keys() and all(same(ours[n], names[n]) for n in names)
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, str) and isinstance(ours, bytes):
        return theirs.encode("utf-8", "surrogatepass") == ours
    if isinstance(theirs, float) and math.isnan(theirs):
        return isinstance(ours, float) and math.isnan(ours)
    return type(ours) is type(theirs) and bool(ours == theirs)


def _name(name: Any) -> str:
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
    return bytes(raw).decode("utf-8", "surrogateescape")


# Entries of a table, and how RabbitMQ 3.10.8 answers a message with them as raw bytes: the code with which it closes
# the channel (406) or the connection, or None where it takes the message.
RAW: dict[str, tuple[bytes, int | None]] = {
    "NaN": (entry(b"d", b"d" + pack(">d", math.nan)), 541),
    "infinity": (entry(b"d", b"d" + pack(">d", math.inf)), 541),
    "NaN of 32 bits": (entry(b"d", b"f" + pack(">f", math.nan)), 541),
    "NaN in an array": (entry(b"d", b"A" + table(b"d" + pack(">d", math.nan))), 541),
    "negative zero": (entry(b"d", b"d" + pack(">d", -0.0)), None),
    "CC as text": (entry(b"CC", text(b"audit")), 406),
    "BCC as text": (entry(b"BCC", text(b"audit")), 406),
    "CC as void": (entry(b"CC", b"V"), 406),
    "CC as a table": (entry(b"CC", b"F" + table()), 406),
    "CC as texts": (entry(b"CC", b"A" + table(text(b"audit"))), None),
    "CC as integers": (entry(b"CC", b"A" + table(b"I\0\0\0\1")), None),
    "CC with 300 bytes": (entry(b"CC", b"A" + table(text(b"k" * 300))), None),
    "BCC as texts": (entry(b"BCC", b"A" + table(text(b"audit"))), None),
    "a time beyond all years": (entry(b"t", b"T" + b"\xff" * 8), None),
    "a decimal": (entry(b"d", b"D\xff\xff\xff\xff\xff"), None),
    "void": (entry(b"v", b"V"), None),
    "bytes": (entry(b"x", b"x\0\0\0\2ab"), None),
    "L": (entry(b"n", b"L" + bytes(8)), None),
    "l": (entry(b"n", b"l" + bytes(8)), None),
    "U, which py-amqp knows": (entry(b"n", b"U\0\0"), 541),
    "a type that does not exist": (entry(b"n", b"?"), 541),
    "a lone surrogate": (entry(b"s", text(b"\xed\xa0\x80")), None),
    "no UTF-8": (entry(b"\xff", text(b"\xff")), None),
    "NUL": (entry(b"a\0", text(b"a\0")), None),
    "a name of no bytes": (entry(b"", text(b"a")), None),
    "a name of 255 bytes": (entry(b"n" * 255, text(b"a")), None),
    "the same name twice": (entry(b"n", text(b"a")) + entry(b"n", text(b"b")), None),
    "a text longer than its table": (entry(b"s", b"S\0\0\0\x09x"), 541),
    "half an integer": (entry(b"n", b"I\0\0"), 541),
    "a name without a value": (b"\1n", 541),
    "18,000 levels": (entry(b"n", _levels(18_000)), None),
    "a full frame": (entry(b"n", text(b"x" * 131_039)), None),
    "more than a frame": (entry(b"n", text(b"x" * 131_072)), 501),
}
