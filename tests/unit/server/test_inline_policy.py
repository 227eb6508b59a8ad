"""When handlers run on the leader, on a clock that the tests turn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jsonrpc_amqp.server import inline_policy as module
from jsonrpc_amqp.server.inline_policy import InlinePolicy

US = 1e-6


class Clock:
    """A process in which handlers run one after the other."""

    def __init__(self) -> None:
        self.now = self.cpu = 100.0
        self.policy: InlinePolicy

    def thread(self, *, seconds: float, cpu: float, busy: float, most: int = 100_000) -> int:
        """Run something on threads until it is quick; return the number of runs. ``busy``: cores in use."""
        for run in range(1, most + 1):
            self.now += cpu
            self.cpu += cpu * busy
            self.policy.ran_on_thread(seconds, cpu)
            if self.policy.is_quick:
                return run
        return -1

    def inline(self, *, seconds: float, cpu: float, most: int = 10_000) -> int:
        """Run something on the leader until it is no longer quick; return the number of runs."""
        for run in range(1, most + 1):
            self.policy.ran_inline(seconds, cpu if self.policy.wants_cpu_time else 0.0)
            if not self.policy.is_quick:
                return run
        return -1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=lambda: clock.now, process_time=lambda: clock.cpu)
    monkeypatch.setattr(module, "time", fake)
    clock.policy = InlinePolicy()
    return clock


def test_what_takes_no_time_is_quick_and_stays_so(clock: Clock) -> None:
    assert clock.thread(seconds=60 * US, cpu=50 * US, busy=0.1) == 64
    assert clock.inline(seconds=60 * US, cpu=50 * US) == -1


def test_what_takes_its_time_is_not(clock: Clock) -> None:
    assert clock.thread(seconds=800 * US, cpu=700 * US, busy=1.0) == -1


def test_what_waits_is_not(clock: Clock) -> None:
    assert clock.thread(seconds=1000 * US, cpu=60 * US, busy=0.3) == -1


@pytest.mark.parametrize("busy", [0.6, 1.0])
def test_what_waits_for_other_threads_that_compute_is(clock: Clock, busy: float) -> None:
    assert clock.thread(seconds=2000 * US, cpu=200 * US, busy=busy) == 64
    assert clock.inline(seconds=300 * US, cpu=210 * US) == -1


def test_what_computes_beside_others_is_not(clock: Clock) -> None:
    assert clock.thread(seconds=300 * US, cpu=300 * US, busy=1.8) == -1


def test_one_in_thirty_may_be_late(clock: Clock) -> None:
    clock.thread(seconds=60 * US, cpu=50 * US, busy=0.1)
    for _ in range(100):
        assert clock.inline(seconds=60 * US, cpu=50 * US, most=29) == -1
        assert clock.inline(seconds=0.009, cpu=50 * US, most=1) == -1


def test_what_waits_after_all_is_tried_less_and_less_often(clock: Clock) -> None:
    tries = []
    for _ in range(12):
        tries.append(clock.thread(seconds=2000 * US, cpu=80 * US, busy=1.0))
        assert 1 <= clock.inline(seconds=400 * US, cpu=80 * US) < 40
    assert tries == [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 16384, 16384, 16384]


def test_what_is_quick_for_long_is_forgiven_for_what_was(clock: Clock) -> None:
    for _ in range(3):
        clock.thread(seconds=60 * US, cpu=50 * US, busy=0.1)
        clock.policy.fail()
    assert clock.thread(seconds=60 * US, cpu=50 * US, busy=0.1) == 512
    assert clock.inline(seconds=60 * US, cpu=50 * US, most=1000) == -1
    clock.policy.fail()
    assert clock.thread(seconds=60 * US, cpu=50 * US, busy=0.1) == 128


def test_a_run_that_blocked_the_leader_is_not_counted_twice(clock: Clock) -> None:
    clock.thread(seconds=60 * US, cpu=50 * US, busy=0.1)
    clock.policy.fail()
    clock.policy.ran_inline(5.0, 0.0)
    assert clock.thread(seconds=60 * US, cpu=50 * US, busy=0.1) == 128
