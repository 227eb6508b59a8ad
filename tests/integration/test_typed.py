"""Typed services and typed clients: both ends know the types of arguments and results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack, overload

import pydantic
import pytest
import uvloop

from jsonrpc_amqp import (
    ApplicationError,
    AsyncClient,
    AsyncServer,
    Client,
    InternalError,
    InvalidParams,
    MalformedReply,
    RemoteError,
    Server,
    method,
    raises,
    rpc_name,
)
from tests.loop_client import LOOPS

WHEN = datetime(2026, 11, 29, 6, 40, tzinfo=UTC)


@dataclass
class Item:
    sku: str
    price: Decimal
    since: datetime = WHEN


class Order(pydantic.BaseModel):
    items: list[Item]
    note: str | None = None


class Shop(Protocol):
    """What clients see of the service."""

    def add(self, item: Item, count: int = 1) -> int: ...
    @rpc_name("item.get")
    def get_item(self, sku: str, /) -> Item: ...
    def total(self, *skus: str) -> Decimal: ...
    def order(self, order: Order, *, dry: bool = False) -> Order: ...
    def tagged(self, /, **tags: str) -> dict[str, str]: ...
    def anything(self, value: Any) -> Any: ...
    def broken(self) -> Item: ...
    def fails(self) -> None: ...


class OutOfStock(ApplicationError, code=1001):
    sku: str


class NoSuchItem(ApplicationError, code=1002):
    sku: str


class Closed(ApplicationError, code=1003):
    """The shop is closed."""


@raises(Closed)
class Raising(Protocol):
    @raises(OutOfStock)
    def buy(self, sku: str) -> None: ...


class AsyncShop(Protocol):
    async def add(self, item: Item, count: int = 1) -> int: ...
    @rpc_name("item.get")
    async def get_item(self, sku: str, /) -> Item: ...
    async def broken(self) -> Item: ...


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Reader(Protocol[T_co]):
    def read(self, key: str) -> T_co: ...


class ItemReader(Reader[Item], Protocol):
    """What clients see of a service that is made of a generic class."""


class Store(Generic[T]):
    def __init__(self, **stored: T) -> None:
        self.stored = stored

    @method
    def write(self, key: str, value: T) -> None:
        self.stored[key] = value

    @method
    def read(self, key: str) -> T:
        return self.stored[key]


class ItemStore(Store[Item]):
    """A generic class of services for one type."""


class Inventory:
    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.counts: list[int] = []

    @method
    def add(self, item: Item, count: int = 3) -> int:
        assert isinstance(item, Item)
        assert isinstance(item.price, Decimal)
        self.items[item.sku] = item
        self.counts.append(count)
        return len(self.items)

    @method("item.get")
    async def get_item(self, sku: str) -> Item:
        return self.items[sku]

    @method
    def total(self, *skus: str) -> Decimal:
        return sum((self.items[sku].price for sku in skus), Decimal(0))

    @method
    def order(self, order: Order, dry: bool = False) -> Order:
        return order.model_copy(update={"note": f"dry: {dry}"})

    @method
    def tagged(self, /, **tags: str) -> dict[str, str]:
        return tags

    @method
    def anything(self, value: Any) -> Any:
        return value

    @method(validate=False)
    def broken(self) -> Any:
        return {"sku": "a", "price": "cheap"}

    @method
    def fails(self) -> None:
        raise KeyError("a")


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    return f"memory://{service}" if request.param == "memory" else request.getfixturevalue("url")


@pytest.fixture
def inventory(place: str, service: str) -> Iterator[Inventory]:
    served = Inventory()
    server = Server(place, service)
    server.register(served)
    with server:
        yield served


@pytest.fixture
def shop(place: str, service: str, inventory: Inventory) -> Iterator[Shop]:
    with Client(place, service, timeout=10) as client:
        yield client.typed(Shop)


def test_arguments_and_results_are_what_is_declared(shop: Shop, inventory: Inventory) -> None:
    item = Item("a", Decimal("1.50"))
    assert shop.add(item) == 1
    assert shop.add(Item("b", Decimal(2)), count=7) == 2
    assert shop.get_item("a") == item
    total = shop.total("a", "b")
    assert total == Decimal("3.50")
    assert isinstance(total, Decimal)
    assert shop.total() == 0
    assert shop.order(Order(items=[item])) == Order(items=[item], note="dry: False")
    assert shop.order(Order(items=[item]), dry=True).note == "dry: True"
    assert shop.tagged(self="x", method="y") == {"self": "x", "method": "y"}
    assert shop.anything({"a": [1]}) == {"a": [1]}
    # The default of the description was not sent: that of the server counts.
    assert inventory.counts == [3, 7]
    assert repr(shop) == "<typed client of Shop>"


def test_what_does_not_fit_is_told_with_its_place(place: str, service: str, inventory: Inventory) -> None:
    with Client(place, service, timeout=10) as client:
        with pytest.raises(InvalidParams) as caught:
            client.call("add", [{"sku": 1, "price": "1"}, "2"])
        assert caught.value.data == [
            {"path": "item.sku", "message": "Expected `str`, got `int`"},
            {"path": "count", "message": "Expected `int`, got `str`"},
        ]
        with pytest.raises(InvalidParams) as caught:
            client.call("order", {"order": {"items": [{"sku": "a", "price": "1"}, {}]}, "wet": True})
        paths = [each["path"] for each in caught.value.data]
        assert set(paths) == {"order.items[1].sku", "order.items[1].price", "wet"}
        assert inventory.items == {}


def test_a_result_that_is_not_what_is_declared(shop: Shop) -> None:
    with pytest.raises(MalformedReply, match=r"not what Shop\.broken declares: \.price: Invalid decimal") as caught:
        shop.broken()
    assert caught.value.may_have_run
    with pytest.raises(InternalError):
        shop.fails()


def test_members_of_a_dict_as_keywords(place: str, service: str) -> None:
    with Server(place, service, methods={"tagged": dict}), Client(place, service, timeout=10) as client:
        assert client.with_options(timeout=5).typed(Unpacking).tagged() == {}
        with pytest.raises(MalformedReply):  # the result is declared as texts
            client.typed(Unpacking).tagged(level=1)
        with pytest.raises(TypeError, match="tagged: got an unexpected keyword argument 'other'"):
            client.typed(Unpacking).tagged(other=1)  # type: ignore[call-arg]  # the refusal is tested
        assert type(client.typed(Unpacking)) is type(client.typed(Unpacking))


def test_generic_classes(place: str, service: str) -> None:
    store, item = ItemStore(), Item("a", Decimal("1.50"))
    server = Server(place, service)
    server.register(store)
    with server, Client(place, service, timeout=10) as client:
        client.call("write", ["k", item])
        assert store.stored == {"k": item}
        with pytest.raises(InvalidParams, match="value\\.price"):
            client.call("write", ["k", {"sku": "a", "price": "cheap"}])
        assert client.typed(ItemReader).read("k") == item
        assert client.typed(Reader[Item]).read("k") == item
        with pytest.raises(MalformedReply, match="Expected `int`, got `object`"):
            client.typed(Reader[int]).read("k")


def test_options_are_those_of_the_client(place: str, service: str, inventory: Inventory) -> None:
    with Client(place, timeout=10) as client:
        shop = client.with_options(service=service, timeout=5).typed(Shop)
        assert shop.add(Item("a", Decimal(1))) == 1


def test_arguments_that_no_call_can_have(shop: Shop) -> None:
    for call in (
        lambda: shop.add(),  # type: ignore[call-arg]  # the refusal is tested
        lambda: shop.add(1, 2, 3),  # type: ignore[call-arg, arg-type]  # the refusal is tested
        lambda: shop.add(item=1, other=2),  # type: ignore[call-arg, arg-type]  # the refusal is tested
        lambda: shop.get_item(sku="a"),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(AttributeError):
        shop.absent()  # type: ignore[attr-defined]


def test_errors_of_the_description_and_of_the_client(place: str, service: str) -> None:
    def buy(sku: str) -> None:
        raise {"a": OutOfStock("a"), "b": NoSuchItem("b"), "c": Closed(), "d": RemoteError(7, "seven")}[sku]

    with Server(place, service, methods={"buy": buy}), Client(place, service, timeout=10) as client:
        for calls, others in ((client, RemoteError), (client.with_options(errors=NoSuchItem), NoSuchItem)):
            shop = calls.typed(Raising)
            for sku, kind in (("a", OutOfStock), ("c", Closed), ("b", others), ("d", RemoteError)):
                with pytest.raises(RemoteError) as caught:
                    shop.buy(sku)
                assert type(caught.value) is kind
        with pytest.raises(RemoteError) as caught:
            client.call("buy", ["a"])
        assert type(caught.value) is RemoteError
    with pytest.raises(TypeError, match="raises takes subclasses of ApplicationError"):
        raises(KeyError)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", LOOPS)
def test_coroutines(place: str, service: str, kind: str, inventory: Inventory) -> None:
    async def main() -> None:
        async with AsyncClient(place, service, timeout=10) as client:
            shop = client.typed(AsyncShop)
            item = Item("a", Decimal("1.50"))
            assert list(await asyncio.gather(shop.add(item), shop.add(item=item, count=2))) == [1, 1]
            assert await shop.get_item("a") == item
            with pytest.raises(MalformedReply):
                await shop.broken()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None) as runner:
        runner.run(main())


def test_a_server_on_a_loop(place: str, service: str) -> None:
    async def main() -> None:
        server = AsyncServer(place, service)
        server.register(Inventory(), prefix="shop.")
        async with server, AsyncClient(place, service, timeout=10) as client:
            assert await client.call("shop.add", [{"sku": "a", "price": "1.5"}]) == 1
            assert (await client.call("shop.item.get", ["a"]))["price"] == "1.5"
            with pytest.raises(InvalidParams):
                await client.call("shop.item.get", [1])

    asyncio.run(main())


class Unconvertible(Protocol):
    def session(self) -> Client: ...


class Untakeable(Protocol):
    def keep(self, client: Client) -> None: ...


class Mixed(Protocol):
    async def add(self) -> int: ...


class WithAttribute(Shop, Protocol):
    name: str


class WithProperty(Shop, Protocol):
    @property
    def name(self) -> str: ...


class Overloaded(Protocol):
    @overload
    def get(self, a: int) -> int: ...
    @overload
    def get(self, a: str) -> str: ...


class Settings(TypedDict, total=False):
    level: int


class Unpacking(Protocol):
    def tagged(self, **tags: Unpack[Settings]) -> dict[str, str]: ...


class Nothing(Protocol):
    name: str


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (Unconvertible, "Unconvertible.session, the result: the hint jsonrpc_amqp.client.client.Client cannot be conv"),
        (
            Untakeable,
            "Untakeable.keep, parameter 'client': the hint jsonrpc_amqp.client.client.Client cannot be",
        ),
        (Mixed, "Mixed.add: a description for Client has methods that are def"),
        (Nothing, "Nothing describes no method"),
        (WithAttribute, "WithAttribute.name is an attribute: a description for a client has methods only"),
        (WithProperty, "WithProperty.name is an attribute"),
        (Overloaded, "Overloaded.get: a description has no overloads"),
        (Inventory(), "described by a class"),
    ],
)
def test_descriptions_that_are_refused(service: str, description: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Client(f"memory://{service}", service).typed(description)


def test_a_description_for_threads_is_none_for_coroutines(service: str) -> None:
    with pytest.raises(TypeError, match=r"Shop\.add: a description for AsyncClient has methods that are async def"):
        AsyncClient(f"memory://{service}", service).typed(Shop)
