"""Which requests are run in isolation. What happens to them is tested with real processes, in tests/integration."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.server.counters import Counters
from jsonrpc_amqp.server.isolation import Isolation

from .fakes import job

NOW = 10_000.0


class Deaths:
    """Says when the last death was; a sleep brings the next one."""

    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.sleeps = 0

    def last(self) -> float:
        return self.times[0]

    def sleep(self, _seconds: float) -> None:
        self.sleeps += 1
        if len(self.times) > 1:
            del self.times[0]


def isolated(monkeypatch: pytest.MonkeyPatch, deaths: Deaths) -> Isolation:
    monkeypatch.setattr("jsonrpc_amqp.server.isolation.time.sleep", deaths.sleep)
    return Isolation(["nothing"], deaths.last, Counters())


@pytest.mark.parametrize(
    ("last_death", "redelivered", "redeliveries", "is_suspected"),
    [
        (NOW - 1, False, None, False),
        (NOW - 1, True, None, True),
        (NOW - 599, True, None, True),
        (NOW - 601, True, None, False),
        (NOW - 601, True, 1, False),
        (NOW - 601, True, 2, True),
    ],
)
def test_a_redelivered_request_is_suspected_after_a_death(
    monkeypatch: pytest.MonkeyPatch, last_death: float, redelivered: bool, redeliveries: int | None, is_suspected: bool
) -> None:
    made = isolated(monkeypatch, Deaths(last_death))
    assert made.suspects(job(redelivered=redelivered, redeliveries=redeliveries), NOW) is is_suspected


def test_the_first_of_several_waits_to_hear_of_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = Deaths(0, NOW)
    assert isolated(monkeypatch, deaths).suspects(job(redelivered=True), NOW)
    assert deaths.sleeps == 1


def test_the_others_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = Deaths(0)
    made = isolated(monkeypatch, deaths)
    assert [made.suspects(job(redelivered=True), NOW + each) for each in (0, 1, 4)] == [False] * 3
    assert deaths.sleeps == 1
    made.suspects(job(redelivered=True), NOW + 6)
    assert deaths.sleeps == 2


def test_what_was_not_redelivered_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = Deaths(0)
    isolated(monkeypatch, deaths).suspects(job(), NOW)
    assert deaths.sleeps == 0
