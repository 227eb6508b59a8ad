"""The threads of runtimes, which do not keep a program from ending; and what is said where there can be no other."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import NotConnected
from ..logs import on_own_thread


def daemon(target: Callable[[], None], name: str) -> threading.Thread:
    """Return a thread that is to be started."""
    return threading.Thread(target=on_own_thread(target), name=name, daemon=True)


def run_daemon(target: Callable[[], None], name: str) -> None:
    """
    Start a thread.

    Raises:
        NotConnected: This process can have no other.
    """
    try:
        daemon(target, name).start()
    except Exception as exc:
        raise exhausted(exc) from exc


def exhausted(exc: Exception) -> NotConnected:
    """Return the error of a process that has no thread or descriptor left."""
    return NotConnected(
        f"this process cannot have another thread or open file, which a connection needs: {exc}. Nothing was sent, and "
        "the next use tries again. Raise its limits (ulimit -u, ulimit -n), or have fewer clients, servers and threads"
    )
