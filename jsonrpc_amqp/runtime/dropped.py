"""Notices that a program has dropped a client or a server without closing it, or ends without doing so."""

from __future__ import annotations

import atexit
import sys
import warnings
import weakref
from collections.abc import Callable


class DropWatch:
    """
    Warns (``ResourceWarning``) when the last reference to it goes, or the program ends, while what it watches is open.

    What a program holds refers to it, and what threads hold does not: a thread would keep alive what it works for.

    Args:
        what: Names the client or server in the warning.
        advice: What the warning says besides: the end of a sentence.
        is_open: Whether it has threads or descriptors to lose.
        has_failed: Whether it gave up, which the program was told: then it ends without a warning.
        on_drop: Ends them. It is called on any thread, at any point of it, and with any lock held, as a signal handler
            is; but not when the program ends, since threads may hold locks for ever then.
    """

    def __init__(
        self,
        what: str,
        advice: str,
        is_open: Callable[[], bool],
        on_drop: Callable[[], None],
        has_failed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._text = f"unclosed {what}: {advice}"
        self._is_open = is_open
        self._on_drop = on_drop
        self._has_failed = has_failed
        _watches.add(self)

    # The defaults: module globals may be gone while the interpreter ends.
    def __del__(
        self, _warn: Callable[..., None] = warnings.warn, _ends: Callable[[], bool] = sys.is_finalizing
    ) -> None:
        if _ends() or not self._is_open():
            return
        try:
            self._on_drop()
        finally:
            if not self._has_failed():
                # The source is where it was made, with tracemalloc.
                _warn(self._text, ResourceWarning, source=self)

    def end(self) -> None:
        """Warn if it is open; the program ends."""
        if self._is_open() and not self._has_failed():
            warnings.warn(self._text, ResourceWarning, stacklevel=2, source=self)


_watches: weakref.WeakSet[DropWatch] = weakref.WeakSet()


# When the interpreter clears modules, threads keep the functions of a server, and so the module that has the server.
@atexit.register
def _end() -> None:
    for watch in list(_watches):
        watch.end()
