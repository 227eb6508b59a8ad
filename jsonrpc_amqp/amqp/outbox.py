"""
What one session has to write, and the threads that write it.

A thread queues bytes and then writes what is queued, its own or not, unless another thread is writing: that one then
writes these bytes as well (*flat combining*). Waking the leader for each write costs more than the write.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from .delivery_tracking import Unacked
from .encoder import ack
from .heartbeat import Heartbeat
from .link import Link

# What may be queued before callers are held back: some messages of full size.
CONGESTED_BYTES = 64 << 20


class Outbox:
    """
    The outbox of one session.

    ``lock`` guards what is queued, the acks that are due, and the state of the session. It is held for moments, never
    during I/O, and it is reentrant for the sake of signal handlers. ``write_lock`` is the right to write to the socket,
    and with TLS to read from it; ``lock`` is taken under it, never the other way round. It is a reentrant lock because
    that one knows its owner: a mark beside the lock would stay behind where a signal handler raises between the two.

    Args:
        link: Its socket, and the number of the channel that consumes.
        heartbeat: Notes the time of each write.
        on_stalled: Called when the socket takes no more, so that room to write has to be watched for.
        on_error: Called when the socket cannot be written to.
        on_interrupt: Called when a write was interrupted, so that it is unknown how much of it was done.

    Attributes:
        unacked: The deliveries of the session, and which of their acks are due.
        flush_is_imminent: The leader is about to call ``flush``, within a millisecond.
    """

    def __init__(
        self,
        link: Link,
        heartbeat: Heartbeat,
        *,
        on_stalled: Callable[[], None],
        on_error: Callable[[OSError], None],
        on_interrupt: Callable[[BaseException], None],
    ) -> None:
        self._link = link
        self._heartbeat = heartbeat
        self._on_stalled = on_stalled
        self._on_error = on_error
        self._on_interrupt = on_interrupt
        self.lock = threading.RLock()
        self.write_lock = threading.RLock()
        # Whether the calling thread is writing: it runs a signal handler then. As threading.Condition asks; typeshed
        # omits private methods.
        self.is_writing_here: Callable[[], bool] = self.write_lock._is_owned  # type: ignore[attr-defined]
        self.unacked = Unacked()
        self.flush_is_imminent = False
        self._queued: list[bytes | memoryview] = []
        self._bytes = 0
        self._unsent: memoryview | None = None
        self._holder: int | None = None
        self._is_over = False

    @property
    def is_full(self) -> bool:
        """Whether callers should be held back."""
        return self._bytes > CONGESTED_BYTES

    @property
    def is_stalled(self) -> bool:
        """Whether the socket did not take all that was written to it."""
        return self._unsent is not None

    def put(self, data: bytes) -> None:
        """Queue bytes. With ``lock`` held."""
        self._queued.append(data)
        self._bytes += len(data)

    def put_all(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Queue bytes in one step, so that an interrupt does not leave a part of them. With ``lock`` held."""
        pieces = list(pieces)
        self._queued.extend(pieces)
        self._bytes += sum(map(len, pieces))

    def put_acks(self) -> None:
        """Queue the acks that are due, behind the replies that they stand for. With ``lock`` held."""
        for tag, multiple in self.unacked.collect():
            self.put(ack(self._link.consumer_channel, tag, multiple))

    def defer_flush(self) -> None:
        """Have the calling thread's ``flush`` do nothing until ``end_defer``; the thread flushes once behind that."""
        self._holder = threading.get_ident()

    def end_defer(self) -> None:
        """End ``defer_flush``."""
        self._holder = None

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it; a thread that writes already writes this, too."""
        if self._holder == threading.get_ident() or self.is_writing_here():
            return
        lock = self.write_lock
        while self._has_output():
            try:
                # Not by "with": from Python 3.14 on, an exception of a signal handler may come when the lock is taken
                # and the block not yet entered, and the lock would stay taken.
                if not lock.acquire(False):  # by position: a keyword costs more than all else here
                    return
                self._write_queued()
            finally:
                try:  # noqa: SIM105  # suppress costs more, on the hot path
                    lock.release()
                except RuntimeError:
                    pass  # another thread has it, or an interrupt came before it was taken

    def go_on(self) -> None:
        """Write what the socket did not take."""
        with self.write_lock:
            try:
                if self._unsent is not None and not self._is_over:
                    self._send(self._unsent)
            except BaseException as exc:
                self._interrupted(exc)
                raise
        self.flush()

    def close(self) -> None:
        """Let go of the socket; nothing is written any more."""
        with self.write_lock:  # no thread writes to the descriptor while it is closed
            self._is_over = True
            self._link.discard()
        with self.lock:
            self._queued.clear()
            self._unsent = None
            self._bytes = 0

    def _has_output(self) -> bool:
        return self._unsent is None and not self._is_over and bool(self._queued or self.unacked.due)

    def _write_queued(self) -> None:
        """With ``write_lock`` held."""
        try:
            with self.lock:
                if self._unsent is not None or self._is_over:
                    return
                self.put_acks()
                queued, self._queued = self._queued, []  # one step: a signal handler within it loses nothing
                data = queued[0] if len(queued) == 1 else b"".join(queued)
            self._send(memoryview(data))
        except BaseException as exc:
            self._interrupted(exc)
            raise

    def _interrupted(self, exc: BaseException) -> None:
        self._is_over = True  # it is unknown how much was written, so nothing may follow
        self._on_interrupt(exc)

    def _send(self, data: memoryview) -> None:
        try:
            sent = self._link.write(data)
        except OSError as exc:
            self._is_over = True  # an ack must not leave when the reply before it did not
            self._on_error(exc)
            return
        self._heartbeat.last_write = time.monotonic()
        with self.lock:
            self._bytes -= sent
        if sent == len(data):
            self._unsent = None
            return
        is_first = self._unsent is None
        self._unsent = data[sent:]
        if is_first:
            self._on_stalled()
