"""
Serves a service by asking a JSON-RPC server over HTTP (the only import of aiohttp).

    with HttpBridge("http://127.0.0.1:8000/") as bridge:
        Server("amqp://", "example", dispatcher=bridge, concurrency=32).serve_forever()
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import selectors
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from types import SimpleNamespace, TracebackType
from typing import Any, NamedTuple

from .. import context
from ..errors import NO_ANSWER, NOT_DELIVERED, MissingExtra, RemoteError
from ..jsonrpc import inspection
from ..logs import on_own_thread
from ..options import MAX_SIZE, TIMEOUT
from ..runtime.dropped import DropWatch
from ..runtime.forks import close_when_forked
from ..wire.display import printable
from .headers import TOKEN, content_coding, described

try:
    import aiohttp
    from yarl import URL
except ImportError as exc:
    raise MissingExtra(__name__, "aiohttp", "http") from exc

log = logging.getLogger("jsonrpc_amqp.bridge")

# uvicorn and Node close a connection after 5 s of idleness. If that happens just as a request is sent, nothing says
# whether the request ran, so close idle connections earlier than they do.
_IDLE_SECONDS = 4.0
# Bodies are forwarded as they are, so ask for no compression: it would also hide the size of a response.
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
_CHUNK_BYTES = 1 << 16
# Seconds; aiohttp takes 0 for no timeout.
_MIN_TIMEOUT = 0.001
_CLOSE_SECONDS = 5.0
_TOKEN = re.compile(TOKEN)


class _Failure(RemoteError):
    """What an HTTP server did instead of responding; ``details`` are for the log alone."""

    details = ""


class _Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def fault(self) -> str:
        """Why it is no JSON-RPC response, as callers may know it."""
        coding = content_coding([self.headers.get("Content-Encoding", "")])
        if self.status != 200:
            return f"answered with HTTP status {self.status}"
        if coding is not None:
            return f"gave an answer with the content encoding {coding}, which was not asked for"
        return "gave an answer that is no JSON-RPC 2.0 response"


class HttpBridge:
    """
    A dispatcher that posts each request body, unchanged and once, to an HTTP server, and returns the response body.

    A call without a JSON-RPC response, by its id, gets an error: ``NOT_DELIVERED``, or ``NO_ANSWER`` where the method
    may have run; responses to what was not requested are removed. A notification that was not accepted becomes a dead
    letter. A JSON-RPC body with an HTTP error status is a response like any other. Redirections are not followed. Any
    number of threads may use one bridge.

    Args:
        url: ``http://`` or ``https://``; the certificate is verified. User and password in it become basic
            authentication.
        timeout: Seconds for one HTTP request as a whole; less where its caller has less left.
        headers: HTTP headers for each request.
        max_size: Most bytes of a response body.

    Raises:
        ValueError: The URL, a header or the timeout is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = TIMEOUT,
        headers: Mapping[str, str] | None = None,
        max_size: int = MAX_SIZE,
    ) -> None:
        try:
            self._url = URL(url)
        except ValueError:
            # Without its text, which may have the password.
            raise ValueError(
                "the URL of the HTTP server is malformed: is its port no number up to 65535, or is a '/', '?', '#' or "
                "'@' in the password not escaped?"
            ) from None
        if self._url.scheme not in ("http", "https") or not self._url.host or self._url.port == 0:
            raise ValueError("a bridge leads to a URL such as http://127.0.0.1:8000/")
        if not timeout > 0:
            raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")
        self._origin = printable(str(self._url.origin()))
        self._timeout = timeout
        # Header names are case-insensitive.
        own = {name.title(): value for name, value in _checked(headers or {}).items()}
        self._headers = {**_HEADERS, **own}
        if (self._url.user, self._url.password) != (None, None) and "Authorization" in own:
            raise ValueError("either a user in the URL or a header Authorization, not both")
        self._max_size = max_size
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._thread: _LoopThread | None = None
        self._closed = False
        self._watch: DropWatch | None = None
        close_when_forked(self)

    def __repr__(self) -> str:
        return f"<HttpBridge to {self._origin}>"

    def __call__(self, body: bytes) -> bytes | None:
        """
        Return the response to one request body; None for a notification.

        What goes wrong is a JSON-RPC error in the response; nothing is raised.
        """
        try:
            asked = inspection.read(body)
        except RemoteError as error:
            return inspection.error(inspection.UNREADABLE, error)
        request = context.current_or_none()
        left = None if request is None else request.remaining
        timeout = self._timeout if left is None else min(left, self._timeout)
        try:
            answer = self._wait_for(lambda thread: self._exchange(thread, body, max(timeout, _MIN_TIMEOUT)))
            response = self._checked(asked, answer)
        except _Failure as error:
            return self._report_failure(asked, error)
        self._count("answered")
        return response

    @property
    def failures(self) -> int:
        """The number of bodies without a response, or with one to some calls only; a ``Server`` counts them, too."""
        return self._counts["failed"] + self._counts["incomplete"]

    def stats(self) -> dict[str, int]:
        """
        Return counters since the start.

        They count bodies: ``answered``, ``incomplete`` (of these: calls in it had no valid response), ``failed``,
        ``lost_notifications`` (of these).
        """
        with self._lock:
            return {"answered": 0, "incomplete": 0, "failed": 0, "lost_notifications": 0, **self._counts}

    def close(self) -> None:
        """Cancel requests in flight, which end in errors, and close the connections."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
            thread.join(_CLOSE_SECONDS)

    def close_in_child(self) -> None:
        """Have a forked process begin with a thread of its own; another thread may have held the lock at the fork."""
        self._lock = threading.Lock()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close_in_child()

    def __enter__(self) -> HttpBridge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- on the thread of a handler ----------------------------------------------------------------------

    def _wait_for(self, exchange: Callable[[_LoopThread], Coroutine[Any, Any, _Answer]]) -> _Answer:
        with self._lock:
            thread = self._running_thread()
            future = asyncio.run_coroutine_threadsafe(exchange(thread), thread.loop)
        try:
            return future.result()
        except CancelledError:
            raise self._failure(True, "had not answered when the bridge was closed") from None

    def _running_thread(self) -> _LoopThread:
        if self._closed:
            raise _Failure(NOT_DELIVERED, f"the bridge to {self._origin} is closed")
        thread = self._thread
        if thread is None or not thread.is_alive():  # it may have ended otherwise than by close()
            try:
                thread = self._thread = _LoopThread(self._headers)
            except Exception as exc:
                raise _Failure(NOT_DELIVERED, f"the bridge can have no thread, or no open file: {exc}") from exc
            advice = "call close(), or use it in a with block"
            self._watch = DropWatch(f"HttpBridge to {self._origin}", advice, thread.is_open, thread.stop)
        if thread.is_current():  # a log handler
            raise _Failure(NOT_DELIVERED, "the bridge was called by its own thread, which would wait for itself")
        return thread

    def _checked(self, asked: inspection.Requested, answer: _Answer) -> bytes | None:
        """Return the response to a body with this HTTP response; raise ``_Failure`` if there is none."""
        if asked.is_notification:
            if answer.status >= 300:
                raise self._failure(True, f"answered with HTTP status {answer.status}", answer)
            return None
        absent = self._failure(True, "gave no valid response to this call, only to others of its batch")
        response, missing = inspection.repair(asked, answer.body, absent)
        if missing == len(asked.ids):
            raise self._failure(True, answer.fault, answer)
        if missing:
            self._count("incomplete")
            log.warning("%s: no valid response to %d of %d calls of a batch", self._origin, missing, len(asked.ids))
        return response

    def _report_failure(self, asked: inspection.Requested, error: _Failure) -> bytes | None:
        self._count("failed")
        if not asked.is_notification:
            log.warning("%s%s; %d calls get this error", error.message, error.details, len(asked.ids))
            return inspection.error(asked, error)
        self._count("lost_notifications")
        log.error("%s%s; a notification is lost, unless the queue has dead letters", error.message, error.details)
        request = context.current_or_none()
        if request is not None:
            request.envelope.dead_letter()
        return None

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    # -- on the thread of the event loop ------------------------------------------------------------------

    async def _exchange(self, thread: _LoopThread, body: bytes, timeout: float) -> _Answer:
        progress = SimpleNamespace(connected=False)
        try:
            return await self._post(thread.open_session(), body, timeout, progress)
        except asyncio.TimeoutError:
            raise self._failure(progress.connected, f"did not answer within {timeout:.3g} s") from None
        except (aiohttp.ClientError, OSError) as exc:
            log.info("%s: %s", self._origin, printable(repr(exc)))
            raise self._failure(progress.connected, _describe(exc)) from exc

    async def _post(
        self, session: aiohttp.ClientSession, body: bytes, timeout: float, progress: SimpleNamespace
    ) -> _Answer:
        async with session.post(
            self._url,
            data=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout, ceil_threshold=math.inf),
            trace_request_ctx=progress,
        ) as response:
            received = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                received += chunk
                if len(received) > self._max_size:
                    response.close()
                    cut = _Answer(response.status, response.headers, bytes(received))
                    raise self._failure(True, f"gave an answer over the cap of {self._max_size} bytes", cut)
            return _Answer(response.status, response.headers, bytes(received))

    def _failure(self, may_have_run: bool, what: str, answer: _Answer | None = None) -> _Failure:
        code = NO_ANSWER if may_have_run else NOT_DELIVERED
        failure = _Failure(code, f"the HTTP server {what}", {"may_have_run": may_have_run})
        if answer is not None:
            failure.details = f" ({described(answer.status, answer.headers, answer.body)})"
        return failure


class _LoopThread:
    """
    An event loop on a thread of its own, with the connections to the HTTP server.

    It does not refer to the bridge, so that a bridge that a program drops is noticed, and its thread ended.

    Args:
        headers: HTTP headers for each request.

    Raises:
        OSError, RuntimeError: This process can have no other open file, or no other thread.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._session: aiohttp.ClientSession | None = None
        self._selector = selectors.DefaultSelector()
        try:
            self.loop = asyncio.SelectorEventLoop(self._selector)
        except BaseException:
            self._selector.close()
            raise
        self._thread = threading.Thread(target=on_own_thread(self._run), name="bridge", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self.loop.close()
            raise

    def is_current(self) -> bool:
        """Return whether the calling thread is this one."""
        return threading.current_thread() is self._thread

    def is_alive(self) -> bool:
        """Return whether it can run a request."""
        return self._thread.is_alive()

    def is_open(self) -> bool:
        """Return whether it runs in this process."""
        return not self.loop.is_closed() and self not in _left_to_parent

    def stop(self) -> None:
        """Begin to end: what runs is cancelled, and the connections are closed."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self, seconds: float) -> None:
        """Wait for the end."""
        self._thread.join(seconds)

    def close_in_child(self) -> None:
        """Leave the connections to the parent: what closes them in order would take them out of its selector, too."""
        _left_to_parent.append(self)
        self._selector.close()

    def open_session(self) -> aiohttp.ClientSession:
        """Return the session; called in the event loop."""
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_create_end.append(_note_connection)
            tracing.on_connection_reuseconn.append(_note_connection)
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                # No limit of its own: there is one connection for each running handler, and those are bounded.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trace_configs=[tracing],
            )
        return self._session

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self._close_session())
            self.loop.close()

    async def _close_session(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()


# In a forked process: the threads of the parent, which must not be finalized here.
_left_to_parent: list[_LoopThread] = []


async def _note_connection(_session: aiohttp.ClientSession, trace: SimpleNamespace, _event: object) -> None:
    # From here on the server may have read the request, even if the exchange fails.
    trace.trace_request_ctx.connected = True


def _describe(exc: Exception) -> str:
    """Return what happened without addresses, which the exception's own text may have: this text is sent to callers."""
    if isinstance(exc, (aiohttp.ClientSSLError, aiohttp.ClientConnectorDNSError)):
        return "cannot be reached: " + ("its TLS failed" if isinstance(exc, aiohttp.ClientSSLError) else "unknown host")
    if isinstance(exc, aiohttp.ClientConnectorError):
        return f"cannot be reached: {os.strerror(exc.errno) if exc.errno else 'no connection'}"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "closed the connection before it had answered"
    if isinstance(exc, aiohttp.ClientPayloadError):
        return "broke off in its answer"
    return f"did not answer as HTTP has it ({type(exc).__name__})"


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers; raise ``ValueError`` if one cannot be sent."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{printable(name)} is no name of an HTTP header")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of HTTP header {name} is not printable ASCII")
    return headers
