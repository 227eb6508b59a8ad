"""What a decorated method is: itself."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from jsonrpc_amqp import AsyncServer, Server, global_methods

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


async def serve(server: AsyncServer) -> None:
    async with server as entered:
        assert_type(entered, AsyncServer)
    assert_type(await server.serve_forever(grace=1), bool)
    assert_type(await server.stop(), bool)
    assert_type(server.method(plain)(1), str)
    assert_type(await server.method("time.later")(later)(1.0), str)
    server.method(ack="never")  # type: ignore[call-overload]  # "late" or "early"
