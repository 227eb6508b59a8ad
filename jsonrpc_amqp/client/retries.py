"""When a call that failed is sent again (pure)."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

from .call import Call

# Seconds. Doubled with each attempt; a random part of it, half at least, is waited, so that not all clients come back
# at once.
FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
# With less time left than this an attempt would probably end as a timeout, which says less than the error before it.
LEAST_SECONDS = 0.1


class Retries:
    """
    The calls that wait for their next attempt, by number. The lock of the requests guards it.

    Args:
        uniform: Returns a random number between two.
    """

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._due: list[tuple[float, str]] = []

    @property
    def next_alarm(self) -> float:
        """When ``due`` has something to return, in monotonic seconds; infinite for never."""
        return self._due[0][0] if self._due else math.inf

    def time_of(self, call: Call, now: float) -> float | None:
        """Return when to send a call again that has just failed; None: its deadline leaves no time for that."""
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(call.failures, 10)) * self._uniform(0.5, 1)
        due = now + delay
        return None if due + LEAST_SECONDS > call.deadline else due

    def add(self, due: float, number: str) -> None:
        """Add an attempt."""
        heapq.heappush(self._due, (due, number))

    def due(self, now: float) -> list[str]:
        """Remove and return the numbers of the calls to send now."""
        numbers = []
        while self._due and self._due[0][0] <= now:
            numbers.append(heapq.heappop(self._due)[1])
        return numbers
