"""Who drives an engine: a thread of its own that sleeps until the socket, a wake-up or the clock calls."""

from __future__ import annotations

import select
import socket
import threading
import time
from typing import Protocol

# A poll that is woken for nothing costs little; one that sleeps for ever hides a lost wake-up.
_LONGEST_SLEEP = 60.0


class Driven(Protocol):
    """What a driver calls; all of it from one thread."""

    @property
    def finished(self) -> bool: ...
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
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have ``tick`` called soon. From any thread."""
        try:
            self._ringer.send(b"\0")
        except OSError:
            # Full: it is awake already. Closed: there is nothing left to do.
            return

    def join(self, timeout: float) -> bool:
        """Wait for the end. False: it has not come in time."""
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def ident(self) -> int | None:
        """The thread's identifier."""
        return self._thread.ident

    def abandon(self) -> None:
        """Close this process's copies of the descriptors after a fork, where the thread does not exist."""
        self._bell.close()
        self._ringer.close()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        watched: tuple[int | None, bool] = (None, False)
        while True:
            due = self._driven.tick(time.monotonic())
            if self._driven.finished:
                break
            watched = self._watch(poll, watched)
            for fd, events in poll.poll(_milliseconds(due)):
                if fd == self._bell.fileno():
                    self._silence()
                elif fd == watched[0]:
                    if events & select.POLLOUT:
                        self._driven.on_writable()
                    if events & ~select.POLLOUT:
                        self._driven.on_readable()
        self.abandon()

    def _watch(self, poll: select.poll, watched: tuple[int | None, bool]) -> tuple[int | None, bool]:
        wanted = self._driven.interest()
        if wanted != watched:
            if watched[0] is not None and watched[0] != wanted[0]:
                self._forget(poll, watched[0])
            if wanted[0] is not None:
                poll.register(wanted[0], select.POLLIN | (select.POLLOUT if wanted[1] else 0))
        return wanted

    @staticmethod
    def _forget(poll: select.poll, fd: int) -> None:
        try:
            poll.unregister(fd)
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
