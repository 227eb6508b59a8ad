"""The outbox: who writes what, in which order, and what happens when a write fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from jsonrpc_amqp.amqp import outbox as module
from jsonrpc_amqp.amqp.encoder import ack
from jsonrpc_amqp.amqp.heartbeat import Heartbeat
from jsonrpc_amqp.amqp.outbox import Outbox

from .fake_link import CONSUMER, FakeLink


class Fixture:
    """An outbox and what it reported."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.heartbeat = Heartbeat(10, 0.0)
        self.stalled = 0
        self.errors: list[OSError] = []
        self.interrupts: list[BaseException] = []
        self.outbox = Outbox(
            self.link,
            self.heartbeat,
            on_stalled=self._note_stalled,
            on_error=self.errors.append,
            on_interrupt=self.interrupts.append,
        )

    def _note_stalled(self) -> None:
        self.stalled += 1

    def put(self, data: bytes) -> None:
        with self.outbox.lock:
            self.outbox.put(data)

    def put_and_flush(self, data: bytes) -> None:
        self.put(data)
        self.outbox.flush()


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def in_thread(function: Callable[[], Any]) -> Any:
    """Return what a function returns on another thread, which must not block."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it blocks"
    return results[0]


def raiser(exc: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise exc

    return raise_it


# -- flat combining -------------------------------------------------------------------------------


def test_what_was_queued_leaves_in_order_by_one_write(fixture: Fixture) -> None:
    fixture.put(b"one,")
    with fixture.outbox.lock:
        fixture.outbox.put_all(piece for piece in (b"two,", memoryview(b"three")))
    fixture.outbox.flush()
    assert fixture.link.writes == [(b"one,two,three", threading.get_ident())]


def test_nothing_queued_is_no_write(fixture: Fixture) -> None:
    fixture.outbox.flush()
    assert fixture.link.writes == []


def test_the_thread_that_writes_writes_for_another_as_well(fixture: Fixture) -> None:
    writes_before: list[int] = []

    def another_flushes() -> None:
        in_thread(lambda: fixture.put_and_flush(b"theirs"))
        writes_before.append(len(fixture.link.writes))

    fixture.link.within_write = another_flushes
    fixture.put_and_flush(b"mine")
    me = threading.get_ident()
    assert writes_before == [0]  # the other thread returned without a write
    assert fixture.link.writes == [(b"mine", me), (b"theirs", me)]


def test_a_signal_handler_within_a_write_neither_blocks_nor_mixes_its_bytes_in(fixture: Fixture) -> None:
    fixture.link.within_write = lambda: fixture.put_and_flush(b"handler")
    fixture.put_and_flush(b"message")
    assert [data for data, _thread in fixture.link.writes] == [b"message", b"handler"]


def test_a_write_is_noted_for_heartbeats(fixture: Fixture) -> None:
    before = time.monotonic()
    fixture.put_and_flush(b"x")
    assert before <= fixture.heartbeat.last_write <= time.monotonic()


# -- hold -----------------------------------------------------------------------------------------


def test_hold_gathers_the_writes_of_its_thread_until_release(fixture: Fixture) -> None:
    fixture.outbox.hold()
    fixture.put_and_flush(b"one,")
    fixture.put_and_flush(b"two")
    assert fixture.link.writes == []
    fixture.outbox.release()
    fixture.outbox.flush()
    assert [data for data, _thread in fixture.link.writes] == [b"one,two"]


def test_hold_does_not_keep_another_thread_from_writing(fixture: Fixture) -> None:
    fixture.outbox.hold()
    fixture.put_and_flush(b"held,")
    in_thread(lambda: fixture.put_and_flush(b"other"))
    assert [data for data, _thread in fixture.link.writes] == [b"held,other"]
    assert fixture.link.writes[0][1] != threading.get_ident()


# -- partial writes -------------------------------------------------------------------------------


def test_what_the_socket_did_not_take_is_written_later_and_first(fixture: Fixture) -> None:
    fixture.link.rooms = [3]
    fixture.put_and_flush(b"abcdef")
    assert (fixture.link.written, fixture.stalled, fixture.outbox.is_stalled) == (b"abc", 1, True)
    fixture.put_and_flush(b"ghi")
    assert fixture.link.written == b"abc"  # the socket has no room
    fixture.link.rooms = [2]
    fixture.outbox.go_on()
    assert (fixture.link.written, fixture.outbox.is_stalled) == (b"abcde", True)
    assert fixture.stalled == 1  # the leader watches already
    fixture.outbox.go_on()
    assert (fixture.link.written, fixture.outbox.is_stalled) == (b"abcdefghi", False)


def test_a_socket_without_any_room_stalls(fixture: Fixture) -> None:
    fixture.link.rooms = [0]
    fixture.put_and_flush(b"abc")
    assert fixture.outbox.is_stalled
    fixture.outbox.go_on()
    assert (fixture.link.written, fixture.outbox.is_stalled) == (b"abc", False)


def test_a_second_stall_is_reported_again(fixture: Fixture) -> None:
    for _ in range(2):
        fixture.link.rooms = [1]
        fixture.put_and_flush(b"abc")
        fixture.outbox.go_on()
    assert (fixture.link.written, fixture.stalled) == (b"abcabc", 2)


def test_going_on_without_a_stall_flushes(fixture: Fixture) -> None:
    fixture.put(b"abc")
    fixture.outbox.go_on()
    assert fixture.link.written == b"abc"


# -- acks -----------------------------------------------------------------------------------------


def test_acks_leave_behind_the_replies(fixture: Fixture) -> None:
    with fixture.outbox.lock:
        fixture.outbox.unacked.finish(1)
        fixture.outbox.put(b"reply")
        fixture.outbox.unacked.finish(2)
    fixture.outbox.flush()
    assert [data for data, _thread in fixture.link.writes] == [b"reply" + ack(CONSUMER, 2, True)]


def test_an_ack_alone_is_written(fixture: Fixture) -> None:
    with fixture.outbox.lock:
        fixture.outbox.unacked.finish(1)
    fixture.outbox.flush()
    fixture.outbox.flush()
    assert fixture.link.written == ack(CONSUMER, 1, False)


# -- errors ---------------------------------------------------------------------------------------


def test_an_error_of_the_socket_is_reported_and_not_raised(fixture: Fixture) -> None:
    error = BrokenPipeError("gone")
    fixture.link.within_write = raiser(error)
    fixture.put_and_flush(b"x")
    assert (fixture.errors, fixture.interrupts) == ([error], [])
    assert not fixture.outbox.wire.locked()
    assert fixture.heartbeat.last_write == 0.0


def test_an_error_of_the_socket_while_going_on_is_reported(fixture: Fixture) -> None:
    fixture.link.rooms = [1]
    fixture.put_and_flush(b"abc")
    fixture.link.within_write = raiser(ConnectionResetError())
    fixture.outbox.go_on()
    assert len(fixture.errors) == 1
    assert not fixture.outbox.wire.locked()


@pytest.mark.parametrize("exc", [KeyboardInterrupt(), SystemExit(1), ValueError("of a signal handler")])
def test_an_exception_within_a_write_is_reported_and_raised(fixture: Fixture, exc: BaseException) -> None:
    fixture.link.within_write = raiser(exc)
    fixture.put(b"x")
    with pytest.raises(type(exc)) as caught:
        fixture.outbox.flush()
    assert caught.value is exc
    assert (fixture.interrupts, fixture.errors) == ([exc], [])
    # The lock is free, and no thread is taken to be writing.
    assert not fixture.outbox.wire.locked()
    assert not fixture.outbox.is_writing_here()
    fixture.put_and_flush(b"y")
    assert fixture.link.written == b"y"


# -- close ----------------------------------------------------------------------------------------


def test_nothing_is_written_after_close(fixture: Fixture) -> None:
    fixture.put(b"queued")
    fixture.outbox.close()
    fixture.put_and_flush(b"late")
    with fixture.outbox.lock:
        fixture.outbox.unacked.finish(1)
    fixture.outbox.flush()
    fixture.outbox.go_on()
    assert (fixture.link.discarded, fixture.link.writes) == (1, [])


def test_close_drops_what_the_socket_did_not_take(fixture: Fixture) -> None:
    fixture.link.rooms = [1]
    fixture.put_and_flush(b"abc")
    fixture.outbox.close()
    assert not fixture.outbox.is_stalled
    fixture.outbox.go_on()
    assert fixture.link.written == b"a"


def test_close_waits_for_the_thread_that_writes(fixture: Fixture) -> None:
    closer = threading.Thread(target=fixture.outbox.close, daemon=True)
    discarded_within: list[int] = []

    def close_meanwhile() -> None:
        closer.start()
        closer.join(0.01)
        discarded_within.append(fixture.link.discarded)

    fixture.link.within_write = close_meanwhile
    fixture.put_and_flush(b"x")
    closer.join(5)
    assert (discarded_within, fixture.link.discarded) == ([0], 1)
    assert fixture.link.written == b"x"


# -- what it says of itself -----------------------------------------------------------------------


def test_it_is_full_beyond_the_limit_until_the_socket_takes_enough(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONGESTED_BYTES", 10)
    fixture.put(b"x" * 10)
    full = [fixture.outbox.is_full]
    with fixture.outbox.lock:
        fixture.outbox.put_all([b"y", b"z"])
    full.append(fixture.outbox.is_full)
    fixture.link.rooms = [1]
    fixture.outbox.flush()
    full.append(fixture.outbox.is_full)  # 11 bytes are left
    fixture.link.rooms = [1]
    fixture.outbox.go_on()
    full.append(fixture.outbox.is_full)
    assert full == [False, True, True, False]


def test_close_ends_fullness(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONGESTED_BYTES", 10)
    fixture.put(b"x" * 11)
    fixture.outbox.close()
    assert not fixture.outbox.is_full


def test_only_the_thread_that_writes_is_writing_here(fixture: Fixture) -> None:
    within: list[bool] = []

    def look() -> None:
        within.append(fixture.outbox.is_writing_here())
        within.append(in_thread(fixture.outbox.is_writing_here))

    fixture.link.within_write = look
    fixture.put_and_flush(b"x")
    assert within == [True, False]
    assert not fixture.outbox.is_writing_here()


def test_a_stale_mark_without_the_lock_is_not_writing(fixture: Fixture) -> None:
    # As an exception of a signal handler leaves it that strikes between the end of the write and the clearing.
    fixture.outbox._writer = threading.get_ident()
    assert not fixture.outbox.is_writing_here()
    fixture.put_and_flush(b"x")
    assert fixture.link.written == b"x"
    assert fixture.outbox._writer is None


def test_a_stale_mark_is_replaced_by_the_thread_that_writes_next(fixture: Fixture) -> None:
    fixture.outbox._writer = threading.get_ident()
    writing, go_on = threading.Event(), threading.Event()

    def block() -> None:
        writing.set()
        go_on.wait(5)

    fixture.link.within_write = block
    thread = threading.Thread(target=fixture.put_and_flush, args=(b"x",), daemon=True)
    thread.start()
    assert writing.wait(5)
    assert not fixture.outbox.is_writing_here()
    go_on.set()
    thread.join(5)
    assert fixture.link.written == b"x"
