"""
Drives a connection on an asyncio event loop: asyncio's own, or uvloop's.

All that is driven runs on the thread of the loop, so that no lock is waited for and no other thread is woken. Only what
blocks, the handshake of a connection, has a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ..errors import ConnectionLost, WrongEventLoop
from ..logs import contained
from .base import Driven, InlineJobs
from .daemons import run_daemon


class AsyncioRuntime:
    """
    Drives one connection on the event loop on which it is first used.

    What is queued is written in the next turn of the loop: behind the tasks that a step of the connection has woken, or
    that have begun with the one that queued it, so that what they send leaves together.

    Args:
        what: What has the connection, for errors.
    """

    writes_behind = True

    def __init__(self, what: str = "client") -> None:
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._driven: Driven | None = None
        self._over: asyncio.Event
        self._is_driving = False
        self._is_scheduled = False  # ``_turn`` runs soon
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._fd: int | None = None
        self._watches_room = False
        # As on a thread of this package: a log handler of the program must not break a step off.
        self._turn = contained(self._do_turn)
        self._readable = contained(lambda: self._on_event(self._driven_on_readable))
        self._writable = contained(lambda: self._on_event(self._driven_on_writable))

    # -- the loop that it belongs to --------------------------------------------------------------------

    def attach(self) -> asyncio.AbstractEventLoop:
        """
        Belong to the loop that runs on the calling thread, or check that this is the one; return it.

        Raises:
            WrongEventLoop: It belongs to another one, or none runs here.
        """
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongEventLoop(
                f"an asynchronous {self._what} is used in coroutines and callbacks of its event loop, and none runs on "
                "this thread; from other threads use asyncio.run_coroutine_threadsafe, or what needs no loop: Client "
                "and Server"
            ) from None
        if running is self._loop:
            return running
        if self._loop is None:
            self._loop, self._thread = running, threading.get_ident()
            return running
        if self.is_stranded:
            self.abandon()
            raise WrongEventLoop(
                f"the event loop of this asynchronous {self._what} was closed, and its connection with it. Make one in "
                "each event loop, and end it before the loop ends: use it in an async with block"
            )
        raise WrongEventLoop(
            f"this asynchronous {self._what} belongs to another event loop. Make one in each loop, or use what needs "
            "none: Client and Server"
        )

    @property
    def is_stranded(self) -> bool:
        """Whether its loop was closed."""
        return self._loop is not None and self._loop.is_closed()

    def would_deadlock(self) -> bool:
        """Whether the calling thread is that of the loop."""
        return threading.get_ident() == self._thread

    # -- from any thread ----------------------------------------------------------------------------------

    def start(self, driven: Driven, name: str) -> None:
        """Begin to drive, on the loop that runs on the calling thread."""
        self.attach()
        if self._driven is None:
            self._over = asyncio.Event()
            self._driven = driven

    def wake(self) -> None:
        """Have ``tick`` called soon."""
        loop = self._loop
        if loop is None or self._driven is None:
            return
        if loop.is_closed():  # what was scheduled does not run any more
            self.abandon()
            return
        if self._is_scheduled:
            return
        self._is_scheduled = True
        try:
            if self.would_deadlock() and (self._is_driving or asyncio.current_task(loop) is not None):
                loop.call_soon(self._turn)
            else:  # another thread, or perhaps a signal handler: the loop may sleep
                loop.call_soon_threadsafe(self._turn)
        except RuntimeError:  # the loop has just been closed
            self.abandon()

    def run_blocking(self, function: Callable[[], None], name: str) -> None:
        """Run a function on a thread of its own."""
        run_daemon(function, name)

    def set_inline_jobs(self, jobs: InlineJobs) -> None:
        """Run none of them: a job might block the loop."""
        jobs.never_inline()

    def drive_until(self, is_done: Callable[[], bool], deadline: float) -> None:
        """Do nothing: the loop drives."""

    def reclaim(self) -> None:
        """Do nothing: the loop drives."""

    def close(self, timeout: float) -> bool:
        """Return whether the connection has finished, without waiting: use ``wait_closed``."""
        return self._driven is None or self._driven.finished

    def abandon(self) -> None:
        """Have the connection let go of its socket, where the loop was closed before it."""
        if self._driven is not None and self.is_stranded:
            self._fd = None
            self._driven.abandon()

    async def wait_closed(self, timeout: float) -> bool:
        """Wait until the connection has finished. False: it has not, within ``timeout`` seconds."""
        if self._driven is not None and not self.is_stranded:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._over.wait()
        return self.close(0)

    # -- by the loop ----------------------------------------------------------------------------------------

    def unwatch(self) -> None:
        """Watch the socket no more."""
        fd, self._fd = self._fd, None
        if fd is None or self._loop is None:
            return
        self._loop.remove_reader(fd)
        if self._watches_room:
            self._loop.remove_writer(fd)
        self._watches_room = False

    def _do_turn(self) -> None:
        self._is_scheduled = False
        driven = self._driven
        assert driven is not None
        due: float | None = 0.0
        self._is_driving = True
        try:
            due = driven.tick(time.monotonic())
        except BaseException as exc:
            self._failed(exc)
        finally:
            self._is_driving = False
        if driven.finished:
            self._end()
            return
        self._watch()
        self._set_timer(due)

    def _on_event(self, event: Callable[[], None]) -> None:
        self._is_driving = True
        try:
            event()
        except BaseException as exc:
            self._failed(exc)
        finally:
            self._is_driving = False
            self._schedule()

    def _driven_on_readable(self) -> None:
        if self._driven is not None:
            self._driven.on_readable()

    def _driven_on_writable(self) -> None:
        if self._driven is not None:
            self._driven.on_writable()

    def _schedule(self) -> None:
        if not self._is_scheduled and self._loop is not None:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _failed(self, exc: BaseException) -> None:
        assert self._driven is not None
        self._driven.fail(exc)
        if not isinstance(exc, Exception):  # of a signal handler: it is to end the loop
            raise exc

    def _watch(self) -> None:
        assert self._driven is not None
        assert self._loop is not None
        fd, wants_room = self._driven.interest()
        if fd != self._fd:
            self.unwatch()
            if fd is not None:
                try:
                    self._loop.add_reader(fd, self._readable)
                except (OSError, ValueError, NotImplementedError) as exc:  # it cannot be watched
                    self._driven.fail(ConnectionLost(f"the event loop cannot watch the socket: {exc!r}"))
                    self._schedule()
                    return
                self._fd = fd
        if fd is not None and wants_room != self._watches_room:
            self._watches_room = wants_room
            self._loop.add_writer(fd, self._writable) if wants_room else self._loop.remove_writer(fd)

    def _set_timer(self, due: float | None) -> None:
        """Have a turn at ``due``. An earlier one is left as it is: it costs less than to set it anew."""
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        assert self._loop is not None
        # By the time that is left: the clock of the loop may be another one.
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._on_timer)
        self._timer_at = due

    def _on_timer(self) -> None:
        self._timer = None
        self._turn()

    def _end(self) -> None:
        self.unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._over.set()
