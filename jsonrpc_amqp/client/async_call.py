"""A call that an ``asyncio.Future`` stands for. All of it is used on the thread of the event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import JsonRpcAmqpError
from .call import Call


class Owner(Protocol):
    """What a future stands for."""

    def on_cancelled(self, future: AsyncFuture) -> None:
        """Release what the future stands for: it is cancelled, by its user or with the task that awaits it."""
        ...


class AsyncFuture(asyncio.Future[Any]):
    """
    A future whose cancellation drops what it stands for at once, and not in a later turn of the loop.

    Attributes:
        owner: Is told when the future is cancelled; None: there is nothing to release.
    """

    owner: Owner | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel it, unless it has its end. A request that was sent may have run, or may still."""
        if not super().cancel(msg):
            return False
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.on_cancelled(self)
        return True

    def settle(self, result: Any, error: BaseException | None) -> None:
        """End it with a result or an error, unless it has its end."""
        self.owner = None  # it refers to this future: both are to be freed without the garbage collector
        if self.done():
            return
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)


@dataclass(slots=True, eq=False, repr=False)
class AsyncCall(Call):
    """
    A call that an ``asyncio.Future`` stands for.

    Attributes:
        drop: Removes the call from the pending ones; called when its future is cancelled.
        future: Stands for it.
    """

    drop: Callable[[Call], object] = field(init=False)
    future: AsyncFuture = field(init=False)

    def on_cancelled(self, _future: AsyncFuture) -> None:
        """Its future is cancelled."""
        self.drop(self)

    def succeed(self, body: bytes) -> None:
        try:
            result = self.parse(body)
        except Exception as exc:
            self.future.settle(None, exc)
        else:
            self.future.settle(result, None)

    def fail(self, error: JsonRpcAmqpError) -> None:
        self.future.settle(None, error)
