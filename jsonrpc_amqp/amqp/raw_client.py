"""
A client that sends any key, any property and any bytes, and shows all that a reply carries.

Blocking and slow: it exists to look at what is on the wire (the conformance kit does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any

from ..errors import TopologyMismatch
from ..options import ConnectionOptions
from .base import DIRECT_REPLY_TO
from .broker_errors import describe
from .py_amqp import connect_to_first, raw_message

# Seconds; enough for what is in the socket's buffer.
_MOMENT = 0.001


@dataclass(frozen=True, slots=True)
class Message:
    """
    A message that arrived.

    Attributes:
        queue: The queue that it was in; empty for one that the broker returned (``basic.return``).
        properties: By AMQP's names.
    """

    queue: str
    exchange: str
    routing_key: str
    body: bytes
    properties: Mapping[str, Any]


class RawClient:
    """
    One connection, with any number of exclusive queues.

    Args:
        url: As for ``connection.Connection``; several are tried in turn.
        timeout: Seconds for each operation, and for connecting.
        connection_name: Shown by RabbitMQ's management.
        tls: py-amqp's TLS options.

    Raises:
        NotConnected, AccessRefused: There is no connection.
    """

    def __init__(self, url: str, *, timeout: float, connection_name: str, tls: Mapping[str, Any] | None = None) -> None:
        self._timeout = timeout
        self._arrived_messages: list[Message] = []
        self._channels = count(2)
        self._url, self._connection = connect_to_first(
            url, ConnectionOptions(connection_name, heartbeat=0, connect_timeout=timeout, tls=tls)
        )
        self._connection.takes_messages = True
        try:
            with self._bounded():
                self._channel = self._connection.open_channel(1)
                self._channel.events["basic_return"].add(self._returned)
                self._consume(DIRECT_REPLY_TO)
                self.replies = self.queue()
        except BaseException:
            self._connection.collect()
            raise

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.collect()

    def queue(self, name: str = "") -> str:
        """
        Declare and consume an exclusive queue; return its name.

        Raises:
            TransportError: The broker does not allow it.
        """
        with self._bounded():
            declared = self._channel.queue_declare(name, exclusive=True, auto_delete=True)
            self._consume(declared.queue)
            return str(declared.queue)

    def bind(self, exchange: str, key: str) -> None:
        """
        Bind the queue ``replies``.

        Raises:
            TransportError: There is no such exchange, or it may not be read.
        """
        with self._bounded():
            self._channel.queue_bind(self.replies, exchange, key)

    def publish(self, exchange: str, key: str, body: bytes, properties: Mapping[str, Any]) -> None:
        """Send a message, mandatory."""
        with self._bounded():
            self._channel.basic_publish(raw_message(body, properties), exchange, key, mandatory=True)

    def waiting(self, queue: str) -> int | None:
        """Return how many messages are ready in a queue; None: there is no such queue."""
        try:
            with self._bounded():
                # A channel of its own: the broker closes it where there is no such queue.
                channel = self._connection.open_channel(next(self._channels))
                waiting = int(channel.queue_declare(queue, passive=True).message_count)
                channel.close()
                return waiting
        except TopologyMismatch:
            return None

    def take(self, seconds: float, *, until: int = 1) -> list[Message]:
        """Return what arrives within so many seconds; earlier, once there are ``until`` messages."""
        with self._bounded(seconds), suppress(TimeoutError):
            while len(self._arrived_messages) < until:
                self._connection.blocking_read()  # one frame
        return self.forget()

    def forget(self) -> list[Message]:
        """Return what has arrived until now, and was not taken."""
        with self._bounded(_MOMENT), suppress(TimeoutError):
            while True:
                self._connection.blocking_read()  # one frame
        messages, self._arrived_messages = self._arrived_messages, []
        return messages

    def _consume(self, queue: str) -> None:
        self._channel.basic_consume(queue, no_ack=True, callback=lambda message: self._arrived(queue, message))

    def _arrived(self, queue: str, message: Any) -> None:
        info = message.delivery_info
        self._arrived_messages.append(
            Message(queue, info["exchange"], info["routing_key"], message.body, message.properties)
        )

    def _returned(self, _error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        self._arrived_messages.append(Message("", exchange, routing_key, message.body, message.properties))

    @contextmanager
    def _bounded(self, seconds: float | None = None) -> Iterator[None]:
        self._connection.deadline.allow(self._timeout if seconds is None else seconds)
        try:
            yield
        except Exception as exc:
            raise describe(exc, self._url) from exc.with_traceback(None)
