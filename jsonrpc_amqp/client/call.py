"""One message on its way, and what waits for its end (pure, but for a lock)."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import InvalidStateError
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import JsonRpcAmqpError
from .attempts import Attempts, Retry
from .futures import CallFuture

log = logging.getLogger("jsonrpc_amqp.client")


class SendOptions(NamedTuple):
    """
    How a message is sent, where it is not as most are.

    Attributes:
        persistent: Have the broker keep the message on disk.
        is_notification: Its end is the broker's confirm, not a reply.
        headers: AMQP headers to send along.
        retry: Which errors another attempt may follow; see ``may_retry``.
        needs_consumers: End it with ``NoConsumers``, unsent, where its queue has none.
    """

    persistent: bool = False
    is_notification: bool = False
    headers: Mapping[str, Any] | None = None
    retry: Retry | None = None
    needs_consumers: bool = False


PLAIN = SendOptions()


def _as_it_is(body: bytes) -> bytes:
    return body


@dataclass(slots=True, eq=False, repr=False)
class Call(Attempts, ABC):
    """
    One call, batch or notification.

    Attributes:
        number: Given when it is submitted, and anew for each attempt; as text, it pairs the reply (``correlation_id``).
        qid: Stands for the JSON-RPC id in its routing key.
        deadline: Monotonic seconds; infinite for a caller that waits for ever.
        timeout: What the deadline was made from, in seconds, for messages.
        send_options: ``PLAIN`` for most.
        sent: The transport has it, so that the method may have run.
        parse: Makes the result from the body of the reply.
    """

    has_callbacks = False
    """Its end runs callbacks of the user's, on the leader."""

    service: str
    body: bytes
    qid: str
    deadline: float
    timeout: float | None
    send_options: SendOptions = PLAIN
    number: str = field(default="", init=False)
    sent: bool = field(default=False, init=False)
    parse: Callable[[bytes], Any] = field(default=_as_it_is, kw_only=True)

    @abstractmethod
    def succeed(self, body: bytes) -> None:
        """End with the body of the reply; empty for a notification that was confirmed."""

    @abstractmethod
    def fail(self, error: JsonRpcAmqpError) -> None:
        """End with an error."""


@dataclass(slots=True, eq=False, repr=False)
class WaitingCall(Call):
    """A call whose thread waits for it, with a bare lock: a Future costs ten times as much."""

    _reply: bytes = field(default=b"", init=False)
    _error: JsonRpcAmqpError | None = field(default=None, init=False)
    _done: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._done.acquire()

    def succeed(self, body: bytes) -> None:
        self._reply = body
        self._done.release()

    def fail(self, error: JsonRpcAmqpError) -> None:
        self._error = error
        self._done.release()

    def is_done(self) -> bool:
        """Return whether it has ended."""
        return not self._done.locked()

    def wait(self, seconds: float) -> bool:
        """Wait for the end. False: it has not come."""
        return self._done.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def result(self) -> Any:
        """
        Return the result, once the call has ended. To be called once.

        Raises:
            JsonRpcAmqpError: What it ended with.
        """
        error, self._error = self._error, None
        if error is None:
            return self.parse(self._reply)
        try:
            raise error
        finally:
            del error  # and not kept above: the traceback leads here, and the cycle would keep the client of the caller


@dataclass(slots=True, eq=False, repr=False)
class FutureCall(Call):
    """
    A call that a Future stands for.

    Attributes:
        drop: Removes the call from the pending ones; called when its future is cancelled, if that is owned by the call.
    """

    has_callbacks = True

    drop: Callable[[Call], object] = field(init=False)
    future: CallFuture = field(default_factory=CallFuture, init=False)

    def on_cancelled(self, _future: CallFuture) -> None:
        """Its user has cancelled the future."""
        self.drop(self)

    def succeed(self, body: bytes) -> None:
        try:
            result = self.parse(body)
        except Exception as exc:
            self._end(None, exc)
        else:
            self._end(result, None)

    def fail(self, error: JsonRpcAmqpError) -> None:
        self._end(None, error)

    def _end(self, result: object, error: BaseException | None) -> None:
        try:
            self.future.finish(result, error)
        except InvalidStateError:
            return  # its user cancelled it meanwhile
        # Callbacks run in there. A sys.exit() in one must not end the leader, on which all other calls depend.
        except BaseException:
            log.exception("a callback of a future raised")
