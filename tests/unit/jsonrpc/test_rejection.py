"""Middleware runs around requests that are not run, too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jsonrpc_amqp import MethodNotFound, RemoteError
from jsonrpc_amqp.context import NoEnvelope, Request, enter, leave
from jsonrpc_amqp.jsonrpc.async_dispatch import Runner
from jsonrpc_amqp.jsonrpc.dispatcher import Dispatcher

from .tools import ask, check_error, request

CallNext = Callable[[Request], Any]


class Seen:
    """Middleware of both kinds, which notes the method and what it ended in."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, object]] = []

    def __call__(self, request: Request, call_next: CallNext) -> Any:
        try:
            return call_next(request)
        except RemoteError as exc:
            self.seen.append(("def", request.method, exc.code))
            raise

    async def asynchronous(self, request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        try:
            return await call_next(request)
        except RemoteError as exc:
            self.seen.append(("async def", request.method, exc.code))
            raise


async def only_async(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
    return await call_next(request)


def answers(request: Request, call_next: CallNext) -> Any:
    """Respond without the method, as a cache does."""
    return "cached"


def secret() -> str:
    return "secret"


async def later() -> str:
    await asyncio.sleep(0)
    return "later"


def run_async(begin: Callable[[Any], Any]) -> Any:
    return asyncio.run(begin(None))


def ask_again(dispatcher: Dispatcher, request: object) -> Any:
    """Return the response to a request that was delivered before."""
    token = enter(Request(None, None, False, NoEnvelope(redelivered=True)))
    try:
        return ask(dispatcher, request)
    finally:
        leave(token)


def code_of(response: Any) -> object:
    return response["error"]["code"]


def test_a_method_that_is_not_there() -> None:
    seen = Seen()
    dispatcher = Dispatcher(middleware=[seen])
    check_error(ask(dispatcher, request("absent", [1])), -32601, data="absent")
    assert seen.seen == [("def", "absent", -32601)]


def test_it_sees_the_params_and_the_exception_that_a_client_raises() -> None:
    found: list[Any] = []

    def look(request: Request, call_next: CallNext) -> Any:
        try:
            return call_next(request)
        except MethodNotFound as exc:
            found.append((request.params, request.arguments, str(exc)))
            raise

    ask(Dispatcher(middleware=[look]), request("absent", {"a": 1}))
    assert found == [({"a": 1}, None, "Method not found (-32601): 'absent'")]


def test_it_may_serve_methods_that_are_not_there() -> None:
    def fallback(request: Request, call_next: CallNext) -> Any:
        try:
            return call_next(request)
        except MethodNotFound:
            return [request.method, request.params]

    dispatcher = Dispatcher({"secret": secret}, middleware=[fallback])
    assert ask(dispatcher, request("shelf.get", [5]))["result"] == ["shelf.get", [5]]
    assert ask(dispatcher, request("secret"))["result"] == "secret"


def test_a_request_that_is_not_authorised_gets_no_result_of_a_middleware() -> None:
    seen = Seen()
    dispatcher = Dispatcher({"secret": secret}, authorize=lambda _request: False, middleware=[seen])
    assert code_of(ask(dispatcher, request("secret"))) == -32003
    assert seen.seen == [("def", "secret", -32003)]
    assert dispatcher.refusals == 1
    cached = Dispatcher({"secret": secret}, authorize=lambda _request: False, middleware=[answers])
    assert code_of(ask(cached, request("secret"))) == -32003


def test_it_may_say_why_a_request_is_not_authorised() -> None:
    def explain(request: Request, call_next: CallNext) -> Any:
        try:
            return call_next(request)
        except RemoteError as exc:
            raise RemoteError(1003, "for members only") from exc

    dispatcher = Dispatcher({"secret": secret}, authorize=lambda _request: False, middleware=[explain])
    assert ask(dispatcher, request("secret"))["error"] == {"code": 1003, "message": "for members only"}


def test_what_else_it_raises_is_an_internal_error(caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: Request, call_next: CallNext) -> Any:
        raise KeyError("a")

    check_error(ask(Dispatcher(middleware=[broken]), request("absent")), -32603)
    assert "method 'absent' failed" in caplog.text


def test_a_redelivery_that_is_refused() -> None:
    seen = Seen()
    dispatcher = Dispatcher(middleware=[seen])
    dispatcher.register(secret, redelivery="refuse")
    assert code_of(ask_again(dispatcher, request("secret"))) == -32001
    assert seen.seen == [("def", "secret", -32001)]
    # One that keeps results may tell what the first delivery ended in.
    store = Dispatcher(middleware=[answers])
    store.register(secret, redelivery="refuse")
    assert ask_again(store, request("secret"))["result"] == "cached"


def test_neither_around_a_method_without_middleware_nor_that_of_one_method() -> None:
    everywhere, of_one = Seen(), Seen()
    dispatcher = Dispatcher(middleware=[everywhere], redelivery="refuse")
    dispatcher.register(secret, "bare", bypass_middleware=True)
    dispatcher.register(secret, "one", middleware=[of_one])
    for name in ("bare", "one"):
        assert code_of(ask_again(dispatcher, request(name))) == -32001
    assert code_of(ask(dispatcher, request("rpc.absent"))) == -32601
    assert (everywhere.seen, of_one.seen) == ([("def", "one", -32001)], [])


def test_who_is_not_authorised_does_not_see_which_methods_are_without() -> None:
    def explain(request: Request, call_next: CallNext) -> Any:
        raise RemoteError(1003, "for members only")

    dispatcher = Dispatcher(authorize=lambda _request: False, middleware=[explain])
    dispatcher.register(secret, "bare", bypass_middleware=True)
    assert {name: code_of(ask(dispatcher, request(name))) for name in ("bare", "absent")} == {
        "bare": 1003,
        "absent": 1003,
    }


def test_without_a_loop_that_of_a_coroutine_does_not_run() -> None:
    dispatcher = Dispatcher(authorize=lambda request: request.method == "absent", middleware=[only_async])
    assert code_of(ask(dispatcher, request("absent"))) == -32601
    assert code_of(ask(dispatcher, request("secret"))) == -32003


def test_notifications_and_members_of_a_batch(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    dispatcher = Dispatcher({"secret": secret}, middleware=[seen])
    members = [
        {"jsonrpc": "2.0", "method": "a"},
        {"jsonrpc": "2.0", "method": "b", "id": 1},
        {"jsonrpc": "2.0", "method": "secret", "id": 2},
        {"no": "request"},
    ]
    reply = json.loads(dispatcher(json.dumps(members).encode()) or b"")
    assert [each.get("result", each.get("error", {}).get("code")) for each in reply] == [-32601, "secret", -32600]
    assert [each[1] for each in seen.seen] == ["a", "b"]
    assert "a notification of 'a' ended in: 'Method not found'" in caplog.text


def test_middleware_that_is_async_def() -> None:
    log: list[str | None] = []

    async def noting(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        log.append(request.method)
        return await call_next(request)

    dispatcher = Dispatcher({"later": later}, middleware=[noting], run_async=run_async)
    check_error(ask(dispatcher, request("absent")), -32601, data="absent")
    members = [{"jsonrpc": "2.0", "method": name, "id": 1} for name in ("later", "missing")]
    reply = json.loads(dispatcher(json.dumps(members).encode()) or b"")
    assert [each.get("result") for each in reply] == ["later", None]
    assert log == ["absent", "later", "missing"]


def test_in_a_coroutine_that_of_both_kinds_runs_on_a_thread() -> None:
    class OnThreads:
        def in_thread(self, function: Callable[[], Any], /) -> Awaitable[Any]:
            return asyncio.to_thread(function)

        def before(self, deadline: float, work: Any, /) -> Awaitable[Any]:
            return asyncio.wait_for(work, deadline)

    runner: Runner = OnThreads()
    seen = Seen()
    dispatcher = Dispatcher({"later": later}, authorize=lambda _request: False, middleware=[seen])
    decoded = dispatcher.decode(json.dumps(request("later")).encode())
    reply = asyncio.run(dispatcher.asynchronous.serve(decoded, runner))
    assert code_of(json.loads(reply or b"")) == -32003
    assert seen.seen == [("def", "later", -32003)]


def test_middleware_that_no_method_can_have_around_it_is_refused() -> None:
    with pytest.raises(TypeError, match=r"answers.* is def, and .*only_async.* is async def: no method can have both"):
        Dispatcher(middleware=[only_async, answers])
    dispatcher = Dispatcher(middleware=[only_async])
    with pytest.raises(TypeError, match="no method can have both around it"):
        dispatcher.middleware(answers)
    dispatcher.register(later)


def test_without_any_the_response_is_as_it_was() -> None:
    dispatcher = Dispatcher()
    dispatcher.register(secret, middleware=[answers])
    check_error(ask(dispatcher, request("absent")), -32601, data="absent")
