"""What a server counts; ``Server.stats`` says what each name means."""

from __future__ import annotations

import threading

_NAMES = (
    "received",
    "answered",
    "failed",
    "expired",
    "redelivered",
    "isolated",
    "dead_lettered",
    "malformed",
    "refused",
    "dropped_replies",
    "abandoned",
)


class Counters:
    """
    The counters of one server, for any number of threads.

    The lock guards the numbers alone. It is a leaf: no other lock is taken while it is held.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(_NAMES, 0)

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._counts[name] += count

    def snapshot(self) -> dict[str, int]:
        """Return a copy of all counters."""
        with self._lock:
            return dict(self._counts)
