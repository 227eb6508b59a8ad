"""
A client of example_broker.py: one notification, which nobody answers, and one call.

    python examples/example_request.py

The broker is amqp://localhost, or what the environment has as AMQP_URL.
"""

import os

from jsonrpc_amqp import Client


def main() -> None:
    with Client(os.environ.get("AMQP_URL", "amqp://localhost"), service="example", timeout=5) as client:
        client.notify("log.write", {"line": "example_request asks for the time"})
        answer = client.call("time.now")
        print(answer["msg"])


if __name__ == "__main__":
    main()
