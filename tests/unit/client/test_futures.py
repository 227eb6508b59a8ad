"""A call's future does what a future of the standard library does; one that is cancelled, what one of a pool does."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    InvalidStateError,
    ThreadPoolExecutor,
    TimeoutError,
    as_completed,
    wait,
)
from concurrent.futures._base import _AsCompletedWaiter
from functools import partial
from typing import Any

import pytest

from jsonrpc_amqp.client.futures import CallFuture
from jsonrpc_amqp.errors import WouldDeadlock

from ...tools import wait_for

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


# -- cancelling: the same as a pool ---------------------------------------------------------------------------------


class Pooled:
    """
    A future that has not begun, of a pool or of ours.

    Attributes:
        future: The future.
        proceed: Has the pool look at it, which a future of ours does not need.
    """

    def __init__(self, future: Future[Any], proceed: Callable[[], object] = bool) -> None:
        self.future = future
        self.proceed = proceed


@pytest.fixture(params=["ThreadPoolExecutor", "CallFuture", "CallFuture, waited for"])
def pooled(request: pytest.FixtureRequest) -> Iterator[Pooled]:
    if request.param != "ThreadPoolExecutor":
        yield Pooled(CallFuture() if request.param == "CallFuture" else touched(CallFuture))
        return
    free = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(free.wait, 30)
        yield Pooled(pool.submit(int), free.set)
        free.set()


@pytest.fixture
def background() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """Run functions on threads of their own."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def look(future: Future[Any]) -> tuple[bool, bool, bool, str]:
    return future.done(), future.cancelled(), future.running(), repr(future).rpartition("state=")[2]


def test_states_of_a_cancelled_future(pooled: Pooled) -> None:
    future, seen = pooled.future, list[str]()
    future.add_done_callback(lambda _done: seen.append("first"))
    future.add_done_callback(lambda _done: seen.append("second"))
    assert look(future) == (False, False, False, "pending>")
    for _ in range(2):
        assert future.cancel()
        assert look(future) == (True, True, False, "cancelled>")
    pooled.proceed()
    assert future.cancel()
    future.add_done_callback(lambda _done: seen.append("late"))
    assert (look(future), seen) == ((True, True, False, "cancelled>"), ["first", "second", "late"])
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask(0)
    for end in (future.set_result, future.set_exception):
        with pytest.raises(InvalidStateError):
            end(None)


def test_callback_may_cancel_and_wait(pooled: Pooled) -> None:
    seen: list[Any] = []
    pooled.future.add_done_callback(lambda done: seen.append((done.cancel(), done.cancelled())))
    assert pooled.future.cancel()
    assert seen == [(True, True)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("return_when", [FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED])
def test_cancelling_ends_a_wait(
    pooled: Pooled, background: Callable[..., Future[Any]], return_when: str, when: str
) -> None:
    future = pooled.future
    if when == "before":
        assert future.cancel()
        pooled.proceed()
    waits = background(wait, [future], timeout=30, return_when=return_when)
    completes = background(lambda: list(as_completed([future], timeout=30)))
    if when == "after":
        wait_for(lambda: len(getattr(future, "_waiters", ())) == 2)
        assert future.cancel()
        pooled.proceed()
    assert waits.result(30) == ({future}, set())
    assert completes.result(30) == [future]


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_cancelling_wakes_who_asks_for_the_result(
    pooled: Pooled, background: Callable[..., Future[Any]], ask: str
) -> None:
    asks = background(getattr(pooled.future, ask), 30)
    wait_for(lambda: len(pooled.future._condition._waiters) == 1)  # type: ignore[attr-defined]
    assert pooled.future.cancel()
    assert isinstance(asks.exception(30), CancelledError)


def test_cancelled_and_finished_futures_of_one_wait(pooled: Pooled, background: Callable[..., Future[Any]]) -> None:
    other: Future[Any] = CallFuture()
    waits = background(wait, [pooled.future, other], timeout=30)
    first = background(lambda: next(iter(as_completed([pooled.future, other], timeout=30))))
    wait_for(lambda: len(getattr(other, "_waiters", ())) == 2)
    assert pooled.future.cancel()
    pooled.proceed()
    assert first.result(30) is pooled.future
    assert not waits.done()
    other.set_result(1)
    assert waits.result(30) == ({pooled.future, other}, set())


@pytest.mark.parametrize("from_asyncio", [False, True])
def test_cancelling_of_a_future_that_asyncio_wraps(pooled: Pooled, from_asyncio: bool) -> None:
    async def use() -> None:
        wrapped = asyncio.wrap_future(pooled.future)
        assert (wrapped if from_asyncio else pooled.future).cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(wrapped, 30)
        await asyncio.sleep(0)  # what cancels the other runs in the loop

    asyncio.run(use())
    assert pooled.future.cancelled()


# -- cancelling: what a pool has not ----------------------------------------------------------------------------------


class Owner:
    """
    Notes what it is told.

    Attributes:
        told: For each cancellation whether others could know of it.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.told: list[bool] = []
        self.called_back: list[Future[Any]] = []
        self.error = error

    def on_cancelled(self, future: CallFuture) -> None:
        self.told.append(
            bool(self.called_back) or any(waiter.event.is_set() for waiter in getattr(future, "_waiters", ()))
        )
        if self.error is not None:
            raise self.error


def owned_by(owner: Owner) -> CallFuture:
    future = CallFuture()
    future.owner = owner
    return future


def waited_for(future: CallFuture) -> Any:
    """Have something wait for it as ``as_completed`` does, and return that."""
    with future._condition:
        waiter = _AsCompletedWaiter()
        future._waiters.append(waiter)
    return waiter


def test_owner_is_told_once_and_before_others() -> None:
    owner = Owner()
    future = owned_by(owner)
    waiter = waited_for(future)
    future.add_done_callback(owner.called_back.append)
    for _ in range(2):
        assert future.cancel()
    assert (owner.told, owner.called_back) == ([False], [future])
    assert waiter.event.wait(30)


def test_owner_is_not_told_of_another_end() -> None:
    owner = Owner()
    for made in (owned_by(owner), touched(lambda: owned_by(owner))):
        made.set_result(1)
        assert not made.cancel()
    assert owner.told == []


def test_owner_that_raises_keeps_none_from_waking() -> None:
    owner = Owner(KeyboardInterrupt())  # of a signal handler
    future = owned_by(owner)
    waiter = waited_for(future)
    future.add_done_callback(owner.called_back.append)
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert (future.cancelled(), owner.called_back) == (True, [future])
    assert waiter.event.wait(30)


@pytest.mark.parametrize("has_thread", [True, False])
@pytest.mark.parametrize("ask", ["result", "exception"])
def test_signal_handler_cancels_where_its_thread_is_about_to_wait(
    ask: str, has_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = CallFuture()
    begin_to_wait = future._condition.wait

    def interrupted(timeout: float | None) -> bool:
        assert future.cancel()
        return begin_to_wait(timeout if has_thread else 0)

    monkeypatch.setattr(future._condition, "wait", interrupted)
    if not has_thread:
        monkeypatch.setattr(threading.Thread, "start", fail_to_start)
    with pytest.raises(CancelledError):
        getattr(future, ask)(None)


def fail_to_start(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_signal_handler_cancels_where_its_thread_has_a_lock_of_a_waiter(monkeypatch: pytest.MonkeyPatch) -> None:
    futures: list[Future[Any]] = [CallFuture(), CallFuture()]
    wait_for_event = threading.Event.wait

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        waiter: Any = next(iter(getattr(futures[0], "_waiters", ())), None)
        if waiter is not None and event is waiter.event:
            with waiter.lock:  # as ``as_completed`` does next
                assert all(future.cancel() for future in futures if not future.done())
        return wait_for_event(event, timeout)

    completed = as_completed(futures, timeout=30)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Event, "wait", interrupted)
        first = next(completed)
    assert {first, next(completed)} == set(futures)


def test_no_thread_is_started_but_for_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    future, other = CallFuture(), CallFuture()
    waiters = [waited_for(future), waited_for(other)]
    future.add_done_callback(lambda _done: other.cancel())
    monkeypatch.setattr(threading.Thread, "start", fail_to_start)
    assert future.cancel()
    assert all(waiter.event.is_set() for waiter in waiters)


@pytest.mark.parametrize("is_waited_for", [False, True])
def test_there_is_one_end_whatever_the_moment(is_waited_for: bool) -> None:
    rounds = 300
    owner = Owner()
    futures = [owned_by(owner) for _ in range(rounds)]
    told: list[Future[Any]] = []
    cancelled: list[bool] = []
    start = threading.Barrier(4)

    def set_results() -> None:
        start.wait()
        for number, future in enumerate(futures):
            try:
                future.set_result(number)
            except InvalidStateError:
                assert future.cancelled()

    def cancel() -> None:
        start.wait()
        cancelled.extend(future.cancel() for future in futures)

    def ask() -> None:
        start.wait()
        for future in futures:
            future.add_done_callback(told.append)

    if is_waited_for:
        for future in futures:
            waited_for(future)
    with ThreadPoolExecutor(3) as pool:
        ends = [pool.submit(each) for each in (set_results, cancel, ask)]
        start.wait()
        for end in ends:
            end.result(30)
    assert wait(futures, timeout=30).not_done == set()
    assert [future.cancelled() for future in futures] == cancelled
    assert len(owner.told) == sum(cancelled)
    assert sorted(map(id, told)) == sorted(map(id, futures))
