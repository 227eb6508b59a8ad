"""pjrpc: JSON-RPC 2.0 over aio-pika, with its own client and server; one reply queue, which is not its default."""

from __future__ import annotations

import asyncio
import uuid

from yarl import URL as Url

from benchmarks.lines import PREFETCH, URL, role, run_commands_with_tasks, run_on_loop, say


async def serve(queue):
    from pjrpc.server import MethodRegistry
    from pjrpc.server.integration.aio_pika import Executor

    methods = MethodRegistry()

    @methods.add()
    async def add(a, b):
        return a + b

    executor = Executor(Url(URL), request_queue_name=queue, prefetch_count=PREFETCH)
    executor.dispatcher.add_methods(methods)
    await executor.start()
    say("READY")
    await asyncio.Event().wait()


async def call(queue):
    from pjrpc.client.backend.aio_pika import Client

    # Its default, a queue for each call, is half as fast.
    replies = f"{queue}.reply.{uuid.uuid4().hex}"
    options = {"result_queue_name": replies, "result_queue_args": {"auto_delete": True}}
    client = Client(Url(URL), routing_key=queue, **options)
    await client.connect()

    async def add(a, b):
        return await client("add", a=a, b=b)

    await run_commands_with_tasks(add)


what, queue = role()
run_on_loop(serve(queue) if what == "server" else call(queue))
