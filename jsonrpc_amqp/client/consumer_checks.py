"""Whether a call is sent that is to fail where its queue has no consumers: ``no_consumers="fail"`` (pure)."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial

from ..amqp.base import QueueFacts, Session
from ..errors import NoConsumers
from .inspections import Inspections

log = logging.getLogger("jsonrpc_amqp.client")

# Seconds. So long a reply serves that named consumers: calls are sent to a server that went away meanwhile. While calls
# are made, there is a newer one each quarter of a second, so that none has to wait for it.
FRESH_SECONDS = 1.0
# Calls wait so long for a reply; then they are sent without it.
PATIENCE_SECONDS = 0.5
# A broker that cannot say how many consumers there are (no permission, no such queue, no reply) is asked again after
# this time: each refusal costs a channel, and a line in the log of the broker.
UNKNOWN_SECONDS = 10.0


class ConsumerChecks:
    """
    Knows for which services the broker has seen consumers. The lock of the requests guards it.

    A reply that there are none serves only the calls that waited for it: the next call asks again, so that a server
    that has just started is called at once.

    Args:
        inspections: Ask the broker.
        clock: Monotonic seconds.
    """

    def __init__(self, inspections: Inspections, clock: Callable[[], float] = time.monotonic) -> None:
        self._inspections = inspections
        self._clock = clock
        self._awaited: dict[str, float] = {}  # by service: until when calls wait for the reply
        self._unknown: dict[str, float] = {}  # by service: until when calls are sent without one
        self._warned: set[str] = set()
        self._warnings: list[tuple[str, object]] = []

    @property
    def next_alarm(self) -> float:
        """When ``overdue`` has something to return, in monotonic seconds; infinite for never."""
        return min(self._awaited.values(), default=math.inf)

    def reset(self) -> None:
        """Begin anew: the connection is lost."""
        self._awaited.clear()
        self._unknown.clear()

    def may_send(self, session: Session, service: str, on_reply: Callable[[Session, str], None]) -> bool:
        """
        Return whether a call may be sent now. False: it is to wait for ``on_reply``, or until it is ``overdue``.

        Args:
            on_reply: Called, not at once, with session and service, if it asks the broker; to ``conclude``.
        """
        now, inspection = self._clock(), self._inspections.of(service)
        if now < self._unknown.get(service, -math.inf):
            return True
        if inspection is not None and now - inspection.replied_at <= FRESH_SECONDS:
            facts = inspection.facts
            if isinstance(facts, QueueFacts) and facts.consumers > 0:
                self._inspections.refresh(session, service)
                return True
        if service not in self._awaited:
            self._awaited[service] = now + PATIENCE_SECONDS
            self._inspections.ask(session, service, partial(on_reply, session, service))
        return False

    def conclude(self, service: str) -> NoConsumers | None:
        """Take note of a reply; return the error of the calls that waited for it, None where they are to be sent."""
        self._awaited.pop(service, None)
        inspection = self._inspections.of(service)
        facts = None if inspection is None else inspection.facts
        if not isinstance(facts, QueueFacts):
            self._note_unknown(service, facts)
            return None
        self._unknown.pop(service, None)
        return no_consumers(service, self._inspections.queue_of(service)) if facts.consumers == 0 else None

    def overdue(self, now: float) -> list[str]:
        """Return the services whose calls are to wait no longer for the reply."""
        late = [service for service, until in list(self._awaited.items()) if until <= now]
        for service in late:
            self._awaited.pop(service, None)
            self._note_unknown(service, f"the broker did not say within {PATIENCE_SECONDS:g} s")
        return late

    def log_warnings(self) -> None:
        """Log what was noted. Without the lock held: a log handler may take its time, or wait for a call."""
        warnings, self._warnings = self._warnings, []
        for service, why in warnings:
            log.warning(
                "how many consumers queue %r has is not known (%s): while this is so, calls of %r are sent as with "
                'no_consumers="wait"; this is logged once',
                self._inspections.queue_of(service),
                why,
                service,
            )

    def _note_unknown(self, service: str, why: object) -> None:
        self._unknown[service] = self._clock() + UNKNOWN_SECONDS
        if service not in self._warned:
            self._warned.add(service)
            self._warnings.append((service, why))


def no_consumers(service: str, queue: str) -> NoConsumers:
    """Return the error of a call whose queue has no consumers."""
    return NoConsumers(
        f"no server of {service!r} is there: queue {queue!r} has no consumers. The call was not sent, so the method "
        'did not run. Start a server, check the name, or have calls wait for one (retry="safe" or no_consumers="wait")'
    )
