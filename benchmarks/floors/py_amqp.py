"""
The floor in Python: py-amqp's channels over the line protocol, without kombu and JSON.

FL_REPLY=topic goes over a topic exchange with one reply queue, FL_REPLY=direct over the default exchange and direct
reply-to, as ``pingpong.c`` does. Transient, no acknowledgements, not mandatory. FL_TUNED=1 applies ``tune``. A client
also knows "notify CALLS IN_FLIGHT": persistent, mandatory publishes to a durable queue, each confirmed by the broker.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

from benchmarks.lines import URL, Numbers, now, one_at_a_time, role, run_commands, say, summary, windowed

EXCHANGE = "bench.floor"
TOPIC = os.environ.get("FL_REPLY", "topic") == "topic"
# The body of one of our notifications.
NOTIFICATION = '{"jsonrpc":"2.0","method":"add","params":[1234,1]}'


def tune(connection: Any) -> None:
    """
    Make a connection as fast as it can be without changes to py-amqp.

    Publishing no longer polls the socket for ``connection.blocked``, and one read of up to 64 KiB returns many frames,
    where the library makes three reads for each.
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
                        raise OSError("a frame without its end octet")
                    return kind, channel, data[position - size - 1 : position - 1]
            more = receive(65536)
            if not more:
                raise OSError("the broker closed the connection")
            data, position = data[position:] + more, 0

    transport.read_frame = read_frame


def connect() -> Any:
    """Return a connection to the broker."""
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
    """Send each body back."""
    connection = connect()
    channel = connection.channel()
    declare(channel, queue)
    publish, message = channel.basic_publish, amqp.Message
    prefix = len(f"{queue}.request.")

    def reply_by_topic(request: Any) -> None:
        key = request.delivery_info["routing_key"]
        publish(message(request.body), EXCHANGE, f"{queue}.response.{key[prefix:]}")

    def reply_directly(request: Any) -> None:
        properties = request.properties
        publish(message(request.body, correlation_id=properties["correlation_id"]), "", properties["reply_to"])

    reply = reply_by_topic if TOPIC else reply_directly
    # Do not publish in the callback: py-amqp's publish reads events first, and would call it again recursively.
    waiting: deque[Any] = deque()
    channel.basic_consume(queue, no_ack=True, callback=waiting.append)
    say("READY")
    while True:
        connection.drain_events()
        while waiting:
            reply(waiting.popleft())


class Caller:
    """Calls the server of ``queue``."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._connection = connect()
        self._channel = self._connection.channel()
        self._results: dict[str, int] = {}
        self._sent = 0
        declare(self._channel, queue)
        self._send = self._by_topic() if TOPIC else self._directly()

    def run(self, calls: int, in_flight: int) -> Numbers:
        if in_flight == 1:
            return one_at_a_time(self._call, calls)
        return windowed(self._send_add, self._connection.drain_events, self._results, calls, in_flight)

    def _send_add(self, i: int) -> str:
        self._sent += 1
        key = str(self._sent)
        self._send(key, str(i + 1))
        return key

    def _call(self, i: int, _one: int) -> int:
        key = self._send_add(i)
        while key not in self._results:
            self._connection.drain_events()
        return self._results.pop(key)

    def _by_topic(self) -> Callable[[str, str], None]:
        channel, queue, results, publish = self._channel, self._queue, self._results, self._channel.basic_publish
        client = f"c{os.getpid()}"
        replies = channel.queue_declare("", exclusive=True, auto_delete=True).queue
        channel.queue_bind(replies, EXCHANGE, f"{queue}.response.{client}.#")

        def on_reply(reply: Any) -> None:
            results[reply.delivery_info["routing_key"].rpartition(".")[2]] = int(reply.body)

        channel.basic_consume(replies, no_ack=True, callback=on_reply)
        return lambda key, body: publish(amqp.Message(body), EXCHANGE, f"{queue}.request.{client}.{key}")

    def _directly(self) -> Callable[[str, str], None]:
        queue, results, publish, message = self._queue, self._results, self._channel.basic_publish, amqp.Message

        def on_reply(reply: Any) -> None:
            results[reply.properties["correlation_id"]] = int(reply.body)

        reply_to = "amq.rabbitmq.reply-to"
        self._channel.basic_consume(reply_to, no_ack=True, callback=on_reply)
        return lambda key, body: publish(message(body, reply_to=reply_to, correlation_id=key), "", queue)


class Notifier:
    """Publishes to a durable queue, and awaits the confirm of each message."""

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
        channel.events["basic_ack"].add(self._acked)
        channel.events["basic_nack"].add(self._nacked)
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

    def _acked(self, tag: int, multiple: bool) -> None:
        end = now()
        if not multiple:
            self._times.append(end - self._under_way.pop(tag))
            return
        # Delivery tags ascend, so the oldest come first.
        while self._under_way and (oldest := next(iter(self._under_way))) <= tag:
            self._times.append(end - self._under_way.pop(oldest))

    def _nacked(self, tag: int, multiple: bool) -> None:
        before = len(self._times)
        self._acked(tag, multiple)
        self._bad += len(self._times) - before

    def _returned(self, *_args: Any) -> None:
        self._bad += 1  # the broker confirms a returned message, too


def call(queue: str) -> None:
    """Run the harness's commands until it quits."""
    if os.environ.get("FL_NOTIFY") == "1":
        run_commands({"notify": Notifier(queue).notify})
    else:
        run_commands({"run": Caller(queue).run})


if __name__ == "__main__":
    what, which = role()
    (serve if what == "server" else call)(which)
