"""One request message on its way through a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..amqp.base import Delivery, Session
from ..dialects import Inbound
from ..jsonrpc.decoding import Decoded


@dataclass(slots=True, eq=False)
class Job:
    """
    One request message: what a handler may ask about it (``context.Envelope``), and how it is settled.

    Attributes:
        deadline: When its caller gives up, in monotonic seconds; None where that is not known.
        redeliveries: How many times its queue redelivered it, where the queue counts that.
        is_settled: It was acknowledged or rejected.
        is_dead_letter: It is to be rejected, since something that it asks for will not be done.
        may_be_dead_letter: False once a part of it turned out to be unauthorized.
        inbound: Its translation by a dialect; None where it is JSON-RPC as it came.
        decoded: What its body holds, where that is known.
        is_for_loop: A method in it is known to be ``async def``; the event loop that has read it may go on with it.
    """

    service: str
    session: Session
    delivery: Delivery
    deadline: float | None
    redeliveries: int = 0
    is_settled: bool = False
    is_dead_letter: bool = False
    may_be_dead_letter: bool = True
    inbound: Inbound | None = None
    decoded: Decoded | None = None
    is_for_loop: bool = False

    @property
    def body(self) -> bytes:
        """The JSON-RPC request; empty where it was too large to keep."""
        return (self.delivery.body or b"") if self.inbound is None else self.inbound.body

    @property
    def routing_key(self) -> str:
        return self.delivery.routing_key

    @property
    def headers(self) -> Mapping[str, Any]:
        return self.delivery.headers

    @property
    def user_id(self) -> str | None:
        return self.delivery.user_id

    @property
    def redelivered(self) -> bool:
        return self.delivery.redelivered

    @property
    def is_wanted(self) -> bool:
        return self.session.is_consuming

    def acknowledge(self) -> None:
        self.settle()
        self.session.write_now()  # the method begins next, and may end the process

    def dead_letter(self) -> None:
        self.is_dead_letter = self.may_be_dead_letter

    def forbid_dead_letter(self) -> None:
        self.is_dead_letter = self.may_be_dead_letter = False

    def give_back(self) -> None:
        if not self.is_settled:
            self.is_settled = True
            self.session.requeue(self.delivery)
            self.session.flush()

    def settle(self) -> None:
        """Acknowledge or reject the message, unless that was done."""
        if self.is_settled:
            return
        self.is_settled = True
        if self.is_dead_letter:
            self.session.reject(self.delivery)
        else:
            self.session.ack(self.delivery)
