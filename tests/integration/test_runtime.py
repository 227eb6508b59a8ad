"""A connection is driven by any loop: here by a plain one on the test's own thread, with no other thread beside it."""

from __future__ import annotations

import threading

import pytest

from jsonrpc_amqp import CallTimeout, Client, ConnectionLost, MethodNotFound, Server
from jsonrpc_amqp.amqp.base import Transport
from jsonrpc_amqp.amqp.transport import connect_transport
from jsonrpc_amqp.options import ConnectionOptions

from ..broker import HOST, Broker
from ..proxy import Proxy
from ..selector_runtime import SelectorRuntime


@pytest.fixture
def runtime() -> SelectorRuntime:
    return SelectorRuntime()


@pytest.fixture
def transport(url: str, runtime: SelectorRuntime) -> Transport:
    return connect_transport(url, ConnectionOptions("loop"), runtime)


def names_of_threads() -> set[str]:
    """Give those that this client could have started."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("loop")}


def connect(client: Client, runtime: SelectorRuntime) -> None:
    # ``start`` waits for the connection, on a thread that drives it here: so by the way of a call.
    future = client.submit("add", [0, 0])
    runtime.run_until(future.done)
    assert future.result() == 0


def test_calls_need_no_other_thread(url: str, service: str, runtime: SelectorRuntime, transport: Transport) -> None:
    with Server(url, service, methods={"add": lambda a, b: a + b}):
        client = Client(service=service, transport=transport, timeout=5)
        connect(client, runtime)
        assert names_of_threads() == set()

        futures = [client.submit("add", [number, 1]) for number in range(100)]
        runtime.run_until(lambda: all(future.done() for future in futures))
        assert [future.result() for future in futures] == list(range(1, 101))
        assert client.call("add", [20, 22]) == 42  # it drives while it waits
        with pytest.raises(MethodNotFound):
            client.call("missing")
        assert names_of_threads() == set()
        client.close()
    assert client.stats()["pending"] == 0


def test_deadlines_are_kept(url: str, service: str, runtime: SelectorRuntime, transport: Transport) -> None:
    release = threading.Event()
    with Server(url, service, methods={"add": lambda a, b: a + b, "block": lambda: release.wait(10)}):
        client = Client(service=service, transport=transport, timeout=5)
        connect(client, runtime)
        future = client.submit("block", timeout=0.2)
        runtime.run_until(future.done)
        release.set()
        assert isinstance(future.exception(), CallTimeout)
        client.close()


def test_a_lost_connection_is_made_again(broker: Broker, service: str, runtime: SelectorRuntime) -> None:
    with (
        Server(broker.url, service, methods={"add": lambda a, b: a + b, "cut": lambda: network.cut()}),
        Proxy(broker.port) as network,
    ):
        url = f"amqp://guest:guest@{HOST}:{network.port}"
        client = Client(service=service, transport=connect_transport(url, ConnectionOptions("loop"), runtime))
        connect(client, runtime)
        lost = client.submit("cut")
        runtime.run_until(lost.done)
        assert isinstance(lost.exception(), ConnectionLost)
        connect(client, runtime)
        assert client.stats()["connections"] == 2
        assert names_of_threads() == set()
        client.close()


def test_a_large_message_is_written_as_the_socket_takes_it(
    url: str, service: str, runtime: SelectorRuntime, transport: Transport
) -> None:
    with Server(url, service, methods={"add": lambda a, b: a + b, "len": len}):
        client = Client(service=service, transport=transport, timeout=20)
        connect(client, runtime)
        assert client.call("len", ["x" * 8_000_000]) == 8_000_000
        client.close()


def test_the_memory_broker_is_driven_in_the_same_way(service: str, runtime: SelectorRuntime) -> None:
    server_runtime = SelectorRuntime()
    server = Server(
        service=service,
        methods={"add": lambda a, b: a + b},
        transport=connect_transport(f"memory://{service}", ConnectionOptions("loop"), server_runtime),
    )
    client = Client(
        service=service, transport=connect_transport(f"memory://{service}", ConnectionOptions("loop"), runtime)
    )
    server._consumer.start()  # without waiting for the connection, which this thread has to drive
    server_runtime.run_until(lambda: server.stats()["connections"])
    future = client.submit("add", [1, 2])

    def drive_the_server_too() -> bool:
        server_runtime.turn()
        return future.done()

    runtime.run_until(drive_the_server_too)
    assert future.result() == 3
    client.close()
    server.stop(grace=0)
