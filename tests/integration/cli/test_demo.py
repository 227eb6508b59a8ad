"""``jsonrpc-amqp demo`` without a broker."""

from __future__ import annotations

from jsonrpc_amqp import demo

from ...cli_tools import one_line
from .conftest import Invoke


def test_demo_shows_method_id_and_the_time_that_came_back() -> None:
    lines: list[str] = []
    demo.run(clock=lambda: "half past eight", echo=lines.append)
    assert lines == [
        "client: notify log.write",
        "server: method log.write, no id (a notification): 'hello'",
        "client: call time.now",
        "server: method time.now, id 1",
        "client: id 1 answered: half past eight",
    ]


def test_demo_without_its_broker(invoke: Invoke, nowhere: str) -> None:
    done = invoke("demo", "--url", nowhere)
    assert (done.returncode, done.stdout) == (3, "")
    assert one_line(done.stderr)
