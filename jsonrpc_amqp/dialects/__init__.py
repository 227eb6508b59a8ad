"""
Messages of other lineages, translated to JSON-RPC 2.0 and back (pure).

Behind a dialect everything is as ever: methods, deadlines, acknowledgements, errors. ``serving`` and ``caller`` know
the two seams here, and no dialect by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..amqp.base import JSON, Delivery, Publish
from ..jsonrpc.text import Malformed, dumps, loads
from ..wire.publish import Address, QueueAddress
from ..wire.reply_route import Route


class MalformedEnvelope(ValueError):
    """A message in none of the forms that are served. There is nobody to tell."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """
    A message of another lineage, as a request of ours.

    Attributes:
        body: The JSON-RPC 2.0 request.
        answer: Makes its own answer of a JSON-RPC 2.0 response.
        route: Where that goes; None: where the message's properties say.
        content_type: What it is called.
    """

    body: bytes
    answer: Callable[[bytes], bytes]
    route: Route | None = None
    content_type: str = JSON


class ServerDialect(Protocol):
    """What a server asks about each message that comes."""

    def problem(self) -> str | None:
        """Say why none of the dialect's requests could be served now; None: they can."""
        ...

    def read(self, delivery: Delivery, body: bytes) -> Inbound | None:
        """
        Translate a request; None: it is JSON-RPC as it is.

        Raises:
            MalformedEnvelope: It is neither.
        """
        ...


class ClientDialect(Protocol):
    """What a client asks about each message that leaves, and each that comes."""

    def check(self, body: bytes) -> None:
        """
        Refuse a JSON-RPC request that the dialect has no form for.

        Raises:
            EncodeError: It has none.
        """
        ...

    def request(self, address: Address | QueueAddress, number: str, message: Publish) -> Publish:
        """Translate the publish of a JSON-RPC request."""
        ...

    def number(self, delivery: Delivery) -> str | None:
        """Tell which call an answer is for; None: it cannot be told."""
        ...

    def answer(self, request: bytes, body: bytes) -> bytes:
        """Make a JSON-RPC 2.0 response of an answer to a JSON-RPC request."""
        ...


def read_object(body: bytes) -> dict[str, Any] | None:
    """Give the members of a JSON object; None for everything else."""
    try:
        value = loads(body)
    except Malformed:
        return None
    return value if isinstance(value, dict) else None


def call(method: Any, params: Any, id: Any) -> bytes:
    """Write a JSON-RPC 2.0 call; what is no call is for the dispatcher to refuse."""
    return dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": id})
