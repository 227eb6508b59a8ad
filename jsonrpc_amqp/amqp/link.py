"""
One live connection: its socket, its channels, and py-amqp for what is rare.

``dial`` connects and sets up what a ``Plan`` says, and blocks; ``Link.go_live`` then takes the socket over.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

from ..errors import ConnectionLost, NotConnected, TransportError
from ..options import ConnectionOptions
from ..runtime.polling import POLLIN, new_poll
from . import topology
from .base import DIRECT_REPLY_TO, Plan, QueueFacts
from .broker_errors import closed, describe
from .deadline import Deadline
from .frames import Frame
from .happy_eyeballs import AddressMemory
from .operations import Operations
from .py_amqp import AmqpChannel, AmqpConnection, connect
from .redeclaration import Redeclaration
from .url import BrokerURL

# The peer has closed its side, behind what may still be read. Only Linux tells.
_POLLRDHUP: int = getattr(select, "POLLRDHUP", 0)


class Link:
    """
    One live connection: its socket, its channels, and py-amqp for what is rare.

    Attributes:
        consumer_channel: Number of the channel that consumes.
        consumer_tag: Of its consumer; empty where there is none.
        publisher_channel: Number of the channel that publishes without confirms.
        confirmer_channel: Number of the channel that publishes in confirm mode; a client's.
        default_channel: Number of the channel for replies to the default exchange; a server's.
        connect_again: Makes another connection to the same broker, without heartbeats.
    """

    connect_again: Callable[[Deadline], AmqpConnection]

    def __init__(self, connection: AmqpConnection, plan: Plan, url: BrokerURL, *, max_body: int) -> None:
        self._connection = connection
        self._plan = plan
        self.url = url
        self._next_channel = 1
        self.reply_queue = ""
        self.consumer_tag = ""
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
        _check_channels(plan, self._connection.channel_max, self.where)
        with self._connection.pipelined():
            consumer = self._open_channels(plan)
            self._declare(self._operations.channel, plan)
            if plan.prefetch:
                consumer.basic_qos(0, plan.prefetch, False)
        queue = DIRECT_REPLY_TO if plan.reply_queue == "direct" else self.reply_queue or plan.queue
        if queue:
            # Last, so that no delivery arrives while py-amqp still reads the socket.
            self.consumer_tag = consumer.basic_consume(queue, no_ack=plan.reply_queue is not None)

    def _open_channels(self, plan: Plan) -> AmqpChannel:
        """Open all channels, that of the operations too; return the one that consumes."""
        self._operations = Operations(self._open_channel())
        self._redeclaration = Redeclaration(plan, self._operations.perform, self._bind)
        consumer = self._open_channel()
        self.consumer_channel = consumer.number
        direct = plan.reply_queue == "direct"
        self.publisher_channel = self.consumer_channel if direct else self._open_channel().number
        if direct and plan.confirm:
            consumer.confirm_select()
        self.confirmer_channel = self.default_channel = 0
        if not self.sends_requests:
            self.default_channel = self._open_channel().number
        else:
            shared = direct and plan.confirm
            self.confirmer_channel = self.publisher_channel if shared else self._open_confirmer().number
        return consumer

    def _declare(self, channel: AmqpChannel, plan: Plan) -> None:
        if plan.exchange:
            topology.declare_exchange(channel, plan)
        if plan.reply_queue == "exclusive":
            # A new name each time: an exclusive name is locked for a while after a half-open connection.
            channel.expecting(self._note_reply_queue)
            channel.queue_declare("", durable=False, exclusive=True, auto_delete=True)
        elif plan.queue is not None:
            topology.declare_request_queue(channel, plan)
            if plan.dead_letters and plan.declare:
                topology.declare_dead_letters(channel, plan.dead_letters, plan.queue, plan.queue_type)
        if plan.reply_queue == "exclusive" or (plan.queue is not None and plan.declare):
            for key in plan.bindings:
                self._bind(channel, key)
            self._redeclaration.note_bound(plan.bindings)

    def _note_reply_queue(self, declared: tuple[Any, ...]) -> None:
        self.reply_queue = declared[0]

    def _bind(self, channel: AmqpChannel, key: str) -> None:
        # An empty name stands for the queue that the channel declared last; a reply queue's comes with the answer.
        channel.queue_bind(self.reply_queue or self._plan.queue or "", self._plan.exchange, key)

    def _open_channel(self) -> AmqpChannel:
        # Numbers are not reused: the broker would accept a delivery tag of a closed channel on its successor.
        most = self._connection.channel_max
        for _ in range(most):
            number, self._next_channel = self._next_channel, self._next_channel % most + 1
            if number not in self._connection.channels:
                return self._connection.open_channel(number)
        raise ConnectionLost(f"the broker at {self.where} allows {most} channels per connection, and all are in use")

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
        on_consumer_cancelled: Callable[[str], None],
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
            ConnectionLost: The broker closed the connection, or does not speak AMQP; ``MaybeRejected`` if it did so
                because of a message.
        """
        channels = self._connection.channels  # None once the connection is closed
        if channels is None or frame.channel not in channels:
            return
        try:
            self._connection.handle(frame)
        except TransportError:
            raise
        except Exception as exc:
            raise closed(exc, self.url) from exc

    def read(self, size: int) -> bytes | None:
        """Read what has arrived. None: nothing; b"": the broker closed the connection."""
        try:
            return self.sock.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, InterruptedError):
            return None

    def has_unread(self) -> bool:
        """
        Whether bytes of the broker wait to be read, and it has not closed the connection behind them.

        It reads nothing, so any thread may ask while the socket is open; with TLS, too.
        """
        poll = new_poll()
        poll.register(self.sock.fileno(), POLLIN | _POLLRDHUP)
        return [events for _fd, events in poll.poll(0)] == [POLLIN]

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

    def open_channel(self) -> int:
        """Open another channel; return its number. RabbitMQ takes publishes right behind ``channel.open``."""
        return self._open_channel().number

    def reopen_publisher(self) -> None:
        """Open a new channel for ``publish``."""
        self.publisher_channel = self.open_channel()

    def reopen_confirmer(self) -> None:
        """Open a new channel in confirm mode."""
        self.confirmer_channel = self._open_confirmer().number

    def bind(self, routing_key: str, done: Callable[[TransportError | None], None]) -> None:
        """Bind the reply queue with one more key."""

        def bound(_args: object) -> None:
            self._redeclaration.note_bound([routing_key])
            done(None)

        self._operations.perform(partial(self._bind, key=routing_key), bound, done)

    @property
    def consumer(self) -> AmqpChannel | None:
        """The channel that consumes; None once it is closed."""
        channels: dict[int, AmqpChannel] = self._connection.channels or {}  # None once the connection is closed
        return channels.get(self.consumer_channel)

    @property
    def queue(self) -> str:
        """The queue that is consumed."""
        return self.reply_queue or self._plan.queue or DIRECT_REPLY_TO

    @property
    def is_busy(self) -> bool:
        """Whether an earlier operation is not answered yet."""
        return self._operations.is_busy

    @property
    def can_redeclare(self) -> bool:
        """Whether a missing exchange can be declared, and only replies were to go over it."""
        return self._redeclaration.is_restorable

    def redeclare(
        self, done: Callable[[], None] | None = None, *, bindings: Collection[str] | None = None, queue: bool = False
    ) -> None:
        """Declare and bind again; see ``Redeclaration.begin``."""
        self._redeclaration.begin(done, bindings=bindings, queue=queue)

    def inspect(self, queue: str, found: Callable[[QueueFacts | TransportError], None]) -> None:
        """Ask how many messages and consumers a queue has (passive ``queue.declare``)."""
        self._operations.perform(
            lambda channel: channel.queue_declare(queue, passive=True),
            lambda args: found(QueueFacts(args[1], args[2])),
            found,
        )

    def begin_close(self) -> None:
        """Ask the broker to close the connection (``connection.close``)."""
        self._connection.begin_close()

    def describe(self, exc: OSError) -> str:
        """Return an error of the socket as a sentence."""
        return f"the connection to the broker at {self.where} ended: {exc}"

    def discard(self) -> None:
        """Close the socket, without telling the broker."""
        self._connection.collect()
        self.decoder.clear()

    def _channel_closed(self, number: int, error: Exception, report: Callable[[int, TransportError], None]) -> None:
        problem = describe(error, self.url, self._plan)
        if self._operations.is_closed:
            self._operations.go_on(self._open_channel(), problem)
        else:
            report(number, problem)


def _check_channels(plan: Plan, most: int, where: str) -> None:
    # For control, to consume, to publish, and to publish with confirms. Direct replies come to the channel of the
    # request.
    needed = 4 if plan.reply_queue != "direct" else 2 if plan.confirm else 3
    if most < needed:
        raise NotConnected(
            f"the broker at {where} allows {most} channels per connection (channel_max in its rabbitmq.conf), and "
            f"{needed} are needed"
        )


def dial(url: BrokerURL, plan: Plan, options: ConnectionOptions, deadline: Deadline, memory: AddressMemory) -> Link:
    """
    Connect and set up what the plan says. Blocks until the deadline at most, or until that is cancelled.

    Raises:
        NotConnected: Another attempt may succeed.
        AccessRefused, TopologyMismatch: Another attempt would fail, too.
    """
    connection = connect(url, replace(options, heartbeat=url.heartbeat(options.heartbeat)), deadline, memory)
    try:
        deadline.step = "the set-up of its channels, exchanges and queues"
        link = Link(connection, plan, url, max_body=options.max_size)
        link.connect_again = partial(connect, url, replace(options, heartbeat=0))
        connection.note_success()
        return link
    except Exception as exc:
        connection.note_failure()
        connection.collect()
        if isinstance(exc, TransportError):
            raise
        raise describe(exc, url, plan) from exc.with_traceback(None)
