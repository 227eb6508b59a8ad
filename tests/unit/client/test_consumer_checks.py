"""Which calls are sent that need consumers, and how long what the broker said serves."""

from __future__ import annotations

import logging
import math

import pytest

from jsonrpc_amqp.amqp.base import QueueFacts, Session
from jsonrpc_amqp.client.consumer_checks import (
    FRESH_SECONDS,
    PATIENCE_SECONDS,
    UNKNOWN_SECONDS,
    ConsumerChecks,
)
from jsonrpc_amqp.client.inspections import SHARED_SECONDS, Inspections
from jsonrpc_amqp.errors import AccessRefused, NoConsumers, TopologyMismatch, TransportError

from .fakes import SERVICE, Clock, FakeSession

ONE, NONE = QueueFacts(0, 1), QueueFacts(3, 0)
REFUSED = AccessRefused("no permission")


class Checking:
    """Checks with a clock of the test's, and what they reported."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.session = FakeSession()
        self.replies: list[tuple[Session, str]] = []
        inspections = Inspections(lambda service: f"{service}_req", self.clock)
        self.checks = ConsumerChecks(inspections, self.clock)

    def may_send(self, *, after: float = 0.0, service: str = SERVICE) -> bool:
        self.clock.now += after
        return self.checks.may_send(self.session, service, lambda *reply: self.replies.append(reply))

    def reply(self, facts: QueueFacts | TransportError) -> NoConsumers | None:
        self.session.inspections[-1][1](facts)
        return self.checks.conclude(SERVICE)

    @property
    def asked(self) -> int:
        return len(self.session.inspections)


def test_first_call_waits_for_the_reply_and_others_wait_along() -> None:
    made = Checking()
    assert not made.may_send()
    assert not made.may_send(after=0.3)
    assert [queue for queue, _found in made.session.inspections] == ["S_req"]
    assert made.reply(ONE) is None
    assert made.replies == [(made.session, SERVICE)]
    assert made.may_send()
    assert made.asked == 1 + 1  # the reply is older than a quarter of a second: the next one is on its way


def test_each_service_is_asked_for() -> None:
    made = Checking()
    made.may_send()
    assert not made.may_send(service="T")
    assert [queue for queue, _found in made.session.inspections] == ["S_req", "T_req"]


def test_no_call_waits_while_calls_are_made() -> None:
    made = Checking()
    made.may_send()
    made.reply(ONE)
    for _ in range(90):
        before = made.asked
        assert made.may_send(after=SHARED_SECONDS / 8)
        if made.asked > before:
            made.session.inspections[-1][1](ONE)
    assert made.asked == 1 + 10  # after more than a quarter of a second each
    assert made.replies == [(made.session, SERVICE)]


@pytest.mark.parametrize(("age", "serves"), [(FRESH_SECONDS, True), (FRESH_SECONDS + 0.125, False)])
def test_how_long_a_reply_serves(age: float, serves: bool) -> None:
    made = Checking()
    made.may_send()
    made.reply(ONE)
    assert made.may_send(after=age) is serves
    assert made.asked == 2


def test_where_there_are_none_the_error_says_so() -> None:
    made = Checking()
    made.may_send()
    error = made.reply(NONE)
    assert type(error) is NoConsumers
    assert str(error) == (
        "no server of 'S' is there: queue 'S_req' has no consumers. The call was not sent, so the method did not run. "
        'Start a server, check the name, or have calls wait for one (retry="safe" or no_consumers="wait")'
    )
    assert not error.may_have_run


def test_each_call_after_that_asks_again() -> None:
    made = Checking()
    for expected in range(1, 4):
        assert not made.may_send()
        assert made.asked == expected
        assert made.reply(NONE) is not None
    assert not made.may_send()
    assert made.reply(ONE) is None
    assert made.may_send()


def test_servers_that_go_away_are_noticed_by_the_next_reply() -> None:
    made = Checking()
    made.may_send()
    made.reply(ONE)
    assert made.may_send(after=0.5)
    made.session.inspections[-1][1](NONE)
    assert not made.may_send()
    assert made.reply(NONE) is not None


# -- the broker does not say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [REFUSED, TopologyMismatch("no queue"), TransportError("the node is down")])
def test_calls_are_sent_for_some_time_where_the_broker_does_not_say(error: TransportError) -> None:
    made = Checking()
    made.may_send()
    assert made.reply(error) is None
    assert made.may_send()
    assert made.may_send(after=UNKNOWN_SECONDS - 0.125)
    assert made.asked == 1
    assert not made.may_send(after=0.25)
    assert made.asked == 2
    assert made.reply(NONE) is not None
    assert not made.may_send()


def test_calls_are_sent_where_the_broker_does_not_reply() -> None:
    made = Checking()
    assert made.checks.next_alarm == math.inf
    made.may_send()
    due = made.clock.now + PATIENCE_SECONDS
    assert made.checks.next_alarm == due
    assert made.checks.overdue(due - 0.125) == []
    assert made.checks.overdue(due) == [SERVICE]
    assert (made.checks.overdue(due), made.checks.next_alarm) == ([], math.inf)
    assert made.may_send(after=PATIENCE_SECONDS)
    assert made.asked == 1


def test_a_reply_that_comes_late_counts() -> None:
    made = Checking()
    made.may_send()
    made.clock.now += PATIENCE_SECONDS
    made.checks.overdue(made.clock.now)
    assert made.reply(NONE) is not None  # of calls that still wait
    assert not made.may_send()


def test_next_connection_is_asked_anew() -> None:
    made = Checking()
    made.may_send()
    made.reply(REFUSED)
    made.may_send(service="T")
    made.checks.reset()
    assert made.checks.next_alarm == math.inf
    made.session = FakeSession()
    assert not made.may_send()
    assert made.asked == 1


def test_it_is_logged_once_for_each_service(caplog: pytest.LogCaptureFixture) -> None:
    made = Checking()
    for _ in range(2):
        made.may_send(after=UNKNOWN_SECONDS + 1)
        made.reply(REFUSED)
    made.may_send(service="T")
    made.checks.overdue(made.clock.now + PATIENCE_SECONDS)
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        made.checks.log_warnings()
        made.checks.log_warnings()
    first, second = caplog.messages
    assert first == (
        "how many consumers queue 'S_req' has is not known (no permission): while this is so, calls of 'S' are sent as "
        'with no_consumers="wait"; this is logged once'
    )
    assert "queue 'T_req' has is not known (the broker did not say within 0.5 s)" in second
