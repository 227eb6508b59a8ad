"""The transport of ``memory://``: what it does by itself, without a broker to compare it with."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from jsonrpc_amqp.amqp.base import Plan, Publish, QueueFacts, Session
from jsonrpc_amqp.amqp.memory import MemoryTransport, disconnect, reset
from jsonrpc_amqp.errors import ConnectionLost, TopologyMismatch, TransportError, Unroutable

from ...transport_tools import PATIENCE, Recorder

Connect = Callable[..., Recorder]


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"x{secrets.token_hex(6)}"


@pytest.fixture
def memory(name: str) -> Iterator[Connect]:
    """Connects to a memory broker, the test's own unless another is named."""
    opened: list[Recorder] = []

    def connect(broker: str = name, **plan: Any) -> Recorder:
        opened.append(Recorder(MemoryTransport(broker), Plan(**{"exchange": "jsonrpc", **plan})))
        return opened[-1].start()

    yield connect
    for end in opened:
        end.close()
        reset(name)


def test_names_are_apart(memory: Connect, name: str) -> None:
    memory(reply_queue="exclusive", bindings=("a",))
    other = memory(broker=f"{name}-other")
    assert isinstance(other.publish_confirmed(Publish("jsonrpc", "a", b"")), Unroutable)
    reset(f"{name}-other")


def test_reset_forgets(memory: Connect, name: str) -> None:
    memory(queue="q", bindings=("a",)).close()
    client = memory()
    assert client.publish_confirmed(Publish("jsonrpc", "a", b"old")) is None
    reset(name)
    client.wait_for(lambda: len(client.sessions) == 2)
    assert isinstance(client.inspect("q"), TopologyMismatch)
    assert isinstance(client.publish_confirmed(Publish("jsonrpc", "a", b"new")), Unroutable)


def test_disconnect_is_reported_and_healed(memory: Connect, name: str) -> None:
    server = memory(queue="q", bindings=("a",), prefetch=1)
    assert server.publish_confirmed(Publish("jsonrpc", "a", b"held")) is None
    [held] = server.wait_for_bodies(b"held")
    old = server.session
    disconnect(name)
    assert old.publish(Publish("jsonrpc", "a", b"")) is False
    again = server.wait_for_bodies(b"held", b"held")[1]
    assert (held.redelivered, again.redelivered) == (False, True)
    assert [type(error) for error in server.lost] == [ConnectionLost]
    assert server.session.generation != old.generation


def test_disconnect_delivers_each_message_once(memory: Connect, name: str) -> None:
    servers = [memory(queue="q", bindings=("a",), prefetch=1) for _ in range(2)]
    assert servers[0].publish_confirmed(Publish("jsonrpc", "a", b"held")) is None
    servers[0].wait_for_bodies(b"held")
    disconnect(name)
    for server in servers:
        server.wait_for_sessions(2)
        assert len(server.sessions) == 2
        assert isinstance(server.inspect("q"), QueueFacts)
    assert len(servers[0].deliveries) + len(servers[1].deliveries) == 2


def test_calls_back_on_one_thread_of_its_own(memory: Connect) -> None:
    end = memory(reply_queue="exclusive", bindings=("a",))
    threads: Future[int] = Future()
    assert end.session.publish_confirmed(
        Publish("jsonrpc", "a", b"hello"), lambda error: threads.set_result(threading.get_ident())
    )
    end.wait_for_bodies(b"hello")
    assert end.threads == {threads.result(PATIENCE)}
    assert threading.get_ident() not in end.threads


def test_close_ends_the_thread(name: str) -> None:
    transport = MemoryTransport(name, connection_name="the thread of this test")
    Recorder(transport, Plan("jsonrpc")).start()
    assert "the thread of this test" in [thread.name for thread in threading.enumerate()]
    transport.close(PATIENCE)
    assert "the thread of this test" not in [thread.name for thread in threading.enumerate()]


def test_close_reports_what_is_to_be_reported(memory: Connect) -> None:
    end = memory(reply_queue="exclusive", bindings=("a",))
    outcomes: list[TransportError | None] = []
    for _ in range(100):
        end.session.publish_confirmed(Publish("jsonrpc", "a", b""), outcomes.append)
    end.close()
    assert outcomes == [None] * 100
    assert len(end.deliveries) == 100


def test_may_be_closed_by_a_callback(memory: Connect) -> None:
    end = memory(reply_queue="exclusive", bindings=("a",))
    closed = threading.Event()

    def close(session: Session, delivery: object) -> None:
        end.close()
        closed.set()

    end.on_delivery = close
    end.session.publish(Publish("jsonrpc", "a", b"the end"))
    assert closed.wait(PATIENCE)
    again = memory(reply_queue="exclusive", bindings=("a",))
    assert again.publish_confirmed(Publish("jsonrpc", "a", b"again")) is None
    again.wait_for_bodies(b"again")
    end.wait_for_bodies(b"the end")


def test_survives_a_listener_that_raises(memory: Connect, caplog: pytest.LogCaptureFixture) -> None:
    end = memory(reply_queue="exclusive", bindings=("a",))

    def fail(session: Session, delivery: object) -> None:
        raise ValueError("no")

    end.on_delivery = fail
    end.session.publish(Publish("jsonrpc", "a", b"1"))
    end.bind("b")
    assert "raised" in caplog.text
