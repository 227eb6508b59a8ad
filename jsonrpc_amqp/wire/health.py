"""Whether a client or a server can do its work now, for the probes of an orchestrator (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..amqp.base import Session
from ..errors import TransportError


@dataclass(frozen=True, slots=True)
class Health:
    """
    Whether a client or a server can do its work now.

    Attributes:
        problems: What is in the way, each as a sentence without its full stop; none: it is ready.
        is_alive: False: it will not recover by itself, so that another process should take its place. A broker that is
            away is no reason.
        is_ending: It drains, or was stopped or closed.
    """

    problems: tuple[str, ...] = ()
    is_alive: bool = True
    is_ending: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether nothing is in the way."""
        return not self.problems


class Probed:
    """What tells its health: a client, or a server."""

    def health(self) -> Health:
        """Return whether it can do its work now."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        """Whether nothing is in the way of its work now; see ``health``."""
        return self.health().is_ready

    @property
    def is_alive(self) -> bool:
        """Whether it may still recover by itself; see ``health``."""
        return self.health().is_alive


def problems_of(session: Session | None, failure: TransportError | None) -> Iterator[str]:
    """
    Yield what is in the way of a connection.

    Args:
        session: The one that there is.
        failure: Of the last attempt to make one.
    """
    if session is None:
        yield "there is no connection to the broker" + ("" if failure is None else f": {failure}")
        return
    if not session.hears_broker:
        yield "the broker has been silent for longer than a heartbeat"
    if session.congested:
        yield "the broker takes no messages (a memory or disk alarm?)"
