"""
Looks through a queue, message by message (``basic.get``). Blocking, for operators.

What is taken and not acknowledged is requeued when the browser closes. A classic queue puts it back to its place. A
quorum queue puts it behind the rest, does not keep the order of more than some thirty, and counts the delivery
(``x-delivery-count``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from struct import pack
from types import TracebackType
from typing import Any

from ..errors import TransportError
from ..options import ConnectionOptions
from .base import Delivery
from .broker_errors import describe
from .frames import BASIC, Event, Frame, Undecoded
from .py_amqp import connect_to_first

# Seconds that the queue may take to show a requeued message; another consumer may have taken it meanwhile.
_PATIENCE = 1.0
_GET, _NACK = (BASIC, 70), (BASIC, 120)
_GET_EMPTY = pack(">HH", BASIC, 72)


class QueueBrowser:
    """
    Takes the messages of one queue, over a connection of its own.

    Args:
        url: As for ``connection.Connection``; several are tried in turn.
        queue: The queue's name.
        max_body: Bodies, and headers, over this many bytes are not kept.
        timeout: Seconds for each operation.
        connect_timeout: Seconds for one attempt to connect.
        connection_name: Shown by RabbitMQ's management.
        tls: py-amqp's TLS options.

    Attributes:
        count: How many messages waited in the queue when it began.

    Raises:
        NotConnected, AccessRefused: There is no connection.
        TopologyMismatch: There is no such queue.
    """

    def __init__(
        self,
        url: str,
        queue: str,
        *,
        max_body: int,
        timeout: float,
        connect_timeout: float,
        connection_name: str,
        tls: Mapping[str, Any] | None,
    ) -> None:
        self._queue = queue
        self._timeout = timeout
        self._held = 0

        self._url, self._connection = connect_to_first(
            url, ConnectionOptions(connection_name, heartbeat=0, connect_timeout=connect_timeout, tls=tls)
        )
        self._decoder = self._connection.browsing_decoder(max_body=max_body)
        try:
            with self._bounded():
                self._channel = self._connection.open_channel(1)
                self.count = self._waiting()
        except BaseException:
            self._connection.collect()
            raise

    def __enter__(self) -> QueueBrowser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self) -> Delivery | None:
        """
        Take the next message; None when there is no other. One that cannot be decoded has no body and no properties.

        Raises:
            AccessRefused: The user may not read the queue.
        """
        with self._bounded():
            self._channel.send_method(_GET, "Bsb", (0, self._queue, False))
            while True:
                for event in self._next_events():
                    if isinstance(event, (Delivery, Undecoded)):
                        self._held += 1
                        return event if isinstance(event, Delivery) else event.delivery
                    if isinstance(event, Frame):
                        if event.payload.startswith(_GET_EMPTY):
                            return None
                        self._connection.handle(event)

    def _next_events(self) -> Iterator[Event]:
        """Read one frame. Not by py-amqp, which fails on texts that are not UTF-8."""
        for piece in self._connection.read_in_pieces():
            yield from self._decoder.feed(piece)

    def ack(self, message: Delivery) -> None:
        """Remove a message that was taken from its queue."""
        with self._bounded():
            self._channel.basic_ack(message.tag)
            self._held -= 1

    def close(self) -> None:
        """Requeue what was taken and not acknowledged."""
        # Where this fails, the broker requeues it when it finds the connection gone.
        with suppress(TransportError), self._bounded():
            if self._held and self._channel.is_open:
                self._requeue()
            self._connection.close()
        self._connection.collect()

    def _requeue(self) -> None:
        most, grew = self._waiting(), time.monotonic()
        complete = most + self._held
        # Closing the channel would requeue as well, but to a quorum queue in any order.
        self._channel.send_method(_NACK, "Lbb", (0, True, True))  # all, and requeue
        # The broker does not confirm it, and the next browser has to find all of them.
        while most < complete and time.monotonic() - grew < _PATIENCE:
            count = self._waiting()
            if count > most:
                most, grew = count, time.monotonic()
            else:
                time.sleep(0.01)

    def _waiting(self) -> int:
        return int(self._channel.queue_declare(self._queue, passive=True).message_count)

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        self._connection.deadline.allow(self._timeout)
        try:
            yield
        except Exception as exc:
            raise describe(exc, self._url) from exc.with_traceback(None)
