"""Which broker is tried next, and when."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.amqp.back_off import LONGEST, SHORTEST, STABLE, BackOff


def longest(_low: float, high: float) -> float:
    return high


def shortest(low: float, _high: float) -> float:
    return low


def test_brokers_take_turns() -> None:
    back_off = BackOff(3)
    assert [back_off.next_broker() for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_reset_begins_with_the_first_broker_and_the_shortest_delay() -> None:
    back_off = BackOff(2, longest)
    for _ in range(5):
        back_off.next_broker()
    back_off.reset()
    assert back_off.next_broker() == 0
    back_off.next_broker()
    assert back_off.delay() == 2 * SHORTEST


def test_the_delay_doubles_up_to_the_longest() -> None:
    back_off = BackOff(1, longest)
    delays = []
    for _ in range(7):
        back_off.next_broker()
        delays.append(back_off.delay())
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, LONGEST, LONGEST, LONGEST])


def test_the_delay_is_at_least_half_of_that() -> None:
    back_off = BackOff(1, shortest)
    delays = []
    for _ in range(6):
        back_off.next_broker()
        delays.append(back_off.delay())
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, LONGEST / 2, LONGEST / 2])


def test_there_is_no_delay_until_each_broker_was_tried() -> None:
    back_off = BackOff(3, longest)
    delays = []
    for _ in range(6):
        back_off.next_broker()
        delays.append(back_off.delay())
    assert delays == pytest.approx([0, 0, 0.2, 0, 0, 0.4])


def test_many_attempts_do_not_overflow() -> None:
    back_off = BackOff(1, longest)
    back_off._attempts = 1_000_000
    assert back_off.delay() == LONGEST


def test_after_a_connection_that_lived_the_first_broker_is_tried_nearly_at_once() -> None:
    back_off = BackOff(2, longest)
    for _ in range(5):
        back_off.next_broker()
    assert back_off.delay_after_loss(STABLE) == SHORTEST
    assert back_off.next_broker() == 0
    assert BackOff(2, shortest).delay_after_loss(STABLE) == 0


def test_after_a_connection_that_ended_soon_the_delays_go_on() -> None:
    back_off = BackOff(1, longest)
    delays = []
    for _ in range(3):
        back_off.next_broker()
        delays.append(back_off.delay_after_loss(STABLE - 0.1))
    assert delays == pytest.approx([0.2, 0.4, 0.8])


def test_clients_of_one_broker_do_not_come_back_in_the_same_moment() -> None:
    delays = {BackOff(1).delay_after_loss(STABLE) for _ in range(20)}
    assert len(delays) > 1
    assert all(0 <= each <= SHORTEST for each in delays)
