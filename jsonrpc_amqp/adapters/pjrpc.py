"""
pjrpc: its clients call over RabbitMQ, its ``Dispatcher`` serves (its only import).

    pjrpc_client = PjrpcClient(client)
    server = Server("amqp://", "example", dispatcher=dispatcher(pjrpc.server.Dispatcher()))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast, overload

from ..client.async_calls import AsyncCalls
from ..client.call_options import Options
from ..client.calls import Calls
from ..context import Request as ServedRequest
from ..context import current_request
from ..errors import MissingExtra
from ..jsonrpc import inspection
from ..jsonrpc.messages import text_of
from ..options import MAX_BATCH

try:
    from pjrpc.client import AbstractAsyncClient, AbstractClient
    from pjrpc.common import AbstractRequest, AbstractResponse, BatchRequest, BatchResponse, Request, Response
    from pjrpc.server import Dispatcher
except ImportError as exc:
    raise MissingExtra(__name__, "pjrpc", "pjrpc") from exc

__all__ = ["PjrpcAsyncClient", "PjrpcClient", "dispatcher"]


class PjrpcClient(AbstractClient):
    """
    A pjrpc client on our transport, for any number of threads.

    Args:
        calls: A ``Client`` with a service, or the result of its ``with_options``. This client does not close it.
        options: As for pjrpc's own clients: ``id_gen_impl``, ``error_cls``, ``json_encoder``, ``middlewares``, ...
    """

    def __init__(self, calls: Calls, **options: Any) -> None:
        super().__init__(**options)
        self._calls = calls

    @overload
    def send(self, request: Request, **options: Any) -> Response | None: ...
    @overload
    def send(self, request: BatchRequest, **options: Any) -> BatchResponse | None: ...
    def send(self, request: AbstractRequest, **options: Any) -> AbstractResponse | None:
        """
        Send a request or a batch of pjrpc's.

        Args:
            options: ``timeout``, ``headers``, ...: see ``jsonrpc_amqp.Options``.

        Raises:
            TransportError: There is no reply.
        """
        return self._send(request, options)

    def _request(self, request_text: str, is_notification: bool, request_kwargs: Mapping[str, Any]) -> str | None:
        return _text(self._calls.send_raw(request_text.encode(), **cast(Options, request_kwargs)))


class PjrpcAsyncClient(AbstractAsyncClient):
    """
    The same for ``async`` code; it does not block the event loop.

    Args:
        calls: An ``AsyncClient`` with a service, or the result of its ``with_options``; those of a ``Client`` cost a
            change of threads for each request. This client does not close it.
        options: As for ``PjrpcClient``.
    """

    def __init__(self, calls: AsyncCalls | Calls, **options: Any) -> None:
        super().__init__(**options)
        self._calls = calls

    @overload
    async def send(self, request: Request, **options: Any) -> Response | None: ...
    @overload
    async def send(self, request: BatchRequest, **options: Any) -> BatchResponse | None: ...
    async def send(self, request: AbstractRequest, **options: Any) -> AbstractResponse | None:
        """As ``PjrpcClient.send``."""
        return await self._send(request, options)

    async def _request(self, request_text: str, is_notification: bool, request_kwargs: Mapping[str, Any]) -> str | None:
        future = self._calls.submit_raw(request_text.encode(), **cast(Options, request_kwargs))
        return _text(await asyncio.wrap_future(future))


def dispatcher(methods: Dispatcher[ServedRequest], **caps: int) -> Callable[[bytes], bytes | None]:
    """
    Return a dispatcher for a ``Server``; methods get our ``Request`` as pjrpc's context.

    pjrpc gets the members of a batch one after the other, so an ``executor`` of its ``Dispatcher`` runs one at a time.

    Args:
        caps: ``max_batch`` (or the ``max_batch_size`` of ``methods``, if that is lower), ``max_depth``,
            ``max_method``, ``max_size``: see ``jsonrpc.foreign.ForeignDispatcher``.
    """
    if own_cap := getattr(methods, "_max_batch_size", None):
        caps["max_batch"] = min(own_cap, caps.get("max_batch", MAX_BATCH))

    def dispatch(text: str) -> str | None:
        reply = methods.dispatch(text, current_request())
        return None if reply is None else reply[0]

    return inspection.dispatcher(dispatch, **caps)


def _text(reply: bytes | None) -> str | None:
    return None if reply is None else text_of(reply)
