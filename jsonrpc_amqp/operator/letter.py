"""One dead letter: what its message says, and the key that names it (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any, NamedTuple

from ..amqp import tables
from ..amqp.base import Delivery
from ..errors import EncodeError, NoDeadLetter
from ..jsonrpc import messages
from ..jsonrpc.text import Malformed, loads
from ..wire.display import printable

# Enough digits to tell apart the letters that a person looks at; the whole digest is accepted, too.
_KEY_DIGITS = 12
_KEY = re.compile(r"[0-9a-f]{4,64}")
# Headers that were added after the request was sent, and CC and BCC, by which the broker would send copies, in the
# operator's name, to queues that the sender of the request chose.
_NOT_RESENT = re.compile(r"x-.*|timeout-ms|CC|BCC", re.DOTALL)
_NO_HEADERS = bytes(4)
_UNDECODED = "it cannot be read: it is not as AMQP says, or larger than any message that RabbitMQ takes"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """
    One request that no server could handle. All of it but ``user_id`` is what its sender, or a server, wrote.

    Texts are decoded from UTF-8 with ``surrogateescape``: escape them before you show them.

    Attributes:
        key: Names it: 12 hexadecimal digits, a digest of its ids, its routing key and its body. Letters with the same
            ids, routing key and body have the same key.
        routing_key: As it was sent.
        user_id: Its sender, which the broker verified; None: unknown.
        message_id: Of a notification; None: it has none.
        correlation_id: Of a call; None: it has none.
        reason: "rejected" or "delivery_limit"; None: not known.
        count: How often it was dead-lettered for this reason, as RabbitMQ counts; None: not known.
        died: When, in UTC; None: not known.
        headers: All AMQP headers that can be read, RabbitMQ's own (``x-death``, ...) included.
        body: As it was sent.
        is_notification: No reply is awaited, so it may be sent again.
        method: Of a batch the methods of its members, joined by ", "; None: it has none.
    """

    key: str
    routing_key: str
    user_id: str | None
    message_id: str | None
    correlation_id: str | None
    reason: str | None
    count: int | None
    died: datetime | None
    headers: Mapping[str, Any]
    body: bytes
    is_notification: bool
    method: str | None


class HeldLetter(NamedTuple):
    """
    A letter that was taken from the queue and is not acknowledged.

    Attributes:
        digest: The key in full.
        obstacle: Why it cannot be sent again, or None if it can.
    """

    delivery: Delivery
    letter: DeadLetter
    digest: str
    obstacle: str | None


def headers_to_resend(letter: DeadLetter) -> dict[str, Any]:
    """Return the headers that a request keeps when it is sent again."""
    return {name: value for name, value in letter.headers.items() if not _NOT_RESENT.fullmatch(name)}


# -- keys -----------------------------------------------------------------------------------------------------


def select(letters: Iterable[HeldLetter], keys: Iterable[str]) -> list[HeldLetter]:
    """
    Return the letters that are named, in their order.

    Args:
        letters: Is consumed after the keys are checked.
        keys: See ``DeadLetter``, or four or more of their first digits.

    Raises:
        ValueError: A key is malformed.
        NoDeadLetter: A key names no letter, or letters that differ.
    """
    found: dict[str, list[HeldLetter]] = {_checked_key(key): [] for key in keys}
    selected = []
    for held in letters:
        names = [key for key in found if held.digest.startswith(key)]
        for key in names:
            found[key].append(held)
        if names:
            selected.append(held)
    for key, matches in found.items():
        _check_unique(key, {held.digest for held in matches})
    return selected


def _checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"the key of a dead letter is {_KEY_DIGITS} hexadecimal digits, or the first four or more of them, not "
            f"{printable(key)}"
        )
    return key


def _check_unique(key: str, digests: set[str]) -> None:
    if not digests:
        raise NoDeadLetter(f"no dead letter has the key {key}, or has it any more")
    if len(digests) > 1:
        raise NoDeadLetter(f"{len(digests)} dead letters have a key that begins with {key}; give more of its digits")


def digest_of(delivery: Delivery, body: bytes) -> str:
    """Return the key of a letter in full, 64 hexadecimal digits."""
    texts = (delivery.message_id, delivery.correlation_id, delivery.routing_key)
    parts = [*((text or "").encode("utf-8", "surrogateescape") for text in texts), body]
    # With their lengths, so that moving bytes from one part to the next gives another digest.
    return sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


# -- reading a message ----------------------------------------------------------------------------------------


def read_letter(delivery: Delivery) -> HeldLetter:
    """Read a message that was taken from a queue of dead letters."""
    body, (headers, unreadable) = delivery.body or b"", tables.read(delivery.raw_headers or _NO_HEADERS)
    digest = digest_of(delivery, body)
    reason, count, died = _death(headers)
    letter = DeadLetter(
        key=digest[:_KEY_DIGITS],
        routing_key=delivery.routing_key,
        user_id=delivery.user_id,
        message_id=delivery.message_id,
        correlation_id=delivery.correlation_id,
        reason=reason,
        count=count,
        died=died,
        headers=headers,
        body=body,
        is_notification=messages.classify(body).is_notification,
        method=_method(body),
    )
    obstacle = _UNDECODED if delivery.body is None else _obstacle(letter, unreadable.names)
    return HeldLetter(delivery, letter, digest, obstacle)


def _death(headers: Mapping[str, Any]) -> tuple[str | None, int | None, datetime | None]:
    """Return reason, count and time of the last death: RabbitMQ writes it first; a sender may forge further entries."""
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(death, dict):
        return None, None, None
    reason, count, died = (death.get(name) for name in ("reason", "count", "time"))
    return (
        reason if isinstance(reason, str) else None,
        count if isinstance(count, int) else None,
        # AMQP's time is in UTC; py-amqp returns it without a time zone.
        died.replace(tzinfo=timezone.utc) if isinstance(died, datetime) else None,
    )


def _method(body: bytes) -> str | None:
    try:
        value = loads(body)
    except Malformed:
        return None
    members = value if isinstance(value, list) else [value]
    names = [member.get("method") for member in members if isinstance(member, dict)]
    return ", ".join(name for name in names if isinstance(name, str)) or None


def _obstacle(letter: DeadLetter, unreadable: Iterable[str]) -> str | None:
    if not letter.is_notification:
        return "it is a call, whose caller has been told, or has given up: call anew what is still wanted"
    # RabbitMQ accepts header values that Python cannot represent.
    lost = [name for name in unreadable if not _NOT_RESENT.fullmatch(name)]
    if lost:
        return f"its header {printable(lost[0])} cannot be read, and would be lost"
    try:
        tables.encode(headers_to_resend(letter))
    except EncodeError as exc:
        return f"its headers cannot be sent: {printable(str(exc))}"
    return None
