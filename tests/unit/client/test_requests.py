"""Requests: a call is sent or parked, paired with its reply, and ends exactly once, without the lock held."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Delivery, QueueFacts, Returned
from jsonrpc_amqp.client.addresses import Routing, resolve_routing
from jsonrpc_amqp.client.call import Call, SendOptions
from jsonrpc_amqp.client.reply_bindings import MOST_AT_SET_UP
from jsonrpc_amqp.errors import (
    AccessRefused,
    CallTimeout,
    ClientClosed,
    ConnectionLost,
    EncodeError,
    InvalidName,
    JsonRpcAmqpError,
    MaybeRejected,
    NoConsumers,
    NotConnected,
    Overloaded,
    TooManyPending,
    TopologyMismatch,
    TransportError,
    Unroutable,
    WouldDeadlock,
)

from .fakes import (
    EXCHANGE,
    SERVICE,
    FakeCall,
    FakeSession,
    Rig,
    call,
    notification,
    reply_to,
)

SAFE, IDEMPOTENT = SendOptions(retry="safe"), SendOptions(retry="idempotent")
NEEDY, NEEDY_SAFE = SendOptions(needs_consumers=True), SendOptions(retry="safe", needs_consumers=True)
DIRECT = resolve_routing(EXCHANGE, route=None, reply="direct", queue=None)
BY_QUEUE = resolve_routing(EXCHANGE, route=None, reply=None, queue="q")


def connected(**more: Any) -> tuple[Rig, FakeSession]:
    """Return requests that are connected, with the replies of the service bound."""
    rig = Rig(**more)
    rig.requests.use(SERVICE)
    return rig, rig.open()


def returned(number: str | None) -> Returned:
    return Returned(312, "NO_ROUTE", EXCHANGE, f"{SERVICE}.request.c.7", number, None)


def test_a_reply_that_cannot_be_decoded_is_counted_and_its_call_waits() -> None:
    rig, session = connected()
    made = rig.submit()
    rig.requests.on_undecoded(session, Delivery(1, 1, False, EXCHANGE, "S.response.c.7", None), "too large")
    assert rig.requests.counts()["rejected_replies"] == 1
    assert made.ends == []
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    assert made.ends == [b"[1]"]


# -- submitting -----------------------------------------------------------------------------------------------------


def test_first_call_is_parked_and_has_the_transport_connect() -> None:
    rig = Rig()
    made = rig.submit()
    assert (rig.asked, made.sent, made.ends) == (["start"], False, [])
    session = rig.open()
    assert made.sent
    assert [message.correlation_id for message in session.published] == [made.number]
    assert session.asked == ["publish", "flush"]


def test_call_is_sent_at_once_where_there_is_a_session() -> None:
    rig, session = connected()
    session.asked.clear()
    made = rig.submit(body=b"[2]")
    assert (made.sent, session.asked, session.published[0].body) == (True, ["publish", "flush"], b"[2]")
    assert "start" not in rig.asked


@pytest.mark.parametrize(("pending", "flushes"), [(15, True), (16, False)])
def test_one_of_many_calls_waits_for_others_to_be_written(pending: int, flushes: bool) -> None:
    rig, session = connected()
    session.writes_soon = True
    for _ in range(pending - 1):
        rig.submit()
    session.asked.clear()
    rig.submit()
    assert ("flush" in session.asked) is flushes


def test_numbers_and_ids_are_never_used_twice() -> None:
    rig, _session = connected()
    assert len({rig.submit().number for _ in range(50)}) == 50
    assert len({rig.requests.new_id() for _ in range(50)}) == 50


def test_only_calls_with_callbacks_reclaim_the_connection() -> None:
    rig, _session = connected()
    rig.submit()
    assert rig.transport.runtime.asked == []
    rig.submit(has_callbacks=True)
    assert rig.transport.runtime.asked == ["reclaim"]


def test_transport_is_woken_where_something_is_due_before_the_next_tick() -> None:
    rig, _session = connected()
    rig.submit(timeout=100.0)
    rig.requests.on_tick(time.monotonic())
    rig.transport.asked.clear()
    rig.submit(timeout=200.0)
    assert rig.asked == []
    rig.submit(timeout=0.5)
    assert rig.asked == ["wake"]


def test_one_more_than_max_pending_is_not_taken() -> None:
    rig, session = connected(max_pending=2)
    first, second = rig.submit(), rig.submit()
    with pytest.raises(TooManyPending, match=r"^2 calls and notifications wait .*nothing was sent to 'S'"):
        rig.submit()
    assert len(session.published) == 2
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    rig.submit()
    assert (first.ends, second.ends, len(session.published)) == ([b"[1]"], [], 3)


def test_a_name_that_breaks_a_rule_is_refused_and_nothing_is_taken() -> None:
    rig = Rig()
    with pytest.raises(InvalidName):
        rig.submit(service="a b")
    assert (rig.asked, rig.requests.counts()["pending"]) == ([], 0)


def test_only_a_call_with_no_time_left_ends_when_it_is_submitted() -> None:
    rig, session = connected()
    late = rig.submit(timeout=0.0)
    assert isinstance(late.error, CallTimeout)
    assert late.error.may_have_run is False
    assert (session.published, rig.requests.counts()["pending"]) == ([], 0)


@pytest.mark.parametrize("parked", [False, True])
def test_what_amqp_cannot_express_ends_its_call_alone(parked: bool) -> None:
    rig = Rig()
    rig.requests.use(SERVICE)
    session = FakeSession()
    session.error = ValueError("no such type")
    if not parked:
        rig.open(session)
    bad, good = rig.submit(), rig.submit()
    if parked:
        rig.open(session)
    assert isinstance(bad.error, EncodeError)
    assert str(bad.error) == "AMQP has no form for the message: no such type"
    assert (good.sent, good.ends) == (True, [])
    assert rig.requests.counts()["pending"] == 1


def test_second_service_is_bound_before_its_first_call_leaves() -> None:
    rig, session = connected()
    first, second = rig.submit(service="T"), rig.submit(service="T")
    assert (len(session.binds), first.sent, second.sent) == (1, False, False)
    key, outcome = session.binds[0]
    assert key.startswith("T.response.guest-")
    outcome(None)
    assert (first.sent, second.sent, session.asked[-1]) == (True, True, "flush")


def test_notification_needs_no_binding() -> None:
    rig, session = connected()
    told = rig.submit(notification(service="T"))
    assert (told.sent, session.binds) == (True, [])


def test_refused_binding_ends_the_calls_of_its_service_alone() -> None:
    rig, session = connected()
    mine, other = rig.submit(service="T"), rig.submit(service="U")
    error = AccessRefused("no")
    session.binds[0][1](error)
    assert isinstance(mine.error, AccessRefused)
    assert mine.error is not error
    assert other.ends == []


def test_call_whose_binding_failed_is_sent_by_its_next_attempt_alone() -> None:
    rig, session = connected()
    made = rig.submit(service="T", options=SAFE)
    session.binds[0][1](TopologyMismatch("no exchange"))
    assert rig.requests._sender._parked == {}
    rig.requests.on_congested(session, False)
    assert len(session.binds) == 1
    rig.requests.on_tick(time.monotonic() + 0.2)
    session.binds[1][1](None)
    assert [message.correlation_id for message in session.published] == [made.number]


def test_binding_that_is_known_after_its_session_was_lost_changes_nothing() -> None:
    rig, session = connected()
    parked = rig.submit(service="T")
    rig.requests.on_lost(session, ConnectionLost("gone"))
    session.binds[0][1](ConnectionLost("gone"))
    assert parked.ends == []
    rig.open()
    assert parked.sent


# -- parking --------------------------------------------------------------------------------------------------------


def test_calls_are_parked_while_the_broker_takes_none() -> None:
    rig, session = connected()
    session.congested = True
    rig.requests.on_congested(session, True)
    made = rig.submit()
    assert session.published == []
    session.congested = False
    rig.requests.on_congested(session, False)
    assert made.sent
    assert session.asked[-1] == "flush"


def test_calls_that_a_session_no_longer_takes_leave_over_the_next() -> None:
    rig, session = connected()
    session.is_gone = True
    made = rig.submit()
    rig.requests.on_lost(session, ConnectionLost("gone"))
    assert (made.sent, made.ends) == (False, [])
    assert len(rig.open().published) == 1
    assert made.sent


def test_session_that_is_not_open_yet_gets_no_call() -> None:
    # Its calls would carry the addresses of the connection before.
    rig = Rig()
    made = rig.submit()
    rig.requests.plan()
    early = FakeSession()
    rig.requests.on_congested(early, False)
    assert (early.published, made.sent) == ([], False)
    rig.requests.on_open(early)
    assert made.sent


def test_parked_calls_leave_in_order() -> None:
    rig = Rig()
    made = [rig.submit() for _ in range(5)]
    session = rig.open()
    assert [message.correlation_id for message in session.published] == [each.number for each in made]


def test_calls_that_end_while_parked_do_not_pile_up() -> None:
    rig = Rig()
    for _ in range(3):
        rig.requests.waiter.expire(rig.submit())
    assert rig.requests._sender._parked == {}
    assert all(isinstance(each.error, NotConnected) for each in rig.ended)


# -- cancelling -----------------------------------------------------------------------------------------------------


def test_cancelled_calls_leave_room_for_others_at_once() -> None:
    rig = Rig(max_pending=10)
    made = [rig.submit() for _ in range(10)]
    for each in made:
        assert rig.requests.cancel(each)
    others = [rig.submit() for _ in range(10)]
    session = rig.open()
    assert [message.correlation_id for message in session.published] == [each.number for each in others]
    counts = rig.requests.counts()
    assert (counts["cancelled"], counts["pending"], rig.ended) == (10, 10, [])


def test_reply_to_a_cancelled_call_is_dropped_and_counted() -> None:
    rig, session = connected()
    made = rig.submit()
    assert rig.requests.cancel(made)
    assert rig.requests.counts()["pending"] == 0
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    counts = rig.requests.counts()
    assert (made.ends, counts["cancelled"], counts["dropped_replies"]) == ([], 1, 1)


def test_call_that_is_not_pending_is_not_cancelled() -> None:
    rig, session = connected()
    made = rig.submit()
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    assert not rig.requests.cancel(made)
    assert not rig.requests.cancel(call())  # it was not taken
    assert rig.requests.counts()["cancelled"] == 0


@pytest.mark.parametrize("is_due", [False, True])
def test_no_attempt_follows_once_a_call_is_cancelled(is_due: bool) -> None:
    rig, session = connected()
    made = rig.submit(options=SAFE)
    rig.requests.on_returned(session, returned(made.number))
    if is_due:  # it is parked then
        session.congested = True
        rig.requests.on_tick(time.monotonic() + 0.2)
        session.congested = False
    assert rig.requests.cancel(made)
    rig.requests.on_tick(time.monotonic() + 0.2)
    rig.requests.on_congested(session, False)
    assert (len(session.published), made.ends, rig.requests.counts()["pending"]) == (1, [], 0)


@pytest.mark.parametrize("by_forget", [False, True])
def test_call_that_is_given_up_while_it_fails_has_no_other_attempt(
    by_forget: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, session = connected()
    made = rig.submit(options=SAFE)
    fail = rig.requests.endings.fail

    def give_up_and_fail(failed: Call, error: JsonRpcAmqpError) -> None:
        # Here it is not pending any more, and not again.
        if by_forget:
            rig.requests.waiter.forget(failed)
        else:
            assert not rig.requests.cancel(failed)
        fail(failed, error)

    monkeypatch.setattr(rig.requests.endings, "fail", give_up_and_fail)
    rig.requests.on_returned(session, returned(made.number))
    assert (len(made.ends), rig.requests.counts()["pending"]) == (1, 0)


def test_calls_that_were_cancelled_leave_nothing_behind() -> None:
    rig = Rig(max_pending=5_000)
    for made in [rig.submit() for _ in range(5_000)]:
        rig.requests.cancel(made)
    assert rig.requests._sender._parked == {}
    assert len(rig.requests._pending._alarms) <= 1024


def test_call_that_its_thread_gave_up_is_not_parked_any_more() -> None:
    rig = Rig()
    made = rig.submit()
    rig.requests.waiter.forget(made)
    assert rig.requests._sender._parked == {}


# -- pairing --------------------------------------------------------------------------------------------------------


def test_each_reply_ends_its_own_call() -> None:
    rig, session = connected()
    first, second = rig.submit(), rig.submit()
    one, two = session.published
    rig.requests.on_deliveries(session, [reply_to(two, b"2"), reply_to(one, b"1")])
    assert (first.ends, second.ends) == ([b"1"], [b"2"])


def test_second_reply_is_dropped() -> None:
    rig, session = connected()
    made = rig.submit()
    message = session.published[0]
    rig.requests.on_deliveries(session, [reply_to(message), reply_to(message)])
    rig.requests.on_deliveries(session, [reply_to(message)])
    assert made.ends == [b"[1]"]
    assert rig.requests.counts()["dropped_replies"] == 2


def test_calls_with_callbacks_end_last() -> None:
    rig, session = connected()
    slow, quick = rig.submit(has_callbacks=True), rig.submit()
    rig.requests.on_deliveries(session, [reply_to(message) for message in session.published])
    assert rig.ended == [quick, slow]


def test_forged_reply_leaves_the_call_to_wait() -> None:
    rig, session = connected()
    made = rig.submit()
    message = session.published[0]
    rig.requests.on_deliveries(session, [reply_to(message, key="S.response.guest-x.7")])
    assert made.ends == []
    assert rig.requests.counts()["rejected_replies"] == 1
    rig.requests.on_deliveries(session, [reply_to(message)])
    assert made.ends == [b"[1]"]


def test_callback_of_an_end_may_submit_and_close() -> None:
    rig, session = connected()
    made, other = rig.submit(), rig.submit()
    again = call()

    def proceed(_call: FakeCall) -> None:
        rig.requests.submit(again)
        rig.requests.close(0.0)

    made.on_end = proceed
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    assert made.ends == [b"[1]"]
    assert isinstance(other.error, ClientClosed)
    assert isinstance(again.error, ClientClosed)


@pytest.mark.parametrize(
    ("routing", "plan"),
    [(None, "exclusive"), (DIRECT, "direct"), (BY_QUEUE, "exclusive")],
    ids=["topic", "direct", "q"],
)
def test_plan(routing: Routing | None, plan: str) -> None:
    rig = Rig(routing=routing, confirm=True, declare=False)
    rig.requests.use(SERVICE)
    made = rig.requests.plan()
    assert (made.reply_queue, made.confirm, made.declare) == (plan, True, False)
    assert made.exchange == ("" if routing is BY_QUEUE else EXCHANGE)
    assert len(made.bindings) == (1 if routing is None else 0)


def test_each_connection_awaits_replies_under_keys_of_its_own() -> None:
    rig = Rig()
    rig.requests.use(SERVICE)
    assert rig.requests.plan().bindings != rig.requests.plan().bindings


@pytest.mark.parametrize(
    ("routing", "expected"), [(None, None), (DIRECT, DIRECT_REPLY_TO), (BY_QUEUE, "amq.gen-1")], ids=["t", "d", "q"]
)
def test_reply_to(routing: Routing | None, expected: str | None) -> None:
    rig, session = connected(routing=routing)
    rig.submit()
    assert session.published[0].reply_to == expected


# -- confirms, returns, rejections ----------------------------------------------------------------------------------


def test_notification_ends_with_its_confirm() -> None:
    rig, session = connected()
    told = rig.submit(notification())
    assert told.ends == []
    session.confirms[0](None)
    assert told.ends == [b""]


def test_confirmed_call_goes_on_waiting() -> None:
    rig, session = connected(confirm=True)
    made = rig.submit()
    session.confirms[0](None)
    assert made.ends == []
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    assert made.ends == [b"[1]"]


def test_persistent_call_is_confirmed_without_confirm() -> None:
    rig, session = connected()
    rig.submit(options=SendOptions(persistent=True))
    assert session.asked[-2:] == ["publish_confirmed", "flush"]


@pytest.mark.parametrize("is_notification", [False, True])
def test_rejected_confirm_ends_it(is_notification: bool) -> None:
    rig, session = connected(confirm=True)
    made = rig.submit(notification() if is_notification else call())
    error = Overloaded("full")
    session.confirms[0](error)
    assert made.ends == [error]


def test_confirm_that_comes_after_the_end_changes_nothing() -> None:
    rig, session = connected(confirm=True)
    made = rig.submit()
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    session.confirms[0](Overloaded("full"))
    session.confirms[0](None)
    assert made.ends == [b"[1]"]


def test_returned_message_ends_its_call() -> None:
    rig, session = connected()
    made, other = rig.submit(), rig.submit()
    for _ in range(2):
        rig.requests.on_returned(session, returned(made.number))
    rig.requests.on_returned(session, returned(None))
    assert isinstance(made.error, Unroutable)
    assert other.ends == []


def test_rejected_message_ends_its_call() -> None:
    rig, session = connected()
    made, error = rig.submit(), AccessRefused("no")
    message = session.published[0]
    assert rig.requests.awaits(message)
    rig.requests.on_rejected(session, error, message)
    assert made.ends == [error]
    assert not rig.requests.awaits(message)


@pytest.mark.parametrize(
    ("reply", "confirm", "fails"), [("direct", False, True), ("direct", True, False), ("topic", False, False)]
)
def test_persistent_calls_cannot_be_confirmed_with_direct_replies(reply: str, confirm: bool, fails: bool) -> None:
    rig = Rig(routing=resolve_routing(EXCHANGE, route=None, reply=reply, queue=None), confirm=confirm)
    if not fails:
        rig.requests.check_confirms()
        return
    with pytest.raises(ValueError, match=r"Client\(confirm=True\)"):
        rig.requests.check_confirms()


# -- lost connections and failed attempts ---------------------------------------------------------------------------


def test_lost_connection_ends_what_was_sent_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    rig, session = connected()
    sent, told = rig.submit(), rig.submit(notification())
    session.congested = True
    parked = rig.submit()
    with caplog.at_level(logging.WARNING, "jsonrpc_amqp.client"):
        rig.requests.on_lost(session, ConnectionLost("the broker is gone"))
        rig.requests.on_lost(session, ConnectionLost("the broker is gone"))
    assert str(sent.error) == "the broker is gone; the method may have run"
    assert str(told.error) == "the broker is gone; the broker may have taken it"
    assert parked.ends == []
    assert [record.getMessage() for record in caplog.records] == [
        "the broker is gone; 2 calls in flight end with ConnectionLost"
    ]
    assert rig.requests.counts()["connections_lost"] == 1


class Raises(logging.Handler):
    """A log handler that fails."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("a bug of this handler")


@pytest.fixture
def raising_handler() -> Iterator[None]:
    logger, handler = logging.getLogger("jsonrpc_amqp.client"), Raises()
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.mark.usefixtures("raising_handler")
def test_a_log_handler_that_fails_keeps_no_call_from_its_end() -> None:
    rig, session = connected()
    lost = rig.submit()
    with pytest.raises(ValueError, match="a bug"):
        rig.requests.on_lost(session, ConnectionLost("gone"))
    assert isinstance(lost.error, ConnectionLost)
    failed = rig.submit()
    with pytest.raises(ValueError, match="a bug"):
        rig.requests.on_failed(AccessRefused("no"), None)
    assert isinstance(failed.error, AccessRefused)


@pytest.mark.usefixtures("raising_handler")
def test_a_log_handler_that_fails_keeps_no_call_of_the_same_read_from_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig, session = connected()
    mine = rig.submit()
    strange = reply_to(session.published[0])
    strange.correlation_id = "unknown"
    caplog.set_level(logging.INFO, "jsonrpc_amqp.client")
    with pytest.raises(ValueError, match="a bug"):
        rig.requests.on_deliveries(session, [strange, reply_to(session.published[0], b"[2]")])
    assert mine.ends == [b"[2]"]


def test_start_by_a_thread_that_the_connection_needs_is_an_error() -> None:
    rig = Rig()
    rig.transport.is_leader = True
    with pytest.raises(WouldDeadlock):
        rig.connect(5.0)
    with pytest.raises(NotConnected):
        rig.connect(0.0)  # it only looks
    rig.open()
    rig.connect(5.0)


def test_lost_connection_of_a_closed_client_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    rig, session = connected()
    rig.requests.close(0.0)
    with caplog.at_level(logging.WARNING, "jsonrpc_amqp.client"):
        rig.requests.on_lost(session, ConnectionLost("gone"))
    assert caplog.records == []


def test_end_of_an_earlier_session_leaves_the_present_one() -> None:
    rig, session = connected()
    made = rig.submit()
    rig.requests.on_lost(FakeSession(), ConnectionLost("gone"))
    assert made.ends == []
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    assert made.ends == [b"[1]"]


def test_failed_attempt_leaves_calls_to_wait(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    made = rig.submit()
    with caplog.at_level(logging.WARNING, "jsonrpc_amqp.client"):
        rig.requests.on_failed(NotConnected("refused"), 1.25)
    assert made.ends == []
    assert caplog.messages == ["refused; next attempt in 1.2 s"]


def test_a_refusal_that_stands_ends_calls_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    rig, error = Rig(), AccessRefused("no")
    for _ in range(3):
        made = rig.submit()
        rig.requests.on_failed(error, None)
        assert str(made.error) == "no"
    assert caplog.messages == ["no"]


def test_final_attempt_ends_all_calls_each_with_an_error_of_its_own() -> None:
    rig = Rig()
    first, second = rig.submit(), rig.submit(options=SAFE)
    error = NotConnected("refused")
    rig.requests.on_failed(error, None)
    assert [str(first.error), str(second.error)] == ["refused", "refused"]
    assert len({id(first.error), id(second.error), id(error)}) == 3
    assert rig.requests._sender._parked == {}
    assert rig.open().published == []


# -- deadlines ------------------------------------------------------------------------------------------------------


def test_calls_end_at_their_deadline() -> None:
    rig, session = connected()
    now = time.monotonic()
    made, waits = rig.submit(timeout=10.0, now=now), rig.submit(timeout=None)
    rig.requests.on_tick(now + 8.5)
    assert session.asked[-1] == "inspect"
    assert made.ends == []
    rig.requests.on_tick(now + 10.0)
    rig.requests.on_tick(now + 11.0)
    assert isinstance(made.error, CallTimeout)
    assert waits.ends == []
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    assert len(made.ends) == 1
    counts = rig.requests.counts()
    assert (counts["timeouts"], counts["dropped_replies"], counts["pending"]) == (1, 1, 1)


def test_facts_of_the_connection_before_are_not_reported() -> None:
    rig, session = connected()
    now = time.monotonic()
    rig.submit(timeout=10.0, now=now)
    rig.requests.on_tick(now + 8.5)
    session.inspections[0][1](QueueFacts(0, 0))
    rig.requests.on_lost(session, ConnectionLost("gone"))
    rig.open()
    made = rig.submit()
    rig.requests.waiter.expire(made)
    assert str(made.error).endswith(": the method may have run, or may still")


def test_expire_ends_a_call_once() -> None:
    rig, session = connected()
    made = rig.submit()
    rig.requests.waiter.expire(made)
    rig.requests.waiter.expire(made)
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    assert isinstance(made.error, CallTimeout)


def test_expired_call_is_not_sent_again() -> None:
    rig, _session = connected()
    made = rig.submit(options=IDEMPOTENT)
    rig.requests.waiter.expire(made)
    assert isinstance(made.error, CallTimeout)


def test_forgotten_call_has_no_end() -> None:
    rig, session = connected()
    made = rig.submit()
    rig.requests.waiter.forget(made)
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    assert (made.ends, rig.transport.runtime.asked) == ([], ["reclaim"])
    rig.requests.waiter.forget(call())  # it was not taken
    assert rig.transport.runtime.asked == ["reclaim"]


@pytest.mark.parametrize("unanswered", [notification, call])
def test_only_queues_of_sent_calls_are_inspected(unanswered: Callable[..., FakeCall]) -> None:
    rig, session = connected()
    if unanswered is call:
        session.congested = True
    now = time.monotonic()
    rig.submit(unanswered(timeout=10.0, now=now))
    rig.requests.on_tick(now + 9.0)
    assert "inspect" not in session.asked


def test_tick_says_when_it_is_due_again() -> None:
    rig = Rig()
    now = time.monotonic()
    assert rig.requests.on_tick(now) is None
    rig.submit(timeout=None)
    assert rig.requests.on_tick(now) is None
    rig.submit(timeout=10.0, now=now)
    at = rig.requests.on_tick(now)
    assert at is not None
    assert now < at <= now + 8.0


def test_bindings_are_redeclared_while_calls_are_pending() -> None:
    rig, session = connected()
    now = time.monotonic()
    rig.requests.on_tick(now + 3.0)
    assert "redeclare" not in session.asked
    rig.submit(timeout=math.inf)
    rig.requests.on_tick(now + 6.0)
    rig.requests.on_tick(now + 6.5)
    assert session.asked.count("redeclare") == 1
    assert session.redeclared == [(rig.requests._addresses.reply_binding(SERVICE),)]


def test_of_many_services_that_are_called_the_rest_is_bound_once_there_is_a_connection() -> None:
    rig = Rig()
    calls = [rig.submit(service=f"S{number}") for number in range(50)]
    session = rig.open()
    assert len(session.binds) == 50 - MOST_AT_SET_UP
    assert sum(each.sent for each in calls) == MOST_AT_SET_UP
    for _key, outcome in session.binds:
        outcome(None)
    assert all(each.sent for each in calls)
    assert len(session.published) == 50


def test_callback_of_an_expired_call_does_not_delay_the_others() -> None:
    rig, session = connected()
    now = time.monotonic()
    rig.submit(timeout=1.0, now=now, has_callbacks=True)
    quick = rig.submit(timeout=1.0, now=now)
    rig.requests.on_tick(now + 2.0)
    assert rig.ended[0] is quick
    assert len(rig.ended) == 2
    assert session.asked[-1] == "inspect"


# -- calls that need consumers --------------------------------------------------------------------------------------


def test_call_without_consumers_ends_at_once() -> None:
    rig, session = connected()
    needy, other = rig.submit(options=NEEDY), rig.submit()
    session.inspections[0][1](QueueFacts(0, 0))
    assert isinstance(needy.error, NoConsumers)
    assert (other.ends, [message.correlation_id for message in session.published]) == ([], [other.number])


def test_call_with_consumers_is_sent_and_written() -> None:
    rig, session = connected()
    needy = rig.submit(options=NEEDY)
    session.asked.clear()
    session.inspections[0][1](QueueFacts(0, 1))
    assert (needy.sent, session.asked) == (True, ["publish", "flush"])


def test_call_without_consumers_is_tried_again() -> None:
    rig, session = connected()
    needy = rig.submit(options=NEEDY_SAFE)
    session.inspections[0][1](QueueFacts(0, 0))
    assert needy.ends == []
    rig.requests.on_tick(time.monotonic() + 0.125)
    session.inspections[1][1](QueueFacts(0, 1))
    assert needy.sent
    assert rig.requests.counts()["retries"] == 1


def test_call_is_sent_where_the_broker_does_not_say_whether_there_are_consumers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig, _session = connected()
    now = time.monotonic()
    needy = rig.submit(options=NEEDY, timeout=None)
    at = rig.requests.on_tick(now)
    assert at is not None
    assert now < at < now + 1.0
    sent = [needy.sent]
    assert rig.requests.on_tick(at) is None
    assert [*sent, needy.sent] == [False, True]
    assert "is not known (the broker did not say" in caplog.text


def test_reply_to_the_connection_before_ends_no_call() -> None:
    rig, session = connected()
    needy = rig.submit(options=NEEDY)
    rig.requests.on_lost(session, ConnectionLost("gone"))
    assert rig.requests.on_tick(time.monotonic() + 5.0) is not None
    assert needy.ends == []
    following = rig.open()
    session.inspections[0][1](QueueFacts(0, 0))
    assert needy.ends == []
    following.inspections[0][1](QueueFacts(0, 1))
    assert needy.sent


def test_call_that_waits_for_the_reply_at_its_deadline_was_not_sent() -> None:
    rig, session = connected()
    now = time.monotonic()
    needy = rig.submit(options=NEEDY, timeout=0.25, now=now)
    rig.requests.on_tick(now + 0.2)
    rig.requests.on_tick(now + 0.25)
    assert isinstance(needy.error, CallTimeout)
    assert not needy.error.may_have_run
    session.inspections[0][1](QueueFacts(0, 1))
    assert (len(needy.ends), session.published) == (1, [])


# -- further attempts -----------------------------------------------------------------------------------------------


def test_returned_call_is_sent_again_under_another_number() -> None:
    rig, session = connected()
    made = rig.submit(options=SAFE)
    first = made.number
    rig.requests.on_returned(session, returned(first))
    assert (made.ends, made.sent, rig.asked[-1]) == ([], False, "wake")
    assert made.number != first
    at = rig.requests.on_tick(time.monotonic())
    assert at is not None
    assert at < time.monotonic() + 0.2
    rig.requests.on_tick(at)
    assert [message.correlation_id for message in session.published] == [first, made.number]
    rig.requests.on_deliveries(session, [reply_to(session.published[0], b"old"), reply_to(session.published[1])])
    assert made.ends == [b"[1]"]
    counts = rig.requests.counts()
    assert (counts["retries"], counts["dropped_replies"]) == (1, 1)


@pytest.mark.parametrize(("options", "again"), [(SAFE, False), (IDEMPOTENT, True)])
def test_lost_connection_allows_another_attempt_of_idempotent_calls(options: SendOptions, again: bool) -> None:
    rig, session = connected()
    made = rig.submit(options=options)
    rig.requests.on_lost(session, ConnectionLost("gone"))
    assert len(made.ends) == (0 if again else 1)
    other = rig.open()
    rig.requests.on_tick(time.monotonic() + 0.2)
    assert len(other.published) == (1 if again else 0)


def test_reply_to_a_call_that_waits_for_its_next_attempt_is_rejected() -> None:
    rig, session = connected()
    made = rig.submit(options=SAFE)
    rig.requests.on_returned(session, returned(made.number))
    message = session.published[0]
    message.correlation_id = made.number
    rig.requests.on_deliveries(session, [reply_to(message)])
    assert made.ends == []
    assert rig.requests.counts()["rejected_replies"] == 1


def test_client_that_connects_after_it_gave_up_tries_again_as_before() -> None:
    rig = Rig()
    rig.requests.use(SERVICE)
    rig.requests.on_failed(NotConnected("refused"), None)
    made = rig.submit(options=SAFE)
    session = rig.open()
    rig.requests.on_returned(session, returned(made.number))
    assert made.ends == []


# -- connecting and closing -----------------------------------------------------------------------------------------


def test_connect_returns_once_there_is_a_session() -> None:
    rig = Rig()
    rig.transport.on_start = lambda _listener: rig.requests.on_open(FakeSession())
    rig.connect(0.0)
    assert rig.asked == ["start"]


def test_connect_raises_what_was_in_the_way() -> None:
    rig = Rig()
    error: TransportError = AccessRefused("no")
    rig.transport.on_start = lambda listener: listener.on_failed(error, None)
    with pytest.raises(AccessRefused, match=r"^no$"):
        rig.connect(0.0)
    error = NotConnected("down")
    rig.transport.on_start = lambda listener: listener.on_failed(error, 1.0)
    with pytest.raises(NotConnected, match=r"^no connection to the broker within 0 s; the last attempt: down"):
        rig.connect(0.0)


def test_close_ends_each_call_once_and_takes_no_other() -> None:
    rig, session = connected()
    sent = rig.submit()
    session.congested = True
    parked = rig.submit(options=IDEMPOTENT)
    rig.requests.close(1.0)
    rig.requests.close(1.0)
    assert (sent.error.may_have_run, parked.error.may_have_run) == (True, False)  # type: ignore[attr-defined]
    assert rig.asked.count("close") == 2
    rig.requests.on_deliveries(session, [reply_to(session.published[0])])
    rig.requests.on_lost(session, ConnectionLost("gone"))
    assert len(sent.ends) == 1
    with pytest.raises(ClientClosed):
        rig.submit()
    with pytest.raises(ClientClosed):
        rig.connect(0.0)


def test_close_amid_sending_ends_the_call_once() -> None:
    # As a signal handler does that interrupts its thread there.
    rig = Rig()
    rig.requests.use(SERVICE)

    class Closing(FakeSession):
        def publish(self, *_args: object, **_more: object) -> bool:
            rig.requests.close(0.0)
            raise ValueError("no such type")

    rig.open(Closing())
    made = call()
    rig.requests.submit(made)
    assert isinstance(made.error, ClientClosed)


def test_counters() -> None:
    rig = Rig()
    rig.transport.stats["connections"] += 3
    assert rig.requests.counts() == {
        "connections": 3,
        "failed_attempts": 0,
        "unreadable_headers": 0,
        "connections_lost": 0,
        "timeouts": 0,
        "retries": 0,
        "cancelled": 0,
        "dropped_replies": 0,
        "rejected_replies": 0,
        "pending": 0,
    }


# -- the broker ended the connection because of a message -------------------------------------------------------------


def test_what_may_have_ended_the_connection_is_not_sent_again_and_the_rest_is() -> None:
    rig, session = connected()
    suspect, innocent = rig.submit(options=IDEMPOTENT), rig.submit(options=IDEMPOTENT)
    rig.requests.on_rejected(session, MaybeRejected("it may be this one"), session.published[0])
    rig.requests.on_lost(session, MaybeRejected("INTERNAL_ERROR"))
    assert isinstance(suspect.error, MaybeRejected)
    assert suspect.error.may_have_run
    assert innocent.ends == []
    assert rig.requests.counts()["retries"] == 1


@pytest.mark.parametrize("options", [IDEMPOTENT, SendOptions()])
def test_the_end_of_the_connection_suspects_no_call_by_itself(options: SendOptions) -> None:
    rig, session = connected()
    made = rig.submit(options=options)
    rig.requests.on_lost(session, MaybeRejected("INTERNAL_ERROR"))
    if options.retry is None:
        assert type(made.error) is ConnectionLost
    else:
        assert made.ends == []
