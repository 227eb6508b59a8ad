"""A neighbour notices calls that fail, and calls that run twice."""

from __future__ import annotations

from typing import Any

import pytest

from ..abuse.neighbour import Neighbour, Visits
from ..tools import wait_for


def test_calls_that_run_once() -> None:
    with Neighbour(Visits()) as neighbour:
        wait_for(lambda: neighbour.report().calls > 10)
        neighbour.check()
    assert neighbour.report().median > 0


def test_a_call_that_runs_twice() -> None:
    visits = Visits()

    def twice(name: str, number: int) -> int:
        if number == 5:
            visits(name, number)
        return visits(name, number)

    with Neighbour(twice) as neighbour:
        wait_for(lambda: neighbour.report().calls > 10)
    assert neighbour.report().repeated == 1
    with pytest.raises(AssertionError):
        neighbour.check()


def test_a_call_that_fails() -> None:
    def fail(_name: str, number: int) -> Any:
        if number == 3:
            raise ValueError("lost")
        return 0

    with Neighbour(fail) as neighbour:
        wait_for(lambda: neighbour.report().calls > 10)
    assert neighbour.report().failures == ["ValueError: lost"]
    with pytest.raises(AssertionError):
        neighbour.check()


def test_two_of_them() -> None:
    visits = Visits()
    with Neighbour(visits, "one") as one, Neighbour(visits, "other") as other:
        wait_for(lambda: min(one.report().calls, other.report().calls) > 10)
        one.check()
        other.check()
