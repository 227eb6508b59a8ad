"""Runs requests whose methods are ``async def`` on an event loop: that of the process, or that of the program."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from ..amqp.base import Session
from ..jsonrpc.invocation import PreparedMethod
from ..jsonrpc.middleware import WrappedMethod
from ..runtime.daemons import run_daemon
from ..runtime.event_loop import LoopThread, WatchedLoop
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


Wait = tuple[Callable[[], bool], float]
"""What to wait for, and for how many seconds at most."""


_METHODS = (PreparedMethod.respond_async.__code__, WrappedMethod.respond_async.__code__)


def label(frame: FrameType) -> str | None:
    """Name the method that a frame runs."""
    if frame.f_code not in _METHODS:
        return None
    return f"method {frame.f_locals['self'].name!r}"


_process_loop = LoopThread("jsonrpc-amqp-loop", label)


def _renew() -> None:
    global _process_loop
    _process_loop = LoopThread("jsonrpc-amqp-loop", label)


# A forked process has no such thread.
os.register_at_fork(after_in_child=_renew)


def process_loop() -> WatchedLoop:
    """
    Return the event loop that all servers of this process share, but those that live in another one.

    Raises:
        NotConnected: This process can have no other thread or open file.
    """
    return _process_loop.get()


class LoopExecutor:
    """
    Runs requests on an event loop, so many at a time; the others wait in the order of their arrival.

    The loop is that of the process, on a thread of its own, unless ``attach`` gives another one. ``submit``,
    ``take_waiting``, ``run_and_wait`` and ``closing`` are for any thread; all else runs on the loop.

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
        self._threads = asyncio.Semaphore(threads)
        self._lifecycle = lifecycle
        self._counters = counters
        self._waiting: deque[_Item] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_woken = self._is_closed = self._is_attached = False
        self._watched: WatchedLoop | None = None
        self._unflushed: Session | None = None

    @property
    def is_closing(self) -> bool:
        """Whether what runs is cancelled, because the server ends."""
        return self._is_closed

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is that of the loop."""
        return self._watched is not None and self._watched.is_here

    @property
    def runs_current_task(self) -> bool:
        """Whether the current task is a request."""
        return asyncio.current_task() in self._tasks

    @property
    def is_attached(self) -> bool:
        """Whether a loop was attached."""
        return self._is_attached

    def attach(self, watched: WatchedLoop) -> None:
        """Run requests on this loop, and close the watch at the end. Called before there are any."""
        self._watched = watched
        self._is_attached = True

    def submit(self, job: Job, rest: Rest, ended: Callable[[], object]) -> None:
        """
        Do what is left to do for a request; ``ended`` is called when that is done.

        Raises:
            NotConnected: This process can have no other thread or open file.
        """
        watched = self._loop()
        self._waiting.append(_Item(job, rest, ended))
        if watched.is_here:
            self._begin_more()
        elif not self._is_woken:
            self._is_woken = True
            watched.loop.call_soon_threadsafe(self._begin_more)

    def run_and_wait(self, begin: Callable[[LoopExecutor], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the context of the calling thread, which waits for it, and is not that of the loop."""
        return asyncio.run_coroutine_threadsafe(begin(self), self._loop().loop).result()

    def take_waiting(self) -> list[Job]:
        """Remove and return the requests that have not begun."""
        jobs = []
        while self._waiting:
            try:
                item = self._waiting.popleft()
            except IndexError:  # the loop was quicker
                break
            jobs.append(item.job)
            self._end(item)
        return jobs

    def closing(self) -> Iterator[Wait]:
        """Cancel what still runs; yield what to wait for before going on."""
        self._is_closed = True
        watched = self._watched
        if watched is not None and self._is_attached:
            watched.close()
        if watched is None or not self._tasks:
            return
        with suppress(RuntimeError):  # the loop was closed
            watched.loop.call_soon_threadsafe(self._cancel)
            yield lambda: not self._tasks, _CANCEL_SECONDS
        if self._tasks:
            log.warning(
                "%d coroutines have not ended %g s after they were cancelled: they ignore it, or one blocks the event "
                "loop",
                len(self._tasks),
                _CANCEL_SECONDS,
            )

    def _loop(self) -> WatchedLoop:
        if self._watched is None:
            self._watched = process_loop()
        return self._watched

    # -- on the loop ----------------------------------------------------------------------------------------

    async def in_thread(self, function: Callable[[], T]) -> T:
        """
        Run a plain method on a thread of its own, in the context of the calling task.

        The thread is a daemon: a method that hangs does not keep the program from ending.
        """
        done: Future[T] = Future()
        context = copy_context()

        def run() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(context.run(function))
            except BaseException as exc:
                done.set_exception(exc)

        async with self._threads:
            run_daemon(run, f"{self._name}-batch")
            return await asyncio.wrap_future(done)

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
            task.add_done_callback(partial(self._ended, item))

    async def _run(self, item: _Item) -> None:
        assert self._watched is not None
        self._watched.begin()
        try:
            await item.rest(self)
        except asyncio.CancelledError:
            # By ``closing``: the request goes back to the queue when the connection ends.
            log.warning("a coroutine was cancelled, since the server ends; its request goes back to the queue")
        except BaseException:
            log.exception("unexpected error while serving a request; it is acknowledged")
            self._counters.add("failed")
            item.job.settle()
        finally:
            self._watched.end()
        self._flush_soon(item.job.session)

    def _ended(self, item: _Item, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._end(item)
        if self._waiting:
            self._begin_more()

    def _end(self, item: _Item) -> None:
        self._lifecycle.end_on_loop()
        item.ended()

    def _flush_soon(self, session: Session) -> None:
        """Write the replies of all tasks that end in this turn of the loop together."""
        if session is self._unflushed:
            return
        if self._unflushed is None:
            asyncio.get_running_loop().call_soon(self._flush)
        else:  # that connection was lost
            self._unflushed.flush()
        self._unflushed = session

    def _flush(self) -> None:
        session, self._unflushed = self._unflushed, None
        if session is not None and not session.writes_soon:
            session.flush()

    def _cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()
