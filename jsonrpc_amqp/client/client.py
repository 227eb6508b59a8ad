"""
The client: a connection, and the forms of a call.

    with Client("amqp://", service="example", timeout=5) as client:
        client.call("time.now")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

from ..amqp.base import Transport
from ..amqp.transport import connect_transport
from ..dialects.recipe2011 import RecipeClient
from ..options import CONNECT_TIMEOUT, HEARTBEAT, MAX_PENDING, MAX_SIZE, TIMEOUT, ConnectionOptions
from ..wire.authorization import Users, check_user, users_of
from ..wire.display import redact
from ..wire.names import DEFAULT_EXCHANGE, refuse_url
from .addresses import resolve_routing
from .calls import Calls, Options, check_timeout
from .requests import Requests


class Client(Calls):
    """
    Calls JSON-RPC 2.0 methods over RabbitMQ. One is enough for a process: safe to use from many threads at once.

    Nothing is connected until the first use, ``start()`` or ``with``. A lost connection is made again by itself.
    Not to be shared with a forked process: there each use raises ``ClientClosed``. One that is dropped without
    ``close()`` gives a ``ResourceWarning``, and ends as soon as none of its calls is pending.

    Args:
        url: ``amqp://user:password@host:port/vhost``, ``amqps://`` for TLS with the host's name verified, several
            joined by ``;`` for failover, or ``memory://NAME``.
        service: The service to call, where a call does not say.
        timeout: Seconds that a call waits where it does not say; None for ever.
        exchange: The topic exchange.
        reply: "topic" (the default): replies come over the exchange to a queue of this client. "direct": over
            RabbitMQ's direct reply-to, faster and private. "queue" (the default with ``queue``): to a queue of this
            client, by its name.
        route: "topic" (the default without ``queue``): requests go over the exchange. "queue": straight to the request
            queue of the service, by its name. That is faster, but topic permissions do not apply to it: every user who
            may write to the default exchange can call every service. ``reply`` is "queue" or "direct" then.
        queue: Send requests straight to this queue, through the default exchange, with ``reply_to`` and
            ``correlation_id``: the way to call servers that are made with other libraries. No service is needed then.
        confirm: Have the broker confirm calls too: a full queue that refuses one then fails it at once
            (``Overloaded``).
        declare: Declare the exchange; False only checks that it is there.
        dialect: "recipe2011" calls a server of that recipe (see docs/interop.md). Its requests carry one parameter,
            and no method's name.
        user: The AMQP user, where the URL does not tell (certificates), or the broker knows it by another name.
        server_user: The AMQP user of the servers, or several: replies of others are rejected, and their calls go on
            waiting. The broker vouches for it. Servers of ours send it where they know it.
        tls: py-amqp's TLS options: ``ca_certs``, ``certfile``, ``keyfile``, ``server_hostname``, ...
        heartbeat: Seconds between heartbeats that are offered to the broker; 0 for none.
        connect_timeout: Seconds for one attempt to connect, with all declarations; docs/connecting.md.
        reconnect: False makes a failed attempt final for the calls that wait for it; of several URLs, one for each.
        connection_name: Shown by RabbitMQ's management.
        max_size: Most bytes of a request and of a reply.
        max_pending: Most calls and notifications that wait for their end at a time; one more is ``TooManyPending``.
        transport: Use this one and not what the URL names.

    Raises:
        InvalidName: The service's name breaks a rule.
        ValueError: The URL is malformed.
    """

    def __init__(
        self,
        url: str = "amqp://",
        service: str | None = None,
        *,
        timeout: float | None = TIMEOUT,
        exchange: str = DEFAULT_EXCHANGE,
        reply: Literal["topic", "queue", "direct"] | None = None,
        route: Literal["topic", "queue"] | None = None,
        queue: str | None = None,
        confirm: bool = False,
        declare: bool = True,
        dialect: Literal["recipe2011"] | None = None,
        user: str | None = None,
        server_user: Users | None = None,
        tls: Mapping[str, Any] | None = None,
        heartbeat: float = HEARTBEAT,
        connect_timeout: float = CONNECT_TIMEOUT,
        reconnect: bool = True,
        connection_name: str | None = None,
        max_size: int = MAX_SIZE,
        max_pending: int = MAX_PENDING,
        transport: Transport | None = None,
    ) -> None:
        # Before the URL, which may be a service's name then.
        refuse_url(service)
        check_user(user)
        check_timeout(timeout)
        if max_pending < 1:
            raise ValueError("max_pending is at least 1")
        routing = resolve_routing(exchange, route=route, reply=reply, queue=queue)
        if dialect not in (None, "recipe2011"):
            raise ValueError(f"dialect is 'recipe2011' or None, not {dialect!r}")
        if dialect is not None and routing.reply != "topic":
            raise ValueError(
                f"the dialect {dialect!r} is spoken over the exchange only: leave out queue, route and reply, and give "
                "exchange and service"
            )
        if transport is None:
            transport = connect_transport(
                url,
                ConnectionOptions(
                    name=connection_name or f"jsonrpc-amqp client {os.getpid()}",
                    heartbeat=heartbeat,
                    connect_timeout=connect_timeout,
                    reconnect=reconnect,
                    max_size=max_size,
                    tls=tls,
                ),
            )
        self._where = redact(url)
        requests = Requests(
            transport,
            routing,
            confirm=confirm,
            declare=declare,
            user=user or transport.user,
            dialect=RecipeClient() if dialect else None,
            server_users=None if server_user is None else users_of(server_user),
            max_pending=max_pending,
        )
        defaults: Options = {"timeout": timeout}
        if service is None:
            service = queue  # errors name it
        if service is not None:
            requests.use(service)
            defaults["service"] = service
        watch = requests.presence.watch(f"Client of {service!r} at {self._where}")
        super().__init__(requests, watch, defaults, max_size=max_size)

    def __repr__(self) -> str:
        return f"<Client of {self._defaults.get('service')!r} at {self._where}>"

    def start(self, timeout: float | None = TIMEOUT) -> Client:
        """
        Connect, and wait until that is done.

        Raises:
            NotConnected: There was no connection within ``timeout`` seconds. Attempts go on all the same, but where
                this process can have no other thread or open file: the next use tries again.
            AccessRefused, TopologyMismatch: The broker said no, each one of several; attempts end.
            WouldDeadlock: Called by a thread that the connection needs.
        """
        self._requests.connect(timeout)
        return self

    def close(self, timeout: float = 1.0) -> None:
        """End what is in flight with ``ClientClosed``, then the connection, in about ``timeout`` seconds at most."""
        self._requests.close(timeout)

    def __enter__(self) -> Client:
        try:
            return self.start(self._defaults["timeout"])
        except BaseException:
            self.close()  # the block, and so ``__exit__``, does not run
            raise

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stats(self) -> dict[str, int]:
        """
        Return the counters since the start.

        ``pending`` calls now, ``timeouts``, ``retries`` (attempts after the first), ``cancelled`` (calls that were
        dropped because their future was cancelled), ``dropped_replies`` (their calls had ended, at their deadline or
        cancelled), ``rejected_replies`` (they carry the number of a call, but not what its reply must have, or cannot
        be decoded), ``unreadable_headers`` (values that were left out, of messages whose headers were looked at),
        ``connections`` made, ``connections_lost``, ``failed_attempts`` to connect.
        """
        return self._requests.counts()
