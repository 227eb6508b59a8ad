"""The deadline of what blocks on one connection: one for all of its steps, which another thread may end early."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

# Seconds. What is longer does not fit the timeout of a socket.
_LONGEST = 86_400.0
# An attempt that makes progress takes so many times its seconds at most.
_MOST_TIMES = 4


class Deadline:
    """
    Until when connecting, setting up, or another operation may block.

    Each step asks how much is left, so a peer that sends a byte at a time gets no more than one that sends nothing.
    Only answers to what is set up give it more (``extend``).
    Only ``cancel`` may be called by another thread.

    Args:
        seconds: From now.

    Attributes:
        by: Monotonic seconds.
        step: What is being done, for the error; empty once ``allow`` was called.
    """

    def __init__(self, seconds: float) -> None:
        self.allow(seconds)
        self.step = "its beginning"
        self._lock = threading.Lock()  # ``cancel`` must not shut down a descriptor that was closed, and given away
        self._sock: socket.socket | None = None
        self._is_cancelled = False

    def allow(self, seconds: float) -> None:
        """Set another deadline: in this many seconds, for one operation on a connection that was made."""
        self._seconds = min(seconds, _LONGEST)
        self._begin = time.monotonic()
        self.by = self._begin + self._seconds
        self.step = ""

    def extend(self) -> None:
        """Give it its seconds anew, up to four times in all: it makes progress, and to begin again costs both more."""
        self.by = min(time.monotonic() + self._seconds, self._begin + _MOST_TIMES * self._seconds)

    def left(self) -> float:
        """
        Return the seconds that are left.

        Raises:
            TimeoutError: There are none.
            ConnectionAbortedError: It was cancelled.
        """
        if self._is_cancelled:
            raise ConnectionAbortedError("the attempt to connect was abandoned")
        left = self.by - time.monotonic()
        if left <= 0:
            raise self.expired()
        return left

    def expired(self) -> TimeoutError:
        """Return the error of what took longer."""
        if not self.step:
            return TimeoutError("the broker did not answer in time")
        took = self.by - self._begin
        limit = "connect_timeout"
        if took > self._seconds:
            limit = f"connect_timeout is {self._seconds:g} s, and was extended while the broker answered"
        return TimeoutError(f"it was not made within {took:.4g} s ({limit}); the time ran out during {self.step}")

    def watch(self, sock: socket.socket | None) -> None:
        """Have ``cancel`` shut this socket down. Call it with None before the socket is closed."""
        with self._lock:
            self._sock = sock
        if sock is not None:
            self.left()

    def cancel(self) -> None:
        """End what blocks: soon, or once the system's lookup of a host name returns, which nothing can end."""
        with self._lock:
            self._is_cancelled = True
            if self._sock is not None:
                with suppress(OSError):
                    # Past the method of an SSL socket, which another thread must not call while this one reads.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
