"""When a heartbeat is due, and when a broker counts as dead."""

from __future__ import annotations

import math

from jsonrpc_amqp.amqp.heartbeat import Heartbeat


def test_one_is_due_half_an_interval_after_the_last_write() -> None:
    heartbeat = Heartbeat(10, 100)
    assert [heartbeat.is_due(now) for now in (100, 104.9, 105, 120)] == [False, False, True, True]
    heartbeat.last_write = 105
    assert [heartbeat.is_due(now) for now in (105, 109.9, 110)] == [False, False, True]


def test_a_read_does_not_put_it_off() -> None:
    heartbeat = Heartbeat(10, 100)
    heartbeat.last_read = 104
    assert heartbeat.is_due(105)


def test_the_broker_is_silent_beyond_two_intervals_after_the_last_read() -> None:
    heartbeat = Heartbeat(10, 100)
    assert [heartbeat.is_silent(now) for now in (119, 120, 120.1)] == [False, False, True]
    heartbeat.last_read = 110
    assert [heartbeat.is_silent(now) for now in (120.1, 130, 130.1)] == [False, False, True]


def test_a_write_does_not_count_as_a_sign_of_the_broker() -> None:
    heartbeat = Heartbeat(10, 100)
    heartbeat.last_write = 120
    assert heartbeat.is_silent(120.1)


def test_the_next_event_is_the_earlier_of_the_two() -> None:
    heartbeat = Heartbeat(10, 100)
    assert heartbeat.next_event() == 105
    heartbeat.last_write = 118  # the broker is silent since 100
    event = heartbeat.next_event()
    assert 120 < event < 120.1


def test_at_the_next_event_there_is_something_to_do() -> None:
    due, silent = Heartbeat(10, 100), Heartbeat(10, 100)
    silent.last_write = 119
    assert due.is_due(due.next_event())
    assert silent.is_silent(silent.next_event())


def test_without_heartbeats_nothing_is_due_or_silent() -> None:
    heartbeat = Heartbeat(0, 100)
    assert heartbeat.patience == math.inf
    assert heartbeat.next_event() == math.inf
    assert not heartbeat.is_due(1e9)
    assert not heartbeat.is_silent(1e9)
