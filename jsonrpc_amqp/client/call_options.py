"""What every form of a call takes by keyword."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict

from .attempts import Retry
from .call import SendOptions

NoConsumersPolicy = Literal["wait", "fail"]
"""What becomes of a call whose queue has no consumers."""


class Options(TypedDict, total=False):
    """
    What every form of a call takes by keyword; what is left out is the client's.

    Attributes:
        timeout: Seconds until the call ends in any case; None: never.
        service: The service to call.
        headers: AMQP headers to send along; what RabbitMQ would not take is an ``EncodeError``, before anything is
            sent.
        persistent: Have the broker keep the message on disk, and confirm that it does; a queue that refuses it ends
            the call at once (``Overloaded``). Notifications are kept unless said otherwise.
        retry: Try again, with back-off and jitter, as long as the deadline allows: "safe", after errors whose
            ``may_have_run`` is false (no queue yet, a full queue); "idempotent", after a lost connection, too, since
            the method may run twice. No attempt begins in the last 0.1 s. None: never.
        no_consumers: "fail": where no server consumes from the queue, end the call at once, unsent (``NoConsumers``);
            "wait": have it wait in the queue for one, until its deadline. Notifications always wait.
    """

    timeout: float | None
    service: str
    headers: Mapping[str, Any] | None
    persistent: bool
    retry: Retry | None
    no_consumers: NoConsumersPolicy


class Chosen(NamedTuple):
    """Resolved options: for a call, and for a notification."""

    service: str
    timeout: float | None
    call: SendOptions
    notification: SendOptions


_KNOWN = frozenset(Options.__annotations__)


def check_options(options: Options) -> None:
    if not _KNOWN.issuperset(options):
        unknown = ", ".join(sorted(set(options) - _KNOWN))
        raise TypeError(
            f"unknown option {unknown}; known: {', '.join(sorted(_KNOWN))}. Parameters go into a list or a dict; "
            "proxy takes them one by one. A queue, a route and the like are chosen for the whole client"
        )


def check_no_consumers(policy: object) -> None:
    if policy not in ("wait", "fail"):
        raise ValueError(f"no_consumers is 'wait' or 'fail', not {policy!r}")


def check_timeout(timeout: float | None) -> None:
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
        raise ValueError(f"a timeout is a number of seconds, 0 or more, or None to wait for ever; not {timeout!r}")
