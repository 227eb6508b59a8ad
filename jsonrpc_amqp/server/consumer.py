"""
The requests of one server: run on a pool of threads, answered, acknowledged, given back when it drains.

The counterpart of ``caller``: it decides and does no I/O of its own, asks a ``Session`` and is told as a ``Listener``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from .. import context
from ..amqp.base import JSON, Delivery, Plan, Publish, Session, Transport
from ..amqp.base import Returned as ReturnedMessage
from ..dialects import MalformedEnvelope, ServerDialect
from ..errors import MessageTooLarge, NotConnected, TransportError
from ..jsonrpc.error_objects import internal_error, too_large
from ..wire.display import printable
from ..wire.publish import deadline_of, reply_message
from ..wire.reply_route import Route, reply_route
from ..wire.sender_checks import Refusal
from .work_queue import Job, Returned, WorkQueue

log = logging.getLogger("jsonrpc_amqp.server")

# A broker that does not even confirm ``basic.cancel`` in this time is not waited for.
_CANCEL_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
# Whoever deletes the exchange or the binding cuts the service off, and nobody is told. Two small requests each time.
_REDECLARE_SECONDS = 1.0
_COUNTERS = dict.fromkeys(
    (
        "received",
        "answered",
        "failed",
        "expired",
        "redelivered",
        "dead_lettered",
        "malformed",
        "refused",
        "dropped_replies",
        "abandoned",
        "dropped_acks",
        "connections",
        "failed_attempts",
    ),
    0,
)


class Consumer:
    """
    Runs what comes for one service; the arguments are those of ``Server``.

    Args:
        plan: What to declare and consume.
        refuse: Answers a body that reached the delivery limit of ``plan``.
        allowed: Narrows which queues a ``reply_to`` may name.
        dialect: Translates the requests that are no JSON-RPC.
        user: The AMQP user, sent with answers; None where it is not known.
        verify: Says why a request is not served, because of who sent it; None: nobody is asked.
        refuse_sender: Answers the body of such a request.
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
        user: str | None,
        verify: Callable[[Delivery], Refusal | None] | None,
        refuse_sender: Callable[[bytes], bytes | None],
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
        self._user = user
        self._verify = verify
        self._refuse_sender = refuse_sender
        self._pid: int | None = None
        self._jobs = WorkQueue(concurrency)
        transport.runtime.set_inline_jobs(self)
        self._returned = Returned(concurrency)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._session: Session | None = None
        self._redeclare_at = 0.0
        self._failure: TransportError | None = None
        self._gave_up = False
        self._draining = False
        self._cancelled = False
        self._stopped = False
        self._running = 0
        self._waiting = 0  # threads that have a request and may not begin it yet
        self._owners_at_work: set[int] = set()  # threads that own the connection, or did, and run a handler
        self._not_begun: list[Job] = []
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
        if threading.current_thread() in self._threads or threading.get_ident() in self._owners_at_work:
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
        self._jobs.end()
        self._transport.close(_CLOSE_SECONDS)
        return drained

    def counts(self) -> dict[str, int]:
        """Give the counters; see ``Server.stats``."""
        with self._lock:
            counts = {**_COUNTERS, **self._transport.stats, **self._stats}
        counts["failed"] += getattr(self._dispatcher, "failures", 0)
        counts["refused"] += getattr(self._dispatcher, "refusals", 0)
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
            self._redeclare_at = time.monotonic() + _REDECLARE_SECONDS
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
        jobs: list[Job] = []
        for delivery in deliveries:
            job = Job(self._service, session, delivery, deadline_of(delivery, received))
            if not delivery.redelivered:
                jobs.append(job)
                continue
            job.returns = delivery.delivery_count
            self._let_begin(self._returned.add(job))
        self._jobs.put(jobs, received)

    def on_returned(self, session: Session, returned: ReturnedMessage) -> None:
        self._count("dropped_replies")
        log.info("nobody awaits the answer for %s any more", printable(returned.routing_key))

    def awaits(self, message: Publish) -> bool:
        return True

    def on_rejected(self, session: Session, error: TransportError, message: Publish) -> None:
        log.warning("the broker refused the answer for %s: %s", printable(message.routing_key), error)
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

    @property
    def has_inline_job(self) -> bool:
        return self._jobs.are_quick and len(self._jobs) > 0

    def next_inline_job(self) -> Callable[[], None] | None:
        while (job := self._jobs.take_quick()) is not None:
            if self._begin_job(job, may_wait=False):
                return partial(self._run_here, job)
        return None

    def offload(self, *, late: bool) -> None:
        self._jobs.hand_over(late=late)

    def on_tick(self, now: float) -> float | None:
        self._let_begin(self._returned.overdue(now))
        session = self._session
        if session is None or self._draining:
            return None
        if now >= self._redeclare_at:
            self._redeclare_at = now + _REDECLARE_SECONDS
            session.redeclare()
        return self._redeclare_at

    # -- the handlers' threads ----------------------------------------------------------------------------

    def _new_worker(self, number: int) -> threading.Thread:
        thread = threading.Thread(target=self._work, name=f"{self._service}-handler-{number}", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if isinstance(job, Job):
                if self._begin_job(job):
                    self._run_on_thread(job)
            elif (returned := job.take()) is not None:
                try:
                    if self._begin_job(returned):
                        self._run_on_thread(returned)
                finally:
                    # Behind what waits: none of those that came back is more urgent than what did not.
                    self._let_begin(job.end(returned))

    def _let_begin(self, count: int) -> None:
        if count:
            self._jobs.put_returned([self._returned] * count)

    def _run_here(self, job: Job) -> None:
        thread = threading.get_ident()
        self._owners_at_work.add(thread)
        pace, began = self._jobs.pace, time.monotonic()
        began_cpu = time.thread_time() if pace.is_doubtful else None
        self._run(job, began)
        pace.ran_on_owner(time.monotonic() - began, 0.0 if began_cpu is None else time.thread_time() - began_cpu)
        self._owners_at_work.discard(thread)

    def _run_on_thread(self, job: Job) -> None:
        began, began_cpu = time.monotonic(), time.thread_time()
        self._run(job, began)
        self._jobs.pace.ran_on_thread(time.monotonic() - began, time.thread_time() - began_cpu)

    def _run(self, job: Job, began: float) -> None:
        try:
            self._serve(job, began)
        # BaseException: a sys.exit() in a callable that was given must not take the thread along.
        except BaseException:
            log.exception("unexpected error while serving a request; it is acknowledged")
            self._count("failed")
            job.settle()
        finally:
            self._end_job()
        # Amid a burst one write for several answers is worth a millisecond; if that is not sure, each has its own.
        if not self._jobs or not job.session.writes_soon:
            job.session.flush()

    def _begin_job(self, job: Job, *, may_wait: bool = True) -> bool:
        with self._changed:
            # Only where the owner of the connection runs one, too, are there more threads than may run.
            while self._running >= self._concurrency and not self._draining:
                if not may_wait:
                    self._jobs.put_back(job)
                    return False
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
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
            if self._draining or self._waiting:
                self._changed.notify_all()

    def _serve(self, job: Job, now: float) -> None:
        if job.redelivered:
            self._count("redelivered")
        if job.deadline is not None and now >= job.deadline:
            self._count("expired")
            log.info("skipped a request that expired while it was queued here (%s)", _shown(job))
        else:
            try:
                self._serve_in_time(job)
            except MalformedEnvelope as exc:
                self._count("malformed")
                log.warning("dropped a malformed request (%s): %s", _shown(job), exc)
        job.settle()

    def _serve_in_time(self, job: Job) -> None:
        if self._verify is not None and (refusal := self._verify(job.delivery)) is not None:
            self._refuse_job(job, refusal)
            return
        if self._dialect is not None and job.delivery.body is not None:
            job.inbound = self._dialect.read(job.delivery, job.delivery.body)
        answer = self._answer_to(job)
        if answer is not None:
            self._answer(job, answer)
        if job.is_dead:
            self._count("dead_lettered")

    def _answer_to(self, job: Job) -> bytes | None:
        delivery = job.delivery
        if delivery.body is None:
            return too_large(delivery.size, self._max_size)
        if self._is_at_limit(job):
            log.error(
                "a request came back %d times, the limit, and is not run again (%s); it goes to the dead letters, if "
                "queue %r has them, and if its sender may call what it asks for",
                job.returns,
                _shown(job),
                self._plan.queue,
            )
            return self._inside(job, self._refuse)
        return self._inside(job, self._dispatcher)

    def _refuse_job(self, job: Job, refusal: Refusal) -> None:
        self._count("refused")
        log.warning("refused a request (%s): %s", _shown(job), refusal.reason)
        answer = self._refuse_sender(job.body) if refusal.may_reply else None
        if answer is not None:
            self._answer(job, answer)

    def _is_at_limit(self, job: Job) -> bool:
        limit = self._plan.delivery_limit
        return limit is not None and job.returns >= limit

    def _inside(self, job: Job, dispatch: Callable[[bytes], bytes | None]) -> bytes | None:
        """Have a request answered, by what may ask for the message that it came in."""
        token = context.enter(context.Request(None, None, False, job))
        try:
            answer = dispatch(job.body)
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

    def _answer(self, job: Job, body: bytes) -> None:
        delivery, inbound = job.delivery, job.inbound
        route = self._route(delivery) if inbound is None or inbound.route is None else inbound.route
        if route is None:
            self._count("dropped_replies")
            log.warning(
                "no way to answer a request with key %s and reply_to %s",
                printable(delivery.routing_key),
                printable(delivery.reply_to or ""),
            )
            return
        self._count("answered" if self._publish_reply(job, route, body) else "dropped_replies")

    def _publish_reply(self, job: Job, route: Route, body: bytes) -> bool:
        inbound, content_type = job.inbound, JSON
        if inbound is not None:
            body, content_type = inbound.reply(body), inbound.content_type
        message = reply_message(
            job.delivery,
            body,
            route=route,
            now=time.monotonic(),
            deadline=job.deadline,
            user=self._user,
            content_type=content_type,
        )
        if job.is_settled or job.is_dead:
            return job.session.publish(message)
        job.is_settled = True
        return job.session.publish(message, acks=job.delivery)

    def _route(self, delivery: Delivery) -> Route | None:
        return reply_route(
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
        self._give_back(jobs + self._returned.take_all() + self._jobs.take_all())

    @staticmethod
    def _give_back(jobs: list[Job]) -> None:
        for job in jobs:
            job.session.requeue(job.delivery)
        for session in {job.session for job in jobs}:
            session.flush()


def _shown(job: Job) -> str:
    return printable(job.routing_key)
