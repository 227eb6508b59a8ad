"""
Checks whether a server keeps the contract, by calling it over the bus; the server may be written in any language.

It must implement the five methods that the examples of the JSON-RPC 2.0 specification use: ``subtract(minuend,
subtrahend)``, ``sum(...)``, ``get_data()``, ``update(...)`` and ``notify_hello(...)``. The checks are those examples,
the rules of docs/protocol.md, and the test vectors that concern a server.

    checks      the checks
    harness     sends their requests, and compares the replies
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..amqp.raw_client import RawClient
from ..errors import METHOD_NOT_FOUND, CallTimeout
from ..wire.names import DEFAULT_EXCHANGE, check_service, request_queue
from .checks import Check, checks
from .harness import SILENCE, SUBTRACT, Fault, Harness, Json, NoReply, call, read

# Seconds. Methods of the checks return at once; a server that needs longer is taken as one that does not reply.
TIMEOUT = 5.0
# The methods that the checks need, with valid params; and names of methods that must not exist.
_NEEDED: dict[str, list[Any]] = {
    "subtract": [42, 23],
    "sum": [1, 2, 4],
    "get_data": [],
    "update": [1, 2, 3],
    "notify_hello": [7],
}
_ABSENT = ("absent", "foobar", "foo.get", "m", "n")


class Result(NamedTuple):
    """
    The outcome of one check.

    Attributes:
        group: "specification", "wire", "vectors" or "hostile".
        name: What was checked.
        fault: What was wrong; None if the check passed.
    """

    group: str
    name: str
    fault: str | None


def run(
    url: str,
    service: str,
    *,
    exchange: str = DEFAULT_EXCHANGE,
    queue: str | None = None,
    timeout: float = TIMEOUT,
    only: Sequence[str] = (),
) -> Iterator[Result]:
    """
    Check a server, and yield each result at once. On the broker this only makes exclusive queues of its own.

    Args:
        url: The broker.
        service: The service; it must have the five methods.
        exchange: Its topic exchange.
        queue: Its request queue; None: ``<service>_req``.
        timeout: Seconds that a reply may take.
        only: Run the checks that have one of these in their group or name, in any case; empty: all.

    Raises:
        InvalidName: The service's name breaks a rule.
        ValueError: No check fits ``only``; there is no such queue; or the service lacks the methods.
        TransportError: There is no connection, or it was lost; or the server does not reply, or no longer does.
    """
    check_service(service)
    selected = _select(only)
    with RawClient(url, timeout=max(timeout, TIMEOUT), connection_name=f"jsonrpc-amqp conformance of {service}") as raw:
        harness = Harness(raw, service, exchange=exchange, queue=queue or request_queue(service), timeout=timeout)
        _check_testable(harness)
        for position, check in enumerate(selected, 1):
            fault = _fault_of(check, harness)
            yield Result(check.group, check.name, None if fault is None else str(fault))
            if isinstance(fault, NoReply):
                _expect_alive(harness, check, len(selected) - position)


def _select(only: Sequence[str]) -> list[Check]:
    wanted = [text.casefold() for text in only]
    selected = [each for each in checks() if not wanted or any(text in _label(each) for text in wanted)]
    if not selected:
        raise ValueError(f"no check has {' or '.join(map(repr, only))} in its group or name")
    return selected


def _label(check: Check) -> str:
    return f"{check.group} {check.name}".casefold()


def _fault_of(check: Check, harness: Harness) -> Fault | None:
    try:
        check.run(harness)
    except Fault as fault:
        harness.raw.take(SILENCE)  # late replies do not belong to the next check
        return fault
    return None


def _expect_alive(harness: Harness, check: Check, left: int) -> None:
    try:
        harness.ask(SUBTRACT)
    except NoReply as fault:
        raise CallTimeout(
            f"the server answers nothing any more since the check {check.name!r}: {fault}; {left} checks were not run"
        ) from None


def _check_testable(harness: Harness) -> None:
    """Raise if nearly every check would fail for the same reason."""
    try:
        harness.ask(SUBTRACT)
    except Fault as fault:
        raise CallTimeout(f"no server serves {harness.service!r} on exchange {harness.exchange!r}: {fault}") from None
    if harness.raw.waiting(harness.queue) is None:
        raise ValueError(f"there is no queue {harness.queue!r}: name the request queue of {harness.service!r}")
    missing = [name for name, params in _NEEDED.items() if _code(harness, name, params) == METHOD_NOT_FOUND]
    if missing:
        raise ValueError(f"service {harness.service!r} has no method {', '.join(missing)}, which the checks need")
    taken = [name for name in _ABSENT if _code(harness, name, []) is None]
    if taken:
        raise ValueError(
            f"service {harness.service!r} has a method {', '.join(taken)}; the checks need it to be absent"
        )


def _code(harness: Harness, method: str, params: Json) -> Json:
    """Return the code of the error that a call ends in, or None for a result; leave other faults to the checks."""
    try:
        # Match the reply by its routing key, since a server may send several; the checks will find that.
        response = read(harness.ask_among_others(call(method, params)))
    except Fault:
        return "unreadable"
    if not isinstance(response, dict):
        return "unreadable"
    return response["error"].get("code") if isinstance(response.get("error"), dict) else None
