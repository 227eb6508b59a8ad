"""
The client under test, in a process of its own: ``python -m tests.abuse.victim URL EVIL GOOD``.

For a line ``evil`` or ``good`` on standard input it calls that service, and prints a line of JSON: how the call ended,
the counters, and what became of the calls that another thread makes all the time, over the same connection.
"""

from __future__ import annotations

import json
import logging
import sys

from jsonrpc_amqp import Client, JsonRpcAmqpError

from .neighbour import Neighbour

TIMEOUT = 0.5


def main(url: str, evil: str, good: str) -> None:
    logging.basicConfig(level="INFO")
    with (
        Client(url, timeout=30) as client,
        Neighbour(lambda name, number: client.call("visit", [name, number], service=good)) as neighbour,
    ):
        for line in sys.stdin:
            try:
                if line.strip() == "evil":
                    client.call("evil", service=evil, timeout=TIMEOUT)
                elif line.strip() == "good":
                    client.call("add", [1, 2], service=good)
                ended = "result"
            except JsonRpcAmqpError as error:
                ended = type(error).__name__
                logging.getLogger("jsonrpc_amqp.client").warning("%s", error)
            print(json.dumps([ended, client.stats(), neighbour.report()]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
