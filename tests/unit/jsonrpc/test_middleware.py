"""Middleware runs around the methods of a dispatcher."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from jsonrpcserver import Error, JsonRpcError, Success

from jsonrpc_amqp import InvalidParams, RemoteError
from jsonrpc_amqp.context import Request
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher
from jsonrpc_amqp.jsonrpc.invocation import PreparedMethod
from jsonrpc_amqp.jsonrpc.middleware import WrappedMethod

from .tools import ask, check_error, request

CallNext = Callable[[Request], Any]
Log = list[Any]


def add(a: int, b: int) -> int:
    return a + b


async def later(a: int) -> int:
    await asyncio.sleep(0)
    return a


def noting(log: Log, name: str) -> Callable[[Request, CallNext], Any]:
    def middleware(request: Request, call_next: CallNext) -> Any:
        log.append((name, request.method, request.params, request.arguments))
        try:
            result = call_next(request)
        except BaseException as exc:
            log.append((name, type(exc).__name__, request.arguments))
            raise
        log.append((name, result, request.arguments))
        return result

    return middleware


@dataclasses.dataclass
class Item:
    sku: str


class Both:
    """Middleware for methods of both kinds."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, request: Request, call_next: CallNext) -> Any:
        self.seen.append(f"def {request.method}")
        return call_next(request)

    async def asynchronous(self, request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        self.seen.append(f"async def {request.method}")
        return await call_next(request)


def run_async(begin: Callable[[Any], Any]) -> Any:
    return asyncio.run(begin(None))


def test_the_first_is_the_outermost_and_those_of_a_method_are_inside() -> None:
    log: Log = []
    dispatcher = Dispatcher(middleware=[noting(log, "1")])
    dispatcher.register(add, middleware=[noting(log, "3")])
    dispatcher.middleware(noting(log, "2"))
    assert ask(dispatcher, request("add", [1, 2]))["result"] == 3
    assert [each[0] for each in log] == ["1", "2", "3", "3", "2", "1"]
    assert log[2] == ("3", "add", [1, 2], None)
    assert log[3] == ("3", 3, [1, 2])


def test_params_before_and_after_conversion() -> None:
    def order(item: Item) -> str:
        return item.sku

    log: Log = []
    dispatcher = Dispatcher({"order": order}, middleware=[noting(log, "m")])
    assert ask(dispatcher, request("order", {"item": {"sku": "a"}}))["result"] == "a"
    assert log == [("m", "order", {"item": {"sku": "a"}}, None), ("m", "a", {"item": Item("a")})]


def test_it_may_change_params_and_results_and_do_without_the_method() -> None:
    def change(request: Request, call_next: CallNext) -> Any:
        if request.params == [0, 0]:
            return "cached"
        request.params = [10, 20]
        return call_next(request) + call_next(dataclasses.replace(request, params={"a": 1, "b": 1}))

    dispatcher = Dispatcher({"add": add}, middleware=[change])
    assert ask(dispatcher, request("add", [1, 2]))["result"] == 32
    assert ask(dispatcher, request("add", [0, 0]))["result"] == "cached"


def test_what_it_sees_of_errors() -> None:
    def fails() -> None:
        raise KeyError("a")

    def returns_error() -> Any:
        return Error(7, "seven", [1])

    def returns_success() -> Any:
        return Success(5)

    def answers() -> None:
        raise RemoteError(8, "eight")

    log: Log = []
    methods: dict[str, Any] = {each.__name__: each for each in (fails, returns_error, returns_success, answers)}
    dispatcher = Dispatcher(methods | {"add": add, "abs": abs}, middleware=[noting(log, "m")])
    for name, params, code, seen in (
        ("fails", [], -32603, "KeyError"),
        ("returns_error", [], 7, "JsonRpcError"),
        ("answers", [], 8, "RemoteError"),
        ("add", ["1", 2], -32602, "InvalidParams"),
        ("add", [1], -32602, "InvalidParams"),
        ("abs", ["x"], -32602, "InvalidParams"),
    ):
        log.clear()
        assert ask(dispatcher, request(name, params))["error"]["code"] == code
        assert log[-1][1] == seen
    plain = Dispatcher(methods | {"add": add})
    for name, params in (("returns_error", []), ("answers", []), ("add", ["1"]), ("add", [1]), ("fails", [])):
        assert ask(dispatcher, request(name, params)) == ask(plain, request(name, params))
    log.clear()
    assert ask(dispatcher, request("returns_success"))["result"] == 5
    assert log[-1][1] == 5


def test_what_it_raises_is_answered_as_if_the_method_had() -> None:
    errors: list[BaseException] = []

    def raising(_request: Request, _call_next: CallNext) -> Any:
        raise errors.pop()

    def handled(exc: KeyError) -> Exception:
        return RemoteError(9, "mapped")

    dispatcher = Dispatcher({"add": add}, middleware=[raising])
    dispatcher.error_handler(KeyError)(handled)
    for error, code in (
        (InvalidParams("no"), -32602),
        (JsonRpcError(6, "six"), 6),
        (KeyError("a"), 9),
        (TypeError("mine"), -32603),
        (SystemExit(1), -32603),
    ):
        errors.append(error)
        assert ask(dispatcher, request("add", [1, 2]))["error"]["code"] == code


def test_a_type_error_of_the_method_keeps_its_cause() -> None:
    seen: list[BaseException] = []

    def fails(a: int) -> None:
        try:
            raise KeyError(a)
        except KeyError as exc:
            raise TypeError("outer") from exc

    def look(request: Request, call_next: CallNext) -> Any:
        try:
            return call_next(request)
        except Exception as exc:
            seen.append(exc)
            raise

    check_error(ask(Dispatcher({"m": fails}, middleware=[look]), request("m", [1])), -32603)
    assert isinstance(seen[0].__cause__, KeyError)


def test_it_runs_for_each_member_of_a_batch_and_for_notifications() -> None:
    log: Log = []
    dispatcher = Dispatcher({"add": add}, middleware=[noting(log, "m")])
    body = json.dumps(
        [
            {"jsonrpc": "2.0", "method": "add", "params": [1, 2], "id": 1},
            {"jsonrpc": "2.0", "method": "add", "params": [3, 4]},
            {"jsonrpc": "2.0", "method": "absent", "id": 2},
        ]
    )
    assert len(json.loads(dispatcher(body.encode()) or b"")) == 2
    assert [each[1] for each in log] == ["add", 3, "add", 7, "absent", "MethodNotFound"]


def test_methods_of_both_kinds() -> None:
    both, log = Both(), []

    async def coroutine(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        log.append(request.method)
        return await call_next(request)

    dispatcher = Dispatcher({"add": add, "later": later}, middleware=[both], run_async=run_async)
    assert ask(dispatcher, request("add", [1, 2]))["result"] == 3
    assert ask(dispatcher, request("later", [5]))["result"] == 5
    check_error(
        ask(dispatcher, request("later", ["5"])), -32602, data=[{"path": "a", "message": "Expected `int`, got `str`"}]
    )
    assert both.seen == ["def add", "async def later", "async def later"]
    only = Dispatcher({"later": later}, middleware=[coroutine], run_async=run_async)
    assert ask(only, request("later", [5]))["result"] == 5
    assert log == ["later"]


def test_the_wrong_kind_is_refused_where_it_is_registered() -> None:
    async def coroutine(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        return await call_next(request)

    plain = noting([], "m")
    for middleware, function in ((plain, later), (coroutine, add)):
        with pytest.raises(TypeError, match=r"method '(later|add)' is .*def, and middleware .* is .*def: write one"):
            Dispatcher({function.__name__: function}, middleware=[middleware])
        with pytest.raises(TypeError, match="write one for each kind"):
            Dispatcher().register(function, middleware=[middleware])
        dispatcher = Dispatcher({function.__name__: function}, run_async=run_async)
        with pytest.raises(TypeError, match="write one for each kind"):
            dispatcher.middleware(middleware)
        # It is as it was before.
        assert "result" in ask(dispatcher, request(function.__name__, [1, 2] if function is add else [1]))
        Dispatcher(middleware=[middleware]).register(function, bypass_middleware=True)
    with pytest.raises(TypeError, match="5 cannot be called"):
        Dispatcher(middleware=[5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="middleware is a list of functions"):
        Dispatcher(middleware=plain)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Both is a class: give an object of it"):
        Dispatcher(middleware=[Both])  # type: ignore[list-item]

    def generator(request: Request, call_next: CallNext) -> Any:
        yield call_next(request)

    with pytest.raises(TypeError, match="has a yield"):
        Dispatcher(middleware=[generator])
    with pytest.raises(TypeError, match="5 cannot be called"):
        Dispatcher().register(add, middleware=[5])  # type: ignore[list-item]


def test_a_method_that_bypasses_it() -> None:
    log: Log = []
    dispatcher = Dispatcher(middleware=[noting(log, "m")])
    dispatcher.register(add, bypass_middleware=True)
    assert ask(dispatcher, request("add", [1, 2]))["result"] == 3
    assert log == []


def test_methods_without_any_are_as_they_were() -> None:
    dispatcher = Dispatcher({"add": add})
    assert type(dispatcher._methods.find("add")) is PreparedMethod
    dispatcher.middleware(noting([], "m"))
    assert type(dispatcher._methods.find("add")) is WrappedMethod


def test_entries_that_are_added_to_a_mapping_later() -> None:
    given: dict[str, Any] = {}
    log: Log = []
    dispatcher = Dispatcher(given, middleware=[noting(log, "m")])
    given["add"] = add
    assert ask(dispatcher, request("add", [1, 2]))["result"] == 3
    assert len(log) == 2
