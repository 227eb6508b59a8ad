"""What the services can do, as their clients see it."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from jsonrpc_amqp import raises

from .models import Line, NoSuchArticle, Order, OutOfStock, Receipt


@raises(NoSuchArticle, OutOfStock)
class Inventory(Protocol):
    async def take(self, lines: list[Line]) -> None: ...


@raises(NoSuchArticle)
class Pricing(Protocol):
    async def total(self, lines: list[Line], *, customer: str | None = None) -> Decimal: ...


@raises(NoSuchArticle, OutOfStock)
class Orders(Protocol):
    async def place(self, order: Order) -> Receipt: ...
