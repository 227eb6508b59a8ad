"""A call's future does what a future of the standard library does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError, TimeoutError, as_completed, wait
from functools import partial
from typing import Any

import pytest

from jsonrpc_amqp.client.futures import CallFuture
from jsonrpc_amqp.errors import WouldDeadlock

KINDS: list[Callable[[], Future[Any]]] = [Future, CallFuture]


def touched(make: Callable[[], Future[Any]]) -> Future[Any]:
    """Give one that somebody has waited for already."""
    future = make()
    with pytest.raises(TimeoutError):
        future.result(0)
    return future


# The standard library's own goes through the same tests: what they say is what it does.
@pytest.fixture(params=[*KINDS, lambda: touched(CallFuture)], ids=["Future", "CallFuture", "CallFuture, waited for"])
def future(request: pytest.FixtureRequest) -> Future[Any]:
    made: Future[Any] = request.param()
    return made


def test_a_result(future: Future[Any]) -> None:
    assert (future.done(), future.running(), future.cancelled()) == (False, False, False)
    future.set_result([1])
    assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
    assert (future.result(), future.result(0), future.exception()) == ([1], [1], None)


def test_an_exception(future: Future[Any]) -> None:
    error = KeyError("x")
    future.set_exception(error)
    assert future.done()
    assert future.exception() is error
    with pytest.raises(KeyError) as caught:
        future.result()
    assert caught.value is error


def test_no_second_end(future: Future[Any]) -> None:
    future.set_result(1)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(KeyError())
    assert future.result() == 1


def test_callbacks_run_in_order_each_once(future: Future[Any], caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    future.add_done_callback(lambda done: seen.append(("first", done)))
    future.add_done_callback(lambda done: 1 / 0)
    future.add_done_callback(lambda done: seen.append(("last", done.result())))
    future.set_result(1)
    future.add_done_callback(lambda done: seen.append(("late", done)))
    assert seen == [("first", future), ("last", 1), ("late", future)]
    assert "ZeroDivisionError" in caplog.text


def test_cancelling(future: Future[Any]) -> None:
    seen: list[Any] = []
    future.add_done_callback(seen.append)
    assert future.cancel()
    assert (future.done(), future.cancelled(), seen) == (True, True, [future])
    with pytest.raises(CancelledError):
        future.result()
    with pytest.raises(InvalidStateError):
        future.set_result(1)


def test_too_late_to_cancel(future: Future[Any]) -> None:
    future.set_result(1)
    assert not future.cancel()
    assert not future.cancelled()


def test_a_timeout(future: Future[Any]) -> None:
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0.01)


def test_waiting_for_several(future: Future[Any]) -> None:
    other: Future[Any] = CallFuture()
    threading.Timer(0.05, future.set_result, [1]).start()
    done, not_done = wait([future, other], timeout=10, return_when="FIRST_COMPLETED")
    assert (done, not_done) == ({future}, {other})
    other.set_result(2)
    assert {each.result() for each in as_completed([future, other], timeout=10)} == {1, 2}


def test_it_has_a_repr(future: Future[Any]) -> None:
    assert "pending" in repr(future)
    future.set_result(1)
    assert "finished returned int" in repr(future)


@pytest.mark.parametrize("make", KINDS)
def test_each_callback_and_each_waiter_is_told_whatever_the_moment(make: Callable[[], Future[Any]]) -> None:
    rounds = 300
    futures = [make() for _ in range(rounds)]
    told: list[int] = []
    results: list[Any] = []
    start = threading.Barrier(3)

    def tell(number: int, _done: Future[Any]) -> None:
        told.append(number)

    def ask() -> None:
        start.wait()
        for number, future in enumerate(futures):
            future.add_done_callback(partial(tell, number))

    def attend() -> None:
        start.wait()
        results.extend(future.result(10) for future in futures)

    threads = [threading.Thread(target=each) for each in (ask, attend)]
    for thread in threads:
        thread.start()
    start.wait()
    for number, future in enumerate(futures):
        future.set_result(number)
    for thread in threads:
        thread.join(20)
    assert sorted(told) == results == list(range(rounds))


def test_a_fork_amid_a_moment_of_another_thread() -> None:
    from jsonrpc_amqp.client import futures

    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with futures._futures_lock:
            held.set()
            over.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        future = CallFuture()
        future.set_result(1)
        os._exit(future.result() != 1)
    over.set()
    thread.join(10)
    assert os.waitpid(child, 0)[1] == 0


def test_a_thread_that_must_not_wait_learns_so_where_it_would() -> None:
    def refuse() -> None:
        raise WouldDeadlock("this thread brings the result")

    future = CallFuture()
    future.check_may_wait = refuse
    for look in (future.result, future.exception):
        with pytest.raises(WouldDeadlock):
            look()
        with pytest.raises(WouldDeadlock):
            look(1)
        with pytest.raises(TimeoutError):
            look(0)  # without waiting
    future.set_result(7)
    assert future.result() == 7
    assert future.exception() is None
