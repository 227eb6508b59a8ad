"""
What a server does at each event of its connection, and in which order it starts, drains and stops.

It does no I/O of its own: it calls a ``Session``, and is called as its ``Listener``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from ..amqp.base import Delivery, Plan, Publish, QueueFacts, Returned, Session, Transport
from ..errors import MessageTooLarge, TransportError, WouldDeadlock
from ..jsonrpc.error_objects import internal_error
from ..logs import contained_handlers
from ..runtime.dropped import DropWatch
from ..wire.display import printable
from ..wire.names import request_queue
from ..wire.publish import deadline_of
from .counters import Counters
from .executor import Executor
from .job import Job
from .lifecycle import Lifecycle, State
from .loop_executor import Wait

log = logging.getLogger("jsonrpc_amqp.server")

# Seconds for the broker to confirm ``basic.cancel``. One that takes longer is hardly able to take replies.
_CANCEL_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
# AMQP does not report that the exchange or the binding was deleted, so both are redeclared at this interval. It costs
# two small requests each time.
_REDECLARE_SECONDS = 1.0


class Consumer:
    """
    Consumes the requests of one service, and is the ``Listener`` of its transport.

    It has no lock: what several threads use is in ``Lifecycle``, ``Executor`` and ``Counters``, each with a lock of its
    own. None of these locks, nor that of the redelivered requests, is held while another lock is taken, a session or
    the transport is called, or a handler runs; so they have no order.

    Args:
        service: The service's name.
        plan: What to declare and consume.
        transport: Where.
        lifecycle: The state of the server.
        executor: Runs the requests.
        counters: Where to count.
        prefetch: Returns how many requests this process may hold; None: as many as ``plan`` says.
    """

    def __init__(
        self,
        service: str,
        plan: Plan,
        transport: Transport,
        lifecycle: Lifecycle,
        executor: Executor,
        counters: Counters,
        prefetch: Callable[[], int] | None = None,
    ) -> None:
        self._prefetch = prefetch or (lambda: plan.prefetch)
        self._service = service
        self._plan = plan
        self._transport = transport
        self._lifecycle = lifecycle
        self._executor = executor
        self._counters = counters
        self._pid: int | None = None  # of the process that started it
        self.on_serving: Callable[[], object] | None = None
        """Called once, by the leader, when requests are consumed and before the first one begins."""
        self.is_started = False
        self._has_served = self._is_abandoned = False
        self._redeclare_at = 0.0  # for the leader alone

    # -- starting and ending ------------------------------------------------------------------------------

    def start(self) -> bool:
        """
        Start threads and transport. False: this server was stopped.

        Raises:
            NotConnected: This process can have no more threads or open files; nothing was started.
            RuntimeError: It was started in the process that forked this one.
        """
        if self.is_forked:
            raise RuntimeError(
                f"this server runs in process {self._pid}, which forked this one: make a server in each process"
            )
        if not self._lifecycle.prepare():
            return False
        self._pid = os.getpid()
        self._executor.start()
        try:
            self._transport.start(self)
        except BaseException:
            if not self.is_started:
                self._executor.undo_start()
            raise
        self.is_started = True
        return True

    @property
    def is_forked(self) -> bool:
        """Whether it was started in the process that forked this one."""
        return self._pid not in (None, os.getpid())

    @property
    def is_open(self) -> bool:
        """Whether it has threads in this process."""
        return self.is_started and not self.is_forked and self._lifecycle.state is not State.STOPPED

    @property
    def has_failed(self) -> bool:
        """Whether it gave up before it served."""
        return self._lifecycle.gave_up and not self._has_served

    def abandon(self) -> None:
        """
        Stop if it never served: nothing can start it again.

        For finalizers: it takes no lock, and leaves all else to the leader.
        """
        self._is_abandoned = True
        self._transport.wake()

    def check_may_start(self) -> None:
        """
        Check that the calling thread may wait for the connection.

        Raises:
            WouldDeadlock: The connection needs it.
        """
        if self._lifecycle.session is None and self._transport.would_deadlock():
            raise WouldDeadlock("start() would wait for what needs this thread; have another thread call it")

    def stop(self, grace: float) -> bool:
        """
        Do what ``stopping`` does, on a thread that waits. True when no handler was left running.

        Raises:
            WouldDeadlock: Called by a handler, which it would wait for, or by a thread that the connection needs.
        """
        if self.is_forked:
            return True  # before any lock: one that was held at the fork stays locked here
        if self._executor.is_running_here:
            raise WouldDeadlock(
                "stop() inside a handler would wait for that handler; have another thread call it: "
                "threading.Thread(target=server.stop).start()"
            )
        if self._transport.would_deadlock():
            raise WouldDeadlock("stop() would wait for what needs this thread; have another thread call it")
        with contained_handlers():  # a server must not be left half stopped
            for until, seconds in self.stopping(grace):
                self._lifecycle.wait(until, seconds)
        return self._lifecycle.has_drained

    def stopping(self, grace: float) -> Iterator[Wait]:
        """
        Drain within ``grace`` seconds, then close; ``lifecycle`` knows then whether a handler was left running.

        Yields what to wait for, and for how many seconds at most, before going on; ``lifecycle`` is notified of it.
        """
        # Otherwise another thread has stopped it. The process may end when this one returns, so the last acks must have
        # been written. And all of it: an interrupt may have ended that call.
        if self._lifecycle.state is not State.STOPPED:
            yield from self._draining(grace)
        yield from self._executor.closing()
        self._transport.close(_CLOSE_SECONDS)

    def _draining(self, grace: float) -> Iterator[Wait]:
        lifecycle = self._lifecycle
        deadline = time.monotonic() + grace
        is_first = lifecycle.begin_stop()
        # Otherwise why it stops has been logged, and there is nothing to drain.
        is_drain = is_first and not lifecycle.gave_up
        if is_drain:
            log.info("draining %r; running handlers: %d", self._service, lifecycle.running)
        yield from self._cancelling(min(grace, _CANCEL_SECONDS))
        yield lifecycle.is_idle, max(0.0, deadline - time.monotonic())
        lifecycle.stop()
        if is_drain and lifecycle.has_drained:
            log.info("drained %r", self._service)
        elif is_first and not lifecycle.has_drained:
            log.warning(
                "%d handlers still run after %g s; their requests go back to the queue", lifecycle.running, grace
            )

    def _cancelling(self, seconds: float) -> Iterator[Wait]:
        """Stop consuming, and give back what has not begun."""
        session = self._lifecycle.session
        if session is None:
            return
        is_cancelled: list[TransportError | None] = []
        session.cancel(lambda error: self._lifecycle.note(partial(is_cancelled.append, error)))
        yield lambda: bool(is_cancelled), seconds
        # Only now: while this server consumes, the broker might deliver to it what it gave back.
        self._executor.give_back(self._lifecycle.cancelled())

    # -- the Listener: called by the leader ---------------------------------------------------------------

    def plan(self) -> Plan:
        if self._lifecycle.state is State.RUNNING:
            return replace(self._plan, prefetch=self._prefetch())
        # A server that drains must not consume over a new connection: it would give all requests back, in a loop.
        return replace(self._plan, queue=None, bindings=())

    def on_open(self, session: Session) -> None:
        self._redeclare_at = time.monotonic() + _REDECLARE_SECONDS
        self._has_served = True
        if self._lifecycle.state is State.RUNNING:
            self._report_serving()
        self._lifecycle.opened(session)
        if self._lifecycle.state is State.RUNNING:
            log.info("serving %r from queue %r", self._service, self._plan.queue)
            if self._plan.queue != (usual := request_queue(self._service)):
                session.inspect(usual, self._found_usual)

    def _found_usual(self, facts: QueueFacts | TransportError) -> None:
        """Warn of a queue for the same requests: nothing else tells that each of them runs twice."""
        if isinstance(facts, QueueFacts):
            log.warning(
                "beside queue %r of this server there is queue %r, which servers of %r have by default: if both are "
                "bound to the exchange, each request that clients publish there is put into both, and runs twice. Give "
                "all servers of a service the same queue=, and delete the other queue; clients may also send to a "
                "queue alone, by its name (queue=)",
                self._plan.queue,
                request_queue(self._service),
                self._service,
            )

    def _report_serving(self) -> None:
        report, self.on_serving = self.on_serving, None
        if report is None:
            return
        try:
            report()
        except Exception:
            log.exception("the callback of on_serving failed; requests are served all the same")

    def on_failed(self, error: TransportError, retry_in: float | None) -> None:
        self._lifecycle.failed(error, gave_up=retry_in is None)
        log.warning("%s%s", error, "" if retry_in is None else f"; next attempt in {retry_in:.1f} s")

    def on_lost(self, session: Session, error: TransportError) -> None:
        self._lifecycle.lost()
        if self._lifecycle.state is not State.STOPPED:
            log.warning("%s; what was not acknowledged is delivered again", error)

    def on_deliveries(self, session: Session, deliveries: list[Delivery]) -> None:
        now = time.monotonic()
        self._counters.add("received", len(deliveries))
        jobs: list[Job] = []
        for delivery in deliveries:
            job = Job(self._service, session, delivery, deadline_of(delivery, now))
            if delivery.redelivered:
                job.redeliveries = delivery.delivery_count
                self._executor.submit_redelivered(job, now)
            else:
                jobs.append(job)
        self._executor.submit(jobs, now)

    def on_undecoded(self, session: Session, delivery: Delivery, why: str) -> None:
        self._counters.add("received")
        self._counters.add("malformed")
        # Not rejected: as a dead letter it would harm its next reader, which may use another library.
        session.ack(delivery)
        log.warning("dropped a request that cannot be read (%s): %s", printable(delivery.routing_key), why)

    def on_returned(self, session: Session, returned: Returned) -> None:
        self._counters.add("dropped_replies")
        log.info("no client awaits the reply for %s any more", printable(returned.routing_key))

    def awaits(self, message: Publish) -> bool:
        return True

    def on_rejected(self, session: Session, error: TransportError, message: Publish) -> None:
        log.warning("the broker rejected the reply for %s: %s", printable(message.routing_key), error)
        size = len(message.body)
        body = internal_error(f"the answer has {size} bytes, too many for the broker")
        if isinstance(error, MessageTooLarge) and len(body) < size:
            # The broker's limit is lower than ours. The caller learns it now, rather than by a timeout.
            session.publish(replace(message, body=body))
        else:
            self._counters.add("dropped_replies")

    def on_congested(self, session: Session, congested: bool) -> None:
        if congested:
            log.warning("the broker takes no replies for now; they wait")

    def on_tick(self, now: float) -> float | None:
        self._executor.tick(now)
        if self._is_abandoned and not self._has_served and self._lifecycle.state is State.RUNNING:
            self._lifecycle.stop()
            for _ in self._executor.closing():
                pass  # there is nothing to wait for: no request has come
            self._transport.close(_CLOSE_SECONDS)
        session = self._lifecycle.session
        if session is None or self._lifecycle.state is not State.RUNNING:
            return None
        if now >= self._redeclare_at:
            self._redeclare_at = now + _REDECLARE_SECONDS
            session.redeclare()
        return self._redeclare_at


def watch_consumer(consumer: Consumer, what: str, advice: str) -> DropWatch:
    """Return what a server holds and its threads do not, so that it is noticed when a program drops the server."""
    return DropWatch(what, advice, lambda: consumer.is_open, consumer.abandon, lambda: consumer.has_failed)
