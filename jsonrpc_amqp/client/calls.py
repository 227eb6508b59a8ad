"""
The forms of a call: call, notify, submit, batch, send, proxy.

    client.call("add", [1, 2])
    client.with_options(timeout=1).proxy.add(1, 2)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Unpack

from ..errors import CallTimeout, RemoteError
from ..jsonrpc import messages
from ..jsonrpc.error_classes import ErrorTypes
from ..jsonrpc.params import Params
from ..runtime.dropped import DropWatch
from . import sent
from .attempts import Retry
from .base import View
from .batch import Batch
from .call import FutureCall, WaitingCall
from .call_options import Options
from .chain import Chain, Form
from .forms import Forms
from .futures import CallFuture
from .middleware import ClientMiddleware, OutgoingRequest
from .proxy import Proxy
from .requests import Requests
from .submitted import Submitted
from .typed import Description, T, typed_client

# Seconds. The leader ends calls at their deadline; a caller whose leader is stuck ends by itself this much later.
_SLACK = 0.05
# And this much later if another thread is about to end its call, and does not.
_STUCK = 1.0


class Calls(Forms):
    """
    The forms of a call. ``Client`` has them, and what ``with_options`` gives.

    Every form takes the keywords of ``Options``. A call made inside a handler has no more time than the handler's
    own caller has left.
    """

    _is_async = False

    def __init__(self, requests: Requests, watch: DropWatch, view: View) -> None:
        super().__init__(requests, watch, view)
        self._check_may_wait = requests.waiter.check_may_wait

    def call(self, method: str, params: Params = None, **options: Unpack[Options]) -> Any:
        """
        Call a method and wait for its result.

        Args:
            method: Its name.
            params: By position (a list, tuple or other sequence; no text), by name (a dict or other mapping), or None.
            options: ``timeout`` (seconds; None waits for ever), ``service``, ``headers``, ``persistent``, ``retry``,
                ``no_consumers``: see ``Options``.

        Returns:
            The result.

        Raises:
            RemoteError: The server replied with an error; a subclass for each standard code, and for the codes of the
                client's ``errors``.
            TransportError: There is no reply; ``may_have_run`` says whether the method may have run.
            EncodeError: ``params`` has no form in JSON (the message begins with the path to the part that has none), or
                a header none in AMQP.
            TypeError: ``params`` is a text, or neither a sequence nor a mapping; or there is no such option.
        """
        if self._stack is not None:
            return self._through(self._call_form(method, params, options))
        return self._await(self._make_call(WaitingCall, method, params, options))

    def notify(self, method: str, params: Params = None, **options: Unpack[Options]) -> None:
        """
        Send a notification; return once the broker has confirmed that it is in the service's queue, on disk.

        Raises:
            TransportError: It was not confirmed; ``may_have_run`` says whether it may have been taken all the same.
            EncodeError: ``params`` has no form in JSON, or a header none in AMQP.
        """
        if self._stack is not None:
            self._through(self._notification_form(method, params, options))
        else:
            self._await(self._make_notification(WaitingCall, method, params, options))

    def submit(self, method: str, params: Params = None, **options: Unpack[Options]) -> Future[Any]:
        """
        Call a method; return at once a future of what ``call`` would return or raise.

        Callbacks of the future run on the thread that drives the connection: they must not block, nor call and wait.
        ``cancel()`` succeeds until the future is done. It drops the call at once, so that it no longer counts for
        ``max_pending``; a call that was not sent yet will not be, one that was may have run, or may still. To let go of
        a future cancels nothing.

        With middleware, that and the callbacks run on a few threads of the client; what is wrong with params is an
        error of the future then.

        Raises:
            ClientClosed, MessageTooLarge, EncodeError, TooManyPending: At once; NotConnected, too, where this process
                can have no other thread or open file.
        """
        if self._stack is not None:
            return self._submit_through(self._call_form(method, params, options))
        return self._submit(self._make_call(FutureCall, method, params, options))

    def submit_notify(self, method: str, params: Params = None, **options: Unpack[Options]) -> Future[None]:
        """Send a notification; return at once a future that is done (None) when the broker has confirmed it."""
        if self._stack is not None:
            return self._submit_through(self._notification_form(method, params, options))
        return self._submit(self._make_notification(FutureCall, method, params, options))

    def batch(self, **options: Unpack[Options]) -> Batch:
        """Collect calls and notifications in a ``with`` block; they leave as one message when it ends."""
        return Batch(
            self._requests.new_id,
            self._maker(WaitingCall, options),
            wait=self._await,
            drop=self._cancel,
            exception_for=self._view.exception_for,
            around=None if self._stack is None else lambda message: self._through(self._batch_form(message, options)),
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
        if self._stack is None:
            return sent.parse(self.send_raw(sent.encode(request), **options), request)
        try:
            return sent.respond(self._through(self._send_form(request, options)), request)
        except RemoteError as error:
            return sent.respond_to_error(error, request)

    def send_raw(self, body: bytes, **options: Unpack[Options]) -> bytes | None:
        """
        Send bytes as they are, and return the reply's as they are; None where JSON-RPC has no response.

        For bridges and adapters: only the size is checked, so the server replies to bytes that are not JSON.
        """
        reply: bytes | None
        if self._stack is not None:
            reply = self._through(self._raw_form(body, options))
        else:
            reply = self._await(self._make_raw(WaitingCall, body, options))
        return reply

    def submit_raw(self, body: bytes, **options: Unpack[Options]) -> Future[bytes | None]:
        """
        Send bytes as they are; return at once a future of what ``send_raw`` would return or raise.

        Callbacks of the future as for ``submit``.

        Raises:
            ClientClosed, MessageTooLarge: At once.
        """
        if self._stack is not None:
            return self._submit_through(self._raw_form(body, options))
        return self._submit(self._make_raw(FutureCall, body, options))

    @property
    def proxy(self) -> Proxy:
        """Methods as attributes: ``client.proxy.time.now()``, ``client.proxy.add(1, 2)`` or ``(a=1, b=2)``."""
        return Proxy(self.call, "", self._defaults.get("service"))

    def typed(self, description: Description[T]) -> T:
        """
        Return an object with the methods of a class, such as a ``Protocol``; each calls the remote method of its name.

        Arguments leave by position, or by name if any is given so; defaults of the description are not sent. Results
        are converted to what the method is declared to return; one that does not fit is a ``MalformedReply``. Where
        names differ, ``rpc_name`` says how; errors that the description names with ``raises`` are raised by their
        classes, besides those of the client.

        Raises:
            TypeError: It is no class, has a method that is ``async def``, or nothing converts to a declared result.
        """
        calls = self.with_options(errors=self._errors_with(description))
        return typed_client(description, calls._call_typed, is_async=False)

    def with_options(
        self,
        *,
        errors: ErrorTypes | None = None,
        middleware: Sequence[ClientMiddleware] | None = None,
        **options: Unpack[Options],
    ) -> Calls:
        """
        Return the same connection with other defaults: ``client.with_options(timeout=1).proxy``.

        Args:
            errors: Other classes of application errors than the client's; see there.
            middleware: Other middleware than the client's; see there.
            options: See ``Options``.

        Raises:
            TypeError: There is no such option, or ``errors`` are none, or one of ``middleware`` is none.
            ValueError: An option has no such value.
            EncodeError: A header cannot be sent.
        """
        return Calls(self._requests, self._watch, self._changed(options, errors, middleware))

    def _call_typed(self, method: str, params: Params, convert: Callable[[Any], Any]) -> Any:
        if self._stack is not None:
            return convert(self._through(self._call_form(method, params, {})))
        return self._await(self._make_typed(WaitingCall, method, params, convert))

    def _through(self, form: Form) -> Any:
        """Return what the middleware returns, or raise what it raises."""

        def send(request: OutgoingRequest, retry: Retry | None) -> Any:
            return self._await(form.call(WaitingCall, request, retry))

        assert self._stack is not None
        return Chain(self._stack, form, self._requests, send).run()

    def _submit_through(self, form: Form) -> CallFuture:
        """Return at once a future of what ``_through`` would return or raise."""
        assert self._stack is not None
        return Submitted.begin(self._stack, form, self._requests, self._submit)

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

    def _await(self, call: WaitingCall) -> Any:
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
