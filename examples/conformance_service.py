"""
The methods of the JSON-RPC 2.0 specification's examples, for the conformance kit and for clients in any language.

    python examples/conformance_service.py
    jsonrpc-amqp conformance --service conformance

The kit needs the first five methods; the tests of the Java, Node and Go clients call the others.
The environment variables AMQP_URL and SERVICE set the broker (amqp://localhost) and the service (conformance).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from jsonrpc_amqp import RemoteError, Server

told: list[Any] = []


def subtract(minuend: float, subtrahend: float) -> float:
    return minuend - subtrahend


def total(*numbers: float) -> float:
    return sum(numbers)


def get_data() -> list[Any]:
    return ["hello", 5]


def update(*_values: Any) -> None:
    pass


def notify_hello(*values: Any) -> None:
    told.extend(values)


def was_told() -> list[Any]:
    """Return the values that notify_hello has received."""
    return told


def echo(value: Any) -> Any:
    return value


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fail() -> None:
    raise RuntimeError("this text stays here")


def refuse() -> None:
    raise RemoteError(1, "not today", {"when": "tomorrow"})


methods: dict[str, Callable[..., Any]] = {
    "subtract": subtract,
    "sum": total,
    "get_data": get_data,
    "update": update,
    "notify_hello": notify_hello,
    "was_told": was_told,
    "echo": echo,
    "sleep": sleep,
    "fail": fail,
    "refuse": refuse,
}


def main() -> None:
    url = os.environ.get("AMQP_URL", "amqp://localhost")
    with Server(url, os.environ.get("SERVICE", "conformance"), methods=methods) as server:
        print("serving", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
