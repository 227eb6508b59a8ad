"""
The connection of one client or server to RabbitMQ: connect, read, keep alive, reconnect.

A state machine without a loop of its own (``runtime.base.Driven``): a runtime calls it, and one thread at a time, the
leader, reads the socket, runs py-amqp and calls the listener. Other threads use the session, and post what is rare.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum

from ..errors import ConnectionLost, NotConnected, TransportError
from ..options import ConnectionOptions
from ..runtime.base import Runtime
from .base import Listener
from .dialer import Attempt, Dialer
from .inbox import FLUSH_SECONDS
from .link import Link
from .session import LiveSession
from .url import check_tls, common_user, parse_urls

log = logging.getLogger("jsonrpc_amqp.transport")

_INTERRUPTED = "interrupted while a reply was read"
# Seconds beyond its timeout that ``close`` waits for the runtime.
_CLOSE_SLACK = 0.2


class State(Enum):
    """What a connection waits for; docs/architecture.md has the table of its changes."""

    IDLE = "start()"
    WAITING = "the time of the next attempt to connect"
    DIALING = "the attempt to connect"
    OPEN = "the socket, and heartbeats"
    CLOSING = "the broker's connection.close-ok"
    CLOSED = "nothing"


class Connection:
    """
    Connects one client or server to RabbitMQ, and keeps it connected.

    ``_lock`` guards the state where ``start`` and the leader meet. The session has a lock of its own; neither is taken
    under the other.

    Args:
        url: ``amqp://`` or ``amqps://``; several, joined by ``;``, are tried in turn.
        options: How to connect.
        runtime: Drives it.

    Raises:
        ValueError: The URL is malformed, or the TLS options would not be used.
    """

    def __init__(self, url: str, options: ConnectionOptions, runtime: Runtime) -> None:
        urls = parse_urls(url)
        check_tls(urls, options.tls)
        self.user = common_user(urls)
        self._options = options
        self.name = options.name
        self.runtime = runtime
        self.stats: Counter[str] = Counter()
        self._pid: int | None = None
        self._lock = threading.RLock()
        self._state = State.IDLE
        self._is_started = False
        self._session: LiveSession | None = None
        self._listener: Listener
        self._posted: deque[Callable[[], None]] = deque()
        self._dialer = Dialer(urls, options, runtime)
        self._retry_at = 0.0
        self._close_by = 0.0
        self._refusal: TransportError | None = None  # that stands, and is to be reported
        self._due = 0.0  # when there is more to do than to read and to write
        self._is_woken = False

    # -- from any thread ------------------------------------------------------------------------------

    def start(self, listener: Listener) -> None:
        """Begin to connect, unless connecting or connected. Returns at once."""
        with self._lock:
            if self._state is not State.IDLE:
                return
            self._pid = os.getpid()
            self._listener = listener
            self._retry_at = time.monotonic()
            self._refusal = self._dialer.start(self._retry_at)
            if not self._is_started:
                self.runtime.start(self, name=f"{self.name}-io")
                self._is_started = True
            if self._refusal is None:
                self._state = State.WAITING
        self.wake()

    def would_deadlock(self) -> bool:
        """Whether nothing can arrive or leave while the calling thread waits: it leads, connects, or writes."""
        if self.runtime.would_deadlock() or ((those := self._dialer.threads) and threading.get_ident() in those):
            return True
        session = self._session
        return session is not None and session.outbox.is_writing_here()

    def wake(self) -> None:
        """Have the listener's ``on_tick`` called soon."""
        self._is_woken = True
        if self._is_started:
            self.runtime.wake()

    def post(self, action: Callable[[], None]) -> None:
        """Have the leader do something."""
        self._posted.append(action)
        self.wake()

    def invalidate(self, error: BaseException) -> None:
        """Send nothing more over the session, and have the leader end it."""
        if self._session is not None:
            # Else it is an exception of a signal handler; of anything else only if it is an Exception.
            lost = error if isinstance(error, TransportError) else ConnectionLost(f"{_INTERRUPTED}: {error!r}")
            self._session.invalidate(lost, again_at_once=not isinstance(error, Exception))

    def abandon(self) -> None:
        """Let go of the socket: nothing drives this connection any more."""
        session, self._session = self._session, None
        self._dialer.cancel()
        self._state = State.CLOSED
        if session is not None:
            session.close()

    def close(self, timeout: float) -> None:
        """Write what is queued, close the connection and stop, within about ``timeout`` seconds."""
        if not self._is_started or os.getpid() != self._pid:
            # Never started; or in a forked process, which has no such thread, and where the socket is the parent's.
            self._state = State.CLOSED
            return
        self._close_by = time.monotonic() + timeout
        self.post(self._begin_close)
        if not self.would_deadlock():
            self.runtime.close(timeout + _CLOSE_SLACK)

    # -- by the leader: what it watches ---------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to drive."""
        return self._state is State.CLOSED

    def interest(self) -> tuple[int | None, bool]:
        """Return the descriptor of the socket to watch, and whether to watch for room to write, too."""
        session = self._session
        if session is None or (fd := session.link.sock.fileno()) < 0:
            return None, False
        return fd, session.outbox.is_stalled

    def on_writable(self) -> None:
        """Write what the socket did not take before."""
        session = self._session
        if session is not None:
            session.outbox.go_on()
            self._guard(session.report_relief)

    def on_readable(self) -> None:
        """
        Read once, and handle what came.

        Raises:
            ConnectionLost: The broker is gone, or does not speak AMQP.
        """
        session = self._session
        if session is not None:
            session.inbox.read()

    def fail(self, error: BaseException) -> None:
        """End the session because of an error."""
        session = self._session
        if not isinstance(error, TransportError):
            log.error("%s: unexpected error; the connection is made again", self.name, exc_info=error)
            error = ConnectionLost(f"an unexpected error ended the connection: {error!r}")
        if session is not None:
            self.end(session, error)

    def is_due(self, now: float) -> bool:
        """Whether ``tick`` has something to do but to write."""
        return self._is_woken or now >= self._due

    def tick(self, now: float) -> float | None:
        """Do what is due; return when to call again."""
        if self.is_due(now):
            self._is_woken = False  # first: a wake-up from now on is for the next tick
            self._due = self._do_what_is_due(now)
        session, due = self._session, self._due
        if session is not None:
            session.outbox.flush_is_imminent = session.inbox.is_in_burst(now)
            # Behind that: a thread that relies on it has queued before.
            session.outbox.flush()
            if session.outbox.flush_is_imminent:
                due = min(due, now + FLUSH_SECONDS)
        return None if due == math.inf else due

    def _do_what_is_due(self, now: float) -> float:
        while self._posted:
            self._guard(self._posted.popleft())
        self._guard(lambda: self._advance(now))
        due: list[float | None] = [math.inf]
        if not self.finished:
            self._guard(lambda: due.append(self._listener.on_tick(now)))
        # Last: an error in any of these steps leaves something to do.
        due.append(self._next_event())
        return min(each for each in due if each is not None)

    def _guard(self, step: Callable[[], object]) -> None:
        """Do one step; an error ends the session, never the thread that leads."""
        try:
            step()
        # BaseException: a sys.exit() in a user's callback must not leave the connection without a leader.
        except BaseException as exc:
            self.fail(exc)

    def _advance(self, now: float) -> None:
        refusal, self._refusal = self._refusal, None
        if refusal is not None and self._state is State.IDLE:
            self._listener.on_failed(refusal, None)
        elif self._state is State.WAITING and now >= self._retry_at:
            self._dial()
        elif self._state is State.DIALING and now >= self._dialer.give_up_at:
            self._dial_failed(self._dialer.give_up())
        elif self._state is State.CLOSING and now >= self._close_by:
            self.finish()
        if self._session is not None:
            self._session.advance(now)

    def _next_event(self) -> float:
        """Return when ``_advance`` has something to do."""
        if self._state is State.WAITING:
            return self._retry_at
        if self._state is State.DIALING:
            return self._dialer.give_up_at
        session = self._session
        event = math.inf if session is None else session.next_event()
        return min(event, self._close_by) if self._state is State.CLOSING else event

    # -- by the leader: connecting --------------------------------------------------------------------

    def _dial(self) -> None:
        self._state = State.DIALING
        try:
            # kombu blocks, and deadlines have to be kept meanwhile.
            self._dialer.dial(self._listener.plan, self._attempt_ended)
        except NotConnected as exc:
            self._dial_failed(exc)

    def _attempt_ended(self, attempt: Attempt, result: Link | TransportError) -> None:
        # By the thread that connects.
        self.post(lambda: self._dialed(attempt, result))
        if self.finished and isinstance(result, Link):
            result.discard()

    def _dialed(self, attempt: Attempt, result: Link | TransportError) -> None:
        is_current = self._dialer.accept(attempt)
        if isinstance(result, TransportError):
            if is_current:
                self._dial_failed(result)
        elif is_current:
            self._open(result)
        else:
            result.discard()

    def _dial_failed(self, error: TransportError) -> None:
        self.stats["failed_attempts"] += 1
        error, delay = self._dialer.failed(error)
        if delay is None:
            self._state = State.IDLE
        else:
            self._retry_at = time.monotonic() + delay
            self._state = State.WAITING
        self._listener.on_failed(error, delay)

    def _open(self, link: Link) -> None:
        try:
            session = LiveSession(self, self._listener, link, self.stats["connections"] + 1)
            early = session.go_live()
        except Exception as exc:  # the attempt has failed after all
            self._dial_failed(NotConnected(f"no connection to the broker at {link.where}: {exc!r}"))
            self._guard(link.discard)
            return
        self.stats["connections"] += 1
        with self._lock:
            self._session = session
            self._state = State.OPEN
        self._dialer.opened()
        self._listener.on_open(session)
        if early:
            session.inbox.feed(early)
        if link.tls:
            # The TLS layer may hold what came along with the last answer of the set-up; no poll reports that.
            session.inbox.read()

    # -- by the leader: the end -----------------------------------------------------------------------

    def end(self, session: LiveSession, error: TransportError, *, again_at_once: bool = False) -> None:
        """End a session, unless it has ended."""
        with self._lock:
            if self._session is not session:
                return
            self._session = None
            self._is_woken = True
            is_closing = self._state is State.CLOSING
        self._guard(self.runtime.unwatch)
        self._guard(session.close)
        if is_closing:
            self._state = State.CLOSED
        elif self._options.reconnect:
            now = time.monotonic()
            self._retry_at = now + (0.0 if again_at_once else self._dialer.lost(now - session.opened))
            self._state = State.WAITING
        else:
            self._state = State.IDLE
        # Each by itself: an error of one must not keep the others from being reported, nor end the leader.
        self._guard(lambda: session.fail_confirms(error))
        self._guard(lambda: self._listener.on_lost(session, error))
        if self._state is State.IDLE:
            self._guard(lambda: self._listener.on_failed(NotConnected(str(error)), None))

    def finish(self) -> None:
        """End for good, if this connection is closing."""
        if self._state is not State.CLOSING:
            return
        if self._session is not None:
            self.end(self._session, ConnectionLost("the connection was closed"))
        self._state = State.CLOSED

    def _begin_close(self) -> None:
        session = self._session
        if session is None:
            self._dialer.cancel()
            self._state = State.CLOSED
        elif self._state is not State.CLOSING:  # two threads may close it
            self._state = State.CLOSING
            session.begin_close()
