"""The queue between the connection and the handler threads, which sleep in it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from enum import Enum

from .inline_policy import InlinePolicy
from .job import Job

# After a pause longer than this, a handler thread is woken: inline runs would have to wake the leader's follower.
_BURST_SECONDS = 0.02


class Turn(Enum):
    """An item of the queue that is no job."""

    REDELIVERED = "the thread that takes it begins one of the redelivered requests"


class WorkQueue:
    """
    What waits for a handler thread; the threads sleep in ``get``.

    To wake a thread costs as much as a short method does, and threads that are awake together compete for the
    interpreter. So while methods are quick and requests come close together, none is woken: the leader takes the jobs
    (``take_inline``), until that changes.

    There is no lock around the items: the operations of ``deque`` and ``list`` that are used here are atomic. Each
    sleeping thread waits for a lock of its own, which the thread that wakes it releases. ``put`` and ``take_inline``
    are for the leader alone, all else for any thread.

    Args:
        threads: How many threads call ``get``.
        policy: Decides whether the leader runs the jobs.
    """

    def __init__(self, threads: int, policy: InlinePolicy) -> None:
        self._threads = threads
        self._policy = policy
        self._items: deque[Job | Turn | None] = deque()  # None ends the thread that takes it
        self._sleepers: list[threading.Lock] = []  # the last to go to sleep is the first to be woken
        self._last_put = 0.0
        self.is_inline = False
        """The jobs are left to the leader: no thread was woken for what was put last. ``offload`` wakes them."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, jobs: Sequence[Job], now: float) -> None:
        """Add jobs that came at the monotonic time ``now``."""
        # With one thread all jobs run on that thread: users rely on it for thread-bound objects, such as sqlite3's.
        self.is_inline = self._threads > 1 and self._policy.is_quick and now - self._last_put < _BURST_SECONDS
        self._last_put = now
        self._items.extend(jobs)
        if not self.is_inline:
            self._wake(len(self._items))  # all, since some may have been left to the leader

    def put_turns(self, count: int) -> None:
        """Have ``count`` threads begin a redelivered request each. Never inline: it may kill the process, or hang."""
        self._items.extend([Turn.REDELIVERED] * count)
        self._wake(count)

    def take_inline(self) -> Job | None:
        """Remove the oldest job for the leader; None: there is none that it may run."""
        try:
            item = self._items.popleft()
        except IndexError:
            return None
        if isinstance(item, Job):
            return item
        self.put_back(item)
        return None

    def put_back(self, item: Job | Turn | None) -> None:
        """Put back what was taken too early, and leave all items to the threads."""
        self._items.appendleft(item)
        self.offload(late=False)

    def offload(self, *, late: bool) -> None:
        """Wake threads for all items; ``late``: because a job that ran inline was not quick."""
        self.is_inline = False
        if late:
            self._policy.fail()
        self._wake(len(self._items))

    def get(self) -> Job | Turn | None:
        """Remove the oldest item; wait until there is one. None: the queue was closed."""
        items, sleepers = self._items, self._sleepers
        while True:
            try:
                return items.popleft()
            except IndexError:
                pass
            sleeper = threading.Lock()
            sleeper.acquire()
            sleepers.append(sleeper)
            # An item put between the look above and this point woke other threads at best. Removing the lock oneself
            # means that no thread will release it; if another thread removed it, that thread will.
            if not items or not _remove(sleepers, sleeper):
                sleeper.acquire()

    def close(self) -> None:
        """End each thread, once the items are taken."""
        self.end(self._threads)

    def end(self, count: int) -> None:
        """End so many threads, once the items are taken."""
        self._items.extend([None] * count)
        self._wake(count)

    def take_all(self) -> list[Job]:
        """Remove all items, and return the jobs among them."""
        jobs = []
        while self._items:
            try:
                item = self._items.popleft()
            except IndexError:
                break
            if isinstance(item, Job):
                jobs.append(item)
        return jobs

    def _wake(self, most: int) -> None:
        for _ in range(most):
            try:
                sleeper = self._sleepers.pop()
            except IndexError:
                return
            sleeper.release()


def _remove(sleepers: list[threading.Lock], sleeper: threading.Lock) -> bool:
    try:
        sleepers.remove(sleeper)
    except ValueError:
        return False
    return True
