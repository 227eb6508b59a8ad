"""FastStream's RabbitBroker, with broker.request()."""

from __future__ import annotations

import asyncio
import json

from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from benchmarks.lines import PREFETCH, URL, role, run_commands_with_tasks, run_on_loop, say


async def main():
    what, queue = role()
    broker = RabbitBroker(URL, logger=None, default_channel=Channel(prefetch_count=PREFETCH))
    if what == "client":
        await broker.start()

        async def call(a, b):
            reply = await broker.request({"a": a, "b": b}, queue, timeout=30)
            return json.loads(reply.body)

        await run_commands_with_tasks(call)

    @broker.subscriber(RabbitQueue(queue, auto_delete=True))
    async def add(a: int, b: int) -> int:
        return a + b

    await broker.start()
    say("READY")
    await asyncio.Event().wait()


run_on_loop(main())
