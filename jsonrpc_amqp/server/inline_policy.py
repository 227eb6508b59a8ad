"""Whether handlers have been quick enough to run on the leader (pure, but for clocks)."""

from __future__ import annotations

import time

# A handler that takes no longer, on average, ends before another thread would be of use. A longer run counts as at most
# the second number: any run is delayed now and then by what else the machine does.
_QUICK_SECONDS = 0.00025
_LONGEST_SECONDS = 8 * _QUICK_SECONDS
_AVERAGED_RUNS = 32
# What computes may take this long, since other threads would wait for the interpreter; and it may wait this long of it.
_QUICK_CPU_SECONDS = 0.0005
_QUICK_WAIT_SECONDS = 0.00015
# A decision takes this many runs. Each failure of inline runs doubles it, up to the second number,
_RUNS = 64
_MOST_RUNS = 1 << 14
# and this many inline runs without a failure reset it.
_ENOUGH_RUNS = 1000
# Cores that a process uses which computes all the time: less than one where the broker uses them as well; more than the
# second number where threads are of use after all, since they leave the interpreter to others.
_BUSY_CORES = (0.5, 1.2)


class InlinePolicy:
    """
    Decides whether handlers are quick, from how long they took.

    Threads that are awake together wait for the interpreter most of the time. So where a process computes all the time,
    and on no more than one core, the CPU time of a run counts instead of its duration. If the handlers do wait for
    something else, this shows once they run inline, and the next attempt comes later.

    There is no lock: two threads that note a run at the same time may lose one of the two, which changes little.
    """

    def __init__(self) -> None:
        self.is_quick = False
        """Whether the leader should run handlers."""
        self._is_never = False
        self._mean = self._mean_cpu = self._mean_wait = 0.0
        self._needed = _RUNS
        self._restart()

    def never(self) -> None:
        """Decide from now on that the leader runs none."""
        self._is_never = True

    @property
    def wants_cpu_time(self) -> bool:
        """Whether inline runs should measure their CPU time, which costs a microsecond."""
        return self._mean > _QUICK_SECONDS / 2

    def ran_on_thread(self, seconds: float, cpu_seconds: float) -> None:
        """Note how long a job took a handler thread."""
        self._mean = _moved(self._mean, seconds)
        self._mean_cpu = _moved(self._mean_cpu, cpu_seconds)
        self._runs += 1
        if self._runs < self._needed or self._is_never:
            return
        if self._mean <= _QUICK_SECONDS or (self._mean_cpu <= _QUICK_CPU_SECONDS and self._is_busy()):
            self._mean, self._mean_wait = self._mean_cpu, 0.0
            self.is_quick = True
        self._restart()

    def ran_inline(self, seconds: float, cpu_seconds: float) -> None:
        """Note how long a job took the leader; 0 CPU seconds where they were not measured."""
        if not self.is_quick:
            return  # the job blocked the leader, which ``fail`` has noted
        self._mean = _moved(self._mean, seconds)
        self._mean_wait = _moved(self._mean_wait, seconds - cpu_seconds)
        self._runs += 1
        if self._mean_wait > _QUICK_WAIT_SECONDS or self._mean - self._mean_wait > _QUICK_CPU_SECONDS:
            self.fail()
        elif self._runs == _ENOUGH_RUNS:
            self._needed = _RUNS

    def fail(self) -> None:
        """Note that a job that ran inline was not quick."""
        self.is_quick = False
        self._needed = min(_MOST_RUNS, 2 * self._needed)
        self._restart()

    def _restart(self) -> None:
        self._runs = 0
        self._began, self._began_cpu = time.monotonic(), time.process_time()

    def _is_busy(self) -> bool:
        least, most = _BUSY_CORES
        elapsed = time.monotonic() - self._began  # 0 where another thread has just restarted, on a coarse clock
        return least * elapsed <= time.process_time() - self._began_cpu <= most * elapsed


def _moved(mean: float, seconds: float) -> float:
    return mean + (min(seconds, _LONGEST_SECONDS) - mean) / _AVERAGED_RUNS
