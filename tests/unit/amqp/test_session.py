"""A session: whether it may be used, and what becomes of what it is given once it may not."""

from __future__ import annotations

import math
from collections.abc import Callable
from struct import pack
from typing import Any, cast

import pytest
from amqp import spec
from amqp.serialization import dumps

from jsonrpc_amqp.amqp import consumption, heartbeat, outbox
from jsonrpc_amqp.amqp import session as module
from jsonrpc_amqp.amqp.base import Delivery, Publish, QueueFacts, Returned
from jsonrpc_amqp.amqp.encoder import ack, barrier, reject, requeue
from jsonrpc_amqp.amqp.frames import HEARTBEAT, QOS_OK, Confirm, Frame, ReturnEvent, Undecoded
from jsonrpc_amqp.amqp.heartbeat import Suspensions
from jsonrpc_amqp.amqp.session import LiveSession, State
from jsonrpc_amqp.errors import ConnectionLost, TransportError

from .fakes import CONFIRMER, CONSUMER, PUBLISHER, Clock, FakeLink, FakeListener, FakeOwner
from .tools import with_table

MESSAGE = Publish("e", "k", b"{}", correlation_id="1")


class Target:
    """A session with a fake owner, listener and link."""

    def __init__(self, clock: Clock, *, sends_requests: bool = False) -> None:
        self.clock = clock
        self.link = FakeLink()
        self.link.sends_requests = sends_requests
        self.owner = FakeOwner()
        self.listener = FakeListener()
        self.session = LiveSession(self.owner, self.listener, cast(Any, self.link), 1)

    def written(self) -> bytes:
        """Flush, and return what was written since the last time."""
        self.session.flush()
        written, self.link.written = self.link.stream, []
        return written

    def delivery(self, tag: int) -> Delivery:
        return Delivery(CONSUMER, tag, False, "e", "k", b"{}")


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    clock = Clock()
    for each in (module, consumption, heartbeat, outbox):
        monkeypatch.setattr(each, "time", clock)
    return Target(clock)


@pytest.fixture
def client(target: Target) -> Target:
    """The session of a client."""
    return Target(target.clock, sends_requests=True)


def make_invalid(target: Target) -> None:
    target.session.invalidate(ConnectionLost("useless"))


def make_silent(target: Target) -> None:
    target.clock.now += 2 * target.link.heartbeat + 1


def make_ended(target: Target) -> None:
    target.session.close()


not_live = pytest.mark.parametrize("end", [make_invalid, make_silent, make_ended])
End = Callable[[Target], None]


# -- live -----------------------------------------------------------------------------------------------------------


def test_it_publishes_and_acks_behind_the_reply(target: Target) -> None:
    assert target.session.publish(MESSAGE, acks=target.delivery(1)) is True
    target.session.ack(target.delivery(2))
    assert target.written() == target.link.encoder.publish(PUBLISHER, MESSAGE) + ack(CONSUMER, 2, True)


def test_it_publishes_with_confirms(client: Target) -> None:
    outcomes: list[TransportError | None] = []
    assert client.session.publish_confirmed(MESSAGE, outcomes.append) is True
    assert client.written() == client.link.encoder.publish(CONFIRMER, MESSAGE)
    client.session.handle(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    assert outcomes == [None]


@pytest.mark.parametrize("encode", [reject, requeue])
def test_it_rejects_or_requeues_and_acks_around_that(target: Target, encode: Callable[[int, int], bytes]) -> None:
    target.session.ack(target.delivery(1))
    (target.session.requeue if encode is requeue else target.session.reject)(target.delivery(2))
    target.session.ack(target.delivery(3))
    # One ack for both would name a tag that was settled.
    assert target.written() == encode(CONSUMER, 2) + ack(CONSUMER, 3, True)


def test_a_returned_message_goes_to_the_listener_unless_a_confirm_reports_it(client: Target) -> None:
    returned = Returned(312, "NO_ROUTE", "e", "k", "1", None)
    for channel in (CONFIRMER, PUBLISHER):
        client.session.handle(ReturnEvent(channel, returned))
    assert client.listener.heard == [("returned", returned)]


def test_the_session_of_a_server_confirms_nothing(target: Target) -> None:
    with pytest.raises(TypeError, match="confirms no publishes"):
        target.session.publish_confirmed(MESSAGE, lambda _error: None)


def test_the_answer_to_a_barrier_goes_to_the_lane_that_asked(target: Target) -> None:
    large = Publish("e", "k", bytes(2 << 20), correlation_id="1")
    target.session.publish(large)
    assert target.written().endswith(barrier(PUBLISHER))
    callbacks = go_live(target)
    target.session.handle(Frame(1, PUBLISHER, QOS_OK))
    callbacks["on_channel_closing"](PUBLISHER)
    callbacks["on_channel_closed"](PUBLISHER, TransportError("message size 2097152 is larger"))
    assert target.listener.heard == []  # it was handled
    assert target.link.frames == []


def test_a_delivery_that_cannot_be_decoded_goes_to_the_listener(target: Target) -> None:
    target.session.handle(Undecoded(Delivery(2, 5, False, "e", "k", None), "why"))
    assert target.listener.heard == [("undecoded", 5, "why")]


def test_a_rare_frame_goes_to_the_link(target: Target) -> None:
    frame = Frame(1, 1, dumps("BB", spec.Queue.DeclareOk))
    target.session.handle(frame)
    assert target.link.frames == [frame]


def test_deliveries_go_to_the_listener(target: Target) -> None:
    target.session.deliver([target.delivery(1)])
    assert target.listener.heard == [("deliveries", [b"{}"])]


def test_a_rejected_message_is_reported_to_the_listener(target: Target) -> None:
    callbacks = go_live(target)
    target.session.publish(MESSAGE)
    error = TransportError("message size 2 is larger than configured max size 1")
    callbacks["on_channel_closing"](PUBLISHER)
    callbacks["on_channel_closed"](PUBLISHER, error)
    assert target.listener.heard == [("rejected", error, MESSAGE)]


def test_of_messages_that_were_handled_none_is_the_rejected_one(client: Target) -> None:
    callbacks = go_live(client)
    client.session.publish(MESSAGE)
    client.listener.handled = [MESSAGE]
    with pytest.raises(ConnectionLost):
        callbacks["on_channel_closed"](PUBLISHER, TransportError("message size 2 is larger"))
    assert client.listener.heard == []


def go_live(target: Target) -> dict[str, Any]:
    target.link.early = b"early"
    assert target.session.go_live() == b"early"
    return target.link.callbacks


def test_what_the_link_reports_once_it_is_live(target: Target) -> None:
    callbacks = go_live(target)
    callbacks["write"](b"from py-amqp")
    assert target.written() == b"from py-amqp"
    callbacks["on_closed"]()
    assert target.owner.finishes == 1
    callbacks["on_consumer_cancelled"]("tag-1")
    assert target.owner.stats["consumers_cancelled"] == target.owner.wakes == 1
    assert target.clock.now <= target.session.next_event() <= target.clock.now + 0.1
    target.session.advance(target.clock.now + 0.1)
    assert target.link.calls == [("redeclare", "queue")]


def test_a_client_whose_replies_are_no_longer_consumed_is_lost(target: Target) -> None:
    target.link.sends_requests = True
    with pytest.raises(ConnectionLost, match="the broker cancelled the consumer of replies: queue 'q' was deleted"):
        go_live(target)["on_consumer_cancelled"]("tag-1")


# -- invalid, silent, ended -----------------------------------------------------------------------------------------


@not_live
def test_once_it_may_not_be_used_it_takes_nothing_and_counts_acks(target: Target, end: End) -> None:
    end(target)
    session, outcomes = target.session, list[TransportError | None]()
    assert session.publish(MESSAGE) is False
    assert target.owner.stats["dropped_acks"] == 0
    assert session.publish(MESSAGE, acks=target.delivery(1)) is False
    assert session.publish_confirmed(MESSAGE, outcomes.append) is False
    for settle in (session.ack, session.requeue, session.reject):
        settle(target.delivery(2))
    assert target.owner.stats["dropped_acks"] == 4
    assert outcomes == []
    assert target.written() == b""


def test_silence_of_two_heartbeats_makes_it_invalid_for_good(target: Target) -> None:
    target.clock.now += 20.0
    assert target.session.publish(MESSAGE) is True
    target.clock.now += 0.1
    assert target.session.publish(MESSAGE) is False
    # A reply was not sent because of it, so it must end, whatever arrives now.
    target.session.heartbeat.last_read = target.clock.now
    assert target.session.publish(MESSAGE) is False
    target.owner.run()
    [(session, error, again_at_once)] = target.owner.ended
    assert (session, str(error), again_at_once) == (
        target.session,
        "the broker at there:5672 was silent for 20.1 s (two heartbeats of 10 s)",
        False,
    )


def test_what_waits_to_be_read_is_no_silence(target: Target) -> None:
    target.link.unread = True
    for use in (lambda: target.session.publish(MESSAGE), lambda: target.session.beat(target.clock.now)):
        target.clock.now += 25.0
        assert use() is not False
        assert target.session.heartbeat.last_read == target.clock.now
    assert target.owner.posted == []


def test_a_session_that_was_found_silent_is_not_revived_by_what_comes(target: Target) -> None:
    target.clock.now += 25.0
    assert target.session.publish(MESSAGE) is False
    target.link.unread = True
    assert target.session.publish(MESSAGE) is False
    target.owner.run()
    assert len(target.owner.ended) == 1


STOOD_STILL = "this process or its I/O thread stood still for 25.0 s, and missed its heartbeats; "


def test_the_broker_is_not_blamed_for_the_silence_of_this_process(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    session, clock = target.session, target.clock
    session.beat(clock.now)
    clock.now += 30.0  # half an interval, and the stall
    # By a handler's thread, before the leader is back.
    assert session.publish(MESSAGE) is False
    target.owner.run()
    [(_, error, _)] = target.owner.ended
    silent = "the broker at there:5672 was silent for 30.0 s (two heartbeats of 10 s)"
    assert str(error) == STOOD_STILL + silent
    # By the leader.
    with pytest.raises(ConnectionLost) as caught:
        session.beat(clock.now)
    assert str(caught.value) == STOOD_STILL + silent
    [record] = caplog.records
    assert "test: this process or its I/O thread stood still for 25.0 s" in record.getMessage()


def test_a_write_that_fails_after_a_stall_says_so(target: Target) -> None:
    def fail() -> None:
        raise BrokenPipeError("gone")

    target.session.publish(MESSAGE)
    target.session.beat(target.clock.now)
    target.clock.now += 30.0
    target.link.unread = True
    target.link.on_write = fail
    target.session.flush()
    target.owner.run()
    [(_, error, _)] = target.owner.ended
    assert str(error) == STOOD_STILL + "the connection ended: gone"


def test_a_suspended_machine_is_noticed_though_the_clock_stood_still(target: Target) -> None:
    session, now, total = target.session, target.clock.now, 100.0
    session._suspensions = Suspensions(lambda: total)
    session.beat(now)
    total += 3600.0
    with pytest.raises(ConnectionLost, match=r"stood still for 3595\.0 s, .* was silent for 3600\.0 s"):
        session.beat(now)


def test_without_heartbeats_silence_means_nothing(target: Target) -> None:
    target.link.heartbeat = 0
    session = LiveSession(target.owner, target.listener, cast(Any, target.link), 2)
    target.clock.now += 1e6
    assert session.publish(MESSAGE) is True
    session.beat(target.clock.now)
    assert target.written() == b""


def test_an_interrupted_write_makes_it_invalid_and_the_connection_is_made_again_at_once(target: Target) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    target.link.on_write = interrupt
    target.session.publish(MESSAGE)
    with pytest.raises(KeyboardInterrupt):
        target.session.flush()
    assert target.session.publish(MESSAGE) is False
    target.owner.run()
    [(_, error, again_at_once)] = target.owner.ended
    assert (str(error), again_at_once) == ("interrupted during a write: KeyboardInterrupt()", True)


def test_an_error_of_the_socket_in_a_write_ends_it(target: Target) -> None:
    def fail() -> None:
        raise BrokenPipeError("gone")

    target.link.on_write = fail
    target.session.publish(MESSAGE)
    target.session.flush()
    target.owner.run()
    [(session, error, again_at_once)] = target.owner.ended
    assert (session, str(error), again_at_once) == (target.session, "the connection ended: gone", False)


def test_an_ended_session_stays_ended(target: Target) -> None:
    make_ended(target)
    make_invalid(target)
    assert target.session._state is State.ENDED


def test_its_end_lets_go_of_the_socket_and_is_reported_to_what_waits_for_a_confirm(client: Target) -> None:
    outcomes: list[TransportError | None] = []
    client.session.publish_confirmed(MESSAGE, outcomes.append)
    client.session.close()
    assert client.link.is_discarded
    for _ in range(2):
        client.session.fail_confirms(ConnectionLost("gone"))
    [error] = outcomes
    assert str(error) == "gone; the message may have been taken, or not"


# -- what is posted -------------------------------------------------------------------------------------------------


def test_what_is_rare_is_done_by_the_leader(target: Target) -> None:
    session, outcomes = target.session, list[Any]()
    session.bind("a.#", outcomes.append)
    session.inspect("q", outcomes.append)
    session.redeclare()
    session.cancel(outcomes.append)
    assert target.link.calls == []
    consuming = [session.is_consuming]
    target.owner.run()
    assert [*consuming, session.is_consuming] == [True, False]
    assert target.link.calls == [("bind", "a.#"), ("inspect", "q"), ("redeclare", None)]
    assert target.link.calls_of_consumer == [("cancel", "tag-1", False)]
    assert outcomes == []
    assert target.link.consumer is not None
    assert target.link.consumer.reply is not None
    target.link.consumer.reply(("tag-1",))
    assert outcomes == [None]


def test_on_an_ended_session_it_fails(target: Target) -> None:
    session, outcomes = target.session, list[TransportError | None]()
    facts: list[QueueFacts | TransportError] = []
    session.bind("a.#", outcomes.append)
    consuming = [session.is_consuming]
    make_ended(target)
    assert [*consuming, session.is_consuming] == [True, False]
    session.cancel(outcomes.append)
    session.inspect("q", facts.append)
    session.redeclare()
    target.owner.run()
    assert target.link.calls == []
    assert [str(error) for error in outcomes] == ["the connection ended"] * 2
    assert not any(error and error.may_have_run for error in outcomes)
    assert [str(error) for error in facts] == ["the connection ended"]


def test_nothing_is_redeclared_while_the_broker_is_slow(target: Target) -> None:
    target.link.is_busy = True
    target.session.redeclare()
    target.owner.run()
    assert target.link.calls == []


def test_a_close_leaves_behind_all_that_is_queued(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.session.publish(MESSAGE, acks=target.delivery(1))
    monkeypatch.setattr(target.link, "begin_close", lambda: target.session.put(b"close"))
    target.session.begin_close()
    reply = target.link.encoder.publish(PUBLISHER, MESSAGE)
    assert target.link.written == [reply + ack(CONSUMER, 1, False) + b"close"]
    go_live(target)["on_consumer_cancelled"]("tag-1")
    assert target.session._consumption.next_event == math.inf


# -- heartbeats -----------------------------------------------------------------------------------------------------


def test_a_heartbeat_is_sent_when_one_is_due(target: Target) -> None:
    target.session.beat(target.clock.now + 4.9)
    assert target.written() == b""
    for _ in range(2):
        target.session.beat(target.clock.now + 5.0)
        target.session.beat(target.clock.now + 5.0)
        assert target.session.heartbeat.last_write == target.clock.now + 5.0
    assert target.written() == HEARTBEAT


def test_a_silent_broker_is_lost(target: Target) -> None:
    target.session.beat(target.clock.now + 20.0)
    with pytest.raises(ConnectionLost, match=r"was silent for 20\.1 s \(two heartbeats of 10 s\)"):
        target.session.beat(target.clock.now + 20.1)


# -- congestion -----------------------------------------------------------------------------------------------------


def test_an_alarm_of_the_broker_is_reported_and_so_is_its_end(target: Target) -> None:
    on_blocked = go_live(target)["on_blocked"]
    seen: list[bool] = []
    for blocked in (True, False):
        on_blocked(blocked)
        seen.append(target.session.congested)
    assert seen == [True, False]
    assert target.listener.heard == [("congested", True), ("congested", False)]


def test_relief_is_reported_once_and_only_to_those_who_were_held_back(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jsonrpc_amqp.amqp.outbox.CONGESTED_BYTES", 10)
    target.session.put(b"x" * 11)
    target.written()
    target.session.report_relief()
    assert target.listener.heard == []
    target.session.put(b"x" * 11)
    assert target.session.congested
    target.session.report_relief()
    assert target.listener.heard == []
    target.written()
    for _ in range(2):
        target.session.report_relief()
    assert target.listener.heard == [("congested", False)]


def test_relief_waits_for_the_alarm_and_for_the_outbox(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jsonrpc_amqp.amqp.outbox.CONGESTED_BYTES", 10)
    on_blocked = go_live(target)["on_blocked"]
    on_blocked(True)
    target.session.put(b"x" * 11)
    on_blocked(False)
    assert target.listener.heard == [("congested", True)]
    target.written()
    target.session.report_relief()
    assert target.listener.heard == [("congested", True), ("congested", False)]


def test_headers_that_cannot_be_read_are_counted_and_logged(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    entries = b"\4\x1b[2JT" + b"\xff" * 8 + b"\4bad2T" + b"\xff" * 8 + b"\5trace?"
    (delivery,) = target.link.decoder.feed(with_table(pack(">I", len(entries)) + entries))
    assert isinstance(delivery, Delivery)
    assert target.owner.stats["unreadable_headers"] == 0
    assert delivery.headers == {}
    assert delivery.headers == {}
    assert target.owner.stats["unreadable_headers"] == 3
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "3 headers of a message cannot be read, and are left out; the first: " in record.getMessage()
    assert record.getMessage().isprintable()
