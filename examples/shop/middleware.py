"""What runs around every request of the shop."""

from __future__ import annotations

import time
from contextvars import ContextVar

from jsonrpc_amqp import AsyncCallNext, CallNext, OutgoingRequest, Request

HEADER = "x-request-id"
request_id: ContextVar[str] = ContextVar("request_id", default="-")


class Timed:
    """Prints how long each request took, and its request id; around methods of both kinds."""

    def __call__(self, request: Request, call_next: CallNext) -> object:
        began = time.perf_counter()
        try:
            return call_next(request)
        finally:
            self._show(request, began)

    async def asynchronous(self, request: Request, call_next: AsyncCallNext) -> object:
        began = time.perf_counter()
        try:
            return await call_next(request)
        finally:
            self._show(request, began)

    def _show(self, request: Request, began: float) -> None:
        took = 1000 * (time.perf_counter() - began)
        print(f"{request.service} {request.method} {request_id.get()} {took:.1f} ms", flush=True)


class WithRequestId:
    """Takes the request id from the headers of the request, for all that the method does."""

    def __call__(self, request: Request, call_next: CallNext) -> object:
        self._take(request)
        return call_next(request)

    async def asynchronous(self, request: Request, call_next: AsyncCallNext) -> object:
        self._take(request)
        return await call_next(request)

    def _take(self, request: Request) -> None:
        request_id.set(str(request.headers.get(HEADER, "-")))


async def pass_request_id(request: OutgoingRequest, call_next: AsyncCallNext) -> object:
    """Send the request id along with a call."""
    request.headers[HEADER] = request_id.get()
    return await call_next(request)


AROUND_METHODS = (WithRequestId(), Timed())
