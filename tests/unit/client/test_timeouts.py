"""What the error of a call says that reached its deadline."""

from __future__ import annotations

import pytest

from jsonrpc_amqp.amqp.base import QueueFacts
from jsonrpc_amqp.client.call import SendOptions
from jsonrpc_amqp.client.inspections import Inspections
from jsonrpc_amqp.client.timeouts import TimeoutReports, not_connected, within_text
from jsonrpc_amqp.errors import AccessRefused, Blocked, CallTimeout, NotConnected, TopologyMismatch, TransportError

from .fakes import SERVICE, Clock, FakeSession, call

RAN = "the method may have run, or may still"
SLOW = f"the broker did not say in time how many consumers queue 'S_req' has; {RAN}"
BLOCKED = f"the broker takes no messages now (a memory or disk alarm?), and may not have read this one yet; {RAN}"
MISSING = TopologyMismatch("no queue")
HELD = "(servers may hold more, received and not begun)"
TWO = f"queue 'S_req' has 2 consumers and 1 message ready {HELD}: {RAN}"


class Reports:
    """Reports with a clock of the test's, and the session that is inspected."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.session = FakeSession()
        self.inspections = Inspections(lambda service: f"{service}_req", self.clock)
        self.reports = TimeoutReports(self.inspections, self.clock)

    def inspect(self, *, after: float = 0.0) -> None:
        self.clock.now += after
        self.inspections.refresh(self.session, SERVICE)

    def reply(self, facts: QueueFacts | TransportError, *, to: int = -1) -> None:
        self.session.inspections[to][1](facts)

    def text(self, *, after: float = 0.0) -> str:
        self.clock.now += after
        error = self.reports.error(call(timeout=5.0, sent=True, now=self.clock.now), self.session, None, "")
        begin = "no answer from 'S' within 5 s: "
        assert str(error).startswith(begin)
        return str(error).removeprefix(begin)


# -- how the queue looks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (QueueFacts(1, 2), TWO),
        (
            QueueFacts(0, 1),
            f"queue 'S_req' has 1 consumer and 0 messages ready {HELD}: {RAN}",
        ),
        (QueueFacts(3, 0), "queue 'S_req' has 0 consumers and 3 messages ready: no server consumes from it now"),
        (MISSING, "there is no queue 'S_req' now; the method may have run, where its servers use another"),
        (
            NotConnected("the node of that queue is down"),
            f"how many consumers queue 'S_req' has is not known (the node of that queue is down); {RAN}",
        ),
    ],
)
def test_facts_are_reported(facts: QueueFacts | TransportError, expected: str) -> None:
    made = Reports()
    made.inspect()
    made.reply(facts)
    assert made.text() == expected


def test_queue_that_was_not_inspected() -> None:
    assert Reports().text() == RAN


def test_broker_that_did_not_reply_in_time_is_named() -> None:
    made = Reports()
    made.inspect()
    assert made.text(after=2.0) == SLOW


def test_broker_that_takes_no_messages_is_named() -> None:
    made = Reports()
    made.inspect()
    made.session.congested = True
    assert made.text(after=2.0) == BLOCKED
    made.reply(QueueFacts(1, 2))
    assert made.text() == TWO
    assert made.text(after=3.125) == BLOCKED


@pytest.mark.parametrize(("age", "expected"), [(3.0, TWO), (3.125, SLOW)])
def test_facts_that_are_too_old_are_not_reported(age: float, expected: str) -> None:
    made = Reports()
    made.inspect()
    made.reply(QueueFacts(1, 2))
    assert made.text(after=age) == expected


def test_age_of_facts_counts_from_the_reply() -> None:
    made = Reports()
    made.inspect()
    made.clock.now += 2.5
    made.reply(QueueFacts(1, 2))
    assert made.text(after=2.5) == TWO


def test_earlier_facts_serve_until_there_is_another_reply() -> None:
    made = Reports()
    made.inspect()
    made.reply(QueueFacts(1, 2))
    made.inspect(after=1.0)
    assert made.text() == TWO
    assert made.text(after=2.5) == SLOW
    made.reply(QueueFacts(0, 0))
    assert made.text() == "queue 'S_req' has 0 consumers and 0 messages ready: no server consumes from it now"


def test_next_connection_is_asked_at_once() -> None:
    made = Reports()
    made.inspect()
    made.reply(QueueFacts(1, 2))
    made.inspections.reset()
    assert made.text() == RAN
    made.inspect()
    assert len(made.session.inspections) == 2


def test_reply_of_the_connection_before_is_not_reported() -> None:
    made = Reports()
    made.inspect()
    made.inspections.reset()
    made.inspect()
    made.reply(MISSING, to=0)
    assert made.text() == SLOW


def test_broker_that_takes_longer_than_the_time_between_inspections_is_heard() -> None:
    made = Reports()
    made.inspect()
    for _ in range(5):
        made.inspect(after=0.3)
        made.reply(QueueFacts(1, 2), to=-2)  # of the inspection before
        assert made.text() == TWO


# -- other ends -----------------------------------------------------------------------------------------------------


def test_no_answer() -> None:
    made = Reports()
    error = made.reports.error(call(timeout=None, sent=True), None, None, ". A hint")
    assert type(error) is CallTimeout
    assert (str(error), error.may_have_run) == (f"no answer from 'S': {RAN}. A hint", True)


@pytest.mark.parametrize(
    ("late", "hint"),
    [(0.875, ""), (6.25, ". This process or its threads stood still: the call ends 6.2 s after its deadline")],
)
def test_a_call_that_ends_late_says_that_this_process_stood_still(late: float, hint: str) -> None:
    made = Reports()
    late_call = call(timeout=5.0, sent=True, now=made.clock.now - 5.0 - late)
    assert str(made.reports.error(late_call, None, None, "")) == f"no answer from 'S' within 5 s: {RAN}{hint}"


def test_notification_that_was_not_confirmed() -> None:
    made = Reports()
    told = call(timeout=0.25, sent=True, options=SendOptions(is_notification=True))
    error = made.reports.error(told, made.session, None, ". A hint")
    assert type(error) is CallTimeout
    assert str(error) == "the broker did not confirm the notification for 'S' within 0.25 s"
    assert error.may_have_run
    made.session.congested = True
    blocked = made.reports.error(told, made.session, None, "")
    assert str(blocked).startswith(f"{error}: the broker takes no messages now")


@pytest.mark.parametrize(
    ("has_session", "congested", "failure", "kind", "text"),
    [
        (False, False, None, NotConnected, "no connection to the broker within 5 s. Nothing was sent"),
        (
            False,
            False,
            AccessRefused("no"),
            NotConnected,
            "no connection to the broker within 5 s; the last attempt: no. Nothing was sent",
        ),
        (
            True,
            True,
            None,
            Blocked,
            "the broker took no messages within 5 s (a memory or disk alarm?); nothing was sent",
        ),
        (True, False, None, CallTimeout, "'S' could not be called within 5 s; nothing was sent"),
    ],
)
def test_call_that_was_not_sent(
    has_session: bool, congested: bool, failure: TransportError | None, kind: type[TransportError], text: str
) -> None:
    made = Reports()
    made.session.congested = congested
    session = made.session if has_session else None
    error = made.reports.error(call(timeout=5.0), session, failure, ". A hint")
    assert type(error) is kind
    assert (str(error), error.may_have_run) == (text, False)


@pytest.mark.parametrize(
    ("timeout", "text"),
    [
        (None, ""),
        (5, " within 5 s"),
        (0.5, " within 0.5 s"),
        (1.23456, " within 1.23 s"),
        (3600.0, " within 3.6e+03 s"),
    ],
)
def test_timeout_in_a_sentence(timeout: float | None, text: str) -> None:
    assert within_text(timeout) == text
    assert str(not_connected(timeout, None)) == f"no connection to the broker{text}. Nothing was sent"
