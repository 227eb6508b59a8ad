"""The calls without an end yet: number of a call -> call, and their deadlines (pure)."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from .call import Call

# When the queue of a call is inspected, for the error that may follow: this many seconds before its deadline, so that
# a slow broker still replies in time, but not before a part of its timeout has passed, since most calls end until then.
_INSPECT_SECONDS = 2.0
_INSPECT_PART = 0.25
# A call that is parked at that time is looked at again, after half of what is left of its time, down to this.
_LEAST_SECONDS = 0.01
# Of calls that ended, beside as many as there are calls: so that compacting costs each call little.
_SPARE_ALARMS = 1024


class Pending:
    """The calls without an end yet. The lock of the requests guards it."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        # (when, number, is the deadline): first the time to inspect the queue, then the deadline. Calls that ended
        # leave theirs behind: to remove it at once would cost each call more than to skip it later.
        self._alarms: list[tuple[float, str, bool]] = []

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, number: str | None) -> bool:
        return number in self._calls

    @property
    def next_alarm(self) -> float:
        """When ``due`` has something to return at the earliest, in monotonic seconds; infinite for never."""
        return self._alarms[0][0] if self._alarms else math.inf

    def add(self, call: Call) -> float:
        """Add a call; return when ``due`` returns it first, in monotonic seconds; infinite for never."""
        self._calls[call.number] = call
        timeout = call.timeout
        if timeout is None:
            return math.inf
        inspect_at = call.deadline - min(_INSPECT_SECONDS, timeout * (1 - _INSPECT_PART))
        heapq.heappush(self._alarms, (inspect_at, call.number, False))
        if len(self._alarms) > 2 * len(self._calls) + _SPARE_ALARMS:
            self._compact()
        return inspect_at

    def get(self, number: str | None) -> Call | None:
        """Return the call of a number, if there is one."""
        return self._calls.get(number) if number is not None else None

    def services(self) -> set[str]:
        """Return the services of all calls."""
        return {call.service for call in list(self._calls.values())}  # of a copy: see ``take``

    def pop(self, number: str | None) -> Call | None:
        """Remove and return the call of a number, if there is one."""
        return self._calls.pop(number, None) if number is not None else None

    def drop(self, number: str | None) -> Call | None:
        """Do what ``pop`` does, for calls that end without a reply: many may do so at once, and none come after."""
        call = self.pop(number)
        if len(self._alarms) > 2 * len(self._calls) + _SPARE_ALARMS:
            self._compact()
        return call

    def due(self, now: float) -> tuple[list[Call], list[Call]]:
        """
        Return the calls whose queues are to be inspected; remove and return those that reached their deadline.

        A queue is inspected once its call was sent: before that, the error of a call does not depend on it.
        """
        near, expired = [], []
        while self._alarms and self._alarms[0][0] <= now:
            _when, number, is_deadline = heapq.heappop(self._alarms)
            call = self._calls.get(number)
            if call is None:
                continue
            if is_deadline:
                if self._calls.pop(number, None) is not None:  # a signal handler may have cancelled it
                    expired.append(call)
            elif not call.sent and (left := call.deadline - now) > _LEAST_SECONDS:
                heapq.heappush(self._alarms, (now + left / 2, number, False))
            else:
                near.append(call)
                heapq.heappush(self._alarms, (call.deadline, number, True))
        return near, expired

    def take(self, chosen: Callable[[Call], bool]) -> list[Call]:
        """Remove and return all calls that fit."""
        # Of a copy: a signal handler may submit and cancel calls meanwhile.
        calls = [call for call in list(self._calls.values()) if chosen(call)]
        return [call for call in calls if self.drop(call.number) is not None]

    def _compact(self) -> None:
        # In this order: a signal handler that submits a call meanwhile adds to the new list.
        alarms, self._alarms = self._alarms, []
        for alarm in alarms:
            if alarm[1] in self._calls:
                heapq.heappush(self._alarms, alarm)
