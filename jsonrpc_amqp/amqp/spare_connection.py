"""
A second connection, for replies over which the broker may end a connection; its loss costs only the reply that it sent.

It is made when it is first needed, by a thread of its own, which sends one reply at a time and waits until the broker
has taken it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import ConnectionLost, MaybeRejected, NotConnected, TransportError
from .base import Publish
from .broker_errors import closed
from .deadline import Deadline
from .py_amqp import AmqpConnection
from .url import BrokerURL

# Replies that may wait; a further one is not sent.
MOST_WAITING = 1000
# Seconds: for one reply; until a connection that is not used is closed; and between an end by the broker and the next
# connection, since each costs the broker something.
_TIMEOUT, _IDLE, _PAUSE = 5.0, 10.0, 0.1


class _Item(NamedTuple):
    message: Publish
    done: Callable[[TransportError | None], None]


class SpareConnection:
    """
    Sends replies one at a time. Senders take turns, so that one with many of them does not hold up another.

    Args:
        url: Where to connect, for errors.
        connect: Connects, within a deadline.
        run: Runs a function that blocks, on a thread of its own (``Runtime.run_blocking``).
    """

    def __init__(
        self,
        url: BrokerURL,
        connect: Callable[[Deadline], AmqpConnection],
        run: Callable[[Callable[[], None]], None],
    ) -> None:
        self._url = url
        self._connect = connect
        self._run_blocking = run
        self._changed = threading.Condition(threading.Lock())
        self._waiting: OrderedDict[str | None, deque[_Item]] = OrderedDict()
        self._count = 0
        self._is_running = self._is_closed = False
        self._deadline = Deadline(0.0)

    def send(self, sender: str | None, message: Publish, done: Callable[[TransportError | None], None]) -> None:
        """
        Send a reply; ``done`` is called once, by any thread.

        Its error is ``MaybeRejected`` if the broker ended the connection over this reply.
        """
        try:
            with self._changed:
                is_full = self._is_closed or self._count >= MOST_WAITING
                if not is_full:
                    self._start()
                    self._waiting.setdefault(sender, deque()).append(_Item(message, done))
                    self._count += 1
                    self._changed.notify()
        except TransportError as exc:  # no more threads
            done(exc)
            return
        if is_full:
            done(NotConnected(f"more than {MOST_WAITING} replies wait for a second connection, or it is closed"))

    def close(self) -> None:
        """End the connection and the thread; what waits is not sent, and reported so."""
        with self._changed:
            self._is_closed = True
            left = [item for items in self._waiting.values() for item in items]
            self._waiting.clear()
            self._changed.notify()
            self._deadline.cancel()
        for item in left:
            item.done(ConnectionLost("the connection was lost before a second one could send the reply"))

    def _start(self) -> None:
        if not self._is_running:
            self._run_blocking(self._run)
            self._is_running = True

    def _next(self) -> _Item | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed, _IDLE)
            if not self._waiting or self._is_closed:
                self._is_running = False
                return None
            sender, items = self._waiting.popitem(last=False)
            item = items.popleft()
            if items:
                self._waiting[sender] = items  # behind all others
            self._count -= 1
            return item

    def _run(self) -> None:
        channel: _ConfirmingChannel | None = None
        try:
            while (item := self._next()) is not None:
                error: TransportError | None = None
                try:
                    if channel is None:
                        channel = self._open()
                    channel.send(item.message)
                except Exception as exc:
                    error = self._explain(exc)
                    if channel is not None:
                        channel.discard()
                        channel = None
                item.done(error)
                if error is not None:
                    self._pause()
        finally:
            if channel is not None:
                channel.discard()

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, _PAUSE)

    def _open(self) -> _ConfirmingChannel:
        deadline = Deadline(_TIMEOUT)
        with self._changed:
            self._deadline = deadline
            if self._is_closed:
                deadline.cancel()
        return _ConfirmingChannel(self._connect(deadline))

    def _explain(self, exc: Exception) -> TransportError:
        if isinstance(exc, TransportError):
            return exc
        error = closed(exc, self._url)
        kind = MaybeRejected if isinstance(error, MaybeRejected) else ConnectionLost
        return kind(f"the second connection, for replies that the broker may not take: {error}")


class _ConfirmingChannel:
    """A channel in confirm mode on a connection of its own, used by one thread."""

    def __init__(self, connection: AmqpConnection) -> None:
        self._connection = connection
        try:
            self._encoder = connection.encoder()
            channel: Any = connection.open_channel(1)
            channel.confirm_select()
            channel.events["basic_ack"].add(self._taken)
            channel.events["basic_nack"].add(self._taken)
        except BaseException:
            connection.collect()
            raise
        self._is_taken = False

    def send(self, message: Publish) -> None:
        """Publish, and wait until the broker has taken it."""
        self._is_taken = False
        self._connection.deadline.allow(_TIMEOUT)
        self._connection.transport.write(self._encoder.publish(1, message))
        while not self._is_taken:
            self._connection.blocking_read()

    def discard(self) -> None:
        """Close the socket."""
        self._connection.collect()

    def _taken(self, *_args: object) -> None:
        self._is_taken = True
