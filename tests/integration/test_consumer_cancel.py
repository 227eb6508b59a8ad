"""The broker cancels a consumer while its channel lives: a server consumes again, on the same connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

from jsonrpc_amqp import Client, ConnectionLost, Server

from ..broker import Broker
from ..tools import wait_for


def consumers(broker: Broker, queue: str) -> list[str]:
    rows = broker.list("consumers", "queue_name", "consumer_tag")
    return [row["consumer_tag"] for row in rows if row["queue_name"] == queue]


class Held:
    """A server whose method ``hold`` waits, and a client."""

    def __init__(self, broker: Broker, service: str, **options: Any) -> None:
        self.gate = threading.Event()
        self.queue = f"{service}_req"
        methods = {"hold": self.hold, "echo": lambda value: value}
        self.server = Server(broker.url, service, methods=methods, concurrency=2, **options).start()
        self.client = Client(broker.url, service, timeout=120)

    def hold(self, value: int) -> int:
        self.gate.wait(30)
        return value

    def submit(self, count: int) -> list[Any]:
        """Make calls that wait: two of them run, and the server holds the others."""
        calls = [self.client.submit("hold", [number]) for number in range(count)]
        wait_for(lambda: self.server.stats()["received"] >= count)
        return calls

    def close(self) -> None:
        self.gate.set()
        self.server.stop()
        self.client.close()


@pytest.fixture(params=["classic", "quorum"])
def held(request: pytest.FixtureRequest, broker: Broker, service: str) -> Iterator[Held]:
    held = Held(broker, service, queue_type=request.param)
    yield held
    held.close()


def check_kept(held: Held) -> None:
    """Check that the requests that the server had were run once and replied to, over the first connection."""
    stats = held.server.stats()
    assert (stats["connections"], stats["redelivered"], stats["consumers_cancelled"]) == (1, 0, 1)
    assert (stats["dropped_acks"], stats["dropped_replies"], stats["abandoned"]) == (0, 0, 0)


def test_a_queue_that_was_deleted(held: Held, broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    calls = held.submit(6)
    broker.ctl("delete_queue", held.queue)
    wait_for(lambda: len(consumers(broker, held.queue)) == 1, 20)
    calls.append(held.client.submit("hold", [6], retry="safe"))
    wait_for(lambda: held.server.stats()["received"] == 7)
    held.gate.set()
    assert [call.result(120) for call in calls] == list(range(7))
    assert held.client.call("echo", [2]) == 2
    check_kept(held)
    assert f"the broker cancelled the consumer of queue '{held.queue}': it was deleted or moved" in caplog.text


def test_a_queue_that_is_still_there(held: Held, broker: Broker) -> None:
    calls = held.submit(6)
    [before] = consumers(broker, held.queue)
    broker.cancel_consumers(held.queue)
    wait_for(lambda: consumers(broker, held.queue) not in ([], [before]), 20)
    # The old one is gone, so that it delivers nothing that a drain does not expect.
    assert consumers(broker, held.queue) == ["consumer-2"]
    calls.append(held.client.submit("hold", [6]))
    wait_for(lambda: held.server.stats()["received"] == 7)
    held.gate.set()
    assert [call.result(120) for call in calls] == list(range(7))
    assert held.server.stop()
    check_kept(held)
    # All was acknowledged, over both consumers.
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    found = connection.channel().queue_declare(held.queue, passive=True).method
    assert (found.message_count, found.consumer_count) == (0, 0)
    connection.close()


def test_a_queue_that_cancels_each_consumer_makes_no_hot_loop(held: Held, broker: Broker) -> None:
    broker.cancel_consumers(held.queue, times=60)
    wait_for(lambda: held.server.stats()["consumers_cancelled"] >= 4, 20)
    assert held.client.call("echo", [1], retry="safe") == 1
    wait_for(lambda: len(consumers(broker, held.queue)) == 1, 20)
    assert held.server.stats()["consumers_cancelled"] < 30  # of sixty; eight where the machine is not busy
    assert held.server.stats()["connections"] == 1


def test_the_reply_queue_of_a_client(held: Held, broker: Broker) -> None:
    call = held.submit(1)[0]
    session = held.client._requests.life.session
    assert session is not None
    queue = session.reply_queue
    broker.ctl("delete_queue", queue)
    error = call.exception(10)
    assert isinstance(error, ConnectionLost)
    assert str(error).startswith(f"the broker cancelled the consumer of replies: queue '{queue}' was deleted")
    assert error.may_have_run
    assert held.client.call("echo", [1]) == 1
    assert held.client.stats()["connections"] == 2


def test_a_consumer_timeout(broker: Broker, second_broker: Callable[..., Broker], service: str) -> None:
    if tuple(map(int, broker.version.split(".")[:2])) < (4, 3):
        pytest.skip("before RabbitMQ 4.3 it closes the channel: see the fault case consumer-timeout")
    impatient = second_broker(extra_config={"consumer_timeout": "3000"})
    held = Held(impatient, service, queue_type="quorum")
    call = held.submit(1)[0]
    wait_for(lambda: held.server.stats()["consumers_cancelled"] >= 1, 30)
    wait_for(lambda: held.server.stats()["received"] >= 2, 30)  # the same request: the broker has requeued it
    held.gate.set()
    assert call.result(120) == 0
    # Its late acknowledgement is ignored.
    assert held.client.call("echo", [1]) == 1
    wait_for(lambda: len(consumers(impatient, held.queue)) == 1, 20)
    assert held.server.stats()["connections"] == 1
    held.close()
