"""
Who drives an engine: a thread of its own, which sleeps until the socket, a wake-up or the clock calls; or, while that
thread lends it, a caller that has nothing to do but to wait for its answer.

Handing an answer from one thread to another costs more than all the rest of a small call, so a lone caller reads it
itself. One thread at a time holds the baton, and is the owner. A lent engine that nobody drives is taken back soon.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

# A poll that is woken for nothing costs little; one that sleeps for ever hides a lost wake-up.
_LONGEST_SLEEP = 60.0
# So long nobody reads what comes between two calls of a lone caller.
_LOAN = 0.05


class Driven(Protocol):
    """What a driver calls; all of it from one thread at a time."""

    @property
    def finished(self) -> bool: ...
    @property
    def is_calm(self) -> bool:
        """True when there is nothing to do before something arrives."""
        ...

    def interest(self) -> tuple[int | None, bool]:
        """The socket to watch, if there is one, and whether to wait until it takes bytes."""
        ...

    def on_readable(self) -> None: ...
    def on_writable(self) -> None: ...
    def tick(self, now: float) -> float | None:
        """Do what is due. Gives the monotonic time of the next thing to do."""
        ...


class IOThread:
    """Drives one engine until it says that it is finished. A daemon: it never keeps a process alive."""

    def __init__(self, driven: Driven, name: str) -> None:
        self._driven = driven
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._watched: tuple[int | None, bool] = (None, False)
        self._due: float | None = 0.0
        self._baton = threading.Lock()
        self._wanted = threading.Event()
        self._lent = False
        self._loans = 0
        self._guest: int | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # -- from any thread ------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have ``tick`` called soon."""
        try:
            self._ringer.send(b"\0")
        except OSError:
            # Full: it is awake already. Closed: there is nothing left to do.
            return
        self.reclaim()

    def reclaim(self) -> None:
        """Take the engine back, if it is lent: somebody waits for something, and does not drive."""
        if self._lent:
            self._wanted.set()

    def drive(self, done: Callable[[], bool], until: float) -> bool:
        """
        Drive the engine, if it is lent and nobody does, until a moment or until there is nothing to wait for.

        Returns:
            Whether it did.
        """
        if not self._lent or not self._baton.acquire(blocking=False):
            return False
        self._loans += 1
        self._guest = threading.get_ident()
        try:
            while self._lent and not done() and (now := time.monotonic()) < until:
                if self._due is not None and self._due <= now:
                    self._tick(now)
                elif self._step(until) and not done():
                    self._tick(time.monotonic())
        finally:
            calm = self._driven.is_calm
            self._guest = None
            self._baton.release()
            if not calm:
                self._wanted.set()
        return True

    def join(self, timeout: float) -> bool:
        """Wait for the end. False: it has not come in time."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def owner(self) -> int | None:
        """The identifier of the thread that drives, or would."""
        return self._guest or self._thread.ident

    def abandon(self) -> None:
        """Close this process's copies of the descriptors after a fork, where the thread does not exist."""
        self._bell.close()
        self._ringer.close()

    # -- by whoever has the baton -----------------------------------------------------------------------

    def lend(self) -> None:
        """Let a caller drive from now on, once this step is done."""
        self._lent = True

    def _run(self) -> None:
        with self._baton:
            while True:
                self._tick(time.monotonic())
                if self._driven.finished:
                    break
                if self._lent:
                    self._park()
                else:
                    self._step(None)
        self.abandon()

    def _park(self) -> None:
        """Let go of the baton until it is wanted back, or nobody took it for a while."""
        self._baton.release()
        try:
            loans = -1
            while not self._wanted.wait(_LOAN) and (loans != self._loans or self._guest is not None):
                loans = self._loans
        finally:
            # First: whoever wants it back from now on must not be forgotten, if it is lent again by who drives now.
            self._wanted.clear()
            self._lent = False
            self._baton.acquire()

    def _tick(self, now: float) -> None:
        self._due = self._driven.tick(now)

    def _step(self, until: float | None) -> bool:
        """Wait for something to happen, and handle it. True when the bell was rung or more is to be done."""
        due = self._due if until is None or (self._due is not None and self._due < until) else until
        watched = self._watch()
        rung = False
        for fd, events in self._poll.poll(_milliseconds(due)):
            if fd == watched:
                if events & select.POLLOUT:
                    self._driven.on_writable()
                if events & ~select.POLLOUT:
                    self._driven.on_readable()
            else:
                self._silence()
                rung = True
        return rung or not self._driven.is_calm

    def _watch(self) -> int | None:
        wanted, watched = self._driven.interest(), self._watched
        if wanted != watched:
            if watched[0] is not None and watched[0] != wanted[0]:
                self._forget(watched[0])
            if wanted[0] is not None:
                self._poll.register(wanted[0], select.POLLIN | (select.POLLOUT if wanted[1] else 0))
            self._watched = wanted
        return wanted[0]

    def _forget(self, fd: int) -> None:
        try:
            self._poll.unregister(fd)
        except KeyError:
            return

    def _silence(self) -> None:
        try:
            self._bell.recv(4096)
        except BlockingIOError:
            return


def _milliseconds(due: float | None) -> float:
    left = _LONGEST_SLEEP if due is None else min(_LONGEST_SLEEP, due - time.monotonic())
    # poll() counts whole milliseconds and rounds up, which is the side that a deadline wants.
    return max(0.0, left * 1000)
