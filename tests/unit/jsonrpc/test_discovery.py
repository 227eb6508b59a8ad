"""The method ``rpc.discover`` of a dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.openrpc import document
from jsonrpc_amqp.jsonrpc.service_info import Info

from ... import openrpc
from .tools import ask, check_error, request

DISCOVER = request("rpc.discover")


def names(dispatcher: Dispatcher) -> list[str]:
    found = ask(dispatcher, DISCOVER)["result"]
    openrpc.check(found)
    return [each["name"] for each in found["methods"]]


def test_without_it() -> None:
    check_error(ask(Dispatcher(), DISCOVER), -32601, data="rpc.discover")


def test_it_is_made_once_until_there_are_other_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(*args: Any) -> dict[str, Any]:
        made.append(args)
        return document(*args)

    monkeypatch.setattr("jsonrpc_amqp.jsonrpc.openrpc.document", counted)
    given: dict[str, Callable[..., Any]] = {"b": lambda: 1}
    dispatcher = Dispatcher(given, info=Info("S"))
    assert not made
    assert [names(dispatcher) for _again in range(3)] == [["b"]] * 3
    assert len(made) == 1
    dispatcher.register(lambda: 2, "a")
    assert names(dispatcher) == ["a", "b"]
    given["c"] = lambda: 3
    assert [names(dispatcher) for _again in range(3)] == [["a", "b", "c"]] * 3
    assert len(made) == 3
    given["c"] = lambda x: 3
    assert ask(dispatcher, DISCOVER)["result"]["methods"][2]["params"][0]["name"] == "x"


def test_what_cannot_be_called_is_not_listed() -> None:
    given: dict[str, Any] = {"a": lambda: 1}
    dispatcher = Dispatcher(given, info=Info("S"))
    given |= {"b": 5, "rpc.mine": lambda: 1}
    assert names(dispatcher) == ["a"]


def test_it_has_no_params() -> None:
    dispatcher = Dispatcher(info=Info("S"))
    assert ask(dispatcher, request("rpc.discover", []))["result"]["methods"] == []
    assert ask(dispatcher, request("rpc.discover", {}))["result"]["methods"] == []
    assert ask(dispatcher, request("rpc.discover", [1]))["error"]["code"] == -32602


def test_who_may_ask_is_for_authorize_to_say() -> None:
    dispatcher = Dispatcher({"a": lambda: 1}, info=Info("S"), authorize=lambda each: each.method == "a")
    assert ask(dispatcher, DISCOVER)["error"]["code"] == -32003
    dispatcher = Dispatcher({"a": lambda: 1}, info=Info("S"), authorize=lambda each: each.method != "a")
    assert names(dispatcher) == ["a"]


def test_a_document_that_is_too_large_is_an_error() -> None:
    dispatcher = Dispatcher({f"method{number}": print for number in range(20)}, info=Info("S"), max_size=1024)
    assert ask(dispatcher, DISCOVER)["error"]["code"] == -32603


def test_functions_that_are_equal_to_all() -> None:
    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        def __call__(self) -> int:
            return 1

    dispatcher = Dispatcher({"a": Odd()}, info=Info("S"))
    assert [names(dispatcher), names(dispatcher)] == [["a"], ["a"]]
