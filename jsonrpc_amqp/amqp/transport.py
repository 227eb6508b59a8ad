"""The transport that a URL names."""

from __future__ import annotations

from ..options import ConnectionOptions
from ..runtime.base import Runtime
from ..runtime.threads import ThreadsRuntime
from .base import Transport

MEMORY = "memory://"


def connect_transport(url: str, options: ConnectionOptions | None = None, runtime: Runtime | None = None) -> Transport:
    """
    Return the transport that a URL names; nothing is connected yet.

    Args:
        url: ``memory://NAME``, or as for ``connection.Connection``.
        options: How to connect; ``memory://`` uses the name only.
        runtime: Drives it; threads, if None.

    Raises:
        TypeError: The URL is not a string.
        ValueError: It names no transport.
    """
    if not isinstance(url, str):
        # The type alone: it may be a list of URLs, with passwords.
        raise TypeError(f"a broker's URL is a string, not {type(url).__name__}; several are joined by ';'")
    options, runtime = options or ConnectionOptions(), runtime or ThreadsRuntime()
    # Imported when needed: a unit test on memory:// need not load kombu.
    url = url.strip()
    if url.startswith(MEMORY):
        from .memory import MemoryTransport

        if ";" in url:
            raise ValueError("memory:// stands alone: the broker in this process needs no other in its place")
        return MemoryTransport(url.removeprefix(MEMORY).strip("/"), runtime=runtime, connection_name=options.name)
    from .connection import Connection

    return Connection(url, options, runtime)
