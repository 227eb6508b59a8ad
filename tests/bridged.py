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
    def write(sock: socket.socket, _asked: Asked) -> bool:
        sock.sendall(answer)
        return keep

    return write
