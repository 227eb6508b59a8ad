"""Runs requests whose methods are ``async def`` on the event loop of the process."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from ..jsonrpc.invocation import PreparedMethod
from ..runtime.event_loop import EventLoop
from .counters import Counters
from .job import Job
from .lifecycle import Lifecycle

log = logging.getLogger("jsonrpc_amqp.server")

T = TypeVar("T")
Rest = Callable[["LoopExecutor"], Coroutine[Any, Any, object]]
"""What is left to do for a request, on the loop."""

# Seconds that coroutines have to end once they are cancelled.
_CANCEL_SECONDS = 1.0


class _Item(NamedTuple):
    job: Job
    rest: Rest
    ended: Callable[[], object]


def _label(frame: FrameType) -> str | None:
    if frame.f_code is not PreparedMethod.respond_async.__code__:
        return None
    return f"method {frame.f_locals['self'].name!r}"


_process_loop = EventLoop("jsonrpc-amqp-loop", _label)


def _renew() -> None:
    global _process_loop
    _process_loop = EventLoop("jsonrpc-amqp-loop", _label)


# A forked process has no such thread.
os.register_at_fork(after_in_child=_renew)


def run_on_process_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the event loop of the process, in the context of the calling thread, and wait for it."""
    return asyncio.run_coroutine_threadsafe(coroutine, _process_loop.loop).result()


class LoopExecutor:
    """
    Runs requests on the event loop of the process, so many at a time; the others wait in the order of their arrival.

    ``submit``, ``take_waiting`` and ``close`` are for any thread; all else runs on the loop.

    Args:
        name: The service, for the names of threads.
        concurrency: Most coroutines at a time.
        threads: Most plain methods at a time, of batches that have methods of both kinds.
        lifecycle: Counts what runs.
        counters: Where to count.
    """

    def __init__(self, name: str, concurrency: int, threads: int, lifecycle: Lifecycle, counters: Counters) -> None:
        self._name = name
        self._concurrency = concurrency
        self._threads = threads
        self._lifecycle = lifecycle
        self._counters = counters
        self._waiting: deque[_Item] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_woken = self._is_closed = False
        self._pool: ThreadPoolExecutor | None = None
        self._event_loop: EventLoop | None = None

    @property
    def is_closing(self) -> bool:
        """Whether what runs is cancelled, because the server ends."""
        return self._is_closed

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is that of the loop."""
        return self._event_loop is not None and self._event_loop.is_here

    def submit(self, job: Job, rest: Rest, ended: Callable[[], object]) -> None:
        """
        Do what is left to do for a request; ``ended`` is called when that is done.

        Raises:
            NotConnected: This process can have no other thread or open file.
        """
        if self._event_loop is None:
            self._event_loop = _process_loop
        loop = self._event_loop.loop
        self._waiting.append(_Item(job, rest, ended))
        if not self._is_woken:
            self._is_woken = True
            loop.call_soon_threadsafe(self._begin_more)

    def take_waiting(self) -> list[Job]:
        """Remove and return the requests that have not begun."""
        jobs = []
        while self._waiting:
            try:
                item = self._waiting.popleft()
            except IndexError:  # the loop was quicker
                break
            jobs.append(item.job)
            self._lifecycle.end_on_loop()
            item.ended()
        return jobs

    def close(self) -> None:
        """Cancel what still runs, and wait a moment for its end."""
        self._is_closed = True
        event_loop = self._event_loop
        if event_loop is None or event_loop.is_here:
            return
        if self._tasks:
            future = asyncio.run_coroutine_threadsafe(self._cancel(), event_loop.loop)
            try:
                future.result(2 * _CANCEL_SECONDS)
            except TimeoutError:
                log.warning("a coroutine blocks the event loop, so that none could be cancelled")
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    # -- on the loop ----------------------------------------------------------------------------------------

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a plain method on a thread, in the context of the calling task."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, f"{self._name}-batch")
        return await asyncio.get_running_loop().run_in_executor(self._pool, copy_context().run, function)

    async def before(self, deadline: float, work: Coroutine[Any, Any, T]) -> T:
        """
        Await a coroutine; cancel it at a time in monotonic seconds.

        Raises:
            TimeoutError: It was cancelled.
        """
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await work

    def _begin_more(self) -> None:
        self._is_woken = False  # first: what is put from now on wakes the loop again
        while self._waiting and len(self._tasks) < self._concurrency:
            try:
                item = self._waiting.popleft()
            except IndexError:  # given back meanwhile
                return
            if item.job.session is not self._lifecycle.session:  # the broker delivers it again
                self._counters.add("abandoned")
                self._end(item)
                continue
            task = asyncio.get_running_loop().create_task(self._run(item))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, item: _Item) -> None:
        assert self._event_loop is not None
        self._event_loop.begin()
        try:
            await item.rest(self)
        except asyncio.CancelledError:
            # By ``close``: the request goes back to the queue when the connection ends.
            log.warning("a coroutine was cancelled, since the server ends; its request goes back to the queue")
        except BaseException:
            log.exception("unexpected error while serving a request; it is acknowledged")
            self._counters.add("failed")
            item.job.settle()
        finally:
            self._event_loop.end()
            self._end(item)
        item.job.session.flush()
        asyncio.get_running_loop().call_soon(self._begin_more)

    def _end(self, item: _Item) -> None:
        self._lifecycle.end_on_loop()
        item.ended()

    async def _cancel(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_SECONDS)
