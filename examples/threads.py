"""
Many threads share one client: it is thread-safe, and its calls run concurrently.

    python examples/threads.py

Needs no broker: server and client use memory:// in this process. With RabbitMQ only the URL changes.
"""

import time
from concurrent.futures import ThreadPoolExecutor

from jsonrpc_amqp import Client, Server

# As many handlers as callers, so that no call waits for another.
server = Server("memory://threads", service="calc", concurrency=10)


@server.method
def square(number: int) -> int:
    time.sleep(0.05)
    return number * number


def main() -> None:
    with server, Client("memory://threads", service="calc") as client, ThreadPoolExecutor(10) as callers:
        began = time.monotonic()
        squares = list(callers.map(client.proxy.square, range(100)))
        print(squares[-1])
        print(f"{len(squares)} calls of 0.05 s took {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
