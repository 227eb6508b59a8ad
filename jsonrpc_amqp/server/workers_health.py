"""Whether the workers of a supervisor can serve, as they tell it every second."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..wire.health import Health
from .worker import NOT_ALIVE, NOT_READY, READY, TELL_SECONDS

# Seconds. A worker that has told nothing for so long stands still.
_FRESH = 3 * TELL_SECONDS


class WorkersHealth:
    """
    What each worker has told. The thread that answers probes reads what the supervisor writes: each step is one of a
    dict.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[int, tuple[float, Health]] = {}
        self.is_draining = False

    def note(self, worker: int, what: str, why: str) -> bool:
        """Note what a worker tells; return whether it was about its health."""
        if what not in (READY, NOT_READY, NOT_ALIVE):
            return False
        problems = () if what == READY else (why or "it does not say why",)
        self._told[worker] = self._clock(), Health(problems, is_alive=what != NOT_ALIVE)
        return True

    def forget(self, worker: int) -> None:
        """Forget a worker that has ended."""
        self._told.pop(worker, None)

    def health(self) -> Health:
        """Return that of all: ready if one worker is, not alive if none is."""
        if self.is_draining:
            return Health(("the workers drain",), is_ending=True)
        now, told = self._clock(), sorted(self._told.items())
        current = {worker: health for worker, (at, health) in told if now - at <= _FRESH}
        if any(health.is_ready for health in current.values()):
            return Health()
        problems = [f"worker {worker}: {text}" for worker, health in current.items() for text in health.problems]
        problems += [
            f"worker {worker} has told nothing for {now - at:.0f} s"
            for worker, (at, _) in told
            if worker not in current
        ]
        is_alive = not told or any(health.is_alive for health in current.values())
        return Health(tuple(problems) or ("no worker serves yet",), is_alive=is_alive)
