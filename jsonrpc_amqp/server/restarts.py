"""When a supervisor starts the next process of a worker (pure)."""

from __future__ import annotations

# Seconds. A worker that ends before it has served doubles the delay: one that cannot live must not keep the machine
# busy.
FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
# Seconds from one start to the next of a worker that has served. It is missed, and what ended it may have been a single
# request, so the next one starts at once; but a worker that ends as soon as it serves must not be started in a loop
# without a pause.
SHORTEST_INTERVAL = 0.1


class Restarts:
    """
    The starts and ends of the processes of one worker, one after the other.

    Attributes:
        due: Monotonic time of the next start.
        has_served: Whether the latest process has served.
    """

    def __init__(self) -> None:
        self.due = 0.0
        self.has_served = False
        self._started = 0.0
        self._failures = 0  # in a row, of processes that ended before they had served

    def start(self, now: float) -> None:
        """Note a start, or the attempt."""
        self._started = now
        self.has_served = False

    def serve(self) -> None:
        """Note that the process serves."""
        self.has_served = True
        self._failures = 0

    def end(self, now: float) -> float:
        """Note the end of the process, and return the seconds until the next start."""
        if self.has_served:
            delay = max(0.0, self._started + SHORTEST_INTERVAL - now)
        else:
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures, 10))
            self._failures += 1
        self.due = now + delay
        return delay
