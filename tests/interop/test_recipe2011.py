"""The recipe of 2011: what its programs publish, byte for byte, and a reimplementation of its broker."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pytest

from jsonrpc_amqp import CallTimeout, Client

from ..command import run, serving

EXCHANGE, QUEUE, TOPIC = "TestExchange", "ExampleBroker_req", "example"
# RabbitMQ's MessageProperties.PERSISTENT_TEXT_PLAIN.
PROPERTIES = pika.BasicProperties(content_type="text/plain", delivery_mode=2, priority=0)
ONE_WAY = (f"{TOPIC}.request", b'{"q":{"q":"hello AMQP backend, I am Java"}}')
CALL = (f"{TOPIC}.request.q518", b'{"q":{"q":"time can you get me please?"},"qid":"q518"}')
SERVE = ["--dialect", "recipe2011", "--exchange", EXCHANGE, "--queue", QUEUE, "--service", TOPIC]


@contextmanager
def java_client(url: str, qid: str) -> Iterator[Any]:
    """Do what the recipe's Java client does: declare, and bind one key to a queue of its own."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "topic", durable=True)
    channel.queue_declare(QUEUE, durable=True)
    replies = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
    channel.queue_bind(replies, EXCHANGE, f"{TOPIC}.response.{qid}")
    yield channel, replies
    connection.close()


def receive(channel: Any, queue: str, seconds: float = 5.0) -> tuple[Any, bytes]:
    give_up = time.monotonic() + seconds
    while True:
        _method, properties, body = channel.basic_get(queue, auto_ack=True)
        if body is not None:
            return properties, body
        assert time.monotonic() < give_up, "no answer"
        channel.connection.process_data_events(time_limit=0.02)


@pytest.mark.peer("recipe in", works="a call of its Java client gets the time, its one-way message reaches the method")
def test_the_java_client_gets_the_time(url: str) -> None:
    with (
        serving("examples.example_broker", "--recipe-method", "time.now", *SERVE, url=url),
        java_client(url, "q518") as (channel, replies),
    ):
        channel.basic_publish(EXCHANGE, *CALL, PROPERTIES)
        properties, body = receive(channel, replies)
        answer = json.loads(body)
        assert list(answer) == ["msg"]
        assert abs(time.mktime(time.strptime(answer["msg"])) - time.time()) < 10
        # The recipe's Python client would parse any other content type as JSON, and then parse it again.
        assert (properties.content_type, properties.content_encoding) == ("text/plain", None)


@pytest.mark.peer("recipe in", works="a call of its Java client gets the time, its one-way message reaches the method")
def test_the_java_clients_one_way_message(url: str) -> None:
    with (
        serving("examples.example_broker", "--recipe-method", "log.write", *SERVE, url=url) as server,
        java_client(url, "q1") as (channel, replies),
    ):
        channel.basic_publish(EXCHANGE, *ONE_WAY, PROPERTIES)
        server.wait_until_said("{'q': 'hello AMQP backend, I am Java'}")
        assert channel.basic_get(replies)[2] is None


@pytest.mark.peer("recipe in", works="its Python client, which always uses the same routing key")
def test_the_python_client_gets_the_time(url: str) -> None:
    with (
        serving("examples.example_broker", "--recipe-method", "time.now", *SERVE, url=url),
        java_client(url, "537") as (channel, replies),
    ):
        channel.basic_publish(EXCHANGE, f"{TOPIC}.request.*", b'{"q": "what time is it?", "qid": "537"}', PROPERTIES)
        began = time.monotonic()
        assert json.loads(receive(channel, replies)[1])["msg"]
        # The recipe's client checks once, 0.2 s after its request.
        assert time.monotonic() - began < 0.2 + 0.3


@pytest.mark.peer("recipe in", works="JSON-RPC on the same queue; malformed messages are dropped and counted")
def test_json_rpc_beside_it(url: str) -> None:
    with (
        serving("examples.example_broker", "--recipe-method", "time.now", *SERVE, url=url) as server,
        java_client(url, "q518") as (channel, replies),
    ):
        channel.basic_publish(EXCHANGE, f"{TOPIC}.request.q518", b'{"qid": "q518"}', PROPERTIES)
        server.wait_until_said("malformed")
        done = run("call", "time.now", "--service", TOPIC, "--exchange", EXCHANGE, url=url)
        assert "msg" in json.loads(done.stdout)
        channel.basic_publish(EXCHANGE, *CALL, PROPERTIES)
        assert json.loads(receive(channel, replies)[1])["msg"]


# -- our client, the recipe's broker ----------------------------------------------------------------------------------


class OldBroker:
    """
    Does what the recipe's Python broker does.

    It binds exactly one word after ``request``, parses text as JSON, and replies if there is a ``qid``.
    """

    def __init__(self, url: str) -> None:
        self.seen: list[Any] = []
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._channel = self._connection.channel()
        self._channel.exchange_declare(EXCHANGE, "topic", durable=True)
        self._channel.queue_declare(QUEUE, durable=True)
        self._channel.queue_bind(QUEUE, EXCHANGE, f"{TOPIC}.request.*")
        self._channel.queue_purge(QUEUE)
        self._channel.basic_consume(QUEUE, self._request)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _request(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        # carrot decodes by content type: it would parse JSON first, and the recipe would then not acknowledge it.
        assert properties.content_type == "text/plain"
        data = json.loads(body)
        self.seen.append(data)
        channel.basic_ack(method.delivery_tag)
        if data.get("qid"):
            there = pika.BasicProperties(content_type="application/data", content_encoding="utf-8", delivery_mode=2)
            answer = json.dumps({"msg": time.ctime()}).encode()
            channel.basic_publish(EXCHANGE, f"{TOPIC}.response.{data['qid']}", answer, there)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._connection.process_data_events(time_limit=0.02)
        self._connection.close()

    def __enter__(self) -> OldBroker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.peer("recipe out", works="calls, notifications, 200 at once; `call --dialect recipe2011`")
def test_our_client_calls_the_old_broker(url: str) -> None:
    with OldBroker(url) as old, Client(url, TOPIC, exchange=EXCHANGE, dialect="recipe2011", timeout=10) as client:
        assert list(client.call("any", [{"q": "time can you get me please?"}])) == ["msg"]
        client.notify("any", ["hello"])
        futures = [client.submit("any", [number]) for number in range(200)]
        assert all("msg" in future.result(10) for future in futures)
        assert old.seen[0]["q"] == {"q": "time can you get me please?"}
        assert old.seen[1] == {"q": "hello"}
        assert len({each["qid"] for each in old.seen[2:]}) == 200
        words = ["--dialect", "recipe2011", "--exchange", EXCHANGE, "--service", TOPIC]
        done = run("call", "any", '["what time is it?"]', *words, url=url)
        assert list(json.loads(done.stdout)) == ["msg"]


@pytest.mark.peer("recipe out", works="if the old broker is gone, calls end in a `CallTimeout` that says so")
def test_an_old_broker_that_is_gone(url: str) -> None:
    with OldBroker(url):
        pass
    with Client(url, TOPIC, exchange=EXCHANGE, dialect="recipe2011", timeout=0.5) as client, pytest.raises(CallTimeout):
        client.call("any")
