"""Checks of a process after a hostile message: its memory, and the time that valid calls take."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MOST_GROWTH = 20 << 20
# Makes the C library return freed memory. Otherwise it keeps up to twice the largest message, which is not a leak.
FREED = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
CALLS = 20
# A difference below this, in seconds, or one that does not persist, is caused by the machine.
NOISE = 0.005
LOOKS = 5
_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def median(call: Callable[[], object]) -> float:
    """Return the median time of some calls, in seconds."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@dataclass
class Patient:
    """
    A process under test, and a valid call to it or by it.

    Attributes:
        growth: How much the memory grew in each case, in bytes.
    """

    pid: int
    call: Callable[[], object]
    growth: dict[str, int] = field(default_factory=dict)

    def examine(self, case: str, abuse: Callable[[], object]) -> None:
        """Send a case, and check that memory and speed are as before."""
        size, speed = memory(self.pid), median(self.call)
        abuse()
        self.call()  # after everything that was sent
        bound = max(2 * speed, speed + NOISE)
        after = next((each for _ in range(LOOKS) if (each := median(self.call)) <= bound), None)
        self.growth[case] = memory(self.pid) - size
        assert self.growth[case] < MOST_GROWTH, f"grown by {self.growth[case] / 1e6:.1f} MB"
        assert after is not None, f"{speed * 1e3:.1f} ms before, and over {bound * 1e3:.1f} ms after"
