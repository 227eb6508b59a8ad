"""When a connection was last heard, and when to send a heartbeat (pure). AMQP 0-9-1, section 4.2.7."""

from __future__ import annotations

import math


class Heartbeat:
    """
    The heartbeats of one session.

    Args:
        interval: Seconds, as agreed with the broker; 0: none.
        now: Monotonic seconds.

    Attributes:
        last_read: When the broker was last heard, in monotonic seconds.
        last_write: When something was last written.
        patience: Seconds of silence after which the peer counts as dead; infinite without heartbeats.
    """

    __slots__ = ("interval", "last_read", "last_write", "patience")

    def __init__(self, interval: float, now: float) -> None:
        self.interval = interval
        self.last_read = self.last_write = now
        self.patience = 2 * interval or math.inf

    def is_silent(self, now: float) -> bool:
        """Return whether the broker was silent for so long that it has given the connection up, too."""
        return now - self.last_read > self.patience

    def is_due(self, now: float) -> bool:
        """Return whether it is time to send one."""
        return bool(self.interval) and now - self.last_write >= self.interval / 2

    def next_event(self) -> float:
        """Return when one of the two answers changes, in monotonic seconds; infinite for never."""
        if not self.interval:
            return math.inf
        # A little later: at the very moment the peer does not count as silent yet.
        return min(self.last_write + self.interval / 2, self.last_read + self.patience + 0.01)
