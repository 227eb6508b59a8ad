"""
The requests of one client: number, send, pair with replies, expire.

It decides and does no I/O of its own: it uses a ``Session``, and is a ``Listener``. A call that cannot be sent now (no
connection, a reply queue that is not bound yet, a broker that blocks publishers) is parked until it can be sent, or
until its deadline.

One lock guards all that is here, and the objects that this module is made of. The lock of the session's outbox may be
taken under it, never the other way round. No call is ended while it is held: that may run callbacks of the user's.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from ..amqp.base import Delivery, Plan, Publish, Returned, Session, Transport
from ..amqp.delivery_tracking import unroutable
from ..dialects import ClientDialect
from ..errors import TooManyPending, TransportError
from ..runtime.forks import OfOneProcess
from ..wire.reply_checks import ReplyChecks
from .addresses import Addresses, Routing, check_confirms
from .call import Call
from .consumer_checks import ConsumerChecks
from .endings import Endings, lost
from .inspections import Inspections
from .lifecycle import Lifecycle
from .middleware_threads import MiddlewareThreads
from .pending import Pending
from .presence import Presence
from .replies import Replies
from .reply_bindings import ReplyBindings
from .retries import Retries
from .sender import Failed, Sender
from .timeouts import TimeoutReports
from .waiting import Waiter

log = logging.getLogger("jsonrpc_amqp.client")

_COUNTERS = dict.fromkeys(
    (
        "connections",
        "failed_attempts",
        "unreadable_headers",
        "connections_lost",
        "timeouts",
        "retries",
        "cancelled",
        "dropped_replies",
        "rejected_replies",
        "pending",
    ),
    0,
)
# With this many calls under way, one may wait a millisecond to leave together with others.
_MANY_PENDING = 16


class Requests(OfOneProcess):
    """
    Sends the calls of one client, over one connection, to any number of services.

    Args:
        transport: Connects and reconnects.
        routing: Which way requests and replies go.
        confirm: Have the broker confirm calls, too, so that a queue that rejects one ends it at once.
        declare: Declare the exchange, or only check that it exists.
        user: The AMQP user, for keys and ``user_id``; None where it is not known.
        dialect: Translates requests and replies.
        server_users: Who may reply; None: any user.
        max_pending: Most calls that may wait for their end at a time.

    Attributes:
        waiter, endings: For threads that wait for a call, and for attempts that callers make.
        presence: Starts the transport, and ends a client that was dropped.
        threads: Run middleware.
        runtime, life: What drives the transport; whether there is a session.
    """

    def __init__(
        self,
        transport: Transport,
        routing: Routing,
        *,
        confirm: bool,
        declare: bool,
        user: str | None,
        dialect: ClientDialect | None,
        server_users: frozenset[str] | None,
        max_pending: int,
    ) -> None:
        self._transport = transport
        self.runtime = transport.runtime
        self._plan = partial(
            Plan,
            exchange=routing.exchange,
            declare=declare,
            reply_queue="direct" if routing.reply == "direct" else "exclusive",
            confirm=confirm,
        )
        self._dialect = dialect
        self._max_pending = max_pending
        # Reentrant: a signal handler may submit calls and close, whatever its thread is doing.
        self._lock = threading.RLock()
        self.life = Lifecycle(self._lock)
        self._ids = itertools.count(1)
        self._numbers = itertools.count(1)
        self._pending = Pending()
        self._retries = Retries(self._pending, self._numbers)
        self._addresses = Addresses(routing, user)
        self._bindings = ReplyBindings(self._addresses, is_needed=routing.reply == "topic")
        self._inspections = Inspections(routing.queue_of)
        self._checks = ConsumerChecks(self._inspections)
        self._sender = Sender(
            self._pending,
            self._addresses,
            self._bindings,
            self._checks,
            dialect,
            confirm=confirm,
            go_on=self._go_on,
            on_confirmed=self._on_confirmed,
        )
        reports = TimeoutReports(self._inspections)
        self.stats: Counter[str] = Counter()
        checks = ReplyChecks(routing.exchange if routing.reply == "topic" else "", server_users)
        self._replies = Replies(self._pending, self._addresses, checks, dialect, self.stats)
        self.endings = Endings(
            self._lock, self.life, self._retries, reports, self._replies, wake=transport.wake, stats=self.stats
        )
        self.waiter = Waiter(self._lock, transport, self._pending, self._sender, self.endings)
        self._next_tick = 0.0
        self.presence = Presence(self.life, self._pending, transport, self.close)
        self.threads = MiddlewareThreads()
        self.check_confirms = partial(check_confirms, routing, confirm=confirm)

    # -- from any thread ------------------------------------------------------------------------------

    def new_id(self) -> int:
        """Return the next JSON-RPC id of this client; none is returned twice."""
        return next(self._ids)

    def use(self, service: str) -> None:
        """
        Note that a service will be called, so that its replies can be bound as soon as there is a connection.

        Raises:
            ClientClosed: This process was forked by the one that uses the client.
            InvalidName, ValueError: See ``Addresses.check``.
        """
        if service not in self._addresses.services:
            self.life.check_not_foreign()
            self._addresses.check(service)
            with self._lock:
                self._addresses.services.add(service)

    def submit(self, call: Call) -> None:
        """
        Take a call; it ends by its deadline, whatever happens.

        Raises:
            ClientClosed, EncodeError, TooManyPending: At once; the call is not taken.
            NotConnected: The same; this process can have no other thread or open file.
        """
        if self._dialect is not None:
            self._dialect.check(call.body)
        if call.service not in self._addresses.services:
            self.use(call.service)
        life, pending = self.life, self._pending
        life.check_process()
        if call.has_callbacks:
            # No thread waits for it. First, so that no caller leads when the reply comes, and runs the callbacks.
            self.runtime.reclaim()
        with self._lock:
            if life.closed:
                life.check_open()
            if len(pending) >= self._max_pending:
                raise _too_many(self._max_pending, call.service)
            call.number = str(next(self._numbers))
            wake = pending.add(call) < self._next_tick
            if life.closed:  # by a signal handler, since the check above
                pending.pop(call.number)
                life.check_open()
            session = life.session
            error = self._sender.send_or_park(session, call)
        if error is not None:
            self.endings.fail(call, error)
        if session is None:
            self.presence.start(self, undo=partial(self.waiter.forget, call))
        elif not session.writes_soon or len(pending) < _MANY_PENDING:
            session.flush()
        if wake:
            self._transport.wake()

    def cancel(self, call: Call) -> bool:
        """
        Drop a call whose caller does not want its end any more. False: it is not pending.

        It is not sent, if it was not yet; the reply to one that was sent is counted in ``dropped_replies``.
        """
        if not call.number or self.life.is_foreign():
            return False  # it was not taken; after a fork, the lock must not be taken either
        with self._lock:
            is_mine = self._sender.give_up(call)
            self.stats["cancelled"] += is_mine
        return is_mine

    def hold(self, call: Call) -> None:
        """Take a call as ``submit`` does, but send nothing; ``Waiter.release`` gives it back."""
        self.use(call.service)
        self.life.check_process()
        with self._lock:
            self.life.check_open()
            if len(self._pending) >= self._max_pending:
                raise _too_many(self._max_pending, call.service)
            call.number = str(next(self._numbers))
            wake = self._pending.add(call) < self._next_tick
        if self.life.session is None:
            self.presence.start(self, undo=partial(self.waiter.forget, call))
        if wake:
            self._transport.wake()

    def close(self, timeout: float) -> None:
        """End every call with ``ClientClosed``, then the connection."""
        if self.life.is_foreign():
            return
        with self._lock:
            self.life.close()
            calls = self._pending.take(lambda _call: True)
            self._sender.clear()
        self.endings.fail_closed(calls)
        deadline = time.monotonic() + timeout
        self._transport.close(timeout)
        self.threads.close(max(0.0, deadline - time.monotonic()))

    def counts(self) -> dict[str, int]:
        """Return the counters, and how many calls are pending."""
        return {**_COUNTERS, **self._transport.stats, **self.stats, "pending": len(self._pending)}

    # -- called by the leader: see ``Listener`` -------------------------------------------------------

    def plan(self) -> Plan:
        with self._lock:
            self._addresses.new_connection()
            return self._plan(bindings=self._bindings.new_connection(self._pending.services()))

    def on_open(self, session: Session) -> None:
        with self._lock:
            self._addresses.opened(session.reply_queue)
            self._bindings.opened(time.monotonic())
            self._inspections.reset()
            self.life.opened(session)
            failed = self._sender.send_parked(session)
        self.endings.fail_all(failed)
        session.flush()

    def on_failed(self, error: TransportError, retry_in: float | None) -> None:
        is_new = self.life.failure is not error  # else a refusal stands, and was logged
        is_final = retry_in is None
        with self._lock:
            self.life.failed(error, is_final=is_final)
            calls = self._pending.take(lambda _call: is_final)
            self._sender.forget(calls)
        self.endings.fail_all((call, error.again()) for call in calls)
        # Last, here and below: a log handler may take its time, or wait for one of these calls.
        if is_new:
            log.warning("%s%s", error, "" if retry_in is None else f"; next attempt in {retry_in:.1f} s")

    def on_lost(self, session: Session, error: TransportError) -> None:
        with self._lock:
            if self.life.session is not session:
                return
            self.life.session = None
            self._checks.reset()
            calls = self._pending.take(lambda call: call.sent)
            self.stats["connections_lost"] += 1
            closed = self.life.closed
        self.endings.fail_all((call, lost(call, error)) for call in calls)
        if not closed:
            log.warning("%s; %d calls in flight end with ConnectionLost", error, len(calls))

    def on_deliveries(self, session: Session, deliveries: list[Delivery]) -> None:
        replies = self._replies
        replies.translate(deliveries)
        with self._lock:
            paired = replies.pair(deliveries)
        replies.end_calls(paired)

    def on_undecoded(self, session: Session, delivery: Delivery, why: str) -> None:
        self._replies.note_undecoded(delivery, why)

    def on_returned(self, session: Session, returned: Returned) -> None:
        self._end(returned.correlation_id, unroutable(returned))

    def awaits(self, message: Publish) -> bool:
        with self._lock:
            return message.correlation_id in self._pending

    def on_rejected(self, session: Session, error: TransportError, message: Publish) -> None:
        self._end(message.correlation_id, error)

    def on_congested(self, session: Session, congested: bool) -> None:
        if not congested:
            self._go_on(session, partial(self._sender.send_parked, session))

    def on_tick(self, now: float) -> float | None:
        with self._lock:
            again, too_late = self._retries.due(now)  # before the deadlines: the error of an attempt says more
            near, expired = self._pending.due(now)
            self._sender.forget(expired)
            session = self.life.session
            failed = self._sender.send_again(session, again)
            failed += [each for late in self._checks.overdue(now) for each in self._sender.send_held(session, late)]
            alarm = min(self._pending.next_alarm, self._retries.next_alarm, self._checks.next_alarm)
            redeclare, redeclare_at = self._bindings.next_redeclare(now, has_pending=len(self._pending) > 0)
            if alarm < math.inf:
                alarm = min(alarm, redeclare_at)
            keys = self._bindings.keys_to_redeclare(self._pending.services()) if redeclare else ()
            self._next_tick = alarm
        if session is not None:
            if redeclare:
                session.redeclare(keys)
            for service in {call.service for call in near if call.sent and not call.send_options.is_notification}:
                self._inspections.refresh(session, service)
        self.endings.fail_all(failed)
        self.endings.expire(expired, too_late)
        self._checks.log_warnings()
        alarm = min(alarm, self.presence.next_look(now))
        return None if alarm == math.inf else alarm

    def _go_on(self, session: Session, send: Callable[[], Failed]) -> None:
        """Send what waited for something, unless its session is not open, or no longer."""
        with self._lock:
            if self.life.session is not session:
                return  # its calls would carry the addresses of another connection
            failed = send()
        self.endings.fail_all(failed)
        session.flush()
        self._checks.log_warnings()

    def _on_confirmed(self, call: Call, error: TransportError | None) -> None:
        if error is not None:
            self._end(call.number, error)
        elif call.send_options.is_notification:  # of a call, the reply is still to come
            with self._lock:
                mine = self._pending.pop(call.number)
            if mine is not None:
                mine.succeed(b"")

    def _end(self, number: str | None, error: TransportError) -> None:
        with self._lock:
            call = self._pending.pop(number)
        if call is not None:
            self.endings.fail(call, error)


def _too_many(most: int, service: str) -> TooManyPending:
    return TooManyPending(
        f"{most} calls and notifications wait for their end, as many as this client may have (max_pending); nothing "
        f"was sent to {service!r}. Wait for some, cancel some, or have fewer at a time"
    )
