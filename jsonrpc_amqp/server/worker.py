"""
A worker's side of the pipes that it shares with its parent, the supervisor.

Nothing is ever written to the *lifeline*: a worker drains when it reads the end of the file, that is when the parent
closes its end, or dies. The *status pipe* is shared by all workers, which write to it what the supervisor has to know.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from ..logs import on_own_thread

log = logging.getLogger("jsonrpc_amqp.workers")

SERVING = "serving"
"""It consumes: what ends it from now on may be a request."""
DRAINED = "drained"
"""No handler was left running: however the process ends, nothing is lost."""


class Parent:
    """
    The parent, as a worker knows it. When it is gone, this process ends at once, until ``drain_with`` was called.

    Args:
        number: Which worker this is.
        lifeline: The file descriptor of the lifeline, inherited from the parent.
        status: Likewise that of the status pipe.
    """

    def __init__(self, number: int, lifeline: int, status: int) -> None:
        self._number = number
        self._status = status
        self._stop: Callable[[], object] = _end_now
        for descriptor in (lifeline, status):
            # Programs that a handler starts must not hold them.
            with suppress(OSError):
                os.set_inheritable(descriptor, False)
        watch_lifeline(lifeline, lambda: self._stop())

    def drain_with(self, stop: Callable[[], object]) -> None:
        """Have ``stop`` called, on a thread of its own, when the parent drains or has died."""
        self._stop = stop

    def tell(self, what: str) -> None:
        """Tell the parent one word; without effect where it is gone."""
        with suppress(OSError):
            # At once, so that the lines of several workers do not mix.
            os.write(self._status, f"{what} {self._number}\n".encode())


def watch_lifeline(lifeline: int, stop: Callable[[], object]) -> None:
    """Call ``stop`` once, on a thread of its own, when the other end of the lifeline is closed."""

    def watch() -> None:
        with suppress(OSError):
            os.read(lifeline, 1)
        stop()

    threading.Thread(target=on_own_thread(watch), name="lifeline", daemon=True).start()


def _end_now() -> None:
    log.info("to end before it serves")
    os._exit(0)
