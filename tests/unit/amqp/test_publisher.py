"""A publisher: over which channel a message leaves, and what becomes of it when the broker closes that channel."""

from __future__ import annotations

import weakref
from typing import Any, cast

import pytest

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Outcome, Publish, Returned
from jsonrpc_amqp.amqp.frames import Confirm, ReturnEvent
from jsonrpc_amqp.amqp.heartbeat import Heartbeat
from jsonrpc_amqp.amqp.outbox import Outbox
from jsonrpc_amqp.amqp.publisher import LARGE_BODY, Publisher
from jsonrpc_amqp.errors import (
    AccessRefused,
    ConnectionLost,
    MaybeRejected,
    MessageRejected,
    MessageTooLarge,
    Overloaded,
    TopologyMismatch,
    TransportError,
    Unroutable,
)

from .fakes import CONFIRMER, CONSUMER, PUBLISHER, FakeLink

REPLIED = PUBLISHER + 10
RECONFIRMED = CONFIRMER + 10


class Target:
    """
    A publisher with a fake link: what it reports is written down.

    Attributes:
        handled: Messages that the broker is known to have handled.
        outcomes: The outcomes of confirmed publishes, each with the name that the test gave it.
    """

    def __init__(self) -> None:
        self.link = FakeLink()
        self.handled: list[Publish] = []
        self.rejected: list[tuple[TransportError, Publish]] = []
        self.outcomes: list[tuple[str, TransportError | None]] = []
        heartbeat = Heartbeat(0, 0.0)
        self.outbox = Outbox(
            cast(Any, self.link), heartbeat, on_stalled=lambda: None, on_error=_raise, on_interrupt=_raise
        )
        self.publisher = Publisher(
            cast(Any, self.link),
            self.outbox,
            is_awaited=lambda message: message not in self.handled,
            on_rejected=lambda error, message: self.rejected.append((error, message)),
        )

    def publish(self, *messages: Publish) -> None:
        for message in messages:
            self.publisher.publish(message)

    def publish_confirmed(self, message: Publish, name: str = "") -> None:
        self.publisher.publish_confirmed(message, self.outcome(name))

    def outcome(self, name: str) -> Outcome:
        return lambda error: self.outcomes.append((name, error))

    def written(self) -> bytes:
        """Flush, and return what was written since the last time."""
        self.outbox.flush()
        written, self.link.written = self.link.stream, []
        return written

    def on(self, channel: int, *messages: Publish) -> bytes:
        """Return the bytes of messages on a channel."""
        return b"".join(self.link.encoder.publish(channel, message) for message in messages)

    def close_channel(self, channel: int, error: TransportError) -> None:
        """Do what the link does when the broker closes a channel."""
        self.publisher.pause(channel)
        self.publisher.channel_closed(channel, error)


def _raise(exc: BaseException) -> None:
    raise exc


@pytest.fixture
def target() -> Target:
    return Target()


def reply(number: int, *, exchange: str = "jsonrpc", user_id: str | None = None) -> Publish:
    return Publish(exchange, "a.response", b"%d" % number, correlation_id=str(number), user_id=user_id)


def no_exchange(exchange: str) -> TopologyMismatch:
    return TopologyMismatch(f"refused: NOT_FOUND - no exchange '{exchange}' in vhost '/'")


def too_large(size: int) -> MessageTooLarge:
    return MessageTooLarge(f"refused: message size {size} is larger than configured max size 9")


# -- publishing -----------------------------------------------------------------------------------------------------


def test_each_kind_leaves_by_its_channel(target: Target) -> None:
    target.publish(reply(1))
    target.publish_confirmed(reply(2))
    target.publish(reply(3))
    assert target.written() == target.on(PUBLISHER, reply(1)) + target.on(CONFIRMER, reply(2)) + target.on(
        PUBLISHER, reply(3)
    )


def test_a_direct_request_leaves_by_the_channel_that_consumes_replies_also_if_confirmed(target: Target) -> None:
    message = Publish("e", "k", b"{}", reply_to=DIRECT_REPLY_TO)
    target.publish_confirmed(message)
    assert target.written() == target.on(PUBLISHER, message)


@pytest.mark.parametrize("size", [LARGE_BODY - 1, LARGE_BODY, 3 * LARGE_BODY])
def test_a_large_body_is_the_same_bytes(target: Target, size: int) -> None:
    message = Publish("e", "k", bytes(size))
    target.publish(message)
    assert target.written() == target.on(PUBLISHER, message)


def test_a_message_that_cannot_be_encoded_raises_at_once(target: Target) -> None:
    for confirmed in (False, True):
        with pytest.raises(ValueError, match="routing_key: 256 bytes"):
            target.publisher.publish(Publish("e", "k" * 256, b""), None, target.outcome("long") if confirmed else None)
    target.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    assert (target.written(), target.outcomes) == (b"", [])


def test_a_message_that_cannot_be_encoded_raises_at_once_while_publishes_are_held(target: Target) -> None:
    target.publisher.pause(PUBLISHER)
    with pytest.raises(ValueError, match="routing_key: 256 bytes"):
        target.publish(Publish("e", "k" * 256, b""))
    target.publish(reply(1))
    target.publisher.resume()
    assert target.written() == target.on(PUBLISHER, reply(1))


# -- confirms and returns -------------------------------------------------------------------------------------------


def test_a_confirm_decides_outcomes_in_the_order_of_the_publishes(target: Target) -> None:
    for name in ("1", "2", "3"):
        target.publish_confirmed(reply(int(name)), name)
    target.publisher.confirmed(Confirm(CONFIRMER, 2, multiple=True, nack=False))
    assert target.outcomes == [("1", None), ("2", None)]
    target.publisher.confirmed(Confirm(CONFIRMER, 3, multiple=False, nack=True))
    name, error = target.outcomes[2]
    assert (name, type(error)) == ("3", Overloaded)


def test_a_confirm_of_another_channel_decides_nothing(target: Target) -> None:
    target.publish_confirmed(reply(1))
    target.publisher.confirmed(Confirm(CONFIRMER + 1, 1, multiple=False, nack=False))
    assert target.outcomes == []


def test_a_returned_message_is_reported_by_its_confirm(target: Target) -> None:
    returned = Returned(312, "NO_ROUTE", "jsonrpc", "a.response", "1", None)
    target.publish_confirmed(reply(1), "1")
    assert target.publisher.returned(ReturnEvent(CONFIRMER, returned)) is True
    assert target.outcomes == []
    target.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    [(_, error)] = target.outcomes
    assert isinstance(error, Unroutable)


def test_a_returned_message_without_confirms_is_left_to_others(target: Target) -> None:
    returned = Returned(312, "NO_ROUTE", "jsonrpc", "a.response", "1", None)
    target.publish_confirmed(reply(1), "1")
    assert target.publisher.returned(ReturnEvent(PUBLISHER, returned)) is False
    target.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    assert target.outcomes == [("1", None)]


def test_the_end_of_the_session_is_reported_to_all_that_wait_for_a_confirm(target: Target) -> None:
    target.publish_confirmed(reply(1), "sent")
    target.publisher.pause(CONFIRMER)
    target.publish(reply(2))
    target.publish_confirmed(reply(3), "held")
    target.publisher.fail(ConnectionLost("gone"))
    assert [name for name, _ in target.outcomes] == ["sent", "held"]
    for _, error in target.outcomes:
        assert isinstance(error, ConnectionLost)
        assert str(error).startswith("gone; the message may have been taken, or not")


# -- hold and resume ------------------------------------------------------------------------------------------------


def test_what_is_held_leaves_in_order(target: Target) -> None:
    target.publisher.pause(PUBLISHER)
    target.publish(reply(1))
    target.publish_confirmed(reply(2), "2")
    target.publish(reply(3))
    assert target.written() == b""
    target.link.reopen_publisher()
    target.publisher.resume([reply(0)])
    messages = target.on(REPLIED, reply(0), reply(1)) + target.on(CONFIRMER, reply(2)) + target.on(REPLIED, reply(3))
    assert target.written() == messages
    target.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    assert target.outcomes == [("2", None)]


def test_what_follows_a_resume_is_not_held(target: Target) -> None:
    target.publisher.pause(PUBLISHER)
    target.publisher.resume()
    target.publish(reply(1))
    assert target.written() == target.on(PUBLISHER, reply(1))
    target.publisher.resume()
    assert target.written() == b""


def test_nothing_is_held_because_of_a_channel_that_does_not_publish(target: Target) -> None:
    target.publisher.pause(1)
    target.publisher.pause(CONSUMER)
    assert not target.publisher.is_paused


# -- the broker closes the channel that publishes -------------------------------------------------------------------


def test_the_rejected_message_is_reported_and_those_behind_it_are_sent_again(target: Target) -> None:
    large = Publish("jsonrpc", "k", b"x" * 10)
    before, behind = reply(1), reply(2)
    target.publish(before, large, behind)
    target.written()
    error = too_large(10)
    target.publisher.pause(PUBLISHER)
    target.publish(reply(3))
    target.publisher.channel_closed(PUBLISHER, error)
    assert target.rejected == [(error, large)]
    assert target.written() == target.on(REPLIED, behind, reply(3))
    assert not target.publisher.is_paused


def test_a_message_that_was_handled_is_not_sent_again(target: Target) -> None:
    handled = reply(2)
    target.handled = [handled]
    target.publish(Publish("jsonrpc", "k", b"x" * 10), handled, reply(3))
    target.written()
    target.close_channel(PUBLISHER, too_large(10))
    assert target.written() == target.on(REPLIED, reply(3))


def test_what_was_sent_again_may_be_rejected_in_turn(target: Target) -> None:
    target.publish(Publish("jsonrpc", "k", b"x" * 10), Publish("jsonrpc", "k", b"x" * 11), reply(3))
    target.written()
    target.close_channel(PUBLISHER, too_large(10))
    target.written()
    target.close_channel(REPLIED, too_large(11))
    assert [len(message.body) for _, message in target.rejected] == [10, 11]
    assert target.written() == target.on(REPLIED + 10, reply(3))


def test_two_candidates_for_a_request_end_the_connection(target: Target) -> None:
    target.publish(*(Publish("jsonrpc", key, b"x" * 10) for key in ("first", "second")))
    with pytest.raises(ConnectionLost, match="closed the channel that publishes: "):
        target.close_channel(PUBLISHER, too_large(10))
    # Either would be rejected each time: they are not sent again.
    assert [(type(error), message.routing_key) for error, message in target.rejected] == [
        (MaybeRejected, "first"),
        (MaybeRejected, "second"),
    ]


def test_a_missing_exchange_is_the_fault_of_no_request(target: Target) -> None:
    target.publish(reply(1, exchange="gone"), reply(2, exchange="gone"))
    target.publish_confirmed(reply(3, exchange="gone"), "3")
    target.publish_confirmed(reply(4, exchange="gone"), "4")
    for channel in (PUBLISHER, CONFIRMER):
        with pytest.raises(ConnectionLost, match="no exchange 'gone'"):
            target.close_channel(channel, no_exchange("gone"))
    assert target.rejected == []
    assert [type(error) for _, error in target.outcomes] == [ConnectionLost, ConnectionLost]


def test_one_candidate_for_a_request_is_reported_and_the_others_are_sent_again(target: Target) -> None:
    target.publish(Publish("jsonrpc", "k", b"x" * 10), reply(2))
    target.written()
    target.close_channel(PUBLISHER, too_large(10))
    assert len(target.rejected) == 1
    assert target.written() == target.on(REPLIED, reply(2))


def test_no_candidate_ends_the_connection(target: Target) -> None:
    target.publish(reply(1))
    for error in (too_large(10), AccessRefused("INTERNAL_ERROR")):
        with pytest.raises(ConnectionLost, match="closed the channel that publishes: "):
            target.close_channel(PUBLISHER, error)
    assert target.rejected == []


def test_a_channel_that_consumes_replies_ends_the_connection_once_the_rejected_one_is_reported(target: Target) -> None:
    target.link.publisher_channel = target.link.confirmer_channel = CONSUMER
    large = Publish("jsonrpc", "k", b"x" * 10)
    target.publish(large)
    with pytest.raises(ConnectionLost, match="closed the channel that publishes: "):
        target.close_channel(CONSUMER, too_large(10))
    assert [message for _, message in target.rejected] == [large]


def test_a_channel_that_only_consumes_ends_the_connection(target: Target) -> None:
    with pytest.raises(ConnectionLost, match="closed the channel that consumes: late"):
        target.close_channel(CONSUMER, TransportError("late"))


# -- a missing exchange ---------------------------------------------------------------------------------------------


def test_a_missing_exchange_ends_the_connection(target: Target) -> None:
    target.publish(reply(1, exchange="gone"))
    with pytest.raises(ConnectionLost, match="no exchange 'gone'"):
        target.close_channel(PUBLISHER, no_exchange("gone"))
    assert len(target.rejected) == 1
    assert target.link.calls == []


# -- the broker closes the channel in confirm mode ------------------------------------------------------------------


def test_the_confirmer_is_replaced_and_the_rejected_message_is_reported(target: Target) -> None:
    target.publish_confirmed(Publish("jsonrpc", "k", b"x" * 10), "rejected")
    target.publish_confirmed(reply(2), "behind")
    target.written()
    error = too_large(10)
    target.publisher.pause(CONFIRMER)
    target.publish_confirmed(reply(3), "held")
    target.publisher.channel_closed(CONFIRMER, error)
    assert target.outcomes[0] == ("rejected", error)
    name, unknown = target.outcomes[1]
    assert (name, type(unknown)) == ("behind", ConnectionLost)
    assert "because of another message" in str(unknown)
    assert target.written() == target.on(RECONFIRMED, reply(3))
    # The broker counts anew.
    target.publisher.confirmed(Confirm(RECONFIRMED, 1, multiple=False, nack=False))
    assert target.outcomes[2:] == [("held", None)]


def test_of_two_candidates_none_is_the_rejected_one(target: Target) -> None:
    for name in ("1", "2"):
        target.publish_confirmed(Publish("jsonrpc", name, b"x" * 10), name)
    target.close_channel(CONFIRMER, too_large(10))
    assert [type(error) for _, error in target.outcomes] == [MaybeRejected, MaybeRejected]
    assert target.outcomes[0][1] is not target.outcomes[1][1]


def test_a_missing_exchange_on_the_confirmer_ends_the_connection(target: Target) -> None:
    target.publish_confirmed(reply(1, exchange="gone"), "1")
    error = no_exchange("gone")
    with pytest.raises(ConnectionLost, match="no exchange 'gone'"):
        target.close_channel(CONFIRMER, error)
    assert target.outcomes == [("1", error)]


# -- the broker does not say because of which message ---------------------------------------------------------------


ODD = MessageRejected("refused: invalid message: {what_is_this}")


def with_headers(number: int) -> Publish:
    return Publish("jsonrpc", "a.request", b"%d" % number, correlation_id=str(number), headers={"trace": "t"})


def test_a_lone_message_without_a_confirm_is_the_rejected_one(target: Target) -> None:
    for message in (with_headers(1), reply(2)):
        target.publish_confirmed(message, "lone")
        target.close_channel(target.link.confirmer_channel, ODD)
    assert target.outcomes == [("lone", ODD), ("lone", ODD)]


def test_a_rejected_call_is_told_also_where_one_channel_does_everything(target: Target) -> None:
    target.link.publisher_channel = target.link.confirmer_channel = CONSUMER
    target.publish_confirmed(with_headers(1), "lone")
    with pytest.raises(ConnectionLost, match="what_is_this"):
        target.close_channel(CONSUMER, ODD)
    assert target.outcomes == [("lone", ODD)]


def test_of_several_without_a_confirm_those_with_headers_may_be_the_rejected_one(target: Target) -> None:
    for message in (reply(1), with_headers(2), reply(3), with_headers(4)):
        target.publish_confirmed(message, str(message.correlation_id))
    target.close_channel(CONFIRMER, ODD)
    assert [type(error) for _, error in target.outcomes] == [ConnectionLost, MaybeRejected] * 2
    assert "because of another message" in str(target.outcomes[0][1])
    assert "may be because of this message" in str(target.outcomes[1][1])
    target.publish_confirmed(reply(5), "5")
    assert target.written().endswith(target.on(RECONFIRMED, reply(5)))


def test_where_none_has_headers_it_is_not_known_which_one_it_is(target: Target) -> None:
    for number in (1, 2):
        target.publish_confirmed(reply(number))
    target.close_channel(CONFIRMER, ODD)
    for _, error in target.outcomes:
        assert type(error) is ConnectionLost
        assert "because of a message, which one is not known" in str(error)


def test_requests_with_headers_may_be_the_rejected_one_and_others_are_not(target: Target) -> None:
    handled = with_headers(1)
    target.handled = [handled]
    target.publish(handled, reply(2), with_headers(3), reply(4))
    with pytest.raises(ConnectionLost, match="what_is_this") as caught:
        target.close_channel(PUBLISHER, ODD)
    assert type(caught.value) is ConnectionLost
    [(error, message)] = target.rejected
    assert (type(error), message.correlation_id) == (MaybeRejected, "3")


def test_the_end_of_the_session_because_of_a_message_is_reported_to_those_with_headers(target: Target) -> None:
    handled, confirmed = with_headers(1), with_headers(2)
    target.handled = [handled]
    target.publish(handled, reply(3), with_headers(4))
    target.publish_confirmed(confirmed, "confirmed")
    target.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    target.publish_confirmed(reply(5), "plain")
    target.publish_confirmed(with_headers(6), "headers")
    target.outcomes.clear()
    target.publisher.fail(MaybeRejected("INTERNAL_ERROR"))
    assert [(name, type(error)) for name, error in target.outcomes] == [
        ("plain", ConnectionLost),
        ("headers", MaybeRejected),
    ]
    assert [(type(error), message.correlation_id) for error, message in target.rejected] == [(MaybeRejected, "4")]


def test_the_end_of_the_session_for_another_reason_is_no_fault_of_a_message(target: Target) -> None:
    target.publish(with_headers(1))
    target.publish_confirmed(with_headers(2), "2")
    target.publisher.fail(ConnectionLost("reset"))
    assert target.rejected == []
    assert [type(error) for _, error in target.outcomes] == [ConnectionLost]


class Watched(Publish):
    """A message whose end can be seen."""

    __slots__ = ("__weakref__",)


def test_the_end_of_the_session_lets_go_of_its_messages(target: Target) -> None:
    messages = [Watched("jsonrpc", "S.request", b"{}") for _ in range(3)]
    ends = [weakref.ref(message) for message in messages]
    target.publish(messages.pop())
    target.publish_confirmed(messages.pop(), "sent")
    target.publisher.pause(PUBLISHER)
    target.publish_confirmed(messages.pop(), "held")
    target.publisher.fail(ConnectionLost("reset"))
    assert [name for name, _ in target.outcomes] == ["sent", "held"]
    assert [end() for end in ends] == [None] * 3
