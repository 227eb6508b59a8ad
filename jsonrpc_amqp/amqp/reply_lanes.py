"""
What a server publishes: its replies, so that one that the broker refuses costs no other.

The broker refuses a message by closing its channel, and ignores what came behind it. Clients choose where replies go,
so each exchange has a channel of its own, a lane: where this user may not write to an exchange, all that its lane
carries is refused, and nothing else. For any other reason it is not known which reply was refused, or how many came
behind: these are sent again one at a time, each behind the proof that the one before was taken. So a reply is sent
twice at most, whatever is refused.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from ..errors import AccessRefused, MessageTooLarge, TopologyMismatch, TransportError
from .base import Delivery, Publish
from .delivery_tracking import find_rejected
from .encoder import barrier
from .link import Link
from .outbox import Outbox
from .publisher import LARGE_BODY

# Bytes of replies behind which the broker is asked whether it has handled them, and what each counts beside its body.
_UNPROVEN_BYTES, _OVERHEAD = 1 << 20, 1 << 12
# Seconds for which what was refused is not tried again; the right may be given meanwhile.
REFUSED_SECONDS = 10.0
_MOST_REFUSALS = 1000
# Clients of one sender whose keys may be refused before all that goes to that sender is.
_MOST_CLIENTS = 8
# How the broker says that this user may not write to an exchange, or not with a key, and how much it takes. The key is
# its client's choice, so the first match counts.
_NO_ACCESS = re.compile("ACCESS_REFUSED - access to (exchange|topic) '")
_LIMIT = re.compile(r"message size \d+ is larger than configured max size (\d+)")
# What a refusal is for: all replies, those to a client (in front of the last word of the key), or those to a sender.
_Scope = tuple[str, str]
_ALL: _Scope = ("", "")


class State(Enum):
    """How a lane treats a reply."""

    OPEN = "it is sent"
    CAREFUL = "it is sent once the broker has handled the one before"
    PAUSED = "it waits for a new channel"


class Rejected(NamedTuple):
    """A reply that the broker did not take, or would not."""

    error: TransportError
    message: Publish


class _Reply(NamedTuple):
    message: Publish
    sender: str | None = None  # of the request
    tag: int | None = None  # to be acknowledged behind it

    @property
    def scopes(self) -> tuple[_Scope, ...]:
        """What a refusal may be for that concerns it."""
        client = ("client", self.message.routing_key.rpartition(".")[0])
        return (_ALL, client) if self.sender is None else (_ALL, client, ("sender", self.sender))


class Lane:
    """
    The replies to one exchange, over a channel of their own. All of it needs the lock of the outbox held.

    Args:
        link: Its encoder.
        outbox: Takes the bytes.
        channel: The number of the channel.
        on_dropped: Called with a reply that is not sent because it would be refused; must take no lock.
    """

    def __init__(self, link: Link, outbox: Outbox, channel: int, on_dropped: Callable[[Rejected], None]) -> None:
        self._link = link
        self._outbox = outbox
        self.channel = channel
        self._on_dropped = on_dropped
        self.state = State.OPEN
        self._is_free = True  # it is open and nothing is refused: for the hot path
        self._waiting: deque[_Reply] = deque()
        # What the broker may not have handled yet, with the senders of the requests, oldest first.
        self._recent: deque[tuple[Publish, str | None]] = deque()
        self._sent = self._unproven = 0
        self._barriers: deque[int] = deque()
        self._is_alone = False  # the one that was sent is the only one, whatever the text of a refusal says
        self._refusals: dict[_Scope, tuple[float, TransportError]] = {}  # with the end of each
        self._refused_clients: Counter[str] = Counter()  # by sender, while anything is refused
        self._limit: tuple[int, TransportError] | None = None
        self._large = LARGE_BODY

    def publish(self, message: Publish, acks: Delivery | None) -> None:
        """
        Queue the reply to a request, and behind it the ack of that request.

        Raises:
            ValueError: AMQP has no form for it; see ``Encoder.publish``.
        """
        sender, tag = (None, None) if acks is None else (acks.user_id, acks.tag)
        if self._is_free:
            self._send(message, sender, tag)
        else:
            self._hold(_Reply(message, sender, tag))

    @property
    def waiting(self) -> int:
        """How many replies wait to be sent."""
        return len(self._waiting)

    @property
    def is_proven(self) -> bool:
        """Whether the broker has answered all barriers."""
        return not self._barriers

    def put_barrier(self) -> None:
        """Ask the broker whether it has handled all until here."""
        self._outbox.put(barrier(self.channel))
        self._barriers.append(self._sent)
        self._unproven = 0

    def passed(self) -> None:
        """Note that the broker has handled all up to the oldest barrier."""
        if not self._barriers:
            return
        proven = self._barriers.popleft() - (self._sent - len(self._recent))
        for _ in range(proven):
            self._recent.popleft()
        self._is_alone = self._is_alone and not proven
        if self._refusals:
            now = time.monotonic()
            self._refusals = {scope: each for scope, each in self._refusals.items() if now < each[0]}
            if not self._refusals:
                self._refused_clients.clear()
            self._set(self.state)
        self._advance()

    def refusal(self, scopes: Iterable[_Scope] = (_ALL,)) -> TransportError | None:
        """Return why replies are not sent for now: any, or those that these scopes are for."""
        for scope in scopes:
            until, error = self._refusals.get(scope, (0.0, None))
            if error is not None and time.monotonic() < until:
                return error
        return None

    def pause(self) -> None:
        """Keep what is published: the channel is being replaced."""
        self._set(State.PAUSED)

    def closed(self, error: TransportError) -> list[Rejected]:
        """Note why the broker closed the channel; return the replies that it refused, or would refuse as well."""
        lost, self._recent = [_Reply(*each) for each in self._recent], deque()
        was_alone, self._is_alone = self._is_alone, False
        self._barriers.clear()
        self._unproven = 0
        if was_alone:
            refused, again = lost[:1], lost[1:]
        else:
            # What is refused once is refused each time, so the first that the text fits is the one. A missing exchange
            # is not the fault of a message: it will be there again.
            first = next(iter(find_rejected([each.message for each in lost], str(error))), None)
            is_refused = first is not None and not isinstance(error, TopologyMismatch)
            behind = (first or 0) + is_refused
            refused, again = lost[behind - is_refused : behind], lost[behind:]
        self._note_refusal(error, refused)
        self._waiting = deque(again) + self._waiting
        if self._refusals:
            refused += [each for each in self._waiting if self.refusal(each.scopes) is not None]
            self._waiting = deque(each for each in self._waiting if self.refusal(each.scopes) is None)
        for each in refused:
            if each.tag is not None:
                self._outbox.unacked.finish(each.tag)
        return [Rejected(error, each.message) for each in refused]

    def clear(self) -> None:
        """Let go of all replies: the session has ended."""
        self._waiting.clear()
        self._recent.clear()
        self._barriers.clear()

    def resume(self, channel: int) -> None:
        """Go on over another channel."""
        self.channel = channel
        self._set(State.CAREFUL)
        self._advance()

    def _note_refusal(self, error: TransportError, refused: list[_Reply]) -> None:
        """Note what will be refused from now on."""
        text = str(error)
        if isinstance(error, MessageTooLarge) and (limit := _LIMIT.search(text)):
            self._limit = int(limit[1]), error
            self._large = min(LARGE_BODY, int(limit[1]) + 1)
        match = _NO_ACCESS.search(text) if isinstance(error, AccessRefused) else None
        if match is None:
            return
        if len(self._refusals) >= _MOST_REFUSALS:
            self._refusals.clear()
        refusal = time.monotonic() + REFUSED_SECONDS, error
        if match[1] == "exchange":
            self._refusals[_ALL] = refusal
        for _all, client, *senders in (each.scopes for each in refused[:1]):
            self._refusals[client] = refusal
            for sender in senders:
                self._refused_clients[sender[1]] += 1
                if self._refused_clients[sender[1]] >= _MOST_CLIENTS:
                    self._refusals[sender] = refusal

    def _send(self, message: Publish, sender: str | None, tag: int | None) -> None:
        body, link = message.body, self._link
        if len(body) < self._large:
            self._outbox.put(link.encoder.publish(self.channel, message))
        elif self._limit is not None and len(body) > self._limit[0]:
            self._drop(_Reply(message, sender, tag), self._limit[1])
            return
        else:
            self._outbox.put_all(link.encoder.pieces(self.channel, message))
        self._recent.append((message, sender))
        self._sent += 1
        self._unproven += len(body) + _OVERHEAD
        if self._unproven >= _UNPROVEN_BYTES:
            self.put_barrier()
        if tag is not None:
            self._outbox.unacked.finish(tag)

    def _hold(self, reply: _Reply) -> None:
        error = self.refusal(reply.scopes)
        if error is not None:
            self._drop(reply, error)
        elif self.state is State.OPEN:
            self._send(*reply)
        else:
            self._link.encoder.publish(self.channel, reply.message)  # raises now what it would raise when it is sent
            self._waiting.append(reply)

    def _drop(self, reply: _Reply, error: TransportError) -> None:
        if reply.tag is not None:
            self._outbox.unacked.finish(reply.tag)
        self._on_dropped(Rejected(error, reply.message))

    def _advance(self) -> None:
        """Send the next one that waits, if the broker has handled all before it."""
        if self.state is not State.CAREFUL or self._recent:
            return
        while self._waiting and not self._recent:  # what is over the limit is not sent
            self._send(*self._waiting.popleft())
        self._is_alone = bool(self._recent)
        if not self._is_alone:
            self._set(State.OPEN)
        elif not self._barriers:  # there is one behind a large reply
            self.put_barrier()

    def _set(self, state: State) -> None:
        self.state = state
        self._is_free = state is State.OPEN and not self._refusals
