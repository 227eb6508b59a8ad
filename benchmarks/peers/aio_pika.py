"""aio-pika's patterns.JsonRPC with its defaults, publisher confirms included; PEER_CONFIRM=0 turns these off."""

from __future__ import annotations

import asyncio
import os

import aio_pika
from aio_pika.patterns import JsonRPC

from benchmarks.lines import PREFETCH, URL, role, run_commands_with_tasks, run_on_loop, say


async def main():
    what, queue = role()
    connection = await aio_pika.connect(URL)
    channel = await connection.channel(publisher_confirms=os.environ.get("PEER_CONFIRM") != "0")
    await channel.set_qos(prefetch_count=PREFETCH)
    rpc = await JsonRPC.create(channel)
    if what == "client":
        await run_commands_with_tasks(lambda a, b: rpc.call(queue, {"a": a, "b": b}))

    async def add(*, a, b):
        return a + b

    await rpc.register(queue, add, auto_delete=True)
    say("READY")
    await asyncio.Event().wait()


run_on_loop(main())
