"""When a heartbeat is due, and when a broker counts as silent."""

from __future__ import annotations

import math

import pytest

from jsonrpc_amqp.amqp.heartbeat import Heartbeat

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
