"""How somebody is who was abused: memory, and how fast the next good calls are."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MOST_GROWTH = 20 << 20
# Has the C library give back what is freed. Else it keeps up to twice the largest message, which is no growth.
FREED = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
CALLS = 20
# A difference below this, in seconds, or one that is gone when it is looked at again, is the machine's.
NOISE = 0.005
LOOKS = 5
_PAGE = os.sysconf("SC_PAGE_SIZE")


def memory(pid: int) -> int:
    """Give the bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def median(call: Callable[[], object]) -> float:
    """Give the median of some calls, in seconds."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@dataclass
class Patient:
    """
    A process, and a good call to or by it.

    Attributes:
        growth: What each case has cost, in bytes.
    """

    pid: int
    call: Callable[[], object]
    growth: dict[str, int] = field(default_factory=dict)

    def examine(self, case: str, abuse: Callable[[], object]) -> None:
        """Abuse it, and see that it is as before."""
        size, speed = memory(self.pid), median(self.call)
        abuse()
        self.call()  # behind what was sent
        bound = max(2 * speed, speed + NOISE)
        after = next((each for _ in range(LOOKS) if (each := median(self.call)) <= bound), None)
        self.growth[case] = memory(self.pid) - size
        assert self.growth[case] < MOST_GROWTH, f"grown by {self.growth[case] / 1e6:.1f} MB"
        assert after is not None, f"{speed * 1e3:.1f} ms before, and over {bound * 1e3:.1f} ms after"
