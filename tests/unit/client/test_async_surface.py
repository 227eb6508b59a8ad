"""``AsyncClient`` has the surface of ``Client``: the same names and signatures, with results that are awaited."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp import AsyncBatch, AsyncCalls, AsyncClient, Batch, Calls, Client

# Public names of one side only, and what they are for.
ONLY_SYNC = {(Client, "close"): "aclose"}
ONLY_ASYNC = {(AsyncClient, "aclose"): "close"}
PAIRS = {Client: AsyncClient, Calls: AsyncCalls, Batch: AsyncBatch}
# Of annotations.
RENAMED = {
    "Client": "AsyncClient",
    "Calls": "AsyncCalls",
    "Batch": "AsyncBatch",
    "Sequence[ClientMiddleware] | None": "Sequence[AsyncClientMiddleware] | None",
}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any, Any]]:
    signature = inspect.signature(function)
    return [
        (each.name, each.kind, each.default, RENAMED.get(each.annotation, each.annotation))
        for each in signature.parameters.values()
    ]


def forms() -> list[Any]:
    return [
        pytest.param(theirs, ours, name, id=f"{theirs.__name__}.{name}")
        for theirs, ours in PAIRS.items()
        for name in sorted(public(theirs))
        if (theirs, name) not in ONLY_SYNC and callable(getattr(theirs, name))
    ]


@pytest.mark.parametrize(("theirs", "ours"), PAIRS.items(), ids=lambda kind: kind.__name__)
def test_the_names_are_the_same(theirs: type, ours: type) -> None:
    only_theirs = {name for kind, name in ONLY_SYNC if kind is theirs}
    only_ours = {name for kind, name in ONLY_ASYNC if kind is ours}
    assert public(theirs) - only_theirs == public(ours) - only_ours


@pytest.mark.parametrize(("theirs", "ours", "name"), forms())
def test_the_parameters_are_the_same(theirs: type, ours: type, name: str) -> None:
    assert parameters(getattr(theirs, name)) == parameters(getattr(ours, name))


def test_the_constructor_is_the_same_one() -> None:
    assert Client.__init__ is AsyncClient.__init__
    assert parameters(Client.close) == parameters(AsyncClient.aclose)


@pytest.mark.parametrize(("theirs", "ours", "name"), forms())
def test_the_results_are_the_same(theirs: type, ours: type, name: str) -> None:
    def result(function: Callable[..., Any]) -> str:
        return str(inspect.signature(function).return_annotation)

    expected = result(getattr(theirs, name))
    assert result(getattr(ours, name)) == RENAMED.get(expected, expected)


def test_which_forms_are_awaited() -> None:
    awaited = {name for name in public(AsyncClient) if inspect.iscoroutinefunction(getattr(AsyncClient, name))}
    assert awaited == {"call", "notify", "send", "send_raw", "start", "aclose"}


@pytest.mark.parametrize("kind", [AsyncClient, AsyncCalls, AsyncBatch], ids=lambda kind: kind.__name__)
def test_everything_is_annotated(kind: type) -> None:
    for name in public(kind):
        value = getattr(kind, name)
        if callable(value):
            assert "return" in typing.get_type_hints(value), name
