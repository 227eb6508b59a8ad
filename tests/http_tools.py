"""HTTP for tests: requests, a server that writes given bytes, and a server of jsonrpclib-pelix in a process."""

from __future__ import annotations

import fcntl
import http.client
import json
import socket
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from .broker import HOST, free_ports
from .command import ROOT, Program, running

JSON = {"Content-Type": "application/json"}


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = JSON, timeout: float = 20
) -> Reply:
    """Send one request over a connection of its own."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


class Asked(NamedTuple):
    """A request, byte for byte."""

    head: bytes
    body: bytes


class RawServer:
    """
    An HTTP server that writes what a function decides, byte for byte, and keeps the requests.

    Args:
        answer: Called with the connection and each request; True: read another request from it.
        port: Where it listens; 0 for any that is free.
    """

    def __init__(self, answer: Callable[[socket.socket, Asked], object], port: int = 0) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.ended = 0
        """Connections that have ended."""
        self._answer = answer
        self._listener = socket.create_server((HOST, port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}/"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> RawServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # shutdown wakes threads that wait in accept and recv; close alone does not.
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        # Errors: the other side has closed the connection.
        with suppress(OSError), sock, sock.makefile("rb") as file:
            while (asked := self._read(file)) is not None:
                self.asked.append(asked)
                if self._answer(sock, asked) is not True:
                    break
        self.ended += 1

    @staticmethod
    def _read(file: Any) -> Asked | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()
            if not line:
                return None
            head += line
        size = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length:"))
        return Asked(head, file.read(size))


def ok(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return an HTTP response with a body."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def unread(sock: socket.socket) -> int:
    """Return how many bytes the other side's system has not taken yet."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


@contextmanager
def pelix(port: int, *pooled: str) -> Iterator[Program]:
    """Run a server of jsonrpclib-pelix for a ``with`` block."""
    with running(str(ROOT / "tests" / "pelix_server.py"), str(port), *pooled, program=[sys.executable]) as server:
        server.wait_until_said("serving")
        yield server


def free_port() -> int:
    return free_ports(1)[0]


@contextmanager
def bridge(service: str, to: str, *args: str, url: str) -> Iterator[Program]:
    """Run ``jsonrpc-amqp bridge`` for a ``with`` block."""
    with running("bridge", "--service", service, "--to", to, *args, url=url) as program:
        program.wait_until_said(": serving '")
        yield program


@contextmanager
def gateway(*args: str, url: str, **options: Any) -> Iterator[tuple[Program, int]]:
    """Run ``jsonrpc-amqp gateway`` on a free port, and return both."""
    with running("gateway", "--listen", f"{HOST}:0", *args, url=url, **options) as program:
        program.wait_until_said(f"http://{HOST}:")
        port = program.output.partition(f"http://{HOST}:")[2].partition("/")[0]
        yield program, int(port)
