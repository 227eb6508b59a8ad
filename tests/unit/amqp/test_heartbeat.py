"""When a heartbeat is due, and when a broker counts as silent."""

from __future__ import annotations

import math

import pytest

from jsonrpc_amqp.amqp import heartbeat as module
from jsonrpc_amqp.amqp.heartbeat import Heartbeat, Suspensions, suspended_seconds

NOW = 1000.0


@pytest.fixture
def heartbeat() -> Heartbeat:
    return Heartbeat(10.0, NOW)


def test_one_is_due_half_an_interval_after_the_last_write(heartbeat: Heartbeat) -> None:
    heartbeat.last_write = NOW + 1
    assert [heartbeat.is_due(NOW + after) for after in (5.9, 6.0, 60.0)] == [False, True, True]


def test_a_broker_is_silent_after_two_intervals_without_a_read(heartbeat: Heartbeat) -> None:
    heartbeat.last_read = NOW + 1
    assert [heartbeat.is_silent(NOW + after) for after in (20.9, 21.0, 21.1)] == [False, False, True]


@pytest.mark.parametrize(
    ("last_write", "last_read", "event"),
    [(NOW, NOW, NOW + 5), (NOW + 18, NOW, NOW + 20.01), (NOW + 9, NOW + 9, NOW + 14)],
)
def test_the_next_event_is_the_first_of_the_two(
    heartbeat: Heartbeat, last_write: float, last_read: float, event: float
) -> None:
    heartbeat.last_write, heartbeat.last_read = last_write, last_read
    assert heartbeat.next_event() == pytest.approx(event)
    times = (event - 0.02, heartbeat.next_event())
    assert [heartbeat.is_due(now) or heartbeat.is_silent(now) for now in times] == [False, True]


def test_without_an_interval_there_are_none() -> None:
    heartbeat = Heartbeat(0, NOW)
    assert (heartbeat.is_due(NOW + 1e9), heartbeat.is_silent(NOW + 1e9)) == (False, False)
    assert heartbeat.next_event() == heartbeat.patience == math.inf
    heartbeat.end_turn()
    assert (heartbeat.begin_turn(NOW + 1e9), heartbeat.stall(NOW + 1e9)) == (0.0, 0.0)


# -- the absence of this process ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "stall"), [(-5.0, 0.0), (0.0, 0.0), (15.0, 0.0), (15.1, 15.1)])
def test_a_leader_that_is_late_by_one_and_a_half_intervals_stood_still(
    heartbeat: Heartbeat, late: float, stall: float
) -> None:
    heartbeat.end_turn()
    due = heartbeat.next_event()
    assert heartbeat.stall(due + late) == pytest.approx(stall)
    assert heartbeat.begin_turn(due + late) == pytest.approx(stall)


def test_a_stall_is_noted_once_and_explains_what_ends_soon_after_it(heartbeat: Heartbeat) -> None:
    heartbeat.end_turn()
    ended = NOW + 35.0
    assert heartbeat.begin_turn(ended) == 30.0
    assert heartbeat.begin_turn(ended) == 0.0
    heartbeat.last_read = heartbeat.last_write = ended + 18.0
    heartbeat.end_turn()
    explained = "this process or its I/O thread stood still for 30.0 s, and missed its heartbeats; it ended"
    assert [heartbeat.explain("it ended", ended + after) for after in (0.0, 20.0)] == [explained] * 2
    assert heartbeat.explain("it ended", ended + 20.1) == "it ended"


def test_nothing_is_a_stall_before_the_first_turn(heartbeat: Heartbeat) -> None:
    assert heartbeat.begin_turn(NOW + 1e9) == 0.0
    assert heartbeat.explain("it ended", NOW + 1e9) == "it ended"


def test_a_suspension_counts_as_time_that_has_passed(heartbeat: Heartbeat) -> None:
    heartbeat.end_turn()
    heartbeat.note_suspension(60.0)
    assert heartbeat.is_silent(NOW)
    assert heartbeat.is_due(NOW)
    assert heartbeat.begin_turn(NOW) == 55.0


def test_each_suspension_is_reported_once() -> None:
    totals = [10.0, 10.4, 3610.0, 3609.0, 3610.0]
    suspensions = Suspensions(lambda: totals.pop(0))
    assert [suspensions.since_last() for _ in range(4)] == [0.0, 3600.0, 0.0, 0.0]


def test_the_time_of_suspensions_is_read_off_two_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clocks:
        CLOCK_BOOTTIME = 7

        @staticmethod
        def clock_gettime(clock: int) -> float:
            return {7: 5000.0}[clock]

        @staticmethod
        def monotonic() -> float:
            return 1400.0

    monkeypatch.setattr(module, "time", Clocks)
    assert suspended_seconds() == 3600.0
    monkeypatch.delattr(Clocks, "CLOCK_BOOTTIME")
    assert suspended_seconds() == 0.0


@pytest.mark.parametrize(("interval", "silent_for", "is_late"), [(10, 9.9, False), (10, 10.1, True), (0, 1e6, False)])
def test_a_broker_that_missed_its_heartbeats_is_late(interval: float, silent_for: float, is_late: bool) -> None:
    assert Heartbeat(interval, 1000.0).is_late(1000.0 + silent_for) is is_late
