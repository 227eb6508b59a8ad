"""When a call that failed is sent again (pure)."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator

from ..errors import JsonRpcAmqpError
from .call import Call
from .pending import Pending

# Seconds. Doubled with each attempt; a random part of it, half at least, is waited, so that not all clients come back
# at once. No more than half of the time that is left is waited: the reply needs some as well, and attempts go on until
# shortly before the deadline.
FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
# With less time left than this an attempt would probably end as a timeout, which says less than the error before it.
LEAST_SECONDS = 0.1


class Retries:
    """
    The calls that wait for their next attempt. The lock of the requests guards it.

    Args:
        pending: A call that waits is pending, under a new number.
        numbers: Numbers calls.
        uniform: Returns a random number between two.
    """

    def __init__(
        self,
        pending: Pending,
        numbers: Iterator[int],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._pending = pending
        self._numbers = numbers
        self._uniform = uniform
        self._due: list[tuple[float, str]] = []  # when, number: a heap

    @property
    def next_alarm(self) -> float:
        """When ``due`` has something to return, in monotonic seconds; infinite for never."""
        return self._due[0][0] if self._due else math.inf

    def delay(self, failures: int, deadline: float, now: float) -> float | None:
        """Return the seconds until the next attempt, after so many failures; None: there is no time for it."""
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures, 10)) * self._uniform(0.5, 1)
        delay = max(0.0, min(delay, (deadline - now) / 2))
        return None if now + delay + LEAST_SECONDS > deadline else delay

    def schedule(self, call: Call, error: JsonRpcAmqpError, now: float) -> bool:
        """Have a call sent again that failed. False: its deadline leaves no time for that."""
        delay = self.delay(call.failures, call.deadline, now)
        if delay is None:
            return False
        call.note_failure(error)
        call.sent = False
        call.number = str(next(self._numbers))
        self._pending.add(call)
        heapq.heappush(self._due, (now + delay, call.number))
        return True

    def due(self, now: float) -> tuple[list[Call], list[Call]]:
        """Return the calls to send now; remove and return those for which it is too late, on a busy machine say."""
        calls, too_late = [], []
        while self._due and self._due[0][0] <= now:
            call = self._pending.get(heapq.heappop(self._due)[1])
            if call is None:
                continue
            if call.deadline - now >= LEAST_SECONDS:
                calls.append(call)
            else:
                self._pending.pop(call.number)
                too_late.append(call)
        return calls, too_late
