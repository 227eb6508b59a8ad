"""
Our client and server for coroutines under load, controlled over the line protocol of ``lines.py``.

    python -m benchmarks.async_peer server NAME
    python -m benchmarks.async_peer client NAME

A client makes each call with ``await client.call(...)``; it knows "run CALLS IN_FLIGHT" alone. ``peer.py`` says what
the environment sets; besides:

    BENCH_LOOP=uvloop               the event loop is uvloop's
    BENCH_SERVER=async              the server is an ``AsyncServer``; else that of ``peer.py``
"""

from __future__ import annotations

import os

from benchmarks import peer
from benchmarks.lines import URL, role, run_commands_with_tasks, run_on_loop, say
from jsonrpc_amqp import AsyncClient, AsyncServer


async def serve(name: str) -> None:
    """Serve until SIGTERM."""
    server = AsyncServer(URL, name, **peer.server_options())
    peer.register(server)
    async with server:
        say("READY")
        await server.serve_forever(handle_signals=True)


async def call(name: str) -> None:
    """Run the harness's commands until it quits."""
    async with AsyncClient(URL, name, **peer.client_options()) as client:
        await run_commands_with_tasks(lambda a, b: client.call("add", [a, b]))


if __name__ == "__main__":
    what, which = role()
    if what == "client":
        run_on_loop(call(which))
    elif os.environ.get("BENCH_SERVER") == "async":
        run_on_loop(serve(which))
    else:
        peer.serve(which)
