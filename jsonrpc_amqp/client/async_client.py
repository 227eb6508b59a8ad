"""
The client for coroutines: a connection that their event loop drives, and the forms of a call.

    async with AsyncClient("amqp://", service="example", timeout=5) as client:
        await client.call("time.now")
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from ..options import TIMEOUT
from ..runtime.asyncio import AsyncioRuntime
from .async_calls import AsyncCalls
from .base import BaseClient
from .middleware import AsyncClientMiddleware

# Seconds beyond its timeout that ``aclose`` waits.
_CLOSE_SLACK = 0.2


class AsyncClient(BaseClient[AsyncClientMiddleware], AsyncCalls):
    """
    Calls JSON-RPC 2.0 methods over RabbitMQ from coroutines. It takes the arguments of ``Client``, and keeps its rules.

    One is enough for an event loop. It belongs to the loop on which it is first used, which drives its connection; in
    another one it raises ``WrongEventLoop``. It has no thread, except while it connects. Nothing is connected until the
    first use, ``start()`` or ``async with``. One that is dropped without ``aclose()`` gives a ``ResourceWarning``.
    """

    _new_runtime = AsyncioRuntime
    _how_to_close = "await aclose(), or use it in an async with block, before its event loop ends"

    async def start(self, timeout: float | None = TIMEOUT) -> AsyncClient:
        """
        Connect, and wait until that is done. ``timeout=0`` only asks whether it is; see also ``health``.

        Raises:
            NotConnected: There was no connection within ``timeout`` seconds. Attempts go on all the same.
            AccessRefused, TopologyMismatch: The broker said no, each one of several; attempts end.
            WrongEventLoop: The client belongs to another event loop.
        """
        self._attach()
        life, changed = self._requests.life, asyncio.Event()
        life.check_process()
        life.begin()
        self._requests.presence.start(self._requests)
        with life.watched(changed.set):
            try:
                async with asyncio.timeout(timeout):
                    while not life.is_settled:
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                pass
        life.check_session(timeout)
        return self

    async def aclose(self, timeout: float = 1.0) -> None:
        """End what is in flight with ``ClientClosed``, then the connection, in about ``timeout`` seconds at most."""
        if self._requests.life.is_foreign():
            return
        if not self._runtime.is_stranded:
            self._attach()
        self._requests.close(timeout)
        await self._runtime.wait_closed(timeout + _CLOSE_SLACK)

    async def __aenter__(self) -> AsyncClient:
        try:
            return await self.start(self._defaults["timeout"])
        except BaseException:
            await self.aclose()  # the block, and so ``__aexit__``, does not run
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
