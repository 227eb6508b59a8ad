"""The states of a server: what may begin in each, and who waits for which change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from jsonrpc_amqp.errors import AccessRefused, ConnectionLost, NotConnected
from jsonrpc_amqp.server.lifecycle import Admission, Lifecycle, State

from ...tools import wait_for
from .fakes import FakeSession, job


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def lifecycle(session: FakeSession) -> Lifecycle:
    """One that may run two requests at a time, connected."""
    lifecycle = Lifecycle(2)
    lifecycle.opened(session)
    return lifecycle


def test_requests_begin_until_as_many_run_as_may(lifecycle: Lifecycle, session: FakeSession) -> None:
    assert [lifecycle.begin(job(session), may_wait=False) for _ in range(3)] == [
        Admission.BEGUN,
        Admission.BEGUN,
        Admission.FULL,
    ]
    lifecycle.end()
    assert lifecycle.begin(job(session), may_wait=False) is Admission.BEGUN
    assert lifecycle.running == 2


@pytest.mark.parametrize(("change", "expected"), [(Lifecycle.end, Admission.BEGUN), (Lifecycle.drain, Admission.KEPT)])
def test_a_thread_waits_until_it_may_begin_or_may_not(
    lifecycle: Lifecycle, session: FakeSession, change: Callable[[Lifecycle], None], expected: Admission
) -> None:
    for _ in range(2):
        lifecycle.begin(job(session))
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(lifecycle.begin, job(session))
        wait_for(lambda: lifecycle._waiting == 1)
        assert not third.done()
        change(lifecycle)
        assert third.result(10) is expected


def test_requests_of_a_lost_connection_do_not_begin(lifecycle: Lifecycle, session: FakeSession) -> None:
    lifecycle.lost()
    assert lifecycle.begin(job(session)) is Admission.STALE
    lifecycle.opened(FakeSession())
    assert lifecycle.begin(job(session)) is Admission.STALE
    assert lifecycle.running == 0


def test_while_it_drains_requests_are_kept_until_the_consumer_is_cancelled(
    lifecycle: Lifecycle, session: FakeSession
) -> None:
    kept = job(session)
    lifecycle.drain()
    assert lifecycle.begin(kept) is Admission.KEPT
    assert lifecycle.cancelled() == [kept]
    assert lifecycle.cancelled() == []
    assert lifecycle.begin(job(session)) is Admission.TOO_LATE


def test_stop_waits_for_what_runs(lifecycle: Lifecycle, session: FakeSession) -> None:
    lifecycle.begin(job(session))
    lifecycle.drain()
    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(lifecycle.stop, 10.0)
        lifecycle.end()
        assert stopped.result(10) is True
    assert lifecycle.state is State.STOPPED
    assert not lifecycle.prepare()


def test_stop_gives_up_on_what_still_runs(lifecycle: Lifecycle, session: FakeSession) -> None:
    lifecycle.begin(job(session))
    assert lifecycle.stop(0.001) is False
    assert lifecycle.stop(-1.0) is False


def test_one_thread_is_the_first_to_stop_it(lifecycle: Lifecycle) -> None:
    lifecycle.drain()  # a signal did
    assert [lifecycle.begin_stop() for _ in range(3)] == [True, False, False]
    assert lifecycle.state is State.DRAINING


def test_a_state_never_goes_back(lifecycle: Lifecycle) -> None:
    lifecycle.stop(0)
    lifecycle.cancelled()
    lifecycle.drain()
    assert lifecycle.state is State.STOPPED


def test_a_start_ends_with_the_connection_or_with_the_drain() -> None:
    for change in (lambda each: each.opened(FakeSession()), Lifecycle.drain):  # type: Callable[[Lifecycle], None]
        lifecycle = Lifecycle(1)
        timer = threading.Timer(0.005, change, [lifecycle])
        timer.start()
        lifecycle.wait_for_start(10)
        timer.join()


def test_a_start_that_takes_too_long_says_why() -> None:
    lifecycle = Lifecycle(1)
    with pytest.raises(NotConnected, match=r"within 0\.001 s"):
        lifecycle.wait_for_start(0.001)
    lifecycle.failed(NotConnected("no route"), gave_up=False)
    with pytest.raises(NotConnected, match="no route"):
        lifecycle.wait_for_start(0.001)


@pytest.mark.parametrize("gave_up", [False, True])
def test_what_is_kept_of_a_failure_refers_to_no_caller(gave_up: bool) -> None:
    lifecycle = Lifecycle(concurrency=1)
    failure = NotConnected("no route")
    lifecycle.failed(failure, gave_up=gave_up)
    with pytest.raises(NotConnected, match="no route"):
        lifecycle.wait_for_start(0)
    assert failure.__traceback__ is None


def test_once_attempts_have_ended_waiting_ends_too() -> None:
    lifecycle = Lifecycle(1)
    lifecycle.failed(AccessRefused("no"), gave_up=True)
    with pytest.raises(AccessRefused):
        lifecycle.wait_for_start(None)
    with pytest.raises(AccessRefused):
        lifecycle.wait_for_drain()
    assert lifecycle.prepare(), "it may be started once more"
    with pytest.raises(NotConnected):
        lifecycle.wait_for_start(0.001)


def test_a_connection_that_is_back_is_no_failure() -> None:
    lifecycle = Lifecycle(1)
    lifecycle.failed(ConnectionLost("gone"), gave_up=False)
    lifecycle.opened(FakeSession())
    lifecycle.wait_for_start(0)


def test_a_drain_is_waited_for(lifecycle: Lifecycle) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lifecycle.wait_for_drain)
        assert not waiting.done()
        lifecycle.drain()
        waiting.result(10)
