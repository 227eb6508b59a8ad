"""Params become the arguments of a function, by its signature and its hints."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Required, TypedDict, Unpack, cast
from unittest import mock

import pytest

from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.parameters import Parameters

from .tools import ask, check_error, request

if TYPE_CHECKING:
    from fractions import Fraction

MISSING, UNEXPECTED = "missing: it is required", "unexpected: there is no such parameter"


@dataclass
class Item:
    sku: str
    price: Decimal = Decimal(1)


class Options(TypedDict, total=False):
    level: Required[int]
    name: str


class Session:
    """What no JSON value is."""


def add(a: int, b: float = 0) -> float:
    return a + b


def order(item: Item, /, count: int = 1, *, note: str | None = None) -> Any:
    return [item, count, note]


def total(first: int, *rest: Decimal) -> Any:
    return [first, *rest]


def named(**prices: Decimal) -> Any:
    return prices


def unpacked(**options: Unpack[Options]) -> Any:
    return options


def plain(a, b: Any = None):  # type: ignore[no-untyped-def]
    return [a, b]


class Shop:
    def buy(self, item: Item) -> Any:
        return item

    def __call__(self, count: int) -> Any:
        return count


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def with_session(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(Session(), *args, **kwargs)

    return wrapper


def with_count(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(item: Item) -> Any:
        return function(item, 5)

    return wrapper


@with_session
def stock(session: Session, sku: str, left: Decimal = Decimal(0)) -> Any:
    assert isinstance(session, Session)
    return [sku, left]


@mock.patch.object(os, "getpid")
def patched(item: Item, getpid: mock.Mock) -> Any:
    assert isinstance(getpid, mock.Mock)
    return item


@mock.patch.object(os, "getpid")
def patched_without_hint(item: Item, getpid) -> Any:  # type: ignore[no-untyped-def]
    assert isinstance(getpid, mock.Mock)
    return item


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": add,
    "order": order,
    "total": total,
    "named": named,
    "unpacked": unpacked,
    "plain": plain,
    "bound": Shop().buy,
    "object": Shop(),
    "partial": functools.partial(order, Item("a")),
    "partial_named": functools.partial(add, b=2),
    "timed": timed(order),
    "timed_method": timed(Shop().buy),
    "stock": stock,
    "patched": patched,
    "patched_without_hint": patched_without_hint,
    "with_count": with_count(order),
    "cached": functools.lru_cache(add),
    "class": Item,
}


def call(name: str, params: Any) -> Any:
    """Return what the function returns, whatever JSON would make of it."""
    parameters = Parameters(name, FUNCTIONS[name], validate=True)
    if isinstance(params, list):
        return FUNCTIONS[name](*parameters.positional(params))
    return FUNCTIONS[name](**parameters.by_name(params))


ONE = Decimal("1.5")


@pytest.mark.parametrize(
    ("name", "params", "result"),
    [
        ("add", [1], 1),
        ("add", [1, 2], 3),
        ("add", {"a": 1, "b": 2.5}, 3.5),
        ("order", [{"sku": "a"}], [Item("a"), 1, None]),
        ("order", [{"sku": "a", "price": "1.5"}, 2], [Item("a", ONE), 2, None]),
        ("total", [1, "1.5", "1.5"], [1, ONE, ONE]),
        ("total", [1], [1]),
        ("named", {"a": "1.5"}, {"a": ONE}),
        ("named", {}, {}),
        ("unpacked", {"level": 1}, {"level": 1}),
        ("unpacked", {"level": 1, "name": "a"}, {"level": 1, "name": "a"}),
        ("plain", ["1", {"x": [1]}], ["1", {"x": [1]}]),
        ("bound", [{"sku": "a"}], Item("a")),
        ("object", {"count": 3}, 3),
        ("partial", [2], [Item("a"), 2, None]),
        ("partial", {"note": "n"}, [Item("a"), 1, "n"]),
        ("partial_named", [1], 3),
        ("timed", [{"sku": "a"}], [Item("a"), 1, None]),
        ("timed_method", {"item": {"sku": "a"}}, Item("a")),
        ("stock", ["a"], ["a", 0]),
        ("stock", ["a", "1.5"], ["a", ONE]),
        ("stock", {"sku": "a"}, ["a", 0]),
        ("patched", [{"sku": "a"}], Item("a")),
        ("patched_without_hint", [{"sku": "a"}], Item("a")),
        ("with_count", [{"sku": "a"}], [Item("a"), 5, None]),
        ("cached", [1, 2], 3),
        ("class", ["a", "1.5"], Item("a", ONE)),
    ],
)
def test_what_fits(name: str, params: Any, result: Any) -> None:
    assert call(name, params) == result


@pytest.mark.parametrize(
    ("name", "params", "misfits"),
    [
        ("add", ["1"], {"a": "Expected `int`, got `str`"}),
        ("add", [True], {"a": "Expected `int`, got `bool`"}),
        ("add", ["1", "2"], {"a": "Expected `int`, got `str`", "b": "Expected `float`, got `str`"}),
        ("add", {"b": "2", "c": 1}, {"b": "Expected `float`, got `str`", "c": UNEXPECTED, "a": MISSING}),
        ("add", [1, 2, 3], {"[2]": "unexpected: at most 2 can be given by position"}),
        ("order", [{"sku": 1}], {"item.sku": "Expected `str`, got `int`"}),
        ("order", [{}], {"item": "Object missing required field `sku`"}),
        ("total", [1, "1.5", "x"], {"rest[1]": "Invalid decimal string"}),
        ("named", {"a": "x", "b": 1}, {"a": "Invalid decimal string"}),
        ("named", [1], {"[0]": "unexpected: at most 0 can be given by position"}),
        ("unpacked", {"name": 1}, {"name": "Expected `str`, got `int`", "level": MISSING}),
        ("unpacked", {"level": 1, "x": 1}, {"x": UNEXPECTED}),
        ("bound", {"self": 1}, {"self": UNEXPECTED, "item": MISSING}),
        ("partial", ["x"], {"count": "Expected `int`, got `str`"}),
        ("stock", {"sku": "a", "session": 1}, {"session": UNEXPECTED}),
        ("stock", [1], {"sku": "Expected `str`, got `int`"}),
        ("with_count", [{"sku": "a"}, 3], {"[1]": "unexpected: at most 1 can be given by position"}),
        ("class", [], {"sku": MISSING}),
    ],
)
def test_what_does_not_fit(name: str, params: Any, misfits: dict[str, str]) -> None:
    data = [{"path": path, "message": message} for path, message in misfits.items()]
    check_error(ask(Dispatcher({name: FUNCTIONS[name]}), request(name, params)), -32602, data=data)


def test_what_can_only_be_given_by_position() -> None:
    data = [{"path": "item", "message": UNEXPECTED}, {"path": "item", "message": MISSING}]
    check_error(ask(Dispatcher(FUNCTIONS), request("order", {"item": {"sku": "a"}})), -32602, data=data)


@pytest.mark.parametrize(
    ("name", "params"), [("total", [1, *["x"] * 100_000]), ("add", {str(number): 1 for number in range(100_000)})]
)
def test_of_very_many_mistakes_some_are_told(name: str, params: Any) -> None:
    data = ask(Dispatcher(FUNCTIONS), request(name, params))["error"]["data"]
    assert 100 <= len(data) <= 101


@pytest.mark.parametrize("name", ["timed", "timed_method", "patched", "stock"])
def test_a_wrapper_that_takes_anything_is_called_without_what_it_may_supply(name: str) -> None:
    missing = {"timed": "item", "timed_method": "item", "patched": "item", "stock": "sku"}[name]
    data = [{"path": missing, "message": MISSING}]
    check_error(ask(Dispatcher(FUNCTIONS), request(name)), -32602, data=data)


def test_a_type_error_of_the_function_behind_a_wrapper_is_its_own() -> None:
    @timed
    def fails(a: int, b: int = 0) -> None:
        raise TypeError("mine")

    @timed
    def calls_wrongly() -> None:
        add()  # type: ignore[call-arg]

    dispatcher = Dispatcher({"fails": fails, "calls_wrongly": calls_wrongly})
    for name, params in (("fails", [1]), ("calls_wrongly", [])):
        check_error(ask(dispatcher, request(name, params)), -32603)


def test_values_stay_as_they_come_without_validation() -> None:
    @dataclass
    class Unknown:
        pass

    def echo(a: int, b: Unknown) -> Any:
        return [a, b]

    def check(a: int) -> Any:
        return a

    dispatcher = Dispatcher({"check": check}, validate=False)
    dispatcher.register(echo)
    dispatcher.register(check, "checked", validate=True)
    assert ask(dispatcher, request("echo", ["1", 2]))["result"] == ["1", 2]
    assert ask(dispatcher, request("check", ["1"]))["result"] == "1"
    check_error(ask(dispatcher, request("check", [])), -32602, data=[{"path": "a", "message": MISSING}])
    assert ask(dispatcher, request("checked", ["1"]))["error"]["code"] == -32602
    other = Dispatcher()
    other.register(echo, validate=False)
    assert ask(other, request("echo", ["1", 2]))["result"] == ["1", 2]


def test_what_is_refused_at_registration() -> None:
    def of_session(first: int, session: Session) -> None: ...
    def of_fraction(value: Fraction) -> None: ...

    for function, parameter, why in (
        (of_session, "session", r"the hint .*Session cannot be converted to from JSON \(no value of JSON is a Session"),
        (of_fraction, "value", r"the hint Fraction cannot be evaluated \(name 'Fraction' is not defined\)"),
    ):
        with pytest.raises(TypeError, match=f"method '{function.__name__}', parameter '{parameter}': {why}"):
            Dispatcher().register(function)
        with pytest.raises(TypeError, match="validate=False"):
            Dispatcher({function.__name__: function})
        Dispatcher().register(function, validate=False)


def test_a_result_hint_that_cannot_be_evaluated_is_no_fault() -> None:
    def of_fraction(value: int) -> Fraction:
        return value  # type: ignore[return-value]

    assert ask(Dispatcher({"m": of_fraction}), request("m", [1]))["result"] == 1
    assert ask(Dispatcher({"m": of_fraction}), request("m", ["1"]))["error"]["code"] == -32602


def test_what_a_wrapper_must_supply_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "jsonrpc_amqp.dispatch"):
        Parameters("stock", stock, validate=True)
    assert "a wrapper must supply" in caplog.text
    assert "parameter 'session'" in caplog.text


def test_results_are_checked_where_that_is_asked_for() -> None:
    def right() -> list[Item]:
        return [Item("a")]

    def wrong() -> list[Item]:
        return [Item(1)]  # type: ignore[arg-type]

    def nothing() -> None:
        return 1  # type: ignore[return-value]

    async def later() -> int:
        return "1"  # type: ignore[return-value]

    def unknown():  # type: ignore[no-untyped-def]
        return 1

    methods: dict[str, Any] = {"right": right, "wrong": wrong, "nothing": nothing, "unknown": unknown}
    checked, unchecked = Dispatcher(methods, check_results=True), Dispatcher(methods)
    for name in methods:
        assert "result" in ask(unchecked, request(name))
    assert ask(checked, request("right"))["result"] == [{"sku": "a", "price": "1"}]
    assert ask(checked, request("unknown"))["result"] == 1
    check_error(ask(checked, request("wrong")), -32603)
    check_error(ask(checked, request("nothing")), -32603)

    def no_value() -> Session:
        return Session()

    with pytest.raises(TypeError, match="results cannot be checked: no value of JSON is a Session"):
        Dispatcher({"no_value": no_value}, check_results=True)


def test_results_are_checked_where_hints_of_params_are_of_no_use() -> None:
    def unknown(value: Any) -> int:
        return cast(int, value)

    unknown.__annotations__ = {"value": "OnlyKnownToTypeCheckers", "return": int}
    dispatcher = Dispatcher({"unknown": unknown}, check_results=True, validate=False)
    assert ask(dispatcher, request("unknown", [1]))["result"] == 1
    check_error(ask(dispatcher, request("unknown", ["1"])), -32603)
