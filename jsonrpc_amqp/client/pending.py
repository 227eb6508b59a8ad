"""The calls that await their end: number of a call -> call; answer, expire, fail all (pure)."""

from __future__ import annotations

import heapq
import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from typing import Any, Literal, NamedTuple

from ..errors import AccessRefused, ClientClosed, ConnectionLost, JsonRpcAmqpError, MessageTooLarge, TransportError
from .futures import CallFuture

log = logging.getLogger("jsonrpc_amqp.client")

# So long before a deadline it is looked up how many consumers the queue has, for the error that may follow.
_PROBE_SECONDS = 0.5
_PROBE_SHARE = 0.2


Retry = Literal["safe", "idempotent"]
# Another attempt would end in the same way.
_FINAL = (AccessRefused, ClientClosed, MessageTooLarge)


class SendOptions(NamedTuple):
    """
    What few calls ask for.

    Attributes:
        persistent: Have the broker keep the message on disk.
        unanswered: A notification: its end is the broker's confirm.
        headers: AMQP headers to send along.
        retry: Which errors another attempt may follow: see ``Call.may_retry``.
    """

    persistent: bool = False
    unanswered: bool = False
    headers: Mapping[str, Any] | None = None
    retry: Retry | None = None


PLAIN = SendOptions()


class Call(ABC):
    """
    One message on its way, and who waits for its end.

    Attributes:
        number: Given when it is taken in, and never again; as text, pairs the answer (``correlation_id``).
        qid: Stands for the JSON-RPC id in its routing key.
        deadline: Monotonic seconds; infinite for a caller that waits for ever.
        timeout: What the deadline was made from, in seconds, for messages.
        extra: ``PLAIN`` for most.
        sent: True once the transport has it, so that the method may have run.
        failures: Attempts that failed.
    """

    has_callbacks = False
    """Its end runs code of others, on the thread that owns the connection."""

    __slots__ = (
        "_last_error",
        "_may_have_run",
        "body",
        "deadline",
        "extra",
        "failures",
        "number",
        "qid",
        "sent",
        "service",
        "timeout",
    )

    def __init__(
        self, service: str, body: bytes, qid: str, deadline: float, timeout: float | None, extra: SendOptions = PLAIN
    ) -> None:
        self.number = ""
        self.service = service
        self.body = body
        self.qid = qid
        self.deadline = deadline
        self.timeout = timeout
        self.extra = extra
        self.sent = False
        self.failures = 0
        self._last_error: TransportError | None = None
        self._may_have_run = False

    def may_retry(self, error: JsonRpcAmqpError) -> bool:
        """
        Tell whether another attempt may mend this error without running the method twice, or with the caller's leave.

        What the next attempt would meet again (a message that is too large, a user who may not) is not tried again.
        """
        retry = self.extra.retry
        if retry is None or self.is_cancelled or not isinstance(error, TransportError):
            return False
        if isinstance(error, _FINAL):
            return False
        return not error.may_have_run or (retry == "idempotent" and isinstance(error, ConnectionLost))

    def note_failure(self, error: JsonRpcAmqpError) -> None:
        """Remember an error that another attempt follows."""
        assert isinstance(error, TransportError)
        self.failures += 1
        self.sent = False
        self._last_error = error
        self._may_have_run = self._may_have_run or error.may_have_run

    def with_attempts(self, error: JsonRpcAmqpError) -> JsonRpcAmqpError:
        """Give an error that is the end, with what earlier attempts left behind."""
        if self._last_error is None or not isinstance(error, TransportError):
            return error
        return type(error)(
            f"{error} (attempt {self.failures + 1}; the one before: {self._last_error})",
            may_have_run=error.may_have_run or self._may_have_run,
        )

    @property
    def is_cancelled(self) -> bool:
        """True when nobody awaits its end any more, so that it need not be sent."""
        return False

    @abstractmethod
    def answer(self, body: bytes) -> None:
        """End with the answer's bytes; empty for a notification that was confirmed."""

    @abstractmethod
    def fail(self, error: JsonRpcAmqpError) -> None:
        """End with an error."""


class WaitingCall(Call):
    """A call whose thread waits for it. A bare lock does: a Future costs ten times as much."""

    __slots__ = ("_done", "_error", "_reply")

    def __init__(
        self, service: str, body: bytes, qid: str, deadline: float, timeout: float | None, extra: SendOptions = PLAIN
    ) -> None:
        super().__init__(service, body, qid, deadline, timeout, extra)
        self._reply = b""
        self._error: JsonRpcAmqpError | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def answer(self, body: bytes) -> None:
        self._reply = body
        self._done.release()

    def fail(self, error: JsonRpcAmqpError) -> None:
        self._error = error
        self._done.release()

    def is_over(self) -> bool:
        """Tell whether it has ended."""
        return not self._done.locked()

    def wait(self, seconds: float) -> bool:
        """Wait for the end. False: it has not come."""
        return self._done.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def result(self) -> bytes:
        """
        Give the answer's bytes, once the call has ended.

        Raises:
            JsonRpcAmqpError: What it ended with.
        """
        if self._error is not None:
            raise self._error
        return self._reply


class FutureCall(Call):
    """A call that a Future stands for."""

    has_callbacks = True

    __slots__ = ("_parse", "future")

    def __init__(
        self,
        service: str,
        body: bytes,
        qid: str,
        deadline: float,
        timeout: float | None,
        extra: SendOptions = PLAIN,
        *,
        parse: Callable[[bytes], Any],
    ) -> None:
        super().__init__(service, body, qid, deadline, timeout, extra)
        self._parse = parse
        self.future: Future[Any] = CallFuture()

    @property
    def is_cancelled(self) -> bool:
        return self.future.cancelled()

    def answer(self, body: bytes) -> None:
        try:
            result = self._parse(body)
        except Exception as exc:
            self._end(self.future.set_exception, exc)
        else:
            self._end(self.future.set_result, result)

    def fail(self, error: JsonRpcAmqpError) -> None:
        self._end(self.future.set_exception, error)

    @staticmethod
    def _end(end: Callable[[Any], None], outcome: object) -> None:
        try:
            end(outcome)
        except InvalidStateError:
            return  # its owner cancelled it meanwhile
        # Callbacks run in there. A sys.exit() in one must not take along the thread, and all that others wait for.
        except BaseException:
            log.exception("a callback of a future raised")


class Pending:
    """The calls without an end yet. Not locked: its owner does that."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        # (when, number, is the deadline): a look at the queue first, then the deadline. Answered calls leave theirs
        # behind: taking them out at once would cost each call more than skipping them later.
        self._alarms: list[tuple[float, str, bool]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, number: str | None) -> bool:
        return number in self._calls

    @property
    def next_alarm(self) -> float:
        """When ``due`` has something to give at the earliest, in monotonic seconds; infinite for never."""
        return self._alarms[0][0] if self._alarms else math.inf

    def add(self, call: Call) -> float:
        """Take a call in. Gives when ``due`` has something to give of it, in monotonic seconds; infinite for never."""
        self._calls[call.number] = call
        if call.timeout is None:
            return math.inf
        probe = call.deadline - min(_PROBE_SECONDS, call.timeout * _PROBE_SHARE)
        heapq.heappush(self._alarms, (probe, call.number, False))
        if len(self._alarms) > 2 * len(self._calls) + 1024:
            self._compact()
        return probe

    def get(self, number: str | None) -> Call | None:
        """Give the call of a number, if there is one, and leave it."""
        return self._calls.get(number) if number is not None else None

    def pop(self, number: str | None) -> Call | None:
        """Take out the call of a number, if there is one."""
        return self._calls.pop(number, None) if number is not None else None

    def due(self, now: float) -> tuple[list[Call], list[Call]]:
        """Give the calls that near their deadline, and take out those that reached it."""
        near, expired = [], []
        while self._alarms and self._alarms[0][0] <= now:
            _when, number, final = heapq.heappop(self._alarms)
            call = self._calls.get(number)
            if call is None:
                continue
            if final:
                expired.append(self._calls.pop(number))
            else:
                near.append(call)
                heapq.heappush(self._alarms, (call.deadline, number, True))
        return near, expired

    def take(self, chosen: Callable[[Call], bool]) -> list[Call]:
        """Take out all calls that fit."""
        calls = [call for call in self._calls.values() if chosen(call)]
        for call in calls:
            del self._calls[call.number]
        return calls

    def _compact(self) -> None:
        self._alarms = [alarm for alarm in self._alarms if alarm[1] in self._calls]
        heapq.heapify(self._alarms)
