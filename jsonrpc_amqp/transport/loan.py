"""
Lending the driver's place to a thread that makes one call after the other.

Such a thread is alone with its connection, and to be woken for each answer costs it more than to read the socket
itself. So after some calls in quick succession it is lent the driver's place, and drives while it waits. The driver
sleeps meanwhile, and is back when the thread goes on to other things, when an answer takes its time, or when
somebody else needs the connection driven.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .driver import Driven

# A thread that has called so often, with no longer than this between two calls, is lent the place.
_CALLS = 4
_SECONDS_BETWEEN = 0.005
# After a loan that somebody ended before so many answers it takes twice as many calls: threads that take turns.
_ENOUGH_ANSWERS = 10
_MOST_CALLS = 1024
# An answer that takes longer comes by the driver.
_PATIENCE = 0.005
# So often the driver looks whether the thread still drives. Nobody waits for anything if it does not.
_SECONDS_BETWEEN_LOOKS = 0.05


class Loan:
    """
    The loan of one driver's place, most of the time to nobody.

    Args:
        wake: Ends the sleep of the driver, who then calls ``lend`` if somebody has ``asked``.
    """

    def __init__(self, driven: Driven, wake: Callable[[], None]) -> None:
        self._driven = driven
        self._wake = wake
        self._turn = threading.Lock()  # held by the borrower amid a step, and to end the loan
        self._lent = threading.Event()
        self._ended = threading.Event()
        self._poll = select.poll()
        self._interest: tuple[int | None, bool] = (None, False)
        self._steps = 0
        self._is_recalled = False
        self._asking: int | None = None
        self._last: tuple[int, float] = (0, 0.0)  # who waited last, and since when
        self._calls = 0
        self._needed = _CALLS
        self.borrower: int | None = None
        """The thread that the place is lent to."""
        self.stepper: int | None = None
        """The thread that drives in the driver's place at this moment, amid a step."""

    # -- by a thread that waits -------------------------------------------------------------------------

    def attend(self, is_over: Callable[[], bool], until: float) -> None:
        """
        Drive in the driver's place, if it was lent to this thread, until ``is_over`` or for some milliseconds.

        It may return at once, and what it waits for may come by the driver: wait for it afterwards, too.

        Args:
            until: Monotonic seconds.
        """
        me = threading.get_ident()
        if self.borrower is None and self._deserves(me):
            self._ask(me)
        if self.borrower == me:
            while not is_over() and self._step(me, until):
                pass
            if self._is_recalled:
                self.recall()
        elif self.borrower is not None:
            self.recall()

    def recall(self) -> None:
        """End the loan, if there is one: the connection needs its driver. From any thread."""
        if self.borrower is None and self._asking is None:
            return
        self._needed = _CALLS if self._steps >= _ENOUGH_ANSWERS else min(_MOST_CALLS, 2 * self._needed)
        if self.stepper == threading.get_ident():
            self._is_recalled = True
        else:
            with self._turn:
                self._end()

    def _deserves(self, me: int) -> bool:
        who, when = self._last
        now = time.monotonic()
        self._last = me, now
        self._calls = self._calls + 1 if who == me and now - when < _SECONDS_BETWEEN else 0
        return self._calls >= self._needed

    def _ask(self, me: int) -> None:
        self._calls = 0
        self._lent.clear()
        self._asking = me
        self._wake()
        if not self._lent.wait(_PATIENCE):
            with self._turn:
                self._end()

    def _step(self, me: int, until: float) -> bool:
        """Wait for the socket and do what the driver does then. False: the driver drives."""
        # An exception of a signal handler leaves nothing behind here: the driver will see that there are no more steps.
        ready = self._poll.poll(1000 * max(0.0, min(_PATIENCE, until - time.monotonic())))
        try:
            self.stepper = me  # before the lock: from here on a handler that recalls leaves a note
            with self._turn:
                if self.borrower != me:
                    return False
                if ready:
                    self._driven.on_readable()
                    self._driven.tick(time.monotonic())
                    self._steps += 1
                if not ready or self._is_recalled or self._driven.interest() != self._interest:
                    self._end()
                return self.borrower is not None
        except BaseException:
            self._end()
            raise
        finally:
            self.stepper = None

    def _end(self) -> None:
        self.borrower = self._asking = None
        self._ended.set()

    # -- by the driver ----------------------------------------------------------------------------------

    @property
    def asked(self) -> bool:
        """Whether a thread wants the place."""
        return self._asking is not None

    def lend(self) -> None:
        """Leave the place to the thread that asked; returns when it is to be taken again."""
        self._ended.clear()
        self._is_recalled = False
        self._steps = 0
        with self._turn:
            self.borrower, self._asking = (self._asking if self._look_at_socket() else None), None
        self._lent.set()
        if self.borrower is None:
            return
        steps = -1
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            if self._steps == steps:
                with self._turn:
                    self._end()
            steps = self._steps

    def _look_at_socket(self) -> bool:
        """Have the borrower wait for the socket of now. False: there is none, or it takes no bytes."""
        fd, is_full = interest = self._driven.interest()
        if interest != self._interest:
            self._poll = select.poll()
            self._interest = interest
            if fd is not None:
                self._poll.register(fd, select.POLLIN)
        return fd is not None and not is_full
