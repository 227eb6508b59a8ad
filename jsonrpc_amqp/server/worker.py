"""
A worker's side of the pipes that it shares with its parent, the supervisor.

Nothing is ever written to the *lifeline*: a worker drains when it reads the end of the file, that is when the parent
closes its end, or dies. The *status pipe* is shared by all workers, which write to it what the supervisor has to know.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ..logs import on_own_thread
from ..wire.health import Health

log = logging.getLogger("jsonrpc_amqp.workers")

SERVING = "serving"
"""It consumes: what ends it from now on may be a request."""
DRAINED = "drained"
"""No handler was left running: however the process ends, nothing is lost."""
READY = "ready"
"""It can serve now. It tells this or one of the next two every second, where it is asked to."""
NOT_READY = "notready"
"""It cannot; what is in the way follows."""
NOT_ALIVE = "notalive"
"""It cannot, and will not recover by itself; what is in the way follows."""
# Seconds between two of these.
TELL_SECONDS = 1.0
# Characters of what is in the way: a line has to fit into what a pipe takes at once.
_MOST_TOLD = 1000


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

    def tell(self, what: str, why: str = "") -> None:
        """Tell the parent one word, and why; without effect where it is gone."""
        text = " ".join([what, str(self._number), *why[:_MOST_TOLD].split()])
        with suppress(OSError):
            # At once, so that the lines of several workers do not mix.
            os.write(self._status, f"{text}\n".encode("utf-8", "replace"))

    def keep_telling(self, health_of: Callable[[], Health]) -> None:
        """Tell the parent every second how this worker is, until it ends."""

        def keep() -> None:
            while True:
                health = health_of()
                what = READY if health.is_ready else NOT_READY if health.is_alive else NOT_ALIVE
                self.tell(what, "; ".join(health.problems))
                time.sleep(TELL_SECONDS)

        threading.Thread(target=on_own_thread(keep), name="health", daemon=True).start()


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
