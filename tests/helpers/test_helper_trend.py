"""A process that grows is told from one that holds a large message for a while."""

from __future__ import annotations

from collections.abc import Callable

from ..abuse.trend import MOST_MIB, Sample, faults, trend

MIB = 1 << 20


def samples(memory: Callable[[int], float], descriptors: int = 0) -> list[Sample]:
    """Return samples of 300,000 messages; memory in MiB."""
    return [
        Sample(number, int(memory(number) * MIB), 9 + descriptors * number // 3000, 11)
        for number in range(3000, 300_001, 3000)
    ]


def test_a_process_that_is_flat() -> None:
    flat = samples(lambda number: 40 + min(number, 100_000) / 10_000 + 16 * (number % 21_000 == 0))
    assert faults(flat) == []
    assert trend(flat) == (0, 0)


def test_a_process_that_grows() -> None:
    growing = samples(lambda number: 40 + 0.1 * number / 1000)
    assert round(trend(growing).kib, 1) == 102.4
    assert trend(growing).mib > MOST_MIB
    assert len(faults(growing)) == 1


def test_a_process_that_holds_too_much() -> None:
    assert len(faults(samples(lambda number: 40 + 100 * (number == 150_000)))) == 1


def test_a_process_that_leaves_files_open() -> None:
    assert faults(samples(lambda _number: 40, descriptors=1)) == ["descriptors: 49 -> 109"]
