"""
The seam between JSON-RPC and AMQP: what a client or server asks of a transport, and what a transport reports to it.

It moves bytes and properties and knows no JSON. Two implementations: ``connection`` (RabbitMQ) and ``memory``. A
``Transport`` lives as long as its client or server and reconnects by itself. A ``Session`` is one live connection of
it; what belongs to a session that has ended is dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..errors import TransportError
from ..runtime.base import Runtime

JSON = "application/json"
# https://www.rabbitmq.com/docs/direct-reply-to
DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
# https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
DELIVERY_COUNT = "x-delivery-count"


@dataclass(slots=True)
class Publish:
    """
    One AMQP publish, described but not performed.

    There is no ``content_encoding`` on purpose: some clients give their users raw bytes when they see one.

    Attributes:
        mandatory: Have the broker return the message when no queue takes it.
        persistent: Have the broker write it to disk.
        expiration_ms: Whole milliseconds, 1 to 4294967295, after which the broker drops it; None: never.
        timeout_ms: Sent as the header ``timeout-ms``; None: no such header.
        headers: Further AMQP headers.
        content_type: What the body is.
    """

    exchange: str
    routing_key: str
    body: bytes
    mandatory: bool = True
    persistent: bool = False
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration_ms: int | None = None
    timeout_ms: int | None = None
    message_id: str | None = None
    user_id: str | None = None
    headers: Mapping[str, Any] | None = None
    content_type: str = JSON


class Delivery:
    """
    One message that a consumer received (``basic.deliver``). Text is decoded from UTF-8 with ``surrogateescape``.

    Attributes:
        body: None when it was over the size cap, and was dropped as it arrived.
        size: Bytes of the body, as its header announced.
        tag: Its delivery tag, which is valid on ``channel`` only.
        raw_headers: The headers table as it came.
    """

    __slots__ = (
        "body",
        "channel",
        "correlation_id",
        "exchange",
        "headers_of",
        "message_id",
        "raw_headers",
        "redelivered",
        "reply_to",
        "routing_key",
        "size",
        "tag",
        "timeout_ms",
        "user_id",
    )

    def __init__(
        self,
        channel: int,
        tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        body: bytes | None,
        *,
        size: int = 0,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        timeout_ms: int | None = None,
        message_id: str | None = None,
        user_id: str | None = None,
        raw_headers: bytes | None = None,
        headers_of: Callable[[bytes], dict[str, Any]] | None = None,
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.body = body
        self.size = size
        self.correlation_id = correlation_id
        self.reply_to = reply_to
        self.timeout_ms = timeout_ms
        self.message_id = message_id
        self.user_id = user_id
        self.raw_headers = raw_headers
        self.headers_of = headers_of

    @property
    def headers(self) -> dict[str, Any]:
        """
        The headers table. It is decoded on demand, once, since few handlers look at it.

        Values that cannot be read are left out, counted and logged.
        """
        if self.raw_headers is None or self.headers_of is None:
            return {}
        headers = self.headers_of(self.raw_headers)
        self.headers_of = lambda _raw: headers
        return headers

    @property
    def delivery_count(self) -> int:
        """How often it was redelivered, where the queue counts that (a quorum queue does); else 0."""
        count = self.headers.get(DELIVERY_COUNT, 0) if self.redelivered else 0
        # Another queue leaves what the sender wrote there: with less than 0 its request would always run before others.
        return max(0, count) if isinstance(count, int) else 0


class Returned(NamedTuple):
    """A mandatory message that no queue took (``basic.return``)."""

    reply_code: int
    reply_text: str
    exchange: str
    routing_key: str
    correlation_id: str | None
    message_id: str | None
    reply_to: str | None = None


class QueueFacts(NamedTuple):
    """
    What a passive declare says about a queue.

    Attributes:
        messages: Those that are ready; not those that were delivered and are not acknowledged.
    """

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What to set up on a fresh connection.

    Attributes:
        exchange: The topic exchange, durable; none is declared where it is "", the default one.
        declare: Declare what is missing; False only checks that it exists, for users without configure rights.
        queue: A durable shared queue to declare, bind and consume with acknowledgements (a server's).
        queue_type: Sent as ``x-queue-type``; None sends no argument, so the virtual host decides.
        delivery_limit: Sent as ``x-delivery-limit`` along with a ``queue_type`` of "quorum", the only one to have it.
        dead_letters: Declare an exchange and a queue of this name, to which ``queue`` sends what was rejected or
            reached its delivery limit.
        reply_queue: Where replies are consumed from: "exclusive": a queue that the broker names; "direct": RabbitMQ's
            ``amq.rabbitmq.reply-to``; None: nowhere.
        bindings: Binding keys, for ``queue`` or for the exclusive reply queue.
        prefetch: Most unacknowledged deliveries at a time (``basic.qos``).
        confirm: Put the channel that publishes calls into confirm mode, too.
    """

    exchange: str
    declare: bool = True
    queue: str | None = None
    queue_type: str | None = None
    delivery_limit: int | None = None
    dead_letters: str | None = None
    reply_queue: str | None = None
    bindings: tuple[str, ...] = ()
    prefetch: int = 0
    confirm: bool = False


Outcome = Callable[[TransportError | None], None]
"""Called once: with None when the broker took the message (or did as asked), else with what happened instead."""


class Session(Protocol):
    """
    One live connection. Every method may be called by any thread and returns at once.

    After the session has ended they only count what is dropped. Callbacks run on the leader.
    """

    generation: int

    @property
    def reply_queue(self) -> str:
        """The name of the exclusive reply queue; empty where the plan asked for none."""
        ...

    def publish(self, message: Publish, *, acks: Delivery | None = None) -> bool:
        """
        Queue a publish. False: this session has ended, and nothing was queued.

        Args:
            acks: A delivery to acknowledge as well, behind the message.
        """
        ...

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> bool:
        """Queue a publish; ``outcome`` is called once it is confirmed or not. False: nothing was queued."""
        ...

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge; gathered with others that are due (``basic.ack``)."""
        ...

    def requeue(self, delivery: Delivery) -> None:
        """Return it to the queue, for another consumer (``basic.nack``); that counts as no failed delivery."""
        ...

    def reject(self, delivery: Delivery) -> None:
        """Have the queue drop it, or send it to its dead letters (``basic.reject``)."""
        ...

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it now; on an event loop in its next turn."""
        ...

    def write_now(self) -> None:
        """Write what is queued, as far as the socket takes it, before it returns, whatever drives the connection."""
        ...

    @property
    def writes_soon(self) -> bool:
        """Whether what is queued leaves within a millisecond anyway. False: ``flush``."""
        ...

    def bind(self, routing_key: str, outcome: Outcome) -> None:
        """Bind the reply queue with one more key."""
        ...

    def redeclare(self, bindings: Collection[str] | None = None) -> None:
        """
        Declare and bind again what the plan says, and what ``bind`` added.

        AMQP does not report a deleted exchange or binding. A session that cannot restore one is lost.

        Args:
            bindings: Of the bindings, only those with these keys; None: all.
        """
        ...

    def inspect(self, queue: str, found: Callable[[QueueFacts | TransportError], None]) -> None:
        """
        Inspect a queue (passive ``queue.declare``).

        Where the broker says that it does not exist, the error is a TopologyMismatch.
        """
        ...

    def cancel(self, outcome: Outcome) -> None:
        """Stop consuming (``basic.cancel``); ``outcome`` is called when no delivery can follow."""
        ...

    @property
    def is_consuming(self) -> bool:
        """False once ``cancel`` was called, or the session has ended."""
        ...

    @property
    def congested(self) -> bool:
        """True while the broker takes no publishes: an alarm (``connection.blocked``), or a full outbox."""
        ...

    @property
    def hears_broker(self) -> bool:
        """False once nothing of the broker arrived for a heartbeat: an interval in which it sends two."""
        ...


class Listener(Protocol):
    """What a transport reports to a client or server. Called by the leader: no method may block."""

    def plan(self) -> Plan:
        """Return what to set up; called before each attempt to connect."""
        ...

    def on_open(self, session: Session) -> None:
        """The connection is open, and all of the plan is set up."""
        ...

    def on_failed(self, error: TransportError, retry_in: float | None) -> None:
        """An attempt failed; the next one begins in so many seconds. None: there is none until ``start`` is called."""
        ...

    def on_lost(self, session: Session, error: TransportError) -> None:
        """The session has ended; the outcomes of its confirmed publishes were called."""
        ...

    def on_deliveries(self, session: Session, deliveries: list[Delivery]) -> None:
        """Messages arrived, in order: all that one read brought."""
        ...

    def on_undecoded(self, session: Session, delivery: Delivery, why: str) -> None:
        """
        A message arrived of which only the method can be read; it is to be settled like any other.

        Args:
            delivery: Without properties and body.
            why: What is wrong with it.
        """
        ...

    def on_returned(self, session: Session, returned: Returned) -> None:
        """A message of ``publish`` (not of ``publish_confirmed``) was returned (``basic.return``)."""
        ...

    def awaits(self, message: Publish) -> bool:
        """
        Return whether a message of ``publish`` may be sent again, because the broker rejected one before it.

        False: the broker is known to have handled this one.
        """
        ...

    def on_rejected(self, session: Session, error: TransportError, message: Publish) -> None:
        """
        The broker rejected this message of ``publish``. Those behind it are sent again; none is lost.

        ``MaybeRejected``: the session ends because the broker rejected a message; this may be the one.
        """
        ...

    def on_congested(self, session: Session, congested: bool) -> None:
        """``session.congested`` changed."""
        ...

    def on_tick(self, now: float) -> float | None:
        """Do what is due; return when to be called next, in monotonic seconds, or None."""
        ...


class Transport(Protocol):
    """Connects, and keeps connected, one client or server."""

    stats: Counter[str]
    """
    ``connections`` made, ``failed_attempts`` to make one, ``dropped_acks`` of sessions that had ended,
    ``unreadable_headers`` of messages whose headers were looked at, ``consumers_cancelled`` by the broker, of a server.
    """

    @property
    def user(self) -> str | None:
        """The AMQP user name, where it is known."""
        ...

    @property
    def runtime(self) -> Runtime:
        """What drives it."""
        ...

    def would_deadlock(self) -> bool:
        """Whether nothing can arrive or leave while the calling thread waits: it is the leader, or is writing."""
        ...

    def start(self, listener: Listener) -> None:
        """Begin to connect, unless connecting or connected. Returns at once."""
        ...

    def wake(self) -> None:
        """Have ``on_tick`` called soon: something is due earlier than it last said."""
        ...

    def close(self, timeout: float) -> None:
        """Write what is queued, close the connection and stop; gives up on an orderly end after ``timeout`` seconds."""
        ...
