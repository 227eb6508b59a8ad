"""Ends calls with errors, unless another attempt follows. Without any lock held: callbacks of the user's may run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

from ..errors import CallTimeout, ClientClosed, ConnectionLost, JsonRpcAmqpError, TransportError
from .attempts import Attempts, Retry, may_retry
from .call import Call
from .lifecycle import Lifecycle
from .replies import Replies
from .retries import Retries
from .timeouts import TimeoutReports


class Endings:
    """
    Ends the calls of one client.

    Args:
        lock: That of the requests.
        reports: Makes the errors of calls that reached their deadline.
        wake: Has the leader look at what is due.
        stats: Counts ``retries`` and ``timeouts``.
    """

    def __init__(
        self,
        lock: threading.RLock,
        life: Lifecycle,
        retries: Retries,
        reports: TimeoutReports,
        replies: Replies,
        *,
        wake: Callable[[], None],
        stats: Counter[str],
    ) -> None:
        self._lock = lock
        self._life = life
        self._retries = retries
        self._reports = reports
        self._replies = replies
        self._wake = wake
        self._stats = stats

    def fail_all(self, failed: Iterable[tuple[Call, JsonRpcAmqpError]]) -> None:
        """End calls as ``fail`` does; those that run callbacks, which may take their time, come last."""
        for call, error in sorted(failed, key=lambda each: each[0].has_callbacks):
            self.fail(call, error)

    def fail(self, call: Call, error: JsonRpcAmqpError) -> None:
        """End a call, which is no longer pending, with an error, unless another attempt follows."""
        if not (may_retry(call.send_options.retry, error) and self._retry(call, error)):
            self.fail_for_good(call, error)

    @staticmethod
    def fail_for_good(call: Call, error: JsonRpcAmqpError) -> None:
        """End a call, which is no longer pending, with an error."""
        call.fail(call.with_attempts(error))

    def fail_closed(self, calls: Iterable[Call]) -> None:
        """End calls, which are no longer pending, because the client is closed."""
        for call in calls:
            closed = ClientClosed("the client was closed before the answer came", may_have_run=call.sent)
            self.fail_for_good(call, closed)

    def expire(self, expired: list[Call], too_late: list[Call]) -> None:
        """End calls that reached their deadline, and calls for which another attempt would come too late."""
        for call in too_late:
            call.fail(call.last_error)
        self.fail_all((call, self.timeout(call)) for call in expired)

    def timeout(self, call: Call) -> TransportError:
        """Return the error of a call that reached its deadline."""
        self._stats["timeouts"] += 1
        return self._reports.error(call, self._life.session, self._life.failure, self._replies.hint)

    def too_late(self, service: str) -> TransportError:
        """Return the error of a call whose deadline passed before its middleware sent it."""
        with self._lock:
            self._stats["timeouts"] += 1
        return CallTimeout(
            f"the deadline of the call of {service!r} passed in its middleware; nothing was sent", may_have_run=False
        )

    def next_attempt(
        self, attempts: Attempts, retry: Retry | None, error: JsonRpcAmqpError, deadline: float
    ) -> float | None:
        """
        Note that an attempt failed, of a call that its caller sends again; return how many seconds later.

        None: no other attempt follows the error, which is not noted then.
        """
        if not may_retry(retry, error):
            return None
        with self._lock:
            if self._life.closed or self._life.gave_up:
                return None
            delay = self._retries.delay(attempts.failures, deadline, time.monotonic())
            if delay is not None:
                attempts.note_failure(error)
                self._stats["retries"] += 1
        return delay

    def _retry(self, call: Call, error: JsonRpcAmqpError) -> bool:
        with self._lock:
            if self._life.closed or self._life.gave_up or not self._retries.schedule(call, error, time.monotonic()):
                return False
            self._stats["retries"] += 1
        self._wake()
        return True


def lost(call: Call, error: TransportError) -> TransportError:
    """Return the error of a call that was sent over a connection that is lost."""
    what = "the broker may have taken it" if call.send_options.is_notification else "the method may have run"
    return ConnectionLost(f"{error}; {what}")
