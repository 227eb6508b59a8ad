"""
Our client for coroutines under load, and its server, controlled over the line protocol of ``lines.py``.

    python -m benchmarks.async_peer server NAME
    python -m benchmarks.async_peer client NAME

A client makes each call with ``await client.call(...)``; it knows "run CALLS IN_FLIGHT" alone. The server is that of
``peer.py``, which says what the environment sets; besides, BENCH_LOOP=uvloop has the client run on uvloop.
"""

from __future__ import annotations

from benchmarks import peer
from benchmarks.lines import URL, role, run_commands_with_tasks, run_on_loop
from jsonrpc_amqp import AsyncClient


async def call(name: str) -> None:
    """Run the harness's commands until it quits."""
    async with AsyncClient(URL, name, **peer.client_options()) as client:
        await run_commands_with_tasks(lambda a, b: client.call("add", [a, b]))


if __name__ == "__main__":
    what, which = role()
    if what == "server":
        peer.serve(which)
    else:
        run_on_loop(call(which))
