"""What a handler may ask about the request that it serves (pure: a context variable)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol


class Envelope(Protocol):
    """What the message that carried a request says, besides its body."""

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
    def acknowledge(self) -> None:
        """Acknowledge the message now, not after its answer."""
        ...

    def dead_letter(self) -> None:
        """Leave the message to the dead letters: something that it asked for was not done, and nobody is told."""
        ...

    def forbid_dead_letter(self) -> None:
        """Do not, whatever else in it asks for that: who sends it again would have it run in their own name."""
        ...


@dataclass(frozen=True, slots=True)
class NoEnvelope:
    """Stands in where a dispatcher is called without a transport around it."""

    service: str = ""
    routing_key: str = ""
    headers: Mapping[str, Any] = field(default_factory=dict)
    user_id: str | None = None
    redelivered: bool = False
    deadline: float | None = None

    def acknowledge(self) -> None:
        """There is no message."""

    def dead_letter(self) -> None:
        """There is no message."""

    def forbid_dead_letter(self) -> None:
        """There is no message."""


@dataclass(slots=True, eq=False)
class Request:
    """
    The request that is being served.

    Attributes:
        method: The method's name; None until the body is decoded.
        id: The JSON-RPC id; None for a notification (and for an id of null).
        is_notification: True when nobody awaits an answer.
    """

    method: str | None
    id: Any
    is_notification: bool
    envelope: Envelope

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
        """The AMQP headers of the message; from the wire, so not to be trusted."""
        return self.envelope.headers

    @property
    def user_id(self) -> str | None:
        """The AMQP user that published it, verified by the broker; None where the client sent none."""
        return self.envelope.user_id

    @property
    def redelivered(self) -> bool:
        """True when the broker may have handed it to a server before, so it may be running a second time."""
        return self.envelope.redelivered

    @property
    def remaining(self) -> float | None:
        """
        Seconds until the caller gives up, never below 0; None when it waits for ever or did not say.

        An upper bound: time spent in the broker's queue is not in it.
        """
        deadline = self.envelope.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())


_current: ContextVar[Request | None] = ContextVar("jsonrpc_amqp_request", default=None)

enter = _current.set
leave = _current.reset
current_or_none = _current.get


def current_request() -> Request:
    """
    Give the request that the calling handler serves.

    Raises:
        RuntimeError: Outside a handler.
    """
    request = _current.get()
    if request is None:
        raise RuntimeError("current_request() is only known inside a method that is being called")
    return request
