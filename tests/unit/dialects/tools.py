"""What the tests of dialects share."""

from __future__ import annotations

from typing import Any

from jsonrpc_amqp.amqp.base import Delivery
from jsonrpc_amqp.dialects import Inbound, ServerDialect


def read(dialect: ServerDialect, body: bytes, **properties: Any) -> Inbound | None:
    """Have a dialect read one message."""
    return dialect.read(Delivery(1, 1, False, "X", "S.request.*", body, size=len(body), **properties), body)


def translated(dialect: ServerDialect, body: bytes) -> Inbound:
    """Have a dialect read one of its own requests."""
    inbound = read(dialect, body)
    assert inbound is not None
    return inbound
