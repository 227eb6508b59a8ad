"""Functions and the methods of objects are registered."""

from __future__ import annotations

import functools
from typing import Any, Protocol, TypeVar

import pytest

from jsonrpc_amqp import method, rpc_name
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher

from .tools import ask, request

T_contra = TypeVar("T_contra", contravariant=True)


class Described(Protocol):
    @rpc_name("stock.get")
    def get_stock(self, sku: str) -> int: ...
    def add(self, sku: str, count: int = 1) -> None: ...


class Base:
    @method
    def ping(self) -> str:
        return "pong"


class Inventory(Base):
    def __init__(self) -> None:
        self.left = {"a": 3}

    @method("stock")
    def get_stock(self, sku: str) -> int:
        return self.left[sku]

    @method(redelivery="refuse", ack="early")
    def add(self, sku: str, count: int = 1) -> None:
        self.left[sku] += count

    @method
    async def later(self) -> int:
        return 1

    @staticmethod
    @method
    def twice(number: int) -> int:
        return 2 * number

    def secret(self) -> str:
        return "secret"


class Plain:
    def __call__(self) -> str:
        return "called"

    def other(self) -> None: ...


def test_marked_methods_are_registered_under_a_prefix() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Inventory(), prefix="inventory.", redelivery="run", validate=False)
    assert dispatcher.names == [f"inventory.{name}" for name in ("add", "later", "ping", "stock", "twice")]
    assert ask(dispatcher, request("inventory.add", ["a", 2]))["result"] is None
    assert ask(dispatcher, request("inventory.stock", {"sku": "a"}))["result"] == 5
    assert ask(dispatcher, request("inventory.twice", ["2"]))["result"] == "22"
    assert ask(dispatcher, request("inventory.ping"))["result"] == "pong"
    methods = dispatcher._methods
    assert methods.policy_of("inventory.add")[:2] == ("refuse", "early")
    assert methods.policy_of("inventory.stock")[:2] == ("run", "late")
    assert methods.is_async("inventory.later")


class Decorated:
    @method
    @staticmethod
    def static(number: int) -> int:
        return number

    @method("of.class")
    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @method
    @functools.lru_cache  # noqa: B019  # one object
    def cached(self) -> int:
        return 1

    @method("first", redelivery="refuse")
    def overridden(self) -> str:
        return "first"


class Derived(Decorated):
    def overridden(self) -> str:
        return "second"


def test_marks_above_other_decorators_and_of_methods_that_are_overridden() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Derived())
    assert dispatcher.names == ["cached", "first", "of.class", "static"]
    assert ask(dispatcher, request("static", [3]))["result"] == 3
    assert ask(dispatcher, request("of.class"))["result"] == "Derived"
    assert ask(dispatcher, request("cached"))["result"] == 1
    assert ask(dispatcher, request("first"))["result"] == "second"
    assert dispatcher._methods.policy_of("first").redelivery == "refuse"
    with pytest.raises(TypeError, match="is a class: register an object of it"):
        dispatcher.register(Derived)


def test_of_an_object_all_methods_are_registered_or_none() -> None:
    class Faulty:
        @method
        def good(self) -> None: ...

        @method
        def wrong(self, value: Faulty) -> None: ...

    dispatcher = Dispatcher()
    with pytest.raises(TypeError, match="parameter 'value'"):
        dispatcher.register(Faulty())
    assert dispatcher.names == []

    class Twice:
        @method("same")
        def one(self) -> None: ...

        @method("same")
        def two(self) -> None: ...

    with pytest.raises(ValueError, match="'same' is registered already"):
        dispatcher.register(Twice())


def test_an_object_that_cannot_be_called_needs_no_prefix() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Inventory())
    assert ask(dispatcher, request("stock", ["a"]))["result"] == 3


def test_described_methods_are_registered() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Inventory(), description=Described)
    assert dispatcher.names == ["add", "stock.get"]
    assert ask(dispatcher, request("stock.get", ["a"]))["result"] == 3
    assert dispatcher._methods.policy_of("add").redelivery == "refuse"


def test_a_description_may_be_an_alias_of_a_generic_class() -> None:
    class Repository(Protocol[T_contra]):
        def add(self, sku: T_contra) -> None: ...

    dispatcher = Dispatcher()
    dispatcher.register(Inventory(), description=Repository[str])
    assert dispatcher.names == ["add"]


def test_what_can_be_called_is_a_function_unless_it_is_said_otherwise() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Plain(), "plain")
    assert ask(dispatcher, request("plain"))["result"] == "called"
    with pytest.raises(TypeError, match="no methods that are marked with @method"):
        dispatcher.register(Plain(), prefix="plain.")


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (object(), {}, "cannot be called, and has no methods that are marked with @method"),
        (Inventory, {"prefix": "a."}, "is a class: register an object of it"),
        (Inventory(), {"prefix": "a.", "name": "b"}, "give a prefix, and no name"),
        (Plain(), {"description": Described}, "has no method 'get_stock', which Described describes"),
        (Inventory(), {"description": Inventory()}, "described by a class, such as a Protocol"),
        (Inventory(), {"description": object}, "describes no method"),
        (Inventory(), {"description": int}, "describes no method"),
        (Inventory(), {"retry": "safe"}, "no option retry"),
    ],
)
def test_what_is_refused(target: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Dispatcher().register(target, **options)


def test_names_that_are_taken_empty_or_no_text() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Inventory())
    with pytest.raises(ValueError, match="registered already"):
        dispatcher.register(Inventory())
    with pytest.raises(ValueError, match="must not be empty"):
        rpc_name("")
    with pytest.raises(TypeError, match="takes the name of a method"):
        rpc_name(test_names_that_are_taken_empty_or_no_text)  # type: ignore[arg-type]
