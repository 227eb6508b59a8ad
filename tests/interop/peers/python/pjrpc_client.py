"""
pjrpc's client over aio-pika: PROGRAM URL QUEUE queue|fresh [--concurrent]; fresh is a reply queue for each request.

Reads request bodies from standard input, one a line, and prints pjrpc's responses in the same order.
"""

import asyncio
import json
import sys
import uuid

import pjrpc
from pjrpc.client.backend import aio_pika as backend
from yarl import URL


async def main(url: str, queue: str, mode: str, *flags: str) -> None:
    named = {"result_queue_name": f"replies-{uuid.uuid4()}", "result_queue_args": {"auto_delete": True}}
    options = named if mode == "queue" else {}
    async with backend.Client(URL(url), routing_key=queue, **options) as client:

        async def ask(line):
            value = json.loads(line)
            kind = pjrpc.common.BatchRequest if isinstance(value, list) else pjrpc.common.Request
            response = await client.send(kind.from_json(value))
            return None if response is None else response.to_json()

        lines = list(sys.stdin)
        if "--concurrent" in flags:
            answers = await asyncio.gather(*map(ask, lines))
        else:
            answers = [await ask(line) for line in lines]
    for answer in answers:
        print(json.dumps(answer))


asyncio.run(main(*sys.argv[1:]))
