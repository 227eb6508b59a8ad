"""What the error of a call says that reached its deadline: whether it was sent, and how its queue looks (pure)."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..amqp.base import Session
from ..errors import Blocked, CallTimeout, NotConnected, TopologyMismatch, TransportError
from .call import Call
from .inspections import Inspections

# Seconds. Older facts are not reported. It is a little more than the time between an inspection and the deadline of its
# call.
_FRESH_SECONDS = 3.0
# A call that ends later than this after its deadline: neither its thread nor the leader ran.
_LATE_SECONDS = 1.0
_MAY_HAVE_RUN = "the method may have run, or may still"
# RabbitMQ reports an alarm to a connection only once that has published.
_BLOCKED = "the broker takes no messages now (a memory or disk alarm?), and may not have read this one yet"


class TimeoutReports:
    """
    Makes the errors of calls that reach their deadline.

    Args:
        inspections: What the broker said of their queues; they are asked for as the calls near their deadline.
        clock: Monotonic seconds.
    """

    def __init__(self, inspections: Inspections, clock: Callable[[], float] = time.monotonic) -> None:
        self._inspections = inspections
        self._clock = clock

    def error(
        self, call: Call, session: Session | None, last_failure: TransportError | None, hint: str
    ) -> TransportError:
        """
        Return the error of a call that reached its deadline.

        Args:
            session: The one that the client has now.
            last_failure: Of the last attempt to connect.
            hint: What is known besides, as the end of a sentence.
        """
        hint += self._lateness(call)
        service, within = call.service, within_text(call.timeout)
        if not call.sent:
            if session is None:
                return not_connected(call.timeout, last_failure)
            if session.congested:
                return Blocked(f"the broker took no messages{within} (a memory or disk alarm?); nothing was sent")
            return CallTimeout(f"{service!r} could not be called{within}; nothing was sent", may_have_run=False)
        if call.send_options.is_notification:
            blocked = f": {_BLOCKED}" if _is_congested(session) else ""
            return CallTimeout(f"the broker did not confirm the notification for {service!r}{within}{blocked}")
        return CallTimeout(f"no answer from {service!r}{within}: {self._state_of_queue(service, session)}{hint}")

    def _lateness(self, call: Call) -> str:
        late = self._clock() - call.deadline
        if late < _LATE_SECONDS:
            return ""
        return f". This process or its threads stood still: the call ends {late:.1f} s after its deadline"

    def _state_of_queue(self, service: str, session: Session | None) -> str:
        queue, inspection = self._inspections.queue_of(service), self._inspections.of(service)
        if inspection is None:
            return _MAY_HAVE_RUN
        facts = inspection.facts
        if facts is None or self._clock() - inspection.replied_at > _FRESH_SECONDS:
            if _is_congested(session):
                return f"{_BLOCKED}; {_MAY_HAVE_RUN}"
            return f"the broker did not say in time how many consumers queue {queue!r} has; {_MAY_HAVE_RUN}"
        if isinstance(facts, TopologyMismatch):
            return f"there is no queue {queue!r} now; the method may have run, where its servers use another"
        if isinstance(facts, TransportError):
            return f"how many consumers queue {queue!r} has is not known ({facts}); {_MAY_HAVE_RUN}"
        consumers, messages = _many(facts.consumers, "consumer"), _many(facts.messages, "message")
        counts = f"queue {queue!r} has {consumers} and {messages} ready"
        if facts.consumers == 0:
            return f"{counts}: no server consumes from it now"
        return f"{counts} (servers may hold more, received and not begun): {_MAY_HAVE_RUN}"


def _is_congested(session: Session | None) -> bool:
    return session is not None and session.congested


def not_connected(timeout: float | None, last_failure: TransportError | None) -> NotConnected:
    """Return the error of what waited for a connection."""
    last = "" if last_failure is None else f"; the last attempt: {last_failure}"
    return NotConnected(f"no connection to the broker{within_text(timeout)}{last}. Nothing was sent")


def within_text(timeout: float | None) -> str:
    """Return a timeout as a part of a sentence."""
    return "" if timeout is None else f" within {timeout:.3g} s"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
