"""
Tells systemd how a command is that serves: READY, STOPPING, STATUS and WATCHDOG over ``NOTIFY_SOCKET``.

See sd_notify(3) and sd_watchdog_enabled(3); a unit has ``Type=notify``, and may have ``WatchdogSec=``.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from .. import Health

log = logging.getLogger("jsonrpc_amqp.cli")

# Seconds between two looks at the health.
_LOOK_SECONDS = 1.0
_MOST_STATUS = 500


def is_notified(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether systemd, or what does as it does, waits to be told."""
    return bool(environment.get("NOTIFY_SOCKET"))


@contextmanager
def notified(health_of: Callable[[], Health], environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """
    Tell systemd during a ``with`` block how this process is, on a thread of its own; nothing where it does not ask.

    Args:
        health_of: Such as ``server.health``.
        environment: Has ``NOTIFY_SOCKET``, and ``WATCHDOG_USEC`` where there is a watchdog.
    """
    if not is_notified(environment):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(
        target=_tell, args=(health_of, environment, over), name="jsonrpc-amqp-systemd", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LOOK_SECONDS)


def _tell(health_of: Callable[[], Health], environment: Mapping[str, str], over: threading.Event) -> None:
    watchdog = _watchdog_seconds(environment)
    pause = _LOOK_SECONDS if watchdog is None else min(_LOOK_SECONDS, watchdog / 3)
    told: set[str] = set()
    status = ""
    while True:
        is_over = over.is_set()
        health, lines = health_of(), list[str]()
        if health.is_ready and "READY=1" not in told:
            lines.append("READY=1")
        if (health.is_ending or is_over) and "STOPPING=1" not in told:
            lines.append("STOPPING=1")
        told.update(lines)
        if watchdog is not None and health.is_alive:
            lines.append("WATCHDOG=1")
        latest = "; ".join(health.problems)[:_MOST_STATUS] or "serving"
        if latest != status:
            status = latest
            lines.append("STATUS=" + " ".join(status.split()))
        if lines:
            _send(environment["NOTIFY_SOCKET"], "\n".join(lines))
        if is_over:
            return
        over.wait(pause)


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if microseconds > 0 else None


def _send(address: str, text: str) -> None:
    """Send a datagram; a name that begins with "@" is one of Linux's abstract namespace."""
    path = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.sendto(text.encode("utf-8", "replace"), path)
    except OSError as error:
        log.warning("systemd cannot be told %a: %s", text.partition("\n")[0], error)
