"""
A connection without a loop of its own: outbox, confirms, acks, heartbeats, reconnecting.

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
from . import codec
from .base import DIRECT_REPLY_TO, Delivery, Filled, Listener, Outcome, Plan, Publish, QueueFacts
from .driver import IOThread
from .rabbitmq import BrokerURL, Link, check_tls, dial, parse_urls
from .tags import Confirms, Recent, Unacked, find_refused

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
# What may wait in the outbox before callers are held back: some full-size messages.
CONGESTED_BYTES = 64 << 20


class Engine:
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
        self._session: _Session | None = None
        self._outbox: list[bytes] = []
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
                session.doom(ConnectionLost(f"interrupted amid a write: {exc!r}"), again_at_once=True)
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

    def _send(self, session: _Session, data: memoryview) -> None:
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
            session.doom(error, again_at_once=again_at_once)
        else:
            self._lose(session, error)

    def _read(self, session: _Session) -> None:
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

    def _feed(self, session: _Session, data: bytes) -> None:
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

    def _tell(self, session: _Session, events: list[codec.Event]) -> None:
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

    def _tell_deliveries(self, session: _Session, deliveries: list[Delivery]) -> None:
        self._listener.on_deliveries(session, deliveries)
        if len(deliveries) > 1:
            self._burst_until = self._last_read + BURST_SECONDS

    def _handle(self, session: _Session, event: codec.Event) -> None:
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

    def _beat(self, session: _Session, now: float) -> None:
        interval = session.link.heartbeat
        if self._is_silent(session, now):
            raise ConnectionLost(
                f"the broker at {session.link.where} was silent for {now - self._last_read:.1f} s "
                f"(two heartbeats of {interval:g} s)"
            )
        if now - self._last_write >= interval / 2:
            self._last_write = now
            session.put(codec.HEARTBEAT)

    def _is_silent(self, session: _Session, now: float) -> bool:
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
        session = _Session(self, link, self.stats["connections"])
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
    def _ended(session: _Session, exc: OSError) -> ConnectionLost:
        return ConnectionLost(f"the connection to the broker at {session.link.where} ended: {exc}")

    def _lose(self, session: _Session | None, error: TransportError, *, again_at_once: bool = False) -> None:
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

    def _pause_after_loss(self, session: _Session) -> float:
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


class _Session:
    """One live connection of an engine; see ``base.Session``."""

    def __init__(self, engine: Engine, link: Link, generation: int) -> None:
        self._engine = engine
        self.link = link
        self.generation = generation
        self.opened = time.monotonic()
        self.unacked = Unacked()
        self._patience = 2 * link.heartbeat or math.inf  # of silence; see ``Engine._is_silent``
        self._recent = Recent()
        self._confirms = Confirms()
        self._held: list[tuple[Publish, Outcome | None]] | None = None
        self._held_acks: list[int] = []
        self._blocked = False
        self._held_back = False
        self._doomed = False

    # -- from any thread ------------------------------------------------------------------------------

    @property
    def reply_queue(self) -> str:
        return self.link.reply_queue

    def publish(self, message: Publish | Filled, *, acks: Delivery | None = None) -> bool:
        engine = self._engine
        with engine._lock:
            if self._is_gone():
                engine.stats["dropped_acks"] += acks is not None
                return False
            if self._held is not None:
                self._held.append((message.message() if isinstance(message, Filled) else message, None))
            else:
                # Encoded under the lock: the channel may be another the moment after.
                self._put(self.link.encoder.publish(self.link.publisher, message))
                self._recent.add(message)
            if acks is not None:
                self._finish(acks)
        return True

    def publish_confirmed(self, message: Publish, outcome: Outcome) -> bool:
        engine = self._engine
        with engine._lock:
            if self._is_gone():
                return False
            if self._held is not None:
                self._held.append((message, outcome))
                return True
            link = self.link
            # Direct answers come only to the channel that their requests left by.
            channel = link.publisher if message.reply_to == DIRECT_REPLY_TO else link.confirmer
            self._put(link.encoder.publish(channel, message))
            self._confirms.add(message, outcome)
        return True

    def ack(self, delivery: Delivery) -> None:
        engine = self._engine
        with engine._lock:
            if self._is_gone():
                engine.stats["dropped_acks"] += 1
            else:
                self._finish(delivery)

    def _finish(self, delivery: Delivery) -> None:
        if self._held is None:
            self.unacked.finish(delivery.tag)
        else:
            self._held_acks.append(delivery.tag)  # its answer is among what is held back, most likely

    def requeue(self, delivery: Delivery) -> None:
        self._refuse(delivery, requeue=True)

    def reject(self, delivery: Delivery) -> None:
        self._refuse(delivery, requeue=False)

    def _refuse(self, delivery: Delivery, *, requeue: bool) -> None:
        engine = self._engine
        with engine._lock:
            if self._is_gone():
                engine.stats["dropped_acks"] += 1
            else:
                self.unacked.give_up(delivery.tag)
                self._put(codec.reject(self.link.consumer, delivery.tag, requeue))

    def flush(self) -> None:
        self._engine.flush()

    def flush_soon(self) -> bool:
        return self._engine._is_watching

    @property
    def congested(self) -> bool:
        if not self._blocked and self._engine._queued <= CONGESTED_BYTES:
            return False
        self._held_back = True  # whoever asked waits to be told of the end, which may have come meanwhile
        return self._is_congested()

    def _is_congested(self) -> bool:
        return self._blocked or self._engine._queued > CONGESTED_BYTES

    def bind(self, routing_key: str, outcome: Outcome) -> None:
        self._post(lambda: self.link.bind(routing_key, outcome), lambda: outcome(_gone()))

    def renew(self) -> None:
        self._post(self._renew, lambda: None)

    def inspect(self, queue: str, found: Callable[[QueueFacts | None], None]) -> None:
        self._post(lambda: self.link.inspect(queue, found), lambda: found(None))

    def cancel(self, outcome: Outcome) -> None:
        self._post(lambda: self.link.cancel(lambda: outcome(None)), lambda: outcome(_gone()))

    def _is_gone(self) -> bool:
        # After a pause of this process, or of the machine, the connection is dead, most likely, and nobody knows yet.
        # Once that was said it has to come true, whatever arrives meanwhile: an answer was not sent because of it.
        engine = self._engine
        if engine._session is not self or self._doomed:
            return True
        if time.monotonic() - engine._last_read > self._patience:
            self.doom(ConnectionLost(f"the broker at {self.link.where} was silent for two heartbeats"))
        return self._doomed

    def doom(self, error: TransportError, *, again_at_once: bool = False) -> None:
        """Have nothing more published, and the owner end it."""
        self._doomed = True
        self._engine.post(lambda: self._engine._lose(self, error, again_at_once=again_at_once))

    def put(self, data: bytes) -> None:
        """Queue bytes that are ready for the wire."""
        with self._engine._lock:
            self._put(data)

    def put_acks(self) -> None:
        """Queue the acks that are due, behind the answers that they stand for. With the engine's lock held."""
        for tag, multiple in self.unacked.collect():
            self._put(codec.ack(self.link.consumer, tag, multiple))

    def _put(self, data: bytes) -> None:
        self._engine._outbox.append(data)
        self._engine._queued += len(data)

    def _post(self, action: Callable[[], None], gone: Callable[[], None]) -> None:
        engine = self._engine
        engine.post(lambda: action() if engine._session is self else gone())

    # -- by the owner ---------------------------------------------------------------------------------

    def _renew(self) -> None:
        if not self.link.is_busy:  # a broker that is slow enough as it is can wait for the next time
            self.link.renew()

    def go_live(self) -> bytes:
        """Take the socket over from py-amqp. Gives the bytes that it had read already."""
        return self.link.go_live(
            write=self.put,
            on_channel_closing=self._hold,
            on_channel_closed=self._channel_closed,
            on_consumer_cancelled=self._consumer_cancelled,
            on_blocked=self._set_blocked,
            on_closed=self._closed,
        )

    def note_returned(self, event: codec.ReturnEvent) -> bool:
        """True when the message was one that is to be confirmed, so that its outcome will tell."""
        if event.channel != self.link.confirmer:
            return False
        with self._engine._lock:
            self._confirms.note_returned(event.returned)
        return True

    def confirmed(self, confirm: codec.Confirm) -> None:
        """Tell the outcomes that a confirm decides."""
        if confirm.channel != self.link.confirmer:
            return
        with self._engine._lock:
            settled = self._confirms.settle(confirm.tag, confirm.multiple, confirm.nack)
        for outcome, error in settled:
            outcome(error)

    def fail_confirms(self, error: TransportError) -> None:
        """Tell all that still wait for a confirm that none will come."""
        with self._engine._lock:
            outcomes = [outcome for _message, outcome in self._confirms.drain()]
            outcomes += [outcome for _message, outcome in self._held or () if outcome is not None]
        for outcome in outcomes:
            outcome(ConnectionLost(f"{error}; the message may have been taken, or not"))

    def tell_relief(self) -> None:
        """Tell the listener when somebody was held back and need not be any more."""
        if self._held_back and not self._is_congested():
            self._held_back = False
            self._engine._listener.on_congested(self, False)

    def _set_blocked(self, blocked: bool) -> None:
        self._blocked = blocked
        log.warning("%s: the broker %s publishers", self._engine._name, "blocks" if blocked else "no longer blocks")
        if blocked:
            self._held_back = True
            self._engine._listener.on_congested(self, True)
        else:
            self.tell_relief()

    def _closed(self) -> None:
        if self._engine._state == "closing":
            self._engine._finish()

    def _consumer_cancelled(self) -> None:
        raise ConnectionLost("the broker cancelled the consumer: its queue was deleted, or moved to another node")

    def _channel_closed(self, channel: int, error: TransportError) -> None:
        link = self.link
        if channel == link.confirmer and channel != link.consumer:
            self._confirmer_closed(error)
        elif channel == link.publisher:
            self._publisher_closed(error)
        else:
            raise ConnectionLost(f"the broker closed the channel that consumes: {error}")

    def _publisher_closed(self, error: TransportError) -> None:
        engine, link = self._engine, self.link
        listener = engine._listener
        with engine._lock:
            recent, self._recent = list(self._recent), Recent()
        messages = [message for message in recent if listener.awaits(message)]
        places = find_refused(messages, str(error))
        # A request that was handled must not be sent again, so one must be the only candidate. An answer may: whoever
        # has it drops the second; and what is refused once is refused each time, so the first is the one.
        if not places or (len(places) > 1 and link.sends_requests):
            raise ConnectionLost(f"the broker closed the channel that publishes: {error}")
        refused, behind = messages[places[0]], messages[places[0] + 1 :]
        listener.on_refused(self, error, refused)
        gone = isinstance(error, TopologyMismatch)
        if link.publisher == link.consumer or (gone and not link.can_renew):
            # The channel took the answers' consumer with it; or an exchange is gone for good.
            raise ConnectionLost(f"the broker closed the channel that publishes: {error}")
        link.reopen_publisher()
        again: list[tuple[Publish, Outcome | None]] = [(message, None) for message in behind]
        if gone:
            link.renew(lambda: self._resume(again))
        else:
            self._resume(again)

    def _confirmer_closed(self, error: TransportError) -> None:
        with self._engine._lock:
            waiting = self._confirms.drain()
            self._confirms = Confirms()
        refused = find_refused((message for message, _ in waiting), str(error))
        if len(refused) > 1:
            # Some of them may be in the queue, their confirms still on the way.
            refused = []
        unknown = ConnectionLost(f"the broker closed the channel because of another message: {error}")
        for position, (_message, outcome) in enumerate(waiting):
            outcome(error if position in refused else unknown.again())
        if isinstance(error, TopologyMismatch):
            raise ConnectionLost(f"the broker closed the channel that publishes: {error}")
        self.link.reopen_confirmer()
        self._resume([])

    def _hold(self, channel: int) -> None:
        """Hold publishes back while a channel is replaced: one more on the old number ends the connection."""
        if channel in (self.link.publisher, self.link.confirmer):
            with self._engine._lock:
                self._held = []

    def _resume(self, again: list[tuple[Publish, Outcome | None]]) -> None:
        with self._engine._lock:
            held, self._held = self._held or [], None
            acks, self._held_acks = self._held_acks, []
        for message, outcome in again + held:
            if outcome is None:
                self.publish(message)
            else:
                self.publish_confirmed(message, outcome)
        with self._engine._lock:
            for tag in acks:
                self.unacked.finish(tag)


def _gone() -> ConnectionLost:
    return ConnectionLost("the connection ended", may_have_run=False)
