"""
The two programs of a first remote call, in one process: a server with ``time.now``, and a client.

    jsonrpc-amqp demo
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from . import Client, Server, current_request

SERVICE = "demo"
# A server elsewhere may have taken the notification; then there is nothing to wait for.
_PATIENCE = 2.0


def run(
    url: str = "memory://", *, clock: Callable[[], str] = time.ctime, echo: Callable[[str], object] = print
) -> None:
    """
    Send one notification and one call, and say what each side saw.

    Args:
        url: ``memory://``, or a broker; there the exchange ``jsonrpc`` and the empty queue ``demo_req`` stay behind.
        clock: What ``time.now`` asks.
        echo: Takes one line at a time.

    Raises:
        TransportError: The broker cannot be reached, or refuses.
        ValueError: The URL is malformed.
    """
    written = threading.Event()
    # One handler, so that requests are served in the order in which they were sent.
    server = Server(url, service=SERVICE, concurrency=1)

    @server.method("log.write")
    def write(line: str) -> None:
        echo(f"server: {_seen()}: {line!r}")
        written.set()

    @server.method("time.now")
    def now() -> dict[str, str]:
        echo(f"server: {_seen()}")
        return {"msg": clock()}

    # The client first: a broker that is not there ends its one attempt, where a server would wait for it.
    with Client(url, service=SERVICE, reconnect=False) as client, server:
        echo("client: notify log.write")
        client.notify("log.write", {"line": "hello"})
        written.wait(_PATIENCE)
        echo("client: call time.now")
        answer: Any = client.send({"jsonrpc": "2.0", "method": "time.now", "id": 1})
        echo(f"client: id {answer.id} answered: {answer.result['msg']}")


def _seen() -> str:
    request = current_request()
    return f"method {request.method}, " + ("no id (a notification)" if request.is_notification else f"id {request.id}")
