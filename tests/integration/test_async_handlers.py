"""Methods that are ``async def``: on the event loop of the process, beside those that are not."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jsonrpc_amqp import (
    AsyncClient,
    CallTimeout,
    Client,
    InternalError,
    InvalidParams,
    MethodNotFound,
    Server,
    ServerError,
    WouldDeadlock,
    current_request,
)
from tests.broker import Broker
from tests.command import serving
from tests.tools import wait_for

SERVED = """
import asyncio
import os
from jsonrpc_amqp import Server

server = Server(os.environ["AMQP_URL"], {service!r}, async_concurrency=50)


@server.method
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@server.method
async def die() -> None:
    os._exit(1)


@server.method
def plain() -> str:
    return "plain"
"""


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Return the URL of a broker."""
    return f"memory://{service}" if request.param == "memory" else request.getfixturevalue("url")


class Service:
    """A server with methods of both kinds, and a client of it."""

    def __init__(self, place: str, service: str, **options: Any) -> None:
        self.server = Server(place, service, **options)
        self.client = Client(place, service, timeout=30)
        self.begun = 0
        self.cancelled: list[str] = []
        self.gate = threading.Event()
        self.server.method(self.add)
        self.server.method(self.plain)
        self.server.method(self.wait)
        self.server.method(self.fail)
        self.server.method(self.who)

    async def add(self, a: int, b: int = 0) -> int:
        await asyncio.sleep(0)
        return a + b

    def plain(self, a: int) -> tuple[int, str]:
        return a, threading.current_thread().name

    async def wait(self) -> str:
        self.begun += 1
        try:
            while not self.gate.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled.append(current_request().method or "")
            raise
        return "waited"

    async def fail(self, how: str) -> None:
        if how == "exit":
            raise SystemExit(3)
        if how == "cancelled":
            raise asyncio.CancelledError
        raise ValueError("secret")

    async def who(self) -> list[Any]:
        await asyncio.sleep(0)
        request = current_request()
        return [request.method, request.service, request.is_notification, request.remaining is not None]


@pytest.fixture
def made(place: str, service: str) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def make(**options: Any) -> Service:
        services.append(Service(place, service, **options))
        services[-1].server.start()
        services[-1].client.start()
        return services[-1]

    yield make
    for each in services:
        each.gate.set()
        each.client.close()
        each.server.stop()


@pytest.fixture
def both(made: Callable[..., Service]) -> Service:
    return made()


# -- requests -----------------------------------------------------------------------------------------------------


def test_results_and_errors(both: Service, caplog: pytest.LogCaptureFixture) -> None:
    client = both.client
    assert client.call("add", [1, 2]) == 3
    assert client.call("add", {"a": 1, "b": 2}) == 3
    client.notify("add", [1, 2])
    with pytest.raises(InvalidParams, match="Invalid params"):
        client.call("add", [])
    with pytest.raises(MethodNotFound):
        client.call("absent")
    for how in ("raise", "exit", "cancelled"):
        with pytest.raises(InternalError) as caught:
            client.call("fail", [how])
        assert caught.value.data is None
    assert "secret" in caplog.text
    assert client.call("add", [1, 2]) == 3
    assert both.server.stats()["failed"] == 5
    assert client.call("who") == ["who", both.server.service, False, True]


def test_methods_of_both_kinds_in_a_batch_run_one_after_the_other(both: Service) -> None:
    with both.client.batch() as batch:
        first, second, third, fourth = (
            batch.call("add", [1, 2]),
            batch.call("plain", [5]),
            batch.call("absent"),
            batch.call("who"),
        )
        batch.notify("add", [1, 2])
    assert first.result() == 3
    value, thread = second.result()
    assert value == 5
    assert "loop" not in thread  # a plain method may block
    assert isinstance(third.exception(), MethodNotFound)
    assert fourth.result()[0] == "who"


def test_the_cap_of_a_reply_holds_for_batches(place: str, service: str) -> None:
    async def large() -> str:
        return "x" * 3000

    with Server(place, service, methods={"large": large}, max_size=5000), Client(place, service, timeout=30) as client:
        with client.batch() as batch:
            calls = [batch.call("large") for _ in range(3)]
        assert calls[0].result() == "x" * 3000
        assert [type(call.exception()) for call in calls[1:]] == [InternalError, InternalError]


def test_so_many_run_at_a_time(made: Callable[..., Service]) -> None:
    both = made(async_concurrency=3)
    calls = [both.client.submit("wait") for _ in range(10)]
    wait_for(lambda: both.begun == 3)
    assert both.client.call("plain", [1])[0] == 1  # those on threads are not held up
    assert both.begun == 3
    both.gate.set()
    assert [call.result(30) for call in calls] == ["waited"] * 10


def test_a_thousand_sleep_at_once(made: Callable[..., Service]) -> None:
    both = made(async_concurrency=1000)

    async def nap() -> int:
        await asyncio.sleep(1)
        return 1

    both.server.method(nap)
    began = time.monotonic()
    assert sum(call.result(60) for call in [both.client.submit("nap") for _ in range(1000)]) == 1000
    assert time.monotonic() - began < 30  # one after the other: 1,000 s


def test_a_call_inside_a_handler_has_no_more_time_than_the_handler(place: str, service: str) -> None:
    async def outer(kind: str) -> float:
        began = time.monotonic()
        try:
            if kind == "async":
                async with AsyncClient(place, service, timeout=60) as inner:
                    await inner.call("inner")
            else:
                await asyncio.to_thread(inner_client.call, "inner", timeout=60)
        except CallTimeout:
            pass
        seen.append(time.monotonic() - began)
        return 1

    async def inner() -> None:
        await asyncio.sleep(20)

    seen: list[float] = []
    server = Server(place, service, methods={"outer": outer})
    server.method(cancel_on_deadline=True)(inner)
    with server, Client(place, service, timeout=60) as inner_client:
        for kind in ("async", "sync"):
            inner_client.submit("outer", [kind], timeout=1).exception(30)  # it may end a moment before its deadline
        wait_for(lambda: len(seen) == 2)
        assert max(seen) < 15


def test_context_variables_of_a_handler_are_its_own(place: str, service: str) -> None:
    word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")

    async def swap(mine: str) -> str:
        before = word.get()
        word.set(mine)
        await asyncio.sleep(0.01)
        return f"{before} {word.get()}"

    with Server(place, service, methods={"swap": swap}), Client(place, service, timeout=30) as client:
        calls = [client.submit("swap", [str(number)]) for number in range(20)]
        assert [call.result(30) for call in calls] == [f"none {number}" for number in range(20)]


# -- deadlines, and the end of a server ------------------------------------------------------------------------------


@pytest.mark.parametrize("said_by", ["server", "method", "not"])
def test_a_coroutine_whose_caller_has_given_up(place: str, service: str, said_by: str) -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(1.5)
            ended.append("ran")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    server = Server(place, service, cancel_on_deadline=said_by == "server")
    server.method(cancel_on_deadline=True if said_by == "method" else None)(wait)
    with server, Client(place, service) as client:
        with pytest.raises(CallTimeout):
            client.call("wait", timeout=0.3)
        wait_for(lambda: ended)
        wait_for(lambda: server.stats()["expired"] == (said_by != "not"))
    assert ended == ["ran" if said_by == "not" else "cancelled"]


def test_a_drain_awaits_coroutines(both: Service) -> None:
    calls = [both.client.submit("wait") for _ in range(5)]
    wait_for(lambda: both.begun == 5)
    threading.Timer(0.2, both.gate.set).start()
    assert both.server.stop(30)
    assert [call.result(30) for call in calls] == ["waited"] * 5


def test_a_drain_cancels_after_the_grace_and_requests_go_back(made: Callable[..., Service], url: str) -> None:
    first = made(async_concurrency=2)
    calls = [first.client.submit("wait") for _ in range(4)]
    wait_for(lambda: first.begun == 2)
    assert not first.server.stop(0.2)
    assert first.cancelled == ["wait", "wait"]
    # Another server has them now: those that were cancelled, and those that had not begun.
    second = made()
    second.gate.set()
    assert [call.result(30) for call in calls] == ["waited"] * 4
    assert second.server.stats()["redelivered"] >= 2


def test_a_handler_cannot_stop_its_server(both: Service) -> None:
    async def stop() -> str:
        with pytest.raises(WouldDeadlock):
            both.server.stop()
        return "still there"

    both.server.method(stop)
    assert both.client.call("stop") == "still there"


def test_a_handler_that_blocks_the_loop_is_named(both: Service, caplog: pytest.LogCaptureFixture) -> None:
    async def block() -> None:
        time.sleep(1.8)

    both.server.method(block)
    with caplog.at_level(logging.WARNING, "jsonrpc_amqp.server"):
        both.client.call("block")
    (line,) = [record.getMessage() for record in caplog.records if "blocked" in record.getMessage()]
    assert line.startswith("method 'block' has blocked the event loop")


# -- policies -------------------------------------------------------------------------------------------------------


def test_authorization_and_redelivery_hold(url: str, service: str) -> None:
    async def pay() -> str:
        return "paid"

    with (
        Server(url, service, methods={"pay": pay}, authorize=lambda request: request.user_id == "alice"),
        Client(url, service, timeout=30) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.call("pay")
    assert caught.value.code == -32003


@pytest.mark.parametrize("ack", ["late", "early"])
def test_acknowledgement(broker: Broker, service: str, ack: Any) -> None:
    """A process that dies in a coroutine loses its request only where that was acknowledged early."""
    runs: list[bool] = []

    async def lose() -> str:
        runs.append(current_request().redelivered)
        if len(runs) == 1:
            await asyncio.to_thread(cut)
        return "ran"

    def unacknowledged() -> int:
        rows = broker.list("queues", "name", "messages_unacknowledged")
        return next(int(row["messages_unacknowledged"]) for row in rows if row["name"] == f"{service}_req")

    def cut() -> None:
        session = server._consumer._lifecycle.session
        assert session is not None
        # What the broker has not read of a connection that is cut does not count.
        wait_for(lambda: unacknowledged() == (ack == "late"))
        server._transport.invalidate(ConnectionError("cut by the test"))  # type: ignore[attr-defined]  # of RabbitMQ's
        wait_for(lambda: server._lifecycle.session not in (None, session))

    server = Server(broker.url, service)
    server.method(ack=ack)(lose)
    with server, Client(broker.url, service, timeout=30 if ack == "late" else 5) as client:
        if ack == "late":
            assert client.call("lose") == "ran"
            assert runs == [False, True]
        else:
            # The reply of the first run is dropped with its connection.
            with pytest.raises(CallTimeout):
                client.call("lose")
            assert runs == [False]


def test_the_command_serves_them(url: str, service: str, tmp_path: Any) -> None:
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    (tmp_path / "served_async.py").write_text(SERVED.format(service=service))
    with (
        serving("served_async:server", "--workers", "2", url=url, processes=2, env={"PYTHONPATH": path}) as program,
        Client(url, service, timeout=30) as client,
    ):
        assert client.call("plain") == "plain"
        calls = [client.submit("nap", [0.5]) for _ in range(20)]
        assert [call.result(30) for call in calls] == ["slept"] * 20
        # A poison request, which kills each worker, ends with an error, and costs no other its answer.
        poison = client.submit("die")
        assert isinstance(poison.exception(60), ServerError)
        assert client.call("nap", [0.01]) == "slept"
        assert program.terminate() == 0
