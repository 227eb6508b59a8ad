"""
Who drives an engine: a thread of its own that sleeps until the socket, a wake-up or the clock calls.

Between two rounds it may do some work for the listener (``take_work``), which saves waking another thread for what
takes no longer than that. Such work is somebody's code and may block all the same. So a second thread stands by, and
drives on if the work does not end; the first one stands by then, once it has come back.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from .leader_follower import Loan

# A poll that is woken for nothing costs little; one that sleeps for ever hides a lost wake-up.
_LONGEST_SLEEP = 60.0
# So long the driver works before it looks at the socket again.
_WORK_SECONDS = 0.001
# Work that takes longer than this, or twice this, is left behind.
_PATIENCE = 0.005
# So often the one that stands by finds nothing to watch over before it goes to sleep.
_IDLE_LOOKS = 10


class Driven(Protocol):
    """What a driver calls; all of it from one thread at a time."""

    @property
    def finished(self) -> bool: ...
    def interest(self) -> tuple[int | None, bool]:
        """The socket to watch, if there is one, and whether to wait until it takes bytes."""
        ...

    def on_readable(self) -> None: ...
    def on_writable(self) -> None: ...
    def is_due(self, now: float) -> bool:
        """Whether there is more to do than to read and to write."""
        ...

    def tick(self, now: float) -> float | None:
        """Do what is due. Gives the monotonic time of the next thing to do."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether there is work that the driver may do itself."""
        ...

    def take_work(self) -> Callable[[], object] | None:
        """Give some work that will be quick, most likely, and that raises nothing."""
        ...

    def hand_over(self, *, late: bool) -> None:
        """Have others do the work: the driver cannot; or, ``late``, some of it was not quick."""
        ...


class IOThread:
    """Drives one engine until it says that it is finished. Daemons: they never keep a process alive."""

    def __init__(self, driven: Driven, name: str) -> None:
        self._driven = driven
        self._name = name
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._bell_poll = select.poll()
        self._bell_poll.register(self._bell, select.POLLIN)
        self._watched: tuple[int | None, bool] = (None, False)
        self.loan = Loan(driven, self._ring)
        self._over = threading.Event()
        # What tells who drives: it is in here while the driver does some work, and whoever takes it out drives on.
        self._lease: list[None] = []
        self._turns = 0
        self._is_guarded = False
        self._guard_is_awake = threading.Event()
        self.ident: int | None = None
        """The identifier of the thread that drives."""
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True)]
        self._threads[0].start()

    @property
    def owner(self) -> int | None:
        """The identifier of the thread that drives now."""
        return self.loan.stepper or self.ident

    def wake(self) -> None:
        """Have ``tick`` called soon. From any thread."""
        self._ring()
        self.loan.recall()

    def _ring(self) -> None:
        try:
            self._ringer.send(b"\0")
        except OSError:
            # Full: it is awake already. Closed: there is nothing left to do.
            return

    def join(self, timeout: float) -> bool:
        """Wait for the end. False: it has not come in time."""
        if threading.current_thread() in self._threads:
            return False
        deadline = time.monotonic() + timeout
        if not self._over.wait(timeout):
            return False
        for thread in self._threads:
            if self._is_guarded or thread.ident == self.ident:  # the other one is held up by its work
                thread.join(max(0.0, deadline - time.monotonic()))
        return True

    # -- driving ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._drive()
        self._stand_by()

    def _drive(self) -> None:
        """Drive until the end, or until another thread does."""
        self.ident = threading.get_ident()
        while True:
            due = self._driven.tick(time.monotonic())
            if self._driven.finished:
                break
            self._watch()
            for fd, events in self._poll.poll(0 if self._driven.has_work else _milliseconds(due)):
                if fd == self._bell.fileno():
                    self._silence()
                elif fd == self._watched[0]:
                    if events & select.POLLOUT:
                        self._driven.on_writable()
                    if events & ~select.POLLOUT:
                        self._driven.on_readable()
            if self.loan.asked:
                self.loan.lend(self._wait_for_bell)
            if self._driven.has_work:
                if not self._is_guarded and not self._call_guard():
                    self._driven.hand_over(late=False)
                elif not self._work():
                    return
        self._bell.close()
        self._ringer.close()
        self._over.set()
        self._guard_is_awake.set()

    def _work(self) -> bool:
        """Do some work, as long as it is quick. False: another thread drives now."""
        until = time.monotonic() + _WORK_SECONDS
        while (work := self._driven.take_work()) is not None:
            self._turns += 1
            self._lease.append(None)
            if not self._guard_is_awake.is_set():
                self._guard_is_awake.set()
            work()
            try:
                self._lease.pop()
            except IndexError:
                return False
            if time.monotonic() > until:
                break
        return True

    # -- standing by ------------------------------------------------------------------------------------

    def _call_guard(self) -> bool:
        """Have a second thread, at the first need of it. False: there is none now."""
        if len(self._threads) > 1:
            return False  # it drives, or is held up by what it does
        guard = threading.Thread(target=self._stand_by, name=f"{self._name}-2", daemon=True)
        self._threads.append(guard)
        try:
            guard.start()
        except RuntimeError:  # the system has no thread to give
            self._threads.remove(guard)
            return False
        self._is_guarded = True
        return True

    def _stand_by(self) -> None:
        while not self._over.is_set():
            if self._watch_over():
                self._driven.hand_over(late=True)
                self._drive()

    def _watch_over(self) -> bool:
        """Wait until the driver is held up by some work, and take its place. False: the end has come."""
        self._is_guarded = True
        while not self._over.is_set():
            self._guard_is_awake.wait()
            looks, turns = 0, -1
            while looks < _IDLE_LOOKS and not self._over.wait(_PATIENCE):
                looks += 1
                if self._turns != turns:
                    looks, turns = 0, self._turns
                elif self._lease:
                    # Before: the one that comes back stands by from then on, and says so.
                    self._is_guarded = False
                    try:
                        self._lease.pop()
                    except IndexError:
                        self._is_guarded = True
                        continue
                    return True
            self._guard_is_awake.clear()
            if self._turns != turns or self._over.is_set():
                self._guard_is_awake.set()  # it began again meanwhile
        return False

    # -- sleeping ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        wanted, watched = self._driven.interest(), self._watched
        if wanted != watched:
            if watched[0] is not None and watched[0] != wanted[0]:
                self._forget(watched[0])
            if wanted[0] is not None:
                self._poll.register(wanted[0], select.POLLIN | (select.POLLOUT if wanted[1] else 0))
            self._watched = wanted

    def _forget(self, fd: int) -> None:
        try:
            self._poll.unregister(fd)
        except KeyError:
            return

    def _wait_for_bell(self, seconds: float) -> bool:
        return bool(self._bell_poll.poll(1000 * seconds))

    def _silence(self) -> None:
        try:
            self._bell.recv(4096)
        except BlockingIOError:
            return


def _milliseconds(due: float | None) -> float:
    left = _LONGEST_SLEEP if due is None else min(_LONGEST_SLEEP, due - time.monotonic())
    # poll() counts whole milliseconds and rounds up, which is the side that a deadline wants.
    return max(0.0, left * 1000)
