"""
What a client's session publishes: over which channel, whether it was confirmed, and what to do when the broker closes
one. A server's replies are in ``reply_publisher``.

Calls leave by a channel without confirms, notifications by one in confirm mode. The broker rejects a message by closing
its channel, and ignores what came behind it: a new channel is opened, and what came behind is sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock

from ..errors import ConnectionLost, MaybeRejected, TopologyMismatch, TransportError
from .base import DIRECT_REPLY_TO, Delivery, Outcome, Publish
from .delivery_tracking import Confirms, Recent, find_rejected
from .frames import Confirm, ReturnEvent
from .link import Link
from .outbox import Outbox

log = logging.getLogger("jsonrpc_amqp.transport")

# Bytes. From this size on a body is queued as it is, and copied once, with all else that leaves by the same write.
LARGE_BODY = 1 << 13


class Publisher:
    """
    The requests of one session. What any thread may call needs the lock of the outbox held.

    Args:
        link: The channels.
        outbox: Takes the bytes.
        is_awaited: Whether a message may be sent again (``Listener.awaits``).
        on_rejected: Reports a message of ``publish`` that the broker rejected.

    Attributes:
        is_paused: A channel is being replaced: publishes are kept.
    """

    def __init__(
        self,
        link: Link,
        outbox: Outbox,
        *,
        is_awaited: Callable[[Publish], bool],
        on_rejected: Callable[[TransportError, Publish], None],
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._lock: RLock = outbox.lock
        self._is_awaited = is_awaited
        self._on_rejected = on_rejected
        self._recent = Recent()
        self._confirms = Confirms()
        self._held: list[tuple[Publish, Outcome | None]] = []
        self.is_paused = False

    # -- from any thread, with the lock held ----------------------------------------------------------

    def publish(self, message: Publish, acks: Delivery | None = None, outcome: Outcome | None = None) -> None:
        """
        Queue a publish; with an ``outcome`` over a channel in confirm mode. A client acknowledges nothing.

        Raises:
            ValueError: AMQP has no form for it; see ``Encoder.publish``.
        """
        link = self._link
        if self.is_paused:
            link.encoder.publish(link.publisher_channel, message)  # raises now what it would raise when it is sent
            self._held.append((message, outcome))
            return
        # Direct replies come only to the channel that their requests left by.
        is_plain = outcome is None or message.reply_to == DIRECT_REPLY_TO
        channel = link.publisher_channel if is_plain else link.confirmer_channel
        # Encoded under the lock: the next moment the channel may be another.
        if len(message.body) < LARGE_BODY:
            self._outbox.put(link.encoder.publish(channel, message))
        else:
            self._outbox.put_all(link.encoder.pieces(channel, message))
        if outcome is None:
            self._recent.add(message)
        else:
            self._confirms.add(message, outcome)

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> None:
        """Queue a publish over a channel in confirm mode; raises as ``publish``."""
        self.publish(message, None, outcome)

    # -- by the leader --------------------------------------------------------------------------------

    def confirmed(self, confirm: Confirm) -> None:
        """Report the outcomes that a confirm decides."""
        if confirm.channel != self._link.confirmer_channel:
            return
        with self._lock:
            settled = self._confirms.settle(confirm.tag, confirm.multiple, confirm.nack)
        for outcome, error in settled:
            outcome(error)

    def fail(self, error: TransportError) -> None:
        """
        Report the end of the session to all that wait for a confirm, and to those that may have caused it.

        If the broker ended it because of a message (``MaybeRejected``), only messages with headers can be the cause.
        """
        with self._lock:
            waiting, recent, held = self._confirms.drain(), self._recent, self._held
            # Bodies, which something that refers to the session would keep with it.
            self._recent, self._held = Recent(), []
            waiting += [(message, outcome) for message, outcome in held if outcome is not None]
        may_be_rejected = isinstance(error, MaybeRejected)
        lost = ConnectionLost(f"{error}; the message may have been taken, or not")
        reports = [
            partial(outcome, _suspected(error) if may_be_rejected and message.headers else lost.again())
            for message, outcome in waiting
        ]
        if may_be_rejected:
            suspects = (message for message in recent if message.headers and self._is_awaited(message))
            reports += [partial(self._on_rejected, _suspected(error), message) for message in suspects]
        for report in reports:
            try:
                report()
            # BaseException: a sys.exit() in a user's callback must not keep the session from ending.
            except BaseException:
                log.exception("unexpected error in a callback at the end of a connection")

    def returned(self, event: ReturnEvent) -> bool:
        """Note a returned message, which its confirm reports. False: it was published without confirms."""
        if event.channel != self._link.confirmer_channel:
            return False
        with self._lock:
            self._confirms.note_returned(event.returned)
        return True

    def pause(self, channel: int) -> None:
        """Keep publishes while a channel is replaced: another one on the old number would end the connection."""
        if channel in (self._link.publisher_channel, self._link.confirmer_channel):
            with self._lock:
                self.is_paused = True

    def channel_closed(self, channel: int, error: TransportError) -> None:
        """
        Replace a channel that the broker closed, and send again what came behind the rejected message.

        Raises:
            ConnectionLost: That is not possible: it is not known which message was rejected, say.
        """
        link = self._link
        if channel == link.confirmer_channel and channel != link.consumer_channel:
            self._confirmer_closed(error)
        elif channel == link.publisher_channel:
            if channel == link.confirmer_channel:
                self._report_unconfirmed(error)
            self._publisher_closed(error)
        else:
            raise ConnectionLost(f"the broker closed the channel that consumes: {error}")

    def _publisher_closed(self, error: TransportError) -> None:
        link = self._link
        with self._lock:
            recent, self._recent = list(self._recent), Recent()
        messages = [message for message in recent if self._is_awaited(message)]
        places = find_rejected(messages, str(error))
        # A request that was handled must not be sent again, so one must be the only candidate.
        if len(places) != 1:
            for place in _suspects(messages, places, error):
                self._on_rejected(_suspected(error), messages[place])
            raise _lost(error)
        self._on_rejected(error, messages[places[0]])
        # The channel may have taken the consumer of the replies with it; a missing exchange is gone for good.
        if link.publisher_channel == link.consumer_channel or isinstance(error, TopologyMismatch):
            raise _lost(error)
        link.reopen_publisher()
        self.resume(messages[places[0] + 1 :])

    def _confirmer_closed(self, error: TransportError) -> None:
        self._report_unconfirmed(error)
        if isinstance(error, TopologyMismatch):
            raise _lost(error)
        self._link.reopen_confirmer()
        self.resume()

    def _report_unconfirmed(self, error: TransportError) -> None:
        with self._lock:
            waiting = self._confirms.drain()
            self._confirms = Confirms()
        messages = [message for message, _ in waiting]
        # All that was not confirmed is here: a lone message is the one, whatever the text says.
        rejected = [0] if len(messages) == 1 else find_rejected(messages, str(error))
        suspects: list[int] = []
        if len(rejected) != 1:
            # Some of them may be in the queue, their confirms still on the way.
            rejected, suspects = [], _suspects(messages, rejected, error)
        another = "another message" if rejected or suspects else "a message, which one is not known"
        unknown = ConnectionLost(f"the broker closed the channel because of {another}: {error}")
        for position, (_message, outcome) in enumerate(waiting):
            if position in rejected:
                outcome(error)
            else:
                outcome(_suspected(error) if position in suspects else unknown.again())

    def resume(self, again: Sequence[Publish] = ()) -> None:
        """End ``pause``: send some messages again, and then what was held."""
        with self._lock:
            held, self._held = self._held, []
            self.is_paused = False
            for message in again:
                self.publish(message)
            for message, outcome in held:
                self.publish(message, outcome=outcome)

    def passed(self, channel: int) -> None:
        """Do nothing: only replies are followed by barriers."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _suspects(messages: Sequence[Publish], places: list[int], error: TransportError) -> list[int]:
    """
    Return the positions of the messages of which one was rejected, and would be each time.

    Args:
        places: Of the messages that the text of the error fits. If it fits none, it can only be one with headers: all
            others differ in texts and numbers alone, which the texts of RabbitMQ name.
    """
    if not places:
        return [place for place, message in enumerate(messages) if message.headers]
    # A missing exchange is not the fault of a message: all are taken once it is back.
    return [] if isinstance(error, TopologyMismatch) else places


def _suspected(error: TransportError) -> MaybeRejected:
    return MaybeRejected(
        f"{error}; it may be because of this message, which may have been taken, or not, and is not sent again"
    )


def _lost(error: TransportError) -> ConnectionLost:
    return ConnectionLost(f"the broker closed the channel that publishes: {error}")
