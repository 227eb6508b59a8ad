"""
The requests of one server: run on a pool of threads, answered, acknowledged, given back when it drains.

The counterpart of ``caller``: it decides and does no I/O of its own, asks a ``Session`` and is told as a ``Listener``.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from . import context, protocol
from .dialects import Inbound, MalformedEnvelope, ServerDialect
from .dispatch import internal_error, too_large
from .errors import MessageTooLarge, NotConnected, TransportError
from .transport.base import Delivery, Plan, Publish, Returned, Session, Transport

log = logging.getLogger("jsonrpc_amqp.server")

# A broker that does not even confirm ``basic.cancel`` in this time is not waited for.
_CANCEL_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
# Whoever deletes the exchange or the binding cuts the service off, and nobody is told. Two small requests each time.
_RENEW_SECONDS = 1.0
# A request that came back and runs for so long is not what ended its server, most likely.
_LONG_SECONDS = 5.0
_COUNTERS = dict.fromkeys(
    (
        "received",
        "answered",
        "failed",
        "expired",
        "redelivered",
        "dead_lettered",
        "malformed",
        "dropped_replies",
        "abandoned",
        "dropped_acks",
        "connections",
        "failed_attempts",
    ),
    0,
)


class Serving:
    """
    Runs what comes for one service; the arguments are those of ``Server``.

    Args:
        plan: What to declare and consume.
        refuse: Answers a body that reached the delivery limit of ``plan``.
        allowed: Narrows which queues a ``reply_to`` may name.
        dialect: Translates the requests that are no JSON-RPC.
    """

    def __init__(
        self,
        transport: Transport,
        dispatcher: Callable[[bytes], bytes | None],
        refuse: Callable[[bytes], bytes | None],
        plan: Plan,
        *,
        service: str,
        concurrency: int,
        max_size: int,
        allowed: Callable[[str], bool] | None,
        dialect: ServerDialect | None,
    ) -> None:
        self._transport = transport
        self._dispatcher = dispatcher
        self._refuse = refuse
        self._plan = plan
        self._service = service
        self._concurrency = concurrency
        self._max_size = max_size
        self._allowed = allowed
        self._dialect = dialect
        self._pid: int | None = None
        self._jobs: SimpleQueue[_Job | _Returned | None] = SimpleQueue()
        self._returned = _Returned(concurrency)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._session: Session | None = None
        self._renew_at = 0.0
        self._failure: TransportError | None = None
        self._gave_up = False
        self._draining = False
        self._cancelled = False
        self._stopped = False
        self._running = 0
        self._not_begun: list[_Job] = []
        self._stats: Counter[str] = Counter()

    # -- what a server asks -------------------------------------------------------------------------------

    def begin(self) -> bool:
        """
        Start threads and transport. False: this server was stopped.

        Raises:
            RuntimeError: It was started in the process that forked this one.
        """
        if self._is_forked():
            raise RuntimeError(
                f"this server runs in process {self._pid}, which forked this one: make a server in each process"
            )
        with self._lock:
            if self._stopped:
                return False
            self._pid = os.getpid()
            self._forget_failure()
            if not self._threads:
                self._threads = [self._new_worker(number) for number in range(self._concurrency)]
        self._transport.start(self)
        return True

    def wait_for_start(self, timeout: float | None) -> None:
        """Wait until requests are consumed, or this server is told to drain; raises as ``Server.start`` does."""
        with self._changed:
            serving = self._changed.wait_for(self._has_started, timeout)
            self._raise_if_refused()
            if not serving:
                raise self._failure or NotConnected(f"no connection to the broker within {timeout:g} s")

    def begin_drain(self) -> None:
        """Begin nothing any more; whoever waits for that goes on."""
        with self._lock:
            self._draining = True
            self._changed.notify_all()

    def wait_for_drain(self) -> None:
        """Wait until this server is told to drain, or the broker says no."""
        with self._changed:
            self._changed.wait_for(lambda: self._draining or self._gave_up)
            self._raise_if_refused()

    def stop(self, grace: float) -> bool:
        """
        Drain within ``grace`` seconds, then close. True when nothing was left running.

        Raises:
            RuntimeError: Called by a handler, which it would wait for.
        """
        if threading.current_thread() in self._threads:
            raise RuntimeError(
                "stop() inside a handler would wait for that handler; have another thread call it: "
                "threading.Thread(target=server.stop).start()"
            )
        if self._is_forked():
            return True  # before any lock: one that was held at the fork stays locked here
        deadline = time.monotonic() + grace
        with self._lock:
            if self._stopped:
                return self._running == 0
        self.begin_drain()
        self._stop_consuming(min(grace, _CANCEL_SECONDS))
        with self._changed:
            drained = self._changed.wait_for(lambda: self._running == 0, max(0.0, deadline - time.monotonic()))
            self._stopped = True
            self._changed.notify_all()
        if not drained:
            log.warning("%d handlers still run after %g s; their requests go back to the queue", self._running, grace)
        for _thread in self._threads:
            self._jobs.put(None)
        self._transport.close(_CLOSE_SECONDS)
        return drained

    def counts(self) -> dict[str, int]:
        """Give the counters; see ``Server.stats``."""
        with self._lock:
            counts = {**_COUNTERS, **self._transport.stats, **self._stats}
        counts["failed"] += getattr(self._dispatcher, "failures", 0)
        return counts

    def _forget_failure(self) -> None:
        self._failure, self._gave_up = None, False

    def _has_started(self) -> bool:
        return self._session is not None or self._gave_up or self._draining

    def _raise_if_refused(self) -> None:
        if self._failure is not None and self._gave_up and not self._draining:
            raise self._failure.again()

    def _is_forked(self) -> bool:
        return self._pid not in (None, os.getpid())

    # -- told by the owner of the connection ------------------------------------------------------------

    def plan(self) -> Plan:
        # A server that drains must not consume again over a new connection: it would give all back, for ever.
        return replace(self._plan, queue=None, bindings=()) if self._draining else self._plan

    def on_open(self, session: Session) -> None:
        if not self._draining:
            log.info("serving %r from queue %r", self._service, self._plan.queue)
        with self._lock:
            self._session = session
            self._renew_at = time.monotonic() + _RENEW_SECONDS
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
            job = _Job(self._service, session, delivery, protocol.deadline_of(delivery, received))
            if not delivery.redelivered:
                put(job)
                continue
            job.returns = delivery.delivery_count
            self._let_begin(self._returned.add(job))

    def on_returned(self, session: Session, returned: Returned) -> None:
        self._count("dropped_replies")
        log.info("nobody awaits the answer for %s any more", protocol.printable(returned.routing_key))

    def awaits(self, message: Publish) -> bool:
        return True

    def on_refused(self, session: Session, error: TransportError, message: Publish) -> None:
        log.warning("the broker refused the answer for %s: %s", protocol.printable(message.routing_key), error)
        if isinstance(error, MessageTooLarge):
            # Its limit is lower than ours. The caller need not wait for its deadline to learn that.
            told = replace(
                message, body=internal_error(f"the answer has {len(message.body)} bytes, too many for the broker")
            )
            session.publish(told)
        else:
            self._count("dropped_replies")

    def on_congested(self, session: Session, congested: bool) -> None:
        if congested:
            log.warning("the broker takes no answers for now; they wait")

    def on_tick(self, now: float) -> float | None:
        self._let_begin(self._returned.overdue(now))
        session = self._session
        if session is None or self._draining:
            return None
        if now >= self._renew_at:
            self._renew_at = now + _RENEW_SECONDS
            session.renew()
        return self._renew_at

    # -- the handlers' threads ----------------------------------------------------------------------------

    def _new_worker(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._work, name=f"{self._service}-handler-{number}", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, _Job):
                self._run(job)
            elif (returned := job.take()) is not None:
                try:
                    self._run(returned)
                finally:
                    # Behind what waits: none of those that came back is more urgent than what did not.
                    self._let_begin(job.end(returned))

    def _let_begin(self, count: int) -> None:
        for _ in range(count):
            self._jobs.put(self._returned)

    def _run(self, job: _Job) -> None:
        if not self._begin_job(job):
            return
        try:
            self._serve(job)
        except Exception:
            log.exception("unexpected error while serving a request; it is acknowledged")
            self._count("failed")
            job.settle()
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
        if job.redelivered:
            self._count("redelivered")
        if job.deadline is not None and time.monotonic() >= job.deadline:
            self._count("expired")
            log.info("skipped a request that expired while it was queued here (%s)", _shown(job))
        else:
            try:
                self._serve_in_time(job)
            except MalformedEnvelope as exc:
                self._count("malformed")
                log.warning("dropped a malformed request (%s): %s", _shown(job), exc)
        job.settle()
        # Amid a burst one write for several answers is worth a millisecond; if that is not sure, each has its own.
        if self._jobs.empty() or not job.session.flush_soon():
            job.session.flush()

    def _serve_in_time(self, job: _Job) -> None:
        if self._dialect is not None and job.delivery.body is not None:
            job.inbound = self._dialect.read(job.delivery, job.delivery.body)
        answer = self._answer_to(job)
        if answer is not None:
            self._answer(job, answer)
        if job.is_dead:
            self._count("dead_lettered")

    def _answer_to(self, job: _Job) -> bytes | None:
        delivery = job.delivery
        if delivery.body is None:
            return too_large(delivery.size, self._max_size)
        if self._is_at_limit(job):
            log.error(
                "a request came back %d times, the limit, and is not run again (%s); it goes to the dead letters, if "
                "queue %r has them",
                job.returns,
                _shown(job),
                self._plan.queue,
            )
            job.dead_letter()
            return self._refuse(job.body)
        return self._dispatch(job, job.body)

    def _is_at_limit(self, job: _Job) -> bool:
        limit = self._plan.delivery_limit
        return limit is not None and job.returns >= limit

    def _dispatch(self, job: _Job, body: bytes) -> bytes | None:
        token = context.enter(context.Request(None, None, False, job))
        try:
            answer = self._dispatcher(body)
        except BaseException:
            # Ours never raises; a foreign dispatcher may, and must not take the server along.
            log.exception("the dispatcher raised on %s", _shown(job))
            self._count("failed")
            return internal_error()
        finally:
            context.leave(token)
        if answer is not None and len(answer) > self._max_size:
            self._count("failed")
            return internal_error(f"the answer has {len(answer)} bytes, over the cap of {self._max_size}")
        return answer

    def _answer(self, job: _Job, body: bytes) -> None:
        delivery, inbound = job.delivery, job.inbound
        route = self._route(delivery) if inbound is None or inbound.route is None else inbound.route
        if route is None:
            self._count("dropped_replies")
            log.warning(
                "no way to answer a request with key %s and reply_to %s",
                protocol.printable(delivery.routing_key),
                protocol.printable(delivery.reply_to or ""),
            )
            return
        message = protocol.answer(delivery, body, route=route, now=time.monotonic(), deadline=job.deadline)
        if inbound is not None:
            message.body, message.content_type = inbound.answer(body), inbound.content_type
        self._count("answered" if job.session.publish(message) else "dropped_replies")

    def _route(self, delivery: Delivery) -> protocol.Route | None:
        return protocol.reply_route(
            delivery,
            service=self._service,
            exchange=self._plan.exchange,
            request_queues=(self._plan.queue or "",),
            allowed=self._allowed,
        )

    def _count(self, name: str) -> None:
        with self._lock:
            self._stats[name] += 1

    # -- draining -----------------------------------------------------------------------------------------

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
        jobs = self._returned.take_all()
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs
            if isinstance(job, _Job):
                jobs.append(job)

    @staticmethod
    def _give_back(jobs: list[_Job]) -> None:
        for job in jobs:
            job.session.requeue(job.delivery)
        for session in {job.session for job in jobs}:
            session.flush()


def _shown(job: _Job) -> str:
    return protocol.printable(job.routing_key)


class _Returned:
    """
    The requests that came back to the queue, of which few at a time are to run: one, and one more for each that ends.

    One of them may be what ended the server that had it. Had all begun at once, all would be back once more, and be
    refused with it in the end; so each time some get through, whichever is the culprit. One that takes long is not
    waited for: what kills, mostly kills soon, and a handler that hangs must not hold up the others.

    Args:
        most: How many may run at a time in the end.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._jobs: list[_Job] = []
        self._begun: dict[_Job, float] = {}
        self._width = 1
        self._granted = 0

    def add(self, job: _Job) -> int:
        """Take one in. Gives how many handlers may ``take`` one now, besides those that may already."""
        with self._lock:
            self._jobs.append(job)
            return self._grant()

    def take(self) -> _Job | None:
        """Give one of those that came back least often; None: there is none left."""
        with self._lock:
            self._granted = max(0, self._granted - 1)
            if not self._jobs:
                return None
            position = min(range(len(self._jobs)), key=lambda each: (self._jobs[each].returns, random.random()))
            job = self._jobs.pop(position)
            self._begun[job] = time.monotonic()
            return job

    def end(self, job: _Job) -> int:
        """Note that one has ended, and this process has not; gives as ``add`` does."""
        with self._lock:
            del self._begun[job]
            self._width = min(self._width + 1, self._most) if self._jobs or self._begun else 1
            return self._grant()

    def overdue(self, now: float) -> int:
        """Wait no longer for those that take long; gives as ``add`` does."""
        if not self._jobs:
            return 0
        with self._lock:
            return self._grant(now)

    def take_all(self) -> list[_Job]:
        """Give what is left; nobody may take one any more."""
        with self._lock:
            jobs, self._jobs = self._jobs, []
            self._granted = 0
            return jobs

    def _grant(self, now: float | None = None) -> int:
        long_ago = (time.monotonic() if now is None else now) - _LONG_SECONDS
        running = sum(begun > long_ago for begun in self._begun.values())
        count = max(0, min(len(self._jobs), self._width - running) - self._granted)
        self._granted += count
        return count


@dataclass(slots=True, eq=False)
class _Job:
    """
    One request: what a handler may ask about it (``context.Envelope``), and how the broker is told of its end.

    Attributes:
        returns: How often it came back to the queue, where that counts.
        is_settled: The broker was told.
        is_dead: It is to be rejected: what it asks for will not be done.
        inbound: What a dialect made of it; None: it is JSON-RPC as it is.
    """

    service: str
    session: Session
    delivery: Delivery
    deadline: float | None
    returns: int = 0
    is_settled: bool = False
    is_dead: bool = False
    inbound: Inbound | None = None

    @property
    def body(self) -> bytes:
        """The JSON-RPC request; empty where it was too large to keep."""
        return (self.delivery.body or b"") if self.inbound is None else self.inbound.body

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

    def acknowledge(self) -> None:
        self.settle()
        self.session.flush()

    def dead_letter(self) -> None:
        self.is_dead = True

    def settle(self) -> None:
        """Acknowledge or reject it, once."""
        if self.is_settled:
            return
        self.is_settled = True
        if self.is_dead:
            self.session.reject(self.delivery)
        else:
            self.session.ack(self.delivery)
