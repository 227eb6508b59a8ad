"""The state of a server: what all of its threads agree on, behind one lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, IntEnum

from ..amqp.base import Session
from ..errors import NotConnected, TransportError
from .job import Job


class State(IntEnum):
    """How far a server is; it only moves on."""

    RUNNING = 1
    """Requests begin."""
    DRAINING = 2
    """None begins any more. The broker may still deliver, so those that have not begun are kept."""
    CANCELLED = 3
    """The broker delivers nothing any more, so those that have not begun are given back."""
    STOPPED = 4
    """The server no longer waits for handlers, and is not started again."""


class Admission(Enum):
    """Whether a request may begin."""

    BEGUN = "it may run, and counts as running until ``end``"
    FULL = "not now: as many as may run do so already"
    STALE = "no: its connection was lost, so the broker delivers it again"
    KEPT = "no: it is kept until the consumer is cancelled"
    TOO_LATE = "no: it is to be given back"


_RUNNING, _DRAINING = State.RUNNING, State.DRAINING
_BEGUN = Admission.BEGUN


class Lifecycle:
    """
    The state of one server, its connection, and which requests run.

    One lock guards all attributes; they are written under it, and the public ones may be read without it, where a value
    that is about to change does no harm. It is a leaf: no other lock is taken while it is held. What waits for a change
    calls ``wait``, or is ``watched``: it is notified of each but of requests that begin, and of those that end while
    the server runs.

    Args:
        concurrency: How many requests may run at a time.
    """

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._watchers: list[Callable[[], object]] = []
        self.failure: TransportError | None = None
        """Of the last attempt to connect, since there was a connection."""
        self.gave_up = False
        """There will be no other attempt to connect until the server is started again."""
        self._is_stopping = False
        self._waiting = 0  # threads in ``begin``
        self._unstarted: list[Job] = []
        self.state = State.RUNNING
        self.session: Session | None = None
        """The live connection; the requests of any other are delivered again."""
        self.running = 0
        """How many requests run, on threads and on the event loop."""
        self.has_drained = False
        """None was left running when it stopped."""
        self._on_threads = 0

    # -- the connection -----------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Forget why connecting failed, for another attempt. False: the server was stopped."""
        with self._lock:
            if self.state is State.STOPPED:
                return False
            self.failure, self.gave_up = None, False
            return True

    def opened(self, session: Session) -> None:
        """Note a new connection."""
        with self._lock:
            self.session = session
            self.failure = None
            self._notify()

    def lost(self) -> None:
        """Note that the connection was lost."""
        with self._lock:
            self.session = None

    def failed(self, error: TransportError, *, gave_up: bool) -> None:
        """Note that an attempt to connect failed; ``gave_up``: there will be no other."""
        with self._lock:
            self.failure = error
            self.gave_up = gave_up
            self._notify()

    # -- starting and ending ------------------------------------------------------------------------------

    @contextmanager
    def watched(self, changed: Callable[[], object]) -> Iterator[None]:
        """Have ``changed`` called at each change within the block, by any thread, with the lock held."""
        with self._lock:
            self._watchers.append(changed)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(changed)

    def wait(self, until: Callable[[], bool], timeout: float | None) -> None:
        """Wait until a change has made something true, for at most ``timeout`` seconds; None: no limit."""
        with self._changed:
            self._changed.wait_for(until, timeout)

    def note(self, change: Callable[[], object]) -> None:
        """Change something that is waited for."""
        with self._lock:
            change()
            self._notify()

    def has_started(self) -> bool:
        """Return whether the connection is there, or will not be: ``check_started`` has an answer."""
        return self.session is not None or self.gave_up or self.state is not _RUNNING

    def check_started(self, timeout: float | None) -> None:
        """
        Check that the connection is there, or the server drains, after a wait of ``timeout`` seconds.

        Raises:
            NotConnected: Neither; or the error of the last attempt.
            TransportError: There will be no further attempt.
        """
        with self._lock:
            self._raise_if_given_up()
            if not self.has_started():
                failure = self.failure or NotConnected(f"no connection to the broker within {timeout:g} s")
                # What is kept here must not get a traceback: it would keep the caller's variables, and so the server.
                raise failure.again()

    def has_ended(self) -> bool:
        """Return whether the server drains, or its connection was lost and there will be no other."""
        return self.state is not _RUNNING or self.gave_up

    def check_ended(self) -> None:
        """
        Check that a server that has ended does so because it drains.

        Raises:
            TransportError: The connection was lost, and there will be no further attempt.
        """
        with self._lock:
            self._raise_if_given_up()

    def drain(self) -> None:
        """Let no request begin any more."""
        with self._lock:
            self._advance(State.DRAINING)

    def begin_stop(self) -> bool:
        """Let no request begin any more. True for the first of several threads that stop the server."""
        with self._lock:
            is_first, self._is_stopping = not self._is_stopping, True
            self._advance(State.DRAINING)
            return is_first

    def cancelled(self) -> list[Job]:
        """Note that the broker delivers nothing any more. Return the requests that were kept until now."""
        with self._lock:
            self._advance(State.CANCELLED)
            jobs, self._unstarted = self._unstarted, []
            return jobs

    def is_idle(self) -> bool:
        """Return whether no request runs."""
        return self.running == 0

    def stop(self) -> None:
        """Be stopped: what still runs is no longer waited for."""
        with self._lock:
            if self.state is not State.STOPPED:
                self.has_drained = self.running == 0
            self._advance(State.STOPPED)

    def _advance(self, state: State) -> None:
        self.state = max(self.state, state)  # two threads may stop a server at the same time
        self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        for changed in self._watchers:
            changed()

    def _raise_if_given_up(self) -> None:
        if self.failure is not None and self.gave_up and self.state is _RUNNING:
            raise self.failure.again()

    # -- requests -----------------------------------------------------------------------------------------

    def begin(self, job: Job, *, may_wait: bool = True) -> Admission:
        """
        Say whether a request may begin; where it is ``BEGUN``, call ``end`` or ``move_to_loop`` once.

        Args:
            job: The request.
            may_wait: Wait while as many run as may, instead of returning ``FULL``.
        """
        with self._lock:
            # Each handler thread runs one, so there are more than may run only while the leader runs some inline.
            while self._on_threads >= self._concurrency and self.state is _RUNNING:
                if not may_wait:
                    return Admission.FULL
                self._waiting += 1
                self._changed.wait()
                self._waiting -= 1
            admission = self._admit(job)
            if admission is _BEGUN:
                self._on_threads += 1
            return admission

    def begin_on_loop(self, job: Job) -> Admission:
        """Say whether a request may begin on the event loop; where it is ``BEGUN``, call ``end_on_loop`` once."""
        with self._lock:
            return self._admit(job)

    def _admit(self, job: Job) -> Admission:
        if job.session is not self.session:
            return Admission.STALE
        if self.state is _RUNNING:
            self.running += 1
            return _BEGUN
        if self.state is _DRAINING:
            self._unstarted.append(job)
            return Admission.KEPT
        return Admission.TOO_LATE

    def end(self) -> None:
        """Note that a request that had begun has ended on its thread."""
        with self._lock:
            self.running -= 1
            self._leave_thread()

    def move_to_loop(self) -> None:
        """Note that a request that had begun goes on on the event loop, until ``end_on_loop``."""
        with self._lock:
            self._leave_thread()

    def end_on_loop(self) -> None:
        """Note that a request has ended on the event loop."""
        with self._lock:
            self.running -= 1
            if self.state is not _RUNNING:
                self._notify()

    def _leave_thread(self) -> None:
        self._on_threads -= 1
        if self._waiting or self.state is not _RUNNING:
            self._notify()
