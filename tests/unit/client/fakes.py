"""A session, a transport and a runtime that note what was asked of them, and calls that count how often they end."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from jsonrpc_amqp.amqp.base import Delivery, Listener, Outcome, Publish, QueueFacts
from jsonrpc_amqp.client.addresses import Routing, resolve_routing
from jsonrpc_amqp.client.call import PLAIN, Call, SendOptions
from jsonrpc_amqp.client.requests import Requests
from jsonrpc_amqp.errors import JsonRpcAmqpError, TransportError
from jsonrpc_amqp.runtime.base import Driven, InlineJobs

SERVICE, EXCHANGE, REPLY_QUEUE = "S", "jsonrpc", "amq.gen-1"


class Clock:
    """Stands still, but for the test."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeSession:
    """
    Notes what is asked.

    Attributes:
        asked: The verbs in order.
        redeclared: The keys of each ``redeclare``.
        published: All messages that were taken.
        confirms: The outcomes of ``publish_confirmed``, for the test to call.
        binds: Keys, and the outcomes of ``bind``.
        inspections: Queues, and what ``inspect`` is to call with the facts.
        is_gone: True makes it take no message.
        error: Raised by the next ``publish`` or ``publish_confirmed``.
    """

    generation = 1

    def __init__(self, reply_queue: str = REPLY_QUEUE) -> None:
        self.reply_queue = reply_queue
        self.congested = False
        self.hears_broker = True
        self.is_consuming = True
        self.writes_soon = False
        self.is_gone = False
        self.error: BaseException | None = None
        self.asked: list[str] = []
        self.redeclared: list[Collection[str] | None] = []
        self.published: list[Publish] = []
        self.confirms: list[Outcome] = []
        self.binds: list[tuple[str, Outcome]] = []
        self.inspections: list[tuple[str, Callable[[QueueFacts | TransportError], None]]] = []

    def publish(self, message: Publish, *, acks: Delivery | None = None) -> bool:
        return self._take("publish", message)

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> bool:
        taken = self._take("publish_confirmed", message)
        if taken:
            self.confirms.append(outcome)
        return taken

    def ack(self, delivery: Delivery) -> None:
        raise AssertionError("replies are not acknowledged")

    requeue = reject = ack

    def flush(self) -> None:
        self.asked.append("flush")

    write_now = flush

    def bind(self, routing_key: str, outcome: Outcome) -> None:
        self.asked.append("bind")
        self.binds.append((routing_key, outcome))

    def redeclare(self, bindings: Collection[str] | None = None) -> None:
        self.asked.append("redeclare")
        self.redeclared.append(bindings)

    def inspect(self, queue: str, found: Callable[[QueueFacts | TransportError], None]) -> None:
        self.asked.append("inspect")
        self.inspections.append((queue, found))

    def cancel(self, outcome: Outcome) -> None:
        raise AssertionError("a client cancels no consumer")

    def _take(self, verb: str, message: Publish) -> bool:
        self.asked.append(verb)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if not self.is_gone:
            self.published.append(message)
        return not self.is_gone


class FakeRuntime:
    """Notes what is asked; drives nothing unless ``on_drive`` does."""

    writes_behind = False

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.on_drive: Callable[[], object] = lambda: None
        self.deadlines: list[float] = []

    def start(self, driven: Driven, name: str) -> None:
        raise AssertionError("a transport starts its runtime, not a client")

    def wake(self) -> None:
        self.asked.append("wake")

    def run_blocking(self, function: Callable[[], None], name: str) -> None:
        raise AssertionError("a client runs nothing that blocks")

    def set_inline_jobs(self, jobs: InlineJobs) -> None:
        raise AssertionError("a client has no jobs")

    def drive_until(self, is_done: Callable[[], bool], deadline: float) -> None:
        self.asked.append("drive_until")
        self.deadlines.append(deadline)
        self.on_drive()

    def reclaim(self) -> None:
        self.asked.append("reclaim")

    def unwatch(self) -> None:
        raise AssertionError("a client knows no socket")

    def would_deadlock(self) -> bool:
        return False

    def close(self, timeout: float) -> bool:
        return True


class FakeTransport:
    """Connects when the test says so."""

    user = "guest"

    def __init__(self) -> None:
        self.stats: Counter[str] = Counter()
        self.runtime = FakeRuntime()
        self.asked: list[str] = []
        self.is_leader = False
        self.on_start: Callable[[Listener], None] = lambda _listener: None

    def would_deadlock(self) -> bool:
        return self.is_leader

    def start(self, listener: Listener) -> None:
        self.asked.append("start")
        self.on_start(listener)

    def wake(self) -> None:
        self.asked.append("wake")

    def close(self, timeout: float) -> None:
        self.asked.append("close")


def is_owned(lock: threading.RLock) -> bool:
    """Return whether this thread has the lock."""
    # There is no public way to ask; threading.Condition asks in the same way, and typeshed omits private methods.
    return bool(lock._is_owned())  # type: ignore[attr-defined]


class FakeCall(Call):
    """
    Notes each end; a call has exactly one.

    Attributes:
        ends: Bodies and errors.
        on_end: Run at each end, as the callbacks of a future are.
    """

    def __init__(self, *args: Any, has_callbacks: bool = False, **more: Any) -> None:
        super().__init__(*args, **more)
        self.has_callbacks = has_callbacks
        self.ends: list[bytes | JsonRpcAmqpError] = []
        self.on_end: Callable[[FakeCall], None] = lambda _call: None

    def succeed(self, body: bytes) -> None:
        self.ends.append(body)
        self.on_end(self)

    def fail(self, error: JsonRpcAmqpError) -> None:
        self.ends.append(error)
        self.on_end(self)

    @property
    def error(self) -> JsonRpcAmqpError:
        """The error that it ended with, if it ended once."""
        (error,) = self.ends
        assert isinstance(error, JsonRpcAmqpError)
        return error


def call(
    service: str = SERVICE,
    *,
    qid: str = "7",
    body: bytes = b"{}",
    timeout: float | None = 30.0,
    number: str = "",
    sent: bool = False,
    options: SendOptions = PLAIN,
    now: float | None = None,
    has_callbacks: bool = False,
) -> FakeCall:
    """Return a call whose deadline is ``timeout`` seconds after ``now``."""
    begin = time.monotonic() if now is None else now
    deadline = math.inf if timeout is None else begin + timeout
    made = FakeCall(service, body, qid, deadline, timeout, options, has_callbacks=has_callbacks)
    made.number, made.sent = number, sent
    return made


def notification(**more: Any) -> FakeCall:
    return call(options=SendOptions(persistent=True, is_notification=True), **more)


class Rig:
    """
    Requests on a fake transport.

    Attributes:
        ended: The calls in the order of their ends; it fails a test whose calls end while the lock is held.
    """

    def __init__(
        self,
        *,
        routing: Routing | None = None,
        max_pending: int = 100,
        **more: Any,
    ) -> None:
        settings: dict[str, Any] = {
            "confirm": False,
            "declare": True,
            "user": "guest",
            "dialect": None,
            "server_users": None,
        }
        self.transport = FakeTransport()
        routing = routing or resolve_routing(EXCHANGE, route=None, reply=None, queue=None)
        self.requests = Requests(self.transport, routing, max_pending=max_pending, **{**settings, **more})
        self.ended: list[FakeCall] = []

    @property
    def asked(self) -> list[str]:
        return self.transport.asked

    def open(self, session: FakeSession | None = None) -> FakeSession:
        """Have the client connected."""
        session = session or FakeSession()
        self.requests.plan()
        self.requests.on_open(session)
        return session

    def connect(self, timeout: float | None) -> None:
        """Wait until the client is connected."""
        self.requests.presence.connect(self.requests, timeout, self.requests.waiter.check_may_wait)

    def submit(self, made: FakeCall | None = None, **more: Any) -> FakeCall:
        """Submit a call, whose end must come without the lock held."""
        made = made or call(**more)
        made.on_end = self._note_end
        self.requests.submit(made)
        return made

    def holds_lock(self) -> bool:
        return is_owned(self.requests._lock)

    def _note_end(self, made: FakeCall) -> None:
        assert not self.holds_lock(), "a call ended while the lock was held"
        self.ended.append(made)


def reply_to(message: Publish, body: bytes = b"[1]", *, key: str | None = None, **more: Any) -> Delivery:
    """Return the reply to a request that was sent over the exchange."""
    if key is None:
        key = message.routing_key.replace(".request.", ".response.", 1)
    exchange = more.pop("exchange", EXCHANGE)
    return Delivery(1, 1, False, exchange, key, body, correlation_id=message.correlation_id, **more)
