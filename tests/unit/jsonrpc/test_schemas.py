"""The schemas of type hints."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NotRequired, Protocol, TypeVar

import msgspec
import pydantic
import pytest
from typing_extensions import TypedDict

from jsonrpc_amqp import jsonrpc
from jsonrpc_amqp.jsonrpc import pydantic_types
from jsonrpc_amqp.jsonrpc.schemas import PLACE, Declared, Schema, Schemas, schemas_of

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Item:
    """A thing."""

    sku: str
    parts: list[Item] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Place(TypedDict):
    row: int
    shelf: NotRequired[str]


class Order(pydantic.BaseModel):
    items: list[Item] = pydantic.Field(alias="lines")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return len(self.items)


@dataclasses.dataclass
class Unending:
    number: float = float("inf")


class Walkable(Protocol):
    def walk(self) -> None: ...


def schema(hint: Any) -> Schema:
    return schemas_of([Declared(hint)]).each[0]


def other_item() -> type:
    @dataclasses.dataclass
    class Item:
        number: int

    return Item


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (int, {"type": "integer"}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (None, {"type": "null"}),
        (list[object], {"type": "array", "items": {}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (date, {"type": "string", "format": "date"}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (Annotated[int, msgspec.Meta(gt=0)], {"type": "integer", "exclusiveMinimum": 0}),
        (Annotated[int, pydantic.Field(gt=0)], {"type": "integer", "exclusiveMinimum": 0}),
        (Path, {"type": "string", "format": "path"}),
        (Box[int], {"$ref": f"{PLACE}Box_int_"}),
        (Order, {"$ref": f"{PLACE}Order"}),
    ],
)
def test_schema(hint: Any, expected: Schema) -> None:
    assert schema(hint) == expected


def test_members_of_a_tuple_are_as_draft_7_has_them() -> None:
    items = [{"type": "integer"}, {"type": "string"}]
    assert schema(tuple[int, str]) == {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": items,
        "additionalItems": False,
    }


@pytest.mark.parametrize("hint", [Any, object, T, Callable, Unending, type, "no.such.name", Walkable])
def test_what_has_no_schema_is_any_value_and_spoils_no_other(hint: Any) -> None:
    found = schemas_of([Declared(int), Declared(hint), Declared(Item), Declared(Order)])
    assert found.each == [{"type": "integer"}, {}, {"$ref": f"{PLACE}Item"}, {"$ref": f"{PLACE}Order"}]


def test_without_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, pydantic_types.__name__)
    monkeypatch.delattr(jsonrpc, "pydantic_types")
    assert schemas_of([Declared(int), Declared(Path)]).each == [{"type": "integer"}, {}]


def test_classes_refer_to_one_another_by_name() -> None:
    found = schemas_of([Declared(Item), Declared(Place), Declared(Colour), Declared(Sequence[Item])])
    assert found.shared["Item"] == {
        "title": "Item",
        "description": "A thing.",
        "type": "object",
        "properties": {
            "sku": {"type": "string"},
            "parts": {"type": "array", "items": {"$ref": f"{PLACE}Item"}},
        },
        "required": ["sku"],
    }
    assert found.shared["Place"]["required"] == ["row"]
    assert found.shared["Colour"]["enum"] == ["blue", "red"]
    assert set(found.shared) == {"Item", "Place", "Colour"}
    assert found.each[3] == {"type": "array", "items": found.each[0]}


def test_classes_of_the_same_name_have_names_of_their_own() -> None:
    other = other_item()
    # That of pydantic has another schema of the first one.
    found = schemas_of([Declared(Item), Declared(other), Declared(Order)])
    names = [each["$ref"].removeprefix(PLACE) for each in found.each]
    assert len(set(names)) == 3
    assert list(found.shared[names[1]]["properties"]) == ["number"]
    assert list(found.shared[names[0]]["properties"]) == ["sku", "parts"]


def test_a_name_that_msgspec_has_taken_is_changed_throughout() -> None:
    found = schemas_of([Declared(Item), Declared(Order)])
    lines = found.shared["Order"]["properties"]["lines"]
    assert lines["items"] == {"$ref": f"{PLACE}Item_2"}
    assert found.shared["Item_2"]["properties"]["parts"]["items"] == {"$ref": f"{PLACE}Item_2"}


def test_what_is_written_may_have_other_members_than_what_is_read() -> None:
    found = schemas_of([Declared(Order), Declared(Order, is_result=True)])
    read, written = (found.shared[each["$ref"].removeprefix(PLACE)] for each in found.each)
    assert "total" not in read["properties"]
    assert "total" in written["properties"]


def test_words_of_schemas_may_be_names_of_fields() -> None:
    words = TypedDict("words", {"prefixItems": int, "$ref": str, "default": int, "discriminator": int})
    assert set(schemas_of([Declared(words)]).shared["words"]["properties"]) == {
        "prefixItems",
        "$ref",
        "default",
        "discriminator",
    }


def test_none() -> None:
    assert schemas_of([]) == Schemas([], {})
