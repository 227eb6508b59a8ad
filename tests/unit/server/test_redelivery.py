"""How many redelivered requests may run, on a clock that the tests turn."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.server.job import Job
from jsonrpc_amqp.server.redelivery import RedeliveredRequests

from .fakes import job


def take(requests: RedeliveredRequests, now: float = 0.0) -> Job:
    taken = requests.take(now)
    assert taken is not None
    return taken


def test_one_begins_and_each_end_lets_one_more_run() -> None:
    requests = RedeliveredRequests(8)
    assert [requests.add(job(), 0) for _ in range(7)] == [1, 0, 0, 0, 0, 0, 0]
    first = take(requests)
    assert requests.end(first, 0) == 2
    second, third = take(requests), take(requests)
    assert requests.end(second, 0) == 2
    assert requests.end(third, 0) == 2
    assert len(requests.take_all()) == 4


def test_no_more_run_than_there_are_handlers() -> None:
    requests = RedeliveredRequests(2)
    turns = [requests.add(job(), 0) for _ in range(10)].count(1)
    running: list[Job] = []
    for _ in range(9):
        running += [take(requests) for _ in range(turns)]
        assert len(running) <= 2
        turns = requests.end(running.pop(0), 0)


def test_once_all_have_ended_the_next_begin_one_at_a_time_again() -> None:
    requests = RedeliveredRequests(8)
    for _ in range(3):
        requests.add(job(), 0)
    first = take(requests)
    requests.end(first, 0)
    others = [take(requests), take(requests)]
    for each in others:
        assert requests.end(each, 0) == 0
    assert [requests.add(job(), 0) for _ in range(3)] == [1, 0, 0]


def test_one_that_runs_for_long_is_not_waited_for() -> None:
    requests = RedeliveredRequests(8)
    for _ in range(3):
        requests.add(job(), 0)
    take(requests, 0.0)
    assert requests.skip_long(4.9) == 0
    assert requests.skip_long(5.0) == 1
    assert requests.skip_long(5.1) == 0, "that turn is still to be taken"
    take(requests, 6.0)
    assert requests.skip_long(10.0) == 0
    assert requests.skip_long(11.0) == 1


def test_those_that_were_redelivered_least_often_run_first() -> None:
    requests = RedeliveredRequests(8)
    for count in (3, 1, 2, 0):
        requests.add(job(redeliveries=count), 0)
    assert [take(requests).redeliveries for _ in range(4)] == [0, 1, 2, 3]


def test_the_order_of_the_rest_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = iter([0.5, 0.1, 0.9])
    monkeypatch.setattr("random.random", lambda: next(dice))
    requests = RedeliveredRequests(8)
    for tag in (1, 2, 3):
        requests.add(job(tag=tag), 0)
    assert take(requests).delivery.tag == 2


def test_a_turn_without_a_request_is_void() -> None:
    requests = RedeliveredRequests(8)
    assert requests.take(0) is None
    assert requests.add(job(), 0) == 1
    assert len(requests.take_all()) == 1
    assert requests.take(0) is None
    assert requests.add(job(), 0) == 1
    assert requests.skip_long(100.0) == 0
