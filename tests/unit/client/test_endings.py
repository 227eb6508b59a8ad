"""Calls end with errors, unless another attempt follows."""

from __future__ import annotations

import itertools
import threading
from collections import Counter

import pytest

from jsonrpc_amqp.client.addresses import Addresses, Routing
from jsonrpc_amqp.client.call import SendOptions
from jsonrpc_amqp.client.endings import Endings, lost
from jsonrpc_amqp.client.inspections import Inspections
from jsonrpc_amqp.client.lifecycle import Lifecycle
from jsonrpc_amqp.client.pending import Pending
from jsonrpc_amqp.client.replies import Replies
from jsonrpc_amqp.client.retries import Retries
from jsonrpc_amqp.client.timeouts import TimeoutReports
from jsonrpc_amqp.errors import (
    AccessRefused,
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    EncodeError,
    JsonRpcAmqpError,
    MalformedReply,
    MaybeRejected,
    MessageRejected,
    MessageTooLarge,
    NotConnected,
    TransportError,
    Unroutable,
)
from jsonrpc_amqp.wire.reply_checks import ReplyChecks

from .fakes import EXCHANGE, FakeCall, FakeSession, call, is_owned

SAFE, IDEMPOTENT = SendOptions(retry="safe"), SendOptions(retry="idempotent")


class Ending:
    """Endings, and what they are made of."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.life = Lifecycle(self.lock)
        self.pending = Pending()
        self.retries = Retries(self.pending, itertools.count(100))
        self.inspections = Inspections(lambda service: f"{service}_req")
        self.stats: Counter[str] = Counter()
        self.woken: list[bool] = []
        addresses = Addresses(Routing(EXCHANGE), None)
        replies = Replies(self.pending, addresses, ReplyChecks(EXCHANGE, None), None, self.stats)
        self.endings = Endings(
            self.lock,
            self.life,
            self.retries,
            TimeoutReports(self.inspections),
            replies,
            wake=self._wake,
            stats=self.stats,
        )

    def holds_lock(self) -> bool:
        return is_owned(self.lock)

    def _wake(self) -> None:
        self.woken.append(self.holds_lock())


def test_call_without_retry_ends_at_once() -> None:
    made, failed, error = Ending(), call(), Unroutable("no queue")
    made.endings.fail(failed, error)
    assert failed.ends == [error]
    assert (made.stats, made.woken, len(made.pending)) == ({}, [], 0)


def test_call_that_is_retried_has_no_end_yet() -> None:
    made, failed = Ending(), call(options=SAFE, sent=True)
    made.endings.fail(failed, Unroutable("no queue"))
    assert (failed.ends, failed.number, failed.sent) == ([], "100", False)
    assert (made.stats, made.woken, len(made.pending)) == ({"retries": 1}, [False], 1)


@pytest.mark.parametrize(
    ("error", "safe", "idempotent"),
    [
        (Unroutable("x"), True, True),
        (NotConnected("x"), True, True),
        (ConnectionLost("x"), False, True),
        (CallTimeout("x"), False, False),
        (CallTimeout("x", may_have_run=False), True, True),
        (MalformedReply("x"), False, False),
        (AccessRefused("x"), False, False),
        (MessageTooLarge("x"), False, False),
        (MessageRejected("x"), False, False),
        (MaybeRejected("x"), False, False),
        (ClientClosed("x"), False, False),
        (EncodeError("x"), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_which_errors_another_attempt_follows(error: JsonRpcAmqpError, safe: bool, idempotent: bool) -> None:
    for options, retried in ((SAFE, safe), (IDEMPOTENT, idempotent), (SendOptions(), False)):
        made, failed = Ending(), call(options=options)
        made.endings.fail(failed, error)
        assert (failed.ends == []) is retried


@pytest.mark.parametrize("why", ["closed", "gave up", "no time"])
def test_no_attempt_follows(why: str) -> None:
    made, failed, error = Ending(), call(options=SAFE, timeout=0.05 if why == "no time" else 30.0), Unroutable("x")
    made.life.closed = why == "closed"
    made.life.gave_up = why == "gave up"
    made.endings.fail(failed, error)
    assert failed.ends == [error]
    assert (made.stats, made.woken, len(made.pending)) == ({}, [], 0)


def test_final_error_names_the_one_before() -> None:
    made, failed = Ending(), call(options=SAFE)
    made.endings.fail(failed, Unroutable("no queue"))
    made.endings.fail_for_good(failed, ClientClosed("closed"))
    assert str(failed.error) == "closed (attempt 2; the one before: no queue)"


def test_all_calls_end_those_with_callbacks_last_and_without_the_lock() -> None:
    made, ended = Ending(), list[FakeCall]()

    def note(each: FakeCall) -> None:
        assert not made.holds_lock()
        ended.append(each)

    calls = [call(has_callbacks=has) for has in (True, False, True, False)]
    for each in calls:
        each.on_end = note
    made.endings.fail_all((each, Unroutable("x")) for each in calls)
    assert ended == [calls[1], calls[3], calls[0], calls[2]]


def test_error_of_a_deadline() -> None:
    made = Ending()
    assert str(made.endings.timeout(call(timeout=5.0))) == "no connection to the broker within 5 s. Nothing was sent"
    made.life.failure = AccessRefused("no")
    assert "the last attempt: no" in str(made.endings.timeout(call()))
    made.life.session = FakeSession()
    assert "could not be called" in str(made.endings.timeout(call()))
    made.inspections.refresh(made.life.session, "S")
    assert "did not say in time" in str(made.endings.timeout(call(sent=True)))
    assert made.stats["timeouts"] == 4


@pytest.mark.parametrize(
    ("is_notification", "text"),
    [(False, "gone; the method may have run"), (True, "gone; the broker may have taken it")],
)
def test_error_of_a_lost_connection(is_notification: bool, text: str) -> None:
    error: TransportError = lost(call(options=SendOptions(is_notification=is_notification)), NotConnected("gone"))
    assert (type(error), str(error), error.may_have_run) == (ConnectionLost, text, True)
