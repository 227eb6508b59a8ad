"""Middleware around the calls of both clients, on both brokers."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from typing import Any, Protocol

import pytest
import uvloop

from jsonrpc_amqp import (
    AsyncClient,
    AsyncServer,
    CallTimeout,
    Client,
    ClientClosed,
    MalformedReply,
    MethodNotFound,
    OutgoingRequest,
    RemoteError,
    Server,
    TransportError,
    Unroutable,
    WrongEventLoop,
    current_request,
    per_attempt,
)

from ..tools import wait_for

Next = Callable[[OutgoingRequest], Any]
AsyncNext = Callable[[OutgoingRequest], Awaitable[Any]]
Run = Callable[[Coroutine[Any, Any, Any]], Any]
SECONDS = 30.0


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Return the URL of a broker."""
    return f"memory://{service}" if request.param == "memory" else request.getfixturevalue("url")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return uvloop.run if request.param == "uvloop" else asyncio.run


class Service:
    """
    What the calls reach.

    Attributes:
        headers: Those of each request, but for the deadline.
        begun: Set when ``wait`` begins, which ends when ``gate`` is set.
    """

    def __init__(self) -> None:
        self.headers: list[dict[str, Any]] = []
        self.begun = threading.Event()
        self.gate = threading.Event()

    def add(self, a: int, b: int) -> int:
        self.note()
        return a + b

    def wait(self) -> str:
        self.begun.set()
        self.gate.wait(SECONDS)
        return "waited"

    def note(self) -> None:
        self.headers.append({name: value for name, value in current_request().headers.items() if name != "timeout-ms"})


@pytest.fixture
def target() -> Service:
    return Service()


@pytest.fixture
def served(place: str, service: str, target: Service) -> Iterator[str]:
    """Serve methods at ``place``; return the URL."""
    methods: dict[str, Callable[..., Any]] = {"add": target.add, "wait": target.wait, "note": target.note}
    with Server(place, service, methods=methods, concurrency=4):
        yield place
        target.gate.set()


class Sums(Protocol):
    def add(self, a: int, b: int) -> int: ...


class Texts(Protocol):
    def add(self, a: int, b: int) -> str: ...


def raw(method: str, *params: object, **more: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode()


class Seen:
    """
    Middleware that adds a header and notes what it sees.

    Attributes:
        requests: The method, or the members, of each.
        ends: The result or the error of each.
    """

    def __init__(self, name: str = "x-seen") -> None:
        self.name = name
        self.requests: list[Any] = []
        self.ends: list[Any] = []

    def __call__(self, request: OutgoingRequest, call_next: Next) -> Any:
        self.begin(request)
        try:
            self.ends.append(call_next(request))
        except BaseException as exc:
            self.ends.append(exc)
            raise
        return self.ends[-1]

    def begin(self, request: OutgoingRequest) -> None:
        self.requests.append(request.method or request.members or request.body)
        request.headers[self.name] = len(self.requests)


class AsyncSeen(Seen):
    async def __call__(self, request: OutgoingRequest, call_next: AsyncNext) -> Any:
        self.begin(request)
        try:
            self.ends.append(await call_next(request))
        except BaseException as exc:
            self.ends.append(exc)
            raise
        return self.ends[-1]


# -- Client ---------------------------------------------------------------------------------------------------------


@pytest.mark.threads_client
def test_every_form(served: str, service: str, target: Service) -> None:
    seen = Seen()
    with Client(served, service, timeout=SECONDS, middleware=[seen]) as client:
        assert client.call("add", [1, 2], headers={"h": "1"}) == 3
        assert client.proxy.add(3, 4) == 7
        assert client.typed(Sums).add(a=5, b=6) == 11
        assert client.submit("add", [7, 8]).result(SECONDS) == 15
        client.notify("note")
        assert client.submit_notify("note").result(SECONDS) is None
        with client.batch() as batch:
            first, second = batch.call("add", [1, 1]), batch.call("absent")
            batch.notify("note")
        assert first.result() == 2
        with pytest.raises(MethodNotFound):
            second.result()
        response: Any = client.send({"jsonrpc": "2.0", "method": "add", "params": [2, 2], "id": "x"})
        assert (response.result, response.id) == (4, "x")
        assert b'"result":5' in (client.send_raw(raw("add", 2, 3, id=1)) or b"")
        assert b'"result":6' in (client.submit_raw(raw("add", 3, 3, id=1)).result(SECONDS) or b"")
        assert client.send_raw(raw("note")) is None
        wait_for(lambda: len(target.headers) == 12)
        assert client.stats()["pending"] == 0
    members = (("add", [1, 1]), ("absent", None), ("note", None))
    raws = [raw("add", 2, 3, id=1), raw("add", 3, 3, id=1), raw("note")]
    assert seen.requests == [*["add"] * 4, "note", "note", members, "add", *raws]
    assert seen.ends[:6] == [3, 7, 11, 15, None, None]
    assert seen.ends[6][0] == 2
    assert isinstance(seen.ends[6][1], MethodNotFound)
    assert target.headers[0] == {"h": "1", "x-seen": 1}
    # Two of the batch; notifications run in any order with others.
    assert sorted(each["x-seen"] for each in target.headers) == [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11]


@pytest.mark.threads_client
def test_order_views_and_results(served: str, service: str, target: Service) -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[OutgoingRequest, Next], Any]:
        def middleware(request: OutgoingRequest, call_next: Next) -> Any:
            order.append(name)
            result = call_next(request)
            order.append(f"/{name}")
            return result * 10 if name == "b" else result + 1

        return middleware

    with Client(served, service, timeout=SECONDS, middleware=[named("a"), named("b")]) as client:
        assert client.call("add", [1, 2]) == 31
        assert order == ["a", "b", "/b", "/a"]
        assert client.with_options(middleware=[named("c")]).call("add", [1, 2]) == 4
        assert client.with_options(middleware=[]).call("add", [1, 2]) == 3
        assert client.with_options(timeout=20).call("add", [1, 2]) == 31
        # The result is converted behind all middleware.
        assert client.typed(Sums).add(1, 2) == 31
        with pytest.raises(MalformedReply, match="the result is not what"):
            client.typed(Texts).add(1, 2)
        assert client.with_options(middleware=[lambda request, call_next: "cached"]).typed(Texts).add(1, 2) == "cached"


@pytest.mark.threads_client
def test_attempts_are_seen_while_there_is_no_server(place: str, service: str, target: Service) -> None:
    attempts, seen = [], Seen()

    @per_attempt
    def note(request: OutgoingRequest, call_next: Next) -> Any:
        request.headers["x-attempt"] = request.attempt
        try:
            result = call_next(request)
        except TransportError as exc:
            attempts.append((request.attempt, type(exc)))
            raise
        attempts.append((request.attempt, result))
        return result

    server = Server(place, service, methods={"add": target.add})
    with Client(place, service, timeout=SECONDS, middleware=[note, seen]) as client:
        with pytest.raises(Unroutable):
            client.call("add", [1, 2])
        assert attempts.pop() == (1, Unroutable)
        starter = threading.Timer(0.3, server.start)
        starter.start()
        assert client.call("add", [1, 2], retry="safe") == 3
        assert len(attempts) > 1
        assert attempts == [*((n, Unroutable) for n in range(1, len(attempts))), (len(attempts), 3)]
        assert target.headers == [{"x-attempt": len(attempts), "x-seen": 2}]
        assert client.stats()["retries"] == len(attempts) - 1
        assert client.stats()["timeouts"] == 0
        assert seen.ends[1:] == [3]
        assert client.submit("add", [3, 4], retry="safe").result(SECONDS) == 7
        client.notify("add", [1, 2], retry="safe")
    starter.join()
    server.stop()


@pytest.mark.threads_client
def test_attempts_end_inside_the_deadline(place: str, service: str) -> None:
    seen = Seen()
    with Client(place, service, middleware=[per_attempt(seen)]) as client:
        client.start()
        began = time.monotonic()
        with pytest.raises((Unroutable, CallTimeout), match=r"\(attempt [2-9][;)]") as caught:
            client.call("add", retry="safe", timeout=1)
        assert 0.5 < time.monotonic() - began < 1.9
        assert isinstance(caught.value, CallTimeout) or not caught.value.may_have_run
        assert len(seen.ends) > 1


@pytest.mark.threads_client
def test_a_call_ends_at_its_deadline(served: str, service: str) -> None:
    seen = Seen()
    with Client(served, service, middleware=[seen]) as client:
        with pytest.raises(CallTimeout, match=r"within 0\.3 s"):
            client.call("wait", timeout=0.3)
        future = client.submit("wait", timeout=0.3)
        assert isinstance(future.exception(SECONDS), CallTimeout)
        assert client.stats()["timeouts"] == 2
        assert [type(each) for each in seen.ends] == [CallTimeout, CallTimeout]


@pytest.mark.threads_client
def test_a_submitted_call_that_is_cancelled_is_dropped(served: str, service: str, target: Service) -> None:
    seen = Seen()
    with Client(served, service, timeout=SECONDS, middleware=[seen]) as client:
        future = client.submit("wait")
        assert target.begun.wait(SECONDS)
        assert future.cancel()
        wait_for(lambda: seen.ends)
        assert isinstance(seen.ends[0], CancelledError)
        assert (client.stats()["pending"], client.stats()["cancelled"]) == (0, 1)
        assert client.submit("add", [1, 2]).result(SECONDS) == 3


@pytest.mark.threads_client
def test_close_while_middleware_runs(served: str, service: str, target: Service) -> None:
    seen = Seen()
    client = Client(served, service, timeout=SECONDS, middleware=[seen])
    future = client.submit("wait")
    ended: list[BaseException] = []

    def call() -> None:
        try:
            client.call("wait")
        except ClientClosed as exc:
            ended.append(exc)

    caller = threading.Thread(target=call)
    caller.start()
    wait_for(lambda: len(seen.requests) == client.stats()["pending"] == 2)
    client.close()
    caller.join(SECONDS)
    assert isinstance(future.exception(SECONDS), ClientClosed)
    assert len(ended) == 1
    assert [type(each) for each in seen.ends] == [ClientClosed, ClientClosed]
    assert not [each.name for each in threading.enumerate() if "middleware" in each.name]
    with pytest.raises(ClientClosed):
        client.call("add", [1, 2])
    with pytest.raises(ClientClosed):
        client.submit("add", [1, 2])


@pytest.mark.threads_client
def test_in_a_handler_middleware_knows_its_request_and_shares_its_deadline(place: str, service: str) -> None:
    seen: list[Any] = []

    def trace(request: OutgoingRequest, call_next: Next) -> Any:
        handled = current_request()
        seen.append((handled.method, request.timeout, handled.headers["trace"]))
        request.headers["trace"] = handled.headers["trace"]
        return call_next(request)

    inner = Client(place, service, middleware=[trace])
    methods = {
        "outer": lambda: inner.call("inner"),
        "later": lambda: inner.submit("inner").result(SECONDS),
        "inner": lambda: current_request().headers["trace"],
    }
    with inner, Server(place, service, methods=methods, concurrency=4), Client(place, service) as client:
        for method in ("outer", "later"):
            assert client.call(method, timeout=20, headers={"trace": "t7"}) == "t7"
            served, left, word = seen.pop()
            assert (served, word) == (method, "t7")
            assert 1 < left <= 20


@pytest.mark.threads_client
def test_middleware_may_call_through_the_same_client(served: str, service: str) -> None:
    def with_token(request: OutgoingRequest, call_next: Next) -> Any:
        request.headers["token"] = bare.call("add", [40, 2])
        return call_next(request)

    with Client(served, service, timeout=SECONDS, middleware=[with_token]) as client:
        bare = client.with_options(middleware=[])
        assert client.call("add", [1, 2]) == 3
        assert [each.result(SECONDS) for each in [client.submit("add", [1, n]) for n in range(20)]] == [*range(1, 21)]


@pytest.mark.threads_client
def test_a_forked_process_has_none_of_it(served: str, service: str) -> None:
    with Client(served, service, timeout=SECONDS, middleware=[Seen()]) as client:
        assert client.submit("add", [1, 2]).result(SECONDS) == 3
        waiting = client.submit("wait")
        child = os.fork()
        if child == 0:
            failures = int(not waiting.cancel())
            for use in (client.submit, client.call):
                try:
                    use("add", [1, 2])
                    failures += 1
                except ClientClosed:
                    pass
            client.close()
            os._exit(failures)
        assert os.waitpid(child, 0)[1] == 0
        assert not waiting.done()
        assert client.submit("add", [1, 2]).result(SECONDS) == 3


@pytest.mark.threads_client
def test_a_client_that_is_dropped_ends_with_its_threads(served: str, service: str) -> None:
    client = Client(served, service, timeout=SECONDS, middleware=[Seen()])
    assert client.submit("add", [1, 2]).result(SECONDS) == 3
    names = {each.name for each in threading.enumerate() if "middleware" in each.name}
    assert names
    time.sleep(0.05)  # for the thread, which lets go of the call behind its end
    with pytest.warns(ResourceWarning, match="unclosed Client"):
        del client
    wait_for(lambda: not {each.name for each in threading.enumerate() if "middleware" in each.name})


# -- AsyncClient ----------------------------------------------------------------------------------------------------


def test_every_form_in_coroutines(served: str, service: str, run: Run, target: Service) -> None:
    class AsyncSums(Protocol):
        async def add(self, a: int, b: int) -> int: ...

    async def use() -> None:
        seen = AsyncSeen()
        async with AsyncClient(served, service, timeout=SECONDS, middleware=[seen]) as client:
            assert await client.call("add", [1, 2], headers={"h": "1"}) == 3
            assert await client.proxy.add(3, 4) == 7
            assert await client.typed(AsyncSums).add(a=5, b=6) == 11
            assert await client.submit("add", [7, 8]) == 15
            await client.notify("note")
            await client.submit_notify("note")
            async with client.batch() as batch:
                first, second = batch.call("add", [1, 1]), batch.call("absent")
                batch.notify("note")
            assert await first == 2
            with pytest.raises(MethodNotFound):
                await second
            response: Any = await client.send({"jsonrpc": "2.0", "method": "add", "params": [2, 2], "id": "x"})
            assert (response.result, response.id) == (4, "x")
            error: Any = await client.send({"jsonrpc": "2.0", "method": "absent", "id": 2})
            assert (error.code, error.id) == (-32601, 2)
            assert b'"result":5' in (await client.send_raw(raw("add", 2, 3, id=1)) or b"")
            assert b'"result":6' in (await client.submit_raw(raw("add", 3, 3, id=1)) or b"")
            assert await client.send_raw(raw("note")) is None
            assert await client.with_options(middleware=[]).call("add", [1, 2]) == 3
            await asyncio.to_thread(wait_for, lambda: len(target.headers) == 13)
            assert client.stats()["pending"] == 0
        members = (("add", [1, 1]), ("absent", None), ("note", None))
        raws = [raw("add", 2, 3, id=1), raw("add", 3, 3, id=1), raw("note")]
        assert seen.requests == [*["add"] * 4, "note", "note", members, "add", "absent", *raws]
        assert seen.ends[:6] == [3, 7, 11, 15, None, None]
        assert target.headers[0] == {"h": "1", "x-seen": 1}

    run(use())


def test_attempts_are_seen_in_coroutines(place: str, service: str, run: Run, target: Service) -> None:
    attempts = []

    @per_attempt
    async def note(request: OutgoingRequest, call_next: AsyncNext) -> Any:
        request.headers["x-attempt"] = request.attempt
        try:
            return await call_next(request)
        except TransportError as exc:
            attempts.append((request.attempt, type(exc)))
            raise

    async def use() -> None:
        server = Server(place, service, methods={"add": target.add})
        async with AsyncClient(place, service, timeout=SECONDS, middleware=[note]) as client:
            starter = threading.Timer(0.3, server.start)
            starter.start()
            assert await client.call("add", [1, 2], retry="safe") == 3
            assert attempts == [(n, Unroutable) for n in range(1, len(attempts) + 1)]
            assert client.stats()["retries"] == len(attempts) > 0
            assert target.headers == [{"x-attempt": len(attempts) + 1}]
        await asyncio.to_thread(starter.join)
        await asyncio.to_thread(server.stop)

    run(use())


def test_cancellation_in_coroutines(served: str, service: str, run: Run, target: Service) -> None:
    async def use() -> None:
        seen = AsyncSeen()
        async with AsyncClient(served, service, timeout=SECONDS, middleware=[seen]) as client:
            future = client.submit("wait")
            await asyncio.to_thread(target.begun.wait, SECONDS)
            assert future.cancel()
            assert client.stats()["pending"] == 0, "dropped at once"
            with pytest.raises(asyncio.CancelledError):
                await future
            assert isinstance(seen.ends[0], asyncio.CancelledError)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.call("wait")
            assert (client.stats()["pending"], client.stats()["cancelled"]) == (0, 2)
            assert await client.call("add", [1, 2]) == 3

    run(use())


def test_close_while_coroutines_are_in_middleware(served: str, service: str, run: Run) -> None:
    async def use() -> None:
        seen = AsyncSeen()
        client = AsyncClient(served, service, timeout=SECONDS, middleware=[seen])
        futures = [client.submit("wait"), asyncio.ensure_future(client.call("wait"))]
        while client.stats()["pending"] < 2:
            await asyncio.sleep(0.01)
        await client.aclose()
        assert [type(each) for each in await asyncio.gather(*futures, return_exceptions=True)] == [ClientClosed] * 2
        assert [type(each) for each in seen.ends] == [ClientClosed] * 2
        with pytest.raises(ClientClosed):
            await client.call("add", [1, 2])
        with pytest.raises(ClientClosed):
            client.submit("add", [1, 2])

    run(use())


def test_close_ends_a_pause_of_coroutines(place: str, service: str, run: Run) -> None:
    async def use() -> None:
        client = AsyncClient(place, service, timeout=None, middleware=[per_attempt(AsyncSeen())])
        future = client.submit("add", [1, 2], retry="safe")
        while client.stats()["retries"] < 4:  # the pauses take half a second and more
            await asyncio.sleep(0.005)
        began = time.monotonic()
        await client.aclose()
        with pytest.raises(ClientClosed, match="the one before: no queue is bound"):
            await future
        assert time.monotonic() - began < 0.35

    run(use())


def test_contexts_loops_and_many_calls(served: str, service: str, run: Run) -> None:
    word = contextvars.ContextVar("word", default="")
    seen: set[str] = set()

    async def read(request: OutgoingRequest, call_next: AsyncNext) -> Any:
        seen.add(word.get())
        return await call_next(request)

    async def one(client: AsyncClient, number: int) -> Any:
        word.set(str(number))
        return await (client.call if number % 2 else client.submit)("add", [number, 1])

    async def use() -> AsyncClient:
        async with AsyncClient(served, service, timeout=SECONDS, middleware=[read]) as client:
            assert await asyncio.gather(*(one(client, n) for n in range(300))) == list(range(1, 301))
            assert seen == {str(n) for n in range(300)}
            return client

    client = run(use())

    async def elsewhere() -> None:
        with pytest.raises(WrongEventLoop):
            await client.call("add", [1, 2])
        with pytest.raises(WrongEventLoop):
            client.submit("add", [1, 2])

    run(elsewhere())


def test_a_let_go_future_goes_on(served: str, service: str, run: Run, target: Service) -> None:
    async def use() -> None:
        async def slow(request: OutgoingRequest, call_next: AsyncNext) -> Any:
            await asyncio.sleep(0.05)
            return await call_next(request)

        async with AsyncClient(served, service, timeout=SECONDS, middleware=[slow]) as client:
            client.submit("add", [1, 2])
            await asyncio.to_thread(wait_for, lambda: target.headers)

    run(use())


def test_in_a_coroutine_that_serves_middleware_knows_its_request(place: str, service: str, run: Run) -> None:
    async def trace(request: OutgoingRequest, call_next: AsyncNext) -> Any:
        request.headers["trace"] = current_request().headers["trace"]
        assert 1 < (request.timeout or 0) <= 20
        return await call_next(request)

    async def use() -> None:
        server = AsyncServer(place, service)
        inner = AsyncClient(place, service, middleware=[trace])

        @server.method
        async def outer(form: str) -> Any:
            return await (inner.call if form == "call" else inner.submit)("inner")

        @server.method(name="inner")
        async def reply() -> Any:
            return current_request().headers["trace"]

        async with server, inner, AsyncClient(place, service) as client:
            for form in ("call", "submit"):
                assert await client.call("outer", [form], timeout=20, headers={"trace": "t7"}) == "t7"

    run(use())


def test_errors_pass_through_coroutines(served: str, service: str, run: Run) -> None:
    async def translate(request: OutgoingRequest, call_next: AsyncNext) -> Any:
        try:
            return await call_next(request)
        except RemoteError as exc:
            raise LookupError(exc.code) from exc

    async def use() -> None:
        async with AsyncClient(served, service, timeout=SECONDS, middleware=[translate]) as client:
            with pytest.raises(LookupError, match="-32601"):
                await client.call("absent")
            with pytest.raises(LookupError, match="-32601"):
                await client.submit("absent")

    run(use())
