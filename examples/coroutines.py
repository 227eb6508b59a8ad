"""
Coroutines share one client: a hundred calls run concurrently, and one deadline ends what takes too long.

    python examples/coroutines.py

Needs no broker: server and client use memory:// in this process. With RabbitMQ only the URL changes.
"""

import asyncio
import time

from jsonrpc_amqp import AsyncClient, Server

server = Server("memory://coroutines", service="calc", concurrency=10)


@server.method
def square(number: int) -> int:
    time.sleep(0.05)
    return number * number


async def main() -> None:
    async with AsyncClient("memory://coroutines", service="calc") as client:
        began = time.monotonic()
        squares = await asyncio.gather(*(client.proxy.square(number) for number in range(100)))
        print(squares[-1])
        print(f"{len(squares)} calls of 0.05 s took {time.monotonic() - began:.1f} s")
        try:
            async with asyncio.timeout(0.01):
                await asyncio.gather(client.proxy.square(1), client.proxy.square(2))
        except TimeoutError:
            print(f"too late; {client.stats()['pending']} calls are pending")


if __name__ == "__main__":
    with server:
        asyncio.run(main())
