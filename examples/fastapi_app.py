"""
A FastAPI application: its requests call two services at once, under one deadline; and it serves a third one itself.

    pip install 'jsonrpc-amqp' fastapi uvicorn
    python examples/fastapi_services.py &
    uvicorn --app-dir examples fastapi_app:app        # examples/fastapi_app.py
    curl http://127.0.0.1:8000/articles/bread
    jsonrpc-amqp call visits.of '["bread"]' --service shop.web

The environment variable AMQP_URL sets the broker (amqp://localhost).
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

from jsonrpc_amqp import AsyncClient, AsyncServer, RemoteError, TransportError

logging.basicConfig(level="INFO")
log = logging.getLogger(__name__)
URL = os.environ.get("AMQP_URL", "amqp://localhost")
# Seconds, for all that a request does; and for one call, which is to end first, since its error says more.
DEADLINE, CALL_TIMEOUT = 2.0, 1.5
visits: Counter[str] = Counter()


async def visits_of(name: str) -> int:
    """A method of the service; it runs on the event loop of the application, as its requests do."""
    return visits[name]


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[dict[str, Any], None]:
    server = AsyncServer(URL, service="shop.web", methods={"visits.of": visits_of})
    async with aclosing(AsyncClient(URL, timeout=CALL_TIMEOUT)) as client:
        # The application starts without its broker: the server waits for that, and /readyz says when it can be called.
        serving = asyncio.create_task(server.serve_forever(grace=5))
        with suppress(TransportError):
            await client.start(timeout=0)
        try:
            yield {"client": client}
        finally:
            server.drain()
            await serving


app = FastAPI(lifespan=lifespan)


def get_client(request: Request) -> AsyncClient:
    client: AsyncClient = request.state.client
    return client


Services = Annotated[AsyncClient, Depends(get_client)]


@app.get("/articles/{name}")
async def article(name: str, services: Services) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE):
        price, stock = await asyncio.gather(
            services.call("price.of", [name], service="shop.prices"),
            services.call("stock.of", [name], service="shop.stock"),
        )
    if price is None:
        raise HTTPException(404, "no such article")
    visits[name] += 1
    return {"name": name, "price": price, "in_stock": stock}


@app.get("/readyz")
async def readyz(services: Services) -> JSONResponse:
    """Whether services can be called now. What is in the way names hosts and queues: it is logged."""
    health = services.health()
    if health.is_ready:
        return JSONResponse({"status": "ready"})
    log.warning("not ready: %s", "; ".join(health.problems))
    return JSONResponse({"status": "not ready"}, 503)


@app.exception_handler(TransportError)
@app.exception_handler(TimeoutError)
async def unavailable(request: Request, error: Exception) -> JSONResponse:
    """Answer 504 where the deadline passed, else 503. The text of the error names hosts and queues: it is logged."""
    log.warning("%s: %s", request.url.path, error)
    may_have_run = getattr(error, "may_have_run", True)
    body = {"error": type(error).__name__, "may_have_run": may_have_run}
    return JSONResponse(body, 504 if isinstance(error, TimeoutError) else 503, {"Retry-After": "1"})


@app.exception_handler(RemoteError)
async def failed(request: Request, error: Exception) -> JSONResponse:
    log.warning("%s: %s", request.url.path, error)
    return JSONResponse({"error": "a service failed"}, 502)
