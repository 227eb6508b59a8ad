"""Which way requests and replies go, and the addresses of the services that are called (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from ..amqp.base import DIRECT_REPLY_TO
from ..wire.names import check_service, client_word, new_token, reply_binding, request_queue
from ..wire.publish import Address, QueueAddress

AnyAddress = Address | QueueAddress


@dataclass(frozen=True, slots=True)
class Routing:
    """
    Which way requests and replies go.

    Attributes:
        exchange: The topic exchange; "" where requests go to a queue by its name.
        reply: "topic" for a reply queue bound to the exchange, "queue" for one that requests name in ``reply_to``,
            "direct" for RabbitMQ's direct reply-to.
        by_queue: Requests go to a queue by its name, not over the exchange.
        queue: That queue, for every service; None: the request queue of the service.
    """

    exchange: str
    reply: str = "topic"
    by_queue: bool = False
    queue: str | None = None

    def queue_of(self, service: str) -> str:
        """Return the name of the queue that requests for a service wait in."""
        return request_queue(service) if self.queue is None else self.queue


def resolve_routing(exchange: str, *, route: str | None, reply: str | None, queue: str | None) -> Routing:
    """
    Return what the options of a client come to.

    Raises:
        ValueError: They do not go together, or there is no such route or reply.
    """
    route = route or ("topic" if queue is None else "queue")
    if route not in ("topic", "queue"):
        raise ValueError(f"route is 'topic' or 'queue', not {route!r}")
    if route == "topic" and queue is not None:
        raise ValueError("requests go either to the queue that is named, or over the exchange: leave out route")
    by_queue = route == "queue"
    reply = reply or ("queue" if by_queue else "topic")
    if reply not in ("topic", "queue", "direct"):
        raise ValueError(f"reply is 'topic', 'queue' or 'direct', not {reply!r}")
    if by_queue and reply == "topic":
        raise ValueError("a request that is sent to a queue has no key to answer to: reply is 'queue' or 'direct'")
    return Routing("" if by_queue else exchange, reply, by_queue, queue)


class Addresses:
    """
    The addresses of the services that one client calls. The lock of the requests guards it.

    Args:
        user: The AMQP user, for keys and ``user_id``; None where it is not known.

    Attributes:
        services: The services that are called.
        reply_to: Sent with requests; None where replies come over the exchange.

    Raises:
        InvalidName: The user's name does not fit into a routing key.
    """

    def __init__(self, routing: Routing, user: str | None) -> None:
        client_word(user, "")
        self._routing = routing
        self._user = user
        self._token = ""
        self._known: dict[str, AnyAddress] = {}
        self.services: set[str] = set()
        self.reply_to = DIRECT_REPLY_TO if routing.reply == "direct" else None

    def check(self, service: str) -> None:
        """
        Check that a service may be called.

        Raises:
            InvalidName: The name breaks a rule, or makes a routing key over 255 bytes.
            ValueError: This client calls one queue only, for the first service that it was used with.
        """
        queue = self._routing.queue
        if queue is not None and self.services:
            raise ValueError(f"this client calls queue {queue!r}, so it cannot call service {service!r}")
        self._make(service, new_token())

    def new_connection(self) -> None:
        """Begin with a token of its own for each connection, so that no two clients ever await the same keys."""
        self._token = new_token()

    def opened(self, reply_queue: str) -> None:
        """Forget the addresses of the connection before; ``reply_queue`` is the name of the exclusive queue."""
        self._known.clear()
        if self._routing.reply == "queue":
            self.reply_to = reply_queue

    def of(self, service: str) -> AnyAddress:
        """Return the address of a service."""
        address = self._known.get(service)
        if address is None:
            address = self._known[service] = self._make(service, self._token)
        return address

    def reply_binding(self, service: str) -> str:
        """Return the key that binds the reply queue for a service."""
        return reply_binding(service, client_word(self._user, self._token))

    def reply_key(self, service: str, qid: str) -> str:
        """Return the routing key that the reply to a call must have."""
        if self.reply_to is not None:
            return self.reply_to
        address = self._known.get(service) or self.of(service)
        assert isinstance(address, Address)
        return address.reply_key + qid

    def _make(self, service: str, token: str) -> AnyAddress:
        client, routing = client_word(self._user, token), self._routing
        if routing.by_queue:
            if routing.queue is None:
                check_service(service)
            return QueueAddress(routing.queue_of(service), client, self.reply_to, self._user)
        return Address(routing.exchange, service, client, self.reply_to, self._user)


def check_confirms(routing: Routing, *, confirm: bool) -> None:
    """
    Check that the broker can confirm a persistent call.

    Raises:
        ValueError: Direct replies come only to the channel of the request, which is not in confirm mode.
    """
    if routing.reply == "direct" and not confirm:
        raise ValueError('with reply="direct", persistent calls need Client(confirm=True)')
