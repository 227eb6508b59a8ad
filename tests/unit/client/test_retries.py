"""When a call that failed is sent again."""

from __future__ import annotations

import itertools
import math

import pytest

from jsonrpc_amqp.client.pending import Pending
from jsonrpc_amqp.client.retries import FIRST_DELAY, LEAST_SECONDS, LONGEST_DELAY, Retries
from jsonrpc_amqp.errors import CallTimeout, Unroutable

from .fakes import call

ERROR = Unroutable("no queue")
NOW = 1000.0


def retries(pending: Pending | None = None, part: float = 1.0) -> Retries:
    """Return retries that wait for ``part`` of the longest delay, and number calls from 100 on."""

    def uniform(low: float, high: float) -> float:
        assert (low, high) == (0.5, 1)
        return part

    return Retries(Pending() if pending is None else pending, itertools.count(100), uniform)


def test_scheduled_call_is_pending_under_a_new_number() -> None:
    pending = Pending()
    made = call(number="1", sent=True, now=NOW)
    assert retries(pending).schedule(made, ERROR, NOW)
    assert (made.number, made.sent, made.failures) == ("100", False, 1)
    assert (pending.get("100"), pending.get("1")) == (made, None)


@pytest.mark.parametrize(
    ("failures", "part", "delay"),
    [
        (0, 1.0, 0.1),
        (0, 0.5, 0.05),
        (1, 1.0, 0.2),
        (2, 1.0, 0.4),
        (4, 1.0, 1.6),
        (5, 1.0, 2.0),
        (5, 0.5, 1.0),
        # A power that is a float still.
        (5000, 1.0, 2.0),
    ],
)
def test_delay_doubles_up_to_two_seconds(failures: int, part: float, delay: float) -> None:
    made = call(now=NOW)
    made.failures = failures
    waiting = retries(part=part)
    assert waiting.schedule(made, ERROR, NOW)
    assert waiting.next_alarm == pytest.approx(NOW + delay)


@pytest.mark.parametrize("part", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("timeout", [0.5, 3.0, 30.0])
def test_attempts_go_on_until_shortly_before_the_deadline(timeout: float, part: float) -> None:
    waiting, made, now, delays = retries(part=part), call(timeout=timeout, now=NOW), NOW, list[float]()
    while waiting.schedule(made, ERROR, now):
        delays.append(waiting.next_alarm - now)
        # The reply has at least as long as was waited for the attempt.
        assert made.deadline - now >= 2 * delays[-1] - 1e-6
        now += delays[-1]
        assert waiting.due(now) == ([made], [])
    assert made.deadline - now <= 2 * LEAST_SECONDS
    # No hot loop: halving what is left ends soon.
    assert len(delays) < 45


def test_constants_are_those_of_the_table() -> None:
    assert (FIRST_DELAY, LONGEST_DELAY, LEAST_SECONDS) == (0.1, 2.0, 0.1)


@pytest.mark.parametrize(("timeout", "scheduled"), [(0.19, False), (0.21, True), (None, True)])
def test_no_attempt_begins_in_the_last_tenth_of_a_second(timeout: float | None, scheduled: bool) -> None:
    pending = Pending()
    made = call(number="1", sent=True, timeout=timeout, now=NOW)
    waiting = retries(pending)
    assert waiting.schedule(made, ERROR, NOW) is scheduled
    assert len(pending) == (1 if scheduled else 0)
    if not scheduled:
        assert (made.number, made.sent, made.failures, waiting.next_alarm) == ("1", True, 0, math.inf)


def test_due_calls_come_once_in_order() -> None:
    waiting = retries()
    slow, quick, later = call(now=NOW), call(now=NOW), call(now=NOW)
    slow.failures = 2
    later.failures = 4
    for made in (slow, quick, later):
        waiting.schedule(made, ERROR, NOW)
    assert waiting.due(NOW) == ([], [])
    assert waiting.due(NOW + 1.0) == ([quick, slow], [])
    assert waiting.next_alarm == pytest.approx(NOW + 1.6)
    assert waiting.due(NOW + 2.0) == ([later], [])
    assert (waiting.due(math.inf), waiting.next_alarm) == (([], []), math.inf)


def test_a_call_whose_time_to_be_sent_comes_late_ends_with_the_error_that_it_has() -> None:
    pending = Pending()
    waiting = retries(pending)
    made, ended = call(now=NOW, timeout=1.0), call(now=NOW, timeout=1.0)
    for each in (made, ended):
        assert waiting.schedule(each, ERROR, NOW)
    pending.pop(ended.number)
    assert waiting.due(NOW + 0.95) == ([], [made])  # a busy machine
    assert len(pending) == 0
    assert str(made.last_error) == f"{ERROR} (attempt 1)"
    assert made.last_error.may_have_run == ERROR.may_have_run


def test_last_error_names_the_one_before() -> None:
    made = call(now=NOW)
    retries().schedule(made, Unroutable("no queue", may_have_run=True), NOW)
    error = made.with_attempts(CallTimeout("no answer", may_have_run=False))
    assert type(error) is CallTimeout
    assert str(error) == "no answer (attempt 2; the one before: no queue)"
    assert error.may_have_run
