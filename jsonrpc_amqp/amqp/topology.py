"""The declarations of a ``Plan``, on a channel of py-amqp: exchange, request queue, dead letters."""

from __future__ import annotations

from functools import partial
from typing import Any

from .base import Plan
from .py_amqp import AmqpChannel

# Each look at a dead letter counts as a delivery; without a limit RabbitMQ 4 drops it after twenty.
_NO_LIMIT = 1_000_000_000


def declare_exchange(channel: AmqpChannel, plan: Plan) -> None:
    """Declare the topic exchange, or check that it exists."""
    channel.exchange_declare(plan.exchange, "topic", durable=True, auto_delete=False, passive=not plan.declare)


def declare_request_queue(channel: AmqpChannel, plan: Plan) -> None:
    """Declare the queue of a server, or check that it exists."""
    arguments = _typed(plan.queue_type, delivery_limit=plan.delivery_limit)
    if plan.dead_letters:
        arguments["x-dead-letter-exchange"] = plan.dead_letters
    _declare_durable(channel, plan.queue or "", arguments, passive=not plan.declare)


def declare_dead_letters(channel: AmqpChannel, name: str, request_queue: str, queue_type: str | None) -> None:
    """
    Declare where dead letters go: an exchange, and a queue for all but what expired in ``request_queue``.

    What expired is routed to an exchange without queues, and the rest takes the alternate exchange. Keeping by
    reason would not do: a message may carry headers of an earlier death.
    """
    kept, expired = f"{name}_kept", f"{name}_expired"
    declare = partial(channel.exchange_declare, durable=True, auto_delete=False)
    declare(kept, "fanout")
    declare(expired, "fanout")
    declare(name, "headers", arguments={"alternate-exchange": kept})
    _declare_durable(channel, name, _typed(queue_type, delivery_limit=_NO_LIMIT))
    channel.queue_bind(name, kept, "")
    # https://www.rabbitmq.com/docs/dlx
    death = {"x-first-death-reason": "expired", "x-first-death-queue": request_queue}
    channel.exchange_bind(expired, name, "", arguments={"x-match": "all-with-x", **death})


def _declare_durable(channel: AmqpChannel, queue: str, arguments: dict[str, Any], *, passive: bool = False) -> None:
    channel.queue_declare(queue, passive=passive, durable=True, exclusive=False, auto_delete=False, arguments=arguments)


def _typed(queue_type: str | None, *, delivery_limit: int | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {"x-queue-type": queue_type} if queue_type else {}
    if queue_type == "quorum" and delivery_limit is not None:
        # Only quorum queues count; others refuse the argument.
        arguments["x-delivery-limit"] = delivery_limit
    return arguments
