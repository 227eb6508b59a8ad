"""An outbox: who writes what, in which order, and what happens when the socket does not take it."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from jsonrpc_amqp.amqp import outbox as module
from jsonrpc_amqp.amqp.encoder import ack
from jsonrpc_amqp.amqp.heartbeat import Heartbeat
from jsonrpc_amqp.amqp.outbox import Outbox

from ...interrupts import InterruptedLock, is_free
from .fakes import CONSUMER, PATIENCE, Clock, FakeLink


class Target:
    """An outbox with a fake link: what it reports is written down."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.stalls = 0
        self.errors: list[OSError] = []
        self.interrupts: list[BaseException] = []
        self.heartbeat = Heartbeat(10, 0.0)
        self.outbox = Outbox(
            cast(Any, self.link),
            self.heartbeat,
            on_stalled=self._stalled,
            on_error=self.errors.append,
            on_interrupt=self.interrupts.append,
        )

    def _stalled(self) -> None:
        self.stalls += 1

    def put(self, *pieces: bytes) -> None:
        with self.outbox.lock:
            for piece in pieces:
                self.outbox.put(piece)

    def write(self, data: bytes) -> None:
        self.put(data)
        self.outbox.flush()


@pytest.fixture
def target() -> Target:
    return Target()


def elsewhere(function: Any) -> None:
    """Run a function on another thread, to its end."""
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# -- what is written, and when --------------------------------------------------------------------------------------


def test_all_that_is_queued_leaves_by_one_write(target: Target) -> None:
    target.put(b"one", b"two")
    with target.outbox.lock:
        pieces: list[bytes | memoryview] = [b"three", memoryview(b"four")]
        target.outbox.put_all(iter(pieces))
    assert target.link.written == []
    target.outbox.flush()
    assert target.link.written == [b"onetwothreefour"]
    target.outbox.flush()
    assert len(target.link.written) == 1


def test_a_write_is_noted_for_the_heartbeat(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", Clock(77.0))
    target.put(b"one")
    target.outbox.flush()
    assert (target.heartbeat.last_write, target.heartbeat.last_read) == (77.0, 0.0)


def test_acks_leave_behind_the_replies_before_them(target: Target) -> None:
    target.put(b"reply")
    target.outbox.unacked.finish(1)
    target.outbox.unacked.finish(2)
    target.outbox.flush()
    assert target.link.written == [b"reply" + ack(CONSUMER, 2, True)]


def test_an_ack_alone_is_written_too(target: Target) -> None:
    target.outbox.unacked.finish(1)
    target.outbox.flush()
    assert target.link.written == [ack(CONSUMER, 1, False)]


def test_what_another_thread_queues_during_a_write_is_written_by_the_writer(target: Target) -> None:
    writers: list[int] = []

    def queue_more() -> None:
        writers.append(threading.get_ident())
        if len(writers) == 1:
            elsewhere(lambda: target.write(b"theirs"))

    target.link.on_write = queue_more
    target.put(b"mine")
    target.outbox.flush()
    assert target.link.written == [b"mine", b"theirs"]
    assert set(writers) == {threading.get_ident()}


def test_a_signal_handler_within_a_write_only_queues(target: Target) -> None:
    def handle() -> None:
        target.link.on_write = lambda: None
        target.put(b"handler")
        target.outbox.flush()

    target.link.on_write = handle
    target.put(b"main")
    target.outbox.flush()
    assert target.link.written == [b"main", b"handler"]


def test_a_hold_is_for_the_flushes_of_its_thread_only(target: Target) -> None:
    target.outbox.defer_flush()
    target.put(b"one")
    target.outbox.flush()
    assert target.link.written == []
    elsewhere(target.outbox.flush)
    assert target.link.written == [b"one"]
    target.put(b"two")
    target.outbox.end_defer()
    target.outbox.flush()
    assert target.link.written == [b"one", b"two"]


# -- who is writing -------------------------------------------------------------------------------------------------


def test_is_writing_here_is_so_within_a_write_of_this_thread_only(target: Target) -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append(target.outbox.is_writing_here())
        elsewhere(lambda: seen.append(target.outbox.is_writing_here()))

    target.link.on_write = look
    target.put(b"one")
    target.outbox.flush()
    seen.append(target.outbox.is_writing_here())
    assert seen == [True, False, False]


def test_an_exception_as_soon_as_a_flush_has_its_lock_does_not_keep_it(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a signal handler: Python 3.14 may run one between taking a lock and entering the block of ``with``."""
    monkeypatch.setattr(target.outbox, "write_lock", InterruptedLock(target.outbox.write_lock))
    target.put(b"one")
    with pytest.raises(KeyboardInterrupt):
        target.outbox.flush()
    monkeypatch.undo()
    assert not target.outbox.is_writing_here()
    elsewhere(target.outbox.flush)
    assert target.link.stream == b"one"


# -- a socket that takes no more ------------------------------------------------------------------------------------


def test_what_the_socket_did_not_take_is_written_on_before_all_else(target: Target) -> None:
    target.link.room = [2, 0, 1]
    target.put(b"abcd")
    target.outbox.flush()
    assert (target.outbox.is_stalled, target.stalls) == (True, 1)
    target.put(b"ef")
    target.outbox.flush()
    assert target.link.written == [b"ab"]
    for left in (b"", b"c"):
        target.outbox.go_on()
        assert target.link.written[-1] == left
        assert target.outbox.is_stalled
    target.outbox.go_on()
    assert not target.outbox.is_stalled
    assert target.link.written[-2:] == [b"d", b"ef"]
    assert target.stalls == 1


def test_each_stall_is_reported(target: Target) -> None:
    for count in (1, 2):
        target.link.room = [1]
        target.put(b"ab")
        target.outbox.flush()
        target.outbox.go_on()
        assert target.stalls == count
    assert target.link.stream == b"abab"


def test_it_is_full_while_too_many_bytes_wait(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONGESTED_BYTES", 10)
    seen: list[bool] = []
    for size in (10, 1):
        target.put(b"x" * size)
        seen.append(target.outbox.is_full)
    target.link.room = [1]
    target.outbox.flush()
    seen.append(target.outbox.is_full)
    with target.outbox.lock:
        target.outbox.put_all([b"x"])
    seen.append(target.outbox.is_full)
    assert seen == [False, True, False, True]


# -- errors ---------------------------------------------------------------------------------------------------------


def test_an_error_of_the_socket_is_reported_and_nothing_follows_it(target: Target) -> None:
    def fail() -> None:
        target.link.on_write = lambda: None
        raise BrokenPipeError("gone")

    target.link.on_write = fail
    target.put(b"reply")
    target.outbox.flush()
    assert [str(error) for error in target.errors] == ["gone"]
    # The ack of a request whose reply did not leave, say.
    target.outbox.unacked.finish(1)
    target.outbox.flush()
    target.outbox.go_on()
    assert target.link.written == []
    assert target.interrupts == []


def test_an_error_behind_a_stall_is_reported_once(target: Target) -> None:
    target.link.room = [1]
    target.put(b"ab")
    target.outbox.flush()

    def fail() -> None:
        raise BrokenPipeError("gone")

    target.link.on_write = fail
    target.outbox.go_on()
    target.outbox.go_on()
    assert len(target.errors) == 1


@pytest.mark.parametrize("stalled", [False, True])
def test_an_exception_of_a_signal_handler_within_a_write_is_reported_and_nothing_follows_it(
    target: Target, stalled: bool
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    target.put(b"ab")
    if stalled:
        target.link.room = [1]
        target.outbox.flush()
    target.link.on_write = interrupt
    with pytest.raises(KeyboardInterrupt):
        (target.outbox.go_on if stalled else target.outbox.flush)()
    assert [type(exc) for exc in target.interrupts] == [KeyboardInterrupt]
    target.link.on_write = lambda: None
    target.put(b"behind")
    target.outbox.flush()
    target.outbox.go_on()
    assert target.link.stream == (b"a" if stalled else b"")
    assert is_free(target.outbox.write_lock)
    assert not target.outbox.is_writing_here()


def test_after_close_nothing_is_written(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONGESTED_BYTES", 1)
    target.link.room = [1]
    target.put(b"ab")
    target.outbox.flush()
    target.put(b"cd")
    target.outbox.close()
    assert target.link.is_discarded
    assert not target.outbox.is_stalled
    assert not target.outbox.is_full
    target.put(b"ef")
    target.outbox.flush()
    target.outbox.go_on()
    assert target.link.written == [b"a"]


def test_close_waits_for_a_write(target: Target) -> None:
    closing = threading.Thread(target=target.outbox.close)

    def close_meanwhile() -> None:
        closing.start()
        closing.join(0.01)
        assert not target.link.is_discarded

    target.link.on_write = close_meanwhile
    target.put(b"ab")
    target.outbox.flush()
    closing.join(PATIENCE)
    assert target.link.is_discarded
