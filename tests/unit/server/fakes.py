"""A session and a transport that note what was asked of them, and messages to hand to a server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from jsonrpc_amqp.amqp.base import DELIVERY_COUNT, Delivery, Listener, Outcome, Publish, QueueFacts
from jsonrpc_amqp.errors import TransportError
from jsonrpc_amqp.runtime.base import Runtime
from jsonrpc_amqp.runtime.threads import ThreadsRuntime
from jsonrpc_amqp.server.job import Job

SERVICE, EXCHANGE, QUEUE = "S", "jsonrpc", "S_req"


class FakeSession:
    """
    Notes what is asked.

    Attributes:
        calls: The verbs in order, with the tag of the delivery that each was about, if any.
        published: All messages.
        is_gone: True makes ``publish`` return False.
    """

    generation = 1
    reply_queue = ""
    congested = False
    hears_broker = True
    is_consuming = True

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.published: list[Publish] = []
        self.is_gone = False
        self.writes_soon = False

    def publish(self, message: Publish, *, acks: Delivery | None = None) -> bool:
        self.calls.append(("publish",) if acks is None else ("publish", acks.tag))
        self.published.append(message)
        return not self.is_gone

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> bool:
        raise AssertionError("a server publishes no requests")

    def ack(self, delivery: Delivery) -> None:
        self.calls.append(("ack", delivery.tag))

    def requeue(self, delivery: Delivery) -> None:
        self.calls.append(("requeue", delivery.tag))

    def reject(self, delivery: Delivery) -> None:
        self.calls.append(("reject", delivery.tag))

    def flush(self) -> None:
        self.calls.append(("flush",))

    write_now = flush

    def bind(self, routing_key: str, outcome: Outcome) -> None:
        raise AssertionError("a server has no reply queue")

    def redeclare(self, bindings: Collection[str] | None = None) -> None:
        self.calls.append(("redeclare",))

    def inspect(self, queue: str, found: Callable[[QueueFacts | TransportError], None]) -> None:
        raise AssertionError("a server inspects no queue")

    def cancel(self, outcome: Outcome) -> None:
        self.calls.append(("cancel",))
        outcome(None)


class FakeTransport:
    """Connects when the test says so."""

    user = "guest"

    def __init__(self) -> None:
        self.stats: Counter[str] = Counter()
        self.listener: Listener | None = None
        self.closed = threading.Event()
        self.runtime: Runtime = ThreadsRuntime()

    def would_deadlock(self) -> bool:
        return False

    def start(self, listener: Listener) -> None:
        self.listener = listener

    def wake(self) -> None:
        pass

    def close(self, timeout: float) -> None:
        self.closed.set()


def delivery(
    body: bytes | None = b"{}",
    *,
    tag: int = 1,
    key: str = "S.request.c.7",
    exchange: str = EXCHANGE,
    redelivered: bool = False,
    redeliveries: int | None = None,
    **more: Any,
) -> Delivery:
    """Return one message; ``redeliveries`` is what a quorum queue says in a header."""
    if redeliveries is not None:
        more |= {"raw_headers": b"h", "headers_of": lambda _raw: {DELIVERY_COUNT: redeliveries}}
    return Delivery(1, tag, redelivered or bool(redeliveries), exchange, key, body, **more)


def job(session: FakeSession | None = None, tag: int = 1, **more: Any) -> Job:
    deadline, redeliveries = more.pop("deadline", None), more.get("redeliveries") or 0
    return Job(SERVICE, session or FakeSession(), delivery(tag=tag, **more), deadline, redeliveries)
