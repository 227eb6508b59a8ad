"""Which messages a client accepts as replies to its calls (pure)."""

from __future__ import annotations

from ..amqp.base import DIRECT_REPLY_TO, Delivery
from .display import printable, sender
from .sender_checks import is_dead_letter


class ReplyChecks:
    """
    The requirements on the replies to one client.

    Args:
        exchange: The exchange over which they come; "" is the default exchange.
        users: Who may reply; None: any user.
    """

    def __init__(self, exchange: str, users: frozenset[str] | None) -> None:
        self._exchange = exchange
        self._users = users

    def mismatch(self, delivery: Delivery, key: str) -> str | None:
        """
        Return why a message cannot be the reply to a call, or None if it can.

        Args:
            key: The routing key that the reply must have; ``amq.rabbitmq.reply-to`` stands for the name that RabbitMQ
                puts in its place.
        """
        if delivery.exchange != self._exchange or (
            delivery.routing_key != key
            and not (key == DIRECT_REPLY_TO and delivery.routing_key.startswith(f"{DIRECT_REPLY_TO}."))
        ):
            return (
                f"it was published to exchange {printable(delivery.exchange)} with key "
                f"{printable(delivery.routing_key)}, which is not where its server would send it"
            )
        if self._users is not None and delivery.user_id not in self._users:
            return f"it is from {sender(delivery.user_id)}, who is not the server"
        # A client with a queue of its own could let replies to itself be dead-lettered into this client's queue.
        if is_dead_letter(delivery):
            return "it is a dead letter of another queue"
        return None
