"""Calls without an end yet: paired by number, looked at shortly before their deadline, ended by it."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jsonrpc_amqp.client.call import Call, WaitingCall
from jsonrpc_amqp.client.pending import Pending


def waiting(number: int = 1, *, now: float = 0.0, timeout: float | None = 30.0, service: str = "S") -> WaitingCall:
    deadline = math.inf if timeout is None else now + timeout
    call = WaitingCall(service, b"{}", qid=str(number), deadline=deadline, timeout=timeout)
    call.number = str(number)
    call.sent = True
    return call


def holding(*calls: Call) -> Pending:
    pending = Pending()
    for call in calls:
        pending.add(call)
    return pending


# -- by number ------------------------------------------------------------------------------------------------------


def test_answer_takes_out_its_call_and_no_other() -> None:
    one, two = waiting(1), waiting(2)
    pending = holding(one, two)
    assert pending.pop("2") is two
    assert (one.number in pending, two.number in pending, len(pending)) == (True, False, 1)


@pytest.mark.parametrize("number", ["2", "", "01", "1 ", None])
def test_answer_to_an_unknown_number_takes_out_nothing(number: str | None) -> None:
    pending = holding(waiting(1))
    assert pending.pop(number) is None
    assert len(pending) == 1


def test_second_answer_finds_nobody() -> None:
    pending = holding(waiting(1))
    pending.pop("1")
    assert pending.pop("1") is None


def test_take_gives_those_that_fit() -> None:
    calls = [waiting(1), waiting(2, service="T"), waiting(3)]
    pending = holding(*calls)
    assert pending.take(lambda call: call.service == "S") == [calls[0], calls[2]]
    assert len(pending) == 1
    assert calls[1].number in pending


# -- by deadline ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "inspect_at"),
    [
        (30.0, 28.0),
        (4.0, 2.0),
        # Not before a quarter of a short timeout has passed.
        (2.0, 0.5),
        (0.1, 0.025),
    ],
)
def test_queue_is_inspected_before_the_deadline(timeout: float, inspect_at: float) -> None:
    call = waiting(timeout=timeout)
    pending = holding(call)
    assert pending.next_alarm == pytest.approx(inspect_at)
    assert pending.due(inspect_at - 0.01) == ([], [])
    assert pending.due(inspect_at + 0.01) == ([call], [])
    assert call.number in pending
    assert pending.next_alarm == timeout
    assert pending.due(timeout - 0.01) == ([], [])
    assert pending.due(timeout) == ([], [call])
    assert call.number not in pending
    assert pending.next_alarm == math.inf


def test_queue_of_a_parked_call_is_inspected_once_it_was_sent() -> None:
    call = waiting(timeout=1.0)
    call.sent = False
    pending = holding(call)
    assert pending.due(0.25) == ([], [])
    assert pending.next_alarm == pytest.approx(0.25 + 0.75 / 2)
    call.sent = True
    assert pending.due(0.7) == ([call], [])
    assert pending.due(1.0) == ([], [call])


def test_call_that_stays_parked_ends_at_its_deadline() -> None:
    call = waiting(timeout=1.0)
    call.sent = False
    pending, looks = holding(call), 0
    while (now := pending.next_alarm) < 1.0:
        assert not pending.due(now)[1]
        looks += 1
    assert pending.due(1.0) == ([], [call])
    assert looks < 12


def test_late_look_finds_both() -> None:
    call = waiting()
    assert holding(call).due(1000.0) == ([call], [call])


def test_no_time_at_all_is_due_at_once() -> None:
    call = waiting(now=5.0, timeout=0.0)
    pending = holding(call)
    assert pending.next_alarm == 5.0
    assert pending.due(5.0) == ([call], [call])


def test_calls_end_in_the_order_of_their_deadlines() -> None:
    late, soon = waiting(1, timeout=20.0), waiting(2, timeout=10.0)
    pending = holding(late, soon)
    assert pending.due(100.0) == ([soon, late], [soon, late])


def test_call_that_waits_for_ever_is_never_due() -> None:
    call = waiting(timeout=None)
    pending = holding(call)
    assert pending.next_alarm == math.inf
    assert pending.due(1e300) == ([], [])
    assert call.number in pending


@pytest.mark.parametrize("at", [0.0, 29.7])
def test_answered_call_is_not_due(at: float) -> None:
    pending = holding(waiting())
    pending.due(at)
    pending.pop("1")
    assert pending.due(30.0) == ([], [])


class Model(RuleBasedStateMachine):
    """Calls come, are answered, and expire: against a table that is searched as a whole each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.count = 0
        self.pending = Pending()
        self.calls: dict[str, Call] = {}
        self.looked_at: set[str] = set()

    def events(self, call: Call) -> tuple[float, float]:
        """When the queue is looked at, and when the call ends."""
        assert call.timeout is not None
        return call.deadline - min(2.0, call.timeout * 0.75), call.deadline

    def timed(self) -> list[Call]:
        return [call for call in self.calls.values() if call.timeout is not None]

    def take_in(self, timeout: float | None) -> Call:
        self.count += 1
        call = waiting(self.count, now=self.now, timeout=timeout)
        self.pending.add(call)
        self.calls[call.number] = call
        return call

    @rule(timeout=st.none() | st.sampled_from([0.0, 0.25, 1.0, 3.0, 30.0, 1e9]))
    def call(self, timeout: float | None) -> None:
        self.take_in(timeout)

    @rule(timeout=st.sampled_from([1.0, 30.0]))
    def many_answered_calls(self, timeout: float) -> None:
        # Enough to have what they left behind thrown away.
        for _ in range(1100):
            self.answered(self.take_in(timeout))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.answered(self.calls[data.draw(st.sampled_from(sorted(self.calls)))])

    def answered(self, call: Call) -> None:
        assert self.pending.pop(call.number) is self.calls.pop(call.number)

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0, 29.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        near, expired = self.pending.due(self.now)
        probed = {call.number for call in self.timed() if self.events(call)[0] <= self.now} - self.looked_at
        ended = {call.number for call in self.timed() if self.events(call)[1] <= self.now}
        assert sorted(call.number for call in near) == sorted(probed)
        assert sorted(call.number for call in expired) == sorted(ended)
        self.looked_at |= probed
        for number in ended:
            del self.calls[number]

    @rule(odd=st.booleans())
    def connection_is_lost(self, odd: bool) -> None:
        lost = [call for call in self.calls.values() if int(call.number) % 2 == odd]
        assert self.pending.take(lambda call: int(call.number) % 2 == odd) == lost
        for call in lost:
            del self.calls[call.number]

    @invariant()
    def no_alarm_comes_late(self) -> None:
        # Nor needlessly often: an alarm is at most one that an answered call left behind.
        due = [self.events(call)[call.number in self.looked_at] for call in self.timed()]
        assert self.pending.next_alarm <= min(due, default=math.inf)

    @invariant()
    def what_answered_calls_leave_behind_is_bounded(self) -> None:
        assert len(self.pending) == len(self.calls)
        assert len(self.pending._alarms) <= 2 * max(len(self.calls), 1) + 1100 + 1024


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


def test_call_that_is_cancelled_while_others_are_taken_is_not_taken() -> None:
    first, second = waiting(1), waiting(2)
    pending = holding(first, second)

    def cancel_the_first(call: Call) -> bool:  # as a signal handler does
        pending.drop("1")
        return True

    assert pending.take(cancel_the_first) == [second]
    assert len(pending) == 0


@pytest.mark.parametrize("by_take", [False, True])
def test_many_calls_that_end_at_once_leave_little_behind(by_take: bool) -> None:
    pending = Pending()
    for number in range(5_000):
        pending.add(waiting(number, timeout=40.0))
    last = waiting(5_000, timeout=30.0)
    pending.add(last)
    if by_take:
        assert len(pending.take(lambda call: call is not last)) == 5_000
    else:
        for number in range(5_000):
            assert pending.drop(str(number)) is not None
        assert pending.drop("0") is None
    assert len(pending._alarms) <= 1_026
    assert pending.due(30.0) == ([last], [last])


@pytest.mark.parametrize("looked_at", [False, True])
def test_many_answered_calls_do_not_pile_up_and_hide_none(looked_at: bool) -> None:
    call = waiting(0, timeout=30.0)
    pending = holding(call)
    if looked_at:
        assert pending.due(29.75) == ([call], [])
    for number in range(1, 5_000):
        pending.add(waiting(number, timeout=40.0))
        pending.pop(str(number))
    assert len(pending._alarms) < 2_000
    assert pending.due(30.0) == ([] if looked_at else [call], [call])
