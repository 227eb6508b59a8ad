"""Error responses that become the exceptions of a program's own classes."""

from __future__ import annotations

import datetime as dt
import enum
import logging
import types
import uuid
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from typing import Annotated, Any

import pytest

from jsonrpc_amqp.application_errors import ApplicationError
from jsonrpc_amqp.errors import InvalidParams, RemoteError, ServerError
from jsonrpc_amqp.jsonrpc.error_classes import exceptions_of
from jsonrpc_amqp.jsonrpc.messages import Error, result_of, to_exception

from ...exceptions import OutOfStock


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Place:
    shelf: int
    names: tuple[str, ...] = ()


class StockError(ApplicationError):
    sku: str


class Misplaced(StockError, code=2001):
    when: dt.datetime
    place: Place | None = None
    colours: frozenset[Colour] = frozenset()
    prices: dict[int, Decimal] = field(default_factory=dict)
    token: uuid.UUID | None = None
    note: Annotated[str, "free text"] = field(default="", kw_only=True)


class Checked(ApplicationError, code=2002):
    left: int
    twice: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.left < 0:
            raise LookupError("negative")
        self.twice = 2 * self.left


class Empty(ApplicationError, code=2003):
    pass


class OtherCode(ApplicationError, code=2003):
    pass


class WithInitVar(ApplicationError, code=2004):
    a: int
    b: InitVar[int]


class WithConstructor(ApplicationError, code=2007):
    a: int

    def __init__(self, other: str) -> None:
        self.a = len(other)


class NotReadable(ApplicationError, code=2005):
    a: NoSuchName  # type: ignore[name-defined]  # noqa: F821


class NotConvertible(ApplicationError, code=2006):
    a: Callable[[], int]


KNOWN = exceptions_of([OutOfStock, Misplaced, Checked, Empty])


@pytest.mark.parametrize(
    ("code", "data", "kind", "fields"),
    [
        (1001, {"sku": "a7", "left": 3}, OutOfStock, {"sku": "a7", "left": 3}),
        (1001, {"sku": "a7"}, OutOfStock, {"sku": "a7", "left": 0}),
        (1001, {"sku": "a7", "since": "a newer server sends more"}, OutOfStock, {"sku": "a7", "left": 0}),
        (
            2001,
            {
                "sku": "a7",
                "when": "2020-01-02T03:04:05Z",
                "place": {"shelf": 7, "names": ["x"]},
                "colours": ["red"],
                "prices": {"1": "2.50"},
                "token": "00000000-0000-0000-0000-000000000007",
                "note": "n",
            },
            Misplaced,
            {
                "sku": "a7",
                "when": dt.datetime(2020, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
                "place": Place(7, ("x",)),
                "colours": frozenset([Colour.RED]),
                "prices": {1: Decimal("2.50")},
                "token": uuid.UUID(int=7),
                "note": "n",
            },
        ),
        (2002, {"left": 3}, Checked, {"left": 3, "twice": 6}),
        (2002, {"left": 3, "twice": 5}, Checked, {"left": 3, "twice": 6}),
        (2003, None, Empty, {}),
        (2003, {}, Empty, {}),
        (2003, {"x": 1}, Empty, {}),
    ],
)
def test_data_become_fields(code: int, data: Any, kind: type[ApplicationError], fields: dict[str, Any]) -> None:
    error = KNOWN(Error(code, "as it came", data, 1))
    assert type(error) is kind
    assert {name: getattr(error, name) for name in fields} == fields
    assert (error.code, error.message, error.data, error.is_reply) == (code, "as it came", data, True)


@pytest.mark.parametrize(
    ("code", "data", "why"),
    [
        (1001, None, "missing required field `sku`"),
        (1001, {}, "missing required field `sku`"),
        (1001, {"sku": 7}, "at `$.sku`"),
        (1001, {"sku": "a7", "left": "3"}, "at `$.left`"),
        (1001, {"sku": "a7", "left": None}, "at `$.left`"),
        (1001, {"sku": "a7", "left": 1.5}, "at `$.left`"),
        (1001, ["a7", 3], "Expected `object`, got `array`"),
        (1001, "a7", "Expected `object`, got `str`"),
        (2001, {"sku": "a7", "when": "yesterday"}, "Invalid RFC3339 encoded datetime"),
        (2001, {"sku": "a7", "when": "2020-01-02T03:04:05Z", "place": {"shelf": "x"}}, "at `$.place.shelf`"),
        (2002, {"left": -1}, "negative"),
        (2003, [], "Expected `object`, got `array`"),
        (4711, {"sku": "a7"}, "no class of an application error has the code 4711"),
    ],
)
def test_what_does_not_fit_is_a_remote_error(code: int, data: Any, why: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error = KNOWN(Error(code, "message", data, 1))
    assert type(error) is RemoteError
    assert (error.code, error.message, error.data, error.is_reply) == (code, "message", data, True)
    assert why in caplog.text
    assert [(record.name, record.levelname) for record in caplog.records] == [("jsonrpc_amqp.client", "DEBUG")]


def test_codes_of_the_specification_have_their_classes() -> None:
    assert type(KNOWN(Error(-32602, "no", None, 1))) is InvalidParams
    assert type(KNOWN(Error(-32050, "no", None, 1))) is ServerError


# -- which classes ------------------------------------------------------------------------------------------------


def module(**members: Any) -> types.ModuleType:
    made = types.ModuleType("shop_errors")
    vars(made).update(members)
    return made


@pytest.mark.parametrize(
    "given",
    [
        OutOfStock,
        [OutOfStock],
        (OutOfStock, OutOfStock),
        {OutOfStock, Empty},
        iter([OutOfStock]),
        module(
            OutOfStock=OutOfStock, Again=OutOfStock, Base=ApplicationError, StockError=StockError, other=5, os=types
        ),
    ],
)
def test_ways_to_give_classes(given: Any) -> None:
    body = b'{"jsonrpc": "2.0", "error": {"code": 1001, "message": "no", "data": {"sku": "a7"}}, "id": 1}'
    with pytest.raises(OutOfStock):
        result_of(body, 1, exceptions_of(given))


@pytest.mark.parametrize("given", [(), [], {}])
def test_no_classes_cost_nothing(given: Any) -> None:
    assert exceptions_of(given) is to_exception


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ([Empty, OtherCode], ValueError, "Empty and OtherCode have the same code, 2003"),
        (module(a=Empty, b=OtherCode), ValueError, "Empty and OtherCode have the same code, 2003"),
        (module(a=StockError, b=RemoteError), ValueError, "the module shop_errors has no subclass of ApplicationError"),
        (StockError, TypeError, "StockError has no code"),
        ([ApplicationError], TypeError, "ApplicationError has no code"),
        (RemoteError, TypeError, "errors are subclasses of ApplicationError"),
        ("OutOfStock", TypeError, "errors are subclasses of ApplicationError"),
        ([OutOfStock("a7")], TypeError, "errors are subclasses of ApplicationError"),
        (5, TypeError, "not iterable"),
        (NotReadable, TypeError, "the type hints of NotReadable cannot be read: name 'NoSuchName' is not defined"),
        (WithInitVar, TypeError, "the constructor of WithInitVar does not take its fields alone: missing .* 'b'"),
        (WithConstructor, TypeError, "the constructor of WithConstructor does not take its fields alone: .* 'other'"),
        (NotConvertible, TypeError, "the type hints of NotConvertible cannot be read"),
    ],
)
def test_what_cannot_be_given(given: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        exceptions_of(given)
