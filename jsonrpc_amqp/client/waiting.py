"""What a thread does that waits for a call."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..amqp.base import Transport
from ..errors import WouldDeadlock
from .call import Call, WaitingCall
from .endings import Endings
from .pending import Pending
from .sender import Sender


class Waiter:
    """
    For the threads that wait for the calls of one client.

    Args:
        lock: That of the requests.
    """

    def __init__(
        self, lock: threading.RLock, transport: Transport, pending: Pending, sender: Sender, endings: Endings
    ) -> None:
        # Every RLock knows who has it (threading.Condition asks in the same way); typeshed omits private methods.
        self.is_lock_mine: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]
        self._lock = lock
        self._transport = transport
        self._pending = pending
        self._sender = sender
        self._endings = endings

    def check_may_wait(self) -> None:
        """
        Check that this thread may wait for a call.

        Raises:
            WouldDeadlock: It would wait for itself: it is the leader, the thread that connects, or a signal handler
                that interrupted a call.
        """
        # A signal handler has the lock if the call that it interrupted has.
        if self.is_lock_mine() or self._transport.would_deadlock():
            raise WouldDeadlock(
                "a callback of a future, or a signal handler during another call, must not wait for a call: the answer "
                "could not come meanwhile. The same is true of a log handler on the thread that connects, or brings "
                "answers. Use submit() in it, or hand the work to a thread of yours"
            )

    def release_lock(self) -> None:
        """Release the lock if this thread has it, which had not when ``check_may_wait`` returned."""
        # From Python 3.14 on, an exception of a signal handler may come when "with" has taken a lock, and not yet
        # entered the block.
        while self.is_lock_mine():
            self._lock.release()

    def drive_until_done(self, call: WaitingCall) -> None:
        """Drive the connection on this thread, which waits for the call, while it is the only one."""
        runtime = self._transport.runtime
        if len(self._pending) <= 1:
            runtime.drive_until(call.is_done, call.deadline)
        if len(self._pending) > 0:
            runtime.reclaim()  # there are others by now, or this one takes long

    def expire(self, call: Call) -> None:
        """End a call whose deadline has passed, unless it is ending."""
        with self._lock:
            is_mine = self._sender.drop(call)
        if is_mine:
            self._endings.fail_for_good(call, self._endings.timeout(call))

    def release(self, call: Call) -> bool:
        """Let go of a call that ``Requests.hold`` has taken. False: it has ended."""
        with self._lock:
            return self._pending.drop(call.number) is not None

    def forget(self, call: Call) -> None:
        """Wait no more for the end of a call, if it has not come."""
        if call.number:  # else it was not taken; after a fork, the lock must not be taken either
            with self._lock:
                self._sender.give_up(call)
            self._transport.runtime.reclaim()
