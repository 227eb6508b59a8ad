"""
A first remote call: a server with ``time.now``, and a client, in one process.

    jsonrpc-amqp demo
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from . import Client, Server, current_request

SERVICE = "demo"
# Seconds to wait for the notification. Another server of the service may have taken it, so it may never be seen here.
_NOTIFICATION_TIMEOUT = 2.0


def run(
    url: str = "memory://", *, clock: Callable[[], str] = time.ctime, echo: Callable[[str], object] = print
) -> None:
    """
    Send one notification and one call, and print what each side receives.

    Args:
        url: ``memory://``, or a broker, where the exchange ``jsonrpc`` and the empty queue ``demo_req`` remain.
        clock: Returns the time that ``time.now`` reports.
        echo: Prints one line.

    Raises:
        TransportError: The broker cannot be reached, or refuses the user.
        ValueError: The URL is malformed.
    """
    written = threading.Event()
    # One handler at a time, so that requests are served in the order in which they were sent.
    server = Server(url, service=SERVICE, concurrency=1)

    @server.method("log.write")
    def write(line: str) -> None:
        echo(f"server: {_description()}: {line!r}")
        written.set()

    @server.method("time.now")
    def now() -> dict[str, str]:
        echo(f"server: {_description()}")
        return {"msg": clock()}

    # The client first: its one attempt fails without a broker, while a server would wait for the broker.
    with Client(url, service=SERVICE, reconnect=False) as client, server:
        echo("client: notify log.write")
        client.notify("log.write", {"line": "hello"})
        written.wait(_NOTIFICATION_TIMEOUT)
        echo("client: call time.now")
        response: Any = client.send({"jsonrpc": "2.0", "method": "time.now", "id": 1})
        echo(f"client: id {response.id} answered: {response.result['msg']}")


def _description() -> str:
    request = current_request()
    return f"method {request.method}, " + ("no id (a notification)" if request.is_notification else f"id {request.id}")
