"""A service behind ``HttpBridge``, whose HTTP server responds as a test says."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from jsonrpc_amqp import Client, Server
from jsonrpc_amqp.http.bridge import HttpBridge

from .http_tools import Asked, RawServer, ok

CALL = b'{"jsonrpc": "2.0", "method": "m", "id": "a.b"}'
NOTIFICATION = b'{"jsonrpc": "2.0", "method": "m"}'
ZERO = dict.fromkeys(("answered", "incomplete", "failed", "lost_notifications", "given_back", "outages"), 0)
BATCH = b'[{"jsonrpc": "2.0", "method": "m", "id": 1}, {"jsonrpc": "2.0", "method": "m"}, {"id": "b"}]'


class Bridged:
    """A service whose HTTP server responds as a test says."""

    def __init__(self, url: str, service: str, **options: Any) -> None:
        self.server_options = {key: options.pop(key) for key in ("dead_letters",) if key in options}
        self.options = {"timeout": 5.0, **options}
        self.url, self.service = url, service
        self.answer: Callable[[socket.socket, Asked], object] = lambda sock, asked: sock.sendall(ok(b"{}"))
        self.http = RawServer(lambda sock, asked: self.answer(sock, asked))

    def __enter__(self) -> Bridged:
        self.http.__enter__()
        self.bridge = HttpBridge(self.http.url + "rpc", **self.options)
        self.server = Server(self.url, self.service, dispatcher=self.bridge, **self.server_options).start()
        self.client = Client(self.url, self.service, timeout=10)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.server.stop(grace=5)
        self.bridge.close()
        self.http.__exit__()

    def ask(self, body: bytes, **options: Any) -> Any:
        answer = self.client.send_raw(body, **options)
        return None if answer is None else json.loads(answer)


def always(answer: bytes, *, keep: bool = True) -> Callable[[socket.socket, Asked], object]:
    """Write an answer; the id of ``CALL`` in it stands for the one that the bridge has sent in its place."""

    def write(sock: socket.socket, asked: Asked) -> bool:
        sock.sendall(with_id(answer, asked))
        return keep

    return write


def with_id(answer: bytes, asked: Asked) -> bytes:
    """Return an answer, or its body, with the id of the call that was asked in the place of that of ``CALL``."""
    request = json.loads(asked.body)
    if not isinstance(request, dict) or "id" not in request:
        return answer
    more = answer.count(b'"a.b"')
    changed = answer.replace(b'"a.b"', json.dumps(request["id"]).encode())
    length = b"Content-Length: %d\r\n"
    size = len(answer.partition(b"\r\n\r\n")[2])
    return changed.replace(length % size, length % (size + len(changed) - len(answer))) if more else answer


def ids_of(asked: Asked) -> list[Any]:
    """Return the ids of the calls of a batch, as the bridge has sent them."""
    return [each["id"] for each in json.loads(asked.body) if "id" in each]


def anonymous(body: bytes) -> Any:
    """Return a body without the ids of its calls."""
    value = json.loads(body)
    members = value if isinstance(value, list) else [value]
    for member in members:
        member.pop("id", None)
    return value
