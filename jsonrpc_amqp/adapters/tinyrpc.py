"""
tinyrpc: its ``RPCClient`` calls over RabbitMQ, its ``RPCServer`` serves (its only import).

    RPCClient(JSONRPCProtocol(), AmqpClientTransport(client))

    with AmqpServerTransport("amqp://", "example") as transport:
        transport.serve_forever(RPCServer(transport, JSONRPCProtocol(), methods))
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout  # the built-in one since Python 3.11
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import CodeType, FrameType, TracebackType
from typing import Any

from ..client.calls import Calls
from ..context import current_request
from ..errors import MissingExtra, NotConnected
from ..jsonrpc import inspection
from ..jsonrpc.foreign import NotBegun
from ..jsonrpc.messages import text_of
from ..logs import on_own_thread
from ..options import GRACE, MAX_BATCH, MAX_DEPTH, MAX_METHOD, MAX_SIZE, START_TIMEOUT
from ..server.server import Server

try:
    from tinyrpc.server import RPCServer
    from tinyrpc.transports import ClientTransport, ServerTransport
except ImportError as exc:
    raise MissingExtra(__name__, "tinyrpc", "tinyrpc") from exc

__all__ = ["AmqpClientTransport", "AmqpServerTransport"]

log = logging.getLogger("jsonrpc_amqp.server")

# How often to look for threads that left the loop of their RPCServer. One that two looks in a row find outside has left
# it; between two messages a thread may be outside for an instant.
_LOOK_SECONDS = 0.5
# For an application that starts the transport first, and then its RPCServer.
_BEGIN_SECONDS = 5.0
# For the reply to a request that ended the RPCServer.
_LAST_REPLY_SECONDS = 1.0


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
        return text_of(self._calls.send_raw(message)).encode()


class _Asked:
    """
    A request that waits for an ``RPCServer``, or is with one.

    Attributes:
        reply: Of the ``RPCServer``; empty where it has none.
    """

    def __init__(self, text: bytes, *, is_redelivered: bool) -> None:
        self.text = text
        self.is_redelivered = is_redelivered
        self.reply: Future[bytes] = Future()

    def end(self, outcome: bytes | BaseException) -> None:
        # Already done: it has its reply, or it timed out, which was logged.
        with suppress(InvalidStateError):
            if isinstance(outcome, BaseException):
                self.reply.set_exception(outcome)
            else:
                self.reply.set_result(outcome)


class _Context:
    """
    Identifies a request to an ``RPCServer``. Ends the request when the last reference to it is gone.

    The library does not report when it is done with a request without a reply: a notification, or one that it failed
    on. It then only drops the context.
    """

    def __init__(self, asked: _Asked) -> None:
        self.asked = asked

    def __del__(self) -> None:
        self.asked.end(b"")


class _Receiver:
    """
    A thread that runs the loop of an ``RPCServer``.

    Attributes:
        codes: Of ``receive_one_message``, and of what calls it.
        is_waiting: It waits for a request.
        last: The request that it took, until it waits for the next.
    """

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread
        self.codes: set[CodeType] = set()
        self.is_waiting = True
        self.last: _Asked | None = None

    @property
    def is_in_loop(self) -> bool:
        """Whether it waits for a request, or handles one, or is about to wait for the next."""
        if self.is_waiting:
            return True
        # A thread of a pool, or one whose program caught an exception, is alive but has left the loop.
        frame = sys._current_frames().get(self._thread.ident or 0) if self._thread.is_alive() else None
        return not self.codes.isdisjoint(_codes(frame, sys.maxsize))

    @property
    def unfinished(self) -> _Asked | None:
        """The request that it took, if that has not ended."""
        return None if self.last is None or self.last.reply.done() else self.last


def _codes(frame: FrameType | None, count: int) -> set[CodeType]:
    """Return the code of a frame and of its callers, of as many as ``count``."""
    codes: set[CodeType] = set()
    while frame is not None and len(codes) < count:
        codes.add(frame.f_code)
        frame = frame.f_back
    return codes


class AmqpServerTransport(ServerTransport):  # type: ignore[misc]  # it has no type hints
    """
    A transport for ``RPCServer``, on our ``Server``.

    An ``RPCServer`` runs one request at a time, unless its ``_spawn`` is overridden; it is handed up to ``concurrency``
    of them, the members of a batch one after the other. A call is acknowledged after its reply is written, a
    notification when the ``RPCServer`` is done with it.

    The loop of an ``RPCServer`` ends for good at a request that it fails on: a method that calls ``sys.exit()``, a
    result that JSON cannot express. The caller gets -32603. ``serve_forever`` goes on then. Where the application runs
    ``RPCServer.serve_forever`` itself, this transport notices within about a second that no thread runs it any more,
    logs that, gives back what has not begun, and stops consuming until ``receive_message`` is called again. So it does
    when requests have come, and no thread has called it within 5 seconds of the start.

    Args:
        url, service, options: As for ``Server``. The first ``receive_message`` starts it, unless ``start`` has.
    """

    def __init__(self, url: str = "amqp://", service: str = "", **options: Any) -> None:
        caps = {"max_batch": MAX_BATCH, "max_depth": MAX_DEPTH, "max_method": MAX_METHOD, "max_size": MAX_SIZE}
        dispatcher = inspection.dispatcher(self._ask, **{name: options.get(name, cap) for name, cap in caps.items()})
        self._make_server: Callable[[], Server] = lambda: Server(url, service, dispatcher=dispatcher, **options)
        self._server = self._make_server()
        self._requests: SimpleQueue[_Asked | None] = SimpleQueue()
        # Guards what follows. It is held for a moment only, and no other lock is taken while it is.
        self._lock = threading.Lock()
        self._receivers: dict[threading.Thread, _Receiver] = {}
        self._watcher: threading.Thread | None = None
        self._is_started = False
        self._begin_by = 0.0  # when a thread is to receive at the latest, in monotonic seconds
        self._is_deserted = False  # no thread receives any more: requests are given back
        self._is_stopping = False
        self._is_stopped = threading.Event()

    # -- what RPCServer calls -----------------------------------------------------------------------------

    def receive_message(self) -> tuple[Any, bytes]:
        """
        Wait for a request.

        Raises:
            EOFError: The transport was stopped.
            AccessRefused, TopologyMismatch: The broker refused the user, or has the queue with other properties.
        """
        receiver = self._note_receiver(sys._getframe(1))
        try:
            if not self._is_started and not self._is_stopping:
                self.start(timeout=None)
            while (asked := self._requests.get()) is not None:
                # Skip a request that timed out in the queue.
                if asked.reply.set_running_or_notify_cancel():
                    receiver.last = asked
                    return _Context(asked), asked.text
            self._requests.put(None)
            raise EOFError("the transport was stopped")
        finally:
            receiver.is_waiting = False

    def send_reply(self, context: Any, reply: bytes) -> None:
        """Reply to a request."""
        context.asked.end(reply)

    # -- what the application calls -----------------------------------------------------------------------

    def start(self, timeout: float | None = START_TIMEOUT) -> None:
        """Begin to consume, as ``Server.start`` does, with its arguments and errors."""
        fresh = self._make_server() if self._is_deserted else None
        with self._lock:
            if self._is_deserted and not self._is_stopping and fresh is not None:
                self._server, self._is_deserted = fresh, False
            server = self._server
            if self._watcher is None:
                watcher = threading.Thread(target=on_own_thread(self._watch), name="tinyrpc-watcher", daemon=True)
                try:
                    watcher.start()
                except RuntimeError as exc:
                    raise NotConnected(f"this process can have no other thread: {exc}. Nothing was started") from exc
                self._watcher = watcher
        server.start(timeout)
        self._begin_by = time.monotonic() + _BEGIN_SECONDS
        self._is_started = True

    def serve_forever(self, server: RPCServer) -> None:
        """
        Run an ``RPCServer`` on this transport until ``stop``. Unlike its own loop, this one goes on where it fails.

        A request that it fails on is logged, and gets -32603.

        Raises:
            KeyboardInterrupt, SystemExit: On the main thread, where a signal handler may have raised it.
            AccessRefused, TopologyMismatch: As ``receive_message``.
        """
        spawn = server._spawn
        # Where this runs requests on other threads, they end there.
        server._spawn = lambda handle, *args, **kwargs: spawn(_guarded(handle), *args, **kwargs)
        try:
            while not self._is_stopped.is_set():
                self._serve_one(server)
        finally:
            server._spawn = spawn

    def stop(self, grace: float = GRACE) -> bool:
        """Stop as ``Server.stop`` does; ``receive_message`` then raises ``EOFError``, which ends the ``RPCServer``."""
        with self._lock:
            self._is_stopping = True
            server, is_deserted = self._server, not self._receivers
        if is_deserted:
            self._give_back(server)
        try:
            return server.stop(grace)
        finally:
            self._is_stopped.set()
            self._requests.put(None)

    def __enter__(self) -> AmqpServerTransport:
        try:
            self.start()
        except BaseException:
            self.stop(grace=0)  # the block does not run, so ``__exit__`` is not called
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            self.stop(GRACE)
            return
        # The RPCServer no longer runs, so waiting for its replies is useless: requeue its requests. But not one that it
        # failed on here, which would end one server after the other.
        failed = self._unfinished_here()
        self._give_back(self._server)
        if failed is None or (_may_be_of_a_signal(exc) and not failed.is_redelivered):
            self.stop(0)
        else:
            failed.end(exc)
            self.stop(_LAST_REPLY_SECONDS)

    # -- on the threads of RPCServers ---------------------------------------------------------------------

    def _note_receiver(self, caller: FrameType) -> _Receiver:
        thread = threading.current_thread()
        codes = _codes(caller, 2)
        with self._lock:
            receiver = self._receivers.setdefault(thread, _Receiver(thread))
            receiver.codes, receiver.is_waiting, receiver.last = codes, True, None
        return receiver

    def _serve_one(self, server: RPCServer) -> None:
        try:
            server.receive_one_message()
        except BaseException as exc:
            failed = self._unfinished_here()
            if failed is None and isinstance(exc, EOFError) and self._is_stopping:
                return
            if failed is None or _may_be_of_a_signal(exc):
                raise
            failed.end(exc)

    def _unfinished_here(self) -> _Asked | None:
        """Return the request that the calling thread took, if it has not ended."""
        receiver = self._receivers.get(threading.current_thread())
        return None if receiver is None else receiver.unfinished

    # -- on the handler threads of our server -------------------------------------------------------------

    def _ask(self, text: str) -> bytes:
        request = current_request()
        asked = _Asked(text.encode(), is_redelivered=request.redelivered)
        self._requests.put(asked)
        if self._is_deserted:
            self._return_unbegun()
        try:
            return asked.reply.result(request.remaining)
        except FutureTimeout:
            if asked.reply.done():
                return asked.reply.result()
            asked.reply.cancel()
            log.warning("the RPCServer had no reply by the deadline of the caller")
            return b""

    # -- once no thread receives any more -----------------------------------------------------------------

    def _watch(self) -> None:
        seen = False
        while not self._is_stopped.wait(_LOOK_SECONDS):
            with self._lock:
                seen, seen_before = self._is_left(), seen
            if seen and seen_before:
                self._desert()
            elif not seen:
                self._forget_threads()

    def _forget_threads(self) -> None:
        """Forget the threads that are done, of programs that receive each message on a new one."""
        done = [thread for thread, each in list(self._receivers.items()) if each.unfinished is None]
        with self._lock:
            for thread in done:
                if not self._receivers[thread].is_in_loop:
                    del self._receivers[thread]

    def _is_left(self) -> bool:
        if not self._is_started:
            return False
        if not self._receivers:
            return time.monotonic() > self._begin_by and not self._requests.empty()
        return not any(each.is_in_loop for each in self._receivers.values())

    def _desert(self) -> None:
        with self._lock:
            if not self._is_left():
                return  # it has come back
            receivers, self._receivers = self._receivers, {}
            server, self._is_started, self._is_deserted = self._server, False, True
        log.error(
            "no thread runs the loop of the RPCServer: stopped consuming until one does; what has not begun goes to "
            "other servers"
        )
        self._give_back(server)
        for receiver in receivers.values():
            if receiver.unfinished is not None:
                receiver.unfinished.end(RuntimeError("the RPCServer left its loop at this request"))
        server.stop(GRACE)

    def _give_back(self, server: Server) -> None:
        """Give back what no RPCServer has taken."""
        server.drain()  # first: it would be delivered here again
        self._is_deserted = True
        self._return_unbegun()

    def _return_unbegun(self) -> None:
        with suppress(Empty):
            while (asked := self._requests.get_nowait()) is not None:
                if asked.reply.set_running_or_notify_cancel():
                    asked.end(NotBegun("no RPCServer took it"))
            self._requests.put(None)


def _guarded(handle: Callable[[_Context, bytes], None]) -> Callable[[_Context, bytes], None]:
    """Return the library's function for one request, which then ends the request whatever happens."""

    def guarded(context: _Context, message: bytes) -> None:
        try:
            handle(context, message)
        except BaseException as exc:
            if _may_be_of_a_signal(exc):
                raise
            context.asked.end(exc)

    return guarded


def _may_be_of_a_signal(exc: BaseException) -> bool:
    """Whether a signal handler may have raised an exception, so that it says nothing about the request."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and isinstance(exc, (KeyboardInterrupt, SystemExit))
