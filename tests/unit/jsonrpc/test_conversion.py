"""Values of JSON become what hints declare, or what does not fit is told with its place."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, NoReturn, Protocol, TypedDict, TypeVar
from unittest import mock
from uuid import UUID

import annotated_types
import msgspec
import pydantic
import pydantic_core
import pytest

from jsonrpc_amqp import jsonrpc
from jsonrpc_amqp.jsonrpc import pydantic_types
from jsonrpc_amqp.jsonrpc.conversion import DoesNotFit, UnsupportedHint, converter


@dataclass
class Item:
    sku: str
    price: Decimal = Decimal(1)


@dataclass
class Order:
    items: list[Item]
    prices: dict[str, Item] = field(default_factory=dict)


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("odd")


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Pair(NamedTuple):
    name: str
    number: int


class Options(TypedDict, total=False):
    level: int


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Model(pydantic.BaseModel):
    sku: str
    when: datetime | None = None


class Limited(pydantic.BaseModel):
    number: Annotated[int, pydantic.Field(gt=3)]


@pydantic.dataclasses.dataclass
class Checked:
    number: pydantic.PositiveInt


@dataclass
class Holder:
    models: list[Model]


@dataclass
class Constrained:
    number: Annotated[int, annotated_types.Gt(3)]


class Positive(annotated_types.GroupedMetadata):
    def __repr__(self) -> str:
        return "Positive()"

    def __iter__(self) -> Any:
        yield annotated_types.Gt(0)


class Upper:
    """What pydantic documents for constraints of one's own."""

    def __repr__(self) -> str:
        return "Upper()"

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return pydantic_core.core_schema.no_info_after_validator_function(self._check, handler(source))

    @staticmethod
    def _check(text: str) -> str:
        if not text.isupper():
            raise ValueError("not in capitals")
        return text


@dataclass
class Mixed:
    data: bytes
    model: Model


class Aliased(pydantic.BaseModel):
    my_name: int = pydantic.Field(alias="myName")


@dataclass
class And:
    left: And | Or | None = None


@dataclass
class Or:
    right: And | Or | None = None


class Leaf(pydantic.BaseModel):
    kind: Literal["leaf"] = "leaf"


class Node(pydantic.BaseModel):
    kind: Literal["node"] = "node"
    left: Annotated[Node | Leaf, pydantic.Field(discriminator="kind")]


class Loose(pydantic.BaseModel):
    items: list[Loose] | dict[str, Loose] | int = 1


class HasKeys(Protocol):
    def keys(self) -> object: ...


Number = NewType("Number", int)
T = TypeVar("T")
WHEN = datetime(2026, 11, 29, 6, 40, tzinfo=UTC)
A_UUID = UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 1, 1),
        (float, 1, 1),
        (list[float], [1], [1.0]),
        (float, 1.5, 1.5),
        (str, "a", "a"),
        (bool, True, True),
        (None, None, None),
        (int | None, None, None),
        (int | str, "a", "a"),
        (list, [1, "a"], [1, "a"]),
        (list[int], [1, 2], [1, 2]),
        (Sequence[int], [1], [1]),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (dict[str, object], {"a": [None]}, {"a": [None]}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[int], [1, 1], {1}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (bytes, "aGk=", b"hi"),
        (datetime, "2026-11-29T06:40:00Z", WHEN),
        (date, "2026-11-29", date(2026, 11, 29)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (UUID, str(A_UUID), A_UUID),
        (Decimal, "1.10", Decimal("1.10")),
        (Color, "red", Color.RED),
        (Level, 3, Level.HIGH),
        (Literal["a", 1], 1, 1),
        (Number, 1, 1),
        (Annotated[int, "a note"], 1, 1),
        (Annotated[int, msgspec.Meta(ge=1)], 1, 1),
        (Item, {"sku": "a", "price": "2.5"}, Item("a", Decimal("2.5"))),
        (Order, {"items": [{"sku": "a"}]}, Order([Item("a")])),
        (Tree, {"name": "a", "children": [{"name": "b"}]}, Tree("a", [Tree("b")])),
        (Point, {"x": 1}, Point(1)),
        (Pair, ["a", 1], Pair("a", 1)),
        (Options, {"level": 1}, {"level": 1}),
        (Point | list[int] | None, [1], [1]),
        (Model, {"sku": "a", "when": "2026-11-29T06:40:00Z"}, Model(sku="a", when=WHEN)),
        (list[Model], [{"sku": "a"}], [Model(sku="a")]),
        (dict[str, Model | None], {"a": None}, {"a": None}),
        (Holder, {"models": [{"sku": "a"}]}, Holder([Model(sku="a")])),
        (Checked, {"number": 1}, Checked(1)),
        (Item | Even, {"number": 2}, Even(2)),
        (str | UUID, "a", "a"),
        (Path, "/tmp", Path("/tmp")),
        (Annotated[int, annotated_types.Gt(3)], 4, 4),
        (Constrained, {"number": 4}, Constrained(4)),
        (Mixed, {"data": "aGk=", "model": {"sku": "a"}}, Mixed(b"hi", Model(sku="a"))),
        (Model | bytes, "aGk=", b"hi"),
        (Aliased, {"myName": 1}, Aliased(myName=1)),
        (Annotated[str, Upper()], "A", "A"),
        (Annotated[int, Positive()], 1, 1),
        (Node, {"left": {"kind": "leaf"}}, Node(left=Leaf())),
        (Tree | Even, {"number": 2}, Even(2)),
        (Loose, {"items": [{"items": {"a": {}}}]}, Loose(items=[Loose(items={"a": Loose()})])),
    ],
    ids=repr,
)
def test_what_fits(hint: Any, value: Any, expected: Any) -> None:
    convert = converter(hint)
    assert convert is not None
    result = convert(value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("hint", [Any, object, T, Annotated[Any, "a note"]], ids=repr)
def test_what_takes_anything(hint: Any) -> None:
    assert converter(hint) is None


@pytest.mark.parametrize(
    ("hint", "value", "path", "message"),
    [
        (int, "1", "", "Expected `int`, got `str`"),
        (int, True, "", "Expected `int`, got `bool`"),
        (int, 1.0, "", "Expected `int`, got `float`"),
        (int | None, "1", "", "Expected `int | null`, got `str`"),
        (str, 1, "", "Expected `str`, got `int`"),
        (list[int], [1, "2"], "[1]", "Expected `int`, got `str`"),
        (dict[int, int], {"a": 1}, "", "in a name of a member: Expected `int`, got `str`"),
        (Color, "blue", "", "Invalid enum value 'blue'"),
        (datetime, "yesterday", "", "Invalid RFC3339 encoded datetime"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "", "Expected `int` >= 1"),
        (Order, {"items": [{"sku": "a"}, {"sku": 2}]}, ".items[1].sku", "Expected `str`, got `int`"),
        (Order, {"items": [], "prices": {"a": {}}}, ".prices[...]", "Object missing required field `sku`"),
        (Even, {"number": 1}, "", "odd"),
        (Model, {"sku": 1}, ".sku", "Input should be a valid string"),
        (list[Model], [{}], "[0].sku", "Field required"),
        (Limited, {"number": True}, ".number", "Input should be a valid integer"),
        (Limited, {"number": "4"}, ".number", "Input should be a valid integer"),
        (Limited, {"number": 3}, ".number", "Input should be greater than 3"),
        (Constrained, {"number": 3}, ".number", "Input should be greater than 3"),
        (Annotated[int, annotated_types.Gt(3)], 3, "", "Input should be greater than 3"),
        (Annotated[int, Positive()], 0, "", "Input should be greater than 0"),
        (list[Annotated[str, Upper()]], ["A", "a"], "[1]", "Value error, not in capitals"),
        (set[list[int]], [[1]], "", "unhashable type: 'list'"),
    ],
    ids=repr,
)
def test_what_does_not_fit(hint: Any, value: Any, path: str, message: str) -> None:
    convert = converter(hint)
    assert convert is not None
    with pytest.raises(DoesNotFit) as caught:
        convert(value)
    assert caught.value.misfits == [(path, message)]
    assert str(caught.value) == (f"{path}: {message}" if path else message)


def test_pydantic_finds_all_in_one_pass() -> None:
    convert = converter(list[Model])
    assert convert is not None
    with pytest.raises(DoesNotFit) as caught:
        convert([{"sku": 1}, {"when": "yesterday", "sku": None}])
    assert [path for path, _message in caught.value.misfits] == ["[0].sku", "[1].sku", "[1].when"]


FEW, MANY = [{"sku": 1}] * 10, [{"sku": 1}] * 10_000


@pytest.mark.parametrize(
    ("hint", "few", "many"),
    [
        (list[Model], FEW, MANY),
        (tuple[Model, ...], FEW, MANY),
        (dict[str, list[Model]], {"a": FEW, "b": FEW}, {str(number): FEW for number in range(10_000)}),
        (list[list[Model]], [FEW, FEW], [MANY, MANY]),
    ],
    ids=["list", "tuple", "dict", "lists"],
)
def test_of_a_large_text_pydantic_finds_the_first_mistake_of_each_container(hint: Any, few: Any, many: Any) -> None:
    """Each mistake takes hundreds of bytes, so that those of a body of some megabytes would take gigabytes."""
    convert = converter(hint)
    assert convert is not None
    with pytest.raises(DoesNotFit) as caught:
        convert(few)
    assert len(caught.value.misfits) >= 10
    with pytest.raises(DoesNotFit) as caught:
        convert(many)
    assert len(caught.value.misfits) == 1


def test_defaults_and_names_that_look_like_schemas_are_left_alone() -> None:
    class Odd(pydantic.BaseModel):
        default: list[int] = []
        value: dict[str, str] = {"type": "list"}

    convert = converter(list[Odd])
    assert convert is not None
    (odd,) = convert([{"x": "x" * 20_000}])
    assert odd.value == {"type": "list"}
    with pytest.raises(DoesNotFit) as caught:
        convert([{"default": ["a"] * 10_000}])
    assert len(caught.value.misfits) == 1


def test_very_many_mistakes_are_counted_only() -> None:
    class Strict(pydantic.BaseModel, extra="forbid"):
        pass

    convert = converter(Strict)
    assert convert is not None
    with pytest.raises(DoesNotFit, match=r"^5000 mistakes$"):
        convert({str(number): 1 for number in range(5000)})


def test_a_pydantic_without_a_limit_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    older = type("DictSchema", (), {"__annotations__": {}})
    monkeypatch.setattr("pydantic_core.core_schema.DictSchema", older)
    with pytest.raises(UnsupportedHint, match=r"version [0-9.]+ of pydantic is too old"):
        converter(Model)


def test_what_a_peer_has_sent_is_cut() -> None:
    convert = converter(Color)
    assert convert is not None
    with pytest.raises(DoesNotFit) as caught:
        convert("x" * 1_000_000)
    assert all(len(text) < 300 for each in caught.value.as_data() for text in each.values())
    many = DoesNotFit(caught.value.misfits * 1000).as_data()
    assert len(many) == 100


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (Callable[[], int], "no value of JSON is a Callable"),
        (Iterator[int], "no value of JSON is a Iterator"),
        (AsyncIterator[int], "no value of JSON is a AsyncIterator"),
        (HasKeys, "no value of JSON is a HasKeys"),
        (mock.Mock, "no value of JSON is a Mock"),
        (NoReturn, "is not supported"),
        ("Item", "is not supported"),
        (list["NoSuch"], "is not supported"),  # type: ignore[name-defined]  # noqa: F821
        (dict[str, Point | Model], "Model"),
        (And | Or, "a recursive union of several classes takes time that doubles"),
        (list[And], "a recursive union of several classes takes time that doubles"),
        (Annotated[int, msgspec.Meta(ge=1), annotated_types.Gt(3)], "msgspec.Meta is in the same hint"),
    ],
    ids=repr,
)
def test_what_nothing_converts_to(hint: Any, message: str) -> None:
    with pytest.raises(UnsupportedHint, match=message):
        converter(hint)


@pytest.mark.parametrize("hint", [Model, Checked, Item | Even, Constrained, Path], ids=repr)
def test_what_needs_pydantic_without_it(monkeypatch: pytest.MonkeyPatch, hint: Any) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, pydantic_types.__name__)
    monkeypatch.delattr(jsonrpc, "pydantic_types")
    with pytest.raises(UnsupportedHint, match="and pydantic, which may convert it, is not installed"):
        converter(hint)
