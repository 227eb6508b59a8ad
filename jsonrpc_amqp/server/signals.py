"""SIGTERM and SIGINT: the first drains, the second ends the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Drained(BaseException):
    """Ends the block where no thread can be started."""


class DrainOnSignal:
    """
    Within a ``with`` block, SIGTERM or SIGINT calls ``drain`` once; after that both have their default effect.

    Where that is impossible, for want of a thread, it ends the block instead: the block must drain when it is left.

    Only the main thread can set signal handlers: on any other this does nothing.

    Args:
        drain: Called on a thread of its own, since the interrupted thread may hold a lock that it needs.
    """

    def __init__(self, drain: Callable[[], None]) -> None:
        self._drain = drain
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> bool:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        return kind is _Drained

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        for each in self._previous:
            signal.signal(each, signal.SIG_DFL)
        try:
            threading.Thread(target=self._drain, name="drain", daemon=True).start()
        except RuntimeError as exc:  # the system has no thread left: end the block, which drains as well
            raise _Drained from exc
