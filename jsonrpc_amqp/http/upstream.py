"""Requests to one HTTP server, on an event loop with a thread of its own (the only import of aiohttp)."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import selectors
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

from ..errors import NO_ANSWER, NOT_DELIVERED, MissingExtra, RemoteError
from ..logs import on_own_thread
from ..wire.display import printable
from .headers import content_coding, described

try:
    import aiohttp
    from aiohttp.client_proto import ResponseHandler
    from yarl import URL
except ImportError as exc:
    raise MissingExtra(__name__, "aiohttp", "http") from exc

__all__ = ["HEADERS", "URL", "Answer", "HttpFailure", "Upstream", "failure", "harmless"]

log = logging.getLogger("jsonrpc_amqp.bridge")

# uvicorn and Node close a connection after 5 s of idleness. If that happens just as a request is sent, nothing says
# whether the request ran, so close idle connections earlier than they do.
_IDLE_SECONDS = 4.0
# Bodies are forwarded as they are, so ask for no compression: it would also hide the size of a response.
HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
_CHUNK_BYTES = 1 << 16
# Seconds; aiohttp takes 0 for no timeout.
_MIN_TIMEOUT = 0.001


class HttpFailure(RemoteError):
    """
    What an HTTP server did instead of responding.

    Attributes:
        details: For the log alone.
        is_unreached: There was no connection; another attempt may find one.
    """

    details = ""
    is_unreached = False


class Answer(NamedTuple):
    """
    An HTTP response.

    Attributes:
        is_first: It came over a connection that had no other request before.
        release: Called once, by any thread: whether the connection may be used for another request.
        secrets: What is not logged.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_first: bool
    release: Callable[[bool], object]
    secrets: tuple[str, ...] = ()

    @property
    def fault(self) -> str:
        """Why it is no JSON-RPC response, as callers may know it."""
        coding = content_coding([self.headers.get("Content-Encoding", "")])
        if self.status != 200:
            return f"answered with HTTP status {self.status}"
        if coding is not None:
            return f"gave an answer with the content encoding {coding}, which was not asked for"
        return "gave an answer that is no JSON-RPC 2.0 response"

    def failure(self, what: str) -> HttpFailure:
        """Return the error that stands for this response; the method may have run."""
        error = failure(True, what)
        error.details = f" ({described(self.status, self.headers, self.body, self.secrets)})"
        return error


def failure(may_have_run: bool, what: str) -> HttpFailure:
    """Return the error that stands for what the server did."""
    code = NO_ANSWER if may_have_run else NOT_DELIVERED
    return HttpFailure(code, f"the HTTP server {what}", {"may_have_run": may_have_run})


class Upstream:
    """
    An HTTP server, the connections to it, and the thread of their event loop.

    It does not refer to the bridge, so that a bridge that a program drops is noticed, and its thread ended.

    Args:
        url: Where to post.
        name: Of the server, for the log.
        headers: HTTP headers for each request.
        max_size: Most bytes of a response body.
        secrets: What is not logged.

    Raises:
        OSError, RuntimeError: This process can have no other open file, or no other thread.
    """

    def __init__(
        self, url: URL, name: str, headers: Mapping[str, str], max_size: int, secrets: tuple[str, ...]
    ) -> None:
        self._url = url
        self._name = name
        self._headers = headers
        self._max_size = max_size
        self._secrets = secrets
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
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

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self._close_sessions())
            self.loop.close()

    async def _close_sessions(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for session in self._sessions.values():
            await session.close()

    # -- in the event loop ----------------------------------------------------------------------------------

    async def post(self, body: bytes, timeout: float, connect_timeout: float, *, alone: bool) -> Answer:
        """
        Send a request, and return the response.

        Args:
            body: What to post.
            timeout: Seconds for all of it.
            connect_timeout: Seconds until there is a connection.
            alone: Over a connection that is used for no other request.

        Raises:
            HttpFailure: There is no response.
        """
        exchange = _Exchange()
        _current.set(exchange)
        times = aiohttp.ClientTimeout(
            total=max(timeout, _MIN_TIMEOUT),
            sock_connect=max(connect_timeout, _MIN_TIMEOUT),
            ceil_threshold=math.inf,
        )
        try:
            return await self._post(self._session(alone), body, times, exchange)
        except TimeoutError:
            exchange.release(False)
            what = f"did not answer within {timeout:.3g} s"
            raise self._failed(exchange, what if exchange.is_connected else "cannot be reached in time") from None
        except (aiohttp.ClientError, OSError) as exc:
            exchange.release(False)
            log.info("%s: %s", self._name, harmless(exc))
            raise self._failed(exchange, _describe(exc)) from None
        except BaseException:
            exchange.release(False)
            raise

    async def _post(
        self, session: aiohttp.ClientSession, body: bytes, times: aiohttp.ClientTimeout, exchange: _Exchange
    ) -> Answer:
        async with session.post(
            self._url, data=body, allow_redirects=False, timeout=times, trace_request_ctx=exchange
        ) as response:
            received = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                received += chunk
                if len(received) > self._max_size:
                    response.close()
                    cut = Answer(response.status, response.headers, bytes(received), True, _nothing, self._secrets)
                    raise cut.failure(f"gave an answer over the cap of {self._max_size} bytes")
            release = partial(self._release, exchange)
            is_first = not exchange.is_reused
            return Answer(response.status, response.headers, bytes(received), is_first, release, self._secrets)

    def _release(self, exchange: _Exchange, keep: bool) -> None:
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(exchange.release, keep)

    def _session(self, alone: bool) -> aiohttp.ClientSession:
        if alone not in self._sessions:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_create_end.append(_note_connection)
            tracing.on_connection_reuseconn.append(_note_reuse)
            self._sessions[alone] = aiohttp.ClientSession(
                headers=self._headers,
                # No limit of its own: there is one connection for each running handler, and those are bounded.
                connector=aiohttp.TCPConnector(limit=0, force_close=True) if alone else _Connector(self._name),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trace_configs=[tracing],
            )
        return self._sessions[alone]

    @staticmethod
    def _failed(exchange: _Exchange, what: str) -> HttpFailure:
        error = failure(exchange.is_connected, what)
        error.is_unreached = not exchange.is_connected
        return error


# In a forked process: the threads of the parent, which must not be finalized here.
_left_to_parent: list[Upstream] = []


# -- connections that are kept ------------------------------------------------------------------------------


class _Exchange:
    """
    One request, and its connection.

    Attributes:
        is_connected: From here on the server may have read the request, even if the exchange fails.
        is_reused: The connection had another request before.
        connection: The connection, where it may be kept.
    """

    def __init__(self) -> None:
        self.is_connected = self.is_reused = False
        self.connection: _Connection | None = None

    def release(self, keep: bool) -> None:
        """Let go of the connection, in the event loop."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.release(keep)


_current: ContextVar[_Exchange] = ContextVar("exchange")


class _Connection(ResponseHandler):
    """
    A connection that another request may use only after the response before was checked, and if nothing else came.

    Whatever an HTTP server sends behind a response would be read as the response to the next request, which may be
    another caller's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        super().__init__(loop=loop)
        self._name = name
        self._is_idle = False
        self._let_go: Callable[..., None] | None = None

    def set_response_params(self, **params: Any) -> None:
        """Begin with a request."""
        self._is_idle = False
        _current.get().connection = self
        super().set_response_params(**params)

    def await_check(self, let_go: Callable[..., None]) -> None:
        """Note that a response has come to its end; ``let_go`` gives the connection back to the connector."""
        self._is_idle = True
        self._let_go = let_go

    def release(self, keep: bool) -> None:
        """Note whether the response was the right one."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go(should_close=not keep or self._has_begun_another())

    def _has_begun_another(self) -> bool:
        """Whether the begin of a further response came with the end of this one, which only the parser knows."""
        try:
            return self._parser is not None and self._parser.feed_eof() is not None
        except Exception:  # what began was no response either
            return True

    def data_received(self, data: bytes) -> None:
        """Take bytes; close the connection where no request awaits them."""
        if self._is_idle and data:
            log.warning("%s sent %d bytes behind a response; that connection is closed", self._name, len(data))
            self.close()
        else:
            super().data_received(data)


class _Connector(aiohttp.TCPConnector):
    """Connections that are kept. aiohttp would use one again at once, whatever came over it."""

    def __init__(self, name: str) -> None:
        super().__init__(limit=0, keepalive_timeout=_IDLE_SECONDS)
        make: Any = partial(_Connection, loop=asyncio.get_running_loop(), name=name)
        self._factory = make

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        let_go = partial(super()._release, key, protocol)
        if should_close or protocol.should_close or not isinstance(protocol, _Connection):
            let_go(should_close=should_close)
        else:
            protocol.await_check(let_go)


async def _note_connection(_session: aiohttp.ClientSession, trace: Any, _event: object) -> None:
    trace.trace_request_ctx.is_connected = True


async def _note_reuse(_session: aiohttp.ClientSession, trace: Any, _event: object) -> None:
    trace.trace_request_ctx.is_connected = trace.trace_request_ctx.is_reused = True


def _nothing(_keep: bool) -> None:
    """Release a connection that is closed."""


# -- errors -------------------------------------------------------------------------------------------------


def harmless(exc: BaseException) -> str:
    """
    Return what to log of an exception: no text of its own, which may have request headers and so credentials.

    Its type, the name of its error number, and what OpenSSL says of a certificate.
    """
    parts = [type(exc).__name__]
    number = getattr(exc, "errno", None)
    if isinstance(number, int) and number in errno.errorcode:
        parts.append(errno.errorcode[number])
    cause = getattr(exc, "certificate_error", None)
    if isinstance(cause, ssl.SSLCertVerificationError):
        parts.append(printable(cause.verify_message))
    return ", ".join(parts)


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
