"""What is said of a value that cannot be written: the path to the part that cannot, and its type."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import OrderedDict, UserDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonrpcserver import Error

from jsonrpc_amqp.errors import EncodeError
from jsonrpc_amqp.jsonrpc import messages
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.text import dumps

from .tools import ask, request


@dataclass
class Order:
    items: Any
    note: Any = None
    unit: ClassVar[complex] = 1j


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any


class Struct(msgspec.Struct):
    x: Any = None
    absent: Any = msgspec.UNSET


class Attribute:
    def __init__(self, name: str) -> None:
        self.name = name


class Attrs:
    """What an ``attrs`` class has that matters here: it is written without its private attributes."""

    __attrs_attrs__ = (Attribute("_private"), Attribute("x"))

    def __init__(self, x: Any) -> None:
        self._private, self.x = 1j, x


class Words(str):
    def __str__(self) -> str:
        raise AssertionError("the text of a key is its own, not what its class makes of it")


class Odd(Enum):
    TRUE = True
    COMPLEX = 1j
    NAN = math.nan
    PAIR = (1, 1j)


class Local:
    class Inner:
        pass


def message(value: Any, **options: Any) -> str:
    with pytest.raises(EncodeError) as caught:
        dumps(value, **options)
    return str(caught.value)


HERE = __name__
NOT_A_NAME = "as the name of a member (a key of a dict); names are strings"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1j, "JSON has no form for complex"),
        ([1j], "[0]: JSON has no form for complex"),
        ({"a": 1, "order": {"items": [1, 2, 3, {"price": Local()}]}}, f"order.items[3].price: * {HERE}.Local"),
        ({"a": Local.Inner()}, f"a: * {HERE}.Local.Inner"),
        ({"a": UserDict()}, "a: * collections.UserDict"),
        ({"a": range(3)}, "a: * range"),
        ({"a": (1, [1j])}, "a[1][0]: * complex"),
        ({"a": {1j}}, "a[0]: * complex"),
        (OrderedDict(a=1j), "a: * complex"),
        ({"a": Order(Frozen(Struct(Attrs(1j))))}, "a.items.x.x.x: * complex"),
        ({"a": Order([], math.nan)}, "a.note: NaN and Infinity have no form in JSON"),
        ([1.5, None, -math.inf], "[2]: NaN and Infinity have no form in JSON"),
        ({"a": Odd.NAN}, "a: NaN and Infinity have no form in JSON"),
        ({"a": Odd.COMPLEX}, "a: * complex"),
        ({"a": Odd.PAIR}, "a[1]: * complex"),
        ({"a": ["\ud800"]}, r"a[0]: 'utf-8' codec can't encode character '\ud800'*"),
        ({"a": [10**5000]}, "a[0]: Exceeds the limit*"),
        ({"a": msgspec.UNSET}, "a: * msgspec.UnsetType"),
    ],
)  # fmt: skip
def test_the_part_is_named_by_its_path_and_full_type(value: Any, expected: str) -> None:
    found = message(value)
    assert re.fullmatch(re.escape(expected).replace(r"\*", ".*"), found), found


@pytest.mark.parametrize("key", [True, False, None, (1, 2), frozenset([1]), 1j, Frozen(1), Odd.TRUE, Odd.PAIR], ids=str)
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda member: member, ""),
        (lambda member: {"params": [1, member]}, "params[1]: "),
        (lambda member: {"result": Order([member])}, "result.items[0]: "),
        (lambda member: [Struct({"a": member})], "[0].x.a: "),
    ],
)
def test_keys_that_are_no_names_are_refused_wherever_they_are(key: Any, wrap: Callable[[Any], Any], path: str) -> None:
    kind = type(key).__name__ if type(key).__module__ == "builtins" else f"{HERE}.{type(key).__name__}"
    assert message(wrap({key: 1})) == f"{path}JSON has no form for {kind} {NOT_A_NAME}"
    assert message(wrap({"a": 1, "b": None, key: 1})) == f"{path}JSON has no form for {kind} {NOT_A_NAME}"


@pytest.mark.parametrize(
    ("key", "step"),
    [
        ("a", ".a"),
        ("größe", ".größe"),
        ("two words", "['two words']"),
        ("", "['']"),
        ("3", "['3']"),
        (3, "['3']"),
        (1.5, "['1.5']"),
        (UUID(int=5), f"['{UUID(int=5)}']"),
        (date(2026, 1, 2), "['2026-01-02']"),
        (Words("b"), ".b"),
        ("\x1b[31m\n\u202e", r"['\x1b[31m\n\u202e']"),
        ("x" * 10_000, f"['{'x' * 40}...']"),
        ("\U0010ffff" * 100, rf"['{(chr(92) + 'U0010ffff') * 4}...']"),
    ],
    ids=ascii,
)
def test_keys_in_a_path_are_the_names_in_json_escaped_and_short(key: Any, step: str) -> None:
    assert message({"params": {key: 1j}}) == f"params{step}: JSON has no form for complex"


def nested(levels: int, end: Any = None) -> Any:
    for _ in range(levels):
        end = [end]
    return end


def test_a_value_that_is_too_deep_is_named_by_a_path_that_is_cut() -> None:
    path = "params" + "[0]" * 9 + "..." + "[0]" * 10
    for value in (nested(100), nested(5000), nested(100, 1j)):
        assert message({"params": value}) == f"{path}: nested deeper than 100 levels"
    assert message({"a": [[], [[]]]}, max_depth=2) == "a[0]: nested deeper than 2 levels"
    assert message([nested(1), nested(2)], max_depth=2) == "[1][0]: nested deeper than 2 levels"


def test_long_names_make_no_long_message() -> None:
    value: Any = type("\n" + "x" * 10_000, (), {})()
    for number in range(98):
        value = {f"\U0010ffff{number}" * 1000: value}
    assert len(message(value)) < 1500


def test_a_value_that_contains_itself_is_named() -> None:
    a_list: list[Any] = [1]
    a_list.append({"again": a_list})
    assert message({"a": a_list}) == "a[1].again: JSON has no form for a value that contains itself"
    order = Order([])
    order.items.append(order)
    assert message([order]) == "[0].items[0]: JSON has no form for a value that contains itself"
    twice = [1j]
    assert message([[1], [1], [twice, twice]]) == "[2][0][0]: JSON has no form for complex"


def test_the_search_ends_soon_whatever_the_value() -> None:
    doubled: Any = 1
    for _ in range(50):
        doubled = [doubled, doubled]
    wide = [*range(1_000_000), 1j]
    deep = nested(200_000)
    begun = time.monotonic()
    assert message(wide) == "JSON has no form for complex"
    assert message([*range(1_000_000), {True: 1}]) == f"JSON has no form for bool {NOT_A_NAME}"
    assert "recursion" in message([deep], max_depth=1_000_000)
    assert message({"a": [deep, doubled]}, max_depth=10).endswith("deeper than 10 levels")
    assert time.monotonic() - begun < 20


def test_where_the_search_fails_the_error_of_the_encoder_is_told() -> None:
    class Unsteady:
        __attrs_attrs__ = (Attribute("x"),)

        @property
        def x(self) -> Any:
            raise RuntimeError("not now")

    assert message([Unsteady(), 1j]) == "JSON has no form for complex"


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text() | st.just(1j) | st.just(threading.Lock),
        lambda inner: (
            st.lists(inner)
            | st.tuples(inner, inner)
            | st.builds(Order, inner)
            | st.builds(Struct, inner)
            | st.dictionaries(st.text() | st.integers() | st.booleans() | st.none(), inner)
        ),
        max_leaves=10,
    )
)
def test_whatever_is_not_written_has_a_short_message(value: Any) -> None:
    told = None
    try:
        json.loads(dumps({"params": value}, max_depth=4))
    except EncodeError as error:
        told = str(error)
    assert told is None or told.startswith("params")
    assert told is None or len(told.encode()) < 1500


# -- where a path begins ------------------------------------------------------------------------------------


def test_the_path_of_params_begins_with_params() -> None:
    cases: list[tuple[Any, str]] = [([1, {"a": 1j}], "params[1].a"), ({"order": {"x": 1j}}, "params.order.x")]
    for params, path in cases:
        expected = rf"^{re.escape(path)}: JSON has no form for complex$"
        with pytest.raises(EncodeError, match=expected):
            messages.request("m", params, 1)
        with pytest.raises(EncodeError, match=expected):
            messages.notification("m", params)
    batch = [messages.request_object("m", [1], 1), messages.notification_object("m", {"a": 1j})]
    with pytest.raises(EncodeError, match=r"^\[1\]\.params\.a: JSON has no form for complex$"):
        messages.encode(batch)


def test_the_path_of_a_result_begins_with_result(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher({"m": lambda: Order([{"price": 1j}])}, expose_errors=True)
    said = "result.items[0].price: JSON has no form for complex"
    for answer in (ask(dispatcher, request("m")), ask(dispatcher, [request("m")])[0]):
        assert answer["error"]["data"] == said
    assert said in caplog.text


def test_the_path_of_error_data_begins_there(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher({"m": lambda: Error(5, "no", {"row": [1j]})})
    assert ask(dispatcher, request("m"))["error"] == {"code": 5, "message": "no"}
    assert "error.data.row[0]: JSON has no form for complex" in caplog.text
