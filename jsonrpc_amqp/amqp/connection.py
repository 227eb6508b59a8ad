"""
A connection without a loop of its own: connecting, reading, writing, heartbeats, reconnecting.

One thread at a time owns it, its driver: only the owner reads the socket, runs py-amqp and calls the listener.
Everybody else puts bytes in the outbox, under a lock, and may write them: whoever finds the wire free writes for
all, since waking the owner to write costs more than the write. What is rare is posted to the owner.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import AccessRefused, ConnectionLost, NotConnected, TopologyMismatch, TransportError
from ..runtime.threads import IOThread
from . import codec
from .base import Delivery, Listener, Plan
from .link import BrokerURL, Link, check_tls, dial, parse_urls
from .session import LiveSession

log = logging.getLogger("jsonrpc_amqp.transport")

# A dead peer is noticed within two of them: well before the 30 s that a call waits by default, so that its
# caller learns of a lost connection; and long enough to ride out a pause of the machine. Costs 8 bytes per 5 s.
HEARTBEAT = 10.0
CONNECT_TIMEOUT = 5.0
# So that service is back within 3 s of the broker's return.
LONGEST_BACK_OFF = 2.0
SHORTEST_BACK_OFF = 0.1
# A connection that lived so long was a good one.
STABLE = 5.0
# Under the 128 KiB from which malloc asks the kernel for each buffer.
READ_SIZE = 1 << 16
# After a read that was filled: then it is bodies that arrive, and each read costs more than asking for the room.
LARGE_READ = 1 << 19
# Amid a burst the owner looks so often whether there is something to write, and goes on with that for so long.
FLUSH_SECONDS = 0.001
BURST_SECONDS = 0.02


class Connection:
    """
    Connects one client or server to RabbitMQ, and keeps it connected.

    Args:
        url: ``amqp://`` or ``amqps://``; several, joined by ``;``, are tried in turn.
        connection_name: Shown by RabbitMQ's management.
        heartbeat: Interval in seconds that is offered to the broker; 0 turns heartbeats off.
        connect_timeout: Seconds for one attempt to connect and set up.
        reconnect: False makes a failed attempt, or a lost connection, final until ``start`` is called again.
        max_body: Bodies over this many bytes are thrown away as they arrive.
        tls: Options for py-amqp's TLS: ``ca_certs``, ``certfile``, ``keyfile``, ``server_hostname``, ...
    """

    def __init__(
        self,
        url: str,
        *,
        connection_name: str = "jsonrpc-amqp",
        heartbeat: float = HEARTBEAT,
        connect_timeout: float = CONNECT_TIMEOUT,
        reconnect: bool = True,
        max_body: int = 16 << 20,
        tls: Mapping[str, Any] | None = None,
    ) -> None:
        self._urls = parse_urls(url)
        check_tls(self._urls, tls)
        if heartbeat != 0 and not heartbeat >= 1:
            raise ValueError(f"a heartbeat is 0 (none) or at least 1 second, not {heartbeat!r}")
        self._dial_options: dict[str, Any] = {
            "timeout": connect_timeout,
            "heartbeat": heartbeat,
            "max_body": max_body,
            "connection_name": connection_name,
            "tls": tls,
        }
        self._name = connection_name
        self._reconnect = reconnect
        self._pid: int | None = None
        # State, outbox and tags; held for moments, never around I/O. Reentrant for the sake of signal handlers.
        self._lock = threading.RLock()
        self._wire = threading.Lock()  # the right to write to the socket; with TLS to read from it, too
        self._state = "idle"
        self._session: LiveSession | None = None
        self._outbox: list[bytes | memoryview] = []
        self._queued = 0
        self._unsent: memoryview | None = None
        self._posted: deque[Callable[[], None]] = deque()
        self._driver: IOThread | None = None
        self._listener: Listener
        self._retry_at = 0.0
        self._attempt = 0
        self._was_open = False
        self._close_by = 0.0
        self._last_read = self._last_write = 0.0
        self._burst_until = 0.0
        self._is_watching = False
        self._read_size = READ_SIZE
        self._feeding: int | None = None  # the thread that does
        self._writer: int | None = None  # the same
        self._due = 0.0  # when there is more to do than to read and to write
        self._is_woken = False
        self.stats: Counter[str] = Counter()

    @property
    def user(self) -> str | None:
        """The user of the URL; not known where a certificate says who connects, or where URLs differ."""
        users = {
            None if url.options.get("auth_mechanism", "").upper() == "EXTERNAL" else url.user for url in self._urls
        }
        return users.pop() if len(users) == 1 else None

    # -- from any thread ------------------------------------------------------------------------------

    def start(self, listener: Listener) -> None:
        """Begin to connect, unless connecting or connected. Returns at once."""
        with self._lock:
            if self._state != "idle":
                return
            self._pid = os.getpid()
            self._listener = listener
            self._state = "waiting"
            self._attempt = 0
            self._retry_at = time.monotonic()
            if self._driver is None:
                self._driver = IOThread(self, name=f"{self._name}-io")
        self.wake()

    def needs(self, thread: int) -> bool:
        """Tell whether nothing comes or goes while that thread waits: it drives, or is amid a write."""
        return thread == self._writer or (self._driver is not None and thread == self._driver.owner)

    def attend(self, is_over: Callable[[], bool], until: float) -> None:
        """Drive on this thread, while it waits, if that was lent to it."""
        driver = self._driver
        if driver is not None:
            driver.loan.attend(is_over, until)

    def recall(self) -> None:
        """Have the driver drive, if its place is lent."""
        driver = self._driver
        if driver is not None:
            driver.loan.recall()

    def wake(self) -> None:
        """Have the listener's ``on_tick`` called soon."""
        self._is_woken = True
        driver = self._driver
        if driver is not None:
            driver.wake()

    def post(self, action: Callable[[], None]) -> None:
        """Have the owner do something."""
        self._posted.append(action)
        self.wake()

    def close(self, timeout: float) -> None:
        """Write what is queued, close the connection and stop, within about ``timeout`` seconds."""
        driver = self._driver
        if driver is None or os.getpid() != self._pid:
            # Never started; or in a fork, where the thread does not exist and the socket is the parent's.
            self._state = "closed"
            return
        self._close_by = time.monotonic() + timeout
        self.post(self._begin_close)
        driver.join(timeout + 0.2)

    def flush(self) -> None:
        """Write what is queued, as far as the socket takes it; whoever holds the wire writes for all."""
        # Not by a lone acquire(): a signal handler that raises between that and the release would leave it locked.
        me = threading.get_ident()
        if self._feeding == me:
            return  # that ends with a flush, for all that the listener was told
        while self._has_output() and not self._wire.locked():
            try:
                with self._wire:
                    self._writer = me
                    self._write_or_doom()
            finally:
                if self._writer == me:  # another may have begun
                    self._writer = None

    def _has_output(self) -> bool:
        session = self._session
        return session is not None and self._unsent is None and bool(self._outbox or session.unacked.due)

    def _write_or_doom(self) -> None:
        session = self._session
        try:
            self._write()
        except BaseException as exc:
            # A signal handler raised it, most likely. How much went out nobody knows.
            if session is not None:
                session.invalidate(ConnectionLost(f"interrupted amid a write: {exc!r}"), again_at_once=True)
            raise

    def _write(self) -> None:
        with self._lock:
            session = self._session
            if session is None or self._unsent is not None:
                return
            session.put_acks()
            outbox, self._outbox = self._outbox, []  # in one go: a signal handler amid it loses nothing
            data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
        self._send(session, memoryview(data))

    def _send(self, session: LiveSession, data: memoryview) -> None:
        # With the wire held.
        try:
            sent = session.link.write(data)
        except OSError as exc:
            error = self._ended(session, exc)
            self.post(lambda: self._lose(session, error))
            return
        self._last_write = time.monotonic()
        with self._lock:
            self._queued -= sent
        if sent == len(data):
            self._unsent = None
            return
        first = self._unsent is None
        self._unsent = data[sent:]
        if first:
            self.wake()

    # -- by the owner ---------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """True when there is nothing left to drive."""
        return self._state == "closed"

    def interest(self) -> tuple[int | None, bool]:
        """The socket to watch, and whether to wait until it takes bytes."""
        session = self._session
        if session is None or session.link.sock.fileno() < 0:
            return None, False
        return session.link.sock.fileno(), self._unsent is not None

    def on_writable(self) -> None:
        """Go on with what the socket did not take."""
        session = self._session
        with self._wire:
            if session is not None and self._unsent is not None:
                self._send(session, self._unsent)
        self.flush()
        if session is not None:
            self._guarded(session.tell_relief)

    def on_readable(self) -> None:
        """Read once, and tell what came."""
        session = self._session
        if session is not None:
            self._guarded(lambda: self._read(session))

    @property
    def has_work(self) -> bool:
        """Whether the listener has work that its owner may do."""
        return self._listener.has_work

    def take_work(self) -> Callable[[], object] | None:
        """Take some of that."""
        work = self._listener.take_work()
        return None if work is None else partial(self._guarded, work)

    def hand_over(self, *, late: bool) -> None:
        """Leave it to others."""
        self._guarded(lambda: self._listener.hand_over(late=late))

    def is_due(self, now: float) -> bool:
        """Whether ``tick`` has something to do but to write."""
        return self._is_woken or now >= self._due

    def tick(self, now: float) -> float | None:
        """Do what is due. Gives the time of the next thing to do."""
        if self.is_due(now):
            self._is_woken = False  # before anything is done: whoever wakes us meanwhile is not overlooked
            self._due = self._do_what_is_due(now)
        self._is_watching = now < self._burst_until
        # After that: who counted on it has written before.
        self.flush()
        due = min(self._due, now + FLUSH_SECONDS) if self._is_watching else self._due
        return None if due == math.inf else due

    def _do_what_is_due(self, now: float) -> float:
        while self._posted:
            self._guarded(self._posted.popleft())
        self._guarded(lambda: self._tick(now))
        due: list[float | None] = [math.inf]
        if self._state != "closed":
            self._guarded(lambda: due.append(self._listener.on_tick(now)))
        # Last: what went wrong in any of these steps has left something to do.
        due.append(self._next_event())
        return min(each for each in due if each is not None)

    def _guarded(self, step: Callable[[], object]) -> None:
        """Run one step; a bug in it ends the connection, never the thread that owns it."""
        try:
            step()
        except TransportError as exc:
            self._end(exc)
        # BaseException: a sys.exit() in somebody's callback must not leave the connection without its owner.
        except BaseException as exc:
            if self._is_lent_here():
                # A signal handler of the caller's raised it, most likely, as Python's own does for Control-C.
                error = ConnectionLost(f"interrupted amid an answer: {exc!r}")
                self._end(error, again_at_once=not isinstance(exc, Exception))
                raise
            log.exception("%s: unexpected error; the connection is made anew", self._name)
            self._end(ConnectionLost(f"an unexpected error ended the connection: {exc!r}"))

    def _is_lent_here(self) -> bool:
        return self._driver is not None and self._driver.loan.stepper == threading.get_ident()

    def _end(self, error: TransportError, *, again_at_once: bool = False) -> None:
        session = self._session
        if session is not None and self._is_lent_here():
            session.invalidate(error, again_at_once=again_at_once)
        else:
            self._lose(session, error)

    def _read(self, session: LiveSession) -> None:
        link = session.link
        try:
            if link.tls:
                with self._wire:
                    data = self._read_tls(link)
            else:
                data = link.read(self._read_size)
                self._read_size = LARGE_READ if data is not None and len(data) >= READ_SIZE else READ_SIZE
        except OSError as exc:
            raise self._ended(session, exc) from exc
        if data is None:
            return
        if not data:
            if self._state == "closing" and not self._is_lent_here():
                self._finish()
                return
            raise ConnectionLost(f"the broker at {link.where} closed the connection")
        self._last_read = time.monotonic()
        self._feed(session, data)

    @staticmethod
    def _read_tls(link: Link) -> bytes | None:
        data = link.read(READ_SIZE)
        while data and link.buffered():
            data += link.read(READ_SIZE) or b""
        return data

    def _feed(self, session: LiveSession, data: bytes) -> None:
        try:
            events = session.link.decoder.feed(data)
        except codec.FrameError as exc:
            raise ConnectionLost(f"the broker at {session.link.where} does not speak AMQP: {exc}") from exc
        self._feeding = threading.get_ident()
        self._is_watching = False  # what the listener does may take its time
        try:
            self._tell(session, events)
        finally:
            self._feeding = None
        self._is_watching = self._last_read < self._burst_until
        self.flush()

    def _tell(self, session: LiveSession, events: list[codec.Event]) -> None:
        deliveries: list[Delivery] = []
        for event in events:
            if type(event) is Delivery:
                deliveries.append(event)
                continue
            if deliveries:
                self._tell_deliveries(session, deliveries)
                deliveries = []
            self._handle(session, event)
        if deliveries:
            self._tell_deliveries(session, deliveries)

    def _tell_deliveries(self, session: LiveSession, deliveries: list[Delivery]) -> None:
        self._listener.on_deliveries(session, deliveries)
        if len(deliveries) > 1:
            self._burst_until = self._last_read + BURST_SECONDS

    def _handle(self, session: LiveSession, event: codec.Event) -> None:
        if isinstance(event, codec.Confirm):
            session.confirmed(event)
        elif isinstance(event, codec.ReturnEvent):
            if not session.note_returned(event):
                self._listener.on_returned(session, event.returned)
        elif isinstance(event, codec.Frame):
            session.link.handle(event)

    def _tick(self, now: float) -> None:
        if self._state == "waiting" and now >= self._retry_at:
            self._dial()
        elif self._state == "closing" and now >= self._close_by:
            self._finish()
        session = self._session
        if session is not None and session.link.heartbeat:
            self._beat(session, now)

    def _beat(self, session: LiveSession, now: float) -> None:
        interval = session.link.heartbeat
        if self._is_silent(session, now):
            raise ConnectionLost(
                f"the broker at {session.link.where} was silent for {now - self._last_read:.1f} s "
                f"(two heartbeats of {interval:g} s)"
            )
        if now - self._last_write >= interval / 2:
            self._last_write = now
            session.put(codec.HEARTBEAT)

    def _is_silent(self, session: LiveSession, now: float) -> bool:
        """Tell whether the broker was not heard for so long that it, too, has given the connection up."""
        interval = session.link.heartbeat
        return bool(interval) and now - self._last_read > 2 * interval

    def _next_event(self) -> float | None:
        """When ``_tick`` has something to do."""
        if self._state == "waiting":
            return self._retry_at
        session, times = self._session, []
        if self._state == "closing":
            times.append(self._close_by)
        if session is not None and (interval := session.link.heartbeat):
            times += [self._last_write + interval / 2, self._last_read + 2 * interval + 0.01]
        return min(times) if times else None

    # -- connecting -----------------------------------------------------------------------------------

    def _dial(self) -> None:
        url = self._urls[self._attempt % len(self._urls)]
        self._attempt += 1
        self._state = "dialing"
        try:
            plan = self._listener.plan()
            self._start_dialing(url, plan)
        except Exception as exc:
            self._dial_failed(NotConnected(f"no connection to the broker at {url.where}: {exc!r}"))

    def _start_dialing(self, url: BrokerURL, plan: Plan) -> None:
        def attempt() -> None:
            # In a thread of its own: kombu blocks, and deadlines have to be kept meanwhile.
            result: Link | TransportError
            try:
                result = dial(url, plan, **self._dial_options)
            except TransportError as exc:
                result = exc
            except Exception as exc:
                result = NotConnected(f"no connection to the broker at {url.where}: {exc!r}")
            self.post(lambda: self._dialed(result))
            if self.finished and isinstance(result, Link):
                result.discard()

        threading.Thread(target=attempt, name=f"{self._name}-dial", daemon=True).start()

    def _dialed(self, result: Link | TransportError) -> None:
        if isinstance(result, TransportError):
            if self._state == "dialing":
                self._dial_failed(result)
        elif self._state != "dialing":
            result.discard()
        else:
            self._open(result)

    def _dial_failed(self, error: TransportError) -> None:
        self.stats["failed_attempts"] += 1
        # What worked before may work again: permissions and limits change.
        refused = isinstance(error, (AccessRefused, TopologyMismatch)) and not self._was_open
        if refused or not self._reconnect:
            self._state = "idle"
            self._listener.on_failed(error, None)
            return
        delay = self._back_off()
        self._retry_at = time.monotonic() + delay
        self._state = "waiting"
        self._listener.on_failed(error, delay)

    def _back_off(self) -> float:
        rounds, position = divmod(self._attempt, len(self._urls))
        if position:
            return 0.0  # another broker of the list, at once
        delay = min(LONGEST_BACK_OFF, SHORTEST_BACK_OFF * 2.0 ** min(rounds, 10))
        return delay * random.uniform(0.5, 1.0)

    def _open(self, link: Link) -> None:
        self.stats["connections"] += 1
        session = LiveSession(self, link, self.stats["connections"])
        early = session.go_live()
        self._last_read = self._last_write = time.monotonic()
        with self._lock:
            self._outbox.clear()
            self._queued = 0
            self._unsent = None
            self._session = session
            self._state = "open"
        self._was_open = True
        self._listener.on_open(session)
        if early:
            self._feed(session, early)
        if link.tls:
            # The TLS layer may hold what came along with the last answer of the set-up; no poll announces that.
            self._read(session)

    @staticmethod
    def _ended(session: LiveSession, exc: OSError) -> ConnectionLost:
        return ConnectionLost(f"the connection to the broker at {session.link.where} ended: {exc}")

    def _lose(self, session: LiveSession | None, error: TransportError, *, again_at_once: bool = False) -> None:
        with self._lock:
            if session is None or self._session is not session:
                return
            self._session = None
            self._is_woken = True
            self._outbox.clear()
            self._unsent = None
            closing = self._state == "closing"
        with self._wire:  # nobody writes to the descriptor while it is closed
            session.link.discard()
        session.fail_confirms(error)
        if closing:
            self._state = "closed"
        elif self._reconnect:
            self._retry_at = time.monotonic() + (0.0 if again_at_once else self._pause_after_loss(session))
            self._state = "waiting"
        else:
            self._state = "idle"
        self._listener.on_lost(session, error)
        if self._state == "idle":
            self._listener.on_failed(NotConnected(str(error)), None)

    def _pause_after_loss(self, session: LiveSession) -> float:
        if time.monotonic() - session.opened < STABLE:
            # What ends each connection soon, whatever it is, must not be repeated without a pause.
            return self._back_off()
        self._attempt = 0
        # At once, but not all clients of a broker in the same moment.
        return random.uniform(0, SHORTEST_BACK_OFF)

    def _begin_close(self) -> None:
        session = self._session
        if session is None:
            self._state = "closed"
            return
        self._state = "closing"
        with self._lock:
            session.put_acks()  # the broker reads nothing behind a close
        session.link.begin_close()
        self.flush()

    def _finish(self) -> None:
        session = self._session
        if session is not None:
            self._lose(session, ConnectionLost("the connection was closed"))
        self._state = "closed"
