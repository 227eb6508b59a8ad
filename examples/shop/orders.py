"""The service that takes orders. It calls the two others, and passes their errors on."""

from __future__ import annotations

import asyncio
import os
from itertools import count

from jsonrpc_amqp import AsyncClient, AsyncServer

from .descriptions import Inventory, Pricing
from .middleware import AROUND_METHODS, pass_request_id
from .models import Order, Receipt, ShopError

URL = os.environ.get("AMQP_URL", "amqp://localhost")
client = AsyncClient(URL, timeout=5, middleware=[pass_request_id])
inventory = client.with_options(service="shop.inventory").typed(Inventory)
pricing = client.with_options(service="shop.pricing").typed(Pricing)

server = AsyncServer(URL, "shop.orders", middleware=AROUND_METHODS)
numbers = count(1)


@server.error_handler(ShopError)
def pass_on(error: ShopError) -> Exception:
    return error  # what a call of this service ended in is what the order ends in


@server.method
async def place(order: Order) -> Receipt:
    total = await pricing.total(order.lines, customer=order.customer)
    await inventory.take(order.lines)
    return Receipt(next(numbers), total)


async def main() -> None:
    async with client:
        await server.serve_forever(handle_signals=True)


if __name__ == "__main__":
    asyncio.run(main())
