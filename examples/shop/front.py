"""The web application in front: orders come in as JSON over HTTP, and go on as calls."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from jsonrpc_amqp import AsyncClient, CallTimeout, TransportError

from .descriptions import Orders
from .middleware import HEADER, pass_request_id, request_id
from .models import Order, Receipt, ShopError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    url = os.environ.get("AMQP_URL", "amqp://localhost")
    async with AsyncClient(url, "shop.orders", timeout=5, middleware=[pass_request_id]) as client:
        app.state.orders = client.typed(Orders)
        yield


app = FastAPI(lifespan=lifespan)


@app.middleware("http")
async def with_request_id(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    request_id.set(request.headers.get(HEADER) or secrets.token_hex(8))
    response = await call_next(request)
    response.headers[HEADER] = request_id.get()
    return response


@app.exception_handler(ShopError)
async def of_the_shop(_request: Request, error: ShopError) -> JSONResponse:
    return JSONResponse({"error": error.message, "data": error.data}, 409)


@app.exception_handler(TransportError)
async def no_reply(_request: Request, error: TransportError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 504 if isinstance(error, CallTimeout) else 503)


@app.post("/orders")
async def order(order: Order) -> Receipt:
    orders: Orders = app.state.orders
    return await orders.place(order)
