"""
The server that lives in the event loop of a program: that of a web application, for example.

    async with AsyncServer("amqp://", service="example") as server:

        @server.method("time.now")
        async def now() -> str:
            return time.ctime()

        await server.serve_forever()
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType

from ..errors import WouldDeadlock
from ..logs import contained_handlers
from ..options import GRACE, START_TIMEOUT
from ..runtime.asyncio import AsyncioRuntime
from ..runtime.base import Runtime
from ..runtime.event_loop import WatchedLoop
from .base import BaseServer, already_stopped
from .loop_executor import Wait, label
from .signals import DrainOnSignal

# Seconds that ``stop`` waits for the broker to confirm the end of the connection.
_CLOSE_SECONDS = 2.2


class AsyncServer(BaseServer):
    """
    Serves the methods of one service on the event loop on which it is started. It takes the arguments of ``Server``.

    The loop drives its connection, and runs methods that are ``async def``, ``async_concurrency`` at a time. A plain
    ``def`` runs on one of ``concurrency`` threads. In all else it is as ``Server``; both may share a queue.

    Stop it before its loop ends. One that serves goes on until then, even if nothing refers to it any more, which gives
    a ``ResourceWarning``.

    Raises:
        TypeError: As ``Server``; or ``transport`` is not driven by an ``AsyncioRuntime``.
    """

    _leads_on_loop = True
    _how_to_stop = "await stop(), or use it in an async with block, before its event loop ends"

    @staticmethod
    def _new_runtime() -> Runtime:
        return AsyncioRuntime("server")

    async def start(self, timeout: float | None = START_TIMEOUT) -> AsyncServer:
        """
        Begin to serve on the running event loop; return once requests are consumed.

        Args:
            timeout: Seconds to wait for that; None: no limit.

        Raises:
            NotConnected: Not within ``timeout``; attempts go on until ``stop``. Or this process can have no more
                threads or open files; then nothing was started.
            AccessRefused, TopologyMismatch: The broker, or each of several, rejected the login or a declaration; there
                is no other attempt.
            RuntimeError: The server was stopped, or was started by the process that forked this one.
            WrongEventLoop: The server belongs to another event loop.
        """
        if not self._begin():
            raise already_stopped()
        await self._wait(self._lifecycle.has_started, timeout)
        self._lifecycle.check_started(timeout)
        return self

    async def serve_forever(self, *, handle_signals: bool = False, grace: float = GRACE) -> bool:
        """
        Serve until ``drain`` or ``stop``, or until the task is cancelled; then drain.

        It waits for a broker that cannot be reached.

        Args:
            handle_signals: SIGTERM, SIGINT or SIGHUP drains, too; a second SIGTERM or SIGINT ends the process at once.
                Without it the program decides what signals do. ``asyncio.run`` cancels its task at a SIGINT.
            grace: Seconds that running handlers get to finish.

        Returns:
            True when no handler was left running.

        Raises:
            AccessRefused, TopologyMismatch: The broker rejected the login or a declaration, now or when the connection
                was made again.
            RuntimeError: ``handle_signals`` is for the main thread only.
            WrongEventLoop: The server belongs to another event loop.
        """
        lifecycle, has_drained = self._lifecycle, False
        with self._drained_by_signals() if handle_signals else nullcontext():
            try:
                if self._begin():  # else it was stopped before it began
                    await self._wait(lifecycle.has_started, None)
                    lifecycle.check_started(None)
                    await self._wait(lifecycle.has_ended, None)
                    lifecycle.check_ended()
            finally:
                has_drained = not self._consumer.is_started or await self.stop(grace)
        return has_drained

    async def stop(self, grace: float = GRACE) -> bool:
        """
        Stop consuming, give back what has not begun, let running handlers finish and reply, and close.

        Args:
            grace: Seconds to wait for running handlers. Coroutines that still run are cancelled then, and all requests
                that were not served go back to the queue.

        Returns:
            True when no handler was left running.

        Raises:
            WouldDeadlock: Awaited by a handler, which it would wait for.
            WrongEventLoop: The server belongs to another event loop, which still runs.
        """
        if self._consumer.is_forked:
            return True
        if self._on_loop.runs_current_task:
            raise WouldDeadlock(
                "stop() inside a handler would wait for that handler; call drain(), or have another task await it"
            )
        runtime = self._asyncio_runtime()
        if runtime.is_stranded:  # nothing can end any more
            grace = 0.0
            runtime.abandon()
        else:
            runtime.attach()
        steps = self._consumer.stopping(grace)
        try:
            while (wait := _next(steps)) is not None:
                await self._wait(*wait)
        finally:  # a server must not be left half stopped: where the task was cancelled, what is left waits for nothing
            while _next(steps) is not None:
                pass
        await runtime.wait_closed(_CLOSE_SECONDS)
        return self._lifecycle.has_drained

    async def __aenter__(self) -> AsyncServer:
        try:
            return await self.start()
        except BaseException:
            await self.stop(grace=0)  # the block, and so ``__aexit__``, does not run
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _begin(self) -> bool:
        self._asyncio_runtime().attach()
        if not self._on_loop.is_attached:
            loop = asyncio.get_running_loop()
            self._on_loop.attach(WatchedLoop(loop, f"{self.service}-loop", label))
        return super()._begin()

    def _asyncio_runtime(self) -> AsyncioRuntime:
        runtime = self._transport.runtime
        if not isinstance(runtime, AsyncioRuntime):
            raise TypeError("the transport of an asynchronous server is to be driven by an AsyncioRuntime")
        return runtime

    def _drained_by_signals(self) -> AbstractContextManager[object]:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("handle_signals is for the main thread, the only one that Python lets handle signals")
        return DrainOnSignal(self._lifecycle.drain)

    async def _wait(self, until: Callable[[], bool], timeout: float | None) -> None:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(changed.set)

        with self._lifecycle.watched(wake), suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not until():
                    await changed.wait()
                    changed.clear()


def _next(steps: Iterator[Wait]) -> Wait | None:
    with contained_handlers():
        return next(steps, None)
