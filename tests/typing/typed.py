"""Typed clients, classes as services, and the marks of their methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar, assert_type

from jsonrpc_amqp import AsyncClient, AsyncServer, Client, Server, method, rpc_name


@dataclass
class Stock:
    sku: str
    left: int


class Inventory(Protocol):
    def stock(self, sku: str, warehouse: str = "main") -> Stock: ...
    @rpc_name("stock.add")
    def add(self, stock: Stock) -> None: ...


class AsyncInventory(Protocol):
    async def stock(self, sku: str, warehouse: str = "main") -> Stock: ...


T_co = TypeVar("T_co", covariant=True)


class Reader(Protocol[T_co]):
    def read(self, key: str) -> T_co: ...


class StockReader(Reader[Stock], Protocol): ...


class Service:
    @method
    def stock(self, sku: str, warehouse: str = "main") -> Stock:
        return Stock(sku, 1)

    @method("stock.add", redelivery="refuse", validate=False)
    def add(self, stock: Stock) -> None: ...

    @method(redelivery="maybe")  # type: ignore[call-overload, untyped-decorator]  # "run" or "refuse"
    def other(self) -> None: ...


def threads(client: Client, server: Server) -> None:
    inventory = client.typed(Inventory)
    assert_type(inventory, Inventory)
    assert_type(inventory.stock("a"), Stock)
    assert_type(client.with_options(timeout=1).typed(Inventory).add(Stock("a", 1)), None)
    inventory.stock(1)  # type: ignore[arg-type]
    inventory.stock()  # type: ignore[call-arg]
    inventory.stok("a")  # type: ignore[attr-defined]
    inventory.add("a")  # type: ignore[arg-type]
    assert_type(client.typed(StockReader).read("a"), Stock)
    assert_type(client.typed(Reader[Stock]).read("a"), Stock)
    server.register(Service(), prefix="inventory.", redelivery="refuse")
    server.register(Service(), description=Inventory)
    server.register(threads, "threads", validate=False)
    server.register(threads, redelivery="maybe")  # type: ignore[arg-type]


async def coroutines(client: AsyncClient, server: AsyncServer) -> None:
    inventory = client.typed(AsyncInventory)
    assert_type(inventory, AsyncInventory)
    assert_type(await inventory.stock("a", warehouse="b"), Stock)
    await inventory.stock(warehouse=1)  # type: ignore[call-arg, arg-type]
    server.register(Service(), prefix="inventory.")
