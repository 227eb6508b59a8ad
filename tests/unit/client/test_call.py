"""One message on its way: it ends once, for a thread that waits or for a future."""

from __future__ import annotations

import gc
import logging
import math
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsonrpc_amqp.client.call import Call, FutureCall, WaitingCall
from jsonrpc_amqp.errors import CallTimeout, ConnectionLost, JsonRpcAmqpError


def waiting() -> WaitingCall:
    return WaitingCall("S", b"{}", qid="1", deadline=30.0, timeout=30.0)


def future(parse: Callable[[bytes], Any] = bytes.decode, drop: Callable[[Call], object] = bool) -> FutureCall:
    call = FutureCall("S", b"{}", qid="1", deadline=30.0, timeout=30.0, parse=parse)
    call.drop, call.future.owner = drop, call
    return call


def test_call_that_was_not_sent_says_so() -> None:
    assert waiting().sent is False


# -- a thread that waits ----------------------------------------------------------------------------------------------


def test_waiting_call_without_its_end_goes_on() -> None:
    call = waiting()
    assert call.wait(0.0) is False
    assert call.wait(0.01) is False


def test_waiting_call_gives_its_answer() -> None:
    call = waiting()
    call.succeed(b"[1]")
    assert call.wait(0.0) is True
    assert call.result() == b"[1]"


@pytest.mark.parametrize("seconds", [1e12, math.inf])
def test_waiting_call_takes_any_number_of_seconds(seconds: float) -> None:
    call = waiting()
    call.succeed(b"")
    assert call.wait(seconds) is True


def test_waiting_call_raises_what_it_ended_with() -> None:
    call, error = waiting(), CallTimeout("no answer")
    call.fail(error)
    assert call.wait(0.0) is True
    with pytest.raises(CallTimeout) as caught:
        call.result()
    assert caught.value is error


@pytest.mark.parametrize("lost", [False, True])
def test_end_wakes_the_thread_that_waits(lost: bool) -> None:
    call = waiting()
    ends: list[object] = []

    def wait() -> None:
        assert call.wait(20)
        try:
            ends.append(call.result())
        except JsonRpcAmqpError as exc:
            ends.append(type(exc))

    thread = threading.Thread(target=wait)
    thread.start()
    if lost:
        call.fail(ConnectionLost("gone"))
    else:
        call.succeed(b"[1]")
    thread.join(20)
    assert ends == [ConnectionLost if lost else b"[1]"]


def test_end_is_seen_without_waiting() -> None:
    call = waiting()
    assert not call.is_done()
    call.succeed(b"")
    assert call.is_done()


def test_only_a_call_that_waits_has_no_callbacks() -> None:
    assert (waiting().has_callbacks, future().has_callbacks) == (False, True)


# -- a future -------------------------------------------------------------------------------------------------------


def test_future_gets_what_the_answer_says() -> None:
    call = future()
    call.succeed(b"19")
    assert call.future.result(0) == "19"


@given(st.sampled_from([ValueError("no"), ConnectionLost("gone"), KeyError("k")]))
def test_future_gets_what_reading_the_answer_raises(error: Exception) -> None:
    def parse(_body: bytes) -> None:
        raise error

    call = future(parse)
    call.succeed(b"19")
    assert call.future.exception(0) is error


def test_future_gets_the_error() -> None:
    call, error = future(), ConnectionLost("gone")
    call.fail(error)
    assert call.future.exception(0) is error


@pytest.mark.parametrize("end", [lambda call: call.succeed(b"19"), lambda call: call.fail(ConnectionLost("gone"))])
def test_end_of_a_cancelled_future_is_dropped(end: Callable[[Call], None]) -> None:
    call = future()
    assert call.future.cancel()
    end(call)
    with pytest.raises(CancelledError):
        call.future.result(0)


@pytest.mark.parametrize("fails", [False, True])
def test_future_cancelled_while_its_answer_is_read_stays_so(fails: bool) -> None:
    def parse(_body: bytes) -> None:
        call.future.cancel()
        if fails:
            raise ValueError("no")

    call = future(parse)
    call.succeed(b"19")
    assert call.future.cancelled()


def test_first_end_of_a_future_counts() -> None:
    call = future()
    call.succeed(b"19")
    call.fail(ConnectionLost("gone"))
    call.succeed(b"20")
    assert call.future.result(0) == "19"


def test_call_of_a_cancelled_future_is_dropped_once() -> None:
    dropped: list[Call] = []
    call = future(drop=dropped.append)
    assert call.future.cancel()
    assert call.future.cancel()
    assert dropped == [call]


def test_call_of_a_future_that_has_its_end_is_not_dropped() -> None:
    dropped: list[Call] = []
    call = future(drop=dropped.append)
    call.succeed(b"19")
    assert not call.future.cancel()
    assert dropped == []


@pytest.mark.parametrize(
    "end",
    [
        lambda call: call.succeed(b"19"),
        lambda call: call.fail(ConnectionLost("gone")),
        lambda call: call.future.cancel(),
    ],
    ids=["succeed", "fail", "cancel"],
)
@pytest.mark.parametrize("is_awaited", [False, True])
def test_call_and_future_are_freed_without_the_garbage_collector(is_awaited: bool, end: Callable[[Any], None]) -> None:
    call = future()
    if is_awaited:
        wait([call.future], timeout=0)
    freed = weakref.ref(call.future)
    gc.disable()
    try:
        end(call)
        del call
        assert freed() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError("no")])
def test_callback_that_raises_leaves_the_leader_alone(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def raise_it(_future: object) -> None:
        raise error

    call = future()
    call.future.add_done_callback(raise_it)
    with caplog.at_level(logging.ERROR):
        call.succeed(b"19")
    assert call.future.result(0) == "19"
    assert type(error).__name__ in caplog.text
