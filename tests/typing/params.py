"""What may be passed as params: sequences and mappings, but no texts."""

from __future__ import annotations

from collections import ChainMap, OrderedDict, UserDict, UserList, deque
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

from jsonrpc_amqp import AsyncBatch, AsyncClient, Batch, Client


class Place(NamedTuple):
    x: int
    y: int


class Order(TypedDict):
    item: str
    count: int


class Partial(TypedDict, total=False):
    item: str


def by_position(
    client: Client,
    numbers: list[int],
    pair: tuple[int, str],
    any_number: tuple[int, ...],
    place: Place,
    items: deque[str],
    user_list: UserList[int],
    sequence: Sequence[object],
    mutable: MutableSequence[str],
    texts: Sequence[str],
    nested: list[list[str]],
) -> None:
    client.call("m", [])
    client.call("m", ())
    client.call("m", ["text"])
    client.call("m", [1, "a", None, {"b": b""}])
    client.call("m", numbers)
    client.call("m", pair)
    client.call("m", any_number)
    client.call("m", place)
    client.call("m", range(3))
    client.call("m", items)
    client.call("m", user_list)
    client.call("m", sequence)
    client.call("m", mutable)
    client.call("m", texts)
    client.call("m", nested)


def by_name(
    client: Client,
    numbers: dict[str, int],
    anything: dict[str, Any],
    mapping: Mapping[str, object],
    mutable: MutableMapping[str, int],
    view: MappingProxyType[str, int],
    chain: ChainMap[str, int],
    ordered: OrderedDict[str, int],
    user_dict: UserDict[str, int],
    order: Order,
    partial: Partial,
) -> None:
    client.call("m", {})
    client.call("m", {"a": 1, "b": "x"})
    client.call("m", numbers)
    client.call("m", anything)
    client.call("m", mapping)
    client.call("m", mutable)
    client.call("m", view)
    client.call("m", chain)
    client.call("m", ordered)
    client.call("m", user_dict)
    client.call("m", order)
    client.call("m", partial)


def unknown(client: Client, anything: Any, optional: list[int] | None) -> None:
    client.call("m", anything)
    client.call("m", optional)
    client.call("m", None)


def refused(client: Client, batch: Batch, text: str, data: bytes, buffer: bytearray, numbered: dict[int, str]) -> None:
    client.call("m", "text")  # type: ignore[arg-type]
    client.call("m", text)  # type: ignore[arg-type]
    client.call("m", data)  # type: ignore[arg-type]
    client.call("m", buffer)  # type: ignore[arg-type]
    client.notify("m", text)  # type: ignore[arg-type]
    client.submit("m", text)  # type: ignore[arg-type]
    client.submit_notify("m", text)  # type: ignore[arg-type]
    client.with_options(timeout=1).call("m", text)  # type: ignore[arg-type]
    batch.call("m", text)  # type: ignore[arg-type]
    batch.notify("m", text)  # type: ignore[arg-type]
    client.call("m", 1)  # type: ignore[arg-type]
    client.call("m", {1, 2})  # type: ignore[arg-type]
    client.call("m", iter([1]))  # type: ignore[arg-type]
    client.call("m", numbered)  # type: ignore[arg-type]


async def refused_in_coroutines(client: AsyncClient, batch: AsyncBatch, text: str, data: bytes) -> None:
    await client.call("m", range(3))
    await client.call("m", text)  # type: ignore[arg-type]
    await client.notify("m", data)  # type: ignore[arg-type]
    client.submit("m", text)  # type: ignore[arg-type]
    client.submit_notify("m", text)  # type: ignore[arg-type]
    batch.call("m", data)  # type: ignore[arg-type]
    batch.notify("m", text)  # type: ignore[arg-type]
