"""What the replies to a client must look like (pure)."""

from __future__ import annotations

from ..amqp.base import DIRECT_REPLY_TO, Delivery
from .display import printable
from .sender_checks import is_dead_letter, shown_user


class ReplyChecks:
    """
    What the answers to one client must look like.

    Args:
        exchange: They come over this one; "" is the default exchange.
        users: Who may answer; None: anybody.
    """

    def __init__(self, exchange: str, users: frozenset[str] | None) -> None:
        self._exchange = exchange
        self._users = users

    def flaw(self, delivery: Delivery, key: str) -> str | None:
        """
        Say why a message cannot be the answer to a call; None: it can.

        Args:
            key: The routing key that the answer must have; ``amq.rabbitmq.reply-to`` stands for what RabbitMQ makes
                of it.
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
            return f"it is from {shown_user(delivery.user_id)}, who is not the server"
        # A client that may have a queue of its own can have its own answers fall out of it, and into ours.
        if is_dead_letter(delivery):
            return "it is a dead letter of another queue"
        return None
