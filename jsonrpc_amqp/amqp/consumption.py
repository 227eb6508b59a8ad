"""The consumer of one session: cancelled by us, or by the broker and then made again. By the leader only."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable

from .back_off import BackOff
from .link import Link

log = logging.getLogger("jsonrpc_amqp.transport")


class Consumption:
    """
    Cancels the consumer of a session, and has a server's queue consumed again where the broker cancelled it.

    The broker does that (https://www.rabbitmq.com/docs/consumer-cancel) when the queue was deleted, was moved or lost
    its node, and RabbitMQ 4.3 when a delivery from a quorum queue was not acknowledged for too long. What was delivered
    before is still to be settled, on the same channel.

    Args:
        link: Its channel that consumes.
        name: Of the connection, for logs.
        stats: Counts ``consumers_cancelled``.
        now: Monotonic seconds.

    Attributes:
        is_over: It was cancelled by us.
        next_event: When ``advance`` has something to do, in monotonic seconds; infinite for never.
    """

    def __init__(self, link: Link, name: str, stats: Counter[str], now: float, back_off: BackOff | None = None) -> None:
        self._link = link
        self._name = name
        self._stats = stats
        self._back_off = back_off or BackOff(1)
        self._since = now
        self._consumers = 1
        self.is_over = False
        self.next_event = math.inf

    def cancel(self, done: Callable[[], None]) -> None:
        """Stop consuming; ``done`` when no delivery can follow."""
        self.stop()
        channel, tag = self._link.consumer, self._link.consumer_tag
        if channel is None or not tag:
            done()
            return
        self._link.consumer_tag = ""
        channel.expecting(lambda _args: done())
        channel.basic_cancel(tag)

    def stop(self) -> None:
        """Consume no more if the broker cancels the consumer, or has."""
        self.is_over = True
        self.next_event = math.inf

    def cancelled(self, tag: str) -> None:
        """Note that the broker has cancelled a consumer."""
        channel = self._link.consumer
        if self.is_over or channel is None or tag != self._link.consumer_tag:
            return
        self._link.consumer_tag = ""
        # After its consumer timeout, RabbitMQ 4.3 would go on with that consumer behind the late acknowledgement,
        # unless we cancel it, too. A broker that does not know the tag any more ignores that.
        channel.basic_cancel(tag, nowait=True)
        now = time.monotonic()
        # A queue whose consumers are cancelled at once must not make a loop without a pause.
        delay = self._back_off.delay_after_loss(now - self._since)
        self._back_off.next_broker()  # counts the attempt
        self.next_event = now + delay
        self._stats["consumers_cancelled"] += 1
        log.warning(
            "%s: the broker cancelled the consumer of queue %r: it was deleted or moved, its node went away, or a "
            "request was not acknowledged within the broker's consumer timeout; consuming again in %.1f s",
            self._name,
            self._link.queue,
            delay,
        )

    def advance(self, now: float) -> None:
        """
        Consume again, if it is time for that: declare the queue, bind it, and consume.

        Raises:
            ConnectionLost: Later: it cannot be declared again, or not be consumed.
        """
        if now >= self.next_event:
            self.next_event = math.inf
            self._link.redeclare(self._consume, queue=True)

    def _consume(self) -> None:
        channel = self._link.consumer
        if channel is None or self.is_over:
            return
        self._since = time.monotonic()
        # A tag of ours is known at once, so that ``cancel`` need not wait for the reply.
        self._consumers += 1
        tag = self._link.consumer_tag = f"consumer-{self._consumers}"
        channel.expecting(None)
        channel.basic_consume(self._link.queue, tag)
