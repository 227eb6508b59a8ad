"""
Serves a service by what a JSON-RPC server over HTTP answers (the only import of aiohttp).

    with HttpBridge("http://127.0.0.1:8000/") as bridge:
        Server("amqp://", "example", dispatcher=bridge, concurrency=32).serve_forever()
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import threading
from collections import Counter
from collections.abc import Coroutine, Mapping
from types import SimpleNamespace, TracebackType
from typing import Any

from .. import context
from ..client.client import DEFAULT_TIMEOUT, MAX_SIZE
from ..errors import NO_ANSWER, NOT_DELIVERED, MissingExtra, RemoteError
from ..jsonrpc import inspection
from ..wire.display import printable

try:
    import aiohttp
    from yarl import URL
except ImportError as exc:
    raise MissingExtra(__name__, "aiohttp", "http") from exc

log = logging.getLogger("jsonrpc_amqp.bridge")

# uvicorn and Node close a connection that is idle for 5 s. One that is closed in the moment in which it is used again
# ends that request, and nobody knows whether it ran: better to be the first.
_IDLE_SECONDS = 4.0
# What is asked for is what is forwarded: no compression, which could hide any size.
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
_CHUNK = 1 << 16
# aiohttp takes 0 for no bound.
_SHORTEST = 0.001
_CLOSE_SECONDS = 5.0
# https://www.rfc-editor.org/rfc/rfc9110#name-tokens
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class HttpBridge:
    """
    A dispatcher that asks a JSON-RPC server over HTTP: each body is sent unchanged, once, and its answer given back.

    Where there is no answer the calls get an error of ours, each with its id: ``NOT_DELIVERED``, or ``NO_ANSWER`` where
    the method may have run. A notification that ends so becomes a dead letter. An error that comes with an HTTP status
    of failure, and is JSON-RPC, is an answer. Redirections are not followed. Any number of threads may use one.

    Args:
        url: ``http://`` or ``https://``; the certificate is verified. User and password in it become basic
            authentication.
        timeout: Seconds for one request, all of it; less where its caller has less left.
        headers: HTTP headers for each request.
        max_size: Most bytes of an answer.

    Raises:
        ValueError: The URL, a header or the timeout is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        headers: Mapping[str, str] | None = None,
        max_size: int = MAX_SIZE,
    ) -> None:
        self._url = URL(url)
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ValueError("a bridge leads to a URL such as http://127.0.0.1:8000/")
        if not timeout > 0:
            raise ValueError(f"a timeout is a number of seconds above 0, not {timeout!r}")
        self._where = printable(str(self._url.origin()))
        self._timeout = timeout
        # Their names are the same in any case of letters.
        own = {name.title(): value for name, value in _checked(headers or {}).items()}
        self._headers = {**_HEADERS, **own}
        if self._url.user is not None and "Authorization" in own:
            raise ValueError("either a user in the URL or a header Authorization, not both")
        self._max_size = max_size
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<HttpBridge to {self._where}>"

    def __call__(self, body: bytes) -> bytes | None:
        """Answer one body."""
        try:
            asked = inspection.read(body)
        except RemoteError as refusal:
            return inspection.error(inspection.UNREADABLE, refusal)
        request = context.current_or_none()
        left = None if request is None else request.remaining
        timeout = self._timeout if left is None else min(left, self._timeout)
        try:
            answer = self._run(self._exchange(body, max(timeout, _SHORTEST), asked))
        except RemoteError as failure:
            return self._failed(asked, failure)
        self._count("answered")
        return answer

    @property
    def failures(self) -> int:
        """Bodies that had no answer; a ``Server`` counts them as ``failed``."""
        return self._counts["failed"]

    def stats(self) -> dict[str, int]:
        """Give the counters since the start: bodies that were ``answered``, ``failed``, and ``lost_notifications``."""
        with self._lock:
            return {"answered": 0, "failed": 0, "lost_notifications": 0, **self._counts}

    def close(self) -> None:
        """End what is in flight, and close the connections."""
        with self._lock:
            self._closed = True
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_CLOSE_SECONDS)

    def __enter__(self) -> HttpBridge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- on the thread of a handler ----------------------------------------------------------------------

    def _run(self, exchange: Coroutine[Any, Any, bytes | None]) -> bytes | None:
        with self._lock:
            if self._closed:
                exchange.close()
                raise RemoteError(NOT_DELIVERED, f"the bridge to {self._where} is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._drive, args=(self._loop,), name="bridge", daemon=True)
                self._thread.start()
            future = asyncio.run_coroutine_threadsafe(exchange, self._loop)
        return future.result()

    def _failed(self, asked: inspection.Requested, failure: RemoteError) -> bytes | None:
        self._count("failed")
        if not asked.is_notification:
            log.warning("%s; %d calls are told so", failure.message, len(asked.ids))
            return inspection.error(asked, failure)
        self._count("lost_notifications")
        log.error("%s; a notification is lost, unless the queue has dead letters", failure.message)
        request = context.current_or_none()
        if request is not None:
            request.envelope.dead_letter()
        return None

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    # -- on the thread of the event loop ------------------------------------------------------------------

    def _drive(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(self._end())
            loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, body: bytes, timeout: float, asked: inspection.Requested) -> bytes | None:
        progress = SimpleNamespace(connected=False)
        try:
            status, answer = await self._post(body, timeout, progress)
        except asyncio.TimeoutError:
            raise self._failure(progress.connected, f"did not answer within {timeout:.3g} s") from None
        except (aiohttp.ClientError, OSError) as exc:
            log.info("%s: %s", self._where, printable(repr(exc)))
            raise self._failure(progress.connected, _what_happened(exc)) from exc
        if asked.is_notification:
            if status >= 300:
                raise self._failure(True, f"answered with HTTP status {status}")
            return None
        if inspection.is_response(answer):
            return answer
        what = f"answered with HTTP status {status}" if status != 200 else "gave an answer that is no JSON-RPC"
        raise self._failure(True, what)

    async def _post(self, body: bytes, timeout: float, progress: SimpleNamespace) -> tuple[int, bytes]:
        async with self._opened().post(
            self._url,
            data=body,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout, ceil_threshold=math.inf),
            trace_request_ctx=progress,
        ) as response:
            answer = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                answer += chunk
                if len(answer) > self._max_size:
                    response.close()
                    raise self._failure(True, f"gave an answer over the cap of {self._max_size} bytes")
            return response.status, bytes(answer)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_create_end.append(_note_connection)
            tracing.on_connection_reuseconn.append(_note_connection)
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                # As many connections as handlers; those are bounded.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trace_configs=[tracing],
            )
        return self._session

    def _failure(self, may_have_run: bool, what: str) -> RemoteError:
        code = NO_ANSWER if may_have_run else NOT_DELIVERED
        return RemoteError(code, f"the HTTP server {what}", {"may_have_run": may_have_run})


async def _note_connection(_session: aiohttp.ClientSession, trace: SimpleNamespace, _event: object) -> None:
    # From here on the server may have read the request, whatever happens.
    trace.trace_request_ctx.connected = True


def _what_happened(exc: Exception) -> str:
    """Say it without the addresses and the like that an exception tells: callers hear of it."""
    if isinstance(exc, (aiohttp.ClientSSLError, aiohttp.ClientConnectorDNSError)):
        return "cannot be reached: " + ("its TLS failed" if isinstance(exc, aiohttp.ClientSSLError) else "unknown host")
    if isinstance(exc, aiohttp.ClientConnectorError):
        # Its own text has the address in it.
        return f"cannot be reached: {os.strerror(exc.errno) if exc.errno else 'no connection'}"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "closed the connection before it had answered"
    if isinstance(exc, aiohttp.ClientPayloadError):
        return "broke off in its answer"
    return f"did not answer as HTTP has it ({type(exc).__name__})"


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{printable(name)} is no name of an HTTP header")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of HTTP header {name} is not printable ASCII")
    return headers
