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
    from .threads import Driven

# A thread that has called so often, with no longer than this between two calls, is lent the place.
_CALLS = 4
_SECONDS_BETWEEN = 0.005
# After a loan that somebody ended before so many answers it takes twice as many calls: threads that take turns.
_ENOUGH_ANSWERS = 10
_MOST_CALLS = 256
# An answer that takes longer comes by the driver.
_PATIENCE = 0.005
# So often the driver looks whether the thread still drives. Nobody waits for anything if it does not.
_SECONDS_BETWEEN_LOOKS = 0.05


class Loan:
    """
    The loan of one driver's place, most of the time to nobody.

    ``_turn`` is held by the borrower amid a step, which takes other locks; so nobody takes it who may hold one, but the
    driver, to take its place again. All else is told by flags and the bell: signal handlers do so amid anything.

    Args:
        ring: Ends the sleep of the driver, who then calls ``lend`` if somebody has ``asked``.
    """

    def __init__(self, driven: Driven, ring: Callable[[], None]) -> None:
        self._driven = driven
        self._ring = ring
        self._turn = threading.Lock()
        self._poll = select.poll()
        self._interest: tuple[int | None, bool] = (None, False)
        self._steps = 0
        self._is_recalled = False
        self._asking: tuple[int, threading.Lock] | None = None  # who, and what it waits for
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
        elif self.borrower is not None:
            self.recall()

    def recall(self) -> None:
        """End the loan, if there is one: the connection needs its driver. From any thread, with any lock held."""
        if self._asking is None and self.borrower is None:  # in this order: the driver writes them in the other
            return
        self._needed = _CALLS if self._steps >= _ENOUGH_ANSWERS else min(_MOST_CALLS, 2 * self._needed)
        self._hand_back()

    def _hand_back(self) -> None:
        self._is_recalled = True
        self._asking = None
        self._ring()

    def _deserves(self, me: int) -> bool:
        who, when = self._last
        now = time.monotonic()
        self._last = me, now
        self._calls = self._calls + 1 if who == me and now - when < _SECONDS_BETWEEN else 0
        return self._calls >= self._needed

    def _ask(self, me: int) -> None:
        self._calls = 0
        self._is_recalled = False
        given = threading.Lock()
        given.acquire()
        self._asking = me, given
        self._ring()
        if not given.acquire(timeout=_PATIENCE):
            self._hand_back()

    def _step(self, me: int, until: float) -> bool:
        """Wait for the socket and read it. False: the driver drives."""
        ready = self._poll.poll(1000 * max(0.0, min(_PATIENCE, until - time.monotonic())))
        try:
            self.stepper = me
            with self._turn:
                if self.borrower != me or self._is_recalled:
                    return False
                if ready:
                    self._driven.on_readable()
                    self._steps += 1
                # All else is for the driver: an interrupt amid it would leave it half done.
                if not ready or self._driven.is_due(time.monotonic()) or self._driven.interest() != self._interest:
                    self._hand_back()
                return not self._is_recalled
        except BaseException:
            self._hand_back()
            raise
        finally:
            self.stepper = None

    # -- by the driver ----------------------------------------------------------------------------------

    @property
    def asked(self) -> bool:
        """Whether a thread wants the place."""
        return self._asking is not None

    def lend(self, wait_for_bell: Callable[[float], bool]) -> None:
        """
        Leave the place to the thread that asked, unless there is something to do; returns when it is to be taken again.

        Args:
            wait_for_bell: Waits for so many seconds. True: it was rung.
        """
        asking = self._asking
        if asking is None:
            return
        self._steps = 0
        if self._look_at_socket() and not self._driven.is_due(time.monotonic()):
            self.borrower = asking[0]
        self._asking = None
        asking[1].release()
        steps = -1
        while self.borrower is not None and not self._is_recalled and self._steps != steps:
            steps = self._steps
            if wait_for_bell(_SECONDS_BETWEEN_LOOKS):
                break
        with self._turn:
            self.borrower = None

    def _look_at_socket(self) -> bool:
        """Have the borrower wait for the socket of now. False: there is none, or it takes no bytes."""
        fd, is_full = self._interest = self._driven.interest()
        # A new one each time: who had the place before may still wait with the old one.
        self._poll = select.poll()
        if fd is not None:
            self._poll.register(fd, select.POLLIN)
        return fd is not None and not is_full
