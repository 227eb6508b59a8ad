"""
The client: a connection, and the forms of a call.

    with Client("amqp://", service="example", timeout=5) as client:
        client.call("time.now")
"""

from __future__ import annotations

from types import TracebackType

from ..options import TIMEOUT
from ..runtime.threads import ThreadsRuntime
from .base import BaseClient
from .calls import Calls
from .middleware import ClientMiddleware


class Client(BaseClient[ClientMiddleware], Calls):
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
        no_consumers: What becomes of a call whose queue no server consumes from. "wait" (the default): it waits in the
            queue for one, until its deadline. "fail": it is not sent, and ends at once (``NoConsumers``). For that the
            broker is asked; its reply serves for up to a second, so a call may still be sent to a server that has just
            gone. Notifications always wait in the queue.
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
        connection_name: Shown by RabbitMQ's management; by default with the host, the process, and digits of its own.
        errors: Subclasses of ``ApplicationError``: one, several, or a module, which stands for all with a code that it
            defines or imports. A reply with the code of one is raised as that class, with its fields, if the error's
            data fit them; else as a ``RemoteError``. Why they do not fit is logged, for debugging.
        middleware: Functions that run around each call, the first one outermost: ``(request, call_next) -> result``;
            for ``AsyncClient`` they are ``async def``. Those that are ``per_attempt`` run around each attempt. See
            docs/middleware.md.
        max_size: Most bytes of a request and of a reply.
        max_pending: Most calls and notifications that wait for their end at a time; one more is ``TooManyPending``.
        transport: Use this one and not what the URL names.

    Raises:
        InvalidName: The service's name breaks a rule.
        TypeError: ``errors`` are no such classes, or their type hints cannot be read; or one of ``middleware`` is no
            function, or of the other kind of client.
        ValueError: The URL is malformed, or two of ``errors`` have the same code.
    """

    _new_runtime = ThreadsRuntime
    _how_to_close = "call close(), or use it in a with block"

    def start(self, timeout: float | None = TIMEOUT) -> Client:
        """
        Connect, and wait until that is done. ``timeout=0`` only asks whether it is; see also ``health``.

        Raises:
            NotConnected: There was no connection within ``timeout`` seconds. Attempts go on all the same, but where
                this process can have no other thread or open file: the next use tries again.
            AccessRefused, TopologyMismatch: The broker said no, each one of several; attempts end.
            WouldDeadlock: Called by a thread that the connection needs.
        """
        self._requests.presence.connect(self._requests, timeout, self._check_may_wait)
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
