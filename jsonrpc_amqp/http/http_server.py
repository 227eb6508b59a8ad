"""
uvicorn, with limits for each connection (the only import of uvicorn).

    uvicorn.run(app, http=LimitedProtocol)          # for an application of yours that a Gateway is mounted in
"""

from __future__ import annotations

import asyncio
import math
import socket
from contextlib import suppress
from typing import Any

from ..client.async_client import AsyncClient
from ..errors import MissingExtra, TransportError
from .limits import MAX_HEAD, MAX_HEADERS, PATIENCE

try:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError as exc:
    raise MissingExtra(__name__, "uvicorn", "http") from exc

# Bytes of a chunk in "Transfer-Encoding: chunked" that carry no data: its size, and two ends of lines.
_CHUNK_FRAME = 16
# How often a server that drains looks whether it is to end at once; as often as uvicorn does.
_FORCED_SECONDS = 0.1


class LimitedProtocol(HttpToolsProtocol):
    """
    One HTTP connection, which cannot take memory or a place without end.

    uvicorn with httptools bounds none of this:

    - What a message has beside its body (request line, headers, trailers): over ``MAX_HEAD`` bytes or ``MAX_HEADERS``
      fields, the response is 400, and the connection ends.
    - A head that comes slowly, and a response that is not read: the connection ends after ``PATIENCE`` seconds without
      progress. (How long a connection is kept that is not used after a response, uvicorn bounds itself.)
    - Requests behind one that has no response yet: uvicorn keeps them all, and stops reading, so it would not notice
      that the caller is gone. They are dropped, and the connection ends behind the response: a client that pipelines
      has to repeat what was not answered (RFC 9112, section 9.3.2).
    """

    patience = PATIENCE
    """Seconds."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._beside_body = 0
        self._ignores_input = False
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0

    # -- the connection -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._ignores_input:
            return
        if self._timer is None and self.cycle is not None and self.cycle.response_complete:
            self._expect_head()
        self._beside_body += len(data)
        super().data_received(data)
        if self._beside_body > MAX_HEAD and not self.transport.is_closing():
            self.logger.warning("A request with over %d bytes beside its body is refused.", MAX_HEAD)
            self.send_400_response("Too many bytes beside the body.")

    def send_400_response(self, msg: str) -> None:
        """Respond to what cannot be parsed; called within ``data_received``."""
        if self._ignores_input:
            self.cycle.keep_alive = False
        elif self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    # -- what the parser finds: an exception makes it stop ------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._ignores_input = True
            raise ValueError("a request behind one without a response")
        self._beside_body = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header, or a trailer."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request on."""
        if not self.transport.get_write_buffer_size():
            self._expect_nothing()
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Begin a chunk of the body."""
        self._beside_body = max(0, self._beside_body - _CHUNK_FRAME)

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._beside_body -= len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Await that the response is read, where it was not sent as a whole when it was handed to the transport."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._expect_head()
        else:
            self._expect_nothing()

    # -- time ---------------------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        self._expect_nothing()
        self._unsent = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(self.patience, self._end_without_progress)

    def _expect_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_without_progress(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if not unsent and self.cycle is not None and not self.cycle.response_complete:
            self._expect_nothing()  # the next request is being served
        elif unsent < self._unsent:
            self._expect_head()
        else:
            self.transport.abort()


class _Server(uvicorn.Server):
    """
    Ends at once when it is forced to (a second SIGINT).

    From Python 3.12 on, uvicorn would wait for the open connections even then.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.ensure_future(super().shutdown(sockets))
        while not (await asyncio.wait([draining], timeout=_FORCED_SECONDS))[0]:
            if self.force_exit:
                draining.cancel()
                # As uvicorn does at the end of the grace: before the application ends what they wait for.
                for task in self.server_state.tasks:
                    task.cancel()
                return
        await draining


def make_server(app: Any, grace: float, keep_alive: float) -> uvicorn.Server:
    """
    Return a server of an ASGI application, for ``run``.

    Args:
        app: The application.
        grace: Seconds that requests in flight get when the server is stopped.
        keep_alive: Seconds for which an unused connection stays open.
    """
    return _Server(
        uvicorn.Config(
            app,
            http=LimitedProtocol,
            # The gateway logs failures itself; access logs belong to the reverse proxy in front of it.
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(grace),
            timeout_keep_alive=math.ceil(keep_alive),
        )
    )


def run(server: uvicorn.Server, sock: socket.socket, client: AsyncClient) -> None:
    """Serve until the server is stopped. Its event loop drives the client of its application, which is closed last."""
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_serve(server, sock, client))


async def _serve(server: uvicorn.Server, sock: socket.socket, client: AsyncClient) -> None:
    try:
        # Connect now, so that the first request need not wait for it.
        with suppress(TransportError):
            await client.start(timeout=0)
        await server.serve(sockets=[sock])
    finally:
        await client.aclose()
