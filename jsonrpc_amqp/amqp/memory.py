"""
``memory://NAME``: a small broker inside this process, for first steps and for unit tests.

It keeps the seam and refuses what RabbitMQ refuses, so that failures can be tested without a broker: messages that
no queue takes, unknown exchanges, false user names, queues that are missing or of another type. Names are isolated
from each other, and durable queues outlive connections; ``reset`` empties a name, ``disconnect`` cuts its connections.

One lock per broker guards all of its state. A verb does its work at once, on the thread that calls it, and only
posts what a listener must hear: callbacks run on the thread of the transport that they belong to.
"""

from __future__ import annotations

import base64
import logging
import re
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count
from queue import Empty, SimpleQueue
from threading import Lock, Thread, current_thread
from time import monotonic
from typing import Any

from ..errors import ConnectionLost, TopologyMismatch, TransportError, Unroutable
from .base import (
    DELIVERY_COUNT,
    DIRECT_REPLY_TO,
    Delivery,
    Listener,
    Outcome,
    Plan,
    Publish,
    QueueFacts,
    Returned,
)
from .delivery_tracking import unroutable

logger = logging.getLogger("jsonrpc_amqp.transport.memory")

# Ten years: more is refused by RabbitMQ.
MAX_EXPIRATION_MS = 315_360_000_000
NO_ROUTE = 312

Event = Callable[[], object]


def reset(name: str) -> None:
    """
    Forget the exchanges, queues and messages of ``memory://NAME``, between two tests for instance.

    Connections that are still open are lost, and set themselves up anew.
    """
    _broker(name).cut(forget=True)


def disconnect(name: str) -> None:
    """
    Cut every connection to ``memory://NAME``, as a network fault would.

    Unacknowledged messages return to their queues; transports hear ``on_lost`` and reconnect.
    """
    _broker(name).cut()


def topic_matches(binding_key: str, routing_key: str) -> bool:
    """
    Tell whether a topic exchange routes ``routing_key`` to a queue bound with ``binding_key``.

    ``*`` stands for exactly one word, ``#`` for any number of words, none included.
    """
    # With a dot before every word, "no words at all" needs no case of its own.
    return _topic(binding_key).fullmatch("." + routing_key if routing_key else "") is not None


@lru_cache(maxsize=4096)
def _topic(binding_key: str) -> re.Pattern[str]:
    wild = {"*": r"\.[^.]*", "#": r"(?:\.[^.]*)*"}
    words = binding_key.split(".") if binding_key else []
    return re.compile("".join(wild.get(word, r"\." + re.escape(word)) for word in words))


class _Message:
    """A message in one queue: each queue flags and numbers its own copy."""

    __slots__ = ("expires", "headers", "number", "redelivered", "reply_to", "returns", "sent")

    def __init__(self, number: int, sent: Publish, reply_to: str | None) -> None:
        self.number = number
        self.sent = sent
        self.reply_to = reply_to
        self.redelivered = False
        self.returns = 0
        self.expires = None if sent.expiration_ms is None else monotonic() + sent.expiration_ms / 1000
        timeout = {} if sent.timeout_ms is None else {"timeout-ms": sent.timeout_ms}
        self.headers = {**(sent.headers or {}), **timeout}

    def delivery(self, channel: int, tag: int) -> Delivery:
        sent = self.sent
        return Delivery(
            channel,
            tag,
            self.redelivered,
            sent.exchange,
            sent.routing_key,
            sent.body,
            size=len(sent.body),
            correlation_id=sent.correlation_id,
            reply_to=self.reply_to,
            timeout_ms=sent.timeout_ms,
            message_id=sent.message_id,
            user_id=sent.user_id,
            # Nothing is encoded here, so there are no bytes to decode later.
            raw_headers=b"" if self.headers else None,
            headers_of=self._headers_of,
        )

    def come_back(self, *, counted: bool) -> None:
        self.redelivered = True
        self.returns += 1
        if counted:
            self.headers[DELIVERY_COUNT] = self.returns

    def _headers_of(self, raw: bytes) -> dict[str, Any]:
        return dict(self.headers)


class _Queue:
    """Messages in the order of their numbers, and the sessions that take them in turn."""

    def __init__(self, name: str, plan: Plan | None = None, owner: MemorySession | None = None) -> None:
        self.name = name
        # Without a type RabbitMQ takes the default of its virtual host, which is classic unless set.
        self.queue_type = (plan and plan.queue_type) or "classic"
        self.delivery_limit = plan.delivery_limit if plan and self.queue_type == "quorum" else None
        self.dead_letters = plan and plan.dead_letters
        self.owner = owner
        self.ready: deque[_Message] = deque()
        self.consumers: deque[MemorySession] = deque()

    @property
    def arguments(self) -> dict[str, object]:
        """What another declaration must agree with."""
        return {
            "x-queue-type": self.queue_type,
            "x-delivery-limit": self.delivery_limit,
            "x-dead-letter-exchange": self.dead_letters,
        }

    def put(self, message: _Message) -> None:
        self.ready.append(message)
        self.pump()

    def put_back(self, messages: Iterable[_Message]) -> list[_Message]:
        """Requeue each message in its old place. Gives those that are dead: over the delivery limit."""
        returning = list(messages)
        for message in returning:
            message.come_back(counted=self.queue_type == "quorum")
        dead = [message for message in returning if self._is_over_limit(message)]
        alive = [message for message in returning if message not in dead]
        self.ready = deque(sorted([*alive, *self.ready], key=lambda message: message.number))
        self.pump()
        return dead

    def _is_over_limit(self, message: _Message) -> bool:
        return self.delivery_limit is not None and message.returns > self.delivery_limit

    def pump(self) -> None:
        """Hand out what may be handed out."""
        while self.drop_expired() and (consumer := self._next_consumer()):
            consumer._take(self.ready.popleft())

    def drop_expired(self) -> int:
        """Drop what has expired at the head, and only there, as RabbitMQ does. Gives how many are left."""
        while self.ready and (expires := self.ready[0].expires) is not None and expires <= monotonic():
            self.ready.popleft()
        return len(self.ready)

    def _next_consumer(self) -> MemorySession | None:
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer._has_room():
                return consumer
        return None


class _Broker:
    """What the connections to one name share. Everything but ``cut`` is called with the lock held."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.numbers = count(1)
        # The binding keys of each queue name of each exchange.
        self.exchanges: dict[str, dict[str, set[str]]] = {}
        self.queues: dict[str, _Queue] = {}
        self.direct: dict[str, MemorySession] = {}
        self.sessions: set[MemorySession] = set()

    def cut(self, *, forget: bool = False) -> None:
        with self.lock:
            for session in list(self.sessions):
                session._lose()
            if forget:
                self.exchanges.clear()
                self.queues.clear()

    def declare_exchange(self, name: str, *, passive: bool) -> None:
        if passive and name not in self.exchanges:
            raise TopologyMismatch(f"NOT_FOUND - no exchange '{name}'")
        self.exchanges.setdefault(name, {})

    def declare_queue(self, wanted: _Queue, *, passive: bool) -> _Queue:
        name = wanted.name
        if passive and name not in self.queues:
            raise TopologyMismatch(f"NOT_FOUND - no queue '{name}'")
        queue = self.queues.setdefault(name, wanted)
        for argument, current in () if passive else queue.arguments.items():
            if current != wanted.arguments[argument]:
                raise TopologyMismatch(
                    f"queue '{name}' exists with {argument} {current!r}, and {argument} {wanted.arguments[argument]!r} "
                    "was asked for"
                )
        return queue

    def bury(self, queue: _Queue, messages: Iterable[_Message], reason: str) -> None:
        """Leave messages to the dead letters of their queue, if it has any."""
        grave = self.queues.get(queue.dead_letters or "")
        if grave is None:
            return
        for message in messages:
            letter = _Message(next(self.numbers), replace(message.sent, expiration_ms=None), message.reply_to)
            letter.headers |= {"x-first-death-reason": reason, "x-first-death-queue": queue.name}
            grave.put(letter)

    def delete_queue(self, name: str) -> None:
        self.queues.pop(name, None)
        for keys_of in self.exchanges.values():
            keys_of.pop(name, None)

    def bind(self, exchange: str, queue: str, binding_key: str) -> None:
        self.exchanges[exchange].setdefault(queue, set()).add(binding_key)

    def route(self, sent: Publish, reply_to: str | None) -> bool:
        """Give a message to every queue that it is for. False: there is none."""
        if not sent.exchange and sent.routing_key in self.direct:
            # RabbitMQ does not count this as a route: if mandatory, such a message is returned as well.
            self.direct[sent.routing_key]._hear(_Message(0, sent, reply_to))
        names = self._bound(sent.exchange, sent.routing_key)
        for name in names:
            self.queues[name].put(_Message(next(self.numbers), sent, reply_to))
        return bool(names)

    def _bound(self, exchange: str, routing_key: str) -> list[str]:
        if not exchange:
            return [routing_key] if routing_key in self.queues else []
        keys_of = self.exchanges[exchange]
        return [name for name, keys in keys_of.items() if any(topic_matches(key, routing_key) for key in keys)]


_brokers: dict[str, _Broker] = {}


def _broker(name: str) -> _Broker:
    return _brokers.setdefault(name, _Broker())


class MemorySession:
    """One connection to a broker in this process. Underscored methods want the broker's lock, but ``_deliver``."""

    congested = False

    def __init__(self, owner: _Owner, plan: Plan) -> None:
        self._owner = owner
        self._broker = owner.broker
        self._listener = owner.listener
        self._plan = plan
        self._open = True
        self.generation = next(owner.broker.numbers)
        self._queue: _Queue | None = None
        self._direct: str | None = None
        self._unacked: dict[int, _Message] = {}
        self._arrived: list[Delivery] = []

    def publish(self, message: Publish, *, acks: Delivery | None = None) -> bool:
        published = self._publish(message)
        if acks is not None:
            self.ack(acks)
        return published

    def _publish(self, message: Publish) -> bool:
        with self._broker.lock:
            if not self._open:
                return False
            error = self._send(message)
            if isinstance(error, Unroutable):
                self._post(self._listener.on_returned, self, _returned(message))
            elif error is not None:
                self._post(self._listener.on_refused, self, error, message)
            return True

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> bool:
        with self._broker.lock:
            if not self._open:
                return False
            self._post(outcome, self._send(message))
            return True

    def ack(self, delivery: Delivery) -> None:
        with self._broker.lock:
            if not self._open:
                self._owner.stats["dropped_acks"] += 1
            elif self._unacked.pop(delivery.tag, None) and self._queue:
                self._queue.pump()

    def requeue(self, delivery: Delivery) -> None:
        with self._broker.lock:
            message = self._unacked.pop(delivery.tag, None)
            if message and self._queue:
                self._put_back(self._queue, [message])

    def reject(self, delivery: Delivery) -> None:
        with self._broker.lock:
            message = self._unacked.pop(delivery.tag, None)
            if message and self._queue:
                self._broker.bury(self._queue, [message], "rejected")
                self._queue.pump()

    def flush_soon(self) -> bool:
        return True

    @property
    def reply_queue(self) -> str:
        return self._queue.name if self._queue and self._queue.owner else ""

    def flush(self) -> None:
        """Nothing waits here: a verb has done its work when it returns."""

    def bind(self, routing_key: str, outcome: Outcome) -> None:
        with self._broker.lock:
            self._post(outcome, self._bind(routing_key))

    def redeclare(self) -> None:
        """Nothing is deleted here but by ``reset``, which ends all sessions."""

    def inspect(self, queue: str, found: Callable[[QueueFacts | None], None]) -> None:
        with self._broker.lock:
            self._post(found, self._facts(queue) if self._open else None)

    def cancel(self, outcome: Outcome) -> None:
        with self._broker.lock:
            self._stop_consuming()
            # Posted behind all that has arrived, so nothing can follow it.
            self._post(outcome, None if self._open else _gone())

    def _post(self, call: Callable[..., object], *args: object) -> None:
        self._owner.inbox.put(partial(call, *args))

    def _set_up(self) -> None:
        """Declare and bind, then consume; raises TopologyMismatch before anything is consumed."""
        plan, broker, passive = self._plan, self._broker, not self._plan.declare
        if plan.exchange:
            broker.declare_exchange(plan.exchange, passive=passive)
        if plan.reply_queue == "exclusive":
            own = _Queue("amq.gen-" + secrets.token_urlsafe(16), owner=self)
            self._queue = broker.declare_queue(own, passive=False)
        elif plan.reply_queue == "direct":
            # Of the form that RabbitMQ gives such names, which servers check: a process identifier, and a key.
            process = base64.b64encode(b"\x83Xw\x06memory" + secrets.token_bytes(12)).decode()
            self._direct = f"{DIRECT_REPLY_TO}.{process}.{secrets.token_urlsafe(16)}"
            broker.direct[self._direct] = self
        elif plan.queue is not None:
            self._queue = broker.declare_queue(_Queue(plan.queue, plan), passive=passive)
            if plan.dead_letters and plan.declare:
                broker.declare_queue(_Queue(plan.dead_letters), passive=False)
        broker.sessions.add(self)
        if self._queue is None:
            return
        if plan.declare or self._queue.owner:
            for key in plan.bindings:
                broker.bind(plan.exchange, self._queue.name, key)
        self._queue.consumers.append(self)
        self._queue.pump()

    def _send(self, message: Publish) -> TransportError | None:
        """Route a message, or tell why the broker does not."""
        try:
            reply_to = self._check(message)
        except TransportError as error:
            return error
        if self._broker.route(message, reply_to) or not message.mandatory:
            return None
        return unroutable(_returned(message))

    def _check(self, message: Publish) -> str | None:
        """Raise what would close the channel; give the ``reply_to`` that the receiver sees."""
        user = self._owner.user
        if message.exchange and message.exchange not in self._broker.exchanges:
            raise TopologyMismatch(f"NOT_FOUND - no exchange '{message.exchange}'")
        if message.user_id not in (None, user):
            raise TopologyMismatch(f"PRECONDITION_FAILED - user_id '{message.user_id}' is not the user, '{user}'")
        if not 0 <= (message.expiration_ms or 0) <= MAX_EXPIRATION_MS:
            raise TopologyMismatch(f"PRECONDITION_FAILED - invalid expiration '{message.expiration_ms}'")
        if message.reply_to != DIRECT_REPLY_TO:
            return message.reply_to
        if self._broker.direct.get(self._direct or "") is not self:
            raise TopologyMismatch("PRECONDITION_FAILED - fast reply consumer does not exist")
        return self._direct

    def _bind(self, routing_key: str) -> TransportError | None:
        if not self._open:
            return _gone()
        if self._queue is None or self._queue.owner is None:
            return TopologyMismatch("NOT_FOUND - this connection has no reply queue to bind")
        self._broker.bind(self._plan.exchange, self._queue.name, routing_key)
        return None

    def _facts(self, name: str) -> QueueFacts | None:
        queue = self._broker.queues.get(name)
        return QueueFacts(queue.drop_expired(), len(queue.consumers)) if queue else None

    def _has_room(self) -> bool:
        return not self._plan.prefetch or len(self._unacked) < self._plan.prefetch

    def _take(self, message: _Message) -> None:
        tag = self._hear(message)
        # ReplyChecks count as acknowledged when they leave an exclusive queue.
        if self._queue and not self._queue.owner:
            self._unacked[tag] = message

    def _hear(self, message: _Message) -> int:
        # A tag is used once per broker: one that outlives its session means nothing to the next.
        tag = next(self._broker.numbers)
        if not self._arrived:
            self._post(self._deliver)
        self._arrived.append(message.delivery(self.generation, tag))
        return tag

    def _deliver(self) -> None:
        """Runs on the transport's thread."""
        with self._broker.lock:
            deliveries, self._arrived = self._arrived, []
        if deliveries:
            self._listener.on_deliveries(self, deliveries)
            if self._listener.has_work:
                self._listener.hand_over(late=False)

    def _stop_consuming(self) -> None:
        self._broker.direct.pop(self._direct or "", None)
        if self._queue and self in self._queue.consumers:
            self._queue.consumers.remove(self)
            if self._queue.owner:
                # Exclusive and auto-delete: gone with its consumer.
                self._broker.delete_queue(self._queue.name)
                self._queue = None

    def _end(self) -> None:
        """Close: what was not acknowledged is for somebody else, even if the listener has not seen it yet."""
        self._stop_consuming()
        self._open = False
        self._broker.sessions.discard(self)
        self._arrived = [delivery for delivery in self._arrived if delivery.tag not in self._unacked]
        unacked, self._unacked = self._unacked, {}
        if self._queue and unacked:
            self._put_back(self._queue, unacked.values())

    def _put_back(self, queue: _Queue, messages: Iterable[_Message]) -> None:
        self._broker.bury(queue, queue.put_back(messages), "delivery_limit")

    def _lose(self) -> None:
        self._end()
        self._post(self._listener.on_lost, self, _gone())
        self._post(self._owner.connect)


def _gone() -> ConnectionLost:
    return ConnectionLost("the connection to the memory broker was closed")


def _returned(message: Publish) -> Returned:
    ids = (message.correlation_id, message.message_id)
    return Returned(NO_ROUTE, "NO_ROUTE", message.exchange, message.routing_key, *ids)


class _Owner(Thread):
    """The thread of one transport, from its start to its close. Every callback runs on it."""

    def __init__(self, broker: _Broker, listener: Listener, user: str, name: str, stats: Counter[str]) -> None:
        super().__init__(name=name, daemon=True)
        self.broker = broker
        self.listener = listener
        self.user = user
        self.stats = stats
        self.inbox: SimpleQueue[Event | None] = SimpleQueue()
        self.session: MemorySession | None = None
        self.active = self.closed = False
        # A listener may have things to do that were due before it was started.
        self._due: float | None = monotonic()

    def connect(self) -> None:
        session = MemorySession(self, self.listener.plan())
        try:
            with self.broker.lock:
                if self.closed:
                    return
                session._set_up()
                self.session = session
        except TopologyMismatch as error:
            self.active = False
            self.stats["failed_attempts"] += 1
            self.listener.on_failed(error, None)
        else:
            self.stats["connections"] += 1
            self.listener.on_open(session)
            self.tick()

    def tick(self) -> None:
        self._due = None
        self._due = self.listener.on_tick(monotonic())

    def run(self) -> None:
        while (event := self._next_event()) is not None:
            try:
                event()
                if self._due is not None and self._due <= monotonic():
                    self.tick()
            except BaseException:
                # A dead thread would leave everybody waiting.
                logger.exception("the listener of %s raised", self.name)

    def _next_event(self) -> Event | None:
        try:
            return self.inbox.get(timeout=None if self._due is None else max(0.0, self._due - monotonic()))
        except Empty:
            return _nothing


def _nothing() -> None:
    """What happens when a time has come: ``_Owner.run`` looks at the clock after every event."""


class MemoryTransport:
    """
    Connects one client or server to ``memory://NAME``, by a thread of its own.

    Args:
        name: Which broker; transports with the same name in this process reach each other.
        user: The AMQP user name; messages with another ``user_id`` are refused.
        connection_name: Names the thread.
    """

    def __init__(self, name: str, *, user: str = "guest", connection_name: str | None = None) -> None:
        self._user = user
        self._broker = _broker(name)
        self._thread_name = connection_name or f"memory://{name}"
        self.stats: Counter[str] = Counter()
        self._owner: _Owner | None = None

    @property
    def user(self) -> str | None:
        """The AMQP user name."""
        return self._user

    def needs(self, thread: int) -> bool:
        """Tell whether that thread calls the listener."""
        owner = self._owner
        return owner is not None and owner.ident == thread

    def attend(self, is_over: Callable[[], bool], until: float) -> None:
        """Nothing is saved here."""

    def recall(self) -> None:
        """Nothing is ever lent."""

    def start(self, listener: Listener) -> None:
        """Begin to connect, unless connecting or connected. Returns at once."""
        with self._broker.lock:
            if self._owner is None:
                self._owner = _Owner(self._broker, listener, self._user, self._thread_name, self.stats)
                self._owner.start()
            owner = self._owner
            if not owner.active:
                owner.active, owner.listener = True, listener
                owner.inbox.put(owner.connect)

    def wake(self) -> None:
        """Have ``on_tick`` called soon."""
        if owner := self._owner:
            owner.inbox.put(owner.tick)

    def close(self, timeout: float) -> None:
        """
        Tell what is still to be told, return what was not acknowledged to its queue, and end the thread.

        Args:
            timeout: Seconds to wait for the thread; a call from a callback does not wait.
        """
        with self._broker.lock:
            owner, self._owner = self._owner, None
            if owner is None:
                return
            owner.closed = True
            if owner.session:
                owner.session._end()
            owner.inbox.put(None)
        if owner is not current_thread():
            owner.join(timeout)
