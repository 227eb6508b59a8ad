"""
A service with two methods. Any number of processes, on any number of hosts, share its requests.

Run one process:

    python examples/example_broker.py

or several, restarted when they die:

    jsonrpc-amqp serve examples.example_broker --service example --workers 3

and call it:

    python examples/example_request.py
    jsonrpc-amqp call time.now --service example

The environment variable AMQP_URL sets the broker (amqp://localhost).
"""

import os
import time

from jsonrpcserver import method

from jsonrpc_amqp import Server, global_methods


@method(name="time.now")
def now() -> dict[str, str]:
    return {"msg": time.ctime()}


@method(name="log.write")
def write(line: str | dict[str, str]) -> None:  # programs of the 2011 recipe send an object
    print(line, flush=True)


def main() -> None:
    server = Server(os.environ.get("AMQP_URL", "amqp://localhost"), service="example", methods=global_methods)
    server.serve_forever()


if __name__ == "__main__":
    main()
