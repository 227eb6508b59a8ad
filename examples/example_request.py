"""
A client of example_broker.py: one notification, which has no reply, and one call.

    python examples/example_request.py

The environment variable AMQP_URL sets the broker (amqp://localhost).
"""

import os

from jsonrpc_amqp import Client


def main() -> None:
    with Client(os.environ.get("AMQP_URL", "amqp://localhost"), service="example", timeout=5) as client:
        client.notify("log.write", {"line": "example_request asks for the time"})
        result = client.call("time.now")
        print(result["msg"])


if __name__ == "__main__":
    main()
