"""Checks during and after a hostile message: the memory of a process, and the calls of its neighbour."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..tools import wait_for
from .neighbour import Report, is_quiet

MOST_GROWTH = 20 << 20
# Makes the C library return freed memory. Otherwise it keeps up to twice the largest message, which is not a leak.
FREED = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
# Calls of the neighbour, before a case and behind it.
CALLS = 5
# How many times as long they may take afterwards, on a quiet machine. Less than this, in seconds, is no difference.
SLOWER = 3
NOISE = 0.005
# A process that was slowed down for long is slow now; a moment is the machine's.
LOOKS = 5
_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


@dataclass
class Patient:
    """
    A process under test, and a neighbour that calls all the time.

    Attributes:
        pid: The process.
        call: Calls once, behind all that was sent.
        neighbour: Returns what became of the neighbour's calls.
        growth: How much the memory grew in each case, in bytes.
        slowest: The slowest call of the neighbour in each case, in seconds.
    """

    pid: int
    call: Callable[[], object]
    neighbour: Callable[[], Report]
    growth: dict[str, int] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)

    def examine(self, case: str, abuse: Callable[[], object]) -> None:
        """Send a case, and check that memory, and the neighbour's calls, are as before."""
        before = self._later(CALLS)
        size = memory(self.pid)
        abuse()
        self.call()  # after everything that was sent
        after = self._later(CALLS)
        self.growth[case] = memory(self.pid) - size
        self.slowest[case] = after.slowest
        assert (after.failures, after.repeated) == ([], 0)
        assert self.growth[case] < MOST_GROWTH, f"grown by {self.growth[case] / 1e6:.1f} MB"
        if is_quiet():
            bound = max(SLOWER * before.median, before.median + NOISE)
            medians = (self._later(20).median for _ in range(LOOKS))
            assert any(median <= bound for median in medians), f"over {bound * 1e3:.1f} ms"

    def _later(self, calls: int) -> Report:
        """Return what became of the neighbour's calls, once it made some more."""
        reports = [self.neighbour()]

        def has_called() -> bool:
            reports.append(self.neighbour())
            return reports[-1].calls >= reports[0].calls + calls

        wait_for(has_called, 60)
        return reports[-1]._replace(slowest=max(report.slowest for report in reports))
