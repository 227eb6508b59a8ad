"""What one session receives: reads the socket, decodes, and reports deliveries to the listener. By the leader only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from ..errors import ConnectionLost
from .base import Delivery
from .frames import Confirm, Event, Frame, FrameError, ReturnEvent, Undecoded
from .heartbeat import Heartbeat
from .link import Link
from .outbox import Outbox

# Bytes. Under the 128 KiB from which malloc asks the kernel for each buffer.
READ_SIZE = 1 << 16
# After a read that was filled, since then a large body arrives, and each read costs more than the larger buffer.
LARGE_READ = 1 << 19
# Seconds. During a burst of deliveries the leader writes what is queued at this interval, and for this time.
FLUSH_SECONDS = 0.001
BURST_SECONDS = 0.02


class Handler(Protocol):
    """What an inbox reports events to."""

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Take deliveries, in order."""
        ...

    def handle(self, event: Confirm | ReturnEvent | Undecoded | Frame) -> None:
        """Take anything else."""
        ...


class Inbox:
    """
    The inbox of one session.

    Args:
        link: Its socket and decoder.
        outbox: Is flushed once behind all that one read brought; with TLS its ``write_lock`` covers reading, too.
        heartbeat: Notes the time of each read.
        handler: Takes what was read.
        has_bursts: During a burst, writes are left to the leader.
    """

    def __init__(
        self, link: Link, outbox: Outbox, heartbeat: Heartbeat, handler: Handler, *, has_bursts: bool = True
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._heartbeat = heartbeat
        self._handler = handler
        self._read: Callable[[], bytes | None] = self._read_tls if link.tls else self._read_plain
        self._read_size = READ_SIZE
        self._burst_seconds = BURST_SECONDS if has_bursts else 0.0
        self._burst_until = 0.0

    def is_in_burst(self, now: float) -> bool:
        """Return whether several messages have just arrived by one read, so that more are expected."""
        return now < self._burst_until

    def read(self) -> None:
        """
        Read once, and report what came.

        Raises:
            ConnectionLost: The broker is gone, or does not speak AMQP.
        """
        try:
            data = self._read()
        except OSError as exc:
            raise self._lost(self._link.describe(exc)) from exc
        if data is None:
            # With TLS another thread may have found the wire in use, and left its bytes to this one.
            self._outbox.flush()
            return
        if not data:
            raise self._lost(f"the broker at {self._link.where} closed the connection")
        self._heartbeat.last_read = time.monotonic()
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Decode some bytes, and report what they complete; raises as ``read``."""
        try:
            events = self._link.decoder.feed(data)
        except FrameError as exc:
            raise ConnectionLost(f"the broker at {self._link.where} does not speak AMQP: {exc}") from exc
        outbox = self._outbox
        outbox.flush_is_imminent = False  # the listener may take its time
        try:
            outbox.defer_flush()
            self._report(events)
        finally:
            outbox.end_defer()
        outbox.flush_is_imminent = self._heartbeat.last_read < self._burst_until
        outbox.flush()

    def _lost(self, end: str) -> ConnectionLost:
        return ConnectionLost(self._heartbeat.explain(end, time.monotonic()))

    def _read_plain(self) -> bytes | None:
        data = self._link.read(self._read_size)
        self._read_size = LARGE_READ if data is not None and len(data) >= READ_SIZE else READ_SIZE
        return data

    def _read_tls(self) -> bytes | None:
        link, lock = self._link, self._outbox.write_lock
        try:
            lock.acquire()  # not by "with": see ``Outbox.flush``
            data = link.read(READ_SIZE)
            while data and link.buffered():
                data += link.read(READ_SIZE) or b""
            return data
        finally:
            try:  # noqa: SIM105  # suppress costs more, on the hot path
                lock.release()
            except RuntimeError:
                pass

    def _report(self, events: list[Event]) -> None:
        deliveries: list[Delivery] = []
        for event in events:
            if isinstance(event, Delivery):
                deliveries.append(event)
                continue
            if deliveries:
                self._deliver(deliveries)
                deliveries = []
            self._handler.handle(event)
        if deliveries:
            self._deliver(deliveries)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        self._handler.deliver(deliveries)
        if len(deliveries) > 1:
            self._burst_until = self._heartbeat.last_read + self._burst_seconds
