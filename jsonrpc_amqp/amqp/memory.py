"""
``memory://NAME``: a small broker inside this process, for first steps and for unit tests.

It rejects what RabbitMQ rejects, so that failures can be tested without a broker: messages that no queue takes,
unknown exchanges, false user names, queues that are missing or of another type. Names are isolated from each other, and
durable queues outlive connections; ``reset`` empties a name, ``disconnect`` cuts its connections.

One lock per broker guards all of its state. A method of a session does its work at once, on the calling thread, and
posts what is to be reported to a listener: callbacks run on the leader of the transport that they belong to.
"""

from __future__ import annotations

import base64
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Collection
from functools import partial
from time import monotonic

from ..errors import ConnectionLost, NotConnected, TopologyMismatch, TransportError, Unroutable
from ..runtime.base import Runtime
from ..runtime.threads import ThreadsRuntime
from .base import (
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
from .memory_broker import Message, Queue, broker_named

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
    broker_named(name).cut(forget=True)


def disconnect(name: str) -> None:
    """
    Cut every connection to ``memory://NAME``, as a network fault would.

    Unacknowledged messages return to their queues; transports hear ``on_lost`` and reconnect.
    """
    broker_named(name).cut()


class MemorySession:
    """One connection to a broker in this process. Private methods but ``_deliver`` need the broker's lock held."""

    congested = False
    hears_broker = True

    def __init__(self, owner: MemoryTransport, listener: Listener, plan: Plan) -> None:
        self._owner = owner
        self._broker = owner._broker
        self._listener = listener
        self._plan = plan
        self._open = True
        self._is_cancelled = False
        self.generation = next(self._broker.numbers)
        self._queue: Queue | None = None
        self._direct: str | None = None
        self._unacked: dict[int, Message] = {}
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
                self._post(self._listener.on_rejected, self, error, message)
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
                self._queue.put_back([message], failed=False)

    def reject(self, delivery: Delivery) -> None:
        with self._broker.lock:
            message = self._unacked.pop(delivery.tag, None)
            if message and self._queue:
                self._broker.dead_letter(self._queue, [message], "rejected")
                self._queue.pump()

    @property
    def writes_soon(self) -> bool:
        return True

    @property
    def reply_queue(self) -> str:
        return self._queue.name if self._queue and self._queue.owner else ""

    def flush(self) -> None:
        """Nothing is queued here."""

    write_now = flush

    def bind(self, routing_key: str, outcome: Outcome) -> None:
        with self._broker.lock:
            self._post(outcome, self._bind(routing_key))

    def redeclare(self, bindings: Collection[str] | None = None) -> None:
        """Only ``reset`` deletes anything here, and it ends all sessions."""

    def inspect(self, queue: str, found: Callable[[QueueFacts | TransportError], None]) -> None:
        with self._broker.lock:
            self._post(found, self._facts(queue) if self._open else _gone())

    @property
    def is_consuming(self) -> bool:
        return self._open and not self._is_cancelled

    def cancel(self, outcome: Outcome) -> None:
        with self._broker.lock:
            self._is_cancelled = True
            self._stop_consuming()
            # Posted behind all that has arrived, so that nothing can follow it.
            self._post(outcome, None if self._open else _gone())

    def _post(self, call: Callable[..., object], *args: object) -> None:
        self._owner.post(partial(call, *args))

    def _set_up(self) -> None:
        """Declare and bind, then consume; raises TopologyMismatch before anything is consumed."""
        plan, broker, passive = self._plan, self._broker, not self._plan.declare
        if plan.exchange:
            broker.declare_exchange(plan.exchange, passive=passive)
        if plan.reply_queue == "exclusive":
            own = Queue("amq.gen-" + secrets.token_urlsafe(16), owner=self)
            self._queue = broker.declare_queue(own, passive=False)
        elif plan.reply_queue == "direct":
            # The form of RabbitMQ's own names, which servers check: a process identifier, and a key.
            process = base64.b64encode(b"\x83Xw\x06memory" + secrets.token_bytes(12)).decode()
            self._direct = f"{DIRECT_REPLY_TO}.{process}.{secrets.token_urlsafe(16)}"
            broker.direct[self._direct] = self
        elif plan.queue is not None:
            self._queue = broker.declare_queue(Queue(plan.queue, plan), passive=passive)
            if plan.dead_letters and plan.declare:
                broker.declare_queue(Queue(plan.dead_letters), passive=False)
        broker.sessions.add(self)
        if self._queue is None:
            return
        if plan.declare or self._queue.owner:
            for key in plan.bindings:
                broker.bind(plan.exchange, self._queue.name, key)
        self._queue.consumers.append(self)
        self._queue.pump()

    def _send(self, message: Publish) -> TransportError | None:
        """Route a message; return the error of the broker, if any."""
        try:
            reply_to = self._check(message)
        except TransportError as error:
            return error
        if self._broker.route(message, reply_to) or not message.mandatory:
            return None
        return unroutable(_returned(message))

    def _check(self, message: Publish) -> str | None:
        """Raise what would close the channel; return the ``reply_to`` that the receiver sees."""
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

    def _facts(self, name: str) -> QueueFacts | TransportError:
        queue = self._broker.queues.get(name)
        if queue is None:
            return TopologyMismatch(f"there is no queue {name!r}")
        return QueueFacts(queue.drop_expired(), len(queue.consumers))

    def has_room(self) -> bool:
        return not self._plan.prefetch or len(self._unacked) < self._plan.prefetch

    def take(self, message: Message) -> None:
        tag = self.receive(message)
        # Replies count as acknowledged when they leave an exclusive queue.
        if self._queue and not self._queue.owner:
            self._unacked[tag] = message

    def receive(self, message: Message) -> int:
        # A tag is used once per broker, so that one of an ended session is unknown to the next.
        tag = next(self._broker.numbers)
        if not self._arrived:
            self._post(self._deliver)
        self._arrived.append(message.delivery(self.generation, tag))
        return tag

    def _deliver(self) -> None:
        """Called by the leader."""
        with self._broker.lock:
            deliveries, self._arrived = self._arrived, []
        if deliveries:
            self._listener.on_deliveries(self, deliveries)

    def _stop_consuming(self) -> None:
        self._broker.direct.pop(self._direct or "", None)
        if self._queue and self in self._queue.consumers:
            self._queue.consumers.remove(self)
            if self._queue.owner:
                # Exclusive and auto-delete: deleted with its consumer.
                self._broker.delete_queue(self._queue.name)
                self._queue = None

    def _end(self) -> None:
        """Close: requeue what was not acknowledged, even if the listener has not seen it yet."""
        self._stop_consuming()
        self._open = False
        self._broker.sessions.discard(self)
        self._arrived = [delivery for delivery in self._arrived if delivery.tag not in self._unacked]
        unacked, self._unacked = self._unacked, {}
        if self._queue and unacked:
            dead = self._queue.put_back(unacked.values(), failed=True)
            self._broker.dead_letter(self._queue, dead, "delivery_limit")

    def lose(self) -> None:
        self._end()
        self._post(self._listener.on_lost, self, _gone())
        self._owner.reconnect()


def _gone() -> ConnectionLost:
    return ConnectionLost("the connection to the memory broker was closed")


def _returned(message: Publish) -> Returned:
    ids = (message.correlation_id, message.message_id)
    return Returned(NO_ROUTE, "NO_ROUTE", message.exchange, message.routing_key, *ids)


class MemoryTransport:
    """
    Connects one client or server to ``memory://NAME``.

    What is to be reported to its listener is posted, and reported when the runtime calls ``tick``.

    Args:
        name: Which broker; transports with the same name in this process reach each other.
        runtime: Drives it; threads, if None.
        user: The AMQP user name; messages with another ``user_id`` are refused.
        connection_name: For threads and logs.
    """

    def __init__(
        self,
        name: str,
        *,
        runtime: Runtime | None = None,
        user: str = "guest",
        connection_name: str = "jsonrpc-amqp",
    ) -> None:
        self._user = user
        self._broker = broker_named(name)
        self._name = connection_name
        self.runtime: Runtime = runtime or ThreadsRuntime()
        self.stats: Counter[str] = Counter()
        self._listener: Listener
        self._session: MemorySession | None = None
        self._posted: deque[Event] = deque()
        self._is_started = self._is_connecting = self._is_closed = False
        # A listener may have things to do that were due before it was started.
        self._due: float | None = 0.0

    @property
    def user(self) -> str | None:
        """The AMQP user name."""
        return self._user

    # -- from any thread ------------------------------------------------------------------------------

    def would_deadlock(self) -> bool:
        """Whether the calling thread calls the listener."""
        return self.runtime.would_deadlock()

    def start(self, listener: Listener) -> None:
        """Begin to connect, unless connecting or connected. Returns at once."""
        with self._broker.lock:
            if self._is_connecting or self._is_closed:
                return
            self._is_connecting = True
            self._listener = listener
        try:
            self.runtime.start(self, name=self._name)  # no more than once
        except BaseException:
            self._is_connecting = False
            raise
        self._is_started = True
        self.post(self._connect)

    def wake(self) -> None:
        """Have ``on_tick`` called soon."""
        if self._is_started:
            self._due = 0.0
            self.runtime.wake()

    def close(self, timeout: float) -> None:
        """
        Report what is still to be reported, return what was not acknowledged to its queue, and stop.

        Args:
            timeout: Seconds to wait for that; a call from a callback does not wait.
        """
        with self._broker.lock:
            if not self._is_started or self._is_closed:
                self._is_closed = True
                return
            self._is_closed = True
            if self._session:
                self._session._end()
        self.runtime.wake()
        self.runtime.close(timeout)

    def post(self, event: Event) -> None:
        """Have the leader call something."""
        self._posted.append(event)
        self.runtime.wake()

    def reconnect(self) -> None:
        """Connect anew, once all that was posted before is done."""
        self.post(self._connect)

    # -- by the leader --------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to drive."""
        return self._is_closed and not self._posted

    def interest(self) -> tuple[int | None, bool]:
        """There is no socket to watch."""
        return None, False

    def on_readable(self) -> None:
        """There is no socket."""

    def on_writable(self) -> None:
        """There is no socket."""

    def is_due(self, now: float) -> bool:
        """Whether there is something to do."""
        return bool(self._posted) or (self._due is not None and self._due <= now)

    def tick(self, now: float) -> float | None:
        """Call what was posted; return when to call again."""
        for _ in range(len(self._posted)):  # what is posted meanwhile must not keep the listener from its tick
            self._guard(self._posted.popleft())
        if self._due is not None and self._due <= monotonic() and not self._is_closed:
            self._guard(self._tick)
        return now if self._posted else self._due

    def fail(self, error: BaseException) -> None:
        """Log an error of the listener: a runtime without a leader would leave every caller waiting."""
        logger.error("the listener of %s raised", self._name, exc_info=error)

    invalidate = fail

    def abandon(self) -> None:
        """Leave the broker: nothing calls the listener any more."""
        with self._broker.lock:
            self._is_closed = True
            self._posted.clear()
            if self._session:
                self._session._end()

    def _guard(self, step: Event) -> None:
        try:
            step()
        except BaseException as exc:
            self.fail(exc)

    def _tick(self) -> None:
        self._due = None
        due = self._listener.on_tick(monotonic())
        if due is not None:
            self._due = due if self._due is None else min(due, self._due)  # something may have woken it meanwhile

    def _connect(self) -> None:
        try:
            session = MemorySession(self, self._listener, self._listener.plan())
            with self._broker.lock:
                if self._is_closed:
                    return
                session._set_up()
                self._session = session
        except Exception as exc:
            error = exc if isinstance(exc, TransportError) else NotConnected(f"no connection to memory://: {exc!r}")
            self._is_connecting = False
            self.stats["failed_attempts"] += 1
            self._listener.on_failed(error, None)
        else:
            self.stats["connections"] += 1
            self._listener.on_open(session)
            self._due = 0.0
