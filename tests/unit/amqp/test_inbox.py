"""The inbox: what is reported in which order, how a connection ends, and when a burst is on."""

from __future__ import annotations

import time
from collections.abc import Callable
from struct import pack

import pytest

from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.amqp.encoder import ack
from jsonrpc_amqp.amqp.frames import HEARTBEAT, METHOD, Confirm, Frame, ReturnEvent
from jsonrpc_amqp.amqp.heartbeat import Heartbeat
from jsonrpc_amqp.amqp.inbox import BURST_SECONDS, LARGE_READ, READ_SIZE, Inbox
from jsonrpc_amqp.amqp.outbox import Outbox
from jsonrpc_amqp.errors import ConnectionLost

from .fake_link import CONFIRMER, CONSUMER, PUBLISHER, FakeLink, delivery, frame, returned

# queue.bind-ok, for py-amqp.
BIND_OK = frame(METHOD, 1, pack(">HH", 50, 21))


class Fixture:
    """An inbox, and what it reported."""

    def __init__(self, *, tls: bool = False) -> None:
        self.link = FakeLink(tls=tls)
        self.heartbeat = Heartbeat(10, 0.0)
        self.outbox = Outbox(self.link, self.heartbeat, on_stalled=_ignore, on_error=_ignore, on_interrupt=_ignore)
        self.inbox = Inbox(self.link, self.outbox, self.heartbeat, self)
        self.reported: list[list[int] | Confirm | ReturnEvent | Frame] = []
        self.on_report: Callable[[], None] = lambda: None

    def deliver(self, deliveries: list[Delivery]) -> None:
        self.reported.append([each.tag for each in deliveries])
        self.on_report()

    def handle(self, event: Confirm | ReturnEvent | Frame) -> None:
        self.reported.append(event)
        self.on_report()

    def receive(self, *data: bytes | Exception | None) -> None:
        self.link.reads = list(data)
        self.inbox.read()

    def reply(self, data: bytes) -> None:
        """Queue and flush, as a listener does."""
        with self.outbox.lock:
            self.outbox.put(data)
        self.outbox.flush()


def _ignore(*_args: object) -> None: ...


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


# -- what is reported -----------------------------------------------------------------------------


def test_deliveries_are_reported_together_and_in_order_with_other_events(fixture: Fixture) -> None:
    fixture.receive(
        b"".join(
            (
                delivery(1),
                delivery(2),
                ack(CONFIRMER, 7, True),
                delivery(3),
                returned(PUBLISHER, "k"),
                BIND_OK,
                delivery(4),
            )
        )
    )
    first, confirm, second, event, rare, third = fixture.reported
    assert (first, second, third) == ([1, 2], [3], [4])
    assert confirm == Confirm(CONFIRMER, 7, multiple=True, nack=False)
    assert isinstance(event, ReturnEvent)
    assert (event.channel, event.returned.routing_key) == (PUBLISHER, "k")
    assert rare == Frame(METHOD, 1, pack(">HH", 50, 21))


def test_a_frame_that_is_cut_is_reported_once_it_is_complete(fixture: Fixture) -> None:
    data = delivery(1) + delivery(2)
    fixture.receive(data[:-1])
    assert fixture.reported == [[1]]
    fixture.receive(data[-1:])
    assert fixture.reported == [[1], [2]]


def test_a_heartbeat_reports_nothing_and_counts_as_read(fixture: Fixture) -> None:
    before = time.monotonic()
    fixture.receive(HEARTBEAT)
    assert fixture.reported == []
    assert before <= fixture.heartbeat.last_read <= time.monotonic()


def test_nothing_to_read_reports_nothing_and_counts_as_silence(fixture: Fixture) -> None:
    fixture.receive(None)
    assert (fixture.reported, fixture.heartbeat.last_read) == ([], 0.0)


def test_early_bytes_are_reported(fixture: Fixture) -> None:
    fixture.inbox.feed(delivery(1))
    assert fixture.reported == [[1]]


# -- replies --------------------------------------------------------------------------------------


def test_what_the_listener_writes_leaves_by_one_write(fixture: Fixture) -> None:
    fixture.on_report = lambda: fixture.reply(b"reply,")
    fixture.receive(delivery(1) + ack(CONFIRMER, 1, False) + delivery(2))
    assert [data for data, _thread in fixture.link.writes] == [b"reply,reply,reply,"]


def test_an_error_of_the_listener_is_raised_and_ends_the_hold(fixture: Fixture) -> None:
    def fail() -> None:
        fixture.reply(b"before")
        raise ZeroDivisionError

    fixture.on_report = fail
    with pytest.raises(ZeroDivisionError):
        fixture.receive(delivery(1) + delivery(2))
    fixture.reply(b" and after")
    assert fixture.link.written == b"before and after"


# -- the end --------------------------------------------------------------------------------------


def test_end_of_file_ends_the_connection(fixture: Fixture) -> None:
    with pytest.raises(ConnectionLost, match="broker:5672 closed the connection"):
        fixture.receive(b"")
    assert fixture.heartbeat.last_read == 0.0


def test_an_error_of_the_socket_ends_the_connection(fixture: Fixture) -> None:
    with pytest.raises(ConnectionLost, match="broker:5672 ended: reset by peer") as caught:
        fixture.receive(ConnectionResetError("reset by peer"))
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_bytes_that_are_not_amqp_end_the_connection(fixture: Fixture) -> None:
    with pytest.raises(ConnectionLost, match="broker:5672 does not speak AMQP"):
        fixture.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert fixture.reported == []


# -- bursts ---------------------------------------------------------------------------------------


def test_several_deliveries_by_one_read_begin_a_burst(fixture: Fixture) -> None:
    fixture.receive(delivery(1) + delivery(2))
    now = fixture.heartbeat.last_read
    assert fixture.outbox.is_watched
    assert fixture.inbox.is_in_burst(now)
    assert fixture.inbox.is_in_burst(now + BURST_SECONDS * 0.9)
    assert not fixture.inbox.is_in_burst(now + BURST_SECONDS)


def test_one_delivery_begins_none(fixture: Fixture) -> None:
    fixture.receive(delivery(1))
    assert not fixture.outbox.is_watched
    assert not fixture.inbox.is_in_burst(fixture.heartbeat.last_read)


def test_one_delivery_does_not_end_a_burst(fixture: Fixture) -> None:
    fixture.receive(delivery(1) + delivery(2))
    until = fixture.inbox._burst_until
    fixture.heartbeat.last_read = until - 0.001
    fixture.inbox.feed(delivery(3))
    assert fixture.outbox.is_watched
    fixture.heartbeat.last_read = until
    fixture.inbox.feed(delivery(4))
    assert not fixture.outbox.is_watched


def test_no_other_thread_relies_on_the_leader_while_the_listener_runs(fixture: Fixture) -> None:
    fixture.receive(delivery(1) + delivery(2))
    within: list[bool] = []
    fixture.on_report = lambda: within.append(fixture.outbox.is_watched)
    fixture.receive(delivery(3) + delivery(4))
    assert within == [False]
    assert fixture.outbox.is_watched


# -- reading --------------------------------------------------------------------------------------


def test_a_read_that_was_filled_is_followed_by_a_larger_one(fixture: Fixture) -> None:
    large = delivery(1, b"x" * 4000) * (READ_SIZE // 4000 + 1)
    fixture.receive(large[:READ_SIZE])
    fixture.receive(large[READ_SIZE:])
    fixture.receive(None)
    assert fixture.link.read_sizes == [READ_SIZE, LARGE_READ, READ_SIZE]


def test_with_tls_all_that_is_buffered_is_read_under_the_wire() -> None:
    fixture = Fixture(tls=True)
    locked: list[bool] = []
    read = fixture.link.read

    def spy(size: int) -> bytes | None:
        locked.append(fixture.outbox.wire.locked())
        return read(size)

    fixture.link.read = spy  # type: ignore[method-assign]
    fixture.on_report = lambda: locked.append(fixture.outbox.wire.locked())
    fixture.receive(delivery(1), delivery(2))
    assert fixture.reported == [[1, 2]]
    assert locked == [True, True, False]


def test_without_tls_reading_does_not_wait_for_a_writer(fixture: Fixture) -> None:
    with fixture.outbox.wire:
        fixture.receive(delivery(1, channel=CONSUMER))
    assert fixture.reported == [[1]]
