"""
The public server: register methods, serve them, drain at a signal.

    server = Server("amqp://", service="example")

    @server.method("time.now")
    def now() -> str:
        return time.ctime()

    server.serve_forever()
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from re import Pattern
from types import TracebackType
from typing import Any, Literal, TypeVar, Unpack, overload

from ..amqp.base import Plan, Transport
from ..amqp.transport import connect_transport
from ..dialects import ServerDialect
from ..dialects.rabbitmq_java import DESCRIBE, JavaServer
from ..dialects.recipe2011 import RecipeServer
from ..jsonrpc.dispatcher import Ack, Dispatcher, Redelivery
from ..jsonrpc.methods import PolicyOptions
from ..options import (
    ASYNC_CONCURRENCY,
    CONCURRENCY,
    CONNECT_TIMEOUT,
    DELIVERY_LIMIT,
    GRACE,
    HEARTBEAT,
    MAX_BATCH,
    MAX_DEPTH,
    MAX_METHOD,
    MAX_SIZE,
    PREFETCH,
    START_TIMEOUT,
    ConnectionOptions,
)
from ..runtime.forks import OfOneProcess
from ..wire.authorization import Authorize, authorizer, check_user
from ..wire.display import redact
from ..wire.names import DEFAULT_EXCHANGE, check_service, dead_letter_queue, request_binding, request_queue
from ..wire.reply_route import reply_to_filter
from ..wire.sender_checks import refuse_sender
from .consumer import Consumer, watch_consumer
from .counters import Counters
from .executor import Executor
from .isolation import Isolation, serve_isolated
from .lifecycle import Lifecycle
from .loop_executor import LoopExecutor, run_on_process_loop
from .pipeline import Dispatch, Dispatchers, Pipeline, PipelineSettings
from .signals import DrainOnSignal

log = logging.getLogger("jsonrpc_amqp.server")

F = TypeVar("F", bound=Callable[..., Any])

# Counted by the transport, once each has happened.
_TRANSPORT_COUNTERS = ("dropped_acks", "unreadable_headers", "connections", "failed_attempts", "consumers_cancelled")


class Server(OfOneProcess):
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
        methods: Methods by name, jsonrpcserver's global ones included (``jsonrpc_amqp.global_methods``).
        dispatcher: Replaces the built-in one: any ``Callable[[bytes], bytes | None]``.
        dialect: Serve clients of another lineage as well, on the same queue: "recipe2011" or "rabbitmq-java" (see
            docs/interop.md).
        recipe_method: The method that all requests of the dialect "recipe2011" are for.
        exchange: The topic exchange.
        queue: The request queue; ``<service>_req`` where not given.
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
        prefetch: Most requests that this process holds; the default is 64, and at least twice ``concurrency``, and
            twice ``async_concurrency`` where a method is ``async def``.
        expose_errors: Send the text of uncaught exceptions to callers. It may hold secrets.
        verify_user: Serve only requests whose sender the broker vouches for: they have a ``user_id``, and came over the
            exchange with a key that names that user, or with a bare ``S.request``. Others are dropped; or the reply is
            -32003, where it cannot reach anyone but the sender.
        authorize: Who may call what: a callable that is given the ``Request`` (``method``, ``user_id``, ...) and
            returns True, or a mapping of method names to users: ``{"admin.*": ["alice"], "*": "*"}``. The first pattern
            that matches decides; a method that matches none is refused; "*" is any user that the broker vouches for.
            The reply to a refused call is -32003.
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

    def __init__(
        self,
        url: str = "amqp://",
        service: str = "",
        *,
        methods: Mapping[str, Callable[..., Any]] | None = None,
        dispatcher: Callable[[bytes], bytes | None] | None = None,
        dialect: Literal["recipe2011", "rabbitmq-java"] | None = None,
        recipe_method: str | None = None,
        exchange: str = DEFAULT_EXCHANGE,
        queue: str | None = None,
        queue_type: Literal["classic", "quorum"] | None = None,
        delivery_limit: int = DELIVERY_LIMIT,
        dead_letters: bool = False,
        redelivery: Redelivery = "run",
        ack: Ack = "late",
        declare: bool = True,
        concurrency: int = CONCURRENCY,
        async_concurrency: int = ASYNC_CONCURRENCY,
        cancel_on_deadline: bool = False,
        prefetch: int | None = None,
        expose_errors: bool = False,
        verify_user: bool = False,
        authorize: Authorize | None = None,
        user: str | None = None,
        reply_to_allowed: str | Pattern[str] | Callable[[str], bool] | None = None,
        max_size: int = MAX_SIZE,
        max_batch: int = MAX_BATCH,
        max_depth: int = MAX_DEPTH,
        max_method: int = MAX_METHOD,
        tls: Mapping[str, Any] | None = None,
        heartbeat: float = HEARTBEAT,
        connect_timeout: float = CONNECT_TIMEOUT,
        connection_name: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.service = check_service(service)
        _check_numbers(concurrency, async_concurrency, delivery_limit, 1 if prefetch is None else prefetch)
        check_user(user)
        if dispatcher is not None:
            _check_foreign_dispatcher(methods, redelivery, ack, dialect, authorize)
        if verify_user:
            _check_verifiable(dialect)
        own = Dispatcher(
            methods,
            expose_errors=expose_errors,
            max_size=max_size,
            max_batch=max_batch,
            max_depth=max_depth,
            max_method=max_method,
            redelivery=redelivery,
            ack=ack,
            cancel_on_deadline=cancel_on_deadline,
            authorize=authorizer(authorize),
            run_async=lambda begin: run_on_process_loop(begin(on_loop)),
        )
        self._dispatcher = dispatcher or own
        self._dispatch: Dispatch = own if dispatcher is None else _returning_bytes(dispatcher)
        self._dialect = _make_dialect(dialect, own, service=service, exchange=exchange, recipe_method=recipe_method)
        queue = queue or request_queue(service)
        plan = Plan(
            exchange=exchange,
            declare=declare,
            queue=queue,
            queue_type=queue_type,
            delivery_limit=delivery_limit,
            dead_letters=dead_letter_queue(service) if dead_letters else None,
            bindings=(request_binding(service),),
        )
        name = connection_name or f"jsonrpc-amqp server {service} {os.getpid()}"
        options = ConnectionOptions(name, heartbeat, connect_timeout, max_size=max_size, tls=tls)
        self._transport = transport or connect_transport(url, options)
        self._where = redact(url)
        self._counters = Counters()
        self._pipeline = Pipeline(
            PipelineSettings(
                service=service,
                exchange=exchange,
                queue=queue,
                delivery_limit=delivery_limit,
                max_size=max_size,
                user=user or self._transport.user,
                may_reply_to=reply_to_filter(reply_to_allowed),
            ),
            Dispatchers(self._dispatch, own.reject_at_limit, own.refuse_sender, None if dispatcher else own),
            self._counters,
            dialect=self._dialect,
            verify_sender=partial(refuse_sender, service=service, exchange=exchange) if verify_user else None,
        )
        self._lifecycle = Lifecycle(concurrency)
        on_loop = LoopExecutor(service, async_concurrency, concurrency, self._lifecycle, self._counters)
        executor = Executor(service, concurrency, self._lifecycle, self._pipeline.process, self._counters, on_loop)
        self._transport.runtime.set_inline_jobs(executor)
        held = partial(_prefetch, own, prefetch, concurrency, async_concurrency)
        self._consumer = Consumer(service, plan, self._transport, self._lifecycle, executor, self._counters, held)
        self._watch = watch_consumer(self._consumer, f"Server of {service!r} at {self._where}")

    def __repr__(self) -> str:
        return f"<Server of {self.service!r} at {self._where}>"

    # -- registering ------------------------------------------------------------------------------------

    @overload
    def method(self, function: F, /) -> F: ...
    @overload
    def method(self, name: str | None = None, **policy: Unpack[PolicyOptions]) -> Callable[[F], F]: ...
    def method(self, name: str | Callable[..., Any] | None = None, **policy: Unpack[PolicyOptions]) -> Any:
        """
        Register a method: ``@server.method``, ``@server.method("time.now")``, ``@server.method(redelivery="refuse")``.

        The method is a function, which runs on a thread, or ``async def``. It returns a plain value, or
        jsonrpcserver's ``Success``, ``Error`` or ``InvalidParams``, or raises its ``JsonRpcError``.

        Args:
            name: The method's name; the function's own where it is None.
            policy: ``redelivery``, ``ack`` and ``cancel_on_deadline`` of the server, for this method.

        Raises:
            TypeError: The method cannot be called; or this server was given a dispatcher.
            ValueError: The name is taken, or begins with ``rpc.``, which the specification reserves.
        """
        if not isinstance(self._dispatcher, Dispatcher):
            raise TypeError("this server was given a dispatcher of its own: register the method there")
        if callable(name):
            return self._dispatcher.method(name)
        return self._dispatcher.method(name, **policy)

    # -- running ----------------------------------------------------------------------------------------

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
        _log_problem(self.dialect_problem)
        if not self._consumer.start():
            raise RuntimeError("a server that was stopped is not started again; make a new one")
        self._lifecycle.wait_for_start(timeout)
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
        _log_problem(self.dialect_problem)
        has_drained = False
        with DrainOnSignal(self._lifecycle.drain):
            try:
                if self._consumer.start():  # else it was stopped before it began
                    self._lifecycle.wait_for_start(None)
                    self._lifecycle.wait_for_drain()
            finally:
                has_drained = not self._consumer.is_started or self._consumer.stop(grace)
        return has_drained

    def on_serving(self, callback: Callable[[], object]) -> None:
        """
        Have a callable called once, when requests are consumed and before the first one begins.

        For example to tell a process manager. Give it before the server starts; another one replaces it. It runs on a
        thread of the connection, so it must not wait; an exception is logged.
        """
        self._consumer.on_serving = callback

    @property
    def dialect_problem(self) -> str | None:
        """Why no request of the ``dialect`` could be served with the methods registered now; None: they can."""
        return None if self._dialect is None else self._dialect.problem()

    def drain(self) -> None:
        """Begin no more requests; return at once. ``stop`` waits for what runs, and gives back what has not begun."""
        self._lifecycle.drain()

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

    def stats(self) -> dict[str, int]:
        """
        Return the counters since the start.

        ``received`` (requests), ``answered`` (replies written), ``failed`` (of them or of notifications: errors),
        ``expired`` (skipped, or cancelled, since the caller no longer waited), ``redelivered``, ``isolated``
        (redelivered, and run in a process of their own by ``serve --workers``), ``malformed`` (dropped: no JSON-RPC,
        no request of the dialect, or not decodable), ``refused`` (requests whose sender could not be verified, and
        calls and notifications that were not authorized), ``dead_lettered`` (rejected, for the dead letters if the
        queue has them), ``dropped_replies`` (replies that could not be delivered), ``abandoned`` (requests whose
        connection was lost before they began; the broker delivers them again), ``dropped_acks`` (it was lost while
        they ran; likewise), ``unreadable_headers`` (values that were left out of headers that were looked at),
        ``connections`` made, ``failed_attempts`` to connect, ``consumers_cancelled`` (by the broker, and renewed).
        """
        counts = self._counters.snapshot()
        counts["failed"] += getattr(self._dispatcher, "failures", 0)
        counts["refused"] += getattr(self._dispatcher, "refusals", 0)
        return counts | dict.fromkeys(_TRANSPORT_COUNTERS, 0) | self._transport.stats


def isolate(server: Server, command: Sequence[str], last_death: Callable[[], float]) -> Isolation:
    """Have suspected requests run in processes that ``command`` starts: for ``serve --workers``."""
    isolation = Isolation(command, last_death, server._counters)
    server._pipeline.isolate(isolation)
    return isolation


def be_isolated(server: Server, descriptor: int) -> None:
    """Be such a process: run what comes over a socket, without a connection to the broker."""
    serve_isolated(server._dispatch, server._dispatcher, descriptor)


def _prefetch(own: Dispatcher, given: int | None, concurrency: int, async_concurrency: int) -> int:
    """Return how many requests a server may hold: twice as many as it can run, if it was not said."""
    on_loop = async_concurrency if own.asynchronous.exists else 0
    return max(PREFETCH, 2 * concurrency, 2 * on_loop) if given is None else given


def _log_problem(problem: str | None) -> None:
    if problem is not None:
        log.warning("%s", problem)


def _check_numbers(concurrency: int, async_concurrency: int, delivery_limit: int, prefetch: int) -> None:
    if concurrency < 1:
        raise ValueError("concurrency is at least 1")
    if async_concurrency < 1:
        raise ValueError("async_concurrency is at least 1")
    if delivery_limit < 1:
        raise ValueError("delivery_limit is at least 1")
    if prefetch < 1:
        raise ValueError("prefetch is at least 1: without a bound one process takes the whole queue")


def _check_foreign_dispatcher(
    methods: object, redelivery: Redelivery, ack: Ack, dialect: object, authorize: object
) -> None:
    """Raise where an argument cannot have an effect, because the dispatcher is the user's."""
    if methods is not None:
        raise ValueError("give methods or a dispatcher, not both: a dispatcher has its own methods")
    if (redelivery, ack) != ("run", "late"):
        raise ValueError("redelivery and ack are for our own dispatcher, which knows methods; this one is given")
    if authorize is not None:
        raise ValueError("authorize is for our own dispatcher, which knows methods; this one is given")
    if dialect is not None:
        raise ValueError("a dialect is for our own dispatcher, which knows methods; this one is given")


def _returning_bytes(dispatcher: Dispatch) -> Dispatch:
    """Return the user's dispatcher, which raises ``TypeError`` where it returned what cannot be published."""

    def dispatch(body: bytes) -> bytes | None:
        reply: object = dispatcher(body)
        if reply is None or isinstance(reply, bytes):
            return reply
        if isinstance(reply, (bytearray, memoryview)):
            return bytes(reply)  # a copy: it is written later
        raise TypeError(f"a dispatcher returns bytes or None, not {type(reply).__name__}")

    return dispatch


def _check_verifiable(dialect: str | None) -> None:
    if dialect is not None:
        raise ValueError(f"programs that speak {dialect!r} send no user_id: with verify_user none would be served")


def _make_dialect(
    name: str | None, methods: Dispatcher, *, service: str, exchange: str, recipe_method: str | None
) -> ServerDialect | None:
    if (name == "recipe2011") != (recipe_method is not None):
        raise ValueError('recipe_method and dialect="recipe2011" need each other: its requests name no method')
    if name is None:
        return None
    if name == "recipe2011":
        return RecipeServer(service, exchange, recipe_method or "", methods.signature_of)
    if name == "rabbitmq-java":
        java = JavaServer(service, lambda: {each: methods.signature_of(each) for each in methods.names})
        if methods.signature_of(DESCRIBE) is None:
            methods.register(java.describe, DESCRIBE)
        return java
    raise ValueError(f"dialect is 'recipe2011', 'rabbitmq-java' or None, not {name!r}")
