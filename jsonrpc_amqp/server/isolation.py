"""
Runs requests that may kill their process in processes that are expendable, so that a worker survives them.

A worker sends such a request to a child process over a socket pair and waits for the reply. If the child dies, the
worker knows which request did it, on any kind of queue, and no other request dies with it. Both ends are processes of
one program, so what they exchange is pickled; of a message, only the body and what was already decoded are sent.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import context
from ..jsonrpc.error_objects import internal_error
from ..runtime.forks import close_when_forked
from ..wire.display import printable
from .counters import Counters
from .job import Job

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

log = logging.getLogger("jsonrpc_amqp.server")

Dispatch = Callable[[bytes], bytes | None]

# A request that was redelivered, and then killed as many processes that ran nothing else, would kill the next one too.
# More than one, since a process may be killed for another reason, such as a lack of memory.
MOST_DEATHS = 2
# Attempts to start a process that runs a request; a module that was imported once is unlikely to fail twice in a row.
_STARTS = 2
# Seconds after a death in which redelivered requests are suspected.
_SUSPECTED_SECONDS = 600.0
# The broker redelivers about as fast as the supervisor notices a death, so the first request of several that are
# redelivered waits for this many seconds before it is held to be innocent; the others have waited for their turn.
_NOTICE_SECONDS = 0.2
_BURST_SECONDS = 5.0
# Redeliveries that a queue has counted, from which on a request is suspected without a death in this process's family.
_SUSPECTED_REDELIVERIES = 2


class KilledItsProcesses(Exception):
    """A request ended each process that ran it."""


class CannotIsolate(Exception):
    """No process could be started."""


class _Died(Exception):
    """The process died; ``has_begun``: while it ran the request."""

    def __init__(self, has_begun: bool) -> None:
        super().__init__(has_begun)
        self.has_begun = has_begun


@dataclass(frozen=True, slots=True)
class _Request:
    """What the child is told of a message (``context.Envelope``)."""

    body: bytes
    service: str
    routing_key: str
    headers: Mapping[str, Any]
    user_id: str | None
    redelivered: bool
    remaining: float | None


@dataclass(frozen=True, slots=True)
class _Begun:
    """The child sends it before the method runs."""


@dataclass(frozen=True, slots=True)
class _Acknowledge:
    """The child sends it when the message is to be acknowledged before the method runs."""


@dataclass(frozen=True, slots=True)
class _Reply:
    """The child sends it when all is done."""

    body: bytes | None
    is_dead_letter: bool
    may_be_dead_letter: bool
    is_given_back: bool
    failures: int
    refusals: int


def _connection(descriptor: int) -> Connection:
    # Imported when it is needed first: that takes milliseconds, and most programs isolate nothing.
    from multiprocessing.connection import Connection

    return Connection(descriptor)


# -- the worker's end -----------------------------------------------------------------------------------------


class Isolation:
    """
    Runs suspected requests in child processes, each of which runs one at a time.

    There are as many as threads call ``run`` at a time. They are started when they are needed first, and kept.

    The lock guards the list of idle processes. It is a leaf.

    Args:
        command: Starts a child; the number of the descriptor that it is to use is added to it.
        last_death: Returns when a process of this family last died, in monotonic seconds.
        counters: Where to count.
    """

    def __init__(self, command: Sequence[str], last_death: Callable[[], float], counters: Counters) -> None:
        self._command = command
        self._last_death = last_death
        self._counters = counters
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._noticed_at = -_BURST_SECONDS

    def suspects(self, job: Job, now: float) -> bool:
        """
        Whether a request is to be run in isolation: it was redelivered, and may be what killed a process.

        It may block for a moment, to hear of a death.

        Args:
            job: The request.
            now: Monotonic seconds.
        """
        if not job.delivery.redelivered:
            return False
        if job.redeliveries >= _SUSPECTED_REDELIVERIES or self._is_recent_death(now):
            return True
        if now - self._noticed_at > _BURST_SECONDS:
            time.sleep(_NOTICE_SECONDS)
            self._noticed_at = now
        return self._is_recent_death(now)

    def _is_recent_death(self, now: float) -> bool:
        return now - self._last_death() < _SUSPECTED_SECONDS

    def run(self, job: Job) -> bytes | None:
        """
        Return the reply to a request.

        Raises:
            KilledItsProcesses: It killed ``MOST_DEATHS`` processes; or one, and it was acknowledged before it ran.
            CannotIsolate: No process could be started; the request has not run.
        """
        self._counters.add("isolated")
        deaths = failed_starts = 0
        while deaths < MOST_DEATHS and not job.is_settled:
            try:
                return self._run_once(job)
            except _Died as death:
                if death.has_begun:
                    deaths += 1
                else:
                    failed_starts += 1
                if failed_starts == _STARTS:
                    raise CannotIsolate from None
        killed = "the process" if deaths == 1 else f"{deaths} processes"
        raise KilledItsProcesses(f"a redelivered request killed {killed} that ran nothing else")

    def close(self) -> None:
        """End the idle processes; one that runs a request ends when this process does."""
        with self._lock:
            children, self._idle = self._idle, []
        for child in children:
            child.close()

    def _run_once(self, job: Job) -> bytes | None:
        child = self._take()
        try:
            reply = child.run(job)
        except BaseException:
            child.close()
            raise
        job.is_dead_letter = reply.is_dead_letter
        job.may_be_dead_letter = reply.may_be_dead_letter
        if reply.is_given_back:
            job.give_back()
        self._counters.add("failed", reply.failures)
        self._counters.add("refused", reply.refusals)
        with self._lock:
            self._idle.append(child)
        return reply.body

    def _take(self) -> _Child:
        while (child := self._pop_idle()) is not None:
            if not child.has_ended:
                return child
            child.close()
        try:
            return _Child(self._command)
        except OSError as error:
            log.error("no process can be started to run a request in isolation: %s", error)
            raise _Died(has_begun=False) from None

    def _pop_idle(self) -> _Child | None:
        with self._lock:
            return self._idle.pop() if self._idle else None


class _Child:
    """A child process, seen from the worker. Used by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._connection = _connection(ours.detach())
            try:
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            except BaseException:
                self._connection.close()
                raise
        close_when_forked(self)
        log.info("process %d runs redelivered requests, one at a time", self._process.pid)

    @property
    def has_ended(self) -> bool:
        """Whether the process ended while it was idle."""
        return self._process.poll() is not None

    def run(self, job: Job) -> _Reply:
        """
        Run one request.

        Raises:
            _Died: The process ended first.
        """
        has_begun = False
        try:
            self._connection.send(_request(job))
            while True:
                message = self._connection.recv()
                if isinstance(message, _Reply):
                    return message
                if isinstance(message, _Acknowledge):
                    job.acknowledge()
                else:
                    has_begun = True
        except (EOFError, OSError):
            self._log_end(job, has_begun)
            raise _Died(has_begun) from None

    def close(self) -> None:
        """Have the process end, and wait for it: at the end of the socket it does so at once."""
        self._connection.close()
        self._process.wait()

    def close_in_child(self) -> None:
        """Close this process's copy of the socket: the isolated process ends when no copy is left."""
        self._connection.close()

    def _log_end(self, job: Job, has_begun: bool) -> None:
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if has_begun:
            log.error(
                "process %d %s while it ran a redelivered request (%s)",
                self._process.pid,
                how,
                printable(job.delivery.routing_key),
            )
        else:
            log.error("process %d, which runs redelivered requests, %s while it ran none", self._process.pid, how)


def _request(job: Job) -> _Request:
    remaining = None if job.deadline is None else job.deadline - time.monotonic()
    return _Request(job.body, job.service, job.routing_key, dict(job.headers), job.user_id, job.redelivered, remaining)


# -- the child's end ------------------------------------------------------------------------------------------


class _Envelope:
    """The message of a request, seen from the child (``context.Envelope``)."""

    def __init__(self, request: _Request, send: Callable[[object], None]) -> None:
        self.service = request.service
        self.routing_key = request.routing_key
        self.headers = request.headers
        self.user_id = request.user_id
        self.redelivered = request.redelivered
        self.deadline = None if request.remaining is None else time.monotonic() + request.remaining
        self.is_wanted = True
        self.is_dead_letter = False
        self.may_be_dead_letter = True
        self.is_given_back = False
        self._send = send

    def acknowledge(self) -> None:
        self._send(_Acknowledge())

    def dead_letter(self) -> None:
        self.is_dead_letter = self.may_be_dead_letter

    def forbid_dead_letter(self) -> None:
        self.is_dead_letter = self.may_be_dead_letter = False

    def give_back(self) -> None:
        self.is_given_back = True


def serve_isolated(dispatch: Dispatch, counts: object, descriptor: int) -> None:
    """
    Run the requests that come over a socket, on the calling thread, until the worker closes it or dies.

    Args:
        dispatch: Makes the replies.
        counts: Has ``failures`` and ``refusals``, if ``dispatch`` counts them.
        descriptor: Of the socket.
    """
    # A process manager may signal a whole group. The worker drains then; this process ends when the worker does.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = _connection(descriptor)
    requests = _Requests(connection)
    while (request := requests.next()) is not None:
        envelope = _Envelope(request, connection.send)
        failures, refusals = _counts(counts)
        connection.send(_Begun())
        body, uncounted = _run(dispatch, request, envelope)
        failures_after, refusals_after = _counts(counts)
        reply = _Reply(
            body,
            envelope.is_dead_letter,
            envelope.may_be_dead_letter,
            envelope.is_given_back,
            failures_after - failures + uncounted,
            refusals_after - refusals,
        )
        with suppress(OSError):  # the worker has died: the end of the socket is read next
            connection.send(reply)


class _Requests:
    """Reads requests on a thread of its own, so that the end of the worker is noticed while a method runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._is_running = False
        threading.Thread(target=self._read, name="isolation", daemon=True).start()

    def next(self) -> _Request | None:
        """Wait for the next request; None: there is none any more."""
        self._is_running = False
        request = self._queue.get()
        self._is_running = True
        return request

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._queue.put(self._connection.recv())
        if self._is_running:
            # The request is delivered again to another process, which must not run it at the same time.
            os._exit(1)
        self._queue.put(None)


def _run(dispatch: Dispatch, request: _Request, envelope: _Envelope) -> tuple[bytes | None, int]:
    """Return the reply, and how many errors it holds that the dispatcher has not counted itself."""

    def run() -> bytes | None:
        context.enter(context.Request(None, None, False, envelope))
        return dispatch(request.body)

    try:
        return copy_context().run(run), 0
    except BaseException:
        # Our own dispatcher never raises; a user's may, which is no reason for the process to end.
        log.exception("the dispatcher raised on %s", printable(request.routing_key))
        return internal_error(), 1


def _counts(counts: object) -> tuple[int, int]:
    return getattr(counts, "failures", 0), getattr(counts, "refusals", 0)
