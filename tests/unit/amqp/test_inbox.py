"""An inbox: what is reported of what was read, in which order, and what ends the connection."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest
from amqp import spec
from amqp.serialization import dumps

from jsonrpc_amqp.amqp import inbox as module
from jsonrpc_amqp.amqp.frames import Confirm, Frame, ReturnEvent
from jsonrpc_amqp.amqp.heartbeat import Heartbeat
from jsonrpc_amqp.amqp.inbox import BURST_SECONDS, LARGE_READ, READ_SIZE, Inbox
from jsonrpc_amqp.amqp.outbox import Outbox
from jsonrpc_amqp.errors import ConnectionLost

from .fakes import PATIENCE, Clock, FakeLink
from .tools import deliver, give_back, written

ACK = written(4, spec.Basic.Ack, dumps("Lb", (1, False)))
DECLARE_OK = written(1, spec.Queue.DeclareOk, dumps("sll", ("q", 1, 2)))


class Target:
    """
    An inbox with a fake link.

    Attributes:
        heard: What was reported: the bodies of deliveries, or the kind of an event.
        on_report: Called with each report.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.link = FakeLink()
        self.link.tls = tls
        self.heard: list[Any] = []
        self.on_report: Any = lambda: None
        self.heartbeat = Heartbeat(10, 0.0)
        self.outbox = Outbox(
            cast(Any, self.link), self.heartbeat, on_stalled=lambda: None, on_error=_raise, on_interrupt=_raise
        )
        self.inbox = Inbox(cast(Any, self.link), self.outbox, self.heartbeat, cast(Any, self))

    def deliver(self, deliveries: list[Any]) -> None:
        self.heard.append([delivery.body for delivery in deliveries])
        self.on_report()

    def handle(self, event: Confirm | ReturnEvent | Frame) -> None:
        self.heard.append(type(event))
        self.on_report()

    def read(self, *data: bytes | BaseException | None) -> None:
        self.link.incoming = list(data)
        self.inbox.read()

    def queue(self, data: bytes) -> None:
        with self.outbox.lock:
            self.outbox.put(data)
        self.outbox.flush()


def _raise(exc: BaseException) -> None:
    raise exc


@pytest.fixture
def target() -> Target:
    return Target()


def test_deliveries_keep_their_order_around_other_events(target: Target) -> None:
    returned = give_back(b"", channel=3, code=312, text="NO_ROUTE", exchange="e", key="k")
    target.read(
        deliver(b"1", tag=1) + deliver(b"2", tag=2) + ACK + deliver(b"3", tag=3) + returned + DECLARE_OK
        + deliver(b"4", tag=4)
    )  # fmt: skip
    assert target.heard == [[b"1", b"2"], Confirm, [b"3"], ReturnEvent, Frame, [b"4"]]


def test_a_message_cut_in_two_is_reported_once_it_is_whole(target: Target) -> None:
    data = deliver(b"body")
    target.read(data[:20])
    assert target.heard == []
    target.read(data[20:])
    assert target.heard == [[b"body"]]


def test_a_read_is_noted_for_the_heartbeat(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", Clock(77.0))
    target.read(None)
    assert target.heartbeat.last_read == 0.0
    target.read(ACK)
    assert (target.heartbeat.last_read, target.heartbeat.last_write) == (77.0, 0.0)


def test_all_that_a_listener_queues_leaves_by_one_write(target: Target) -> None:
    target.on_report = lambda: target.queue(b"reply")
    target.read(deliver(b"1", tag=1) + ACK + deliver(b"2", tag=2))
    assert target.link.written == [b"replyreplyreply"]


def test_an_error_of_the_listener_ends_the_hold(target: Target) -> None:
    target.on_report = lambda: _raise(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        target.read(ACK)
    target.queue(b"later")
    assert target.link.written == [b"later"]


# -- what ends a connection -----------------------------------------------------------------------------------------


def test_the_end_of_the_stream(target: Target) -> None:
    with pytest.raises(ConnectionLost, match="the broker at there:5672 closed the connection"):
        target.read(b"")


@pytest.mark.parametrize("end", [b"", ConnectionResetError("reset")])
def test_an_end_behind_a_stall_of_this_process(
    target: Target, monkeypatch: pytest.MonkeyPatch, end: bytes | Exception
) -> None:
    monkeypatch.setattr(module, "time", Clock(1030.0))
    target.heartbeat.last_read = target.heartbeat.last_write = 1000.0
    target.heartbeat.end_turn()
    stood_still = r"^this process or its I/O thread stood still for 25\.0 s, and missed its heartbeats; the "
    with pytest.raises(ConnectionLost, match=stood_still):
        target.read(end)


def test_an_error_of_the_socket(target: Target) -> None:
    with pytest.raises(ConnectionLost, match="the connection ended: reset"):
        target.read(ConnectionResetError("reset"))


def test_what_is_not_amqp(target: Target) -> None:
    with pytest.raises(ConnectionLost, match="there:5672 does not speak AMQP: "):
        target.read(b"HTTP/1.1 400 Bad Request\r\n\r\n")


# -- bursts ---------------------------------------------------------------------------------------------------------


def test_several_deliveries_of_one_read_are_a_burst(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(50.0)
    monkeypatch.setattr(module, "time", clock)
    target.read(deliver(b"1"))
    assert state(target, 50.0) == (False, False)
    target.read(deliver(b"1", tag=2) + deliver(b"2", tag=3))
    assert state(target, 50.0) == (True, True)
    clock.now += BURST_SECONDS
    assert state(target, clock.now) == (False, True)
    target.read(deliver(b"3", tag=4))
    assert state(target, clock.now) == (False, False)


def state(target: Target, now: float) -> tuple[bool, bool]:
    return target.inbox.is_in_burst(now), target.outbox.flush_is_imminent


def test_during_a_report_a_thread_must_not_rely_on_the_leader(target: Target) -> None:
    seen: list[bool] = []
    target.on_report = lambda: seen.append(target.outbox.flush_is_imminent)
    for tag in (1, 3):
        target.read(deliver(b"1", tag=tag) + deliver(b"2", tag=tag + 1))
    assert seen == [False, False]
    assert target.outbox.flush_is_imminent


def test_a_read_that_was_filled_makes_the_next_one_larger(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read = target.link.read

    def noted(size: int) -> bytes | None:
        sizes.append(size)
        return read(size)

    monkeypatch.setattr(target.link, "read", noted)
    large = deliver(bytes(READ_SIZE))
    for data in (large[:READ_SIZE], large[READ_SIZE:], None):
        target.read(data)
    assert sizes == [READ_SIZE, LARGE_READ, READ_SIZE]


# -- TLS ------------------------------------------------------------------------------------------------------------


def test_with_tls_the_wire_covers_reading() -> None:
    target = Target(tls=True)
    seen: list[bool] = []
    target.link.on_read = lambda: seen.append(target.outbox.is_writing_here())
    target.on_report = lambda: seen.append(target.outbox.is_writing_here())
    target.read(ACK)
    assert seen == [True, False]


def test_without_tls_it_does_not(target: Target) -> None:
    seen: list[bool] = []
    target.link.on_read = lambda: seen.append(target.outbox.is_writing_here())
    target.read(ACK)
    assert seen == [False]


def test_with_tls_all_that_its_layer_holds_is_read() -> None:
    target = Target(tls=True)
    target.read(ACK, deliver(b"1"), deliver(b"2", tag=2))
    assert target.heard == [Confirm, [b"1", b"2"]]


@pytest.mark.parametrize("data", [None, ACK], ids=["nothing to read", "something"])
def test_with_tls_bytes_that_another_thread_left_during_a_read_are_written(data: bytes | None) -> None:
    target = Target(tls=True)

    def other_thread() -> None:
        thread = threading.Thread(target=lambda: target.queue(b"theirs"))
        thread.start()
        thread.join(PATIENCE)
        assert target.link.written == []

    target.link.on_read = other_thread
    target.read(data)
    assert target.link.written == [b"theirs"]
