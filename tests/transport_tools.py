"""A listener that records its calls, and lets a test wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from jsonrpc_amqp.amqp.base import Delivery, Plan, Publish, QueueFacts, Returned, Session, Transport
from jsonrpc_amqp.errors import TransportError

# Long enough for a broker on a busy machine; tests that pass never wait so long.
PATIENCE = 10.0

# Binding key, routing key, and whether a topic exchange connects them (AMQP 0-9-1, section 3.1.3.3).
TOPICS = [
    ("a.b", "a.b", True),
    ("a.b", "a.b.c", False),
    ("a.b", "a", False),
    ("a.b", "aXb", False),
    ("A.b", "a.b", False),
    ("a.*", "a.b", True),
    ("a.*", "a", False),
    ("a.*", "a.b.c", False),
    ("*.b", "a.b", True),
    ("*.b", "b", False),
    ("a.*.c", "a.b.c", True),
    ("a.*.c", "a.c", False),
    ("a.b*", "a.bc", False),
    ("*", "a", True),
    ("*", "a.b", False),
    ("#", "a", True),
    ("#", "a.b.c", True),
    ("S.request.#", "S.request", True),
    ("S.request.#", "S.request.joe-1", True),
    ("S.request.#", "S.request.joe-1.7", True),
    ("S.request.#", "S.requests", False),
    ("S.request.#", "S.response.joe-1.7", False),
    ("#.c", "c", True),
    ("#.c", "a.b.c", True),
    ("#.c", "a.b", False),
    ("a.#.c", "a.c", True),
    ("a.#.c", "a.b.b.c", True),
    ("a.#.c", "a.b.c.d", False),
    ("a.#.c", "a", False),
    ("a.*.#", "a", False),
    ("a.*.#", "a.b", True),
    ("#.b.#", "b", True),
    ("#.b.#", "a.b.c", True),
    ("#.b.#", "a.c", False),
]

T = TypeVar("T")


class Recorder:
    """
    One end of a transport.

    Attributes:
        publisher: The end that publishes what is to be confirmed: the session of a server cannot.
        on_delivery: Called with each delivery, on the leader's thread, after it was recorded.
        due: What ``on_tick`` returns until that time.
        threads: The identifiers of the threads that called.
    """

    def __init__(self, transport: Transport, plan: Plan) -> None:
        self.transport = transport
        self.asked = plan
        self.publisher: Callable[[], Recorder] = lambda: self
        self.on_delivery: Callable[[Session, Delivery], None] = lambda session, delivery: None
        self.due: float | None = None
        self.sessions: list[Session] = []
        self.failed: list[tuple[TransportError, float | None]] = []
        self.lost: list[TransportError] = []
        self.deliveries: list[Delivery] = []
        self.returned: list[Returned] = []
        self.undecoded: list[str] = []
        self.refused: list[tuple[TransportError, Publish]] = []
        self.ticks: list[float] = []
        self.threads: set[int] = set()
        self._heard = threading.Condition()

    # -- what a test does ---------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The newest session."""
        return self.sessions[-1]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all deliveries so far."""
        return [delivery.body or b"" for delivery in self.deliveries]

    def start(self) -> Recorder:
        """Connect, and wait until the plan is set up or has failed."""
        attempts = len(self.sessions) + len(self.failed)
        self.transport.start(self)
        self.wait_for(lambda: len(self.sessions) + len(self.failed) > attempts)
        return self

    def wait_for(self, predicate: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Wait until a call makes the predicate true; fail after ``timeout`` seconds."""
        with self._heard:
            assert self._heard.wait_for(predicate, timeout), f"not in {timeout} s; heard: {self}"

    def wait_for_sessions(self, count: int) -> None:
        """Wait for the first ``count`` sessions."""
        self.wait_for(lambda: len(self.sessions) >= count)

    def wait_for_count(self, count: int) -> None:
        """Wait for the first ``count`` deliveries."""
        self.wait_for(lambda: len(self.deliveries) >= count)

    def wait_for_bodies(self, *bodies: bytes) -> list[Delivery]:
        """Wait for as many deliveries as there are bodies; they must be all, and in this order."""
        self.wait_for_count(len(bodies))
        assert self.bodies == list(bodies)
        return list(self.deliveries)

    def wait_until(self, due: float) -> None:
        """Let time pass, by the transport's clock."""
        self.due = due
        self.transport.wake()
        self.wait_for(lambda: any(tick >= due for tick in self.ticks))

    def publish(self, message: Publish) -> None:
        """Publish, and forget."""
        assert self.session.publish(message)
        self.session.flush()

    def publish_confirmed(self, message: Publish) -> TransportError | None:
        """Publish, and return the outcome."""
        outcome: TransportError | None = self._told(self.publisher().session.publish_confirmed, message)
        return outcome

    def publish_surely(self, message: Publish) -> None:
        """Publish until it is confirmed: the broker closes the session of what it rejects."""
        publisher = self.publisher()
        while True:
            sessions, outcome = len(publisher.sessions), Future[TransportError | None]()
            if publisher.session.publish_confirmed(message, outcome.set_result):
                publisher.session.flush()
                if outcome.result(PATIENCE) is None:
                    return
            publisher.wait_for_sessions(sessions + 1)

    def ack(self, delivery: Delivery) -> None:
        self.session.ack(delivery)
        self.session.flush()

    def requeue(self, delivery: Delivery) -> None:
        self.session.requeue(delivery)
        self.session.flush()

    def reject(self, delivery: Delivery) -> None:
        self.session.reject(delivery)
        self.session.flush()

    def bind(self, routing_key: str) -> None:
        assert self._told(self.session.bind, routing_key) is None

    def inspect(self, queue: str) -> QueueFacts | TransportError:
        found: QueueFacts | TransportError = self._told(self.session.inspect, queue)
        return found

    def cancel(self) -> None:
        assert self._told(self.session.cancel) is None

    def _told(self, verb: Callable[..., bool | None], *args: object) -> Any:
        """Return the argument of a verb's callback, its last argument, which it may call only once."""
        answer: Future[Any] = Future()
        assert verb(*args, answer.set_result) is not False, "the session is gone"
        for end in (self, self.publisher()):
            end.session.flush()
        return answer.result(PATIENCE)

    def close(self) -> None:
        self.transport.close(PATIENCE)

    # -- the Listener ---------------------------------------------------------------------------------

    def plan(self) -> Plan:
        return self.asked

    def on_open(self, session: Session) -> None:
        self._write_down(self.sessions, session)

    def on_failed(self, error: TransportError, retry_in: float | None) -> None:
        self._write_down(self.failed, (error, retry_in))

    def on_lost(self, session: Session, error: TransportError) -> None:
        self._write_down(self.lost, error)

    def on_deliveries(self, session: Session, deliveries: list[Delivery]) -> None:
        self._write_down(self.deliveries, *deliveries)
        for delivery in deliveries:
            self.on_delivery(session, delivery)
        session.flush()

    def on_undecoded(self, session: Session, delivery: Delivery, why: str) -> None:
        self._write_down(self.undecoded, why)

    def on_returned(self, session: Session, returned: Returned) -> None:
        self._write_down(self.returned, returned)

    def awaits(self, message: Publish) -> bool:
        return True

    def on_rejected(self, session: Session, error: TransportError, message: Publish) -> None:
        self._write_down(self.refused, (error, message))

    def on_congested(self, session: Session, congested: bool) -> None:
        pass

    def on_tick(self, now: float) -> float | None:
        self._write_down(self.ticks, now)
        due = self.due
        return due if due is not None and due > now else None

    def _write_down(self, heard: list[T], *items: T) -> None:
        with self._heard:
            heard.extend(items)
            self.threads.add(threading.get_ident())
            self._heard.notify_all()

    def __str__(self) -> str:
        return f"{self.bodies=} {self.returned=} {self.refused=} {self.failed=} {self.lost=} ticks={len(self.ticks)}"


def eventually(predicate: Callable[[], bool]) -> None:
    """Wait for what a broker does some time after its reply."""
    give_up = time.monotonic() + PATIENCE
    while not predicate():
        assert time.monotonic() < give_up
