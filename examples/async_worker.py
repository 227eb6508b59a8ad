"""
A worker in coroutines: its method calls another service, within the time that its own caller has left.

    python examples/async_worker.py

Needs no broker: servers and client use memory:// in this process. With RabbitMQ only the URL changes.
"""

import asyncio

from jsonrpc_amqp import ApplicationError, AsyncClient, AsyncServer, CallTimeout, TransportError, current_request

URL = "memory://worker"
prices = AsyncServer(URL, service="prices")
baskets = AsyncServer(URL, service="baskets")
client = AsyncClient(URL)  # one for all that runs on an event loop


class NoPrices(ApplicationError, code=1):
    may_have_run: bool


@prices.method("price.of", cancel_on_deadline=True)
async def price_of(article: str) -> float:
    if article == "gold":
        await asyncio.sleep(60)  # cancelled when its caller does not wait any more
    return {"bread": 3.5, "salt": 0.8}[article]


@baskets.method
async def total(articles: list[str]) -> float:
    remaining = current_request().remaining
    assert remaining is not None
    print(f"baskets: {len(articles)} prices in {remaining:.0f} s")
    # Each of these calls has the deadline of this method's caller: a timeout= could only make it shorter.
    calls = [client.call("price.of", [article], service="prices") for article in articles]
    try:
        found: list[float] = await asyncio.gather(*calls)
    except TransportError as error:
        raise NoPrices(error.may_have_run) from error
    return sum(found)


async def main() -> None:
    async with client, prices, baskets:
        print(await client.call("total", [["bread", "salt", "bread"]], service="baskets", timeout=10))
        try:
            await client.call("total", [["bread", "gold"]], service="baskets", timeout=2)
        except CallTimeout as error:
            print(f"too late; it may have run: {error.may_have_run}")


if __name__ == "__main__":
    asyncio.run(main())
