"""The threads of a client for middleware of ``submit``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from jsonrpc_amqp.client.middleware_threads import MiddlewareThreads
from jsonrpc_amqp.errors import NotConnected

SECONDS = 10.0


class Gate:
    """Jobs that wait until the gate opens."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun = threading.Semaphore(0)
        self.ran_on: list[str] = []

    def job(self) -> None:
        self.ran_on.append(threading.current_thread().name)
        self.begun.release()
        assert self.opened.wait(SECONDS)

    def wait_for(self, jobs: int) -> None:
        for _ in range(jobs):
            assert self.begun.acquire(timeout=SECONDS)


@pytest.fixture
def threads() -> Iterator[MiddlewareThreads]:
    made = MiddlewareThreads(most=2)
    yield made
    made.close(SECONDS)
    assert names() == []


@pytest.fixture
def gate(threads: MiddlewareThreads) -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


def names() -> list[str]:
    return sorted(each.name for each in threading.enumerate() if "middleware" in each.name)


def run_and_wait(threads: MiddlewareThreads, job: Callable[[], object] = lambda: None) -> None:
    done = threading.Event()

    def run() -> None:
        job()
        done.set()

    threads.run(run)
    assert done.wait(SECONDS)


def test_threads_are_started_when_they_are_needed(threads: MiddlewareThreads, gate: Gate) -> None:
    assert names() == []
    for number in (1, 2):
        threads.run(gate.job)
        gate.wait_for(1)
        assert len(names()) == number
    threads.run(gate.job)  # it waits for one of these
    assert names() == ["jsonrpc-amqp-middleware-1", "jsonrpc-amqp-middleware-2"]
    assert all(each.daemon for each in threading.enumerate() if each.name in names())
    gate.opened.set()
    gate.wait_for(1)
    assert sorted(set(gate.ran_on)) == names()


def test_a_thread_that_is_idle_is_used_again(threads: MiddlewareThreads) -> None:
    for _ in range(5):
        run_and_wait(threads)
        while not threads._idle:
            time.sleep(0.001)
    assert len(names()) == 1


def test_jobs_run_in_their_order() -> None:
    threads, gate = MiddlewareThreads(most=1), Gate()
    seen: list[int] = []
    threads.run(gate.job)
    gate.wait_for(1)
    for number in range(10):
        threads.run(lambda number=number: seen.append(number))  # type: ignore[misc]
    assert seen == []
    gate.opened.set()
    run_and_wait(threads)
    assert seen == list(range(10))
    threads.close(SECONDS)


def test_close_waits_no_longer_than_it_may(threads: MiddlewareThreads, gate: Gate) -> None:
    threads.run(gate.job)
    gate.wait_for(1)
    began = time.monotonic()
    threads.close(0.01)
    assert 0.005 < time.monotonic() - began < SECONDS / 2
    assert len(names()) == 1


def test_a_job_may_close_them(threads: MiddlewareThreads) -> None:
    run_and_wait(threads, lambda: threads.close(SECONDS))
    threads._threads[0].join(SECONDS)
    assert names() == []


def test_where_no_other_thread_can_start_the_others_go_on(
    threads: MiddlewareThreads, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(NotConnected, match="cannot have another thread"):
        threads.run(gate.job)
    monkeypatch.setattr(threading.Thread, "start", start)
    threads.run(gate.job)
    gate.wait_for(1)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads.run(gate.job)
    gate.opened.set()
    gate.wait_for(1)
    assert len(names()) == 1
