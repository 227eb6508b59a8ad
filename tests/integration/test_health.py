"""What ``health()`` says of servers and clients while things go wrong."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from jsonrpc_amqp import AsyncClient, AsyncServer, Client, NotConnected, Server, current_request

from ..broker import HOST, Broker
from ..tools import wait_for

HEARTBEAT = 2.0
# Seconds that a busy machine may take longer.
SLACK = 2.0


def add(a: int, b: int) -> int:
    return a + b


class Pair:
    """A server and a client, and how long either took to notice."""

    def __init__(self, url: str, service: str) -> None:
        self.server = Server(url, service, methods={"add": add}, heartbeat=HEARTBEAT, stuck_after=60)
        self.client = Client(url, service, heartbeat=HEARTBEAT, timeout=10)

    def problems(self) -> list[tuple[str, ...]]:
        return [self.server.health().problems, self.client.health().problems]

    def until_both(self, text: str, within: float) -> None:
        """Wait until both say so; neither calls itself dead."""
        began = time.monotonic()
        wait_for(lambda: all(any(text in each for each in problems) for problems in self.problems()), within + SLACK)
        assert time.monotonic() - began <= within + SLACK
        assert self.server.is_alive
        assert self.client.is_alive

    def until_ready(self) -> None:
        wait_for(lambda: self.server.is_ready and self.client.is_ready, 30)
        assert self.client.call("add", [1, 2], retry="idempotent") == 3


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a port that is taken, and at which no program listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield f"amqp://guest:guest@{HOST}:{taken.getsockname()[1]}"


@pytest.fixture
def pair(fragile: Broker, service: str) -> Iterator[Pair]:
    made = Pair(fragile.url, service)
    with made.server, made.client:
        made.client.start()
        made.until_ready()
        yield made


def test_what_was_not_started(service: str) -> None:
    server, client = Server("memory://x", service), Client("memory://x", service)
    assert server.health().problems == ("the server was not started",)
    assert client.health().problems == ("there is no connection to the broker",)
    with server, client:
        client.start()
        assert (server.is_ready, client.is_ready) == (True, True)
    assert (server.is_ready, client.is_ready) == (False, False)
    assert client.health().problems == ("the client is closed",)
    assert not client.is_alive


def test_a_broker_that_is_not_there(nowhere: str, service: str) -> None:
    made = Pair(nowhere, service)
    try:
        for end in (made.server, made.client):
            with pytest.raises(NotConnected):
                end.start(timeout=0.2)
        made.until_both("there is no connection to the broker: ", 5)
    finally:
        made.client.close()
        made.server.stop(0)


def test_a_broker_that_is_stopped_and_comes_back(pair: Pair, fragile: Broker) -> None:
    fragile.kill()
    pair.until_both("there is no connection to the broker", 1)
    fragile.restart()
    pair.until_ready()


def test_a_broker_that_is_frozen(pair: Pair, fragile: Broker) -> None:
    fragile.freeze()
    try:
        pair.until_both("the broker has been silent for longer than a heartbeat", HEARTBEAT)
    finally:
        fragile.thaw()
    pair.until_ready()


def test_a_broker_with_an_alarm(pair: Pair, fragile: Broker) -> None:
    """RabbitMQ reports it to a connection once that has published: a call tells the client, its reply the server."""
    fragile.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        wait_for(lambda: "alarm_handler: {set" in fragile.log or "memory resource limit alarm set" in fragile.log, 20)
        call = pair.client.submit("add", [1, 2], timeout=60)
        wait_for(lambda: "takes no messages" in " ".join(pair.client.health().problems), 20)
        assert pair.client.is_alive
    finally:
        fragile.ctl("set_vm_memory_high_watermark", "absolute", "1GB")
    assert call.result() == 3
    pair.until_ready()


def test_a_queue_that_is_deleted(pair: Pair, fragile: Broker, service: str) -> None:
    """It is declared and consumed again at once, so that nothing is in the way for longer than a tenth of a second."""
    fragile.ctl("delete_queue", f"{service}_req")
    wait_for(lambda: pair.server.stats()["consumers_cancelled"] == 1)
    pair.until_ready()


def test_requests_that_are_stuck(url: str, service: str) -> None:
    released = threading.Event()

    async def nap() -> None:
        await asyncio.to_thread(released.wait, 60)

    def hang() -> None:
        released.wait(60)

    methods: dict[str, Callable[[], object]] = {"hang": hang, "nap": nap}
    server = Server(url, service, methods=methods, concurrency=2, async_concurrency=1, stuck_after=0.2)
    with server, Client(url, service, timeout=60) as client:
        calls = [client.submit("hang")]
        wait_for(lambda: server.health().problems == ("1 requests have run for longer than 0.2 s",))
        assert server.health().is_alive
        calls += [client.submit("nap"), client.submit("hang")]
        wait_for(lambda: server.health().problems == ("3 requests have run for longer than 0.2 s",))
        assert not server.health().is_alive  # as many as may run
        released.set()
        for each in calls:
            each.result()
        wait_for(lambda: server.is_ready and server.is_alive)


def test_a_server_that_drains(url: str, service: str) -> None:
    began, released = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        released.wait(60)

    with ExitStack() as stack:
        server = stack.enter_context(Server(url, service, methods={"hang": hang}))
        call = stack.enter_context(Client(url, service, timeout=60)).submit("hang")
        assert began.wait(10)
        server.drain()
        health = server.health()
        assert (health.problems, health.is_alive) == (("the server drains",), True)
        released.set()
        call.result()


def test_on_an_event_loop(url: str, service: str) -> None:
    async def ready() -> bool:
        await asyncio.sleep(0)
        return server.is_ready and current_request().service == service

    server = AsyncServer(url, service, methods={"ready": ready}, stuck_after=60)

    async def main() -> None:
        client = AsyncClient(url, service, timeout=10)
        assert (server.is_ready, client.is_ready) == (False, False)
        async with server, client:
            assert await client.call("ready")
            assert (server.is_ready, client.is_ready) == (True, True)
        assert (server.is_ready, client.is_ready, client.is_alive) == (False, False, False)

    asyncio.run(main())
