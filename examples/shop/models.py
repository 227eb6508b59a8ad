"""What the services say to one another: dataclasses, models of pydantic, and errors."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field

from jsonrpc_amqp import ApplicationError


class Line(BaseModel):
    """So many pieces of an article."""

    sku: str
    count: Annotated[int, Field(gt=0, le=100)]


class Order(BaseModel):
    """What a customer orders."""

    customer: str
    lines: Annotated[list[Line], Field(min_length=1)]


@dataclass
class Receipt:
    """What became of an order."""

    number: int
    total: Decimal


class ShopError(ApplicationError):
    """What all errors of the shop are caught by."""

    sku: str


class OutOfStock(ShopError, code=1001):
    """There are not enough of it."""

    left: int


class NoSuchArticle(ShopError, code=1002):
    """There is no such article."""
