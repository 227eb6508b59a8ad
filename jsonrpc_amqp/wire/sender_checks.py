"""Who sent a request, as far as the broker vouches for it (pure)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from ..amqp.base import Delivery
from ..errors import InvalidName
from .display import printable
from .names import MAX_QID_BYTES, NO_QID, TOKEN_LENGTH, user_word

# RabbitMQ adds this header to whatever leaves a queue as a dead letter. Looked for in the bytes (a name with its
# length): a table with something in it that cannot be read would hide it.
_DEATH = b"\x07x-death"

# What follows in the key of a request: the word of the client, then, for a call, the qid.
_TAIL = re.compile(
    rf"(?P<user>[^.]+)-[a-z0-9]{{{TOKEN_LENGTH}}}(?:\.[A-Za-z0-9_-]{{1,{MAX_QID_BYTES}}})?",
)


class Refusal(NamedTuple):
    """
    Why a request is not served.

    Attributes:
        reason: For the log of the server.
        may_answer: Its sender may be told. False: the answer would go to somebody else, as if they had asked.
    """

    reason: str
    may_answer: bool


def refuse_sender(delivery: Delivery, *, service: str, exchange: str) -> Refusal | None:
    """
    Check that a request comes from the user that it seems to come from; None: it does.

    It must have a ``user_id``, have come over the service's exchange, with a key that names that user, or with a bare
    ``S.request``, and be no dead letter of another queue.
    """
    prefix, user = f"{service}.request", delivery.user_id
    # Where answers go by its key they go to whom the key names. A reply_to is as good as it is on any other request.
    by_name = delivery.reply_to is not None
    tail = delivery.routing_key.removeprefix(prefix)
    if delivery.exchange != exchange or not delivery.routing_key.startswith(prefix) or tail[:1] not in ("", "."):
        return Refusal("it did not come over the exchange with a key of this service", by_name)
    match = _TAIL.fullmatch(tail, 1) if tail else None
    named = match["user"] if match else None
    if not user:
        return Refusal("it has no user_id", by_name or named == NO_QID)
    if tail and named is None:
        return Refusal(f"its key names no user ({shown_user(user)} sent it)", by_name)
    if tail and named != _word(user):
        return Refusal(f"its key names another user than its sender, {shown_user(user)}", by_name)
    # With its user_id it would be served once more, or by another service, whenever somebody likes.
    if is_dead_letter(delivery):
        return Refusal("it is a dead letter of a queue, so somebody else may have sent it on", by_name)
    return None


def is_dead_letter(delivery: Delivery) -> bool:
    return delivery.raw_headers is not None and _DEATH in delivery.raw_headers


@lru_cache(maxsize=1024)
def _word(user: str) -> str | None:
    try:
        return user_word(user)
    except InvalidName:
        return None  # no key has room for it


def shown_user(user: str | None) -> str:
    return "a sender without a user_id" if not user else f"user {printable(user)}"
