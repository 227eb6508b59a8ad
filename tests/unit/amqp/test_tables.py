"""Headers tables: what cannot be sent is refused by name, and what cannot be read costs no other header."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, Inexact, localcontext
from struct import pack
from types import MappingProxyType
from typing import Any

import pytest
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

from jsonrpc_amqp import EncodeError
from jsonrpc_amqp.amqp.tables import MAX_DEPTH, Headers, checked, encode, read

from ...headers import REFUSED, TAKEN, Refused, Taken, entry, same, table, text
from .tools import header_names, tables


def array(*elements: bytes) -> bytes:
    return b"A" + table(*elements)


def decoded(data: bytes) -> dict[Any, Any]:
    """Return what py-amqp reads."""
    return dict(loads("F", data, 0)[0][0])


def written(headers: Mapping[Any, Any]) -> bytes:
    return table(encode(headers))


# -- what is sent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", TAKEN, ids=repr)
def test_what_is_taken_is_read_as_it_was(case: Taken) -> None:
    assert read(written(case.headers))[0] == case.received
    assert decoded(written(case.headers)) == case.received


@pytest.mark.parametrize("case", REFUSED, ids=repr)
def test_what_is_refused_is_refused_by_name(case: Refused) -> None:
    with pytest.raises(EncodeError, match=r"^header .* cannot be sent: .*Nothing was sent$") as caught:
        encode(case.headers)
    assert case.says in str(caught.value)
    assert repr(list(case.headers)[-1])[:20] in str(caught.value)
    assert len(str(caught.value)) < 400


small = st.dictionaries(
    header_names,
    st.none() | st.booleans() | st.integers(-(1 << 31) + 1, (1 << 31) - 1) | st.floats(allow_nan=False,
    allow_infinity=False) | st.text(max_size=20) | st.binary(max_size=9) | st.lists(st.integers(0, 9), max_size=3)
    | st.decimals(-9, 9, places=3) | st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1))
    | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    max_size=4,
)  # fmt: skip


@given(headers=small)
def test_the_bytes_are_those_of_py_amqp(headers: dict[str, Any]) -> None:
    assert written(headers) == bytes(dumps("F", (headers,)))


@given(headers=tables)
def test_what_was_written_is_read(headers: dict[str, Any]) -> None:
    result, unreadable = read(written(headers))
    assert (result, unreadable.names) == (headers, [])


def test_large_integers_have_the_type_that_all_libraries_know() -> None:
    # py-amqp writes "L", at which RabbitMQ's Java library closes its connection.
    for number in (1 << 31, -(1 << 31) - 1, (1 << 63) - 1, -(1 << 63)):
        assert written({"n": number}) == table(entry(b"n", b"l" + pack(">q", number)))


def test_values_of_subclasses_are_sent_as_what_they_are() -> None:
    class Level(enum.IntEnum):
        LOW = 1

    class Name(str):
        __slots__ = ()

    headers = {"level": Level.LOW, "name": Name("n"), "deep": OrderedDict(a=1)}
    assert read(written(headers))[0] == {"level": 1, "name": "n", "deep": {"a": 1}}


def test_a_type_that_raises_is_refused_by_name() -> None:
    class Broken(datetime):
        def astimezone(self, tz: Any = None) -> Any:
            raise RuntimeError("not a time")

    with pytest.raises(EncodeError, match="header 'when' cannot be sent: not a time"):
        encode({"when": Broken(2026, 1, 1, tzinfo=UTC)})


def test_a_value_that_contains_itself_is_refused() -> None:
    cycle: list[Any] = []
    cycle += [cycle, cycle]
    with pytest.raises(EncodeError, match=f"'c'.*nested deeper than {MAX_DEPTH} levels"):
        encode({"c": cycle})


def test_a_value_that_grows_without_bounds_is_refused_in_time() -> None:
    value: list[Any] = ["x"]
    for _ in range(MAX_DEPTH - 2):
        value = [value, value]
    with pytest.raises(EncodeError, match=r"'c'.*more than 1048576 bytes"):
        encode({"c": value})


def test_headers_are_encoded_once_and_do_not_change_later() -> None:
    deep = ["a"]
    given_headers = {"deep": deep, "timeout-ms": 5}
    headers = Headers(given_headers)
    deep.append("b")
    given_headers["more"] = 1
    assert read(table(headers.entries))[0] == {"deep": ["a"]}
    assert set(headers) == {"deep"}
    assert checked(headers) is headers
    assert checked(None) is checked({}) is None
    assert checked(MappingProxyType({"a": 1})) == {"a": 1}


@pytest.mark.parametrize("headers", [[("a", 1)], "a", 5])
def test_headers_are_a_mapping(headers: Any) -> None:
    with pytest.raises(EncodeError, match="headers is a mapping of names to values"):
        checked(headers)


# -- what is read ---------------------------------------------------------------------------------------------------


TIMEOUT, COUNT = entry(b"timeout-ms", b"I\0\0\x05\xdc"), entry(b"x-delivery-count", b"l" + pack(">q", 2))
DEATH = entry(b"x-death", array(b"F" + table(entry(b"reason", text(b"rejected")))))
TRACE = entry(b"traceparent", text(b"00-1"))
NEIGHBOURS = {
    "timeout-ms": 1500,
    "x-delivery-count": 2,
    "x-death": [{"reason": "rejected"}],
    "traceparent": "00-1",
}
deep_value = b"F" + table()
for _ in range(3000):
    deep_value = b"F" + table(entry(b"", deep_value))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param(b"T" + b"\xff" * 8, "beyond the year 9999", id="a time beyond all years"),
        pytest.param(b"T" + pack(">Q", 253402300800), "beyond the year 9999", id="the year 10000"),
        pytest.param(deep_value, "nested deeper", id="3000 levels"),
    ],
)
def test_a_value_that_cannot_be_read_costs_itself_only(value: bytes, why: str) -> None:
    for place in range(5):
        entries = [TIMEOUT, COUNT, DEATH, TRACE]
        entries.insert(place, entry(b"bad", value))
        headers, unreadable = read(table(*entries))
        assert {name: each for name, each in headers.items() if name != "bad"} == NEIGHBOURS
        assert unreadable.names == ["bad"]
        assert unreadable.first.startswith("'bad': ")
        assert why in unreadable.first


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        pytest.param(array(b"I\0\0\0\1", b"T" + b"\xff" * 8, text(b"x")), [1, None, "x"], id="an element"),
        pytest.param(b"F" + table(entry(b"a", b"t\1"), entry(b"b", b"T" + b"\xff" * 8), entry(b"c", b"V")),
                     {"a": True, "c": None}, id="an entry of a table"),
        pytest.param(array(b"I\0\0\0\1", b"?", text(b"x")), [1], id="an unknown type in an array"),
        pytest.param(array(b"I\0\0\0\1", b"S\0\0\0\x09x"), [1], id="a text longer than its array"),
        pytest.param(array(b"I\0\0"), [], id="half an integer"),
        pytest.param(b"F" + table(entry(b"a", b"t\1"), b"\xffb"), {"a": True}, id="a name longer than its table"),
        pytest.param(b"F" + table(entry(b"a", b"t\1"), b"\1b"), {"a": True}, id="a name without a value"),
        pytest.param(b"F" + table(entry(b"a", b"t\1"), entry(b"b", b"F\0\0\1\0")), {"a": True}, id="an inner length"),
        pytest.param(b"F" + table(entry(b"a", b"t\1"), b"\1bS\0\0"), {"a": True}, id="half a length"),
    ],
)  # fmt: skip
def test_what_can_be_read_of_a_nested_value_is_kept(value: bytes, kept: Any) -> None:
    headers, unreadable = read(table(TRACE, entry(b"bad", value), TIMEOUT))
    assert headers == {"traceparent": "00-1", "bad": kept, "timeout-ms": 1500}
    assert unreadable.names == ["bad"]


@pytest.mark.parametrize(
    "rest",
    [
        entry(b"bad", b"?"),
        entry(b"bad", b"I\0"),
        entry(b"bad", b"S\xff\xff\xff\xff"),
        entry(b"bad", b"A\0\0\1\0"),
        entry(b"bad", b"x\0\0"),
        entry(b"bad", b"t"),
        entry(b"bad", b"D\0\0"),
        b"\xffbad",
        b"\3bad",
        b"\0",
    ],
)
def test_what_comes_before_a_break_is_kept(rest: bytes) -> None:
    headers, unreadable = read(table(TIMEOUT, TRACE, rest))
    assert headers == {"timeout-ms": 1500, "traceparent": "00-1"}
    assert unreadable.names == [""]


@pytest.mark.parametrize("length", [0, 3, 15, 17, 1 << 31])
def test_a_wrong_length_of_the_whole(length: int) -> None:
    headers, unreadable = read(pack(">I", length) + TIMEOUT)
    assert headers in ({}, {"timeout-ms": 1500})
    assert unreadable.names[-1] == ""


def test_a_table_of_some_levels_is_read() -> None:
    value: Any = "x"
    for _ in range(MAX_DEPTH):
        value = [value]
    assert read(written({"deep": value}))[0] == {"deep": value}
    with pytest.raises(EncodeError):
        encode({"deep": [value]})


def test_texts_that_are_not_utf_8() -> None:
    headers, unreadable = read(table(entry(b"\xff", text(b"a\xff")), entry(b"b", text(b"\xed\xa0\x80"))))
    assert (headers, unreadable.names) == ({"\udcff": b"a\xff", "b": b"\xed\xa0\x80"}, [])
    # And can be sent on as they came.
    assert written(headers) == table(entry(b"\xff", text(b"a\xff")), entry(b"b", text(b"\xed\xa0\x80")))


def test_a_decimal_is_exact_whatever_the_context_of_the_thread() -> None:
    with localcontext() as context:
        context.prec, context.traps[Inexact] = 3, True
        headers, _ = read(table(entry(b"d", b"D\x02" + pack(">i", -123456))))
    assert headers == {"d": Decimal("-1234.56")}


KINDS = b"SsxbBUuIiLlfdDFAtTV"
fixed = st.sampled_from(KINDS).flatmap(lambda kind: st.binary(max_size=9).map(lambda data: bytes([kind]) + data))
values = st.recursive(
    st.sampled_from(
        [b"I\0\0\0\5", b"V", b"t\1", b"D\2\0\0\0\7", b"T" + bytes(8), b"T" + b"\xff" * 8, text(b"\xc3\xa9")]
    )
    | st.binary(max_size=6).map(text)
    | fixed,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda each: array(*each))
        | st.lists(inner, max_size=3).map(
            lambda each: b"F" + table(*(entry(b"k%d" % at, v) for at, v in enumerate(each)))
        )
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.binary(max_size=4), values), max_size=4), st.binary(max_size=3))
def test_whatever_py_amqp_reads_is_read_the_same(entries: list[tuple[bytes, bytes]], end: bytes) -> None:
    data = table(*(entry(name, value) for name, value in entries), end)
    ours, unreadable = read(data)
    try:
        theirs, used = loads("F", data, 0)
    except Exception:
        assert unreadable.names, "we read all of what py-amqp cannot read"
        return
    if used == len(data) and not unreadable.names:  # py-amqp reads beyond lengths, and so finds other values
        assert same(ours, theirs[0])


@pytest.mark.parametrize("first", [b"t\1", b"V", b"F" + table(entry(b"x", b"t\1"))])
def test_of_entries_with_one_name_the_first_counts(first: bytes) -> None:
    """As for RabbitMQ, which replaces the first one: what it wrote must not be hidden by what a sender wrote."""
    alone, _ = read(table(entry(b"a", first)))
    headers, unreadable = read(table(entry(b"a", first), entry(b"a", b"t\0"), entry(b"b", b"t\0")))
    assert (headers, unreadable.names) == ({**alone, "b": False}, ["a"])
    assert "it occurs again" in unreadable.first
    nested = b"F" + table(entry(b"a", first), entry(b"a", b"t\0"))
    headers, unreadable = read(table(entry(b"n", nested)))
    assert (headers, unreadable.names) == ({"n": alone}, ["n"])


def test_a_value_that_cannot_be_read_is_not_replaced_by_a_later_one() -> None:
    headers, unreadable = read(table(entry(b"a", b"T" + b"\xff" * 8), entry(b"a", b"t\1")))
    assert (headers, unreadable.names) == ({}, ["a", "a"])


@given(st.binary(max_size=80))
def test_no_bytes_raise(data: bytes) -> None:
    for each in (data, table(data)):
        headers, unreadable = read(each)
        assert isinstance(headers, dict)
        assert all(isinstance(name, str) for name in unreadable.names)
        assert len(unreadable.first) < 300


def test_a_time_has_the_zone_of_utc_and_no_microseconds() -> None:
    there = timezone(timedelta(hours=2))
    for value in (datetime(2026, 1, 2, 3, 4, 5, 999), datetime(2026, 1, 2, 5, 4, 5, tzinfo=there)):
        assert read(written({"t": value}))[0] == {"t": datetime(2026, 1, 2, 3, 4, 5)}
    with pytest.raises(EncodeError, match="no form for date"):
        encode({"t": date(2026, 1, 2)})
