"""Which thread runs a request, and what becomes of those that do not run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from jsonrpc_amqp.runtime.base import InlineJobs
from jsonrpc_amqp.server.counters import Counters
from jsonrpc_amqp.server.executor import Executor
from jsonrpc_amqp.server.job import Job
from jsonrpc_amqp.server.lifecycle import Lifecycle
from jsonrpc_amqp.server.loop_executor import LoopExecutor

from ...tools import wait_for
from .fakes import FakeSession, job


class Bench:
    """An executor whose requests are noted when they run; ``gate`` holds up those whose tag is negative."""

    def __init__(self, concurrency: int = 2) -> None:
        self.session, self.lifecycle, self.counters = FakeSession(), Lifecycle(concurrency), Counters()
        self.lifecycle.opened(self.session)
        self.on_loop = LoopExecutor("S", 2, 2, self.lifecycle, self.counters)
        self.executor = Executor("S", concurrency, self.lifecycle, self._process, self.counters, self.on_loop)
        self.ran: list[tuple[int, str]] = []
        self.gate = threading.Event()
        self.on_run: Callable[[Job], object] = lambda _job: None

    def _process(self, request: Job, _now: float) -> None:
        if request.delivery.tag < 0:
            self.gate.wait(10)
        self.ran.append((request.delivery.tag, threading.current_thread().name))
        self.on_run(request)
        request.settle()

    @property
    def tags(self) -> list[int]:
        return [tag for tag, _thread in self.ran]

    def jobs(self, *tags: int) -> list[Job]:
        return [job(self.session, tag) for tag in tags]

    def make_quick(self) -> None:
        """Have the next jobs left to the leader."""
        for _ in range(64):
            self.executor._policy.ran_on_thread(0, 0)
        self.executor.submit([], 1.0)

    @contextmanager
    def started(self) -> Iterator[None]:
        self.executor.start()
        try:
            yield
        finally:
            self.gate.set()
            list(self.executor.closing())
            for thread in self.executor._threads:
                thread.join(10)
                assert not thread.is_alive()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_is_what_a_runtime_runs_inline(bench: Bench) -> None:
    jobs: InlineJobs = bench.executor
    assert not jobs.has_inline_job
    assert jobs.next_inline_job() is None
    jobs.offload(late=False)


def test_handler_threads_run_requests(bench: Bench) -> None:
    with bench.started():
        bench.executor.submit(bench.jobs(1, 2, 3), 1.0)
        wait_for(lambda: len(bench.ran) == 3)
    assert sorted(bench.tags) == [1, 2, 3]
    assert {thread for _tag, thread in bench.ran} <= {"S-handler-0", "S-handler-1"}
    assert bench.lifecycle.running == 0


def test_threads_start_once(bench: Bench) -> None:
    with bench.started():
        bench.executor.start()
        assert len(bench.executor._threads) == 2


def test_the_leader_runs_quick_jobs(bench: Bench) -> None:
    bench.make_quick()
    bench.executor.submit(bench.jobs(1, 2), 1.001)
    offered = [bench.executor.has_inline_job]
    while (run := bench.executor.next_inline_job()) is not None:
        run()
    assert bench.ran == [(1, "MainThread"), (2, "MainThread")]
    offered.append(bench.executor.has_inline_job)
    assert offered == [True, False]
    assert bench.lifecycle.running == 0


def test_offloaded_jobs_run_on_handler_threads(bench: Bench) -> None:
    bench.make_quick()
    bench.executor.submit(bench.jobs(1), 1.001)
    with bench.started():
        bench.executor.offload(late=True)
        assert not bench.executor.has_inline_job
        wait_for(lambda: bench.tags == [1])
    assert not bench.executor._policy.is_quick


def test_the_leader_runs_none_while_as_many_run_as_may(bench: Bench) -> None:
    with bench.started():
        bench.executor.submit(bench.jobs(-1, -2), 0.5)
        wait_for(lambda: bench.lifecycle.running == 2)
        bench.make_quick()
        bench.executor.submit(bench.jobs(3), 1.001)
        assert bench.executor.next_inline_job() is None
        assert not bench.executor.has_inline_job
        bench.gate.set()
        wait_for(lambda: sorted(bench.tags) == [-2, -1, 3])
    assert all(thread != "MainThread" for _tag, thread in bench.ran)


def test_an_inline_run_counts_as_one_of_those_that_may_run(bench: Bench) -> None:
    bench.make_quick()
    bench.executor.submit(bench.jobs(1), 1.001)
    run = bench.executor.next_inline_job()
    assert run is not None
    with bench.started():
        bench.executor.submit(bench.jobs(-2, 3), 2.0)
        wait_for(lambda: bench.lifecycle.running == 2 and bench.lifecycle._waiting == 1)
        assert bench.tags == []
        run()
        wait_for(lambda: bench.tags == [1, 3])


def test_a_handler_knows_that_it_runs_here(bench: Bench) -> None:
    seen: list[bool] = []
    bench.on_run = lambda _job: seen.append(bench.executor.is_running_here)
    bench.make_quick()
    bench.executor.submit(bench.jobs(1), 1.001)
    run = bench.executor.next_inline_job()
    assert run is not None
    run()
    with bench.started():
        bench.executor.submit(bench.jobs(2), 2.0)
        wait_for(lambda: len(seen) == 2)
    assert seen == [True, True]
    assert not bench.executor.is_running_here


@pytest.mark.parametrize("is_inline", [True, False])
def test_what_raises_is_acknowledged_and_counted(
    bench: Bench, is_inline: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_job: Job) -> None:
        raise SystemExit("no")

    bench.on_run = fail
    if is_inline:
        bench.make_quick()
        bench.executor.submit(bench.jobs(1), 1.001)
        run = bench.executor.next_inline_job()
        assert run is not None
        run()
    else:
        with bench.started():
            bench.executor.submit(bench.jobs(1), 1.0)
    assert ("ack", 1) in bench.session.calls
    assert bench.counters.snapshot()["failed"] == 1
    assert bench.lifecycle.running == 0
    assert "unexpected error while serving a request" in caplog.text


def test_replies_amid_a_burst_are_left_to_the_next_write(bench: Bench) -> None:
    bench.session.writes_soon = True
    bench.make_quick()
    bench.executor.submit(bench.jobs(1, 2), 1.001)
    while (run := bench.executor.next_inline_job()) is not None:
        run()
    assert bench.session.calls == [("ack", 1), ("ack", 2), ("flush",)]


def test_requests_of_a_lost_connection_are_abandoned(bench: Bench) -> None:
    bench.make_quick()
    bench.executor.submit(bench.jobs(1), 1.001)
    bench.lifecycle.lost()
    assert bench.executor.next_inline_job() is None
    with bench.started():
        bench.executor.submit(bench.jobs(2), 2.0)
    assert bench.ran == []
    assert bench.session.calls == []
    assert bench.counters.snapshot()["abandoned"] == 2


def test_redelivered_requests_begin_one_at_a_time_beside_the_others(bench: Bench) -> None:
    with bench.started():
        for tag in (-1, -2, -3):
            bench.executor.submit_redelivered(job(bench.session, tag, redelivered=True), 1.0)
        bench.executor.submit(bench.jobs(4), 1.0)
        wait_for(lambda: bench.tags == [4])
        assert bench.lifecycle.running == 1
        bench.gate.set()
        wait_for(lambda: len(bench.ran) == 4)


def test_a_redelivered_request_that_hangs_lets_another_begin(bench: Bench) -> None:
    with bench.started():
        bench.executor.submit_redelivered(job(bench.session, -1, redelivered=True), 1.0)
        bench.executor.submit_redelivered(job(bench.session, 2, redelivered=True, redeliveries=1), 1.0)
        wait_for(lambda: bench.lifecycle.running == 1)
        bench.executor.tick(0.0)
        assert bench.tags == []
        bench.executor.tick(1e12)
        wait_for(lambda: bench.tags == [2])


def test_what_has_not_begun_is_given_back(bench: Bench) -> None:
    kept = bench.jobs(1)
    bench.executor.submit(bench.jobs(3), 1.0)
    bench.executor.submit_redelivered(job(bench.session, 2, redelivered=True), 1.0)
    bench.executor.give_back(kept)
    assert bench.session.calls == [("requeue", 1), ("requeue", 2), ("requeue", 3), ("flush",)]


def test_what_comes_after_the_consumer_was_cancelled_is_given_back_too(bench: Bench) -> None:
    bench.lifecycle.drain()
    with bench.started():
        bench.executor.submit(bench.jobs(1), 1.0)
        wait_for(lambda: len(bench.lifecycle._unstarted) == 1)
        bench.executor.give_back(bench.lifecycle.cancelled())
        bench.executor.submit(bench.jobs(2), 2.0)
    assert bench.ran == []
    assert bench.session.calls == [("requeue", 1), ("flush",), ("requeue", 2), ("flush",)]
