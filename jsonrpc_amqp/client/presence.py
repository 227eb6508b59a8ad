"""Whether a program still has its client, and what becomes of a client that it dropped."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..amqp.base import Listener, Transport
from ..runtime.dropped import DropWatch
from .lifecycle import Lifecycle
from .pending import Pending

# Seconds between two looks at whether a client that was dropped has calls under way; and for its orderly end.
_LOOK_SECONDS = 0.1
_CLOSE_SECONDS = 1.0


class Presence:
    """
    Starts the transport of a client; once the program has dropped the client, closes it when no call is pending.

    A program that has dropped its client may still wait for futures of it.

    Args:
        close: Closes the client, within so many seconds.
    """

    def __init__(self, life: Lifecycle, pending: Pending, transport: Transport, close: Callable[[float], None]) -> None:
        self._life = life
        self._pending = pending
        self._transport = transport
        self._close = close
        self._is_started = self._is_dropped = False

    def start(self, listener: Listener, undo: Callable[[], None] = lambda: None) -> None:
        """
        Begin to connect, unless that is done.

        Args:
            undo: Called where that is impossible: what waits for the connection would wait for ever.

        Raises:
            NotConnected: This process can have no other thread, or no other open file.
        """
        try:
            self._transport.start(listener)
        except BaseException:
            undo()
            raise
        self._is_started = True

    def connect(self, listener: Listener, timeout: float | None, check_may_wait: Callable[[], None]) -> None:
        """
        Wait until there is a connection.

        Args:
            check_may_wait: Raises on a thread that the connection needs.

        Raises:
            TransportError: What was in the way, after ``timeout`` seconds at most.
            WouldDeadlock: The connection needs the calling thread.
        """
        life = self._life
        life.check_process()
        if life.session is None and (timeout is None or timeout > 0):
            check_may_wait()
        life.begin()
        self.start(listener)
        life.wait_for_session(timeout)

    def watch(self, what: str, advice: str) -> DropWatch:
        """Return what the program's objects hold, and the threads do not; for the arguments see there."""
        return DropWatch(what, advice, self._is_open, self._drop, lambda: self._life.gave_up)

    def next_look(self, now: float) -> float:
        """Close the client if it was dropped and no call is pending; return when to look again. By the leader."""
        if not self._is_dropped or self._life.closed:
            return math.inf
        if len(self._pending) == 0:
            self._close(_CLOSE_SECONDS)
        return now + _LOOK_SECONDS

    def _is_open(self) -> bool:
        return self._is_started and self._life.is_used

    def _drop(self) -> None:
        # By a finalizer: no lock may be taken here.
        self._is_dropped = True
        self._transport.wake()
