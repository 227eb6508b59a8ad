"""A session: while it is live, once it is known to be useless, and after its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest

from jsonrpc_amqp.amqp import outbox as outbox_module
from jsonrpc_amqp.amqp.base import Delivery, Publish, QueueFacts, Returned
from jsonrpc_amqp.amqp.encoder import ack, reject
from jsonrpc_amqp.amqp.frames import HEARTBEAT, METHOD, Confirm, Frame, ReturnEvent
from jsonrpc_amqp.amqp.session import LiveSession, State
from jsonrpc_amqp.errors import AccessRefused, ConnectionLost, TransportError

from .fake_link import CONFIRMER, CONSUMER, PUBLISHER, FakeLink
from .fake_listener import FakeListener

MESSAGE = Publish("rpc", "k", b"{}", correlation_id="1")
SECONDS = 10.0


class Fixture:
    """A session, and the connection and listener that it works with."""

    def __init__(self) -> None:
        self.name = "test"
        self.stats: Counter[str] = Counter()
        self.wakes = 0
        self.posted: list[Callable[[], None]] = []
        self.ends: list[tuple[TransportError, bool]] = []
        self.finished = 0
        self.outcomes: list[TransportError | None] = []
        self.found: list[QueueFacts | None] = []
        self.listener = FakeListener()
        self.link = FakeLink(heartbeat=SECONDS)
        self.session = LiveSession(self, self.listener, self.link, 1)
        self.session.go_live()

    def wake(self) -> None:
        self.wakes += 1

    def post(self, action: Callable[[], None]) -> None:
        self.posted.append(action)

    def end(self, session: LiveSession, error: TransportError, *, again_at_once: bool = False) -> None:
        assert session is self.session
        self.ends.append((error, again_at_once))

    def finish(self) -> None:
        self.finished += 1

    def lead(self) -> None:
        """Do what was posted, as the leader does."""
        posted, self.posted = self.posted, []
        for action in posted:
            action()

    def written(self) -> bytes:
        """Return what was queued since the last look."""
        self.session.flush()
        written = self.link.written
        self.link.writes.clear()
        return written

    def fall_silent(self) -> None:
        self.session.heartbeat.last_read = time.monotonic() - 2 * SECONDS - 1

    def invalidate(self) -> None:
        self.session.invalidate(ConnectionLost("useless"))

    def close(self) -> None:
        assert self.session.close(ConnectionLost("the end"))


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def delivery(tag: int) -> Delivery:
    return Delivery(CONSUMER, tag, False, "rpc", "k", b"{}")


# -- while it is live -----------------------------------------------------------------------------


def test_a_live_session_publishes_and_acknowledges(fixture: Fixture) -> None:
    assert fixture.session.publish(MESSAGE, acks=delivery(1))
    assert fixture.session.publish_confirmed(MESSAGE, fixture.outcomes.append)
    fixture.session.ack(delivery(2))
    assert fixture.link.writes == []
    encode = fixture.link.encoder.publish
    expected = encode(PUBLISHER, MESSAGE) + encode(CONFIRMER, MESSAGE) + ack(CONSUMER, 2, True)
    assert fixture.written() == expected
    assert not fixture.stats


def test_requeue_and_reject_settle_their_delivery_only(fixture: Fixture) -> None:
    fixture.session.requeue(delivery(1))
    fixture.session.reject(delivery(2))
    fixture.session.ack(delivery(3))
    expected = reject(CONSUMER, 1, True) + reject(CONSUMER, 2, False) + ack(CONSUMER, 3, False)
    assert fixture.written() == expected


def test_the_reply_queue_is_that_of_the_link(fixture: Fixture) -> None:
    assert fixture.session.reply_queue == "replies"


def test_writes_soon_while_the_leader_is_about_to_flush(fixture: Fixture) -> None:
    before = fixture.session.writes_soon
    fixture.session.outbox.is_watched = True
    assert (before, fixture.session.writes_soon) == (False, True)


def test_events_reach_the_listener_the_publisher_and_py_amqp(fixture: Fixture) -> None:
    session = fixture.session
    session.publish_confirmed(MESSAGE, fixture.outcomes.append)
    rare = Frame(METHOD, 1, b"rare")
    session.deliver([delivery(1), delivery(2)])
    session.handle(ReturnEvent(PUBLISHER, Returned(312, "NO_ROUTE", "rpc", "plain", "1", None)))
    session.handle(ReturnEvent(CONFIRMER, Returned(312, "NO_ROUTE", "rpc", "confirmed", "2", None)))
    session.handle(Confirm(CONFIRMER, 1, multiple=False, nack=False))
    session.handle(rare)
    assert fixture.listener.events == [("on_deliveries", [1, 2]), ("on_returned", "plain")]
    assert fixture.outcomes == [None]
    assert fixture.link.events == [rare]


def test_a_rejected_message_is_reported_to_the_listener(fixture: Fixture) -> None:
    fixture.session.publish(MESSAGE)
    text = "ACCESS_REFUSED - access to topic 'k' in exchange 'rpc' in vhost '/' refused for user 'u'"
    fixture.link.handlers["on_channel_closing"](PUBLISHER)
    fixture.link.handlers["on_channel_closed"](PUBLISHER, AccessRefused(text))
    assert fixture.listener.events == [("on_rejected", "k")]


def test_a_cancelled_consumer_ends_the_session(fixture: Fixture) -> None:
    with pytest.raises(ConnectionLost, match="cancelled the consumer"):
        fixture.link.handlers["on_consumer_cancelled"]()


def test_the_confirmed_close_finishes_the_connection(fixture: Fixture) -> None:
    fixture.link.handlers["on_closed"]()
    assert fixture.finished == 1


def test_py_amqp_writes_through_the_outbox(fixture: Fixture) -> None:
    fixture.link.handlers["write"](b"rare")
    assert fixture.link.writes == []
    assert fixture.written() == b"rare"


# -- once it is known to be useless ---------------------------------------------------------------


@pytest.mark.parametrize("end", [Fixture.invalidate, Fixture.close, Fixture.fall_silent])
def test_nothing_is_queued_any_more_and_dropped_acks_are_counted(
    fixture: Fixture, end: Callable[[Fixture], None]
) -> None:
    end(fixture)
    session = fixture.session
    assert not session.publish(MESSAGE)
    assert fixture.stats["dropped_acks"] == 0
    assert not session.publish(MESSAGE, acks=delivery(1))
    assert not session.publish_confirmed(MESSAGE, fixture.outcomes.append)
    session.ack(delivery(2))
    session.requeue(delivery(3))
    session.reject(delivery(4))
    assert fixture.stats["dropped_acks"] == 4
    assert fixture.written() == b""
    assert fixture.outcomes == []


def test_invalid_until_the_leader_ends_it(fixture: Fixture) -> None:
    states = [fixture.session._state]
    fixture.invalidate()
    states.append(fixture.session._state)
    assert fixture.ends == []  # only the leader ends it
    fixture.lead()
    assert [(str(error), at_once) for error, at_once in fixture.ends] == [("useless", False)]
    fixture.close()
    states.append(fixture.session._state)
    fixture.invalidate()
    states.append(fixture.session._state)  # it never goes back
    assert states == [State.LIVE, State.INVALID, State.ENDED, State.ENDED]


def test_what_was_queued_is_still_taken_by_the_first_close_only(fixture: Fixture) -> None:
    fixture.session.publish_confirmed(MESSAGE, fixture.outcomes.append)
    fixture.close()
    assert [type(error) for error in fixture.outcomes] == [ConnectionLost]
    assert not fixture.session.close(ConnectionLost("again"))
    assert len(fixture.outcomes) == 1
    assert fixture.link.discarded == 1


def test_silence_of_two_heartbeats_makes_it_invalid(fixture: Fixture) -> None:
    fixture.session.heartbeat.last_read = time.monotonic() - 2 * SECONDS + 5
    assert fixture.session.publish(MESSAGE)
    fixture.fall_silent()
    assert not fixture.session.publish(MESSAGE)
    fixture.lead()
    assert "broker:5672 was silent for two heartbeats" in str(fixture.ends[0][0])
    # What arrives late does not revive it.
    fixture.session.heartbeat.last_read = time.monotonic()
    assert not fixture.session.publish(MESSAGE)


def test_without_heartbeats_silence_means_nothing(fixture: Fixture) -> None:
    session = LiveSession(fixture, fixture.listener, FakeLink(heartbeat=0), 2)
    session.heartbeat.last_read -= 1e6
    session.beat(time.monotonic())
    assert session.publish(MESSAGE)


def test_a_heartbeat_is_sent_when_due_and_silence_raises(fixture: Fixture) -> None:
    opened = fixture.session.opened
    fixture.session.beat(opened + SECONDS / 2 - 0.1)
    assert fixture.written() == b""
    fixture.session.heartbeat.last_write = opened
    fixture.session.beat(opened + SECONDS / 2)
    fixture.session.beat(opened + SECONDS / 2)
    assert fixture.written() == HEARTBEAT
    with pytest.raises(ConnectionLost, match=r"silent for 20\.5 s \(two heartbeats of 10 s\)"):
        fixture.session.beat(opened + 2 * SECONDS + 0.5)


def test_a_failed_write_has_the_leader_end_it(fixture: Fixture) -> None:
    def fail() -> None:
        raise BrokenPipeError("broken pipe")

    fixture.link.within_write = fail
    fixture.session.publish(MESSAGE)
    fixture.session.flush()
    assert fixture.ends == []
    fixture.lead()
    error, at_once = fixture.ends[0]
    assert (type(error), at_once) == (ConnectionLost, False)
    assert "broker:5672 ended: broken pipe" in str(error)


def test_an_interrupted_write_makes_it_invalid_and_is_followed_by_a_new_one_at_once(fixture: Fixture) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    fixture.link.within_write = interrupt
    fixture.session.publish(MESSAGE)
    with pytest.raises(KeyboardInterrupt):
        fixture.session.flush()
    assert not fixture.session.publish(MESSAGE)
    fixture.lead()
    error, at_once = fixture.ends[0]
    assert at_once
    assert "interrupted during a write: KeyboardInterrupt()" in str(error)


def test_a_stalled_write_wakes_the_leader(fixture: Fixture) -> None:
    fixture.link.rooms = [1]
    fixture.session.publish(MESSAGE)
    fixture.session.flush()
    assert fixture.wakes == 1


# -- congestion -----------------------------------------------------------------------------------


def test_an_alarm_of_the_broker_is_congestion_until_it_ends(fixture: Fixture) -> None:
    blocked = fixture.link.handlers["on_blocked"]
    congested = [fixture.session.congested]
    blocked(True)
    congested.append(fixture.session.congested)
    blocked(False)
    congested.append(fixture.session.congested)
    assert congested == [False, True, False]
    assert fixture.listener.events == [("on_congested", True), ("on_congested", False)]


def test_a_full_outbox_is_congestion_until_the_socket_takes_enough(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CONGESTED_BYTES", 10)
    fixture.session.publish(MESSAGE)
    assert fixture.session.congested
    fixture.session.report_relief()
    assert fixture.listener.events == []
    fixture.session.flush()
    fixture.session.report_relief()
    fixture.session.report_relief()
    assert fixture.listener.events == [("on_congested", False)]  # once


def test_relief_is_reported_only_to_those_who_were_held_back(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "CONGESTED_BYTES", 10)
    fixture.session.publish(MESSAGE)  # and ``congested`` was not asked for
    fixture.session.flush()
    fixture.session.report_relief()
    assert fixture.listener.events == []


def test_the_end_of_an_alarm_is_no_relief_while_the_outbox_is_full(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "CONGESTED_BYTES", 10)
    fixture.link.handlers["on_blocked"](True)
    fixture.session.publish(MESSAGE)
    fixture.link.handlers["on_blocked"](False)
    assert fixture.listener.take() == [("on_congested", True)]
    fixture.session.flush()
    fixture.session.report_relief()
    assert fixture.listener.events == [("on_congested", False)]


# -- what is rare ---------------------------------------------------------------------------------


def test_rare_operations_are_done_by_the_leader(fixture: Fixture) -> None:
    session = fixture.session
    session.bind("key", fixture.outcomes.append)
    session.redeclare()
    session.inspect("queue", fixture.found.append)
    session.cancel(fixture.outcomes.append)
    assert fixture.link.events == []
    fixture.lead()
    assert fixture.link.events == [("bind", "key"), "redeclare", ("inspect", "queue"), "cancel"]
    assert fixture.outcomes == [None, None]
    assert fixture.found == [QueueFacts(3, 1)]


def test_on_a_session_that_has_ended_they_report_its_end(fixture: Fixture) -> None:
    session = fixture.session
    session.bind("early", fixture.outcomes.append)  # it ends before the leader comes to this
    fixture.close()
    session.bind("late", fixture.outcomes.append)
    session.redeclare()
    session.inspect("queue", fixture.found.append)
    session.cancel(fixture.outcomes.append)
    fixture.lead()
    assert fixture.link.events == []
    assert fixture.found == [None]
    assert [type(error) for error in fixture.outcomes] == [ConnectionLost] * 3
    assert [error.may_have_run for error in fixture.outcomes if error is not None] == [False] * 3


def test_redeclare_leaves_a_busy_broker_alone(fixture: Fixture) -> None:
    fixture.link.busy = True
    fixture.session.redeclare()
    fixture.lead()
    assert fixture.link.events == []


def test_a_close_is_asked_for_behind_replies_and_acks(fixture: Fixture) -> None:
    fixture.session.publish(MESSAGE, acks=delivery(1))
    fixture.session.begin_close()
    expected = fixture.link.encoder.publish(PUBLISHER, MESSAGE) + ack(CONSUMER, 1, False) + b"<connection.close>"
    assert fixture.link.written == expected
