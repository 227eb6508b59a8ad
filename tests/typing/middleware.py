"""Middleware of both clients, as users write and give it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, assert_type

from jsonrpc_amqp import (
    AsyncCallNext,
    AsyncCalls,
    AsyncClient,
    AsyncClientMiddleware,
    CallNext,
    Calls,
    Client,
    ClientMiddleware,
    OutgoingRequest,
    per_attempt,
)


def timed(request: OutgoingRequest, call_next: CallNext) -> Any:
    assert_type(request.method, str | None)
    assert_type(request.body, bytes | None)
    assert_type(request.service, str)
    assert_type(request.headers, dict[str, Any])
    assert_type(request.timeout, float | None)
    assert_type(request.is_notification, bool)
    assert_type(request.attempt, int)
    request.headers["x-request-id"] = "7"
    request.params = [1, 2]
    request.timeout = 5.0  # type: ignore[misc]  # it is read-only
    for method, params in request.members:
        print(method, params)
    call_next()  # type: ignore[call-arg]  # of the request
    return call_next(replace(request, method="other"))


def plainly(request: OutgoingRequest, call_next: Callable[[OutgoingRequest], Any]) -> Any:
    return call_next(request)


async def traced(request: OutgoingRequest, call_next: AsyncCallNext) -> Any:
    assert_type(await call_next(request), Any)
    return await call_next(request)


async def plainly_async(request: OutgoingRequest, call_next: Callable[[OutgoingRequest], Awaitable[Any]]) -> Any:
    return await call_next(request)


@per_attempt
def observed(request: OutgoingRequest, call_next: CallNext) -> Any:
    return call_next(request)


class Cache:
    def __init__(self, results: Mapping[str, object]) -> None:
        self.results = results

    def __call__(self, request: OutgoingRequest, call_next: CallNext) -> Any:
        found = self.results.get(request.method or "")
        return call_next(request) if found is None else found

    @per_attempt
    def count(self, request: OutgoingRequest, call_next: CallNext) -> object:
        return call_next(request)


class AsyncCache:
    async def __call__(self, request: OutgoingRequest, call_next: AsyncCallNext) -> object:
        return await call_next(request)


def without_call_next(request: OutgoingRequest) -> Any:
    return request


def of_another_type(request: str, call_next: CallNext) -> Any:
    return request


def count(request: OutgoingRequest, call_next: CallNext) -> int:
    return len(request.headers)


def given(client: Client, other: AsyncClient) -> None:
    cache = Cache({})
    Client("memory://x", middleware=[timed, plainly, observed, cache, cache.count, per_attempt(timed), count])
    Client("memory://x", middleware=(timed,))
    AsyncClient("memory://x", middleware=[traced, plainly_async, AsyncCache(), per_attempt(traced)])
    assert_type(client.with_options(middleware=[timed], timeout=1), Calls)
    assert_type(other.with_options(middleware=[traced], timeout=1), AsyncCalls)
    listed: list[ClientMiddleware] = [timed, cache, observed]
    listed_async: list[AsyncClientMiddleware] = [traced, AsyncCache()]
    Client("memory://x", middleware=listed)
    AsyncClient("memory://x", middleware=listed_async)


def refused(client: Client, other: AsyncClient) -> None:
    Client("memory://x", middleware=timed)  # type: ignore[arg-type]  # a list
    Client("memory://x", middleware=[without_call_next])  # type: ignore[list-item]
    Client("memory://x", middleware=[of_another_type])  # type: ignore[list-item]
    Client("memory://x", middleware=[5])  # type: ignore[list-item]
    AsyncClient("memory://x", middleware=[count])  # type: ignore[list-item]  # its result is not awaited
    client.with_options(middleware=[without_call_next])  # type: ignore[list-item]
    other.with_options(middleware=[count])  # type: ignore[list-item]
    client.call("m", middleware=[timed])  # type: ignore[call-arg]  # it is no option of a call
