"""
How to test coroutines that call services: with a replacement of these on memory://. No broker, no mocks.

    pytest examples/test_async_with_memory.py

Tests and fixtures run by the pytest plugin of anyio, which comes with FastAPI and httpx. With pytest-asyncio the marker
is pytest.mark.asyncio, the decorator of coroutine fixtures pytest_asyncio.fixture, and anyio_backend is not needed.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator

import httpx
import pytest

from examples.fastapi_app import app, get_client
from jsonrpc_amqp import AsyncClient, CallTimeout, Server, Unroutable

URL = "memory://async-prices"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def total(client: AsyncClient, articles: list[str]) -> float:
    """An example of code under test."""
    prices: list[float] = await asyncio.gather(*(client.call("price.of", [article]) for article in articles))
    return sum(prices)


@pytest.fixture
async def client() -> AsyncGenerator[AsyncClient, None]:
    async with AsyncClient(URL, service="shop.prices", timeout=1) as client:
        yield client


@pytest.fixture
def shop() -> Generator[None, None, None]:
    async def price_of(article: str) -> float | None:
        if article == "gold":
            await asyncio.sleep(60)
        return {"bread": 3.5, "salt": 0.8}.get(article)

    prices = Server(URL, service="shop.prices", methods={"price.of": price_of})
    stock = Server(URL, service="shop.stock", methods={"stock.of": {"bread": 12}.get})
    with prices, stock:
        yield
        prices.stop(grace=0)  # do not wait for what no test waits for any more


@pytest.mark.usefixtures("shop")
async def test_prices_are_added(client: AsyncClient) -> None:
    assert await total(client, ["bread", "salt", "bread"]) == 7.8


@pytest.mark.usefixtures("shop")
async def test_a_slow_service_costs_no_more_than_the_deadline(client: AsyncClient) -> None:
    with pytest.raises(CallTimeout):
        await client.call("price.of", ["gold"], timeout=0.1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await total(client, ["bread", "gold"])
    assert client.stats()["pending"] == 0


async def test_without_a_server_the_call_is_unroutable(client: AsyncClient) -> None:
    with pytest.raises(Unroutable):
        await client.call("price.of", ["bread"], service="never.started")


@pytest.fixture
async def web(client: AsyncClient) -> AsyncGenerator[httpx.AsyncClient, None]:
    """The application of fastapi_app.py, with the client of this test."""
    app.dependency_overrides[get_client] = lambda: client
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as web:
        yield web
    app.dependency_overrides.clear()


@pytest.mark.usefixtures("shop")
async def test_the_application(web: httpx.AsyncClient) -> None:
    reply = await web.get("/articles/bread")
    assert (reply.status_code, reply.json()) == (200, {"name": "bread", "price": 3.5, "in_stock": 12})
    assert (await web.get("/articles/stone")).status_code == 404
    reply = await web.get("/articles/gold")
    assert (reply.status_code, reply.json()) == (504, {"error": "CallTimeout", "may_have_run": True})
    assert (await web.get("/readyz")).status_code == 200
