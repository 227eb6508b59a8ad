"""The replies of a session: which lane they take, and which names of direct reply-to are used."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Delivery, Publish, Returned
from jsonrpc_amqp.amqp.encoder import ack, barrier, consume
from jsonrpc_amqp.amqp.frames import Confirm, ReturnEvent
from jsonrpc_amqp.amqp.heartbeat import Heartbeat
from jsonrpc_amqp.amqp.outbox import Outbox
from jsonrpc_amqp.amqp.reply_publisher import _MOST_KNOWN, ReplyPublisher
from jsonrpc_amqp.errors import (
    AccessRefused,
    ConnectionLost,
    MaybeRejected,
    NotConnected,
    TopologyMismatch,
    TransportError,
)

from .fakes import CONSUMER, DEFAULT, PUBLISHER, FakeLink
from .test_direct_reply_to import GENUINE, name

NEW = 21  # the first channel that is opened
NO_WRITE = AccessRefused("ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'srv'")
ODD = AccessRefused("INTERNAL_ERROR")


class FakeSpare:
    """A second connection; ``sent`` is what it is to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[str | None, Publish, Callable[[TransportError | None], None]]] = []
        self.is_closed = False

    def send(self, sender: str | None, message: Publish, done: Callable[[TransportError | None], None]) -> None:
        self.sent.append((sender, message, done))

    def close(self) -> None:
        self.is_closed = True


class Target:
    """A publisher of replies with a fake link; what is posted is done by ``run``."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.spare = FakeSpare()
        self.posted: list[Callable[[], None]] = []
        self.rejected: list[tuple[TransportError, Publish]] = []
        self.outbox = Outbox(
            cast(Any, self.link), Heartbeat(0, 0.0), on_stalled=lambda: None, on_error=_raise, on_interrupt=_raise
        )
        self.publisher = ReplyPublisher(
            cast(Any, self.link),
            self.outbox,
            cast(Any, self.spare),
            post=self.posted.append,
            on_rejected=lambda error, message: self.rejected.append((error, message)),
        )

    @property
    def question(self) -> Publish:
        return self.publisher._question

    @property
    def asked(self) -> bytes:
        """The bytes by which it asks for the name of its node."""
        return consume(DEFAULT, DIRECT_REPLY_TO, "self") + self.on(DEFAULT, self.question) + barrier(DEFAULT)

    def answer(self, reply_to: str | None = GENUINE) -> None:
        """Have the question come back."""
        returned = Returned(312, "NO_ROUTE", "", self.question.routing_key, None, None, reply_to)
        assert self.publisher.returned(ReturnEvent(DEFAULT, returned))
        self.publisher.passed(DEFAULT)

    def publish(self, *queues: str, user: str | None = None) -> None:
        for tag, queue in enumerate(queues, 1):
            self.publisher.publish(to(queue), None if user is None else request(tag, user))

    def run(self) -> None:
        while self.posted:
            self.posted.pop(0)()

    def written(self) -> bytes:
        self.outbox.flush()
        written, self.link.written = self.link.stream, []
        return written

    def on(self, channel: int, *messages: Publish) -> bytes:
        return b"".join(self.link.encoder.publish(channel, message) for message in messages)

    def close_channel(self, channel: int, error: TransportError) -> None:
        self.publisher.pause(channel)
        self.publisher.channel_closed(channel, error)


def _raise(exc: BaseException) -> None:
    raise exc


@pytest.fixture
def target() -> Target:
    return Target()


def to(queue: str) -> Publish:
    return Publish("", queue, b"{}", correlation_id="1")


def request(tag: int, user: str) -> Delivery:
    return Delivery(CONSUMER, tag, False, "jsonrpc", "S.request", b"{}", user_id=user)


TOPIC = Publish("jsonrpc", "S.response.alice-0123456789ab.1", b"{}", correlation_id="1")
FOREIGN = name(b"reply@2")


# -- lanes ----------------------------------------------------------------------------------------------------------


def test_replies_to_queues_have_a_channel_of_their_own(target: Target) -> None:
    target.publisher.publish(TOPIC)
    target.publish("my.replies")
    target.publisher.publish(TOPIC)
    assert target.written() == target.on(PUBLISHER, TOPIC) + target.on(DEFAULT, to("my.replies")) + target.on(
        PUBLISHER, TOPIC
    )


def test_a_refused_reply_to_a_queue_costs_no_reply_over_the_exchange(target: Target) -> None:
    target.publish("amq.gen-x")
    target.publisher.publish(TOPIC, request(1, "alice"))
    target.written()
    target.close_channel(DEFAULT, NO_WRITE)
    assert target.rejected == [(NO_WRITE, to("amq.gen-x"))]
    target.publish("amq.gen-x")
    target.publisher.publish(TOPIC)
    assert target.written() == target.on(PUBLISHER, TOPIC)
    target.run()
    assert target.rejected == [(NO_WRITE, to("amq.gen-x"))] * 2


def test_a_channel_is_replaced_and_the_other_one_goes_on(target: Target) -> None:
    target.publisher.publish(TOPIC)
    target.publish("my.replies")
    target.written()
    target.close_channel(PUBLISHER, ODD)
    assert target.written() == target.on(NEW, TOPIC) + barrier(NEW)
    target.publish("my.replies")
    assert target.written() == target.on(DEFAULT, to("my.replies"))
    target.publisher.passed(NEW)
    target.publisher.publish(TOPIC)
    assert target.written() == target.on(NEW, TOPIC)


def test_a_missing_exchange_is_declared_before_anything_is_sent_again(target: Target) -> None:
    target.publisher.publish(TOPIC)
    target.written()
    target.close_channel(PUBLISHER, TopologyMismatch("NOT_FOUND - no exchange 'jsonrpc' in vhost '/'"))
    assert target.rejected == []
    assert (target.written(), target.link.calls) == (b"", [("redeclare", None)])
    assert target.link.redeclared is not None
    target.link.redeclared()
    assert target.written() == target.on(NEW, TOPIC) + barrier(NEW)


def test_a_missing_exchange_that_cannot_be_declared_ends_the_connection(target: Target) -> None:
    target.link.can_redeclare = False
    target.publisher.publish(TOPIC)
    with pytest.raises(ConnectionLost, match="no exchange 'jsonrpc'"):
        target.close_channel(PUBLISHER, TopologyMismatch("NOT_FOUND - no exchange 'jsonrpc' in vhost '/'"))


def test_a_channel_that_only_consumes_ends_the_connection(target: Target) -> None:
    with pytest.raises(ConnectionLost, match="closed the channel that consumes: late"):
        target.close_channel(CONSUMER, TransportError("late"))


def test_replies_are_not_confirmed(target: Target) -> None:
    with pytest.raises(TypeError, match="confirms no publishes"):
        target.publisher.publish_confirmed(TOPIC, lambda _error: None)
    target.publisher.publish(TOPIC)
    target.publisher.confirmed(Confirm(PUBLISHER, 1, multiple=False, nack=False))
    target.publisher.fail(ConnectionLost("gone"))
    assert target.rejected == []


# -- direct reply-to ------------------------------------------------------------------------------------------------


def test_the_first_direct_reply_waits_until_the_broker_has_told_its_node(target: Target) -> None:
    target.publish(GENUINE, GENUINE, user="alice")
    assert target.written() == target.asked
    target.answer()
    assert target.written() == target.on(DEFAULT, to(GENUINE), to(GENUINE)) + ack(CONSUMER, 2, True)
    target.publish(GENUINE, name())
    assert target.written() == target.on(DEFAULT, to(GENUINE), to(name()))
    assert target.spare.sent == []


def test_a_name_of_another_node_goes_over_the_second_connection_until_one_was_taken(target: Target) -> None:
    target.publish(GENUINE, FOREIGN, user="bob")
    target.answer()
    assert target.on(DEFAULT, to(FOREIGN)) not in target.written()
    target.run()
    [(sender, message, done)] = target.spare.sent
    assert (sender, message) == ("bob", to(FOREIGN))
    done(None)
    target.run()
    target.publish(FOREIGN, name(b"reply@2", 5))
    assert target.written() == target.on(DEFAULT, to(FOREIGN), to(name(b"reply@2", 5)))
    assert target.rejected == []


def test_a_name_that_the_broker_did_not_take_is_not_tried_again(target: Target) -> None:
    target.publish(FOREIGN)
    target.answer()
    target.run()
    error = MaybeRejected("INTERNAL_ERROR")
    target.spare.sent.pop()[2](error)
    target.run()
    assert target.rejected == [(error, to(FOREIGN))]
    target.publish(FOREIGN, name(b"reply@2", 9))
    target.run()
    assert target.spare.sent == []
    assert [str(message.routing_key) for _, message in target.rejected] == [FOREIGN, FOREIGN, name(b"reply@2", 9)]


def test_a_second_connection_that_cannot_be_made_proves_nothing(target: Target) -> None:
    target.publish(FOREIGN)
    target.answer()
    target.run()
    error = NotConnected("refused")
    target.spare.sent.pop()[2](error)
    target.run()
    assert target.rejected == [(error, to(FOREIGN))]
    target.publish(FOREIGN)
    target.run()
    assert len(target.spare.sent) == 1


def test_where_replies_to_queues_are_refused_no_name_is_used(target: Target) -> None:
    target.publish(GENUINE, FOREIGN, user="eve")
    target.written()
    target.close_channel(DEFAULT, NO_WRITE)
    target.run()
    assert target.rejected == [(NO_WRITE, to(GENUINE)), (NO_WRITE, to(FOREIGN))]
    target.publish(GENUINE)
    target.run()
    assert target.rejected[2:] == [(NO_WRITE, to(GENUINE))]
    assert target.written() == ack(CONSUMER, 2, True)
    assert target.spare.sent == []


@pytest.mark.parametrize("reply_to", [None, DIRECT_REPLY_TO])
def test_a_broker_that_does_not_tell_its_node_has_each_node_tried(target: Target, reply_to: str | None) -> None:
    target.publish(GENUINE)
    target.answer(reply_to)
    target.run()
    assert [message for _, message, _ in target.spare.sent] == [to(GENUINE)]


def test_a_question_that_does_not_come_back_decides_nothing(target: Target) -> None:
    target.publish(GENUINE)
    target.publisher.passed(DEFAULT)
    target.run()
    assert len(target.spare.sent) == 1


def test_a_channel_that_closes_before_the_answer_leaves_it_to_the_second_connection(target: Target) -> None:
    target.publish(GENUINE)
    target.close_channel(DEFAULT, ODD)
    target.run()
    assert len(target.spare.sent) == 1
    assert target.rejected == []


def test_it_asks_once_the_lane_is_open(target: Target) -> None:
    target.publish("my.replies")
    target.close_channel(DEFAULT, ODD)
    assert target.written().endswith(target.on(NEW, to("my.replies")) + barrier(NEW))
    # Decided without an answer: it was not asked before the channel closed.
    target.publish(GENUINE)
    target.run()
    assert len(target.spare.sent) == 1


def test_another_returned_message_is_a_reply(target: Target) -> None:
    for exchange, key in (("", "my.replies"), ("jsonrpc", target.question.routing_key)):
        returned = Returned(312, "NO_ROUTE", exchange, key, None, None)
        assert not target.publisher.returned(ReturnEvent(DEFAULT, returned))


def test_names_that_are_remembered_are_bounded(target: Target) -> None:
    target.publish(*(f"queue {number}" for number in range(_MOST_KNOWN + 1)))
    assert len(target.publisher._safe) == 1


def test_the_second_connection_ends_with_the_session(target: Target) -> None:
    target.publisher.close()
    assert target.spare.is_closed


def test_the_end_of_the_session_lets_go_of_its_replies(target: Target) -> None:
    replies = [Watched(exchange, key, b"{}") for exchange in ("jsonrpc", "") for key in ("S.response.x", GENUINE)]
    ends = [weakref.ref(reply) for reply in replies]
    while replies:
        target.publisher.publish(replies.pop())  # sent, or kept until the name of the node is known
        target.outbox.flush()
    target.publisher.fail(ConnectionLost("reset"))
    assert [end() for end in ends] == [None] * 4


class Watched(Publish):
    """A message whose end can be seen."""

    __slots__ = ("__weakref__",)
