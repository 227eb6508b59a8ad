"""The requests that a server has taken in: what is known of each, which is next, and which threads wake for it."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..amqp.base import Delivery, Session
from ..dialects import Inbound
from .inline_policy import InlinePolicy

# A request that came back and runs for so long is not what ended its server, most likely.
_LONG_SECONDS = 5.0
# What comes after a longer pause is worth a thread: the one that stands by for the owner would wake in vain.
_RARE_SECONDS = 0.02


@dataclass(slots=True, eq=False)
class Job:
    """
    One request: what a handler may ask about it (``context.Envelope``), and how the broker is told of its end.

    Attributes:
        returns: How often it came back to the queue, where that counts.
        is_settled: The broker was told.
        is_dead: It is to be rejected: what it asks for will not be done.
        may_be_dead: Nobody who asks for something in it may not have that.
        inbound: What a dialect made of it; None: it is JSON-RPC as it is.
    """

    service: str
    session: Session
    delivery: Delivery
    deadline: float | None
    returns: int = 0
    is_settled: bool = False
    is_dead: bool = False
    may_be_dead: bool = True
    inbound: Inbound | None = None

    @property
    def body(self) -> bytes:
        """The JSON-RPC request; empty where it was too large to keep."""
        return (self.delivery.body or b"") if self.inbound is None else self.inbound.body

    @property
    def routing_key(self) -> str:
        return self.delivery.routing_key

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.delivery.headers

    @property
    def user_id(self) -> str | None:
        return self.delivery.user_id

    @property
    def redelivered(self) -> bool:
        return self.delivery.redelivered

    def acknowledge(self) -> None:
        self.settle()
        self.session.flush()

    def dead_letter(self) -> None:
        self.is_dead = self.may_be_dead

    def forbid_dead_letter(self) -> None:
        self.is_dead = self.may_be_dead = False

    def settle(self) -> None:
        """Acknowledge or reject it, once."""
        if self.is_settled:
            return
        self.is_settled = True
        if self.is_dead:
            self.session.reject(self.delivery)
        else:
            self.session.ack(self.delivery)


class WorkQueue:
    """
    What waits for a handler's thread; the threads sleep in ``get``.

    Waking one costs as much as a short method does, and threads that are awake together take the interpreter from one
    another. So where methods have been quick, and requests come one upon the other, none is woken: the owner of the
    connection does the work itself, as long as that lasts.

    Args:
        threads: How many call ``get``.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._waiting: deque[Job | Returned | None] = deque()
        self._beds: list[threading.Lock] = []  # of those who sleep; the last to go to sleep is the first to be woken
        self.pace = InlinePolicy()
        self._last_put = 0.0
        self.are_quick = False
        """No thread was woken for what was put last; ``hand_over`` does."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, jobs: Sequence[Job], now: float) -> None:
        """Add some."""
        # One thread stays the only one: who asks for that may keep what belongs to a thread, as sqlite3 does.
        self.are_quick = self._threads > 1 and self.pace.is_quick and now - self._last_put < _RARE_SECONDS
        self._last_put = now
        self._waiting.extend(jobs)
        if not self.are_quick:
            self._wake(len(self._waiting))  # with what was left for the owner, who takes none from now on

    def put_returned(self, marks: Sequence[Returned]) -> None:
        """Add some of those, which are never quick: one of the requests may be what ends a server."""
        self._waiting.extend(marks)
        self._wake(len(marks))

    def take_quick(self) -> Job | None:
        """Take the oldest for the owner of the connection; None: there is none for it."""
        try:
            job = self._waiting.popleft()
        except IndexError:
            return None
        if isinstance(job, Job):
            return job
        self.put_back(job)
        return None

    def put_back(self, job: Job | Returned | None) -> None:
        """Put back what was taken too early, and leave it and the rest to the threads."""
        self._waiting.appendleft(job)
        self.hand_over(late=False)

    def hand_over(self, *, late: bool) -> None:
        """Wake threads for what waits; ``late``: because something that was to be quick is not."""
        self.are_quick = False
        if late:
            self.pace.fail()
        self._wake(len(self._waiting))

    def get(self) -> Job | Returned | None:
        """Take the oldest; waits until there is one."""
        waiting, beds = self._waiting, self._beds
        while True:
            try:
                return waiting.popleft()
            except IndexError:
                pass
            bed = threading.Lock()
            bed.acquire()
            beds.append(bed)
            # Who put something meanwhile may not have seen us; who takes the bed away wakes us.
            if not waiting or not _taken_out(beds, bed):
                bed.acquire()

    def end(self) -> None:
        """Have each thread get None, once what waits is taken."""
        self._waiting.extend([None] * self._threads)
        self._wake(self._threads)

    def take_all(self) -> list[Job]:
        """Give all that waits."""
        jobs = []
        while self._waiting:
            try:
                job = self._waiting.popleft()
            except IndexError:
                break
            if isinstance(job, Job):
                jobs.append(job)
        return jobs

    def _wake(self, most: int) -> None:
        for _ in range(most):
            try:
                bed = self._beds.pop()
            except IndexError:
                return
            bed.release()


def _taken_out(beds: list[threading.Lock], bed: threading.Lock) -> bool:
    try:
        beds.remove(bed)
    except ValueError:
        return False
    return True


class Returned:
    """
    The requests that came back to the queue, of which few at a time are to run: one, and one more for each that ends.

    One of them may be what ended the server that had it. Had all begun at once, all would be back once more, and be
    refused with it in the end; so each time some get through, whichever is the culprit. One that takes long is not
    waited for: what kills, mostly kills soon, and a handler that hangs must not hold up the others.

    Args:
        most: How many may run at a time in the end.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._begun: dict[Job, float] = {}
        self._width = 1
        self._granted = 0

    def add(self, job: Job) -> int:
        """Take one in. Gives how many handlers may ``take`` one now, besides those that may already."""
        with self._lock:
            self._jobs.append(job)
            return self._grant()

    def take(self) -> Job | None:
        """Give one of those that came back least often; None: there is none left."""
        with self._lock:
            self._granted = max(0, self._granted - 1)
            if not self._jobs:
                return None
            position = min(range(len(self._jobs)), key=lambda each: (self._jobs[each].returns, random.random()))
            job = self._jobs.pop(position)
            self._begun[job] = time.monotonic()
            return job

    def end(self, job: Job) -> int:
        """Note that one has ended, and this process has not; gives as ``add`` does."""
        with self._lock:
            del self._begun[job]
            self._width = min(self._width + 1, self._most) if self._jobs or self._begun else 1
            return self._grant()

    def overdue(self, now: float) -> int:
        """Wait no longer for those that take long; gives as ``add`` does."""
        if not self._jobs:
            return 0
        with self._lock:
            return self._grant(now)

    def take_all(self) -> list[Job]:
        """Give what is left; nobody may take one any more."""
        with self._lock:
            jobs, self._jobs = self._jobs, []
            self._granted = 0
            return jobs

    def _grant(self, now: float | None = None) -> int:
        long_ago = (time.monotonic() if now is None else now) - _LONG_SECONDS
        running = sum(begun > long_ago for begun in self._begun.values())
        count = max(0, min(len(self._jobs), self._width - running) - self._granted)
        self._granted += count
        return count
