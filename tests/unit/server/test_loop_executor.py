"""Requests whose methods are ``async def``: how many run at a time, how they end, and what becomes of the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

import jsonrpc_amqp.server.loop_executor as module
from jsonrpc_amqp.server.counters import Counters
from jsonrpc_amqp.server.job import Job
from jsonrpc_amqp.server.lifecycle import Admission, Lifecycle
from jsonrpc_amqp.server.loop_executor import LoopExecutor

from ...tools import wait_for
from .fakes import FakeSession, job

T = TypeVar("T")


class Bench:
    """An executor whose requests wait for ``gate``."""

    def __init__(self, concurrency: int) -> None:
        self.session, self.lifecycle, self.counters = FakeSession(), Lifecycle(100), Counters()
        self.lifecycle.opened(self.session)
        self.executor = LoopExecutor("S", concurrency, 2, self.lifecycle, self.counters)
        self.gate = asyncio.Event()
        self.begun: list[Job] = []
        self.cancelled: list[Job] = []
        self.ended = 0

    def submit(self, count: int = 1) -> list[Job]:
        jobs = [job(self.session) for _ in range(count)]
        for each in jobs:
            assert self.lifecycle.begin(each) is Admission.BEGUN
            self.lifecycle.move_to_loop()

            async def rest(executor: LoopExecutor, each: Job = each) -> None:
                assert executor is self.executor
                self.begun.append(each)
                try:
                    await self.gate.wait()
                except asyncio.CancelledError:
                    self.cancelled.append(each)
                    raise
                each.settle()

            self.executor.submit(each, rest, self._end)
        return jobs

    def _end(self) -> None:
        self.ended += 1

    def open(self) -> None:
        async def open_gate() -> None:
            self.gate.set()

        self.run(open_gate())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.executor.run_and_wait(lambda _executor: coroutine)

    def close(self) -> None:
        self.lifecycle.stop()
        for until, seconds in self.executor.closing():
            self.lifecycle.wait(until, seconds)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(2)
    yield bench
    bench.close()


def test_so_many_run_at_a_time_in_the_order_of_their_arrival(bench: Bench) -> None:
    jobs = bench.submit(5)
    wait_for(lambda: len(bench.begun) == 2)
    assert bench.lifecycle.running == 5
    bench.open()
    wait_for(lambda: bench.ended == 5)
    assert bench.begun == jobs
    assert bench.lifecycle.running == 0
    assert all(each.is_settled for each in jobs)


def test_what_has_not_begun_is_given_back(bench: Bench) -> None:
    jobs = bench.submit(5)
    wait_for(lambda: len(bench.begun) == 2)
    assert bench.executor.take_waiting() == jobs[2:]
    assert (bench.lifecycle.running, bench.ended) == (2, 3)
    bench.open()
    wait_for(lambda: bench.lifecycle.running == 0)
    assert bench.begun == jobs[:2]


def test_requests_of_a_lost_connection_do_not_begin(bench: Bench) -> None:
    bench.submit(3)
    wait_for(lambda: len(bench.begun) == 2)
    bench.lifecycle.opened(FakeSession())
    bench.open()
    wait_for(lambda: bench.ended == 3)
    assert len(bench.begun) == 2
    assert bench.counters.snapshot()["abandoned"] == 1


def test_closing_cancels_what_runs_and_leaves_it_unsettled(bench: Bench) -> None:
    jobs = bench.submit(2)
    wait_for(lambda: len(bench.begun) == 2)
    bench.close()
    assert set(bench.cancelled) == set(jobs)
    assert not any(each.is_settled for each in jobs)
    assert bench.lifecycle.running == 0


def test_closing_does_not_wait_for_a_loop_that_is_blocked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_CANCEL_SECONDS", 0.002)
    free, blocked = threading.Event(), threading.Event()

    async def rest(_executor: LoopExecutor) -> None:
        blocked.set()
        free.wait(10)

    mine = job(bench.session)
    bench.lifecycle.begin(mine)
    bench.lifecycle.move_to_loop()
    bench.executor.submit(mine, rest, lambda: None)
    assert blocked.wait(10)
    bench.close()
    free.set()
    assert "1 coroutines have not ended" in caplog.text
    wait_for(lambda: bench.lifecycle.running == 0)


def test_what_raises_is_acknowledged_and_counted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def rest(_executor: LoopExecutor) -> None:
        raise ValueError("unexpected")

    mine = job(bench.session)
    bench.lifecycle.begin(mine)
    bench.lifecycle.move_to_loop()
    bench.executor.submit(mine, rest, lambda: None)
    wait_for(lambda: bench.lifecycle.running == 0)
    assert mine.is_settled
    assert bench.counters.snapshot()["failed"] == 1
    assert "unexpected error while serving a request" in caplog.text


def test_plain_methods_of_a_batch_run_on_threads_in_the_context_of_the_task(bench: Bench) -> None:
    names: list[Any] = []

    async def use() -> None:
        names.append(await bench.executor.in_thread(lambda: threading.current_thread().name))

    bench.run(use())
    assert names[0].startswith("S-batch")


def test_what_is_left_is_cancelled_at_a_time(bench: Bench) -> None:
    async def use() -> None:
        assert await bench.executor.before(float("inf"), asyncio.sleep(0, "done")) == "done"
        with pytest.raises(TimeoutError):
            await bench.executor.before(0.0, asyncio.sleep(60))

    bench.run(use())


def test_a_thread_of_the_loop_knows_that_it_is_here(bench: Bench) -> None:
    bench.submit(1)
    wait_for(lambda: len(bench.begun) == 1)
    assert not bench.executor.is_here

    async def look() -> bool:
        return bench.executor.is_here

    assert bench.run(look())
    bench.open()
