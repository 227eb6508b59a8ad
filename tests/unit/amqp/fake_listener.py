"""A listener that records what is reported to it."""

from __future__ import annotations

from typing import Any

from jsonrpc_amqp.amqp.base import Delivery, Plan, Publish, Returned, Session
from jsonrpc_amqp.errors import TransportError


class FakeListener:
    """
    Records events as tuples: a name, and what says which event it was.

    Attributes:
        raises: What the method of this name raises, once.
        next_tick: What ``on_tick`` returns.
    """

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.errors: list[TransportError] = []
        self.raises: dict[str, BaseException] = {}
        self.next_tick: float | None = None
        self.ticks: list[float] = []

    def take(self) -> list[tuple[Any, ...]]:
        """Return the events since the last look."""
        events, self.events = self.events, []
        return events

    def plan(self) -> Plan:
        self._note("plan")
        return Plan(exchange="rpc")

    def on_open(self, session: Session) -> None:
        self._note("on_open", session.generation)

    def on_failed(self, error: TransportError, retry_in: float | None) -> None:
        self.errors.append(error)
        self._note("on_failed", type(error), retry_in is not None)

    def on_lost(self, session: Session, error: TransportError) -> None:
        self.errors.append(error)
        self._note("on_lost", session.generation)

    def on_deliveries(self, session: Session, deliveries: list[Delivery]) -> None:
        self._note("on_deliveries", [each.tag for each in deliveries])

    def on_returned(self, session: Session, returned: Returned) -> None:
        self._note("on_returned", returned.routing_key)

    def awaits(self, message: Publish) -> bool:
        return True

    def on_rejected(self, session: Session, error: TransportError, message: Publish) -> None:
        self._note("on_rejected", message.routing_key)

    def on_congested(self, session: Session, congested: bool) -> None:
        self._note("on_congested", congested)

    def on_tick(self, now: float) -> float | None:
        self.ticks.append(now)
        self._raise("on_tick")
        return self.next_tick

    def _note(self, name: str, *details: object) -> None:
        self.events.append((name, *details))
        self._raise(name)

    def _raise(self, name: str) -> None:
        error = self.raises.pop(name, None)
        if error is not None:
            raise error
