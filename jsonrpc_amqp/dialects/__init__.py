"""
Messages of other protocols, translated to JSON-RPC 2.0 and back (pure).

Methods, deadlines, acknowledgements and errors do not depend on the dialect: a server's pipeline and a client's
requests know only the two interfaces here, and no dialect by name.

May import: ``errors``, ``amqp.base``, ``jsonrpc``, ``wire``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ..amqp.base import JSON, Delivery, Publish
from ..jsonrpc.text import Malformed, dumps, loads
from ..options import MAX_BATCH
from ..wire.publish import Address, QueueAddress
from ..wire.reply_route import Route


class MalformedEnvelope(ValueError):
    """A message in none of the forms that are served. There is no address for a reply."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """
    A message of another protocol, as a JSON-RPC request.

    Attributes:
        body: The JSON-RPC 2.0 request.
        reply: Translates the JSON-RPC 2.0 response to the body of the reply.
        route: Where the reply goes; None: where the message's properties say.
        content_type: Of the reply.
        is_to_sender: Whether ``route`` leads to the user who sent the message, as far as the broker verifies that. The
            reply says from which server it is only then.
    """

    body: bytes
    reply: Callable[[bytes], bytes]
    route: Route | None = None
    content_type: str = JSON
    is_to_sender: bool = False


class ServerDialect(Protocol):
    """Translates the messages that a server receives, and its replies."""

    def problem(self) -> str | None:
        """Return why none of the dialect's requests can be served now, or None if they can."""
        ...

    def read(self, delivery: Delivery, body: bytes) -> Inbound | None:
        """
        Translate a request; return None if it is JSON-RPC already.

        Raises:
            MalformedEnvelope: It is a request of neither protocol.
        """
        ...


class ClientDialect(Protocol):
    """Translates the messages that a client sends, and the replies that it receives."""

    def check(self, body: bytes) -> None:
        """
        Check that the dialect can express a JSON-RPC request.

        Raises:
            EncodeError: It cannot.
        """
        ...

    def request(self, address: Address | QueueAddress, number: str, message: Publish) -> Publish:
        """Translate the publish of a JSON-RPC request."""
        ...

    def number(self, delivery: Delivery) -> str | None:
        """Return the number of the call that a reply is for, or None if it has none."""
        ...

    def response(self, request: bytes, body: bytes) -> bytes:
        """Translate the body of the reply to a JSON-RPC request to a JSON-RPC 2.0 response."""
        ...


def read_object(body: bytes) -> dict[str, Any] | None:
    """Return the members of a JSON object, or None for everything else."""
    try:
        value = loads(body, max_members=MAX_BATCH)  # an array is no object
    except Malformed:
        return None
    return value if isinstance(value, dict) else None


def call(method: Any, params: Any, id: Any) -> bytes:
    """Write a JSON-RPC 2.0 call; the dispatcher rejects it if it is invalid."""
    return dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": id})
