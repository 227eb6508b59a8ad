"""A runtime without threads: a plain ``selectors`` loop, which the test runs itself."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Callable

from jsonrpc_amqp.runtime.base import Driven, InlineJobs

PATIENCE = 10.0


class SelectorRuntime:
    """
    Drives one connection whenever the test calls ``run_until``, on the thread that does.

    The only other thread is the one that connects, while it does: py-amqp's handshake blocks.
    """

    writes_behind = False

    def __init__(self) -> None:
        self._driven: Driven
        self._jobs: InlineJobs | None = None
        self._selector = selectors.DefaultSelector()
        self._is_woken = True
        self._watched: int | None = None
        self._thread = threading.get_ident()

    def start(self, driven: Driven, name: str) -> None:
        self._driven = driven

    def wake(self) -> None:
        self._is_woken = True

    def run_blocking(self, function: Callable[[], None], name: str) -> None:
        threading.Thread(target=function, name=name).start()

    def set_inline_jobs(self, jobs: InlineJobs) -> None:
        self._jobs = jobs

    def drive_until(self, is_done: Callable[[], bool], deadline: float) -> None:
        self.run_until(is_done, deadline)

    def reclaim(self) -> None:
        pass

    def unwatch(self) -> None:
        if self._watched is not None:
            self._selector.unregister(self._watched)
            self._watched = None

    def would_deadlock(self) -> bool:
        return False  # its only thread may wait, since it drives while it does

    def close(self, timeout: float) -> bool:
        self.run_until(lambda: self._driven.finished, time.monotonic() + timeout)
        self._selector.close()
        return self._driven.finished

    def run_until(self, is_done: Callable[[], object], deadline: float | None = None) -> None:
        """Drive until something is so; fail after ``PATIENCE`` seconds, unless a deadline is given."""
        give_up = time.monotonic() + PATIENCE if deadline is None else deadline
        while not is_done() and (now := time.monotonic()) < give_up:
            self.turn(now, give_up)
        assert deadline is not None or is_done()

    def turn(self, now: float = 0.0, give_up: float = 0.0) -> None:
        """Do what is due, wait for events until then at most, and handle them."""
        now = now or time.monotonic()
        self._is_woken = False
        due = self._driven.tick(now)
        if self._driven.finished:
            return
        self._watch()
        if self._jobs is not None:
            while (job := self._jobs.next_inline_job()) is not None:
                job()
        # The thread that connects has no other way to wake this one, so it does not sleep for long.
        until = min(give_up, now + 0.01, now + 0.01 if due is None else due)
        for _key, events in self._selector.select(0 if self._is_woken else max(0.0, until - time.monotonic())):
            if events & selectors.EVENT_WRITE:
                self._driven.on_writable()
            if events & selectors.EVENT_READ:
                try:
                    self._driven.on_readable()
                except Exception as exc:
                    self._driven.fail(exc)

    def _watch(self) -> None:
        fd, wants_room = self._driven.interest()
        if self._watched != fd:
            self.unwatch()
        if fd is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_room else 0)
        if self._watched is None:
            self._selector.register(fd, events)
        else:
            self._selector.modify(fd, events)
        self._watched = fd
