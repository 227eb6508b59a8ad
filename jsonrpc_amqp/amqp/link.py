"""
One live connection: its socket, its channels, and py-amqp for what is rare.

``dial`` connects and sets up what a ``Plan`` says, and blocks; ``Link.go_live`` then takes the socket over.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import ConnectionLost, TransportError
from ..options import ConnectionOptions
from .base import DIRECT_REPLY_TO, Plan, QueueFacts
from .broker_errors import describe, say
from .frames import Frame
from .py_amqp import AmqpChannel, AmqpConnection, connect
from .redeclaration import Redeclaration
from .url import BrokerURL

# Each look at a dead letter counts as a delivery; without a limit RabbitMQ 4 drops it after twenty.
_NO_LIMIT = 1_000_000_000


class Link:
    """
    One live connection: its socket, its channels, and py-amqp for what is rare.

    Attributes:
        consumer_channel: Number of the channel that consumes.
        publisher_channel: Number of the channel that publishes without confirms.
        confirmer_channel: Number of the channel that publishes in confirm mode.
    """

    def __init__(self, connection: AmqpConnection, plan: Plan, url: BrokerURL, *, max_body: int) -> None:
        self._connection = connection
        self._plan = plan
        self._url = url
        self._next_channel = 1
        self._operations: deque[_Operation] = deque()
        self.reply_queue = ""
        self._redeclaration = Redeclaration(
            plan,
            self._perform,
            declare_exchange=self._declare_exchange,
            bind=self._bind,
            is_restorable=plan.declare and plan.queue is not None,
        )
        self._consumer_tag = ""
        self.where = url.where
        self.sock: socket.socket = connection.transport.sock
        self.sends_requests = plan.queue is None
        self.user = url.user
        self.heartbeat: float = connection.heartbeat or 0
        self.decoder = connection.decoder(max_body=max_body)
        self.encoder = connection.encoder()
        self._set_up(plan)

    # -- setting up (blocking) ------------------------------------------------------------------------

    def _set_up(self, plan: Plan) -> None:
        self._control = self._open_channel()
        if plan.exchange:
            self._declare_exchange(self._control, passive=not plan.declare)
        consumer = self._open_channel()
        self.consumer_channel = consumer.number
        direct = plan.reply_queue == "direct"
        self.publisher_channel = self.consumer_channel if direct else self._open_channel().number
        if direct and plan.confirm:
            consumer.confirm_select()
        self.confirmer_channel = self.publisher_channel if direct and plan.confirm else self._open_confirmer().number
        queue = self._declare_queue(plan)
        if plan.prefetch:
            consumer.basic_qos(0, plan.prefetch, False)
        if queue:
            # Last, so that no delivery arrives while py-amqp still reads the socket.
            self._consumer_tag = consumer.basic_consume(queue, no_ack=plan.reply_queue is not None)

    def _declare_queue(self, plan: Plan) -> str | None:
        if plan.reply_queue == "direct":
            return DIRECT_REPLY_TO
        if plan.reply_queue == "exclusive":
            # A new name each time: an exclusive name is locked for a while after a half-open connection.
            declared: Any = self._control.queue_declare("", durable=False, exclusive=True, auto_delete=True)
            self.reply_queue = declared.queue
        elif plan.queue is not None:
            self._declare_durable(plan.queue, _queue_arguments(plan), passive=not plan.declare)
            if plan.dead_letters and plan.declare:
                self._declare_dead_letters(plan.dead_letters, plan.queue, plan.queue_type)
        queue = self.reply_queue or plan.queue
        if queue and (plan.declare or self.reply_queue):
            for key in plan.bindings:
                self._bind(self._control, key)
            self._redeclaration.bindings.extend(plan.bindings)
        return queue

    def _declare_exchange(self, channel: AmqpChannel, *, passive: bool = False) -> None:
        channel.exchange_declare(self._plan.exchange, "topic", durable=True, auto_delete=False, passive=passive)

    def _bind(self, channel: AmqpChannel, key: str) -> None:
        channel.queue_bind(self.reply_queue or self._plan.queue or "", self._plan.exchange, key)

    def _declare_durable(self, queue: str, arguments: dict[str, Any], *, passive: bool = False) -> None:
        self._control.queue_declare(
            queue, passive=passive, durable=True, exclusive=False, auto_delete=False, arguments=arguments
        )

    def _declare_dead_letters(self, name: str, request_queue: str, queue_type: str | None) -> None:
        """
        Declare where dead letters go: an exchange, and a queue for all but what expired in ``request_queue``.

        What expired is routed to an exchange without queues, and the rest takes the alternate exchange. Keeping by
        reason would not do: a message may carry headers of an earlier death.
        """
        kept, expired = f"{name}_kept", f"{name}_expired"
        declare = partial(self._control.exchange_declare, durable=True, auto_delete=False)
        declare(kept, "fanout")
        declare(expired, "fanout")
        declare(name, "headers", arguments={"alternate-exchange": kept})
        self._declare_durable(name, _typed(queue_type, delivery_limit=_NO_LIMIT))
        self._control.queue_bind(name, kept, "")
        # https://www.rabbitmq.com/docs/dlx
        death = {"x-first-death-reason": "expired", "x-first-death-queue": request_queue}
        self._control.exchange_bind(expired, name, "", arguments={"x-match": "all-with-x", **death})

    def _open_channel(self) -> AmqpChannel:
        # Numbers are not reused: the broker would accept a delivery tag of a closed channel on its successor.
        while True:
            number, self._next_channel = self._next_channel, self._next_channel % self._connection.channel_max + 1
            if number not in self._connection.channels:
                break
        return self._connection.open_channel(number)

    def _open_confirmer(self) -> AmqpChannel:
        channel = self._open_channel()
        channel.confirm_select()
        return channel

    # -- live -------------------------------------------------------------------------------------------

    def go_live(
        self,
        *,
        write: Callable[[bytes], None],
        on_channel_closing: Callable[[int], None],
        on_channel_closed: Callable[[int, TransportError], None],
        on_consumer_cancelled: Callable[[], None],
        on_blocked: Callable[[bool], None],
        on_closed: Callable[[], None],
    ) -> bytes:
        """Take the socket from py-amqp; return the bytes that it had read already."""
        connection = self._connection
        transport = connection.transport
        connection.on_channel_closing = on_channel_closing
        connection.on_channel_closed = lambda number, error: self._channel_closed(number, error, on_channel_closed)
        connection.on_consumer_cancelled = on_consumer_cancelled
        connection.on_blocked = lambda _reason: on_blocked(True)
        connection.on_unblocked = lambda: on_blocked(False)
        connection.on_closed = on_closed
        connection.live = True
        self.sock.setblocking(False)
        transport._write = lambda data: write(bytes(data))
        early, transport._read_buffer = transport._read_buffer, b""
        return bytes(early)

    def handle(self, frame: Frame) -> None:
        """
        Have py-amqp handle a rare frame.

        Raises:
            ConnectionLost: The broker closed the connection, or does not speak AMQP.
        """
        channels = self._connection.channels  # None once the connection is closed
        if channels is None or frame.channel not in channels:
            return
        try:
            self._connection.handle(frame)
        except TransportError:
            raise
        except Exception as exc:
            raise ConnectionLost(f"the connection to the broker at {self.where} ended: {say(exc)}") from exc

    def read(self, size: int) -> bytes | None:
        """Read what has arrived. None: nothing; b"": the broker closed the connection."""
        try:
            return self.sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
            return None

    def write(self, data: bytes | memoryview) -> int:
        """Write as much as the socket takes now; return how many bytes that was."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
            return 0

    @property
    def tls(self) -> bool:
        """Whether one lock must cover reading and writing: two threads must not use an SSL object at once."""
        return isinstance(self.sock, ssl.SSLSocket)

    def buffered(self) -> bool:
        """Whether the TLS layer holds bytes, which a poll of the socket does not report."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def reopen_publisher(self) -> None:
        """Open a new channel for ``publish``. RabbitMQ takes publishes right behind ``channel.open``."""
        self.publisher_channel = self._open_channel().number

    def reopen_confirmer(self) -> None:
        """Open a new channel in confirm mode."""
        self.confirmer_channel = self._open_confirmer().number

    def bind(self, routing_key: str, done: Callable[[TransportError | None], None]) -> None:
        """Bind the reply queue with one more key."""

        def bound(_args: object) -> None:
            self._redeclaration.bindings.append(routing_key)
            done(None)

        self._perform(partial(self._bind, key=routing_key), bound, done)

    @property
    def is_busy(self) -> bool:
        """Whether an earlier operation is not answered yet."""
        return bool(self._operations)

    @property
    def can_redeclare(self) -> bool:
        """Whether a missing exchange can be declared, and only replies were to go over it."""
        return self._plan.declare and not self.sends_requests

    def redeclare(self, done: Callable[[], None] | None = None) -> None:
        """Declare and bind again; see ``Redeclaration.begin``."""
        self._redeclaration.begin(done)

    def inspect(self, queue: str, found: Callable[[QueueFacts | TransportError], None]) -> None:
        """Ask how many messages and consumers a queue has (passive ``queue.declare``)."""
        self._perform(
            lambda channel: channel.queue_declare(queue, passive=True),
            lambda args: found(QueueFacts(args[1], args[2])),
            found,
        )

    def cancel(self, done: Callable[[], None]) -> None:
        """Stop consuming; ``done`` when no delivery can follow."""
        channel = self._connection.channels.get(self.consumer_channel)
        if channel is None or not self._consumer_tag:
            done()
            return
        tag, self._consumer_tag = self._consumer_tag, ""
        channel.expecting(lambda _args: done())
        channel.basic_cancel(tag)

    def begin_close(self) -> None:
        """Ask the broker to close the connection (``connection.close``)."""
        self._connection.begin_close()

    def lost(self, exc: OSError) -> ConnectionLost:
        """Translate an error of the socket."""
        return ConnectionLost(f"the connection to the broker at {self.where} ended: {exc}")

    def discard(self) -> None:
        """Close the socket, without telling the broker."""
        self._connection.collect()

    def _perform(
        self,
        start: Callable[[AmqpChannel], Any],
        done: Callable[[tuple[Any, ...]], None],
        failed: Callable[[TransportError], None],
    ) -> None:
        self._operations.append(_Operation(start, done, failed))
        if len(self._operations) == 1:
            self._start_operation()

    def _start_operation(self) -> None:
        self._control.expecting(self._operation_done)
        self._operations[0].start(self._control)

    def _operation_done(self, args: tuple[Any, ...]) -> None:
        operation = self._operations.popleft()
        if self._operations:
            self._start_operation()
        operation.done(args)

    def _channel_closed(self, number: int, error: Exception, report: Callable[[int, TransportError], None]) -> None:
        problem = describe(error, self._url, self._plan)
        if self._control.channel_id is not None:
            report(number, problem)
            return
        self._control = self._open_channel()
        if self._operations:
            operation = self._operations.popleft()
            if self._operations:
                self._start_operation()
            operation.failed(problem)


def _queue_arguments(plan: Plan) -> dict[str, Any]:
    arguments = _typed(plan.queue_type, delivery_limit=plan.delivery_limit)
    if plan.dead_letters:
        arguments["x-dead-letter-exchange"] = plan.dead_letters
    return arguments


def _typed(queue_type: str | None, *, delivery_limit: int | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {"x-queue-type": queue_type} if queue_type else {}
    if queue_type == "quorum" and delivery_limit is not None:
        # Only quorum queues count; others refuse the argument.
        arguments["x-delivery-limit"] = delivery_limit
    return arguments


@dataclass(slots=True)
class _Operation:
    start: Callable[[AmqpChannel], Any]
    done: Callable[[tuple[Any, ...]], None]
    failed: Callable[[TransportError], None]


def dial(url: BrokerURL, plan: Plan, options: ConnectionOptions) -> Link:
    """
    Connect and set up what the plan says. Blocks for about ``connect_timeout`` seconds at most.

    Raises:
        NotConnected: Another attempt may succeed.
        AccessRefused, TopologyMismatch: Another attempt would fail, too.
    """
    connection = connect(url, replace(options, heartbeat=url.heartbeat(options.heartbeat)))
    try:
        return Link(connection, plan, url, max_body=options.max_size)
    except Exception as exc:
        connection.collect()
        raise describe(exc, url, plan) from exc.with_traceback(None)
