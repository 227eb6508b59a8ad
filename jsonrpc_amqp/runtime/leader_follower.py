"""
Which thread drives a connection: the leader/followers pattern (pure, but for locks and clocks).

One thread at a time is the *leader*. It is the I/O thread, except in two cases, each of which saves waking a thread:

- A caller that makes one call after the other leads while it waits for its reply. The I/O thread delegates leadership
  to it on request, and resumes it when the caller turns to other things, when a reply takes long, or when another
  thread reclaims it.
- The leader runs an inline job, and the job blocks. A follower, a second thread that stands by, takes leadership over;
  the first thread becomes the follower when its job returns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum


class State(Enum):
    """What the leader is doing, and who it is."""

    LEADING = "an I/O thread leads"
    INLINE = "an I/O thread leads and runs a job; a follower may take over"
    REQUESTED = "an I/O thread leads; a caller has asked for leadership"
    DELEGATED = "a caller leads, one step at a time"
    RECLAIMED = "the caller must not begin another step; the I/O thread is about to resume"


class Leadership:
    """
    The leadership of one connection: a state machine that threads share.

    ``_lock`` guards the state. It is reentrant, since signal handlers submit calls, and it is held for moments; no
    other lock is taken under it, so it may be taken with any lock held. ``_step`` is held by a caller during a step,
    which takes other locks; only the I/O thread waits for it, to resume. It is a reentrant lock because that one knows
    its owner: a mark beside the lock would stay behind where a signal handler raises between the two.

    Args:
        wake: Ends the sleep of the I/O thread.

    Attributes:
        caller: The thread that leadership is delegated to, or that has requested it.
        steps: Steps that the caller has made.
        jobs: Inline jobs that were begun.
        has_follower: A follower stands by, so that the leader may run a job.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.RLock()
        self._step = threading.RLock()
        # As threading.Condition asks; typeshed omits private methods.
        self._is_stepping_here: Callable[[], bool] = self._step._is_owned  # type: ignore[attr-defined]
        self._answered = threading.Lock()  # a bare lock: the one of an Event is not for signal handlers
        self._io_thread: int | None = None
        self.state = State.LEADING
        self.caller: int | None = None
        self.steps = 0
        self.jobs = 0
        self.has_follower = False

    @property
    def io_thread(self) -> int | None:
        """The identifier of the I/O thread that leads, or has delegated that; None where none does."""
        return self._io_thread

    def leads_here(self) -> bool:
        """Whether the calling thread leads: it is that I/O thread, or a caller within its step."""
        return threading.get_ident() == self._io_thread or self._is_stepping_here()

    def lead(self) -> None:
        """Make the calling I/O thread the leader."""
        self._io_thread = threading.get_ident()

    def end(self) -> None:
        """Note that no thread leads any more. (The system gives the identifiers of ended threads to new ones.)"""
        self._io_thread = None

    # -- inline jobs ------------------------------------------------------------------------------------

    def begin_job(self) -> None:
        """Note that the leader begins a job."""
        with self._lock:
            if self.state is State.REQUESTED:
                self._answer(State.LEADING)
            self.jobs += 1
            self.state = State.INLINE

    def end_job(self) -> bool:
        """Note that the calling thread has ended its job. False: a follower leads now."""
        with self._lock:
            if self._io_thread != threading.get_ident():
                return False
            self.state = State.LEADING
            return True

    def take_over(self, job: int) -> bool:
        """Make the calling follower the leader if the leader is still in the given job."""
        with self._lock:
            if self.state is not State.INLINE or self.jobs != job:
                return False
            self.has_follower = False
            self.state = State.LEADING
            self.lead()
            return True

    # -- delegation, by the caller ----------------------------------------------------------------------

    def request(self, patience: float) -> bool:
        """
        Ask the I/O thread to delegate leadership to the calling thread.

        Args:
            patience: Seconds to wait for that.
        """
        answered, me = threading.Lock(), threading.get_ident()
        answered.acquire()
        try:
            with self._lock:
                if self.state is not State.LEADING:
                    return False
                # In one step: a signal handler that requested leadership between two of them would be confused with
                # this.
                self._answered, self.caller, self.state = answered, me, State.REQUESTED
            self._wake()
            if not answered.acquire(timeout=patience):
                self.reclaim()
        except BaseException:
            self.reclaim()
            raise
        return self.is_delegated_here()

    def is_delegated_here(self) -> bool:
        """Whether the calling thread leads as a caller."""
        return self.state is State.DELEGATED and self.caller == threading.get_ident()

    def step(self, drive: Callable[[bool], bool], is_readable: bool) -> None:
        """
        Make one step, if the calling thread still leads.

        Args:
            drive: The step; it returns whether the caller may make another.
            is_readable: Its argument.
        """
        if not self.is_delegated_here():
            return
        step = self._step
        try:
            # Not by "with": from Python 3.14 on, an exception of a signal handler may come when the lock is taken and
            # the block not yet entered, and the lock would stay taken.
            step.acquire()
            if self.is_delegated_here():
                self.steps += 1
                if not drive(is_readable):
                    self.reclaim()
        except BaseException:
            self.reclaim()
            raise
        finally:
            try:  # noqa: SIM105  # suppress costs more, on the hot path
                step.release()
            except RuntimeError:
                pass  # interrupted before it was taken

    def reclaim(self) -> bool:
        """
        End a delegation, or the request for one. False: there is none.

        May be called by any thread, with any lock held, and in signal handlers.
        """
        if self.caller is None:
            return False
        with self._lock:
            if self.state is State.REQUESTED:
                self._answer(State.LEADING)
            elif self.state is State.DELEGATED:
                self.state = State.RECLAIMED
            else:
                return False
        self._wake()
        return True

    # -- delegation, by the I/O thread ------------------------------------------------------------------

    def grant(self, *, is_possible: bool) -> bool:
        """Answer a request; return whether a caller leads now."""
        with self._lock:
            if self.state is not State.REQUESTED:
                return False
            self.steps = 0
            self._answer(State.DELEGATED if is_possible else State.LEADING)
            return is_possible

    def resume(self) -> None:
        """Lead again, once a step that a caller may be in has ended."""
        with self._step, self._lock:
            if self.state is State.REQUESTED:
                self._answer(State.LEADING)
            self.state, self.caller = State.LEADING, None

    def _answer(self, state: State) -> None:
        self.state = state
        if state is State.LEADING:
            self.caller = None
        self._answered.release()


class DelegationPolicy:
    """
    Which callers leadership is worth delegating to: threads that make one call after the other.

    Args:
        clock: Monotonic seconds.
    """

    # A thread that has waited this often, with at most this many seconds between, is worth it.
    CALLS = 4
    SECONDS_BETWEEN = 0.005
    # A delegation that ends before this many steps cost more than it saved: two threads take turns. Then the number of
    # calls is doubled, up to a limit.
    ENOUGH_STEPS = 10
    MOST_CALLS = 256

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_caller = 0
        self._last_time = 0.0
        self._calls = 0
        self._needed = self.CALLS

    def deserves(self, caller: int) -> bool:
        """Note that a thread waits for a reply; return whether to delegate to it."""
        now = self._clock()
        is_next = caller == self._last_caller and now - self._last_time < self.SECONDS_BETWEEN
        self._last_caller, self._last_time = caller, now
        self._calls = self._calls + 1 if is_next else 0
        if self._calls < self._needed:
            return False
        self._calls = 0
        return True

    def note_end(self, steps: int) -> None:
        """Note that another thread reclaimed a delegation after some steps."""
        self._needed = self.CALLS if steps >= self.ENOUGH_STEPS else min(self.MOST_CALLS, 2 * self._needed)


class FollowerWatch:
    """
    Decides when a follower takes over: it looks from time to time whether the leader is still in the same job.

    Args:
        leadership: What to watch.
    """

    # Looks without any job, after which the follower goes to sleep.
    IDLE_LOOKS = 10

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self._seen = -1
        self._idle = 0

    def look(self) -> bool:
        """Look once. True: the leader was in the same job the last time, so the calling follower leads now."""
        jobs = self._leadership.jobs
        self._idle += 1
        if jobs != self._seen:
            self._seen, self._idle = jobs, 0
            return False
        return self._leadership.take_over(jobs)

    @property
    def is_idle(self) -> bool:
        """Whether no job was begun for some looks."""
        return self._idle >= self.IDLE_LOOKS

    @property
    def missed_a_job(self) -> bool:
        """Whether a job was begun after the last look."""
        return self._leadership.jobs != self._seen
