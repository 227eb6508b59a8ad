"""Methods behind a gateway, requests to it, and checks of its errors."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from jsonrpc_amqp import current_request
from jsonrpc_amqp.http.http_server import LimitedProtocol

from .broker import HOST
from .http_tools import JSON, Reply, request

ECHO: dict[str, Any] = {"jsonrpc": "2.0", "method": "echo", "params": ["ü 中 😀"], "id": "a.b"}


WAIT = b'{"jsonrpc": "2.0", "method": "wait", "id": 1}'
IN_FLIGHT = 256


class Methods:
    """The methods of a service, and the notifications that it received."""

    def __init__(self) -> None:
        self.received: list[Any] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.together = threading.Barrier(IN_FLIGHT)

    def echo(self, value: Any) -> Any:
        return value

    def tell(self, value: Any) -> None:
        self.received.append(value)

    def fail(self) -> None:
        raise RuntimeError("this text stays here")

    def remaining(self) -> float | None:
        return current_request().remaining

    def wait(self) -> str:
        self.begun.release()
        assert self.may_end.wait(20)
        return "done"

    def meet(self, number: int) -> int:
        """Wait until as many calls run as there are to be in flight."""
        self.together.wait(20)
        return number

    @property
    def all(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("echo", "tell", "fail", "remaining", "wait", "meet")}


def post(port: int, body: Any, path: str = "/gated", **headers: str) -> Reply:
    """Post a value, or bytes; ``content_type`` stands for ``Content-Type``."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request(port, "POST", path, data, JSON | {name.replace("_", "-").title(): headers[name] for name in headers})


def check_error(reply: Reply, status: int, code: int, id: Any = None, *, may_have_run: bool | None = None) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["jsonrpc"] == "2.0"
    assert (reply.json["id"], reply.json["error"]["code"]) == (id, code)
    if may_have_run is not None:
        assert reply.json["error"]["data"] == {"may_have_run": may_have_run}


@contextmanager
def served(app: Any, protocol: type[Any] = LimitedProtocol) -> Iterator[int]:
    """Serve an ASGI application on a thread of this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, http=protocol))
    with socket.create_server((HOST, 0)) as sock:
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


def request_to(service: str, body: bytes, *headers: str) -> bytes:
    """Return a request, byte for byte."""
    lines = [f"POST /{service} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
