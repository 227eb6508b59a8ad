"""JSON text <-> values: what is read, what is refused, and that both cost a bounded amount."""

from __future__ import annotations

import json
import math
import sys
import time
import tracemalloc
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jsonrpc_amqp.errors import EncodeError
from jsonrpc_amqp.jsonrpc.text import Malformed, TooManyMembers, dumps, loads

MIB = 1024 * 1024


@dataclass
class Point:
    x: Any


@dataclass(slots=True)
class SlottedPoint:
    x: Any


class Struct(msgspec.Struct):
    x: Any


class Level(IntEnum):
    HIGH = 3


class Text(str):
    pass


class Number(float):
    pass


class Whole(int):
    pass


class Name(Enum):
    A = "a"


class NotANumber(Enum):
    IT = math.nan


Pair = namedtuple("Pair", "a b")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates have no UTF-8.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Equal, with integers, floats and booleans told apart."""
    return repr(a) == repr(b)


@given(json_values)
@settings(deadline=None)
def test_values_survive_the_round_trip_and_the_standard_library_agrees(value: Any) -> None:
    text = dumps(value)
    assert same(loads(text), value)
    assert same(json.loads(text), value)
    assert same(loads(json.dumps(value).encode()), value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"18446744073709551616", 2**64),
        (b"-18446744073709551617", -(2**64) - 1),
        (b"9007199254740993", 2**53 + 1),
        (b"1" * 4300, int("1" * 4300)),
        (b"1e400".replace(b"400", b"3"), 1000.0),
        (b'{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}),
        (b' \t\r\n[ 1 , "\\u00e9\\ud83d\\ude00" ] \n', [1, "\u00e9\U0001f600"]),
        ('"\u00e9\U0001f600"'.encode(), "\u00e9\U0001f600"),
        (b'"\x7f\\u0000"', "\x7f\0"),
    ],
)
def test_reads(text: bytes, value: Any) -> None:
    assert same(loads(text), value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"1" * 5000,
        b"-" + b"1" * 5000,
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"[1,]",
        b'{"a":1,}',
        b"{a:1}",
        b"{1:1}",
        b"'a'",
        b"[1] // comment",
        b"1 2",
        b"{}{}",
        b"{}\0",
        b'"a\nb"',
        b'"\0"',
        b'"\\x41"',
        b'"open',
        b'"\\',
        b'"\xff"',
        b'{"\xff": 1}',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800\\ud800"',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-16-le"),
        "{}".encode("utf-32-be"),
        b"\xa01",
        b"]",
        b"[}",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_refuses(text: bytes) -> None:
    with pytest.raises(Malformed):
        loads(text)


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(deadline=None)
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except Malformed:
        return
    assert same(value, json.loads(data))


def nested(depth: int) -> bytes:
    """Arrays and objects in turn, ``depth`` of them inside one another."""
    pairs = [(b"[", b"]") if level % 2 else (b'{"a":', b"}") for level in range(depth)]
    return b"".join(opening for opening, _ in pairs) + b"1" + b"".join(closing for _, closing in reversed(pairs))


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 100])
def test_depth_is_counted_exactly(limit: int) -> None:
    at_the_limit = loads(nested(limit), max_depth=limit)
    assert dumps(at_the_limit, max_depth=limit) == nested(limit)
    over = json.loads(nested(limit + 1))
    with pytest.raises(Malformed, match=f"deeper than {limit} levels"):
        loads(nested(limit + 1), max_depth=limit)
    with pytest.raises(EncodeError, match=f"deeper than {limit} levels"):
        dumps(over, max_depth=limit)


@pytest.mark.parametrize(
    "value",
    [
        ["[" * 50, "{" * 50],
        ['"' + "[" * 50, "\\", "[" * 50],
        ["\\" * 3 + '"[[[[[[', '\\"[[[[[', '"', "{{{{{", '""', "[[[["],
        {"[[[[": "]]]]", '\\"[[[[[': [1], '"': "{{{{"},
        [[1]] * 50,
        ["\\\\", [], "[[[[\\"],
    ],
)
def test_brackets_in_strings_and_side_by_side_are_no_depth(value: Any) -> None:
    assert loads(json.dumps(value).encode(), max_depth=2) == value
    assert loads(dumps(value, max_depth=2)) == value


def depth_of(value: Any) -> int:
    if isinstance(value, (list, dict)):
        return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)
    return 0


brackets = st.text(st.sampled_from('[]{}"\\ a'))


@given(
    st.recursive(brackets, lambda inner: st.lists(inner) | st.dictionaries(brackets, inner), max_leaves=20),
    st.integers(1, 6),
)
@settings(deadline=None)
def test_the_text_tells_the_depth_of_the_value(value: Any, limit: int) -> None:
    text = json.dumps(value).encode()
    if depth_of(value) <= limit:
        assert loads(text, max_depth=limit) == value
    else:
        with pytest.raises(Malformed):
            loads(text, max_depth=limit)


@given(
    st.lists(st.recursive(brackets, lambda inner: st.lists(inner) | st.dictionaries(brackets, inner), max_leaves=6)),
    st.integers(1, 6),
    st.sampled_from([b"", b" ", b"\n\t\r "]),
)
@settings(deadline=None)
def test_the_text_tells_how_many_members_an_array_has(value: list[Any], most: int, space: bytes) -> None:
    text = space + json.dumps(value).encode() + space
    if len(value) <= most:
        assert loads(text, max_members=most) == value
    else:
        with pytest.raises(TooManyMembers, match=f"more than {most} members"):
            loads(text, max_members=most)
    # Only the outermost array is counted.
    assert loads(b'{"a": %b}' % text, max_members=1) == {"a": value}
    assert loads(b"[%b]" % text, max_members=1) == [value]


@given(st.binary(max_size=60), st.integers(1, 3))
def test_arbitrary_bytes_have_some_number_of_members(data: bytes, most: int) -> None:
    try:
        value = loads(data)
    except Malformed:
        with pytest.raises(Malformed):
            loads(data, max_members=most)
        return
    if isinstance(value, list) and len(value) > most:
        with pytest.raises(TooManyMembers):
            loads(data, max_members=most)
    else:
        assert loads(data, max_members=most) == value


@pytest.mark.parametrize("unit", [b"[]", b"{}", b"1", b'""', b'"["', b'{"":0}', b'"\\""', b"[[[]]]"])
def test_an_array_with_too_many_members_is_not_built(unit: bytes) -> None:
    text = b"[" + b",".join([unit] * (MIB // (len(unit) + 1))) + b"]"
    tracemalloc.start()
    try:
        with pytest.raises(TooManyMembers):
            loads(text, max_members=1000)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(text)
    finally:
        tracemalloc.stop()


hostile = pytest.mark.parametrize(
    "unit",
    [b"[", b'{"a":', b"[]", b'\\"[', b'"[', b'"[",[],', b'"', b"\\", b"1", b"[],"],
    ids=ascii,
)


@hostile
@pytest.mark.parametrize("start", [b"", b'["', b"["], ids=ascii)
def test_hostile_texts_take_time_in_proportion(unit: bytes, start: bytes) -> None:
    # What is quadratic takes minutes here.
    text = start + unit * (4 * MIB // len(unit)) + b"[" * 200
    before = time.process_time()
    with pytest.raises(Malformed):
        loads(text)
    assert time.process_time() - before < 1.5


@hostile
@pytest.mark.parametrize("start", [b"", b'["', b"["], ids=ascii)
def test_hostile_texts_take_memory_in_proportion(unit: bytes, start: bytes) -> None:
    text = start + unit * (MIB // 4 // len(unit)) + b"[" * 200
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            loads(text)
        assert tracemalloc.get_traced_memory()[1] < 5 * len(text)
    finally:
        tracemalloc.stop()


def test_a_cap_beyond_what_the_interpreter_takes_is_no_crash() -> None:
    with pytest.raises(Malformed):
        loads(b"[" * 100_000 + b"]" * 100_000, max_depth=10**6)


def test_a_raised_recursion_limit_lets_nothing_deep_in() -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        with pytest.raises(Malformed):
            loads(b"[" * MIB + b"]" * MIB)
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True, "\u00e9"]}, '{"a":[1,2.5,null,true,"\u00e9"]}'),
        ((1, (2,)), "[1,[2]]"),
        (Pair(1, None), "[1,null]"),
        ({7}, "[7]"),
        (frozenset([7]), "[7]"),
        (OrderedDict(b=1, a=2), '{"b":1,"a":2}'),
        ({1: "one"}, '{"1":"one"}'),
        (2**64, "18446744073709551616"),
        (Point(None), '{"x":null}'),
        (SlottedPoint(1), '{"x":1}'),
        (Struct([None]), '{"x":[null]}'),
        (Level.HIGH, "3"),
        ([Text("a"), Whole(3), Number(1.5), None], '["a",3,1.5,null]'),
        (datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), '"2020-01-02T03:04:05Z"'),
        (UUID(int=0), '"00000000-0000-0000-0000-000000000000"'),
        (Decimal("1.10"), '"1.10"'),
        (b"abc", '"YWJj"'),
        ("null", '"null"'),
    ],
)
def test_writes(value: Any, text: str) -> None:
    assert dumps(value) == text.encode()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, Number("nan")], ids=str)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda number: number,
        lambda number: [1, [number]],
        lambda number: {"a": {"b": number}},
        lambda number: (None, number),
        lambda number: {number},
        lambda number: Pair(1, number),
        Point,
        SlottedPoint,
        Struct,
        lambda number: [Point(Struct((number,)))],
    ],
)
def test_nan_and_infinity_are_not_written(number: float, wrap: Callable[[float], Any]) -> None:
    with pytest.raises(EncodeError, match="NaN"):
        dumps(wrap(number))


def test_an_enum_does_not_smuggle_nan() -> None:
    with pytest.raises(EncodeError, match="NaN"):
        dumps([NotANumber.IT])


cycle: list[Any] = []
cycle.append(cycle)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {"a": object()},
        1j,
        range(3),
        Exception("x"),
        {(1, 2): 3},
        {None: 1},
        "\ud800",
        {"\ud800": 1},
        10**5000,
        cycle,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_is_not_written(value: Any) -> None:
    with pytest.raises(EncodeError):
        dumps(value)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (1, "1"),
        (-1.5, "-1.5"),
        (Whole(5), "5"),
        (Number(2.5), "2.5"),
        (Text("a"), "a"),
        (Level.HIGH, "3"),
        (Name.A, "a"),
        (UUID(int=5), str(UUID(int=5))),
        (Decimal("1.5"), "1.5"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (b"x", "eA=="),
    ],
    ids=lambda value: type(value).__name__,
)
def test_keys_with_a_text_or_number_are_names(key: Any, name: str) -> None:
    assert json.loads(dumps([Point({key: True})])) == [{"x": {name: True}}]


@pytest.mark.parametrize("key", [True, False, None, (1, 2), frozenset([1])], ids=ascii)
def test_what_has_a_form_elsewhere_is_no_name(key: Any) -> None:
    assert dumps([key])
    with pytest.raises(EncodeError, match=f"JSON has no form for {type(key).__name__} as the name of a member"):
        dumps({"a": {key: 1}})


LONG_TEXT = "x" * 10_000


@pytest.mark.parametrize(
    "value",
    [
        {"a": LONG_TEXT, "b": math.nan},
        [LONG_TEXT, [[[-math.inf]]]],
        [LONG_TEXT, *range(200), {"last": math.inf}],
        (LONG_TEXT, math.nan),
        {"a": LONG_TEXT, "b": [None, math.nan]},
    ],
)
def test_no_nan_hides_beside_a_long_text(value: Any) -> None:
    with pytest.raises(EncodeError, match="NaN"):
        dumps(value)


@pytest.mark.parametrize(
    "value", [[LONG_TEXT, None, 1, True, {"x": None}], {"a": LONG_TEXT, "b": [1.5, None]}, [LONG_TEXT] * 100]
)
def test_long_texts_without_nan_are_written(value: Any) -> None:
    assert json.loads(dumps(value)) == value


@pytest.mark.parametrize("where", ["before", "behind"])
def test_the_depth_of_long_texts(where: str) -> None:
    for depth in (100, 101):
        nest: Any = None
        for _ in range(depth - 1):
            nest = [nest] if depth % 2 else {"[": nest}
        value = [nest, LONG_TEXT] if where == "behind" else [LONG_TEXT, nest]
        text = json.dumps(value).encode()
        if depth == 100:
            assert loads(text) == value == json.loads(dumps(value))
        else:
            with pytest.raises(Malformed, match="nested deeper"):
                loads(text)
            with pytest.raises(EncodeError, match="nested deeper"):
                dumps(value)


def test_brackets_in_a_long_string_are_no_depth() -> None:
    value = ["[{" * 10_000]
    assert loads(dumps(value)) == value
