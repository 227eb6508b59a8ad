"""Interrupts of signal handlers at chosen moments, for tests of what they leave behind."""

from __future__ import annotations

import dis
import sys
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
# Of those for sys.monitoring, one that no common tool uses.
_TOOL = 4


class InterruptAt:
    """
    Raises ``KeyboardInterrupt`` on this thread, at the Nth moment at which Python may run a signal handler during a
    ``with`` block.

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
        self._thread = threading.get_ident()
        self._last: dict[int, bool] = {}  # of each frame: whether its last instruction may be followed by a handler
        self.was_raised = False
        self.where = ""

    # A trace function is not enough since Python 3.13: there, a call on any thread that is not traced ends that the
    # instructions of a function are reported, and a trace function that turns it on again misses the call it is in.
    if sys.version_info >= (3, 12):

        def __enter__(self) -> InterruptAt:
            monitoring, events = sys.monitoring, sys.monitoring.events
            monitoring.use_tool_id(_TOOL, "interrupts")
            monitoring.register_callback(_TOOL, events.INSTRUCTION, self._run)
            ends = (events.PY_RETURN, events.PY_YIELD, events.PY_UNWIND)
            for event in ends:
                monitoring.register_callback(_TOOL, event, self._leave)
            monitoring.restart_events()
            monitoring.set_events(_TOOL, events.INSTRUCTION | sum(ends))
            return self

        def __exit__(self, *_exc: object) -> None:
            sys.monitoring.set_events(_TOOL, 0)
            sys.monitoring.free_tool_id(_TOOL)

        def _run(self, code: CodeType, offset: int) -> Any:
            if not self._is_watched(code):
                return sys.monitoring.DISABLE
            if threading.get_ident() == self._thread:
                self._step(sys._getframe(1), offset)
            return None

        def _leave(self, code: CodeType, *_args: object) -> None:
            if self._is_watched(code):
                self._last.pop(id(sys._getframe(1)), None)

    else:

        def __enter__(self) -> InterruptAt:
            sys.settrace(self._trace)
            return self

        def __exit__(self, *_exc: object) -> None:
            sys.settrace(None)

        def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
            if event != "call" or not self._is_watched(frame.f_code):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return self._in_frame

        def _in_frame(self, frame: FrameType, event: str, arg: Any) -> Any:
            if event == "return":
                self._last.pop(id(frame), None)
            elif event == "opcode":
                self._step(frame, frame.f_lasti)
            return self._in_frame

    def _step(self, frame: FrameType, offset: int) -> None:
        if self.was_raised:
            return
        was_checked = self._last.get(id(frame), False)
        self._last[id(frame)] = dis.opname[frame.f_code.co_code[offset]].startswith(_CHECKED)
        if was_checked:
            self._moment(frame)

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
