"""Which thread runs a request: a handler thread, or the leader of the connection (inline)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from ..errors import NotConnected
from ..logs import on_own_thread
from .counters import Counters
from .health import RunningRequests
from .inline_policy import InlinePolicy
from .job import Job
from .lifecycle import Admission, Lifecycle
from .loop_executor import LoopExecutor, Rest, Wait
from .redelivery import RedeliveredRequests
from .work_queue import WorkQueue

log = logging.getLogger("jsonrpc_amqp.server")

_BEGUN = Admission.BEGUN


def _nothing() -> None:
    """Do what is done where nothing waits for the end of a request."""


class Executor:
    """
    Runs requests on handler threads, or on the leader while they are quick (``runtime.base.InlineJobs``).

    The lock guards the list of threads, and is held only while they start. It is a leaf: no other lock is taken while
    it is held. Whether a request may begin is decided by ``lifecycle``, behind its own lock.

    Args:
        name: The service, for the names of threads.
        concurrency: How many threads.
        lifecycle: Decides whether a request may begin, and counts those that run.
        process: Does all there is to do for one request; it is given the monotonic time as well. It returns what is
            left to be done on the event loop; None: nothing.
        counters: Where to count.
        on_loop: Does that.
        is_for_loop: Whether all of a request may be done there; None: nothing may, since the leader is another thread.
        running: Is told which requests run; None: that is not asked for.
    """

    def __init__(
        self,
        name: str,
        concurrency: int,
        lifecycle: Lifecycle,
        process: Callable[[Job, float], Rest | None],
        counters: Counters,
        on_loop: LoopExecutor,
        is_for_loop: Callable[[Job], bool] | None = None,
        running: RunningRequests | None = None,
    ) -> None:
        self._name = name
        self._concurrency = concurrency
        self._lifecycle = lifecycle
        self._process = process
        self._counters = counters
        self._on_loop = on_loop
        self._is_for_loop = is_for_loop
        self._running = running
        self._policy = InlinePolicy()
        self._queue = WorkQueue(concurrency, self._policy)
        self._redelivered = RedeliveredRequests(concurrency)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        # Threads that run a handler as the leader. One that was blocked for long is a follower when the handler ends.
        self._running_inline: set[int] = set()

    @property
    def is_running_here(self) -> bool:
        """Whether the calling thread is running a handler."""
        if threading.current_thread() in self._threads or threading.get_ident() in self._running_inline:
            return True
        return self._on_loop.is_here

    # -- starting and ending ------------------------------------------------------------------------------

    def start(self) -> None:
        """
        Start the handler threads, unless they run.

        Raises:
            NotConnected: This process cannot have so many threads; none is left.
        """
        with self._lock:
            while len(self._threads) < self._concurrency:
                name = f"{self._name}-handler-{len(self._threads)}"
                thread = threading.Thread(target=on_own_thread(self._run_thread), name=name, daemon=True)
                self._threads.append(thread)  # first: an interrupt may come when it has begun
                try:
                    thread.start()
                except Exception as exc:
                    self._threads.remove(thread)
                    count = self._end_threads()
                    raise NotConnected(
                        f"this process can have {count} handler threads, not {self._concurrency}: {exc}. Serve with a "
                        "lower concurrency, or raise the limit of threads (ulimit -u)"
                    ) from exc

    def undo_start(self) -> None:
        """End the threads, so that ``start`` starts new ones; there are no requests yet."""
        with self._lock:
            self._end_threads()

    def _end_threads(self) -> int:
        threads, self._threads = self._threads, []
        self._queue.end(len(threads))
        for thread in threads:  # the next start must not find them
            thread.join()
        return len(threads)

    def give_back(self, kept: list[Job]) -> None:
        """Give all requests that have not begun back to their queue, those that the lifecycle kept included."""
        _give_back(kept + self._redelivered.take_all() + self._queue.take_all() + self._on_loop.take_waiting())

    def closing(self) -> Iterator[Wait]:
        """
        End the threads, once they have nothing to do, and what runs on the event loop, at once.

        Yields what to wait for before going on.
        """
        self._queue.close()
        yield from self._on_loop.closing()

    # -- called by the leader -----------------------------------------------------------------------------

    def submit(self, jobs: list[Job], now: float) -> None:
        """Run some requests that came at the monotonic time ``now``."""
        is_for_loop = self._is_for_loop
        if is_for_loop is None:
            self._queue.put(jobs, now)
            return
        plain: list[Job] = []
        for job in jobs:
            if is_for_loop(job):
                self._begin_on_loop(job, now)
            else:
                plain.append(job)
        if plain:
            self._queue.put(plain, now)

    def submit_redelivered(self, job: Job, now: float) -> None:
        """Run a request that was redelivered."""
        self._give_turns(self._redelivered.add(job, now))

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._give_turns(self._redelivered.skip_long(now))

    @property
    def has_inline_job(self) -> bool:
        """Whether ``next_inline_job`` is likely to return one."""
        return self._queue.is_inline and len(self._queue) > 0

    def next_inline_job(self) -> Callable[[], object] | None:
        """Return a job that is expected to be short; None: there is none."""
        queue = self._queue
        while (job := queue.take_inline()) is not None:
            admission = self._lifecycle.begin(job, may_wait=False)
            if admission is _BEGUN:
                return partial(self._run_inline, job)
            if admission is Admission.FULL:
                queue.put_back(job)
                return None
            self._drop(job, admission)
        return None

    def offload(self, *, late: bool) -> None:
        """Leave the jobs to the handler threads; ``late``: because one of them blocked the leader."""
        self._queue.offload(late=late)

    def never_inline(self) -> None:
        """Leave all jobs to the handler threads."""
        self._policy.never()

    def _begin_on_loop(self, job: Job, now: float) -> None:
        admission = self._lifecycle.begin_on_loop(job)
        if admission is not _BEGUN:
            self._drop(job, admission)
            return
        ended = _nothing if self._running is None else self._running.begin(job, now, _nothing)
        if not self._goes_on(job, now, ended):
            self._lifecycle.end_on_loop()
            ended()

    def _run_inline(self, job: Job) -> None:
        thread, policy = threading.get_ident(), self._policy
        self._running_inline.add(thread)
        began = time.monotonic()
        began_cpu = time.thread_time() if policy.wants_cpu_time else None
        try:
            self._run(job, began)
        finally:
            self._running_inline.discard(thread)
        policy.ran_inline(time.monotonic() - began, 0.0 if began_cpu is None else time.thread_time() - began_cpu)

    # -- handler threads ----------------------------------------------------------------------------------

    def _run_thread(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, Job):
                self._run_on_thread(item)
            else:
                self._run_redelivered()

    def _run_redelivered(self) -> None:
        job = self._redelivered.take(time.monotonic())
        if job is None:
            return
        self._run_on_thread(job, partial(self._end_redelivered, job))

    def _end_redelivered(self, job: Job) -> None:
        # Behind all that waits: no redelivered request is more urgent than one that was not redelivered.
        self._give_turns(self._redelivered.end(job, time.monotonic()))

    def _give_turns(self, count: int) -> None:
        if count:
            self._queue.put_turns(count)

    def _run_on_thread(self, job: Job, ended: Callable[[], object] = _nothing) -> None:
        admission = self._lifecycle.begin(job)
        if admission is not _BEGUN:
            self._drop(job, admission)
            ended()
            return
        began, began_cpu = time.monotonic(), time.thread_time()
        self._run(job, began, ended)
        self._policy.ran_on_thread(time.monotonic() - began, time.thread_time() - began_cpu)

    # -- any thread ---------------------------------------------------------------------------------------

    def _run(self, job: Job, began: float, ended: Callable[[], object] = _nothing) -> None:
        """Run a request; ``ended`` is called when it has ended, which may be later, on the event loop."""
        if self._running is not None:
            ended = self._running.begin(job, began, ended)
        if self._goes_on(job, began, ended):
            self._lifecycle.move_to_loop()
        else:
            self._lifecycle.end()
            ended()
        # While more requests wait, one write for several replies is worth a delay of up to a millisecond.
        if not self._queue or not job.session.writes_soon:
            job.session.flush()

    def _goes_on(self, job: Job, began: float, ended: Callable[[], object]) -> bool:
        """Serve a request on this thread; return whether something is left, which goes on on the event loop."""
        try:
            rest = self._process(job, began)
            if rest is None:
                return False
            self._on_loop.submit(job, rest, ended)
            return True
        # BaseException: a sys.exit() in a user's callable must not end the thread.
        except BaseException:
            log.exception("unexpected error while serving a request; it is acknowledged")
            self._counters.add("failed")
            job.settle()
            return False

    def _drop(self, job: Job, admission: Admission) -> None:
        if admission is Admission.STALE:
            self._counters.add("abandoned")
        elif admission is Admission.TOO_LATE:
            _give_back([job])


def _give_back(jobs: list[Job]) -> None:
    # In the order of their arrival: a quorum queue keeps the order in which they come back.
    for job in sorted(jobs, key=lambda job: job.delivery.tag):
        job.session.requeue(job.delivery)
    for session in {job.session for job in jobs}:
        session.flush()
