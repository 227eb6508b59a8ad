"""
The client: call, notify, batch, send, submit, proxy.

    with Client("amqp://", service="example", timeout=5) as client:
        client.call("time.now")
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar

from typing_extensions import Unpack

from .. import context
from ..amqp.base import Transport
from ..amqp.transport import connect_transport
from ..dialects.recipe2011 import RecipeClient
from ..errors import CallTimeout, MalformedReply, MessageTooLarge
from ..jsonrpc import messages
from ..options import ConnectionOptions
from ..wire.authorization import Users, check_user, users_of
from ..wire.display import redact
from ..wire.names import DEFAULT_EXCHANGE, NO_QID, qid_of, refuse_url
from .pending import PLAIN, Call, FutureCall, Retry, SendOptions, WaitingCall
from .requests import Requests

C = TypeVar("C", bound=Call)
Params = Sequence[Any] | Mapping[str, Any] | None

# Long enough for a method that works, short enough that a mistake is noticed by the one who made it.
DEFAULT_TIMEOUT = 30.0
# A message that a broker with default limits (16 MiB since RabbitMQ 4.0) takes.
MAX_SIZE = 16 << 20
# A kilobyte each, and what they carry: enough for every load that is meant, and no end of memory for one that is not.
MAX_PENDING = 100_000
# The connection's owner ends calls at their deadline; a caller whose owner is stuck ends by itself this much later.
_SLACK = 0.05
# And so much later if somebody else is about to tell its end, and does not.
_STUCK = 1.0


class Options(TypedDict, total=False):
    """
    What every form of a call takes by keyword; what is left out is the client's.

    Attributes:
        timeout: Seconds until the call ends in any case; None: never.
        service: The service to call.
        headers: AMQP headers to send along.
        persistent: Have the broker keep the message on disk, and confirm that it does; a queue that refuses it ends
            the call at once (``Overloaded``). Notifications are kept unless said otherwise.
        retry: Try again, with back-off and jitter, as long as the deadline allows: "safe", after errors whose
            ``may_have_run`` is false (no queue yet, a full queue); "idempotent", after a lost connection, too, since
            the method may run twice. No attempt begins in the last 0.1 s. None: never.
    """

    timeout: float | None
    service: str
    headers: Mapping[str, Any] | None
    persistent: bool
    retry: Retry | None


class _Chosen(NamedTuple):
    """What options come to: for a call, and for a notification."""

    service: str
    timeout: float | None
    call: SendOptions
    notification: SendOptions


class Calls:
    """
    The forms of a call. ``Client`` has them, and what ``with_options`` gives.

    Every form takes the keywords of ``Options``. A call made inside a handler has no more time than the handler's
    own caller has left.
    """

    def __init__(self, caller: Requests, defaults: Options, *, max_size: int) -> None:
        self._requests = caller
        self._defaults = defaults
        self._max_size = max_size
        # Worked out once, for the calls that say nothing else; None where they have to.
        self._chosen = self._choose({}) if defaults.get("service") else None

    def call(self, method: str, params: Params = None, **options: Unpack[Options]) -> Any:
        """
        Call a method and wait for its result.

        Args:
            method: Its name.
            params: By position (a list or tuple), by name (a dict), or None.
            options: ``timeout`` (seconds; None waits for ever), ``service``, ``headers``, ``persistent``, ``retry``:
                see ``Options``.

        Returns:
            The result.

        Raises:
            RemoteError: The server answered with an error; a subclass for each standard code.
            TransportError: There is no answer; ``may_have_run`` says whether the method may have run.
            EncodeError: ``params`` has no form in JSON.
        """
        number = self._requests.number()
        call = self._make(WaitingCall, messages.request(method, params, number), options, qid=str(number))
        return messages.result_of(self._await(call), number)

    def notify(self, method: str, params: Params = None, **options: Unpack[Options]) -> None:
        """
        Send a notification; returns once the broker has confirmed that it is in the service's queue, on disk.

        Raises:
            TransportError: It was not confirmed; ``may_have_run`` says whether it may have been taken all the same.
            EncodeError: ``params`` has no form in JSON.
        """
        self._await(self._make(WaitingCall, messages.notification(method, params), options, unanswered=True))

    def submit(self, method: str, params: Params = None, **options: Unpack[Options]) -> Future[Any]:
        """
        Call a method; gives at once a future of what ``call`` would give or raise.

        Callbacks of the future run on the thread that owns the connection: they must not block, nor call and wait.

        Raises:
            ClientClosed, MessageTooLarge, EncodeError, TooManyPending: At once.
        """
        number = self._requests.number()
        parse = partial(messages.result_of, expected_id=number)
        call = self._make(FutureCall, messages.request(method, params, number), options, qid=str(number), parse=parse)
        self._requests.launch(call)
        return call.future

    def submit_notify(self, method: str, params: Params = None, **options: Unpack[Options]) -> Future[None]:
        """Send a notification; gives at once a future that is done (None) when the broker has confirmed it."""
        body = messages.notification(method, params)
        call = self._make(FutureCall, body, options, unanswered=True, parse=lambda _body: None)
        self._requests.launch(call)
        return call.future

    def batch(self, **options: Unpack[Options]) -> Batch:
        """Collect calls and notifications in a ``with`` block; they leave as one message when it ends."""
        return Batch(self, options)

    def send(
        self, request: Mapping[str, Any] | Sequence[Mapping[str, Any]], **options: Unpack[Options]
    ) -> messages.Response | list[messages.Response] | None:
        """
        Send what jsonrpcclient's ``request`` or ``notification`` gives, or a list of those.

        Returns:
            jsonrpcclient's ``Ok`` or ``Error``; for a list a list of them in the order of the calls in it; None for
            notifications.

        Raises:
            TransportError: There is no answer. A batch whose answer lacks a member is a ``MalformedReply``.
        """
        if not isinstance(request, (Mapping, list, tuple)):
            raise TypeError(
                f"send takes what jsonrpcclient's request() gives, or a list of those, not {type(request).__name__}; "
                "send_raw takes bytes"
            )
        body = messages.encode(request)
        kind = messages.classify(body)
        reply = self._exchange_bytes(body, kind, options)
        if reply is None:
            return None
        if isinstance(request, Mapping):
            return messages.parse_response(reply, kind.id)
        ids = [each["id"] for each in request if "id" in each]
        return _complete(messages.parse_batch(reply, ids))

    def send_raw(self, body: bytes, **options: Unpack[Options]) -> bytes | None:
        """
        Send bytes as they are, and give the answer's as they are; None where the specification wants no answer.

        For bridges and adapters: nothing is checked but the size, so bytes that are no JSON are answered by the server.
        """
        if not isinstance(body, bytes):
            raise TypeError(f"send_raw takes bytes, not {type(body).__name__}")
        return self._exchange_bytes(body, messages.classify(body), options)

    def submit_raw(self, body: bytes, **options: Unpack[Options]) -> Future[bytes | None]:
        """
        Send bytes as they are; gives at once a future of what ``send_raw`` would give or raise.

        Callbacks of the future as for ``submit``.

        Raises:
            ClientClosed, MessageTooLarge: At once.
        """
        if not isinstance(body, bytes):
            raise TypeError(f"submit_raw takes bytes, not {type(body).__name__}")
        kind = messages.classify(body)
        call = self._make(
            FutureCall,
            body,
            options,
            qid=qid_of(kind.id),
            unanswered=kind.is_notification,
            parse=lambda reply: None if kind.is_notification else reply,
        )
        self._requests.launch(call)
        return call.future

    @property
    def proxy(self) -> Proxy:
        """Methods as attributes: ``client.proxy.time.now()``, ``client.proxy.add(1, 2)`` or ``(a=1, b=2)``."""
        return Proxy(self, "")

    def with_options(self, **options: Unpack[Options]) -> Calls:
        """
        Give the same connection with other defaults: ``client.with_options(timeout=1).proxy``.

        Raises:
            TypeError: There is no such option.
            ValueError: An option has no such value.
        """
        _check_options(options)
        if "service" in options:
            self._requests.use(options["service"])
        return Calls(self._requests, {**self._defaults, **options}, max_size=self._max_size)

    def _exchange_bytes(self, body: bytes, kind: messages.Kind, options: Options) -> bytes | None:
        qid = qid_of(kind.id)
        reply = self._await(self._make(WaitingCall, body, options, qid=qid, unanswered=kind.is_notification))
        return None if kind.is_notification else reply

    def _make(
        self,
        kind: Callable[..., C],
        body: bytes,
        options: Options,
        *,
        qid: str = NO_QID,
        unanswered: bool = False,
        **more: Any,
    ) -> C:
        if len(body) > self._max_size:
            raise MessageTooLarge(
                f"the request has {len(body)} bytes, over the cap of {self._max_size}; it was not sent"
            )
        service, timeout, call, notification = self._choose(options) if options else self._chosen or self._choose({})
        request = context.current_or_none()
        if request is not None:
            timeout = _time_left(request, timeout)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        if unanswered:
            return kind(service, body, qid, deadline, timeout, notification, **more)
        if call.persistent:
            self._requests.check_confirms()
        return kind(service, body, qid, deadline, timeout, call, **more)

    def _choose(self, options: Options) -> _Chosen:
        """
        Give what a call with these options does.

        Raises:
            TypeError: There is no such option, or no service.
            ValueError: An option has no such value.
        """
        _check_options(options)
        chosen: Options = {**self._defaults, **options}
        service = chosen.get("service")
        if not service:
            raise TypeError("which service? Give service= to the call, or to the client as its default")
        timeout = chosen.get("timeout")
        _check_timeout(timeout)
        retry = chosen.get("retry")
        if retry not in (None, "safe", "idempotent"):
            raise ValueError(f"retry is 'safe', 'idempotent' or None, not {retry!r}")
        headers, persistent = chosen.get("headers"), chosen.get("persistent")
        call = SendOptions(bool(persistent), False, headers, retry)
        return _Chosen(
            service,
            None if timeout == math.inf else timeout,
            PLAIN if call == PLAIN else call,
            SendOptions(persistent is None or persistent, True, headers, retry),
        )

    def _await(self, call: WaitingCall) -> bytes:
        self._requests.check_may_wait()
        try:
            self._requests.launch(call)
            self._requests.attend(call)
            if not call.wait(max(0.0, call.deadline - time.monotonic() + _SLACK)):
                self._requests.expire(call)
                if not call.wait(_STUCK):
                    raise CallTimeout(f"no answer from {call.service!r}: the thread that brings answers is stuck")
        except BaseException:  # Control-C: nobody waits for the answer any more
            self._requests.forget(call)
            raise
        return call.result()


_KNOWN = frozenset(Options.__annotations__)


def _check_options(options: Options) -> None:
    if not _KNOWN.issuperset(options):
        unknown = ", ".join(sorted(set(options) - _KNOWN))
        raise TypeError(
            f"unknown option {unknown}; known: {', '.join(sorted(_KNOWN))}. Parameters go into a list or a dict; "
            "proxy takes them one by one. A queue, a route and the like are chosen for the whole client"
        )


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
        raise ValueError(f"a timeout is a number of seconds, 0 or more, or None to wait for ever; not {timeout!r}")


def resolve_routing(route: str | None, reply: str | None, queue: str | None) -> tuple[bool, str]:
    """
    Give whether requests go to a queue by its name, and which way answers come back.

    Raises:
        ValueError: The two do not go together, or there is no such way.
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
    return by_queue, reply


def _time_left(request: context.Request, timeout: float | None) -> float | None:
    """Bound a timeout by what the caller of the handler that we are in has left."""
    left = request.remaining
    if left is None:
        return timeout
    if left <= 0:
        raise CallTimeout("the caller of this handler has given up; nothing was sent", may_have_run=False)
    return left if timeout is None else min(timeout, left)


def _complete(answers: list[messages.Response | MalformedReply]) -> list[messages.Response]:
    complete: list[messages.Response] = []
    for answer in answers:
        if isinstance(answer, MalformedReply):
            raise answer
        complete.append(answer)
    return complete


class Client(Calls):
    """
    Calls JSON-RPC 2.0 methods over RabbitMQ. One is enough for a process: safe to use from many threads at once.

    Nothing is connected until the first use, ``start()`` or ``with``. A lost connection is made again by itself.
    Not to be shared with a forked process: there each use raises ``ClientClosed``.

    Args:
        url: ``amqp://user:password@host:port/vhost``, ``amqps://`` for TLS with the host's name verified, several
            joined by ``;`` for failover, or ``memory://NAME``.
        service: The service to call, where a call does not say.
        timeout: Seconds that a call waits where it does not say; None for ever.
        exchange: The topic exchange.
        reply: "topic" (the default): answers come over the exchange to a queue of this client. "direct": over
            RabbitMQ's direct reply-to, faster and private. "queue" (the default with ``queue``): to a queue of this
            client, by its name.
        route: "topic" (the default without ``queue``): requests go over the exchange. "queue": straight to the request
            queue of the service, by its name. That is faster, but topic permissions do not see it: whoever may write to
            the default exchange can call every service. ``reply`` is "queue" or "direct" then.
        queue: Send requests straight to this queue, through the default exchange, with ``reply_to`` and
            ``correlation_id``: the way to call servers that are made with other libraries. No service is needed then.
        confirm: Have the broker confirm calls too: a full queue that refuses one then fails it at once
            (``Overloaded``).
        declare: Declare the exchange; False only checks that it is there.
        dialect: "recipe2011" calls a server of that recipe (see docs/interop.md). Its requests carry one parameter,
            and no method's name.
        user: The AMQP user, where the URL does not tell (certificates), or the broker knows it by another name.
        server_user: The AMQP user of the servers, or several: answers of others are rejected, and their calls go on
            waiting. The broker vouches for it. Servers of ours send it where they know it.
        tls: py-amqp's TLS options: ``ca_certs``, ``certfile``, ``keyfile``, ``server_hostname``, ...
        heartbeat: Seconds between heartbeats that are offered to the broker; 0 for none.
        connect_timeout: Seconds for one attempt to connect.
        reconnect: False makes a failed attempt final for the calls that wait for it.
        connection_name: Shown by RabbitMQ's management.
        max_size: Most bytes of a request and of an answer.
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
        timeout: float | None = DEFAULT_TIMEOUT,
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
        heartbeat: float = 10.0,
        connect_timeout: float = 5.0,
        reconnect: bool = True,
        connection_name: str | None = None,
        max_size: int = MAX_SIZE,
        max_pending: int = MAX_PENDING,
        transport: Transport | None = None,
    ) -> None:
        # Before the URL, which may be a service's name then.
        refuse_url(service)
        check_user(user)
        _check_timeout(timeout)
        if max_pending < 1:
            raise ValueError("max_pending is at least 1")
        by_queue, way_back = resolve_routing(route, reply, queue)
        if dialect not in (None, "recipe2011"):
            raise ValueError(f"dialect is 'recipe2011' or None, not {dialect!r}")
        if dialect is not None and way_back != "topic":
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
        caller = Requests(
            transport,
            exchange=exchange,
            reply=way_back,
            queue=queue,
            by_queue=by_queue,
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
            caller.use(service)
            defaults["service"] = service
        super().__init__(caller, defaults, max_size=max_size)

    def __repr__(self) -> str:
        return f"<Client of {self._defaults.get('service')!r} at {self._where}>"

    def start(self, timeout: float | None = DEFAULT_TIMEOUT) -> Client:
        """
        Connect, and wait until that is done.

        Raises:
            NotConnected: There was no connection within ``timeout`` seconds. Attempts go on all the same.
            AccessRefused, TopologyMismatch: The broker said no; attempts end.
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
            self.close()  # the block does not run, so nobody else would
            raise

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stats(self) -> dict[str, int]:
        """
        Give the counters since the start.

        ``pending`` calls now, ``timeouts``, ``retries`` (attempts after the first), ``dropped_replies`` (nobody
        awaited them any more), ``rejected_replies`` (they have the number of a call, and do not come from where its
        answer does), ``connections`` made, ``connections_lost``, ``failed_attempts`` to connect.
        """
        return self._requests.counts()


class _Unsent(Future[Any]):
    """The future of a call in a batch. Before the batch is sent, waiting for it would never end."""

    sent = False

    def result(self, timeout: float | None = None) -> Any:
        self._check()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._check()
        return super().exception(timeout)

    def _check(self) -> None:
        if not self.sent and not self.done():
            raise RuntimeError("the batch is sent when its with block ends; there is nothing to wait for before")


class Batch:
    """
    Calls and notifications that leave as one message. Made by ``Client.batch``.

    ``call`` gives a future that is done when the block ends: inside the block its result cannot be waited for. If the
    block raises, nothing is sent. A batch is used once.
    """

    def __init__(self, calls: Calls, options: Options) -> None:
        self._calls = calls
        self._options = options
        self._members: list[dict[str, Any]] = []
        self._futures: dict[int, _Unsent] = {}
        self._open = False
        self._over = False

    def call(self, method: str, params: Params = None) -> Future[Any]:
        """
        Add a call; gives the future of its result.

        Raises:
            RuntimeError: Outside the ``with`` block.
        """
        self._check_open()
        number = self._calls._requests.number()
        self._members.append(messages.request_object(method, params, number))
        future = self._futures[number] = _Unsent()
        return future

    def notify(self, method: str, params: Params = None) -> None:
        """Add a notification. In a batch with calls the broker's confirm is not waited for."""
        self._check_open()
        self._members.append(messages.notification_object(method, params))

    def __enter__(self) -> Batch:
        if self._over or self._open:
            raise RuntimeError("a batch is used once; make another")
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open, self._over = False, True
        for future in self._futures.values():
            future.sent = True
        if kind is not None:
            for future in self._futures.values():
                future.cancel()
        elif self._members:
            self._send()

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("a batch takes calls inside its with block: with client.batch() as batch: ...")

    def _send(self) -> None:
        calls, futures = self._calls, self._futures
        answers: Sequence[messages.Response | BaseException]
        try:
            body = messages.encode(self._members)
            reply = calls._await(calls._make(WaitingCall, body, self._options, unanswered=not futures))
            answers = messages.parse_batch(reply, list(futures)) if futures else []
        except BaseException as error:
            for future in futures.values():
                _settle(future, error)
            raise
        for future, answer in zip(futures.values(), answers, strict=True):
            _settle(future, answer)


def _settle(future: Future[Any], answer: messages.Response | BaseException) -> None:
    # A future that its owner cancelled meanwhile takes nothing any more.
    with suppress(InvalidStateError):
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        elif isinstance(answer, messages.Ok):
            future.set_result(answer.result)
        else:
            future.set_exception(messages.to_exception(answer))


class Proxy:
    """A method's name, grown attribute by attribute, and called."""

    def __init__(self, calls: Calls, name: str) -> None:
        self.__calls = calls
        self.__name = name

    def __getattr__(self, part: str) -> Proxy:
        # Python's own protocols ask for such names; a remote method of that name is called by call().
        if part.startswith("__"):
            raise AttributeError(part)
        return Proxy(self.__calls, f"{self.__name}.{part}" if self.__name else part)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and kwargs:
            raise TypeError("JSON-RPC takes parameters by position or by name, not both")
        if not self.__name:
            raise TypeError("a proxy is called by a method's name: client.proxy.time.now()")
        return self.__calls.call(self.__name, list(args) if args else kwargs or None)
