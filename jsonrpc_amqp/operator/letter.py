"""One dead letter: what its message says, and the key that names it (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

from ..amqp import tables
from ..amqp.base import Delivery
from ..errors import EncodeError, NoDeadLetter
from ..jsonrpc import messages
from ..jsonrpc.text import Malformed, loads
from ..options import MAX_BATCH
from ..wire.display import printable

# Enough digits to tell apart the letters that a person looks at; the whole digest is accepted, too.
_KEY_DIGITS = 12
_KEY = re.compile(r"[0-9a-f]{4,64}")
# Headers that were added after the request was sent, and CC and BCC, by which the broker would send copies, in the
# operator's name, to queues that the sender of the request chose.
_NOT_RESENT = re.compile(r"x-.*|timeout-ms|CC|BCC", re.DOTALL)
_NO_HEADERS = bytes(4)
_UNDECODED = "it cannot be read: it is not as AMQP says, or larger than any message that RabbitMQ takes"
# A server may be configured to take larger batches than by default.
_MOST_MEMBERS = 100 * MAX_BATCH
# Characters of a method's name, and bytes of headers, in a list without bodies. As values, headers take ten times that.
MOST_LISTED_METHOD, MOST_LISTED_HEADERS = 1000, 1 << 14
# By a consumer, which RabbitMQ lets no user be without the permission to read the queue.
_REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """
    One request that no server could handle. All of it but ``user_id``, ``reason`` and ``checked`` is what its sender,
    or a server, wrote; on RabbitMQ 3 a sender may have written ``count`` and ``died``, too, unless it is ``checked``.

    Texts are decoded from UTF-8 with ``surrogateescape``: escape them before you show them.

    Attributes:
        key: Names it: 12 hexadecimal digits, a digest of its ids, its routing key, its body, its sender, and of whether
            it is checked. Letters that agree in all of these have the same key.
        routing_key: As it was sent.
        user_id: Its sender, which the broker verified; None: unknown.
        message_id: Of a notification; None: it has none.
        correlation_id: Of a call; None: it has none.
        reason: "rejected" by a server; or why RabbitMQ moved it by itself: "delivery_limit", "expired", "maxlen"; None:
            not known.
        count: How often it was dead-lettered for this reason, as RabbitMQ counts; None: not known.
        died: When, in UTC; None: not known.
        headers: All AMQP headers that can be read, RabbitMQ's own (``x-death``, ...) included.
        body: As it was sent.
        is_notification: No reply is awaited, so it may be sent again.
        method: Of a batch the methods of its members, joined by ", "; None: it has none.
        checked: A server of the service rejected it, which it does only once it knows that its sender may call what it
            asks for (``Server(authorize=...)``). False: RabbitMQ moved it here itself, or it was put here by a user.
        size: Bytes of the body.
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
    checked: bool = False
    size: int = 0


class Service(NamedTuple):
    """
    Where requests of a service pass.

    Attributes:
        exchange: The topic exchange, which its users may publish to.
        request_queue: The queue that its servers consume.
    """

    exchange: str
    request_queue: str


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


def without_body(held: HeldLetter) -> DeadLetter:
    """Return a letter for a list of many: without its body, and without what else its sender may have made large."""
    letter = held.letter
    is_large = len(held.delivery.raw_headers or b"") > MOST_LISTED_HEADERS
    headers: Mapping[str, Any] = {} if is_large else letter.headers
    return replace(letter, body=b"", method=letter.method and letter.method[:MOST_LISTED_METHOD], headers=headers)


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


def digest_of(delivery: Delivery, body: bytes, checked: bool) -> str:
    """Return the key of a letter in full, 64 hexadecimal digits."""
    # Who names one letter must not get another that a different user sent, or that no server has checked.
    trust = "checked" if checked else None
    texts = (delivery.message_id, delivery.correlation_id, delivery.routing_key, delivery.user_id, trust)
    parts = [*((text or "").encode("utf-8", "surrogateescape") for text in texts), body]
    # With their lengths, so that moving bytes from one part to the next gives another digest.
    return sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


# -- reading a message ----------------------------------------------------------------------------------------


class _Death(NamedTuple):
    queue: str | None
    reason: str | None
    times: int | None
    died: datetime | None


def read_letter(delivery: Delivery, service: Service) -> HeldLetter:
    """Read a message that was taken from a queue of dead letters; its body is never over the size cap there."""
    body, (headers, unreadable) = delivery.body or b"", tables.read(delivery.raw_headers or _NO_HEADERS)
    death = _last_death(headers)
    checked, value = _is_checked(delivery, death, service), _json(body)
    digest = digest_of(delivery, body, checked)
    letter = DeadLetter(
        key=digest[:_KEY_DIGITS],
        routing_key=delivery.routing_key,
        user_id=delivery.user_id,
        message_id=delivery.message_id,
        correlation_id=delivery.correlation_id,
        reason=death.reason,
        count=death.times,
        died=death.died,
        headers=headers,
        body=body,
        is_notification=messages.kind_of(value).is_notification,
        method=_method(value),
        checked=checked,
        size=len(body),
    )
    obstacle = _UNDECODED if delivery.body is None else _obstacle(letter, unreadable.names)
    return HeldLetter(delivery, letter, digest, obstacle)


def _last_death(headers: Mapping[str, Any]) -> _Death:
    """
    Return the last death.

    RabbitMQ puts it first, and only its queue and its reason are RabbitMQ's own in any case: where a sender wrote an
    entry with both, RabbitMQ 3 counts it up and keeps the rest. Other headers say less: with an ``x-death`` of its
    sender's, RabbitMQ 3 writes no ``x-first-death-...``, and it never writes ``x-last-death-...``.
    """
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(death, dict):
        return _Death(None, None, None, None)
    queue, reason, count, died = (death.get(name) for name in ("queue", "reason", "count", "time"))
    return _Death(
        queue if isinstance(queue, str) else None,
        reason if isinstance(reason, str) else None,
        count if isinstance(count, int) else None,
        # AMQP's time is in UTC; py-amqp returns it without a time zone.
        died.replace(tzinfo=UTC) if isinstance(died, datetime) else None,
    )


def _is_checked(delivery: Delivery, death: _Death, service: Service) -> bool:
    # What was published to the queue by its name, or over the exchange of requests, is no dead letter: all of its
    # headers are its sender's.
    was_moved = delivery.exchange not in ("", service.exchange)
    return was_moved and (death.reason, death.queue) == (_REJECTED, service.request_queue)


def _json(body: bytes) -> Any:
    """Return the value of a body; None if it is none, or one that no server would take for a batch."""
    try:
        return loads(body, max_members=_MOST_MEMBERS)
    except Malformed:
        return None


def _method(value: Any) -> str | None:
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
