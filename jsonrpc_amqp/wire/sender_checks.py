"""Whether a request comes from the user that its routing key names, as far as the broker verifies it (pure)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ..amqp.base import Delivery
from ..errors import InvalidName
from .display import sender
from .names import MAX_QID_BYTES, NO_QID, TOKEN_LENGTH, user_word

# RabbitMQ adds this header to every message that it dead-letters. It is searched for in the encoded table (a name with
# its length), because a table that also holds a value that cannot be decoded would hide it.
_DEATH = b"\x07x-death"

_CLIENT_WORD = rf"(?P<user>[^.]+)-[a-z0-9]{{{TOKEN_LENGTH}}}"
# The rest of a request's key: the word of the client, then, for a call, the qid.
_TAIL = re.compile(rf"{_CLIENT_WORD}(?:\.[A-Za-z0-9_-]{{1,{MAX_QID_BYTES}}})?")
# Some client's replies: all that begins with its word.
_CLIENT = re.compile(rf"{_CLIENT_WORD}(?:\..*)?", re.DOTALL)


class Refusal(NamedTuple):
    """
    Why a request is not served.

    Attributes:
        reason: For the log of the server.
        may_reply: Whether the sender gets an error. False: the reply would go to another client, as if it had called.
    """

    reason: str
    may_reply: bool


def refuse_sender(delivery: Delivery, *, service: str, exchange: str) -> Refusal | None:
    """
    Check that a request comes from the user that its key names; return None if it does.

    The request must have a ``user_id``, have come over the service's exchange, with a key that names that user, or with
    a bare ``S.request``, and must not be a dead letter of another queue.
    """
    prefix, user = f"{service}.request", delivery.user_id
    # Without a reply_to the reply goes to the client that the key names. A reply_to is trusted as on any other request.
    has_reply_to = delivery.reply_to is not None
    tail = delivery.routing_key.removeprefix(prefix)
    if delivery.exchange != exchange or not delivery.routing_key.startswith(prefix) or tail[:1] not in ("", "."):
        return Refusal("it did not come over the exchange with a key of this service", has_reply_to)
    # A dead letter keeps its user_id, so another user could have it served again, or by another service, at any time.
    # Before all that names its sender: the log must not say that it was that user who sent it here.
    if is_dead_letter(delivery):
        return Refusal("it is a dead letter of a queue, so another user may have sent it on", has_reply_to)
    match = _TAIL.fullmatch(tail, 1) if tail else None
    named = match["user"] if match else None
    if not user:
        return Refusal("it has no user_id", has_reply_to or named == NO_QID)
    if tail and named is None:
        return Refusal(f"its key names no user ({sender(user)} sent it)", has_reply_to)
    if tail and named != _word(user):
        return Refusal(f"its key names another user than its sender, {sender(user)}", has_reply_to)
    return None


def client_of(tail: str, delivery: Delivery) -> bool | None:
    """
    Return whether the end of a reply's key, behind ``S.response.``, names the client that sent a request.

    None: it names no client. Only the user is compared, since that is what the broker verifies; ``_`` is the name of a
    user who is not known.
    """
    match = _CLIENT.fullmatch(tail)
    if match is None:
        return None
    named, user = match["user"], delivery.user_id
    return named == (_word(user) if user else NO_QID) and not is_dead_letter(delivery)


def is_dead_letter(delivery: Delivery) -> bool:
    """Whether RabbitMQ moved the message here from another queue."""
    return delivery.raw_headers is not None and _DEATH in delivery.raw_headers


@lru_cache(maxsize=1024)
def _word(user: str) -> str | None:
    try:
        return user_word(user)
    except InvalidName:
        return None  # too long for any key
