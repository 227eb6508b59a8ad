"""What a server's session publishes: which lane a reply takes, and which names of direct reply-to are safe to use."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from functools import partial

from ..errors import AccessRefused, ConnectionLost, MaybeRejected, TopologyMismatch, TransportError
from .base import DIRECT_REPLY_TO, Delivery, Outcome, Publish
from .direct_reply_to import PREFIX, issuer_of
from .encoder import consume
from .frames import Confirm, ReturnEvent
from .link import Link
from .outbox import Outbox
from .reply_lanes import Lane, Rejected, State
from .spare_connection import SpareConnection

log = logging.getLogger("jsonrpc_amqp.transport")

# Names and issuers that are remembered.
_MOST_KNOWN = 1000


class ReplyPublisher:
    """
    The replies of one session. What any thread may call needs the lock of the outbox held.

    A request may name any direct reply-to, and RabbitMQ up to 4.1 ends the connection over one that it cannot have
    made. So the names of the node that this connection leads to, which a message to oneself tells, are used at once;
    those of another node go over a second connection, until the broker has taken one of that node.

    Args:
        link: The channels.
        outbox: Takes the bytes.
        spare: The second connection.
        post: Has the leader do something.
        on_rejected: Reports a reply that is not delivered. Called by the leader.
    """

    def __init__(
        self,
        link: Link,
        outbox: Outbox,
        spare: SpareConnection,
        *,
        post: Callable[[Callable[[], None]], None],
        on_rejected: Callable[[TransportError, Publish], None],
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._lock = outbox.lock
        self._spare = spare
        self._post = post
        self._on_rejected = on_rejected
        self._main = Lane(link, outbox, link.publisher_channel, self._drop)
        self._default = Lane(link, outbox, link.default_channel, self._drop)
        self._safe: set[str] = set()  # queues that replies may go to
        self._issuers: set[str] = set()
        self._false_issuers: set[str] = set()
        self._undecided: list[tuple[Publish, Delivery | None]] = []
        self._knows_itself = self._has_asked = False
        # No queue has this name, so that it comes back.
        name = f"jsonrpc-amqp.{secrets.token_hex(16)}"
        self._question = Publish("", name, b"{}", correlation_id=name, reply_to=DIRECT_REPLY_TO)

    # -- from any thread, with the lock held ----------------------------------------------------------

    def publish(self, message: Publish, acks: Delivery | None = None) -> None:
        """
        Queue a reply, and the ack of its request behind it.

        Raises:
            ValueError: AMQP has no form for it; see ``Encoder.publish``.
        """
        if message.exchange:
            self._main.publish(message, acks)
        elif message.routing_key in self._safe:
            self._default.publish(message, acks)
        else:
            self._check(message, acks)

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> None:
        """
        Raise: replies are not confirmed.

        Raises:
            TypeError: Always.
        """
        raise TypeError("the session of a server confirms no publishes")

    def _check(self, message: Publish, acks: Delivery | None) -> None:
        queue = message.routing_key
        if queue.startswith(PREFIX):
            if not self._knows_itself:
                self._link.encoder.publish(self._default.channel, message)  # raises now what it would raise later
                self._undecided.append((message, acks))
                self._ask()
                return
            issuer = issuer_of(queue)
            if issuer not in self._issuers:
                self._publish_apart(issuer, message, acks)
                return
        _remember(self._safe, queue)
        self._default.publish(message, acks)

    def _publish_apart(self, issuer: str, message: Publish, acks: Delivery | None) -> None:
        if acks is not None:
            # At once: otherwise one sender could have all that this server may hold wait for the second connection.
            self._outbox.unacked.finish(acks.tag)
        sender = None if acks is None else acks.user_id
        if issuer in self._false_issuers:
            self._drop(Rejected(_false(message), message))
            return
        # By the leader, without the lock: it may start a thread.
        done = partial(self._published_apart, issuer, message)
        self._post(lambda: self._spare.send(sender, message, lambda error: self._post(lambda: done(error))))

    def _ask(self) -> None:
        """Send a message to oneself, to learn whether replies to queues are permitted, and the name of one's node."""
        lane = self._default
        if error := lane.refusal():
            self._refuse_undecided(error)
        elif lane.state is State.OPEN and not self._has_asked:
            self._has_asked = True
            self._outbox.put(consume(lane.channel, DIRECT_REPLY_TO, "self"))
            lane.publish(self._question, None)
            lane.put_barrier()

    def _refuse_undecided(self, error: TransportError) -> None:
        undecided, self._undecided = self._undecided, []
        for message, acks in undecided:
            if acks is not None:
                self._outbox.unacked.finish(acks.tag)
            self._drop(Rejected(error, message))

    def _drop(self, rejected: Rejected) -> None:
        self._post(lambda: self._on_rejected(*rejected))

    # -- by the leader --------------------------------------------------------------------------------

    def passed(self, channel: int) -> None:
        """Note that the broker has handled what was sent over a channel."""
        with self._lock:
            for lane in (self._main, self._default):
                if channel == lane.channel:
                    lane.passed()
            if not self._knows_itself and self._has_asked and self._default.is_proven:
                self._learn("")  # the question did not come back
            elif self._undecided:
                self._ask()

    def returned(self, event: ReturnEvent) -> bool:
        """Note a returned message. False: it was a reply."""
        returned = event.returned
        if returned.exchange or returned.routing_key != self._question.routing_key:
            return False
        with self._lock:
            self._learn(returned.reply_to or "")
        return True

    def _learn(self, name: str) -> None:
        self._knows_itself = True
        if name.startswith(PREFIX):
            self._issuers.add(issuer_of(name))
        undecided, self._undecided = self._undecided, []
        for message, acks in undecided:
            self._check(message, acks)

    def pause(self, channel: int) -> None:
        """Keep publishes while a channel is replaced: another one on the old number would end the connection."""
        with self._lock:
            for lane in (self._main, self._default):
                if channel == lane.channel:
                    lane.pause()

    def channel_closed(self, channel: int, error: TransportError) -> None:
        """
        Replace a channel that the broker closed, and send again what came behind the reply that it refused.

        Raises:
            ConnectionLost: That is not possible: it was the channel that consumes, or an exchange is gone for good.
        """
        lane = next((each for each in (self._main, self._default) if each.channel == channel), None)
        if lane is None:
            raise ConnectionLost(f"the broker closed the channel that consumes: {error}")
        with self._lock:
            rejected = lane.closed(error)
            if lane is self._default and not self._knows_itself:
                self._has_asked = False
                if refusal := lane.refusal():
                    self._refuse_undecided(refusal)
                else:
                    self._learn("")
        if lane.waiting:
            log.warning("the broker closed a channel for replies, %d of which are sent again: %s", lane.waiting, error)
        for each in rejected:
            if each.message is not self._question:
                self._on_rejected(*each)
        is_missing = lane is self._main and isinstance(error, TopologyMismatch)
        if is_missing and not self._link.can_redeclare:
            raise ConnectionLost(f"the broker closed the channel that publishes: {error}")
        number = self._link.open_channel()
        if is_missing:
            self._link.redeclare(lambda: self._resume(lane, number))
        else:
            self._resume(lane, number)

    def _resume(self, lane: Lane, channel: int) -> None:
        with self._lock:
            lane.resume(channel)
            if self._undecided:
                self._ask()

    def _published_apart(self, issuer: str, message: Publish, error: TransportError | None) -> None:
        if error is None:
            with self._lock:
                _remember(self._issuers, issuer)
            return
        if isinstance(error, MaybeRejected):
            with self._lock:
                _remember(self._false_issuers, issuer)
        self._on_rejected(error, message)

    def confirmed(self, confirm: Confirm) -> None:
        """Do nothing: replies are not confirmed."""

    def fail(self, error: TransportError) -> None:
        """Let go of all replies: what was not sent is not acknowledged either, and the requests are delivered again."""
        with self._lock:
            self._undecided.clear()
            for lane in (self._main, self._default):
                lane.clear()

    def close(self) -> None:
        """End the second connection."""
        self._spare.close()


def _remember(known: set[str], name: str) -> None:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known.add(name)


def _false(message: Publish) -> AccessRefused:
    return AccessRefused(f"the broker knows no node that made the name {message.routing_key!r}")
