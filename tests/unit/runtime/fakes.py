"""A connection to drive, on a socket pair."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

PATIENCE = 10.0


class FakeConnection:
    """
    Driven: writes down what is called, and by which thread.

    Attributes:
        on_read: Called with each byte that was read.
        on_tick: Called at each tick.
        was_abandoned: There is nothing that drives it any more.
        due: What ``tick`` returns.
        busy: What ``is_due`` returns.
    """

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.finished = self.was_abandoned = False
        self.busy = False
        self.due: float | None = None
        self.ticks = 0
        self.errors: list[BaseException] = []
        self.invalid: list[BaseException] = []
        self.readers: list[int] = []
        self.received = bytearray()
        self.wants_room = False
        self.wrote = threading.Event()
        self.on_read: Callable[[int], object] = lambda byte: None
        self.on_tick: Callable[[], object] = lambda: None
        self._changed = threading.Condition()

    def interest(self) -> tuple[int | None, bool]:
        return self.near.fileno(), self.wants_room

    def on_readable(self) -> None:
        data = self.near.recv(4096)
        with self._changed:
            self.readers.append(threading.get_ident())
            self.received += data
            self._changed.notify_all()
        for byte in data:
            self.on_read(byte)

    def on_writable(self) -> None:
        self.wants_room = False
        self.wrote.set()

    def is_due(self, now: float) -> bool:
        return self.busy

    def tick(self, now: float) -> float | None:
        with self._changed:
            self.ticks += 1
            self._changed.notify_all()
        self.on_tick()
        return self.due

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self.errors.append(error)
            self._changed.notify_all()

    def abandon(self) -> None:
        self.finished = self.was_abandoned = True

    def invalidate(self, error: BaseException) -> None:
        with self._changed:
            self.invalid.append(error)
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(predicate, PATIENCE)
