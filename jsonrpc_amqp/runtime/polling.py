"""How a thread sleeps until a descriptor is ready, and what ends its sleep."""

from __future__ import annotations

import select
import socket
from typing import Protocol

from .forks import close_when_forked

# The constants of poll(2), which are missing where it is.
POLLIN, POLLOUT = 0x1, 0x4
# select(2) takes no descriptor from this number on.
_FD_SETSIZE = 1024


class Poll(Protocol):
    """What is used of ``select.poll``."""

    def register(self, fd: int, events: int, /) -> None:
        """Watch a descriptor; a second time with other events."""
        ...

    def unregister(self, fd: int, /) -> None:
        """Watch it no more; KeyError if it was not watched."""
        ...

    def poll(self, milliseconds: float, /) -> list[tuple[int, int]]:
        """Sleep until a descriptor is ready; return those that are, with their events."""
        ...


def new_poll() -> Poll:
    """Return a ``select.poll``, or what stands in for it where a program has removed it, as eventlet's patches do."""
    return select.poll() if hasattr(select, "poll") else SelectPoll()


class SelectPoll:
    """Does with ``select.select`` what is used of ``select.poll``."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, fd: int, events: int, /) -> None:
        if fd >= _FD_SETSIZE:
            raise OSError(
                f"descriptor {fd} is too high for select(), and this program has removed select.poll() from the "
                "standard library (as eventlet.monkey_patch() does): patch without select, or open fewer files"
            )
        self._events[fd] = events

    def unregister(self, fd: int, /) -> None:
        del self._events[fd]

    def poll(self, milliseconds: float, /) -> list[tuple[int, int]]:
        readers = [fd for fd, events in self._events.items() if events & POLLIN]
        writers = [fd for fd, events in self._events.items() if events & POLLOUT]
        try:
            readable, writable, _ = select.select(readers, writers, [], milliseconds / 1000)
        except (OSError, ValueError):
            # One was closed meanwhile. poll() reports that as an event; reading will tell which one it is.
            return list(self._events.items())
        ready = dict.fromkeys(readable, POLLIN)
        for fd in writable:
            ready[fd] = ready.get(fd, 0) | POLLOUT
        return list(ready.items())


class Waker:
    """
    Ends the sleep of a thread in ``poll``, from any other thread and from signal handlers.

    Raises:
        OSError: This process has no descriptor left.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        close_when_forked(self)
        try:
            self._reader.setblocking(False)
            self._writer.setblocking(False)
            self._poll = new_poll()
            self._poll.register(self._reader.fileno(), POLLIN)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    def wake(self) -> None:
        """End the sleep, or the next one."""
        try:
            self._writer.send(b"\0")
        except OSError:
            # Full: the thread is about to wake. Closed: it has ended.
            return

    def wait(self, seconds: float) -> bool:
        """Sleep. True: there was a wake-up, which the next ``clear`` forgets."""
        return bool(self._poll.poll(1000 * seconds))

    def clear(self) -> None:
        """Forget the wake-ups so far."""
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close both ends."""
        self._reader.close()
        self._writer.close()

    close_in_child = close
