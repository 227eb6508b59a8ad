"""The fuzz target of conversion: values of JSON for methods and results with type hints."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic

from jsonrpc_amqp.jsonrpc.conversion import Converter, DoesNotFit, converter
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.text import dumps, loads

from .reader import Reader

logging.getLogger("jsonrpc_amqp.dispatch").addHandler(logging.NullHandler())


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)
    prices: dict[str, Decimal] | None = None


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("odd")


class Struct(msgspec.Struct):
    a: int
    b: float | None = None


class Options(TypedDict, total=False):
    a: int
    b: list[Color]


class Pair(NamedTuple):
    a: str
    b: Level


class Model(pydantic.BaseModel):
    a: Annotated[int, pydantic.Field(gt=3)] = 4
    b: list[Model] = []
    c: datetime | None = None


HINTS: tuple[Any, ...] = (
    *(int, float, str, bool, None, bytes, datetime, date, time, timedelta, UUID, Decimal, Color, Level),
    *(Tree, Even, Struct, Options, Pair, Model, Tree | Even | None, list[Model], int | str | None),
    *(list[int], tuple[int, str], set[float], dict[int, Even], dict[str, object], Literal["a", 1]),
    Annotated[str, msgspec.Meta(pattern="^a", max_length=5)],
)
CONVERTERS: list[Converter] = [each for each in map(converter, HINTS) if each is not None]


def _typed(tree: Tree, model: Model, /, pair: Pair, *rest: Decimal, color: Color = Color.RED, **more: Even) -> Any:
    return [tree, model, pair, rest, color, more]


def _named(a: int, b: Tree | None = None, *, c: set[int] | None = None) -> Any:
    return [a, b, c]


_dispatcher = Dispatcher({"typed": _typed, "named": _named})


def conversion(data: bytes) -> None:
    """A value is converted, to what can be sent again, or it does not fit, and it is said where."""
    try:
        value = loads(data)
    except ValueError:
        value = _value(Reader(data), 4)
    for each in CONVERTERS:
        try:
            dumps(each(value))
            continue
        except DoesNotFit as exc:
            told = exc.as_data()
        json.dumps(told)
        assert 1 <= len(told) <= 100
        assert all(len(text) < 300 for misfit in told for text in misfit.values())
    if isinstance(value, (list, dict)):
        for method in ("typed", "named"):
            reply = _dispatcher(dumps({"jsonrpc": "2.0", "method": method, "params": value, "id": 1}))
            response = json.loads(reply or b"")
            assert "result" in response or response["error"]["code"] == -32602, response


def _value(read: Reader, depth: int) -> Any:
    """Return a value of JSON; it has names and texts that some hints know."""
    kind = read.number(9 if depth else 6)
    if kind < 2:
        return read.choice(0, 1, 4, -1, 2**63, 2**64, 10**30, 1.5, 1e300, -0.0)
    if kind < 4:
        return read.choice("", "a", "red", "1", "1.5", "2026-11-29", "2026-11-29T06:40:00Z", "PT1S", "aGk=", "P-1D")
    if kind < 7:
        return read.choice(None, True, False, "x" * read.number(300), read.text().encode("utf-8", "replace").decode())
    if kind < 9:
        return [_value(read, depth - 1) for _ in range(read.number(4))]
    names = ("a", "b", "c", "name", "children", "prices", "number", "tree", "pair", "color", "x", "self", "")
    return {read.choice(*names): _value(read, depth - 1) for _ in range(read.number(4))}
