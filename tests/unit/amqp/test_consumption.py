"""The consumer of a session: its cancellation by us and by the broker, and consuming again."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, cast

import pytest

from jsonrpc_amqp.amqp import consumption as module
from jsonrpc_amqp.amqp.back_off import BackOff
from jsonrpc_amqp.amqp.consumption import Consumption

from .fakes import Clock, FakeLink


class Target:
    """A consumption with a fake link, whose back-off has no random part."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.link = FakeLink()
        self.stats: Counter[str] = Counter()
        self.outcomes: list[str] = []
        back_off = BackOff(1, lambda low, high: high)
        self.consumption = Consumption(cast(Any, self.link), "test", self.stats, clock.now, back_off)

    def cancel(self) -> None:
        self.consumption.cancel(lambda: self.outcomes.append("cancelled"))

    def consume_again(self) -> None:
        """Wait for the time of the next attempt, and let it be declared."""
        self.clock.now = self.consumption.next_event
        self.consumption.advance(self.clock.now)
        assert self.link.redeclared is not None
        self.link.redeclared()

    def since(self) -> list[tuple[Any, ...]]:
        """Return what was done on the channel that consumes, since the last time."""
        calls = list(self.link.calls_of_consumer)
        self.link.calls_of_consumer.clear()
        return calls


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return Target(clock)


def test_no_delivery_follows_a_cancel(target: Target) -> None:
    target.cancel()
    assert target.since() == [("cancel", "tag-1", False)]
    assert target.outcomes == []
    assert target.link.consumer is not None
    assert target.link.consumer.reply is not None
    target.link.consumer.reply(("tag-1",))
    assert target.outcomes == ["cancelled"]
    target.cancel()
    assert target.outcomes == ["cancelled"] * 2
    assert target.since() == []


def test_a_channel_that_is_closed_delivers_nothing(target: Target) -> None:
    target.link.consumer = None
    target.cancel()
    target.consumption.cancelled("tag-1")
    assert target.outcomes == ["cancelled"]
    assert target.stats == {}


def test_a_queue_whose_consumer_the_broker_cancelled_is_declared_and_consumed_again(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    target.clock.now += 60.0
    target.consumption.cancelled("tag-1")
    # The broker may know the consumer still.
    assert target.since() == [("cancel", "tag-1", True)]
    assert "test: the broker cancelled the consumer of queue 'q': it was deleted or moved" in caplog.text
    assert "consuming again in 0.1 s" in caplog.text
    target.consumption.advance(target.clock.now)
    assert target.link.calls == []
    target.consume_again()
    assert target.link.calls == [("redeclare", "queue")]
    assert target.since() == [("consume", "q", "consumer-2")]
    assert (target.link.consumer_tag, target.consumption.next_event) == ("consumer-2", math.inf)
    assert target.stats == {"consumers_cancelled": 1}
    target.cancel()
    assert target.since() == [("cancel", "consumer-2", False)]


def test_a_consumer_before_the_present_one_means_nothing(target: Target) -> None:
    target.consumption.cancelled("tag-1")
    target.consume_again()
    target.since()
    target.consumption.cancelled("tag-1")
    assert (target.since(), target.consumption.next_event) == ([], math.inf)
    assert target.stats == {"consumers_cancelled": 1}


def test_a_queue_that_cancels_at_once_is_consumed_again_after_a_while_that_doubles(target: Target) -> None:
    delays = []
    for _ in range(7):
        target.consumption.cancelled(target.link.consumer_tag)
        delays.append(target.consumption.next_event - target.clock.now)
        target.consume_again()
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    target.clock.now += 5.0  # it was a good one
    target.consumption.cancelled(target.link.consumer_tag)
    assert target.consumption.next_event - target.clock.now == pytest.approx(0.1)


def test_a_server_that_drains_does_not_consume_again(target: Target) -> None:
    target.consumption.cancelled("tag-1")
    target.since()
    target.cancel()
    assert target.outcomes == ["cancelled"]
    assert target.consumption.next_event == math.inf


def test_a_server_that_drains_while_its_queue_is_declared_does_not_consume_again(target: Target) -> None:
    target.consumption.cancelled("tag-1")
    target.clock.now = target.consumption.next_event
    target.consumption.advance(target.clock.now)
    target.since()
    target.cancel()
    assert target.outcomes == ["cancelled"]
    assert target.link.redeclared is not None
    target.link.redeclared()
    assert target.since() == []


def test_a_server_that_drains_is_not_disturbed_by_the_broker(target: Target) -> None:
    target.cancel()
    target.consumption.cancelled("tag-1")
    assert target.since() == [("cancel", "tag-1", False)]
    assert target.consumption.next_event == math.inf
