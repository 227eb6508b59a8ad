"""Which broker of a list to try next, and when (pure)."""

from __future__ import annotations

import random
from collections.abc import Callable

# Seconds. Service is back within 3 s of the broker's return.
LONGEST = 2.0
SHORTEST = 0.1
# A connection that lived for this many seconds was a good one.
STABLE = 5.0


class BackOff:
    """
    The attempts to connect to one of several brokers.

    Args:
        brokers: How many there are.
        uniform: Returns a random number between two.
    """

    def __init__(self, brokers: int, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._brokers = brokers
        self._uniform = uniform
        self._attempts = 0

    def reset(self) -> None:
        """Begin with the first broker."""
        self._attempts = 0

    def next_broker(self) -> int:
        """Return the position of the broker to try now, and count the attempt."""
        position = self._attempts % self._brokers
        self._attempts += 1
        return position

    @property
    def was_each_tried(self) -> bool:
        """Whether each broker was tried as often as the others."""
        return self._attempts % self._brokers == 0

    def delay(self) -> float:
        """Return the seconds to wait after a failed attempt: none until each broker was tried."""
        return self.pause() if self.was_each_tried else 0.0

    def pause(self) -> float:
        """Return seconds that double with each round of attempts."""
        rounds = self._attempts // self._brokers
        return min(LONGEST, SHORTEST * 2.0 ** min(rounds, 10)) * self._uniform(0.5, 1.0)

    def delay_after_loss(self, lived: float) -> float:
        """Return the seconds to wait after a connection was lost that had lived for some."""
        if lived < STABLE:
            # Whatever ends each connection soon must not be repeated without a pause.
            return self.delay()
        self._attempts = 0
        # At once, but not all clients of a broker in the same moment.
        return self._uniform(0, SHORTEST)
