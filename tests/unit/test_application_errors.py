"""Errors that a program defines: what a class can be, and what its instances say."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, ClassVar

import pytest

from jsonrpc_amqp import ApplicationError, JsonRpcAmqpError, RemoteError

from ..exceptions import OutOfStock


class StockError(ApplicationError):
    """A base to catch, with a field that all have."""

    sku: str


class Damaged(StockError, code=2001, message="It is damaged"):
    parts: list[str] = dataclasses.field(default_factory=list)
    since: str | None = dataclasses.field(default=None, kw_only=True)
    limit: ClassVar[int] = 3


class Lost(Damaged, code=2002):
    where: str = ""


class Worse(Damaged):
    """Of a class with a code, but without one of its own."""


@pytest.mark.parametrize(
    ("error", "fields", "data"),
    [
        (OutOfStock("a7"), ["a7", 0], {"sku": "a7", "left": 0}),
        (OutOfStock("a7", 3), ["a7", 3], {"sku": "a7", "left": 3}),
        (OutOfStock(left=3, sku="a7"), ["a7", 3], {"sku": "a7", "left": 3}),
        (Damaged("a7", ["b"], since="now"), ["a7", ["b"], "now"], {"sku": "a7", "parts": ["b"], "since": "now"}),
        (Lost("a7", [], "here"), ["a7", [], None, "here"], {"sku": "a7", "parts": [], "since": None, "where": "here"}),
    ],
)
def test_fields_are_arguments_attributes_and_data(
    error: ApplicationError, fields: list[Any], data: dict[str, Any]
) -> None:
    assert [getattr(error, name) for name in data] == fields
    assert error.data == data
    assert not error.is_reply
    assert isinstance(error, RemoteError)
    assert isinstance(error, JsonRpcAmqpError)


def test_data_are_the_fields_as_they_are_now() -> None:
    error = OutOfStock("a7")
    error.left = 5
    assert error.data == {"sku": "a7", "left": 5}


def test_defaults_are_not_shared() -> None:
    Damaged("a7").parts.append("b")
    assert Damaged("a7").parts == []


def test_text() -> None:
    error = OutOfStock("a7", left=3)
    assert str(error) == "As users define them (1001): {'sku': 'a7', 'left': 3}"
    assert repr(error) == "OutOfStock(sku='a7', left=3)"
    assert (OutOfStock.code, OutOfStock.message) == (1001, "As users define them")
    assert {each.name: each.default for each in inspect.signature(OutOfStock).parameters.values()} == {
        "sku": inspect.Parameter.empty,
        "left": 0,
    }


@pytest.mark.parametrize("args", [(), ("a7", 1, 2)])
def test_arguments_that_do_not_fit(args: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"OutOfStock\.__init__\(\)"):
        OutOfStock(*args)


def test_instances_are_hashed_and_compared_as_other_exceptions_are() -> None:
    one, other = OutOfStock("a7"), OutOfStock("a7")
    assert len({one, other}) == 2
    assert one != other


def test_a_pattern_takes_the_fields_apart() -> None:
    match OutOfStock("a7", 3):
        case OutOfStock(sku, left):
            assert (sku, left) == ("a7", 3)
        case _:
            raise AssertionError


# -- messages -------------------------------------------------------------------------------------------------------


def described(name: str, doc: str | None, **keywords: Any) -> str:
    kind: type[ApplicationError] = type(name, (ApplicationError,), {"__doc__": doc}, code=1, **keywords)
    return kind.message


@pytest.mark.parametrize(
    ("name", "doc", "message"),
    [
        ("OutOfStock", None, "Out of stock"),
        ("OutOfStock", "", "Out of stock"),
        ("OutOfStock", "There is not enough.", "There is not enough"),
        ("OutOfStock", "\n    There is not enough.\n\n    At all.\n    ", "There is not enough"),
        ("HTTPFailed", None, "HTTP failed"),
        ("SKU", None, "SKU"),
        ("closed", None, "Closed"),
        ("Not_there", None, "Not there"),
        ("Level2Error", None, "Level2 error"),
        ("_", None, "_"),
        ("\u00dcberlauf", None, "\u00dcberlauf"),
    ],
)
def test_messages(name: str, doc: str | None, message: str) -> None:
    assert described(name, doc) == message


def test_a_message_that_is_given_counts() -> None:
    assert described("OutOfStock", "There is not enough.", message="None left.") == "None left."
    assert Lost.message == "Lost"  # not that of its base


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [-32768, -32700, -32603, -32099, -32000])
def test_reserved_codes_are_refused(code: int) -> None:
    with pytest.raises(ValueError, match=f"the code of Bad is {code}: JSON-RPC reserves -32768 to -32000"):

        class Bad(ApplicationError, code=code):
            pass


@pytest.mark.parametrize("code", [-32769, -31999, -1, 0, 1, 10**20])
def test_codes_that_are_free(code: int) -> None:
    class Good(ApplicationError, code=code):
        pass

    assert Good().code == code


@pytest.mark.parametrize("code", ["1", 1.0, True, False, [1]])
def test_codes_that_are_no_integers_are_refused(code: Any) -> None:
    with pytest.raises(TypeError, match="the code of Bad must be an integer"):

        class Bad(ApplicationError, code=code):
            pass


def test_messages_that_are_no_strings_are_refused() -> None:
    with pytest.raises(TypeError, match="the message of Bad must be a string, not 5"):

        class Bad(ApplicationError, code=1, message=5):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("name", ["code", "message", "data", "args", "is_reply", "add_note", "with_traceback"])
def test_names_that_all_errors_have_are_no_fields(name: str) -> None:
    with pytest.raises(ValueError, match=f"a field of Bad cannot be called {name}"):
        type("Bad", (ApplicationError,), {"__annotations__": {name: str}}, code=1)


def test_fields_are_those_that_a_dataclass_can_have() -> None:
    with pytest.raises(TypeError, match="follows default argument"):

        class Bad(OutOfStock, code=1):
            since: str  # type: ignore[misc]

    with pytest.raises(ValueError, match="mutable default"):

        class Worst(ApplicationError, code=1):
            parts: list[str] = []  # noqa: RUF012


@pytest.mark.parametrize(("kind", "args"), [(ApplicationError, ()), (StockError, ("a7",)), (Worse, ("a7",))])
def test_a_class_without_a_code_cannot_be_raised(kind: type[ApplicationError], args: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} has no code, and so cannot be raised"):
        kind(*args)


def test_a_base_without_a_code_catches() -> None:
    with pytest.raises(StockError) as caught:
        raise Lost("a7")
    assert caught.value.sku == "a7"
