"""What middleware may be, and what it is given."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from jsonrpc_amqp import AsyncClient, Client, OutgoingRequest, per_attempt
from jsonrpc_amqp.client.middleware import compose, stack_of
from jsonrpc_amqp.context import CallNext

from .fakes import SERVICE, FakeTransport

Next = Callable[[OutgoingRequest], Any]


def plain(request: OutgoingRequest, call_next: Next) -> Any:
    return call_next(request)


async def coroutine(request: OutgoingRequest, call_next: Callable[[OutgoingRequest], Awaitable[Any]]) -> Any:
    return await call_next(request)


def generator(request: OutgoingRequest, call_next: Next) -> Iterator[Any]:
    yield call_next(request)


async def async_generator(request: OutgoingRequest, call_next: Next) -> AsyncIterator[Any]:
    yield call_next(request)


class Plain:
    def __call__(self, request: OutgoingRequest, call_next: Next) -> Any:
        return call_next(request)

    @per_attempt
    def observe(self, request: OutgoingRequest, call_next: Next) -> Any:
        return (self, call_next(request))


class Coroutine:
    async def __call__(self, request: OutgoingRequest, call_next: Callable[[OutgoingRequest], Awaitable[Any]]) -> Any:
        return await call_next(request)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("middleware", "is_async"),
    [
        (plain, False),
        (coroutine, True),
        (Plain(), False),
        (Coroutine(), True),
        (functools.partial(plain), False),
        (functools.partial(coroutine), True),
        (Plain().observe, False),
        (per_attempt(plain), False),
        (per_attempt(coroutine), True),
        (per_attempt(Coroutine()), True),
        (per_attempt(per_attempt(coroutine)), True),
    ],
)
def test_each_client_takes_its_own_kind(kind: Any, middleware: Any, is_async: bool) -> None:
    if is_async == (kind is AsyncClient):
        client = kind("memory://x", SERVICE, middleware=[plain if kind is Client else coroutine])
        client.with_options(middleware=[middleware])
        kind("memory://x", SERVICE, middleware=[middleware])
        return
    text = "is async: that of a Client is a plain def" if is_async else "is not async: that of an AsyncClient is async"
    with pytest.raises(TypeError, match=text):
        kind("memory://x", SERVICE, middleware=[middleware])
    with pytest.raises(TypeError, match=text):
        kind("memory://x", SERVICE).with_options(middleware=[middleware])


@pytest.mark.parametrize(
    ("middleware", "text"),
    [
        (plain, "middleware is a list of functions, not <function plain"),
        (5, "middleware is a list of functions, not 5"),
        ("plain", "middleware is a list of functions, not 'plain'"),
        ([None], "middleware is a function of a request and call_next, not None"),
        (["plain"], "middleware is a function of a request and call_next, not 'plain'"),
        ([Plain], "middleware Plain is a class: give an object of it"),
        ([generator], r"middleware generator has a yield: it is to return call_next\(request\)"),
        ([async_generator], "middleware async_generator has a yield"),
        ([per_attempt(generator)], "middleware generator has a yield"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_is_no_middleware(kind: Any, middleware: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        kind("memory://x", SERVICE, middleware=middleware)
    with pytest.raises(TypeError, match=text):
        kind("memory://x", SERVICE, transport=None).with_options(middleware=middleware)


def test_it_is_no_option_of_a_call() -> None:
    client = Client("memory://x", SERVICE, transport=FakeTransport())
    with pytest.raises(TypeError, match="unknown option middleware"):
        client.submit("now", middleware=[])  # type: ignore[call-arg]


def test_a_stack_is_sorted_and_keeps_its_order() -> None:
    observe = Plain().observe
    stack = stack_of([plain, per_attempt(plain), Plain(), observe], is_async=False)
    assert stack is not None
    assert [type(each) for each in stack.calls] == [type(plain), Plain]
    assert len(stack.attempts) == 2
    assert stack_of([], is_async=False) is stack_of((), is_async=True) is None


def test_the_first_is_the_outermost() -> None:
    seen: list[str] = []

    def named(name: str) -> Callable[[OutgoingRequest, Next], Any]:
        def middleware(request: OutgoingRequest, call_next: CallNext) -> Any:
            seen.append(name)
            return f"{name}({call_next(request)})"

        return middleware

    chain = compose([named("a"), named("b")], lambda request: request.method)
    assert (chain(OutgoingRequest("add")), seen) == ("a(b(add))", ["a", "b"])
    assert compose([], lambda request: request.method)(OutgoingRequest("add")) == "add"


def test_a_marked_function_is_still_that_function() -> None:
    marked = per_attempt(plain)
    request = OutgoingRequest("add")
    assert marked(request, lambda each: each) is request
    assert (marked.__name__, marked.__doc__) == ("plain", None)
    assert not isinstance(plain, type(marked)), "the function itself is not marked"


def test_a_marked_method_knows_its_object() -> None:
    observer = Plain()
    assert observer.observe(OutgoingRequest("add"), lambda request: request.method) == (observer, "add")
    assert isinstance(Plain.observe, type(observer.observe))


def test_a_request_says_what_time_is_left() -> None:
    assert OutgoingRequest("add").timeout is None
    assert OutgoingRequest("add", deadline=time.monotonic() - 1).timeout == 0.0
    left = OutgoingRequest("add", deadline=time.monotonic() + 50).timeout
    assert left is not None
    assert 40 < left <= 50
    assert OutgoingRequest("add", deadline=math.inf).timeout is None


def test_attempts_have_headers_of_their_own() -> None:
    request = OutgoingRequest("add", [1], "S", {"a": 1}, deadline=7.0)
    first = request.of_attempt(1)
    first.headers["b"] = 2
    assert (first.attempt, request.attempt, request.headers) == (1, 0, {"a": 1})
    assert (first.method, first.params, first.service, first.deadline) == ("add", [1], "S", 7.0)


def test_a_request_can_be_copied_and_shows_no_params() -> None:
    request = OutgoingRequest("add", ["secret"], "S", {"token": "secret"})
    assert replace(request, method="other").params == ["secret"]
    assert copy.copy(request).headers is request.headers
    assert "secret" not in repr(request)
    assert repr(request).startswith("OutgoingRequest(method='add', service='S'")
