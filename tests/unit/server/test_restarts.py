"""When the next process of a worker starts."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.server.restarts import LONGEST_DELAY, SHORTEST_INTERVAL, Restarts


def test_one_that_ends_before_it_serves_is_started_ever_more_rarely() -> None:
    restarts, now, delays = Restarts(), 1000.0, []
    for _ in range(2000):
        restarts.start(now)
        delays.append(restarts.end(now + 12))
        now = restarts.due
    assert delays[:10] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30])
    assert set(delays[10:]) == {LONGEST_DELAY}


@pytest.mark.parametrize("lived", [0.0, 0.03, 0.1, 5.0, 1e6])
def test_one_that_has_served_is_started_at_once_but_not_more_often_than_each_interval(lived: float) -> None:
    restarts, now = Restarts(), 1000.0
    for _ in range(100):
        restarts.start(now)
        restarts.serve()
        delay = restarts.end(now + lived)
        assert delay == pytest.approx(max(0.0, SHORTEST_INTERVAL - lived))
        assert restarts.due == pytest.approx(now + max(lived, SHORTEST_INTERVAL))
        now = restarts.due


def test_one_that_serves_forgets_the_failures_before_it() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.start(1000.0)
        restarts.end(1000.0)
    restarts.start(2000.0)
    restarts.serve()
    assert restarts.end(2010.0) == 0.0
    restarts.start(2010.0)
    assert not restarts.has_served
    assert restarts.end(2010.5) == pytest.approx(0.1)
