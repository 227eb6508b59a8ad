"""
A JSON-RPC server over HTTP, with jsonrpclib-pelix and nothing of ours: python tests/pelix_server.py PORT [pooled].

One request at a time, or with its pool of threads. It says "serving" once it does; ``whoami`` tells its runs apart.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from jsonrpclib.SimpleJSONRPCServer import PooledJSONRPCServer, SimpleJSONRPCServer

told: list[Any] = []


def sleep(seconds: float) -> float:
    print("asleep", flush=True)
    time.sleep(seconds)
    return seconds


def fail() -> None:
    raise RuntimeError("this text stays here")


class Pooled(PooledJSONRPCServer):  # type: ignore[misc]  # it has no type hints
    request_queue_size = 256


def main(port: str, *pooled: str) -> None:
    server = (Pooled if pooled else SimpleJSONRPCServer)(("127.0.0.1", int(port)), logRequests=False)
    server.register_function(lambda minuend, subtrahend: minuend - subtrahend, "subtract")
    server.register_function(lambda value: value, "echo")
    server.register_function(told.append, "tell")
    server.register_function(lambda: told, "was_told")
    server.register_function(os.getpid, "whoami")
    server.register_function(sleep)
    server.register_function(fail)
    print("serving", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
