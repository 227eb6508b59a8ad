"""Whether methods have been so quick that the owner of the connection runs them (pure, but for clocks)."""

from __future__ import annotations

import time

# What takes no longer, on average, is done before another thread would be of use. A longer one counts as this at most:
# any is held up now and then by what else the machine does.
_QUICK_SECONDS = 0.00025
_LONGEST_SECONDS = 8 * _QUICK_SECONDS
_MEMORY = 32  # runs
# What computes may take so long: other threads would have to wait for the interpreter. Of that it may wait so long.
_QUICK_CPU_SECONDS = 0.0005
_QUICK_WAIT_SECONDS = 0.00015
# It takes so many runs to tell. After each time that methods turned out not to be quick twice as many, up to this,
_RUNS = 64
_MOST_RUNS = 1 << 14
# until they were for so many.
_ENOUGH_RUNS = 1000
# What a process takes that computes all the time: less than one core where the broker needs them as well; and more
# where threads are of use after all, since what they do leaves the interpreter to others.
_BUSY_CORES = (0.5, 1.2)


class InlinePolicy:
    """
    Tells whether methods have been quick.

    Threads that are awake together wait for the interpreter most of the time. So where a process computes all the time,
    and on no more than one core, it is the CPU time of a run that counts. If the methods do wait for something else,
    the owner of the connection finds out, and it takes longer until the next try.
    """

    def __init__(self) -> None:
        self.is_quick = False
        self._mean = self._mean_cpu = self._mean_wait = 0.0
        self._needed = _RUNS
        self._begin()

    @property
    def is_doubtful(self) -> bool:
        """Whether CPU time is worth asking for, which takes a microsecond."""
        return self._mean > _QUICK_SECONDS / 2

    def ran_on_thread(self, seconds: float, cpu_seconds: float) -> None:
        """Note how long a job took one of the threads."""
        self._mean = _moved(self._mean, seconds)
        self._mean_cpu = _moved(self._mean_cpu, cpu_seconds)
        self._runs += 1
        if self._runs < self._needed:
            return
        if self._mean <= _QUICK_SECONDS or (self._mean_cpu <= _QUICK_CPU_SECONDS and self._is_busy()):
            self._mean, self._mean_wait = self._mean_cpu, 0.0
            self.is_quick = True
        self._begin()

    def ran_on_owner(self, seconds: float, cpu_seconds: float) -> None:
        """Note how long a job took the owner of the connection; 0 CPU seconds where nobody asked."""
        if not self.is_quick:
            return  # another one drives by now
        self._mean = _moved(self._mean, seconds)
        self._mean_wait = _moved(self._mean_wait, seconds - cpu_seconds)
        self._runs += 1
        if self._mean_wait > _QUICK_WAIT_SECONDS or self._mean - self._mean_wait > _QUICK_CPU_SECONDS:
            self.fail()
        elif self._runs == _ENOUGH_RUNS:
            self._needed = _RUNS

    def fail(self) -> None:
        """Note that what was to be quick is not."""
        self.is_quick = False
        self._needed = min(_MOST_RUNS, 2 * self._needed)
        self._begin()

    def _begin(self) -> None:
        self._runs = 0
        self._began, self._began_cpu = time.monotonic(), time.process_time()

    def _is_busy(self) -> bool:
        least, most = _BUSY_CORES
        elapsed = time.monotonic() - self._began  # 0 where another thread has just begun anew, on a coarse clock
        return least * elapsed <= time.process_time() - self._began_cpu <= most * elapsed


def _moved(mean: float, seconds: float) -> float:
    return mean + (min(seconds, _LONGEST_SECONDS) - mean) / _MEMORY
