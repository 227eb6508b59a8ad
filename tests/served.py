"""The methods that tests of the command line serve: ``serve tests.served:methods``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from jsonrpcserver import Error, Result

from jsonrpc_amqp import Server


def process(number: int) -> list[int]:
    """Return the process that runs this, and the argument."""
    return [os.getpid(), number]


def record(number: int) -> int:
    """Write a line, then take 50 ms: if the process ends meanwhile, the redelivered request writes a second line."""
    line = f"{number}\n".encode()
    file = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        assert os.write(file, line) == len(line)
    finally:
        os.close(file)
    time.sleep(0.05)
    return number


def echo(value: object) -> object:
    return value


def fail() -> Result:
    return Error(77, "not \x1b[31mred\x9b", {"why": "é"})


methods: dict[str, Callable[..., Any]] = {"process": process, "record": record, "echo": echo, "fail": fail}

one = Server("amqp://nobody:nothing@nowhere.invalid", service="one")
two = Server("memory://two", service="two", methods=methods)
number = 5
