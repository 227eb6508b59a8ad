"""
The forms of a call in coroutines: those of ``calls``, awaited.

    await client.call("add", [1, 2])
    await client.with_options(timeout=1).proxy.add(1, 2)
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from ..errors import RemoteError
from ..jsonrpc import messages
from ..jsonrpc.error_classes import ErrorTypes
from ..jsonrpc.params import Params
from ..runtime.asyncio import AsyncioRuntime
from ..runtime.dropped import DropWatch
from . import sent
from .async_batch import AsyncBatch
from .async_call import AsyncCall, AsyncFuture
from .async_chain import AsyncChain
from .attempts import Retry
from .base import View
from .call_options import Options
from .chain import Form, Make
from .forms import Forms
from .middleware import AsyncClientMiddleware, OutgoingRequest
from .proxy import Proxy
from .requests import Requests
from .typed import Description, T, typed_client

# Those that ``submit`` has begun, with middleware.
_tasks: set[Future[Any]] = set()


class AsyncCalls(Forms):
    """
    The forms of a call, for coroutines. ``AsyncClient`` has them, and what ``with_options`` gives.

    Each does what the form of that name does in ``Calls``, and raises the same; see there. A task that is cancelled
    while it awaits one, by ``asyncio.timeout`` for example, drops the call at once: it no longer counts for
    ``max_pending``; if it was not sent yet it will not be, else the method may have run, or may still.

    Raises:
        WrongEventLoop: Each form: the client belongs to another event loop, or to one that was closed.
    """

    _is_async = True

    def __init__(self, requests: Requests, watch: DropWatch, view: View) -> None:
        super().__init__(requests, watch, view)
        runtime = requests.runtime
        if not isinstance(runtime, AsyncioRuntime):
            raise TypeError("the transport of an asynchronous client is to be driven by an AsyncioRuntime")
        self._runtime = runtime

    async def call(self, method: str, params: Params = None, **options: Unpack[Options]) -> Any:
        """Call a method; return its result."""
        if self._stack is not None:
            return await self._through(self._call_form(method, params, options))
        loop = self._attach()
        return await self._submit(self._make_call(AsyncCall, method, params, options), loop)

    async def notify(self, method: str, params: Params = None, **options: Unpack[Options]) -> None:
        """Send a notification; return once the broker has confirmed that it is in the service's queue, on disk."""
        if self._stack is not None:
            await self._through(self._notification_form(method, params, options))
        else:
            await self.submit_notify(method, params, **options)

    def submit(self, method: str, params: Params = None, **options: Unpack[Options]) -> Future[Any]:
        """
        Call a method; return at once a future of what ``call`` would return or raise.

        The request leaves in the next turn of the event loop, together with others. ``cancel()`` succeeds until the
        future is done, and drops the call. To let go of a future cancels nothing.
        """
        loop = self._attach()
        if self._stack is not None:
            return self._submit_through(self._call_form(method, params, options), loop)
        return self._submit(self._make_call(AsyncCall, method, params, options), loop)

    def submit_notify(self, method: str, params: Params = None, **options: Unpack[Options]) -> Future[None]:
        """Send a notification; return at once a future that is done (None) when the broker has confirmed it."""
        loop = self._attach()
        if self._stack is not None:
            return self._submit_through(self._notification_form(method, params, options), loop)
        return self._submit(self._make_notification(AsyncCall, method, params, options), loop)

    def batch(self, **options: Unpack[Options]) -> AsyncBatch:
        """Collect calls and notifications in an ``async with`` block; they leave as one message when it ends."""
        loop = self._attach()
        return AsyncBatch(
            self._requests.new_id,
            self._maker(AsyncCall, options),
            submit=lambda call: self._submit(call, loop),
            drop=self._cancel,
            exception_for=self._view.exception_for,
            around=None if self._stack is None else lambda message: self._through(self._batch_form(message, options)),
        )

    async def send(
        self, request: Mapping[str, Any] | Sequence[Mapping[str, Any]], **options: Unpack[Options]
    ) -> messages.Response | list[messages.Response] | None:
        """Send what jsonrpcclient's ``request`` or ``notification`` returns, or a list of those."""
        if self._stack is None:
            return sent.parse(await self.send_raw(sent.encode(request), **options), request)
        try:
            return sent.respond(await self._through(self._send_form(request, options)), request)
        except RemoteError as error:
            return sent.respond_to_error(error, request)

    async def send_raw(self, body: bytes, **options: Unpack[Options]) -> bytes | None:
        """Send bytes as they are, and return the reply's as they are; None where JSON-RPC has no response."""
        if self._stack is None:
            return await self.submit_raw(body, **options)
        reply: bytes | None = await self._through(self._raw_form(body, options))
        return reply

    def submit_raw(self, body: bytes, **options: Unpack[Options]) -> Future[bytes | None]:
        """Send bytes as they are; return at once a future of what ``send_raw`` would return or raise."""
        loop = self._attach()
        if self._stack is not None:
            return self._submit_through(self._raw_form(body, options), loop)
        return self._submit(self._make_raw(AsyncCall, body, options), loop)

    @property
    def proxy(self) -> Proxy:
        """Methods as attributes: ``await client.proxy.time.now()``, ``client.proxy.add(1, 2)`` or ``(a=1, b=2)``."""
        return Proxy(self.call, "", self._defaults.get("service"))

    def typed(self, description: Description[T]) -> T:
        """Return an object with the methods of a class, all ``async def``; each calls the remote method of its name."""
        calls = self.with_options(errors=self._errors_with(description))
        return typed_client(description, calls._call_typed, is_async=True)

    def with_options(
        self,
        *,
        errors: ErrorTypes | None = None,
        middleware: Sequence[AsyncClientMiddleware] | None = None,
        **options: Unpack[Options],
    ) -> AsyncCalls:
        """Return the same connection with other defaults: ``client.with_options(timeout=1).proxy``."""
        return AsyncCalls(self._requests, self._watch, self._changed(options, errors, middleware))

    async def _call_typed(self, method: str, params: Params, convert: Callable[[Any], Any]) -> Any:
        if self._stack is not None:
            return convert(await self._through(self._call_form(method, params, {})))
        loop = self._attach()
        return await self._submit(self._make_typed(AsyncCall, method, params, convert), loop)

    async def _through(self, form: Form) -> Any:
        """Return what the middleware returns, or raise what it raises."""

        def send(request: OutgoingRequest, retry: Retry | None) -> AsyncFuture:
            loop = self._attach()
            return self._submit(form.call(AsyncCall, request, retry), loop)

        assert self._stack is not None
        return await AsyncChain(self._stack, form, self._requests, send).run()

    def _submit_through(self, form: Form, loop: AbstractEventLoop) -> Future[Any]:
        """Return at once a task that does what ``_through`` does."""
        task = loop.create_task(self._through(form))
        # The loop itself does not keep a task.
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return task

    def _form(self, make: Make, options: Options, request: OutgoingRequest) -> Form:
        self._attach()
        return super()._form(make, options, request)

    def _attach(self) -> AbstractEventLoop:
        self._requests.life.check_not_foreign()  # of a fork: it says more than that the loop is another one
        return self._runtime.attach()

    def _submit(self, call: AsyncCall, loop: AbstractEventLoop) -> AsyncFuture:
        future = call.future = AsyncFuture(loop=loop)  # without it, the future would ask for the process once more
        call.drop, future.owner = self._cancel, call
        try:
            self._requests.submit(call)
        except BaseException:  # its caller never gets the future
            self._requests.waiter.forget(call)
            future.owner = None
            raise
        return future
