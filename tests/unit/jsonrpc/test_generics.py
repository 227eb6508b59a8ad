"""Type variables of generic classes stand for what a class that derives from them says."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, TypeVarTuple

import pydantic
import pytest

from jsonrpc_amqp.client.typed import typed_client
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.generics import type_arguments
from jsonrpc_amqp.jsonrpc.marks import method

from .tools import ask, check_error, request

K = TypeVar("K")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
U = TypeVar("U")
N = TypeVar("N", bound=int)
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")


@dataclass
class Item:
    sku: str


@dataclass
class Page(Generic[T]):
    entries: list[T]


def logged(function: Callable[P, U]) -> Callable[P, U]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> U:
        return function(*args, **kwargs)

    return wrapper


class Repository(Generic[K, T]):
    @method
    def put(self, key: K, item: T) -> T:
        return item

    @method
    def put_all(self, items: dict[str, list[T]], more: T | None = None) -> int:
        return len(items)

    @method
    @logged
    def page(self, page: Page[T]) -> Page[T]:
        return page

    @classmethod
    @method
    def kind(cls, item: T) -> str:
        return type(item).__name__

    @staticmethod
    @method
    def free(value: int) -> int:
        return value


class ByName(Repository[str, U]):
    """Passes one variable on."""


class Items(ByName[Item]):
    @method
    def rename(self, item: Item) -> Item:
        return item


class Numbered(Generic[T]):
    @method
    def number(self, value: T) -> T:
        return value


class Mixed(Repository[str, Item], Numbered[int]):
    """Two bases that name their variables alike."""


class Bounded(Generic[N]):
    @method
    def bounded(self, value: N) -> N:
        return value


ITEM, NO_ITEM = {"sku": "a"}, {"sku": 5}


@pytest.mark.parametrize(
    "service",
    [Items(), Mixed(), Repository[str, Item](), ByName[Item]()],
    ids=["class", "two bases", "alias", "alias of a subclass"],
)
def test_params_are_converted_to_the_arguments_of_the_class(service: object) -> None:
    dispatcher = Dispatcher()
    dispatcher.register(service, prefix="")
    assert ask(dispatcher, request("put", ["k", ITEM]))["result"] == ITEM
    assert ask(dispatcher, request("put_all", {"items": {"x": [ITEM]}}))["result"] == 1
    assert ask(dispatcher, request("page", {"page": {"entries": [ITEM]}}))["result"] == {"entries": [ITEM]}
    assert ask(dispatcher, request("free", [1]))["result"] == 1
    for params, path in (
        (("put", ["k", NO_ITEM]), "item.sku"),
        (("put_all", {"items": {"x": [NO_ITEM]}}), "items[...][0].sku"),
        (("put_all", {"items": {}, "more": NO_ITEM}), "more.sku"),
        (("page", [{"entries": [NO_ITEM]}]), "page.entries[0].sku"),
    ):
        data = [{"path": path, "message": "Expected `str`, got `int`"}]
        check_error(ask(dispatcher, request(*params)), -32602, data=data)
    data = [{"path": "key", "message": "Expected `str`, got `int`"}]
    check_error(ask(dispatcher, request("put", [1, ITEM])), -32602, data=data)


def test_variables_of_the_same_name_in_two_bases() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Mixed(), prefix="")
    assert ask(dispatcher, request("number", [5]))["result"] == 5
    check_error(
        ask(dispatcher, request("number", ["5"])),
        -32602,
        data=[{"path": "value", "message": "Expected `int`, got `str`"}],
    )


def test_a_method_of_the_class_itself() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Items(), prefix="")
    assert ask(dispatcher, request("kind", [ITEM]))["result"] == "Item"


def test_variables_without_an_argument_are_what_they_were() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(Numbered(), prefix="any.")
    dispatcher.register(Bounded(), prefix="bounded.")
    assert ask(dispatcher, request("any.number", [["x"]]))["result"] == ["x"]
    assert "error" in ask(dispatcher, request("bounded.bounded", ["x"]))


def test_results_are_compared_with_the_argument() -> None:
    class Stored(Numbered[int]):
        pass

    dispatcher = Dispatcher(check_results=True, validate=False)
    dispatcher.register(Stored(), prefix="")
    assert ask(dispatcher, request("number", [1]))["result"] == 1
    check_error(ask(dispatcher, request("number", ["1"])), -32603)


def check_fits(service: object, name: str, fits: object, does_not: object) -> None:
    dispatcher = Dispatcher()
    dispatcher.register(service, prefix="")
    assert "result" in ask(dispatcher, request(name, [fits]))
    assert ask(dispatcher, request(name, [does_not]))["error"]["code"] == -32602


class ByText(Numbered["Item"]):
    """Whose argument may be defined further down."""


class InText(Numbered[list["Item"]]):
    """The same, within another hint."""


def test_arguments_that_are_texts() -> None:
    check_fits(ByText(), "number", ITEM, NO_ITEM)
    check_fits(InText(), "number", [ITEM], [NO_ITEM])


def test_a_base_without_arguments_beside_one_that_has_them() -> None:
    class Bare(Numbered):  # type: ignore[type-arg]
        pass

    class Both(Bare, Numbered[Item]):
        pass

    check_fits(Both(), "number", ITEM, NO_ITEM)


def test_a_method_of_a_base_under_another_name() -> None:
    class Renamed(Numbered[Item]):
        count = Numbered.number

    check_fits(Renamed(), "count", ITEM, NO_ITEM)


def test_an_object_that_can_be_called() -> None:
    class Handler(Generic[T]):
        def __call__(self, value: T) -> T:
            return value

    class ItemHandler(Handler[Item]):
        pass

    for handler in (ItemHandler(), Handler[Item]()):
        dispatcher = Dispatcher({"handle": handler})
        assert ask(dispatcher, request("handle", [ITEM]))["result"] == ITEM
        assert ask(dispatcher, request("handle", [NO_ITEM]))["error"]["code"] == -32602


class Reply(pydantic.BaseModel, Generic[T]):
    entries: list[T]


class Replies(Generic[T]):
    @method
    def one(self, reply: Reply[T]) -> int:
        return len(reply.entries)

    @method
    def some(self, replies: list[Reply[T] | None]) -> int:
        return len(replies)


class ItemReplies(Replies[Item]):
    """Which pydantic converts, since it has its models in its hints."""


def test_models_of_pydantic() -> None:
    check_fits(ItemReplies(), "one", {"entries": [ITEM]}, {"entries": [NO_ITEM]})
    check_fits(ItemReplies(), "some", [None, {"entries": [ITEM]}], [None, {"entries": [NO_ITEM]}])


def test_a_variable_for_any_number_of_types_moves_none_of_the_others() -> None:
    class Row(Generic[*Ts, T]):
        @method
        def last(self, value: T) -> T:
            return value

    class Stored(Row[int, str, float]):
        pass

    dispatcher = Dispatcher()
    dispatcher.register(Stored(), prefix="")
    assert ask(dispatcher, request("last", [1.5]))["result"] == 1.5


def test_no_code_of_the_object_runs_to_find_them() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> object:
            raise KeyError(name)

        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

    class Items(Proxy, Numbered[Item]):
        proxy = Proxy()

    check_fits(Items(), "number", ITEM, NO_ITEM)


DECLARED = """
from __future__ import annotations
class Keyed[T]:
    @method
    def number(self, value: T) -> T:
        return value
    @method
    def labelled[K](self, value: list[T], label: K) -> K:
        return label
class ByKey(Keyed[Item]): ...
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="it is no syntax there")
def test_variables_that_the_class_declares_where_hints_are_texts() -> None:
    module: dict[str, Any] = {"__name__": __name__, "method": method, "Item": Item}
    exec(DECLARED, module)
    check_fits(module["ByKey"](), "number", ITEM, NO_ITEM)
    dispatcher = Dispatcher(check_results=True)
    dispatcher.register(module["ByKey"](), prefix="")
    assert ask(dispatcher, request("labelled", [[ITEM], "a"]))["result"] == "a"
    described = typed_client(module["ByKey"], lambda _name, _params, convert: convert(ITEM), is_async=False)
    assert described.number(Item("a")) == Item("a")


def test_what_is_no_method_of_a_generic_class_has_none() -> None:
    assert type_arguments(Item, Item.__init__) == {}
    assert type_arguments(Items, len) == {}
    assert type_arguments(Items, Items.rename) == {}
    assert type_arguments(5, len) == {}


def test_a_protocol() -> None:
    class Reader(Protocol[T_co]):
        def read(self) -> T_co: ...

    class ItemReader(Reader[Item], Protocol): ...

    function: Any = Reader.read
    assert type_arguments(ItemReader, function) == {T_co: Item}
    assert type_arguments(Reader[Item], function) == {T_co: Item}
