"""What ``Client`` and ``AsyncClient`` share: all but how they wait."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_origin

from .. import context
from ..amqp import connection_names, tables
from ..amqp.base import Transport
from ..amqp.transport import connect_transport
from ..application_errors import ApplicationError
from ..dialects.recipe2011 import RecipeClient
from ..errors import CallTimeout, MessageTooLarge
from ..jsonrpc import messages
from ..jsonrpc.error_classes import ErrorTypes, classes_of, exceptions_of
from ..jsonrpc.marks import errors_of
from ..jsonrpc.messages import ExceptionFor
from ..jsonrpc.params import Params
from ..options import CONNECT_TIMEOUT, HEARTBEAT, MAX_PENDING, MAX_SIZE, TIMEOUT, ConnectionOptions
from ..runtime.base import Runtime
from ..runtime.dropped import DropWatch
from ..wire.authorization import Users, check_user, users_of
from ..wire.display import redact
from ..wire.health import Health, Probed
from ..wire.names import DEFAULT_EXCHANGE, NO_QID, qid_of, refuse_url
from .addresses import resolve_routing
from .call import PLAIN, Call, SendOptions
from .call_options import Chosen, NoConsumersPolicy, Options, check_no_consumers, check_options, check_timeout
from .middleware import M, Stack, stack_of
from .requests import Requests

C = TypeVar("C", bound=Call)


@dataclass(frozen=True, slots=True)
class View:
    """
    How a client makes calls, or what its ``with_options`` returns.

    Attributes:
        defaults: The options of a call that says nothing else.
        max_size: Most bytes of a request.
        exception_for: Makes the exceptions for error responses.
        stack: Middleware; None: calls take the way without.
    """

    defaults: Options
    max_size: int
    exception_for: ExceptionFor = messages.to_exception
    stack: Stack | None = None


class BaseCalls:
    """
    Makes the calls of a client: resolves their options against defaults, checks their size, sets their deadline.

    Attributes:
        _is_async: Its middleware is.
    """

    _is_async: ClassVar[bool]

    def __init__(self, requests: Requests, watch: DropWatch, view: View) -> None:
        self._requests = requests
        self._cancel = requests.cancel
        self._watch = watch  # of all that a program holds; what threads hold has no part in it
        self._view = view
        self._defaults = view.defaults
        self._stack = view.stack
        is_default = view.exception_for is messages.to_exception
        self._result_of = (
            messages.result_of if is_default else partial(messages.result_of, exception_for=view.exception_for)
        )
        # Resolved once, for the calls without options; None where each must name its service.
        self._chosen = self._choose({}) if view.defaults.get("service") else None

    def _changed(
        self, options: Options, errors: ErrorTypes | None, middleware: Iterable[Callable[..., Any]] | None
    ) -> View:
        """
        Return how calls are made with other options, classes of errors and middleware; None: with the same as here.

        Raises:
            TypeError: There is no such option, or ``errors`` are none, or one of ``middleware`` is none.
            ValueError: An option has no such value.
            EncodeError: A header cannot be sent.
        """
        check_options(options)
        if "headers" in options:
            options["headers"] = tables.checked(options["headers"])
        if "service" in options:
            self._requests.use(options["service"])
        view = replace(self._view, defaults={**self._defaults, **options})
        if errors is not None:
            view = replace(view, exception_for=exceptions_of(errors))
        if middleware is not None:
            view = replace(view, stack=stack_of(middleware, is_async=self._is_async))
        return view

    def _errors_with(self, description: object) -> list[type[ApplicationError]] | None:
        """Return the classes of application errors of this client, and those of a description, if it has any."""
        kind = get_origin(description) or description
        described = errors_of(kind) if isinstance(kind, type) else []
        return [*classes_of(self._view.exception_for), *described] if described else None

    def _make_call(self, kind: Callable[..., C], method: str, params: Params, options: Options) -> C:
        number = self._requests.new_id()
        parse = partial(self._result_of, expected_id=number)
        return self._make(kind, messages.request(method, params, number), options, qid=str(number), parse=parse)

    def _make_typed(self, kind: Callable[..., C], method: str, params: Params, convert: Callable[[Any], Any]) -> C:
        call = self._make_call(kind, method, params, {})
        call.parse = partial(_parsed, call.parse, convert)
        return call

    def _make_notification(self, kind: Callable[..., C], method: str, params: Params, options: Options) -> C:
        return self._make(kind, messages.notification(method, params), options, is_notification=True, parse=nothing)

    def _make_raw(self, kind: Callable[..., C], body: bytes, options: Options) -> C:
        if not isinstance(body, bytes):
            raise TypeError(f"send_raw and submit_raw take bytes, not {type(body).__name__}")
        what = messages.classify(body)
        if what.is_notification:
            return self._make(kind, body, options, is_notification=True, parse=nothing)
        return self._make(kind, body, options, qid=qid_of(what.id))

    def _maker(self, kind: Callable[..., C], options: Options) -> Callable[[bytes, bool], C]:
        """Return what makes a message from its body, and whether there are only notifications in it."""
        return lambda body, is_notification: self._make(kind, body, options, is_notification=is_notification)

    def _make(
        self,
        kind: Callable[..., C],
        body: bytes,
        options: Options,
        *,
        qid: str = NO_QID,
        is_notification: bool = False,
        **more: Any,
    ) -> C:
        if len(body) > (most := self._view.max_size):
            raise MessageTooLarge(f"the request has {len(body)} bytes, over the cap of {most}; it was not sent")
        service, timeout, call, notification = self._choose(options) if options else self._chosen or self._choose({})
        request = context.current_or_none()
        if request is not None:
            timeout = time_left(request, timeout)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        if is_notification:
            return kind(service, body, qid, deadline, timeout, notification, **more)
        if call.persistent:
            self._requests.check_confirms()
        return kind(service, body, qid, deadline, timeout, call, **more)

    def _choose(self, options: Options) -> Chosen:
        """
        Resolve options against the defaults.

        Raises:
            TypeError: There is no such option, or no service.
            ValueError: An option has no such value.
            EncodeError: A header cannot be sent.
        """
        check_options(options)
        chosen: Options = {**self._defaults, **options}
        service = chosen.get("service")
        if not service:
            raise TypeError("which service? Give service= to the call, or to the client as its default")
        timeout = chosen.get("timeout")
        check_timeout(timeout)
        retry = chosen.get("retry")
        if retry not in (None, "safe", "idempotent"):
            raise ValueError(f"retry is 'safe', 'idempotent' or None, not {retry!r}")
        no_consumers = chosen.get("no_consumers", "wait")
        check_no_consumers(no_consumers)
        headers, persistent = tables.checked(chosen.get("headers")), chosen.get("persistent")
        call = SendOptions(bool(persistent), False, headers, retry, no_consumers == "fail")
        return Chosen(
            service,
            None if timeout == math.inf else timeout,
            PLAIN if call == PLAIN else call,
            SendOptions(persistent is None or persistent, True, headers, retry),
        )


class BaseClient(BaseCalls, Probed, Generic[M]):
    """
    Makes the connection of a client; ``Client`` says what each argument means.

    Attributes:
        _new_runtime: Makes what drives the connection.
        _how_to_close: What a program forgot that dropped it: an imperative sentence, without its full stop.
    """

    _new_runtime: ClassVar[type[Runtime]]
    _how_to_close: ClassVar[str]

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
        no_consumers: NoConsumersPolicy = "wait",
        declare: bool = True,
        dialect: Literal["recipe2011"] | None = None,
        user: str | None = None,
        server_user: Users | None = None,
        tls: Mapping[str, Any] | None = None,
        heartbeat: float = HEARTBEAT,
        connect_timeout: float = CONNECT_TIMEOUT,
        reconnect: bool = True,
        connection_name: str | None = None,
        errors: ErrorTypes = (),
        middleware: Sequence[M] = (),
        max_size: int = MAX_SIZE,
        max_pending: int = MAX_PENDING,
        transport: Transport | None = None,
    ) -> None:
        # Before the URL, which may be a service's name then.
        refuse_url(service)
        check_user(user)
        check_timeout(timeout)
        check_no_consumers(no_consumers)
        exception_for, stack = exceptions_of(errors), stack_of(middleware, is_async=self._is_async)
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
                    name=connection_name or connection_names.new("client"),
                    heartbeat=heartbeat,
                    connect_timeout=connect_timeout,
                    reconnect=reconnect,
                    max_size=max_size,
                    tls=tls,
                ),
                self._new_runtime(),
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
        defaults: Options = {"timeout": timeout, "no_consumers": no_consumers}
        if service is None:
            service = queue  # errors name it
        if service is not None:
            requests.use(service)
            defaults["service"] = service
        watch = requests.presence.watch(f"{type(self).__name__} of {service!r} at {self._where}", self._how_to_close)
        super().__init__(requests, watch, View(defaults, max_size, exception_for, stack))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._defaults.get('service')!r} at {self._where}>"

    def health(self) -> Health:
        """
        Return whether calls would be sent now, and what is in the way: for probes, and as cheap as these need.

        A client that was not used yet has no connection: ``start`` makes one. A frozen broker is noticed within one
        heartbeat; that it has an alarm, once something was published to it.
        """
        return self._requests.life.health()

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


def time_left(request: context.Request, timeout: float | None) -> float | None:
    """Bound the timeout of a call by the time that the caller of the current handler has left."""
    left = request.remaining
    if left is None:
        return timeout
    if left <= 0:
        raise CallTimeout("the caller of this handler has given up; nothing was sent", may_have_run=False)
    return left if timeout is None else min(timeout, left)


def _parsed(parse: Callable[[bytes], Any], convert: Callable[[Any], Any], body: bytes) -> Any:
    return convert(parse(body))


def nothing(_body: bytes) -> None:
    return None
