"""Documents of OpenRPC as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from jsonrpc_amqp.cli.description import lines_of
from jsonrpc_amqp.jsonrpc.openrpc import document
from jsonrpc_amqp.jsonrpc.service_info import Info


@dataclass
class Part:
    size: int | None


@dataclass
class Item:
    """
    A thing.

    It is kept.
    """

    sku: str
    kind: Literal["a", "b"] = "a"
    parts: list[Part] | None = None


def text(described: Any) -> str:
    return "\n".join(lines_of(described))


def method(**members: Any) -> str:
    """Return the lines of one method."""
    shown = text({"methods": [{"name": "f", "params": [], **members}]})
    return shown.removeprefix("(without a title)\n\n")


def test_a_document_in_full() -> None:
    def store(item: Item, pair: tuple[int, str], *more: float) -> dict[str, Item]:
        """
        Store an item somewhere, in a place that is found by looking for one that is free.

        For example:

            store({"sku": "a"})

        - once,
        - or twice.

        Args:
            item: Which.
        """
        return {}

    def ping() -> None: ...

    found = document(Info("Stock", "2", "What\nthere is."), [("item.store", store), ("ping", ping)])
    assert text(found) == (
        """\
Stock 2
What there is.

item.store(item, pair, more...)
  Store an item somewhere, in a place that is found by looking for one that is
  free.

  For example:

      store({"sku": "a"})

  - once,
  - or twice.

  Params, by position:
    item  Item
          Which.
    pair  [integer, string]
    more  number, any number of them

  Result: object of Item

ping()

  Result: null

Types:

  Item  object
    A thing.

    It is kept.

    sku    string
    kind   "a" | "b", default "a"
    parts  array of Part | null, default null

  Part  object
    size  integer | null"""
    )


def test_what_documents_of_other_programs_have() -> None:
    described = {
        "info": {"title": "Other", "version": "1"},
        "methods": [
            {"$ref": "#/components/methods/x"},
            {"name": "f", "params": [{"$ref": "#/components/contentDescriptors/A"}]},
        ],
        "components": {
            "contentDescriptors": {"A": {"name": "a", "schema": {"type": ["string", "null"], "format": "date"}}}
        },
    }
    assert "f([a])\n\n  Params, by position or by name:\n    a  string (date) | null (date), optional" in text(
        described
    )
    assert method(deprecated=True) == "f()  DEPRECATED"
    assert method(errors=[{"code": -1, "message": "no"}]) == "f()\n\n  Errors:\n    -1  no"
    assert "by name:" in method(paramStructure="by-name", params=[{"name": "a", "required": True}])
    assert "1 | null" in method(params=[{"name": "a", "schema": {"oneOf": [{"const": 1}, {"type": "null"}]}}])


ESCAPES = "\x1b[2J\x9b31m\u202e\u2066\u2028\x85\r\n\x00\ud800\tx"


def spoilt(value: Any) -> list[Any]:
    """Return a document with each of its values replaced by others, one at a time."""
    found: list[Any] = [None, 5, "x", [], [5], {}, {"$ref": 5}, {"$ref": "#"}, ESCAPES, {"type": {}}, [[[]]]]
    if isinstance(value, dict):
        found += [{**value, name: each} for name, inner in value.items() for each in spoilt(inner)]
    if isinstance(value, list) and value:
        found += [[each, *value[1:]] for each in spoilt(value[0])]
    return found


def test_nothing_in_a_document_can_raise_or_control_a_terminal() -> None:
    def f(a: Item, b: int = 1) -> list[Part]:
        """
        Do it.

        Raises:
            KeyError: No.
        """
        return []

    described: Any = document(Info("S", description="x"), [("f", f)])
    described["methods"][0] |= {"description": "x", "errors": [{"code": 1, "message": "x"}], "deprecated": True}
    documents = [each for each in spoilt(described) if isinstance(each, dict)]
    assert len(documents) > 300
    for each in documents:
        for line in lines_of(each):
            line.encode()
            assert line.isprintable()


def test_names_of_fields_and_values_are_escaped() -> None:
    schema = {"type": ESCAPES, "default": ESCAPES, "enum": [ESCAPES], "format": ESCAPES}
    described = {
        "methods": [{"name": ESCAPES, "params": [{"name": ESCAPES, "schema": {"$ref": f"#/{ESCAPES}"}}]}],
        "components": {"schemas": {ESCAPES: {"properties": {ESCAPES: schema}}}},
    }
    assert all(line.isprintable() for line in lines_of(described))


def test_types_that_refer_to_each_other_are_shown_once() -> None:
    def to(name: str) -> Any:
        return {"type": "object", "properties": {"x": {"$ref": f"#/components/schemas/{name}"}}}

    described = {
        "methods": [{"name": "f", "params": [{"name": "a", "schema": {"$ref": "#/components/schemas/A"}}]}],
        "components": {"schemas": {"A": to("B"), "B": to("A"), "C": to("C")}},
    }
    assert re.findall(r"(?m)^  (\w)  object$", text(described)) == ["A", "B"]


@pytest.mark.parametrize("word", ["x" * 100_000, "x " * 100_000, "-" * 100_000, "\x00" * 100_000])
def test_long_texts_are_cut(word: str) -> None:
    assert len(method(summary=word, description=word)) < 200_000
    assert len(method(params=[{"name": "a", "schema": {"default": word}}])) < 2000
