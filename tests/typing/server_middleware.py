"""Middleware of servers."""

from __future__ import annotations

from jsonrpc_amqp import AsyncCallNext, AsyncServer, CallNext, Request, Server


def plain(request: Request, call_next: CallNext) -> object:
    return call_next(request)


async def coroutine(request: Request, call_next: AsyncCallNext) -> object:
    return await call_next(request)


class Both:
    def __call__(self, request: Request, call_next: CallNext) -> object:
        return call_next(request)

    async def asynchronous(self, request: Request, call_next: AsyncCallNext) -> object:
        return await call_next(request)


def of_nothing() -> None: ...


server = Server(service="s", middleware=[plain, coroutine, Both()])
server.middleware(plain)
server.middleware(Both())
AsyncServer(service="s").middleware(coroutine)
server.middleware(of_nothing)  # type: ignore[type-var]
Server(service="s", middleware=[of_nothing])  # type: ignore[list-item]


@server.middleware
def decorated(request: Request, call_next: CallNext) -> object:
    return call_next(request)


@server.method(middleware=[plain], bypass_middleware=False)
def add(a: int, b: int) -> int:
    return a + b
