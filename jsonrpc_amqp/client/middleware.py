"""
What runs around the calls of a client: the functions of a program, and what they are given.

    def timed(request, call_next):
        began = time.monotonic()
        try:
            return call_next(request)
        finally:
            observe(request.service, request.method, time.monotonic() - began)

    client = Client("amqp://", service="shop", middleware=[timed])
"""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from ..context import AsyncCallNext, CallNext
from ..jsonrpc.params import Params


@dataclass(slots=True, eq=False)
class OutgoingRequest:
    """
    What a client is about to send, as its middleware sees it.

    ``method``, ``params``, ``body``, ``service`` and ``headers`` may be changed, in place or with
    ``dataclasses.replace``: ``call_next`` sends what it is given.

    Attributes:
        method: The method's name; None for a batch, and for bytes.
        params: As the caller has given them; None where there are none, for a batch, and for bytes.
        service: The service that is called.
        headers: AMQP headers to send; at first those of the options.
        is_notification: There is no response: the result is None.
        body: What ``send_raw`` or ``submit_raw`` was given; else None, since the body is made when it is sent.
        members: Of a batch: the method and params of each call and notification, which cannot be changed.
        attempt: Of middleware that runs ``per_attempt``: which attempt of the call this is, from 1; else 0.
        deadline: When the call ends in any case, in monotonic seconds; infinite for never. It cannot be changed.
    """

    method: str | None
    params: Params = field(default=None, repr=False)
    service: str = ""
    headers: dict[str, Any] = field(default_factory=dict, repr=False)
    is_notification: bool = False
    body: bytes | None = field(default=None, repr=False)
    members: tuple[tuple[str, Params], ...] = field(default=(), repr=False)
    attempt: int = 0
    deadline: float = field(default=math.inf, repr=False)

    @property
    def timeout(self) -> float | None:
        """The seconds that are left, never below 0; None: for ever."""
        return None if self.deadline == math.inf else max(0.0, self.deadline - time.monotonic())

    def of_attempt(self, number: int) -> OutgoingRequest:
        """Return what one attempt sends; middleware may change it, and the next attempt has the original."""
        return replace(self, headers=dict(self.headers), attempt=number)


class ClientMiddleware(Protocol):
    """
    Runs around each call of a ``Client``; what it returns is the result.

    It may change the request, and call ``call_next`` once, several times or not at all.
    """

    def __call__(self, request: OutgoingRequest, call_next: CallNext, /) -> Any: ...


class AsyncClientMiddleware(Protocol):
    """``ClientMiddleware`` for ``AsyncClient``: an ``async def``, or an object whose ``__call__`` is one."""

    def __call__(self, request: OutgoingRequest, call_next: AsyncCallNext, /) -> Awaitable[Any]: ...


M = TypeVar("M", bound=Callable[..., Any])
"""Middleware of one kind of client."""
F = TypeVar("F", bound=Callable[..., Any])


def per_attempt(middleware: F) -> F:
    """
    Have middleware run around each attempt of a call (``retry=``), and not around the call.

    It may be used as a decorator. ``request.attempt`` is 1, 2, ... then. The middleware gets the error of each
    attempt, and what it raises decides whether another one follows.
    """
    return middleware if isinstance(middleware, _PerAttempt) else cast("F", _PerAttempt(middleware))


class _PerAttempt:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        # As a function, so that it decorates methods, too.
        if instance is None:
            return self
        return _PerAttempt(self.function.__get__(instance, owner))


class Stack(NamedTuple):
    """
    The middleware of a client, the outermost first.

    Attributes:
        calls: What runs around each call.
        attempts: What runs around each attempt, inside of all that runs around the call.
    """

    calls: tuple[Callable[..., Any], ...]
    attempts: tuple[Callable[..., Any], ...]


def stack_of(middleware: object, *, is_async: bool) -> Stack | None:
    """
    Sort middleware; None: there is none.

    Raises:
        TypeError: It is no sequence of functions, or one is of the other kind of client.
    """
    if callable(middleware) or isinstance(middleware, (str, bytes)) or not isinstance(middleware, Iterable):
        raise TypeError(f"middleware is a list of functions, not {middleware!r:.80}")
    given = list(middleware)
    for each in given:
        _check(each.function if isinstance(each, _PerAttempt) else each, is_async=is_async)
    stack = Stack(
        tuple(each for each in given if not isinstance(each, _PerAttempt)),
        tuple(each.function for each in given if isinstance(each, _PerAttempt)),
    )
    return stack if given else None


def _check(function: object, *, is_async: bool) -> None:
    name = getattr(function, "__qualname__", None) or repr(function)
    if not callable(function):
        raise TypeError(f"middleware is a function of a request and call_next, not {name:.80}")
    if isinstance(function, type):
        raise TypeError(f"middleware {name} is a class: give an object of it, which takes a request and call_next")
    kinds = (function, type(function).__call__)
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in kinds):
        raise TypeError(f"middleware {name} has a yield: it is to return call_next(request), or a result of its own")
    if any(map(inspect.iscoroutinefunction, kinds)) is not is_async:
        raise TypeError(
            f"middleware {name} is not async: that of an AsyncClient is async def, and awaits call_next(request)"
            if is_async
            else f"middleware {name} is async: that of a Client is a plain def, or use an AsyncClient"
        )


def compose(functions: Sequence[Callable[..., Any]], last: Callable[[OutgoingRequest], Any]) -> Any:
    """Return what calls the first of these functions with the rest as its ``call_next``; ``last`` ends the chain."""
    for function in reversed(functions):
        last = functools.partial(_step, function, last)
    return last


def _step(function: Callable[..., Any], call_next: Callable[[OutgoingRequest], Any], request: OutgoingRequest) -> Any:
    return function(request, call_next)
