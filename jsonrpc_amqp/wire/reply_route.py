"""Where the reply to a request goes (pure)."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection
from functools import lru_cache
from re import Pattern
from typing import NamedTuple

from ..amqp.base import DIRECT_REPLY_TO, Delivery
from .names import fits_in_key


class Route(NamedTuple):
    """Where a reply is published."""

    exchange: str
    routing_key: str
    mandatory: bool


def reply_route(
    delivery: Delivery,
    *,
    service: str,
    exchange: str,
    request_queues: Collection[str] = (),
    allowed: Callable[[str], bool] | None = None,
) -> Route | None:
    """
    Return the route of the reply to a request, or None if there is none.

    With ``reply_to``, the reply goes to that queue, through the default exchange. The queue must not hold requests or
    dead letters, and its name must not begin with ``amq.``, except for names that brokers generate for replies.
    Without ``reply_to``, the reply goes to the topic exchange with the request's own key mirrored, if the request came
    over that exchange.

    Args:
        delivery: The request.
        service: The service that received it.
        exchange: Its topic exchange.
        request_queues: Further names of queues that requests are read from.
        allowed: Returns whether a ``reply_to`` that passed the rules above is allowed.
    """
    reply_to = delivery.reply_to
    if reply_to is not None:
        if not _may_reply_to(reply_to, request_queues) or not (allowed is None or allowed(reply_to)):
            return None
        # RabbitMQ delivers a mandatory publish to a live direct reply-to, and returns it as well.
        return Route("", reply_to, not reply_to.startswith(f"{DIRECT_REPLY_TO}."))
    prefix = f"{service}.request."
    if delivery.exchange != exchange or not delivery.routing_key.startswith(prefix):
        return None
    # By position, not by search: a user or a qid may be called "request".
    key = f"{service}.response.{delivery.routing_key[len(prefix) :]}"
    # "response" is one byte longer than "request", and the request's key may be of the greatest length.
    return Route(exchange, key, True) if fits_in_key(key) else None


def _may_reply_to(queue: str, request_queues: Collection[str]) -> bool:
    if not queue or not fits_in_key(queue):
        return False
    # Nor dead letters: an operator may requeue what is there, under the operator's own name.
    if queue in request_queues or queue.endswith(("_req", "_dead")):
        return False
    if queue.startswith(f"{DIRECT_REPLY_TO}."):
        return _is_direct_reply_to(queue)
    return not queue.startswith("amq.") or queue.startswith("amq.gen-")


@lru_cache(1024)  # a client uses one name for all of its calls
def _is_direct_reply_to(queue: str) -> bool:
    """
    Whether RabbitMQ can have made this name: base64 of an Erlang process identifier, a dot, and a key.

    RabbitMQ decodes the name, and closes the whole connection if that fails.
    """
    encoded = queue.removeprefix(f"{DIRECT_REPLY_TO}.").partition(".")[0]
    try:
        term = base64.b64decode(encoded, validate=True)
    except ValueError:
        return False
    return _is_process_identifier(term)


def _is_process_identifier(term: bytes) -> bool:
    # https://www.erlang.org/doc/apps/erts/erl_ext_dist: version 131; NEW_PID_EXT (88) or PID_EXT (103); the node's
    # name, an atom (115 and 119 with one octet of length, 100 and 118 with two); 12 or 9 octets of numbers.
    head = term[:5].ljust(5, b"\0")
    if head[0] != 131 or head[1] not in (88, 103) or head[2] not in (100, 115, 118, 119):
        return False
    name = 1 + head[3] if head[2] in (115, 119) else 2 + (head[3] << 8 | head[4])
    return len(term) == 3 + name + (12 if head[1] == 88 else 9)


def reply_to_filter(allowed: str | Pattern[str] | Callable[[str], bool] | None) -> Callable[[str], bool] | None:
    """Turn the value of ``reply_to_allowed=`` into a callable; a regular expression must match the whole name."""
    if allowed is None or callable(allowed):
        return allowed
    pattern = re.compile(allowed)
    return lambda name: pattern.fullmatch(name) is not None
