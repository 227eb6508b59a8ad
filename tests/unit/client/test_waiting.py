"""What a thread does that waits for a call."""

from __future__ import annotations

import math
import threading

import pytest

from jsonrpc_amqp.client.call import WaitingCall
from jsonrpc_amqp.errors import WouldDeadlock

from ...interrupts import is_free
from .fakes import Rig


class Waiting:
    """A waiter, and calls that are pending."""

    def __init__(self, pending: int) -> None:
        rig = Rig()
        self.lock = rig.requests._lock
        self.transport = rig.transport
        self.runtime = self.transport.runtime
        self.pending = rig.requests._pending
        self.waiter = rig.requests.waiter
        self.calls = [self.call(str(number)) for number in range(pending)]

    def call(self, number: str) -> WaitingCall:
        made = WaitingCall("S", b"{}", "7", 12.5, 5.0)
        made.number = number
        self.pending.add(made)
        return made


def test_only_caller_drives_until_its_call_has_ended() -> None:
    made = Waiting(1)
    (only,) = made.calls

    def end() -> None:
        made.pending.pop(only.number)
        only.succeed(b"")

    made.runtime.on_drive = end
    made.waiter.drive_until_done(only)
    assert (made.runtime.asked, made.runtime.deadlines) == (["drive_until"], [12.5])


def test_call_that_has_ended_already_may_be_driven() -> None:
    made = Waiting(0)
    ended = WaitingCall("S", b"{}", "7", math.inf, None)
    made.waiter.drive_until_done(ended)
    assert (made.runtime.asked, made.runtime.deadlines) == (["drive_until"], [math.inf])


def test_one_of_several_callers_leaves_the_driving_to_another_thread() -> None:
    made = Waiting(2)
    made.waiter.drive_until_done(made.calls[0])
    assert made.runtime.asked == ["reclaim"]


def test_driving_is_given_up_where_the_call_goes_on() -> None:
    made = Waiting(1)
    made.waiter.drive_until_done(made.calls[0])
    assert made.runtime.asked == ["drive_until", "reclaim"]


def test_driving_is_given_up_where_others_came_meanwhile() -> None:
    made = Waiting(1)
    (first,) = made.calls

    def end() -> None:
        made.pending.pop(first.number)
        made.call("2")

    made.runtime.on_drive = end
    made.waiter.drive_until_done(first)
    assert made.runtime.asked == ["drive_until", "reclaim"]


# -- who may wait ---------------------------------------------------------------------------------------------------


def test_thread_may_wait() -> None:
    Waiting(0).waiter.check_may_wait()


def test_leader_may_not_wait_for_itself() -> None:
    made = Waiting(0)
    made.transport.is_leader = True
    with pytest.raises(WouldDeadlock, match="a callback of a future, or a signal handler during another call"):
        made.waiter.check_may_wait()


def test_signal_handler_may_not_wait_for_the_call_that_it_interrupts() -> None:
    made = Waiting(0)
    with made.lock, pytest.raises(RuntimeError, match="must not wait for a call"):
        made.waiter.check_may_wait()
    made.waiter.check_may_wait()


def test_thread_may_wait_while_another_has_the_lock() -> None:
    made = Waiting(0)
    errors: list[RuntimeError] = []

    def check() -> None:
        try:
            made.waiter.check_may_wait()
        except RuntimeError as exc:
            errors.append(exc)

    with made.lock:
        thread = threading.Thread(target=check)
        thread.start()
        thread.join(10)
    assert errors == []


def test_lock_that_an_interrupt_left_is_released() -> None:
    made = Waiting(0)
    made.waiter.release_lock()
    made.lock.acquire()
    made.lock.acquire()
    made.waiter.release_lock()
    made.waiter.check_may_wait()
    assert is_free(made.lock)
