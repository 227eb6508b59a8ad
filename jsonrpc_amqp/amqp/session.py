"""
One live connection to the broker: see ``base.Session``.

A session begins when py-amqp has connected and declared, and ends with its socket. It does not know what drives it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection
from enum import Enum
from functools import partial
from typing import Protocol

from ..errors import ConnectionLost, TransportError
from ..runtime.base import Runtime
from .base import Delivery, Listener, Outcome, Publish, QueueFacts
from .consumption import Consumption
from .encoder import reject, requeue
from .frames import HEARTBEAT, QOS_OK, Confirm, Frame, ReturnEvent, Undecoded
from .heartbeat import Heartbeat, Suspensions
from .inbox import Inbox
from .link import Link
from .outbox import Outbox
from .publisher import Publisher
from .reply_publisher import ReplyPublisher
from .spare_connection import SpareConnection
from .tables import Unreadable

log = logging.getLogger("jsonrpc_amqp.transport")


class State(Enum):
    """Whether a session may be used."""

    LIVE = "messages are sent and taken in"
    INVALID = "it is known to be useless; nothing is sent, and the connection is about to end it"
    ENDED = "its socket is closed"


class Owner(Protocol):
    """What a session asks of its connection."""

    stats: Counter[str]
    runtime: Runtime

    @property
    def name(self) -> str:
        """For logs."""
        ...

    def wake(self) -> None:
        """Have the leader look at what there is to do. May be called by any thread."""
        ...

    def post(self, action: Callable[[], None]) -> None:
        """Have the leader do something. May be called by any thread."""
        ...

    def end(self, session: LiveSession, error: TransportError, *, again_at_once: bool = False) -> None:
        """End a session, unless it has ended. Called by the leader."""
        ...

    def finish(self) -> None:
        """The broker confirmed that the connection is closed. Called by the leader."""
        ...


class LiveSession:
    """
    One live connection.

    What any thread may call is guarded by the lock of the outbox.

    Args:
        owner: Its connection.
        listener: Is called by the leader only.
        link: The socket, and py-amqp for what is rare.
        generation: Numbers the sessions of a connection.
    """

    def __init__(self, owner: Owner, listener: Listener, link: Link, generation: int) -> None:
        self._owner = owner
        self._listener = listener
        self.link = link
        self.generation = generation
        self.opened = time.monotonic()
        self.heartbeat = Heartbeat(link.heartbeat, self.opened)
        self._suspensions = Suspensions()
        self._consumption = Consumption(link, owner.name, owner.stats, self.opened)
        self.outbox = Outbox(
            link,
            self.heartbeat,
            on_stalled=owner.wake,
            on_error=self._write_failed,
            on_interrupt=self._write_interrupted,
        )
        link.decoder.on_unreadable = self._note_unreadable
        writes_behind = owner.runtime.writes_behind
        self.write_now: Callable[[], None] = self.outbox.flush
        self.flush: Callable[[], None] = owner.runtime.wake if writes_behind else self.write_now
        self.inbox = Inbox(link, self.outbox, self.heartbeat, self, has_bursts=not writes_behind)
        self._publisher = self._make_publisher()
        self._lock = self.outbox.lock
        self._state = State.LIVE
        self._blocked = False
        self._has_congested = False

    def _make_publisher(self) -> Publisher | ReplyPublisher:
        owner, link = self._owner, self.link
        on_rejected = partial(self._listener.on_rejected, self)
        if link.sends_requests:
            return Publisher(link, self.outbox, is_awaited=self._listener.awaits, on_rejected=on_rejected)
        spare = SpareConnection(
            link.url, link.connect_again, lambda call: owner.runtime.run_blocking(call, f"{owner.name}-spare")
        )
        return ReplyPublisher(link, self.outbox, spare, post=owner.post, on_rejected=on_rejected)

    # -- from any thread ------------------------------------------------------------------------------

    @property
    def reply_queue(self) -> str:
        return self.link.reply_queue

    def publish(self, message: Publish, *, acks: Delivery | None = None) -> bool:
        with self._lock:
            if self._is_gone():
                self._owner.stats["dropped_acks"] += acks is not None
                return False
            self._publisher.publish(message, acks)
        return True

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> bool:
        with self._lock:
            if self._is_gone():
                return False
            self._publisher.publish_confirmed(message, outcome)
        return True

    def ack(self, delivery: Delivery) -> None:
        with self._lock:
            if self._is_gone():
                self._owner.stats["dropped_acks"] += 1
            else:
                self.outbox.unacked.finish(delivery.tag)

    def requeue(self, delivery: Delivery) -> None:
        self._settle(delivery, requeue)

    def reject(self, delivery: Delivery) -> None:
        self._settle(delivery, reject)

    @property
    def writes_soon(self) -> bool:
        return self.outbox.flush_is_imminent

    @property
    def is_consuming(self) -> bool:
        return self._state is State.LIVE and not self._consumption.is_over

    @property
    def congested(self) -> bool:
        if not self._is_congested():
            return False
        self._has_congested = True  # before the second look: relief is reported only to those who were held back
        return self._is_congested()

    @property
    def hears_broker(self) -> bool:
        with self._lock:  # else the socket may be closed meanwhile
            is_late = self.heartbeat.is_late(time.monotonic())
            return self._state is State.LIVE and (not is_late or self.link.has_unread())

    def bind(self, routing_key: str, outcome: Outcome) -> None:
        self._post(lambda: self.link.bind(routing_key, outcome), lambda: outcome(_gone()))

    def redeclare(self, bindings: Collection[str] | None = None) -> None:
        self._post(lambda: self._redeclare(bindings), lambda: None)

    def inspect(self, queue: str, found: Callable[[QueueFacts | TransportError], None]) -> None:
        self._post(lambda: self.link.inspect(queue, found), lambda: found(_gone()))

    def cancel(self, outcome: Outcome) -> None:
        self._post(lambda: self._consumption.cancel(lambda: outcome(None)), lambda: outcome(_gone()))

    def invalidate(self, error: TransportError, *, again_at_once: bool = False) -> None:
        """Send nothing more, and have the leader end the session."""
        with self._lock:  # an ended session stays so
            if self._state is State.LIVE:
                self._state = State.INVALID
        self._owner.post(lambda: self._owner.end(self, error, again_at_once=again_at_once))

    def put(self, data: bytes) -> None:
        """Queue bytes that are ready for the wire."""
        with self._lock:
            self.outbox.put(data)

    def _note_unreadable(self, unreadable: Unreadable) -> None:
        with self._lock:
            self._owner.stats["unreadable_headers"] += len(unreadable.names)
        log.warning(
            "%s: %d headers of a message cannot be read, and are left out; the first: %s",
            self._owner.name,
            len(unreadable.names),
            unreadable.first,
        )

    def _post(self, action: Callable[[], None], gone: Callable[[], None]) -> None:
        self._owner.post(lambda: gone() if self._state is State.ENDED else action())

    # -- the same, with the lock held -----------------------------------------------------------------

    def _is_gone(self) -> bool:
        if self._state is not State.LIVE:
            return True
        # After a pause of this process, or of the machine, the broker may have given the connection up, which is not
        # known here yet. Never revive a session that was reported gone: a reply was not sent because of it.
        now, heartbeat = time.monotonic(), self.heartbeat
        if now - heartbeat.last_read > heartbeat.patience and self._is_silent(now):
            self.invalidate(self._silence(now))
            return True
        return False

    def _is_silent(self, now: float) -> bool:
        """Whether the broker was silent for two heartbeats; what it sent while this process stood still is unread."""
        if not self.heartbeat.is_silent(now):
            return False
        if self.link.has_unread():
            self.heartbeat.last_read = now
            return False
        return True

    def _silence(self, now: float) -> ConnectionLost:
        return ConnectionLost(self.heartbeat.silence(self.link.where, now))

    def _settle(self, delivery: Delivery, encode: Callable[[int, int], bytes]) -> None:
        with self._lock:
            if self._is_gone():
                self._owner.stats["dropped_acks"] += 1
            else:
                self.outbox.unacked.note_settled(delivery.tag)
                self.outbox.put(encode(self.link.consumer_channel, delivery.tag))

    def _is_congested(self) -> bool:
        return self._blocked or self.outbox.is_full

    # -- by the thread that writes --------------------------------------------------------------------

    def _write_failed(self, exc: OSError) -> None:
        error = ConnectionLost(self.heartbeat.explain(self.link.describe(exc), time.monotonic()))
        self._owner.post(lambda: self._owner.end(self, error))

    def _write_interrupted(self, exc: BaseException) -> None:
        # An exception of a signal handler.
        self.invalidate(ConnectionLost(f"interrupted during a write: {exc!r}"), again_at_once=True)

    # -- by the leader --------------------------------------------------------------------------------

    def go_live(self) -> bytes:
        """Take the socket over from py-amqp; return the bytes that it had read already."""
        return self.link.go_live(
            write=self.put,
            on_channel_closing=self._publisher.pause,
            on_channel_closed=self._publisher.channel_closed,
            on_consumer_cancelled=self._consumer_cancelled,
            on_blocked=self._set_blocked,
            on_closed=self._owner.finish,
        )

    def begin_close(self) -> None:
        """Ask the broker to close the connection, behind all that is queued."""
        with self._lock:
            self.outbox.put_acks()  # the broker reads nothing behind a close
        self._consumption.stop()
        self.link.begin_close()
        self.outbox.flush()

    def close(self) -> None:
        """Let go of the socket."""
        with self._lock:
            self._state = State.ENDED
        self.outbox.close()
        self._publisher.close()

    def fail_confirms(self, error: TransportError) -> None:
        """Report the end of the session to all that wait for a confirm."""
        self._publisher.fail(error)

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Report deliveries."""
        self._listener.on_deliveries(self, deliveries)

    def handle(self, event: Confirm | ReturnEvent | Undecoded | Frame) -> None:
        """Handle anything but a delivery."""
        if isinstance(event, Confirm):
            self._publisher.confirmed(event)
        elif isinstance(event, ReturnEvent):
            if not self._publisher.returned(event):
                self._listener.on_returned(self, event.returned)
        elif isinstance(event, Undecoded):
            self._listener.on_undecoded(self, event.delivery, event.why)
        elif event.payload == QOS_OK:
            self._publisher.passed(event.channel)
        else:
            self.link.handle(event)

    def _begin_turn(self, now: float) -> None:
        self.heartbeat.note_suspension(self._suspensions.since_last())
        stall = self.heartbeat.begin_turn(now)
        if stall:
            log.warning(
                "%s: this process or its I/O thread stood still for %.1f s, and missed heartbeats (of %g s): it was "
                "stopped, suspended or swapped out, or code kept the interpreter lock (GIL), or a callback blocked",
                self._owner.name,
                stall,
                self.heartbeat.interval,
            )

    def next_event(self) -> float:
        """Return when ``advance`` has something to do, in monotonic seconds; infinite for never."""
        return min(self.heartbeat.next_event(), self._consumption.next_event)

    def advance(self, now: float) -> None:
        """Do what is due; raises as ``beat``."""
        self.beat(now)
        self._consumption.advance(now)

    def beat(self, now: float) -> None:
        """
        Send a heartbeat if one is due.

        Raises:
            ConnectionLost: The broker is silent.
        """
        self._begin_turn(now)
        heartbeat = self.heartbeat
        if self._is_silent(now):
            raise self._silence(now)
        if heartbeat.is_due(now):
            heartbeat.last_write = now
            self.put(HEARTBEAT)
        heartbeat.end_turn()

    def report_relief(self) -> None:
        """Report the end of congestion to the listener, if it was held back."""
        if self._has_congested and not self._is_congested():
            self._has_congested = False
            self._listener.on_congested(self, False)

    def _redeclare(self, bindings: Collection[str] | None) -> None:
        if not self.link.is_busy:  # a broker that is slow already can wait for the next time
            self.link.redeclare(bindings=bindings)

    def _set_blocked(self, blocked: bool) -> None:
        self._blocked = blocked
        log.warning("%s: the broker %s publishers", self._owner.name, "blocks" if blocked else "no longer blocks")
        if blocked:
            self._has_congested = True
            self._listener.on_congested(self, True)
        else:
            self.report_relief()

    def _consumer_cancelled(self, tag: str) -> None:
        if self.link.sends_requests:
            # It is unknown whose replies were in it, so all calls that were sent must end.
            raise ConnectionLost(f"the broker cancelled the consumer of replies: queue {self.link.queue!r} was deleted")
        self._consumption.cancelled(tag)
        self._owner.wake()


def _gone() -> ConnectionLost:
    return ConnectionLost("the connection ended", may_have_run=False)
