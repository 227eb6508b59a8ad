"""What the broker says of the queues of services: how many consumers and ready messages they have (pure)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..amqp.base import QueueFacts, Session
from ..errors import TransportError

# Seconds. What is known of a queue serves all calls that need it within this time, so that a client with many calls
# asks a few times a second at most.
SHARED_SECONDS = 0.25


@dataclass(slots=True)
class Inspection:
    """
    What is known of one queue.

    Attributes:
        asked_at: When the broker was asked last, in monotonic seconds.
        facts: Its last reply; None: there is none yet.
        replied_at: When that came.
    """

    asked_at: float
    facts: QueueFacts | TransportError | None = None
    replied_at: float = -math.inf


class Inspections:
    """
    Inspects the queues of services (passive ``queue.declare``), and keeps the last reply for each.

    Args:
        queue_of: Returns the name of a service's request queue.
        clock: Monotonic seconds.
    """

    def __init__(self, queue_of: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self.queue_of = queue_of
        self._clock = clock
        self._inspections: dict[str, Inspection] = {}

    def reset(self) -> None:
        """Forget what is known of all queues."""
        self._inspections.clear()

    def of(self, service: str) -> Inspection | None:
        """Return what is known of the queue of a service; None: the broker was not asked."""
        return self._inspections.get(service)

    def refresh(self, session: Session, service: str) -> None:
        """Ask about the queue of a service, unless that was just done."""
        inspection = self._inspections.get(service)
        if inspection is None or self._clock() - inspection.asked_at > SHARED_SECONDS:
            self.ask(session, service)

    def ask(self, session: Session, service: str, on_reply: Callable[[], None] = lambda: None) -> None:
        """Ask about the queue of a service; ``on_reply`` is called once the reply is kept."""
        now = self._clock()
        inspection = self._inspections.setdefault(service, Inspection(now))
        inspection.asked_at = now

        def found(facts: QueueFacts | TransportError) -> None:
            inspection.facts, inspection.replied_at = facts, self._clock()
            on_reply()

        session.inspect(self.queue_of(service), found)
