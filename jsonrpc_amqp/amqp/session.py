"""
One live connection of an engine: what is queued for it, and what is known of what it sent and has taken in.

It shares the engine's lock and outbox, which outlive it; see ``base.Session`` for its verbs.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ConnectionLost, TopologyMismatch, TransportError
from . import codec
from .base import DIRECT_REPLY_TO, Delivery, Outcome, Publish, QueueFacts
from .delivery_tracking import Confirms, Recent, Unacked, find_refused

if TYPE_CHECKING:
    from .connection import Connection
    from .link import Link

log = logging.getLogger("jsonrpc_amqp.transport")

# What may wait in the outbox before callers are held back: some full-size messages.
CONGESTED_BYTES = 64 << 20
# From here on a body is queued as it is, and copied once, with all else that leaves by the same write.
LARGE_BODY = 1 << 13


class LiveSession:
    """One live connection of an engine."""

    def __init__(self, engine: Connection, link: Link, generation: int) -> None:
        self._engine = engine
        self.link = link
        self.generation = generation
        self.opened = time.monotonic()
        self.unacked = Unacked()
        self._patience = 2 * link.heartbeat or math.inf  # of silence; see ``Connection._is_silent``
        self._recent = Recent()
        self._confirms = Confirms()
        self._held: list[tuple[Publish, Outcome | None]] | None = None
        self._held_acks: list[int] = []
        self._blocked = False
        self._held_back = False
        self._invalidated = False

    # -- from any thread ------------------------------------------------------------------------------

    @property
    def reply_queue(self) -> str:
        return self.link.reply_queue

    def publish(self, message: Publish, *, acks: Delivery | None = None) -> bool:
        engine = self._engine
        with engine._lock:
            if self._is_gone():
                engine.stats["dropped_acks"] += acks is not None
                return False
            if self._held is not None:
                self._held.append((message, None))
            else:
                # Encoded under the lock: the channel may be another the moment after.
                self._put_publish(self.link.publisher, message)
                self._recent.add(message)
            if acks is not None:
                self._finish(acks)
        return True

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> bool:
        engine = self._engine
        with engine._lock:
            if self._is_gone():
                return False
            if self._held is not None:
                self._held.append((message, outcome))
                return True
            link = self.link
            # Direct answers come only to the channel that their requests left by.
            channel = link.publisher if message.reply_to == DIRECT_REPLY_TO else link.confirmer
            self._put_publish(channel, message)
            self._confirms.add(message, outcome)
        return True

    def ack(self, delivery: Delivery) -> None:
        engine = self._engine
        with engine._lock:
            if self._is_gone():
                engine.stats["dropped_acks"] += 1
            else:
                self._finish(delivery)

    def _finish(self, delivery: Delivery) -> None:
        if self._held is None:
            self.unacked.finish(delivery.tag)
        else:
            self._held_acks.append(delivery.tag)  # its answer is among what is held back, most likely

    def requeue(self, delivery: Delivery) -> None:
        self._refuse(delivery, requeue=True)

    def reject(self, delivery: Delivery) -> None:
        self._refuse(delivery, requeue=False)

    def _refuse(self, delivery: Delivery, *, requeue: bool) -> None:
        engine = self._engine
        with engine._lock:
            if self._is_gone():
                engine.stats["dropped_acks"] += 1
            else:
                self.unacked.give_up(delivery.tag)
                self._put(codec.reject(self.link.consumer, delivery.tag, requeue))

    def flush(self) -> None:
        self._engine.flush()

    def flush_soon(self) -> bool:
        return self._engine._is_watching

    @property
    def congested(self) -> bool:
        if not self._blocked and self._engine._queued <= CONGESTED_BYTES:
            return False
        self._held_back = True  # whoever asked waits to be told of the end, which may have come meanwhile
        return self._is_congested()

    def _is_congested(self) -> bool:
        return self._blocked or self._engine._queued > CONGESTED_BYTES

    def bind(self, routing_key: str, outcome: Outcome) -> None:
        self._post(lambda: self.link.bind(routing_key, outcome), lambda: outcome(_gone()))

    def redeclare(self) -> None:
        self._post(self._redeclare, lambda: None)

    def inspect(self, queue: str, found: Callable[[QueueFacts | None], None]) -> None:
        self._post(lambda: self.link.inspect(queue, found), lambda: found(None))

    def cancel(self, outcome: Outcome) -> None:
        self._post(lambda: self.link.cancel(lambda: outcome(None)), lambda: outcome(_gone()))

    def _is_gone(self) -> bool:
        # After a pause of this process, or of the machine, the connection is dead, most likely, and nobody knows yet.
        # Once that was said it has to come true, whatever arrives meanwhile: an answer was not sent because of it.
        engine = self._engine
        if engine._session is not self or self._invalidated:
            return True
        if time.monotonic() - engine._last_read > self._patience:
            self.invalidate(ConnectionLost(f"the broker at {self.link.where} was silent for two heartbeats"))
        return self._invalidated

    def invalidate(self, error: TransportError, *, again_at_once: bool = False) -> None:
        """Have nothing more published, and the owner end it."""
        self._invalidated = True
        self._engine.post(lambda: self._engine._lose(self, error, again_at_once=again_at_once))

    def put(self, data: bytes) -> None:
        """Queue bytes that are ready for the wire."""
        with self._engine._lock:
            self._put(data)

    def put_acks(self) -> None:
        """Queue the acks that are due, behind the answers that they stand for. With the engine's lock held."""
        for tag, multiple in self.unacked.collect():
            self._put(codec.ack(self.link.consumer, tag, multiple))

    def _put_publish(self, channel: int, message: Publish) -> None:
        encoder = self.link.encoder
        if len(message.body) < LARGE_BODY:
            self._put(encoder.publish(channel, message))
            return
        pieces = encoder.pieces(channel, message)
        self._engine._outbox.extend(pieces)  # in one go: an interrupt leaves no half of it
        self._engine._queued += sum(map(len, pieces))

    def _put(self, data: bytes) -> None:
        self._engine._outbox.append(data)
        self._engine._queued += len(data)

    def _post(self, action: Callable[[], None], gone: Callable[[], None]) -> None:
        engine = self._engine
        engine.post(lambda: action() if engine._session is self else gone())

    # -- by the owner ---------------------------------------------------------------------------------

    def _redeclare(self) -> None:
        if not self.link.is_busy:  # a broker that is slow enough as it is can wait for the next time
            self.link.redeclare()

    def go_live(self) -> bytes:
        """Take the socket over from py-amqp. Gives the bytes that it had read already."""
        return self.link.go_live(
            write=self.put,
            on_channel_closing=self._hold,
            on_channel_closed=self._channel_closed,
            on_consumer_cancelled=self._consumer_cancelled,
            on_blocked=self._set_blocked,
            on_closed=self._closed,
        )

    def note_returned(self, event: codec.ReturnEvent) -> bool:
        """True when the message was one that is to be confirmed, so that its outcome will tell."""
        if event.channel != self.link.confirmer:
            return False
        with self._engine._lock:
            self._confirms.note_returned(event.returned)
        return True

    def confirmed(self, confirm: codec.Confirm) -> None:
        """Tell the outcomes that a confirm decides."""
        if confirm.channel != self.link.confirmer:
            return
        with self._engine._lock:
            settled = self._confirms.settle(confirm.tag, confirm.multiple, confirm.nack)
        for outcome, error in settled:
            outcome(error)

    def fail_confirms(self, error: TransportError) -> None:
        """Tell all that still wait for a confirm that none will come."""
        with self._engine._lock:
            outcomes = [outcome for _message, outcome in self._confirms.drain()]
            outcomes += [outcome for _message, outcome in self._held or () if outcome is not None]
        for outcome in outcomes:
            outcome(ConnectionLost(f"{error}; the message may have been taken, or not"))

    def tell_relief(self) -> None:
        """Tell the listener when somebody was held back and need not be any more."""
        if self._held_back and not self._is_congested():
            self._held_back = False
            self._engine._listener.on_congested(self, False)

    def _set_blocked(self, blocked: bool) -> None:
        self._blocked = blocked
        log.warning("%s: the broker %s publishers", self._engine._name, "blocks" if blocked else "no longer blocks")
        if blocked:
            self._held_back = True
            self._engine._listener.on_congested(self, True)
        else:
            self.tell_relief()

    def _closed(self) -> None:
        if self._engine._state == "closing":
            self._engine._finish()

    def _consumer_cancelled(self) -> None:
        raise ConnectionLost("the broker cancelled the consumer: its queue was deleted, or moved to another node")

    def _channel_closed(self, channel: int, error: TransportError) -> None:
        link = self.link
        if channel == link.confirmer and channel != link.consumer:
            self._confirmer_closed(error)
        elif channel == link.publisher:
            self._publisher_closed(error)
        else:
            raise ConnectionLost(f"the broker closed the channel that consumes: {error}")

    def _publisher_closed(self, error: TransportError) -> None:
        engine, link = self._engine, self.link
        listener = engine._listener
        with engine._lock:
            recent, self._recent = list(self._recent), Recent()
        messages = [message for message in recent if listener.awaits(message)]
        places = find_refused(messages, str(error))
        # A request that was handled must not be sent again, so one must be the only candidate. An answer may: whoever
        # has it drops the second; and what is refused once is refused each time, so the first is the one.
        if not places or (len(places) > 1 and link.sends_requests):
            raise ConnectionLost(f"the broker closed the channel that publishes: {error}")
        refused, behind = messages[places[0]], messages[places[0] + 1 :]
        listener.on_refused(self, error, refused)
        gone = isinstance(error, TopologyMismatch)
        if link.publisher == link.consumer or (gone and not link.can_redeclare):
            # The channel took the answers' consumer with it; or an exchange is gone for good.
            raise ConnectionLost(f"the broker closed the channel that publishes: {error}")
        link.reopen_publisher()
        again: list[tuple[Publish, Outcome | None]] = [(message, None) for message in behind]
        if gone:
            link.redeclare(lambda: self._resume(again))
        else:
            self._resume(again)

    def _confirmer_closed(self, error: TransportError) -> None:
        with self._engine._lock:
            waiting = self._confirms.drain()
            self._confirms = Confirms()
        refused = find_refused((message for message, _ in waiting), str(error))
        if len(refused) > 1:
            # Some of them may be in the queue, their confirms still on the way.
            refused = []
        unknown = ConnectionLost(f"the broker closed the channel because of another message: {error}")
        for position, (_message, outcome) in enumerate(waiting):
            outcome(error if position in refused else unknown.again())
        if isinstance(error, TopologyMismatch):
            raise ConnectionLost(f"the broker closed the channel that publishes: {error}")
        self.link.reopen_confirmer()
        self._resume([])

    def _hold(self, channel: int) -> None:
        """Hold publishes back while a channel is replaced: one more on the old number ends the connection."""
        if channel in (self.link.publisher, self.link.confirmer):
            with self._engine._lock:
                self._held = []

    def _resume(self, again: list[tuple[Publish, Outcome | None]]) -> None:
        with self._engine._lock:
            held, self._held = self._held or [], None
            acks, self._held_acks = self._held_acks, []
        for message, outcome in again + held:
            if outcome is None:
                self.publish(message)
            else:
                self.publish_confirmed(message, outcome)
        with self._engine._lock:
            for tag in acks:
                self.unacked.finish(tag)


def _gone() -> ConnectionLost:
    return ConnectionLost("the connection ended", may_have_run=False)
