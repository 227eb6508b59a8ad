"""
tinyrpc: its ``RPCClient`` calls over RabbitMQ, its ``RPCServer`` serves (its only import).

    RPCClient(JSONRPCProtocol(), AmqpClientTransport(client))
    RPCServer(AmqpServerTransport("amqp://", "example"), JSONRPCProtocol(), methods)
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout  # the built-in one since Python 3.11
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from ..client.calls import Calls
from ..context import current_request
from ..errors import INTERNAL_ERROR, MissingExtra, RemoteError
from ..jsonrpc import inspection
from ..options import GRACE, START_TIMEOUT
from ..server.server import Server

try:
    from tinyrpc.transports import ClientTransport, ServerTransport
except ImportError as exc:
    raise MissingExtra(__name__, "tinyrpc", "tinyrpc") from exc

__all__ = ["AmqpClientTransport", "AmqpServerTransport"]

log = logging.getLogger("jsonrpc_amqp.server")


class AmqpClientTransport(ClientTransport):  # type: ignore[misc]  # it has no type hints
    """
    A transport for ``RPCClient``; any number of threads may use it.

    Args:
        calls: A ``Client`` with a service, or the result of its ``with_options``.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def send_message(self, message: bytes, expect_reply: bool = True) -> bytes:
        """
        Send a request, and return the reply. For a notification, wait until the broker has it, and return nothing.

        Raises:
            TransportError: There is no reply.
        """
        return self._calls.send_raw(message) or b""


class _Context:
    """
    Identifies a request to an ``RPCServer``. Ends the request when the last reference to it is gone.

    The library does not report when it is done with a request without a reply: a notification, or a call with an id of
    null, which it takes for one. It then only drops the context.
    """

    def __init__(self, reply: Future[bytes]) -> None:
        self.reply = reply

    def __del__(self) -> None:
        _set_reply(self.reply, b"")


def _set_reply(future: Future[bytes], reply: bytes) -> None:
    # Already done: it has its reply, or it timed out, which was logged.
    with suppress(InvalidStateError):
        future.set_result(reply)


class AmqpServerTransport(ServerTransport):  # type: ignore[misc]  # it has no type hints
    """
    A transport for ``RPCServer``, on our ``Server``.

    An ``RPCServer`` runs one request at a time, unless its ``_spawn`` is overridden; it is handed up to ``concurrency``
    of them. A call is acknowledged after its reply is written, a notification when the ``RPCServer`` is done with it.

    Args:
        url, service, options: As for ``Server``. The first ``receive_message`` starts it, unless ``start`` has.
    """

    def __init__(self, url: str = "amqp://", service: str = "", **options: Any) -> None:
        self._server = Server(url, service, dispatcher=self._dispatch, **options)
        self._requests: SimpleQueue[tuple[Future[bytes], bytes] | None] = SimpleQueue()
        self._started = False

    # -- what RPCServer calls -----------------------------------------------------------------------------

    def receive_message(self) -> tuple[Any, bytes]:
        """
        Wait for a request.

        Raises:
            EOFError: The transport was stopped.
            AccessRefused, TopologyMismatch: The broker refused the user, or has the queue with other properties.
        """
        if not self._started:
            self.start(timeout=None)
        while (request := self._requests.get()) is not None:
            reply, body = request
            # Skip a request that timed out in the queue.
            if reply.set_running_or_notify_cancel():
                return _Context(reply), body
        self._requests.put(None)
        raise EOFError("the transport was stopped")

    def send_reply(self, context: Any, reply: bytes) -> None:
        """Reply to a request."""
        _set_reply(context.reply, reply)

    # -- what the application calls -----------------------------------------------------------------------------

    def start(self, timeout: float | None = START_TIMEOUT) -> None:
        """Begin to consume, as ``Server.start`` does, with its arguments and errors."""
        self._server.start(timeout)
        self._started = True

    def stop(self, grace: float = GRACE) -> bool:
        """Stop as ``Server.stop`` does; ``receive_message`` then raises ``EOFError``, which ends the ``RPCServer``."""
        try:
            return self._server.stop(grace)
        finally:
            self._requests.put(None)

    def __enter__(self) -> AmqpServerTransport:
        self._server.__enter__()
        self._started = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an exception the RPCServer no longer runs, so waiting for its replies is useless: requeue its requests.
        self.stop(GRACE if kind is None else 0)

    # -- on the handler threads of our server -----------------------------------------------------------------------

    def _dispatch(self, body: bytes) -> bytes | None:
        try:
            asked = inspection.read(body)
        except RemoteError as error:
            return inspection.error(inspection.UNREADABLE, error)
        reply: Future[bytes] = Future()
        self._requests.put((reply, body))
        try:
            result = reply.result(current_request().remaining)
        except FutureTimeout:
            reply.cancel()
            log.warning("the RPCServer had no reply by the deadline of the caller")
            result = b""
        if asked.is_notification:
            return None
        return result or inspection.error(
            asked, RemoteError(INTERNAL_ERROR, "Internal error", "the RPCServer gave no answer")
        )
