"""
The floor in Python: py-amqp's channels, no kombu, no JSON, over the line protocol.

FL_REPLY=topic goes over a topic exchange with one reply queue, FL_REPLY=direct over the default exchange and direct
reply-to, as ``pingpong.c`` does. Transient, no acknowledgements, not mandatory. FL_TUNED=1 is ``tune``. A client also
knows "notify CALLS IN_FLIGHT": persistent, mandatory publishes to a durable queue, each confirmed by the broker.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

from benchmarks.lines import URL, Numbers, answer_lines, now, one_at_a_time, role, say, summary, windowed

EXCHANGE = "bench.floor"
TOPIC = os.environ.get("FL_REPLY", "topic") == "topic"
# What one of our notifications has in its body.
NOTIFICATION = '{"jsonrpc":"2.0","method":"add","params":[1234,1]}'


def tune(connection: Any) -> None:
    """
    Make a connection as quick as py-amqp gets without its code being rewritten.

    Publishing no longer polls the socket for ``connection.blocked``, and frames are cut out of one read of up to
    64 KiB, where the library makes three reads for each.
    """
    connection.client_properties.get("capabilities", {}).pop("connection.blocked", None)
    transport = connection.transport
    receive = transport.sock.recv
    header = struct.Struct(">BHI").unpack_from
    data, position = bytes(transport._read_buffer), 0

    def read_frame() -> tuple[int, int, bytes]:
        nonlocal data, position
        while True:
            have = len(data) - position
            if have >= 8:
                kind, channel, size = header(data, position)
                if have >= size + 8:
                    position += size + 8
                    if data[position - 1] != 0xCE:
                        raise OSError("a frame without its end")
                    return kind, channel, data[position - size - 1 : position - 1]
            more = receive(65536)
            if not more:
                raise OSError("the broker closed the connection")
            data, position = data[position:] + more, 0

    transport.read_frame = read_frame


def connect() -> Any:
    """Give a connection to the broker."""
    url = urlsplit(URL)
    connection = amqp.Connection(
        f"{url.hostname}:{url.port or 5672}",
        userid=unquote(url.username or "guest"),
        password=unquote(url.password or "guest"),
        virtual_host=unquote(url.path[1:]) or "/",
        heartbeat=0,
    )
    connection.connect()
    if os.environ.get("FL_TUNED") == "1":
        tune(connection)
    return connection


def declare(channel: Any, queue: str) -> None:
    """Declare the request queue."""
    channel.queue_declare(queue, auto_delete=True, durable=False)
    if TOPIC:
        channel.exchange_declare(EXCHANGE, "topic", durable=False, auto_delete=False)
        channel.queue_bind(queue, EXCHANGE, f"{queue}.request.#")


def serve(queue: str) -> None:
    """Send back what comes."""
    connection = connect()
    channel = connection.channel()
    declare(channel, queue)
    publish, message = channel.basic_publish, amqp.Message
    prefix = len(f"{queue}.request.")

    def answer_by_topic(request: Any) -> None:
        key = request.delivery_info["routing_key"]
        publish(message(request.body), EXCHANGE, f"{queue}.response.{key[prefix:]}")

    def answer_directly(request: Any) -> None:
        properties = request.properties
        publish(message(request.body, correlation_id=properties["correlation_id"]), "", properties["reply_to"])

    answer = answer_by_topic if TOPIC else answer_directly
    # Not answered in the callback: py-amqp's publish reads events first, and would call it again without end.
    waiting: deque[Any] = deque()
    channel.basic_consume(queue, no_ack=True, callback=waiting.append)
    say("READY")
    while True:
        connection.drain_events()
        while waiting:
            answer(waiting.popleft())


class Caller:
    """Calls the server of ``queue``."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._connection = connect()
        self._channel = self._connection.channel()
        self._answers: dict[str, int] = {}
        self._sent = 0
        declare(self._channel, queue)
        self._send = self._by_topic() if TOPIC else self._directly()

    def run(self, calls: int, in_flight: int) -> Numbers:
        if in_flight == 1:
            return one_at_a_time(self._call, calls)
        return windowed(self._send_add, self._connection.drain_events, self._answers, calls, in_flight)

    def _send_add(self, i: int) -> str:
        self._sent += 1
        key = str(self._sent)
        self._send(key, str(i + 1))
        return key

    def _call(self, i: int, _one: int) -> int:
        key = self._send_add(i)
        while key not in self._answers:
            self._connection.drain_events()
        return self._answers.pop(key)

    def _by_topic(self) -> Callable[[str, str], None]:
        channel, queue, answers, publish = self._channel, self._queue, self._answers, self._channel.basic_publish
        client = f"c{os.getpid()}"
        replies = channel.queue_declare("", exclusive=True, auto_delete=True).queue
        channel.queue_bind(replies, EXCHANGE, f"{queue}.response.{client}.#")

        def came(answer: Any) -> None:
            answers[answer.delivery_info["routing_key"].rpartition(".")[2]] = int(answer.body)

        channel.basic_consume(replies, no_ack=True, callback=came)
        return lambda key, body: publish(amqp.Message(body), EXCHANGE, f"{queue}.request.{client}.{key}")

    def _directly(self) -> Callable[[str, str], None]:
        queue, answers, publish, message = self._queue, self._answers, self._channel.basic_publish, amqp.Message

        def came(answer: Any) -> None:
            answers[answer.properties["correlation_id"]] = int(answer.body)

        reply_to = "amq.rabbitmq.reply-to"
        self._channel.basic_consume(reply_to, no_ack=True, callback=came)
        return lambda key, body: publish(message(body, reply_to=reply_to, correlation_id=key), "", queue)


class Notifier:
    """Publishes to a durable queue and awaits each confirm."""

    def __init__(self, queue: str) -> None:
        self._published = 0
        self._under_way: dict[int, int] = {}
        self._times: list[int] = []
        self._bad = 0
        self._connection = connect()
        self._channel = channel = self._connection.channel()
        self._name = queue
        channel.exchange_declare(EXCHANGE, "topic", durable=False, auto_delete=False)
        channel.queue_declare(self._name, durable=True, auto_delete=False)
        channel.queue_bind(self._name, EXCHANGE, f"{self._name}.request.#")
        channel.confirm_select()
        channel.events["basic_ack"].add(self._done)
        channel.events["basic_nack"].add(self._refused)
        channel.events["basic_return"].add(self._returned)

    def notify(self, calls: int, in_flight: int) -> Numbers:
        self._times, self._bad = [], 0
        publish, message, key = self._channel.basic_publish, amqp.Message, f"{self._name}.request.c{os.getpid()}"
        left, began = calls, now()
        while len(self._times) < calls:
            while left and len(self._under_way) < in_flight:
                left -= 1
                self._published += 1
                self._under_way[self._published] = now()
                publish(message(NOTIFICATION, delivery_mode=2), EXCHANGE, key, mandatory=True)
            self._connection.drain_events()
        figures = summary(self._times, now() - began, self._bad)
        self._channel.queue_purge(self._name)
        return figures

    def _done(self, tag: int, multiple: bool) -> None:
        end = now()
        if not multiple:
            self._times.append(end - self._under_way.pop(tag))
            return
        # Tags are given in order, so the oldest come first.
        while self._under_way and (oldest := next(iter(self._under_way))) <= tag:
            self._times.append(end - self._under_way.pop(oldest))

    def _refused(self, tag: int, multiple: bool) -> None:
        before = len(self._times)
        self._done(tag, multiple)
        self._bad += len(self._times) - before

    def _returned(self, *_args: Any) -> None:
        self._bad += 1  # and confirmed all the same


def call(queue: str) -> None:
    """Do what the harness wants until it quits."""
    if os.environ.get("FL_NOTIFY") == "1":
        answer_lines({"notify": Notifier(queue).notify})
    else:
        answer_lines({"run": Caller(queue).run})


if __name__ == "__main__":
    what, which = role()
    (serve if what == "server" else call)(which)
