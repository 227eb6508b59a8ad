"""
A victim that calls all the time while others are attacked: none of its calls may fail, or run twice.

How long its calls take is recorded, and checked on a quiet machine only.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

# Calls whose times are kept; seconds between calls, so that one that waits for nothing does not fill a core.
_KEPT = 20
_PAUSE = 0.001


class Report(NamedTuple):
    """
    What became of the calls.

    Attributes:
        calls: How many have ended.
        failures: What the first ones that failed ended in.
        repeated: How many ran more than once.
        median: Of the last ones, in seconds.
        slowest: Since the last report, in seconds.
    """

    calls: int
    failures: list[str]
    repeated: int
    median: float
    slowest: float


class Visits:
    """
    The method that a neighbour calls.

    A neighbour counts its calls, and each comes once and behind the one before. That is all that a server needs to
    remember, so that its memory does not grow.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._repeated = 0

    def __call__(self, name: str, number: int) -> int:
        """Note a call; return how many have run more than once."""
        self._repeated += number <= self._last.get(name, 0)
        self._last[name] = number
        return self._repeated


class Neighbour:
    """
    Calls on a thread of its own, within a ``with`` block.

    Args:
        call: Calls a ``Visits`` with a name and a number, and returns its result.
        name: The name.
    """

    def __init__(self, call: Callable[[str, int], Any], name: str = "neighbour") -> None:
        self._call = call
        self._name = name
        self._calls = self._repeated = 0
        self._failures: list[str] = []
        self._times: deque[float] = deque(maxlen=_KEPT)
        self._slowest = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Make no further call, and wait for the end of the last one."""
        self._is_over.set()
        self._thread.join(60)

    def report(self) -> Report:
        """Return what became of the calls so far."""
        slowest, self._slowest = self._slowest, 0.0
        times = list(self._times)
        median = statistics.median(times) if times else 0.0
        return Report(self._calls, list(self._failures), self._repeated, median, slowest)

    def check(self) -> None:
        """Check that all calls so far succeeded, and ran once."""
        report = self.report()
        assert (report.failures, report.repeated) == ([], 0), report
        assert report.calls

    def _run(self) -> None:
        while not self._is_over.wait(_PAUSE):
            began = time.perf_counter()
            try:
                self._repeated = self._call(self._name, self._calls + 1)
            except Exception as exc:
                if len(self._failures) < 10:
                    self._failures.append(f"{type(exc).__name__}: {exc}")
            took = time.perf_counter() - began
            self._times.append(took)
            self._slowest = max(self._slowest, took)
            self._calls += 1


def is_quiet() -> bool:
    """Whether the machine does so little that times mean something."""
    return os.getloadavg()[0] < (os.cpu_count() or 1) / 2
