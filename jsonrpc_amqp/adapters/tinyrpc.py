"""
tinyrpc: its ``RPCClient`` calls over RabbitMQ, its ``RPCServer`` serves (its only import).

    RPCClient(JSONRPCProtocol(), AmqpClientTransport(client))
    RPCServer(AmqpServerTransport("amqp://", "example"), JSONRPCProtocol(), methods)
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as NotInTime  # another than Python's own until 3.11
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from ..client.client import Calls
from ..context import current_request
from ..errors import INTERNAL_ERROR, MissingExtra, RemoteError
from ..jsonrpc import inspection
from ..options import GRACE
from ..server.server import Server

try:
    from tinyrpc.transports import ClientTransport, ServerTransport
except ImportError as exc:
    raise MissingExtra(__name__, "tinyrpc", "tinyrpc") from exc

__all__ = ["AmqpClientTransport", "AmqpServerTransport"]

log = logging.getLogger("jsonrpc_amqp.server")


class AmqpClientTransport(ClientTransport):  # type: ignore[misc]  # it has no type hints
    """
    What an ``RPCClient`` sends over; any number of threads may.

    Args:
        calls: A ``Client`` with a service, or what its ``with_options`` gives.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def send_message(self, message: bytes, expect_reply: bool = True) -> bytes:
        """
        Send a request; gives the answer, empty for a notification, which returns once the broker has it.

        Raises:
            TransportError: There is no answer.
        """
        return self._calls.send_raw(message) or b""


class _Context:
    """
    What an ``RPCServer`` answers by. Once the last of it is gone, nobody can any more, and whoever waits is told.

    The library does not say when it is done with a request without an answer: a notification, or a call with an id of
    null, which it takes for one.
    """

    def __init__(self, reply: Future[bytes]) -> None:
        self.reply = reply

    def __del__(self) -> None:
        _end(self.reply, b"")


def _end(reply: Future[bytes], answer: bytes) -> None:
    # One that has ended: it was answered before, or nobody waits any more, which was logged.
    with suppress(InvalidStateError):
        reply.set_result(answer)


class AmqpServerTransport(ServerTransport):  # type: ignore[misc]  # it has no type hints
    """
    What an ``RPCServer`` receives from, on a ``Server`` of ours.

    An ``RPCServer`` runs one request at a time, unless its ``_spawn`` is overridden; ``concurrency`` is how many it is
    handed. A call is acknowledged after its answer is written, a notification when the ``RPCServer`` is done with it.

    Args:
        url, service, options: As for ``Server``. It is started with the first ``receive_message``, or by ``start``.
    """

    def __init__(self, url: str = "amqp://", service: str = "", **options: Any) -> None:
        self._server = Server(url, service, dispatcher=self._answer, **options)
        self._requests: SimpleQueue[tuple[Future[bytes], bytes] | None] = SimpleQueue()
        self._started = False

    # -- what RPCServer calls -----------------------------------------------------------------------------

    def receive_message(self) -> tuple[Any, bytes]:
        """
        Wait for a request.

        Raises:
            EOFError: The transport was stopped.
            AccessRefused, TopologyMismatch: The broker said no.
        """
        if not self._started:
            self.start(timeout=None)
        while (request := self._requests.get()) is not None:
            reply, body = request
            # One that was given up meanwhile is not run.
            if reply.set_running_or_notify_cancel():
                return _Context(reply), body
        self._requests.put(None)
        raise EOFError("the transport was stopped")

    def send_reply(self, context: Any, reply: bytes) -> None:
        """Answer a request."""
        _end(context.reply, reply)

    # -- what its owner calls -----------------------------------------------------------------------------

    def start(self, timeout: float | None = 30.0) -> None:
        """Begin to consume; raises as ``Server.start`` does."""
        self._server.start(timeout)
        self._started = True

    def stop(self, grace: float = GRACE) -> bool:
        """Stop as ``Server.stop`` does; then ``receive_message`` raises ``EOFError``, which ends the ``RPCServer``."""
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
        # An RPCServer that was interrupted in the block answers nobody any more: what it had goes back to the queue.
        self.stop(GRACE if kind is None else 0)

    # -- the handlers of our server -----------------------------------------------------------------------

    def _answer(self, body: bytes) -> bytes | None:
        try:
            asked = inspection.read(body)
        except RemoteError as refusal:
            return inspection.error(inspection.UNREADABLE, refusal)
        reply: Future[bytes] = Future()
        self._requests.put((reply, body))
        try:
            answer = reply.result(current_request().remaining)
        except NotInTime:
            reply.cancel()
            log.warning("the RPCServer had no answer by the deadline of the caller")
            answer = b""
        if asked.is_notification:
            return None
        return answer or inspection.error(
            asked, RemoteError(INTERNAL_ERROR, "Internal error", "the RPCServer gave no answer")
        )
