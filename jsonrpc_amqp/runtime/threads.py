"""
Drives a connection with threads: an I/O thread, callers that lead while they wait, and a follower.

The I/O thread sleeps until the socket, a wake-up or the clock calls it. ``leader_follower`` says when another thread
takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ..errors import ConnectionLost, NotConnected, TransportError
from .base import Driven, InlineJobs
from .daemons import daemon, exhausted, run_daemon
from .leader_follower import DelegationPolicy, FollowerWatch, Leadership, State
from .polling import POLLIN, POLLOUT, Waker, new_poll

# Seconds. A poll that ends without an event costs little; one without an end would hide a lost wake-up.
_LONGEST_SLEEP = 60.0
# Seconds that the leader runs jobs for before it looks at the socket again.
_JOBS_SECONDS = 0.001
# Seconds between two looks of the follower, so a job that runs for twice as long loses the leadership; also how long
# a caller waits for the leadership, and for one reply as the leader. A thread switch takes a hundredth of it.
_PATIENCE = 0.005
# Seconds between two looks of the I/O thread at whether the caller still drives. No reply depends on it.
_SECONDS_BETWEEN_LOOKS = 0.05


class ThreadsRuntime:
    """
    Drives one connection on threads of its own and of its callers. Its threads are daemons.

    Args:
        caller_drives: A caller that makes one call after the other drives the connection while it waits.
        inline_jobs: The leader runs short jobs itself.
    """

    def __init__(self, *, caller_drives: bool = True, inline_jobs: bool = True) -> None:
        self.writes_behind = False
        self._caller_drives = caller_drives
        self._runs_jobs = inline_jobs
        self._jobs: InlineJobs | None = None
        self._driven: Driven
        self._name = ""
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self._last_leader: int | None = None
        self._waker: Waker  # made by ``start``: a runtime that was never started holds no descriptor
        self._poll = new_poll()
        self._watched: tuple[int | None, bool] = None, False
        self._leadership = Leadership(self._wake)
        self._delegation = DelegationPolicy()
        self._caller_poll = new_poll()
        self._follower_awake = threading.Event()

    # -- from any thread ------------------------------------------------------------------------------

    def start(self, driven: Driven, name: str) -> None:
        """Begin to drive; ``name`` is for threads."""
        if self._threads:
            return  # an earlier start was interrupted when the thread ran already
        self._driven = driven
        self._name = name
        try:
            self._waker = Waker()
        except OSError as exc:
            raise exhausted(exc) from exc
        self._poll.register(self._waker.fileno(), POLLIN)
        try:
            self._start_thread(self._run, name)
        except NotConnected:
            self._poll.unregister(self._waker.fileno())
            self._waker.close()
            raise

    def _start_thread(self, target: Callable[[], None], name: str) -> None:
        thread = daemon(target, name)
        self._threads.append(thread)  # first: what the thread begins may wake it
        try:
            thread.start()
        except Exception as exc:
            self._threads.remove(thread)
            raise exhausted(exc) from exc

    def set_inline_jobs(self, jobs: InlineJobs) -> None:
        """Run these jobs on the leader."""
        self._jobs = jobs

    def run_blocking(self, function: Callable[[], None], name: str) -> None:
        """Run a function on a thread of its own."""
        run_daemon(function, name)

    def wake(self) -> None:
        """Have ``tick`` called soon."""
        if not self._reclaim():
            self._wake()

    def _wake(self) -> None:
        if self._threads:
            self._waker.wake()

    def reclaim(self) -> None:
        """Have the I/O thread drive, if a caller does."""
        self._reclaim()

    def _reclaim(self) -> bool:
        reclaimed = self._leadership.reclaim()
        if reclaimed:
            self._delegation.note_end(self._leadership.steps)
        return reclaimed

    def would_deadlock(self) -> bool:
        """Whether the calling thread is the leader."""
        return self._leadership.leads_here()

    def drive_until(self, is_done: Callable[[], bool], deadline: float) -> None:
        """Drive on the calling thread, if leadership is delegated to it, for some milliseconds at most per read."""
        leadership = self._leadership
        if leadership.state is State.LEADING:
            if not self._caller_drives or self._watched[0] is None:
                return
            if not self._delegation.deserves(threading.get_ident()) or not leadership.request(_PATIENCE):
                return
        elif not leadership.is_delegated_here():
            self.reclaim()
            return
        try:
            while not is_done() and leadership.is_delegated_here():
                seconds = max(0.0, min(_PATIENCE, deadline - time.monotonic()))
                leadership.step(self._step, bool(self._caller_poll.poll(1000 * seconds)))
        except BaseException:  # of a signal handler: the caller comes back no more
            self.reclaim()
            raise

    def close(self, timeout: float) -> bool:
        """
        Wait until the connection has finished, and its threads with it, but those whose job blocks.

        The leader does not wait: that would keep the connection from finishing.
        """
        if threading.current_thread() in self._threads or self.would_deadlock():
            return False
        deadline = time.monotonic() + timeout
        if not self._over.wait(timeout):
            return False
        leadership = self._leadership
        for thread in self._threads:
            if leadership.has_follower or thread.ident == self._last_leader:
                thread.join(max(0.0, deadline - time.monotonic()))
        return True

    # -- the leader -----------------------------------------------------------------------------------

    def _run(self) -> None:
        self._drive()
        self._follow()

    def _drive(self) -> None:
        """Drive until the connection has finished, or until another thread leads."""
        driven, leadership = self._driven, self._leadership
        leadership.lead()
        while True:
            due = self._tick()
            if driven.finished:
                break
            self._poll_once(due)
            if leadership.state is State.REQUESTED:
                self._delegate()
            if self._has_job() and not self._run_jobs():
                return
        self._last_leader = threading.get_ident()
        leadership.end()
        self._over.set()
        self._follower_awake.set()
        self._waker.close()

    def _tick(self) -> float | None:
        try:
            return self._driven.tick(time.monotonic())
        # As in ``_handle``. Nothing is known of what is due now, so look again at once.
        except BaseException as exc:
            self._driven.fail(exc)
            return 0.0

    def _has_job(self) -> bool:
        return self._jobs is not None and self._jobs.has_inline_job

    def _poll_once(self, due: float | None) -> None:
        driven = self._driven
        try:
            self._watch()
        except OSError as exc:  # it cannot be watched
            driven.fail(ConnectionLost(str(exc), may_have_run=True))
            return
        for fd, events in self._poll.poll(0 if self._has_job() else _milliseconds(due)):
            if fd == self._waker.fileno():
                self._waker.clear()
            elif fd == self._watched[0]:
                if events & POLLOUT:
                    self._handle(driven.on_writable)
                if events & ~POLLOUT:
                    self._handle(driven.on_readable)

    def _handle(self, event: Callable[[], None]) -> None:
        try:
            event()
        # BaseException: a sys.exit() in a user's callback must not leave the connection without a leader.
        except BaseException as exc:
            self._driven.fail(exc)

    def _watch(self) -> None:
        wanted, watched = self._driven.interest(), self._watched
        if wanted[0] != watched[0]:
            self.unwatch()
        if wanted[0] is not None and wanted != watched:
            self._poll.register(wanted[0], POLLIN | (POLLOUT if wanted[1] else 0))
        self._watched = wanted

    def unwatch(self) -> None:
        """Watch the socket no more."""
        fd = self._watched[0]
        self._watched = (None, False)
        if fd is not None:
            with suppress(KeyError):
                self._poll.unregister(fd)

    # -- a caller leads -------------------------------------------------------------------------------

    def _delegate(self) -> None:
        """Let the caller lead that has requested it, unless there is something to do; resume when it has stopped."""
        fd, wants_room = self._driven.interest()
        # A new one each time: an earlier caller may still wait with the old one.
        self._caller_poll = new_poll()
        if fd is not None:
            self._caller_poll.register(fd, POLLIN)
        is_possible = fd is not None and not wants_room and not self._driven.is_due(time.monotonic())
        leadership = self._leadership
        if not leadership.grant(is_possible=is_possible):
            return
        steps = -1
        while leadership.state is State.DELEGATED and leadership.steps != steps:
            steps = leadership.steps
            if self._waker.wait(_SECONDS_BETWEEN_LOOKS):
                break
        leadership.resume()

    def _step(self, is_readable: bool) -> bool:
        """
        Read once as the caller that leads; return whether it may go on.

        It only reads. All else is for the I/O thread: an interrupt would leave it half done.
        """
        driven = self._driven
        if not is_readable:
            return False
        try:
            driven.on_readable()
        except TransportError as exc:
            driven.invalidate(exc)
            return False
        except BaseException as exc:
            # A signal handler of the caller's has raised it, as Python's own does for Control-C.
            driven.invalidate(exc)
            raise
        return not driven.is_due(time.monotonic()) and driven.interest() == self._watched

    # -- inline jobs ----------------------------------------------------------------------------------

    def _run_jobs(self) -> bool:
        """Run jobs for a while. False: one of them blocked, and another thread leads now."""
        jobs, leadership = self._jobs, self._leadership
        assert jobs is not None
        if not self._runs_jobs or not (leadership.has_follower or self._start_follower()):
            self._offload(late=False)
            return True
        until = time.monotonic() + _JOBS_SECONDS
        while (job := jobs.next_inline_job()) is not None:
            leadership.begin_job()
            if not self._follower_awake.is_set():
                self._follower_awake.set()
            self._guard(job)
            if not leadership.end_job():
                return False
            if time.monotonic() > until:
                break
        return True

    def _offload(self, *, late: bool) -> None:
        jobs = self._jobs
        if jobs is not None:
            self._guard(lambda: jobs.offload(late=late))

    def _guard(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as exc:
            self._driven.invalidate(exc)

    def _start_follower(self) -> bool:
        """Start a second thread, the first time that it is needed. False: there is none that could take over."""
        if len(self._threads) > 1:
            return False  # one leads, and the other is in a job
        try:
            self._start_thread(self._follow, f"{self._name}-2")
        except NotConnected:  # the system has no thread left
            return False
        self._leadership.has_follower = True
        return True

    def _follow(self) -> None:
        while not self._over.is_set():
            if self._wait_for_take_over():
                self._offload(late=True)
                self._drive()

    def _wait_for_take_over(self) -> bool:
        """Follow until the leader is held up by a job. True: the calling thread leads now."""
        self._leadership.has_follower = True
        while not self._over.is_set():
            self._follower_awake.wait()
            watch = FollowerWatch(self._leadership)
            while not watch.is_idle and not self._over.wait(_PATIENCE):
                if watch.look():
                    return True
            self._follower_awake.clear()
            if watch.missed_a_job or self._over.is_set():
                self._follower_awake.set()
        return False


def _milliseconds(due: float | None) -> float:
    left = _LONGEST_SLEEP if due is None else min(_LONGEST_SLEEP, due - time.monotonic())
    # poll() rounds up to whole milliseconds, which is the side that a deadline wants.
    return max(0.0, left * 1000)
