"""Calls and notifications that leave as one message."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from ..jsonrpc import messages
from ..jsonrpc.params import Params
from .call import Call, WaitingCall
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

    def settle(self, result: Any, error: BaseException | None) -> None:
        """End it, unless its user has cancelled it."""
        with suppress(InvalidStateError):
            self.finish(result, error)

    def _check(self) -> None:
        if not self.sent and not self.done():
            raise RuntimeError("the batch is sent when its with block ends; there is nothing to wait for before")


class MemberFuture(Protocol):
    """
    The future of a call in a batch.

    Attributes:
        sent: The batch is sent, so that it can be waited for.
    """

    sent: bool

    def cancel(self) -> bool: ...
    def cancelled(self) -> bool: ...

    def settle(self, result: Any, error: BaseException | None) -> None:
        """End it, unless its user has cancelled it."""
        ...


M = TypeVar("M", bound=MemberFuture)
C = TypeVar("C", bound=Call)


class BatchMessage(NamedTuple):
    """
    What is sent with middleware.

    Attributes:
        body: To be sent.
        members: The method and params of each call and notification.
        is_notification: All are notifications.
        outcomes: Returns what each call ends with, given the reply.
        note_sent: Is told of the message that is sent, which is dropped once all calls are cancelled.
    """

    body: bytes
    members: tuple[tuple[str, Params], ...]
    is_notification: bool
    outcomes: Callable[[bytes], list[Any] | None]
    note_sent: Callable[[Call], None]


class BaseBatch(Generic[M, C]):
    """
    Collects calls and notifications, makes one message of them, and gives each call its part of the reply.

    Args:
        new_id: Returns an id for a call.
        make: Makes the message, from its body and whether there are only notifications in it.
        drop: Removes a message from the pending ones. False: it is none of them.
        exception_for: Returns the exception for an error response.
    """

    _block = "with client.batch() as batch"

    def __init__(
        self,
        new_id: Callable[[], int],
        make: Callable[[bytes, bool], C],
        *,
        drop: Callable[[Call], bool],
        exception_for: messages.ExceptionFor = messages.to_exception,
    ) -> None:
        self._new_id = new_id
        self._make = make
        self._drop = drop
        self._exception_for = exception_for
        self._members: list[tuple[dict[str, Any], M | None]] = []
        self._awaited: set[object] = set()
        self._sent: Call | None = None
        self._open = False
        self._over = False

    def notify(self, method: str, params: Params = None) -> None:
        """Add a notification. In a batch with calls the broker's confirm is not waited for."""
        self._check_open()
        self._members.append((messages.notification_object(method, params), None))

    def on_cancelled(self, future: object) -> None:
        """The user of a call has cancelled its future."""
        self._awaited.discard(future)
        call = self._sent
        if call is not None and not self._awaited and self._drop(call):
            call.succeed(b"")

    @abstractmethod
    def _new_member(self) -> M:
        """Return the future of a call, which this batch owns."""

    def _add(self, method: str, params: Params) -> M:
        self._check_open()
        future = self._new_member()
        self._members.append((messages.request_object(method, params, self._new_id()), future))
        self._awaited.add(future)
        return future

    def _begin(self) -> None:
        if self._over or self._open:
            raise RuntimeError("a batch is used once; make another")
        self._open = True

    def _end(self, *, is_sent: bool) -> bytes | None:
        """End the block; return the body to send, if there is one."""
        self._open, self._over = False, True
        futures = [future for _request, future in self._members if future is not None]
        for future in futures:
            future.sent = True
            if not is_sent:
                future.cancel()
        self._members = [each for each in self._members if each[1] is None or not each[1].cancelled()]
        if not is_sent or not self._members:
            return None
        try:
            return messages.encode([request for request, _future in self._members])
        except BaseException as error:
            self._fail(error)
            raise

    @property
    def _futures(self) -> dict[Any, M]:
        return {request["id"]: future for request, future in self._members if future is not None}

    def _message(self, body: bytes) -> C:
        self._sent = message = self._make(body, not self._futures)
        return message

    def _described(self, body: bytes) -> BatchMessage:
        members = tuple((request["method"], request.get("params")) for request, _future in self._members)
        return BatchMessage(body, members, not self._futures, self._outcomes, self._note_sent)

    def _note_sent(self, call: Call) -> None:
        self._sent = call

    def _outcomes(self, reply: bytes) -> list[Any] | None:
        """Return what each call ends with, as ``outcomes_of``; None: there is no call."""
        futures = self._futures
        if not futures:
            return None
        if not self._awaited:  # there is no reply then
            return [CancelledError() for _future in futures]
        return outcomes_of(reply, list(futures), self._exception_for)

    def _settle(self, outcomes: Any) -> None:
        """Give each call what it ends with."""
        futures = self._futures
        if not futures:
            return
        for future, outcome in zip(futures.values(), checked_outcomes(outcomes, len(futures)), strict=True):
            is_error = isinstance(outcome, BaseException)
            future.settle(None if is_error else outcome, outcome if is_error else None)

    def _fail(self, error: BaseException) -> None:
        for future in self._futures.values():
            future.settle(None, error)

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError(f"a batch takes calls inside its with block: {self._block}: ...")


class Batch(BaseBatch[_Member, WaitingCall]):
    """
    Calls and notifications that leave as one message. Made by ``Client.batch``.

    ``call`` returns a future that is done when the block ends: inside the block its result cannot be waited for. If the
    block raises, nothing is sent. A batch is used once.

    A call whose future is cancelled inside the block is left out. What was sent may run all the same; once the futures
    of all calls are cancelled, the batch is given up, and the block ends without waiting for the reply.

    Args:
        wait: Sends a message, and returns the body of the reply.
        around: Sends it with its middleware, and returns the outcomes of its calls.
    """

    def __init__(
        self,
        new_id: Callable[[], int],
        make: Callable[[bytes, bool], WaitingCall],
        *,
        wait: Callable[[WaitingCall], bytes],
        drop: Callable[[Call], bool],
        exception_for: messages.ExceptionFor = messages.to_exception,
        around: Callable[[BatchMessage], Any] | None = None,
    ) -> None:
        super().__init__(new_id, make, drop=drop, exception_for=exception_for)
        self._wait = wait
        self._around = around

    def call(self, method: str, params: Params = None) -> Future[Any]:
        """
        Add a call; return the future of its result.

        Raises:
            RuntimeError: Outside the ``with`` block.
        """
        return self._add(method, params)

    def _new_member(self) -> _Member:
        future = _Member()
        future.owner = self
        return future

    def __enter__(self) -> Batch:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        body = self._end(is_sent=kind is None)
        if body is None:
            return
        try:
            if self._around is None:
                self._settle(self._outcomes(self._wait(self._message(body))))
            else:
                self._settle(self._around(self._described(body)))
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._sent = None  # it may refer to this batch


def outcomes_of(reply: bytes, ids: Sequence[Any], exception_for: messages.ExceptionFor) -> list[Any]:
    """
    Return what each call of a batch ends with: its result, or the exception that it raises.

    Raises:
        MalformedReply: The reply is neither an array nor a single error.
    """
    return [
        response.result
        if isinstance(response, messages.Ok)
        else response
        if isinstance(response, BaseException)
        else exception_for(response)
        for response in messages.parse_batch(reply, ids)
    ]


def checked_outcomes(outcomes: Any, calls: int) -> Sequence[Any]:
    """
    Check what middleware has returned for a batch with so many calls.

    Raises:
        TypeError: It is not what ``call_next`` returns: a list with what each call ends with.
    """
    if isinstance(outcomes, (list, tuple)) and len(outcomes) == calls:
        return outcomes
    raise TypeError(
        f"middleware returned {outcomes!r:.80} for a batch; call_next returns a list of what each of its {calls} calls "
        "ends with, a result or an exception"
    )
