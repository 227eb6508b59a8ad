"""Whether a process that fuzzes grows with the number of its inputs."""

from __future__ import annotations

from ..abuse.health import memory

# Inputs until all that is made once was made, after which memory may grow by so many bytes; inputs between two looks.
FIRST, MOST, EVERY = 200, 96 << 20, 50


class Resident:
    """The memory of a process, by inputs."""

    def __init__(self) -> None:
        self._inputs = self._base = 0
        self.grown = 0

    def look(self, pid: int) -> None:
        """
        Note one more input of this process.

        Raises:
            AssertionError: It has grown by more than ``MOST`` since the first ones.
        """
        self._inputs += 1
        if self._inputs % EVERY:
            return
        now = memory(pid)
        if self._inputs <= FIRST:
            self._base = max(self._base, now)
        self.grown = max(self.grown, now - self._base)
        assert self.grown < MOST, f"grown by {self.grown / 1e6:.1f} MB in {self._inputs} inputs"
