"""The request that a handler serves, in a context variable (pure)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol


class Envelope(Protocol):
    """The message that carried a request, without its body; see ``Request`` for what the properties mean."""

    @property
    def service(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, Any]: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def redelivered(self) -> bool: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def is_wanted(self) -> bool:
        """False once the server drains, or the connection of the message was lost: give back what has not begun."""
        ...

    def acknowledge(self) -> None:
        """Acknowledge the message now, not after the reply."""
        ...

    def dead_letter(self) -> None:
        """Let the message become a dead letter: a request in it did not run, and its sender gets no error."""
        ...

    def forbid_dead_letter(self) -> None:
        """
        Keep the message from becoming a dead letter, whatever else in it requires that.

        It holds a request that its sender may not run; requeued by an operator, it would run in the operator's name.
        """
        ...

    def give_back(self) -> None:
        """
        Return the message to its queue now: nothing in it began.

        For a server that begins no more requests; to any other the broker may deliver it again at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoEnvelope:
    """The envelope of a dispatcher that is called without a transport."""

    service: str = ""
    routing_key: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    user_id: str | None = None
    redelivered: bool = False
    deadline: float | None = None
    is_wanted: bool = True

    def acknowledge(self) -> None:
        """Do nothing: there is no message."""

    def dead_letter(self) -> None:
        """Do nothing: there is no message."""

    def forbid_dead_letter(self) -> None:
        """Do nothing: there is no message."""

    def give_back(self) -> None:
        """Do nothing: there is no message."""


@dataclass(slots=True, eq=False)
class Request:
    """
    The request that is being served.

    Attributes:
        method: The method's name; None until the body is decoded.
        id: The JSON-RPC id; None for a notification (and for an id of null).
        is_notification: True if no reply is awaited.
        envelope: The message that carried it.
        params: As they came, by position or by name; what middleware puts there is what the method gets.
        arguments: What was made of the params by the type hints of the method, once that was done; None before, and
            where there is no middleware.
    """

    method: str | None
    id: Any
    is_notification: bool
    # Not shown: params may be secret.
    envelope: Envelope = field(repr=False)
    params: list[Any] | dict[str, Any] | None = field(default=None, repr=False)
    arguments: list[Any] | dict[str, Any] | None = field(default=None, repr=False)

    @property
    def service(self) -> str:
        """The service that received it."""
        return self.envelope.service

    @property
    def routing_key(self) -> str:
        """The AMQP routing key of the message."""
        return self.envelope.routing_key

    @property
    def headers(self) -> Mapping[str, Any]:
        """The AMQP headers of the message that can be read. The sender chose them; do not trust them."""
        return self.envelope.headers

    @property
    def user_id(self) -> str | None:
        """The AMQP user that published it, verified by the broker; None if the client sent none."""
        return self.envelope.user_id

    @property
    def redelivered(self) -> bool:
        """True if the broker may have delivered it to a server before, so it may be running a second time."""
        return self.envelope.redelivered

    @property
    def remaining(self) -> float | None:
        """
        Seconds until the caller gives up, never below 0; None if it waits for ever, or did not state its deadline.

        An upper bound: it does not count the time in the broker's queue.
        """
        deadline = self.envelope.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())


_NO_ENVELOPE = NoEnvelope()
_current: ContextVar[Request | None] = ContextVar("jsonrpc_amqp_request", default=None)

enter = _current.set
leave = _current.reset
current_or_none = _current.get


class CallNext(Protocol):
    """
    What middleware is given beside a request: it runs the next middleware, or what that is around.

    It returns the result, or raises what was raised. It takes a ``Request`` on a server, an ``OutgoingRequest`` at a
    client.
    """

    def __call__(self, request: Any, /) -> Any: ...


class AsyncCallNext(Protocol):
    """``CallNext`` of middleware that is ``async def``: what it returns is awaited."""

    def __call__(self, request: Any, /) -> Awaitable[Any]: ...


def no_request(method: str, id: Any) -> Request:
    """Return a request that no message carried."""
    return Request(method, id, False, _NO_ENVELOPE)


def current_envelope() -> Envelope:
    """Return that of the request that the calling handler serves; outside a handler one that has no message."""
    request = _current.get()
    return _NO_ENVELOPE if request is None else request.envelope


def current_request() -> Request:
    """
    Return the request that the calling handler serves.

    Raises:
        RuntimeError: Outside a handler.
    """
    request = _current.get()
    if request is None:
        raise RuntimeError("current_request() is only known inside a method that is being called")
    return request
