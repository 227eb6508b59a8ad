"""
What a live link asks the broker for on its control channel: bindings, declarations, how full a queue is.

Operations are pipelined: each is sent without waiting for the one before, so that many of them take few round trips.
The broker answers them in order; by an error it closes the channel, and ignores what came behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import TransportError
from .py_amqp import AmqpChannel

# How many may be without an answer: what came behind an error is sent again.
MOST_UNDER_WAY = 64

Step = Callable[[AmqpChannel], Any]
Done = Callable[[tuple[Any, ...]], None]
Failed = Callable[[TransportError], None]


class Operations:
    """
    The operations of one live link. By the leader only.

    After an error they go one at a time, and each success allows one more: where the broker refuses many in a row,
    each is sent once, and not again behind each of the others.

    Args:
        channel: The control channel.

    Attributes:
        channel: The control channel, which only this uses once the link is live.
    """

    def __init__(self, channel: AmqpChannel) -> None:
        self.channel = channel
        self._under_way: deque[_Operation] = deque()
        self._waiting: deque[_Operation] = deque()
        self._most = MOST_UNDER_WAY

    @property
    def is_busy(self) -> bool:
        """Whether an operation is not answered yet."""
        return bool(self._under_way)

    @property
    def is_closed(self) -> bool:
        """Whether the control channel is closed."""
        return self.channel.channel_id is None

    def perform(self, start: Step, done: Done, failed: Failed, batch: object = None) -> None:
        """
        Perform an operation, behind those before.

        Args:
            start: Sends one method, which the broker answers.
            done: Called with the arguments of the answer.
            failed: Called with the error.
            batch: Operations with the same one belong together: if one fails, those behind it are dropped, and
                neither ``done`` nor ``failed`` of these is called.
        """
        self._waiting.append(_Operation(start, done, failed, batch))
        self._start_next()

    def go_on(self, channel: AmqpChannel, error: TransportError) -> None:
        """Go on over another channel, since the broker closed the one before because of the oldest operation."""
        self.channel = channel
        self._most = 1
        rejected = self._under_way.popleft() if self._under_way else None
        self._waiting.extendleft(reversed(self._under_way))
        self._under_way.clear()
        if rejected is not None:
            if rejected.batch is not None:
                self._waiting = deque(each for each in self._waiting if each.batch is not rejected.batch)
            rejected.failed(error)
        self._start_next()

    def _start_next(self) -> None:
        while self._waiting and len(self._under_way) < self._most:
            operation = self._waiting.popleft()
            self._under_way.append(operation)
            self.channel.expecting(self._answered)
            operation.start(self.channel)

    def _answered(self, args: tuple[Any, ...]) -> None:
        self._most = min(self._most + 1, MOST_UNDER_WAY)
        self._under_way.popleft().done(args)
        self._start_next()


@dataclass(slots=True)
class _Operation:
    start: Step
    done: Done
    failed: Failed
    batch: object
