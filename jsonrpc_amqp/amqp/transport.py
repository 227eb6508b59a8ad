"""Everything that does I/O. ``base`` is the seam that the rest of the package sees."""

from __future__ import annotations

from typing import Any

from .base import Transport

MEMORY = "memory://"


def connect_transport(url: str, *, connection_name: str = "jsonrpc-amqp", **options: Any) -> Transport:
    """
    Give the transport that a URL names; nothing is connected yet.

    Args:
        url: ``memory://NAME``, or what ``engine.Connection`` takes.
        connection_name: Shown by RabbitMQ's management, and in logs.
        options: The engine's; ``memory://`` has no use for them.

    Raises:
        TypeError: The URL is no string.
        ValueError: It names no transport.
    """
    if not isinstance(url, str):
        # The type alone: it may be a list of URLs, with passwords.
        raise TypeError(f"a broker's URL is a string, not {type(url).__name__}; several are joined by ';'")
    # Imported when asked for: a unit test on memory:// need not pay for kombu.
    if url.startswith(MEMORY):
        from .memory import MemoryTransport

        return MemoryTransport(url.removeprefix(MEMORY).strip("/"), connection_name=connection_name)
    from .connection import Connection

    return Connection(url, connection_name=connection_name, **options)
