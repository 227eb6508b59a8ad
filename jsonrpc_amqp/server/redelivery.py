"""Requests that were redelivered: which runs next, and how many may run at a time."""

from __future__ import annotations

import random
import threading

from .job import Job

# A redelivered request that has run for this long is unlikely to be the one that killed its server.
_LONG_SECONDS = 5.0


class RedeliveredRequests:
    """
    The requests that the broker redelivered, of which one runs at first, and one more for each that ends.

    One of them may have killed the server that had it. If all of them began at once, all would be redelivered once
    more, and all would reach the delivery limit with it; so some of them get through each time, whichever is to blame.
    A request that runs for long is no longer waited for: one that kills its server mostly does so soon, and a handler
    that hangs must not hold up the others.

    Each method that returns a number returns how many handlers may call ``take`` now, besides those that may already.

    The lock guards all attributes. It is a leaf: no other lock is taken while it is held.

    Args:
        limit: How many may run at a time in the end.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._running: dict[Job, float] = {}  # with the time that each began at
        self._width = 1  # how many may run at a time now
        self._granted = 0  # calls of ``take`` to come

    def add(self, job: Job, now: float) -> int:
        """Add one that has not begun."""
        with self._lock:
            self._jobs.append(job)
            return self._grant(now)

    def take(self, now: float) -> Job | None:
        """Begin one of those that were redelivered least often; None: there is none left."""
        with self._lock:
            self._granted = max(0, self._granted - 1)
            if not self._jobs:
                return None
            position = min(range(len(self._jobs)), key=lambda each: (self._jobs[each].redeliveries, random.random()))
            job = self._jobs.pop(position)
            self._running[job] = now
            return job

    def end(self, job: Job, now: float) -> int:
        """Note that one has ended, and that this process survived it."""
        with self._lock:
            del self._running[job]
            self._width = min(self._width + 1, self._limit) if self._jobs or self._running else 1
            return self._grant(now)

    def skip_long(self, now: float) -> int:
        """No longer wait for those that run for long."""
        if not self._jobs:
            return 0
        with self._lock:
            return self._grant(now)

    def take_all(self) -> list[Job]:
        """Remove and return all that have not begun."""
        with self._lock:
            jobs, self._jobs = self._jobs, []
            self._granted = 0
            return jobs

    def _grant(self, now: float) -> int:
        long_ago = now - _LONG_SECONDS
        running = sum(began > long_ago for began in self._running.values())
        count = max(0, min(len(self._jobs), self._width - running) - self._granted)
        self._granted += count
        return count
