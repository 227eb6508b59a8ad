"""Every example of section 7 of the specification, over RabbitMQ, sent and received by another AMQP library."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from jsonrpc_amqp import Server

EXAMPLES = json.loads((Path(__file__).parents[1] / "vectors" / "specification.json").read_text())["examples"]
DIRECT = "amq.rabbitmq.reply-to"
METHODS: dict[str, Callable[..., Any]] = {
    "subtract": lambda minuend, subtrahend: minuend - subtrahend,
    "sum": lambda *numbers: sum(numbers),
    "get_data": lambda: ["hello", 5],
    "update": lambda *_: None,
    "notify_hello": lambda *_: None,
    "notify_sum": lambda *_: None,
}


@pytest.fixture(scope="module")
def server(broker: Any) -> Iterator[Server]:
    with Server(broker.url, "specification", methods=METHODS) as server:
        yield server


@pytest.fixture(params=["topic", "direct", "reply queue"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def channel(url: str, server: Server) -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    yield connection.channel()
    connection.close()


def ask(channel: BlockingChannel, mode: str, body: bytes, wait: float) -> bytes | None:
    """Send a request as a client in any language would, and give the answer's bytes."""
    queue = DIRECT if mode == "direct" else channel.queue_declare("", exclusive=True).method.queue
    reply_to = None if mode == "topic" else queue
    if mode == "topic":
        channel.queue_bind(queue, "jsonrpc", "specification.response.q538")
    answers: list[bytes] = []
    channel.basic_consume(queue, lambda _c, _m, properties, body: answers.append(body), auto_ack=True)
    exchange, key = ("jsonrpc", "specification.request.q538") if mode == "topic" else ("", "specification_req")
    properties = pika.BasicProperties(reply_to=reply_to, correlation_id="538")
    channel.basic_publish(exchange, key, body, properties, mandatory=True)
    deadline = time.monotonic() + wait
    while not answers and time.monotonic() < deadline:
        channel.connection.process_data_events(time_limit=0.05)
    return answers[0] if answers else None


@pytest.mark.parametrize("example", EXAMPLES, ids=[each["description"] for each in EXAMPLES])
def test_example(channel: BlockingChannel, mode: str, example: dict[str, Any]) -> None:
    expected = example["response"]
    answer = ask(channel, mode, example["request"].encode(), 0.3 if expected is None else 10)
    if expected is None:
        assert answer is None
    else:
        assert answer is not None
        assert comparable(json.loads(answer)) == comparable(expected)


def comparable(response: Any) -> Any:
    """Give a response without the order of a batch, and without ``data``, which is left to the server."""
    if isinstance(response, list):
        return sorted((comparable(each) for each in response), key=json.dumps)
    error = {key: value for key, value in response.get("error", {}).items() if key != "data"}
    return {**response, "error": error} if error else response
