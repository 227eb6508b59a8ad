"""Calling a queue by its name, as the clients of other AMQP libraries do, and as their servers want it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pytest

from jsonrpc_amqp import CallTimeout, Client, InvalidName, MethodNotFound, Server, Unroutable

from ..tools import wait_for


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, service: str) -> str:
    """Give a URL."""
    return f"memory://{service}" if request.param == "memory" else str(request.getfixturevalue("url"))


@pytest.fixture(params=["queue", "direct"])
def reply(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server(place: str, service: str) -> Iterator[Server]:
    methods: dict[str, Callable[..., Any]] = {"add": lambda a, b: a + b, "sleep": time.sleep}
    with Server(place, service, methods=methods) as server:
        yield server


@contextmanager
def calling(place: str, queue: str, reply: Any) -> Iterator[Client]:
    with Client(place, queue=queue, reply=reply, timeout=10) as client:
        yield client


def test_services_can_be_called_by_their_queues(server: Server, place: str, service: str, reply: Any) -> None:
    methods: dict[str, Callable[..., Any]] = {"add": lambda a, b: [a, b]}
    other = Server(place, f"{service}.other", methods=methods)
    with other, Client(place, service, route="queue", reply=reply, timeout=10) as client:
        assert client.call("add", [1, 2]) == 3
        assert client.call("add", [1, 2], service=f"{service}.other") == [1, 2]
        with pytest.raises(Unroutable):
            client.call("add", [1, 2], service=f"{service}.never")
        with pytest.raises(InvalidName):
            client.call("add", [1, 2], service="a b")


def test_every_form_of_a_call(server: Server, place: str, service: str, reply: Any) -> None:
    with calling(place, f"{service}_req", reply) as client:
        assert client.call("add", [1, 2]) == 3
        assert client.submit("add", {"a": 1, "b": 2}).result(10) == 3
        assert client.proxy.add("a", "b") == "ab"
        assert client.send_raw(b"[]") is not None
        with client.batch() as batch:
            three = batch.call("add", [1, 2])
        assert three.result() == 3
        with pytest.raises(MethodNotFound):
            client.call("absent")
        received = server.stats()["received"]
        client.notify("add", [1, 2])
        wait_for(lambda: server.stats()["received"] == received + 1)


def test_many_at_once(server: Server, place: str, service: str, reply: Any) -> None:
    with calling(place, f"{service}_req", reply) as client:
        futures = [client.submit("add", [number, 1]) for number in range(500)]
        assert [future.result(10) for future in futures] == list(range(1, 501))


def test_a_missing_queue_is_known_at_once(place: str, service: str, reply: Any) -> None:
    with calling(place, f"{service}_absent", reply) as client:
        began = time.monotonic()
        with pytest.raises(Unroutable, match=f"no queue '{service}_absent'"):
            client.call("add", [1, 2])
        assert time.monotonic() - began < 5


def test_a_timeout_tells_about_the_queue(server: Server, place: str, service: str, reply: Any) -> None:
    with calling(place, f"{service}_req", reply) as client, pytest.raises(CallTimeout, match=f"'{service}_req' has 1"):
        client.call("sleep", [1], timeout=0.3)


def test_a_timeout_tells_what_is_not_known_about_the_queue(url: str, service: str) -> None:
    """The queue exists, but the broker describes an exclusive one to its own connection only."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_declare(service, exclusive=True)
    with Client(url, queue=service) as client, pytest.raises(CallTimeout) as caught:
        client.call("add", [1, 2], timeout=2)
    connection.close()
    assert f"how many consumers queue '{service}' has is not known" in str(caught.value)
    assert "exclusive to another connection" in str(caught.value)
    assert caught.value.may_have_run


def test_the_topic_exchange_can_be_answered_by_queue_as_well(server: Server, place: str, service: str) -> None:
    with Client(place, service, reply="queue", timeout=10) as client:
        assert client.call("add", [1, 2]) == 3


def test_no_exchange_is_declared(url: str, service: str) -> None:
    # To call another program's queue, a user need not be allowed to declare anything of ours.
    never = f"{service}_never"
    client = Client(url, exchange=never, queue=f"{service}_req", timeout=5)
    with Server(url, service), client, pytest.raises(MethodNotFound):
        client.call("absent")
    connection = pika.BlockingConnection(pika.URLParameters(url))
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        connection.channel().exchange_declare(never, passive=True)
    connection.close()


def test_what_is_on_the_wire(url: str, service: str) -> None:
    """Against a server that knows the convention and nothing of us."""
    seen: list[pika.BasicProperties] = []
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.queue_declare(service, auto_delete=True)

    def answer(_channel: Any, method: Any, properties: pika.BasicProperties, _body: bytes) -> None:
        assert (method.exchange, method.routing_key) == ("", service)
        seen.append(properties)
        body = b'{"jsonrpc": "2.0", "result": "pong", "id": 1}'
        there = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body, there)

    channel.basic_consume(service, answer, auto_ack=True)
    serving = threading.Thread(target=lambda: _serve_until(connection, seen))
    serving.start()
    with Client(url, queue=service, timeout=5) as client:
        assert client.call("ping") == "pong"
    serving.join()
    connection.close()
    assert seen[0].reply_to.startswith("amq.gen-")
    assert (seen[0].content_type, seen[0].content_encoding) == ("application/json", None)
    assert seen[0].correlation_id == "1"


def _serve_until(connection: Any, seen: list[Any]) -> None:
    give_up = time.monotonic() + 10
    while not seen and time.monotonic() < give_up:
        connection.process_data_events(time_limit=0.05)


def test_answers_come_after_a_reconnect(broker: Any, service: str) -> None:
    methods: dict[str, Callable[..., Any]] = {"add": lambda a, b: a + b}
    with Server(broker.url, service, methods=methods), calling(broker.url, f"{service}_req", "queue") as client:
        assert client.call("add", [1, 2]) == 3
        connection: Any = client._requests._transport
        connection.post(lambda: connection._session.link.sock.shutdown(2))
        wait_for(lambda: client.stats()["connections"] == 2)
        assert client.call("add", [2, 2]) == 4


@pytest.mark.parametrize("queue", ["", "q" * 256])
def test_impossible_names(queue: str) -> None:
    with pytest.raises(InvalidName):
        Client("memory://", queue=queue)


def test_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="reply is 'queue' or 'direct'"):
        Client("memory://", queue="q", reply="topic")
    with pytest.raises(ValueError, match="calls queue 'q', so it cannot call service 'other'"):
        Client("memory://", queue="q").call("add", service="other")
    with pytest.raises(ValueError, match="reply is 'queue' or 'direct'"):
        Client("memory://", "s", route="queue", reply="topic")
    with pytest.raises(ValueError, match="leave out route"):
        Client("memory://", queue="q", route="topic")
    wrong: Any
    for wrong in (b"q", 5):
        with pytest.raises(InvalidName, match="is a string"):
            Client("memory://", queue=wrong)
    with pytest.raises(ValueError, match="route is"):
        Client("memory://", "s", route="air")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reply is"):
        Client("memory://", "s", reply="pigeon")  # type: ignore[arg-type]
