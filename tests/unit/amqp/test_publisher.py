"""The publisher: channels, confirms and returns, and what happens when the broker closes a channel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jsonrpc_amqp.amqp.base import DIRECT_REPLY_TO, Publish, Returned
from jsonrpc_amqp.amqp.encoder import ack
from jsonrpc_amqp.amqp.frames import Confirm, ReturnEvent
from jsonrpc_amqp.amqp.heartbeat import Heartbeat
from jsonrpc_amqp.amqp.outbox import Outbox
from jsonrpc_amqp.amqp.publisher import LARGE_BODY, Publisher
from jsonrpc_amqp.errors import (
    AccessRefused,
    ConnectionLost,
    MessageTooLarge,
    Overloaded,
    TopologyMismatch,
    TransportError,
    Unroutable,
)

from .fake_link import CONFIRMER, CONSUMER, PUBLISHER, FakeLink


def message(key: str, **properties: object) -> Publish:
    publish = Publish("rpc", key, b"{}", correlation_id=f"id-{key}")
    for name, value in properties.items():
        setattr(publish, name, value)
    return publish


def forbidden(key: str) -> AccessRefused:
    return AccessRefused(
        f"ACCESS_REFUSED - access to topic '{key}' in exchange 'rpc' in vhost '/' refused for user 'u'"
    )


def missing(exchange: str = "rpc") -> TopologyMismatch:
    return TopologyMismatch(f"NOT_FOUND - no exchange '{exchange}' in vhost '/'")


class Fixture:
    """A publisher, what it wrote, and what it reported."""

    def __init__(self, *, sends_requests: bool = False) -> None:
        self.link = FakeLink(sends_requests=sends_requests)
        self.handled: list[Publish] = []
        self.rejected: list[tuple[TransportError, Publish]] = []
        self.outcomes: list[tuple[str, TransportError | None]] = []
        self.outbox = Outbox(self.link, Heartbeat(0, 0.0), on_stalled=_fail, on_error=_fail, on_interrupt=_fail)
        self.publisher = Publisher(
            self.link,
            self.outbox,
            is_awaited=lambda message: message not in self.handled,
            on_rejected=lambda error, message: self.rejected.append((error, message)),
        )

    def publish(self, *messages: Publish) -> None:
        for each in messages:
            with self.outbox.lock:
                self.publisher.publish(each)

    def publish_confirmed(self, *messages: Publish) -> None:
        for each in messages:
            with self.outbox.lock:
                self.publisher.publish(each, self.outcome(each.routing_key))

    def outcome(self, name: str) -> Callable[[TransportError | None], None]:
        return lambda error: self.outcomes.append((name, error))

    def written(self) -> bytes:
        """Return what was queued since the last look."""
        self.outbox.flush()
        written = self.link.written
        self.link.writes.clear()
        return written

    def frames(self, channel: int, *messages: Publish) -> bytes:
        return b"".join(self.link.encoder.publish(channel, each) for each in messages)

    def types(self) -> list[tuple[str, type | None]]:
        return [(name, None if error is None else type(error)) for name, error in self.outcomes]


def _fail(*_args: object) -> None:
    raise AssertionError("not expected")


@pytest.fixture
def server() -> Fixture:
    """One that publishes replies."""
    return Fixture()


@pytest.fixture
def client() -> Fixture:
    """One that publishes requests."""
    return Fixture(sends_requests=True)


A, B, C, D = (message(key) for key in "abcd")


# -- publishing -----------------------------------------------------------------------------------


def test_messages_leave_by_the_channel_without_confirms_or_by_that_with(client: Fixture) -> None:
    client.publish(A)
    client.publish_confirmed(B)
    assert client.written() == client.frames(PUBLISHER, A) + client.frames(CONFIRMER, B)


def test_a_confirmed_message_with_a_direct_reply_leaves_by_the_channel_that_consumes(client: Fixture) -> None:
    # The plan has one channel for all three then, which is in confirm mode.
    client.link.publisher = client.link.confirmer = CONSUMER
    call = message("a", reply_to=DIRECT_REPLY_TO)
    client.publish_confirmed(call)
    assert client.written() == client.frames(CONSUMER, call)
    client.publisher.confirmed(Confirm(CONSUMER, 1, multiple=False, nack=False))
    assert client.outcomes == [("a", None)]


def test_a_large_body_leaves_as_a_small_one(client: Fixture) -> None:
    large = message("a", body=bytes(range(256)) * (LARGE_BODY // 256 + 1))
    client.publish(large)
    assert client.written() == client.frames(PUBLISHER, large)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("confirmed", [False, True])
def test_a_message_that_amqp_has_no_form_for_raises_at_once(client: Fixture, held: bool, confirmed: bool) -> None:
    if held:
        client.publisher.hold(PUBLISHER)
    bad = message("k" * 256)
    with pytest.raises(ValueError, match="routing_key: 256 bytes"):
        (client.publish_confirmed if confirmed else client.publish)(bad)
    client.publish(A)
    client.publisher.resume()
    assert client.written() == client.frames(PUBLISHER, A)
    # It was not noted as published: the next confirmed message has the number 1.
    client.publish_confirmed(B)
    client.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    assert client.outcomes == [("b", None)]


def test_a_large_message_that_amqp_has_no_form_for_queues_nothing(client: Fixture) -> None:
    with pytest.raises(ValueError, match="routing_key"):
        client.publish(message("k" * 256, body=b"x" * LARGE_BODY))
    assert client.written() == b""


# -- confirms and returns -------------------------------------------------------------------------


def test_confirms_decide_by_number(client: Fixture) -> None:
    client.publish_confirmed(A, B, C, D)
    client.publisher.confirmed(Confirm(CONFIRMER, 2, multiple=False, nack=False))
    assert client.outcomes == [("b", None)]
    client.publisher.confirmed(Confirm(CONFIRMER, 3, multiple=True, nack=False))
    assert client.outcomes == [("b", None), ("a", None), ("c", None)]
    client.publisher.confirmed(Confirm(CONFIRMER, 4, multiple=False, nack=True))
    assert client.types()[3:] == [("d", Overloaded)]


def test_confirms_of_another_channel_are_ignored(client: Fixture) -> None:
    client.publish_confirmed(A)
    client.publisher.confirmed(Confirm(PUBLISHER, 1, multiple=False, nack=False))
    assert client.outcomes == []


def test_an_outcome_runs_without_the_lock(client: Fixture) -> None:
    seen: list[bool] = []

    def outcome(_error: TransportError | None) -> None:
        seen.append(client.outbox.lock._is_owned())  # type: ignore[attr-defined]

    with client.outbox.lock:
        client.publisher.publish(A, outcome)
    client.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    assert seen == [False]


def test_a_return_of_a_confirmed_message_is_reported_by_its_confirm(client: Fixture) -> None:
    client.publish_confirmed(A, B)
    event = Returned(312, "NO_ROUTE", "rpc", "b", "id-b", None)
    assert client.publisher.returned(ReturnEvent(CONFIRMER, event))
    assert client.outcomes == []
    client.publisher.confirmed(Confirm(CONFIRMER, 2, multiple=True, nack=False))
    assert client.types() == [("a", None), ("b", Unroutable)]


def test_a_return_of_another_channel_is_left_to_the_listener(client: Fixture) -> None:
    assert not client.publisher.returned(ReturnEvent(PUBLISHER, Returned(312, "NO_ROUTE", "rpc", "b", "id-b", None)))


def test_the_end_of_the_session_reports_what_awaits_a_confirm_and_what_was_held(client: Fixture) -> None:
    client.publish_confirmed(A)
    client.publisher.hold(CONFIRMER)
    client.publish(B)
    client.publish_confirmed(C)
    client.publisher.fail(ConnectionLost("the socket is gone"))
    assert client.types() == [("a", ConnectionLost), ("c", ConnectionLost)]
    assert "the socket is gone; the message may have been taken, or not" in str(client.outcomes[0][1])


# -- hold and resume ------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [PUBLISHER, CONFIRMER])
def test_publishes_and_acks_are_held_and_leave_in_order(server: Fixture, channel: int) -> None:
    server.publisher.hold(channel)
    server.publish(A)
    server.publish_confirmed(B)
    with server.outbox.lock:
        server.publisher.ack(1)
    server.publish(C)
    assert server.written() == b""
    server.publisher.resume([D])
    expected = server.frames(PUBLISHER, D, A) + server.frames(CONFIRMER, B) + server.frames(PUBLISHER, C)
    assert server.written() == expected + ack(CONSUMER, 1, False)
    assert not server.publisher.is_held
    server.publisher.resume()
    assert server.written() == b""


def test_another_channel_holds_nothing(server: Fixture) -> None:
    server.publisher.hold(CONSUMER)
    server.publish(A)
    with server.outbox.lock:
        server.publisher.ack(1)
    assert server.written() == server.frames(PUBLISHER, A) + ack(CONSUMER, 1, False)


# -- the broker closes the channel without confirms -----------------------------------------------


def close(fixture: Fixture, channel: int, error: TransportError) -> None:
    """Close a channel as the broker does."""
    fixture.publisher.hold(channel)
    fixture.publisher.channel_closed(channel, error)


def test_the_rejected_message_is_reported_and_what_came_behind_is_sent_again(client: Fixture) -> None:
    client.publish(A, B, C)
    client.written()
    error = forbidden("b")
    client.publisher.hold(PUBLISHER)
    client.publish(D)
    client.publisher.channel_closed(PUBLISHER, error)
    assert client.rejected == [(error, B)]
    assert client.link.publisher not in (CONSUMER, PUBLISHER, CONFIRMER)
    assert client.written() == client.frames(client.link.publisher, C, D)


def test_what_was_sent_again_can_be_rejected_in_its_turn(client: Fixture) -> None:
    client.publish(A, B, C)
    close(client, PUBLISHER, forbidden("a"))
    client.written()
    close(client, client.link.publisher, forbidden("b"))
    assert [each for _error, each in client.rejected] == [A, B]
    assert client.written() == client.frames(client.link.publisher, C)


def test_what_the_broker_has_handled_is_not_sent_again(client: Fixture) -> None:
    client.publish(A, B, C)
    client.written()
    client.handled = [B]
    close(client, PUBLISHER, forbidden("a"))
    assert client.rejected[0][1] is A
    assert client.written() == client.frames(client.link.publisher, C)


def test_two_candidates_end_the_connection_for_requests(client: Fixture) -> None:
    client.publish(A, message("a"))
    with pytest.raises(ConnectionLost, match=r"closed the channel that publishes: .*access to topic 'a'"):
        close(client, PUBLISHER, forbidden("a"))
    assert client.rejected == []


def test_one_of_two_candidates_that_was_handled_leaves_the_other(client: Fixture) -> None:
    first, second = message("a"), message("a", correlation_id="other")
    client.publish(first, second)
    client.handled = [first]
    close(client, PUBLISHER, forbidden("a"))
    assert client.rejected[0][1] is second


def test_the_first_of_two_candidates_is_taken_for_replies(server: Fixture) -> None:
    first, second = message("a"), message("a", correlation_id="other")
    server.publish(first, second)
    server.written()
    close(server, PUBLISHER, forbidden("a"))
    assert [each for _error, each in server.rejected] == [first]
    assert server.rejected[0][1] is first
    assert server.written() == server.frames(server.link.publisher, second)


def test_a_message_that_is_too_large_is_found_by_its_size(client: Fixture) -> None:
    client.publish(A, message("b", body=b"x" * 100), C)
    client.written()
    error = MessageTooLarge("PRECONDITION_FAILED - message size 100 is larger than configured max size 50")
    close(client, PUBLISHER, error)
    assert client.rejected[0][1].routing_key == "b"
    assert client.written() == client.frames(client.link.publisher, C)


def test_no_candidate_ends_the_connection(server: Fixture) -> None:
    server.publish(A)
    with pytest.raises(ConnectionLost):
        close(server, PUBLISHER, AccessRefused("a text of another broker"))
    assert server.rejected == []


def test_a_channel_that_also_consumes_is_not_replaced(client: Fixture) -> None:
    client.link.publisher = client.link.confirmer = CONSUMER
    client.publish(A)
    with pytest.raises(ConnectionLost, match="closed the channel that publishes"):
        close(client, CONSUMER, forbidden("a"))
    assert [each for _error, each in client.rejected] == [A]


def test_the_end_of_the_channel_that_consumes_ends_the_connection(server: Fixture) -> None:
    with pytest.raises(ConnectionLost, match="closed the channel that consumes: unknown delivery tag"):
        close(server, CONSUMER, TopologyMismatch("unknown delivery tag"))


def test_a_missing_exchange_is_declared_before_anything_is_sent_again(server: Fixture) -> None:
    server.publish(A, B)
    server.written()
    close(server, PUBLISHER, missing())
    server.publish(C)
    assert [each for _error, each in server.rejected] == [A]
    assert server.link.events == ["redeclare"]
    assert server.written() == b""
    assert server.link.on_redeclared is not None
    server.link.on_redeclared()
    assert server.written() == server.frames(server.link.publisher, B, C)


def test_a_missing_exchange_that_is_not_declared_here_ends_the_connection(client: Fixture) -> None:
    client.link.redeclarable = False
    client.publish(A)
    with pytest.raises(ConnectionLost, match="no exchange 'rpc'"):
        close(client, PUBLISHER, missing())
    assert [each for _error, each in client.rejected] == [A]
    assert client.link.publisher == PUBLISHER


# -- the broker closes the channel in confirm mode ------------------------------------------------


def test_the_rejected_notification_is_reported_and_the_others_are_unknown(client: Fixture) -> None:
    client.publish_confirmed(A, B, C)
    client.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    client.written()
    client.publisher.hold(CONFIRMER)
    client.publish_confirmed(D)
    client.publisher.channel_closed(CONFIRMER, forbidden("b"))
    assert client.types() == [("a", None), ("b", AccessRefused), ("c", ConnectionLost)]
    assert "because of another message" in str(client.outcomes[2][1])
    new = client.link.confirmer
    assert new not in (CONSUMER, PUBLISHER, CONFIRMER)
    assert client.written() == client.frames(new, D)
    # The new channel numbers from 1; confirms of the old one say nothing.
    client.publisher.confirmed(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    assert len(client.outcomes) == 3
    client.publisher.confirmed(Confirm(new, 1, multiple=False, nack=False))
    assert client.types()[3:] == [("d", None)]


def test_two_candidates_with_confirms_are_both_unknown(client: Fixture) -> None:
    client.publish_confirmed(A, message("a"))
    close(client, CONFIRMER, forbidden("a"))
    assert client.types() == [("a", ConnectionLost), ("a", ConnectionLost)]
    assert client.outcomes[0][1] is not client.outcomes[1][1]  # each raises its own


def test_a_missing_exchange_with_confirms_ends_the_connection(client: Fixture) -> None:
    client.publish_confirmed(A)
    with pytest.raises(ConnectionLost, match="no exchange 'rpc'"):
        close(client, CONFIRMER, missing())
    assert client.types() == [("a", TopologyMismatch)]
    assert client.link.confirmer == CONFIRMER


def test_the_end_of_the_confirmer_keeps_the_other_channel(client: Fixture) -> None:
    client.publish(A)
    client.written()
    close(client, CONFIRMER, forbidden("b"))
    client.publish(B)
    assert client.written() == client.frames(PUBLISHER, B)
    # And what it published is still remembered.
    close(client, PUBLISHER, forbidden("a"))
    assert [each for _error, each in client.rejected] == [A]
