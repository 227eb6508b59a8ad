"""Which thread a job wakes, and that none is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jsonrpc_amqp.server.inline_policy import InlinePolicy
from jsonrpc_amqp.server.job import Job
from jsonrpc_amqp.server.work_queue import Turn, WorkQueue

from ...tools import wait_for
from .fakes import job


@pytest.fixture
def quick() -> InlinePolicy:
    policy = InlinePolicy()
    for _ in range(200):
        policy.ran_on_thread(0, 0)
    assert policy.is_quick
    return policy


@contextmanager
def consuming(queue: WorkQueue, threads: int, block_on: Job | None = None) -> Iterator[list[Job | Turn]]:
    """Have threads take the items; the one that takes ``block_on`` waits until the end of the block."""
    taken: list[Job | Turn] = []
    gate = threading.Event()

    def run() -> None:
        while (item := queue.get()) is not None:
            if item is block_on:
                gate.wait(10)
            taken.append(item)

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield taken
    finally:
        gate.set()
        queue.close()
        for worker in workers:
            worker.join(10)
            assert not worker.is_alive()


def asleep(queue: WorkQueue) -> int:
    return len(queue._sleepers)


def test_items_come_in_order() -> None:
    queue, jobs = WorkQueue(1, InlinePolicy()), [job() for _ in range(3)]
    queue.put(jobs[:2], 1.0)
    queue.put_turns(1)
    queue.put(jobs[2:], 2.0)
    queue.close()
    assert [queue.get() for _ in range(5)] == [jobs[0], jobs[1], Turn.REDELIVERED, jobs[2], None]


def test_a_sleeping_thread_is_woken_for_each() -> None:
    queue, jobs = WorkQueue(2, InlinePolicy()), [job() for _ in range(20)]
    with consuming(queue, 2) as taken:
        for number, each in enumerate(jobs):
            wait_for(lambda: asleep(queue) == 2)
            queue.put([each], float(number))
        queue.put_turns(3)
        wait_for(lambda: len(taken) == 23)
    assert {*taken} == {*jobs, Turn.REDELIVERED}


def test_quick_jobs_that_come_close_together_are_left_to_the_leader(quick: InlinePolicy) -> None:
    queue, jobs = WorkQueue(2, quick), [job() for _ in range(3)]
    with consuming(queue, 2) as taken:
        wait_for(lambda: asleep(queue) == 2)
        queue.put([], 1.0)
        queue.put(jobs, 1.001)
        assert queue.is_inline
        assert [queue.take_inline() for _ in range(4)] == [*jobs, None]
    assert taken == []


def test_after_a_pause_a_thread_is_woken(quick: InlinePolicy) -> None:
    queue, late = WorkQueue(2, quick), job()
    with consuming(queue, 2) as taken:
        queue.put([], 1.0)
        queue.put([late], 1.1)
        assert not queue.is_inline
        wait_for(lambda: taken == [late])


def test_with_one_thread_all_jobs_are_for_it(quick: InlinePolicy) -> None:
    queue = WorkQueue(1, quick)
    queue.put([], 1.0)
    queue.put([job()], 1.001)
    assert not queue.is_inline


def test_what_was_left_for_the_leader_is_not_overlooked(quick: InlinePolicy) -> None:
    slow, *others = (job() for _ in range(5))
    queue = WorkQueue(2, quick)
    with consuming(queue, 2, block_on=slow) as taken:
        queue.put([], 1.0)
        queue.put([slow, *others[:3]], 1.001)
        assert queue.is_inline
        for _ in range(5):
            quick.ran_inline(1, 0)  # no more
        queue.put(others[3:], 1.002)
        wait_for(lambda: len(taken) == 4)
    assert set(taken) == {slow, *others}


@pytest.mark.parametrize("late", [False, True])
def test_offloaded_jobs_are_taken_by_threads(quick: InlinePolicy, late: bool) -> None:
    queue, jobs = WorkQueue(2, quick), [job() for _ in range(3)]
    with consuming(queue, 2) as taken:
        queue.put([], 1.0)
        queue.put(jobs, 1.001)
        queue.offload(late=late)
        wait_for(lambda: len(taken) == 3)
    assert quick.is_quick is not late
    assert not queue.is_inline


def test_the_leader_takes_no_redelivered_request(quick: InlinePolicy) -> None:
    queue = WorkQueue(2, quick)
    queue.put([], 1.0)
    queue.put_turns(1)
    queue.put([job()], 1.001)
    assert queue.take_inline() is None
    assert not queue.is_inline
    assert queue.get() is Turn.REDELIVERED


def test_a_job_that_is_put_back_is_the_next(quick: InlinePolicy) -> None:
    queue, jobs = WorkQueue(2, quick), [job() for _ in range(2)]
    queue.put([], 1.0)
    queue.put(jobs, 1.001)
    first = queue.take_inline()
    queue.put_back(first)
    assert not queue.is_inline
    assert [queue.get(), queue.get()] == jobs


def test_take_all_returns_jobs_and_drops_turns() -> None:
    queue, jobs = WorkQueue(2, InlinePolicy()), [job() for _ in range(2)]
    queue.put(jobs[:1], 1.0)
    queue.put_turns(2)
    queue.put(jobs[1:], 2.0)
    assert queue.take_all() == jobs
    assert len(queue) == 0
