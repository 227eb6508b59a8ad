"""
Who asks, who answers, and who may call what (pure).

Whoever may publish can write anything into a message but what the broker itself vouches for: ``user_id`` (it refuses a
false one), the exchange and the routing key that the message was published with, whatever way it took to a queue, and
the header that it adds to a dead letter. The rules here rest on nothing else; docs/security.md says against what.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from inspect import iscoroutinefunction
from re import Pattern
from typing import NamedTuple

from .context import Request
from .errors import InvalidName
from .protocol import MAX_QID_BYTES, NO_QID, TOKEN_LENGTH, printable, user_word
from .transport.base import DIRECT_REPLY_TO, Delivery

log = logging.getLogger("jsonrpc_amqp.server")

Users = str | Collection[str]
"""One name, or several."""
Authorize = Callable[[Request], bool] | Mapping[str, Users]
"""Says which user may call which method; see ``authorizer``."""

ANY_USER = "*"
# RabbitMQ adds this header to whatever leaves a queue as a dead letter. Looked for in the bytes (a name with its
# length): a table with something in it that cannot be read would hide it.
_DEATH = b"\x07x-death"

# What follows in the key of a request: the word of the client, then, for a call, the qid.
_TAIL = re.compile(
    rf"(?P<user>[^.]+)-[a-z0-9]{{{TOKEN_LENGTH}}}(?:\.[A-Za-z0-9_-]{{1,{MAX_QID_BYTES}}})?",
)


# -- who asks -------------------------------------------------------------------------------------------------


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
        return Refusal(f"its key names no user ({_shown(user)} sent it)", by_name)
    if tail and named != _word(user):
        return Refusal(f"its key names another user than its sender, {_shown(user)}", by_name)
    # With its user_id it would be served once more, or by another service, whenever somebody likes.
    if _is_dead_letter(delivery):
        return Refusal("it is a dead letter of a queue, so somebody else may have sent it on", by_name)
    return None


def _is_dead_letter(delivery: Delivery) -> bool:
    return delivery.raw_headers is not None and _DEATH in delivery.raw_headers


@lru_cache(maxsize=1024)
def _word(user: str) -> str | None:
    try:
        return user_word(user)
    except InvalidName:
        return None  # no key has room for it


# -- who may call what ------------------------------------------------------------------------------------------


def authorizer(rule: Authorize | None) -> Callable[[Request], bool] | None:
    """
    Make one callable of what ``authorize=`` takes; None: everybody may call everything.

    Args:
        rule: A callable that is given the ``Request`` and returns True if it may run. Or users by patterns of method
            names, in which ``*`` stands for any characters: the first pattern that fits decides, and what fits none may
            not be called. The user ``"*"`` is anybody whose name is known.

    Raises:
        TypeError, ValueError: It is something else, or a pattern has no users.
    """
    if rule is None:
        return None
    if isinstance(rule, Mapping):
        return _Rules([(_pattern(pattern), users_of(users)) for pattern, users in rule.items()])
    if not callable(rule):
        raise TypeError(f"authorize is a callable or a mapping of patterns to users, not a {type(rule).__name__}")
    # An object may have an ``async def __call__``.
    if any(map(iscoroutinefunction, (rule, type(rule).__call__))):
        raise TypeError("authorize is async def, which is not supported: what it gives is not True, and lets nobody in")
    return _closed(rule)


def users_of(users: Users) -> frozenset[str]:
    """
    Give the names in ``users``, which may be one name.

    Raises:
        TypeError, ValueError: There is no name in it, or something else.
    """
    if not isinstance(users, Iterable):
        raise TypeError(f"users are one name or several, not {users!r}")
    names = [users] if isinstance(users, str) else list(users)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"users are names, not {users!r}")
    if not names or "" in names:
        raise ValueError("users are one name or several; to let nobody in, leave the pattern out")
    return frozenset(names)


def check_user(user: str | None) -> None:
    """
    Check what ``user=`` takes.

    Raises:
        ValueError: The name is empty.
    """
    if user == "":
        raise ValueError("user is the name of an AMQP user, which is not empty; None is that of the URL")


class _Rules:
    def __init__(self, rules: list[tuple[Pattern[str], frozenset[str]]]) -> None:
        self._rules = rules

    def __call__(self, request: Request) -> bool:
        user, method = request.user_id, request.method
        if not user or method is None:
            return False
        users = next((users for pattern, users in self._rules if pattern.fullmatch(method)), None)
        return users is not None and (user in users or ANY_USER in users)


def _pattern(pattern: str) -> Pattern[str]:
    if not isinstance(pattern, str):
        raise TypeError(f"the name of a method, or a pattern of names, is a string, not {pattern!r}")
    # Other signs than "*" stand for themselves: fnmatch would read "[" as well.
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _closed(rule: Callable[[Request], bool]) -> Callable[[Request], bool]:
    """Have a rule that fails let nobody in."""

    def decide(request: Request) -> bool:
        try:
            return rule(request) is True
        # BaseException: a sys.exit() in there must not take the server's thread along.
        except BaseException:
            log.exception("authorize raised on a call of %s; it is refused", printable(request.method or ""))
            return False

    return decide


def _shown(user: str | None) -> str:
    return "a sender without a user_id" if not user else f"user {printable(user)}"


# -- who answers ------------------------------------------------------------------------------------------------


class Answers:
    """
    What the answers to one client must look like.

    Args:
        exchange: They come over this one; "" is the default exchange.
        users: Who may answer; None: anybody.
    """

    def __init__(self, exchange: str, users: frozenset[str] | None) -> None:
        self._exchange = exchange
        self._users = users

    def flaw(self, delivery: Delivery, key: str) -> str | None:
        """
        Say why a message cannot be the answer to a call; None: it can.

        Args:
            key: The routing key that the answer must have; ``amq.rabbitmq.reply-to`` stands for what RabbitMQ makes
                of it.
        """
        if delivery.exchange != self._exchange or (
            delivery.routing_key != key
            and not (key == DIRECT_REPLY_TO and delivery.routing_key.startswith(f"{DIRECT_REPLY_TO}."))
        ):
            return (
                f"it was published to exchange {printable(delivery.exchange)} with key "
                f"{printable(delivery.routing_key)}, which is not where its server would send it"
            )
        if self._users is not None and delivery.user_id not in self._users:
            return f"it is from {_shown(delivery.user_id)}, who is not the server"
        # A client that may have a queue of its own can have its own answers fall out of it, and into ours.
        if _is_dead_letter(delivery):
            return "it is a dead letter of another queue"
        return None
