"""Who may call which method (pure)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from inspect import iscoroutinefunction
from typing import TypeGuard

from ..context import Request
from .display import printable

log = logging.getLogger("jsonrpc_amqp.server")

Users = str | Collection[str]
"""One name, or several."""

Rule = Callable[[Request], bool]
AsyncRule = Callable[[Request], Awaitable[bool]]
Authorize = Rule | AsyncRule | Mapping[str, Users]
"""Which user may call which method; see ``authorizer``."""

Matches = Callable[[str], bool]

ANY_USER = "*"


def authorizer(rule: Authorize | None) -> Rule | AsyncRule | None:
    """
    Turn the value of ``authorize=`` into one callable, or None: every user may call every method.

    Args:
        rule: A function that takes the ``Request`` and returns True if it may run, or ``async def``, which
            ``is_async`` tells. Or users by patterns of method
            names, in which ``*`` stands for any characters: the first pattern that matches decides, and a method that
            matches none may not be called. The user ``"*"`` is any user whose name is known.

    Raises:
        TypeError: It is neither, or a pattern or a user is no string.
        ValueError: A pattern has no users.
    """
    if rule is None:
        return None
    if isinstance(rule, Mapping):
        return _Rules([(_matcher(pattern), users_of(users)) for pattern, users in rule.items()])
    if not callable(rule):
        raise TypeError(f"authorize is a callable or a mapping of patterns to users, not a {type(rule).__name__}")
    return _awaited(rule) if is_async(rule) else _refusing_on_error(rule)


def is_async(rule: object) -> TypeGuard[AsyncRule]:
    """Return whether a rule is to be awaited."""
    # An object may have an ``async def __call__``.
    return any(map(iscoroutinefunction, (rule, type(rule).__call__)))


def users_of(users: Users) -> frozenset[str]:
    """
    Return the set of names in ``users``, which may be one name.

    Raises:
        TypeError: It is neither a string nor a collection of strings.
        ValueError: It is empty, or holds an empty name.
    """
    if not isinstance(users, Iterable):
        raise TypeError(f"users are one name or several, not {users!r}")
    names = [users] if isinstance(users, str) else list(users)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"users are names, not {users!r}")
    if not names or "" in names:
        raise ValueError("users are one name or several; to let no user in, leave the pattern out")
    return frozenset(names)


def check_user(user: str | None) -> None:
    """
    Check the value of ``user=``.

    Raises:
        ValueError: The name is empty.
    """
    if user == "":
        raise ValueError("user is the name of an AMQP user, which is not empty; None is that of the URL")


class _Rules:
    """Users by patterns of method names; the first pattern that matches decides."""

    def __init__(self, rules: list[tuple[Matches, frozenset[str]]]) -> None:
        self._rules = rules

    def __call__(self, request: Request) -> bool:
        user, method = request.user_id, request.method
        if not user or method is None:
            return False
        users = next((users for matches, users in self._rules if matches(method)), None)
        return users is not None and (user in users or ANY_USER in users)


def _matcher(pattern: str) -> Matches:
    """
    Return a function that says whether a name matches a pattern.

    Only "*" is special, so each part between two of them may be matched where it first occurs: in linear time, where a
    regular expression tries all places.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"the name of a method, or a pattern of names, is a string, not {pattern!r}")
    begin, *parts = pattern.split("*")
    if not parts:
        return pattern.__eq__
    end = parts.pop()

    def matches(name: str) -> bool:
        place, stop = len(begin), len(name) - len(end)
        if place > stop or not name.startswith(begin) or not name.endswith(end):
            return False
        for part in parts:
            place = name.find(part, place, stop)
            if place < 0:
                return False
            place += len(part)
        return True

    return matches


def _refusing_on_error(rule: Callable[[Request], object]) -> Rule:
    """Wrap a rule so that it refuses when it raises, or returns anything but True."""

    def authorize(request: Request) -> bool:
        try:
            return rule(request) is True
        # BaseException: a rule that calls sys.exit() must not end the server's thread.
        except BaseException:
            _log_refusal(request)
            return False

    return authorize


def _awaited(rule: AsyncRule) -> AsyncRule:
    """Do what ``_refusing_on_error`` does for a rule that is awaited; a cancellation passes."""

    async def authorize(request: Request) -> bool:
        try:
            return await rule(request) is True
        except (Exception, SystemExit):
            _log_refusal(request)
            return False

    return authorize


def _log_refusal(request: Request) -> None:
    log.exception("authorize raised on a call of %s; it is refused", printable(request.method or ""))
