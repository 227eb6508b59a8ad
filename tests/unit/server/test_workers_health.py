"""Whether workers can serve, as they tell it."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.server.worker import NOT_ALIVE, NOT_READY, READY, SERVING
from jsonrpc_amqp.server.workers_health import WorkersHealth


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workers(clock: Clock) -> WorkersHealth:
    return WorkersHealth(clock)


def test_none_has_begun(workers: WorkersHealth) -> None:
    health = workers.health()
    assert (health.problems, health.is_alive) == (("no worker serves yet",), True)


def test_one_that_is_ready_is_enough(workers: WorkersHealth) -> None:
    assert workers.note(1, READY, "")
    assert workers.note(2, NOT_READY, "there is no connection")
    assert workers.health().is_ready


def test_why_none_is_ready(workers: WorkersHealth) -> None:
    workers.note(2, NOT_READY, "there is no connection")
    workers.note(1, NOT_ALIVE, "8 requests have run for longer than 60 s")
    health = workers.health()
    assert health.problems == (
        "worker 1: 8 requests have run for longer than 60 s",
        "worker 2: there is no connection",
    )
    assert health.is_alive
    workers.note(2, NOT_ALIVE, "")
    assert workers.health().problems[1] == "worker 2: it does not say why"
    assert not workers.health().is_alive


def test_one_that_stands_still(workers: WorkersHealth, clock: Clock) -> None:
    workers.note(1, READY, "")
    clock.now += 2.9
    assert workers.health().is_ready
    clock.now += 0.2
    health = workers.health()
    assert (health.problems, health.is_alive) == (("worker 1 has told nothing for 3 s",), False)
    workers.forget(1)
    assert workers.health().problems == ("no worker serves yet",)


def test_they_drain(workers: WorkersHealth) -> None:
    workers.note(1, READY, "")
    workers.is_draining = True
    assert workers.health().problems == ("the workers drain",)


def test_what_is_not_about_health(workers: WorkersHealth) -> None:
    assert not workers.note(1, SERVING, "")
    assert not workers.health().is_ready
