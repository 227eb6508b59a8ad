"""
The forms of a call: call, notify, submit, batch, send, proxy.

    client.call("add", [1, 2])
    client.with_options(timeout=1).proxy.add(1, 2)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, TypedDict, TypeVar, Unpack

from .. import context
from ..amqp import tables
from ..errors import CallTimeout, MalformedReply, MessageTooLarge
from ..jsonrpc import messages
from ..runtime.dropped import DropWatch
from ..wire.names import NO_QID, qid_of
from .batch import Batch
from .call import PLAIN, Call, FutureCall, Params, Retry, SendOptions, WaitingCall
from .futures import CallFuture
from .proxy import Proxy
from .requests import Requests

C = TypeVar("C", bound=Call)

# Seconds. The leader ends calls at their deadline; a caller whose leader is stuck ends by itself this much later.
_SLACK = 0.05
# And this much later if another thread is about to end its call, and does not.
_STUCK = 1.0


class Options(TypedDict, total=False):
    """
    What every form of a call takes by keyword; what is left out is the client's.

    Attributes:
        timeout: Seconds until the call ends in any case; None: never.
        service: The service to call.
        headers: AMQP headers to send along; what RabbitMQ would not take is an ``EncodeError``, before anything is
            sent.
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
    """Resolved options: for a call, and for a notification."""

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

    def __init__(self, requests: Requests, watch: DropWatch, defaults: Options, *, max_size: int) -> None:
        self._requests = requests
        self._cancel = requests.cancel
        self._watch = watch  # of all that a program holds; what threads hold has no part in it
        self._check_may_wait = requests.waiter.check_may_wait
        self._defaults = defaults
        self._max_size = max_size
        # Resolved once, for the calls without options; None where each must name its service.
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
            RemoteError: The server replied with an error; a subclass for each standard code.
            TransportError: There is no reply; ``may_have_run`` says whether the method may have run.
            EncodeError: ``params`` has no form in JSON, or a header none in AMQP.
        """
        number = self._requests.new_id()
        call = self._make(WaitingCall, messages.request(method, params, number), options, qid=str(number))
        return messages.result_of(self._await(call), number)

    def notify(self, method: str, params: Params = None, **options: Unpack[Options]) -> None:
        """
        Send a notification; return once the broker has confirmed that it is in the service's queue, on disk.

        Raises:
            TransportError: It was not confirmed; ``may_have_run`` says whether it may have been taken all the same.
            EncodeError: ``params`` has no form in JSON, or a header none in AMQP.
        """
        self._await(self._make(WaitingCall, messages.notification(method, params), options, is_notification=True))

    def submit(self, method: str, params: Params = None, **options: Unpack[Options]) -> Future[Any]:
        """
        Call a method; return at once a future of what ``call`` would return or raise.

        Callbacks of the future run on the thread that drives the connection: they must not block, nor call and wait.
        ``cancel()`` succeeds until the future is done. It drops the call at once, so that it no longer counts for
        ``max_pending``; a call that was not sent yet will not be, one that was may have run, or may still. To let go of
        a future cancels nothing.

        Raises:
            ClientClosed, MessageTooLarge, EncodeError, TooManyPending: At once; NotConnected, too, where this process
                can have no other thread or open file.
        """
        number = self._requests.new_id()
        parse = partial(messages.result_of, expected_id=number)
        call = self._make(FutureCall, messages.request(method, params, number), options, qid=str(number), parse=parse)
        return self._submit(call)

    def submit_notify(self, method: str, params: Params = None, **options: Unpack[Options]) -> Future[None]:
        """Send a notification; return at once a future that is done (None) when the broker has confirmed it."""
        body = messages.notification(method, params)
        call = self._make(FutureCall, body, options, is_notification=True, parse=lambda _body: None)
        return self._submit(call)

    def batch(self, **options: Unpack[Options]) -> Batch:
        """Collect calls and notifications in a ``with`` block; they leave as one message when it ends."""
        make = partial(self._make, WaitingCall)
        return Batch(
            self._requests.new_id,
            lambda body, is_notification: make(body, options, is_notification=is_notification),
            wait=self._await,
            drop=self._cancel,
        )

    def send(
        self, request: Mapping[str, Any] | Sequence[Mapping[str, Any]], **options: Unpack[Options]
    ) -> messages.Response | list[messages.Response] | None:
        """
        Send what jsonrpcclient's ``request`` or ``notification`` returns, or a list of those.

        Returns:
            jsonrpcclient's ``Ok`` or ``Error``; for a list a list of them in the order of the calls in it; None for
            notifications.

        Raises:
            TransportError: There is no reply. A batch whose reply lacks a member is a ``MalformedReply``.
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
        Send bytes as they are, and return the reply's as they are; None where JSON-RPC has no response.

        For bridges and adapters: only the size is checked, so the server replies to bytes that are not JSON.
        """
        if not isinstance(body, bytes):
            raise TypeError(f"send_raw takes bytes, not {type(body).__name__}")
        return self._exchange_bytes(body, messages.classify(body), options)

    def submit_raw(self, body: bytes, **options: Unpack[Options]) -> Future[bytes | None]:
        """
        Send bytes as they are; return at once a future of what ``send_raw`` would return or raise.

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
            is_notification=kind.is_notification,
            parse=lambda reply: None if kind.is_notification else reply,
        )
        return self._submit(call)

    @property
    def proxy(self) -> Proxy:
        """Methods as attributes: ``client.proxy.time.now()``, ``client.proxy.add(1, 2)`` or ``(a=1, b=2)``."""
        return Proxy(self.call, "")

    def with_options(self, **options: Unpack[Options]) -> Calls:
        """
        Return the same connection with other defaults: ``client.with_options(timeout=1).proxy``.

        Raises:
            TypeError: There is no such option.
            ValueError: An option has no such value.
            EncodeError: A header cannot be sent.
        """
        _check_options(options)
        if "headers" in options:
            options["headers"] = tables.checked(options["headers"])
        if "service" in options:
            self._requests.use(options["service"])
        return Calls(self._requests, self._watch, {**self._defaults, **options}, max_size=self._max_size)

    def _exchange_bytes(self, body: bytes, kind: messages.Kind, options: Options) -> bytes | None:
        qid = qid_of(kind.id)
        reply = self._await(self._make(WaitingCall, body, options, qid=qid, is_notification=kind.is_notification))
        return None if kind.is_notification else reply

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
        if len(body) > self._max_size:
            raise MessageTooLarge(
                f"the request has {len(body)} bytes, over the cap of {self._max_size}; it was not sent"
            )
        service, timeout, call, notification = self._choose(options) if options else self._chosen or self._choose({})
        request = context.current_or_none()
        if request is not None:
            timeout = _time_left(request, timeout)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        if is_notification:
            return kind(service, body, qid, deadline, timeout, notification, **more)
        if call.persistent:
            self._requests.check_confirms()
        return kind(service, body, qid, deadline, timeout, call, **more)

    def _choose(self, options: Options) -> _Chosen:
        """
        Resolve options against the defaults.

        Raises:
            TypeError: There is no such option, or no service.
            ValueError: An option has no such value.
            EncodeError: A header cannot be sent.
        """
        _check_options(options)
        chosen: Options = {**self._defaults, **options}
        service = chosen.get("service")
        if not service:
            raise TypeError("which service? Give service= to the call, or to the client as its default")
        timeout = chosen.get("timeout")
        check_timeout(timeout)
        retry = chosen.get("retry")
        if retry not in (None, "safe", "idempotent"):
            raise ValueError(f"retry is 'safe', 'idempotent' or None, not {retry!r}")
        headers, persistent = tables.checked(chosen.get("headers")), chosen.get("persistent")
        call = SendOptions(bool(persistent), False, headers, retry)
        return _Chosen(
            service,
            None if timeout == math.inf else timeout,
            PLAIN if call == PLAIN else call,
            SendOptions(persistent is None or persistent, True, headers, retry),
        )

    def _submit(self, call: FutureCall) -> CallFuture:
        future = call.future
        call.drop, future.owner, future.check_may_wait = self._cancel, call, self._check_may_wait
        try:
            self._requests.submit(call)
        except BaseException:  # Control-C, say: its caller never gets the future
            self._requests.waiter.forget(call)
            future.owner = None
            raise
        return future

    def _await(self, call: WaitingCall) -> bytes:
        self._check_may_wait()
        try:
            self._requests.submit(call)
            self._requests.waiter.drive_until_done(call)
            if not call.wait(max(0.0, call.deadline - time.monotonic() + _SLACK)):
                self._requests.waiter.expire(call)
                if not call.wait(_STUCK):
                    raise CallTimeout(f"no answer from {call.service!r}: the thread that brings answers is stuck")
        except BaseException:  # Control-C: no thread waits for the reply any more
            self._requests.waiter.release_lock()
            self._requests.waiter.forget(call)
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


def check_timeout(timeout: float | None) -> None:
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
        raise ValueError(f"a timeout is a number of seconds, 0 or more, or None to wait for ever; not {timeout!r}")


def _time_left(request: context.Request, timeout: float | None) -> float | None:
    """Bound the timeout of a call by the time that the caller of the current handler has left."""
    left = request.remaining
    if left is None:
        return timeout
    if left <= 0:
        raise CallTimeout("the caller of this handler has given up; nothing was sent", may_have_run=False)
    return left if timeout is None else min(timeout, left)


def _complete(responses: list[messages.Response | MalformedReply]) -> list[messages.Response]:
    complete: list[messages.Response] = []
    for response in responses:
        if isinstance(response, MalformedReply):
            raise response
        complete.append(response)
    return complete
