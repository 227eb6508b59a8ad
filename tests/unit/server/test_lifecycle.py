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


def wait_for_start(lifecycle: Lifecycle, timeout: float | None) -> None:
    lifecycle.wait(lifecycle.has_started, timeout)
    lifecycle.check_started(timeout)


def wait_for_end(lifecycle: Lifecycle) -> None:
    lifecycle.wait(lifecycle.has_ended, None)
    lifecycle.check_ended()


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


def test_what_runs_is_waited_for(lifecycle: Lifecycle, session: FakeSession) -> None:
    lifecycle.begin(job(session))
    lifecycle.drain()
    with ThreadPoolExecutor(1) as pool:
        idle = pool.submit(lifecycle.wait, lifecycle.is_idle, 10.0)
        lifecycle.end()
        idle.result(10)
    lifecycle.stop()
    assert lifecycle.has_drained
    assert lifecycle.state is State.STOPPED
    assert not lifecycle.prepare()


def test_stop_gives_up_on_what_still_runs(lifecycle: Lifecycle, session: FakeSession) -> None:
    lifecycle.begin(job(session))
    lifecycle.wait(lifecycle.is_idle, 0.001)
    lifecycle.stop()
    assert not lifecycle.has_drained
    lifecycle.end()
    lifecycle.stop()
    assert not lifecycle.has_drained, "one was left running when it stopped"


def test_one_thread_is_the_first_to_stop_it(lifecycle: Lifecycle) -> None:
    lifecycle.drain()  # a signal did
    assert [lifecycle.begin_stop() for _ in range(3)] == [True, False, False]
    assert lifecycle.state is State.DRAINING


def test_a_state_never_goes_back(lifecycle: Lifecycle) -> None:
    lifecycle.stop()
    lifecycle.cancelled()
    lifecycle.drain()
    assert lifecycle.state is State.STOPPED


def test_a_start_ends_with_the_connection_or_with_the_drain() -> None:
    for change in (lambda each: each.opened(FakeSession()), Lifecycle.drain):  # type: Callable[[Lifecycle], None]
        lifecycle = Lifecycle(1)
        timer = threading.Timer(0.005, change, [lifecycle])
        timer.start()
        wait_for_start(lifecycle, 10)
        timer.join()


def test_a_start_that_takes_too_long_says_why() -> None:
    lifecycle = Lifecycle(1)
    with pytest.raises(NotConnected, match=r"within 0\.001 s"):
        wait_for_start(lifecycle, 0.001)
    lifecycle.failed(NotConnected("no route"), gave_up=False)
    with pytest.raises(NotConnected, match="no route"):
        wait_for_start(lifecycle, 0.001)


@pytest.mark.parametrize("gave_up", [False, True])
def test_what_is_kept_of_a_failure_refers_to_no_caller(gave_up: bool) -> None:
    lifecycle = Lifecycle(concurrency=1)
    failure = NotConnected("no route")
    lifecycle.failed(failure, gave_up=gave_up)
    with pytest.raises(NotConnected, match="no route"):
        wait_for_start(lifecycle, 0)
    assert failure.__traceback__ is None


def test_once_attempts_have_ended_waiting_ends_too() -> None:
    lifecycle = Lifecycle(1)
    lifecycle.failed(AccessRefused("no"), gave_up=True)
    with pytest.raises(AccessRefused):
        wait_for_start(lifecycle, None)
    with pytest.raises(AccessRefused):
        wait_for_end(lifecycle)
    assert lifecycle.prepare(), "it may be started once more"
    with pytest.raises(NotConnected):
        wait_for_start(lifecycle, 0.001)


def test_a_connection_that_is_back_is_no_failure() -> None:
    lifecycle = Lifecycle(1)
    lifecycle.failed(ConnectionLost("gone"), gave_up=False)
    lifecycle.opened(FakeSession())
    wait_for_start(lifecycle, 0)


def test_a_drain_is_waited_for(lifecycle: Lifecycle) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait_for_end, lifecycle)
        assert not waiting.done()
        lifecycle.drain()
        waiting.result(10)


def test_a_change_is_reported_to_what_watches(lifecycle: Lifecycle, session: FakeSession) -> None:
    changes: list[str] = []
    lifecycle.begin_on_loop(job(session))
    with lifecycle.watched(lambda: changes.append("changed")):
        lifecycle.drain()
        assert lifecycle.has_ended()
        lifecycle.end_on_loop()
        lifecycle.note(lambda: changes.append("noted"))
    lifecycle.stop()
    assert changes == ["changed", "changed", "noted", "changed"]


def test_requests_on_the_loop_take_no_place_of_a_thread(lifecycle: Lifecycle, session: FakeSession) -> None:
    assert {lifecycle.begin_on_loop(job(session)) for _ in range(3)} == {Admission.BEGUN}
    assert lifecycle.begin(job(session), may_wait=False) is Admission.BEGUN
    assert lifecycle.running == 4
    lifecycle.drain()
    assert lifecycle.begin_on_loop(job(session)) is Admission.KEPT
    lifecycle.lost()
    assert lifecycle.begin_on_loop(job(session)) is Admission.STALE
