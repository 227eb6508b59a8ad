"""A lane of replies: what a refusal by the broker costs, and what becomes of the replies beside it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from jsonrpc_amqp.amqp import reply_lanes as module
from jsonrpc_amqp.amqp.base import Delivery, Publish
from jsonrpc_amqp.amqp.encoder import ack, barrier
from jsonrpc_amqp.amqp.heartbeat import Heartbeat
from jsonrpc_amqp.amqp.outbox import Outbox
from jsonrpc_amqp.amqp.reply_lanes import REFUSED_SECONDS, Lane, Rejected, State
from jsonrpc_amqp.errors import AccessRefused, MessageTooLarge, TopologyMismatch, TransportError

from .fakes import CONSUMER, PUBLISHER, Clock, FakeLink

NEXT = PUBLISHER + 10
NO_WRITE = AccessRefused("ACCESS_REFUSED - access to exchange 'jsonrpc' in vhost '/' refused for user 'srv'")
ODD = AccessRefused("INTERNAL_ERROR")


class Target:
    """A lane with a fake link; ``dropped`` is what it did not send."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.link = FakeLink()
        self.outbox = Outbox(
            cast(Any, self.link), Heartbeat(0, 0.0), on_stalled=lambda: None, on_error=_raise, on_interrupt=_raise
        )
        self.dropped: list[Rejected] = []
        self.lane = Lane(cast(Any, self.link), self.outbox, PUBLISHER, self.dropped.append)

    def publish(self, *messages: Publish, sender: str | None = None) -> None:
        for message in messages:
            self.lane.publish(message, None if sender is None else request(1, sender))

    def written(self) -> bytes:
        """Flush, and return what was written since the last time."""
        self.outbox.flush()
        written, self.link.written = self.link.stream, []
        return written

    def on(self, channel: int, *messages: Publish) -> bytes:
        return b"".join(self.link.encoder.publish(channel, message) for message in messages)

    def alone(self, channel: int, message: Publish) -> bytes:
        """Return the bytes of a message that is sent alone."""
        return self.on(channel, message) + barrier(channel)

    def close(self, error: TransportError, channel: int = NEXT) -> list[Publish]:
        """Close the channel, and go on over another; return what was rejected."""
        self.lane.pause()
        rejected = self.lane.closed(error)
        assert all(each.error is error for each in rejected)
        self.lane.resume(channel)
        return [each.message for each in rejected]


def _raise(exc: BaseException) -> None:
    raise exc


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return Target(clock)


def request(tag: int, sender: str | None = "alice") -> Delivery:
    return Delivery(CONSUMER, tag, False, "jsonrpc", "S.request", b"{}", user_id=sender)


def reply(number: int, *, client: str = "alice-0123456789ab", size: int = 1) -> Publish:
    return Publish("jsonrpc", f"S.response.{client}.{number}", bytes(size), correlation_id=str(number))


def no_topic(message: Publish) -> AccessRefused:
    return AccessRefused(f"ACCESS_REFUSED - access to topic '{message.routing_key}' in exchange 'jsonrpc' in vhost '/'")


def too_large(size: int, most: int) -> MessageTooLarge:
    return MessageTooLarge(f"message size {size} is larger than configured max size {most}")


# -- no refusal -----------------------------------------------------------------------------------------------------


def test_a_reply_leaves_at_once_and_the_ack_of_its_request_behind_it(target: Target) -> None:
    target.lane.publish(reply(1), request(1))
    assert target.written() == target.on(PUBLISHER, reply(1)) + ack(CONSUMER, 1, False)


@pytest.mark.parametrize(("count", "size"), [(300, 10), (2, 1 << 20)])
def test_a_barrier_is_behind_every_so_many_replies_or_bytes(target: Target, count: int, size: int) -> None:
    target.publish(*(reply(number, size=size) for number in range(count)))
    assert target.written().count(barrier(PUBLISHER)) == (1 if size == 10 else 2)


def test_what_the_broker_has_handled_is_not_sent_again(target: Target) -> None:
    target.publish(reply(1), reply(2))
    target.lane.put_barrier()
    target.publish(reply(3))
    target.lane.put_barrier()
    target.publish(reply(4))
    target.lane.passed()
    target.written()
    assert target.close(ODD) == []
    assert target.written() == target.alone(NEXT, reply(3))
    target.lane.passed()
    assert target.written() == target.alone(NEXT, reply(4))


def test_an_answer_without_a_question_is_ignored(target: Target) -> None:
    target.publish(reply(1))
    target.lane.passed()
    assert target.lane.is_proven


# -- an exchange that this user may not write to --------------------------------------------------------------------


def test_all_replies_to_a_refused_exchange_are_rejected_and_none_is_sent_again(target: Target) -> None:
    target.publish(reply(1), reply(2))
    target.lane.pause()
    target.lane.publish(reply(3), request(3))
    target.written()
    assert [each.message for each in target.lane.closed(NO_WRITE)] == [reply(1), reply(2), reply(3)]
    target.lane.resume(NEXT)
    target.lane.publish(reply(4), request(4))
    assert target.dropped == [Rejected(NO_WRITE, reply(4))]
    assert target.written() == ack(CONSUMER, 3, False) + ack(CONSUMER, 4, False)
    assert target.lane.refusal() is NO_WRITE


def test_a_refused_exchange_is_tried_again_after_a_while(target: Target) -> None:
    target.publish(reply(1))
    target.close(NO_WRITE)
    target.clock.now += REFUSED_SECONDS
    assert target.lane.refusal() is None
    target.written()
    target.publish(reply(2), reply(3))
    assert target.written() == target.on(NEXT, reply(2), reply(3))
    assert target.dropped == []


# -- a key that is refused ------------------------------------------------------------------------------------------


def test_a_refused_key_costs_its_client_and_no_other(target: Target) -> None:
    hers = [reply(number, client="eve-eve000000000") for number in range(3)]
    target.publish(reply(10))
    target.publish(*hers[:2], sender="eve")
    target.publish(reply(11), sender="alice")
    target.written()
    assert target.close(no_topic(hers[0])) == hers[:2]
    assert target.written() == target.alone(NEXT, reply(11))
    target.publish(reply(12), sender="alice")
    target.publish(hers[2], sender="eve")
    assert [each.message for each in target.dropped] == [hers[2]]
    target.lane.passed()
    assert target.alone(NEXT, reply(12)) in target.written()
    target.lane.passed()
    assert target.lane.state is State.OPEN
    target.publish(reply(13), sender="alice")
    assert target.on(NEXT, reply(13)) in target.written()


def test_a_sender_with_many_refused_clients_is_refused_as_a_whole(target: Target) -> None:
    def hers(number: int) -> Publish:
        return reply(1, client=f"eve-eve{number:09}")

    for number in range(module._MOST_CLIENTS):
        target.publish(hers(number), sender="eve")
        target.close(no_topic(hers(number)), NEXT + number)
    target.publish(hers(99), sender="eve")
    assert [each.message for each in target.dropped] == [hers(99)]
    target.written()
    target.publish(hers(99), sender="alice")
    assert target.on(NEXT + number, hers(99)) in target.written()


def test_a_key_that_quotes_another_refusal_is_a_refused_key(target: Target) -> None:
    odd = reply(1, client="ACCESS_REFUSED - access to exchange 'jsonrpc', message size 1 is larger than")
    target.publish(odd, sender="eve")
    assert target.close(no_topic(odd)) == [odd]
    target.publish(reply(2), sender="alice")
    assert target.dropped == []


def test_a_refusal_is_forgotten_after_a_while(target: Target) -> None:
    target.publish(reply(1), sender="eve")
    target.close(no_topic(reply(1)))
    target.clock.now += REFUSED_SECONDS
    target.publish(reply(2), sender="eve")
    assert target.dropped == []
    target.lane.put_barrier()
    target.lane.passed()
    assert target.lane._is_free


def test_refusals_that_are_remembered_are_bounded(target: Target) -> None:
    for number in range(module._MOST_REFUSALS + 1):
        sent = reply(1, client=f"user-{number}")
        target.publish(sent)
        target.close(no_topic(sent), NEXT + number)
    assert len(target.lane._refusals) == 1


# -- a size that is refused -----------------------------------------------------------------------------------------


def test_a_limit_is_known_once_the_broker_has_named_it(target: Target) -> None:
    large = reply(2, size=2000)
    target.publish(reply(1), large, reply(3))
    target.written()
    error = too_large(2000, 1000)
    assert target.close(error) == [large]
    assert target.written() == target.alone(NEXT, reply(3))
    target.lane.passed()
    target.lane.publish(reply(4, size=1001), request(4))
    assert target.dropped == [Rejected(error, reply(4, size=1001))]
    target.publish(reply(5, size=1000))
    assert target.written() == target.on(NEXT, reply(5, size=1000)) + ack(CONSUMER, 4, False)


def test_what_waits_and_is_over_the_limit_holds_up_nothing(target: Target) -> None:
    target.publish(reply(1, size=2000), reply(2, size=2001), reply(3))
    target.close(too_large(2000, 1000))
    assert [each.message for each in target.dropped] == [reply(2, size=2001)]
    assert target.written().endswith(target.alone(NEXT, reply(3)))


# -- another reason -------------------------------------------------------------------------------------------------


def test_without_a_reason_that_names_it_replies_are_sent_one_at_a_time_until_one_is_found(target: Target) -> None:
    target.publish(reply(1), reply(2), reply(3))
    target.written()
    assert target.close(ODD) == []
    target.publish(reply(4))
    assert target.written() == target.alone(NEXT, reply(1))
    target.lane.passed()
    assert target.written() == target.alone(NEXT, reply(2))
    assert target.close(ODD, NEXT + 1) == [reply(2)]
    assert target.written() == target.alone(NEXT + 1, reply(3))
    target.lane.passed()
    assert target.written() == target.alone(NEXT + 1, reply(4))
    target.lane.passed()
    assert target.lane.state is State.OPEN
    target.publish(reply(5))
    assert target.written() == target.on(NEXT + 1, reply(5))


def test_what_waits_is_acknowledged_behind_its_reply(target: Target) -> None:
    target.lane.pause()
    target.lane.publish(reply(1), request(1))
    assert target.written() == b""
    target.lane.closed(ODD)
    target.lane.resume(NEXT)
    assert target.written() == target.alone(NEXT, reply(1)) + ack(CONSUMER, 1, False)


def test_a_closed_channel_without_replies_is_replaced(target: Target) -> None:
    assert target.close(ODD) == []
    target.publish(reply(1))
    assert target.written() == target.on(NEXT, reply(1))


def test_a_missing_exchange_is_no_fault_of_the_reply_at_first(target: Target) -> None:
    missing = TopologyMismatch("NOT_FOUND - no exchange 'jsonrpc' in vhost '/'")
    target.publish(reply(1), reply(2))
    target.written()
    assert target.close(missing) == []
    assert target.written() == target.alone(NEXT, reply(1))
    assert target.close(missing, NEXT + 1) == [reply(1)]
    assert target.written() == target.alone(NEXT + 1, reply(2))


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_reply_that_cannot_be_encoded_raises_at_once(target: Target, is_paused: bool) -> None:
    if is_paused:
        target.lane.pause()
    with pytest.raises(ValueError, match="routing_key: 256 bytes"):
        target.publish(Publish("e", "k" * 256, b"{}", correlation_id="1"))
    target.lane.resume(NEXT)
    target.publish(reply(1))
    assert target.written() == target.on(NEXT, reply(1))
