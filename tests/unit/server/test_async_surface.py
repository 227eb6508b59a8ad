"""``AsyncServer`` has the surface of ``Server``: the same names and parameters, and what waits is awaited."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp import AsyncServer, Server

AWAITED = {"serve_forever", "start", "stop"}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def parameters(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    return {each.name: (each.default, each.annotation) for each in inspect.signature(function).parameters.values()}


def test_the_names_and_the_constructor_are_the_same() -> None:
    assert public(AsyncServer) == public(Server)
    assert AsyncServer.__init__ is Server.__init__


@pytest.mark.parametrize("name", sorted(AWAITED))
def test_the_parameters_and_results_of_what_is_awaited_are_the_same(name: str) -> None:
    theirs, ours = getattr(Server, name), getattr(AsyncServer, name)
    # ``Server`` always handles signals where it can: it has the process to itself.
    assert {**parameters(theirs), "handle_signals": (False, "bool")} == {
        **parameters(ours),
        "handle_signals": (False, "bool"),
    }
    results = [
        str(inspect.signature(each).return_annotation).replace("AsyncServer", "Server") for each in (theirs, ours)
    ]
    assert results[0] == results[1]


def test_only_what_waits_is_awaited() -> None:
    assert {name for name in public(AsyncServer) if inspect.iscoroutinefunction(getattr(AsyncServer, name))} == AWAITED
