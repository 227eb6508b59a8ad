"""Objects that were made of JSON have the attributes that their constructor would have set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pytest

from jsonrpc_amqp.jsonrpc.conversion import converter
from jsonrpc_amqp.jsonrpc.text import dumps, loads

T = TypeVar("T")


@dataclass
class Item:
    sku: str
    count: int = 1
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    first: int = 1
    second: str = "b"


@dataclass(slots=True)
class Slotted:
    item: Item
    number: int = 5


@attrs.define(slots=False)
class WithAttrs:
    sku: str
    count: int = 2


class Struct(msgspec.Struct):
    item: Item
    more: int = 3


class Pair(NamedTuple):
    item: Item
    number: int


class Options(TypedDict, total=False):
    item: Item
    level: int


@dataclass
class Node:
    name: str = "node"
    children: list[Node] = field(default_factory=list)


@dataclass
class Page(Generic[T]):
    entries: list[T]
    number: int = 1


WHOLE = {"sku": "a", "count": 1, "tags": []}


@pytest.mark.parametrize(
    ("hint", "given", "whole"),
    [
        (Item, {"sku": "a"}, WHOLE),
        (Item, {"sku": "a", "count": 7}, WHOLE | {"count": 7}),
        (Frozen, {}, {"first": 1, "second": "b"}),
        (Slotted, {"item": {"sku": "a"}}, {"item": WHOLE, "number": 5}),
        (WithAttrs, {"sku": "a"}, {"sku": "a", "count": 2}),
        (Struct, {"item": {"sku": "a"}}, {"item": WHOLE, "more": 3}),
        (Pair, [{"sku": "a"}, 1], [WHOLE, 1]),
        (Options, {"item": {"sku": "a"}}, {"item": WHOLE}),
        (Options, {}, {}),
        (list[Item], [{"sku": "a"}], [WHOLE]),
        (set[Frozen], [{}], [{"first": 1, "second": "b"}]),
        (frozenset[Frozen], [{}], [{"first": 1, "second": "b"}]),
        (tuple[Item, ...], [{"sku": "a"}], [WHOLE]),
        (tuple[int, Item], [1, {"sku": "a"}], [1, WHOLE]),
        (dict[str, list[Item]], {"x": [{"sku": "a"}]}, {"x": [WHOLE]}),
        (Item | None, {"sku": "a"}, WHOLE),
        (Item | None, None, None),
        (Item | list[Item] | int, [{"sku": "a"}], [WHOLE]),
        (Item | list[Item] | int, 5, 5),
        (Annotated[Item, msgspec.Meta(description="an item")], {"sku": "a"}, WHOLE),
        (Annotated[list[Item], msgspec.Meta(max_length=3, extra_json_schema={"x": 1})], [{"sku": "a"}], [WHOLE]),
        (Page[Item], {"entries": [{"sku": "a"}]}, {"entries": [WHOLE], "number": 1}),
        (
            Node,
            {"children": [{"children": [{}]}]},
            {"name": "node", "children": [{"name": "node", "children": [{"name": "node", "children": []}]}]},
        ),
    ],
)
def test_what_is_written_is_whole(hint: Any, given: Any, whole: Any) -> None:
    convert = converter(hint)
    assert convert is not None
    assert loads(dumps(convert(given))) == whole


def test_it_is_what_the_constructor_makes() -> None:
    convert = converter(Item)
    assert convert is not None
    made = convert({"sku": "a"})
    assert vars(made) == vars(Item("a"))
    assert dataclasses.replace(made, sku="b") == Item("b")


@pytest.mark.parametrize("hint", [int, list[int], dict[str, str], tuple[int, str], int | None, Any])
def test_where_nothing_can_be_missing_nothing_is_looked_at(hint: Any) -> None:
    from msgspec import inspect as shapes

    from jsonrpc_amqp.jsonrpc.class_defaults import completer

    assert completer(shapes.type_info(hint)) is None
