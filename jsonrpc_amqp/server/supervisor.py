"""
The parent of ``serve --workers N``: starts the processes, restarts those that die, drains them all at a signal.

Parent and workers share a pipe, the lifeline. Nothing is ever written to it: a worker drains when it reads the end of
the file, that is when the parent closes its end, or dies. A signal passed on would do harm where the worker got the
signal as well (a process manager may signal a whole group), since a second signal ends a worker at once.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

log = logging.getLogger("jsonrpc_amqp.workers")

# Seconds before a restart; each death in a row doubles them. A worker that cannot live must not keep the machine busy.
FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
# A worker that has run for this many seconds can live, so its next death is the first in a row.
HEALTHY = 10.0

_DRAIN = (signal.SIGTERM, signal.SIGINT)


def stop_with_parent(lifeline: int, stop: Callable[[], object]) -> None:
    """
    Have a worker stop when its parent closes the lifeline, or dies.

    Args:
        lifeline: The file descriptor that the worker inherited from its parent.
        stop: Called once, on a thread of its own.
    """

    def watch() -> None:
        os.read(lifeline, 1)
        stop()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


@dataclass(slots=True)
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0


class Supervisor:
    """
    Runs worker processes until SIGTERM or SIGINT, then until they have drained. A second signal kills all at once.

    Args:
        command: Starts a worker; ``--worker NUMBER LIFELINE`` is added to it.
        count: How many workers.
        env: Their environment; that of this process where not given.
        hopeless: The exit code of a worker that is not restarted: the others drain, and ``run`` returns this code.
    """

    def __init__(
        self, command: Sequence[str], count: int, *, env: Mapping[str, str] | None = None, hopeless: int
    ) -> None:
        self._command = command
        self._env = env
        self._hopeless = hopeless
        self._workers = [_Worker(number) for number in range(1, count + 1)]
        self._was_signalled = False
        self._draining = False
        self._code = 0

    def run(self) -> int:
        """
        Run the workers. Only the main thread can, since it handles signals.

        Returns:
            The exit code for this process: 0, or ``hopeless``.
        """
        self._lifeline, self._parent_end = os.pipe()
        try:
            with _Signals(*_DRAIN, signal.SIGCHLD) as signals:
                self._start_due()
                while not self._draining or any(worker.process for worker in self._workers):
                    for number in signals.wait(self._pause()):
                        if number in _DRAIN:
                            self._on_signal(number)
                    self._reap()
                    self._start_due()
        finally:
            self._drain()  # an error of ours must not leave workers without a parent that can stop them
            os.close(self._lifeline)
        return self._code

    def _pause(self) -> float | None:
        """Return the seconds until the next start of a worker; None where none is due."""
        due = [worker.due for worker in self._workers if worker.process is None and not self._draining]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.process is None and not self._draining and worker.due <= now:
                self._start_one(worker, now)

    def _start_one(self, worker: _Worker, now: float) -> None:
        worker.started = now
        try:
            worker.process = subprocess.Popen(
                [*self._command, "--worker", str(worker.number), str(self._lifeline)],
                env=self._env,
                stdin=subprocess.DEVNULL,
                pass_fds=[self._lifeline],
                # A terminal sends Ctrl-C to its whole process group; only the parent should get it.
                start_new_session=True,
            )
        except OSError as error:
            self._schedule_restart(worker, f"did not start: {error}")
        else:
            log.info("worker %d is process %d", worker.number, worker.process.pid)

    def _reap(self) -> None:
        for worker in self._workers:
            code = None if worker.process is None else worker.process.poll()
            if code is not None:
                worker.process = None
                self._on_exit(worker, code)

    def _on_exit(self, worker: _Worker, code: int) -> None:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if self._draining:
            log.info("worker %d %s", worker.number, how)
        elif code == self._hopeless:
            log.error("worker %d %s, and another would too: that is the end", worker.number, how)
            self._code = code
            self._drain()
        else:
            self._schedule_restart(worker, how)

    def _schedule_restart(self, worker: _Worker, how: str) -> None:
        now = time.monotonic()
        worker.deaths = 1 if now - worker.started >= HEALTHY else worker.deaths + 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(worker.deaths - 1, 10))
        worker.due = now + delay
        log.warning("worker %d %s; another one in %.1f s", worker.number, how, delay)

    def _on_signal(self, number: int) -> None:
        if self._was_signalled:
            self._kill_all(number)
        self._was_signalled = True
        log.info("got a signal to end; the workers drain")
        self._drain()

    def _drain(self) -> None:
        if not self._draining:
            self._draining = True
            os.close(self._parent_end)

    def _kill_all(self, number: int) -> None:
        processes = [worker.process for worker in self._workers if worker.process]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


class _Signals:
    """
    Waits for signals, with a timeout.

    It uses handlers rather than ``sigtimedwait``, which needs blocked signals, and workers would inherit those.
    """

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        self._arrived, self._arriving = os.pipe()
        os.set_blocking(self._arriving, False)
        try:
            self._previous_wakeup = signal.set_wakeup_fd(self._arriving, warn_on_full_buffer=False)
        except ValueError:  # not on the main thread
            self._close()
            raise
        self._previous = {number: signal.signal(number, lambda *_: None) for number in self._numbers}
        return self

    def wait(self, timeout: float | None) -> bytes:
        """Return the numbers of the signals that arrived; none: ``timeout`` seconds have passed."""
        readable, _, _ = select.select([self._arrived], [], [], timeout)
        return os.read(self._arrived, 4096) if readable else b""

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup)
        self._close()

    def _close(self) -> None:
        os.close(self._arrived)
        os.close(self._arriving)
