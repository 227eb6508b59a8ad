"""The bindings of a client's reply queue to the exchange: one for each service that it calls."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

from ..amqp.base import Session
from ..errors import TransportError
from .addresses import Addresses

# Seconds. AMQP does not report a deleted exchange or binding, so redeclare at this interval while calls with a deadline
# are pending.
REDECLARE_SECONDS = 2.0
# A binding costs the broker some tenths of a millisecond. So many are bound at most while a connection is set up, to
# spare the first calls a round trip; all others once they are called.
MOST_AT_SET_UP = 16
# So many are redeclared at a time. A client of more services redeclares those first that it waits for.
MOST_REDECLARED = 100


class ReplyBindings:
    """
    Which services the reply queue is bound for. The lock of the requests guards it.

    Args:
        addresses: Knows the binding keys.
        is_needed: Replies come over the exchange. False: every service counts as bound.
    """

    def __init__(self, addresses: Addresses, *, is_needed: bool) -> None:
        self._addresses = addresses
        self._is_needed = is_needed
        self._bound: set[str] = set()
        self._under_way: set[str] = set()
        self._redeclare_at = 0.0
        self._turn = 0
        self._turns: dict[str, int] = {}  # when each service was redeclared last

    def new_connection(self, called: set[str]) -> tuple[str, ...]:
        """
        Return the keys to bind while the connection is set up: of all services if they are few, else of some called.

        Args:
            called: The services of the pending calls.
        """
        services = self._addresses.services
        chosen = services if len(services) <= MOST_AT_SET_UP else islice(called, MOST_AT_SET_UP)
        self._bound = set(chosen) if self._is_needed else set()
        self._under_way.clear()
        self._turns.clear()
        return self._keys(self._bound)

    def opened(self, now: float) -> None:
        """Note that the connection is set up."""
        self._redeclare_at = now + REDECLARE_SECONDS

    def is_bound(self, service: str) -> bool:
        """Return whether a call of the service may be sent."""
        return not self._is_needed or service in self._bound

    def bind(self, session: Session, service: str, done: Callable[[str, TransportError | None], None]) -> None:
        """Begin to bind a service, unless that is under way; ``done`` is called with the service and the error."""
        if service not in self._under_way:
            self._under_way.add(service)
            session.bind(self._addresses.reply_binding(service), partial(done, service))

    def note_bound(self, service: str, error: TransportError | None) -> None:
        """Note the end of ``bind``."""
        self._under_way.discard(service)
        if error is None:
            self._bound.add(service)

    def next_redeclare(self, now: float, *, has_pending: bool) -> tuple[bool, float]:
        """Return whether to redeclare now, and when to ask again."""
        is_due = now >= self._redeclare_at
        if is_due:
            self._redeclare_at = now + REDECLARE_SECONDS
        return is_due and has_pending and self._is_needed, self._redeclare_at

    def keys_to_redeclare(self, called: set[str]) -> tuple[str, ...]:
        """
        Return the keys to redeclare now: of those bound the ones that are called, then the others, each in its turn.

        Args:
            called: The services of the pending calls.
        """
        turns = self._turns
        chosen = heapq.nsmallest(
            MOST_REDECLARED, self._bound, key=lambda each: (each not in called, turns.get(each, 0))
        )
        self._turn += 1
        turns.update(dict.fromkeys(chosen, self._turn))
        return self._keys(chosen)

    def _keys(self, services: Iterable[str]) -> tuple[str, ...]:
        return tuple(map(self._addresses.reply_binding, services))
