"""Calls and notifications that leave as one message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..jsonrpc import messages
from .call import Params


class _Unsent(Future[Any]):
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
    """

    def __init__(self, new_id: Callable[[], int], send: Callable[[bytes, bool], bytes]) -> None:
        self._new_id = new_id
        self._send_body = send  # the second argument: there are only notifications in it
        self._members: list[dict[str, Any]] = []
        self._futures: dict[int, _Unsent] = {}
        self._open = False
        self._over = False

    def call(self, method: str, params: Params = None) -> Future[Any]:
        """
        Add a call; return the future of its result.

        Raises:
            RuntimeError: Outside the ``with`` block.
        """
        self._check_open()
        number = self._new_id()
        self._members.append(messages.request_object(method, params, number))
        future = self._futures[number] = _Unsent()
        return future

    def notify(self, method: str, params: Params = None) -> None:
        """Add a notification. In a batch with calls the broker's confirm is not waited for."""
        self._check_open()
        self._members.append(messages.notification_object(method, params))

    def __enter__(self) -> Batch:
        if self._over or self._open:
            raise RuntimeError("a batch is used once; make another")
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open, self._over = False, True
        for future in self._futures.values():
            future.sent = True
        if kind is not None:
            for future in self._futures.values():
                future.cancel()
        elif self._members:
            self._send()

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("a batch takes calls inside its with block: with client.batch() as batch: ...")

    def _send(self) -> None:
        futures = self._futures
        responses: Sequence[messages.Response | BaseException]
        try:
            body = messages.encode(self._members)
            reply = self._send_body(body, not futures)
            responses = messages.parse_batch(reply, list(futures)) if futures else []
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
