"""Holds requests back while an HTTP server cannot be reached, and lets one of them at a time try again."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

log = logging.getLogger("jsonrpc_amqp.bridge")

# Seconds between attempts.
_SHORTEST, _LONGEST = 0.1, 5.0
# How often a request that waits looks whether it still should.
_LOOK_SECONDS = 0.25


class Outage:
    """
    Whether a server can be reached, as far as the last attempts tell.

    While it can, ``admit`` returns at once. When an attempt fails, all requests wait, and one at a time makes an
    attempt, after a pause that doubles up to 5 s: no request fails before its time is up, and no other is taken from
    the queue in its place.

    Args:
        name: Of the server, for the log.
        uniform: Returns a random number between two.
    """

    def __init__(self, name: str, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._name = name
        self._uniform = uniform
        self._changed = threading.Condition()
        self._failures = 0
        self._since = self._retry_at = 0.0
        self._is_trying = False
        self.count = 0
        """How many outages there were."""

    def admit(self, until: float, is_wanted: Callable[[], bool]) -> int | None:
        """
        Wait until an attempt may be made; report its end to ``failed`` or ``reached``.

        Args:
            until: When to wait no longer, in monotonic seconds.
            is_wanted: False: wait no longer.

        Returns:
            What to give to ``failed``; None: the wait is over without an attempt.
        """
        with self._changed:
            while self._failures:
                now = time.monotonic()
                if now >= until or not is_wanted():
                    return None
                if now >= self._retry_at and not self._is_trying:
                    self._is_trying = True
                    break
                pause = _LOOK_SECONDS if self._is_trying else min(_LOOK_SECONDS, self._retry_at - now)
                self._changed.wait(min(pause, until - now))
            return self._failures

    def failed(self, attempt: int, error: str) -> None:
        """Note that an attempt did not reach the server. ``error`` goes to the log."""
        with self._changed:
            if attempt != self._failures:
                return  # it began before the outage, which another one has noted
            now = time.monotonic()
            if not attempt:
                self._since = now
                self.count += 1
            self._failures += 1
            pause = min(_LONGEST, _SHORTEST * 2.0 ** min(attempt, 10)) * self._uniform(0.5, 1.0)
            self._retry_at, self._is_trying = now + pause, False
            self._changed.notify_all()
        log.warning("%s: %s; requests wait, next attempt in %.1f s", self._name, error, pause)

    def reached(self) -> None:
        """Note that an attempt reached the server, or ended before it could tell."""
        if not self._failures:
            return
        with self._changed:
            failures, self._failures, self._is_trying = self._failures, 0, False
            seconds = time.monotonic() - self._since
            self._changed.notify_all()
        if failures:
            log.info("%s: reached again after %.1f s and %d attempts", self._name, seconds, failures)
