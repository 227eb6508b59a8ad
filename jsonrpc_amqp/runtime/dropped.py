"""Notices that a program has dropped a client or a server without closing it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable


class DropWatch:
    """
    Warns (``ResourceWarning``) when the last reference to it goes while what it watches is open.

    What a program holds refers to it, and what threads hold does not: a thread would keep alive what it works for.

    Args:
        what: Names the client or server in the warning.
        advice: What the warning says besides: the end of a sentence.
        is_open: Whether it has threads or descriptors to lose.
        on_drop: Ends them. It is called on any thread, at any point of it, and with any lock held, as a signal handler
            is; but not while the interpreter ends, when threads hold locks for ever.
    """

    def __init__(self, what: str, advice: str, is_open: Callable[[], bool], on_drop: Callable[[], None]) -> None:
        self._what = what
        self._advice = advice
        self._is_open = is_open
        self._on_drop = on_drop

    # The defaults: module globals may be gone while the interpreter ends.
    def __del__(
        self, _warn: Callable[..., None] = warnings.warn, _ends: Callable[[], bool] = sys.is_finalizing
    ) -> None:
        if not self._is_open():
            return
        try:
            if not _ends():
                self._on_drop()
        finally:
            # The source is where it was made, with tracemalloc.
            _warn(f"unclosed {self._what}: {self._advice}", ResourceWarning, source=self)
