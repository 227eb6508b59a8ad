"""Samples of processes over a long run, and whether they grow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .health import memory

# Of the memory that counts: KiB for each 1,000 messages by a fitted line, and MiB in all. What Python itself holds
# (tracemalloc) is flat from the first 3,000 on; the resident memory grows for another 100,000 by some MiB, as what is
# freed lies in pieces. To keep 100 bytes of each message would be 98 KiB.
MOST_KIB, MOST_MIB = 40.0, 8.0
# A process holds a large message for a while behind its answer: the least of so many samples counts, and this many MiB.
GROUP, MOST_HELD_MIB = 5, 64.0
# More descriptors or threads than there were where samples begin to count: of a second connection that comes and goes.
MOST_MORE = 4
# Entries of any container in a server: the largest limits are those of names that were seen, 1,000 and 1,024.
MOST_ENTRIES = 1_200
# How many times as many blocks of memory Python may have at the end: what a leak adds to, however memory is divided.
MOST_BLOCKS = 1.05
# Bytes by which what the C library has given out may grow.
MOST_USED = 1 << 20
# Where samples begin to count: by then all that is made once is made, and memory is in pieces.
WARM = 0.4


class Sample(NamedTuple):
    """Of a process: the messages that were sent before, its resident memory in bytes, descriptors and threads."""

    messages: int
    memory: int
    descriptors: int
    threads: int


class Trend(NamedTuple):
    """How the memory of a process grows: KiB for each 1,000 messages, and MiB from the first samples to the last."""

    kib: float
    mib: float


def sample(pid: int, messages: int) -> Sample:
    """Look at a process."""
    count = [len(list(Path(f"/proc/{pid}/{folder}").iterdir())) for folder in ("fd", "task")]
    return Sample(messages, memory(pid), *count)


def warm(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples that count."""
    return [each for each in samples if each.messages >= WARM * samples[-1].messages]


def trend(samples: Sequence[Sample]) -> Trend:
    """Return the trend of the samples that count, of the least in each group."""
    later = _least(samples)
    line = statistics.linear_regression([each.messages for each in later], [each.memory for each in later])
    sizes = [each.memory for each in later]
    return Trend(line.slope * 1000 / 1024, (statistics.median(sizes[-3:]) - statistics.median(sizes[:3])) / (1 << 20))


def ends(samples: Sequence[Sample]) -> tuple[Sample, Sample]:
    """Return the first and the last of the samples by which the memory is judged."""
    later = _least(samples)
    return later[0], later[-1]


def _least(samples: Sequence[Sample]) -> list[Sample]:
    return [min(group, key=lambda each: each.memory) for group in _groups(warm(samples))]


def _groups(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    return [samples[begin : begin + GROUP] for begin in range(0, len(samples) - len(samples) % GROUP, GROUP)]


def faults(samples: Sequence[Sample]) -> list[str]:
    """Return what grows, for people."""
    grown, later = trend(samples), warm(samples)
    found = []
    if grown.kib > MOST_KIB or grown.mib > MOST_MIB:
        found.append(f"memory: {grown.kib:.1f} KiB for 1,000 messages, {grown.mib:.1f} MiB in all")
    sizes = [each.memory / (1 << 20) for each in later]
    if max(sizes) - min(sizes) > MOST_HELD_MIB:
        found.append(f"memory: between {min(sizes):.1f} and {max(sizes):.1f} MiB")
    for what in ("descriptors", "threads"):
        first, last = getattr(later[0], what), getattr(later[-1], what)
        if last > first + MOST_MORE:
            found.append(f"{what}: {first} -> {last}")
    return found


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    return [int(each) for file in Path(f"/proc/{pid}/task").glob("*/children") for each in file.read_text().split()]
