"""The deadline of what blocks on one connection: one for all of its steps, which another thread may end early."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

# Seconds. What is longer does not fit the timeout of a socket.
_LONGEST = 86_400.0


class Deadline:
    """
    Until when connecting, setting up, or another operation may block.

    Each step asks how much is left, so a peer that sends a byte at a time gets no more than one that sends nothing.
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
        self.by = time.monotonic() + self._seconds
        self.step = ""

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
        return TimeoutError(
            f"it was not made within {self._seconds:g} s (connect_timeout); the time ran out during {self.step}"
        )

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
