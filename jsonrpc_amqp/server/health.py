"""Whether a server can serve now, and which of its requests are stuck."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

from ..wire.health import Health, problems_of
from .job import Job
from .lifecycle import Lifecycle, State


class RunningRequests:
    """
    The requests that run, on threads and on the event loop. It has no lock: each step is one of a dict.

    Args:
        stuck_after: Seconds after which a request that still runs is stuck.

    Raises:
        ValueError: That is not positive.
    """

    def __init__(self, stuck_after: float) -> None:
        if not stuck_after > 0:
            raise ValueError(f"stuck_after is a positive number of seconds, or None, not {stuck_after!r}")
        self.stuck_after = stuck_after
        self._began: dict[Job, float] = {}

    def begin(self, job: Job, now: float, ended: Callable[[], object]) -> Callable[[], object]:
        """Note that a request begins; return what is to be called when it ends, in the place of ``ended``."""
        self._began[job] = now
        return partial(self._end, job, ended)

    def stuck(self) -> int:
        """Return how many requests are stuck."""
        latest = time.monotonic() - self.stuck_after
        return sum(began < latest for began in list(self._began.values()))

    def _end(self, job: Job, ended: Callable[[], object]) -> None:
        self._began.pop(job, None)
        ended()


def health_of(lifecycle: Lifecycle, running: RunningRequests | None, *, is_started: bool, most: int) -> Health:
    """
    Return whether a server can serve now.

    Args:
        lifecycle: Its state.
        running: What runs; None: it is not known for how long.
        is_started: Whether it was started in this process.
        most: How many requests may run at a time.
    """
    stuck = 0 if running is None else running.stuck()
    problems = list(_problems(lifecycle, is_started=is_started))
    if running is not None and stuck:
        problems.append(f"{stuck} requests have run for longer than {running.stuck_after:g} s")
    is_over = lifecycle.gave_up and lifecycle.state is State.RUNNING
    is_ending = lifecycle.state is not State.RUNNING
    return Health(tuple(problems), is_alive=not is_over and stuck < most, is_ending=is_ending)


def _problems(lifecycle: Lifecycle, *, is_started: bool) -> Iterator[str]:
    if lifecycle.state is State.STOPPED:
        yield "the server was stopped"
    elif not is_started:
        yield "the server was not started"
    elif lifecycle.state is not State.RUNNING:
        yield "the server drains"
    else:
        yield from problems_of(lifecycle.session, lifecycle.failure)
