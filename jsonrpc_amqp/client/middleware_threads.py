"""The threads of one client that run middleware for ``submit``."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

from ..options import MIDDLEWARE_THREADS
from ..runtime.daemons import daemon, exhausted

Job = Callable[[], object]
"""What a thread runs; it raises nothing."""


class MiddlewareThreads:
    """
    Runs jobs on threads, which it starts when it needs them; they are daemons.

    A signal handler may do all this at any point of it, so there is no lock.
    """

    def __init__(self, most: int = MIDDLEWARE_THREADS) -> None:
        self._most = most
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        # An element for each thread that no job is meant for; with more jobs than threads, for some others as well.
        self._idle: deque[None] = deque(maxlen=most)
        self._threads: list[threading.Thread] = []

    def run(self, job: Job) -> None:
        """
        Run a job as soon as there is a thread for it.

        Raises:
            NotConnected: This process can have no thread, and there is none yet.
        """
        try:
            self._idle.pop()
        except IndexError:
            self._start_another()
        self._jobs.put(job)

    def close(self, timeout: float) -> None:
        """End the threads, each after its job; wait for them for ``timeout`` seconds at most."""
        self._jobs.put(None)
        deadline = time.monotonic() + timeout
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _start_another(self) -> None:
        if len(self._threads) >= self._most:
            return
        # It refers to what it needs, and not to a client.
        thread = daemon(self._work, f"jsonrpc-amqp-middleware-{len(self._threads) + 1}")
        self._threads.append(thread)  # first: a signal handler may come here meanwhile
        try:
            thread.start()
        except Exception as exc:
            with suppress(ValueError):
                self._threads.remove(thread)
            if not self._threads:
                raise exhausted(exc) from exc

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it refers to the client, which the program may drop
            self._idle.append(None)
        self._jobs.put(None)  # for the next thread
