"""What RabbitMQ's management calls the connections of clients and servers."""

from __future__ import annotations

import os
import secrets
import socket


def new(end: str) -> str:
    """
    Return a name for the connection of a client or a server: ``jsonrpc-amqp server calc web-1:17:3f2a9c01``.

    It has the host and the process, and digits of its own: the processes of two pods may have the same number, and a
    process may have several connections.

    Args:
        end: Of what, such as ``server calc``.
    """
    return f"jsonrpc-amqp {end} {socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
