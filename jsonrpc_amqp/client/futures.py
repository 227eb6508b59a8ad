"""
A future for each call in flight, at a fraction of what ``concurrent.futures.Future`` costs.

That one makes a condition (four objects) and two lists for each future, for threads that wait and for callbacks. Most
replies arrive before a thread waits, or go to a callback. So here each is made when it is needed; until a thread waits,
a lock that all futures share guards the state.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, as_completed, wait
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

_DONE = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))
_WAITS = frozenset(id(function.__code__) for function in (wait, as_completed, Future.result, Future.exception))
# Held for moments. Reentrant: a signal handler that interrupts one of them may use futures.
_futures_lock = threading.RLock()


def _renew_lock() -> None:
    global _futures_lock
    _futures_lock = threading.RLock()


# Another thread may have held it at the fork.
os.register_at_fork(after_in_child=_renew_lock)


class Owner(Protocol):
    """What a future stands for."""

    def on_cancelled(self, future: CallFuture) -> None:
        """
        Release what the future stands for: its user has cancelled it.

        Called once, by the thread that cancels, before other threads and callbacks learn of it.
        """
        ...


class CallFuture(Future[Any]):
    """
    Does what a ``Future`` of an executor does, ``wait`` and ``as_completed`` included.

    It can be cancelled until it has its end, so it is never ``running()``.

    Attributes:
        owner: Is told when the future is cancelled; None: there is nothing to release.
        check_may_wait: Raises on the threads that bring results, which must not wait for one; set at ``submit``.
    """

    __slots__ = (
        "_done_callbacks",
        "_exception",
        "_made",
        "_result",
        "_state",
        "_waiters",
        "check_may_wait",
        "owner",
    )

    def __init__(self) -> None:
        # Without super().__init__(), which makes the condition.
        self._state = PENDING
        self._exception: BaseException | None = None
        self._done_callbacks: list[Callable[[Future[Any]], Any]] | tuple[()] = ()
        self._made: threading.Condition | None = None
        self.owner: Owner | None = None
        self.check_may_wait: Callable[[], None] | None = None

    @property
    # It is an attribute there, and no code but its own sets it.
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        # Waiting and looking at several futures need it. Once it is made, all changes use it.
        with _futures_lock:
            if self._made is None:
                self._waiters: list[Any] = []
                self._done_callbacks = self._done_callbacks or []
                self._made = threading.Condition()
            return self._made

    def done(self) -> bool:
        return self._state in _DONE

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def cancel(self) -> bool:
        """
        Cancel it, unless it has its end: what it stands for is dropped at once, and who waits for it wakes.

        A request that was sent may have run, or may still.

        Returns:
            Whether it is cancelled now.
        """
        if not self._mark_cancelled():
            return self.cancelled()
        owner, self.owner = self.owner, None
        try:
            if owner is not None:
                owner.on_cancelled(self)
        finally:
            self._wake_waiters()
            self._invoke_callbacks()  # type: ignore[attr-defined]  # typeshed leaves private methods out
        return True

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

    def finish(self, result: Any, exception: BaseException | None) -> None:
        """
        End it with a result or an exception.

        Raises:
            InvalidStateError: It has its end.
        """
        with _futures_lock:
            made = self._made
            if made is None:
                if self._state != PENDING:
                    raise InvalidStateError(f"{self._state}: {self!r}")
                self._result, self._exception, self._state = result, exception, FINISHED
                self.owner = None  # it refers to this future: both are to be freed without the garbage collector
        if made is not None:
            super().set_result(result) if exception is None else super().set_exception(exception)
            self.owner = None
        elif self._done_callbacks:
            self._invoke_callbacks()  # type: ignore[attr-defined]  # as above

    def set_result(self, result: Any) -> None:
        self.finish(result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        self.finish(None, exception)

    def add_done_callback(self, fn: Callable[[Future[Any]], Any]) -> None:
        with _futures_lock:
            if self._made is None and self._state == PENDING:
                if self._done_callbacks:
                    self._done_callbacks.append(fn)
                else:
                    self._done_callbacks = [fn]
                return
        super().add_done_callback(fn)

    def _mark_cancelled(self) -> bool:
        """Begin to cancel it. False: it has its end, or another thread cancels it."""
        with _futures_lock:
            made = self._made
            if made is None:
                return self._change_to_cancelled()
        with made:
            return self._change_to_cancelled()

    def _change_to_cancelled(self) -> bool:
        if self._state != PENDING:
            return False
        self._state = CANCELLED
        return True

    def _wake_waiters(self) -> None:
        with _futures_lock:
            made = self._made
            if made is None:
                self._state = CANCELLED_AND_NOTIFIED
                return
        # A signal handler may have interrupted its thread before that begins to wait, or where that has a lock that is
        # not reentrant: then only another thread can wake it.
        if _interrupts_a_wait():
            with suppress(RuntimeError):  # the system has no thread left
                threading.Thread(target=self._notify, args=[made], name="cancelled", daemon=True).start()
                return
        self._notify(made)

    def _notify(self, made: threading.Condition) -> None:
        with made:
            self.set_running_or_notify_cancel()  # tells ``wait`` and ``as_completed``, which ``cancel`` leaves to this
            made.notify_all()


def _interrupts_a_wait() -> bool:
    """Whether the calling thread waits for futures further down its stack: this is a signal handler then."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if id(frame.f_code) in _WAITS:
            return True
        frame = frame.f_back
    return False
