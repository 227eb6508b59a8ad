"""
The attempts of one connection to connect: which broker, for how long, and whether another follows.

Each attempt blocks on a thread of the runtime's. All else is called by the leader, but for ``start``, which is called
with the lock of the connection held.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from ..errors import NotConnected, TransportError
from ..logs import deferred_lines
from ..options import ConnectionOptions
from ..runtime.base import Runtime
from .back_off import LONGEST, BackOff
from .base import Plan
from .broker_errors import REFUSALS, summary
from .deadline import Deadline
from .happy_eyeballs import AddressMemory
from .link import Link, dial
from .url import BrokerURL

# Seconds that an attempt has beyond its deadline, so that its own error is reported, which says more.
_SLACK = 0.5
# Attempts for one broker that were given up, and whose threads still hang: nothing ends the system's lookup of a name.
_MOST_HANGING = 4


class Attempt:
    """
    One attempt to connect to one broker.

    Args:
        url: The broker.
        seconds: How long it may take.
    """

    def __init__(self, url: BrokerURL, seconds: float) -> None:
        self.url = url
        self.deadline = Deadline(seconds)


Ended = Callable[[Attempt, Link | TransportError], None]
"""Called by the thread that connects, once."""


class Dialer:
    """
    Connects to one of several brokers, and knows why that failed.

    A refusal (``broker_errors.REFUSALS``) is final once each broker has refused, unless there was a connection before.
    It then stands for the time of a back-off, so that no program logs in again and again as fast as it can.

    Args:
        urls: The brokers.
        options: How to connect.
        runtime: Runs what blocks.

    Attributes:
        threads: The identifiers of those that connect.
    """

    def __init__(self, urls: list[BrokerURL], options: ConnectionOptions, runtime: Runtime) -> None:
        self._urls = urls
        self._options = options
        self._runtime = runtime
        self._back_off = BackOff(len(urls))
        self._memory = AddressMemory()
        self._broker = 0
        self._attempt: Attempt | None = None
        self._hanging: set[Attempt] = set()  # those that have not ended; their threads change it, too
        self.threads: set[int] = set()  # likewise
        self._failures: dict[int, TransportError] = {}  # the last one of each broker, by its position
        self._refusal: TransportError | None = None
        self._stands_until = 0.0
        self._was_open = False

    def start(self, now: float) -> TransportError | None:
        """Get ready for a first attempt; return the refusal that stands instead, if one does."""
        if self._refusal is not None and now < self._stands_until:
            return self._refusal
        if self._refusal is None or now > self._stands_until + LONGEST:
            self._back_off.reset()
        self._refusal = None
        self._failures.clear()
        return None

    def dial(self, plan: Callable[[], Plan], ended: Ended) -> None:
        """
        Begin an attempt.

        Raises:
            NotConnected: It has failed already.
        """
        self._broker = self._back_off.next_broker()
        url = self._urls[self._broker]
        hanging = sum(each.url is url for each in list(self._hanging))
        if hanging >= _MOST_HANGING:
            raise NotConnected(
                f"no connection to the broker at {url.where}: {hanging} earlier attempts still hang, in the system's "
                "lookup of its name"
            )
        attempt = Attempt(url, url.connect_timeout(self._options.connect_timeout))
        self._hanging.add(attempt)
        try:
            asked = plan()
            self._runtime.run_blocking(lambda: self._run(attempt, asked, ended), name=f"{self._options.name}-dial")
        except BaseException as exc:  # an attempt that is not seen to end would be the last one
            self._hanging.discard(attempt)
            if isinstance(exc, NotConnected):
                raise
            raise _no_connection(url, exc) from exc
        self._attempt = attempt

    def _run(self, attempt: Attempt, plan: Plan, ended: Ended) -> None:
        """Connect; runs wherever the runtime runs what blocks."""
        with deferred_lines():  # a log handler may wait for a call, and so for this connection
            self.threads.add(threading.get_ident())
            result = self._try_to_dial(attempt, plan)
            self.threads.discard(threading.get_ident())
            self._hanging.discard(attempt)
            ended(attempt, result)

    def _try_to_dial(self, attempt: Attempt, plan: Plan) -> Link | TransportError:
        try:
            return dial(attempt.url, plan, self._options, attempt.deadline, self._memory)
        except TransportError as exc:
            return exc
        except BaseException as exc:
            return _no_connection(attempt.url, exc)

    def accept(self, attempt: Attempt) -> bool:
        """Take note that an attempt ended. False: it was given up before."""
        is_current = attempt is self._attempt
        if is_current:
            self._attempt = None
        return is_current

    @property
    def give_up_at(self) -> float:
        """When the attempt is to be given up, in monotonic seconds; infinite where there is none."""
        return math.inf if self._attempt is None else self._attempt.deadline.by + _SLACK

    def give_up(self) -> NotConnected:
        """Give up the attempt, which has not kept to its deadline; return its error."""
        attempt = self._attempt
        assert attempt is not None
        self.cancel()
        return NotConnected(f"no connection to the broker at {attempt.url.where}: {attempt.deadline.expired()}")

    def cancel(self) -> None:
        """End the attempt, if there is one, without a result."""
        if self._attempt is not None:
            self._attempt.deadline.cancel()
            self._attempt = None

    def failed(self, error: TransportError) -> tuple[TransportError, float | None]:
        """
        Take note that the attempt failed.

        Returns:
            The error to report, of all brokers that failed; and in how many seconds the next attempt is to begin. None:
            there is none until ``start``.
        """
        self._failures[self._broker] = error
        reported = summary([error, *(each for at, each in self._failures.items() if at != self._broker)])
        # What worked before may work again: permissions and limits change.
        if isinstance(reported, REFUSALS) and len(self._failures) == len(self._urls) and not self._was_open:
            self._refusal = reported
            self._stands_until = time.monotonic() + self._back_off.pause()
            return reported, None
        if not self._options.reconnect and self._back_off.was_each_tried:
            return reported, None
        return reported, self._back_off.delay()

    def opened(self) -> None:
        """Take note that there is a connection."""
        self._was_open = True
        self._failures.clear()

    def lost(self, lived: float) -> float:
        """Take note that a connection was lost after so many seconds; return those until the next attempt."""
        return self._back_off.delay_after_loss(lived)


def _no_connection(url: BrokerURL, exc: BaseException) -> NotConnected:
    return NotConnected(f"no connection to the broker at {url.where}: {exc!r}")
