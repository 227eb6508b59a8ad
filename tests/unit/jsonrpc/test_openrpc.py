"""The documents of services, by the meta-schema of OpenRPC."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NotRequired, TypeVar, Unpack
from unittest.mock import Mock, patch

import jsonrpcserver
import pydantic
import pytest
from typing_extensions import TypedDict, deprecated

from jsonrpc_amqp import ApplicationError, method, raises, rpc_name
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.invocation import global_methods
from jsonrpc_amqp.jsonrpc.openrpc import document
from jsonrpc_amqp.jsonrpc.service_info import Info

from ... import openrpc
from ...openrpc import accepts

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


class OutOfStock(ApplicationError, code=1001):
    """There is not enough of it."""

    sku: str


class Closed(ApplicationError, code=1002):
    pass


class AlsoClosed(ApplicationError, code=1002):
    pass


class WithoutCode(ApplicationError):
    pass


@dataclass
class Item:
    sku: str
    count: int = 1


class Order(pydantic.BaseModel):
    items: list[Item]


class Place(TypedDict):
    row: int
    shelf: NotRequired[str]


def described(**functions: Callable[..., Any]) -> dict[str, Any]:
    """Return the document of methods, and check it."""
    found = document(Info("tests"), functions.items())
    openrpc.check(found)
    return found


def one(function: Callable[..., Any]) -> Any:
    """Return the Method Object of one method."""
    (found,) = described(f=function)["methods"]
    return found


def params(function: Callable[..., Any]) -> tuple[str, list[str]]:
    """Return how a method takes params, and their names: ``?`` is optional, ``*`` any number."""
    found = one(function)
    names = [
        f"{'*' * each.get('x-variadic', False)}{each['name']}{'?' * (not each.get('required', False))}"
        for each in found["params"]
    ]
    return found["paramStructure"], names


# -- the whole --------------------------------------------------------------------------------------------------------


def test_a_method_in_full() -> None:
    @deprecated("use g")
    def f(item: Item, count: int = 2, *, day: date = date(2030, 1, 2)) -> list[Order]:
        """
        Reserve an item.

        It is
        reserved.

        Args:
            item: Which.
            count: How many.

        Returns:
            All orders.

        Raises:
            OutOfStock: There is none.
        """
        return []

    assert one(f) == {
        "name": "f",
        "summary": "Reserve an item.",
        "description": "It is\nreserved.\n\nDeprecated: use g",
        "deprecated": True,
        "paramStructure": "by-name",
        "params": [
            {
                "name": "item",
                "description": "Which.",
                "required": True,
                "schema": {"$ref": "#/components/schemas/Item"},
            },
            {"name": "count", "description": "How many.", "schema": {"type": "integer", "default": 2}},
            {"name": "day", "schema": {"type": "string", "format": "date", "default": "2030-01-02"}},
        ],
        "result": {
            "name": "result",
            "description": "All orders.",
            "schema": {"type": "array", "items": {"$ref": "#/components/schemas/Order"}},
        },
        "errors": [{"code": 1001, "message": "There is not enough of it"}],
    }


def test_a_method_that_says_nothing() -> None:
    assert one(lambda: None) == {
        "name": "f",
        "paramStructure": "either",
        "params": [],
        "result": {"name": "result", "schema": {}},
    }


def test_a_service_says_what_it_is() -> None:
    found = document(Info("Shop", "2.1", "Sells."), [])
    openrpc.check(found)
    assert found == {
        "openrpc": "1.4.1",
        "info": {"title": "Shop", "version": "2.1", "description": "Sells."},
        "methods": [],
    }


@pytest.mark.parametrize("about", [{"title": 5}, {"version": 2.1}, {"version": None}, {"description": b"x"}])
def test_what_a_service_says_is_text(about: Any) -> None:
    with pytest.raises(TypeError, match=f"the {next(iter(about))} of a service is a text"):
        Info(**{"title": "S", **about})


# -- params -----------------------------------------------------------------------------------------------------------


def only_by_position(a: int, /, b: int = 1) -> None: ...
def only_by_name(a: int = 1, *, b: int) -> None: ...
def named_option(a: int, *, b: int = 1) -> None: ...
def both_kinds(a: int, /, *, b: int = 1) -> None: ...
def cannot_be_called(a: int, /, *, b: int) -> None: ...
def rest(a: int, *rest: int) -> None: ...
def rest_and_option(*rest: int, b: int = 1) -> None: ...
def options(a: int, **options: int) -> None: ...
def unpacked(a: int, **place: Unpack[Place]) -> None: ...
def anything(*args: Any, **kwargs: Any) -> None: ...


@functools.wraps(only_by_name)
def wrapped(*args: Any, **kwargs: Any) -> Any: ...


@pytest.mark.parametrize(
    ("function", "structure", "names"),
    [
        (lambda a, b=1: None, "either", ["a", "b?"]),
        (only_by_position, "by-position", ["a", "b?"]),
        (only_by_name, "by-name", ["b", "a?"]),
        (named_option, "by-name", ["a", "b?"]),
        (both_kinds, "by-position", ["a"]),
        (cannot_be_called, "by-name", ["b"]),
        (rest, "by-position", ["a", "*rest?"]),
        (rest_and_option, "by-position", ["*rest?"]),
        (options, "by-name", ["a", "*options?"]),
        (unpacked, "by-name", ["a", "row", "shelf?"]),
        (anything, "either", ["*args?", "*kwargs?"]),
        (wrapped, "by-name", ["b", "a?"]),
        (functools.partial(named_option, 1), "by-name", ["b?"]),
        (max, "either", ["*args?", "*kwargs?"]),
        (len, "by-position", ["obj"]),
        (patch("sys.argv")(rest), "by-position", ["a", "*rest?"]),
    ],
)
def test_how_params_are_given(function: Callable[..., Any], structure: str, names: list[str]) -> None:
    assert params(function) == (structure, names)


@pytest.mark.parametrize("default", [object(), float("nan"), {object: 1}, lambda: 1, "\ud800"])
def test_a_default_that_json_cannot_say_is_left_out(default: Any) -> None:
    def f(a: Any = default) -> None: ...

    assert one(f)["params"] == [{"name": "a", "schema": {}}]


def test_a_default_beside_a_reference() -> None:
    def f(a: Item = Item("x")) -> None: ...  # noqa: B008

    found = described(f=f)
    (param,) = found["methods"][0]["params"]
    assert param["schema"]["default"] == {"sku": "x", "count": 1}
    assert accepts(found, param["schema"], {"sku": "y"})
    assert not accepts(found, param["schema"], {"count": 1})


# -- types ------------------------------------------------------------------------------------------------------------


def test_schemas_take_what_the_method_takes() -> None:
    def f(order: Order, place: Place, pair: tuple[int, str], more: Item | Order | None = None) -> None: ...

    found = described(f=f)
    schemas = {each["name"]: each["schema"] for each in found["methods"][0]["params"]}
    fits = functools.partial(accepts, found)
    assert fits(schemas["order"], {"items": [{"sku": "a", "count": 2}]})
    assert not fits(schemas["order"], {"items": [{"count": 2}]})
    assert fits(schemas["place"], {"row": 1})
    assert not fits(schemas["place"], {"shelf": "a"})
    assert fits(schemas["pair"], [1, "a"])
    assert not fits(schemas["pair"], [1, "a", 2])
    assert fits(schemas["more"], {"items": []})
    assert fits(schemas["more"], None)
    assert not fits(schemas["more"], 5)


@pytest.mark.parametrize("result", [jsonrpcserver.Result, Callable[[], int], "Decimal", "no such", T, Generic])
def test_a_type_without_a_schema_is_any_value(result: Any) -> None:
    def f(a: int) -> None: ...

    f.__annotations__["return"] = result
    found = one(f)
    assert found["result"]["schema"] == {}
    assert found["params"][0]["schema"] == {"type": "integer"}


def test_a_hint_that_cannot_be_evaluated() -> None:
    # It is registered with validate=False.
    def f(a: Decimal, b: Path) -> None: ...

    assert [each["name"] for each in one(f)["params"]] == ["a", "b"]


def test_a_generic_class_that_is_served() -> None:
    class Repository(Generic[T]):
        def add(self, item: T) -> T:
            return item

    class Items(Repository[Item]):
        pass

    found = one(Items().add)
    assert found["params"][0]["schema"] == found["result"]["schema"] == {"$ref": "#/components/schemas/Item"}


# -- docstrings and errors --------------------------------------------------------------------------------------------


class Service:
    """A class."""

    def __call__(self, a: int) -> int:
        """Call it."""
        return a

    @classmethod
    def make(cls) -> None:
        """Make it."""

    @raises(OutOfStock)
    def take(self) -> None:
        """Take it."""


@raises(Closed)
class Store(Service):
    def take(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "summary"),
    [
        (Service(), "Call it."),
        (Service.make, "Make it."),
        (Store().take, "Take it."),
        (functools.partial(Service().take), "Take it."),
        (len, "Return the number of items in a container."),
        (Service, "A class."),
    ],
)
def test_where_the_summary_comes_from(function: Callable[..., Any], summary: str) -> None:
    assert one(function)["summary"] == summary


def codes(function: Callable[..., Any]) -> list[int]:
    return [each["code"] for each in one(function).get("errors", [])]


def test_errors_of_marks_of_the_method_its_base_and_its_class() -> None:
    assert codes(Store().take) == [1001, 1002]
    assert codes(Service().take) == [1001]
    assert codes(raises(Closed, AlsoClosed, WithoutCode)(lambda: None)) == [1002]


def test_errors_of_a_partial_are_those_of_its_function() -> None:
    assert codes(functools.partial(Store().take)) == [1001, 1002]


def test_an_object_that_has_every_attribute() -> None:
    assert params(Mock()) == ("either", ["*args?", "*kwargs?"])


def test_errors_of_the_docstring() -> None:
    def f() -> None:
        """
        Fail.

        Raises:
            OutOfStock, Closed: It is.
            WithoutCode: A base.
            KeyError: None of ours.
            openrpc.Missing: No such name.
            pytest.exit.Exception: Of no module.
            Absent: Neither.
        """

    assert codes(f) == [1001, 1002]


# -- as it is registered ----------------------------------------------------------------------------------------------


def discover(dispatcher: Dispatcher) -> Any:
    found = dispatcher(b'{"jsonrpc": "2.0", "method": "rpc.discover", "id": 1}')
    assert found is not None
    result = pydantic.TypeAdapter(dict[str, Any]).validate_json(found)["result"]
    openrpc.check(result)
    return result


def test_the_methods_of_an_object() -> None:
    class Inventory:
        @method
        def get(self, sku: str) -> Item:
            """Get an item."""
            return Item(sku)

        @method
        @rpc_name("all")
        async def every(self) -> list[Item]:
            return []

    dispatcher = Dispatcher(info=Info("stock"))
    dispatcher.register(Inventory(), prefix="stock.")
    found = {each["name"]: each for each in discover(dispatcher)["methods"]}
    assert list(found) == ["stock.all", "stock.get"]
    assert found["stock.get"]["params"] == [{"name": "sku", "required": True, "schema": {"type": "string"}}]


def test_methods_of_jsonrpcserver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jsonrpcserver.methods.global_methods", global_methods.copy())

    @jsonrpcserver.method(name="ping")
    def ping(a: int = 1) -> jsonrpcserver.Result:
        """Say pong."""
        return jsonrpcserver.Success("pong")

    dispatcher = Dispatcher({"ping": ping}, info=Info("stock"))
    (found,) = discover(dispatcher)["methods"]
    assert (found["name"], found["summary"], found["result"]["schema"]) == ("ping", "Say pong.", {})
