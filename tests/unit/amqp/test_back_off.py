"""Which broker is tried next, and when."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.amqp.back_off import LONGEST, SHORTEST, STABLE, BackOff


def longest(low: float, high: float) -> float:
    return high


def shortest(low: float, high: float) -> float:
    return low


def test_brokers_are_tried_in_turn() -> None:
    back_off = BackOff(3)
    assert [back_off.next_broker() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    back_off.reset()
    assert back_off.next_broker() == 0


def test_the_delay_doubles_up_to_a_limit() -> None:
    back_off, delays = BackOff(1, longest), []
    for _ in range(2000):  # far beyond the range of a float, if it were doubled on
        back_off.next_broker()
        delays.append(back_off.delay())
    assert delays[:6] == [0.2, 0.4, 0.8, 1.6, LONGEST, LONGEST]
    assert delays[-1] == LONGEST


def test_there_is_no_delay_until_each_broker_was_tried() -> None:
    back_off, delays = BackOff(2, longest), []
    for _ in range(6):
        back_off.next_broker()
        delays.append(back_off.delay())
    assert delays == [0.0, 0.2, 0.0, 0.4, 0.0, 0.8]


def test_a_pause_does_not_depend_on_which_brokers_were_tried() -> None:
    back_off, pauses = BackOff(2, longest), []
    for _ in range(4):
        back_off.next_broker()
        pauses.append((back_off.was_each_tried, back_off.pause()))
    assert pauses == [(False, 0.1), (True, 0.2), (False, 0.2), (True, 0.4)]


def test_half_of_a_delay_is_random() -> None:
    for uniform, delay in ((shortest, 0.1), (longest, 0.2)):
        back_off = BackOff(1, uniform)
        back_off.next_broker()
        assert back_off.delay() == pytest.approx(delay)


def test_a_good_connection_is_made_again_almost_at_once_beginning_with_the_first_broker() -> None:
    back_off = BackOff(2, longest)
    for _ in range(3):
        back_off.next_broker()
    assert back_off.delay_after_loss(STABLE) == SHORTEST
    assert back_off.next_broker() == 0
    assert BackOff(1, shortest).delay_after_loss(STABLE) == 0.0


def test_a_connection_that_was_lost_soon_counts_as_a_failed_attempt() -> None:
    back_off, delays = BackOff(1, longest), []
    for _ in range(3):
        back_off.next_broker()
        delays.append(back_off.delay_after_loss(STABLE - 0.1))
    assert delays == [0.2, 0.4, 0.8]
