"""Interrupts of signal handlers at chosen moments, for tests of what they leave behind."""

from __future__ import annotations

import dis
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


class InterruptedLock:
    """Raises ``KeyboardInterrupt`` as soon as it has taken a reentrant lock, as a signal handler may."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._lock.acquire(blocking, timeout):
            raise KeyboardInterrupt
        return False

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


# Where Python runs signal handlers: behind calls, at jumps back, and at the start of functions.
_CHECKED = ("CALL", "JUMP_BACKWARD", "RESUME")


class InterruptAt:
    """
    A trace function that raises ``KeyboardInterrupt`` at the Nth moment at which Python may run a signal handler.

    Args:
        number: Which moment, from 0 on.
        is_watched: Whether moments in a function count.

    Attributes:
        was_raised: There were so many moments.
        where: Function and line of the moment.
    """

    def __init__(self, number: int, is_watched: Callable[[CodeType], bool]) -> None:
        self._left = number
        self._is_watched = is_watched
        self._last: dict[int, bool] = {}  # of each frame: whether its last instruction may be followed by a handler
        self.was_raised = False
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event != "call" or not self._is_watched(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._in_frame

    def _in_frame(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "return":
            self._last.pop(id(frame), None)
        elif event == "opcode" and not self.was_raised:
            was_checked = self._last.get(id(frame), False)
            self._last[id(frame)] = dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(_CHECKED)
            if was_checked:
                self._moment(frame)
        return self._in_frame

    def _moment(self, frame: FrameType) -> None:
        if self._left > 0:
            self._left -= 1
            return
        self.was_raised = True
        self.where = f"{frame.f_code.co_qualname if hasattr(frame.f_code, 'co_qualname') else frame.f_code.co_name}"
        self.where += f":{frame.f_lineno}"
        raise KeyboardInterrupt


def is_free(lock: Any) -> bool:
    """Return whether another thread could take a lock."""
    taken: list[bool] = []

    def take() -> None:
        taken.append(lock.acquire(timeout=1))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken[0]
