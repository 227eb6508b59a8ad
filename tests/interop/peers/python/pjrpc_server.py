"""pjrpc's server over aio-pika: PROGRAM URL QUEUE. It prints "serving" when it is ready."""

import asyncio
import sys

import pjrpc.server
from pjrpc.server.exceptions import JsonRpcError
from pjrpc.server.integration import aio_pika as integration
from yarl import URL

methods = pjrpc.server.MethodRegistry()
told = []


@methods.add()
async def subtract(minuend, subtrahend):
    return minuend - subtrahend


@methods.add()
async def echo(value):
    return value


@methods.add()
async def notify_hello(value):
    told.append(value)


@methods.add()
async def was_told():
    return told


@methods.add()
async def refuse():
    raise JsonRpcError(code=1, message="not today", data={"when": "tomorrow"})


async def main(url: str, queue: str) -> None:
    executor = integration.Executor(
        URL(url), request_queue_name=queue, request_queue_args={"auto_delete": True}, prefetch_count=256
    )
    executor.dispatcher.add_methods(methods)
    await executor.start()
    print("serving", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
