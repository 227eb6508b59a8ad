"""
Does a server keep the contract? It is asked over the bus, as any client would, whatever it is written in.

It must implement the five methods that the examples of the JSON-RPC 2.0 specification use: ``subtract(minuend,
subtrahend)``, ``sum(...)``, ``get_data()``, ``update(...)`` and ``notify_hello(...)``. The checks are those examples,
the rules of docs/protocol.md, and the test vectors that concern a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..amqp.raw_client import RawClient
from ..errors import METHOD_NOT_FOUND, CallTimeout
from ..wire.names import DEFAULT_EXCHANGE, check_service, request_queue
from .bench import SILENCE, SUBTRACT, Bench, Fault, Json, NoAnswer, call, read
from .checks import Check, checks

# The methods that are needed, with params that each takes; and names that must be free.
_NEEDED: dict[str, list[Any]] = {
    "subtract": [42, 23],
    "sum": [1, 2, 4],
    "get_data": [],
    "update": [1, 2, 3],
    "notify_hello": [7],
}
_FREE = ("absent", "foobar", "foo.get", "m", "n")
_ANSWER_PROPERTIES = {"content_type", "delivery_mode", "correlation_id", "expiration"}
_DIFFERENT = 'of "{field}" it has {got}, where {wanted} is due'


class Result(NamedTuple):
    """
    The outcome of one check.

    Attributes:
        group: "specification", "wire", "vectors" or "hostile".
        name: What was checked.
        fault: What was wrong; None: nothing.
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
    timeout: float = 5.0,
    only: Sequence[str] = (),
) -> Iterator[Result]:
    """
    Check a server; gives each result as it comes. Changes nothing on the broker but queues of its own.

    Args:
        url: The broker.
        service: The service; it must have the five methods.
        exchange: Its topic exchange.
        queue: Its request queue; ``<service>_req`` where not given.
        timeout: Seconds that an answer may take.
        only: Run the checks that have one of these in their group or name, in capitals or not.

    Raises:
        InvalidName: There can be no such service.
        ValueError: No check fits ``only``; there is no such queue; or the service is not one that can be checked.
        TransportError: There is no connection, or it was lost; nobody answers at all, or not any more.
    """
    check_service(service)
    chosen = _chosen(only)
    with RawClient(url, timeout=max(timeout, 5.0), connection_name=f"jsonrpc-amqp conformance of {service}") as probe:
        bench = Bench(probe, service, exchange=exchange, queue=queue or request_queue(service), timeout=timeout)
        _check_service(bench)
        for position, check in enumerate(chosen, 1):
            fault = _fault_of(check, bench)
            yield Result(check.group, check.name, None if fault is None else str(fault))
            if isinstance(fault, NoAnswer):
                _expect_it_lives(bench, check, len(chosen) - position)


def _chosen(only: Sequence[str]) -> list[Check]:
    wanted = [text.casefold() for text in only]
    chosen = [each for each in checks() if not wanted or any(text in _label(each) for text in wanted)]
    if not chosen:
        raise ValueError(f"no check has {' or '.join(map(repr, only))} in its group or name")
    return chosen


def _label(check: Check) -> str:
    return f"{check.group} {check.name}".casefold()


def _fault_of(check: Check, bench: Bench) -> Fault | None:
    try:
        check.run(bench)
    except Fault as fault:
        bench.probe.take(SILENCE)  # what still comes is not the next one's
        return fault
    return None


def _expect_it_lives(bench: Bench, check: Check, left: int) -> None:
    try:
        bench.ask(SUBTRACT)
    except NoAnswer as fault:
        raise CallTimeout(
            f"the server answers nothing any more since the check {check.name!r}: {fault}; {left} checks were not run"
        ) from None


def _check_service(bench: Bench) -> None:
    """Refuse what would fail nearly every check for a reason of its own."""
    try:
        bench.ask(SUBTRACT)
    except Fault as fault:
        raise CallTimeout(f"nobody serves {bench.service!r} on exchange {bench.exchange!r}: {fault}") from None
    if bench.probe.waiting(bench.queue) is None:
        raise ValueError(f"there is no queue {bench.queue!r}: name the request queue of {bench.service!r}")
    missing = [name for name, params in _NEEDED.items() if _code(bench, name, params) == METHOD_NOT_FOUND]
    if missing:
        raise ValueError(f"service {bench.service!r} has no method {', '.join(missing)}, which the checks need")
    taken = [name for name in _FREE if _code(bench, name, []) is None]
    if taken:
        raise ValueError(f"service {bench.service!r} has a method {', '.join(taken)}; the checks need it to be absent")


def _code(bench: Bench, method: str, params: Json) -> Json:
    """Give the code of the error that a call ends in; None for a result. Whatever else is for the checks to find."""
    try:
        # A server that answers twice is for the checks to find, too.
        response = read(bench.ask_amid_others(call(method, params)))
    except Fault:
        return "unreadable"
    if not isinstance(response, dict):
        return "unreadable"
    return response["error"].get("code") if isinstance(response.get("error"), dict) else None
