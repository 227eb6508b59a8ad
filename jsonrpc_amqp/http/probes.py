"""
The HTTP probes of an orchestrator: GET /livez and /readyz, with what is in the way as JSON. No third-party library.

    Probes(8080, server.health).start()                      # on a port of its own
    app.mount("/", probes_app(server.health))                # in an ASGI application
"""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

from ..runtime.daemons import run_daemon
from ..wire.health import Health

HealthOf = Callable[[], Health]
_Scope = dict[str, Any]
_Send = Callable[[_Scope], Awaitable[None]]

_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}
# Seconds that a caller may take over its request, or over the response.
_PATIENCE = 5.0
# A prober has one connection, or a few: others are closed at once.
_MOST_CONNECTIONS = 16


def probed(path: str, health_of: HealthOf) -> tuple[HTTPStatus, bytes]:
    """Return the status and the body of the response to GET of a path."""
    if path not in ("/livez", "/readyz"):
        return HTTPStatus.NOT_FOUND, b'{"error": "there are /livez and /readyz"}'
    health = health_of()
    is_well = health.is_ready if path == "/readyz" else health.is_alive
    body = {"ready": health.is_ready, "alive": health.is_alive, "problems": health.problems}
    return HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE, json.dumps(body).encode()


def probes_app(health_of: HealthOf) -> Callable[[_Scope, Any, _Send], Awaitable[None]]:
    """
    Return an ASGI application that answers probes: 200, or 503 where it is not ready, or not alive.

    Args:
        health_of: Such as ``server.health``.
    """

    async def app(scope: _Scope, _receive: Any, send: _Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"probes are asked over HTTP, not {scope['type']!r}")
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        status, body = probed(path, health_of)
        if scope["method"] not in ("GET", "HEAD"):
            status, body = HTTPStatus.METHOD_NOT_ALLOWED, b'{"error": "GET it"}'
        headers = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


class Probes:
    """
    Answers probes over HTTP, on threads of its own: 200, or 503 where it is not ready, or not alive.

    Args:
        port: The TCP port, on all addresses of the host, as the probes of Kubernetes need it; 0: any that is free.
        health_of: Such as ``server.health``.
    """

    def __init__(self, port: int, health_of: HealthOf) -> None:
        self._given = port
        self._health_of = health_of
        self._http: _Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._given if self._http is None else int(self._http.server_address[1])

    def start(self) -> None:
        """
        Listen.

        Raises:
            OSError: The port is taken, or needs a privilege.
            NotConnected: This process can have no other thread.
        """
        http = _listening(self._given, self._health_of)
        try:
            run_daemon(http.serve_forever, "jsonrpc-amqp-probes")
        except BaseException:
            http.server_close()
            raise
        self._http = http

    def close(self) -> None:
        """Listen no more."""
        http, self._http = self._http, None
        if http is not None:
            http.shutdown()
            http.server_close()


def _listening(port: int, health_of: HealthOf) -> _Server:
    """Return a server on all addresses: of IPv6 and IPv4, or of IPv4 where IPv6 is switched off."""
    if socket.has_dualstack_ipv6():
        try:
            return _Server(socket.AF_INET6, port, health_of)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return _Server(socket.AF_INET, port, health_of)


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, family: socket.AddressFamily, port: int, health_of: HealthOf) -> None:
        self.health_of = health_of
        self._room = threading.Semaphore(_MOST_CONNECTIONS)
        self.address_family = family
        super().__init__(("", port), _Handler)

    def server_bind(self) -> None:
        """Bind; to IPv4 as well, where it is a socket of IPv6."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Not as HTTPServer does, which looks up the name of the host, and may wait long for that.
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = "", int(self.server_address[1])

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for another connection."""
        return self._room.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: a prober that goes away is no error of this program."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PATIENCE
    # One request for each connection.
    protocol_version = "HTTP/1.0"
    server_version, sys_version = "jsonrpc-amqp", ""

    def do_GET(self) -> None:
        """Answer a probe."""
        status, body = probed(self.path.partition("?")[0], self.server.health_of)
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes come every few seconds."""
