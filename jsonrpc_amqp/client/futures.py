"""
A future for each call in flight, at a quarter of what ``concurrent.futures.Future`` costs.

That one makes a condition (four objects) for each future, for threads that wait. Most replies arrive before a thread
waits, or go to a callback. So here the condition is made by the first thread that needs it; until then a lock that all
futures share guards the state.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any

_DONE = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))
# Held for moments. Reentrant: a signal handler that interrupts one of them may use futures.
_futures_lock = threading.RLock()


def _renew_lock() -> None:
    global _futures_lock
    _futures_lock = threading.RLock()


# Another thread may have held it at the fork.
os.register_at_fork(after_in_child=_renew_lock)


class CallFuture(Future[Any]):
    """
    Does what a ``Future`` does, ``wait`` and ``as_completed`` included.

    Attributes:
        check_may_wait: Raises on the threads that bring results, which must not wait for one; set at ``submit``.
    """

    check_may_wait: Callable[[], None] | None = None

    def __init__(self) -> None:
        # Without super().__init__(), which makes the condition.
        self._state = PENDING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[Future[Any]], Any]] = []
        self._made: threading.Condition | None = None

    @property
    # It is an attribute there, and no code but its own sets it.
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        # Waiting, cancelling and looking at several futures need it. Once it is made, all changes use it.
        with _futures_lock:
            if self._made is None:
                self._made = threading.Condition()
            return self._made

    def done(self) -> bool:
        return self._state in _DONE

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> Any:
        if self._state == FINISHED and self._exception is None:
            return self._result
        try:
            self._check_wait(timeout)
            return super().result(timeout)
        finally:
            self = None  # type: ignore[assignment]  # as there: the traceback must not keep the future alive

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state == FINISHED:
            return self._exception
        self._check_wait(timeout)
        return super().exception(timeout)

    def _check_wait(self, timeout: float | None) -> None:
        if self.check_may_wait is not None and self._state not in _DONE and (timeout is None or timeout > 0):
            self.check_may_wait()

    def set_result(self, result: Any) -> None:
        if not self._finish(result, None):
            super().set_result(result)

    def set_exception(self, exception: BaseException | None) -> None:
        if not self._finish(None, exception):
            super().set_exception(exception)

    def add_done_callback(self, fn: Callable[[Future[Any]], Any]) -> None:
        with _futures_lock:
            if self._made is None and self._state == PENDING:
                self._done_callbacks.append(fn)
                return
        super().add_done_callback(fn)

    def _finish(self, result: Any, exception: BaseException | None) -> bool:
        """End it, unless the condition was made."""
        with _futures_lock:
            if self._made is not None:
                return False
            if self._state != PENDING:
                raise InvalidStateError(f"{self._state}: {self!r}")
            self._result, self._exception, self._state = result, exception, FINISHED
        if self._done_callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]  # typeshed leaves private methods out
        return True
