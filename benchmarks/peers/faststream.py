"""FastStream's RabbitBroker, with broker.request()."""

from __future__ import annotations

import asyncio
import json

from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from benchmarks.lines import PREFETCH, URL, answer_lines_with_tasks, role, say


async def main():
    what, queue = role()
    broker = RabbitBroker(URL, logger=None, default_channel=Channel(prefetch_count=PREFETCH))
    if what == "client":
        await broker.start()

        async def call(a, b):
            answer = await broker.request({"a": a, "b": b}, queue, timeout=30)
            return json.loads(answer.body)

        await answer_lines_with_tasks(call)

    @broker.subscriber(RabbitQueue(queue, auto_delete=True))
    async def add(a: int, b: int) -> int:
        return a + b

    await broker.start()
    say("READY")
    await asyncio.Event().wait()


asyncio.run(main())
