"""The event loop on which a process runs the coroutines of its servers, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from ..errors import NotConnected
from .daemons import run_daemon

log = logging.getLogger("jsonrpc_amqp.server")

# Seconds: between two signs of life of a loop that works, and without one until that is logged.
_BEAT = 0.25
_BLOCKED = 1.0


class EventLoop:
    """
    An event loop on a daemon thread, which begins with the first use.

    Args:
        name: Of the thread.
        label: Names, for the log, what a frame of the blocked loop runs; None: this frame does not say.
    """

    def __init__(self, name: str, label: Callable[[FrameType], str | None]) -> None:
        self._name = name
        self._label = label
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self._beat = 0.0
        self._busy = threading.Event()
        self._count = 0
        self._shows_life = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """
        The loop; its thread is started.

        Raises:
            NotConnected: This process can have no other thread or open file.
        """
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                try:
                    run_daemon(lambda: self._run(loop), self._name)
                except BaseException:
                    loop.close()
                    raise
                self._loop = loop
            return self._loop

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is that of the loop."""
        return threading.get_ident() == self._thread

    def begin(self) -> None:
        """Note that a coroutine begins; by the loop."""
        self._count += 1
        if self._count == 1:
            self._busy.set()
            if not self._shows_life:
                self._show_life()

    def end(self) -> None:
        """Note that one has ended; by the loop."""
        self._count -= 1
        if self._count == 0:
            self._busy.clear()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._thread = threading.get_ident()
        asyncio.set_event_loop(loop)
        with suppress(NotConnected):  # no thread is left to watch it; the loop itself has its own
            run_daemon(self._watch, f"{self._name}-watch")
        loop.run_forever()

    def _show_life(self) -> None:
        self._beat = time.monotonic()
        self._shows_life = self._count > 0
        if self._shows_life and self._loop is not None:
            self._loop.call_later(_BEAT, self._show_life)

    def _watch(self) -> None:
        """Log what blocks the loop; on a thread of its own."""
        said, clock = 0.0, threading.Event()
        while True:
            self._busy.wait()
            clock.wait(_BEAT)
            beat = self._beat
            seconds = time.monotonic() - beat
            if seconds > _BLOCKED and self._busy.is_set() and beat != said:
                said = beat
                log.warning("%s", self._blocked(seconds))

    def _blocked(self, seconds: float) -> str:
        frame = sys._current_frames().get(self._thread or 0)
        while frame is not None:
            if (label := self._label(frame)) is not None:
                return (
                    f"{label} has blocked the event loop for {seconds:.1f} s, and with it all other async methods: it "
                    "is to await, or to be a plain def, which runs on a thread"
                )
            frame = frame.f_back
        return f"the event loop of async methods has been blocked for {seconds:.1f} s"
