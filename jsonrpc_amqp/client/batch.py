"""Calls and notifications that leave as one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..jsonrpc import messages
from .call import Call, Params, WaitingCall
from .futures import CallFuture


class _Member(CallFuture):
    """The future of a call in a batch. Before the batch is sent, waiting for it would never end."""

    sent = False

    def result(self, timeout: float | None = None) -> Any:
        self._check()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._check()
        return super().exception(timeout)

    def _check(self) -> None:
        if not self.sent and not self.done():
            raise RuntimeError("the batch is sent when its with block ends; there is nothing to wait for before")


class Batch:
    """
    Calls and notifications that leave as one message. Made by ``Client.batch``.

    ``call`` returns a future that is done when the block ends: inside the block its result cannot be waited for. If the
    block raises, nothing is sent. A batch is used once.

    A call whose future is cancelled inside the block is left out. What was sent may run all the same; once the futures
    of all calls are cancelled, the batch is given up, and the block ends without waiting for the reply.

    Args:
        new_id: Returns an id for a call.
        make: Makes the message, from its body and whether there are only notifications in it.
        wait: Sends a message, and returns the body of the reply.
        drop: Removes a message from the pending ones. False: it is none of them.
    """

    def __init__(
        self,
        new_id: Callable[[], int],
        make: Callable[[bytes, bool], WaitingCall],
        *,
        wait: Callable[[WaitingCall], bytes],
        drop: Callable[[Call], bool],
    ) -> None:
        self._new_id = new_id
        self._make = make
        self._wait = wait
        self._drop = drop
        self._members: list[tuple[dict[str, Any], _Member | None]] = []
        self._awaited: set[Future[Any]] = set()
        self._call: WaitingCall | None = None
        self._open = False
        self._over = False

    def call(self, method: str, params: Params = None) -> Future[Any]:
        """
        Add a call; return the future of its result.

        Raises:
            RuntimeError: Outside the ``with`` block.
        """
        self._check_open()
        future = _Member()
        future.owner = self
        self._members.append((messages.request_object(method, params, self._new_id()), future))
        self._awaited.add(future)
        return future

    def notify(self, method: str, params: Params = None) -> None:
        """Add a notification. In a batch with calls the broker's confirm is not waited for."""
        self._check_open()
        self._members.append((messages.notification_object(method, params), None))

    def on_cancelled(self, future: CallFuture) -> None:
        """The user of a call has cancelled its future."""
        self._awaited.discard(future)
        call = self._call
        if call is not None and not self._awaited and self._drop(call):
            call.succeed(b"")

    def __enter__(self) -> Batch:
        if self._over or self._open:
            raise RuntimeError("a batch is used once; make another")
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open, self._over = False, True
        futures = [future for _request, future in self._members if future is not None]
        for future in futures:
            future.sent = True
        if kind is None:
            self._send()
        else:
            for future in futures:
                future.cancel()

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("a batch takes calls inside its with block: with client.batch() as batch: ...")

    def _send(self) -> None:
        members = [(request, future) for request, future in self._members if future is None or not future.cancelled()]
        if not members:
            return
        futures = {request["id"]: future for request, future in members if future is not None}
        responses: Sequence[messages.Response | BaseException]
        try:
            body = messages.encode([request for request, _future in members])
            call = self._call = self._make(body, not futures)
            reply = self._wait(call)
            if not futures or not self._awaited:
                return
            responses = messages.parse_batch(reply, list(futures))
        except BaseException as error:
            for future in futures.values():
                _settle(future, error)
            raise
        for future, response in zip(futures.values(), responses, strict=True):
            _settle(future, response)


def _settle(future: Future[Any], response: messages.Response | BaseException) -> None:
    # A future that was cancelled meanwhile takes no result.
    with suppress(InvalidStateError):
        if isinstance(response, BaseException):
            future.set_exception(response)
        elif isinstance(response, messages.Ok):
            future.set_result(response.result)
        else:
            future.set_exception(messages.to_exception(response))
