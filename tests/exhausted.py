"""A process that has no thread or no descriptor left, for a while."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
from typing import Any

import pytest


class NoThread:
    """Makes the start of a thread fail, from the Nth on, until it is lifted; counts those before."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int = 0) -> None:
        self.left = after
        self.failures = 0
        start = threading.Thread.start

        def fail(thread: threading.Thread) -> None:
            if self.left > 0:
                self.left -= 1
                start(thread)
                return
            self.failures += 1
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", fail)


def no_descriptor(patch: pytest.MonkeyPatch) -> None:
    """Make socket pairs and selectors fail."""

    def fail(*_args: Any, **_options: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    patch.setattr(socket, "socketpair", fail)
    patch.setattr(selectors, "DefaultSelector", fail)
