"""Delivery tags, both ways: which deliveries are due an ack, which publishes await a confirm (pure)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from ..errors import Overloaded, TransportError, Unroutable
from .base import DIRECT_REPLY_TO, Outcome, Publish, Returned


class Unacked:
    """
    The deliveries of one consuming channel, numbered from 1 in the order that they came.

    Acks are gathered: a run of finished deliveries costs one frame. ``multiple`` never reaches beyond
    the lowest unfinished tag, as it would ack work that still runs.
    """

    def __init__(self) -> None:
        self._settled_up_to = 0
        self.due: set[int] = set()
        self._told: set[int] = set()

    def finish(self, tag: int) -> None:
        """Note that a delivery is done with, so that its ack is due."""
        self.due.add(tag)

    def give_up(self, tag: int) -> None:
        """Note that the broker is told about this tag by other means (``basic.nack``)."""
        self._told.add(tag)

    def collect(self) -> list[tuple[int, bool]]:
        """Give the (tag, multiple) pairs to send now. Each due tag is covered once."""
        due, told = self.due, self._told
        if not due:
            return []
        acks: list[tuple[int, bool]] = []
        tag = self._settled_up_to + 1
        last_due = run = 0
        while tag in due or tag in told:
            if tag in due:
                due.discard(tag)
                last_due = tag
                run += 1
            else:
                told.discard(tag)
            tag += 1
        self._settled_up_to = tag - 1
        if run:
            # The broker closes the channel for a tag that it does not know (any more): name one that is due.
            acks.append((last_due, run > 1))
        if due:
            acks.extend((late, False) for late in sorted(due))
            told |= due
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
        """Remember that a message came back; its ack follows, and says nothing of it (``basic.return`` first)."""
        self._returned[_key(returned)] = unroutable(returned)

    def settle(self, tag: int, multiple: bool, nack: bool) -> list[tuple[Outcome, TransportError | None]]:
        """Give the outcomes that a ``basic.ack`` or ``basic.nack`` decides, each with what to tell it."""
        tags = self._up_to(tag) if multiple else [tag]
        settled = [self._waiting.pop(each) for each in tags if each in self._waiting]
        return [(outcome, self._verdict(message, nack)) for message, outcome in settled]

    def drain(self) -> list[tuple[Publish, Outcome]]:
        """Give up on all that wait, oldest first."""
        waiting, self._waiting = list(self._waiting.values()), {}
        return waiting

    def _up_to(self, tag: int) -> list[int]:
        # Tags are inserted in rising order, so this stops at the first that is not meant.
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

    When the broker refuses one it closes the channel and ignores what came behind. It handles a channel in
    order, so once the refused message is known, so are those that have to be sent again.
    """

    # What can be under way when a refusal is on its way back; bodies are held, so bytes are bounded too.
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


# How RabbitMQ's texts name the message that they are about: what stands before it, and what follows then (None: they
# are not about such a message).
_CLUES: tuple[tuple[str, Callable[[Publish], str | None]], ...] = (
    ("access to topic '", lambda message: f"{message.routing_key}' in exchange '{message.exchange}' in vhost '"),
    ("message size ", lambda message: f"{len(message.body)} "),
    ("user_id property set to '", lambda message: f"{message.user_id}' but authenticated user was '"),
    ("fast reply consumer", lambda message: "" if message.reply_to == DIRECT_REPLY_TO else None),
    ("access to exchange '", _exchange),
    ("no exchange '", _exchange),
)
# RabbitMQ cuts its texts at 252 bytes; so many are left behind the longest of these in any case.
_SHOWN_BYTES = 190


def find_rejected(messages: Iterable[Publish], refusal: str) -> list[int]:
    """Find the messages that the text of the broker's ``channel.close`` may be about, by their places."""
    for before, name in _CLUES:
        _, found, text = refusal.partition(before)
        if found:
            shown = text.encode("utf-8", "surrogateescape")
            return [place for place, message in enumerate(messages) if _fits(shown, name(message))]
    return []


def _fits(shown: bytes, name: str | None) -> bool:
    # Compared from its begin: names are not escaped, so a quote need not be the end of one.
    return name is not None and shown.startswith(name.encode("utf-8", "surrogateescape")[:_SHOWN_BYTES])


def _key(message: Publish | Returned) -> str | None:
    return message.message_id or message.correlation_id


def unroutable(returned: Returned) -> Unroutable:
    """Say what a returned message means to a caller."""
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
