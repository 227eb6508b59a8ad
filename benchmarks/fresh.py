"""Figures that need a fresh interpreter: ``python -m benchmarks.fresh idle URL`` prints one line of JSON."""

from __future__ import annotations

import json
import sys

# Import what connecting imports of other libraries, so that their memory does not count as the client's.
import kombu
import kombu.transport.pyamqp

import jsonrpc_amqp
from benchmarks.peer import resident_bytes

CLIENTS = 20


def idle(url: str) -> dict[str, float]:
    """Return the memory of one connected idle client beyond the imports, and of each further one, in bytes."""
    assert kombu.Connection is not None, "kombu imports it when it is looked up"
    empty = resident_bytes()
    clients = [jsonrpc_amqp.Client(url, "idle").start()]
    one = resident_bytes()
    clients += [jsonrpc_amqp.Client(url, "idle").start() for _ in range(CLIENTS)]
    many = resident_bytes()
    for client in clients:
        client.close()
    return {"first_bytes": one - empty, "more_bytes": (many - one) / CLIENTS}


if __name__ == "__main__":
    print(json.dumps(idle(sys.argv[2])))
