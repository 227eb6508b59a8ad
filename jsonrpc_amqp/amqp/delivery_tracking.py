"""
Delivery tags in both directions: which deliveries are due an ack, and which publishes await a confirm (pure).

AMQP 0-9-1, sections 1.8.3.13 (``basic.ack``) and 4.9; https://www.rabbitmq.com/docs/confirms
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from ..errors import Overloaded, TransportError, Unroutable
from .base import DIRECT_REPLY_TO, Outcome, Publish, Returned


class Unacked:
    """
    The deliveries of one consuming channel, numbered from 1 in the order of their arrival.

    Acks are gathered: a run of finished deliveries costs one frame. ``multiple`` never covers an unfinished tag.

    Attributes:
        due: The tags that are to be acknowledged.
    """

    def __init__(self) -> None:
        self._settled_up_to = 0
        self.due: set[int] = set()
        self._settled: set[int] = set()

    def finish(self, tag: int) -> None:
        """Note that a delivery is finished, so that its ack is due."""
        self.due.add(tag)

    def note_settled(self, tag: int) -> None:
        """Note that a tag was settled otherwise (``basic.reject``, ``basic.nack``)."""
        self._settled.add(tag)

    def collect(self) -> list[tuple[int, bool]]:
        """Return the (tag, multiple) pairs to send now. Each due tag is covered once."""
        due, settled = self.due, self._settled
        if not due:
            return []
        acks: list[tuple[int, bool]] = []
        tag = self._settled_up_to + 1
        last_due = run = 0
        while tag in due or tag in settled:
            if tag in due:
                due.discard(tag)
                last_due = tag
                run += 1
            else:
                settled.discard(tag)
            tag += 1
        self._settled_up_to = tag - 1
        if run:
            # The broker closes the channel because of an unknown tag, or a settled one: name one that is due.
            acks.append((last_due, run > 1))
        if due:
            acks.extend((late, False) for late in sorted(due))
            settled |= due
            due.clear()
        return acks


class Confirms:
    """The publishes of one channel in confirm mode, by the number that the broker gives each."""

    def __init__(self) -> None:
        self._published = 0
        self._waiting: dict[int, tuple[Publish, Outcome]] = {}
        self._returned: dict[str | None, TransportError] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, message: Publish, outcome: Outcome) -> None:
        """Note a publish; must be called in the order of the bytes on the wire."""
        self._published += 1
        self._waiting[self._published] = (message, outcome)

    def note_returned(self, returned: Returned) -> None:
        """Remember that a message was returned. Its ack follows, and does not say so."""
        # A broker returns each message once at most; what it says beyond that is not kept.
        if len(self._returned) < len(self._waiting):
            self._returned[_key(returned)] = unroutable(returned)

    def settle(self, tag: int, multiple: bool, nack: bool) -> list[tuple[Outcome, TransportError | None]]:
        """Return the outcomes that a ``basic.ack`` or ``basic.nack`` decides, each with its error or None."""
        tags = self._up_to(tag) if multiple else [tag]
        settled = [self._waiting.pop(each) for each in tags if each in self._waiting]
        return [(outcome, self._verdict(message, nack)) for message, outcome in settled]

    def drain(self) -> list[tuple[Publish, Outcome]]:
        """Remove all that wait, and return them, oldest first."""
        waiting, self._waiting = list(self._waiting.values()), {}
        return waiting

    def _up_to(self, tag: int) -> list[int]:
        # Tags are inserted in rising order.
        tags = []
        for each in self._waiting:
            if each > tag:
                break
            tags.append(each)
        return tags

    def _verdict(self, message: Publish, nack: bool) -> TransportError | None:
        error = self._returned.pop(_key(message), None)
        if nack:
            return Overloaded(
                f"the broker refused the message for {message.routing_key!r} (basic.nack; a full queue does that). "
                "It did not run; try again later"
            )
        return error


class Recent:
    """
    The last publishes of a channel without confirms, oldest first.

    When the broker rejects one it closes the channel, and ignores what came behind it. It handles a channel in order:
    once the rejected message is known, so are those to send again.
    """

    # What can be on its way when a rejection comes back. Bodies are kept, so that bytes are bounded, too.
    MOST_MESSAGES = 1024
    MOST_BYTES = 4 << 20

    def __init__(self) -> None:
        self._messages: deque[Publish] = deque()
        self._bytes = 0

    def add(self, message: Publish) -> None:
        """Note a publish; must be called in the order of the bytes on the wire."""
        messages = self._messages
        messages.append(message)
        self._bytes += len(message.body)
        while len(messages) > self.MOST_MESSAGES or (self._bytes > self.MOST_BYTES and len(messages) > 1):
            self._bytes -= len(messages.popleft().body)

    def __iter__(self) -> Iterator[Publish]:
        return iter(self._messages)


def _exchange(message: Publish) -> str:
    return f"{message.exchange or 'amq.default'}' in vhost '"


# How the texts of RabbitMQ name the rejected message: what precedes the name, and the name (None: such a message is not
# the one).
_CLUES: tuple[tuple[str, Callable[[Publish], str | None]], ...] = (
    ("access to topic '", lambda message: f"{message.routing_key}' in exchange '{message.exchange}' in vhost '"),
    ("message size ", lambda message: f"{len(message.body)} "),
    ("user_id property set to '", lambda message: f"{message.user_id}' but authenticated user was '"),
    ("fast reply consumer", lambda message: "" if message.reply_to == DIRECT_REPLY_TO else None),
    ("access to exchange '", _exchange),
    ("no exchange '", _exchange),
)
# RabbitMQ cuts its texts at 252 bytes; this much of a name is left behind the longest of these.
_SHOWN_BYTES = 190


def find_rejected(messages: Iterable[Publish], text: str) -> list[int]:
    """Return the positions of the messages that the text of a ``channel.close`` may be about."""
    for before, name in _CLUES:
        _, found, rest = text.partition(before)
        if found:
            shown = rest.encode("utf-8", "surrogateescape")
            return [place for place, message in enumerate(messages) if _fits(shown, name(message))]
    return []


def _fits(shown: bytes, name: str | None) -> bool:
    # By its beginning: names are not escaped, so a quote need not be the end of one.
    return name is not None and shown.startswith(name.encode("utf-8", "surrogateescape")[:_SHOWN_BYTES])


def _key(message: Publish | Returned) -> str | None:
    return message.message_id or message.correlation_id


def unroutable(returned: Returned) -> Unroutable:
    """Return the error that a returned message means to a caller."""
    if not returned.exchange:
        return Unroutable(
            f"there is no queue {returned.routing_key!r} ({returned.reply_code} {returned.reply_text}). It did not "
            "run; check the name of the queue or service, and the virtual host, or start its server"
        )
    return Unroutable(
        f"no queue is bound for {returned.routing_key!r} on exchange {returned.exchange!r} "
        f"({returned.reply_code} {returned.reply_text}): no server of this service was ever set up there. It "
        "did not run; check the names of service and exchange, or start a server"
    )
