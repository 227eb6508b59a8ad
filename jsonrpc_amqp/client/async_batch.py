"""Calls and notifications that leave as one message, from coroutines."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any

from ..jsonrpc.messages import ExceptionFor, to_exception
from ..jsonrpc.params import Params
from .async_call import AsyncCall, AsyncFuture
from .batch import BaseBatch, BatchMessage
from .call import Call


class _AsyncMember(AsyncFuture):
    """The future of a call in a batch. Before the batch is sent, awaiting it would never end."""

    sent = False

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.sent and not self.done():
            raise RuntimeError("the batch is sent when its async with block ends; there is nothing to await before")
        return super().__await__()


class AsyncBatch(BaseBatch[_AsyncMember, AsyncCall]):
    """
    Calls and notifications that leave as one message. Made by ``AsyncClient.batch``; otherwise like ``Batch``.

    Args:
        submit: Sends a message, and returns the future of the body of the reply.
        around: As for ``Batch``; what it returns is awaited.
    """

    _block = "async with client.batch() as batch"

    def __init__(
        self,
        new_id: Callable[[], int],
        make: Callable[[bytes, bool], AsyncCall],
        *,
        submit: Callable[[AsyncCall], AsyncFuture],
        drop: Callable[[Call], bool],
        exception_for: ExceptionFor = to_exception,
        around: Callable[[BatchMessage], Awaitable[Any]] | None = None,
    ) -> None:
        super().__init__(new_id, make, drop=drop, exception_for=exception_for)
        self._submit = submit
        self._around = around

    def call(self, method: str, params: Params = None) -> Future[Any]:
        """
        Add a call; return the future of its result.

        Raises:
            RuntimeError: Outside the ``async with`` block.
        """
        return self._add(method, params)

    def _new_member(self) -> _AsyncMember:
        future = _AsyncMember()
        future.owner = self
        return future

    async def __aenter__(self) -> AsyncBatch:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        body = self._end(is_sent=kind is None)
        if body is None:
            return
        try:
            if self._around is None:
                self._settle(self._outcomes(await self._submit(self._message(body))))
            else:
                self._settle(await self._around(self._described(body)))
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._sent = None  # it may refer to this batch
