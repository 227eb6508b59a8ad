"""
The calls of one client on its transport: number, send or park, pair, expire.

It decides and does no I/O of its own: it asks a ``Session`` and is told as a ``Listener``. A call that cannot be
sent now (no connection, a reply queue not bound yet, a broker that blocks publishers) is parked, until it can or
until its deadline. Nothing is told to a caller while the lock is held: its callbacks are its own business.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial

from ..amqp.base import (
    DIRECT_REPLY_TO,
    Delivery,
    Plan,
    Publish,
    QueueFacts,
    Returned,
    Session,
    Transport,
)
from ..amqp.delivery_tracking import unroutable
from ..dialects import ClientDialect
from ..errors import (
    Blocked,
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    EncodeError,
    JsonRpcAmqpError,
    MalformedReply,
    NotConnected,
    TooManyPending,
    TransportError,
)
from ..wire.display import printable
from ..wire.names import check_service, client_word, new_token, reply_binding, request_queue
from ..wire.publish import Address, QueueAddress, call_message, notification_message
from ..wire.reply_checks import ReplyChecks
from .pending import Call, Pending, WaitingCall

log = logging.getLogger("jsonrpc_amqp.client")

_COUNTERS = dict.fromkeys(
    (
        "connections",
        "failed_attempts",
        "connections_lost",
        "timeouts",
        "retries",
        "dropped_replies",
        "rejected_replies",
        "pending",
    ),
    0,
)
# What was learned of a queue is good for this long when many calls end together.
_FACTS_SECONDS = 0.25
# Nobody is told when the exchange or a binding is deleted: answers just do not come. So often it is seen to, while
# calls with a deadline wait.
_REDECLARE_SECONDS = 2.0
# Doubled each time; of this, a random part from a half up is waited, so that not all clients come back at once.
_FIRST_RETRY = 0.1
_LONGEST_RETRY = 2.0
# With less time than this an attempt would end as a timeout, most likely, which knows less than the error that it has.
_LEAST_FOR_RETRY = 0.1
# With so many on their way one call may wait a millisecond to leave with others.
_MANY_IN_FLIGHT = 16
_Address = Address | QueueAddress


_process = os.getpid()


def _note_process() -> None:
    global _process
    _process = os.getpid()


# Asking the system at each call costs as much as all the locks of that call.
os.register_at_fork(after_in_child=_note_process)


class Requests:
    """
    Sends the calls of one client, over one connection, to any number of services.

    Args:
        transport: Connects and reconnects.
        exchange: The topic exchange.
        reply: "topic" for a reply queue of our own on the exchange, "queue" for one that requests name in
            ``reply_to``, "direct" for RabbitMQ's direct reply-to.
        by_queue: Requests go to a queue by its name, not over the exchange.
        queue: That one, whatever the service is called; None: the request queue of the service.
        confirm: Have the broker confirm calls too, so that a queue that refuses one ends it at once.
        declare: Declare the exchange, or only check that it is there.
        user: The AMQP user, for keys and ``user_id``; None where it is not known.
        dialect: Translates what leaves and what comes.
        server_users: Who may answer; None: anybody.
        max_pending: Most calls that wait for their end at a time.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        exchange: str,
        reply: str,
        queue: str | None,
        by_queue: bool,
        confirm: bool,
        declare: bool,
        user: str | None,
        dialect: ClientDialect | None,
        server_users: frozenset[str] | None,
        max_pending: int,
    ) -> None:
        self._transport = transport
        self._by_queue = by_queue
        self._exchange = "" if by_queue else exchange
        self._queue = queue
        self._reply = reply
        self._confirm = confirm
        self._declare = declare
        self._user = user
        self._dialect = dialect
        self._answers = ReplyChecks(exchange if reply == "topic" else "", server_users)
        self._last_flaw: str | None = None
        client_word(user, "")  # refused here rather than at the first call
        self._pid: int | None = None
        # Reentrant: signal handlers may call, submit and close amid anything that their thread does.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._ids = itertools.count(1)
        self._correlations = itertools.count(1)
        self._pending = Pending()
        self._max_pending = max_pending
        self._parked: list[Call] = []
        self._retries: list[tuple[float, str]] = []  # when, number: a heap
        self._next_tick = 0.0
        self._session: Session | None = None
        self._redeclare_at = 0.0
        self._failure: TransportError | None = None
        self._gave_up = False
        self._closed = False
        self._services: set[str] = set()
        self._token = ""
        self._reply_to = DIRECT_REPLY_TO if reply == "direct" else None
        self._addresses: dict[str, _Address] = {}
        self._bound: set[str] = set()
        self._binding: set[str] = set()
        self._facts: dict[str, tuple[float, QueueFacts | None]] = {}
        self.stats: Counter[str] = Counter()

    # -- from any thread ------------------------------------------------------------------------------

    def number(self) -> int:
        """Give the next JSON-RPC id of this client; none is given twice."""
        return next(self._ids)

    def use(self, service: str) -> None:
        """
        Note that a service will be called, so that its answers can be bound as soon as there is a connection.

        Raises:
            InvalidName: The name breaks a rule, or makes a routing key over 255 bytes.
            ValueError: This client calls one queue only, for the first service that it was told of.
        """
        if service not in self._services:
            if self._queue is not None and self._services:
                raise ValueError(f"this client calls queue {self._queue!r}, so it cannot call service {service!r}")
            self._address(service, new_token())
            with self._lock:
                self._services.add(service)

    def launch(self, call: Call) -> None:
        """
        Take a call in; it ends by its deadline, whatever happens.

        Raises:
            ClientClosed, EncodeError, TooManyPending: At once; the call is not taken in.
        """
        if self._dialect is not None:
            self._dialect.check(call.body)
        if call.service not in self._services:
            self.use(call.service)
        if self._pid != _process:
            self._check_process()
        with self._lock:
            if self._closed:
                self._check_open()
            if len(self._pending) >= self._max_pending:
                raise TooManyPending(
                    f"{self._max_pending} calls and notifications wait for their end, as many as this client may have "
                    f"(max_pending); nothing was sent to {call.service!r}. Wait for some, or have fewer at a time"
                )
            call.number = str(next(self._correlations))
            wake = self._pending.add(call) < self._next_tick
            session = self._session
            refusal = self._send_or_park(call)
        if refusal is not None:
            self._tell(call, refusal)
        if session is None:
            self._transport.start(self)
        elif not session.writes_soon or len(self._pending) < _MANY_IN_FLIGHT:
            session.flush()
        if wake:
            self._transport.wake()
        if call.has_callbacks:
            self._transport.runtime.reclaim()  # nobody waits for it here

    def attend(self, call: WaitingCall) -> None:
        """Do on this thread, which waits for the call, what brings its answer, as long as it is the only one."""
        if len(self._pending) <= 1:
            self._transport.runtime.drive_until(call.is_over, call.deadline)
        if len(self._pending) > 0:
            self._transport.runtime.reclaim()  # by now there are others, or this one takes its time

    def check_confirms(self) -> None:
        """
        Refuse a persistent call that the broker could not confirm.

        Raises:
            ValueError: Direct answers come only to the channel of the request, which is not in confirm mode.
        """
        if self._reply == "direct" and not self._confirm:
            raise ValueError('with reply="direct", persistent calls need Client(confirm=True)')

    def check_may_wait(self) -> None:
        """
        Refuse to wait on the thread that would bring the answer, or that is amid sending.

        Raises:
            RuntimeError: This is that thread.
        """
        # Else the thread that brings the answer would wait for the lock until the deadline. Each RLock tells who has it
        # (threading.Condition asks in the same way); typeshed leaves private methods out.
        mine = self._lock._is_owned()  # type: ignore[attr-defined]
        if mine or self._transport.would_deadlock():
            raise RuntimeError(
                "a callback of a future, or a signal handler amid another call, must not wait for a call: the answer "
                "could not come meanwhile. Use submit() in it, or hand the work to a thread of yours"
            )

    def expire(self, call: Call) -> None:
        """End a call now whose deadline has passed, unless it is ending."""
        with self._lock:
            mine = self._pending.pop(call.number)
            self._forget_ended()
        if mine is not None:
            mine.fail(mine.with_attempts(self._expired(mine)))

    def forget(self, call: Call) -> None:
        """Await the end of a call no more, if it has not come."""
        if call.number:  # else it was not taken in; after a fork, not even the lock may be taken
            with self._lock:
                self._pending.pop(call.number)
            self._transport.runtime.reclaim()

    def connect(self, timeout: float | None) -> None:
        """
        Wait until there is a connection.

        Raises:
            TransportError: What was in the way, by ``timeout`` seconds.
        """
        self._check_process()
        with self._lock:
            self._check_open()
            self._forget_failure()
        self._transport.start(self)
        with self._changed:
            if self._changed.wait_for(lambda: self._session is not None or self._gave_up or self._closed, timeout):
                self._check_open()
                if self._failure is not None and self._gave_up:
                    raise self._failure.again()
            else:
                raise self._not_connected(timeout)

    def close(self, timeout: float) -> None:
        """End every call with ``ClientClosed``, then the connection."""
        if self._pid not in (None, os.getpid()):
            return
        with self._lock:
            self._closed = True
            calls = self._pending.take(lambda _call: True)
            self._parked.clear()
            self._changed.notify_all()
        for call in calls:
            closed = ClientClosed("the client was closed before the answer came", may_have_run=call.sent)
            call.fail(call.with_attempts(closed))
        self._transport.close(timeout)

    def counts(self) -> dict[str, int]:
        """Give the counters, and how many calls are pending."""
        return {**_COUNTERS, **self._transport.stats, **self.stats, "pending": len(self._pending)}

    def _forget_failure(self) -> None:
        self._failure, self._gave_up = None, False

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed("the client is closed; make a new one")

    def _check_process(self) -> None:
        # Before any lock: a lock that another thread held at the fork stays locked in the child.
        process = _process
        if self._pid is None:
            # At the first use: a client that was only made before a fork serves both sides.
            self._pid = process
        elif self._pid != process:
            raise ClientClosed(
                f"this client belongs to process {self._pid}, which forked this one: a connection cannot be shared. "
                "Make a client in each process"
            )

    # -- sending; with the lock held --------------------------------------------------------------------

    def _address(self, service: str, token: str) -> _Address:
        client, reply_to = client_word(self._user, token), self._reply_to
        if self._by_queue:
            queue = request_queue(check_service(service)) if self._queue is None else self._queue
            return QueueAddress(queue, client, reply_to, self._user)
        return Address(self._exchange, service, client, reply_to, self._user)

    def _send_or_park(self, call: Call) -> JsonRpcAmqpError | None:
        session = self._session
        if session is None or session.congested:
            self._parked.append(call)
        elif self._reply == "topic" and call.service not in self._bound and not call.extra.unanswered:
            self._parked.append(call)
            if call.service not in self._binding:
                self._bind(session, call.service)
        else:
            return self._send(session, call)
        return None

    def _send(self, session: Session, call: Call) -> JsonRpcAmqpError | None:
        """Hand a call to the session. Gives the error that ends it, if any."""
        address = self._addresses.get(call.service)
        if address is None:
            address = self._addresses[call.service] = self._address(call.service, self._token)
        try:
            message = self._message(address, call)
            if self._dialect is not None:
                message = self._dialect.request(address, call.number, message)
            if self._confirm or call.extra.unanswered or call.extra.persistent:
                call.sent = session.publish_confirmed(message, partial(self._confirmed, call))
            else:
                call.sent = session.publish(message)
        except CallTimeout as exc:
            self._pending.pop(call.number)
            return exc
        except Exception as exc:
            self._pending.pop(call.number)
            return EncodeError(f"AMQP has no form for the message: {exc}")
        if not call.sent:
            self._parked.append(call)  # the session just ended; there will be another
        return None

    @staticmethod
    def _message(address: _Address, call: Call) -> Publish:
        if call.extra.unanswered:
            return notification_message(
                address,
                call.body,
                message_id=f"{address.client}-{call.number}",
                persistent=call.extra.persistent,
                headers=call.extra.headers,
            )
        deadline = None if call.timeout is None else call.deadline
        return call_message(
            address,
            call.body,
            number=call.number,
            qid=call.qid,
            deadline=deadline,
            now=time.monotonic(),
            persistent=call.extra.persistent,
            headers=call.extra.headers,
        )

    def _bind(self, session: Session, service: str) -> None:
        self._binding.add(service)
        session.bind(self._reply_binding(service), partial(self._on_bound, session, service))

    def _reply_binding(self, service: str) -> str:
        return reply_binding(service, client_word(self._user, self._token))

    def _forget_ended(self) -> None:
        # Without this, the calls of an outage would pile up until its end.
        self._parked = [call for call in self._parked if call.number in self._pending]

    def _send_parked(self, session: Session) -> list[tuple[Call, JsonRpcAmqpError]]:
        parked, self._parked = self._parked, []
        refused = []
        for call in parked:
            if self._is_wanted(call):
                error = self._send_or_park(call)
                if error is not None:
                    refused.append((call, error))
        return refused

    # -- told by the owner of the connection ------------------------------------------------------------

    def plan(self) -> Plan:
        """A token of its own for each connection, so that no two clients ever await the same keys."""
        with self._lock:
            self._token = new_token()
            self._bound = set(self._services) if self._reply == "topic" else set()
            self._binding.clear()
            return Plan(
                exchange=self._exchange,
                declare=self._declare,
                reply_queue="direct" if self._reply == "direct" else "exclusive",
                bindings=tuple(map(self._reply_binding, self._bound)),
                confirm=self._confirm,
            )

    def on_open(self, session: Session) -> None:
        with self._lock:
            self._session = session
            if self._reply == "queue":
                self._reply_to = session.reply_queue
            self._addresses.clear()
            self._redeclare_at = time.monotonic() + _REDECLARE_SECONDS
            self._failure = None
            self._facts.clear()
            refused = self._send_parked(session)
            self._changed.notify_all()
        self._fail(refused)
        session.flush()

    def on_failed(self, error: TransportError, retry_in: float | None) -> None:
        again = "" if retry_in is None else f"; next attempt in {retry_in:.1f} s"
        log.warning("%s%s", error, again)
        with self._lock:
            self._failure = error
            self._gave_up = retry_in is None
            calls = [] if retry_in is not None else self._pending.take(lambda _call: True)
            if retry_in is None:
                self._parked.clear()
            self._changed.notify_all()
        self._fail([(call, error.again()) for call in calls])

    def on_lost(self, session: Session, error: TransportError) -> None:
        with self._lock:
            if self._session is not session:
                return
            self._session = None
            lost = self._pending.take(lambda call: call.sent)
            self.stats["connections_lost"] += 1
            closed = self._closed
        if not closed:
            log.warning("%s; %d calls in flight end with ConnectionLost", error, len(lost))
        self._fail([(call, _lost(call, error)) for call in lost])

    def on_deliveries(self, session: Session, deliveries: list[Delivery]) -> None:
        if self._dialect is not None:
            for delivery in deliveries:
                delivery.correlation_id = self._dialect.number(delivery)
        with self._lock:
            flaws = [(delivery, flaw) for delivery in deliveries if (flaw := self._flaw(delivery)) is not None]
            if flaws:
                rejected = {id(delivery) for delivery, _flaw in flaws}
                deliveries = [delivery for delivery in deliveries if id(delivery) not in rejected]
            paired = [(self._pending.pop(delivery.correlation_id), delivery) for delivery in deliveries]
        for call, delivery in paired:
            if call is None:
                self._drop(delivery)
            elif not call.has_callbacks:
                self._answer(call, delivery)
        for delivery, flaw in flaws:
            self._reject(delivery, flaw)
        # Those whose callbacks may take their time come last.
        for call, delivery in paired:
            if call is not None and call.has_callbacks:
                self._answer(call, delivery)

    def on_returned(self, session: Session, returned: Returned) -> None:
        self._end(returned.correlation_id, unroutable(returned))

    def awaits(self, message: Publish) -> bool:
        with self._lock:
            return message.correlation_id in self._pending

    def on_rejected(self, session: Session, error: TransportError, message: Publish) -> None:
        self._end(message.correlation_id, error)

    def on_congested(self, session: Session, congested: bool) -> None:
        if congested:
            return
        with self._lock:
            refused = self._send_parked(session)
        self._fail(refused)
        session.flush()

    def on_tick(self, now: float) -> float | None:
        with self._lock:
            near, expired = self._pending.due(now)
            if expired:
                self._forget_ended()
            session = self._session
            refused = self._send_due(now)
            alarm = self._next_alarm()
            redeclare = (
                session is not None and self._reply == "topic" and now >= self._redeclare_at and len(self._pending) > 0
            )
            if now >= self._redeclare_at:
                self._redeclare_at = now + _REDECLARE_SECONDS
            if alarm < math.inf:
                alarm = min(alarm, self._redeclare_at)
            self._next_tick = alarm
        self._fail(refused)
        self._fail((call, self._expired(call)) for call in expired)
        if session is not None:
            if redeclare:
                session.redeclare()
            for service in {call.service for call in near if call.sent and not call.extra.unanswered}:
                self._look_at_queue(session, service, now)
        return None if alarm == math.inf else alarm

    def _on_bound(self, session: Session, service: str, error: TransportError | None) -> None:
        with self._lock:
            if self._session is not session:
                return
            self._binding.discard(service)
            if error is None:
                self._bound.add(service)
                refused = self._send_parked(session)
            else:
                calls = self._pending.take(lambda call: call.service == service and not call.sent)
                refused = [(call, error.again()) for call in calls]
        self._fail(refused)
        session.flush()

    def _confirmed(self, call: Call, error: TransportError | None) -> None:
        if error is None and not call.extra.unanswered:
            return  # the broker has it; the answer is still to come
        with self._lock:
            mine = self._pending.pop(call.number)
        if mine is None:
            return
        if error is None:
            mine.answer(b"")
        else:
            self._tell(mine, error)

    def _end(self, number: str | None, error: TransportError) -> None:
        with self._lock:
            call = self._pending.pop(number)
        if call is not None:
            self._tell(call, error)

    def _fail(self, refused: Iterable[tuple[Call, JsonRpcAmqpError]]) -> None:
        # Those whose callbacks may take their time come last.
        for call, error in sorted(refused, key=lambda each: each[0].has_callbacks):
            self._tell(call, error)

    def _tell(self, call: Call, error: JsonRpcAmqpError) -> None:
        """End a call, which is pending no more, with an error, unless it is to be tried again."""
        if not self._retry_later(call, error):
            call.fail(call.with_attempts(error))

    def _answer(self, call: Call, delivery: Delivery) -> None:
        if delivery.body is None:
            call.fail(MalformedReply(f"the answer of {call.service!r} has {delivery.size} bytes, over the size cap"))
        elif self._dialect is None:
            call.answer(delivery.body)
        else:
            self._answer_of_dialect(self._dialect, call, delivery.body)

    @staticmethod
    def _answer_of_dialect(dialect: ClientDialect, call: Call, body: bytes) -> None:
        try:
            answer = dialect.response(call.body, body)
        except Exception as exc:
            call.fail(MalformedReply(f"the answer of {call.service!r} makes no sense: {exc}"))
        else:
            call.answer(answer)

    def _flaw(self, delivery: Delivery) -> str | None:
        """Say why a message is not the answer to the call whose number it has. With the lock held."""
        call = self._pending.get(delivery.correlation_id)
        if call is None:
            return None  # nobody's answer
        if call.extra.unanswered or not call.sent:
            return "nothing was asked under this number"
        if self._reply_to is None:
            address = self._addresses[call.service]
            assert isinstance(address, Address)
            qid = call.qid if self._dialect is None else call.number
            return self._answers.mismatch(delivery, address.reply_key + qid)
        return self._answers.mismatch(delivery, self._reply_to)

    def _reject(self, delivery: Delivery, flaw: str) -> None:
        self._last_flaw = flaw
        self.stats["rejected_replies"] += 1
        log.warning(
            "rejected an answer (correlation_id %s): %s; its call goes on waiting",
            printable(delivery.correlation_id or ""),
            flaw,
        )

    def _drop(self, delivery: Delivery) -> None:
        self.stats["dropped_replies"] += 1
        log.info(
            "dropped an answer that nobody awaits any more (correlation_id %s)",
            printable(delivery.correlation_id or ""),
        )

    # -- retries ----------------------------------------------------------------------------------------

    def _retry_later(self, call: Call, error: JsonRpcAmqpError) -> bool:
        if not call.may_retry(error):
            return False
        delay = min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(call.failures, 10)) * random.uniform(0.5, 1)
        due = time.monotonic() + delay
        with self._lock:
            if self._closed or self._gave_up or due + _LEAST_FOR_RETRY > call.deadline:
                return False
            call.note_failure(error)
            call.number = str(next(self._correlations))
            self._pending.add(call)
            heapq.heappush(self._retries, (due, call.number))
            self.stats["retries"] += 1
        self._transport.wake()
        return True

    def _send_due(self, now: float) -> list[tuple[Call, JsonRpcAmqpError]]:
        refused = []
        while self._retries and self._retries[0][0] <= now:
            call = self._pending.get(heapq.heappop(self._retries)[1])
            error = self._send_or_park(call) if call is not None and self._is_wanted(call) else None
            if call is not None and error is not None:
                refused.append((call, error))
        return refused

    def _is_wanted(self, call: Call) -> bool:
        if call.is_cancelled:
            self._pending.pop(call.number)
        return call.number in self._pending

    def _next_alarm(self) -> float:
        return min(self._pending.next_alarm, self._retries[0][0] if self._retries else math.inf)

    # -- deadlines --------------------------------------------------------------------------------------

    def _look_at_queue(self, session: Session, service: str, now: float) -> None:
        known = self._facts.get(service)
        if known is None or now - known[0] > _FACTS_SECONDS:
            queue = self._queue or request_queue(service)
            session.inspect(queue, lambda facts: self._facts.update({service: (time.monotonic(), facts)}))

    def _expired(self, call: Call) -> TransportError:
        self.stats["timeouts"] += 1
        session, service = self._session, call.service
        within = _within(call.timeout)
        if not call.sent:
            if session is None:
                return self._not_connected(call.timeout)
            if session.congested:
                return Blocked(f"the broker took no messages{within} (a memory or disk alarm?); nothing was sent")
            return CallTimeout(f"{service!r} could not be called{within}; nothing was sent", may_have_run=False)
        if call.extra.unanswered:
            return CallTimeout(f"the broker did not confirm the notification for {service!r}{within}")
        hint = "" if self._dialect is None else ". Is it a server that speaks this dialect?"
        if self._last_flaw is not None:
            hint += f". {self.stats['rejected_replies']} answers were rejected so far; of the last: {self._last_flaw}"
        return CallTimeout(f"no answer from {service!r}{within}: {self._why(service)}{hint}")

    def _why(self, service: str) -> str:
        queue = self._queue or request_queue(service)
        known = self._facts.get(service)
        if known is None:
            return "the method may have run, or may still"
        facts = known[1]
        if facts is None:
            return f"there is no queue {queue!r} now; the method may have run, where its servers use another"
        counts = f"queue {queue!r} has {_many(facts.consumers, 'consumer')}, {_many(facts.messages, 'message')} waiting"
        if facts.consumers == 0:
            return f"{counts}: no server is running"
        return f"{counts}: the method may have run, or may still"

    def _not_connected(self, timeout: float | None) -> NotConnected:
        last = "" if self._failure is None else f"; the last attempt: {self._failure}"
        return NotConnected(f"no connection to the broker{_within(timeout)}{last}. Nothing was sent")


def _within(timeout: float | None) -> str:
    return "" if timeout is None else f" within {timeout:.3g} s"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _lost(call: Call, error: TransportError) -> TransportError:
    what = "the broker may have taken it" if call.extra.unanswered else "the method may have run"
    return ConnectionLost(f"{error}; {what}")
