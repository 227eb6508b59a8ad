"""What ``Server`` and ``AsyncServer`` share: all but how they wait."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from re import Pattern
from typing import Any, ClassVar, Literal, TypeVar, Unpack, overload

from ..amqp import connection_names
from ..amqp.base import Plan, Transport
from ..amqp.transport import connect_transport
from ..dialects import ServerDialect
from ..dialects.rabbitmq_java import DESCRIBE, JavaServer
from ..dialects.recipe2011 import RecipeServer
from ..jsonrpc.dispatcher import Ack, Dispatcher, Redelivery
from ..jsonrpc.error_handlers import E
from ..jsonrpc.methods import PolicyOptions
from ..jsonrpc.middleware import Middleware
from ..jsonrpc.registry import M
from ..jsonrpc.service_info import Info
from ..options import (
    ASYNC_CONCURRENCY,
    CONCURRENCY,
    CONNECT_TIMEOUT,
    DELIVERY_LIMIT,
    HEARTBEAT,
    MAX_BATCH,
    MAX_DEPTH,
    MAX_METHOD,
    MAX_SIZE,
    PREFETCH,
    ConnectionOptions,
)
from ..runtime.base import Runtime
from ..runtime.forks import OfOneProcess
from ..wire.authorization import Authorize, authorizer, check_user
from ..wire.display import redact
from ..wire.health import Health, Probed
from ..wire.names import DEFAULT_EXCHANGE, check_service, dead_letter_queue, request_binding, request_queue
from ..wire.reply_route import reply_to_filter
from ..wire.sender_checks import refuse_sender
from .consumer import Consumer, watch_consumer
from .counters import Counters
from .executor import Executor
from .health import RunningRequests, health_of
from .isolation import Isolation, serve_isolated
from .lifecycle import Lifecycle
from .loop_executor import LoopExecutor
from .pipeline import Dispatch, Dispatchers, Pipeline, PipelineSettings

log = logging.getLogger("jsonrpc_amqp.server")

F = TypeVar("F", bound=Callable[..., Any])

# Counted by the transport, once each has happened.
_TRANSPORT_COUNTERS = ("dropped_acks", "unreadable_headers", "connections", "failed_attempts", "consumers_cancelled")


class BaseServer(OfOneProcess, Probed):
    """
    Makes the parts of a server; ``Server`` says what each argument means.

    Attributes:
        _leads_on_loop: The event loop of its coroutines drives the connection as well.
        _how_to_stop: What a program forgot that dropped it: an imperative sentence, without its full stop.
    """

    _leads_on_loop: ClassVar[bool]
    _how_to_stop: ClassVar[str]

    def __init__(
        self,
        url: str = "amqp://",
        service: str = "",
        *,
        title: str | None = None,
        version: str = "0",
        description: str | None = None,
        discover: bool = True,
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
        validate: bool = True,
        check_results: bool = False,
        middleware: Sequence[Middleware] = (),
        prefetch: int | None = None,
        stuck_after: float | None = None,
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
            validate=validate,
            check_results=check_results,
            middleware=middleware,
            authorize=authorizer(authorize),
            info=Info(title or service, version, description) if discover else None,
            run_async=lambda begin: on_loop.run_and_wait(begin),  # not by self, which threads must not refer to
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
        name = connection_name or connection_names.new(f"server {service}")
        options = ConnectionOptions(name, heartbeat, connect_timeout, max_size=max_size, tls=tls)
        self._transport = transport or connect_transport(url, options, self._new_runtime())
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
        self._running = None if stuck_after is None else RunningRequests(stuck_after)
        self._most_running = partial(_most_running, own, concurrency, async_concurrency)
        on_loop = LoopExecutor(service, async_concurrency, concurrency, self._lifecycle, self._counters)
        self._on_loop = on_loop
        self._executor = Executor(
            service,
            concurrency,
            self._lifecycle,
            self._pipeline.process,
            self._counters,
            on_loop,
            self._pipeline.is_for_loop if self._leads_on_loop else None,
            self._running,
        )
        self._transport.runtime.set_inline_jobs(self._executor)
        held = partial(_prefetch, own, prefetch, concurrency, async_concurrency)
        self._consumer = Consumer(service, plan, self._transport, self._lifecycle, self._executor, self._counters, held)
        what = f"{type(self).__name__} of {service!r} at {self._where}"
        self._watch = watch_consumer(self._consumer, what, self._how_to_stop)

    @staticmethod
    def _new_runtime() -> Runtime:
        """Make what drives the connection."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.service!r} at {self._where}>"

    def is_at(self, url: str) -> bool:
        """Whether a URL is that of this server's broker, as far as URLs tell without passwords."""
        return redact(url) == self._where

    # -- registering ------------------------------------------------------------------------------------

    @overload
    def method(self, function: F, /) -> F: ...
    @overload
    def method(self, name: str | None = None, **policy: Unpack[PolicyOptions]) -> Callable[[F], F]: ...
    def method(self, name: Any = None, **policy: Unpack[PolicyOptions]) -> Any:
        """
        Register a method: ``@server.method``, ``@server.method("time.now")``, ``@server.method(redelivery="refuse")``.

        The method is a function, which runs on a thread, or ``async def``. It returns a plain value, or
        jsonrpcserver's ``Success``, ``Error`` or ``InvalidParams``, or raises an ``ApplicationError`` or another
        ``RemoteError`` to have the caller get that. Arguments are converted to what its type hints declare.

        Args:
            name: The method's name; the function's own where it is None.
            policy: ``redelivery``, ``ack``, ``cancel_on_deadline`` and ``validate`` of the server, for this method.

        Raises:
            TypeError: The method cannot be called, or a type hint names what no value of JSON can be converted to; or
                this server was given a dispatcher.
            ValueError: The name is taken, or begins with ``rpc.``, which the specification reserves.
        """
        return self._own_dispatcher().method(name, **policy)

    def register(
        self,
        target: Any,
        name: str | None = None,
        *,
        prefix: str | None = None,
        description: type | None = None,
        **policy: Unpack[PolicyOptions],
    ) -> None:
        """
        Register a function, or methods of an object: ``server.register(Inventory(db), prefix="inventory.")``.

        Args:
            target: A function; or, with a ``prefix`` or a ``description``, or if it cannot be called, an object.
            name: The function's name as a method; its own where it is None.
            prefix: What the names of the object's methods begin with, such as ``"inventory."``.
            description: A class, such as a Protocol, whose public methods name those of the object that callers may
                call; None: those that are marked with ``@method`` from ``jsonrpc_amqp``.
            policy: As for ``method``, for all of them; the mark of a method takes precedence.

        Raises:
            TypeError: As ``method``; or the object has no methods that are marked or described.
            ValueError: As ``method``.
        """
        self._own_dispatcher().register(target, name, prefix=prefix, description=description, **policy)

    def middleware(self, function: M) -> M:
        """
        Have a function run around each request: ``@server.middleware``, of ``function(request, call_next)``.

        It is inside those that were given before. An ``async def`` runs around methods that are ``async def``, a
        ``def`` around the others, and an object that can be called, with a method ``asynchronous``, around both.

        Raises:
            TypeError: It cannot be called, or not around a method of this server; or this server was given a
                dispatcher.
        """
        return self._own_dispatcher().middleware(function)

    def error_handler(self, kind: type[E]) -> Callable[[Callable[[E], Exception]], Callable[[E], Exception]]:
        """
        Have a function say what is answered for the exceptions of a class: ``@server.error_handler(KeyError)``.

        It is given an exception of this class, or of a subclass, that a method raised. It returns or raises what is
        answered: an ``ApplicationError`` or another ``RemoteError``. Any other exception, its own failure included, is
        logged, and answered with -32603. Of several functions that for the nearest base is called. None is called for a
        ``RemoteError`` that a method raises: it is answered as it is, unless it is the reply to a call of the method.

        Raises:
            TypeError: It is no class of exceptions; or this server was given a dispatcher. The decorator: the function
                cannot be called, or is ``async def``.
            ValueError: The decorator: there is another function for this class.
        """
        return self._own_dispatcher().error_handler(kind)

    def _own_dispatcher(self) -> Dispatcher:
        if not isinstance(self._dispatcher, Dispatcher):
            raise TypeError("this server was given a dispatcher of its own: register methods and error handlers there")
        return self._dispatcher

    # -- running ----------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Start to connect. False: this server was stopped."""
        if self.dialect_problem is not None:
            log.warning("%s", self.dialect_problem)
        return self._consumer.start()

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

    def health(self) -> Health:
        """
        Return whether requests are served now, and what is in the way: for probes, and as cheap as these need.

        A frozen broker is noticed within one heartbeat; that it has an alarm, once something was published to it.
        """
        return health_of(self._lifecycle, self._running, is_started=self._consumer.is_open, most=self._most_running())

    def drain(self) -> None:
        """Begin no more requests; return at once. ``stop`` waits for what runs, and gives back what has not begun."""
        self._lifecycle.drain()

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


def isolate(server: BaseServer, command: Sequence[str], last_death: Callable[[], float]) -> Isolation:
    """Have suspected requests run in processes that ``command`` starts: for ``serve --workers``."""
    isolation = Isolation(command, last_death, server._counters)
    server._pipeline.isolate(isolation)
    return isolation


def be_isolated(server: BaseServer, descriptor: int) -> None:
    """Be such a process: run what comes over a socket, without a connection to the broker."""
    serve_isolated(server._dispatch, server._dispatcher, descriptor)


def already_stopped() -> RuntimeError:
    """Return the error of a server that is started after it was stopped."""
    return RuntimeError("a server that was stopped is not started again; make a new one")


def _prefetch(own: Dispatcher, given: int | None, concurrency: int, async_concurrency: int) -> int:
    """Return how many requests a server may hold: twice as many as it can run, if it was not said."""
    on_loop = async_concurrency if own.asynchronous.exists else 0
    return max(PREFETCH, 2 * concurrency, 2 * on_loop) if given is None else given


def _most_running(own: Dispatcher, concurrency: int, async_concurrency: int) -> int:
    return concurrency + (async_concurrency if own.asynchronous.exists else 0)


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
            methods.register(java.describe, DESCRIBE, bypass_middleware=True)
        return java
    raise ValueError(f"dialect is 'recipe2011', 'rabbitmq-java' or None, not {name!r}")
