"""Middleware of servers, on both kinds of server and for methods of both kinds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from jsonrpc_amqp import (
    AsyncClient,
    AsyncServer,
    Client,
    InvalidParams,
    MethodNotFound,
    RemoteError,
    Request,
    Server,
    ServerError,
    current_request,
)
from tests.tools import wait_for

Seen = list[tuple[str, str | None, Any]]


class Noting:
    """Notes what it sees: a word, the request id of the headers, and the outcome."""

    def __init__(self) -> None:
        self.seen: Seen = []

    def __call__(self, request: Request, call_next: Callable[[Request], Any]) -> Any:
        assert current_request() is request
        try:
            result = call_next(request)
        except Exception as exc:
            self._note(request, type(exc).__name__)
            raise
        self._note(request, result)
        return result

    async def asynchronous(self, request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        assert current_request() is request
        try:
            result = await call_next(request)
        except BaseException as exc:
            self._note(request, type(exc).__name__)
            raise
        self._note(request, result)
        return result

    def _note(self, request: Request, outcome: object) -> None:
        self.seen.append((request.method or "", request.headers.get("x-request-id"), outcome))


def add(a: int, b: int) -> int:
    return a + b


async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


def fails() -> None:
    raise KeyError("a")


METHODS: dict[str, Callable[..., Any]] = {"add": add, "nap": nap, "fails": fails}


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    return f"memory://{service}" if request.param == "memory" else request.getfixturevalue("url")


@pytest.fixture
def noting() -> Noting:
    return Noting()


@pytest.fixture(params=["threads", "loop"])
def served(request: pytest.FixtureRequest, place: str, service: str, noting: Noting) -> Iterator[str]:
    """A server of each kind."""
    if request.param == "threads":
        with Server(place, service, methods=METHODS, middleware=[noting], concurrency=2):
            yield service
        return
    ready, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        async with AsyncServer(place, service, methods=METHODS, middleware=[noting]):
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(30)
    yield service
    loops[0].call_soon_threadsafe(over.set)
    thread.join()


def test_each_request_passes_through_it(place: str, served: str, noting: Noting) -> None:
    with Client(place, served, timeout=10) as client:
        assert client.call("add", [1, 2], headers={"x-request-id": "r1"}) == 3
        assert client.call("nap", [0], headers={"x-request-id": "r2"}) == "rested"
        with pytest.raises(RemoteError):
            client.call("fails")
        with pytest.raises(InvalidParams):
            client.call("add", ["1", 2])
        client.notify("add", [5, 5])
        wait_for(lambda: len(noting.seen) == 5)
        with client.batch() as batch:
            futures = [batch.call("add", [1, 1]), batch.call("nap", [0])]
        assert [each.result() for each in futures] == [2, "rested"]
    assert noting.seen == [
        ("add", "r1", 3),
        ("nap", "r2", "rested"),
        ("fails", None, "KeyError"),
        ("add", None, "InvalidParams"),
        ("add", None, 10),
        ("add", None, 2),
        ("nap", None, "rested"),
    ]


def test_requests_that_are_not_run(place: str, service: str, noting: Noting) -> None:
    allowed = {"add", "absent"}
    with (
        Server(
            place, service, methods=METHODS, authorize=lambda request: request.method in allowed, middleware=[noting]
        ),
        Client(place, service, timeout=10) as client,
    ):
        with pytest.raises(MethodNotFound, match="absent"):
            client.call("absent")
        with pytest.raises(ServerError, match="Not authorised"):
            client.call("fails")
        with pytest.raises(ServerError, match="Not authorised"):
            client.call("nap", [0])
        client.notify("gone")
        wait_for(lambda: len(noting.seen) == 4)
    assert [(method, outcome) for method, _id, outcome in noting.seen] == [
        ("absent", "MethodNotFound"),
        ("fails", "ServerError"),
        ("nap", "ServerError"),
        ("gone", "ServerError"),
    ]


def test_a_method_that_is_not_there_where_all_is_asynchronous(place: str, service: str) -> None:
    seen: list[str | None] = []

    async def noted(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        seen.append(request.method)
        return await call_next(request)

    async def main() -> None:
        server = AsyncServer(place, service, methods={"nap": nap}, middleware=[noted])
        async with server, AsyncClient(place, service, timeout=10) as client:
            with pytest.raises(MethodNotFound, match="absent"):
                await client.call("absent")

    asyncio.run(main())
    with (
        Server(place, service, methods={"nap": nap}, middleware=[noted]),
        Client(place, service, timeout=10) as client,
        pytest.raises(MethodNotFound, match="missing"),
    ):
        client.call("missing")
    assert seen == ["absent", "missing"]


def test_requests_that_are_not_run_wait_together_where_all_is_asynchronous(place: str, service: str) -> None:
    both = threading.Event()
    waiting: list[str | None] = []

    async def limited(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        waiting.append(request.method)
        while len(waiting) < 2:
            await asyncio.sleep(0.01)
        both.set()
        return await call_next(request)

    with (
        Server(place, service, methods={"nap": nap}, middleware=[limited], concurrency=1),
        Client(place, service, timeout=10) as client,
    ):
        futures = [client.submit(name) for name in ("absent", "missing")]
        assert both.wait(5)
        for future in futures:
            with pytest.raises(MethodNotFound):
                future.result()


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_it_sets_in_the_context_is_not_there_for_the_next_request(place: str, service: str, kind: str) -> None:
    user = ContextVar("user", default="anonymous")

    class Login:
        def __call__(self, request: Request, call_next: Callable[[Request], Any]) -> Any:
            if "user" in request.headers:
                user.set(request.headers["user"])
            return call_next(request)

        async def asynchronous(self, request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
            if "user" in request.headers:
                user.set(request.headers["user"])
            return await call_next(request)

    async def coroutine() -> str:
        return user.get()

    who: Callable[[], Any] = user.get if kind == "def" else coroutine
    with (
        Server(
            place,
            service,
            methods={"who": lambda: user.get()} if kind == "def" else {"who": who},
            concurrency=1,
            middleware=[Login()],
        ),
        Client(place, service, timeout=10) as client,
    ):
        assert client.call("who") == "anonymous"
        assert client.call("who", headers={"user": "root"}) == "root"
        assert [client.call("who") for _ in range(5)] == ["anonymous"] * 5
    assert user.get() == "anonymous"


def test_it_sees_the_cancellation_at_the_deadline(place: str, service: str, noting: Noting) -> None:
    server = Server(place, service, methods={"nap": nap}, cancel_on_deadline=True, middleware=[noting])
    with server, Client(place, service, timeout=10) as client:
        with pytest.raises(TimeoutError):
            client.call("nap", [30], timeout=0.3)
        wait_for(lambda: noting.seen == [("nap", None, "CancelledError")])


def test_a_loop_that_is_blocked_is_blamed_on_the_method(
    place: str, service: str, noting: Noting, caplog: pytest.LogCaptureFixture
) -> None:
    async def block() -> None:
        time.sleep(1.3)  # it blocks the loop for longer than a second, which is logged

    with Server(place, service, methods={"block": block}, middleware=[noting]), Client(place, service) as client:
        client.call("block", timeout=20)
    assert "method 'block' has blocked the event loop" in caplog.text


def test_a_nested_call_of_a_middleware_has_the_deadline_of_the_caller(place: str, service: str) -> None:
    remaining: list[float | None] = []

    def calls_on(request: Request, call_next: Callable[[Request], Any]) -> Any:
        if request.method == "add":
            inner.call("left")
        return call_next(request)

    def left() -> None:
        remaining.append(current_request().remaining)

    with (
        Client(place, service, timeout=60) as inner,
        Server(place, service, methods={"add": add, "left": left}, middleware=[calls_on], concurrency=2),
        Client(place, service, timeout=5) as client,
    ):
        assert client.call("add", [1, 2]) == 3
    assert remaining[0] is not None
    assert remaining[0] <= 5


def test_the_asynchronous_client_and_server(place: str, service: str, noting: Noting) -> None:
    async def main() -> None:
        server = AsyncServer(place, service, methods={"nap": nap})

        @server.middleware
        async def twice(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
            return [await call_next(request), await call_next(request)]

        async with server, AsyncClient(place, service, timeout=10) as client:
            assert await client.call("nap", [0]) == ["rested", "rested"]

    asyncio.run(main())
