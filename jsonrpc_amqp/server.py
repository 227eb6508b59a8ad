"""
The server: register methods, run them on a pool of threads, answer, acknowledge, drain.

    server = Server("amqp://", service="example")

    @server.method("time.now")
    def now() -> str:
        return time.ctime()

    server.serve_forever()
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from re import Pattern
from types import FrameType, TracebackType
from typing import Any, Literal, TypeVar, overload

from . import context, protocol
from .dispatch import Dispatcher, internal_error, too_large
from .errors import NotConnected, TransportError
from .transport import connect_transport
from .transport.base import Delivery, Plan, Publish, Returned, Session, Transport

log = logging.getLogger("jsonrpc_amqp.server")

F = TypeVar("F", bound=Callable[..., Any])

CONCURRENCY = 8
# Enough to keep the handlers busy over the broker's round trip, few enough that a slow process does not sit on
# work that another could do; at least twice the handlers.
PREFETCH = 64
MAX_SIZE = 16 << 20
GRACE = 30.0
_CANCEL_SECONDS = 5.0
_COUNTERS = dict.fromkeys(
    (
        "received",
        "answered",
        "failed",
        "expired",
        "redelivered",
        "dropped_replies",
        "abandoned",
        "dropped_acks",
        "connections",
        "failed_attempts",
    ),
    0,
)


class Server:
    """
    Serves the methods of one service to whoever calls it; any number of servers share its queue.

    A request is acknowledged after its answer is written, so it survives the death of this process, and a method may
    run a second time: ``current_request().redelivered`` then is true.

    Args:
        url: As for ``Client``.
        service: The service's name: words of ``[A-Za-z0-9_-]`` joined by dots.
        methods: Methods by name, jsonrpcserver's global ones included (``jsonrpc_amqp.global_methods``).
        dispatcher: Stands in for our own: any ``Callable[[bytes], bytes | None]``.
        exchange: The topic exchange.
        queue: The request queue; ``<service>_req`` where not given.
        queue_type: Sent as ``x-queue-type`` ("classic", "quorum"); None leaves it to the virtual host.
        declare: Declare exchange, queue and binding; False only checks that exchange and queue are there.
        concurrency: Handlers that run at a time.
        prefetch: Most requests that this process holds; the default is 64, and at least twice ``concurrency``.
        expose_errors: Tell callers the text of uncaught exceptions. It may hold secrets.
        reply_to_allowed: Narrows which queues a ``reply_to`` may name: a regular expression for the whole name, or a
            callable.
        max_size, max_batch, max_depth: Caps on a message in bytes (both ways), on members of a batch, on nesting.
        tls, heartbeat, connect_timeout, connection_name, transport: As for ``Client``.

    Raises:
        InvalidName: The service's name breaks a rule.
        ValueError: The URL is malformed, or a number makes no sense.
    """

    def __init__(
        self,
        url: str = "amqp://",
        service: str = "",
        *,
        methods: Mapping[str, Callable[..., Any]] | None = None,
        dispatcher: Callable[[bytes], bytes | None] | None = None,
        exchange: str = protocol.DEFAULT_EXCHANGE,
        queue: str | None = None,
        queue_type: Literal["classic", "quorum", "stream"] | None = None,
        declare: bool = True,
        concurrency: int = CONCURRENCY,
        prefetch: int | None = None,
        expose_errors: bool = False,
        reply_to_allowed: str | Pattern[str] | Callable[[str], bool] | None = None,
        max_size: int = MAX_SIZE,
        max_batch: int = 1000,
        max_depth: int = 100,
        tls: Mapping[str, Any] | None = None,
        heartbeat: float = 10.0,
        connect_timeout: float = 5.0,
        connection_name: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.service = protocol.check_service(service)
        if concurrency < 1:
            raise ValueError("concurrency is at least 1")
        if dispatcher is not None and methods is not None:
            raise ValueError("give methods or a dispatcher, not both: a dispatcher has its own methods")
        self._dispatcher: Callable[[bytes], bytes | None] = dispatcher or Dispatcher(
            methods, expose_errors=expose_errors, max_size=max_size, max_batch=max_batch, max_depth=max_depth
        )
        self._exchange = exchange
        self._queue = queue or protocol.request_queue(service)
        self._queue_type = queue_type
        self._declare = declare
        self._concurrency = concurrency
        self._prefetch = prefetch if prefetch is not None else max(PREFETCH, 2 * concurrency)
        if self._prefetch < 1:
            raise ValueError("prefetch is at least 1: without a bound one process takes the whole queue")
        self._allowed = protocol.reply_to_filter(reply_to_allowed)
        self._max_size = max_size
        self._where = protocol.redact(url)
        self._transport = transport or connect_transport(
            url,
            connection_name=connection_name or f"jsonrpc-amqp server {service} {os.getpid()}",
            heartbeat=heartbeat,
            connect_timeout=connect_timeout,
            max_body=max_size,
            tls=tls,
        )
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._session: Session | None = None
        self._failure: TransportError | None = None
        self._gave_up = False
        self._draining = False
        self._cancelled = False
        self._stopped = False
        self._running = 0
        self._not_begun: list[_Job] = []
        self._stats: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Server of {self.service!r} at {self._where}>"

    # -- registering ------------------------------------------------------------------------------------

    @overload
    def method(self, function: F, /) -> F: ...
    @overload
    def method(self, name: str | None = None) -> Callable[[F], F]: ...
    def method(self, name: Any = None) -> Any:
        """
        Register a method: ``@server.method``, ``@server.method("time.now")``.

        It returns a plain value, or jsonrpcserver's ``Success``, ``Error`` or ``InvalidParams``, or raises its
        ``JsonRpcError``.

        Raises:
            TypeError: An ``async def``, not supported yet; or this server has a foreign dispatcher.
            ValueError: The name is taken, or begins with ``rpc.``, which the specification reserves.
        """
        if not isinstance(self._dispatcher, Dispatcher):
            raise TypeError("this server was given a dispatcher of its own: register the method there")
        return self._dispatcher.method(name)

    # -- running ----------------------------------------------------------------------------------------

    def start(self, timeout: float | None = 30.0) -> Server:
        """
        Begin to serve on threads of this process; returns once requests are consumed.

        Args:
            timeout: Seconds to wait for that; None for ever.

        Raises:
            NotConnected: Not within ``timeout``. Attempts go on until ``stop``.
            AccessRefused, TopologyMismatch: The broker said no; attempts end.
        """
        if not self._begin():
            raise RuntimeError("a server that was stopped is not started again; make a new one")
        self._wait_for_start(timeout)
        return self

    def serve_forever(self, *, grace: float = GRACE) -> None:
        """
        Serve until SIGTERM or SIGINT (or ``stop`` by another thread), then drain and return.

        A missing broker is waited for. A second signal ends the process at once.

        Args:
            grace: Seconds that running handlers get to finish.

        Raises:
            AccessRefused, TopologyMismatch: The broker said no, now or when the connection was made again.
        """
        with _Signals(self._begin_drain):
            if not self._begin():
                return  # stopped before it began
            try:
                self._wait_for_start(None)
                self._wait_for_drain()
            finally:
                self.stop(grace=grace)

    def stop(self, grace: float = GRACE) -> bool:
        """
        Stop consuming, give back what has not begun, let running handlers finish, answer, acknowledge and close.

        Args:
            grace: Seconds to wait for running handlers; their requests go back to the queue after that.

        Returns:
            True when nothing was left running.
        """
        deadline = time.monotonic() + grace
        with self._lock:
            if self._stopped:
                return self._running == 0
        self._begin_drain()
        self._stop_consuming(min(grace, _CANCEL_SECONDS))
        with self._changed:
            drained = self._changed.wait_for(lambda: self._running == 0, max(0.0, deadline - time.monotonic()))
            self._stopped = True
            self._changed.notify_all()
        if not drained:
            log.warning("%d handlers still run after %g s; their requests go back to the queue", self._running, grace)
        for _thread in self._threads:
            self._jobs.put(None)
        self._transport.close(2.0)
        return drained

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stats(self) -> dict[str, int]:
        """
        Give the counters since the start.

        ``received``, ``answered`` (answers written), ``failed`` (of them or of notifications: errors), ``expired``
        (skipped, nobody waited any more), ``redelivered``, ``dropped_replies`` (nobody could be answered),
        ``abandoned`` (the connection they came by was lost before they began; the broker delivers them again),
        ``dropped_acks`` (it was lost while they ran; likewise), ``connections`` made, ``failed_attempts`` to connect.
        """
        with self._lock:
            counts = {**_COUNTERS, **self._transport.stats, **self._stats}
        counts["failed"] += getattr(self._dispatcher, "failures", 0)
        return counts

    def _begin(self) -> bool:
        """Start threads and transport. False: this server was stopped."""
        with self._lock:
            if self._stopped:
                return False
            self._forget_failure()
            if not self._threads:
                self._threads = [self._new_worker(number) for number in range(self._concurrency)]
        self._transport.start(self)
        return True

    def _wait_for_start(self, timeout: float | None) -> None:
        with self._changed:
            serving = self._changed.wait_for(self._has_started, timeout)
            self._raise_if_refused()
            if not serving:
                raise self._failure or NotConnected(f"no connection to the broker within {timeout:g} s")

    # -- told by the owner of the connection ------------------------------------------------------------

    def plan(self) -> Plan:
        return Plan(
            exchange=self._exchange,
            declare=self._declare,
            queue=self._queue,
            queue_type=self._queue_type,
            bindings=(protocol.request_binding(self.service),),
            prefetch=self._prefetch,
        )

    def on_open(self, session: Session) -> None:
        log.info("%s serves %r from queue %r", self._where, self.service, self._queue)
        with self._lock:
            self._session = session
            self._failure = None
            self._changed.notify_all()

    def on_failed(self, error: TransportError, retry_in: float | None) -> None:
        log.warning("%s%s", error, "" if retry_in is None else f"; next attempt in {retry_in:.1f} s")
        with self._lock:
            self._failure = error
            self._gave_up = retry_in is None
            self._changed.notify_all()

    def on_lost(self, session: Session, error: TransportError) -> None:
        with self._lock:
            self._session = None
            quiet = self._stopped
        if not quiet:
            log.warning("%s; what was not acknowledged is delivered again", error)

    def on_deliveries(self, session: Session, deliveries: list[Delivery]) -> None:
        received = time.monotonic()
        with self._lock:
            self._stats["received"] += len(deliveries)
        put = self._jobs.put
        for delivery in deliveries:
            put(_Job(session, delivery, received))

    def on_returned(self, session: Session, returned: Returned) -> None:
        self._count("dropped_replies")
        log.info("nobody awaits the answer for %s any more", protocol.printable(returned.routing_key))

    def on_refused(self, session: Session, error: TransportError, message: Publish) -> None:
        self._count("dropped_replies")
        log.warning("the broker refused the answer for %s: %s", protocol.printable(message.routing_key), error)

    def on_congested(self, session: Session, congested: bool) -> None:
        if congested:
            log.warning("the broker takes no answers for now; they wait")

    def on_tick(self, now: float) -> float | None:
        return None

    # -- the handlers' threads ----------------------------------------------------------------------------

    def _new_worker(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._work, name=f"{self.service}-handler-{number}", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not self._begin_job(job):
                continue
            try:
                self._serve(job)
            except Exception:
                log.exception("unexpected error while serving a request; it is acknowledged")
                self._count("failed")
                job.session.ack(job.delivery)
            finally:
                self._end_job()

    def _begin_job(self, job: _Job) -> bool:
        with self._lock:
            if job.session is not self._session:
                self._stats["abandoned"] += 1
                return False
            if not self._draining:
                self._running += 1
                return True
            if not self._cancelled:
                self._not_begun.append(job)
                return False
        self._give_back([job])
        return False

    def _end_job(self) -> None:
        with self._lock:
            self._running -= 1
            if self._draining:
                self._changed.notify_all()

    def _serve(self, job: _Job) -> None:
        session, delivery = job.session, job.delivery
        deadline = protocol.deadline_of(delivery, job.received)
        if delivery.redelivered:
            self._count("redelivered")
        if deadline is not None and time.monotonic() >= deadline:
            self._count("expired")
            log.info(
                "skipped a request that expired while it was queued here (%s)", protocol.printable(delivery.routing_key)
            )
        else:
            answer = self._dispatch(delivery, deadline)
            if answer is not None:
                self._answer(session, delivery, answer, deadline)
        session.ack(delivery)
        session.flush()

    def _dispatch(self, delivery: Delivery, deadline: float | None) -> bytes | None:
        if delivery.body is None:
            return too_large(delivery.size, self._max_size)
        token = context.enter(context.Request(None, None, False, _Envelope(self.service, delivery, deadline)))
        try:
            answer = self._dispatcher(delivery.body)
        except BaseException:
            # Ours never raises; a foreign dispatcher may, and must not take the server along.
            log.exception("the dispatcher raised on %s", protocol.printable(delivery.routing_key))
            self._count("failed")
            return internal_error()
        finally:
            context.leave(token)
        if answer is not None and len(answer) > self._max_size:
            self._count("failed")
            return internal_error(f"the answer has {len(answer)} bytes, over the cap of {self._max_size}")
        return answer

    def _answer(self, session: Session, delivery: Delivery, body: bytes, deadline: float | None) -> None:
        route = protocol.reply_route(
            delivery,
            service=self.service,
            exchange=self._exchange,
            request_queues=(self._queue,),
            allowed=self._allowed,
        )
        if route is None:
            self._count("dropped_replies")
            log.warning(
                "no way to answer a request with key %s and reply_to %s",
                protocol.printable(delivery.routing_key),
                protocol.printable(delivery.reply_to or ""),
            )
            return
        message = protocol.answer(delivery, body, route=route, now=time.monotonic(), deadline=deadline)
        self._count("answered" if session.publish(message) else "dropped_replies")

    def _count(self, name: str) -> None:
        with self._lock:
            self._stats[name] += 1

    # -- draining -----------------------------------------------------------------------------------------

    def _begin_drain(self) -> None:
        with self._lock:
            self._draining = True
            self._changed.notify_all()

    def _wait_for_drain(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._draining or self._gave_up)
            self._raise_if_refused()

    def _forget_failure(self) -> None:
        self._failure, self._gave_up = None, False

    def _has_started(self) -> bool:
        return self._session is not None or self._gave_up or self._draining

    def _raise_if_refused(self) -> None:
        if self._failure is not None and self._gave_up and not self._draining:
            raise self._failure.again()

    def _stop_consuming(self, seconds: float) -> None:
        session = self._session
        if session is None:
            return
        cancelled = threading.Event()
        session.cancel(lambda _error: cancelled.set())
        cancelled.wait(seconds)
        with self._lock:
            self._cancelled = True
            jobs, self._not_begun = self._not_begun, []
        # Only now: a request given back to a queue that we still consume would come straight back.
        self._give_back(jobs + self._take_jobs())

    def _take_jobs(self) -> list[_Job]:
        jobs: list[_Job] = []
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs
            if job is not None:
                jobs.append(job)

    @staticmethod
    def _give_back(jobs: list[_Job]) -> None:
        for job in jobs:
            job.session.requeue(job.delivery)
        for session in {job.session for job in jobs}:
            session.flush()


@dataclass(frozen=True, slots=True)
class _Job:
    session: Session
    delivery: Delivery
    received: float


@dataclass(frozen=True, slots=True)
class _Envelope:
    """What a handler may ask about the message; see ``context.Envelope``."""

    service: str
    delivery: Delivery
    deadline: float | None

    @property
    def routing_key(self) -> str:
        return self.delivery.routing_key

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.delivery.headers

    @property
    def user_id(self) -> str | None:
        return self.delivery.user_id

    @property
    def redelivered(self) -> bool:
        return self.delivery.redelivered


class _Signals:
    """SIGTERM and SIGINT ask for an end, once; the second ends the process. Only the main thread may set them."""

    def __init__(self, first: Callable[[], None]) -> None:
        self._first = first
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._received) for number in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        # In a thread: the one that the signal interrupted may hold the lock that this needs.
        threading.Thread(target=self._first, name="drain", daemon=True).start()
