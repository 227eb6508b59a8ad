"""
The parent of ``serve --workers N``: starts the processes, restarts those that die, drains them all at a signal.

Parent and workers share two pipes (``worker``). The end of the lifeline drains the workers. A signal passed on would
do harm where the worker got the signal as well (a process manager may signal a whole group), since a second signal ends
a worker at once. By the status pipe they tell when they serve, and when they have drained.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NoReturn

from ..options import GRACE
from .last_death import LastDeath
from .restarts import Restarts
from .signals import INSISTENT, drain_signals, end_by
from .worker import DRAINED, SERVING, watch_lifeline
from .workers_health import WorkersHealth

log = logging.getLogger("jsonrpc_amqp.workers")

# Seconds beyond the grace that a worker gets to close its connection and to end.
KILL_MARGIN = 5.0


@dataclass(slots=True)
class _Worker:
    number: int
    process: subprocess.Popen[bytes] | None = None
    restarts: Restarts = field(default_factory=Restarts)
    has_drained: bool = False


class Supervisor:
    """
    Runs worker processes until SIGTERM, SIGINT or SIGHUP, then until they have drained.

    A second SIGTERM or SIGINT kills all at once.

    Args:
        command: Starts a worker; ``--worker NUMBER LIFELINE STATUS LAST_DEATH`` is added to it: what ``worker.Parent``
            takes, and the descriptor of ``LastDeath``.
        count: How many workers.
        env: Returns their environment, anew for each start; None is that of this process.
        grace: Seconds that running handlers get to finish. A worker that has not ended ``KILL_MARGIN`` seconds later is
            killed.
        refused: The exit code of a worker that the broker refused. Before any worker has served, that is final: the
            others drain, and ``run`` returns this code.
        undrained: What ``run`` returns where a worker was killed, or left handlers running.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        *,
        env: Callable[[], Mapping[str, str] | None] = lambda: None,
        grace: float = GRACE,
        refused: int,
        undrained: int,
    ) -> None:
        self._command = command
        self._env = env
        self._last_death = LastDeath()
        self._grace = grace
        self._refused = refused
        self._undrained = undrained
        self._workers = [_Worker(number) for number in range(1, count + 1)]
        self._has_served = False
        self._was_signalled = False
        self._draining = False
        self._kill_at: float | None = None
        self._partial_line = b""
        self._code = 0
        self._health = WorkersHealth()
        self.health = self._health.health
        """Returns whether the workers can serve, where their command has them tell it (``Parent.keep_telling``)."""

    def run(self, check: Callable[[], int] | None = None, begun: Callable[[], object] = lambda: None) -> int:
        """
        Run the workers. Only the main thread can, since it handles signals.

        Args:
            check: Called first, in a child process. Where it returns another number than 0, no worker is started.
            begun: Called next, in this process, which forks no more: it may start threads.

        Returns:
            The exit code for this process: 0, ``refused``, ``undrained``, or what the check returned (of a check that a
            signal ended: its number, negative).
        """
        with _Signals(*drain_signals(), signal.SIGCHLD) as signals:
            if check is None or self._passes(check, signals):
                begun()
                self._run_workers(signals)
        return self._code

    # -- the check ----------------------------------------------------------------------------------------

    def _passes(self, check: Callable[[], int], signals: _Signals) -> bool:
        """Run the check in a child: this process must not hold the files and threads that it leaves behind."""
        lifeline, parent_end = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            log.warning("there is no check, since no process can be started for it: %s", error)
            os.close(lifeline)
            os.close(parent_end)
            return True
        if pid == 0:
            os.close(parent_end)
            _run_check(check, signals, lifeline)
        os.close(lifeline)
        code = None
        while code is None:
            if any(number != signal.SIGCHLD for number in signals.wait(None)):
                log.info("got a signal to end while the target is checked")
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return False
            code = dict(_ended_children()).get(pid)
        os.close(parent_end)
        # A signal for the whole process group may have reached the child first.
        self._code = 0 if -code in drain_signals() else code
        return code == 0

    # -- the workers --------------------------------------------------------------------------------------

    def _run_workers(self, signals: _Signals) -> None:
        self._lifeline, self._parent_end = os.pipe()
        self._status, self._worker_status = os.pipe()
        os.set_blocking(self._status, False)
        try:
            while not self._draining or any(worker.process for worker in self._workers):
                self._start_next()
                for number in signals.wait(self._pause(), self._status):
                    if number != signal.SIGCHLD:
                        self._on_signal(number)
                self._reap()
                self._kill_late()
        finally:
            self._drain()  # an error of ours must not leave workers without a parent that can stop them
            for descriptor in (self._lifeline, self._status, self._worker_status):
                os.close(descriptor)
        if self._code == 0:
            log.info("all workers have drained")
        elif self._code == self._undrained:
            log.warning("not all workers have drained: the requests that they still had are delivered again")

    def _pause(self) -> float | None:
        """Return the seconds until the next thing to do; None where nothing is due."""
        if self._draining:
            due = [] if self._kill_at is None else [self._kill_at]
        else:
            due = [worker.restarts.due for worker in self._workers if worker.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _start_next(self) -> None:
        """Start one worker that is due: a signal must not wait until a large number has been started."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.process is None and not self._draining and worker.restarts.due <= now:
                self._start(worker, now)
                return

    def _start(self, worker: _Worker, now: float) -> None:
        worker.restarts.start(now)
        worker.has_drained = False
        descriptors = (self._lifeline, self._worker_status, self._last_death.descriptor)
        try:
            worker.process = subprocess.Popen(
                [*self._command, "--worker", str(worker.number), *map(str, descriptors)],
                env=self._env(),
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                # A terminal sends Ctrl-C to its whole process group; only the parent should get it.
                start_new_session=True,
            )
        except OSError as error:
            self._restart(worker, f"did not start: {error}")
        else:
            log.info("worker %d is process %d", worker.number, worker.process.pid)

    def _reap(self) -> None:
        """
        Note which workers have ended.

        As process 1 of a container, this process is also the parent of all others whose parents have died.
        """
        by_pid = {worker.process.pid: worker for worker in self._workers if worker.process}
        ended = [(by_pid.get(pid), code) for pid, code in _ended_children()]
        self._read_status()  # behind the above: a worker may write until its end
        for worker, code in ended:
            if worker is not None and worker.process is not None:
                worker.process.returncode = code  # or Popen would wait for it as well
                worker.process = None
                self._health.forget(worker.number)
                self._on_exit(worker, code)

    def _read_status(self) -> None:
        with suppress(BlockingIOError):
            while chunk := os.read(self._status, 1 << 16):
                *lines, self._partial_line = (self._partial_line + chunk).split(b"\n")
                for line in lines:
                    self._on_status(line.decode("utf-8", "replace"))

    def _on_status(self, line: str) -> None:
        what, number, why = (*line.split(" ", 2), "", "")[:3]
        worker = next((each for each in self._workers if str(each.number) == number), None)
        if worker is not None and what == SERVING:
            self._has_served = True
            worker.restarts.serve()
        elif worker is not None and what == DRAINED:
            worker.has_drained = True
        elif worker is not None:
            self._health.note(worker.number, what, why)

    def _on_exit(self, worker: _Worker, code: int) -> None:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if self._draining:
            self._on_end_of_drain(worker, how)
            return
        self._last_death.note()
        if code != self._refused:
            self._restart(worker, how)
        elif self._has_served:
            self._restart(worker, f"{how}: the broker refused it, as it may for a while; it has served before")
        else:
            log.error("worker %d %s, and another would too: that is the end", worker.number, how)
            self._code = code
            self._drain()

    def _on_end_of_drain(self, worker: _Worker, how: str) -> None:
        if worker.restarts.has_served and not worker.has_drained:
            log.warning("worker %d %s, and had not drained", worker.number, how)
            self._code = self._code or self._undrained
        else:
            log.info("worker %d %s", worker.number, how)

    def _restart(self, worker: _Worker, how: str) -> None:
        delay = worker.restarts.end(time.monotonic())
        log.warning("worker %d %s; another one in %.1f s", worker.number, how, delay)

    # -- the end ------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number in INSISTENT:
            if self._was_signalled:
                self._kill_all(number)
            self._was_signalled = True
        if not self._draining:
            log.info("got a signal to end; the workers drain")
            self._drain()

    def _drain(self) -> None:
        if not self._draining:
            self._draining = self._health.is_draining = True
            self._kill_at = time.monotonic() + self._grace + KILL_MARGIN
            os.close(self._parent_end)

    def _kill_late(self) -> None:
        """Kill the workers that have not ended in time: they hang, or are stopped."""
        if self._kill_at is None or time.monotonic() < self._kill_at:
            return
        self._kill_at = None
        for worker in self._workers:
            if worker.process is not None:
                late = self._grace + KILL_MARGIN
                log.error("worker %d has not ended within %g s, and is killed", worker.number, late)
                os.kill(worker.process.pid, signal.SIGKILL)
                self._code = self._code or self._undrained

    def _kill_all(self, number: int) -> NoReturn:
        pids = [worker.process.pid for worker in self._workers if worker.process]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        end_by(number)


def _run_check(check: Callable[[], int], signals: _Signals, lifeline: int) -> NoReturn:
    code = 1
    try:
        signals.reset()
        watch_lifeline(lifeline, lambda: os._exit(0))
        code = check()
    except BaseException:
        traceback.print_exc()
    finally:
        # At once, even if the check has started threads.
        os._exit(code)


def _ended_children() -> Iterator[tuple[int, int]]:
    """Yield the process ids and exit codes of all children that have ended; -N is the end by signal N."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended[0], os.waitstatus_to_exitcode(ended[1])


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

    def wait(self, timeout: float | None, *others: int) -> bytes:
        """Return the numbers of the signals that arrived; none: ``timeout`` has passed, or another is readable."""
        readable, _, _ = select.select([self._arrived, *others], [], [], timeout)
        return os.read(self._arrived, 4096) if self._arrived in readable else b""

    def reset(self) -> None:
        """Give the signals their default effects, in a child process that was forked."""
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            signal.signal(number, signal.SIG_DFL)

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
