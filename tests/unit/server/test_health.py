"""Whether a server can serve now."""

from __future__ import annotations

import time
from typing import Any

import pytest

from jsonrpc_amqp import AccessRefused, Server
from jsonrpc_amqp.server.health import RunningRequests, health_of
from jsonrpc_amqp.server.lifecycle import Lifecycle

from .fakes import FakeSession

NOW = time.monotonic


def problems(lifecycle: Lifecycle, *, is_started: bool = True, running: RunningRequests | None = None) -> Any:
    health = health_of(lifecycle, running, is_started=is_started, most=2)
    return [*health.problems], health.is_alive


def opened() -> Lifecycle:
    lifecycle = Lifecycle(2)
    lifecycle.opened(FakeSession())
    return lifecycle


def test_it_serves() -> None:
    assert problems(opened()) == ([], True)


def test_it_was_not_started() -> None:
    assert problems(Lifecycle(2), is_started=False) == (["the server was not started"], True)
    server = Server("memory://x", "s")
    assert (server.is_ready, server.is_alive) == (False, True)


def test_there_is_no_connection() -> None:
    lifecycle = opened()
    lifecycle.lost()
    assert problems(lifecycle) == (["there is no connection to the broker"], True)
    lifecycle.failed(AccessRefused("user unknown"), gave_up=False)
    assert problems(lifecycle) == (["there is no connection to the broker: user unknown"], True)
    lifecycle.failed(AccessRefused("user unknown"), gave_up=True)
    assert problems(lifecycle) == (["there is no connection to the broker: user unknown"], False)


def test_it_drains_and_is_stopped() -> None:
    lifecycle = opened()
    lifecycle.drain()
    assert problems(lifecycle) == (["the server drains"], True)
    lifecycle.stop()
    assert problems(lifecycle, is_started=False) == (["the server was stopped"], True)


def test_requests_are_stuck() -> None:
    running, ended = RunningRequests(10), []
    jobs: list[Any] = [object(), object(), object()]
    first = running.begin(jobs[0], NOW() - 11, lambda: ended.append(0))
    running.begin(jobs[1], NOW(), lambda: ended.append(1))
    assert problems(opened(), running=running) == (["1 requests have run for longer than 10 s"], True)
    running.begin(jobs[2], NOW() - 12, lambda: ended.append(2))
    # As many as may run: no request begins any more.
    assert problems(opened(), running=running) == (["2 requests have run for longer than 10 s"], False)
    first()
    assert ended == [0]
    assert problems(opened(), running=running) == (["1 requests have run for longer than 10 s"], True)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_that_is_none(seconds: float) -> None:
    with pytest.raises(ValueError, match="stuck_after is a positive number of seconds"):
        Server("memory://x", "s", stuck_after=seconds)
