"""The event loops on which servers run coroutines, and the log of what blocks them."""

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

Label = Callable[[FrameType], str | None]
"""Names, for the log, what a frame of a blocked loop runs; None: this frame does not say."""


class WatchedLoop:
    """
    An event loop, of which a thread logs what blocks it.

    Made on the thread of the loop. ``is_here`` is for any thread, all else for that of the loop.

    Args:
        loop: The loop.
        name: Of the thread.
        label: Names what blocks it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, label: Label) -> None:
        self.loop = loop
        self._label = label
        self._thread = threading.get_ident()
        self._beat = 0.0
        self._busy = threading.Event()
        self._count = 0
        self._shows_life = self._is_closed = False
        with suppress(NotConnected):  # no thread is left to watch it; the loop has its own
            run_daemon(self._watch, f"{name}-watch")

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is that of the loop."""
        return threading.get_ident() == self._thread

    def begin(self) -> None:
        """Note that a coroutine begins."""
        self._count += 1
        if not self._shows_life:
            self._show_life()

    def end(self) -> None:
        """Note that one has ended."""
        self._count -= 1

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True
        self._busy.set()

    def _show_life(self) -> None:
        self._beat = time.monotonic()
        self._shows_life = self._count > 0
        if self._shows_life:
            self._busy.set()
            self.loop.call_later(_BEAT, self._show_life)
        elif not self._is_closed:
            self._busy.clear()

    def _watch(self) -> None:
        said, clock = 0.0, threading.Event()
        while not self._is_closed:
            self._busy.wait()
            clock.wait(_BEAT)
            beat = self._beat
            seconds = time.monotonic() - beat
            if seconds > _BLOCKED and self._count and beat != said and not self._is_closed:
                said = beat
                log.warning("%s", self._blocked(seconds))

    def _blocked(self, seconds: float) -> str:
        frame = sys._current_frames().get(self._thread)
        while frame is not None:
            if (label := self._label(frame)) is not None:
                return (
                    f"{label} has blocked the event loop for {seconds:.1f} s, and with it all other async methods: it "
                    "is to await, or to be a plain def, which runs on a thread"
                )
            frame = frame.f_back
        return f"the event loop of async methods has been blocked for {seconds:.1f} s"


class LoopThread:
    """
    An event loop on a daemon thread, which begins with the first use.

    Args:
        name: Of the thread.
        label: Names what blocks the loop.
    """

    def __init__(self, name: str, label: Label) -> None:
        self._name = name
        self._label = label
        self._lock = threading.Lock()
        self._watched: WatchedLoop | None = None

    def get(self) -> WatchedLoop:
        """
        Return the loop; its thread is started.

        Raises:
            NotConnected: This process can have no other thread or open file.
        """
        with self._lock:
            if self._watched is None:
                self._watched = self._start()
            return self._watched

    def _start(self) -> WatchedLoop:
        loop, begun = asyncio.new_event_loop(), threading.Event()
        watched: list[WatchedLoop] = []

        def run() -> None:
            asyncio.set_event_loop(loop)
            watched.append(WatchedLoop(loop, self._name, self._label))
            begun.set()
            loop.run_forever()

        try:
            run_daemon(run, self._name)
        except BaseException:
            loop.close()
            raise
        begun.wait()
        return watched[0]
