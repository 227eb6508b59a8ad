"""SIGTERM, SIGINT and SIGHUP drain; a second SIGTERM or SIGINT ends the process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

INSISTENT = (signal.SIGTERM, signal.SIGINT)
"""Signals of which a second one ends the process at once."""


def drain_signals() -> list[signal.Signals]:
    """
    Return the signals that drain.

    SIGHUP is among them unless it is ignored, as under ``nohup``. It never counts as a first or second signal: a
    terminal that is closed can send two, and some process managers send one behind SIGTERM.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [*INSISTENT] if ignored else [*INSISTENT, signal.SIGHUP]


def end_by(number: int, _frame: FrameType | None = None) -> NoReturn:
    """End this process at once by the default effect of a signal."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    # The default effect does not end process 1 of a container.
    os._exit(128 + number)


class _Drained(BaseException):
    """Ends the block where no thread can be started."""


class DrainOnSignal:
    """
    Within a ``with`` block, SIGTERM, SIGINT or SIGHUP calls ``drain`` once; a second of the former two ends all.

    Where that is impossible, for want of a thread, it ends the block instead: the block must drain when it is left.

    Only the main thread can set signal handlers: on any other this does nothing.

    Args:
        drain: Called on a thread of its own, since the interrupted thread may hold a lock that it needs.
    """

    def __init__(self, drain: Callable[[], None]) -> None:
        self._drain = drain
        self._is_draining = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in drain_signals()}

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> bool:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        return kind is _Drained

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in INSISTENT:
            # The kernel ends the process then, whatever its main thread is doing; but not process 1.
            second: Any = end_by if os.getpid() == 1 else signal.SIG_DFL
            for each in INSISTENT:
                signal.signal(each, second)
        if not self._is_draining:
            self._is_draining = True
            try:
                threading.Thread(target=self._drain, name="drain", daemon=True).start()
            except RuntimeError as exc:  # the system has no thread left: end the block, which drains as well
                raise _Drained from exc
