"""
When a connection was last heard, when to send a heartbeat, and whether this process itself stood still (pure, but for
``suspended_seconds``). AMQP 0-9-1, section 4.2.7.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

# In intervals. The leader is back at least twice in each, so the broker may have missed two heartbeats of a leader that
# is late by this much.
_STALL = 1.5


def suspended_seconds() -> float:
    """Return for how many seconds this machine was suspended since its start, or a little less; 0 if not known."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    # In this order: a pause between the two makes it less.
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return since_boot - time.monotonic()


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

    __slots__ = ("_next_turn", "_stall", "_stall_ended", "interval", "last_read", "last_write", "patience")

    def __init__(self, interval: float, now: float) -> None:
        self.interval = interval
        self.last_read = self.last_write = now
        self.patience = 2 * interval or math.inf
        self._next_turn = math.inf  # the leader is back by then
        self._stall = 0.0
        self._stall_ended = -math.inf

    def is_silent(self, now: float) -> bool:
        """Return whether nothing of the broker was read for so long that it has given the connection up, too."""
        return now - self.last_read > self.patience

    def is_late(self, now: float) -> bool:
        """Return whether nothing of the broker was read for an interval, in which it sends two heartbeats."""
        return 0 < self.interval < now - self.last_read

    def is_due(self, now: float) -> bool:
        """Return whether it is time to send one."""
        return bool(self.interval) and now - self.last_write >= self.interval / 2

    def next_event(self) -> float:
        """Return when one of the two answers changes, in monotonic seconds; infinite for never."""
        if not self.interval:
            return math.inf
        # A little later: at the very moment the peer does not count as silent yet.
        return min(self.last_write + self.interval / 2, self.last_read + self.patience + 0.01)

    # -- the absence of this process ------------------------------------------------------------------

    def begin_turn(self, now: float) -> float:
        """Note that the leader is back; return for how many seconds it was kept from that, if it missed heartbeats."""
        stall = self._lateness(now)
        if stall:
            self._stall, self._stall_ended, self._next_turn = stall, now, now
        return stall

    def end_turn(self) -> None:
        """Note that the leader has done what was due."""
        self._next_turn = self.next_event()

    def stall(self, now: float) -> float:
        """Return for how many seconds this process stood still until just now, if it missed heartbeats; else 0."""
        return self._lateness(now) or (self._stall if now - self._stall_ended <= self.patience else 0.0)

    def note_suspension(self, seconds: float) -> None:
        """Note that the machine was suspended, since the monotonic clock does not count that."""
        self.last_read -= seconds
        self.last_write -= seconds
        self._next_turn -= seconds

    def explain(self, end: str, now: float) -> str:
        """Return the end of the connection as a sentence, behind what this process did to bring it about."""
        stall = self.stall(now)
        if not stall:
            return end
        return f"this process or its I/O thread stood still for {stall:.1f} s, and missed its heartbeats; {end}"

    def silence(self, where: str, now: float) -> str:
        """Return the end of a connection to a broker that is silent as a sentence."""
        end = (
            f"the broker at {where} was silent for {now - self.last_read:.1f} s (two heartbeats of {self.interval:g} s)"
        )
        return self.explain(end, now)

    def _lateness(self, now: float) -> float:
        late = now - self._next_turn
        return late if self.interval and late > _STALL * self.interval else 0.0


class Suspensions:
    """
    For how long the machine was suspended, which the monotonic clock does not count.

    Args:
        total: Returns the seconds since the start of the machine, or a little less.
    """

    # Seconds. Less is the inaccuracy of clocks.
    _LEAST = 0.5

    def __init__(self, total: Callable[[], float] = suspended_seconds) -> None:
        self._total = total
        self._before = total()

    def since_last(self) -> float:
        """Return the seconds since the last time that this was called."""
        total, before = self._total(), self._before
        if total < before + self._LEAST:
            return 0.0
        self._before = total
        return total - before
