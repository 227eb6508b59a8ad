"""
The public server: register methods, serve them, drain at a signal.

    server = Server("amqp://", service="example")

    @server.method("time.now")
    def now() -> str:
        return time.ctime()

    server.serve_forever()
"""

from __future__ import annotations

from types import TracebackType

from ..options import GRACE, START_TIMEOUT
from ..runtime.threads import ThreadsRuntime
from .base import BaseServer, already_stopped
from .signals import DrainOnSignal


class Server(BaseServer):
    """
    Serves the methods of one service; any number of servers share its queue.

    A request is acknowledged after its reply is written, so it survives the death of this process, and a method may
    run a second time: ``current_request().redelivered`` is then true. ``redelivery`` and ``ack`` change that.
    Redelivered requests begin one at a time, since one of them may have killed the server that had it.

    One that serves goes on until ``stop()``, or the end of the process, even if nothing refers to it any more, which
    gives a ``ResourceWarning``. One that never served ends then.

    Args:
        url: As for ``Client``.
        service: The service's name: words of ``[A-Za-z0-9_-]`` joined by dots.
        title, version, description: What the service says of itself in its answer to ``rpc.discover``. The title is the
            service's name where none is given.
        discover: Answer ``rpc.discover`` with a description of all methods, as a document of OpenRPC; False: there is
            no such method. A server with a ``dispatcher`` has none of ours.
        methods: Methods by name, jsonrpcserver's global ones included (``jsonrpc_amqp.global_methods``).
        dispatcher: Replaces the built-in one: any ``Callable[[bytes], bytes | None]``.
        dialect: Serve clients of another lineage as well, on the same queue: "recipe2011" or "rabbitmq-java" (see
            docs/interop.md).
        recipe_method: The method that all requests of the dialect "recipe2011" are for.
        exchange: The topic exchange.
        queue: The request queue; ``<service>_req`` where not given. All servers of a service need the same: what
            clients publish to the exchange is put into each queue that is bound, and runs once for each.
        queue_type: Sent as ``x-queue-type`` ("classic", "quorum"); None leaves it to the virtual host.
        delivery_limit: How many times a quorum queue, the only kind that counts, may redeliver a request. One that
            reached it is not run: the reply is an error (-32002), and the request becomes a dead letter. ``serve
            --workers`` finds requests that kill their process on any queue, and much sooner.
        dead_letters: Declare exchange and queue ``<service>_dead``, which keep the requests that reached the limit, and
            redelivered notifications that were not run because of ``redelivery="refuse"``; not what expired.
            ``DeadLetters`` reads them.
        redelivery: "run": a method may run a second time. "refuse": a request that a server may have had before, even
            if it had not begun, is not run; the reply is an error (-32001). ``method`` can override it for one method.
        ack: "late": a request survives the death of the process that runs it. "early": it is acknowledged before the
            method runs, and lost with the process. ``method`` can override it for one method.
        declare: Declare exchange, queue and binding; False only checks that exchange and queue exist.
        concurrency: Handlers that run at a time, each on a thread.
        async_concurrency: Handlers that are ``async def`` and run at a time, all on one event loop of this process.
        cancel_on_deadline: Cancel a handler that is ``async def`` once its caller no longer waits. ``method`` can
            override it for one method.
        validate: Convert arguments to what the type hints of a method declare; those that do not fit are "Invalid
            params" (-32602). ``method`` can override it for one method.
        check_results: Fail (-32603) where a method returns what it is not declared to return. For tests.
        middleware: Runs around each request for a method; the first is the outermost. See ``docs/middleware.md``.
        prefetch: Most requests that this process holds; the default is 64, and at least twice ``concurrency``, and
            twice ``async_concurrency`` where a method is ``async def``.
        stuck_after: Seconds after which a request that still runs makes ``is_ready`` false; None: none does.
        expose_errors: Send the text of uncaught exceptions to callers. It may hold secrets.
        verify_user: Serve only requests whose sender the broker vouches for: they have a ``user_id``, and came over the
            exchange with a key that names that user, or with a bare ``S.request``. Others are dropped; or the reply is
            -32003, where it cannot reach anyone but the sender.
        authorize: Who may call what: a function, or ``async def``, that is given the ``Request`` (``method``,
            ``user_id``, ...) and returns True; or a mapping of method names to users: ``{"admin.*": ["alice"], "*":
            "*"}``. The first pattern that matches decides; a method that matches none is refused; "*" is any user that
            the broker vouches for. The reply to a refused call is -32003.
        user: The AMQP user, where it is not in the URL (certificates), or the broker knows it by another name. It is
            sent with replies, for clients with ``server_user``.
        reply_to_allowed: Narrows which queues a ``reply_to`` may name: a callable, or a regular expression for it all.
        max_size, max_batch, max_depth, max_method: Limits: bytes of a message, members, levels, bytes of a name.
        tls, heartbeat, connect_timeout, connection_name, transport: As for ``Client``.

    Raises:
        InvalidName: The service's name breaks a rule.
        TypeError: A method cannot be called, or an argument has the wrong type.
        ValueError: The URL is malformed, an argument is out of range, or two arguments exclude each other.
    """

    _new_runtime = staticmethod(ThreadsRuntime)
    _leads_on_loop = False
    _how_to_stop = "call stop(), or use it in a with block. One that serves goes on until the process ends"

    def start(self, timeout: float | None = START_TIMEOUT) -> Server:
        """
        Begin to serve on threads of this process; return once requests are consumed.

        Args:
            timeout: Seconds to wait for that; None: no limit.

        Raises:
            NotConnected: Not within ``timeout``; attempts go on until ``stop``. Or this process can have no more
                threads or open files; then nothing was started.
            AccessRefused, TopologyMismatch: The broker, or each of several, rejected the login or a declaration; there
                is no other attempt.
            RuntimeError: The server was stopped, or was started by the process that forked this one.
            WouldDeadlock: Called by a thread that the connection needs, as log handlers may be.
        """
        if not self._begin():
            raise already_stopped()
        self._lifecycle.wait(self._lifecycle.has_started, timeout)
        self._lifecycle.check_started(timeout)
        return self

    def serve_forever(self, *, grace: float = GRACE) -> bool:
        """
        Serve until SIGTERM, SIGINT or SIGHUP (or ``stop`` by another thread), then drain and return.

        It waits for a broker that cannot be reached. A second SIGTERM or SIGINT ends the process at once. A SIGHUP that
        is ignored when it is called (``nohup``) stays ignored.

        Args:
            grace: Seconds that running handlers get to finish.

        Returns:
            True when no handler was left running.

        Raises:
            AccessRefused, TopologyMismatch: The broker rejected the login or a declaration, now or when the connection
                was made again.
        """
        lifecycle, has_drained = self._lifecycle, False
        with DrainOnSignal(lifecycle.drain):
            try:
                if self._begin():  # else it was stopped before it began
                    lifecycle.wait(lifecycle.has_started, None)
                    lifecycle.check_started(None)
                    lifecycle.wait(lifecycle.has_ended, None)
                    lifecycle.check_ended()
            finally:
                has_drained = not self._consumer.is_started or self._consumer.stop(grace)
        return has_drained

    def stop(self, grace: float = GRACE) -> bool:
        """
        Stop consuming, give back what has not begun, let running handlers finish and reply, and close.

        Args:
            grace: Seconds to wait for running handlers; their requests go back to the queue after that.

        Returns:
            True when no handler was left running.

        Raises:
            WouldDeadlock: Called by a handler, which it would wait for, or by a thread that the connection needs.
        """
        return self._consumer.stop(grace)

    def _begin(self) -> bool:
        self._consumer.check_may_start()
        return super()._begin()

    def __enter__(self) -> Server:
        try:
            return self.start()
        except BaseException:
            self.stop(grace=0)  # the block does not run, so ``__exit__`` is not called
            raise

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
