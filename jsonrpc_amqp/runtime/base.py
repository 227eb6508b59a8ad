"""
The seam between what is driven (a connection) and what drives it (threads, or an event loop).

A connection is a state machine without a loop: it says which socket to watch and when it wants to be called next. A
runtime calls it. One thread at a time does so, the *leader*; which one that is, is the runtime's business alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Driven(Protocol):
    """What a runtime drives. Only the leader calls these, one at a time, unless it says otherwise."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to drive."""
        ...

    def interest(self) -> tuple[int | None, bool]:
        """Return the descriptor of the socket to watch, if any, and whether to watch for room to write, too."""
        ...

    def on_readable(self) -> None:
        """
        Read once.

        Raises:
            BaseException: What ends the connection; pass it to ``fail`` or ``invalidate``.
        """
        ...

    def on_writable(self) -> None:
        """Write on."""
        ...

    def is_due(self, now: float) -> bool:
        """Whether ``tick`` has more to do than to write what is queued."""
        ...

    def tick(self, now: float) -> float | None:
        """Do what is due; return when to call again, in monotonic seconds, or None."""
        ...

    def fail(self, error: BaseException) -> None:
        """End the connection because of an error."""
        ...

    def invalidate(self, error: BaseException) -> None:
        """Use the connection no more, and end it at the next ``tick``. May be called by any thread."""
        ...

    def abandon(self) -> None:
        """Let go of the socket, and be finished: nothing drives it any more. May be called by any thread."""
        ...


class InlineJobs(Protocol):
    """Short jobs that the leader may run between two reads, which saves waking another thread."""

    @property
    def has_inline_job(self) -> bool:
        """Whether ``next_inline_job`` is likely to return one."""
        ...

    def next_inline_job(self) -> Callable[[], object] | None:
        """Return a job that is expected to be short, and that raises nothing."""
        ...

    def offload(self, *, late: bool) -> None:
        """Leave the jobs to other threads: the leader cannot run them; or, ``late``, one of them blocked the leader."""
        ...

    def never_inline(self) -> None:
        """Leave all jobs to other threads from now on: this runtime never runs any."""
        ...


class Runtime(Protocol):
    """
    Drives one connection. All of these may be called by any thread.

    Attributes:
        writes_behind: What is queued is best left to the next ``tick``, for which ``wake`` costs less than to write.
    """

    writes_behind: bool

    def start(self, driven: Driven, name: str) -> None:
        """Begin to drive; ``name`` is for threads."""
        ...

    def wake(self) -> None:
        """Have ``tick`` called soon. Safe in signal handlers."""
        ...

    def run_blocking(self, function: Callable[[], None], name: str) -> None:
        """Run a function that blocks, such as a handshake, without holding up the leader."""
        ...

    def set_inline_jobs(self, jobs: InlineJobs) -> None:
        """Run these jobs on the leader, or tell them that this runtime never does. Called before ``start``."""
        ...

    def drive_until(self, is_done: Callable[[], bool], deadline: float) -> None:
        """
        Drive on the calling thread while it waits, where that is faster than being woken.

        May return early, even at once: the caller must still wait.

        Args:
            deadline: Monotonic seconds.
        """
        ...

    def reclaim(self) -> None:
        """Stop driving on a caller's thread: something is pending that no thread waits for. Safe in signal handlers."""
        ...

    def would_deadlock(self) -> bool:
        """Whether the calling thread is the leader, so that what it waits for cannot arrive."""
        ...

    def unwatch(self) -> None:
        """Watch the socket no more. The leader calls it before the socket is closed: then others may get its number."""
        ...

    def close(self, timeout: float) -> bool:
        """Wait until the driven connection has finished. False: it has not, within ``timeout`` seconds."""
        ...
