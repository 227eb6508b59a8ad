"""What a decorated method is: itself."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from jsonrpc_amqp import Server, global_methods

server = Server("memory://typing", "typing")


@server.method
def plain(a: int, b: int = 0) -> str:
    return str(a + b)


@server.method("time.later", cancel_on_deadline=True, ack="early")
async def later(seconds: float) -> str:
    return str(seconds)


async def check() -> None:
    assert_type(global_methods, dict[str, Callable[..., Any]])
    assert_type(plain(1), str)
    assert_type(await later(1.0), str)
    assert_type(server.method(redelivery="refuse")(plain)(1), str)
    server.method(ack="never")  # type: ignore[call-overload]  # "late" or "early"
    registered: Callable[[float], Coroutine[Any, Any, str]] = later
    assert registered is later
