"""The service that knows what everything costs."""

from __future__ import annotations

import os
from decimal import Decimal

from jsonrpc_amqp import Server

from .middleware import AROUND_METHODS
from .models import Line, NoSuchArticle

PRICES = {"lamp": Decimal("24.50"), "rug": Decimal(180)}
MEMBERS = {"ada"}

server = Server(os.environ.get("AMQP_URL", "amqp://localhost"), "shop.pricing", middleware=AROUND_METHODS)


@server.error_handler(KeyError)
def no_such_article(error: KeyError) -> Exception:
    return NoSuchArticle(error.args[0])


@server.method
def total(lines: list[Line], *, customer: str | None = None) -> Decimal:
    price = sum((PRICES[line.sku] * line.count for line in lines), Decimal(0))
    return price * Decimal("0.9") if customer in MEMBERS else price


if __name__ == "__main__":
    server.serve_forever()
