"""The exceptions: which class stands for which code, and that they survive being copied, pickled and worded anew."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from jsonrpc_amqp import (
    CallTimeout,
    MissingExtra,
    NotConnected,
    RemoteError,
    ServerError,
    TransportError,
)
from jsonrpc_amqp.errors import JsonRpcAmqpError, remote_error
from jsonrpc_amqp.jsonrpc.error_classes import exceptions_of
from jsonrpc_amqp.jsonrpc.messages import Error, to_exception

from ..error_codes import CLASSES_BY_CODE
from ..exceptions import EXCEPTIONS, OutOfStock, example, state_of
from .test_application_errors import Lost


@pytest.mark.parametrize(("code", "kind"), CLASSES_BY_CODE)
def test_codes_have_classes(code: int, kind: type[RemoteError]) -> None:
    error = remote_error(code, "why", [1])
    assert type(error) is kind
    assert (error.code, error.message, error.data) == (code, "why", [1])
    assert str(error) == f"why ({code}): [1]"
    assert str(remote_error(code, "why")) == f"why ({code})"


@pytest.mark.parametrize("error", [NotConnected("gone"), CallTimeout("late"), CallTimeout("late", may_have_run=False)])
def test_a_copy_is_another_error_that_says_the_same(error: TransportError) -> None:
    error.__cause__ = OSError("refused")
    other = error.again()
    assert other is not error
    assert type(other) is type(error)
    assert (str(other), other.may_have_run, other.__cause__) == (str(error), error.may_have_run, error.__cause__)
    assert other.__traceback__ is None


def test_an_error_is_worded_anew() -> None:
    error = CallTimeout("late", may_have_run=False)
    error.__cause__ = OSError("refused")
    other = error.reworded("later", may_have_run=True)
    assert (type(other), str(other), other.may_have_run, other.__cause__) == (
        CallTimeout,
        "later",
        True,
        error.__cause__,
    )
    assert (str(error), error.may_have_run) == ("late", False)


# -- copies and pickles ---------------------------------------------------------------------------------------------


def _pickled(protocol: int) -> Callable[[Any], Any]:
    return lambda error: pickle.loads(pickle.dumps(error, protocol))


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {protocol}": _pickled(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
}


class AccountClosed(RemoteError):
    """As users write them: with arguments of its own."""

    def __init__(self, account: str, *, since: int) -> None:
        super().__init__(4711, f"account {account} is closed", {"since": since})
        self.account = account


class Retired(ServerError, KeyError):
    """With a second base."""

    def __init__(self, name: str) -> None:
        super().__init__(-32050, f"{name} is retired")


class Worded(TransportError):
    """A transport error with a message of its own."""

    may_have_run = True

    def __init__(self, attempts: int, /) -> None:
        super().__init__(f"{attempts} attempts", may_have_run=False)
        self.attempts = attempts


class Plain(JsonRpcAmqpError, OSError):
    """With a number and a text, as the system's errors have."""


MAKERS: dict[str, Callable[[], BaseException]] = {
    **{f"{kind.__module__}.{kind.__name__}": partial(example, kind) for kind in EXCEPTIONS},
    "extra arguments": lambda: AccountClosed("a7", since=1999),
    "second base": lambda: Retired("old"),
    "message of its own": lambda: Worded(3),
    "number and text": lambda: Plain(2, "no such file"),
    "no data": lambda: RemoteError(-1, "why"),
    "reply": lambda: to_exception(Error(-32601, "Method not found", "absent", 1)),
    "reply of a class": lambda: exceptions_of(OutOfStock)(Error(1001, "none left", {"sku": "a7", "more": [1]}, 1)),
    "fields by name": lambda: OutOfStock(left=3, sku="a7"),
    "fields of two classes": lambda: Lost("a7", [], since="now"),
}


@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_exceptions_survive_copies(make: Callable[[], BaseException], how: Callable[[Any], Any]) -> None:
    error = make()
    error.extra = ["more"]  # type: ignore[attr-defined]
    error.add_note("a note")
    other = how(error)
    assert other is not error
    assert state_of(other) == state_of(error)
    assert other.__traceback__ is None


@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES)
def test_copies_of_replies_are_replies(how: Callable[[Any], Any]) -> None:
    made = how(to_exception(Error(1001, "no", None, 1)))
    assert made.is_reply
    assert not how(OutOfStock("a7")).is_reply


@pytest.mark.parametrize("how", COPIES.values(), ids=COPIES)
def test_copies_of_application_errors_have_their_fields(how: Callable[[Any], Any]) -> None:
    error = how(Lost("a7", ["b"], "here", since="now"))
    assert (error.sku, error.parts, error.where, error.since, error.code) == ("a7", ["b"], "here", "now", 2002)
    error.where = "there"
    assert error.data == {"sku": "a7", "parts": ["b"], "since": "now", "where": "there"}


STANDARD = [(kind, code) for code, kind in CLASSES_BY_CODE if code in range(-32700, -32599)]


@pytest.mark.parametrize(("kind", "code"), STANDARD)
def test_standard_errors_have_their_own_codes(kind: Any, code: int) -> None:
    error = kind("why")
    assert (kind.code, error.code, error.message, error.data, str(error)) == (code, code, "why", None, f"why ({code})")
    assert kind("why", data=[1]).data == [1]
    with pytest.raises(TypeError, match=f"takes a message, and data; not {code}: it has its own code"):
        kind(code, "why")


def test_all_exceptions_of_the_package_are_looked_at() -> None:
    names = {kind.__name__ for kind in EXCEPTIONS}
    assert names >= {"JsonRpcAmqpError", "MissingExtra", "CallTimeout", "InvalidParams", "WrongUsage"}
    assert set(JsonRpcAmqpError.__subclasses__()) - {Plain} <= set(EXCEPTIONS)


def test_missing_extra_keeps_what_an_import_error_has() -> None:
    error = copy.copy(MissingExtra("the gateway", "starlette", "http"))
    assert (error.name, error.msg) == ("starlette", str(error))
    assert "jsonrpc-amqp[http]" in str(error)
