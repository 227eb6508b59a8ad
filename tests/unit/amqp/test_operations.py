"""Operations are pipelined, and answered in order; an error makes few of them be sent again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from jsonrpc_amqp.amqp.operations import MOST_UNDER_WAY, Operations
from jsonrpc_amqp.errors import AccessRefused, ConnectionLost, TransportError


class FakeChannel:
    """Answers what the test has it answer."""

    channel_id: int | None = 1

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.answers: list[Callable[[tuple[Any, ...]], None]] = []
        self._expected: Callable[[tuple[Any, ...]], None]

    def expecting(self, reply: Callable[[tuple[Any, ...]], None]) -> None:
        self._expected = reply

    def send(self, name: str) -> None:
        self.sent.append(name)
        self.answers.append(self._expected)

    def answer(self, *args: Any) -> None:
        self.answers.pop(0)(args)


class Bench:
    """
    Operations over a channel.

    Attributes:
        ended: The name and the outcome of each operation, in the order of their ends.
        sent: How many methods were sent over channels that are closed.
    """

    def __init__(self) -> None:
        self.channel = FakeChannel()
        self.operations = Operations(cast(Any, self.channel))
        self.ended: list[tuple[str, object]] = []
        self.sent = 0

    def perform(self, name: str, batch: object = None) -> None:
        self.operations.perform(
            lambda channel: cast(FakeChannel, channel).send(name),
            lambda args: self.ended.append((name, args)),
            lambda error: self.ended.append((name, error)),
            batch,
        )

    def refuse(self, error: TransportError) -> None:
        """The broker closes the channel because of the oldest operation."""
        self.channel.channel_id = None
        assert self.operations.is_closed
        self.sent += len(self.channel.sent)
        self.channel = FakeChannel()
        self.operations.go_on(cast(Any, self.channel), error)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_many_are_under_way_and_each_gets_its_answer(bench: Bench) -> None:
    for name in "abc":
        bench.perform(name)
    assert bench.channel.sent == ["a", "b", "c"]
    for number in range(3):
        assert bench.operations.is_busy
        bench.channel.answer(number)
    assert bench.ended == [("a", (0,)), ("b", (1,)), ("c", (2,))]
    assert not bench.operations.is_busy


def test_so_many_are_under_way_at_most(bench: Bench) -> None:
    for number in range(MOST_UNDER_WAY + 2):
        bench.perform(str(number))
    assert len(bench.channel.sent) == MOST_UNDER_WAY
    bench.channel.answer()
    assert len(bench.channel.sent) == MOST_UNDER_WAY + 1
    while bench.operations.is_busy:
        bench.channel.answer()
    assert len(bench.ended) == MOST_UNDER_WAY + 2


def test_what_came_behind_an_error_is_sent_again_in_order(bench: Bench) -> None:
    for name in "abcd":
        bench.perform(name)
    bench.channel.answer()
    error = AccessRefused("no")
    bench.refuse(error)
    assert bench.channel.sent == ["c"]
    bench.perform("e")
    while bench.operations.is_busy:
        bench.channel.answer()
    assert bench.channel.sent == ["c", "d", "e"]
    assert bench.ended == [("a", ()), ("b", error), ("c", ()), ("d", ()), ("e", ())]


def test_where_each_is_refused_each_is_sent_about_once(bench: Bench) -> None:
    for number in range(300):
        bench.perform(str(number))
    while bench.operations.is_busy:
        bench.refuse(AccessRefused("no"))
    assert [name for name, _error in bench.ended] == [str(number) for number in range(300)]
    assert bench.sent <= 300 + MOST_UNDER_WAY


def test_each_success_after_an_error_allows_one_more(bench: Bench) -> None:
    for number in range(10):
        bench.perform(str(number))
    bench.refuse(AccessRefused("no"))
    sent = []
    while bench.operations.is_busy:
        sent.append(len(bench.channel.sent))
        bench.channel.answer()
    assert sent[:5] == [1, 3, 5, 7, 9]


def test_a_batch_ends_with_its_first_error(bench: Bench) -> None:
    batch = object()
    for name in "abc":
        bench.perform(name, batch)
    bench.perform("other")
    bench.channel.answer()
    error = AccessRefused("no")
    bench.refuse(error)
    assert bench.channel.sent == ["other"]
    bench.channel.answer()
    assert bench.ended == [("a", ()), ("b", error), ("other", ())]


def test_an_error_of_a_callback_leaves_the_others_waiting(bench: Bench) -> None:
    def fail(error: TransportError) -> None:
        raise ConnectionLost(str(error))

    bench.operations.perform(lambda channel: cast(FakeChannel, channel).send("a"), lambda args: None, fail)
    bench.perform("b")
    with pytest.raises(ConnectionLost, match="no"):
        bench.refuse(AccessRefused("no"))
    assert bench.ended == []


def test_a_channel_that_closes_without_an_operation_is_replaced(bench: Bench) -> None:
    bench.refuse(AccessRefused("late"))
    bench.perform("a")
    bench.channel.answer()
    assert bench.ended == [("a", ())]
