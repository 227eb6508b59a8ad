"""
``AsyncClient`` with the surface of ``Client``, so that the tests of the one are run on the other.

``pytest --client=asyncio`` (or ``uvloop``) puts it in the place of ``Client`` in the modules of the tests. All of them
share one event loop, on a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from jsonrpc_amqp import AsyncBatch, AsyncCalls, AsyncClient, WouldDeadlock
from jsonrpc_amqp.client.proxy import Proxy

T = TypeVar("T")
LOOPS = ("asyncio", "uvloop")
# Seconds. A callback of a test that blocks the loop fails the tests behind it.
PATIENCE = 60.0


class Loop:
    """An event loop on a thread of its own."""

    kind = "asyncio"
    _shared: Loop | None = None

    def __init__(self) -> None:
        if self.kind == "uvloop":
            import uvloop

            self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        else:
            self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name=f"tests-{self.kind}", daemon=True)
        self.thread.start()
        self.process = os.getpid()

    @classmethod
    def shared(cls) -> Loop:
        if cls._shared is None or cls._shared.kind != cls.kind:
            cls._shared = cls()
        return cls._shared

    def do(self, function: Callable[[], T]) -> T:
        """Call a function on the loop, in the context of the calling thread; return or raise what it does."""
        if threading.current_thread() is self.thread:
            return function()
        done: Future[T] = Future()

        def run(done: Future[T] = done) -> None:
            try:
                done.set_result(function())
            except BaseException as exc:
                done.set_exception(exc)

        self.loop.call_soon_threadsafe(run, context=contextvars.copy_context())
        try:
            return done.result(PATIENCE)
        finally:
            del done  # it refers to an error, whose traceback refers to this frame

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as a task of the loop; cancel it if the calling thread is interrupted."""
        if os.getpid() != self.process:
            return asyncio.run(coroutine)  # a forked process: the loop has no thread here
        if threading.current_thread() is self.thread:
            coroutine.close()
            raise WouldDeadlock("the thread of the loop would wait for itself")
        future = self.follow(lambda: self.loop.create_task(coroutine))
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
            raise
        finally:
            del future

    def follow(self, begin: Callable[[], asyncio.Future[T]]) -> Future[T]:
        """Return a future that ends as that of the loop does, which is cancelled with it."""
        future: _Future[T] = _Future()
        future.theirs = self.do(begin)
        future.loop = self
        self.do(lambda: future.theirs.add_done_callback(future.take))
        return future


class _Future(Future[T]):
    theirs: asyncio.Future[T]
    loop: Loop

    def take(self, theirs: asyncio.Future[T]) -> None:
        if theirs.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
        elif (error := theirs.exception()) is not None:
            self.set_exception(error)
        else:
            self.set_result(theirs.result())

    def cancel(self) -> bool:
        def cancel() -> bool:
            if self.theirs.done():
                return False
            self.theirs.remove_done_callback(self.take)
            self.theirs.cancel()
            Future.cancel(self)
            self.set_running_or_notify_cancel()
            return True

        return self.loop.do(cancel) or self.cancelled()


class LoopCalls:
    """The forms of a call, on the loop."""

    def __init__(self, loop: Loop, theirs: AsyncCalls) -> None:
        self.loop = loop
        self.theirs = theirs

    @property
    def _requests(self) -> Any:
        return self.theirs._requests

    @property
    def proxy(self) -> Proxy:
        return Proxy(self.call, "")

    def call(self, *args: Any, **options: Any) -> Any:
        return self.loop.run(self.theirs.call(*args, **options))

    def notify(self, *args: Any, **options: Any) -> None:
        self.loop.run(self.theirs.notify(*args, **options))

    def send(self, *args: Any, **options: Any) -> Any:
        return self.loop.run(self.theirs.send(*args, **options))

    def send_raw(self, *args: Any, **options: Any) -> Any:
        return self.loop.run(self.theirs.send_raw(*args, **options))

    def submit(self, *args: Any, **options: Any) -> Future[Any]:
        return self.loop.follow(lambda: self.theirs.submit(*args, **options))

    def submit_notify(self, *args: Any, **options: Any) -> Future[None]:
        return self.loop.follow(lambda: self.theirs.submit_notify(*args, **options))

    def submit_raw(self, *args: Any, **options: Any) -> Future[bytes | None]:
        return self.loop.follow(lambda: self.theirs.submit_raw(*args, **options))

    def with_options(self, **options: Any) -> LoopCalls:
        return LoopCalls(self.loop, self.theirs.with_options(**options))

    def batch(self, **options: Any) -> LoopBatch:
        return LoopBatch(self.loop, self.loop.do(lambda: self.theirs.batch(**options)))


class LoopClient(LoopCalls):
    """``AsyncClient`` with the surface of ``Client``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.client = AsyncClient(*args, **options)
        super().__init__(Loop.shared(), self.client)

    def start(self, *args: Any, **options: Any) -> LoopClient:
        self.loop.run(self.client.start(*args, **options))
        return self

    def close(self, *args: Any, **options: Any) -> None:
        self.loop.run(self.client.aclose(*args, **options))

    def stats(self) -> dict[str, int]:
        return self.client.stats()

    def __repr__(self) -> str:
        return repr(self.client)

    def __enter__(self) -> LoopClient:
        self.loop.run(self.client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.run(self.client.__aexit__(kind, exc, trace))


class LoopBatch:
    """``AsyncBatch`` with the surface of ``Batch``."""

    def __init__(self, loop: Loop, theirs: AsyncBatch) -> None:
        self.loop = loop
        self.theirs = theirs

    def call(self, *args: Any, **options: Any) -> Future[Any]:
        return self.loop.follow(lambda: self.theirs.call(*args, **options))

    def notify(self, *args: Any, **options: Any) -> None:
        self.loop.do(lambda: self.theirs.notify(*args, **options))

    def __enter__(self) -> LoopBatch:
        self.loop.run(self.theirs.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.run(self.theirs.__aexit__(kind, exc, trace))
        with suppress(RuntimeError):
            self.loop.do(lambda: None)  # the ends of the calls have been passed on
