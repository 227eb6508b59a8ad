"""Calls are sent, or parked until they can be sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jsonrpc_amqp.amqp.base import Delivery, Publish, QueueFacts, Session
from jsonrpc_amqp.client.addresses import Addresses, AnyAddress, Routing
from jsonrpc_amqp.client.call import Call, SendOptions
from jsonrpc_amqp.client.consumer_checks import ConsumerChecks
from jsonrpc_amqp.client.inspections import Inspections
from jsonrpc_amqp.client.pending import Pending
from jsonrpc_amqp.client.reply_bindings import ReplyBindings
from jsonrpc_amqp.client.sender import Failed, Sender
from jsonrpc_amqp.errors import AccessRefused, CallTimeout, EncodeError, NoConsumers, Overloaded, TransportError

from .fakes import EXCHANGE, SERVICE, FakeCall, FakeSession, call, notification


class Dialect:
    """Marks what it translates."""

    def check(self, body: bytes) -> None:
        raise AssertionError("a request is checked before it is taken")

    def request(self, address: AnyAddress, number: str, message: Publish) -> Publish:
        return replace(message, body=b"translated", correlation_id=f"{address.service}-{number}")

    def number(self, delivery: Delivery) -> str | None:
        raise AssertionError("a sender reads no replies")

    def response(self, request: bytes, body: bytes) -> bytes:
        raise AssertionError("a sender reads no replies")


class Sending:
    """A sender, with the service bound, and what it reported."""

    def __init__(self, *, bound: bool = True, confirm: bool = False, dialect: Dialect | None = None) -> None:
        self.session = FakeSession()
        self.pending = Pending()
        self.addresses = Addresses(Routing(EXCHANGE), "guest")
        self.bindings = ReplyBindings(self.addresses, is_needed=True)
        self.addresses.new_connection()
        if bound:
            self.bindings.note_bound(SERVICE, None)
        self.failed: Failed = []
        self.confirmed: list[tuple[Call, TransportError | None]] = []
        self.checks = ConsumerChecks(Inspections(lambda service: f"{service}_req"))
        self.sender = Sender(
            self.pending,
            self.addresses,
            self.bindings,
            self.checks,
            dialect,
            confirm=confirm,
            go_on=self._go_on,
            on_confirmed=lambda *ended: self.confirmed.append(ended),
        )
        self._number = 0

    def _go_on(self, session: Session, send: Callable[[], Failed]) -> None:
        assert session is self.session
        self.failed = send()

    def reply(self, facts: QueueFacts | TransportError) -> None:
        """Have the broker say how many consumers the queue has."""
        self.session.inspections[-1][1](facts)

    def call(self, made: FakeCall | None = None, **more: Any) -> FakeCall:
        """Return a call that is pending."""
        made = made or call(**more)
        self._number += 1
        made.number = str(self._number)
        self.pending.add(made)
        return made

    def bodies(self) -> list[bytes]:
        return [message.body for message in self.session.published]


# -- messages -------------------------------------------------------------------------------------------------------


def test_message_of_a_call() -> None:
    made = Sending()
    sent = made.call(qid="q7", body=b"[1]", timeout=None)
    assert made.sender.send_or_park(made.session, sent) is None
    client = made.addresses.of(SERVICE).client
    assert made.session.published == [
        Publish(EXCHANGE, f"S.request.{client}.q7", b"[1]", True, False, "1", user_id="guest")
    ]
    assert (sent.sent, made.session.asked) == (True, ["publish"])


def test_message_of_a_notification() -> None:
    made = Sending()
    told = made.call(notification(body=b"[1]"))
    assert made.sender.send_or_park(made.session, told) is None
    client = made.addresses.of(SERVICE).client
    assert made.session.published == [
        Publish(EXCHANGE, f"S.request.{client}", b"[1]", persistent=True, message_id=f"{client}-1", user_id="guest")
    ]
    assert (told.sent, made.session.asked) == (True, ["publish_confirmed"])


def test_deadline_travels_along() -> None:
    made = Sending()
    made.sender.send_or_park(made.session, made.call(timeout=30.0))
    (message,) = made.session.published
    assert message.expiration_ms == message.timeout_ms
    assert message.timeout_ms is not None
    assert 25_000 < message.timeout_ms <= 30_000


@pytest.mark.parametrize("is_notification", [False, True])
def test_options_of_the_message(is_notification: bool) -> None:
    made = Sending()
    options = SendOptions(persistent=True, is_notification=is_notification, headers={"a": 1})
    made.sender.send_or_park(made.session, made.call(options=options))
    (message,) = made.session.published
    assert (message.persistent, message.headers) == (True, {"a": 1})


def test_dialect_translates_each_message() -> None:
    made = Sending(dialect=Dialect())
    made.sender.send_or_park(made.session, made.call())
    made.sender.send_or_park(made.session, made.call(notification()))
    assert [(each.body, each.correlation_id) for each in made.session.published] == [
        (b"translated", "S-1"),
        (b"translated", "S-2"),
    ]


@pytest.mark.parametrize(
    ("confirm", "options", "verb"),
    [
        (False, SendOptions(), "publish"),
        (True, SendOptions(), "publish_confirmed"),
        (False, SendOptions(persistent=True), "publish_confirmed"),
        (False, SendOptions(is_notification=True), "publish_confirmed"),
        (False, SendOptions(headers={"a": 1}, retry="safe"), "publish"),
    ],
)
def test_what_the_broker_confirms(confirm: bool, options: SendOptions, verb: str) -> None:
    made = Sending(confirm=confirm)
    sent = made.call(options=options)
    made.sender.send_or_park(made.session, sent)
    assert made.session.asked == [verb]
    error = Overloaded("full")
    for outcome in made.session.confirms:
        outcome(error)
    assert made.confirmed == ([] if verb == "publish" else [(sent, error)])


# -- parking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_session", [False, True])
def test_parked_without_a_session_and_while_it_is_congested(has_session: bool) -> None:
    made = Sending()
    made.session.congested = True
    parked = made.call()
    assert made.sender.send_or_park(made.session if has_session else None, parked) is None
    assert (parked.sent, made.session.asked) == (False, [])
    made.session.congested = False
    assert made.sender.send_parked(made.session) == []
    assert made.bodies() == [b"{}"]
    assert made.sender.send_parked(made.session) == []
    assert made.bodies() == [b"{}"]


def test_calls_are_parked_until_their_replies_can_arrive() -> None:
    made = Sending(bound=False)
    mine, other, ended = made.call(), made.call(call("T")), made.call()
    for each in (mine, other, ended):
        made.sender.send_or_park(made.session, each)
    made.sender.drop(ended)
    assert made.session.asked == ["bind", "bind"]
    made.sender.send_parked(made.session)
    assert made.session.published == []
    made.session.binds[0][1](None)
    assert (mine.sent, other.sent, ended.sent, made.failed) == (True, False, False, [])
    made.bindings.note_bound("T", None)
    made.sender.send_parked(made.session)  # over another session, say
    assert other.sent


def test_calls_whose_replies_cannot_arrive_fail() -> None:
    made = Sending(bound=False)
    calls = [made.call(), made.call()]
    for each in (*calls, made.call(call("T"))):
        made.sender.send_or_park(made.session, each)
    error = AccessRefused("no")
    made.session.binds[0][1](error)
    assert [each for each, _error in made.failed] == calls
    assert {type(each) for _call, each in made.failed} == {AccessRefused}
    assert error not in [each for _call, each in made.failed]  # each raise has a traceback of its own
    assert (made.session.published, len(made.pending)) == ([], 1)
    made.sender.send_or_park(made.session, made.call())
    assert made.session.asked == ["bind", "bind", "bind"]


def test_notification_awaits_no_reply() -> None:
    made = Sending(bound=False)
    made.sender.send_or_park(made.session, made.call(notification()))
    assert made.session.asked == ["publish_confirmed"]


def test_parked_where_the_session_has_just_ended() -> None:
    made = Sending()
    made.session.is_gone = True
    parked, told = made.call(), made.call(notification())
    for each in (parked, told):
        assert made.sender.send_or_park(made.session, each) is None
    assert (parked.sent, told.sent) == (False, False)
    following = FakeSession()
    made.sender.send_parked(following)
    assert len(following.published) == 2


def test_congestion_amid_parked_calls_keeps_the_rest_in_order() -> None:
    made = Sending()
    calls = [made.call(body=body) for body in (b"1", b"2", b"3")]
    for each in calls:
        made.sender.send_or_park(None, each)

    class Filling(FakeSession):
        def publish(self, message: Publish, *, acks: Delivery | None = None) -> bool:
            self.congested = True
            return super().publish(message)

    made.session = Filling()
    for expected in ([b"1"], [b"1", b"2"], [b"1", b"2", b"3"]):
        made.session.congested = False
        made.sender.send_parked(made.session)
        assert made.bodies() == expected


def test_parked_calls_that_have_ended_are_not_sent() -> None:
    made = Sending()
    parked = made.call()
    made.sender.send_or_park(None, parked)
    made.pending.pop(parked.number)
    assert made.sender.send_parked(made.session) == []
    assert made.session.asked == []


def test_parked_call_that_waits_for_another_attempt_is_sent_by_that_alone() -> None:
    made = Sending()
    parked = made.call()
    made.sender.send_or_park(None, parked)
    made.pending.pop(parked.number)
    made.call(parked)  # under another number
    assert made.sender.send_parked(made.session) == []
    assert made.session.published == []
    assert made.sender.send_again(made.session, [parked]) == []
    assert len(made.session.published) == 1


@pytest.mark.parametrize("by_drop", [False, True])
def test_ended_calls_are_forgotten_and_others_are_not(by_drop: bool) -> None:
    made = Sending()
    ended, waits = made.call(body=b"ended"), made.call(body=b"waits")
    for each in (ended, waits):
        made.sender.send_or_park(None, each)
    if by_drop:
        assert made.sender.drop(ended)
        assert not made.sender.drop(ended)
    else:
        made.pending.pop(ended.number)
        made.sender.forget([ended])
    assert list(made.sender._parked.values()) == [waits]
    assert len(made.pending) == 1
    made.sender.send_parked(made.session)
    assert made.bodies() == [b"waits"]


def test_cleared_calls_are_not_sent() -> None:
    made = Sending()
    made.sender.send_or_park(None, made.call())
    made.sender.clear()
    made.sender.send_parked(made.session)
    assert made.session.published == []


# -- calls that need consumers --------------------------------------------------------------------------------------

NEEDY = SendOptions(needs_consumers=True)


def test_calls_are_sent_once_the_broker_has_named_consumers() -> None:
    made = Sending()
    calls = [made.call(body=body, options=NEEDY) for body in (b"1", b"2")]
    for each in calls:
        assert made.sender.send_or_park(made.session, each) is None
    assert made.session.asked == ["inspect"]
    made.reply(QueueFacts(0, 1))
    assert made.failed == []
    made.sender.send_or_park(made.session, made.call(body=b"3", options=NEEDY))
    assert made.bodies() == [b"1", b"2", b"3"]


def test_calls_fail_unsent_where_there_are_no_consumers() -> None:
    made = Sending()
    first, second, ended = (made.call(options=NEEDY) for _ in range(3))
    for each in (first, second, ended):
        made.sender.send_or_park(made.session, each)
    made.sender.drop(ended)
    made.reply(QueueFacts(0, 0))
    (one, error), (two, other) = made.failed
    assert (one, two) == (first, second)
    assert type(error) is type(other) is NoConsumers
    assert error is not other  # each raise has a traceback of its own
    assert (made.bodies(), first.sent, len(made.pending)) == ([], False, 0)
    made.reply(QueueFacts(0, 0))
    assert made.failed == []


def test_calls_that_wait_for_a_binding_do_not_fail_with_those_that_need_consumers() -> None:
    made = Sending(bound=False)
    plain, needy = made.call(), made.call(options=NEEDY)
    for each in (plain, needy):
        made.sender.send_or_park(made.session, each)
    made.reply(QueueFacts(0, 0))
    ((failed, _error),) = made.failed
    assert failed is needy
    made.bindings.note_bound(SERVICE, None)
    assert made.sender.send_held(made.session, SERVICE) == []
    assert plain.sent


def test_a_call_that_needs_consumers_still_waits_for_its_binding() -> None:
    made = Sending(bound=False)
    needy = made.call(options=NEEDY)
    made.sender.send_or_park(made.session, needy)
    made.reply(QueueFacts(0, 1))
    assert (needy.sent, made.session.asked) == (False, ["inspect", "bind"])
    made.bindings.note_bound(SERVICE, None)
    made.sender.send_held(made.session, SERVICE)
    assert needy.sent


def test_calls_whose_reply_does_not_come_are_asked_for_over_the_next_session() -> None:
    made = Sending()
    needy = made.call(options=NEEDY)
    made.sender.send_or_park(made.session, needy)
    made.checks.reset()
    made.session = FakeSession()
    assert made.sender.send_parked(made.session) == []
    assert made.session.asked == ["inspect"]
    made.reply(QueueFacts(0, 1))
    assert needy.sent


def test_calls_that_need_consumers_are_parked_without_a_session() -> None:
    made = Sending()
    needy = made.call(options=NEEDY)
    made.sender.send_or_park(made.session, needy)
    assert made.sender.send_held(None, SERVICE) == []
    assert list(made.sender._parked.values()) == [needy]


# -- further attempts -----------------------------------------------------------------------------------------------


def test_calls_are_sent_again() -> None:
    made = Sending()
    first, dropped = made.call(body=b"first"), made.call(body=b"dropped")
    made.sender.drop(dropped)
    assert made.sender.send_again(made.session, [dropped, first]) == []
    assert made.bodies() == [b"first"]


def test_calls_to_send_again_are_parked_without_a_session() -> None:
    made = Sending()
    again = made.call()
    assert made.sender.send_again(None, [again]) == []
    made.sender.send_parked(made.session)
    assert made.bodies() == [b"{}"]


# -- calls that cannot be sent --------------------------------------------------------------------------------------


def test_call_without_time_left_fails() -> None:
    made = Sending()
    late = made.call(timeout=0.0)
    error = made.sender.send_or_park(made.session, late)
    assert isinstance(error, CallTimeout)
    assert (error.may_have_run, late.sent, len(made.pending), late.ends) == (False, False, 0, [])


@pytest.mark.parametrize("confirm", [False, True])
def test_message_that_amqp_cannot_express_fails(confirm: bool) -> None:
    made = Sending(confirm=confirm)
    made.session.error = OverflowError("too large")
    bad = made.call()
    error = made.sender.send_or_park(made.session, bad)
    assert isinstance(error, EncodeError)
    assert str(error) == "AMQP has no form for the message: too large"
    assert (bad.sent, len(made.pending), bad.ends) == (False, 0, [])


def test_failed_calls_are_returned_and_do_not_stop_the_others() -> None:
    made = Sending()
    bad, good = made.call(body=b"bad"), made.call(body=b"good")
    for each in (bad, good):
        made.sender.send_or_park(None, each)
    made.session.error = ValueError("no")
    ((failed, error),) = made.sender.send_parked(made.session)
    assert (failed, type(error)) == (bad, EncodeError)
    assert made.bodies() == [b"good"]
